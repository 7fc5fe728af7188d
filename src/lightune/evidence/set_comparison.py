"""How two classifiers that give several labels a row compare on the same rows, by their F1 of all labels together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lightune.evidence.decisions import f1_counts, f1_of
from lightune.evidence.statistics import PairedGain, percentile_interval, permutation_p_value, weight_draws
from lightune.records import Score

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


def compare_sets(
    y_true: NDArray[np.integer],
    ours: NDArray[np.generic],
    theirs: NDArray[np.generic],
    n_resamples: int,
    rng: np.random.Generator,
) -> PairedGain:
    """Ours against theirs, all (N, C) of 0 and 1: the gain in F1 with its paired bootstrap interval, and a p-value.

    The p-value is of a permutation test: were the two equal, each row's answers might as well be the other's, so the
    answers of random rows are exchanged and it is counted how often that makes as large a difference; two-sided.
    Source: Yeh 2000, COLING, p. 947.
    """
    mine, its = f1_counts(y_true, ours), f1_counts(y_true, theirs)  # (N, 2)
    value = float(f1_of(mine.sum(axis=0)) - f1_of(its.sum(axis=0)))
    samples = np.concatenate(
        [f1_of(mine.T @ each) - f1_of(its.T @ each) for each in weight_draws(len(mine), n_resamples, rng)]
    )
    wrong = [(y_true != answers.astype(int)).sum(axis=1) for answers in (ours, theirs)]
    return PairedGain(
        Score(value, *percentile_interval(samples)),
        int((wrong[0] < wrong[1]).sum()),
        int((wrong[0] > wrong[1]).sum()),
        _p_value(mine, its, abs(value), rng),
        float(np.nanstd(samples)),
    )


def _p_value(mine: Floats, its: Floats, seen: float, rng: np.random.Generator) -> float:
    differs = (mine != its).any(axis=1)
    gaps, sums = (mine - its)[differs], (mine.sum(axis=0)[:, None], its.sum(axis=0)[:, None])  # (D, 2), (2, 1)

    def is_as_large(exchanged: NDArray[np.int64]) -> NDArray[np.bool_]:
        moved = gaps.T @ exchanged  # (2, B)
        return np.asarray(np.abs(f1_of(sums[0] - moved) - f1_of(sums[1] + moved)) >= seen - 1e-12)

    return permutation_p_value(is_as_large, len(gaps), rng)
