"""What a search found: the winner by fresh seeds, how much of its lead is luck, and what the test rows say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np

from lightune.evidence.verdict import LEVEL, Comparison, gain_in_words
from lightune.legible import figures
from lightune.records import Score

NO_RUNS = "no runs were asked for"
ALIKE = 1.2  # times that differ by less are not worth a word


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


def in_words(
    compared: Comparison | None,
    gain: Score | None,
    n_others: int,
    why_not: str = "",
    times: float = 1.0,
    *,
    is_cut: bool = False,
) -> str:
    """What to do about it, one sentence.

    compared, gain: None where the recipe as it is won, or where the two cannot be compared, and why_not. n_others:
    recipes that were tried beside it. times: as long as the recipe as it is the one found trains. is_cut: the time
    for trials was over before all were tried.
    """
    if why_not:
        return f"a trial won, but it is not compared with the recipe as it is: {why_not}"
    if compared is None or gain is None:
        if is_cut and not n_others:
            return "there was no time to try another recipe: give it more, or fewer rows with search.rows"
        others = ("no other recipe was tried", "the one other recipe that was tried is no better")
        many = f"none of the {n_others} other recipes that were tried is better"
        return f"{others[n_others] if n_others < len(others) else many}: keep the recipe as it is"
    told = gain_told(compared.measure, gain)
    if not 1 / ALIKE < times < ALIKE:
        told += f", in {figures(times, 2)} times the training time"
    if gain.value <= 0:
        return f"tuning gained nothing: {told}; keep the recipe as it is"
    told = f"tuning gained: {told}"
    if gain.low > 0 and compared.p_value <= LEVEL:
        return f"{told}; take the recipe found"
    if gain.low > 0:  # the test of these two runs counts no seeds, but is exact
        told += f" (p = {compared.p_value:.2f})"
    return f"{told}: that may be chance; keep the recipe as it is, unless more test rows tell the two apart"


def gain_told(measure: str, gain: Score) -> str:
    """'+0.6 points of accuracy (95 % CI -0.1 to +1.3)'; what an error fell by has a minus."""
    what = {"accuracy": "of accuracy", "f1_micro": "of F1", "mae": "of mean absolute error"}[measure]
    value, _, interval = gain_in_words(measure, asdict(gain)).partition(" (")
    return f"{value} {what} ({interval}"
