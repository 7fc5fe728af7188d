"""A whole run on rows with several labels, on a tiny model, and its classifier in use."""

from __future__ import annotations

import copy
import csv
import io
import json
from pathlib import Path

import jsonschema
import numpy as np
import pyarrow.parquet as pq
import pytest
from matplotlib.text import Text

import lightune
from lightune.artifact.contract import read_contract
from lightune.artifact.finished import read_finished
from lightune.doctor.examine import examine
from lightune.doctor.patient import admit
from lightune.errors import UserError
from lightune.evidence.decisions import f1_micro
from lightune.journal import Journal
from lightune.report.pictures import figure
from lightune.reporting import make_report
from lightune.use.files import evaluate_file, predict_file
from tests.conftest import PLACES, TINY_SETTINGS
from tests.tiny import EXAMPLES

SCHEMA = Path(lightune.__file__).parent / "schemas" / "results.schema.json"


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """JSON Lines of texts with an opinion or two: bad, good, both or none."""
    path = tmp_path_factory.mktemp("several") / "opinions.jsonl"
    bad, good = ([text for text, y in EXAMPLES[2] if y == label] for label in (0, 1))
    lines = []
    for place in PLACES[:5]:
        lines += [{"text": f"{text} {place}", "labels": ["bad"]} for text in bad]
        lines += [{"text": f"{text} {place}", "labels": ["good"]} for text in good]
        lines += [
            {"text": f"{one} , {two} {place}", "labels": ["good", "bad"]} for one, two in zip(bad, good, strict=True)
        ]
        lines += [{"text": f"the lamp a chair {place} {i}", "labels": []} for i in range(8)]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def train(rows, tiny_bert, output, *more, **options):
    settings = [f'model="{tiny_bert}"', *TINY_SETTINGS, "data.dev_rows=40", "train.epochs=8", *more]
    return lightune.run(str(rows), settings=settings, output=str(output), journal=Journal(io.StringIO()), **options)


@pytest.fixture(scope="module")
def several(rows, tiny_bert, tmp_path_factory):
    return train(rows, tiny_bert, tmp_path_factory.mktemp("runs") / "several")


def test_it_learns_each_label_and_says_what_it_is(several):
    results = several.results
    jsonschema.validate(results, json.loads(SCHEMA.read_text()))
    assert (results["task"], results["labels"]) == ("multi_label", ["bad", "good"])
    assert results["after"]["f1_micro"]["value"] > 0.9 > results["before"]["f1_micro"]["value"]
    assert set(results["baselines"]) == {"majority", "tfidf", "probe"}
    assert all(each["measure"] == "f1_micro" for each in results["comparisons"].values())
    assert [each["label"] for each in results["by_label"]] == ["bad", "good"]
    assert set(results["dev_curve"][0]) == {"step", "epoch", "f1_micro", "loss"}


def test_stored_answers_are_label_sets_that_give_the_scores(several):
    table = pq.read_table(Path(several.folder) / "predictions.parquet").to_pandas()
    assert set(table["label"]) <= {"bad", "good", "bad|good", "(no label)"}
    flags = {
        key: np.array([[name in cell for name in ("bad", "good")] for cell in table[key]])
        for key in ("label", "after")
    }
    assert f1_micro(flags["label"].astype(int), flags["after"]) == pytest.approx(
        several.results["after"]["f1_micro"]["value"]
    )
    given = table[["p_bad", "p_good"]].to_numpy() >= read_contract(Path(several.folder) / "adapter").thresholds
    assert (given == flags["after"]).all()
    by_label = several.results["by_label"][0]
    assert by_label["n"] == flags["label"][:, 0].sum()
    assert by_label["precision"] == pytest.approx(flags["label"][flags["after"][:, 0], 0].mean())


