"""From the recipe's data section to examples: read, choose columns, make texts. Splits come after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightune.data.batching import MAX_TOKENS
from lightune.data.columns import choose_columns, examples
from lightune.data.sources import read
from lightune.data.splits import split
from lightune.errors import UserError
from lightune.libraries import is_offline
from lightune.recipe import DataRecipe
from lightune.records import Corpus, Decision, Examples, Splits

TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "validation", "dev", "valid")
AUTO_TRAIN_TOKENS = {"cpu": 1_500_000}  # where the recipe does not say how many rows; no cap on other devices
CHARACTERS_PER_TOKEN = 4.5  # of English in a vocabulary of 30,000; only for that cap


@dataclass(frozen=True)
class Prepared:
    """Labelled examples, the separate test examples if there are any, and which columns they came from."""

    corpus: Corpus
    source: Examples
    test: Examples | None
    text: str
    label: str
    class_names: list[str] | None
    decisions: tuple[Decision, ...]


def prepare(recipe: DataRecipe) -> Prepared:
    """Reads the source (and the test file), picks the columns, renders the texts."""
    corpus = read(recipe.source, encoding=recipe.encoding, delimiter=recipe.delimiter, offline=is_offline())
    train_name = next((name for name in TRAIN_NAMES if name in corpus.tables), next(iter(corpus.tables)))
    table = corpus.tables[train_name]
    text, label, decisions = choose_columns(table, text=recipe.text, label=recipe.label)
    rows = Decision("rows", f"{table.num_rows:,}", f"{recipe.source}, split {train_name}")
    names = corpus.class_names.get(label)
    source, dropped = examples(table, text=text, label=label, class_names=names)
    test, test_decisions = _test_examples(recipe, corpus, train_name, text, label)
    every = [rows, *decisions, *dropped, *test_decisions]
    return Prepared(corpus, source, test, text, label, names, tuple(every))


def _test_examples(
    recipe: DataRecipe, corpus: Corpus, train_name: str, text: str, label: str
) -> tuple[Examples | None, list[Decision]]:
    """The separate test rows: the named file's, or the source's own test split; None if there are none."""
    if recipe.test is not None:
        if recipe.test == recipe.source:
            raise UserError(f"data.test = {recipe.test!r}: the same as data.source. Leave it out to split by itself.")
        other = read(recipe.test, encoding=recipe.encoding, delimiter=recipe.delimiter, offline=is_offline())
        name = next((n for n in TEST_NAMES if n in other.tables), next(iter(other.tables)))
        tables, where = other.tables, recipe.test
        class_names = other.class_names.get(label)
    else:
        found = [name for name in TEST_NAMES if name in corpus.tables and name != train_name]
        if not found:
            return None, []
        name, tables, where = found[0], corpus.tables, recipe.source
        class_names = corpus.class_names.get(label)
    choose_columns(tables[name], text=text, label=label)
    test, dropped = examples(tables[name], text=text, label=label, class_names=class_names)
    return test, [Decision("test split", f"{len(test):,} rows", f"{where}, split {name}"), *dropped]


def split_prepared(data: Prepared, recipe: DataRecipe, *, seed: int, device: str) -> Splits:
    """The splits of `data` in the sizes of the recipe; a CPU's automatic training size is capped."""
    return split(
        data.source,
        data.test,
        seed=seed,
        train_rows=recipe.train_rows,
        dev_rows=recipe.dev_rows,
        test_rows=recipe.test_rows,
        most_train_rows=_affordable_rows(data.source.texts, recipe, device),
        class_names=data.class_names,
    )


def _affordable_rows(texts: Sequence[str], recipe: DataRecipe, device: str) -> int | None:
    """Rows that hold about AUTO_TRAIN_TOKENS of this device, by the mean length of the texts; None: no cap."""
    if device not in AUTO_TRAIN_TOKENS:
        return None
    limit = MAX_TOKENS if recipe.max_tokens == "auto" else recipe.max_tokens
    tokens = sum(min(len(text) / CHARACTERS_PER_TOKEN + 2, limit) for text in texts)
    rows = AUTO_TRAIN_TOKENS[device] * len(texts) / tokens
    return int(round(rows, -3)) if rows > 2000 else max(2, round(rows))
