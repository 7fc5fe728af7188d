"""Whether a classifier is better than others on the same rows, as numbers and in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

from lightune.evidence.decisions import right_rows, task_of
from lightune.evidence.set_comparison import compare_sets
from lightune.evidence.statistics import (
    LEAST_P,
    PairedGain,
    detectable_gain,
    holm,
    mcnemar,
    paired_difference,
    require_rows,
)
from lightune.evidence.value_comparison import compare_values
from lightune.legible import figures
from lightune.recipe import Task
from lightune.records import Score

UNTUNED = "the untuned head"
LEVEL = 0.05  # of all comparisons of a run together
N_RESAMPLES = 2000
POWER = 0.8
OF = {"accuracy": " points", "f1_micro": " points of F1", "mae": " in mean absolute error"}  # measure -> its unit
SAME = {  # where no row tells the two apart
    "accuracy": "both have the same rows right",
    "f1_micro": "both have as many wrong labels on every row",
    "mae": "both are equally near on every row",
}

Outcome = Literal["better", "worse", "not distinguishable"]


@dataclass(frozen=True)
class Comparison:
    """Ours against another's answers to the same N rows.

    gain: in accuracy, ours less the other's, with its paired interval; fixed: rows that we alone have right; broken:
    that the other alone has right. p_value: McNemar's; p_adjusted: Holm's, over all comparisons that were made.
    detectable: the smallest true gain that would have been found four times in five, were p the smallest of all these
    comparisons; NaN where the two differ on too few rows for any.
    measure: what the gain is in; of several labels a row f1_micro, fixed and broken being rows with fewer or more
    labels wrong than the other has; of numbers mae, by how much it is smaller, fixed and broken being rows with a
    nearer or further answer; the p-value is then a permutation test's.
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

    y_true and answers: classes (N,), compared in accuracy; label sets (N, C) of 0 and 1, in F1; numbers (N,) float,
    in mean absolute error. Raises UserError if N == 0.
    """
    require_rows(len(y_true))
    by = BY[task_of(y_true)]
    level = 1 - LEVEL / max(1, len(others))  # Holm's, for the smallest of all
    compared = {name: by(y_true, ours, theirs, level, seed) for name, theirs in others.items()}
    adjusted = holm([each.p_value for each in compared.values()])
    return {name: replace(each, p_adjusted=p) for (name, each), p in zip(compared.items(), adjusted, strict=True)}


def _by_mcnemar(y_true: np.ndarray, ours: np.ndarray, others: np.ndarray, level: float, seed: int) -> Comparison:
    right, theirs = right_rows(y_true, ours), right_rows(y_true, others)
    test = mcnemar(theirs, right)
    gain = paired_difference(theirs, right, N_RESAMPLES, np.random.default_rng(seed))
    smallest = detectable_gain(len(right), (test.fixed + test.broken) / len(right), level)
    return Comparison(gain, test.fixed, test.broken, test.p_value, test.p_value, smallest)


def _by_shuffles(
    paired: Callable[..., PairedGain],
    measure: str,
    y_true: np.ndarray,
    ours: np.ndarray,
    theirs: np.ndarray,
    level: float,
    seed: int,
) -> Comparison:
    from scipy.stats import norm

    found = paired(y_true, ours, theirs, N_RESAMPLES, np.random.default_rng(seed))
    smallest = float((norm.ppf((1 + level) / 2) + norm.ppf(POWER)) * found.error)
    is_noise = found.error <= 1e-9 * abs(found.gain.value)  # all rows differ alike
    detectable = math.nan if is_noise else smallest
    return Comparison(found.gain, found.better, found.worse, found.p_value, found.p_value, detectable, measure)


BY: dict[Task, Callable[..., Comparison]] = {  # how two answers to the same rows are compared
    "single_label": _by_mcnemar,
    "multi_label": partial(_by_shuffles, compare_sets, "f1_micro"),
    "regression": partial(_by_shuffles, compare_values, "mae"),
}


def verdict(comparisons: Mapping[str, Comparison], titles: Mapping[str, str], n_rows: int) -> str:
    """The one sentence to remember: how ours compares with the strongest of the others.

    That is one that beats ours, or else one that ours does not beat beyond chance, before any that it beats.
    """
    rank = {"worse": 0, "not distinguishable": 1, "better": 2}
    name, strongest = min(comparisons.items(), key=lambda item: (rank[item[1].outcome], item[1].gain.value))
    return in_words(titles[name], strongest, n_rows)


def in_words(title: str, comparison: Comparison, n_rows: int) -> str:
    """One sentence without a full stop. title: of the other."""
    gain, measure = comparison.gain, comparison.measure
    if comparison.outcome == "not distinguishable":
        value, low, high = _signed(measure, asdict(gain))
        seen = f"{value}{OF[measure]}, 95 % CI {low} to {high}"
        found = (
            f"not distinguishable from {title} on {n_rows:,} rows ({seen}, adjusted p = {comparison.p_adjusted:.2f})"
        )
        return f"{found}; {_smallest(comparison)}"
    ends = sorted([gain.low, gain.high] if gain.value > 0 else [-gain.low, -gain.high])
    found = f"{comparison.outcome} than {title} by {amount(measure, abs(gain.value))}{OF[measure]}"
    interval = " to ".join(amount(measure, end) for end in ends)
    return f"{found} (95 % CI {interval}); {_by_chance(comparison)}"


def amount(measure: str, gain: float, sign: str = "") -> str:
    """A gain in its unit, without the unit's name: shares in points."""
    return figures(gain + 0.0, sign=sign) if measure == "mae" else f"{round(100 * gain, 1) + 0.0:{sign}.1f}"  # no -0


def gain_in_words(measure: str, gain: Mapping[str, float], interval: str = "95 % CI ") -> str:
    """'+3.1 points (95 % CI +1.9 to +4.3)', without what points are of; what an error fell by has a minus."""
    value, low, high = _signed(measure, gain)
    return f"{value}{'' if measure == 'mae' else ' points'} ({interval}{low} to {high})"


def _signed(measure: str, gain: Mapping[str, float]) -> list[str]:
    """A gain and its interval; of an error, which is to fall, by how much it rose."""
    ends = {name: -gain[name] if measure == "mae" else gain[name] for name in ("value", "low", "high")}
    return [amount(measure, end, "+") for end in (ends["value"], *sorted((ends["low"], ends["high"])))]


def _smallest(comparison: Comparison) -> str:
    changed = comparison.fixed + comparison.broken
    if changed == 0:
        return SAME[comparison.measure]
    if math.isnan(comparison.detectable):
        return f"they differ on {changed:,} rows, too few to show any gain"
    smallest = (
        f"{amount(comparison.measure, comparison.detectable)}{'' if comparison.measure == 'mae' else ' points'}"
    )
    return f"the smallest gain that you could have seen, four times in five, is {smallest}"


def _by_chance(comparison: Comparison) -> str:
    """A p-value as a frequency, rounded down to what a reader can picture; of shuffles it has a least value."""
    if comparison.p_adjusted < 1e-6:
        return "by chance less than once in a million"
    times = 1 / comparison.p_adjusted * (1 + 1e-9)
    unit = 10 ** max(0, math.floor(math.log10(times)) - 1)
    is_least = comparison.measure != "accuracy" and comparison.p_value <= LEAST_P
    return f"by chance {'less than ' * is_least}once in {math.floor(times / unit) * unit:,}"
