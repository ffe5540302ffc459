"""The statistics against SciPy and statsmodels, and against cases whose answer is known."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as peer_mcnemar
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from xinglin.evaluate import statistics


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (3, 0), (10, 2), (7, 7), (193, 0), (400, 350), (1, 3000)])
def test_mcnemar_is_the_exact_one(gained, lost):
    peer = peer_mcnemar([[5, lost], [gained, 5]], exact=True).pvalue if gained + lost else 1.0
    assert statistics.mcnemar(gained, lost) == pytest.approx(peer, abs=1e-12)


@pytest.mark.parametrize(("ones", "n"), [(0, 12), (12, 12), (1, 1), (196, 200), (37, 6811)])
def test_wilson(ones, n):
    found = statistics.proportion([1] * ones + [0] * (n - ones))
    assert (found.low, found.high) == pytest.approx(proportion_confint(ones, n, method="wilson"), abs=1e-12)
    assert (found.value, found.n) == (ones / n, n)


def test_bootstrap_draws_what_scipy_draws():
    values = np.random.default_rng(3).normal(0.2, 1, 157)
    peer = stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(statistics.SEED)
    )
    found = statistics.bootstrap(values.tolist())
    assert (found.low, found.high) == pytest.approx(peer.confidence_interval, abs=1e-12)


def test_bootstrap_in_blocks_is_the_bootstrap_in_one_piece(monkeypatch):
    values = list(np.random.default_rng(0).normal(size=50))
    whole = statistics.bootstrap(values)
    monkeypatch.setattr(statistics, "_BLOCK", 700)
    assert statistics.bootstrap(values) == whole


def test_copies_of_a_question_narrow_nothing():
    values = list(np.random.default_rng(1).normal(size=40))
    copied = statistics.bootstrap(values * 5, [str(i) for i in range(40)] * 5)
    alone = statistics.bootstrap(values)
    assert copied.high - copied.low == pytest.approx(alone.high - alone.low, rel=0.05)
    assert statistics.bootstrap(values * 5).high - statistics.bootstrap(values * 5).low < 0.6 * (alone.high - alone.low)


def test_holm_is_statsmodels_holm():
    p_values = [0.04, 0.001, 0.3, 0.012, 0.012, 1.0]
    assert statistics.holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1], abs=1e-12)
    assert statistics.holm([]) == []


def test_equal_sides_show_no_difference_but_keep_an_interval():
    found = statistics.difference([0] * 30, [0] * 30, rate=True)
    assert found.value == 0
    assert found.low < -0.05 < 0.05 < found.high
    assert statistics.p_value([0] * 30, [0] * 30, rate=True) == 1.0


def test_all_gained_is_no_certainty():
    found = statistics.difference([0] * 10, [1] * 10, rate=True)
    assert found.value == 1.0
    assert 0.5 < found.low < 1.0


def test_sign_flips_agree_with_scipy():
    rng = np.random.default_rng(5)
    base, tuned = rng.normal(size=60), rng.normal(0.3, 1, 60)
    peer = stats.permutation_test(
        (tuned, base), lambda a, b, axis: np.mean(a - b, axis=axis), permutation_type="samples", vectorized=True, rng=1
    )
    assert statistics.sign_flip(base.tolist(), tuned.tolist()) == pytest.approx(peer.pvalue, abs=0.01)


def test_detectable_is_the_figure_of_the_textbook():
    base, tuned = [0.0] * 500 + [1.0] * 500, [0.0] * 450 + [1.0] * 500 + [0.0] * 50
    assert statistics.detectable(base, tuned, rate=True) == pytest.approx(2.8 * math.sqrt(0.1 / 1000), rel=0.01)
    assert statistics.needed(1000, 0.028, 0.014) == 4000


def test_copies_that_are_all_alike_count_once():
    copies = [str(n // 3) for n in range(30)]
    assert (
        statistics.difference([1] * 30, [1] * 30, copies, rate=True).low
        == statistics.difference([1] * 10, [1] * 10, rate=True).low
    )
    assert statistics.difference([1] * 30, [1] * 30, copies, rate=True).n == 30


def test_ratio_weighs_by_size():
    assert statistics.ratio([1.0, 9.0], [1.0, 3.0]).value == 2.5


def test_kappa_is_statsmodels_kappa():
    first, second = list("AABBCABBCA"), list("AABBCBBCCA")
    counts = [[sum(a == x and b == y for a, b in zip(first, second, strict=True)) for y in "ABC"] for x in "ABC"]
    assert statistics.kappa(first, second) == pytest.approx(cohens_kappa(np.array(counts), return_results=False))


def test_different_questions_are_refused():
    with pytest.raises(AssertionError, match="not the same questions"):
        statistics.difference([1.0], [1.0, 0.0])
