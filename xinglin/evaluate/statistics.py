"""Statistics of paired comparisons: intervals, exact tests, corrections, and what a sample could have shown.

In: numbers of the same questions under base and tuned, in the same order. Out: ``Interval`` and p-values. One example, 200
questions of which tuned completes 196 and base 3::

    proportion([1] * 196 + [0] * 4)    Interval(value=0.98, low=0.9497, high=0.9922, n=200)
    mcnemar(only_base=0, only_tuned=193)    1.6e-58

NumPy only; bench/paired_statistics.py holds the figures against SciPy and statsmodels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ROUNDS = 10_000
SEED = 20_251
_BLOCK = 8_000_000  # indices drawn at once in the bootstrap: 64 MB
_Z95 = NormalDist().inv_cdf(0.975)
_Z80 = NormalDist().inv_cdf(0.8)


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval; ``n`` is the number of observations behind it."""

    value: float
    low: float
    high: float
    n: int


def proportion(successes: Sequence[float]) -> Interval:
    """Share of ones with Wilson's score interval; ``nan`` throughout for no observation."""
    n, ones = len(successes), float(sum(successes))
    if not n:
        return Interval(math.nan, math.nan, math.nan, 0)
    share, z2 = ones / n, _Z95**2
    center = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return Interval(share, max(0.0, center - half), min(1.0, center + half), n)


def bootstrap(values: Sequence[float], clusters: Sequence[str] = (), rounds: int = ROUNDS, seed: int = SEED) -> Interval:
    """Mean with its percentile-bootstrap interval; whole clusters are drawn where rows share a label in ``clusters``.

    For a paired comparison pass the differences. The same values, labels and seed give the same interval on every machine.
    """
    return ratio(values, [1.0] * len(values), clusters, rounds, seed)


def ratio(
    sums: Sequence[float], sizes: Sequence[float], clusters: Sequence[str] = (), rounds: int = ROUNDS, seed: int = SEED
) -> Interval:
    """Total of ``sums`` over total of ``sizes`` (nats over tokens, say) with its percentile-bootstrap interval over rows."""
    if not len(sums):
        return Interval(math.nan, math.nan, math.nan, 0)
    above, below = _by_cluster(sums, clusters), _by_cluster(sizes, clusters)
    low, high = np.percentile(_means(above, below, rounds, seed), (2.5, 97.5))
    return Interval(float(above.sum() / below.sum()), float(low), float(high), len(sums))


def _by_cluster(values: Sequence[float], clusters: Sequence[str]) -> Floats:
    """Sum of each cluster; every row is its own cluster where no labels are given."""
    rows = np.asarray(values, dtype=np.float64)
    if not len(clusters):
        return rows
    index = np.unique(np.asarray(clusters), return_inverse=True)[1]
    return np.bincount(index, weights=rows).astype(np.float64)


