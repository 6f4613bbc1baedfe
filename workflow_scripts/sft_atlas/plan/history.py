"""What finished jobs took, read from their own logs, to replace the plan's assumptions."""

import random
import re
import statistics
from pathlib import Path

DONE = re.compile(r"done in ([0-9.]+) s wall")
ENOUGH = 3  # finished jobs of a kind before the logs are believed
RESAMPLES = 400


def seconds(log: Path) -> float | None:
    """Wall seconds of the job that wrote a log, from its last closing line; None while there is none."""
    try:
        found = DONE.findall(log.read_text(encoding="utf-8", errors="replace")[-4000:])
    except FileNotFoundError:
        return None
    return float(found[-1]) if found else None


def correction(pairs: list[tuple[float, float]]) -> tuple[float, float, float] | None:
    """Factor (low, likely, high) from forecast to measured: total over total, with its 95 % bootstrap interval.

    ``pairs`` are (measured, forecast) device-seconds of finished jobs, resampled 400 times, seeded. None for fewer than three.
    """
    if len(pairs) < ENOUGH:
        return None
    rng = random.Random(0)
    ratios = []
    for _ in range(RESAMPLES):
        drawn = rng.choices(pairs, k=len(pairs))
        ratios.append(sum(one for one, _ in drawn) / sum(other for _, other in drawn))
    cuts = statistics.quantiles(ratios, n=40)
    return cuts[0], sum(one for one, _ in pairs) / sum(other for _, other in pairs), cuts[-1]
