"""What a length limit costs: how much of the texts is never read, and which end of a long one says more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lightune.data.batching import Encoder, Labelled
from lightune.data.framing import truncate
from lightune.doctor.exam import Exam, Symptom, percent, share
from lightune.doctor.findings import Severity
from lightune.doctor.label_errors import by_words, in_all_folds, knows_too_little, stratified_folds
from lightune.errors import UserError, first_line
from lightune.evidence.statistics import paired_difference
from lightune.recipe import DataRecipe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bools = NDArray[np.bool_]
    Ints = NDArray[np.int64]
    Codes = NDArray[np.int64] | NDArray[np.int32]
    TokenLists = list[list[int]]

SAMPLE_ROWS = 2000  # training texts that are tokenised
MUCH = 0.25  # of all tokens: so much unread text is a warning
FEWEST_LONGER = 100  # texts on which ends are compared
RESAMPLES = 2000
ENDS = ("head", "tail", "head+tail")
KEPT = {"head": "the head is kept", "tail": "the tail is kept", "head+tail": "head+tail keeps both ends"}
DEFAULT = str(DataRecipe.model_fields["truncation"].default)


@dataclass(frozen=True)
class Cut:
    """Of how many texts and tokens a length limit cuts away how many."""

    n_texts: int
    n_longer: int
    n_tokens: int
    n_lost: int

    @property
    def lost(self) -> float:
        """The share of all tokens that is never read."""
        return self.n_lost / max(1, self.n_tokens)

    def __str__(self) -> str:
        return (
            f"{share(self.n_longer, self.n_texts)} are longer and {percent(self.lost)} of all tokens are never read"
        )


def cut_of(lengths: Ints, room: int) -> Cut:
    """What a limit of `room` tokens cuts away of texts of these lengths (N,), no special tokens in either."""
    over = np.maximum(lengths - room, 0)
    return Cut(len(lengths), int(np.count_nonzero(over)), int(lengths.sum()), int(over.sum()))


def unread(exam: Exam) -> list[Symptom]:
    """By the tokenizer of a base model, at the length that a run takes where its recipe says nothing."""
    if exam.tokeniser is None:
        exam.left_out["truncation"] = "no base model was named whose tokenizer could count"
        return []
    if exam.patient.pair is not None:
        exam.left_out["truncation"] = "of pairs a run says it, where the longer text is cut first"
        return []
    try:
        tokeniser = exam.tokeniser()
    except UserError as error:
        exam.left_out["truncation"] = first_line(error)
        return []
    places, limit = exam.sample(SAMPLE_ROWS), tokeniser.max_tokens()
    tokens, room = tokeniser.tokens(exam.patient.texts.take(places)), tokeniser.room(limit)
    lengths = np.array([len(ids) for ids in tokens], np.int64)
    cut = cut_of(lengths, room)
    if not cut.n_longer:
        return []
    what = f"with data.max_tokens = {limit}, {cut}"
    if (most := tokeniser.max_tokens("most")) > limit:
        what += f" ({percent(cut_of(lengths, tokeniser.room(most)).lost)} with {most})"
    what += f"; {KEPT[DEFAULT]}, by default"
    what += _which_end(tokens, exam.patient.labels.codes[places], room, exam.seed)
    return [Symptom(_severity([cut]), cut.n_longer, what, places[lengths > room])]


def unread_in_run(rows: Mapping[str, Labelled], encoder: Encoder) -> list[Symptom]:
    """By all tokens of a run, split by split."""
    n_special = encoder.frame.n_special
    cuts = {
        name: Cut(len(own), own.tokens.n_truncated, own.n_tokens - n_special * len(own) + lost, lost)
        for name, own in rows.items()
        for lost in [own.tokens.lost]
    }
    told = "; ".join(f"{name}: {cut}" for name, cut in cuts.items() if cut.n_longer)
    if not told:
        return []
    what = f"with data.max_tokens = {encoder.max_tokens}, {told}; {KEPT[encoder.truncation]}"
    return [Symptom(_severity(cuts.values()), sum(cut.n_longer for cut in cuts.values()), what)]


def _severity(cuts: Iterable[Cut]) -> Severity:
    return "warning" if max(cut.lost for cut in cuts) >= MUCH else "note"


def _which_end(tokens: TokenLists, codes: Codes, room: int, seed: int) -> str:
    """On the longer texts, what a classifier of words has right by both ends, by the head and by the tail alone."""
    kept = in_all_folds(codes)
    longer = np.array([len(tokens[i]) > room for i in kept])
    if longer.sum() < FEWEST_LONGER or len(np.unique(codes[kept])) < 2:
        return ""
    right = _right_by_end([tokens[i] for i in kept], codes[kept], room, seed)
    if right is None:
        return ""
    both = right["head+tail"][longer]
    against = [_against(end, right[end][longer], both, seed) for end in ("head", "tail")]
    model = "TF-IDF with logistic regression, out of fold"
    return f"; of the longer texts {model}, has {both.mean():.1%} right by both ends, {' and '.join(against)}"


def _against(end: str, alone: Bools, both: Bools, seed: int) -> str:
    gain = paired_difference(alone, both, RESAMPLES, np.random.default_rng(seed))
    value, low, high = (f"{100 * number:+.1f}" for number in (gain.value, gain.low, gain.high))
    return f"{alone.mean():.1%} by the {end} alone (both ends: {value} points, 95 % CI {low} to {high})"


def _right_by_end(tokens: TokenLists, codes: Codes, room: int, seed: int) -> dict[str, Bools] | None:
    """What is kept -> (N,) whether a classifier of words has the text right by it; None if it can hardly tell."""
    present, y = np.unique(codes, return_inverse=True)
    fold = stratified_folds(y, np.random.default_rng(seed))
    right = {}
    for end in ENDS:
        words = [" ".join(map(str, truncate(ids, room, end))) for ids in tokens]  # the numbers are the words
        proba = by_words(words, y, len(present), fold, seed)
        if end == "head+tail" and knows_too_little(proba, y):
            return None
        right[end] = proba.argmax(axis=1) == y
    return right
