"""A whole run on labels that are numbers, another on grades, and their classifiers in use."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lightune
from lightune.artifact.contract import read_contract
from lightune.cli import main
from lightune.errors import UserError
from lightune.journal import Journal
from lightune.report.pictures import figure
from lightune.reporting import make_report
from lightune.use.classifier import NumberPrediction
from lightune.use.explaining import explain_texts
from lightune.use.files import evaluate_file, predict_file
from tests.conftest import PLACES, TINY_SETTINGS
from tests.tiny import EXAMPLES

SCHEMA = Path(lightune.__file__).parent / "schemas" / "results.schema.json"
PRICES = {0: 20.0, 1: 80.0, 2: 50.0}  # about what a text's opinion is worth


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A CSV of texts with an opinion, bad, good or between, a price by it that is never the same, and a grade."""
    path = tmp_path_factory.mktemp("numbers") / "prices.csv"
    rng = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "price", "stars", "shop"])
        for place in PLACES[:6]:
            for text, opinion in EXAMPLES[3]:
                price = PRICES[opinion] + rng.normal(0, 3)
                writer.writerow([f"{text} {place}", f"{price:.2f}", {0: 1, 1: 5, 2: 3}[opinion], place])
    return path


def train(rows, tiny_bert, output, *more, **options):
    settings = [
        f'model="{tiny_bert}"',
        *TINY_SETTINGS,
        "data.dev_rows=40",
        "train.epochs=12",
        "train.learning_rate=5e-3",
        *more,
    ]
    options = {"label": "price"} | options
    return lightune.run(str(rows), settings=settings, output=str(output), journal=Journal(io.StringIO()), **options)


@pytest.fixture(scope="module")
def priced(rows, tiny_bert, tmp_path_factory):
    return train(rows, tiny_bert, tmp_path_factory.mktemp("runs") / "priced")


def test_it_learns_numbers_and_says_by_how_much_it_is_off(priced):
    results = priced.results
    jsonschema.validate(results, json.loads(SCHEMA.read_text()))
    assert (results["task"], results["labels"]) == ("regression", ["value"])
    assert results["after"]["mae"]["value"] < 8 < results["before"]["mae"]["value"]
    assert results["after"]["spearman"]["low"] > 0.6
    assert results["before"]["mae"]["value"] < 40  # an untuned head answers about the mean, in the label's unit
    assert {each["title"] for each in results["baselines"].values()} == {
        *("the median", "TF-IDF + ridge regression", "the frozen-embedding probe")
    }
    assert all(each["measure"] == "mae" for each in results["comparisons"].values())
    assert results["comparisons"]["before"]["outcome"] == "better"
    assert set(results["dev_curve"][0]) == {"step", "epoch", "mae", "loss"}
    assert results["dev_curve"][-1]["mae"] < 10
    assert results["calibration"] is None
    assert results["intervals"]["level"] == 0.9
    assert sum(map(sum, results["answers"]["after"]["counts"])) == results["n_test"]
    assert {each["kind"] for each in results["slices"]} >= {"label", "length"}


def test_stored_answers_give_the_scores(priced):
    table = pq.read_table(Path(priced.folder) / "predictions.parquet").to_pandas()
    assert not [name for name in table if name.startswith("p_")]
    errors = (table["after"] - table["label"]).abs()
    assert errors.mean() == pytest.approx(priced.results["after"]["mae"]["value"])
    inside = (errors <= priced.results["intervals"]["half_width"]).mean()
    assert inside == priced.results["intervals"]["covered"]["value"]
    off = (table["tfidf"] - table["label"]).abs().mean()
    assert off == pytest.approx(priced.results["baselines"]["tfidf"]["scores"]["mae"]["value"])


