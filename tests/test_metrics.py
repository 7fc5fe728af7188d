"""Every metric agrees with scikit-learn and with itself, resampled or not, and needs no network."""

import dataclasses
import math
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import sklearn.metrics as sk

from lightune.errors import UserError
from lightune.evidence import metrics
from lightune.evidence.metrics import METRICS, Metric
from lightune.evidence.modules import hub_metric, local_module
from lightune.evidence.score import not_applicable, score_all
from lightune.evidence.statistics import wilson


def made_up(n_classes, n_rows=120, seed=0):
    """Labels and probabilities of a classifier that is right more often than not, with tied scores."""
    rng = np.random.default_rng(seed)
    y_true = np.concatenate([np.arange(n_classes), rng.integers(0, n_classes, n_rows - n_classes)])
    proba = rng.dirichlet(np.ones(n_classes), n_rows).round(2) + 0.3 * np.eye(n_classes)[y_true]
    return y_true, proba / proba.sum(axis=1, keepdims=True)


def certain(y_pred, n_classes):
    return np.eye(n_classes)[y_pred]


Y5, P5 = made_up(5)
CASES = {
    "two classes": made_up(2),
    "five classes": (Y5, P5),
    "float32 softmax": (Y5, P5.astype(np.float32)),
    "never predicted": (Y5, np.where(np.arange(5) == 3, 0, P5) / (1 - P5[:, 3:4])),
    "never occurs": (np.where(Y5 == 3, 2, Y5), P5),
    "perfect": (Y5, certain(Y5, 5)),
    "always wrong": (Y5, certain((Y5 + 1) % 5, 5)),
    "constant": (Y5, np.full((120, 5), [0.6, 0.1, 0.1, 0.1, 0.1])),
    "one class seen and said": (np.ones(9, int), certain(np.ones(9, int), 2)),
    "one row": (np.array([1]), np.array([[0.3, 0.7]])),
}
every_metric = pytest.mark.parametrize("name", list(METRICS))
every_case = pytest.mark.parametrize("case", list(CASES))


def applicable(name, y_true, proba):
    if name in not_applicable(y_true, proba.shape[1], "single_label"):
        pytest.skip("does not apply")


def prediction(metric, proba):
    return proba.argmax(axis=1) if metric.needs == "labels" else proba


def confusion(y_true, proba):
    return sk.confusion_matrix(y_true, proba.argmax(axis=1), labels=range(proba.shape[1]))


# ---- values


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        ("accuracy", 3 / 4),
        ("balanced_accuracy", (1 / 2 + 2 / 2) / 2),
        ("f1_macro", (2 / 3 + 4 / 5) / 2),
        ("f1_weighted", (2 * 2 / 3 + 2 * 4 / 5) / 4),
        ("precision_macro", (1 / 1 + 2 / 3) / 2),
        ("recall_macro", (1 / 2 + 2 / 2) / 2),
        ("mcc", (2 * 1 - 1 * 0) / math.sqrt(3 * 2 * 2 * 1)),
        ("log_loss", -(math.log(0.9) + math.log(0.25) + math.log(0.8) + math.log(0.7)) / 4),
        ("brier", (0.1**2 + 0.75**2 + 0.2**2 + 0.3**2) / 4),
        ("roc_auc", 3 / 4),  # of the pairs 0.8 > 0.1, 0.8 > 0.75, 0.7 > 0.1, 0.7 < 0.75
    ],
)
def test_four_rows_by_hand(name, by_hand):
    y_true = np.array([0, 0, 1, 1])
    proba = np.array([[0.9, 0.1], [0.25, 0.75], [0.2, 0.8], [0.3, 0.7]])  # the second is wrong
    assert score_all(y_true, proba, names=[name], seed=0, n_resamples=20)[name].value == pytest.approx(by_hand)


@pytest.mark.parametrize("n_classes", [2, 5])
@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("accuracy", lambda y, p: sk.accuracy_score(y, p.argmax(1))),
        ("balanced_accuracy", lambda y, p: sk.balanced_accuracy_score(y, p.argmax(1))),
        ("f1_macro", lambda y, p: sk.f1_score(y, p.argmax(1), average="macro")),
        ("f1_weighted", lambda y, p: sk.f1_score(y, p.argmax(1), average="weighted")),
        ("precision_macro", lambda y, p: sk.precision_score(y, p.argmax(1), average="macro")),
        ("recall_macro", lambda y, p: sk.recall_score(y, p.argmax(1), average="macro")),
        ("mcc", lambda y, p: sk.matthews_corrcoef(y, p.argmax(1))),
        ("log_loss", sk.log_loss),
        ("brier", lambda y, p: sk.mean_squared_error(np.eye(p.shape[1])[y], p) * p.shape[1] / 2),
        ("roc_auc", lambda y, p: sk.roc_auc_score(y, p if p.shape[1] > 2 else p[:, 1], multi_class="ovr")),
    ],
)
def test_values_are_those_of_scikit_learn(name, reference, n_classes):
    y_true, proba = made_up(n_classes)
    scores = score_all(y_true, proba, names=[name], seed=0, n_resamples=20)
    assert scores[name].value == pytest.approx(reference(y_true, proba))


