"""The section of a report on the words behind some answers."""

from __future__ import annotations

from itertools import chain, zip_longest

from lightune.artifact.finished import FinishedRun, Predictions
from lightune.records import Attribution
from lightune.report.answers import groups
from lightune.report.marks import Piece, balance, pieces, told
from lightune.report.parts import Block, Marked, MarkedText, Text, decimal, short, signed

LEGEND = [
    Piece("In each text, "),
    Piece("such words", 1.0, 1.0),
    Piece(" spoke for the answer after tuning and "),
    Piece("such words", -1.0, -1.0),
    Piece(" against it"),
    Piece(", in a stronger shade the nearer to the strongest word of the text. "),
    Piece("What was cut off", is_read=False),
    Piece(" was not read."),
]
LEGEND_OF_NUMBERS = [
    Piece("In each text, "),
    Piece("such words", 1.0, 1.0),
    Piece(" made the answer after tuning larger and "),
    Piece("such words", -1.0, -1.0),
    Piece(" smaller"),
    *LEGEND[5:],
]
ABOUT = (
    "The weights are integrated gradients of {what} on the embeddings of the tokens (Sundararajan, "
    "Taly and Yan 2017). Those of a text sum up to the difference between it and a blank text, whose tokens are all "
    "replaced by one that says little; under each text stands what is missing. They show what this network's answer "
    "hangs on, word by word, each among the others. They are not the reasons a person would give, and no proof that "
    "another word in its place would have changed the answer."
)


def explained(run: FinishedRun) -> list[Block]:
    """Some rows with their words marked, or why there are none; nothing where nobody asked."""
    notes: list[Block] = [Text(run.unexplained, "note")] if run.unexplained else []
    if not run.attributions:
        return notes
    places = {int(row): place for place, row in enumerate(run.predictions.rows)}
    items = [
        MarkedText(_head(run.predictions, places[row], row, found.label), pieces(found), _note(found))
        for row, found in run.attributions.items()
    ]
    is_number = run.predictions.are_numbers
    about = ABOUT.format(what="the answer, a number," if is_number else "the answer's log-odds")
    return [Marked(LEGEND_OF_NUMBERS if is_number else LEGEND, items), Text(about, "note"), *notes]


def _note(found: Attribution) -> str:
    """What the marks come to, in two sentences."""
    return " ".join(f"{part[0].upper()}{part[1:]}." for part in (told(found), balance(found)))


def rows_to_explain(predictions: Predictions, n_rows: int) -> list[int]:
    """The numbers of at most n_rows rows: wrong with the most confidence, broken and fixed by tuning, in turn."""
    found = {title: predictions.rows[places].tolist() for title, places in groups(predictions).items()}
    wrong_first = reversed(list(found.values()))
    in_turn = (row for row in chain.from_iterable(zip_longest(*wrong_first)) if row is not None)
    return list(dict.fromkeys(in_turn))[:n_rows]


def _head(predictions: Predictions, place: int, row: int, weighed: str) -> str:
    """'Row 12, labelled positive: answered negative with probability 0.9870, positive before tuning.'

    weighed: the label that the words are weighed for, one of several that an answer may be.
    """
    if predictions.are_numbers:
        label, before, after = (
            signed(float(answers[place])) for answers in (predictions.label, predictions.before, predictions.after)
        )
        return f"Row {row}, labelled {label}: answered {after}, {before} before tuning."
    label, before, after = (
        short(names[place]) for names in (predictions.label, predictions.before, predictions.after)
    )
    sure = decimal(float(predictions.confidence[place]))
    if predictions.are_sets:
        told = f"answered {after}, with probability {sure} where it is least sure, {before} before tuning"
        return f"Row {row}, labelled {label}: {told}. The words are weighed for {short(weighed)}."
    return f"Row {row}, labelled {label}: answered {after} with probability {sure}, {before} before tuning."
