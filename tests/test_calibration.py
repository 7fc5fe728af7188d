"""Temperature, calibration error, thresholds and label sets: against references, by hand, and over many draws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lightune
from lightune.errors import UserError
from lightune.evidence import calibration as cal
from lightune.evidence.calibration import Goal
from lightune.evidence.decisions import softmax
from lightune.recipe import EvidenceRecipe


def draw(n_rows: int, rng: np.random.Generator, sharper: float = 1.0, n_classes: int = 3) -> tuple[Any, Any]:
    """Labels (N,) drawn from the softmax of logits, and these logits (N, C) times `sharper`."""
    logits = 1.5 * rng.normal(size=(n_rows, n_classes))
    proba = softmax(logits)
    y_true = (rng.random(n_rows)[:, None] > proba.cumsum(axis=1)[:, :-1]).sum(axis=1)
    return y_true, sharper * logits


@pytest.mark.parametrize("sharper", [0.4, 1.0, 2.5])
def test_the_temperature_undoes_what_sharpened_the_logits(sharper):
    y_true, logits = draw(20_000, np.random.default_rng(0), sharper)
    assert cal.fit_temperature(logits, y_true) == pytest.approx(sharper, rel=0.03)


def test_the_temperature_is_that_of_scikit_learn():
    """`_TemperatureScaling` minimises the same loss, without the prior, of which 100,000 rows leave nothing."""
    calibration = pytest.importorskip("sklearn.calibration")
    if not hasattr(calibration, "_TemperatureScaling"):
        pytest.skip("this scikit-learn has no temperature scaling")
    y_true, logits = draw(100_000, np.random.default_rng(1), 1.7)
    theirs = calibration._TemperatureScaling().fit(logits, y_true)
    assert cal.fit_temperature(logits, y_true) == pytest.approx(1 / theirs.beta_, rel=1e-3)


def test_a_temperature_by_few_rows_does_little_harm_and_mostly_good():
    """Means over draws of 300 dev rows: right probabilities lose little, wrong ones gain most of what there is."""
    rng = np.random.default_rng(0)

    def errors(sharper: float) -> tuple[float, float]:
        plain, scaled = [], []
        for _ in range(60):
            found = cal.calibrate(*draw(300, rng, sharper), EvidenceRecipe()).temperature
            y_true, logits = draw(6000, rng, sharper)
            plain.append(cal.calibration_error(y_true, softmax(logits)))
            scaled.append(cal.calibration_error(y_true, softmax(logits / found)))
        return float(np.mean(plain)), float(np.mean(scaled))

    right, sharp, sharper = errors(1.0), errors(1.25), errors(1.6)
    assert right[1] < right[0] + 0.01
    assert sharp[1] < 0.75 * sharp[0]
    assert sharper[1] < 0.45 * sharper[0]


def test_few_rows_that_are_all_right_do_not_make_the_classifier_certain():
    logits = np.array([[2.0, 0.0]] * 4 + [[0.0, 2.0]] * 4)
    assert 0.3 < cal.fit_temperature(logits, np.repeat([0, 1], 4)) < 1


def test_tempered_probabilities_are_those_of_divided_logits():
    logits = np.random.default_rng(0).normal(size=(50, 4)) * 20
    got = cal.tempered(softmax(logits), 2.5)
    assert np.allclose(got, softmax(logits / 2.5), atol=1e-12)
    assert np.allclose(cal.tempered(got, 1 / 2.5), softmax(logits), atol=1e-9)


# four answers of 0.9, three of them right, and two of 0.6, none right
HAND_Y = np.array([0, 0, 0, 1, 1, 1])
HAND_PROBA = np.array([[0.9, 0.1]] * 4 + [[0.6, 0.4]] * 2)


def test_the_error_and_the_bins_of_six_rows_are_those_worked_out_by_hand():
    assert cal.calibration_error(HAND_Y, HAND_PROBA) == pytest.approx((4 * 0.15 + 2 * 0.6) / 6)
    low, high = cal.reliability(HAND_Y, HAND_PROBA)
    assert (low.n, low.confidence, low.accuracy) == (2, pytest.approx(0.6), 0.0)
    assert (high.n, high.confidence, high.accuracy) == (4, pytest.approx(0.9), 0.75)
    assert (high.low, high.high) == (pytest.approx(13 / 15), pytest.approx(14 / 15))


def test_resampled_errors_are_the_errors_of_the_resampled_rows():
    rng = np.random.default_rng(0)
    y_true, logits = draw(60, rng, 2.0)
    proba = softmax(logits)
    weights = rng.multinomial(60, np.full(60, 1 / 60), size=5).T.astype(float)
    expected = []
    for weight in weights.T:
        rows = np.repeat(np.arange(60), weight.astype(int))
        expected.append(cal.calibration_error(y_true[rows], proba[rows]))
    assert cal.resampled_errors(y_true, proba, weights) == pytest.approx(expected)


@pytest.mark.parametrize(("sharper", "n_rows"), [(1.0, 400), (1.0, 2000), (1.3, 400), (1.3, 2000), (2.0, 2000)])
def test_the_interval_of_the_error_holds_the_true_one(sharper, n_rows):
    """True: of 400,000 rows. 300 draws at 95 % come to 93 to 97 % in 19 of 20 tries, hence the width of the check."""
    rng = np.random.default_rng(n_rows)
    truth = cal.calibration_error(*_probabilities(*draw(400_000, rng, sharper)))
    held = 0
    for _ in range(300):
        y_true, proba = _probabilities(*draw(n_rows, rng, sharper))
        low, high = cal.calibration_interval(y_true, proba, rng)
        assert low <= cal.calibration_error(y_true, proba) <= high
        held += low <= truth <= high
    assert 0.91 <= held / 300 <= 0.99


def _probabilities(y_true: Any, logits: Any) -> tuple[Any, Any]:
    return y_true, softmax(logits)


def test_certain_answers_that_are_all_right_have_an_interval_too():
    proba = np.eye(2)[[0, 1, 1]]
    assert cal.calibration_interval(np.array([0, 1, 1]), proba, np.random.default_rng(0)) == (0.0, 1.0)


@pytest.mark.parametrize("text", ["precision >= 0.95", "precision>=.95", " precision  >=  0.950 "])
def test_a_goal_is_read(text):
    assert cal.parse_goal(text) == Goal("precision", 0.95)
    assert str(cal.parse_goal(text)) == "precision >= 0.95"


@pytest.mark.parametrize(
    "text", ["precision", "precision > 0.9", "recall >= 0.9", "precision >= 95", "accuracy >= 1.0"]
)
def test_a_goal_that_is_not_understood_says_how_to_write_one(text):
    with pytest.raises(
        UserError, match=r"evidence\.goal = .*: not understood\. Write precision >= 0\.95 or accuracy"
    ):
        cal.parse_goal(text)


def test_no_goal_is_none():
    assert cal.parse_goal("") is None


def test_thresholds_are_those_found_by_hand():
    """Class 0: right, right, wrong by falling probability: two thirds at 0.7, all at 0.9. Class 1: never right."""
    proba = np.array([[0.95, 0.05], [0.9, 0.1], [0.7, 0.3], [0.2, 0.8]])
    y_true = np.array([0, 0, 1, 0])
    assert cal.find_thresholds(Goal("precision", 0.92), y_true, proba) == [0.9, None]
    assert cal.find_thresholds(Goal("precision", 0.6), y_true, proba) == [0.7, None]
    assert cal.find_thresholds(Goal("accuracy", 0.5), y_true, proba) == [0.7, 0.7]


def test_a_threshold_does_not_part_rows_of_one_probability():
    proba, y_true = np.array([[0.9, 0.1]] * 3), np.array([0, 0, 1])
    assert cal.find_thresholds(Goal("precision", 0.8), y_true, proba)[0] is None
    assert cal.find_thresholds(Goal("precision", 0.6), y_true, proba)[0] == 0.9


def test_a_class_that_is_never_answered_has_no_threshold():
    assert cal.find_thresholds(Goal("precision", 0.5), np.array([0]), np.array([[0.9, 0.1]])) == [0.9, None]


def test_a_goal_is_met_on_new_rows_within_their_interval():
    """Of 200 draws of 600 dev and 2,000 test rows, for either class; Wilson's interval of what test rows reach."""
    from lightune.evidence.statistics import wilson

    rng, met, shares = np.random.default_rng(0), [], []
    for _ in range(200):
        y_dev, dev = _probabilities(*draw(600, rng, n_classes=2))
        y_true, proba = _probabilities(*draw(2_000, rng, n_classes=2))
        thresholds = cal.find_thresholds(Goal("precision", 0.95), y_dev, dev)
        answered, right = cal.is_answered(proba, thresholds), proba.argmax(axis=1) == y_true
        for c in range(2):
            mine = answered & (proba.argmax(axis=1) == c)
            met.append(wilson(int(right[mine].sum()), int(mine.sum()))[1] >= 0.95)
        shares.append(right[answered].mean())
    assert np.mean(shares) > 0.945
    assert np.mean(met) >= 0.95


