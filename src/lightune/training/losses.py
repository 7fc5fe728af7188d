"""LOSSES: what a training minimises, and how classes of unequal size count in it.

To add a loss, write one function `loss(logits (B, C), labels) -> (B,)` and one row in LOSSES. labels: class ids (B,)
or, of several a row, (B, C) of 0 and 1; a loss OF_NUMBERS takes logits (B, 1) and numbers (B,).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lightune.errors import UserError
from lightune.model.anatomy import inside
from lightune.recipe import Task, TrainRecipe

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import nn

    Ints = NDArray[np.int64]
    Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

FOCUS = 2.0  # Lin et al. found 2 best, and little difference from 0.5 to 5


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Surprise at the true class of each text, in nats; of several labels, the mean over whether each is there."""
    from torch.nn.functional import cross_entropy

    if labels.ndim == 2:
        return _each_surprise(logits, labels).mean(dim=1)
    return cross_entropy(logits, labels, reduction="none")


def focal(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The same times (1 - p)² of the true class: texts that are known already count little.

    Source: Lin et al. 2017, arXiv:1708.02002, equation 4, without its class weights.
    """
    import torch

    several = labels.ndim == 2
    surprise = _each_surprise(logits, labels) if several else cross_entropy(logits, labels)
    lessened = (1 - torch.exp(-surprise)) ** FOCUS * surprise
    return lessened.mean(dim=1) if several else lessened


def _each_surprise(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(B, C), at each label being there or not."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    return binary_cross_entropy_with_logits(logits, labels.float(), reduction="none")


def squared_error(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The squared distance of each answer from its number."""
    return (logits[:, 0] - labels) ** 2


def absolute_error(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The distance of each answer from its number: those that are far off count less than squared."""
    return (logits[:, 0] - labels).abs()


LOSSES: dict[str, Loss] = {
    "cross_entropy": cross_entropy,
    "focal": focal,
    "squared_error": squared_error,
    "absolute_error": absolute_error,
}
OF_NUMBERS = ("squared_error", "absolute_error")


def find_loss(name: str, labels: NDArray[np.generic]) -> Loss:
    """The row of LOSSES, or for "auto" what these labels mostly take. UserError for one that does not suit them."""
    is_numbers = labels.dtype.kind == "f"
    check_loss(name, is_numbers=is_numbers)
    if name == "auto":
        return squared_error if is_numbers else cross_entropy
    return LOSSES[name]


def check_loss(name: str, *, is_numbers: bool) -> None:
    """UserError for a loss that does not suit labels that are numbers, or classes."""
    if name != "auto" and (name in OF_NUMBERS) != is_numbers:
        suited = [each for each in LOSSES if (each in OF_NUMBERS) == is_numbers]
        what = "numbers" if is_numbers else "classes"
        raise UserError(f"train.loss = {name!r}: not for labels that are {what}. There are {', '.join(suited)}.")


def check_balance(balance: str, task: Task) -> None:
    """UserError if classes are to count alike where there are none, or where a row has several."""
    if balance == "none":
        return
    if task == "multi_label":
        raise UserError(
            f"train.balance = {balance!r}: of several labels a row none can come alone. Leave it out; "
            f"train.loss = 'focal' gives rare labels more weight, thresholds of their own they have in any case."
        )
    if task == "regression":
        raise UserError(f"train.balance = {balance!r}: numbers have no classes that could count alike. Leave it out.")


def check_for_labels(train: TrainRecipe, task: Task) -> None:
    """UserError for what a training takes of labels of another kind."""
    check_loss(train.loss, is_numbers=task == "regression")
    check_balance(train.balance, task)


def start_from_shares(model: nn.Module, head_modules: Sequence[str], labels: Ints) -> None:
    """Lets a fresh head answer each of several labels with the share of rows that have it, labels (N, C) of 0 and 1.

    From a half for each, the first steps would teach every text the same: that labels are rare. A head without a bias
    stays as it is.  Source: Lin et al. 2017, arXiv:1708.02002, section 3.3.
    """
    import torch

    n_rows, n_labels = labels.shape
    shares = (labels.sum(axis=0) + 1) / (n_rows + 2)
    log_odds = torch.from_numpy(np.log(shares / (1 - shares)))
    for name, module in model.named_modules():
        is_last = isinstance(module, torch.nn.Linear) and module.out_features == n_labels and module.bias is not None
        if is_last and inside(name, head_modules):
            with torch.no_grad():
                module.bias.copy_(log_odds)  # type: ignore[union-attr, operator]


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
