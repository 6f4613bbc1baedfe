"""What is known about the columns, models and training sets of the published CSV: units, items, chance levels, families, languages.

Sources: the paper (arXiv 2506.14681, table 3 for items), the repository's README, and the CSV itself. Unknown names, as in your own
CSV, become their own label; unknown models have family and language ``unknown``, and unknown columns count as percentages.
"""

import re
from dataclasses import dataclass

PERCENT, FRACTION, JUDGE = "percent", "fraction", "judge 1-10"
# A cautious bound for four options: the rarest right option is right less often than in 25 % of the items, but not much. BoolQ: "no" is
# right where "yes" is not; "yes" is right in 62.17 % of the items, a score that the CSV holds several times.
CONSTANT = 22.0


@dataclass(frozen=True)
class Column:
    """A column of scores, each a mean over ``items``; ``files``: number of subject files whose means are averaged instead."""

    benchmark: str
    shots: int
    label: str
    group: str
    scale: str = PERCENT
    items: int | None = None
    chance: float | None = None  # points
    constant: float | None = None  # points that answering every item with the same option earns at least
    files: int | None = None
    analysed: bool = True  # False: part of another column, or nearly empty
    judged: bool = False  # a share of items, some of which may lack a judgement

    @property
    def task(self) -> str:
        """Benchmark and number of shots, such as ``mmlu-5``."""
        return f"{self.benchmark}-{self.shots}"


# In the order of the CSV. The audit looks for copied blocks in this order, so that reordering a CSV does not change its audit.
COLUMNS: dict[str, Column] = {
    "mbpp_4shot": Column("mbpp", 4, "MBPP 4-shot", "code", items=257),
    "math-0shot": Column("math", 0, "MATH 0-shot", "mathematics", items=5000),
    "gsm8k-4shot": Column("gsm8k", 4, "GSM8K 4-shot", "mathematics", items=1319),
    "humaneval-0shot": Column("humaneval", 0, "HumanEval 0-shot", "code", items=164),
    "hellaswag-10shot": Column("hellaswag", 10, "HellaSwag 10-shot", "reasoning", items=10042, chance=25, constant=CONSTANT),
    "nq-1shot": Column("nq", 1, "NQ 1-shot", "knowledge", items=3610),
    "BoolQ-5shot": Column("boolq", 5, "BoolQ 5-shot", "knowledge", items=3270, chance=50, constant=37.83),
    "mmlu-5shot": Column("mmlu", 5, "MMLU 5-shot", "examination", items=14042, chance=25, constant=CONSTANT, files=57),
    "mtbench-total": Column("mtbench", 0, "MT-Bench", "instruction following", JUDGE, 80),
    **{
        f"mtbench-{part}": Column(f"mtbench-{part}", 0, f"MT-Bench {part}", "instruction following", JUDGE, 10, analysed=False)
        for part in ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")
    },
    "alpaca_eval_v2-total": Column("alpacaeval", 0, "AlpacaEval", "instruction following", items=805, judged=True),
    "mbpp-0shot": Column("mbpp", 0, "MBPP 0-shot", "code", items=257),
    "gsm8k-0shot": Column("gsm8k", 0, "GSM8K 0-shot", "mathematics", items=1319),
    "nq-0shot": Column("nq", 0, "NQ 0-shot", "knowledge", items=3610),
    "nq-5shot": Column("nq", 5, "NQ 5-shot", "knowledge", items=3610),
    "nq-25shot": Column("nq", 25, "NQ 25-shot", "knowledge", items=3610),
    "BoolQ-0shot": Column("boolq", 0, "BoolQ 0-shot", "knowledge", items=3270, chance=50, constant=37.83),
    "hellaswag-0shot": Column("hellaswag", 0, "HellaSwag 0-shot", "reasoning", items=10042, chance=25, constant=CONSTANT),
    "mmlu-0shot": Column("mmlu", 0, "MMLU 0-shot", "examination", items=14042, chance=25, constant=CONSTANT, files=57),
    "Truthful_QA-0shot": Column("truthfulqa", 0, "TruthfulQA 0-shot", "knowledge", FRACTION, 817),
    "LongBench-v2-0shot": Column("longbench", 0, "LongBench-v2", "long context", items=503, chance=25, constant=CONSTANT, analysed=False),
    "jmmlu-0shot": Column("jmmlu", 0, "MMLU-jp 0-shot", "examination", items=14042, chance=25, constant=CONSTANT, files=57),
    "cmmlu-0shot": Column("cmmlu", 0, "MMLU-zh 0-shot", "examination", items=11582, chance=25, constant=CONSTANT, files=67),
}
_BENCHMARKS = "math gsm8k humaneval mbpp boolq nq truthfulqa mmlu cmmlu jmmlu mtbench alpacaeval"
ZERO_SHOT = tuple(f"{name}-0" for name in _BENCHMARKS.split())  # one variant of each of the paper's 12 benchmarks
# Columns whose mean over files may include the files of other columns (the pattern `mmlu*` matches jmmlu and cmmlu too).
POOLS = {"mmlu-5": ("jmmlu-0", "cmmlu-0"), "mmlu-0": ("jmmlu-0", "cmmlu-0")}


def column(name: str) -> Column:
    """The column of this name; an unknown name is parsed as ``{benchmark}-{k}shot``."""
    if name in COLUMNS:
        return COLUMNS[name]
    match = re.fullmatch(r"(.+?)[-_](\d+)-?shot", name)
    benchmark, shots = (match[1], int(match[2])) if match else (name, 0)
    return Column(benchmark.lower(), shots, f"{benchmark} {shots}-shot", "other")


def in_order(names, known) -> list[str]:
    """``names`` in the order of ``known``, then the unknown ones by name."""
    known = list(known)
    return sorted(names, key=lambda name: (known.index(name) if name in known else len(known), name))


TASKS: dict[str, Column] = {entry.task: entry for entry in COLUMNS.values()}


def task(key: str) -> Column:
    """The column of a task such as ``mmlu-5``; unknown ones count as percentages."""
    if key in TASKS:
        return TASKS[key]
    benchmark, _, shots = key.rpartition("-")
    return Column(benchmark, int(shots), f"{benchmark} {shots}-shot", "other")
