"""Which split of a source is for what: its own test and dev splits, a file's, and those that nobody labelled."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightune.data.prepare import prepare, split_prepared
from lightune.errors import UserError
from lightune.recipe import DataRecipe

CLASSES = ("bad", "good")


def folder(root: Path, **splits: int) -> Path:
    """A folder per split and class, with so many texts in each."""
    for split, n_texts in splits.items():
        for name in CLASSES:
            place = root / split / name
            place.mkdir(parents=True)
            for i in range(n_texts):
                (place / f"{i}.txt").write_text(f"{name} {split} {i}")
    return root


@pytest.mark.parametrize("name", ["validation", "valid", "val", "dev"])
def test_a_dev_split_under_any_usual_name_guides_training(name, tmp_path):
    data = prepare(DataRecipe(source=str(folder(tmp_path, train=5, test=3, **{name: 2}))))
    assert (len(data.source), len(data.dev), len(data.test)) == (10, 4, 6)


def test_a_dev_split_alone_is_the_test_split(tmp_path):
    data = prepare(DataRecipe(source=str(folder(tmp_path, train=5, val=2))))
    assert (data.dev, len(data.test)) == (None, 4)


def test_a_test_file_leaves_the_dev_split_its_purpose(tmp_path):
    (tmp_path / "test.csv").write_text("text,label\nfine,good\n")
    source = folder(tmp_path / "data", train=5, test=3, val=2)
    data = prepare(DataRecipe(source=str(source), test=str(tmp_path / "test.csv")))
    assert (len(data.dev), data.test.labels) == (4, ["good"])
    assert data.other is not None


def test_a_test_split_that_nobody_labelled_is_passed_over(tmp_path, monkeypatch):
    import pyarrow as pa

    from lightune.data import prepare as module
    from lightune.records import Corpus

    def table(*labels: str | None) -> pa.Table:
        return pa.table(
            {"text": [f"{labels} {i}" for i in range(len(labels))], "label": pa.array(labels, pa.string())}
        )

    tables = {"train": table(*CLASSES * 5), "validation": table(*CLASSES), "test": table(None, None)}
    monkeypatch.setattr(module, "read", lambda *_, **__: Corpus("glue", tables, "0" * 64))
    data = prepare(DataRecipe(source="glue"))
    assert (data.dev, len(data.test)) == (None, 2)
    assert "nobody labelled it" in " ".join(decision.why for decision in data.decisions)


def test_a_test_split_without_the_label_column_is_a_mistake(tmp_path, monkeypatch):
    import pyarrow as pa

    from lightune.data import prepare as module
    from lightune.records import Corpus

    def table(label: str) -> pa.Table:
        return pa.table({"text": [f"{label} {i} {name}" for i in range(5) for name in CLASSES], label: CLASSES * 5})

    tables = {"train": table("label"), "validation": table("label"), "test": table("Label")}
    monkeypatch.setattr(module, "read", lambda *_, **__: Corpus("mixed", tables, "0" * 64))
    with pytest.raises(UserError, match=r"no column 'label'.*Did you mean 'Label'"):
        prepare(DataRecipe(source="mixed"))


def test_the_source_as_its_own_test_data_is_refused(reviews):
    with pytest.raises(UserError, match=r"the same as data\.source"):
        prepare(DataRecipe(source=str(reviews), test=str(reviews)))


@pytest.mark.parametrize(
    ("precision", "n_train", "n_test"),
    [("fp32", 3000, 360), ("bf16", 10_000, 1200)],  # 120 s * 3,000 or 10,000 tokens of 120 a row, 12 % of them tested
)
def test_a_time_budget_leaves_rows_out_by_the_speed_of_the_processor(precision, n_train, n_test, tmp_path):
    path = tmp_path / "long.csv"
    words = " ".join(["word"] * 106)  # 531 characters, about 120 tokens
    with path.open("w", encoding="utf-8") as file:
        file.write("text,label\n")
        file.writelines(f"{words} {i},{'yes' if i % 2 else 'no'}\n" for i in range(14_000))
    recipe = DataRecipe(source=str(path))
    splits = split_prepared(prepare(recipe), recipe, seed=0, device="cpu", precision=precision, budget=120.0)
    assert len(splits.train) == n_train
    assert len(splits.test) == n_test
    assert len(splits.dev) == min(n_test, 500)