def test_only_sure_answers_are_given():
    proba = np.array([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9]])
    assert cal.is_answered(proba, [0.7, None]).tolist() == [True, False, False]
    assert cal.is_answered(proba, [0.6, 0.9]).tolist() == [True, True, True]


@pytest.mark.parametrize(("n_rows", "level"), [(39, 0.9), (200, 0.9), (200, 0.5), (50, 0.98)])
def test_sets_hold_the_true_label_as_often_as_they_should(n_rows, level):
    """The share lies between level and level + 1 / (N + 1), on average over draws (Angelopoulos and Bates 2023)."""
    rng, covered, n_draws = np.random.default_rng(n_rows), [], 1000
    for _ in range(n_draws):
        threshold = cal.conformal_threshold(*_probabilities(*draw(n_rows, rng)), level)
        y_true, proba = _probabilities(*draw(100, rng))
        assert cal.label_sets(proba, threshold).any(axis=1).all()
        covered.append((proba >= threshold)[np.arange(100), y_true].mean())
    error = 4 * np.std(covered) / np.sqrt(n_draws)
    assert level - error <= np.mean(covered) <= level + 1 / (n_rows + 1) + error


def test_the_threshold_of_sets_is_the_quantile_worked_out_by_hand():
    """Of nine rows at a level of 0.8, floor(10 * 0.2) = 2 may be left out: the second smallest own probability."""
    own = np.array([0.9, 0.5, 0.3, 0.8, 0.7, 0.6, 0.4, 0.95, 0.85])
    proba = np.stack([own, 1 - own], axis=1)
    assert cal.conformal_threshold(np.zeros(9, int), proba, 0.8) == 0.4
    assert cal.conformal_threshold(np.zeros(9, int), proba, 0.95) == 0.0  # too few rows: every label


