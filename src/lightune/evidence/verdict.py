"""Whether a classifier is better than others on the same rows, as numbers and in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from lightune.evidence.decisions import right_rows
from lightune.evidence.set_comparison import compare_sets
from lightune.evidence.statistics import detectable_gain, holm, mcnemar, paired_difference, require_rows
from lightune.records import Score

UNTUNED = "the untuned head"
LEVEL = 0.05  # of all comparisons of a run together
N_RESAMPLES = 2000
POWER = 0.8
OF = {"accuracy": "", "f1_micro": " of F1"}  # measure -> what points are of, where that needs to be said

Outcome = Literal["better", "worse", "not distinguishable"]


@dataclass(frozen=True)
class Comparison:
    """Ours against another's answers to the same N rows.

    gain: in accuracy, ours less the other's, with its paired interval; fixed: rows that we alone have right; broken:
    that the other alone has right. p_value: McNemar's; p_adjusted: Holm's, over all comparisons that were made.
    detectable: the smallest true gain that would have been found four times in five, were p the smallest of all these
    comparisons; NaN where the two differ on too few rows for any.
    measure: what the gain is in; of several labels a row f1_micro, fixed and broken being rows with fewer or more
    labels wrong than the other has, and the p-value a permutation test's.
    """

    gain: Score
    fixed: int
    broken: int
    p_value: float
    p_adjusted: float
    detectable: float
    measure: str = "accuracy"

    @property
    def outcome(self) -> Outcome:
        """What may be said, with an error of one in twenty over all comparisons."""
        if self.p_adjusted > LEVEL:
            return "not distinguishable"
        return "better" if self.gain.value > 0 else "worse"


def compare(
    y_true: np.ndarray, ours: np.ndarray, others: Mapping[str, np.ndarray], *, seed: int
) -> dict[str, Comparison]:
    """name -> how our answers compare with the other's; seed: of the resampling.

    y_true and answers: classes (N,), compared in accuracy, or label sets (N, C) of 0 and 1, in F1. Raises UserError
    if N == 0.
    """
    require_rows(len(y_true))
    by = _compare if y_true.ndim == 1 else _compare_sets
    level = 1 - LEVEL / max(1, len(others))  # Holm's, for the smallest of all
    compared = {name: by(y_true, ours, theirs, level, seed) for name, theirs in others.items()}
    adjusted = holm([each.p_value for each in compared.values()])
    return {name: replace(each, p_adjusted=p) for (name, each), p in zip(compared.items(), adjusted, strict=True)}


def _compare_sets(y_true: np.ndarray, ours: np.ndarray, theirs: np.ndarray, level: float, seed: int) -> Comparison:
    from scipy.stats import norm

    found = compare_sets(y_true, ours, theirs, N_RESAMPLES, np.random.default_rng(seed))
    smallest = float((norm.ppf((1 + level) / 2) + norm.ppf(POWER)) * found.error)
    detectable = smallest if found.error > 0 else math.nan
    return Comparison(found.gain, found.better, found.worse, found.p_value, found.p_value, detectable, "f1_micro")


def _compare(y_true: np.ndarray, ours: np.ndarray, others: np.ndarray, level: float, seed: int) -> Comparison:
    right, theirs = right_rows(y_true, ours), right_rows(y_true, others)
    test = mcnemar(theirs, right)
    gain = paired_difference(theirs, right, N_RESAMPLES, np.random.default_rng(seed))
    smallest = detectable_gain(len(right), (test.fixed + test.broken) / len(right), level)
    return Comparison(gain, test.fixed, test.broken, test.p_value, test.p_value, smallest)


def verdict(comparisons: Mapping[str, Comparison], titles: Mapping[str, str], n_rows: int) -> str:
    """The one sentence to remember: how ours compares with the strongest of the others.

    That is one that beats ours, or else one that ours does not beat beyond chance, before any that it beats.
    """
    rank = {"worse": 0, "not distinguishable": 1, "better": 2}
    name, strongest = min(comparisons.items(), key=lambda item: (rank[item[1].outcome], item[1].gain.value))
    return in_words(titles[name], strongest, n_rows)


def in_words(title: str, comparison: Comparison, n_rows: int) -> str:
    """One sentence without a full stop. title: of the other."""
    gain = comparison.gain
    if comparison.outcome == "not distinguishable":
        points = f"{_points(gain.value)} points{OF[comparison.measure]}"
        seen = f"{points}, 95 % CI {_points(gain.low)} to {_points(gain.high)}"
        found = f"not distinguishable from {title} on {n_rows:,} rows ({seen}, p = {comparison.p_adjusted:.2f})"
        return f"{found}; {_smallest(comparison)}"
    low, high = sorted([gain.low, gain.high] if gain.value > 0 else [-gain.low, -gain.high])
    found = f"{comparison.outcome} than {title} by {100 * abs(gain.value):.1f} points{OF[comparison.measure]}"
    return f"{found} (95 % CI {100 * low:.1f} to {100 * high:.1f}); {_by_chance(comparison.p_adjusted)}"


def _smallest(comparison: Comparison) -> str:
    changed = comparison.fixed + comparison.broken
    if changed == 0:
        return "both have the same rows right" if comparison.measure == "accuracy" else "no row has more right of one"
    if math.isnan(comparison.detectable):
        return f"they differ on {changed:,} rows, too few to show any gain"
    return (
        f"the smallest gain that you could have seen, four times in five, is {100 * comparison.detectable:.1f} points"
    )


def _by_chance(p_value: float) -> str:
    """A p-value as a frequency, rounded to what a reader can picture."""
    if p_value < 1e-6:
        return "by chance less than once in a million"
    digits = math.floor(math.log10(1 / p_value))
    return f"by chance once in {round(1 / p_value, -digits):,.0f}"


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"