def test_binary_brier_is_the_usual_one():
    y_true, proba = made_up(2)
    score = score_all(y_true, proba, names=["brier"], seed=0, n_resamples=20)["brier"]
    assert score.value == pytest.approx(sk.brier_score_loss(y_true, proba[:, 1]))


def test_classes_that_neither_occur_nor_are_predicted_do_not_count():
    proba = np.pad(certain([0, 1, 1, 0], 2), ((0, 0), (0, 5)))
    scores = score_all(np.array([0, 1, 1, 1]), proba, seed=0, n_resamples=20)
    assert scores["f1_macro"].value == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert scores["balanced_accuracy"].value == pytest.approx((1 + 2 / 3) / 2)


@every_metric
@every_case
def test_values_and_intervals_lie_in_the_stated_range(name, case):
    y_true, proba = CASES[case]
    applicable(name, y_true, proba)
    score = score_all(y_true, proba, names=[name], seed=0, n_resamples=50)[name]
    assert METRICS[name].low - 1e-9 <= min(score.value, score.low)
    assert max(score.value, score.high) <= METRICS[name].high + 1e-9


@every_metric
def test_direction_says_which_of_perfect_and_wrong_is_better(name):
    perfect, wrong = (
        score_all(*CASES[case], names=[name], seed=0, n_resamples=20)[name].value
        for case in ("perfect", "always wrong")
    )
    assert (perfect > wrong) == (METRICS[name].direction == "higher")
    assert perfect == pytest.approx(METRICS[name].high if perfect > wrong else METRICS[name].low)


def test_a_certain_error_costs_36_nats_and_not_infinity():
    score = score_all(*CASES["always wrong"], names=["log_loss"], seed=0, n_resamples=20)["log_loss"]
    assert (score.value, score.low, score.high) == pytest.approx([-math.log(np.finfo(float).eps)] * 3)


# ---- the fast forms are the metric


@every_metric
@every_case
def test_the_fast_form_on_the_rows_themselves_is_the_value(name, case):
    (y_true, proba), metric = CASES[case], METRICS[name]
    applicable(name, y_true, proba)
    value = metric.compute(y_true, prediction(metric, proba))
    if metric.replicate:
        assert metric.replicate(confusion(y_true, proba)[None]) == pytest.approx([value])
    if metric.reweigh:
        assert metric.reweigh(y_true, proba, np.ones((len(y_true), 1))) == pytest.approx([value])


@every_metric
@pytest.mark.parametrize("case", ["two classes", "five classes", "never predicted"])
def test_the_fast_form_on_resamples_is_the_value_on_their_rows(name, case):
    (y_true, proba), metric = CASES[case], METRICS[name]
    draws = np.random.default_rng(3).integers(0, len(y_true), (6, len(y_true)))  # (B, N)
    values = [metric.compute(y_true[rows], prediction(metric, proba[rows])) for rows in draws]
    if metric.replicate:
        confusions = np.stack([confusion(y_true[rows], proba[rows]) for rows in draws])
        assert metric.replicate(confusions) == pytest.approx(values)
    if metric.reweigh:
        weights = np.stack([np.bincount(rows, minlength=len(y_true)) for rows in draws], axis=1)
        assert metric.reweigh(y_true, proba, weights.astype(float)) == pytest.approx(values)


@every_metric
def test_fast_and_slow_intervals_agree(name, monkeypatch):
    y_true, proba = made_up(3, n_rows=60)
    fast = score_all(y_true, proba, names=[name], seed=5, n_resamples=1000)[name]
    row = dataclasses.replace(METRICS[name], replicate=None, reweigh=None, is_proportion=False)
    monkeypatch.setitem(METRICS, name, row)
    monkeypatch.setattr("lightune.evidence.score.SLOW_RESAMPLES", 80)
    slow = score_all(y_true, proba, names=[name], seed=5, n_resamples=1000)[name]
    # an end of the interval from 80 resamples has a standard error of 8 % of the width
    width = slow.high - slow.low
    assert (fast.low, fast.high) == pytest.approx((slow.low, slow.high), abs=0.25 * width)
    assert fast.value == slow.value


