"""A finished run used on files: score labelled ones, label others as they stream by."""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from lightune.data.arrow_tables import plain_table
from lightune.data.batching import Labelled
from lightune.data.columns import choose_columns, examples
from lightune.data.sources import read
from lightune.errors import GateError, UserError
from lightune.evidence.evaluate import evaluate
from lightune.evidence.metrics import METRICS
from lightune.journal import Journal
from lightune.libraries import is_offline
from lightune.report.screen import show_scores
from lightune.use.classifier import Classifier

CHUNK_ROWS = 2048
Row = dict[str, Any]


def evaluate_file(
    run: str,
    data: str,
    *,
    text: str | None = None,
    label: str | None = None,
    encoding: str | None = None,
    base: str | None = None,
    journal: Journal,
) -> dict[str, Any]:
    """Scores of a finished run on labelled data it has not seen, as printed by --json.

    UserError if the data has a class that the classifier does not know.
    """
    corpus = read(data, encoding=encoding, offline=is_offline())
    name = next((n for n in ("test", "validation") if n in corpus.tables), next(iter(corpus.tables)))
    classifier = Classifier.load(run, base=base)
    text = text or classifier.contract.text
    text, label, decisions = choose_columns(corpus.tables[name], text=text, label=label)
    rows, dropped = examples(corpus.tables[name], text=text, label=label, class_names=corpus.class_names.get(label))
    journal.decide(*decisions, *dropped)
    labels = rows.labels or []
    unknown = sorted(set(labels) - set(classifier.labels))
    if unknown:
        known = ", ".join(map(repr, classifier.labels[:20]))
        raise UserError(f"{data}: labels {unknown[:5]} are unknown to this classifier. It knows {known}.")
    ids = {name: i for i, name in enumerate(classifier.labels)}
    labelled = Labelled(classifier.encoder.tokenise(rows.texts), np.array([ids[name] for name in labels]))
    with journal.progress("evaluating", labelled.n_tokens, "tokens") as progress:
        found = evaluate(
            classifier.model,
            classifier.encoder,
            labelled,
            classifier.hardware,
            list(METRICS),
            seed=0,
            advance=progress.advance,
        )
    scores = {n: {"value": s.value, "low": s.low, "high": s.high} for n, s in found.scores.items()}
    journal.say(f"\n{len(rows):,} rows of {data}\n")
    show_scores(journal, {"score": scores})
    return {
        "data": {"source": data, "digest": corpus.digest, "text": text, "label": label},
        "labels": classifier.labels,
        "n_rows": len(rows),
        "scores": scores,
        "confusion": found.confusion,
        "tokens_per_second": found.tokens_per_second,
    }


def predict_file(
    run: str,
    data: str,
    output: str,
    *,
    text: str | None = None,
    encoding: str | None = None,
    base: str | None = None,
) -> dict[str, Any]:
    """Streams `data` (- is stdin) to `output` (- is stdout) with label, score and p_<name> beside each row.

    Input columns are kept as they are. A file appears under its name only when it is complete.
    """
    with ExitStack() as stack:
        stack.enter_context(_as_user_errors(data))
        reader = stack.enter_context(open_rows(data, encoding))
        classifier = Classifier.load(run, base=base)
        template = text or classifier.contract.text
        chunks = iter(lambda: list(islice(reader.rows, CHUNK_ROWS)), [])
        first = next(chunks, None)
        if first is None:
            raise UserError(f"{data}: no rows to predict.")
        write = stack.enter_context(open_writer(output, reader.kind))
        n_rows = 0
        for rows in chain([first], chunks):
            write(label_rows(classifier, rows, template, reader.is_plain))
            n_rows += len(rows)
    return {"rows": n_rows, "output": output, "labels": classifier.labels}


