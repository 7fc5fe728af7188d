"""Answers beside the rows they are for: CSV, TSV, JSONL, Parquet, standard output."""

from __future__ import annotations

import csv
import json
import math
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightune.destination import check_destination
from lightune.errors import GateError, UserError

if TYPE_CHECKING:
    from lightune.use.classifier import Classifier
    from lightune.use.inputs import Input, Row

    Write = Callable[[list[Row]], None]


def ending_of(output: str) -> str:
    """The format by a name's ending, without the dot."""
    return Path(output).suffix.lower().lstrip(".")


def check_output(output: str, data: str) -> None:
    """Before any work: UserError if the format or the folder cannot be, or the answers would replace `data`."""
    if output != "-":
        check_destination(Path(output), [f".{name}" for name in WRITERS], [data])


@contextmanager
def open_output(output: str, source: Input, kept: Mapping[str, str], classifier: Classifier) -> Iterator[Write]:
    """A function that appends rows to `output` in the format of its ending, or of the input on stdout."""
    import pyarrow as pa

    if output == "-":
        with _standard_output() as file:
            header = [*kept.values(), *added_columns(classifier)]
            yield _jsonl_writer(file) if source.kind == "jsonl" else _csv_writer(file, header, source.kind)
        return
    path = Path(output).resolve()  # a link stays a link
    # a fresh name of our own, beside the output so that it can take its place in one step
    scratch = path.with_name(f".lightune.{secrets.token_hex(8)}")
    try:  # what goes wrong with the input is a UserError by now
        scratch.mkdir(mode=0o700)
        partial = scratch / f"answers.{ending_of(output)}"
        with WRITERS[ending_of(output)](partial, source, kept, classifier) as write:
            yield write
        if path.exists():
            partial.chmod(path.stat().st_mode)  # what was private stays so
        partial.replace(path)
    except pa.ArrowException as error:
        raise UserError(f"{output}: Parquet cannot hold this ({error}). Write CSV or JSONL.") from None
    except OSError as error:
        raise GateError(f"{output}: cannot be written ({error.strerror}).") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)  # named before it was made: a signal in between leaves nothing


@contextmanager
def _standard_output() -> Iterator[Any]:
    """Standard output, in UTF-8 whatever the terminal's locale says; what it refuses is one message."""
    if sys.stdout is None:
        raise UserError("standard output is closed. Name a file with -o.")
    if reconfigure := getattr(sys.stdout, "reconfigure", None):
        reconfigure(encoding="utf-8")
    try:
        yield sys.stdout
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise GateError(f"standard output: cannot be written ({error.strerror}).") from None


def added_columns(classifier: Classifier) -> list[str]:
    """What `predict` writes beside the input's own columns."""
    contract = classifier.contract
    if contract.task == "regression":
        return ["value"] if contract.interval is None else ["value", "low", "high"]
    sets = ["label_set"] if contract.conformal is not None or contract.task == "multi_label" else []
    return ["label", "score", *sets, *(f"p_{name}" for name in classifier.labels)]


def free_names(columns: Sequence[str], classifier: Classifier) -> dict[str, str]:
    """A new name for each input column that an added one would hide: the true label becomes input_label."""
    added = set(added_columns(classifier))
    names: dict[str, str] = {}
    for name in columns:
        new = name
        while new in added or (new != name and new in columns):
            new = f"input_{new}"
        names[name] = new
    return names


@dataclass(frozen=True)
class _LineFeeds:
    """Ends each row with \\n, though the csv module ends it with \\r\\n: only then does it quote a \\r in a cell."""

    file: Any

    def write(self, row: str) -> None:
        self.file.write(row.removesuffix("\r\n") + "\n")


def _csv_writer(file: Any, header: list[str], kind: str) -> Write:
    writer = csv.writer(_LineFeeds(file), delimiter="\t" if kind == "tsv" else ",", lineterminator="\r\n")
    writer.writerow(header)

    def write(rows: list[Row]) -> None:
        writer.writerows([_cell(row.get(name)) for name in header] for row in rows)
        file.flush()  # whoever waits at a pipe sees each answer at once

    return write


def _cell(value: Any) -> Any:
    nested = isinstance(value, (list, dict))
    return json.dumps(_finite(value), ensure_ascii=False, default=str) if nested else value


def _finite(value: Any) -> Any:
    """What JSON can hold: NaN and infinities, which Parquet may have, become null."""
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _jsonl_writer(file: Any) -> Write:
    def write(rows: list[Row]) -> None:
        file.writelines(json.dumps(_finite(row), ensure_ascii=False, default=str) + "\n" for row in rows)
        file.flush()

    return write


@contextmanager
def _text_file(path: Path, source: Input, kept: Mapping[str, str], classifier: Classifier) -> Iterator[Write]:
    header = [*kept.values(), *added_columns(classifier)]
    with path.open("w", encoding="utf-8", newline="") as file:
        kind = ending_of(path.name)
        yield _jsonl_writer(file) if kind == "jsonl" else _csv_writer(file, header, kind)


@contextmanager
def _parquet_file(path: Path, source: Input, kept: Mapping[str, str], classifier: Classifier) -> Iterator[Write]:
    import pyarrow as pa
    from pyarrow import parquet

    fields = [field.with_name(kept[field.name]) for field in source.schema()]
    types = {"label": pa.string(), "label_set": pa.list_(pa.string())}
    fields += [pa.field(name, types.get(name, pa.float64())) for name in added_columns(classifier)]
    schema = pa.schema(fields)
    with parquet.ParquetWriter(path, schema) as writer:
        yield lambda rows: writer.write_table(pa.Table.from_pylist(rows, schema=schema))


WRITERS: dict[str, Callable[..., AbstractContextManager[Write]]] = {
    "csv": _text_file,
    "tsv": _text_file,
    "jsonl": _text_file,
    "parquet": _parquet_file,
}
