"""Labels that are numbers or grades: how they are read, split, scored, compared and given an interval."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats
from sklearn import metrics

from lightune.checkup import check
from lightune.data.columns import choose_columns
from lightune.data.examples import examples
from lightune.data.prepare import prepare
from lightune.data.splits import split
from lightune.data.targets import as_labels, as_numbers, classes_in, find_task, is_measured
from lightune.doctor.examine import examine
from lightune.doctor.patient import admit
from lightune.errors import UserError
from lightune.evidence import baselines
from lightune.evidence.baselines import Embeddings, Lesson
from lightune.evidence.calibration import Calibration, calibrate, interval_half_width
from lightune.evidence.decisions import Readout, in_units, on_scale, scale_of
from lightune.evidence.gate import parse, shortfall
from lightune.evidence.score import not_applicable, paired_difference_of, score_all
from lightune.evidence.slices import by_number, slices, worst
from lightune.evidence.value_comparison import compare_values
from lightune.evidence.value_metrics import GRADE_METRICS, VALUE_METRICS
from lightune.evidence.verdict import compare, gain_in_words, in_words
from lightune.legible import figures
from lightune.recipe import DataRecipe, EvidenceRecipe
from lightune.records import Examples, Scale


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def column(cells, name="score"):
    return pa.table({"text": pa.array([f"text number {i}" for i in range(len(cells))]), name: pa.array(cells)})


# ---- reading


@pytest.mark.parametrize(
    ("cells", "task"),
    [
        ([f"{i / 7:.3f}" for i in range(60)], "regression"),
        ([str(i % 77) for i in range(600)], "single_label"),  # ids of classes
        (["1.5", "2.0", "2.5", "3.0"] * 20, "single_label"),  # few: grades, or prices of four kinds
        ([f"{i / 7:.3f}" for i in range(60)] + ["unknown"], "single_label"),
    ],
)
def test_many_different_numbers_with_a_fraction_are_predicted_as_numbers(cells, task):
    assert find_task(column(cells), "score", "auto") == task
    assert find_task(column(cells), "score", "ordinal") == "ordinal"


def test_a_column_of_measured_numbers_can_be_the_label_by_its_name():
    cells = [f"{i / 7:.3f}" for i in range(600)]
    _, label, _, _ = choose_columns(column(cells, "rating"), text=None, label=None)
    assert label == "rating"
    assert not is_measured([])


def test_under_regression_a_column_of_numbers_is_found_and_a_wrong_cell_named(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(
        "\n".join(["text,score,shop", *(f"a text of {i},{i * 7},web" for i in range(60)), "more,inf,web"])
    )
    with pytest.raises(UserError, match="column 'score': holds what is no number to learn: 'inf' in 1 rows"):
        prepare(DataRecipe(source=str(path), task="regression"))
    path.write_text("\n".join(["text,low,shop", *(f"a text of {i},{i * 7},web" for i in range(60))]))
    assert prepare(DataRecipe(source=str(path), task="regression")).label == "low"
    path.write_text("\n".join(["text,low,high", *(f"a text of {i},{i * 7},{i}" for i in range(60))]))
    with pytest.raises(UserError, match=r"could be any of \['low', 'high'\]"):
        prepare(DataRecipe(source=str(path), task="regression"))


def test_numbers_without_a_task_are_told_of_it():
    cells = [str(i * 7) for i in range(60)]
    found, _ = examples(column(cells), text="text", label="score")
    with pytest.raises(UserError, match="To predict them as numbers: --task regression"):
        split(found, None, seed=0)


def test_few_rows_are_split_whatever_their_numbers():
    cells = [f"{i / 3:.3f}" for i in range(12)]
    found, _ = examples(column(cells), text="text", label="score", task="regression")
    made = split(found, None, seed=0, train_rows=3, dev_rows=2, test_rows=2, task="regression")
    assert (len(made.train), len(made.dev), len(made.test)) == (3, 2, 2)


def test_numbers_are_one_label_however_they_are_written():
    found, notes = examples(column(["4", "4.0", "04", "2.50", "-0"]), text="text", label="score", task="regression")
    assert found.labels == ["4", "4", "4", "2.5", "0"]
    assert classes_in(found.labels, "regression") == {"value": 5}
    assert as_numbers(found.labels, ["value"], "regression").tolist() == [4, 4, 4, 2.5, 0]
    assert notes[-1].why.startswith("the labels are 3 different numbers from 0 to 4")


@pytest.mark.parametrize(
    ("cells", "task", "message"),
    [
        (["1.5", "2,5", "3.5"], "regression", r"'2,5' in 1 rows\. Write a point for a decimal comma"),
        (["1", "2e200", "3"], "regression", r"'2e200' in 1 rows\. Give them in another unit"),
        (["1", "2e-30", "3"], "regression", "Give them in another unit"),
        (["1", "nan", "2"], "regression", "'nan'"),
        (["1", "1e999", "2"], "regression", "'1e999'"),
        (["1", "1_000", "2"], "regression", "'1_000'"),
        (["low", "high", "low"], "ordinal", "'low'"),
        (["2", "2.0", "2"], "regression", "has a single number: '2' in all 3 rows"),
    ],
)
def test_what_is_no_number_is_named(cells, task, message):
    with pytest.raises(UserError, match=message):
        examples(column(cells), text="text", label="score", task=task)


def test_grades_are_ordered_by_their_size_and_not_by_the_alphabet():
    cells = ["10", "9", "1.5", "2"] * 20
    found, notes = examples(column(cells), text="text", label="score", task="ordinal")
    made = split(found, None, seed=0, task="ordinal")
    assert made.class_names == ["1.5", "2", "9", "10"]
    assert notes[-1].choice == "grades"


def test_splits_have_the_same_numbers_in_the_same_shares(rng):
    values = np.sort(rng.lognormal(size=2000))
    rows = Examples([f"text {i}" for i in range(2000)], [repr(float(v)) for v in values], list(range(2000)))
    made = split(rows, None, seed=0, test_rows=400, dev_rows=200, task="regression")
    assert made.class_names == ["value"]
    train, test = (as_numbers(pack(part.labels), ["value"], "regression") for part in (made.train, made.test))
    tenths = np.quantile(train, np.linspace(0, 1, 11))[1:-1]
    counts = np.bincount(np.searchsorted(tenths, test), minlength=10)
    assert counts.sum() == 400
    assert (abs(counts - 40) <= 4).all()
    shuffled = split(rows, None, seed=1, test_rows=400, dev_rows=200, task="regression")
    assert shuffled.test.texts != made.test.texts


def pack(labels):
    from lightune.data.values import Names

    return Names.of(labels)


def test_answers_that_are_numbers_stay_numbers():
    y = np.array([1.5, 2.0])
    assert as_labels(y, ["value"]) is y


def test_whole_numbers_in_a_row_may_be_grades_and_it_is_said(tmp_path):
    path = tmp_path / "rows.csv"
    told = {}
    for names in ("12345", "02345", "1267", "01"):
        lines = [f"text {i},{names[i % len(names)]}" for i in range(40)]
        path.write_text("\n".join(["text,stars", *lines]))
        decisions = prepare(DataRecipe(source=str(path), label="stars")).decisions
        told[names] = [each for each in decisions if each.what == "task"]
    assert "--task ordinal" in told["12345"][0].why
    assert not told["02345"] + told["1267"] + told["01"]


def test_the_doctor_is_told_what_a_label_is(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(["text,stars", *(f"a text of {i},{i % 60}" for i in range(240))]))
    assert check(path, model=None, task="regression").left_out["rare_classes"] == "labels are numbers"
    assert "rare_classes" not in check(path, model=None).left_out
    with pytest.raises(UserError, match=r"--task regresion: no task\. Did you mean 'regression'\?"):
        check(path, task="regresion")


# ---- scale


def test_what_a_network_learns_has_mean_0_and_deviation_1(rng):
    y = rng.normal(2000, 30, 500)
    scale = scale_of(y)
    told = on_scale(y, scale)
    assert told.dtype == np.float32
    assert (told.mean(), told.std()) == (pytest.approx(0, abs=1e-5), pytest.approx(1, abs=1e-5))
    assert in_units(told.astype(float), scale) == pytest.approx(y, abs=1e-4)
    proba = Readout("regression", scale=scale).probabilities(told[:, None].astype(float))
    assert Readout("regression").answers(proba) == pytest.approx(y, abs=1e-4)
    ids = np.array([0, 1, 1])
    assert scale_of(ids) == Scale()
    assert on_scale(ids, Scale()) is ids


def test_labels_all_the_same_have_a_scale():
    assert scale_of(np.full(5, 3.0)) == Scale(3.0, 1.0)


# ---- metrics


def test_metrics_of_numbers_agree_with_their_sources(rng):
    y = rng.normal(size=300).round(1)  # with ties
    answers = (y + rng.normal(size=300)).round(1)
    found = {name: score.value for name, score in score_all(y, answers[:, None], seed=0).items()}
    assert found == {
        "mae": pytest.approx(metrics.mean_absolute_error(y, answers)),
        "rmse": pytest.approx(metrics.root_mean_squared_error(y, answers)),
        "r2": pytest.approx(metrics.r2_score(y, answers)),
        "spearman": pytest.approx(stats.spearmanr(y, answers).statistic),
        "pearson": pytest.approx(stats.pearsonr(y, answers).statistic),
    }


def test_metrics_of_grades_agree_with_their_sources(rng):
    y = rng.integers(0, 5, 300)
    answers = np.clip(y + rng.integers(-1, 2, 300), 0, 4)
    proba = np.eye(5)[answers]
    found = {name: score.value for name, score in score_all(y, proba, names=list(GRADE_METRICS), seed=0).items()}
    assert found == {
        "mae": pytest.approx(metrics.mean_absolute_error(y, answers)),
        "qwk": pytest.approx(metrics.cohen_kappa_score(y, answers, weights="quadratic")),
        "spearman": pytest.approx(stats.spearmanr(y, answers).statistic),
    }


@pytest.mark.parametrize("name", VALUE_METRICS)
def test_the_fast_form_of_a_metric_is_the_metric_on_the_resample(name, rng):
    y = rng.normal(5, 1, 80).round(1)
    answers = (y + rng.normal(size=80)).round(1)
    rows = rng.integers(0, 80, 80)
    weights = np.bincount(rows, minlength=80)[:, None].astype(float)
    metric = VALUE_METRICS[name]
    assert metric.reweigh(y, answers, weights)[0] == pytest.approx(metric.compute(y[rows], answers[rows]))


@pytest.mark.parametrize("name", GRADE_METRICS)
def test_the_fast_form_of_a_metric_of_grades_is_the_metric_on_the_resample(name, rng):
    y, answers = rng.integers(0, 5, 90), rng.integers(0, 5, 90)
    rows = rng.integers(0, 90, 90)
    rows = rows[y[rows] != 2]  # a grade that this resample does not have
    counts = np.zeros((1, 5, 5), int)
    np.add.at(counts[0], (y[rows], answers[rows]), 1)
    metric = GRADE_METRICS[name]
    assert metric.replicate(counts)[0] == pytest.approx(metric.compute(y[rows], answers[rows]))
    if name == "qwk":
        options = {"weights": "quadratic", "labels": range(5)}
        assert metric.compute(y[rows], answers[rows]) == pytest.approx(
            metrics.cohen_kappa_score(y[rows], answers[rows], **options)
        )


def test_answers_all_the_same_correlate_with_nothing():
    y = np.array([0.1, 0.2, 0.4])
    found = score_all(y, np.full((3, 1), 0.3), seed=0)
    assert (found["spearman"].value, found["pearson"].value) == (0, 0)
    assert found["pearson"].low == found["pearson"].high == 0


def test_an_outlier_outside_a_resample_has_no_say_in_it(rng):
    y = np.concatenate([[1e9], rng.normal(0, 0.01, 50)])
    answers = np.concatenate([[1e9], -y[1:]])
    weights = np.concatenate([[0.0], np.ones(50)])[:, None]
    assert VALUE_METRICS["pearson"].reweigh(y, answers, weights)[0] == pytest.approx(-1)
    assert VALUE_METRICS["r2"].reweigh(y, answers, weights)[0] == pytest.approx(metrics.r2_score(y[1:], answers[1:]))
    found = score_all(y, answers[:, None], seed=0)
    assert -1 <= found["pearson"].low <= found["pearson"].high <= 1


def test_grades_all_the_same_have_no_kappa():
    found = score_all(np.full(30, 1), np.eye(3)[np.full(30, 1)], names=list(GRADE_METRICS), seed=0)
    assert set(found) == {"mae"}
    assert not_applicable(np.full(30, 1), 3, "ordinal")["qwk"] == "all rows have the same label"


def test_labels_all_the_same_have_no_correlation():
    found = score_all(np.full(4, 2.0), np.array([[1.0], [2], [3], [4]]), seed=0)
    assert set(found) == {"mae", "rmse"}


def test_intervals_of_the_mean_error_cover_the_truth(rng):
    truth = np.sqrt(2 / np.pi)
    covered = 0
    for trial in range(300):
        y = rng.normal(size=300)
        score = score_all(y, np.zeros((300, 1)), names=["mae"], seed=trial)["mae"]
        covered += score.low <= truth <= score.high
    assert 0.91 <= covered / 300 <= 0.985


# ---- comparison


def test_equal_answers_are_seldom_called_better_or_worse(rng):
    called = []
    for trial in range(1000):
        y = rng.normal(size=120)
        ours, theirs = y + rng.standard_t(3, 120), y + rng.standard_t(3, 120)
        called.append(compare(y, ours, {"other": theirs}, seed=trial)["other"].outcome)
    assert called.count("better") + called.count("worse") <= 0.05 * 1000 + 2.6 * np.sqrt(1000 * 0.05 * 0.95)
    assert called.count("better") <= 50


def test_the_gains_interval_covers_the_truth(rng):
    covered = []
    for trial in range(1000):
        y = np.zeros(200)
        ours, theirs = rng.normal(size=200), 1.2 * rng.normal(size=200)
        gain = compare_values(y, ours, theirs, 1000, np.random.default_rng(trial)).gain
        covered.append(gain.low <= 0.2 * np.sqrt(2 / np.pi) <= gain.high)
    assert 0.93 <= np.mean(covered) <= 0.97


def test_the_p_value_is_that_of_scipys_permutation_test(rng):
    y, ours, theirs = np.zeros(12), rng.normal(size=12), 1.8 * rng.normal(size=12)
    nearer_by = np.abs(theirs) - np.abs(ours)
    exact = stats.permutation_test(
        (nearer_by,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    ).pvalue
    found = compare_values(y, ours, theirs, 100, rng).p_value
    assert found == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 10_000))


def test_the_verdict_says_by_how_much_the_error_is_smaller(rng):
    y = rng.normal(100, 20, 500)
    ours, theirs = y + rng.normal(0, 5, 500), y + rng.normal(0, 10, 500)
    found = compare(y, ours, {"tfidf": theirs}, seed=0)["tfidf"]
    assert (found.measure, found.outcome) == ("mae", "better")
    assert found.fixed > found.broken
    words = in_words("TF-IDF", found, 500)
    assert words.startswith("better than TF-IDF by ")
    assert " in mean absolute error (95 % CI " in words
    other = compare(y, theirs, {"ours": ours}, seed=0)["ours"]
    assert other.outcome == "worse"
    assert other.gain.value == pytest.approx(-found.gain.value)
    assert gain_in_words("mae", {"value": 0.0, "low": -0.25, "high": 0.75}) == "+0 (95 % CI -0.750 to +0.250)"
    nothing = {"value": -1e-5, "low": -0.01, "high": 0.01}
    assert gain_in_words("accuracy", nothing) == "+0.0 points (95 % CI -1.0 to +1.0)"
    assert gain_in_words("mae", {"value": 0.5, "low": 0.25, "high": 0.75}) == "-0.500 (95 % CI -0.750 to -0.250)"


def test_the_least_p_value_of_shuffles_is_told_as_a_bound(rng):
    y = rng.normal(size=400)
    found = compare(y, y, dict.fromkeys("abcd", y + 5), seed=0)["a"]
    assert in_words("it", found, 400).endswith("by chance less than once in 2,500")


def test_the_same_answers_are_not_told_apart(rng):
    y = rng.normal(size=50)
    found = compare(y, y + 1, {"same": y + 1}, seed=0)["same"]
    assert (found.outcome, found.p_value) == ("not distinguishable", 1.0)
    assert in_words("it", found, 50).endswith("both are equally near on every row")


def test_a_detectable_gain_is_found_four_times_in_five(rng):
    y = np.zeros(200)
    found = compare(y, rng.normal(size=200), {"other": rng.normal(size=200)}, seed=0)["other"]
    hits = 0
    for trial in range(200):
        ours, theirs = rng.normal(size=200), rng.normal(size=200)
        theirs += np.sign(theirs) * found.detectable  # every error is larger by so much
        hits += compare(y, ours, {"other": theirs}, seed=trial)["other"].outcome == "better"
    assert 0.7 <= hits / 200 <= 0.9


@pytest.mark.parametrize(
    ("required", "is_met"),
    [("mae<tfidf", True), ("mae<=tfidf", True), ("mae>tfidf", False), ("mae<0.9", True), ("rmse<tfidf", True)],
)
def test_a_gate_wants_an_error_to_be_small(required, is_met, rng):
    y = rng.normal(size=400)
    ours, theirs = y + 0.5 * rng.normal(size=400), y + rng.normal(size=400)
    (parsed,) = parse([required], ["tfidf"])
    why = shortfall(parsed, y, given(ours), {"tfidf": given(theirs)}, seed=0)
    assert (why == "") == is_met, why


def given(answers):
    return baselines.Answer(answers[:, None], 1, answers=answers)


def test_differences_of_grades_can_be_required(rng):
    y = rng.integers(0, 5, 400)
    ours, theirs = np.clip(y + rng.integers(-1, 2, 400), 0, 4), rng.integers(0, 5, 400)
    sides = [baselines.Answer(np.eye(5)[each], 1, answers=each) for each in (ours, theirs)]
    (parsed,) = parse(["qwk>tfidf"], ["tfidf"])
    assert shortfall(parsed, y, sides[0], {"tfidf": sides[1]}, seed=0) == ""
    assert shortfall(parsed, y, sides[1], {"tfidf": sides[0]}, seed=0).startswith("the difference is -")
    difference = paired_difference_of("qwk", y, *((side.proba, side.answers) for side in sides), seed=0)
    assert difference.low > 0


# ---- intervals around answers


def test_intervals_hold_the_label_as_often_as_they_say(rng):
    held = []
    for _ in range(1000):
        errors = rng.standard_t(2, 100)
        width = interval_half_width(np.zeros(99), errors[:99], 0.9)
        held.append(abs(errors[99]) <= width)
    assert 0.87 <= np.mean(held) <= 0.93


def test_the_half_width_is_the_error_of_the_right_rank():
    assert interval_half_width(np.zeros(9), np.arange(1.0, 10), 0.9) == 9
    assert interval_half_width(np.zeros(19), np.arange(1.0, 20), 0.9) == 18
    assert interval_half_width(np.zeros(8), np.arange(1.0, 9), 0.9) is None


def test_dev_rows_give_numbers_an_interval_in_their_unit(rng):
    y = rng.normal(50, 10, 200)
    logits = ((y - 50) / 10 + 0.1 * rng.normal(size=200))[:, None]
    found = calibrate(y, logits, EvidenceRecipe(), Scale(50, 10))
    assert (found.level, found.temperature, found.thresholds) == (0.9, 1.0, ())
    assert found.half_width == pytest.approx(1.645, abs=0.25)
    assert calibrate(y, logits, EvidenceRecipe(conformal=0.5), Scale(50, 10)).half_width < found.half_width / 2
    assert Calibration(scale=Scale(50, 10)).readout("regression").scale == Scale(50, 10)


# ---- slices and baselines


def test_the_worst_slice_is_the_one_that_is_furthest_off(rng):
    errors = np.abs(rng.normal(size=400))
    kind = ["web" if i % 4 else "shop" for i in range(400)]
    errors[::4] *= 3
    found = {each.value: each for each in slices(errors, {"column where": kind})}
    assert (found["shop"].outcome, found["web"].outcome) == ("worse", "better")
    assert found["shop"].p_value == pytest.approx(
        stats.ttest_ind(errors[::4], np.delete(errors, np.s_[::4]), equal_var=False).pvalue
    )
    assert worst(list(found.values())).startswith("column where shop: off by 2.")
    same = slices(np.ones(40), {"column where": ["a", "b"] * 20})
    assert {each.outcome for each in same} == {"not distinguishable"}


def test_numbers_are_parts_of_their_own_where_there_are_few(rng):
    assert by_number(np.array([1.0, 2.5, 1.0])) == ["1", "2.5", "1"]
    large = np.repeat([1_234_567, 15, 1_234_568, 2e22, 1e-7], 12)
    assert [each.value for each in slices(np.arange(60.0), {"label": by_number(large)})] == [
        *("1e-07", "15", "1234567", "1234568", "2e+22")
    ]
    y = rng.normal(size=400)
    parts = by_number(y)
    assert len(set(parts)) == 4
    assert all(parts.count(part) == 100 for part in set(parts))
    low, high = parts[int(y.argmin())].split(" to ")
    assert float(low) == pytest.approx(y.min(), abs=1e-4)
    assert float(high) < np.median(y)


def test_baselines_learn_numbers(rng):
    words = ["awful", "poor", "fair", "good", "lovely"]
    grades = rng.integers(0, 5, 600)
    texts = [f"the {words[g]} lamp number {i}" for i, g in enumerate(grades)]
    y = 10.0 * grades + 100
    lesson = Lesson(texts[:400], y[:400], texts[400:500], y[400:500], texts[500:], 1)
    seen = np.eye(5)[grades] + 0.01 * rng.normal(size=(600, 5))
    lesson = Lesson(
        *(texts[:400], y[:400], texts[400:500], y[400:500], texts[500:], 1),
        Embeddings(seen[:200], y[:200], np.arange(200), seen[500:]),
    )
    told = []
    found = baselines.answer(["majority", "tfidf", "probe"], lesson, seed=0, tell=told.append)
    off = {name: float(np.abs(each.answers - y[500:]).mean()) for name, each in found.items()}
    assert found["majority"].answers == pytest.approx(np.full(100, np.median(y[:400])))
    assert off["tfidf"] < 3 < off["majority"]
    assert off["probe"] < 3
    assert all(each.proba.shape == (100, 1) for each in found.values())
    assert [each.what for each in told] == ["the median", "TF-IDF + ridge regression", "the frozen-embedding probe"]
    assert set(found["tfidf"].chosen) == {"alpha"}


# ---- the doctor, and how numbers are written


def test_the_doctor_does_not_look_for_classes_among_numbers(tmp_path):
    path = tmp_path / "rows.csv"
    lines = [f"a text about the number {i} of things,{i / 7:.3f}" for i in range(200)]
    path.write_text("\n".join(["text,score", *lines, lines[0]]))
    diagnosis, _ = examine(admit(str(path)))
    assert {each.check for each in diagnosis.findings} >= {"duplicates"}
    assert not {"rare_classes", "label_twins", "giveaway_token"} & {each.check for each in diagnosis.findings}
    for name in ("rare_classes", "label_twins", "label_errors", "giveaway_column"):
        assert diagnosis.left_out[name] == "labels are numbers"


def test_the_doctor_finds_labels_that_are_no_numbers_and_those_far_from_all_others(tmp_path):
    path, other = tmp_path / "rows.csv", tmp_path / "test.csv"
    lines = [f"a text about the number {i} of things,{i / 7:.3f}" for i in range(200)]
    lines[3], lines[50], lines[60] = "one text,NaN", "two texts,1e15", "three texts,99999"
    path.write_text("\n".join(["text,score", *lines]))
    other.write_text("text,score\nanother text altogether,good\n")
    diagnosis = check(path, test=other, task="regression", model=None)
    found = {each.check: each for each in diagnosis.findings}
    assert (found["not_numbers"].severity, found["not_numbers"].count) == ("error", 3)
    assert found["not_numbers"].rows == {"train": [3, 50], "test": [0]}
    assert found["far_numbers"].rows == {"train": [60]}
    assert "98 % lie in" in found["far_numbers"].what
    as_classes = check(path, label="score", model=None, task="single_label")
    assert not {"not_numbers", "far_numbers"} & {each.check for each in as_classes.findings}


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.0, "0"),
        (0.051239, "0.0512"),
        (1.0, "1.00"),
        (1234.5, "1,234"),
        (-2.5e-12, "-2.50e-12"),
        (9.996, "10.00"),
        (1e9, "1,000,000,000"),
    ],
)
def test_numbers_of_any_size_are_written_by_the_figures_that_count(value, written):
    assert figures(value) == written