def label_rows(classifier: Classifier, rows: list[Row], template: str, is_plain: bool) -> list[Row]:
    """The rows with label, score and p_<name> added. UserError if a column of the template is missing."""
    import pyarrow as pa

    if is_plain:
        texts = [row["text"] for row in rows]
    else:
        table = plain_table("input", pa.Table.from_pylist(rows), {})  # as the training data was read
        texts = examples(table, text=template, label=None)[0].texts
    kept = _free_names(list(rows[0]), {"label", "score", *(f"p_{name}" for name in classifier.labels)})
    answers = classifier.predict(texts)
    return [
        {kept.get(name, name): value for name, value in row.items()}
        | {"label": answer.label, "score": round(answer.score, 6)}
        | {f"p_{name}": round(p, 6) for name, p in answer.probabilities.items()}
        for row, answer in zip(rows, answers, strict=True)
    ]


def _free_names(columns: list[str], added: set[str]) -> dict[str, str]:
    """A new name for each input column that an added one would hide: the true label becomes input_label."""
    names: dict[str, str] = {}
    for name in columns:
        new = name
        while new in added or (new != name and new in columns):
            new = f"input_{new}"
        names[name] = new
    return names


@dataclass(frozen=True)
class Rows:
    """A stream of rows. kind: csv, tsv, jsonl or parquet; is_plain: every line of stdin is one text."""

    kind: str
    rows: Iterator[Row]
    is_plain: bool = False


@contextmanager
def open_rows(data: str, encoding: str | None) -> Iterator[Rows]:
    """The rows of a file or of standard input, read as they are needed."""
    if data == "-":
        yield _stdin_rows(io.TextIOWrapper(sys.stdin.buffer, encoding=encoding or "utf-8-sig", newline=""))
        return
    path = Path(data)
    if not path.is_file():
        raise UserError(f"{data}: no such file. Give a CSV, TSV, JSONL or Parquet file, or - for standard input.")
    with path.open("rb") as probe:
        start = probe.read(4)
    if start == b"PAR1":
        yield Rows("parquet", _parquet_rows(path))
        return
    is_gzip = start[:2] == b"\x1f\x8b"
    with gzip.open(path) if is_gzip else path.open("rb") as opened:
        lines = io.TextIOWrapper(opened, encoding=encoding or "utf-8-sig", newline="")  # type: ignore[arg-type]
        suffixes = [suffix.lower() for suffix in path.suffixes]
        if ".jsonl" in suffixes or ".ndjson" in suffixes:
            yield Rows("jsonl", _jsonl_rows(lines, data))
        else:
            yield _csv_rows(lines, data, "\t" if ".tsv" in suffixes else None)


@contextmanager
def open_writer(output: str, kind: str) -> Iterator[Callable[[list[Row]], None]]:
    """A function that appends rows to `output` in the format of its ending, or of the input on stdout."""
    if output == "-":
        write = _jsonl_writer(sys.stdout) if kind == "jsonl" else _csv_writer(sys.stdout, kind)
        yield write
        return
    path = Path(output)
    ending = path.suffix.lower().lstrip(".")
    if ending not in WRITERS:
        raise UserError(f"{output}: cannot write {ending or 'this'}. Endings: {', '.join('.' + k for k in WRITERS)}.")
    if not path.parent.is_dir():
        raise UserError(f"{output}: its folder does not exist. Make it first.")
    # a fresh name of our own, beside the output so that it can take its place in one step
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    partial = scratch / path.name
    try:
        with WRITERS[ending](partial) as write:
            yield write
        partial.replace(path)
    except OSError as error:
        raise GateError(f"{output}: cannot be written ({error.strerror}).") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _as_user_errors(data: str) -> Iterator[None]:
    """What Python and Arrow raise for a damaged or misread input, as one message."""
    import pyarrow as pa

    try:
        yield
    except UnicodeDecodeError as error:
        raise UserError(f"{data}: not valid {error.encoding}. Say what it is with --encoding.") from None
    except LookupError as error:
        if "encoding" not in str(error):
            raise
        raise UserError(f"{data}: {error}. Use a name such as cp1252.") from None
    except (EOFError, gzip.BadGzipFile, pa.ArrowInvalid) as error:
        raise UserError(f"{data}: damaged or cut short ({error}). Get it again.") from None


