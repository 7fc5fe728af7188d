"""The data as the doctor sees it: every row of every split, those that a run would drop included."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from lightune.data.columns import choose_columns
from lightune.data.examples import render, stripped_labels
from lightune.data.files import WrongEncoding
from lightune.data.label_sets import label_columns, members, read_sets
from lightune.data.scratch import rows_at
from lightune.data.sources import read, split_for, training_split
from lightune.data.targets import classes_in, find_task
from lightune.data.values import Names, Texts
from lightune.doctor.reading import Readings, read_through
from lightune.errors import UserError
from lightune.recipe import Task
from lightune.records import Corpus

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Patient:
    """N rows of all splits, one after the other.

    labels: without white space around them, "" where one is missing; tables: split -> its table, the training split
    first. encoding: of the file, where it is not UTF-8 and nobody said so. numbers: split -> the rows' numbers in the
    source, where these are a sample. task: what a label is, see `data/targets.py`.
    """

    source: str
    digest: str
    text: str
    label: str
    labels: Names
    tables: dict[str, pa.Table]
    encoding: str | None = None
    numbers: dict[str, Ints] | None = None
    task: Task = "single_label"
    pair: str | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def texts(self) -> Texts:
        """(N,) those of the text column or template, None where a cell is missing, or pairs, joined."""
        import pyarrow as pa

        columns = [render(table, self.text, self.pair)[0] for table in self.tables.values()]
        chunks = [chunk for column in columns for chunk in column.chunks]
        return Texts.of_column(pa.chunked_array(chunks, pa.string()), np.arange(len(self)))

    def classes(self, places: Ints | None = None) -> dict[str, int]:
        """Rows of each class among those at `places`, or among all; those without a label left out."""
        labels = self.labels if places is None else self.labels.take(places)
        return {name: n for name, n in classes_in(labels, self.task).items() if name}

    def of_classes(self, names: Collection[str]) -> NDArray[np.bool_]:
        """(N,) whether a row has one of these labels."""
        parts = members if self.task == "multi_label" else lambda name: [name]
        codes = [code for code, name in enumerate(self.labels.names) if not set(names).isdisjoint(parts(name))]
        return np.isin(self.labels.codes, codes)

    def read(self, advance: Callable[[int], None] = lambda n_rows: None) -> Readings:
        """What there is to know of each text; `advance` is told of the rows done."""
        return read_through(self.texts, advance, are_pairs=self.pair is not None)

    @cached_property
    def split_of(self) -> NDArray[np.int8]:
        """(N,) the number of each row's split, in the order of `tables`."""
        sizes = [table.num_rows for table in self.tables.values()]
        return np.repeat(np.arange(len(sizes), dtype=np.int8), sizes)

    def rows_by_split(self, places: Ints, most: int) -> dict[str, list[int]]:
        """The first `most` of `places` as row numbers of each split, from 0."""
        found: dict[str, list[int]] = {}
        start = 0
        for name, table in self.tables.items():
            inside = places[:most][(places[:most] >= start) & (places[:most] < start + table.num_rows)]
            if len(inside):
                rows = inside - start
                found[name] = (rows if self.numbers is None else self.numbers[name][rows]).tolist()
            start += table.num_rows
        return found

    def sample(self, most: int, rng: np.random.Generator) -> Patient:
        """At most so many rows of each split, in their order."""
        numbers = {
            name: np.sort(rng.permutation(table.num_rows)[:most]).astype(np.int64)
            for name, table in self.tables.items()
        }
        tables = {name: rows_at(table, numbers[name]) for name, table in self.tables.items()}
        return replace(self.with_tables(tables), numbers=numbers)

    def with_tables(self, tables: dict[str, pa.Table]) -> Patient:
        """The same source with other rows."""
        how = (self.text, self.label, self.task, self.encoding, self.pair)
        return _of_tables(self.source, self.digest, tables, *how)


def admit(
    source: str,
    *,
    test: str | None = None,
    text: str | None = None,
    pair: str | None = None,
    label: str | None = None,
    task: Task | Literal["auto"] = "auto",
    encoding: str | None = None,
    delimiter: str | None = None,
    offline: bool = False,
) -> Patient:
    """Reads the data, with the splits it has and a separate test file, and finds its columns.

    A file that is not UTF-8 is read in the encoding that it looks like, which is a finding. Raises UserError for what
    cannot be read or has no text and label.
    """
    corpus, guessed = _read(source, encoding, delimiter, offline)
    table = corpus.tables[training_split(corpus)]
    chosen, its_label, _, second = choose_columns(table, text=text, label=label, pair=pair, task=task)
    other = None if test is None else _read(test, encoding, delimiter, offline)[0]
    return of_corpus(corpus, other, chosen, its_label, guessed, second, task)


def of_corpus(
    corpus: Corpus,
    other: Corpus | None,
    text: str,
    label: str,
    encoding: str | None = None,
    pair: str | None = None,
    task: Task | Literal["auto"] = "auto",
) -> Patient:
    """The labelled splits of a source, and the test split of another, by columns that are known."""
    train = training_split(corpus)
    tables = {train: corpus.tables[train]}
    for purpose in ("dev", "test"):
        name = split_for(purpose, corpus)
        if name and name != train and set(label_columns(tables[train], label)) <= {*corpus.tables[name].column_names}:
            tables[name] = corpus.tables[name]
    if other is not None:
        name = split_for("test", other) or next(iter(other.tables))
        try:
            choose_columns(other.tables[name], text=text, label=label, pair=pair)
        except UserError as error:
            raise UserError(f"{other.source}: needs the columns of {corpus.source}: {error}") from None
        tables["test" if name in tables else name] = other.tables[name]
    found = find_task(tables[train], label, task)
    return _of_tables(corpus.source, corpus.digest, tables, text, label, found, encoding, pair)


def _read(source: str, encoding: str | None, delimiter: str | None, offline: bool) -> tuple[Corpus, str | None]:
    """The data, and the encoding that it looked like where it was not the one to expect."""
    try:
        return read(source, encoding=encoding, delimiter=delimiter, offline=offline), None
    except WrongEncoding as error:
        if encoding is not None or error.suggestion is None:
            raise
        return read(source, encoding=error.suggestion, delimiter=delimiter, offline=offline), error.suggestion


def _of_tables(
    source: str,
    digest: str,
    tables: dict[str, pa.Table],
    text: str,
    label: str,
    task: Task,
    encoding: str | None,
    pair: str | None,
) -> Patient:
    several = task == "multi_label"
    labels = [
        read_sets(table, label, None) if several else stripped_labels(table.column(label))
        for table in tables.values()
    ]
    merged = Names.of([name for each in labels for name in each.names])
    offsets = np.cumsum([0, *(len(each.names) for each in labels)])
    codes = np.concatenate([merged.codes[each.codes + start] for each, start in zip(labels, offsets, strict=False)])
    names = Names(codes, merged.names)
    return Patient(source, digest, text, label, names, tables, encoding, task=task, pair=pair)
