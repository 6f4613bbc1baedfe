"""Share of the squared distance between checkpoints that each factor explains: PERMANOVA with several terms.

Anderson 2001 (doi:10.1111/j.1442-9993.2001.01070.pp.x), McArdle and Anderson 2001: sums of squares of a linear model, from distances
alone, each term given the others. Checkpoints are not exchangeable: the methods of one base model and training set share data and
start, the epochs of a run are one path, and each base model responds to sets, methods and epochs in its own way. The caller therefore
names for each term what is exchangeable under its null hypothesis: the signs of whole units (:class:`SignFlipTest`), or the order of whole
cells (:class:`CellPermutationTest`; exchangeable units: Anderson and ter Braak 2003, doi:10.1080/00949650215733).
"""

from dataclasses import dataclass
from math import factorial, prod

import numpy as np

from sft_atlas.stats.estimates import EXACT_CLUSTERS, all_signs

PERMUTATIONS = 999
FEWEST = 20  # arrangements that can differ: below, no p can be under 0.05


@dataclass(frozen=True)
class Term:
    """Share of the total sum of squares that a term adds to the others, degrees of freedom, pseudo-F and p; NaN where undefined.

    ``chance``: the mean share over the arrangements of the test; ``test``: what was rearranged, or why there is no p.
    """

    name: str
    share: float
    df: int
    f: float
    p: float
    n: int
    chance: float = np.nan
    test: str = ""


@dataclass(frozen=True)
class SignFlipTest:
    """Flip the signs of the residuals of whole units (``labels`` [n], called ``of``).

    Exact in a balanced design where the effects of the term in different units are independent and symmetric about 0, whatever the
    dependence and spread within a unit. With fewer than ``fewest`` arrangements the test is not made.
    """

    labels: np.ndarray
    of: str
    fewest: int = FEWEST

    def obstacle(self) -> str:
        """Why there is no p; empty where there is one."""
        units = len(set(self.labels.tolist()))
        return f"{units} {self.of} are too few for a sign-flip test" if 2 ** (units - 1) < self.fewest else ""

    def description(self) -> str:
        """What is rearranged, in words."""
        return f"signs of {len(set(self.labels.tolist()))} {self.of}"

    def null(self, added: np.ndarray, left: np.ndarray, rest: np.ndarray, inner: np.ndarray, rng, count: int) -> tuple[np.ndarray, bool]:
        """Sums of squares of term and residual [arrangements, 2], the observed one first, and whether these are all arrangements."""
        member = np.unique(self.labels, return_inverse=True)[1][:, None] == np.arange(len(set(self.labels.tolist())))
        residuals = rest @ inner @ rest
        between = [member.T @ (part * residuals) @ member for part in (added, left)]
        units = member.shape[1]
        if exact := units <= EXACT_CLUSTERS:  # all signs reversed is the same arrangement, so the first unit keeps its own
            signs = all_signs(units)[::-1][: 2 ** (units - 1)]
        else:
            signs = np.concatenate([np.ones((1, units)), rng.choice((-1.0, 1.0), size=(count, units))])
        return np.stack([((signs @ part) * signs).sum(axis=1) for part in between], axis=1), exact


@dataclass(frozen=True)
class CellPermutationTest:
    """Permute whole cells (``labels`` [n], called ``of``) inside ``within`` [n] (``inside``); ``roles`` [n] name the checkpoints of a cell.

    Only cells of the same roles change places. Exact where the cells of one ``within`` are exchangeable, in spread as well as in location.
    """

    labels: np.ndarray
    within: np.ndarray
    roles: np.ndarray
    of: str
    inside: str

    def blocks(self) -> list[np.ndarray]:
        """Checkpoints that are exchangeable: indices, cells x roles, one array per block of cells."""
        cells, blocks = {}, {}
        for i in np.argsort(self.roles, kind="stable").tolist():
            cells.setdefault((self.within[i], self.labels[i]), []).append(i)
        for (inside, _), members in cells.items():
            blocks.setdefault((inside, *self.roles[members].tolist()), []).append(members)
        return [np.array(block) for block in blocks.values()]

    def obstacle(self) -> str:
        """Why there is no p; empty where there is one. The same order in every block renames the cells and changes nothing."""
        sizes = [factorial(len(block)) for block in self.blocks()]
        return f"{self.of} within each {self.inside} are too few for a permutation test" if prod(sizes) // max(sizes) < FEWEST else ""

    def description(self) -> str:
        """What is rearranged, in words."""
        return f"{self.of}, permuted within each {self.inside}"

    def null(self, added: np.ndarray, left: np.ndarray, rest: np.ndarray, inner: np.ndarray, rng, count: int) -> tuple[np.ndarray, bool]:
        """As for :class:`SignFlipTest`; never all arrangements."""
        orders, shuffled, sums = np.tile(np.arange(len(inner)), (1 + count, 1)), rest @ inner @ rest, []
        for block in self.blocks():
            picked = rng.permuted(np.tile(np.arange(len(block)), (count, 1)), axis=1)
            orders[1:, block.ravel()] = block[picked].reshape(count, -1)
        for order in orders:
            moved = shuffled[order][:, order]
            sums.append((np.vdot(added, moved), np.vdot(left, moved)))
        return np.array(sums), False


