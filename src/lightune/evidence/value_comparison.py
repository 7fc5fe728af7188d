"""How two predictors of numbers compare on the same rows, by how far off their answers are on average."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lightune.evidence.statistics import PairedGain, bootstrap_mean, percentile_interval, permutation_p_value
from lightune.records import Score

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


def compare_values(
    y_true: Floats, ours: Floats, theirs: Floats, n_resamples: int, rng: np.random.Generator
) -> PairedGain:
    """Ours against theirs, all (N,): the gain with its paired bootstrap interval, and a p-value.

    The p-value is of a permutation test: were the two equal, the errors on each row might as well be exchanged, so
    they are on random rows, and it is counted how often that makes as large a difference; two-sided.
    Source: Fisher 1935, The Design of Experiments, section 21.
    """
    nearer_by = np.abs(y_true - theirs) - np.abs(y_true - ours)  # (N,)
    interval = percentile_interval(bootstrap_mean(nearer_by, n_resamples, rng))
    return PairedGain(
        Score(float(nearer_by.mean()), *interval),
        int((nearer_by > 0).sum()),
        int((nearer_by < 0).sum()),
        _p_value(nearer_by, rng),
        float(nearer_by.std() / np.sqrt(len(nearer_by))),
    )


def _p_value(nearer_by: Floats, rng: np.random.Generator) -> float:
    gaps = nearer_by[nearer_by != 0]
    seen = abs(gaps.sum()) * (1 - 1e-12)

    def is_as_large(exchanged: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.asarray(np.abs(gaps @ (1 - 2 * exchanged)) >= seen)

    return permutation_p_value(is_as_large, len(gaps), rng)
