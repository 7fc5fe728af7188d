"""Several labels a row: how they are read, counted, split, scored and compared."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
import sklearn.metrics

from lightune.data.columns import choose_columns
from lightune.data.examples import examples
from lightune.data.label_sets import NOTHING, read_sets
from lightune.data.sources import read
from lightune.data.splits import split
from lightune.data.targets import as_labels, as_numbers, classes_in, find_task
from lightune.data.values import Names
from lightune.errors import UserError
from lightune.evidence import gate
from lightune.evidence.baselines import BASELINES, Embeddings, Lesson, answer
from lightune.evidence.calibration import calibrate
from lightune.evidence.decisions import FEWEST_POSITIVES, best_thresholds, decide, f1_micro
from lightune.evidence.evaluate import count_answers
from lightune.evidence.modules import as_module
from lightune.evidence.score import score_all
from lightune.evidence.set_comparison import compare_sets
from lightune.evidence.set_metrics import SET_METRICS
from lightune.evidence.verdict import compare, in_words
from lightune.recipe import EvidenceRecipe
from lightune.records import Examples
from lightune.training.losses import LOSSES, start_from_shares

TEXTS = ["one", "two", "three", "four"]


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def made(rng, n_rows=400, n_labels=3, skill=2.0):
    """y_true (N, C) and probabilities that know it by `skill`."""
    y_true = (rng.random((n_rows, n_labels)) < [0.5, 0.3, 0.1][:n_labels]).astype(int)
    logits = skill * (y_true - 0.5) + rng.normal(size=y_true.shape) - 0.5
    return y_true, 1 / (1 + np.exp(-logits))


# ---- reading


def labels_of(cells, **options):
    column = cells if isinstance(cells, dict) else {"tags": cells}
    table = pa.table({"text": TEXTS, **column})
    label = options.pop("label", ",".join(column))
    return examples(table, text="text", label=label, **options)[0].labels


LISTS = [["b", "a"], ["a"], [], ["b"]]


@pytest.mark.parametrize(
    "cells",
    [
        pa.array(LISTS, pa.list_(pa.string())),
        {"a": ["1", "1", "0", "0"], "b": ["1", "0", "0", "1"]},
        {"a": ["true", "yes", "No", ""], "b": ["TRUE", "false", "0.0", "1.0"]},
    ],
    ids=["lists", "columns of 0 and 1", "columns of words"],
)
def test_label_sets_are_read_from_lists_and_from_columns(cells):
    assert list(labels_of(cells)) == ["a|b", "a", NOTHING, "b"]


@pytest.mark.parametrize("kind", ["lists", "columns", "cells"])
def test_label_sets_of_many_rows_take_a_few_bytes_each(kind):
    n = 60_000
    columns = {
        "lists": {"tags": pa.array([["b", "a"], ["a"]] * (n // 2))},
        "columns": {"a": pa.array(["1", "0"] * (n // 2)), "b": pa.array(["0", "1"] * (n // 2))},
        "cells": {"tags": pa.array(["b;a", "a"] * (n // 2))},
    }[kind]
    table = pa.table(columns)
    read_sets(table.slice(0, 10), ",".join(columns), None)
    tracemalloc.start()
    try:
        found = read_sets(table, ",".join(columns), None)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found) == n
    assert found[:2] == (["a", "b"] if kind == "columns" else ["a|b", "a"])
    assert peak < 40 * n


def test_a_row_without_any_flag_is_not_labelled():
    flags = {"a": ["1", None, "", "0"], "b": ["0", "", None, None]}
    assert list(read_sets(pa.table(flags), "a,b", None)) == ["a", "", "", NOTHING]


def test_empty_cells_beside_others_are_told_of():
    flags = {"text": ["a text", "two", "three", "four"], "a": ["1", "", "1", "0"], "b": ["0", "1", None, None]}
    _, notes = examples(pa.table(flags), text="text", label="a,b")
    (told,) = [each for each in notes if each.what == "empty cells"]
    assert told.why.startswith("3 cells of columns of 0 and 1")


def test_one_column_of_0_and_1_is_no_label_set():
    with pytest.raises(UserError, match="holds yes and no, and so one label"):
        read_sets(pa.table({"a": ["1", "0", "1"]}), "a", None)


@pytest.mark.parametrize("mark", ["|", ";", ","])
def test_label_sets_are_read_from_cells_of_text_where_that_is_asked_for(mark):
    cells = [f"b {mark} a", "a", "", "b"]
    assert list(labels_of(cells, task="multi_label")) == ["a|b", "a", NOTHING, "b"]
    assert f"b {mark} a" in labels_of(cells)  # else a cell is one label


def test_one_odd_mark_does_not_change_how_all_cells_are_read():
    cells = ["b;a"] * 12 + ["a,b", "a"]
    table = pa.table({"text": [f"text {i}" for i in range(14)], "tags": cells})
    found, notes = examples(table, text="text", label="tags", task="multi_label")
    assert set(found.labels) == {"a|b", "a,b", "a"}
    (told,) = [note for note in notes if note.what == "between labels"]
    assert told.choice == "';'"
    assert told.why == "warning: in 1 rows another mark is read as part of a name, the first time in 'a,b'"
    with pytest.raises(UserError, match=r"'a\|b' among the labels"):
        read_sets(pa.table({"tags": [*cells, "a|b"]}), "tags", None)
    _, notes = examples(table.slice(0, 12), text="text", label="tags", task="multi_label", fewest_classes=1)
    assert next(note.why for note in notes if note.what == "between labels") == "in 12 of 12 rows"


def test_numbers_in_lists_are_ids_of_the_names_that_the_source_has(tmp_path):
    cells = pa.array([[1, 0], [0], [], [1]], pa.list_(pa.int64()))
    assert list(labels_of(cells, class_names=["a", "b"])) == ["a|b", "a", NOTHING, "b"]
    assert list(labels_of(cells)) == ["0|1", "0", NOTHING, "1"]
    with pytest.raises(UserError, match="labels that are no class"):
        labels_of(pa.array([[2], [0], [], [1]], pa.list_(pa.int64())), class_names=["a", "b"])


def test_the_datasets_librarys_names_of_listed_classes_are_found(tmp_path):
    import datasets

    feature = datasets.List(datasets.ClassLabel(names=["a", "b"]))
    features = datasets.Features({"text": datasets.Value("string"), "tags": feature})
    path = tmp_path / "rows.parquet"
    rows = {"text": TEXTS, "tags": [[1, 0], [0], [], [1]]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
    corpus = read(str(path))
    found, _ = examples(corpus.tables["train"], text="text", label="tags", class_names=corpus.class_names.get("tags"))
    assert list(found.labels) == ["a|b", "a", NOTHING, "b"]


def test_lists_in_json_lines_are_label_sets_and_the_column_is_found(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"text": f"a text of some words, number {i}", "tags": LISTS[i % 4]} for i in range(12)]
    path.write_text("\n".join(map(json.dumps, rows)))
    table = read(str(path)).tables["train"]
    text, label, decisions, _ = choose_columns(table, text=None, label=None)
    assert (text, label) == ("text", "tags")
    assert decisions[0].why == "the only column of lists: several labels a row"
    assert find_task(table, "tags", "auto") == "multi_label"
    with pytest.raises(UserError, match=r"data.task = 'single_label', but 'tags' holds several labels"):
        find_task(table, "tags", "single_label")
    found, told = examples(table, text="text", label="tags")
    assert list(found.labels[:4]) == ["a|b", "a", NOTHING, "b"]
    assert told[-1].why == "2 labels; 3 of 12 rows have none"


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (
            pa.array([["a|b"], ["a"], [], ["b"]]),
            r"'a\|b' among the labels of a row\. A label is a name.*without '\|'",
        ),
        (pa.array([[""], ["a"], [], ["b"]]), "'' among the labels of a row"),
        (pa.array([["(no label)"], ["a"], [], ["b"]]), r"'\(no label\)' among the labels"),
        (pa.array([["a"], ["a"], [], ["a"]]), "single class"),
        ({"a": ["1", "0", "2", "0"], "b": ["1", "0", "0", "1"]}, "column 'a': '2' is neither yes nor no"),
        (
            {"a": ["1", "0", "1", "0"], "x": pa.array([[1], [], [], []])},
            "column 'x' cannot be the label|lists of labels",
        ),
    ],
)
def test_labels_that_cannot_be_are_refused(cells, message):
    with pytest.raises(UserError, match=message):
        labels_of(cells)


def test_a_missing_list_is_no_label_set():
    cells = pa.array([["a"], None, [], ["b"]], pa.list_(pa.string()))
    assert list(labels_of(cells)) == ["a", NOTHING, "b"]


def test_names_become_numbers_and_names_again():
    names = Names.of(["a|b", NOTHING, "c"])
    y = as_numbers(names, ["a", "b", "c"], "multi_label")
    assert y.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert as_labels(y, ["a", "b", "c"]) == list(names)
    assert classes_in(Names.of(["a|b", "a", NOTHING]), "multi_label") == {"a": 2, "b": 1}


def test_splits_share_no_text_and_hold_each_label_in_proportion(rng):
    y = (rng.random((3000, 4)) < [0.4, 0.2, 0.05, 0.02]).astype(int)
    labels = as_labels(y, ["a", "b", "c", "d"])
    rows = Examples([f"text {i}" for i in range(3000)], labels, range(3000))
    found = split(rows, None, seed=0, task="multi_label")
    assert found.class_names == ["a", "b", "c", "d"]
    for part in found.parts().values():
        share = as_numbers(Names.of(part.labels), found.class_names, found.task).mean(axis=0)
        assert share == pytest.approx(y.mean(axis=0), abs=0.03)
        assert share.min() > 0
    texts = [set(part.texts) for part in found.parts().values()]
    assert not texts[0] & texts[1] | texts[0] & texts[2] | texts[1] & texts[2]


def test_rows_of_rare_label_sets_are_drawn_together():
    """Each of 300 sets is there once: on their own, none would ever be tested."""
    labels = [f"a{i}|b" for i in range(300)] + ["b"] * 300
    found = split(Examples([f"t{i}" for i in range(600)], labels, range(600)), None, seed=0, task="multi_label")
    assert sum(name != "b" for name in found.test.labels) == pytest.approx(60, abs=2)


# ---- answers and scores


def test_the_best_threshold_is_the_best_of_all():
    rng = np.random.default_rng(0)
    y_true, proba = made(rng, 300)
    for c, found in enumerate(best_thresholds(y_true, proba)):
        every = [sklearn.metrics.f1_score(y_true[:, c], proba[:, c] >= t) for t in [*proba[:, c], 0.0]]
        assert sklearn.metrics.f1_score(y_true[:, c], proba[:, c] >= found) == pytest.approx(max(every))


def test_a_label_of_few_rows_takes_the_threshold_of_all_together(rng):
    y_true, proba = made(rng, 200)
    y_true[:, 2] = 0
    y_true[: FEWEST_POSITIVES - 1, 2] = 1
    found = best_thresholds(y_true, proba)
    at = [f1_micro(y_true, proba >= t) for t in proba.ravel()]
    assert f1_micro(y_true, proba >= found[2]) == pytest.approx(max(at))
    y_true[FEWEST_POSITIVES, 2] = 1
    assert best_thresholds(y_true, proba)[2] != found[2]
    assert best_thresholds(np.zeros((5, 2), int), np.full((5, 2), 0.3)) == [0.5, 0.5]


def test_a_label_without_a_threshold_is_never_given():
    proba = np.array([[0.9, 0.9], [0.2, 0.6]])
    assert decide(proba, "multi_label", [0.5, None]).tolist() == [[True, False], [False, False]]
    assert decide(proba, "multi_label").tolist() == [[True, True], [False, True]]


REFERENCES = {
    "f1_micro": lambda y, p, a: sklearn.metrics.f1_score(y, a, average="micro"),
    "f1_macro": lambda y, p, a: sklearn.metrics.f1_score(y, a, average="macro"),
    "precision_micro": lambda y, p, a: sklearn.metrics.precision_score(y, a, average="micro"),
    "recall_micro": lambda y, p, a: sklearn.metrics.recall_score(y, a, average="micro"),
    "accuracy": lambda y, p, a: sklearn.metrics.accuracy_score(y, a),
    "hamming_loss": lambda y, p, a: sklearn.metrics.hamming_loss(y, a),
    "log_loss": lambda y, p, a: np.mean([sklearn.metrics.log_loss(y[:, c], p[:, c]) for c in range(y.shape[1])]),
    "brier": lambda y, p, a: np.mean([sklearn.metrics.brier_score_loss(y[:, c], p[:, c]) for c in range(y.shape[1])]),
    "roc_auc": lambda y, p, a: sklearn.metrics.roc_auc_score(y, p, average="macro"),
}


@pytest.mark.parametrize("name", SET_METRICS)
def test_a_score_is_that_of_scikit_learn_inside_its_interval(name, rng):
    y_true, proba = made(rng)
    answers = decide(proba, "multi_label", [0.3, 0.4, 0.5])
    score = score_all(y_true, proba, answers, names=[name], seed=0)[name]
    if name in REFERENCES:
        assert score.value == pytest.approx(REFERENCES[name](y_true, proba, answers))
    assert SET_METRICS[name].low <= score.low <= score.value <= score.high <= SET_METRICS[name].high
    assert score.low < score.high


@pytest.mark.parametrize("name", [name for name, metric in SET_METRICS.items() if metric.reweigh])
def test_a_metric_on_resamples_is_the_metric_on_the_rows_drawn(name, rng):
    y_true, proba = made(rng, 60)
    metric = SET_METRICS[name]
    given = proba if metric.needs == "probabilities" else proba >= 0.4
    rows = rng.integers(0, 60, 60)
    weights = np.bincount(rows, minlength=60)[:, None].astype(float)
    assert metric.reweigh(y_true, given, weights)[0] == pytest.approx(metric.compute(y_true[rows], given[rows]))


def test_a_metric_of_label_sets_is_a_module_of_evaluate(rng):
    y_true, proba = made(rng, 50)
    module = as_module("f1_micro", SET_METRICS["f1_micro"], 3, "multi_label")
    expected = sklearn.metrics.f1_score(y_true, proba > 0.5, average="micro")
    assert module.compute(predictions=proba > 0.5, references=y_true)["f1_micro"] == pytest.approx(expected)


def test_answers_are_counted_by_label():
    y_true = np.array([[1, 0], [1, 1], [0, 0]])
    answers = np.array([[1, 1], [0, 1], [0, 0]], dtype=bool)
    assert count_answers(y_true, answers, 2) == [[1, 0, 1, 1], [1, 1, 0, 1]]


# ---- comparisons


def noisy(rng, y_true, share):
    """Answers of which that share of labels is wrong."""
    return np.where(rng.random(y_true.shape) < share, 1 - y_true, y_true).astype(bool)


def test_equal_classifiers_are_called_better_or_worse_in_at_most_one_of_twenty(rng, monkeypatch):
    monkeypatch.setattr("lightune.evidence.statistics.N_SHUFFLES", 499)
    outcomes = []
    for trial in range(400):
        y_true, _ = made(rng, 200)
        ours, theirs = noisy(rng, y_true, 0.15), noisy(rng, y_true, 0.15)
        outcomes.append(compare(y_true, ours, {"x": theirs}, seed=trial)["x"].outcome)
    n_found = len(outcomes) - outcomes.count("not distinguishable")
    assert 0 < n_found <= 0.05 * 400 + 2 * (400 * 0.05 * 0.95) ** 0.5


def test_the_gain_is_the_difference_of_f1_and_its_interval_covers_the_truth(rng, monkeypatch):
    monkeypatch.setattr("lightune.evidence.statistics.N_SHUFFLES", 99)
    y_all, _ = made(rng, 200_000)
    ours_all, theirs_all = noisy(rng, y_all, 0.10), noisy(rng, y_all, 0.15)
    truth = f1_micro(y_all, ours_all) - f1_micro(y_all, theirs_all)
    covered = []
    for trial in range(300):
        rows = rng.integers(0, len(y_all), 400)
        y_true, ours, theirs = y_all[rows], ours_all[rows], theirs_all[rows]
        found = compare_sets(y_true, ours, theirs, 500, np.random.default_rng(trial))
        assert found.gain.value == pytest.approx(f1_micro(y_true, ours) - f1_micro(y_true, theirs))
        covered.append(found.gain.low <= truth <= found.gain.high)
    assert 0.91 <= np.mean(covered) <= 0.985  # 300 trials: 95 % ± 2.5 points, and half as much again


def test_the_permutation_test_agrees_with_that_of_scipy(rng):
    from scipy.stats import permutation_test

    y_true, _ = made(rng, 60)
    ours, theirs = noisy(rng, y_true, 0.15), noisy(rng, y_true, 0.25)
    rows = np.arange(60)

    def difference(one, two):
        both = np.stack([ours, theirs])
        return f1_micro(y_true, both[one // 60, one % 60]) - f1_micro(y_true, both[two // 60, two % 60])

    expected = permutation_test(
        (rows, rows + 60), difference, permutation_type="samples", n_resamples=4000, rng=rng
    ).pvalue
    found = compare_sets(y_true, ours, theirs, 100, rng)
    assert found.p_value == pytest.approx(expected, abs=0.03)


def test_a_better_classifier_is_called_better_in_points_of_f1(rng):
    y_true, _ = made(rng, 1000)
    found = compare(y_true, noisy(rng, y_true, 0.05), {"x": noisy(rng, y_true, 0.2)}, seed=0)["x"]
    assert (found.outcome, found.measure) == ("better", "f1_micro")
    assert found.fixed > found.broken
    assert in_words("TF-IDF", found, 1000).startswith("better than TF-IDF by ")
    assert " points of F1 (95 % CI " in in_words("TF-IDF", found, 1000)
    same = compare(y_true, y_true, {"x": y_true}, seed=0)["x"]
    assert same.outcome == "not distinguishable"
    assert in_words("it", same, 1000).endswith("both have as many wrong labels on every row")


class Given:
    def __init__(self, answers):
        self.proba, self.answers = 0.1 + 0.8 * answers, answers


def test_gates_know_the_metrics_of_the_task(rng):
    y_true, _ = made(rng, 500)
    ours, theirs = Given(noisy(rng, y_true, 0.05)), Given(noisy(rng, y_true, 0.3))
    held, missed, other = gate.parse(["f1_micro>tfidf", "recall_micro>0.999", "f1_weighted>0.5"], ["tfidf"])
    assert gate.shortfall(held, y_true, ours, {"tfidf": theirs}, seed=0) == ""
    assert "recall_micro is 0.9" in gate.shortfall(missed, y_true, ours, {"tfidf": theirs}, seed=0)
    gate.check_task([held, missed], "multi_label")
    with pytest.raises(UserError, match=r"f1_weighted is no metric of a multi_label task\. There are f1_micro"):
        gate.check_task([other], "multi_label")


# ---- learning


def test_the_losses_of_label_sets_are_a_number_a_text(rng):
    import torch

    y_true, proba = made(rng, 20)
    logits, labels = torch.logit(torch.from_numpy(proba)), torch.from_numpy(y_true)
    expected = -np.where(y_true == 1, np.log(proba), np.log(1 - proba))
    assert LOSSES["cross_entropy"](logits, labels).numpy() == pytest.approx(expected.mean(axis=1))
    focused = ((1 - np.exp(-expected)) ** 2 * expected).mean(axis=1)
    assert LOSSES["focal"](logits, labels).numpy() == pytest.approx(focused)


def test_a_fresh_head_starts_from_the_shares_of_the_labels():
    import torch

    model = torch.nn.Sequential()
    model.add_module("body", torch.nn.Linear(2, 2))
    model.add_module("head", torch.nn.Linear(2, 2))
    before = model.body.bias.clone()
    start_from_shares(model, ("head",), np.array([[1, 0]] * 98))
    assert model.head.bias.sigmoid().tolist() == pytest.approx([0.99, 0.01])
    assert torch.equal(model.body.bias, before)


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_answers_with_label_sets(name, rng):
    words = np.array(["red", "green", "blue"])
    y = (rng.random((300, 3)) < [0.6, 0.4, 0.3]).astype(int)
    texts = [" ".join(["word", *words[row == 1]]) for row in y]
    parts = {"train": slice(0, 200), "dev": slice(200, 250), "test": slice(250, 300)}
    train, dev, test = (texts[part] for part in parts.values())
    embeddings = Embeddings(y[:200] + rng.normal(0, 0.1, (200, 3)), y[:200], np.arange(200), y[250:].astype(float))
    lesson = Lesson(train, y[:200], dev, y[200:250], test, 3, embeddings)
    found = answer([name], lesson, seed=0, tell=lambda decision: None)[name]
    assert found.proba.shape == found.answers.shape == (50, 3)
    score = f1_micro(y[250:], found.answers)
    assert score > 0.95 if name != "majority" else 0.2 < score < 0.8


def test_dev_rows_choose_temperature_and_thresholds(rng):
    y_true, proba = made(rng, 2000)
    logits = 3 * np.log(proba / (1 - proba))  # three times too sure, but for the noise
    found = calibrate(y_true, logits, EvidenceRecipe())
    assert found.temperature > 1.5
    assert (len(found.given_from), found.thresholds) == (3, ())
    precise = calibrate(y_true, logits, EvidenceRecipe(goal="precision >= 0.9"))
    assert precise.given_from == found.given_from  # a goal holds answers back, and changes no verdict
    tempered = 1 / (1 + np.exp(-logits / precise.temperature))
    for c, threshold in enumerate(precise.thresholds):
        if threshold is not None:
            assert y_true[tempered[:, c] >= threshold, c].mean() >= 0.9
    assert any(threshold is not None for threshold in precise.thresholds)