def test_multiclass_auc_of_a_resample_is_over_the_classes_it_has():
    y_true, proba = CASES["five classes"]
    weights = (y_true != 4).astype(float)[:, None]
    rows = y_true != 4
    expected = np.mean([sk.roc_auc_score(y_true[rows] == c, proba[rows, c]) for c in range(4)])
    assert METRICS["roc_auc"].reweigh(y_true, proba, weights) == pytest.approx([expected])


def test_binary_auc_of_a_resample_of_one_class_is_left_out():
    y_true, proba = np.array([0, 1]), np.array([[0.8, 0.2], [0.3, 0.7]])
    areas = METRICS["roc_auc"].reweigh(y_true, proba, np.array([[2.0, 1, 0], [0, 1, 2]]))
    np.testing.assert_array_equal(areas, [np.nan, 1, np.nan])
    score = score_all(y_true, proba, names=["roc_auc"], seed=0)["roc_auc"]
    assert (score.value, score.low, score.high) == (1, 1, 1)


# ---- intervals


def test_the_interval_of_accuracy_is_wilsons():
    y_true, proba = CASES["five classes"]
    score = score_all(y_true, proba, names=["accuracy"], seed=0)["accuracy"]
    assert (score.low, score.high) == wilson(int((proba.argmax(axis=1) == y_true).sum()), len(y_true))


@every_metric
def test_intervals_surround_the_value_and_shrink_with_more_rows(name):
    few, many = (score_all(*made_up(3, n_rows), names=[name], seed=0)[name] for n_rows in (100, 1600))
    assert few.low < few.value < few.high
    assert many.low < many.value < many.high
    assert 2.5 < (few.high - few.low) / (many.high - many.low) < 6  # 16 times the rows: about 4


def test_one_seed_is_one_answer_whatever_else_is_asked():
    y_true, proba = CASES["five classes"]
    together = score_all(y_true, proba, seed=1, n_resamples=100)
    alone = {name: score_all(y_true, proba, names=[name], seed=1, n_resamples=100)[name] for name in METRICS}
    assert together == alone
    assert score_all(y_true, proba, seed=2, n_resamples=100) != together


# ---- what applies, what does not


def test_every_metric_is_scored_where_all_apply():
    assert list(score_all(*CASES["two classes"], seed=0, n_resamples=20)) == list(METRICS)


def test_a_class_without_rows_leaves_out_roc_auc_and_says_why():
    y_true, proba = CASES["never occurs"]
    scores = score_all(y_true, proba, seed=0, n_resamples=20)
    assert set(METRICS) - set(scores) == {"roc_auc"}
    assert not_applicable(y_true, 5, "single_label") == {"roc_auc": "1 of 5 classes have no row here"}
    assert not_applicable(CASES["five classes"][0], 5, "single_label") == {}


@pytest.mark.parametrize(
    ("name", "hint"),
    [("f1_marco", "Did you mean 'f1_macro'?"), ("bleu", "There are: accuracy, balanced_acc")],
)
def test_an_unknown_metric_is_refused_with_the_nearest_names(name, hint):
    with pytest.raises(UserError, match=f"No metric '{name}'") as error:
        score_all(*CASES["two classes"], names=[name], seed=0)
    assert hint in str(error.value)
    with pytest.raises(UserError, match=f"No metric '{name}'"):
        local_module(name, 2)


def test_no_rows_is_the_users_mistake():
    with pytest.raises(UserError, match=r"No labelled rows to score: 0 were given"):
        score_all(np.array([], int), np.zeros((0, 2)), seed=0)


def test_probabilities_that_are_not_numbers_are_counted():
    y_true, proba = made_up(2)
    proba[:3, 0], proba[5, 1] = np.nan, np.inf
    with pytest.raises(UserError, match=r"not numbers for 4 of 120 rows.*or lower train\.learning_rate"):
        score_all(y_true, proba, seed=0)


@pytest.mark.parametrize(
    ("y_true", "proba", "message"),
    [
        ([0, 2], [[0.5, 0.5]] * 2, r"in \[0, 2\] for \(2, 2\)"),
        ([0, -1], [[0.5, 0.5]] * 2, r"in \[-1, 0\]"),
        ([0], [[0.5, 0.5]] * 2, r"class ids \(1,\)"),
        ([0, 1], [[2.0, -3.0]] * 2, r"rows of proba sum to -1\.0 … -1\.0, not 1"),
    ],
)
def test_logits_and_foreign_class_ids_are_not_scored(y_true, proba, message):
    with pytest.raises(ValueError, match=message):
        score_all(np.array(y_true), np.array(proba), seed=0)


