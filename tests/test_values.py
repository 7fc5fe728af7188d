"""A table's texts, labels and row numbers read like the lists they stand for."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from lightune.data.scratch import CHUNK_ROWS
from lightune.data.values import Names, Numbers, Texts, Values

CELLS = ["a", "", "a longer one", "\U0001f600 ü", "a"]


def texts() -> Texts:
    column = pa.chunked_array([["x", *CELLS[:2]], pa.array([], pa.string()), [None, *CELLS[2:]]])
    return Texts.of_column(column, np.array([1, 2, 4, 5, 6]))


KINDS = {
    "texts": (texts(), CELLS),
    "labels": (Names.of(CELLS), CELLS),
    "rows": (Numbers(np.array([4, 0, 9])), [4, 0, 9]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_values_read_like_a_list(kind):
    values, items = KINDS[kind]
    assert (len(values), list(values), values.tolist()) == (len(items), items, items)
    assert [values[i] for i in range(-len(items), len(items))] == items * 2
    assert values[1:] == items[1:]
    assert values[::-2].tolist() == items[::-2]
    assert values[:0] == []
    assert items[1] in values
    with pytest.raises(IndexError):
        values[len(items)]


@pytest.mark.parametrize("kind", KINDS)
def test_values_equal_what_holds_the_same_and_nothing_else(kind):
    values, items = KINDS[kind]
    assert values == items
    assert items == values
    assert values == type(values).of(items)
    assert values != items[:-1]
    assert values != [*items[:-1], "other"]
    assert values != 1


@pytest.mark.parametrize("kind", KINDS)
def test_values_are_taken_in_any_order_and_again(kind):
    values, items = KINDS[kind]
    assert values.take(np.array([2, 0, 2])).take(np.array([1, 0])) == [items[0], items[2]]
    assert type(values).of(values) is values


def test_more_values_than_a_chunk_come_in_order():
    numbers = list(range(2 * CHUNK_ROWS + 1))
    every: list[Values] = [Numbers.of(numbers), Names.of(list(map(str, numbers))), Texts.of(list(map(str, numbers)))]
    assert [list(map(int, values)) for values in every] == [numbers] * 3


def test_lengths_are_counted_in_characters():
    assert texts().lengths().tolist() == [len(cell) for cell in CELLS]


def test_texts_stay_where_they_lie():
    column = pa.chunked_array([["a", "b"]])
    taken = Texts.of_column(column, np.array([1, 0])).take(np.array([0]))
    assert taken.chunks[0].buffers()[2].address == column.chunk(0).buffers()[2].address


def test_names_are_counted_in_the_order_of_their_first_row():
    names = Names(np.array([2, 1, 2], np.int32), ["unused", "b", "a"])
    assert list(names.counts().items()) == [("a", 2), ("b", 1)]
    assert names.ids(["a", "b"]).tolist() == [0, 1, 0]
    with pytest.raises(KeyError):
        names.ids(["a"])


def test_two_names_can_become_one():
    renamed = Names.of(["1", "0", "2"]).renamed({"1": "yes", "2": "yes"})
    assert renamed == ["yes", "0", "yes"]
    assert renamed.counts() == {"yes": 2, "0": 1}


def test_row_numbers_are_an_array_to_numpy():
    assert np.asarray(Numbers.of([3, 1]), dtype=np.int64).tolist() == [3, 1]