def test_the_classifier_gives_the_labels_that_its_thresholds_say(several):
    classifier = lightune.Classifier.load(several.folder)
    both, bad, none = classifier.predict(
        ["an awful kettle , i think , a lovely kettle", "the lamp is awful", "the lamp a chair"]
    )
    assert sorted(both.label_set) == ["bad", "good"]
    assert (bad.label_set, bad.label) == (["bad"], "bad")
    assert (none.label_set, none.label) == ([], None)
    assert bad.score == bad.probabilities["bad"]
    assert sum(both.probabilities.values()) > 1  # each label by itself
    (found,) = classifier.explain(["the lamp is awful here"], "bad")
    strongest = max(found.words, key=lambda word: word.weight or 0)
    assert found.text[strongest.start : strongest.end] == "awful"


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # PEFT asks for it
def test_transformers_alone_gives_the_same_probabilities(several, tiny_bert):
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    adapter = Path(several.folder) / "adapter"
    assert 'problem_type="multi_label_classification"' in (adapter / "README.md").read_text()
    options = {"num_labels": 2, "id2label": {0: "bad", 1: "good"}, "problem_type": "multi_label_classification"}
    base = AutoModelForSequenceClassification.from_pretrained(tiny_bert, **options)
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    model = PeftModel.from_pretrained(base, adapter)
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer, top_k=None)
    (scores,) = classify(["the lamp is awful"])
    classifier = lightune.Classifier.load(several.folder)
    own = np.array([classifier.predict(["the lamp is awful"])[0].probabilities[name] for name in ("bad", "good")])
    logits = np.log(own / (1 - own)) * classifier.contract.temperature  # a pipeline knows no temperature
    found = {each["label"]: each["score"] for each in scores}
    assert [found["bad"], found["good"]] == pytest.approx(1 / (1 + np.exp(-logits)), abs=1e-5)


def test_files_are_labelled_and_scored(several, rows, tmp_path):
    output = tmp_path / "answers.csv"
    predict_file(several.folder, str(rows), str(output))
    with output.open(newline="") as file:
        answers = list(csv.DictReader(file))
    assert set(answers[0]) == {"text", "labels", "label", "score", "label_set", "p_bad", "p_good"}
    told = [sorted(json.loads(row["label_set"])) == sorted(json.loads(row["labels"])) for row in answers]
    assert np.mean(told) > 0.8
    scored = evaluate_file(several.folder, str(rows), journal=Journal(io.StringIO()))
    assert scored["scores"]["accuracy"]["value"] == pytest.approx(np.mean(told))
    assert scored["task"] == "multi_label"


def test_the_report_and_the_picture_show_each_label(several):
    page = (Path(several.folder) / "report.html").read_text()
    for told in (
        "Each label by itself",
        "rows that have it",
        "F1 micro",
        "points of F1",
        "every label of a row right",
    ):
        assert told in page, told
    assert (Path(several.folder) / "results.png").stat().st_size > 10_000


def test_an_answer_is_as_sure_as_its_least_sure_label(several):
    predictions = read_finished(several.folder).predictions
    table = pq.read_table(Path(several.folder) / "predictions.parquet").to_pandas()
    for place in (0, 1, 2):
        row = table.iloc[place]
        sure = [row[f"p_{name}"] if name in row["after"] else 1 - row[f"p_{name}"] for name in ("bad", "good")]
        assert predictions.confidence[place] == pytest.approx(min(sure))


def test_the_picture_holds_the_baselines_against_f1(several):
    results = copy.deepcopy(several.results)
    scores = results["baselines"]["tfidf"]["scores"]
    scores["f1_micro"]["value"], scores["accuracy"]["value"] = 0.9123, 0.8765
    drawn = figure(results)
    told = {text.get_text() for text in drawn.findobj(Text)}
    assert "0.912" in told
    assert not {"0.876", "0.877"} & told
    assert {"labels", "labels_more"} <= {axes.get_gid() for axes in drawn.axes}


