"""Are the statistics right? Agreement with SciPy and statsmodels, and coverage of the bootstrap on simulated pairs.

Prints the largest difference per statistic and the share of 95 % intervals that hold the true difference, and writes
bench/results/paired_statistics.json. Needs the packages scipy and statsmodels.

    python bench/paired_statistics.py
"""

import common
import numpy as np
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from xinglin.evaluate import statistics

Pairs = tuple[np.ndarray, np.ndarray]


def agreement(rng: np.random.Generator) -> dict[str, float]:
    """Largest absolute difference from the peers' figures."""
    worst = dict.fromkeys(("mcnemar", "wilson", "holm", "bootstrap"), 0.0)
    for _ in range(300):
        gained, lost = (int(value) for value in rng.integers(0, 400, 2))
        peer = mcnemar([[0, lost], [gained, 0]], exact=True).pvalue if gained + lost else 1.0
        worst["mcnemar"] = max(worst["mcnemar"], abs(statistics.mcnemar(gained, lost) - peer))
        n = int(rng.integers(1, 2000))
        ones = int(rng.integers(0, n + 1))
        found = statistics.proportion([1.0] * ones + [0.0] * (n - ones))
        low, high = proportion_confint(ones, n, method="wilson")
        worst["wilson"] = max(worst["wilson"], abs(found.low - low), abs(found.high - high))
        p_values = rng.random(int(rng.integers(1, 40))) ** 3
        apart = np.abs(np.array(statistics.holm(p_values.tolist())) - multipletests(p_values, method="holm")[1]).max()
        worst["holm"] = max(worst["holm"], float(apart))
    for _ in range(10):
        values = rng.normal(0.1, 1, int(rng.integers(20, 300)))
        peer = stats.bootstrap(
            (values,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(statistics.SEED)
        ).confidence_interval
        found = statistics.bootstrap(values.tolist())
        worst["bootstrap"] = max(worst["bootstrap"], abs(found.low - peer.low), abs(found.high - peer.high))
    return worst


def right_or_wrong(rng: np.random.Generator, n: int) -> tuple[Pairs, float]:
    """Zeros and ones: base right 60 %, of those tuned loses 8 %, of the others tuned gains 20 %."""
    base = (rng.random(n) < 0.6).astype(float)
    tuned = np.where(base == 1, rng.random(n) >= 0.08, rng.random(n) < 0.2).astype(float)
    return (base, tuned), 0.4 * 0.2 - 0.6 * 0.08


def lengths(rng: np.random.Generator, n: int) -> tuple[Pairs, float]:
    """Skewed values: log-normal lengths, tuned 10 % longer with noise."""
    base = rng.lognormal(5, 0.5, n)
    return (base, base * 1.1 + rng.normal(0, 40, n)), 0.1 * float(np.exp(5 + 0.125))


def copied(rng: np.random.Generator, n: int) -> tuple[Pairs, float]:
    """Every question twice (near-duplicates): only whole pairs carry information."""
    (base, tuned), truth = right_or_wrong(rng, n // 2)
    return (np.repeat(base, 2), np.repeat(tuned, 2)), truth


def coverage(make: object, n: int, clusters: list[str], trials: int = 1000) -> float:
    """Share of intervals that hold the truth; 2,000 rounds each instead of 10,000 to keep this to minutes."""
    rng = np.random.default_rng(11)
    held = 0
    for trial in range(trials):
        (base, tuned), truth = make(rng, n)  # type: ignore[operator]
        found = statistics.bootstrap((tuned - base).tolist(), clusters, rounds=2000, seed=trial)
        held += found.low <= truth <= found.high
    return held / trials


def main() -> None:
    worst = agreement(np.random.default_rng(5))
    for name, value in worst.items():
        print(f"largest difference from the peer, {name:<10} {value:.2e}")
    pairs = [str(index // 2) for index in range(400)]
    shares = {
        "right or wrong, n=200": coverage(right_or_wrong, 200, []),
        "right or wrong, n=1000": coverage(right_or_wrong, 1000, []),
        "lengths, n=200": coverage(lengths, 200, []),
        "copies, n=400, clustered": coverage(copied, 400, pairs),
        "copies, n=400, taken as independent": coverage(copied, 400, []),
    }
    for name, share in shares.items():
        print(f"95 % intervals that hold the truth, {name:<36} {share:.1%}")
    common.save("paired_statistics", {"largest_difference": worst, "coverage": shares, "trials": 1000})


if __name__ == "__main__":
    main()
