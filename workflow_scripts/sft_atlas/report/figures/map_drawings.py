"""The map of checkpoints under other projections than its own: what shows in all of them is no artefact of one."""

import polars as pl
from matplotlib.figure import Figure

from sft_atlas.analyse import analyse_map
from sft_atlas.report.figures import style
from sft_atlas.report.figures.model_map import map_panel

NAMES = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}


def draw(tables: dict[str, pl.DataFrame], study: dict) -> Figure:
    """A panel per projection of the study (``analyse.drawings``) but that of the figure ``model_map``."""
    vectors = analyse_map.vectors(tables["likelihood"])
    if len(vectors.values) < 3 or not vectors.values.shape[1]:
        return style.absent("Projections of the map", "three or more checkpoints of blocks with `measure_representation: true`")
    ways = [how for how in study.get("analyse", {}).get("drawings", ["pca", "tsne", "umap"]) if how != analyse_map.usual(vectors.values)]
    if not ways:
        return style.absent("Projections of the map", "a projection in `analyse: {drawings: ...}` besides that of the figure `model_map`")
    canvas = style.figure(style.PAGE if len(ways) > 2 else style.PAGE * 0.4 * len(ways), 2.9)
    axes = canvas.subplots(1, len(ways), squeeze=False)[0]
    for axis, how in zip(axes, ways, strict=True):
        if how != "pca" and len(vectors.values) < analyse_map.FEWEST_FOR_NEIGHBOURS:
            style.explain(axis, NAMES[how], f"{analyse_map.FEWEST_FOR_NEIGHBOURS}\nor more checkpoints")
            continue
        place, method = analyse_map.project(vectors.values, how, study["seed"])
        map_panel(axis, vectors.keys.with_columns(pl.Series("x", place[:, 0]), pl.Series("y", place[:, 1])), study)
        axis.set_title(f"{method}; n = {len(place)}")
        axis.set_xlabel("to scale" if how == "pca" else "distances not to scale")
    style.models_legend(canvas, study, vectors.keys["model"], vectors.keys["method"])
    return canvas