def test_the_classifier_answers_in_the_labels_unit_with_an_interval(priced):
    classifier = lightune.Classifier.load(priced.folder)
    cheap, dear = classifier.predict(["the lamp is awful here", "the lamp is lovely here"])
    assert isinstance(cheap, NumberPrediction)
    assert (cheap.value, dear.value) == (pytest.approx(20, abs=12), pytest.approx(80, abs=12))
    width = read_contract(Path(priced.folder) / "adapter").interval.half_width
    assert (cheap.low, cheap.high) == (pytest.approx(cheap.value - width), pytest.approx(cheap.value + width))
    with pytest.raises(UserError, match="which have no probabilities"):
        classifier.predict_proba(["the lamp is awful here"])


def test_words_are_weighed_in_the_labels_unit(priced):
    classifier = lightune.Classifier.load(priced.folder)
    (found,) = classifier.explain(["the lamp is awful here"])
    strongest = min(found.words, key=lambda word: word.weight or 0)
    assert found.text[strongest.start : strongest.end] == "awful"
    assert found.log_odds == pytest.approx(found.prediction.value, abs=1e-3)
    assert found.blank + sum(word.weight or 0 for word in found.words) + found.gap == pytest.approx(found.log_odds)
    told = io.StringIO()
    explain_texts(priced.folder, ["the lamp is awful here"], journal=Journal(told))
    assert "for less: awful -" in told.getvalue()
    assert "log-odds" not in told.getvalue()
    with pytest.raises(UserError, match="label 3: this classifier answers in numbers"):
        classifier.explain(["the lamp"], 3)
    with pytest.raises(UserError, match="label 'positive': this classifier answers in numbers"):
        classifier.explain(["the lamp"], "positive")


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # PEFT asks for it
def test_transformers_alone_gives_the_same_numbers_by_the_cards_formula(priced, tiny_bert):
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    adapter = Path(priced.folder) / "adapter"
    card = (adapter / "README.md").read_text()
    assert card.count('problem_type="regression"') == 1
    assert "# Text regression model on" in card
    scale = read_contract(adapter).scale
    assert f"the number is {scale.mean!r} + {scale.deviation!r} * score" in card
    options = {"num_labels": 1, "id2label": {0: "value"}, "problem_type": "regression"}
    base = AutoModelForSequenceClassification.from_pretrained(tiny_bert, **options)
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    classify = pipeline("text-classification", model=PeftModel.from_pretrained(base, adapter), tokenizer=tokenizer)
    (found,) = classify(["the lamp is awful"])
    own = lightune.Classifier.load(priced.folder).predict(["the lamp is awful"])[0].value
    assert scale.mean + scale.deviation * found["score"] == pytest.approx(own, abs=1e-2)


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_files_get_numbers_beside_their_rows(ending, priced, rows, tmp_path):
    output = tmp_path / f"answers.{ending}"
    predict_file(priced.folder, str(rows), str(output))
    if ending == "csv":
        with output.open(newline="") as file:
            answers = list(csv.DictReader(file))
    else:
        read = {"parquet": lambda: pq.read_table(output).to_pylist(), "jsonl": lambda: _lines(output)}
        answers = read[ending]()
    assert [*answers[0]] == ["text", "price", "stars", "shop", "value", "low", "high"]
    errors = [abs(float(row["value"]) - float(row["price"])) for row in answers]
    scored = evaluate_file(priced.folder, str(rows), journal=Journal(io.StringIO()))
    assert scored["scores"]["mae"]["value"] == pytest.approx(np.mean(errors), abs=1e-6)
    inside = [float(row["low"]) <= float(row["price"]) <= float(row["high"]) for row in answers]
    assert scored["intervals"]["covered"]["value"] == pytest.approx(np.mean(inside))
    assert scored["goal"] is None
    assert all(float(row["low"]) < float(row["value"]) < float(row["high"]) for row in answers)


