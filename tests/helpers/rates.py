"""How often simulated tests reject, judged as a proportion."""

from scipy import stats


def is_nominal(rejections: list[bool], level: float = 0.05) -> bool:
    """Whether the 99 % interval (Clopper-Pearson) of the rate holds ``level``."""
    low, high = stats.binomtest(sum(map(bool, rejections)), len(rejections)).proportion_ci(0.99)
    return low <= level <= high


def is_at_most(rejections: list[bool], level: float = 0.05) -> bool:
    """Whether the lower end of that interval is not above ``level``: a conservative test passes."""
    return stats.binomtest(sum(map(bool, rejections)), len(rejections)).proportion_ci(0.99)[0] <= level