# ---- one function and one row


def test_a_new_metric_is_one_row(monkeypatch):
    def top_2(y_true, proba):
        return float(sk.top_k_accuracy_score(y_true, proba, k=2, labels=range(proba.shape[1])))

    row = Metric("Share of rows", "made up", compute=top_2, needs="probabilities")
    monkeypatch.setitem(METRICS, "top_2", row)
    y_true, proba = CASES["five classes"]
    score = score_all(y_true, proba, names=["top_2"], seed=0)["top_2"]
    assert score.value == pytest.approx(top_2(y_true, proba))
    assert 0 < score.low < score.value < score.high < 1
    result = local_module("top_2", 5).compute(predictions=proba, references=y_true)
    assert result == {"top_2": score.value}
    assert "| `top_2` | Share of rows | higher | 0 to 1 |" in metrics.markdown_table()


def test_a_new_metric_is_not_computed_on_resamples_where_it_does_not_apply(monkeypatch):
    def needs_both(y_true, y_pred):
        assert len(np.unique(y_true)) == 2
        return float((y_true == y_pred).mean())

    row = Metric("both", "made up", compute=needs_both, obstacle=METRICS["roc_auc"].obstacle)
    monkeypatch.setitem(METRICS, "both", row)
    y_true, proba = np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    score = score_all(y_true, proba, names=["both"], seed=0)["both"]
    assert (score.low, score.high) == pytest.approx((1 / 3, 1))


def test_the_table_has_a_row_for_every_metric():
    lines = metrics.markdown_table().splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == [f"`{name}`" for name in METRICS]
    assert {line.count("|") for line in lines} == {9}
    assert "| lower | 0 to ∞ | probabilities |" in metrics.markdown_table()


# ---- Evaluate


@every_metric
def test_a_module_is_an_evaluate_metric_with_the_name_of_the_row(name):
    import evaluate

    module = local_module(name, 5)
    assert isinstance(module, evaluate.EvaluationModule)
    assert (module.name, module.description) == (name, METRICS[name].summary)
    y_true, proba = CASES["five classes"]
    assert module.compute(predictions=proba, references=y_true) == {
        name: pytest.approx(METRICS[name].compute(y_true, prediction(METRICS[name], proba)))
    }


def test_modules_combine_and_take_batches():
    import evaluate

    y_true, proba = CASES["five classes"]
    everything = evaluate.combine([local_module(name, 5) for name in METRICS])
    for rows in (slice(0, 50), slice(50, None)):
        everything.add_batch(predictions=proba[rows], references=y_true[rows])
    scores = score_all(y_true, proba, seed=0, n_resamples=20)
    assert everything.compute() == pytest.approx({name: score.value for name, score in scores.items()})


def test_modules_of_labels_combine_on_class_ids():
    import evaluate

    both = evaluate.combine([local_module("accuracy", 2), local_module("f1_macro", 2)])
    result = both.compute(predictions=[0, 1, 1, 1], references=[0, 0, 1, 1])
    assert result == pytest.approx({"accuracy": 3 / 4, "f1_macro": (2 / 3 + 4 / 5) / 2})


@pytest.mark.parametrize(
    ("name", "predictions"), [("log_loss", [[0.2, 0.3, 0.5]] * 2), ("log_loss", [0, 1]), ("accuracy", [0, 7])]
)
def test_a_module_refuses_predictions_of_another_kind(name, predictions):
    with pytest.raises(ValueError, match=r"[Ee]xpected|greater than configured"):
        local_module(name, 2).compute(predictions=predictions, references=[0, 1])


def test_modules_leave_no_file_behind(tmp_path, monkeypatch):
    import evaluate

    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    score_all(*CASES["two classes"], seed=0, n_resamples=20)
    assert list(tmp_path.iterdir()) == []


def test_runs_at_the_same_time_do_not_collide():
    def accuracy(i):
        y_true, proba = made_up(2, n_rows=50, seed=i)
        result = local_module("accuracy", 2).compute(predictions=proba, references=y_true)
        return result["accuracy"] == (proba.argmax(axis=1) == y_true).mean()

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(accuracy, range(32)))


def test_importing_the_metrics_imports_nothing_heavy():
    heavy = "{'torch', 'evaluate', 'datasets', 'sklearn', 'scipy', 'pandas', 'pyarrow'}"
    code = f"import sys, lightune.evidence.score; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# ---- the network