def _lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_report_and_the_picture_speak_of_numbers(priced, rows, tmp_path):
    page = (Path(priced.folder) / "report.html").read_text()
    for told in (
        *(
            "Answers and labels",
            "Furthest off, perhaps wrong labels",
            "in mean absolute error",
            "Intervals of level 0.9",
        ),
        *("rows it is nearer on", "none: the labels are numbers", "Mean absolute error in parts of the test rows"),
    ):
        assert told in page, told
    for untold in ("Confusion", "Brier", "accuracy", "probability"):
        assert untold not in page.rsplit("How to make it again", 1)[0], untold
    drawn = figure(priced.results)
    assert {"answers_before", "answers_after", "scores"} <= {axes.get_gid() for axes in drawn.axes}
    make_report(priced.folder, show_texts=True, explain=2, output=tmp_path / "texts.html")
    texts = (tmp_path / "texts.html").read_text()
    assert "For more: " in texts
    assert "made the answer after tuning larger" in texts
    assert "log-odds" not in texts
    assert "kettle" in texts


def test_small_numbers_are_nowhere_written_as_zero(rows, tiny_bert, tmp_path):
    path = tmp_path / "small.csv"
    with rows.open(newline="") as file, path.open("w", newline="") as small:
        writer = csv.writer(small)
        writer.writerow(["text", "price"])
        writer.writerows([row["text"], f"{float(row['price']) / 1e6:.9f}"] for row in csv.DictReader(file))
    told = io.StringIO()
    settings = [f'model="{tiny_bert}"', *TINY_SETTINGS, "data.dev_rows=40", "seeds=2"]
    made = lightune.run(
        str(path), label="price", settings=settings, output=str(tmp_path / "run"), journal=Journal(told)
    )
    evaluate_file(made.folder, str(path), journal=Journal(told))
    lines = [line for line in told.getvalue().splitlines() if "mae" in line or "ridge" in line]
    assert len(lines) > 8
    assert not [line for line in lines if re.search(r"\b0\.0+\b(?! s)", line)]
    card = (tmp_path / "run" / "adapter" / "README.md").read_text()
    assert re.search(r"type: mae\n\s+value: [1-9.]+e-0\d", card)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "0.0000 on average" not in page


def test_a_metric_of_another_task_is_refused_before_the_work(rows, tiny_bert, tmp_path):
    for label, name in (("price", "accuracy"), ("stars", "f1_micro"), ("shop", "qwk")):
        told = io.StringIO()
        settings = [f'model="{tiny_bert}"', *TINY_SETTINGS, f'metrics=["{name}"]']
        with pytest.raises(UserError, match=f"metrics: '{name}' is no metric of a"):
            lightune.run(str(rows), label=label, settings=settings, output=str(tmp_path / "a"), journal=Journal(told))
        assert "Loading the model" not in told.getvalue()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda table: table.slice(0, 5), r"holds 5 rows, results\.json tells of \d+"),
        (lambda table: table.drop_columns(["row"]), r"lacks the columns \['row'\]"),
        (
            lambda table: table.set_column(3, "after", pa.array([float("nan")] * len(table))),
            "answers that are no numbers",
        ),
    ],
)
def test_damaged_answers_are_refused(damage, message, priced, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(priced.folder, copy)
    pq.write_table(damage(pq.read_table(copy / "predictions.parquet")), copy / "predictions.parquet")
    with pytest.raises(UserError, match=message):
        make_report(copy)


def test_texts_and_a_second_run_may_come_after_options(priced, capsys, tmp_path):
    assert main(["explain", priced.folder, "--device", "cpu", "the lamp is awful here"]) == 0
    assert "for less: awful" in capsys.readouterr().out
    page = str(tmp_path / "both.html")
    assert main(["report", priced.folder, "-o", page, priced.folder]) == 0
    assert "(second)" in Path(page).read_text()
    with pytest.raises(SystemExit):
        main(["evaluate", priced.folder, "--data", "a.csv", "more.csv"])
    with pytest.raises(SystemExit):
        main(["report", priced.folder, "-o", page, priced.folder, priced.folder])


def test_labels_of_another_kind_are_named(priced, tmp_path):
    path = tmp_path / "words.jsonl"
    path.write_text("\n".join(json.dumps({"text": f"a text {i}", "price": "good"}) for i in range(9)))
    with pytest.raises(UserError, match="holds what is no number to learn: 'good' in 9 rows"):
        evaluate_file(priced.folder, str(path), journal=Journal(io.StringIO()))
    path.write_text("\n".join(json.dumps({"text": f"a text {i}", "price": ["good"]}) for i in range(9)))
    with pytest.raises(UserError, match="holds several labels a row; this classifier was trained on one each"):
        evaluate_file(priced.folder, str(path), journal=Journal(io.StringIO()))


def test_grades_and_numbers_share_no_error(priced, rows, tiny_bert, tmp_path):
    other = train(rows, tiny_bert, tmp_path / "run", 'data.task="ordinal"', "train.epochs=1", label="stars")
    make_report(priced.folder, other.folder, output=tmp_path / "both.html")
    page = (tmp_path / "both.html").read_text()
    assert "their labels are of different kinds" in page
    assert "MAE" not in page


def test_two_runs_are_compared_by_their_errors(priced, rows, tiny_bert, tmp_path):
    other = train(rows, tiny_bert, tmp_path / "other", "train.epochs=0", no_baselines=True)
    found = make_report(priced.folder, other.folder, output=tmp_path / "both.html")
    assert (found["comparison"]["measure"], found["comparison"]["outcome"]) == ("mae", "better")
    assert "is nearer: " in (tmp_path / "both.html").read_text()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (['evidence.goal="precision >= 0.9"'], "numbers are not right or wrong"),
        (['evidence.require=["accuracy>0.5"]'], "accuracy is no metric of a regression task"),
        (['train.balance="weights"'], "numbers have no classes that could count alike"),
        (['train.loss="focal"'], "not for labels that are numbers. There are squared_error, absolute_error"),
    ],
)
def test_what_only_classes_can_have_is_refused(more, message, rows, tiny_bert, tmp_path):
    with pytest.raises(UserError, match=message):
        train(rows, tiny_bert, tmp_path / "run", *more)


