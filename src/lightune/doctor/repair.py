"""A repaired copy of the training rows, and a line of JSON for each row that was changed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lightune.data.columns import used_columns
from lightune.data.scratch import rows_at
from lightune.doctor.checks import dropping, look
from lightune.doctor.exam import Exam, Symptom
from lightune.doctor.patient import Patient
from lightune.doctor.reading import CONTROLS
from lightune.doctor.target import log_of, written
from lightune.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

FORMATS = (".csv", ".tsv", ".jsonl", ".parquet")
Change = dict[str, Any]
Found = Sequence[tuple[str, Symptom]]


def check_columns(patient: Patient, path: Path) -> None:
    """UserError if the training rows have a column that the format by the ending of `path` cannot hold."""
    schema = next(iter(patient.tables.values())).schema
    unfit = [field.name for field in schema if _is_unfit(field.type, path.suffix)]
    if unfit:
        better = ".parquet" if path.suffix == ".jsonl" else ".parquet (or .jsonl, if they hold no bytes)"
        raise UserError(f"{path}: {path.suffix} cannot hold the lists or bytes of columns {unfit}. Write {better}.")


def repair(patient: Patient, symptoms: Found, path: Path, *, checks: Sequence[str]) -> dict[str, int]:
    """Writes the repaired training rows to `path` and the changes to <path>.changes.jsonl; the rows of each change.

    symptoms: what the `checks` found. Rows keep their order and their other columns. Labels and texts are mended
    first, in all splits; then, of what is in doubt, rows are dropped: of copies all but the first, of texts under
    several labels all.
    UserError, and no file, if fewer than two classes would be left.
    """
    mended, changes = mend(patient, symptoms)
    dropped = drop(mended, symptoms if mended is patient else _again(mended, checks))
    table = next(iter(mended.tables.values()))
    kept = np.setdiff1d(np.arange(table.num_rows), np.array(list(dropped), np.int64))
    _check_left(mended, kept, dropped, path)
    changes = [change for change in changes if change["row"] not in dropped]
    changes += [{"row": row, "check": check, "change": "dropped"} for row, check in dropped.items()]
    changes.sort(key=lambda change: change["row"])
    with written(path, log_of(path)) as (copy, log):
        _write(rows_at(table, kept), copy)
        log.write_text("".join(json.dumps(change) + "\n" for change in changes), encoding="utf-8")
    return dict(Counter(change["change"] for change in changes))


def mend(patient: Patient, symptoms: Found) -> tuple[Patient, list[Change]]:
    """The patient with labels and texts mended in all splits, or itself; the changes are those of training rows."""
    tables, changes, start = dict(patient.tables), [], 0
    for name, table in patient.tables.items():
        for check, symptom in symptoms:
            places = np.asarray(symptom.places, np.int64) - start
            places = places[(places >= 0) & (places < table.num_rows)]
            if symptom.fix == "relabel":
                values = [str(symptom.label)] * len(places)
                tables[name] = _with_cells(tables[name], patient.label, places, values)
                own = [_change(place, check, "relabelled", to=symptom.label) for place in places]
            elif symptom.fix == "retext":
                tables[name], touched = _retexted(tables[name], (patient.text, patient.pair), places)
                own = [_change(place, check, "text mended") for place in touched]
            else:
                continue
            changes += own if start == 0 else []
        start += table.num_rows
    is_same = all(tables[name] is patient.tables[name] for name in tables)
    return (patient if is_same else patient.with_tables(tables)), changes


def drop(patient: Patient, symptoms: Found) -> dict[int, str]:
    """The training rows that are to go, and the first check that says so."""
    n_rows = next(iter(patient.tables.values())).num_rows
    dropped: dict[int, str] = {}
    for check, symptom in symptoms:
        if symptom.fix == "drop":
            for place in np.asarray(symptom.places, np.int64).tolist():
                if place < n_rows:
                    dropped.setdefault(place, check)
    return dropped


def _again(patient: Patient, checks: Sequence[str]) -> Found:
    """What is to be dropped of a patient whose labels and texts were mended, by those of the checks that drop."""
    return list(look(Exam(patient, patient.read()), dropping(checks)))


def _check_left(patient: Patient, kept: Ints, dropped: dict[int, str], path: Path) -> None:
    classes = set(patient.labels.take(kept).counts()) - {""}
    if len(classes) < 2:
        why = ", ".join(f"{n:,} by {check}" for check, n in Counter(dropped.values()).items())
        left = f"{len(kept):,} rows of {len(classes)} class{'es' * (len(classes) != 1)}"
        raise UserError(
            f"{path}: not written, as only {left} would be left (dropped: {why or 'none'}). "
            f"Look at the findings; --only says which of them --fix is to mend."
        )


def _change(place: Any, check: str, change: str, **more: Any) -> Change:
    return {"row": int(place), "check": check, "change": change, **more}


def _retexted(table: pa.Table, texts: Sequence[str | None], places: Ints) -> tuple[pa.Table, list[int]]:
    """The table with the texts at `places` mended, and the places where that changed something."""
    changed: set[int] = set()
    for name in used_columns(table, *texts):
        cells = rows_at(table.select([name]), places).column(name).to_pylist()
        mended = [cell if cell is None else _mended(cell) for cell in cells]
        differ = [i for i, (old, new) in enumerate(zip(cells, mended, strict=True)) if old != new]
        changed |= {int(places[i]) for i in differ}
        table = _with_cells(table, name, places[differ], [mended[i] or "" for i in differ])
    return table, sorted(changed)


def _mended(text: str) -> str:
    import ftfy

    return CONTROLS.sub("", ftfy.fix_encoding(text))


def _with_cells(table: pa.Table, name: str, places: Ints, values: Sequence[str]) -> pa.Table:
    """The table with other values in some cells of a column."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not len(places):
        return table
    order = np.argsort(places)
    mask = np.zeros(table.num_rows, bool)
    mask[places] = True
    chunks, start, done = [], 0, 0
    for chunk in table.column(name).chunks:  # one after the other: together they may be larger than memory
        own = mask[start : start + len(chunk)]
        new = pa.array([values[i] for i in order[done : done + int(own.sum())]], chunk.type)
        chunks.append(pc.replace_with_mask(chunk, pa.array(own), new) if len(new) else chunk)
        start, done = start + len(chunk), done + len(new)
    return table.set_column(table.column_names.index(name), name, pa.chunked_array(chunks))


def _is_unfit(kind: pa.DataType, ending: str) -> bool:
    import pyarrow.types as kinds

    if ending == ".parquet":
        return False
    if kinds.is_nested(kind):
        inner = [kind.field(i).type for i in range(kind.num_fields)]
        return ending != ".jsonl" or any(_is_unfit(each, ending) for each in inner)
    return bool(kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_fixed_size_binary(kind))


def _write(table: pa.Table, path: Path) -> None:
    import pyarrow.csv
    import pyarrow.parquet

    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(table, path)
    elif path.suffix == ".jsonl":
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in _rows(table))
    else:
        delimiter = "\t" if path.suffix == ".tsv" else ","
        pyarrow.csv.write_csv(table, path, pyarrow.csv.WriteOptions(delimiter=delimiter))


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(2048):
        yield from batch.to_pylist()
