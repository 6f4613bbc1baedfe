"""How much a comparison of two training sets, or of two recipes, varies: over base models, over training sets, with the seed, by the items.

The sources are the gains of a study, or the published scores, which have one run a cell. What a source does not show stays unknown (None).
"""

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from sft_atlas.analyse import select
from sft_atlas.analyse.analyse_noise import ALL, cells_of, gains_in_points, replicates_of
from sft_atlas.analyse.variance import complete_part
from sft_atlas.core.errors import AtlasError
from sft_atlas.stats.variance_components import Replicates, crossed_components, replicate_components
from sft_atlas.study.messages import nearest
from sft_atlas.tables.origins import OURS

AXES = ("model", "dataset")


@dataclass(frozen=True)
class Part:
    """A variance in squared points, its 95 % interval (NaN where there is none) and degrees of freedom."""

    variance: float
    low: float = np.nan
    high: float = np.nan
    df: float = np.nan


@dataclass(frozen=True)
class Components:
    """Variances of one side of a comparison, so that a difference has twice as much. None: not known.

    ``model`` and ``dataset``: between base models, or training sets, of what is compared (two recipes only); ``cell``: of each cell beyond that,
    and between base models for two training sets; ``run``: between seeds, on the same items; ``seed`` and ``items``: its parts; ``score``: of
    a gain by the sampling of items. Where ``confounded``, the topmost of model, dataset and cell holds ``run`` too, as no cell has two seeds.
    ``models``, ``sets``, ``cells`` and ``seeded``: how many the first three are from, all cells and those with several seeds.
    """

    model: Part | None = None
    dataset: Part | None = None
    cell: Part | None = None
    run: Part | None = None
    seed: Part | None = None
    items: Part | None = None
    score: Part | None = None
    confounded: bool = False
    models: int = 0
    sets: int = 0
    seeded: int = 0

    def with_seed(self, deviation: float) -> "Components":
        """With a stated standard deviation between seeds. What was measured together with the noise of training loses it, down to 0."""
        stated = Part(deviation**2)
        known = replace(self, run=stated, seed=stated, items=Part(0.0), confounded=False)
        if not self.confounded:
            return known
        top = "cell" if self.cell else "model" if self.model else "dataset"
        part = getattr(self, top)
        less = Part(*(max(0.0, value - deviation**2) for value in (part.variance, part.low, part.high)), part.df)
        return replace(known, **{top: less})

    def with_interaction(self, deviation: float) -> "Components":
        """With a stated standard deviation of the difference between base models, and the same between training sets."""
        half = Part(deviation**2 / 2)
        return replace(self, model=half, dataset=half, cell=Part(0.0), confounded=False)


def of_study(gains: pl.DataFrame, study: dict, recipes: tuple[str, ...], benchmark: str | None) -> Components:
    """Components of a study's own gains (a row for each seed): single sets, last kept epoch, the mean over benchmarks or one of them."""
    gains = gains.filter(pl.col("source") == OURS) if "source" in gains.columns else gains  # not those that others measured
    frame = gains_in_points(gains, benchmark or ALL)
    cells = cells_of(frame.filter(pl.col("dataset").is_in(select.kinds(study, "single"))))
    return components(cells, recipes, list(study["models"]), list(study["datasets"]), study["seed"])


def of_published(scores: pl.DataFrame, methods: tuple[str, ...], benchmark: str | None, seed: int) -> Components:
    """Components of the published scores of single sets: the mean over benchmarks, each counted once, or one of them.

    A base model counts with the columns that all its training sets have. AtlasError where there is no such benchmark.
    """
    if benchmark and benchmark not in (known := scores["benchmark"].unique().sort().to_list()):
        raise AtlasError(
            f"design.benchmark: there are no published scores of {benchmark}{nearest(benchmark, known)}; there are {', '.join(known)}"
        )
    scores = scores.filter(pl.col("benchmark") == benchmark) if benchmark else scores
    part = scores.drop_nulls("score").filter(pl.col("method").is_in(methods))
    runs = pl.struct("dataset", "method").n_unique()
    part = part.filter(runs.over("model", "task") == runs.over("model"))
    means = part.group_by("model", "dataset", "method", "benchmark").agg(pl.col("score").mean())
    cells = means.group_by("model", "dataset", "method").agg(pl.col("score").mean().alias("gain")).rename({"method": "recipe"})
    cells = cells.with_columns(
        seeds=pl.lit(1), variance=pl.lit(None, pl.Float64), score=pl.lit(None, pl.Float64), items=pl.lit(None, pl.Float64)
    )
    orders = [cells[key].unique().sort().to_list() for key in AXES]
    return components(cells, methods, *orders, seed)


def components(cells: pl.DataFrame, recipes: tuple[str, ...], models: list[str], sets: list[str], seed: int) -> Components:
    """Components of ``cells`` (see :func:`sft_atlas.analyse.analyse_noise.cells_of`): of the gains of one recipe, or of the differences of two.

    The variance between seeds is that of the recipes which have several seeds. It is taken out of the others' cells too.
    """
    cells = cells.filter(pl.col("recipe").is_in(recipes))
    known = [found for name in recipes if (found := replicates_of(cells.filter(pl.col("recipe") == name)))]
    replicates = None
    if known:
        mean = [float(np.mean([getattr(one, key) for one in known])) for key in ("variance", "known")]
        replicates = Replicates(mean[0], sum(one.df for one in known), mean[1])
    noise = (
        {each.term: Part(each.variance, each.low, each.high, each.df) for each in replicate_components(replicates, seed)}
        if replicates
        else {}
    )
    score = cells["score"].mean()
    noise |= {"score": None if score is None else Part(float(score)), "seeded": int((cells["seeds"] > 1).sum())}
    names = {
        "model": [name for name in models if name in set(cells["model"])],
        "dataset": [name for name in sets if name in set(cells["dataset"])],
    }
    sides = [cells.filter(pl.col("recipe") == name) for name in recipes]
    values, shares = (
        [select.array(side.with_columns(share=1 / pl.col("seeds")), key, names) for side in sides] for key in ("gain", "share")
    )
    difference = values[0] if len(recipes) == 1 else (values[0] - values[1]) / np.sqrt(2)  # one side's share of its variance
    kept = complete_part(difference) if difference.size else [np.zeros(0, int)] * 2
    part = difference[np.ix_(*kept)]
    counts = 1 / np.mean([share[np.ix_(*kept)] for share in shares], axis=0) if part.size else part
    if not part.size or max(part.shape) < 2 or (len(recipes) == 1 and min(part.shape) < 2):
        return Components(**noise)
    found = {one.term: Part(one.variance, one.low, one.high, one.df) for one in crossed_components(part, AXES, replicates, counts, seed)}
    top = found.get("rest") or found.get("model x dataset")
    if min(part.shape) > 1:
        terms = {"cell": top} if len(recipes) == 1 else {"model": found["model"], "dataset": found["dataset"], "cell": top}
    else:  # one base model, or one training set
        axis = AXES[int(np.argmax(part.shape))]
        terms = {axis: found.get("rest") or found[axis]}
    return Components(**noise, **terms, confounded=replicates is None, models=part.shape[0], sets=part.shape[1])
