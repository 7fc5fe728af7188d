"""From the recipe's data section to examples: read, choose columns, make texts. Splits come after."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lightune.data.batching import MAX_TOKENS
from lightune.data.columns import choose_columns, used_columns
from lightune.data.examples import examples, is_unlabelled
from lightune.data.label_sets import label_columns
from lightune.data.scratch import rows_at
from lightune.data.sources import read, split_for, training_split
from lightune.data.splits import split
from lightune.data.targets import find_task
from lightune.data.values import Names, Texts
from lightune.errors import UserError, near_match
from lightune.libraries import is_offline
from lightune.recipe import DataRecipe, Task
from lightune.records import Corpus, Decision, Examples, Splits

if TYPE_CHECKING:
    import pyarrow as pa

AUTO_TRAIN_TOKENS = {"cpu": 1_500_000}  # where the recipe does not say how many rows; no cap on other devices
# more than a CPU trains on: of a time budget's rows, those it could not reach are left out
TOKENS_PER_SECOND = {"fp32": 3_000, "bf16": 10_000}
# of the rows that a time budget affords, those to test on and to choose the best state on; not fewer
TEST_PART, FEWEST_TEST_ROWS = 0.12, 200
AUTO_TEST_ROWS = {"cpu": 5_000}  # of a test split of its own; an accuracy of 0.9 is then known to 0.8 points
FEWEST_GRADES = 3  # labels that may be grades
EMPTY = "(empty)"  # a cell
MOST_VALUES = 12  # of a column that is taken for metadata without being asked for
CHARACTERS_PER_TOKEN = 4.5  # of English in a vocabulary of 30,000; only for that cap


@dataclass(frozen=True)
class Prepared:
    """Labelled examples, those of separate dev and test splits if there are any, and the columns they came from.

    other: the separate test data that was named, if any. test_table: the rows that the test rows are numbered in.
    """

    corpus: Corpus
    source: Examples
    dev: Examples | None
    test: Examples | None
    text: str
    pair: str | None
    label: str
    task: Task
    class_names: list[str] | None
    other: Corpus | None
    test_table: pa.Table
    decisions: tuple[Decision, ...]

    @property
    def digest(self) -> str:
        """Of all that was read, separate test data included."""
        return " ".join(corpus.digest for corpus in (self.corpus, self.other) if corpus is not None)


def prepare(recipe: DataRecipe) -> Prepared:
    """Reads the source (and the test file), picks the columns, renders the texts."""
    corpus = _read(recipe.source, recipe)
    train_name = training_split(corpus)
    table = corpus.tables[train_name]
    text, label, decisions, pair = choose_columns(
        table, text=recipe.text, label=recipe.label, pair=recipe.pair, task=recipe.task
    )
    rows = Decision("rows", f"{table.num_rows:,}", f"{recipe.source}, split {train_name}")
    task, given = find_task(table, label, recipe.task), corpus.class_names.get(label)
    source, dropped = examples(table, text=text, label=label, class_names=given, pair=pair, task=task)
    if task == "single_label":
        dropped += _hint(source.labels or [])
    other = _test_corpus(recipe)
    held_out, tables, more = _held_out(corpus, other, train_name, text, label, pair, task)
    every = (rows, *decisions, *dropped, *more)
    return Prepared(
        corpus,
        source,
        held_out.get("dev"),
        held_out.get("test"),
        text,
        pair,
        label,
        task,
        given,
        other,
        tables.get("test", table),
        every,
    )


def _hint(labels: Sequence[str]) -> list[Decision]:
    """That labels may be grades, where they are whole numbers that follow each other."""
    names = set(Names.of(labels).counts())
    if len(names) < FEWEST_GRADES or not all(re.fullmatch(r"\d{1,3}", name, re.ASCII) for name in names):
        return []
    numbers = sorted(map(int, names))
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        return []
    why = "they are whole numbers; if these are grades, --task ordinal also tells how far off an answer is, and "
    return [Decision("task", "classes", f"{why}--task regression predicts a number")]


def _test_corpus(recipe: DataRecipe) -> Corpus | None:
    """The separate test data that was named, if any."""
    if recipe.test is not None and recipe.test == recipe.source:
        raise UserError(f"data.test = {recipe.test!r}: the same as data.source. Leave it out to split by itself.")
    return None if recipe.test is None else _read(recipe.test, recipe)


def _held_out(
    corpus: Corpus,
    other: Corpus | None,
    train_name: str,
    text: str,
    label: str,
    pair: str | None,
    task: Task,
) -> tuple[dict[str, Examples], dict[str, pa.Table], list[Decision]]:
    """The test rows and the dev rows that come as splits of their own, where there are any, and their tables.

    A validation split is the test split where no other one has labels (as in GLUE).
    """
    found: dict[str, Examples] = {}
    tables: dict[str, pa.Table] = {}
    decisions: list[Decision] = []
    own = [name for name in (split_for("test", corpus), split_for("dev", corpus)) if name and name != train_name]
    candidates = [(corpus, name) for name in own]
    if other is not None:
        name = split_for("test", other) or split_for("dev", other) or next(iter(other.tables))
        candidates = [(other, name), *(pair for pair in candidates if pair[1] == split_for("dev", corpus))]
    for there, name in candidates:
        if "test" in found and not set(label_columns(there.tables[name], label)) <= set(
            there.tables[name].column_names
        ):
            decisions.append(Decision(f"split {name}", "not used", f"it has no column {label!r}"))
            continue
        try:
            choose_columns(there.tables[name], text=text, label=label, pair=pair)
        except UserError as error:
            needed = f"{there.source}, split {name}: needs the columns of the training data"
            raise UserError(f"{needed}: {error}") from None
        if there is corpus and is_unlabelled(there.tables[name], label):
            decisions.append(Decision(f"split {name}", "not used", f"nobody labelled it (no value in {label!r})"))
            continue
        names = there.class_names.get(label)
        rows, dropped = examples(
            there.tables[name],
            text=text,
            label=label,
            pair=pair,
            class_names=names,
            fewest_classes=1,
            task=task,
        )
        purpose = "dev" if "test" in found else "test"
        found[purpose], tables[purpose] = rows, there.tables[name]
        decisions += [Decision(f"{purpose} split", f"{len(rows):,} rows", f"{there.source}, split {name}"), *dropped]
    return found, tables, decisions


def metadata(data: Prepared, rows: Sequence[int], asked: Sequence[str] | str) -> dict[str, list[str]]:
    """column -> the value of each of the test rows, as text.

    asked: columns; "auto" for those that are neither a text nor the label and have 2 to MOST_VALUES different values.
    UserError for a column that is not there.
    """
    used, is_auto = {*used_columns(data.test_table, data.text, data.pair)}, isinstance(asked, str)
    used |= {data.label, *label_columns(data.test_table, data.label)}
    others = [name for name in data.test_table.column_names if name not in used]
    names = others if is_auto else list(asked)
    for name in names:
        if name not in data.test_table.column_names:
            hint = near_match(name, others)
            raise UserError(f"evidence.slices: the test rows have no column {name!r}.{hint} There are: {others}.")
    mine = rows_at(data.test_table.select(names), np.asarray(rows, np.int64))
    found = {name: _as_words(mine[name]) for name in names}
    return {name: values for name, values in found.items() if not is_auto or 2 <= len(set(values)) <= MOST_VALUES}


def _as_words(column: pa.ChunkedArray) -> list[str]:
    return [EMPTY if value is None or value == "" else str(value) for value in column.to_pylist()]


def _read(source: str, recipe: DataRecipe) -> Corpus:
    return read(source, encoding=recipe.encoding, delimiter=recipe.delimiter, offline=is_offline())


def split_prepared(
    data: Prepared,
    recipe: DataRecipe,
    *,
    seed: int,
    device: str,
    precision: str = "fp32",
    budget: float | None = None,
) -> Splits:
    """The splits of `data` in the sizes of the recipe; a CPU's automatic sizes are capped.

    budget: seconds for the whole run, by which the cap goes where there is one, and by the precision.
    """
    tokens = AUTO_TRAIN_TOKENS.get(device)
    if tokens and budget is not None:
        tokens = round(budget * TOKENS_PER_SECOND.get(precision, TOKENS_PER_SECOND["fp32"]))
    affordable = _affordable_rows(data.source.texts, recipe, tokens)
    most_test_rows, most_dev_rows = AUTO_TEST_ROWS.get(device), None
    if affordable and budget is not None:
        most_test_rows = most_dev_rows = max(FEWEST_TEST_ROWS, round(TEST_PART * affordable))
    return split(
        data.source,
        data.test,
        data.dev,
        seed=seed,
        train_rows=recipe.train_rows,
        dev_rows=recipe.dev_rows,
        test_rows=recipe.test_rows,
        most_train_rows=affordable,
        most_test_rows=most_test_rows,
        most_dev_rows=most_dev_rows,
        class_names=data.class_names,
        task=data.task,
    )


def _affordable_rows(texts: Sequence[str], recipe: DataRecipe, most_tokens: int | None) -> int | None:
    """Rows that hold about so many tokens, by the mean length of the texts; None: no cap."""
    if most_tokens is None:
        return None
    limit = MAX_TOKENS if isinstance(recipe.max_tokens, str) else recipe.max_tokens
    tokens = float(np.minimum(Texts.of(texts).lengths() / CHARACTERS_PER_TOKEN + 2, limit).sum())
    rows = most_tokens * len(texts) / tokens
    return int(round(rows, -3)) if rows > 2000 else max(2, round(rows))
