"""What another seed would have made of it: the gain of one training over another as the gain of their recipes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from lightune.evidence.decisions import f1_micro, task_of
from lightune.evidence.verdict import compare
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


def between_seeds(y: NDArray[Any], answers: Mapping[Any, Sequence[NDArray[Any]]], seed: int) -> Between:
    """How far apart answers of one recipe with several seeds are; recipe -> answers to the rows of labels y.

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


def gain_of_recipes(gain: Score, between: Between, n_seeds: int = 1) -> Score:
    """The gain of one training over another, as a gain of their recipes: with what other seeds would have made of it.

    gain: with the interval that the choice of test rows alone gives; n_seeds: trainings of each that it is the mean
    of. A t distribution, its degrees of freedom by Satterthwaite 1946, Biometrics Bulletin 2:110.
    """
    from scipy.stats import t

    error, degrees = _spread(gain, between, n_seeds)
    if math.isinf(degrees):
        return gain
    half, middle = float(t.ppf(0.975, degrees)) * error, gain.value
    return Score(middle, min(gain.low, middle - half), max(gain.high, middle + half))


def p_of_recipes(gain: Score, between: Between, n_seeds: int = 1) -> float:
    """How often recipes that are equally good are so far apart, two-sided: the test that goes with the interval."""
    from scipy.stats import t

    error, degrees = _spread(gain, between, n_seeds)
    if not error:
        return 1.0 if not gain.value else 0.0
    return float(2 * t.sf(abs(gain.value) / error, degrees))


def _spread(gain: Score, between: Between, n_seeds: int) -> tuple[float, float]:
    """The standard error of a gain of recipes and its degrees of freedom: what rows add to it is known well."""
    rows, seeds = ((gain.high - gain.low) / (2 * Z)) ** 2, 2 * between.variance / n_seeds
    if not seeds or not between.degrees:
        return math.sqrt(rows), math.inf
    return math.sqrt(rows + seeds), (rows + seeds) ** 2 / (seeds**2 / between.degrees)
