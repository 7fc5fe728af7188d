"""A saved classifier that answers in names and probabilities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lightune.artifact.contract import Contract
from lightune.artifact.loading import Loaded, has_fingerprint, load_adapter
from lightune.data.framing import SEPARATOR, WORDS, join_pair
from lightune.errors import GateError, UserError, near_match
from lightune.evidence.attribution import attribute, weigh_words
from lightune.evidence.calibration import is_answered, label_sets
from lightune.evidence.evaluate import predict_logits
from lightune.hardware import Hardware, choose_hardware, fp32_instead, in_fp32
from lightune.libraries import settle_libraries
from lightune.model import adapters
from lightune.model.anatomy import is_sparse
from lightune.model.engine import PLAIN, can_be_written_out, can_compute, is_written_out, quicken
from lightune.records import Attribution, Decision

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Inputs = Iterable[str | tuple[str, str]]  # texts, or pairs of them where it was trained on these


@dataclass(frozen=True)
class Prediction:
    """The most probable label, its probability, and the probability of every label.

    label: None where the classifier has a goal, such as a precision, and is not sure enough. label_set: the labels
    among which the true one is as often as the contract says, the most probable first; None without such sets.
    Of a classifier that gives several labels a text, label_set are those it gives, each from its own threshold on,
    and label is the most probable of them, None where it gives none.
    """

    label: str | None
    score: float
    probabilities: dict[str, float]
    label_set: list[str] | None = None


@dataclass(frozen=True)
class NumberPrediction:
    """What a classifier that was trained on numbers answers.

    low, high: the interval that holds the true number as often as the contract says; None without one.
    """

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Explanation(Attribution):
    """How much each word of a text spoke for `label`, or for a larger number, beside what the classifier answers."""

    prediction: Prediction | NumberPrediction


class Classifier:
    """`Classifier.load("runs/imdb").predict(["a text", "another"])`; of pairs, `predict([("a", "b")])`.

    decisions: the device, the precision, and which fast paths its network takes, or why not, as a run prints them.
    """

    def __init__(self, loaded: Loaded, hardware: Hardware, *notes: Decision):
        self.contract: Contract = loaded.contract
        self.labels: list[str] = loaded.contract.labels
        self.model = loaded.model.to(hardware.device)
        of_machine = (decision for decision in hardware.decisions if decision.what != "optimizer")
        self.decisions = (*of_machine, *notes, *quicken(self.model, hardware.precision))
        self.encoder, self.hardware = loaded.encoder, hardware

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        base: str | None = None,
        device: str = "auto",
        precision: str = "auto",
        merge: bool = True,
    ) -> Classifier:
        """The classifier of a run or adapter folder.

        base: where the base model is, if it moved; precision: "auto" is that of the run where this device is fast
        at it, else fp32; merge: fold the adapter into the weights where that is exact, which answers faster.
        Raises UserError if the folder or the base is not what it should be.
        """
        settle_libraries()
        classifier = cls._loaded(folder, base, device, precision, merge)
        encoder = classifier.encoder
        if not is_sparse(classifier.model):
            made_up = encoder.tokenise([SEPARATOR.join(WORDS[: encoder.frame.n_texts])])
            # weights are packed where they are first needed: no text of the caller's is to wait for that
            predict_logits(classifier.model, encoder, made_up, classifier.hardware)
        return classifier

    @classmethod
    def _loaded(cls, folder: str | Path, base: str | None, device: str, precision: str, merge: bool) -> Classifier:
        loaded = load_adapter(folder, base=base)
        hardware = choose_hardware(device, precision)
        if precision == "auto" and hardware.precision not in ("fp32", loaded.contract.precision):
            hardware = fp32_instead(hardware, f"the run was in {loaded.contract.precision}")
        if refused := can_compute(loaded.model.to(hardware.device), hardware.precision):
            hardware = in_fp32(hardware, precision, refused)
        # In 16 bits only where blocks are written out, as in the run and its proof: they round the sum from fp32.
        # Autocast would give other answers, that no proof has seen.
        suits = hardware.precision == "fp32" or can_be_written_out(loaded.model, hardware.precision)
        is_merged = merge and suits and adapters.can_merge(loaded.model)
        notes: list[Decision] = []
        if is_merged:
            # on the CPU, where fp32 is fp32: a GPU may round its products
            loaded = Loaded(adapters.merge(loaded.model.to("cpu")), loaded.encoder, loaded.contract)
            is_merged = has_fingerprint(loaded.model, loaded.contract)
            if not is_merged:
                notes = [Decision("adapter", "not merged", "in the weights, it would answer a fixed text otherwise")]
                del loaded  # before there is another: this one is used up
                loaded = load_adapter(folder, base=base)
        classifier = cls(loaded, hardware, *notes)
        if not is_merged or hardware.precision == "fp32" or is_written_out(classifier.model):
            return classifier
        # the check refused what can be written out: merged, but exact
        why = next((decision.why for decision in classifier.decisions if decision.choice == PLAIN), "")
        return cls(loaded, fp32_instead(hardware, why))

    def predict(self, texts: Inputs) -> list[Any]:
        """One Prediction per text or pair, in order; a NumberPrediction where labels are numbers.

        UserError if `texts` is one string, or holds what this classifier does not read: it was trained on texts or
        on pairs of them.
        """
        return [*self._answers(self._proba(_checked(texts, "predict", self.encoder.frame.n_texts)))]

    def _answers(self, proba: NDArray[np.float64]) -> Sequence[Prediction | NumberPrediction]:
        if self.contract.task == "regression":
            return [self._number(value) for value in proba[:, 0].tolist()]
        if self.contract.task == "multi_label":
            return self._several(proba)
        best, abstention = proba.argmax(axis=1), self.contract.abstention
        answered = is_answered(proba, abstention.thresholds) if abstention else np.ones(len(proba), bool)
        return [
            Prediction(
                self.labels[i] if sure else None,
                float(row[i]),
                dict(zip(self.labels, map(float, row), strict=True)),
                self._label_set(row),
            )
            for i, sure, row in zip(best, answered, proba, strict=True)
        ]

    def _number(self, value: float) -> NumberPrediction:
        interval = self.contract.interval
        if interval is None:
            return NumberPrediction(value)
        return NumberPrediction(value, value - interval.half_width, value + interval.half_width)

    def _several(self, proba: NDArray[np.float64]) -> list[Prediction]:
        goal, readout = self.contract.abstention, self.contract.readout
        given = (replace(readout, thresholds=goal.thresholds) if goal else readout).answers(proba)
        found = []
        for row, flags in zip(proba, given, strict=True):
            members = np.flatnonzero(flags)
            labels = [self.labels[i] for i in members[np.argsort(-row[members], kind="stable")]]
            score = float(row[members].max() if len(members) else row.max())
            every = dict(zip(self.labels, map(float, row), strict=True))
            found.append(Prediction(labels[0] if labels else None, score, every, labels))
        return found

    def explain(self, texts: Inputs, label: str | None = None) -> list[Explanation]:
        """For each text how much its words spoke for `label`, or without one for its most probable label.

        Each text takes 17 passes forward and backward, or more until the weights sum to what they should. UserError
        for a label that is none, a tokenizer that does not tell where its tokens stand, and what `predict` refuses.
        """
        given = _checked(texts, "explain", self.encoder.frame.n_texts)
        if label is not None and self.contract.task == "regression":
            raise UserError(
                f"label {label!r}: this classifier answers in numbers, which have no labels. Leave it out."
            )
        if label is not None and label not in self.labels:
            known = ", ".join(map(repr, self.labels[:20]))
            raise UserError(f"label {label!r}: unknown.{near_match(str(label), self.labels)} It knows {known}.")
        if not given:
            return []
        proba, spans = self._proba(given), self.encoder.spans(given)
        predictions, tokens = self._answers(proba), self.encoder.tokenise(given)
        ids = proba.argmax(axis=1).tolist() if label is None else [self.labels.index(label)] * len(given)
        readout = self.contract.readout
        found = attribute(self.model, self.encoder, tokens, ids, self.hardware, readout)
        deviation = readout.scale.deviation if readout.task == "regression" else 0.0
        return [
            Explanation(
                text.replace(SEPARATOR, "|"),
                self.labels[i],
                weigh_words(text, where, each.weights),
                each.log_odds,
                each.blank,
                each.gap,
                each.n_steps,
                deviation,
                prediction=prediction,
            )
            for text, i, where, each, prediction in zip(given, ids, spans, found, predictions, strict=True)
        ]

    def _label_set(self, proba: NDArray[np.float64]) -> list[str] | None:
        if self.contract.conformal is None:
            return None
        members = np.flatnonzero(label_sets(proba[None], self.contract.conformal.threshold)[0])
        return [self.labels[i] for i in members[np.argsort(-proba[members], kind="stable")]]

    def predict_proba(self, texts: Inputs) -> NDArray[np.float64]:
        """Probabilities (N, C), columns in the order of `labels`; rows sum to 1 unless a text can have several.

        UserError where labels are numbers, which have none; GateError if an answer is no number, as where those of 16
        bits are too short for a network.
        """
        if self.contract.task == "regression":
            raise UserError("this classifier answers in numbers, which have no probabilities. Use predict.")
        return self._proba(_checked(texts, "predict", self.encoder.frame.n_texts))

    def _proba(self, given: list[str]) -> NDArray[np.float64]:
        if not given:
            return np.zeros((0, len(self.labels)))
        tokens = self.encoder.tokenise(given)
        logits = predict_logits(self.model, self.encoder, tokens, self.hardware)
        if not np.isfinite(logits).all():
            precision = self.hardware.precision
            raise GateError(f"the classifier's answers in {precision} are no numbers. Ask for precision fp32.")
        return self.contract.readout.probabilities(logits)


def _checked(texts: Inputs, caller: str, n_texts: int) -> list[str]:
    """The texts as a list, pairs joined. UserError for one string, a table, and what is no text or has no order."""
    what, how = ("texts", "[text]") if n_texts == 1 else ("pairs of texts", "[(first, second)]")
    if isinstance(texts, str | bytes):
        raise UserError(f"{caller} takes a list of {what} and got one string. Write {caller}({how}).")
    if isinstance(texts, Mapping | Set) or hasattr(texts, "columns") or not isinstance(texts, Iterable):
        seen = type(texts).__name__
        raise UserError(
            f"{caller} takes a list of {what} and got {seen}. Give it one column's texts, or two's in pairs."
        )
    return [(_text_of if n_texts == 1 else _pair_of)(text, i) for i, text in enumerate(texts)]


def _pair_of(found: Any, i: int) -> str:
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise UserError(
            f"text {i} is {found!r:.80}, no pair: this classifier was trained on pairs of texts. "
            f"Write predict([(first, second)])."
        )
    return join_pair(*(_text_of(text, i) for text in found))


def _text_of(text: Any, i: int) -> str:
    if isinstance(text, tuple | list):
        raise UserError(
            f"text {i} is {text!r:.80}, no single text: this classifier was trained on single texts, not on pairs. "
            f"Write predict([text])."
        )
    if not isinstance(text, str):
        raise UserError(f"text {i} is {type(text).__name__}, not a string: {text!r:.80}.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"text {i} holds half of a surrogate pair: {text!r:.80}.") from None
    return text
