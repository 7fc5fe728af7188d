"""The sections of a report on single test rows: fixed, broken, and wrong with confidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lightune.artifact.finished import FinishedRun, Predictions
from lightune.data.framing import SEPARATOR, split_pair
from lightune.data.targets import as_written
from lightune.legible import in_a_line
from lightune.report.parts import MINUS, Block, Cell, Row, Text, decimal, number, short, signed, table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Places = NDArray[np.int64]

MOST_ROWS = 20
MOST_CHARACTERS = 300  # of a text


def listed(run: FinishedRun) -> list[Block]:
    """The rows that tuning fixed and broke and those that it is most wrong about; see `rows_named`."""
    last = "The probability is that of the answer after tuning."
    if run.predictions.are_numbers:
        last = "The distance is from the answer after tuning to the label."
    elif run.predictions.are_sets:
        last = "The probability is that with which the least sure label of the answer after tuning is given or not."
    return [
        Text(f"Row numbers count from 0 in the data as it was read. {last}"),
        *(_rows(run.predictions, places, title, run.texts) for title, places in groups(run.predictions).items()),
    ]


def rows_named(predictions: Predictions) -> list[int]:
    """The row numbers that `listed` shows, whose texts it can show beside them."""
    found = groups(predictions).values()
    return sorted({int(row) for places in found for row in predictions.rows[places[:MOST_ROWS]]})


def groups(predictions: Predictions) -> dict[str, Places]:
    """The places of the rows that are shown, the most confident answers first, by what happened to them.

    Where labels are numbers, those whose answer moved most, and those that are furthest off.
    """
    if predictions.are_numbers:
        nearer_by = predictions.errors("before") - predictions.errors()
        return {
            "Nearer to the label by tuning": by_most(nearer_by, nearer_by > 0),
            "Further from the label by tuning": by_most(-nearer_by, nearer_by < 0),
            "Furthest off, perhaps wrong labels": by_most(predictions.errors(), predictions.errors() > 0),
        }
    before, after = predictions.right("before"), predictions.right()
    return {
        "Fixed by tuning": by_confidence(predictions, ~before & after),
        "Broken by tuning": by_confidence(predictions, before & ~after),
        "Wrong with the most confidence, perhaps wrong labels": by_confidence(predictions, ~after),
    }


def by_confidence(predictions: Predictions, chosen: NDArray[np.bool_]) -> Places:
    """The places of the chosen (N,) rows, the most confident answer first."""
    return by_most(predictions.confidence, chosen)


def by_most(values: NDArray[np.float64], chosen: NDArray[np.bool_]) -> Places:
    """The places of the chosen (N,) rows, the largest value (N,) first."""
    places = np.flatnonzero(chosen)
    return places[np.argsort(-values[places], kind="stable")]


def _how_many(places: Places, most: str) -> str:
    shown = f", the {most}" if len(places) > MOST_ROWS else ""
    return f"{len(places):,} rows{shown}" if len(places) != 1 else "1 row"


def _rows(predictions: Predictions, places: Places, caption: str, texts: Mapping[int, str]) -> Block:
    answers = {"before": predictions.before, **predictions.others, "after": predictions.after}
    return rows_table(caption, predictions, places, answers, texts)


def rows_table(
    caption: str, predictions: Predictions, places: Places, answers: Mapping[str, Any], texts: Mapping[int, str]
) -> Block:
    """At most MOST_ROWS of the rows at `places`; a sentence if there are none.

    Of each its number, its label, the answers (N,) by who gave them, the probability or, of numbers, the distance
    from the answer to the label; under them its text, if any.
    """
    if not len(places):
        return Text(f"{caption}: no row.")
    shown = [(place, int(predictions.rows[place])) for place in places[:MOST_ROWS].tolist()]
    last, most = (
        ("distance", f"first {MOST_ROWS}")
        if predictions.are_numbers
        else ("probability", f"{MOST_ROWS} most confident")
    )
    rows: list[Row] = [
        [
            number(f"{row}"),
            number(_written(predictions.label[place]))
            if predictions.are_numbers
            else short(predictions.label[place]),
            *(answered(answer[place]) for answer in answers.values()),
            number(sureness(predictions, place)),
        ]
        for place, row in shown
    ]
    made = table(f"{caption}: {_how_many(places, most)}", ["row", "label", *answers, last], rows)
    return replace(made, under=[shortened(texts.get(row, "")) for _, row in shown]) if texts else made


def _written(label: float) -> str:
    return as_written(float(label)).replace("-", MINUS)


def answered(answer: Any) -> Cell | str:
    """A label or an answer in a cell: a name, or a number."""
    return number(signed(answer)) if isinstance(answer, float) else short(answer)


def sureness(predictions: Predictions, place: int) -> str:
    """The probability of an answer, or its distance from the label."""
    if predictions.are_numbers:
        return signed(float(predictions.errors()[place]))
    return decimal(float(predictions.confidence[place]))


def shortened(text: str) -> str:
    """The first MOST_CHARACTERS of a text in one line; of a pair half as many of each, a bar between them."""
    parts = split_pair(text) if SEPARATOR in text else (text,)
    return " | ".join(in_a_line(part, MOST_CHARACTERS // len(parts)) for part in parts)
