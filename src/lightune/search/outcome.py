"""What a search found: the winner by fresh seeds, how much of its lead is luck, and what the test rows say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from lightune.evidence.decisions import f1_micro, task_of
from lightune.evidence.verdict import Comparison, compare, gain_in_words
from lightune.records import Score

if TYPE_CHECKING:
    from numpy.typing import NDArray

Z = 1.959963984540054  # half of a 95 % interval in standard errors
SPREAD = 0.04  # of the error, how far apart trainings are that differ in their seed (docs/log.md)
SPREAD_DEGREES = 4  # how well that is known beforehand: as by the variance of so many and one more


@dataclass(frozen=True)
class Between:
    """How far apart trainings of one recipe are that differ in their seed: a variance, and its degrees of freedom."""

    variance: float
    degrees: float


def best_by_mean(losses: Mapping[int, Mapping[int, float]]) -> int:
    """The finalist with the lowest mean loss over its seeds; number -> seed -> loss."""
    return min(losses, key=lambda number: (float(np.mean(list(losses[number].values()))), number))


def expected_luck(losses: Mapping[int, Mapping[int, float]], n_tried: int) -> float:
    """By how much the best of n_tried equal trials would look better than it is, in units of the loss.

    That is the expected largest of so many normal deviates times the spread between seeds, pooled over the finalists.
    Source: Blom 1958, Statistical Estimates and Transformed Beta-Variables, for the expected largest.
    """
    from scipy.stats import norm

    trained = [list(found.values()) for found in losses.values() if np.isfinite(list(found.values())).all()]
    squares = [np.var(found, ddof=1) for found in trained if len(found) > 1]
    if not squares or n_tried < 2:
        return 0.0
    return float(np.sqrt(np.mean(squares)) * norm.ppf((n_tried - 0.375) / (n_tried + 0.25)))


def between_seeds(y: NDArray[Any], answers: Mapping[int, Sequence[NDArray[Any]]], seed: int) -> Between:
    """How far apart answers of one recipe with several seeds are; number -> answers to dev rows of labels y.

    The squared difference of two of them is twice the variance sought, and the sampling variance of the difference on
    these rows, which is known and taken off. A few seeds on a few hundred rows say little about it, so what is known
    beforehand, SPREAD of the error, counts beside them, each by how sure it is.
    """
    prior = (SPREAD * float(np.mean([_error(y, each) for several in answers.values() for each in several]))) ** 2
    sure = SPREAD_DEGREES / (2 * prior**2) if prior else 0.0
    sums = sure * prior
    for several in answers.values():
        for one, other in combinations(several, 2):
            gain = compare(y, one, {"other": other}, seed=seed)["other"].gain
            rows = ((gain.high - gain.low) / (2 * Z)) ** 2
            weight = 2 / max(2 * prior + rows, 1e-12) ** 2 * 2 / len(several)  # pairs of several are not independent
            sure, sums = sure + weight, sums + weight * (gain.value**2 - rows) / 2
    variance = max(0.0, sums / sure) if sure else 0.0
    return Between(variance, 2 * variance**2 * sure)


def _error(y: NDArray[Any], answers: NDArray[Any]) -> float:
    """How far the answers are from perfect, in what verdicts are told in."""
    if task_of(y) == "multi_label":
        return 1 - f1_micro(y, answers)
    return float(np.abs(y - answers).mean() if task_of(y) == "regression" else (y != answers).mean())


def gain_of_recipes(gain: Score, between: Between) -> Score:
    """The gain of one training over another, as a gain of their recipes: with what other seeds would have made of it.

    gain: with the interval that the choice of test rows alone gives. A t distribution, its degrees of freedom by
    Satterthwaite 1946, Biometrics Bulletin 2:110.
    """
    from scipy.stats import t

    rows, seeds = ((gain.high - gain.low) / (2 * Z)) ** 2, 2 * between.variance
    if not seeds or not between.degrees:
        return gain
    degrees = (rows + seeds) ** 2 / (seeds**2 / between.degrees)  # what rows add is known well
    half = float(t.ppf(0.975, degrees)) * math.sqrt(rows + seeds)
    middle = gain.value
    return Score(middle, min(gain.low, middle - half), max(gain.high, middle + half))


def in_words(compared: Comparison | None, gain: Score | None, n_trials: int, why_not: str = "") -> str:
    """What to do about it, one sentence.

    compared, gain: None where the recipe as it is won, or where the two cannot be compared, and why_not.
    """
    if why_not:
        return f"a trial won, but it is not compared with the recipe as it is: {why_not}"
    if compared is None or gain is None:
        return f"none of {n_trials} trials is better than the recipe as it is: keep it"
    told = gain_told(compared.measure, gain)
    if gain.value <= 0:
        return f"tuning gained nothing: {told}; keep the recipe as it is"
    told = f"tuning gained: {told}"
    if gain.low > 0:
        return f"{told}; take the recipe found"
    return f"{told}: that may be chance; keep the recipe as it is, unless more test rows tell the two apart"


def gain_told(measure: str, gain: Score) -> str:
    """'+0.6 points of accuracy (95 % CI -0.1 to +1.3)'; what an error fell by has a minus."""
    what = {"accuracy": "of accuracy", "f1_micro": "of F1", "mae": "of mean absolute error"}[measure]
    value, _, interval = gain_in_words(measure, asdict(gain)).partition(" (")
    return f"{value} {what} ({interval}"
