"""Slices: their numbers by hand, how often chance is called a difference, and where a run finds them."""

from __future__ import annotations

import csv
import random

import numpy as np
import pytest

import lightune
from lightune.errors import UserError
from lightune.evidence.slices import FEWEST_ROWS, by_length, slices, worst


def test_a_slice_is_held_against_all_other_rows():
    from scipy.stats import fisher_exact

    right = np.array([True] * 50 + [False] * 30 + [True] * 100 + [False] * 20)
    values = ["a"] * 80 + ["b"] * 60 + ["c"] * 60
    first, second, third = slices(right, {"column source": values})
    assert (first.kind, first.value, first.n) == ("column source", "a", 80)
    assert (first.score.value, first.others) == (50 / 80, 100 / 120)
    assert first.p_value == pytest.approx(fisher_exact([[50, 30], [100, 20]]).pvalue)
    assert (second.score.value, third.score.value) == (1.0, 40 / 60)
    # Holm: the smallest of three times three
    assert min(each.p_adjusted for each in (first, second, third)) == pytest.approx(
        3 * min(each.p_value for each in (first, second, third))
    )
    assert first.outcome == "worse"
    assert second.outcome == "better"


def test_the_worst_slice_is_named_only_beyond_chance():
    right = np.array([True] * 50 + [False] * 30 + [True] * 100 + [False] * 20)
    found = slices(right, {"class": ["a"] * 80 + ["b"] * 120})
    said = worst(found)
    assert said is not None
    assert said.startswith("class a: 62.5 % right (95 % CI 51.5 to 72.3), the others 83.3 %; 80 rows")
    assert worst(slices(np.array([True, False] * 50), {"class": ["a"] * 50 + ["b"] * 50})) is None
    assert worst([]) is None


def test_slices_of_few_rows_are_left_out():
    right = np.ones(100, bool)
    few, many = ["a"] * (FEWEST_ROWS - 1), ["b"] * (101 - FEWEST_ROWS)
    assert slices(right, {"class": few + many}) == []
    assert len(slices(right, {"class": ["a", *few, *many[1:]]})) == 2


def test_equal_slices_are_called_worse_or_better_in_one_run_of_twenty_at_most():
    """400 classifiers that are right on 85 % of 400 rows, whatever the slice: 3 kinds with 15 slices in all."""
    rng = np.random.default_rng(0)
    n_false = 0
    for _ in range(400):
        kinds = {str(k): rng.integers(0, k, 400).astype(str).tolist() for k in (3, 4, 8)}
        found = slices(rng.random(400) < 0.85, kinds)
        n_false += any(each.outcome != "not distinguishable" for each in found)
    assert n_false <= 29  # 20 on average at most; one test in fifty has more than 29 by chance


def test_lengths_are_cut_into_parts_that_hold_as_many_rows():
    lengths = np.array([3, 4, 5, 6, 7, 8, 9, 10])
    assert by_length(lengths) == [f"{a} to {a + 1} tokens" for a in (3, 5, 7, 9) for _ in range(2)]
    assert by_length(np.array([2, 9, 9, 9, 9])) == ["2 to 9 tokens"] * 5
    assert by_length(np.array([2, 2, 2, 9, 9])) == ["2 tokens"] * 3 + ["3 to 9 tokens"] * 2


def test_slices_come_in_the_order_of_their_numbers():
    values = ["1,024 to 2,000 tokens", "20 to 31 tokens", "6 to 19 tokens", "b", "-1.5", "a"]
    found = slices(np.ones(60, bool), {"any": [value for value in values for _ in range(10)]})
    assert [each.value for each in found] == ["-1.5", values[2], values[1], values[0], "a", "b"]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Reviews from two shops; those of shop B have a random label."""
    rng = random.Random(0)
    path = tmp_path_factory.mktemp("shops") / "reviews.csv"
    words = {"good": ["good", "fine", "great"], "bad": ["bad", "poor", "awful"]}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "shop", "id"])
        for i in range(400):
            true = rng.choice(["good", "bad"])
            shop = rng.choice(["A", "B"])
            text = " ".join([rng.choice(words[true]), *rng.choices("abcdefghij", k=rng.randint(2, 8)), str(i)])
            writer.writerow([text, true if shop == "A" else rng.choice(["good", "bad"]), shop, i])
    return path


SETTINGS = ["train.epochs=1", "data.max_tokens=16", "evidence.doctor=false", "evidence.baselines=[]"]


def test_a_run_slices_by_class_length_and_columns_of_few_values(table, tiny_bert, tmp_path):
    import pandas as pd
    import pyarrow.parquet as pq

    settings = [f"model={tiny_bert}", *SETTINGS]
    results = lightune.run(table, settings=settings, output=tmp_path / "run").results
    kinds = {each["kind"] for each in results["slices"]}
    assert {"class", "length", "column shop"} <= kinds
    assert "column id" not in kinds
    answers = pq.read_table(tmp_path / "run" / "predictions.parquet").to_pandas()
    rows = answers.join(pd.read_csv(table)["shop"], on="row")
    for each in results["slices"]:
        if each["kind"] == "column shop":
            mine = rows[rows["shop"] == each["value"]]
            assert each["n"] == len(mine)
            assert each["score"]["value"] == pytest.approx((mine["label"] == mine["after"]).mean())


def test_a_column_that_is_not_there_is_told_before_the_work(table, tiny_bert, tmp_path):
    settings = [f"model={tiny_bert}", *SETTINGS, 'evidence.slices=["shopp"]']
    with pytest.raises(
        UserError, match=r"evidence\.slices: the test rows have no column 'shopp'\. Did you mean 'shop'\?"
    ):
        lightune.run(table, settings=settings, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()
