"""What the adviser learns from: single sets, with the facts of base models and the benchmark behind each number of shots."""

from helpers import published_csv
from sft_atlas.published import frames, select_single_sets, tidy_published


def test_single_sets_carry_family_language_benchmark_and_items():
    data = frames.of_scores(tidy_published.tidy(published_csv.encode(published_csv.frame(3))))
    table = select_single_sets.single_sets(data)
    assert table.height == data.cells.height and table["score"].equals(data.cells["score"])
    assert "all" not in set(table["dataset"]) and table["family"].null_count() == table["dataset_label"].null_count() == 0
    shots = table.filter(table["task"] == "mmlu-5")
    assert set(shots["benchmark"]) == {"mmlu"} and set(shots["n"]) == {14042}
