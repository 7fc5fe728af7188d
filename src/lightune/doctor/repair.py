"""A repaired copy of the training rows, and a line of JSON for each row that was changed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lightune.data.columns import columns_of
from lightune.doctor.exam import Symptom
from lightune.doctor.patient import Patient
from lightune.doctor.reading import CONTROLS
from lightune.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

FORMATS = (".csv", ".tsv", ".jsonl", ".parquet")
Change = dict[str, Any]


def check_target(path: Path, source: str) -> None:
    """Raises UserError for a format that is not written, or for the source itself."""
    if path.suffix not in FORMATS:
        raise UserError(
            f"{path}: cannot be written as {path.suffix or 'a file without an ending'}. Use {', '.join(FORMATS)}."
        )
    if Path(source).exists() and path.exists() and path.samefile(source):
        raise UserError(f"{path}: is the data itself. Name another file: the original stays as it is.")


def repair(patient: Patient, symptoms: Sequence[tuple[str, Symptom]], path: Path) -> dict[str, int]:
    """Writes the repaired training rows to `path` and the changes to <path>.changes.jsonl; the rows of each change.

    Rows keep their order and their other columns. What is in doubt is dropped: of copies all but the first, of texts
    under several labels all.
    """
    table = next(iter(patient.tables.values()))
    dropped, changes = np.zeros(table.num_rows, bool), []
    here = [(check, each, _inside(each.places, table)) for check, each in symptoms]
    for check, each, places in here:
        if each.fix == "drop":
            changes += [_change(place, check, "dropped") for place in places[~dropped[places]]]
            dropped[places] = True
    for check, each, places in here:
        places = places[~dropped[places]]
        if each.fix == "relabel":
            changes += [_change(place, check, "relabelled", to=each.label) for place in places]
            table = _with_cells(table, patient.label, places, [str(each.label)] * len(places))
        elif each.fix == "retext":
            table, mended = _retexted(table, patient, places)
            changes += [_change(place, check, "text mended") for place in mended]
    _write(table.take(np.flatnonzero(~dropped)), path)
    log = path.with_name(path.name + ".changes.jsonl")
    changes.sort(key=lambda change: change["row"])
    log.write_text("".join(json.dumps(change) + "\n" for change in changes), encoding="utf-8")
    kinds = [change["change"] for change in changes]
    return {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}


def _inside(places: NDArray[np.int64] | Sequence[int], table: pa.Table) -> NDArray[np.int64]:
    """Those of the training rows, which come first."""
    every: NDArray[np.int64] = np.asarray(places, np.int64)
    return np.asarray(every[every < table.num_rows])


def _change(place: Any, check: str, change: str, **more: Any) -> Change:
    return {"row": int(place), "check": check, "change": change, **more}


def _retexted(table: pa.Table, patient: Patient, places: NDArray[np.int64]) -> tuple[pa.Table, list[int]]:
    """The table with the texts at `places` mended, and the places where that changed something."""
    columns = [patient.text] if patient.text in table.column_names else columns_of(patient.text)
    changed: set[int] = set()
    for name in columns:
        cells = table.column(name).take(places).to_pylist()
        mended = [cell if cell is None else _mended(cell) for cell in cells]
        differ = [i for i, (old, new) in enumerate(zip(cells, mended, strict=True)) if old != new]
        changed |= {int(places[i]) for i in differ}
        table = _with_cells(table, name, places[differ], [mended[i] or "" for i in differ])
    return table, sorted(changed)


def _mended(text: str) -> str:
    import ftfy

    return CONTROLS.sub("", ftfy.fix_encoding(text))


def _with_cells(table: pa.Table, name: str, places: NDArray[np.int64], values: Sequence[str]) -> pa.Table:
    """The table with other values in some cells of a column."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not len(places):
        return table
    order = np.argsort(places)
    mask = np.zeros(table.num_rows, bool)
    mask[places] = True
    column = table.column(name).combine_chunks()
    replaced = pc.replace_with_mask(column, pa.array(mask), pa.array([values[i] for i in order], column.type))
    return table.set_column(table.column_names.index(name), name, replaced)


def _write(table: pa.Table, path: Path) -> None:
    import pyarrow.csv
    import pyarrow.parquet

    part = path.with_name(path.name + ".part")
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(table, part)
    elif path.suffix == ".jsonl":
        with part.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in _rows(table))
    else:
        delimiter = "\t" if path.suffix == ".tsv" else ","
        pyarrow.csv.write_csv(table, part, pyarrow.csv.WriteOptions(delimiter=delimiter))
    part.replace(path)


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(2048):
        yield from batch.to_pylist()
