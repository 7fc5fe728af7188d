"""How sure we are of a number: Wilson and bootstrap intervals, McNemar's test. Knows rows, not models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lightune.errors import UserError
from lightune.records import Score

N_SHUFFLES = 9_999
LEAST_P = 1 / (N_SHUFFLES + 1)  # that so many shuffles can give
NUMBERS_AT_ONCE = 4_000_000  # 32 MB of float64: resamples are drawn in chunks of about this size


@dataclass(frozen=True)
class McNemar:
    """Rows wrong before and right after (`fixed`), the opposite (`broken`), and the two-sided p-value."""

    fixed: int
    broken: int
    p_value: float


@dataclass(frozen=True)
class PairedGain:
    """How much better one is than another on the same rows.

    gain: with its paired interval; better, worse: rows on which it is so; p_value: two-sided; error: the standard
    error of the gain.
    """

    gain: Score
    better: int
    worse: int
    p_value: float
    error: float


def require_rows(n: int) -> None:
    """Raises UserError if there is nothing to compute a number from."""
    if n == 0:
        raise UserError("No labelled rows to score: 0 were given. Give a test set with at least one row.")


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of the probability behind `successes` out of `n`; unlike p ± 2 s, honest near 0 and 1.

    Raises UserError if n == 0.  Source: Wilson 1927, J. Amer. Statist. Assoc. 22:209.
    """
    from scipy.stats import binomtest

    require_rows(n)
    interval = binomtest(successes, n).proportion_ci(confidence_level=level, method="wilson")
    return float(interval.low), float(interval.high)


