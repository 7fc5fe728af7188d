"""A finished run used on data: score labelled rows, label others."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lightune.data.arrow_tables import parquet_table
from lightune.data.batching import Labelled
from lightune.data.columns import choose_columns, columns_of, examples, is_unlabelled
from lightune.data.csv_tables import delimiter_of
from lightune.data.files import MAX_BYTES, TextFile, check_text
from lightune.data.sources import Options, kind_of, read, split_for
from lightune.errors import GateError, UserError
from lightune.evidence.evaluate import evaluate
from lightune.evidence.metrics import METRICS
from lightune.journal import Journal
from lightune.libraries import is_offline
from lightune.records import Corpus
from lightune.report.screen import show_scores
from lightune.use.classifier import Classifier

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK_ROWS = 2048
STDIN = "standard input"
Row = dict[str, Any]
Write = Callable[[list[Row]], None]


def evaluate_file(
    run: str,
    data: str,
    *,
    text: str | None = None,
    label: str | None = None,
    encoding: str | None = None,
    delimiter: str | None = None,
    base: str | None = None,
    journal: Journal,
) -> dict[str, Any]:
    """Scores of a finished run on labelled data it has not seen, as printed by --json.

    UserError if the data has a class that the classifier does not know.
    """
    classifier = Classifier.load(run, base=base)
    text = text or classifier.contract.text
    with _words_of_options():
        corpus = read(data, encoding=encoding, delimiter=delimiter, offline=is_offline())
        name = _scored_split(corpus, label or classifier.contract.label)
        table = corpus.tables[name]
        label = label or _true_label(classifier, table.column_names)
        text, label, decisions = choose_columns(table, text=text, label=label)
        names = corpus.class_names.get(label)
        rows, dropped = examples(table, text=text, label=label, class_names=names, fewest_classes=1)
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
            temperature=classifier.contract.temperature,
            advance=progress.advance,
        )
    scores = {n: {"value": s.value, "low": s.low, "high": s.high} for n, s in found.scores.items()}
    journal.say(f"\n{len(rows):,} rows of {data}\n")
    show_scores(journal, {"score": scores})
    return {
        "data": {"source": data, "digest": corpus.digest, "split": name, "text": text, "label": label},
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
    delimiter: str | None = None,
    base: str | None = None,
) -> dict[str, Any]:
    """Labels every row of `data` (- is stdin) into `output` (- is stdout): label, score and p_<name> beside it.

    Input columns are kept as they are. A file appears under its name only when it is complete. Returns what
    was done: the numbers of rows and of rows without a text, and notes on how the input was read.
    """
    with ExitStack() as stack:
        _check_output(output)
        classifier = Classifier.load(run, base=base)
        template = text or classifier.contract.text
        stack.enter_context(_words_of_options())
        how = Options(encoding, delimiter, offline=is_offline())
        source = stack.enter_context(open_input(data, template, how, given=text is not None))
        kept = _free_names(source.columns, classifier)
        write = stack.enter_context(open_output(output, source, kept, classifier))
        n_rows = n_empty = 0
        for rows, texts in source.chunks(_ending(output) or source.kind):
            answers = classifier.predict(texts)
            renamed = [{kept.get(name, name): value for name, value in row.items()} for row in rows]
            write([row | _answer(answer) for row, answer in zip(renamed, answers, strict=True)])
            n_rows += len(rows)
            n_empty += sum(not text.strip() for text in texts)
    return {"rows": n_rows, "empty": n_empty, "output": output, "labels": classifier.labels, "notes": source.notes}


@contextmanager
def _words_of_options() -> Iterator[None]:
    """In a message, the names of the command line's options instead of the recipe's keys."""
    try:
        yield
    except UserError as error:
        message = re.sub(r"(?<= )data\.(text|label|encoding|delimiter)\b(?!\.\w)( =)?", r"--\1", str(error))
        raise UserError(message) from None


def _answer(prediction: Any) -> Row:
    probabilities = {f"p_{name}": round(p, 6) for name, p in prediction.probabilities.items()}
    return {"label": prediction.label, "score": round(prediction.score, 6)} | probabilities


def _scored_split(corpus: Corpus, label: str | None = None) -> str:
    """The test split, else the dev split, else the first; one that nobody labelled (in `label`) comes last."""
    found = [split_for("test", corpus), split_for("dev", corpus), *corpus.tables]
    names = [name for name in found if name is not None]
    labelled = [name for name in names if label is None or not is_unlabelled(corpus.tables[name], label)]
    return (labelled or names)[0]


def _true_label(classifier: Classifier, columns: Sequence[str]) -> str | None:
    """The column that held the class in training, if it is here; never the one that `predict` wrote."""
    label, answers = classifier.contract.label, set(_added(classifier))
    answered = answers <= set(columns)
    if answered and label in answers:
        label = f"input_{label}"
        if label not in columns:
            raise UserError(
                f"its column {classifier.contract.label!r} is the answer of `lightune predict`, not the truth. "
                f"Name the true one with --label."
            )
    return label if label in columns or answered else None


def _free_names(columns: Sequence[str], classifier: Classifier) -> dict[str, str]:
    """A new name for each input column that an added one would hide: the true label becomes input_label."""
    added = set(_added(classifier))
    names: dict[str, str] = {}
    for name in columns:
        new = name
        while new in added or (new != name and new in columns):
            new = f"input_{new}"
        names[name] = new
    return names


# What is read


@dataclass(frozen=True)
class Input:
    """Rows to label. kind: csv, tsv or jsonl, for standard output, which has no ending.

    chunks(kind): rows as an output of that kind holds them, with their texts. schema: of the columns in Parquet.
    """

    kind: str
    columns: Sequence[str]
    chunks: Callable[[str], Iterator[tuple[list[Row], list[str]]]]
    schema: Callable[[], pa.Schema]
    notes: tuple[str, ...] = ()


@contextmanager
def open_input(data: str, template: str, how: Options, *, given: bool) -> Iterator[Input]:
    """The rows of a source, or of standard input; given: the user named the text column."""
    if data != "-":
        yield _table_input(data, template, how)
        return
    with tempfile.TemporaryDirectory() as folder:
        if sys.stdin is None:
            raise UserError(f"{STDIN}: is closed. Name a file.")
        path = Path(folder, "stdin")
        with path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        try:
            yield _stdin_input(path, template, how, given=given)
        except UserError as error:
            message = re.sub(re.escape(str(path)) + r"(\.\w+)?", STDIN, str(error))
            raise UserError(message) from None


def _stdin_input(path: Path, template: str, how: Options, *, given: bool) -> Input:
    """What was typed or piped, by its first line: JSON, a table whose header names the text, or texts."""
    file = check_text(path, how.encoding)
    with file.lines() as lines:
        start = next((line for line in lines if line.strip("\ufeff \t\r\n")), "").strip("\ufeff\r\n")
    kind = _kind_of_lines(start.strip(), template, how.delimiter)
    if kind is not None:
        return _table_input(str(path.rename(path.with_suffix(f".{kind}"))), template, how)
    if given:
        raise UserError(f"{STDIN}: its first line {start[:60]!r} is no header that names {columns_of(template)}.")
    return _line_input(file)


def _kind_of_lines(line: str, template: str, delimiter: str | None) -> str | None:
    """json or csv by the first line; None: every line is a text."""
    if re.match(r"\{|\[\s*($|[{\]])", line):
        return "json"
    marks = ",\t;|" if delimiter is None else delimiter_of(delimiter)
    return "csv" if any(set(columns_of(template)) <= set(_cells(line, mark)) for mark in marks) else None


def _cells(line: str, mark: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=mark), [])
    except csv.Error:  # a line longer than a cell may be, a quote that is not closed
        return []


def _line_input(file: TextFile) -> Input:
    """Every line is one text; a lone \\r does not end one."""
    import pyarrow as pa

    def chunks(kind: str) -> Iterator[tuple[list[Row], list[str]]]:
        with file.lines(newline="\n") as lines:
            texts = (line.strip("\ufeff\r\n") for line in lines)
            while some := list(islice(texts, CHUNK_ROWS)):
                yield [{"text": text} for text in some], some

    note = f"{STDIN}: read as one text a line"
    return Input("csv", ["text"], chunks, lambda: pa.schema([("text", pa.string())]), (note,))


def _table_input(data: str, template: str, how: Options) -> Input:
    """A source as training reads it, with the same checks."""
    import pyarrow as pa

    corpus = read(data, encoding=how.encoding, delimiter=how.delimiter, offline=how.offline)
    split = _scored_split(corpus)
    table, kind, path = corpus.tables[split], kind_of(data), Path(data)
    texts = examples(table, text=template, label=None)[0].texts
    typed = parquet_table(path) if kind == "parquet" else table

    def rows_for(output: str) -> Iterator[Row]:
        if output == "jsonl" and kind in ("json", "jsonl"):
            return _json_rows(path, how.encoding, kind)
        chosen = typed if output in ("parquet", "jsonl") else table
        return (row for batch in chosen.to_batches(CHUNK_ROWS) for row in batch.to_pylist())

    def chunks(output: str) -> Iterator[tuple[list[Row], list[str]]]:
        rows = rows_for(output)
        for start in range(0, len(texts), CHUNK_ROWS):
            try:
                some = list(islice(rows, CHUNK_ROWS))
            except (pa.ArrowException, OverflowError, ValueError) as error:  # a date in the year 150000, 1e999
                raise UserError(f"{data}: a value cannot be kept ({error}). Leave its column out.") from None
            yield some, texts[start : start + CHUNK_ROWS]

    written_as = {"json": "jsonl", "jsonl": "jsonl", "parquet": "csv"}.get(kind, "csv")
    is_tabbed = ".tsv" in path.suffixes
    notes = (f"{data}: its split {split}",) if len(corpus.tables) > 1 else ()
    return Input("tsv" if is_tabbed else written_as, table.column_names, chunks, lambda: typed.schema, notes)


def _json_rows(path: Path, encoding: str | None, kind: str) -> Iterator[Row]:
    """The objects as they stand in the file, read as `json_tables` reads them; a number stays a number.

    Equal in value, that is: 1.10 becomes 1.1.
    """
    with check_text(path, encoding, max_line=MAX_BYTES).lines() as lines:
        if kind == "json":
            yield from json.loads(lines.read().removeprefix("\ufeff"))
            return
        stripped = (line.strip("\ufeff\r\n") for line in lines)
        yield from (json.loads(line) for line in stripped if line.strip())


# What is written


def _ending(output: str) -> str:
    return Path(output).suffix.lower().lstrip(".")


def _check_output(output: str) -> None:
    """Before any work: UserError if the format or the folder cannot be."""
    ending, folder = _ending(output), Path(output).parent
    if output == "-":
        return
    if ending not in WRITERS:
        raise UserError(f"{output}: cannot write {ending or 'this'}. Endings: {', '.join('.' + k for k in WRITERS)}.")
    try:
        if not folder.is_dir():
            raise UserError(f"{output}: its folder does not exist. Make it first.")
        if Path(output).is_dir() or not os.access(folder, os.W_OK):
            raise UserError(f"{output}: cannot be written there. Choose another --output.")
    except OSError as error:  # a name that is too long
        raise UserError(f"{output[:80]}: cannot be written ({error.strerror}). Choose another --output.") from None


@contextmanager
def open_output(output: str, source: Input, kept: Mapping[str, str], classifier: Classifier) -> Iterator[Write]:
    """A function that appends rows to `output` in the format of its ending, or of the input on stdout."""
    import pyarrow as pa

    if output == "-":
        with _standard_output() as file:
            header = [*kept.values(), *_added(classifier)]
            yield _jsonl_writer(file) if source.kind == "jsonl" else _csv_writer(file, header, source.kind)
        return
    path = Path(output)
    with ExitStack() as stack:
        try:
            # a fresh name of our own, beside the output so that it can take its place in one step
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix=".lightune.", dir=path.parent))
            partial = Path(scratch, f"answers.{_ending(output)}")
            with WRITERS[_ending(output)](partial, source, kept, classifier) as write:
                yield write
            partial.replace(path)
        except pa.ArrowException as error:
            raise UserError(f"{output}: Parquet cannot hold this ({error}). Write CSV or JSONL.") from None
        except OSError as error:
            raise GateError(f"{output}: cannot be written ({error.strerror}).") from None


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


def _added(classifier: Classifier) -> list[str]:
    return ["label", "score", *(f"p_{name}" for name in classifier.labels)]


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

    return write


@contextmanager
def _text_file(path: Path, source: Input, kept: Mapping[str, str], classifier: Classifier) -> Iterator[Write]:
    header = [*kept.values(), *_added(classifier)]
    with path.open("w", encoding="utf-8", newline="") as file:
        kind = _ending(path.name)
        yield _jsonl_writer(file) if kind == "jsonl" else _csv_writer(file, header, kind)


@contextmanager
def _parquet_file(path: Path, source: Input, kept: Mapping[str, str], classifier: Classifier) -> Iterator[Write]:
    import pyarrow as pa
    from pyarrow import parquet

    fields = [field.with_name(kept[field.name]) for field in source.schema()]
    types = {"label": pa.string()}
    fields += [pa.field(name, types.get(name, pa.float64())) for name in _added(classifier)]
    schema = pa.schema(fields)
    with parquet.ParquetWriter(path, schema) as writer:
        yield lambda rows: writer.write_table(pa.Table.from_pylist(rows, schema=schema))


WRITERS: dict[str, Callable[..., AbstractContextManager[Write]]] = {
    "csv": _text_file,
    "tsv": _text_file,
    "jsonl": _text_file,
    "parquet": _parquet_file,
}