def _stdin_rows(lines: IO[str]) -> Rows:
    first = lines.readline()
    rest = _chain(first, lines)
    if first.lstrip().startswith("{"):
        return Rows("jsonl", _jsonl_rows(rest, "standard input"))
    if any(mark in first for mark in ",\t;"):
        header = next(csv.reader([first], delimiter=_delimiter(first)))
        if len(header) > 1 and all(cell and len(cell) < 40 and " " not in cell.strip() for cell in header):
            return _csv_rows(rest, "standard input", None)
    if first.strip() in ("text", "review", "sentence"):
        return _csv_rows(rest, "standard input", None)
    return Rows("csv", ({"text": line.rstrip("\r\n")} for line in rest if line), is_plain=True)


def _chain(first: str, lines: IO[str]) -> Iterator[str]:
    yield first
    yield from lines


def _delimiter(header: str) -> str:
    return max(",\t;|", key=header.count)


def _csv_rows(lines: Any, name: str, delimiter: str | None) -> Rows:
    csv.field_size_limit(2**26)
    lines = iter(lines)
    first = next(lines, "")
    delimiter = delimiter or _delimiter(first)
    reader = csv.reader(_chain(first, lines), delimiter=delimiter, strict=True)
    kind = "tsv" if delimiter == "\t" else "csv"
    return Rows(kind, _dictionaries(reader, name))


def _dictionaries(reader: Any, name: str) -> Iterator[Row]:
    try:
        header: list[str] = next(reader, [])
        if len(set(header)) < len(header) or not header:
            raise UserError(f"{name}: its header {header} is empty or names a column twice.")
        for row in reader:
            if len(row) != len(header) and row:
                seen = f"line {reader.line_num}: {len(row)} values for {len(header)} columns"
                raise UserError(f"{name}: {seen}. Quote values that hold the delimiter.")
            if row:
                yield dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise UserError(f"{name}: line {reader.line_num}: {error}. Check the quotes.") from None


def _jsonl_rows(lines: Any, name: str) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            where = f"{name}:{number}:{error.colno}"
            raise UserError(f"{where}: {error.msg}. Every line must be a JSON object.") from None
        if not isinstance(row, dict):
            raise UserError(f"{name}:{number}: {type(row).__name__}, not a JSON object.")
        yield row


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(path).iter_batches(batch_size=CHUNK_ROWS):
        yield from batch.to_pylist()


def _csv_writer(file: Any, kind: str) -> Callable[[list[Row]], None]:
    writer = csv.writer(file, delimiter="\t" if kind == "tsv" else ",", lineterminator="\n")
    header: list[str] = []

    def write(rows: list[Row]) -> None:
        if not header:
            header.extend(rows[0])
            writer.writerow(header)
        writer.writerows([row.get(name, "") for name in header] for row in rows)

    return write


def _jsonl_writer(file: Any) -> Callable[[list[Row]], None]:
    def write(rows: list[Row]) -> None:
        file.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)

    return write


@contextmanager
def _csv_file(path: Path) -> Iterator[Callable[[list[Row]], None]]:
    with path.open("w", encoding="utf-8", newline="") as file:
        yield _csv_writer(file, "csv")


@contextmanager
def _tsv_file(path: Path) -> Iterator[Callable[[list[Row]], None]]:
    with path.open("w", encoding="utf-8", newline="") as file:
        yield _csv_writer(file, "tsv")


@contextmanager
def _jsonl_file(path: Path) -> Iterator[Callable[[list[Row]], None]]:
    with path.open("w", encoding="utf-8") as file:
        yield _jsonl_writer(file)


@contextmanager
def _parquet_file(path: Path) -> Iterator[Callable[[list[Row]], None]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with ExitStack() as stack:
        opened: list[Any] = []

        def write(rows: list[Row]) -> None:
            table = pa.Table.from_pylist(rows, schema=opened[0].schema if opened else None)
            if not opened:
                opened.append(stack.enter_context(pq.ParquetWriter(path, table.schema)))
            opened[0].write_table(table)

        yield write


WRITERS: Mapping[str, Any] = {
    "csv": _csv_file,
    "tsv": _tsv_file,
    "jsonl": _jsonl_file,
    "parquet": _parquet_file,
}