def percentile_interval(samples: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The middle `level` of the bootstrap samples (B,): the percentile interval.

    NaN marks a resample in which the value is undefined; it is left out. (nan, nan) if nothing else is left.
    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.
    """
    defined = samples[~np.isnan(samples)]
    if len(defined) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def confusion_draws(
    y_true: np.ndarray, y_pred: np.ndarray, n_classes: int, n_resamples: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Confusion matrices of resampled rows, int [resample, true class, predicted class], in chunks (b, C, C).

    y_true, y_pred (N,) int in [0, C). Chunks, so that 1,000 classes do not need 8 GB at once. Raises UserError if
    N == 0. Drawing N rows with replacement and counting cells is one multinomial draw over the cells.
    """
    require_rows(len(y_true))
    cells, counts = np.unique(y_true * n_classes + y_pred, return_counts=True)
    for size in _chunk_sizes(n_resamples, n_classes * n_classes):
        confusions = np.zeros((size, n_classes * n_classes), dtype=np.int64)
        confusions[:, cells] = rng.multinomial(len(y_true), counts / len(y_true), size=size)
        yield confusions.reshape(size, n_classes, n_classes)


def weighted_confusions(
    y_true: np.ndarray, y_pred: np.ndarray, n_classes: int, weights: np.ndarray
) -> Iterator[np.ndarray]:
    """Confusion matrices float [resample, true class, predicted class] of resamples, in chunks (b, C, C).

    weights (N, B): how often each row is in each resample; the same for two models, they are compared in pairs.
    """
    from scipy.sparse import csr_array

    n_cells = n_classes * n_classes
    cells = (y_true * n_classes + y_pred, np.arange(len(y_true)))
    adder = csr_array((np.ones(len(y_true)), cells), shape=(n_cells, len(y_true)))
    start = 0
    for size in _chunk_sizes(weights.shape[1], n_cells):
        yield (adder @ weights[:, start : start + size]).T.reshape(size, n_classes, n_classes)
        start += size


def weight_draws(n_rows: int, n_resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """How often each row is in each resample, in chunks (N, b) float; every column sums to N.

    Raises UserError if n_rows == 0.
    """
    require_rows(n_rows)
    for size in _chunk_sizes(n_resamples, n_rows):
        rows = rng.integers(0, n_rows, (size, n_rows)) + n_rows * np.arange(size)[:, None]
        counts = np.bincount(rows.ravel(), minlength=size * n_rows).reshape(size, n_rows)
        yield np.ascontiguousarray(counts.T, dtype=np.float64)


def bootstrap_mean(values: np.ndarray, n_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Means (B,) of the per-row values (N,) over resampled rows. Raises UserError if N == 0."""
    draws = weight_draws(len(values), n_resamples, rng)
    return np.concatenate([values @ weights / len(values) for weights in draws])


def weighted_auc(is_positive: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Areas (B,) under the ROC curve of each resample, ties counting half; NaN without both kinds of row.

    is_positive (N,) bool; score (N,); weights (N, B), how often each row is in each resample.
    Source: Hanley and McNeil 1982, Radiology 143:29 (the area is a Mann-Whitney statistic).
    """
    negative, positive = _weight_by_level(is_positive, score, weights)
    below = negative.cumsum(axis=0) - negative / 2
    pairs = positive.sum(axis=0) * negative.sum(axis=0)
    return np.where(pairs > 0, (positive * below).sum(axis=0) / np.maximum(pairs, 1), np.nan)


def _weight_by_level(is_positive: np.ndarray, score: np.ndarray, weights: np.ndarray) -> list[np.ndarray]:
    """The weight of the negative and of the positive rows, each (2 L + 1, B), by rising score.

    The levels are the L scores that positive rows have: row 2 i + 1 is at level i, row 2 i just below it. So
    a class of few rows has few levels: 77 classes of 40 rows take 0.3 s where sorting them all took 4.
    """
    from scipy.sparse import csr_array

    levels, n_rows = np.unique(score[is_positive]), len(score)
    place = np.searchsorted(levels, score, "left") + np.searchsorted(levels, score, "right")
    n_places = 2 * len(levels) + 1
    cells = (place + n_places * is_positive, np.arange(n_rows))
    adder = csr_array((np.ones(n_rows), cells), shape=(2 * n_places, n_rows))
    return np.split(adder @ weights, 2)


def mcnemar(correct_before: np.ndarray, correct_after: np.ndarray) -> McNemar:
    """Whether two models on the same rows (N,) bool are right equally often; exact and two-sided.

    Only rows that changed count: under no difference each is fixed or broken with probability 1/2. With no
    such row p is 1.  Raises UserError if N == 0.  Source: McNemar 1947, Psychometrika 12:153.
    """
    from scipy.stats import binomtest

    before, after = _paired(correct_before, correct_after)
    fixed, broken = int((~before & after).sum()), int((before & ~after).sum())
    p_value = binomtest(fixed, fixed + broken).pvalue if fixed + broken else 1.0
    return McNemar(fixed, broken, float(p_value))


def paired_difference(
    correct_before: np.ndarray,
    correct_after: np.ndarray,
    n_resamples: int,
    rng: np.random.Generator,
    level: float = 0.95,
) -> Score:
    """The gain in accuracy, after minus before, on the same rows (N,) bool, with its bootstrap interval.

    Rows are resampled in pairs, so that what is hard for both models does not widen the interval; a resample of rows
    that are fixed, broken or neither is one multinomial draw. Raises UserError if N == 0.
    """
    before, after = _paired(correct_before, correct_after)
    n, fixed, broken = len(before), int((~before & after).sum()), int((before & ~after).sum())
    shares = [fixed / n, broken / n, (n - fixed - broken) / n]
    counts = rng.multinomial(n, shares, size=n_resamples)  # (B, 3)
    low, high = percentile_interval((counts[:, 0] - counts[:, 1]) / n, level)
    return Score((fixed - broken) / n, low, high)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of several comparisons, raised so that one in twenty such families holds a false one at 0.05.

    Source: Holm 1979, Scand. J. Statist. 6:65.
    """
    order = np.argsort(p_values, kind="stable")
    raised = np.asarray(p_values, dtype=float)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(raised))
    return [float(p) for p in adjusted]


def permutation_p_value(
    is_as_large: Callable[[np.ndarray], np.ndarray], n_rows: int, rng: np.random.Generator
) -> float:
    """How often chance makes as large a difference, where two answers to each of n_rows might as well be exchanged.

    is_as_large (B,): whether each of B shuffles does, from (n_rows, B) of 0 and 1: whether a row's are exchanged.
    Source: Phipson and Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9:39.
    """
    n_as_large = sum(
        int(is_as_large(rng.integers(0, 2, (n_rows, size))).sum())
        for size in _chunk_sizes(N_SHUFFLES, max(1, n_rows))
    )
    return (n_as_large + 1) / (N_SHUFFLES + 1)


def detectable_gain(n_rows: int, changed: float, level: float = 0.95, power: float = 0.8) -> float:
    """The smallest true gain in accuracy that McNemar's test on so many rows finds with this probability.

    changed: the share of rows that one of the two has right and the other wrong; the gain cannot be larger, so a
    test that would need a larger one gives NaN. Raises UserError if n_rows == 0.
    Source: Connor 1987, Biometrics 43:207, equation 1, solved for the difference.
    """
    from scipy.stats import norm

    require_rows(n_rows)
    z_level, z_power = norm.ppf((1 + level) / 2), norm.ppf(power)
    # n g² = (z_l sqrt(c) + z_p sqrt(c - g²))²: with both sides' square roots, a quadratic in g
    a = n_rows + z_power**2
    b = z_level * np.sqrt(n_rows * changed)
    gain = (b + np.sqrt(max(0.0, b**2 - a * changed * (z_level**2 - z_power**2)))) / a
    return float(gain) if gain <= changed else float("nan")


def _paired(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as (N,) bool. Raises ValueError if they are not about the same number of rows."""
    before, after = np.asarray(before, dtype=bool), np.asarray(after, dtype=bool)
    if before.shape != after.shape:  # numpy would stretch a single row over all the others
        raise ValueError(f"before has shape {before.shape}, after has {after.shape}: not the same rows")
    require_rows(len(before))
    return before, after


def _chunk_sizes(n_resamples: int, numbers_per_resample: int) -> list[int]:
    """Sizes that add up to `n_resamples`, each with at most NUMBERS_AT_ONCE numbers (or one resample)."""
    size = max(1, NUMBERS_AT_ONCE // numbers_per_resample)
    full, rest = divmod(n_resamples, size)
    return [size] * full + ([rest] if rest else [])