def gower(squared: np.ndarray) -> np.ndarray:
    """Inner products of centred positions from squared distances [n, n]."""
    half = -0.5 * np.asarray(squared, dtype=float)
    rows, columns = half.mean(axis=0, keepdims=True), half.mean(axis=1, keepdims=True)
    return half - rows - columns + half.mean()


def projection(*factors) -> tuple[np.ndarray, int]:
    """Projection on the space of an intercept and the factors' dummies [n, n], and its rank."""
    n = len(factors[0]) if factors else 0
    columns = [np.ones((n, 1))]
    for factor in factors:
        _, codes = np.unique(np.asarray(factor), return_inverse=True)
        columns.append(np.eye(codes.max() + 1)[codes])
    left, scale, _ = np.linalg.svd(np.concatenate(columns, axis=1), full_matrices=False)
    basis = left[:, scale > 1e-9 * scale.max()]
    return basis @ basis.T, basis.shape[1]


def partition(
    squared,
    factors: dict[str, object],
    seed: int,
    tests: dict[str, tuple[SignFlipTest | CellPermutationTest, ...]],
    count: int = PERMUTATIONS,
) -> list[Term]:
    """One :class:`Term` per factor of more than one level, given the others, then ``residual``, from squared distances [n, n].

    ``tests`` lists the tests of each factor, best first. The first with enough arrangements for p < 0.05 is used; without one the term has
    no p. In a balanced design the shares add up to 1. Empty where no degree of freedom is left for the residual.
    """
    inner = gower(squared)
    n, total = len(inner), float(np.trace(inner))
    factors = {name: np.asarray(labels) for name, labels in factors.items() if len(set(np.asarray(labels).tolist())) > 1}
    if not factors or total <= 0:
        return []
    full, rank = projection(*factors.values())
    if n <= rank:
        return []
    left = np.eye(n) - full
    residual = float((left * inner).sum())
    rng = np.random.default_rng(seed)
    terms = []
    for name in factors:
        others = [labels for other, labels in factors.items() if other != name]
        reduced, smaller = projection(*others) if others else (np.full((n, n), 1 / n), 1)
        df = rank - smaller
        if df == 0:
            terms.append(Term(name, np.nan, 0, np.nan, np.nan, n, test="confounded with the other factors"))
            continue
        added = full - reduced
        share = float((added * inner).sum() / total)
        f = share * total / max(residual, 1e-300) * (n - rank) / df
        ways = tests.get(name, ())
        way = next((way for way in ways if not way.obstacle()), None)
        if way is None:
            terms.append(Term(name, share, df, f, np.nan, n, test="; ".join(way.obstacle() for way in ways)))
            continue
        sums, exact = way.null(added, left, np.eye(n) - reduced, inner, rng, count)
        ratio = sums[:, 0] / np.maximum(sums[:, 1], 1e-300)
        p = float(np.mean(ratio >= ratio[0] * (1 - 1e-9)))  # the observed arrangement is among them
        terms.append(Term(name, share, df, f, p, n, float(sums[0 if exact else 1 :, 0].mean() / total), way.description()))
    return [*terms, Term("residual", residual / total, n - rank, np.nan, np.nan, n)]
