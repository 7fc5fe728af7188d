"""What a model answers on given rows, and how good that is, with intervals. Never tunes, never prints."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lightune.data.batching import Encoder, Labelled, Tokens
from lightune.errors import GateError
from lightune.evidence.decisions import ONE_LABEL, Readout
from lightune.evidence.score import TABLES, score_all
from lightune.hardware import Hardware, is_out_of_memory
from lightune.records import Evaluation

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

# padded tokens per pass: on a CPU what one block reads and writes should stay in the processor's cache
MEMORY_TOKENS = {"cpu": 1024, "mps": 16384, "cuda": 65536}


@dataclass(frozen=True)
class Outputs:
    """What a model answers on N rows: logits (N, C), and embeddings (N, D) where the model puts some out."""

    logits: Floats
    embeddings: NDArray[np.float32] | None


def predict_logits(
    model: nn.Module,
    encoder: Encoder,
    tokens: Tokens,
    hardware: Hardware,
    advance: Callable[[int], None] = lambda n_tokens: None,
) -> Floats:
    """The model's raw outputs (N, C) in the order of `tokens`; `advance` is told of the tokens done.

    A batch that memory has no room for is halved. GateError if one text is too much.
    """
    return predict(model, encoder, tokens, hardware, advance).logits


def predict(
    model: nn.Module,
    encoder: Encoder,
    tokens: Tokens,
    hardware: Hardware,
    advance: Callable[[int], None] = lambda n_tokens: None,
) -> Outputs:
    """All that the model puts out, else like `predict_logits`."""
    import torch

    if model.training:  # eval() visits each module and each of its names, which a short text would wait for
        model.eval()
    rows_done: list[Ints] = []
    outputs: list[Floats] = []
    embeddings: list[NDArray[np.float32]] = []
    waiting = deque(encoder.batches(tokens, MEMORY_TOKENS[hardware.device]))
    while waiting:
        rows = waiting.popleft()
        try:
            with torch.inference_mode(), hardware.autocast():
                output = model(**encoder.batch(tokens, rows, hardware.device))
            outputs.append(output.logits.float().cpu().double().numpy())  # (B, C)
            if getattr(output, "embeddings", None) is not None:
                embeddings.append(output.embeddings.cpu().numpy())  # (B, D)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if len(rows) == 1:
                raise GateError(f"out of memory: {hardware.device} has no room for one text of this model.") from None
            waiting.extendleft((rows[len(rows) // 2 :], rows[: len(rows) // 2]))
            hardware.release()
            continue
        rows_done.append(rows)
        advance(int(tokens.lengths[rows].sum()))
    order = np.argsort(np.concatenate(rows_done))
    is_complete = len(embeddings) == len(outputs)
    return Outputs(np.concatenate(outputs)[order], np.concatenate(embeddings)[order] if is_complete else None)


def evaluate(
    model: nn.Module,
    encoder: Encoder,
    rows: Labelled,
    hardware: Hardware,
    more_metrics: Sequence[str] = (),
    *,
    seed: int,
    readout: Readout = ONE_LABEL,
    advance: Callable[[int], None] = lambda n_tokens: None,
) -> Evaluation:
    """Scores of `model` on labelled rows by all metrics of their task, and more; seed: of the bootstrap intervals."""
    started = time.monotonic()
    outputs = predict(model, encoder, rows.tokens, hardware, advance)
    y_true, proba = rows.y, readout.probabilities(outputs.logits)
    answers = readout.answers(proba)
    seconds = time.monotonic() - started
    scores = score_all(y_true, proba, answers, names=[*TABLES[readout.task], *more_metrics], seed=seed)
    confusion = count_answers(y_true, answers, proba.shape[1])
    speed = rows.n_tokens / seconds
    return Evaluation(y_true, proba, answers, scores, confusion, seconds, speed, outputs.embeddings)


def count_answers(y_true: Ints, answers: NDArray[np.generic], n_classes: int) -> list[list[int]]:
    """Rows of each class (C, C) by the answer to them; of several labels a row, by label (C, 4); of numbers none.

    The four are: given and there, given but not there, not given but there, neither.
    """
    if y_true.dtype.kind == "f":
        return []
    if y_true.ndim == 1:
        confusion = np.zeros((n_classes, n_classes), dtype=int)
        np.add.at(confusion, (y_true, answers.astype(int)), 1)
        counted: list[list[int]] = confusion.tolist()
        return counted
    there, given = y_true == 1, answers.astype(bool)
    cells = (given & there, given & ~there, ~given & there, ~given & ~there)
    by_label: list[list[int]] = np.stack([cell.sum(axis=0) for cell in cells], axis=1).tolist()
    return by_label
