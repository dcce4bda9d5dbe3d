"""Intervals, tests and power against scipy, statsmodels and simulation."""

import math
import random

import pytest

from clinical_r1.evaluation.measure.resampling import (
    cluster_interval,
    difference_interval,
    kappa_interval,
    mean_interval,
    share_interval,
    sign_flip,
)
from clinical_r1.stats import (
    Pairs,
    cohen_kappa,
    effective_n,
    holm,
    mcnemar,
    minimum_detectable_effect,
    pair_up,
    paired_interval,
    paired_power,
    quantile,
    wilson,
)


@pytest.mark.parametrize(("k", "n"), [(0, 10), (1, 10), (15, 148), (97, 100), (100, 100), (1742, 3500)])
def test_wilson_equals_statsmodels(k, n):
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    assert wilson(k, n) == pytest.approx(proportion.proportion_confint(k, n, method="wilson"), abs=1e-9)


def test_wilson_knows_nothing_of_nothing():
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (5, 15), (15, 5), (10, 10), (0, 8), (1, 1), (70, 120), (310, 250)])
def test_mcnemar_equals_statsmodels_and_scipy(b, c):
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    stats = pytest.importorskip("scipy.stats")
    expected = tables.mcnemar([[7, b], [c, 9]], exact=True).pvalue if b + c else 1.0
    assert mcnemar(b, c, "exact") == pytest.approx(expected, abs=1e-9)
    if b + c:
        mid = 2 * (stats.binom.cdf(min(b, c), b + c, 0.5) - 0.5 * stats.binom.pmf(min(b, c), b + c, 0.5))
        assert mcnemar(b, c) == pytest.approx(min(1.0, mid), abs=1e-9)


@pytest.mark.parametrize("table", [(43, 0, 1, 0), (20, 2, 12, 16), (200, 60, 95, 145), (5, 9, 3, 1), (900, 0, 40, 60)])
def test_paired_interval_ends_where_mcnemars_statistic_is_significant(table):
    """At an end of Tango's interval the score statistic is the normal quantile; at margin 0 it is McNemar's."""
    pairs = Pairs(*table)
    low, high = paired_interval(pairs)
    assert low < pairs.difference < high
    b, c = pairs.second_only, pairs.first_only
    significant = abs(b - c) / math.sqrt(b + c) > quantile(0.95)
    assert (low > 0 or high < 0) == significant


@pytest.mark.parametrize("table", [(43, 0, 1, 0), (20, 2, 12, 16), (200, 60, 95, 145)])
def test_paired_interval_against_a_numerical_likelihood(table):
    """At each end the score statistic, with the nuisance maximised by scipy instead of in closed form, is 1.96."""
    optimize = pytest.importorskip("scipy.optimize")
    pairs = Pairs(*table)
    b, c, n = pairs.second_only, pairs.first_only, pairs.n
    for margin, sign in zip(paired_interval(pairs), (1, -1), strict=True):

        def loss(q, margin=margin):
            return -(c * math.log(q) + b * math.log(q + margin) + (n - b - c) * math.log(1 - 2 * q - margin))

        low, high = max(0.0, -margin) + 1e-12, (1 - margin) / 2 - 1e-12
        q = optimize.minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
        statistic = (b - c - n * margin) / math.sqrt(n * (2 * q + margin - margin**2))
        assert statistic == pytest.approx(sign * 1.96, abs=2e-3)


def test_paired_interval_mirrors():
    low, high = paired_interval(Pairs(30, 5, 12, 20))
    assert paired_interval(Pairs(30, 12, 5, 20)) == pytest.approx((-high, -low))


def test_paired_interval_covers_at_its_nominal_rate():
    rng, covered, runs = random.Random(1), 0, 1000
    for _ in range(runs):
        cells = [0, 0, 0, 0]
        for _ in range(150):
            u = rng.random()
            cells[0 if u < 0.5 else 1 if u < 0.6 else 2 if u < 0.77 else 3] += 1
        low, high = paired_interval(Pairs(*cells))
        covered += low <= 0.07 <= high
    assert 0.93 <= covered / runs <= 0.97


@pytest.mark.parametrize("method", ["exact", "mid-p"])
def test_a_thousand_nulls_reject_at_most_at_the_nominal_rate(method):
    """Two equal models on 400 cases, 20% discordant: rejections at 5% stay within the simulation's own error."""
    rng, runs = random.Random(7), 1000
    rejected = 0
    for _ in range(runs):
        discordant = sum(rng.random() < 0.2 for _ in range(400))
        b = sum(rng.random() < 0.5 for _ in range(discordant))
        rejected += mcnemar(b, discordant - b, method) < 0.05
    assert rejected / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
    assert rejected / runs >= (0.03 if method == "exact" else 0.035)  # a p of twice the size rejects 24 and 30 times


