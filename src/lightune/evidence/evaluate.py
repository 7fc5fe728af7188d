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
from lightune.evidence.calibration import softmax
from lightune.evidence.score import score_all
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

    if any(module.training for module in model.modules()):  # eval() visits each module and each of its names
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
    metrics: Sequence[str],
    *,
    seed: int,
    temperature: float = 1.0,
    advance: Callable[[int], None] = lambda n_tokens: None,
) -> Evaluation:
    """Scores of `model` on labelled rows by `metrics`; seed: of the bootstrap intervals.

    temperature: what logits are divided by before the softmax.
    """
    started = time.monotonic()
    outputs = predict(model, encoder, rows.tokens, hardware, advance)
    proba = softmax(outputs.logits / temperature)
    seconds = time.monotonic() - started
    y_true = rows.y
    scores = score_all(y_true, proba, names=metrics, seed=seed)
    confusion = np.zeros((proba.shape[1], proba.shape[1]), dtype=int)
    np.add.at(confusion, (y_true, proba.argmax(axis=1)), 1)
    speed = rows.n_tokens / seconds
    return Evaluation(y_true, proba, scores, confusion.tolist(), seconds, speed, outputs.embeddings)
