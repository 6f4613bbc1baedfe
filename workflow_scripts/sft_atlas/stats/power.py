"""How likely tests are to see an effect of a given size, and the smallest effect that they see with a given power.

The tests are those of :mod:`sft_atlas.stats.estimates`: sign flips of whole units, and t. Functions of numbers; draws have a fixed seed.
"""

from collections.abc import Callable
from functools import cache

import numpy as np

from sft_atlas.stats.estimates import EXACT_CLUSTERS, all_signs, smallest_p

POWER = 0.8  # by which a design is judged; Cohen's convention (1988, Statistical Power Analysis for the Behavioral Sciences)
DRAWS = 4000  # of units' effects: a power of 0.8 is known to 1.3 points (95 %)
LARGEST = 1e4  # effects beyond this many standard errors are not looked for
QUANTILES = 2000
NORMAL = 1e5  # degrees of freedom from which t is normal


def t_power(shift: float, df: float, level: float) -> float:
    """Power of a two-sided t test at ``level`` for an effect of ``shift`` standard errors: the noncentral t distribution.

    It is the mean of the normal power over the distribution of the estimated standard error, taken at its quantiles; scipy's noncentral t is
    NaN for some large shifts.
    """
    from scipy.special import ndtr, ndtri, stdtrit

    cut = stdtrit(df, 1 - level / 2) * _deviations(df) if df < NORMAL else np.array([-ndtri(level / 2)])
    return float((ndtr(shift - cut) + ndtr(-shift - cut)).mean())


@cache
def _deviations(df: float) -> np.ndarray:
    """Quantiles of an estimated standard error over the true one."""
    from scipy.special import chdtri

    return np.sqrt(chdtri(df, (np.arange(QUANTILES) + 0.5) / QUANTILES) / df)


def sign_flip_power(units: int, ratio: float, level: float) -> float:
    """Power of the sign-flip test over ``units`` normal effects whose mean is ``ratio`` of their standard deviation.

    The test is exact up to EXACT_CLUSTERS units, and its power is the share of DRAWS simulated studies that it rejects. Beyond, the test is that
    of t to a good approximation, which is used. 0 where no p of so few units can reach the level.
    """
    if not smallest_p(units) <= level:
        return 0.0
    if units > EXACT_CLUSTERS:
        return t_power(ratio * np.sqrt(units), units - 1, level)
    noise, means = _flipped(units)
    sums = np.abs(noise + np.float32(ratio) * means[:, None])
    p = (sums >= sums[-1] * np.float32(1 - 1e-5)).mean(axis=0)  # the last arrangement flips nothing; the other half of all mirrors these
    return float((p <= level).mean())


@cache
def _flipped(units: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums of DRAWS draws of standard normal units under each arrangement of signs [arrangements, draws], and sums of the signs."""
    signs = all_signs(units)[2 ** (units - 1) :].astype(np.float32)
    drawn = np.random.default_rng(units).normal(size=(units, DRAWS)).astype(np.float32)
    return signs @ drawn, signs.sum(axis=1)


@cache
def sign_flip_ratio(units: int, level: float, power: float = POWER) -> float:
    """The smallest mean, in standard deviations of the units, that the sign-flip test sees with ``power``; NaN where there is none."""
    return _smallest(lambda ratio: sign_flip_power(units, ratio, level), power)


@cache
def t_shift(df: float, level: float, power: float = POWER) -> float:
    """The smallest effect, in standard errors, that a two-sided t test sees with ``power``; NaN where there is none."""
    return _smallest(lambda shift: t_power(shift, df, level), power)


def _smallest(power_at: Callable[[float], float], power: float) -> float:
    """Where a growing function reaches ``power``, by doubling and halving."""
    low, high = 0.0, 1.0
    while power_at(high) < power:
        low, high = high, 2 * high
        if high > LARGEST:
            return np.nan
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if power_at(middle) >= power else (middle, high)
    return high


def deviation_power(ratio: float, df: float, level: float) -> float:
    """Power of the one-sided chi-square test that a standard deviation exceeds a value, where it is ``ratio`` times that value."""
    from scipy.special import chdtrc, chdtri

    return float(chdtrc(df, chdtri(df, level) / ratio**2))


def deviation_ratio(df: float, level: float, power: float = POWER) -> float:
    """The smallest such ratio that the test sees with ``power``."""
    from scipy.special import chdtri

    return float(np.sqrt(chdtri(df, level) / chdtri(df, power)))