def test_a_thousand_nulls_with_holm_over_seven_specialties():
    """The chance of *any* false rejection among seven specialties stays at 5%."""
    rng, runs, any_rejected = random.Random(11), 1000, 0
    for _ in range(runs):
        values = []
        for _ in range(7):
            discordant = sum(rng.random() < 0.2 for _ in range(80))
            b = sum(rng.random() < 0.5 for _ in range(discordant))
            values.append(mcnemar(b, discordant - b))
        any_rejected += min(holm(values)) < 0.05
    assert 0.02 <= any_rejected / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


@pytest.mark.parametrize("values", [[0.01, 0.04, 0.03, 0.005], [0.5], [0.2, 0.2, 0.9], [1e-9, 0.049, 0.051]])
def test_holm_equals_statsmodels(values):
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    assert holm(values) == pytest.approx(multitest.multipletests(values, method="holm")[1])


@pytest.mark.parametrize(("n", "points"), [(3500, 2.1), (500, 5.6), (50, 17.3)])
def test_minimum_detectable_effect_at_twenty_percent_discordance(n, points):
    assert 100 * minimum_detectable_effect(n, 0.2) == pytest.approx(points, abs=0.05)


def test_minimum_detectable_effect_has_the_power_it_promises():
    effect = minimum_detectable_effect(600, 0.3)
    assert paired_power(600, effect, 0.3) == pytest.approx(0.8, abs=1e-6)
    rng, found, runs = random.Random(3), 0, 800
    for _ in range(runs):
        b = c = 0
        for _ in range(600):
            u = rng.random()
            b += u < (0.3 + effect) / 2
            c += (0.3 + effect) / 2 <= u < 0.3
        found += abs(b - c) / math.sqrt(b + c) > quantile(0.95)
    assert found / runs == pytest.approx(0.8, abs=0.045)


def test_power_of_a_non_inferiority_margin():
    assert paired_power(500, 0.0, 0.2, sides=1, margin=0.08) > 0.95
    assert paired_power(500, -0.08, 0.2, sides=1, margin=0.08) == pytest.approx(0.05, abs=0.01)
    assert paired_power(0, 0.1, 0.2) == 0.0


@pytest.mark.parametrize("table", [[[40, 9], [6, 45]], [[10, 3, 1], [2, 20, 5], [0, 4, 15]], [[1, 30], [2, 1]]])
def test_kappa_equals_statsmodels(table):
    rater = pytest.importorskip("statsmodels.stats.inter_rater")
    expected = rater.cohens_kappa(table)
    kappa, (low, high) = cohen_kappa(table)
    assert kappa == pytest.approx(expected.kappa)
    assert (low, high) == pytest.approx((max(-1, expected.kappa_low), min(1, expected.kappa_upp)), abs=1e-6)


def test_pairs_of_aligned_lists():
    pairs = pair_up([True, True, False, False], [True, False, True, False])
    assert pairs == Pairs(1, 1, 1, 1)
    assert pairs.discordance == 0.5
    with pytest.raises(ValueError, match="zip"):
        pair_up([True], [])


def test_cluster_interval_agrees_with_the_binomial_where_clusters_are_single():
    values = [1.0] * 60 + [0.0] * 40
    low, high = cluster_interval(values, [0] * 100, range(100))
    assert (low, high) == pytest.approx((0.6 - 1.96 * math.sqrt(0.0024), 0.6 + 1.96 * math.sqrt(0.0024)), abs=0.02)


def test_cluster_interval_widens_with_repeated_patients():
    """Ten identical answers of each of 20 patients are worth 20 answers, not 200."""
    values = [float(patient < 12) for patient in range(20) for _ in range(10)]
    patients = [patient for patient in range(20) for _ in range(10)]
    clustered = cluster_interval(values, [0] * 200, patients)
    single = cluster_interval(values, [0] * 200, range(200))
    assert clustered.high - clustered.low > 2.5 * (single.high - single.low)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (5, 15), (12, 12), (0, 8), (70, 120)])
def test_sign_flip_without_clusters_is_mcnemars_exact_test(b, c):
    differences = [-1] * b + [1] * c + [0] * 30
    exact, mid = sign_flip(differences, range(len(differences)))
    assert exact == pytest.approx(mcnemar(b, c, "exact"), abs=1e-9)
    assert mid == pytest.approx(mcnemar(b, c), abs=1e-9)