@pytest.fixture
def dead_network(monkeypatch, tmp_path):
    """A list of the attempts to reach anything, all of which fail; and caches that are empty."""
    import evaluate

    attempts = []

    def refuse(*args, **kwargs):
        attempts.append(args)
        raise OSError("the cable is out")

    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    for name in ("HF_EVALUATE_CACHE", "HF_MODULES_CACHE", "HF_METRICS_CACHE", "DOWNLOADED_EVALUATE_PATH"):
        monkeypatch.setattr(evaluate.config, name, tmp_path)
    monkeypatch.setattr(evaluate.config, "HF_EVALUATE_OFFLINE", False)
    return attempts


def test_scores_need_no_network(dead_network):
    assert len(score_all(*CASES["five classes"], seed=0, n_resamples=20)) == len(METRICS)
    assert dead_network == []


def test_a_hub_metric_without_a_connection_names_what_works_instead(dead_network, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(UserError, match=r"Hub metric 'accurracy' did not load: no connection") as error:
        hub_metric("accurracy")
    assert "Did you mean 'accuracy'" in str(error.value)
    assert ", ".join(METRICS) in str(error.value)
    assert dead_network != []  # the control: this is how an attempt looks


def test_offline_mode_does_not_even_try(dead_network, monkeypatch):
    import evaluate
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"'meteor' did not load: offline mode is on and it is not in the cache"):
        hub_metric("meteor")
    assert dead_network == []
    assert not evaluate.config.HF_EVALUATE_OFFLINE  # as it was: a later run may be online


def test_a_hub_metric_is_loaded_by_evaluate_at_its_revision_and_in_memory(monkeypatch):
    import evaluate

    asked = []
    monkeypatch.setattr(evaluate, "load", lambda name, **options: asked.append((name, options)) or "module")
    assert hub_metric("someone/theirs", revision="abc") == "module"
    assert asked == [("someone/theirs", {"module_type": "metric", "revision": "abc", "keep_in_memory": True})]


def test_a_hub_metric_that_lacks_a_package_says_which(monkeypatch):
    import evaluate

    def load(name, **options):
        raise ImportError("To use it, install: pip install rouge_score")

    monkeypatch.setattr(evaluate, "load", load)
    with pytest.raises(UserError, match=r"'rouge' did not load: To use it, install: pip install rouge_score"):
        hub_metric("rouge")


def test_a_file_here_is_not_run_in_place_of_a_hub_metric(tmp_path, monkeypatch):
    (tmp_path / "meteor").mkdir()
    (tmp_path / "meteor" / "meteor.py").write_text("raise SystemExit('this ran')")
    monkeypatch.chdir(tmp_path)
    for name in ("meteor", "meteor/meteor.py"):
        with pytest.raises(UserError, match=f"'{name}' is a Python file here, not a metric of the Hub"):
            hub_metric(name)


def test_a_hub_metric_is_scored_beside_the_local_ones(monkeypatch):
    class Module:
        def compute(self, predictions, references):
            return {"agreement": float(np.mean(np.asarray(predictions) == np.asarray(references)))}

    monkeypatch.setattr("lightune.evidence.modules.hub_metric", lambda name, *, revision=None: Module())
    proba = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
    scores = score_all(np.array([0, 1, 1, 1]), proba, names=["accuracy", "hub:someone/agreement@v1"], seed=0)
    assert scores["hub:someone/agreement@v1"].value == scores["accuracy"].value == 0.75
    assert scores["hub:someone/agreement@v1"].low < 0.75


@pytest.mark.parametrize(
    ("value", "reason"),
    [(ValueError("Target is multiclass\nbut average='binary'"), r"ValueError: Target is multiclass but"), ({}, "")],
)
def test_a_hub_metric_that_fails_is_one_message(value, reason, monkeypatch):
    class Module:
        def compute(self, predictions, references):
            if isinstance(value, Exception):
                raise value
            return value

    monkeypatch.setattr("lightune.evidence.modules.hub_metric", lambda name, *, revision=None: Module())
    with pytest.raises(UserError, match=f"metrics: hub:f1 cannot score these rows .*{reason}.*Leave it out"):
        score_all(np.array([0, 1]), np.eye(2), names=["hub:f1"], seed=0)


def test_a_hub_metric_that_gives_no_number_is_left_out_and_the_rest_stays(monkeypatch):
    class Module:
        def compute(self, predictions, references):
            return {"matthews": float("nan")}

    monkeypatch.setattr("lightune.evidence.modules.hub_metric", lambda name, *, revision=None: Module())
    scores = score_all(np.array([0, 1]), np.eye(2), names=["accuracy", "hub:matthews"], seed=0)
    assert list(scores) == ["accuracy"]
