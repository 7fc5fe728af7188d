"""Intervals cover the truth as often as they say, and McNemar's test is the binomial it claims to be."""

import math

import numpy as np
import pytest
from scipy.stats import binom

from lightune.errors import UserError
from lightune.evidence import statistics
from lightune.evidence.statistics import (
    McNemar,
    bootstrap_mean,
    mcnemar,
    paired_difference,
    percentile_interval,
    weighted_auc,
    wilson,
)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def share_covered(intervals, truth):
    """An end that is the truth but for rounding covers it: gains of 300 rows are multiples of 1/300."""
    return np.mean([low - 1e-9 <= truth <= high + 1e-9 for low, high in intervals])


# ---- Wilson


@pytest.mark.parametrize("probability", [0.5, 0.824, 0.98])
def test_wilson_covers_the_probability_in_95_percent_of_test_sets(probability):
    hits = np.arange(301)
    covered = [low <= probability <= high for low, high in (wilson(int(k), 300) for k in hits)]
    assert 0.93 <= binom.pmf(hits, 300, probability) @ covered <= 0.97  # exact, over all 301 outcomes


def test_wilson_by_hand():
    z = 1.959964  # 97.5 % quantile of the normal distribution
    middle, half = (8 + z**2 / 2) / (10 + z**2), z / (10 + z**2) * math.sqrt(8 * 2 / 10 + z**2 / 4)
    assert wilson(8, 10) == pytest.approx((middle - half, middle + half), abs=1e-6)


def test_wilson_does_not_call_ten_of_ten_certain():
    low, high = wilson(10, 10)
    assert high == pytest.approx(1)
    assert low == pytest.approx(10 / (10 + 1.959964**2), abs=1e-6)  # what the formula gives for 10 of 10