def test_a_loss_of_numbers_is_refused_for_classes(rows, tiny_bert, tmp_path):
    with pytest.raises(UserError, match=r"not for labels that are classes\. There are cross_entropy, focal"):
        train(rows, tiny_bert, tmp_path / "run", 'train.loss="squared_error"', label="stars")


def test_the_other_loss_a_gate_and_a_given_level_are_obeyed(rows, tiny_bert, tmp_path):
    more = ['train.loss="absolute_error"', "evidence.conformal=0.8", 'evidence.require=["mae<tfidf", "mae<=before"]']
    with pytest.raises(lightune.errors.GateError, match="mae<tfidf"):  # words alone say the price here
        train(rows, tiny_bert, tmp_path / "run", *more)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [each["passed"] for each in results["requirements"]] == [False, True]
    assert read_contract(tmp_path / "run" / "adapter").interval.level == 0.8
    assert results["recipe"]["train"]["loss"] == "absolute_error"


def test_grades_are_classes_that_are_scored_by_their_distance_too(rows, tiny_bert, tmp_path):
    found = train(rows, tiny_bert, tmp_path / "run", 'data.task="ordinal"', label="stars")
    results = found.results
    jsonschema.validate(results, json.loads(SCHEMA.read_text()))
    assert (results["task"], results["labels"]) == ("ordinal", ["1", "3", "5"])
    assert results["after"]["qwk"]["value"] > 0.8 > results["before"]["qwk"]["value"]
    confusion = np.array(results["confusion"]["after"])
    off = (confusion * abs(np.subtract.outer(range(3), range(3)))).sum() / confusion.sum()
    assert results["after"]["mae"]["value"] == pytest.approx(off)
    assert "qwk" in results["baselines"]["tfidf"]["scores"]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "weighted kappa" in page
    assert "3, in this order: 1, 3, 5" in page
    assert lightune.Classifier.load(found.folder).predict(["the lamp is awful"])[0].label == "1"
    assert evaluate_file(found.folder, str(rows), journal=Journal(io.StringIO()))["scores"]["qwk"]["value"] > 0.8