def _means(sums: Floats, sizes: Floats, rounds: int, seed: int) -> Floats:
    """Means of ``rounds`` resamples of clusters, drawn in blocks so that memory stays small."""
    rng = np.random.default_rng(seed)
    block = max(1, _BLOCK // len(sums))
    parts = []
    for start in range(0, rounds, block):
        picks = rng.integers(0, len(sums), (min(block, rounds - start), len(sums)))
        parts.append(sums[picks].sum(axis=1) / sizes[picks].sum(axis=1))
    return np.concatenate(parts)


def difference(base: Sequence[float], tuned: Sequence[float], clusters: Sequence[str] = (), rate: bool = False) -> Interval:
    """Mean of tuned - base over the same questions, by paired bootstrap.

    ``rate``: the values are zeros and ones. Where these all differ alike a resample cannot vary, and an interval of no width
    would be a false promise: they get Bonett and Price's interval for paired shares.
    """
    differences = _differences(base, tuned)
    if rate and len(set(differences)) == 1:
        independent = len(set(clusters)) or len(base)
        return replace(_paired_share(base[:independent], tuned[:independent]), n=len(base))
    return bootstrap(differences, clusters)


def _differences(base: Sequence[float], tuned: Sequence[float]) -> list[float]:
    assert len(base) == len(tuned), f"{len(base)} base values, {len(tuned)} tuned values: not the same questions"
    return [after - before for before, after in zip(base, tuned, strict=True)]


def p_value(base: Sequence[float], tuned: Sequence[float], clusters: Sequence[str] = (), rate: bool = False) -> float:
    """Exact McNemar for zeros and ones of independent questions; sign flips for other values or where clusters repeat."""
    if rate and len(set(clusters)) == len(clusters):
        return mcnemar(*discordant(base, tuned))
    return sign_flip(base, tuned, clusters)


def _paired_share(base: Sequence[float], tuned: Sequence[float]) -> Interval:
    """Difference of paired shares with the Laplace-adjusted Wald interval of Bonett and Price (2012)."""
    gained, lost = discordant(base, tuned)
    n = len(base)
    up, down = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    half = _Z95 * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    return Interval((gained - lost) / n, max(-1.0, up - down - half), min(1.0, up - down + half), n)


def discordant(base: Sequence[float], tuned: Sequence[float]) -> tuple[int, int]:
    """Questions only tuned gets right, questions only base gets right."""
    pairs = list(zip(base, tuned, strict=True))
    return sum(b < t for b, t in pairs), sum(b > t for b, t in pairs)


def mcnemar(only_tuned: int, only_base: int) -> float:
    """Exact two-sided McNemar p-value: a binomial test of the discordant pairs; 1.0 where there are none."""
    n, smaller = only_base + only_tuned, min(only_base, only_tuned)
    term = total = 1
    for k in range(1, smaller + 1):
        term = term * (n - k + 1) // k
        total += term
    return min(1.0, 2 * total / 2**n) if n else 1.0


def sign_flip(base: Sequence[float], tuned: Sequence[float], clusters: Sequence[str] = (), rounds: int = ROUNDS) -> float:
    """Two-sided p-value of "the mean difference is zero", by flipping the sign of whole clusters at random (seeded)."""
    sums = _by_cluster(_differences(base, tuned), clusters)
    sums = sums[sums != 0]
    if not len(sums):
        return 1.0
    rng = np.random.default_rng(SEED)
    block = max(1, _BLOCK // len(sums))
    observed, hits = abs(sums.sum()) * (1 - 1e-12), 0
    for start in range(0, rounds, block):
        signs = rng.integers(0, 2, (min(block, rounds - start), len(sums))) * 2 - 1
        hits += int((np.abs(signs @ sums) >= observed).sum())
    return (hits + 1) / (rounds + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: their maximum error over all tests together stays at the level asked."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def detectable(base: Sequence[float], tuned: Sequence[float], clusters: Sequence[str] = (), rate: bool = False) -> float:
    """Smallest true mean difference this sample would have shown with 80 % power at the 5 % level (``nan`` below two rows).

    From the spread of the differences; for a ``rate`` at least that of one discordant pair.
    """
    differences = _differences(base, tuned)
    sums, sizes = _by_cluster(differences, clusters), _by_cluster([1.0] * len(differences), clusters)
    if len(sums) < 2:
        return math.nan
    mean = sums.sum() / sizes.sum()
    residuals = sums - mean * sizes
    error = math.sqrt(float((residuals**2).sum()) * len(sums) / (len(sums) - 1)) / float(sizes.sum())
    return (_Z95 + _Z80) * max(error, 1 / float(sizes.sum()) if rate else 0.0)


def needed(n: int, detectable: float, margin: float) -> int:
    """How many questions show a difference of ``margin`` with 80 % power, where n show one of ``detectable``."""
    return math.ceil(n * (detectable / margin) ** 2)


def kappa(first: Sequence[str], second: Sequence[str]) -> float:
    """Cohen's kappa of two lists of labels; ``nan`` where chance alone would already agree fully."""
    labels = sorted({*first, *second})
    n = len(first)
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / n
    chance = sum(first.count(label) * second.count(label) for label in labels) / n**2
    return math.nan if chance == 1 else (observed - chance) / (1 - chance)