def test_sign_flip_equals_scipys_permutation_test():
    stats, np = pytest.importorskip("scipy.stats"), pytest.importorskip("numpy")
    totals = [3, -1, 2, 2, -4, 1, 1, 5]
    expected = stats.permutation_test(
        (np.array(totals),), np.sum, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    ).pvalue
    differences = [int(math.copysign(1, total)) for total in totals for _ in range(abs(total))]
    clusters = [index for index, total in enumerate(totals) for _ in range(abs(total))]
    assert sign_flip(differences, clusters)[0] == pytest.approx(expected, abs=1e-9)


def test_a_thousand_nulls_with_repeated_patients():
    """Four alike answers a patient: McNemar's p would reject far too often, the clustered one keeps its level."""
    rng, runs, rejected, naive = random.Random(5), 1000, 0, 0
    for _ in range(runs):
        differences, clusters = [], []
        for patient in range(60):
            value = rng.choice((-1, 0, 0, 1))
            differences += [value] * 4
            clusters += [patient] * 4
        rejected += sign_flip(differences, clusters)[1] < 0.05
        naive += mcnemar(differences.count(-1), differences.count(1)) < 0.05
    assert rejected / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
    assert rejected / runs >= 0.02
    assert naive / runs > 0.2


def test_bootstrap_equals_scipys():
    stats, np = pytest.importorskip("scipy.stats"), pytest.importorskip("numpy")
    values = np.array([0.0, 0.25, 0.5, 0.75, 1.0] * 40)
    expected = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=4000, rng=3).confidence_interval
    low, high = cluster_interval(values.tolist(), [0] * 200, range(200))
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.006)


def test_an_interval_of_equal_values_is_no_certainty():
    assert mean_interval([1.0] * 6, ["a"] * 6, range(6)) == wilson(6, 6)
    assert mean_interval([1.0] * 6, ["a"] * 6, [0, 0, 1, 1, 2, 2]) == wilson(3, 3)
    assert mean_interval([1.0, 0.0], ["a"] * 2, [0, 0]) == wilson(0.5, 1)
    assert mean_interval([], [], []) == (0.0, 1.0)


def test_one_patient_in_each_stratum_is_no_certainty():
    """Bootstrapped stratum by stratum, single patients do not vary: small strata are pooled."""
    values = [1.0, 0.0] * 10
    alone = cluster_interval(values, range(20), range(20))
    assert alone == pytest.approx(cluster_interval(values, [0] * 20, range(20)), abs=1e-9)
    assert alone.high - alone.low > 0.3
    large = cluster_interval(values * 5 + [1.0], [0] * 100 + [1], range(101))
    assert large.low < large.high


def test_alike_differences_get_tangos_interval():
    assert difference_interval([0.0] * 8, ["a"] * 8, range(8)) == paired_interval(Pairs(8, 0, 0, 0))
    assert difference_interval([-1.0] * 8, ["a"] * 8, [0, 0, 1, 1, 2, 2, 3, 3]) == paired_interval(Pairs(0, 4, 0, 0))
    quarter = difference_interval([0.25] * 8, ["a"] * 8, range(8))
    assert quarter.low < 0.25 <= quarter.high
    assert difference_interval([], [], []) == (-1.0, 1.0)


def test_repeated_answers_widen_share_and_kappa_and_count_once():
    """Five equal grades of each of 40 cases are worth 40 grades."""
    once = [(case % 2 == 0, case % 2 == 0 and case % 8 != 0) for case in range(40)]
    often, cases = [pair for pair in once for _ in range(5)], [case for case in range(40) for _ in range(5)]
    kappa, wide = kappa_interval(often, cases)
    single, narrow = kappa_interval(often, range(200))
    assert kappa == pytest.approx(single) and wide.high - wide.low > 1.7 * (narrow.high - narrow.low)
    assert wide == pytest.approx(kappa_interval(once, range(40))[1], abs=0.1)
    hits = [second for _, second in often]
    alike = kappa_interval([(True, True), (False, False)] * 20, range(40))
    assert alike[0] == 1.0 and 0.75 < alike[1].low < 0.9 and alike[1].high == 1.0
    share = share_interval(hits, ["a"] * 200, cases)
    assert share_interval(hits, ["a"] * 200, range(200)) == wilson(sum(hits), 200)
    assert effective_n(sum(hits) / 200, 200, share) == pytest.approx(40, rel=0.15)
