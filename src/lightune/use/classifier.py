"""A saved classifier that answers in names and probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lightune.artifact.contract import Contract
from lightune.artifact.folder import Loaded, load_adapter
from lightune.errors import UserError
from lightune.evidence.evaluate import predict_logits, softmax
from lightune.hardware import Hardware, choose_hardware
from lightune.libraries import settle_libraries
from lightune.model import adapters, methods
from lightune.model.engine import quicken

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Prediction:
    """The most probable label, its probability, and the probability of every label."""

    label: str
    score: float
    probabilities: dict[str, float]


class Classifier:
    """`Classifier.load("runs/imdb").predict(["a text", "another"])`."""

    def __init__(self, loaded: Loaded, hardware: Hardware):
        self.contract: Contract = loaded.contract
        self.labels: list[str] = loaded.contract.labels
        self.model = loaded.model.to(hardware.device)
        quicken(self.model, hardware.precision)
        self.encoder, self.hardware = loaded.encoder, hardware

    @classmethod
    def load(
        cls, folder: str | Path, *, base: str | None = None, device: str = "auto", merge: bool = True
    ) -> Classifier:
        """The classifier of a run or adapter folder.

        base: where the base model is, if it moved; merge: fold the adapter into the weights where the method
        allows it, which answers faster. Raises UserError if the folder or the base is not what it should be.
        """
        settle_libraries()
        loaded = load_adapter(folder, base=base)
        if merge and methods.METHODS[loaded.contract.method].mergeable:
            loaded = Loaded(adapters.merge(loaded.model), loaded.encoder, loaded.contract)
        return cls(loaded, choose_hardware(device))

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """One prediction per text, in order. UserError if `texts` is one string or holds something else."""
        proba = self.predict_proba(texts)
        best = proba.argmax(axis=1)
        return [
            Prediction(self.labels[i], float(row[i]), dict(zip(self.labels, map(float, row), strict=True)))
            for i, row in zip(best, proba, strict=True)
        ]

    def predict_proba(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Probabilities (N, C), columns in the order of `labels`; rows sum to 1."""
        if isinstance(texts, str):
            raise UserError("predict takes a list of texts and got one string. Write predict([text]).")
        wrong = next((i for i, text in enumerate(texts) if not isinstance(text, str)), None)
        if wrong is not None:
            raise UserError(f"text {wrong} is {type(texts[wrong]).__name__}, not a string: {texts[wrong]!r:.80}.")
        if not len(texts):
            return np.zeros((0, len(self.labels)))
        tokens = self.encoder.tokenise(texts)
        logits = predict_logits(self.model, self.encoder, tokens, self.hardware)
        return softmax(logits / self.contract.temperature)
