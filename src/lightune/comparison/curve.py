"""What more labelled rows would bring: a power law through the errors at several sizes, and how sure it is.

The error of a classifier falls with the rows n that it learned from about as a + b n^-c (Hestness et al. 2017,
arXiv:1712.00409; Figueroa et al. 2012, BMC Med. Inform. Decis. Mak. 12:8). A few sizes do not tell the floor a, so it
is not fitted: every draw of the errors has a floor of its own between nothing and the lowest of them, and counts by
how well its law goes through what was measured. So what is beyond the last size comes out as uncertain as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lightune.records import Score

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

FEWEST_SIZES = 3  # two show no law
LEAST_ERROR = 1e-4  # of the largest: what is below has no logarithm to speak of


@dataclass(frozen=True)
class Curve:
    """Laws that may hold: floor, log b and c (B,) of each, and its weight (B,), which sum to 1."""

    floor: Floats
    log_scale: Floats
    power: Floats
    weight: Floats

    def at(self, n_rows: float) -> Score:
        """The error at so many rows: the middle, and a 95 % interval."""
        return self._summed(self._errors(n_rows))

    def gain(self, n_rows: float, more: float) -> Score:
        """By how much the error falls from n_rows to `more`."""
        return self._summed(self._errors(n_rows) - self._errors(more))

    def _errors(self, n_rows: float) -> Floats:
        found: Floats = self.floor + np.exp(self.log_scale - self.power * np.log(n_rows))
        return found

    def _summed(self, values: Floats) -> Score:
        order = np.argsort(values)
        below = np.cumsum(self.weight[order])
        low, middle, high = (float(values[order][np.searchsorted(below, part)]) for part in (0.025, 0.5, 0.975))
        return Score(middle, low, high)


def fit_curve(sizes: Sequence[int], draws: Floats, rng: np.random.Generator) -> Curve | None:
    """The laws through the errors at K sizes; None where fewer than three differ.

    draws (B, K): what the errors may be, by the choice of test rows and of a seed; their spread is how sure each is.
    """
    if len(set(sizes)) < FEWEST_SIZES:
        return None
    least = LEAST_ERROR * float(draws.max()) or LEAST_ERROR
    draws = np.maximum(draws, least)
    spread = np.maximum(draws.std(axis=0), least)  # (K,)
    floor = rng.uniform(0, 1, len(draws)) * draws.min(axis=1)  # (B,)
    above = np.maximum(draws - floor[:, None], least / 10)  # (B, K)
    log_rows, log_above = np.log(np.asarray(sizes, dtype=float)), np.log(above)
    weights = (above / spread) ** 2  # of logarithms, whose spread is that of the errors over the errors
    weights /= weights.sum(axis=1, keepdims=True)
    mean_x, mean_y = weights @ log_rows, (weights * log_above).sum(axis=1)
    from_x, from_y = log_rows - mean_x[:, None], log_above - mean_y[:, None]
    power = np.maximum(0.0, -(weights * from_x * from_y).sum(axis=1) / (weights * from_x**2).sum(axis=1))
    log_scale = mean_y + power * mean_x
    fitted = floor[:, None] + np.exp(log_scale[:, None] - power[:, None] * log_rows)
    misfit = (((draws - fitted) / spread) ** 2).sum(axis=1) / 2
    misfit /= max(1.0, 2 * float(misfit.min()) / (len(sizes) - 2))  # where no law fits, none is believed that much
    weight = np.exp(misfit.min() - misfit)
    return Curve(floor, log_scale, power, weight / weight.sum())