def test_a_higher_level_is_a_wider_interval():
    narrow, wide = wilson(70, 100, level=0.8), wilson(70, 100, level=0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


# ---- bootstrap


def bootstrap_confusions(*draws):
    return np.concatenate(list(statistics.confusion_draws(*draws)))


def test_bootstrap_mean_covers_the_mean_in_95_percent_of_test_sets(rng):
    samples = rng.exponential(size=(400, 150))
    intervals = [percentile_interval(bootstrap_mean(values, 400, rng)) for values in samples]
    assert 0.92 <= share_covered(intervals, 1.0) <= 0.97  # skewed values: a little under 0.95 is known


def test_bootstrapped_confusions_cover_the_recall_of_a_class(rng):
    intervals = []
    for _ in range(400):
        y_true = rng.integers(0, 3, 300)
        y_pred = np.where(rng.random(300) < 0.7, y_true, (y_true + 1) % 3)
        confusions = bootstrap_confusions(y_true, y_pred, 3, 400, rng)
        intervals.append(percentile_interval(confusions[:, 1, 1] / confusions[:, 1].sum(axis=1)))
    assert 0.93 <= share_covered(intervals, 0.7) <= 0.97


def test_paired_difference_covers_the_gain(rng):
    intervals = []
    for _ in range(400):
        luck = rng.random(300)  # the same rows are easy for both models
        score = paired_difference(luck < 0.6, (luck < 0.6) ^ (rng.random(300) < 0.2), 400, rng)
        intervals.append((score.low, score.high))
    assert 0.93 <= share_covered(intervals, 0.2 * 0.4 - 0.2 * 0.6) <= 0.97


def test_pairing_makes_the_interval_narrower_than_two_separate_ones(rng):
    before = rng.random(500) < 0.6
    after = before | (rng.random(500) < 0.1)
    gain = paired_difference(before, after, 1000, rng)
    apart = bootstrap_mean(after.astype(float), 1000, rng) - bootstrap_mean(before.astype(float), 1000, rng)
    low, high = percentile_interval(apart)
    assert gain.high - gain.low < 0.7 * (high - low)
    assert gain.value == pytest.approx(after.mean() - before.mean())
    assert gain.low <= gain.value <= gain.high


def test_bootstrap_mean_varies_by_the_standard_error(rng):
    values = rng.normal(size=400)
    means = bootstrap_mean(values, 4000, rng)
    assert means.mean() == pytest.approx(values.mean(), abs=0.005)
    assert means.std() == pytest.approx(values.std() / math.sqrt(400), rel=0.05)


def test_each_resampled_confusion_has_all_the_rows_and_only_cells_that_occur(rng):
    y_true, y_pred = np.array([0, 0, 1, 2, 2]), np.array([0, 1, 1, 2, 2])
    confusions = bootstrap_confusions(y_true, y_pred, 3, 2000, rng)
    assert confusions.shape == (2000, 3, 3)
    assert (confusions.sum(axis=(1, 2)) == 5).all()
    np.testing.assert_allclose(confusions.mean(axis=0), [[1, 1, 0], [0, 1, 0], [0, 0, 2]], atol=0.1)
    assert (confusions[:, 0, 2] == 0).all()


@pytest.mark.parametrize("numbers_at_once", [1, 36, 50])
def test_drawing_in_chunks_gives_every_resample(numbers_at_once, rng, monkeypatch):
    monkeypatch.setattr(statistics, "NUMBERS_AT_ONCE", numbers_at_once)
    assert bootstrap_mean(np.ones(9), 11, rng) == pytest.approx(np.ones(11))
    assert bootstrap_confusions(np.arange(3), np.arange(3), 3, 11, rng).shape == (11, 3, 3)


def test_chunks_are_no_larger_than_the_limit(rng, monkeypatch):
    monkeypatch.setattr(statistics, "NUMBERS_AT_ONCE", 36)
    draws = list(statistics.confusion_draws(np.arange(3), np.arange(3), 3, 11, rng))
    assert [len(draw) for draw in draws] == [4, 4, 3]
    assert [draw.shape for draw in statistics.weight_draws(12, 7, rng)] == [(12, 3), (12, 3), (12, 1)]


def test_row_weights_count_rows_of_a_resample(rng):
    (weights,) = statistics.weight_draws(50, 400, rng)
    assert (weights.sum(axis=0) == 50).all()
    assert weights.var() == pytest.approx(1 - 1 / 50, rel=0.05)  # a binomial count of 50 draws at 1/50


def test_undefined_resamples_are_left_out_of_an_interval():
    samples = np.concatenate([np.linspace(0, 1, 101), np.full(50, np.nan)])
    assert percentile_interval(samples) == pytest.approx((0.025, 0.975))
    assert all(math.isnan(end) for end in percentile_interval(np.full(3, np.nan)))


def test_weighted_auc_by_hand():
    is_positive, score = np.array([True, False, True, False]), np.array([0.9, 0.9, 0.4, 0.1])
    weights = np.array([[1, 0, 1], [1, 1, 1], [1, 2, 0], [1, 1, 0]], dtype=float)
    # all rows: a tie, a win, a loss, a win = 2.5 of 4.  Without the first: (0 + 1) of 2.  Only the tie: 0.5.
    assert weighted_auc(is_positive, score, weights) == pytest.approx([0.625, 0.5, 0.5])


def test_weighted_auc_is_nan_where_one_kind_of_row_is_missing():
    is_positive, score = np.array([True, False]), np.array([0.9, 0.1])
    areas = weighted_auc(is_positive, score, np.array([[2.0, 0, 1], [0, 2, 1]]))
    np.testing.assert_array_equal(areas, [np.nan, np.nan, 1])


# ---- McNemar


@pytest.mark.parametrize(
    ("fixed", "broken", "p_value"),
    [
        (10, 2, 2 * (1 + 12 + 66) / 2**12),  # at least as uneven: 0, 1 or 2 of 12, and the mirror image
        (2, 10, 2 * (1 + 12 + 66) / 2**12),
        (5, 0, 2 / 2**5),
        (1, 0, 1.0),
        (3, 3, 1.0),
        (0, 0, 1.0),
    ],
)
def test_mcnemar_by_hand(fixed, broken, p_value):
    before = np.array([False] * fixed + [True] * broken + [True] * 7 + [False] * 5)
    after = np.array([True] * fixed + [False] * broken + [True] * 7 + [False] * 5)
    result = mcnemar(before, after)
    assert (result.fixed, result.broken) == (fixed, broken)
    assert result.p_value == pytest.approx(p_value)


def test_mcnemar_rarely_finds_a_difference_where_there_is_none(rng):
    p_values = [mcnemar(rng.random(200) < 0.8, rng.random(200) < 0.8).p_value for _ in range(400)]
    assert np.mean(np.array(p_values) < 0.05) <= 0.05


def test_mcnemar_is_a_plain_record():
    assert mcnemar(np.array([True, False]), np.array([True, True])) == McNemar(1, 0, 1.0)


# ---- no rows, other rows


@pytest.mark.parametrize(
    "call",
    [
        lambda rng: wilson(0, 0),
        lambda rng: bootstrap_mean(np.array([]), 10, rng),
        lambda rng: bootstrap_confusions(np.array([], int), np.array([], int), 2, 10, rng),
        lambda rng: mcnemar(np.array([], bool), np.array([], bool)),
        lambda rng: paired_difference(np.array([], bool), np.array([], bool), 10, rng),
    ],
    ids=["wilson", "mean", "confusions", "mcnemar", "difference"],
)
def test_no_rows_is_the_users_mistake(call, rng):
    with pytest.raises(UserError, match=r"No labelled rows to score: 0 were given\. Give a test set"):
        call(rng)


def test_answers_on_different_rows_are_not_compared():
    with pytest.raises(ValueError, match=r"before has shape \(1,\), after has \(3,\): not the same rows"):
        mcnemar(np.array([True]), np.array([True, False, True]))


def test_the_same_seed_gives_the_same_interval():
    before, after = np.arange(997) % 3 == 0, np.arange(997) % 2 == 0
    first, again, other = (paired_difference(before, after, 200, np.random.default_rng(s)) for s in (1, 1, 2))
    assert first == again != other
