"""How good advice is on planted data: refusals, rank correlation and regret for base models held out, coverage of intervals."""

import argparse
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "workflow_scripts")]

from sft_atlas.analyse import advise, ranking  # noqa: E402
from sft_atlas.core.markdown import table  # noqa: E402

MODELS, SETS, NEW = 10, 8, 4
NOISE = 3.7  # points: what base models answer differently, as in the published scores (docs/study-design.md)
FAMILIES = [f"f{i // 2}" for i in range(MODELS)]
WORLDS = {  # shared by all base models, and by the two of a family, in units of the noise
    "nothing (null)": (0.0, 0.0),
    "as much as noise": (1.0, 0.0),
    "twice the noise": (2.0, 0.0),
    "as much as noise, families three times": (1.0, 3.0),
}
STUDIES = {  # what sets do for all base models, and how much of it a property of the set tells, in units of the noise; whether candidates are new sets
    "nothing (null), known sets": (0.0, 0.0, False),
    "as much as noise, known sets": (1.0, 0.0, False),
    "twice the noise, known sets": (2.0, 0.0, False),
    "nothing (null), new sets": (0.0, 0.0, True),
    "three times the noise by a property, new sets": (0.0, 3.0, True),
}


def world(rng: np.random.Generator, shared: float, family: float) -> np.ndarray:
    """Effects [10 base models, 8 sets] in points."""
    own = shared * rng.normal(size=SETS) + family * np.repeat(rng.normal(size=(MODELS // 2, SETS)), 2, axis=0)
    return ranking.effects(NOISE * (own + rng.normal(size=(MODELS, SETS))))


def published(count: int) -> list[tuple]:
    """Advice from scores alone, each base model of a world held out in turn."""
    rows = []
    for name, planted in WORLDS.items():
        rng = np.random.default_rng(0)
        found = [ranking.quality(world(rng, *planted), {"family": FAMILIES}, seed=i, shuffles=99) for i in range(count)]
        rank, regret, chance = (np.mean([getattr(part, key).mean() for part in parts]) for parts, key in (
            ([one.adviser for one in found], "rank"), ([one.adviser for one in found], "regret"), ([one.chance for one in found], "regret"),
        ))  # fmt: skip
        covered = sum(one.covered for one in found) / sum(one.intervals for one in found)
        shares = (sum(not one.useful for one in found), sum(one.trait == "family" for one in found))
        rows.append(
            (name, *(f"{part} of {count}" for part in shares), f"{rank:.2f}", f"{regret:.2f} ({chance:.2f})", f"{100 * covered:.1f} %")
        )
    return rows


def study(count: int) -> list[tuple]:
    """Advice from a study with a property of sets, for a base model that is not in it, against what it would have gained."""
    rows = []
    for name, (shared, told, new) in STUDIES.items():
        rng, refused, rank, regret, chance, covered = np.random.default_rng(1), 0, [], [], [], []
        sets = SETS + NEW
        for i in range(count):
            known = rng.normal(size=sets)
            effect = shared * rng.normal(size=sets) + told * known
            gain = NOISE * (effect + rng.normal(size=(MODELS + 1, sets))) / 100
            names = [f"s{d}" for d in range(sets)]
            learned, asked = slice(SETS), slice(SETS, sets) if new else slice(SETS)
            features = np.broadcast_to(known[:, None], (MODELS, sets, 1))
            training = advise.Training(
                gain[:MODELS, learned], features[:, learned], [f"m{m}" for m in range(MODELS)], names[learned], ["words"], "planted"
            )
            made, *_ = advise.advise(training, names[asked], features[0, asked], i)
            if not made:
                refused += 1
                continue
            truth = dict(zip(names[asked], (gain[MODELS, asked] - gain[MODELS, asked].mean()).tolist(), strict=True))
            predicted, true = (np.array([values]) for values in ([one.relative for one in made], [truth[one.dataset] for one in made]))
            rank.append(ranking.rank_agreement(predicted, true))
            regret.append(100 * ranking.regrets(predicted, true)[0][0])
            chance.append(100 * true.max())
            covered += [one.relative_low <= truth[one.dataset] <= one.relative_high for one in made]
        known = (
            (f"{np.mean(rank):.2f}", f"{np.mean(regret):.2f} ({np.mean(chance):.2f})", f"{100 * np.mean(covered):.1f} %")
            if rank
            else ("", "", "")
        )
        rows.append((name, f"{refused} of {count}", *known))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=40, help="simulated studies of each kind")
    count = parser.parse_args().worlds
    print(f"From scores: {MODELS} base models x {SETS} sets, noise {NOISE} points, {count} worlds of each kind\n")
    head = ("what sets do for all base models", "refused", "by family", "rank correlation", "regret, points (at random)", "coverage")
    print(*table(head, published(count), pad=False), sep="\n")
    print(
        f"\nFrom a study: {MODELS} base models x {SETS} sets with a property, candidates: these or {NEW} new sets; of rankings that are not refused\n"
    )
    head = ("what sets do for all base models", "refused", "rank correlation", "regret, points (at random)", "coverage")
    print(*table(head, study(count), pad=False), sep="\n")


if __name__ == "__main__":
    main()