def test_two_runs_are_compared_by_f1(several, rows, tiny_bert, tmp_path):
    other = train(rows, tiny_bert, tmp_path / "other", "train.epochs=0", no_baselines=True)
    found = make_report(several.folder, other.folder, output=tmp_path / "both.html")
    assert (found["comparison"]["measure"], found["comparison"]["outcome"]) == ("f1_micro", "better")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["evidence.conformal=0.9"], "answers of several labels a row are sets already"),
        (['evidence.goal="accuracy >= 0.9"'], r"each has its own; write precision >= 0\.9"),
        (['evidence.require=["f1_weighted>0.5"]'], "f1_weighted is no metric of a multi_label task"),
        (['train.balance="weights"'], "of several labels a row none can come alone"),
        (['data.task="single_label"'], "'labels' holds several labels a row"),
    ],
)
def test_what_only_one_label_a_row_can_have_is_refused(more, message, rows, tiny_bert, tmp_path):
    with pytest.raises(UserError, match=message):
        train(rows, tiny_bert, tmp_path / "run", *more)


def test_a_goal_of_precision_sets_the_threshold_of_each_label(rows, tiny_bert, tmp_path):
    found = train(rows, tiny_bert, tmp_path / "run", 'evidence.goal="precision >= 0.95"', no_baselines=True)
    goal = found.results["calibration"]["goal"]
    assert goal["what"] == "precision >= 0.95"
    assert list(goal["thresholds"].values()) == read_contract(tmp_path / "run" / "adapter").abstention.thresholds
    assert all(score is None or score["high"] >= 0.95 for score in goal["reached"].values())
    assert found.results["after"]["f1_micro"]["value"] > 0.9  # scores and verdict are without it
    classifier = lightune.Classifier.load(found.folder)
    least = classifier.contract.abstention.thresholds
    for each in classifier.predict(["the lamp is awful here", "a useful kettle , i think again"]):
        told = zip(each.probabilities.items(), least, strict=True)
        assert sorted(each.label_set) == [name for (name, p), t in told if t is not None and p >= t]
    told = io.StringIO()
    scored = evaluate_file(found.folder, str(rows), journal=Journal(told))
    assert scored["goal"]["thresholds"] == goal["thresholds"]
    assert "precision >= 0.95: " in told.getvalue()
    assert "% of the rows get a label" in told.getvalue()


def test_several_columns_of_0_and_1_are_labels(rows, tiny_bert, tmp_path):
    path = tmp_path / "flags.csv"
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "bad", "good"])
        writer.writerows(
            [each["text"], int("bad" in each["labels"]), int("good" in each["labels"])] for each in lines
        )
    found = train(path, tiny_bert, tmp_path / "run", label="bad,good", no_baselines=True)
    assert found.results["labels"] == ["bad", "good"]
    assert found.results["after"]["f1_micro"]["value"] > 0.9
    assert read_contract(tmp_path / "run" / "adapter").label == "bad,good"
    scored = evaluate_file(found.folder, str(path), journal=Journal(io.StringIO()))
    assert scored["scores"]["f1_micro"]["value"] > 0.9


def test_the_doctor_looks_at_labels_not_at_sets_of_them(tmp_path):
    path = tmp_path / "rows.jsonl"
    sets = [["happy"], ["happy", "sad"], ["sad"], ["Sad"], []]
    rows = [{"text": f"text number {i} of some words", "tags": sets[i % 4 if i % 40 else 3]} for i in range(400)]
    rows += [{"text": f"rare text {i}", "tags": ["happy", "angry"]} for i in range(3)]
    path.write_text("\n".join(map(json.dumps, rows)))
    diagnosis, _ = examine(admit(str(path)))
    found = {each.check: each for each in diagnosis.findings}
    assert "'Sad'" in found["label_twins"].what
    assert found["label_twins"].fix is None
    assert found["rare_classes"].what == "1 of 4 classes have fewer than 10 training rows: 'angry' (3)"
    assert diagnosis.left_out["label_errors"] == diagnosis.left_out["giveaway_token"] == "rows have several labels"
