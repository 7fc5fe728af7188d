"""LOSSES: what a training minimises, and how classes of unequal size count in it.

To add a loss, write one function `loss(logits (B, C), labels (B,)) -> (B,)` and one row in LOSSES.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

FOCUS = 2.0  # Lin et al. found 2 best, and little difference from 0.5 to 5


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Surprise at the true class of each text, in nats."""
    from torch.nn.functional import cross_entropy

    return cross_entropy(logits, labels, reduction="none")


def focal(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The same times (1 - p)² of the true class: texts that are known already count little.

    Source: Lin et al. 2017, arXiv:1708.02002, equation 4, without its class weights.
    """
    import torch

    surprise = cross_entropy(logits, labels)
    return (1 - torch.exp(-surprise)) ** FOCUS * surprise


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "focal": focal}


def class_weights(labels: Ints) -> NDArray[np.float32]:
    """(C,) weights with which all classes that occur in labels (N,) count alike, 1 on average over the rows.

    C is one more than the largest label.

    Source: King and Zeng 2001, Political Analysis 9:137; scikit-learn's "balanced".
    """
    counts = np.bincount(labels)
    there = counts > 0
    return np.where(there, len(labels) / (there.sum() * np.maximum(counts, 1)), 0.0).astype(np.float32)


def balanced_draw(labels: Ints, rng: np.random.Generator) -> Ints:
    """N rows, drawn so that each class comes about as often: of small classes many times, of large ones in part.

    Rows of a class come in turn, so that none is drawn again before all of it were.
    """
    classes = np.unique(labels)
    shares = np.diff(np.linspace(0, len(labels), len(classes) + 1).round().astype(int))
    drawn = [
        np.resize(rng.permutation(np.flatnonzero(labels == c)), share)
        for c, share in zip(classes, rng.permutation(shares), strict=True)
    ]
    return rng.permutation(np.concatenate(drawn))