def test_a_calibration_does_what_the_recipe_asks_for():
    y_true, logits = draw(300, np.random.default_rng(0), 2.0)
    plain = cal.calibrate(y_true, logits, EvidenceRecipe(calibrate=False))
    assert plain == cal.Calibration(temperature=1.0, n_dev=300)
    full = cal.calibrate(y_true, logits, EvidenceRecipe(goal="accuracy >= 0.8", conformal=0.9))
    assert full.temperature == pytest.approx(2.0, rel=0.2)
    assert len(full.thresholds) == 3
    assert full.set_threshold is not None
    assert str(full.goal) == "accuracy >= 0.8"


SETTINGS = ["train.epochs=6", "data.max_tokens=16", "evidence.doctor=false", "evidence.baselines=[]"]


@pytest.fixture(scope="module")
def run(reviews, tiny_bert, tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibrated") / "run"
    settings = [f"model={tiny_bert}", *SETTINGS, "evidence.goal=accuracy >= 0.6", "evidence.conformal=0.8"]
    return lightune.run(reviews, settings=settings, output=folder)


def test_what_a_run_calibrated_is_in_its_contract_and_obeyed(run):
    import pyarrow.parquet as pq

    record, classifier = run.results["calibration"], lightune.Classifier.load(run.folder)
    contract = classifier.contract
    assert contract.temperature == record["temperature"]
    assert contract.abstention is not None
    assert contract.abstention.goal == "accuracy >= 0.6"
    assert dict(zip(contract.labels, contract.abstention.thresholds, strict=True)) == record["goal"]["thresholds"]
    assert contract.conformal is not None
    assert contract.conformal.level == 0.8
    texts = ["good fine", "bad poor", "a b c", "the film was good and bad"]
    for prediction in classifier.predict(texts):
        best = max(prediction.probabilities, key=prediction.probabilities.__getitem__)
        least = record["goal"]["thresholds"][best]
        assert prediction.label == (best if least is not None and prediction.score >= least else None)
        assert prediction.label_set is not None
        assert prediction.label_set[0] == best
        rest = [name for name, p in prediction.probabilities.items() if p >= contract.conformal.threshold]
        assert set(prediction.label_set) == {best, *rest}
    table = pq.read_table(f"{run.folder}/predictions.parquet")
    proba = np.stack([table[f"p_{name}"].to_numpy() for name in contract.labels], axis=1)
    y_true = np.array([contract.labels.index(name) for name in table["label"].to_pylist()])
    assert record["calibrated"]["ece"]["value"] == pytest.approx(cal.calibration_error(y_true, proba))
    raw = cal.tempered(proba, 1 / contract.temperature)
    assert record["uncalibrated"]["ece"]["value"] == pytest.approx(cal.calibration_error(y_true, raw))
    answered = cal.is_answered(proba, contract.abstention.thresholds)
    assert record["goal"]["answered"]["value"] == pytest.approx(answered.mean())
    assert answered.any()
    assert sum(each["n"] for each in record["bins"]) == len(y_true)
    page = (Path(run.folder) / "report.html").read_text()
    assert f"Answered are {100 * answered.mean():.1f} %" in page.replace("\u202f", " ").replace("\xa0", " ")
    assert "Sets of classes that are to hold the true one in 80 % of the cases" in page.replace("\xa0", " ")


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_predict_leaves_the_label_empty_where_it_is_not_sure(run, reviews, tmp_path, ending):
    import pandas as pd

    from lightune.use.files import predict_file

    output = tmp_path / f"out.{ending}"
    predict_file(run.folder, str(reviews), str(output))
    readers = {"csv": pd.read_csv, "parquet": pd.read_parquet, "jsonl": lambda path: pd.read_json(path, lines=True)}
    table = readers[ending](output)
    classifier = lightune.Classifier.load(run.folder)
    expected = classifier.predict(table["text"].tolist())
    assert [None if pd.isna(label) else label for label in table["label"]] == [each.label for each in expected]
    sets = [json.loads(each) if isinstance(each, str) else list(each) for each in table["label_set"]]
    assert sets == [each.label_set for each in expected]


def test_a_contract_with_too_few_thresholds_is_refused(run):
    from lightune.artifact.contract import Contract

    values = lightune.Classifier.load(run.folder).contract.model_dump()
    values["abstention"]["thresholds"] = [0.5]
    with pytest.raises(ValueError, match="not one threshold for each label"):
        Contract(**values)


def test_without_a_goal_every_text_has_a_label(reviews, tiny_bert, tmp_path):
    settings = [f"model={tiny_bert}", *SETTINGS, "evidence.calibrate=false"]
    result = lightune.run(reviews, settings=settings, output=tmp_path / "run")
    record = result.results["calibration"]
    assert (record["temperature"], record["goal"], record["conformal"]) == (1.0, None, None)
    for name, score in record["calibrated"].items():
        assert record["uncalibrated"][name] == pytest.approx(score)
    (answer,) = lightune.Classifier.load(result.folder).predict(["good"])
    assert answer.label in result.results["labels"]
    assert answer.label_set is None
