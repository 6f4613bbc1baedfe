"""The same figure twice: one order of names, one set of limits."""

from helpers import published_csv
from sft_atlas.published import frames, tidy_published
from sft_atlas.report.figures import style
from sft_atlas.reproduce import figures


def test_both_sides_have_names_in_one_order_and_so_one_colour_each(planted):
    own = planted[1.0][2].data
    published = frames.of_scores(tidy_published.tidy(published_csv.encode(published_csv.frame(0))))
    theirs, ours = figures.together(published, own)
    assert list(theirs.study["models"]) == list(ours.study["models"])
    assert {*published.study["models"], *own.study["models"]} == set(ours.study["models"])
    single = [name for name in ours.study["datasets"] if name != "all"]
    assert single == [name for name in theirs.study["datasets"] if name in single]


def test_panels_with_the_same_labels_share_limits_and_colours():
    sides = []
    for size in (1, 5):
        canvas = style.figure(3, 3)
        points, other, cells = canvas.subplots(3, 1)
        points.plot([0, size], [0, -size])
        points.set_xlabel("points")
        other.plot([0, size], [0, size])
        other.set_xlabel(f"only in {size}")
        style.heat_map(cells, [[size * 0.8]], ["a"], ["b"], size, 1)
        sides.append((canvas, points, other, cells))
    (first, *one), (second, *two) = sides
    style.share_axes(first, second)
    assert one[0].get_xlim() == two[0].get_xlim() and one[0].get_ylim() == two[0].get_ylim() and one[0].get_xlim()[1] >= 5
    assert one[1].get_xlim() != two[1].get_xlim()
    assert one[2].images[0].get_clim() == two[2].images[0].get_clim() == (-5, 5)
    assert [axis[2].texts[0].get_color() for axis in (one, two)] == ["black", "white"], "numbers can be read on the new ground"
