"""A finished run in use: the same answers whichever way it is loaded, rows kept as they came."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from peft import PeftModel

import lightune
from lightune.artifact.contract import read_contract, seal_of
from lightune.data.columns import TextColumns
from lightune.data.sources import Options
from lightune.errors import GateError, UserError
from lightune.evidence.metrics import HEADLINE
from lightune.hardware import choose_hardware
from lightune.journal import Journal
from lightune.libraries import is_offline, network_off, settle_libraries
from lightune.model import adapters
from lightune.model.backbones import locate
from lightune.model.engine import PLAIN
from lightune.model.projections import can_pack
from lightune.records import Decision
from lightune.report.card import write_card
from lightune.use.files import evaluate_file, predict_file
from lightune.use.inputs import open_input
from tests import tiny
from tests.conftest import TINY_SETTINGS

TEXTS = ["the lamp is lovely", "a useless kettle , i think", "", "my new chair feels very quick today " * 20]


@pytest.fixture(scope="module")
def classifier(tiny_run):
    return lightune.Classifier.load(tiny_run.folder)


def test_predictions_are_names_and_probabilities(classifier):
    first, second, *_ = classifier.predict(TEXTS)
    assert (first.label, second.label) == ("positive", "negative")
    assert first.score == max(first.probabilities.values())
    assert sum(first.probabilities.values()) == pytest.approx(1)


def test_a_batch_answers_like_one_text_at_a_time(classifier):
    together = classifier.predict_proba(TEXTS)
    alone = np.concatenate([classifier.predict_proba([text]) for text in TEXTS])
    assert np.allclose(together, alone, atol=1e-6)


def test_a_merge_that_changes_the_answers_is_not_used(tiny_run, monkeypatch):
    merge = adapters.merge

    def changed(model):
        merged = merge(model)
        merged.classifier.bias.data[0] += 1
        return merged

    expected = lightune.Classifier.load(tiny_run.folder, merge=False).predict_proba(TEXTS)
    monkeypatch.setattr(adapters, "merge", changed)
    classifier = lightune.Classifier.load(tiny_run.folder)
    assert np.allclose(classifier.predict_proba(TEXTS), expected, atol=1e-6)
    assert {each.what: each.choice for each in classifier.decisions}["adapter"] == "not merged"
    assert isinstance(classifier.model, PeftModel)


def test_the_precision_of_a_classifier_is_told_with_its_reason(tiny_run, monkeypatch):
    machine = choose_hardware("cpu", "bf16")  # one that is fast in bf16; the run was in fp32
    monkeypatch.setattr("lightune.use.classifier.choose_hardware", lambda device, precision: machine)
    told = {each.what: each for each in lightune.Classifier.load(tiny_run.folder).decisions}
    assert (told["precision"].choice, told["precision"].why) == ("fp32", "the run was in fp32")
    assert "optimizer" not in told


def test_a_network_that_short_texts_change_meets_none_when_it_is_loaded(tiny_run, monkeypatch):
    monkeypatch.setattr("lightune.use.classifier.is_sparse", lambda model: True)
    monkeypatch.setattr("lightune.use.classifier.predict_logits", None)
    lightune.Classifier.load(tiny_run.folder)


def test_a_loaded_classifier_has_its_weights_packed(tiny_run):
    classifier = lightune.Classifier.load(tiny_run.folder, precision="fp32")
    blocks = classifier.model.bert.encoder.layer
    assert [block.fast.up._packed is not None for block in blocks] == [can_pack(torch.float32)] * len(blocks)
    assert {each.what: each.choice for each in classifier.decisions}["blocks"] == "written out in fp32"


def test_a_network_without_a_fast_path_is_told_of(tiny_run, tmp_path, journal, monkeypatch):
    """By a file's predictions and by scores, as a run tells it."""
    plain = Decision("last block", PLAIN, "no fast path for OddLayer yet")
    monkeypatch.setattr("lightune.use.classifier.quicken", lambda model, precision: [plain])
    (tmp_path / "in.csv").write_text("text,sentiment\nthe lamp is lovely,positive\n")
    said: list[str] = []
    summary = predict_file(tiny_run.folder, str(tmp_path / "in.csv"), str(tmp_path / "out.csv"), say=said.append)
    assert said == summary["notes"] == ["last block: plain (no fast path for OddLayer yet)"]
    evaluate_file(tiny_run.folder, str(tmp_path / "in.csv"), journal=journal)
    assert plain in journal.decisions


def test_merged_and_unmerged_adapters_agree(tiny_run, classifier):
    unmerged = lightune.Classifier.load(tiny_run.folder, merge=False)
    assert np.allclose(unmerged.predict_proba(TEXTS), classifier.predict_proba(TEXTS), atol=1e-5)


def test_the_stored_predictions_are_reproduced(tiny_run, reviews, classifier):
    stored = pq.read_table(Path(tiny_run.folder) / "predictions.parquet").to_pylist()
    with reviews.open() as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    proba = classifier.predict_proba([texts[row["row"]] for row in stored])
    assert np.allclose(proba[:, 1], [row["p_positive"] for row in stored], atol=1e-5)


def test_loading_leaves_the_callers_random_numbers_alone(tiny_run):
    import torch

    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    lightune.Classifier.load(tiny_run.folder)
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("one string", r"predict\(\[text\]\)"),
        ([1], "text 0 is int"),
        (None, "list of texts and got NoneType"),
        ({"a"}, "list of texts and got set"),
        ({"text": ["a"]}, "list of texts and got dict"),
        (pa.table({"text": ["a"]}), "list of texts and got"),
        (["\ud800"], "half of a surrogate pair"),
    ],
)
def test_what_is_not_a_list_of_texts_is_refused(classifier, texts, message):
    with pytest.raises(UserError, match=message):
        classifier.predict(texts)


def test_any_sequence_of_texts_will_do(classifier):
    expected = classifier.predict(["lovely", "awful"])
    assert classifier.predict(text for text in ("lovely", "awful")) == expected
    assert classifier.predict(np.array(["lovely", "awful"])) == expected


def test_no_texts_give_no_predictions(classifier):
    assert classifier.predict([]) == []


def test_another_base_is_refused(tiny_run, tmp_path):
    from tests import tiny

    other = tiny.make("electra", tmp_path / "electra")
    with pytest.raises(UserError, match="was trained on"):
        lightune.Classifier.load(tiny_run.folder, base=str(other))


def rewrite(path: Path, **changes: object) -> None:
    """Another contract, with the seal that lightune would have given it."""
    values = json.loads(path.read_text()) | changes
    text = json.dumps(values | {"seal": seal_of(json.dumps(values))})
    path.write_text(text.replace('"Infinity"', "Infinity"))


def test_a_run_and_its_base_can_move_together(tiny_run, tiny_bert, tmp_path):
    adapter = tmp_path / "moved" / "run"
    shutil.copytree(tiny_run.folder, adapter)
    path = adapter / "adapter" / "contract.json"
    rewrite(path, base=json.loads(path.read_text())["base"] | {"beside": "nowhere", "name": "nowhere"})
    with pytest.raises(UserError, match="Give it with --base"):
        lightune.Classifier.load(adapter)
    assert lightune.Classifier.load(adapter, base=str(tiny_bert)).labels == ["negative", "positive"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "no such folder"),
        (lambda folder: folder.mkdir(), "no contract.json"),
        (lambda folder: (folder.mkdir(), (folder / "contract.json").write_text("{}")), "Field required"),
        (lambda folder: (folder.mkdir(), (folder / "contract.json").write_bytes(b"\xff\xfe")), "Invalid JSON"),
    ],
)
def test_what_is_no_run_is_refused(make, message, tmp_path):
    make(tmp_path / "run")
    with pytest.raises(UserError, match=message):
        lightune.Classifier.load(tmp_path / "run")


def rows_of(path: Path) -> list[dict[str, object]]:
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))


ROWS = [
    {"id": "007", "text": 'the lamp is "lovely", today', "label": "?"},
    {"id": "NA", "text": "awful", "label": ""},
]


def write(path: Path) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif ".jsonl" in path.name:
        path.write_text("\n".join(map(json.dumps, ROWS)) + "\n")
    else:
        with gzip.open(path, "wt", newline="") if path.suffix == ".gz" else path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["id", "text", "label"], delimiter="\t" if ".tsv" in path.name else ",")
            writer.writeheader()
            writer.writerows(ROWS)
    return path


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet", "csv.gz"])
@pytest.mark.parametrize("out", ["csv", "tsv", "jsonl", "parquet"])
def test_files_keep_their_columns_and_gain_answers(ending, out, tiny_run, classifier, tmp_path):
    answers = tmp_path / f"out.{out}"
    summary = predict_file(tiny_run.folder, str(write(tmp_path / f"in.{ending}")), str(answers))
    rows = rows_of(answers)
    assert summary["rows"] == len(rows) == 2
    assert [row["id"] for row in rows] == ["007", "NA"]
    assert [row["text"] for row in rows] == [row["text"] for row in ROWS]
    expected = classifier.predict([row["text"] for row in ROWS])
    assert [row["label"] for row in rows] == [prediction.label for prediction in expected]
    assert [row["input_label"] for row in rows] == ["?", ""]
    assert float(rows[0]["p_positive"]) == pytest.approx(1 - float(rows[0]["p_negative"]), abs=1e-5)


def test_a_failed_prediction_leaves_an_earlier_answer_alone(tiny_run, tmp_path):
    answers = tmp_path / "out.csv"
    answers.write_text("kept")
    ragged = tmp_path / "in.csv"
    ragged.write_text("text,id\nfine,1\nbroken\n")
    with pytest.raises(UserError, match=r"in\.csv:3: the row has 1 cells, the header 2.*--delimiter\."):
        predict_file(tiny_run.folder, str(ragged), str(answers))
    assert answers.read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]


def test_a_missing_column_is_named(tiny_run, tmp_path):
    (tmp_path / "in.csv").write_text("review,id\nfine,1\n")
    with pytest.raises(UserError, match="review"):
        predict_file(tiny_run.folder, str(tmp_path / "in.csv"), str(tmp_path / "out.csv"))


def test_an_unknown_ending_is_refused(tiny_run, reviews, tmp_path):
    with pytest.raises(UserError, match=r"cannot be written as \.xlsx. Use \.csv, \.tsv"):
        predict_file(tiny_run.folder, str(reviews), str(tmp_path / "out.xlsx"))


def run_card(run: str | Path, text: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The lines of a run's card that need no lightune, as they stand, on `text`."""
    card = (Path(run) / "adapter" / "README.md").read_text()
    lines = card.split("```python")[2].split("```")[0]
    assert "lightune" not in lines
    command = [sys.executable, "-W", "ignore", "-c", lines.replace("A text to classify.", text)]
    return subprocess.run(command, cwd=run, env=env, capture_output=True, text=True, check=False)


def test_the_cards_lines_load_the_adapter_without_lightune(tiny_run, classifier):
    """The card's code runs as it stands, in a process that has never imported lightune."""
    process = run_card(tiny_run.folder, TEXTS[0])
    assert process.returncode == 0, process.stderr[-2000:]
    expected = classifier.predict(TEXTS[:1])[0]
    assert expected.label in process.stdout
    assert f"{expected.score:.4f}"[:5] in process.stdout


@pytest.mark.parametrize(
    ("source", "revision", "shown"),
    [
        ("clients/acme_complaints.csv", None, "acme_complaints.csv"),
        ("/home/me/data/reviews.csv", None, "reviews.csv"),
        ("embedded:imdb", None, "embedded:imdb"),
        ("fancyzhx/amazon_polarity", "0123abc", "fancyzhx/amazon_polarity"),
    ],
)
def test_the_card_names_no_folder(source, revision, shown, tiny_run):
    results = tiny_run.results | {"data": tiny_run.results["data"] | {"source": source, "revision": revision}}
    contract = read_contract(Path(tiny_run.folder) / "adapter")
    assert f"rows of `{shown}`." in write_card(results, contract, is_peft=True)


def test_the_card_is_a_valid_hub_card(tiny_run):
    from huggingface_hub import ModelCard

    card = ModelCard.load(str(Path(tiny_run.folder) / "adapter" / "README.md"))
    assert card.data.library_name == "peft"
    assert card.data.pipeline_tag == "text-classification"
    found = {each.metric_type: each.metric_value for each in card.data.eval_results or []}
    scores = tiny_run.results["after"]
    assert found == {name: round(scores[name]["value"], 4) for name in HEADLINE if name in scores}
    assert f"expected error {tiny_run.results['calibration']['calibrated']['ece']['value']:.3f}" in str(card)


def test_no_rows_leave_an_earlier_answer_alone(tiny_run, tmp_path):
    (tmp_path / "in.csv").write_text("text\n")
    (tmp_path / "out.csv").write_text("kept")
    with pytest.raises(UserError, match="no rows, only the column names"):
        predict_file(tiny_run.folder, str(tmp_path / "in.csv"), str(tmp_path / "out.csv"))
    assert (tmp_path / "out.csv").read_text() == "kept"


def test_every_input_column_survives_whatever_its_name(tiny_run, tmp_path):
    (tmp_path / "in.csv").write_text("text,label,input_label\nlamp,TRUE,KEEP\n")
    predict_file(tiny_run.folder, str(tmp_path / "in.csv"), str(tmp_path / "out.csv"))
    row = rows_of(tmp_path / "out.csv")[0]
    assert (row["input_input_label"], row["input_label"]) == ("TRUE", "KEEP")


def test_damaged_input_is_one_message(tiny_run, tmp_path):
    whole = gzip.compress(b"text\n" + b"the lamp is lovely\n" * 999)
    (tmp_path / "in.csv.gz").write_bytes(whole[:-9])
    with pytest.raises(UserError, match=r"cut short|damaged|truncated"):
        predict_file(tiny_run.folder, str(tmp_path / "in.csv.gz"), str(tmp_path / "out.csv"))


def test_json_lines_keep_their_numbers_and_gain_a_missing_text(tiny_run, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"text": "lovely", "n": 1.25}\n\n{"n": 7, "new": [1, {"a": null}]}\n')
    summary = predict_file(tiny_run.folder, str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl"))
    first, second = rows_of(tmp_path / "out.jsonl")
    assert (first["n"], second["n"], second["new"]) == (1.25, 7, [1, {"a": None}])
    assert (summary["rows"], summary["empty"]) == (2, 1)


def test_a_json_array_is_read(tiny_run, tmp_path):
    (tmp_path / "in.json").write_text(json.dumps(ROWS))
    predict_file(tiny_run.folder, str(tmp_path / "in.json"), str(tmp_path / "out.parquet"))
    assert [row["id"] for row in rows_of(tmp_path / "out.parquet")] == ["007", "NA"]


def test_parquet_keeps_its_types(tiny_run, tmp_path):
    table = pa.table({"text": ["lovely", "awful"], "n": pa.array([1, None], pa.int16())})
    pq.write_table(table, tmp_path / "in.parquet")
    predict_file(tiny_run.folder, str(tmp_path / "in.parquet"), str(tmp_path / "out.parquet"))
    assert pq.read_table(tmp_path / "out.parquet").schema.field("n").type == pa.int16()


class Stdin:
    def __init__(self, content: bytes):
        self.buffer = io.BytesIO(content)


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (b"lovely, but slow\nawful\n", ["lovely, but slow", "awful"]),
        (b"text\nlovely\n", ["lovely"]),
        (b'id,text\n1,"so, lovely"\n', ["so, lovely"]),
        (b"\xef\xbb\xbfid\ttext\n1\tlovely\n", ["lovely"]),
        (b'{"text": "lovely"}\n{"text": "awful"}\n', ["lovely", "awful"]),
        (b'[\n{"text": "lovely"}]', ["lovely"]),
        (b"one line without an end", ["one line without an end"]),
        (b"long " * 30_000, ["long " * 30_000]),
        (b"good\rlamp\nbad\r\n", ["good\rlamp", "bad"]),
        (b"\n\ntext,id\nlovely,1\n", ["lovely"]),
        (b"{hello} there\n{bye}\n", ["{hello} there", "{bye}"]),
        (b'[ {"text": "lovely"},\n {"text": "awful"}]', ["lovely", "awful"]),
    ],
)
def test_standard_input_is_lines_unless_its_start_says_more(content, texts, tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Stdin(content))
    summary = predict_file(tiny_run.folder, "-", str(tmp_path / "out.jsonl"))
    assert [row["text"] for row in rows_of(tmp_path / "out.jsonl")] == texts
    (note,) = summary["notes"]
    assert ("read as one text a line" in note) == (b"text" not in content)
    assert ("with the columns" in note) == (b"text" in content)


def test_piped_parquet_is_a_table(tiny_run, tmp_path, monkeypatch):
    table = io.BytesIO()
    pq.write_table(pa.table({"text": ["lovely", "awful"], "n": [1, 2]}), table)
    monkeypatch.setattr(sys, "stdin", Stdin(table.getvalue()))
    predict_file(tiny_run.folder, "-", str(tmp_path / "out.csv"))
    assert [row["n"] for row in rows_of(tmp_path / "out.csv")] == ["1", "2"]


@pytest.mark.parametrize(
    ("content", "text", "message"),
    [
        (b"", None, "standard input: the file is empty"),
        (b"a,b\n1,2\n", "review", r"no header that names \['review'\]"),
        (b'{"text": 1', None, "standard input:1:11: broken JSON"),
        (b"good\ncaf\xe9\n", None, "standard input:2: not UTF-8: byte 3 is 0xe9"),
    ],
)
def test_unfit_standard_input_is_one_message(content, text, message, tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Stdin(content))
    with pytest.raises(UserError, match=message):
        predict_file(tiny_run.folder, "-", str(tmp_path / "out.csv"), text=text)


@pytest.mark.parametrize("damage", ["flip", "half", "empty", "delete"])
def test_every_damaged_file_of_an_adapter_is_named(damage, tiny_run, tmp_path):
    whole = Path(tiny_run.folder) / "adapter"
    files = sorted(path.name for path in whole.iterdir() if path.name not in ("contract.json", "README.md"))
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json"} <= set(files)
    for name in files:
        copy = tmp_path / name
        shutil.copytree(whole, copy)
        content = bytearray((copy / name).read_bytes())
        content[len(content) // 2] ^= 1
        new = {"flip": bytes(content), "half": bytes(content[: len(content) // 2]), "empty": b""}
        (copy / name).unlink() if damage == "delete" else (copy / name).write_bytes(new[damage])
        with pytest.raises(UserError, match=name):
            lightune.Classifier.load(copy)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("labels", ["positive", "positive"], "stands there twice"),
        ("temperature", "Infinity", "temperature"),
        ("method", "magic", "is no method"),
        ("files", {}, "names no files"),
        ("fingerprint", [1.0, -1.0], "answers a fixed text otherwise"),
        ("fingerprint", [], "answers a fixed text otherwise"),
        ("max_tokens", 100_000, "this base takes"),
    ],
)
def test_a_changed_contract_is_refused(key, value, message, tiny_run, tiny_bert, tmp_path):
    shutil.copytree(Path(tiny_run.folder) / "adapter", tmp_path / "adapter")
    path = tmp_path / "adapter" / "contract.json"
    rewrite(path, **{key: value})
    with pytest.raises(UserError, match=message):
        lightune.Classifier.load(tmp_path / "adapter", base=str(tiny_bert))


@pytest.mark.parametrize("change", [{"labels": ["positive", "negative"]}, {"temperature": 1e300}, {"seal": ""}])
def test_a_contract_edited_by_hand_is_refused(change, tiny_run, tiny_bert, tmp_path):
    shutil.copytree(Path(tiny_run.folder) / "adapter", tmp_path / "adapter")
    path = tmp_path / "adapter" / "contract.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=r"contract\.json: was changed since the run ended"):
        lightune.Classifier.load(tmp_path / "adapter", base=str(tiny_bert))


def test_the_training_label_is_remembered(tiny_run, reviews, tmp_path, journal):
    """Although another column, named more like a label, comes first."""
    with reviews.open(newline="") as file:
        rows = [{"label": row["sentiment"][::-1], **row} for row in csv.DictReader(file)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    found = evaluate_file(tiny_run.folder, str(tmp_path / "in.parquet"), journal=journal)
    assert (found["data"]["label"], found["n_rows"]) == ("sentiment", 42 * 8)


@pytest.mark.parametrize("column", ["label", "score"])
def test_the_truth_under_an_answers_name_is_found_again(column, tiny_run, reviews, tmp_path, journal, monkeypatch):
    classifier = lightune.Classifier.load(tiny_run.folder)
    changed = classifier.contract.model_copy(update={"label": column})
    monkeypatch.setattr(type(classifier), "load", lambda *_, **__: classifier)
    monkeypatch.setattr(classifier, "contract", changed, raising=False)
    with reviews.open(newline="") as file:
        rows = [{"text": row["text"], column: row["sentiment"]} for row in csv.DictReader(file)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    predict_file(tiny_run.folder, str(tmp_path / "in.parquet"), str(tmp_path / "out.csv"))
    found = evaluate_file(tiny_run.folder, str(tmp_path / "out.csv"), journal=journal)
    assert found["data"]["label"] == f"input_{column}"
    assert found["scores"]["accuracy"]["value"] > 0.5


@pytest.mark.parametrize("encoding", [None, "utf-8"])
def test_byte_order_marks_in_json_lines_are_read_as_in_training(encoding, tiny_run, tmp_path):
    (tmp_path / "in.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "lovely"}\n\xc2\xa0\n\xef\xbb\xbf{"text": "awful"}\n')
    predict_file(tiny_run.folder, str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl"), encoding=encoding)
    assert [row["text"] for row in rows_of(tmp_path / "out.jsonl")] == ["lovely", "awful"]


def test_an_unknown_encoding_and_a_name_too_long_are_one_message(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Stdin(b"lovely\n"))
    with pytest.raises(UserError, match="--encoding"):
        predict_file(tiny_run.folder, "-", str(tmp_path / "out.csv"), encoding="klingon")
    with pytest.raises(UserError, match="cannot be written"):
        predict_file(tiny_run.folder, "-", str(tmp_path / ("n" * 300 + ".csv")))


def test_answers_are_not_scored_against_themselves(tiny_run, tmp_path, journal):
    (tmp_path / "in.csv").write_text("text\nlovely\nawful\n")
    predict_file(tiny_run.folder, str(tmp_path / "in.csv"), str(tmp_path / "out.csv"))
    with pytest.raises(UserError, match="no column 'sentiment'"):
        evaluate_file(tiny_run.folder, str(tmp_path / "out.csv"), journal=journal)


def test_rows_of_one_class_can_be_scored(tiny_run, tmp_path, journal):
    (tmp_path / "in.csv").write_text("text,sentiment\nthe lamp is lovely,positive\nthe lamp is splendid,positive\n")
    found = evaluate_file(tiny_run.folder, str(tmp_path / "in.csv"), journal=journal)
    assert found["scores"]["accuracy"]["value"] == 1.0


def test_an_unknown_device_is_one_message(tiny_run):
    with pytest.raises(UserError, match=r"device = 'gpu': .*hoose from auto, cpu, cuda, mps"):
        lightune.Classifier.load(tiny_run.folder, device="gpu")


def test_a_file_in_the_place_of_a_run_is_one_message(reviews):
    with pytest.raises(UserError, match=r"a file\. Give the folder of a finished run first"):
        lightune.Classifier.load(reviews)


def test_answers_and_their_summary_do_not_mix_on_standard_output(tiny_run, reviews, capsys):
    from lightune.cli import main

    assert main(["predict", str(tiny_run.folder), str(reviews), "--json"]) == 2
    assert "Name a file with -o" in capsys.readouterr().err


def test_offline_ends_with_the_run(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with network_off(True):
        assert is_offline()
        assert constants.HF_HUB_OFFLINE
        import datasets

        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    assert not is_offline()
    assert not constants.HF_HUB_OFFLINE
    assert not datasets.config.HF_HUB_OFFLINE


@pytest.mark.parametrize(
    ("key", "value"), [("num_hidden_layers", 1), ("hidden_act", "relu"), ("layer_norm_eps", 1.0)]
)
def test_a_base_with_another_configuration_is_refused(key, value, tiny_run, tiny_bert, tmp_path):
    """Its weights are the same, so that their digest says nothing."""
    shutil.copytree(tiny_bert, tmp_path / "bert")
    path = tmp_path / "bert" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(UserError, match="answers a fixed text otherwise"):
        lightune.Classifier.load(tiny_run.folder, base=str(tmp_path / "bert"))


@pytest.mark.parametrize("name", ["added_tokens.json", "vocab.txt"])
def test_a_file_that_is_not_from_the_run_is_refused(name, tiny_run, tmp_path):
    shutil.copytree(Path(tiny_run.folder) / "adapter", tmp_path / "adapter")
    (tmp_path / "adapter" / name).write_text('{"good": 5}')
    with pytest.raises(UserError, match=rf"{name}.*did not come from the run"):
        lightune.Classifier.load(tmp_path / "adapter")


def test_a_lone_carriage_return_stays_in_its_cell(tiny_run, tmp_path):
    (tmp_path / "in.csv").write_bytes(b'id,text\r\n1,"a\rb"\r\n2,c\r\n')
    predict_file(tiny_run.folder, str(tmp_path / "in.csv"), str(tmp_path / "out.csv"))
    assert [row["text"] for row in rows_of(tmp_path / "out.csv")] == ["a\rb", "c"]


def test_numbers_survive_a_second_byte_order_mark(tiny_run, tmp_path):
    (tmp_path / "in.csv").write_bytes("\ufeff\ufeffid,text\n007,good\n1e5,x\n".encode())
    predict_file(tiny_run.folder, str(tmp_path / "in.csv"), str(tmp_path / "out.csv"))
    assert [row["id"] for row in rows_of(tmp_path / "out.csv")] == ["007", "1e5"]


def test_what_json_cannot_hold_becomes_null(tiny_run, tmp_path):
    table = pa.table({"text": ["good"], "x": [float("nan")], "y": [[1.5, float("inf")]]})
    pq.write_table(table, tmp_path / "in.parquet")
    predict_file(tiny_run.folder, str(tmp_path / "in.parquet"), str(tmp_path / "out.jsonl"))
    (row,) = rows_of(tmp_path / "out.jsonl")
    assert (row["x"], row["y"]) == (None, [1.5, None])


def test_nested_values_reach_a_table_as_they_stood(tiny_run, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"text": "good", "meta": {"n": 3}}\n{"text": "bad", "meta": {}}\n')
    for ending in ("csv", "parquet"):
        predict_file(tiny_run.folder, str(tmp_path / "in.jsonl"), str(tmp_path / f"out.{ending}"))
        assert [row["meta"] for row in rows_of(tmp_path / f"out.{ending}")] == ['{"n": 3}', "{}"]


def test_a_value_that_cannot_be_kept_is_one_message(tiny_run, tmp_path):
    late = pa.array([2**62], pa.timestamp("us"))
    pq.write_table(pa.table({"text": ["good"], "when": late}), tmp_path / "in.parquet")
    with pytest.raises(UserError, match="a value cannot be kept"):
        predict_file(tiny_run.folder, str(tmp_path / "in.parquet"), str(tmp_path / "out.jsonl"))


def test_the_stored_temperature_is_obeyed_when_scoring(tiny_run, reviews, tmp_path, journal):
    shutil.copytree(Path(tiny_run.folder) / "adapter", tmp_path / "adapter")
    path = tmp_path / "adapter" / "contract.json"
    plain = evaluate_file(str(tiny_run.folder), str(reviews), journal=journal)["scores"]["log_loss"]["value"]
    rewrite(path, temperature=50.0)
    beside = json.loads(path.read_text())["base"]["beside"]
    base = str((Path(tiny_run.folder) / "adapter" / beside).resolve())
    flat = evaluate_file(str(tmp_path / "adapter"), str(reviews), base=base, journal=journal)
    assert plain < flat["scores"]["log_loss"]["value"] < 0.7


def test_piped_lines_are_answered_as_they_arrive(tiny_run, tmp_path, monkeypatch):
    """`tail -f log | lightune predict RUN` has no end to wait for."""
    import os

    reader, writer = os.pipe()
    asked = []
    with os.fdopen(reader, "rb") as stdin, os.fdopen(writer, "wb", buffering=0) as pipe:
        monkeypatch.setattr(sys, "stdin", type("Pipe", (), {"buffer": stdin}))
        pipe.write(b"lovely\naw")
        with open_input("-", TextColumns("text"), Options(), given=False) as source:
            chunks = source.chunks("csv")
            asked.append(next(chunks)[1])
            pipe.write("ful\ncaf\u00e9".encode())
            asked.append(next(chunks)[1])
            pipe.close()
            asked += [texts for _, texts in chunks]
    assert asked == [["lovely"], ["awful"], ["caf\u00e9"]]


@pytest.mark.parametrize("encoding", [None, "cp1252"])
def test_many_short_lines_are_no_single_chunk(encoding, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Stdin(b"\n".join(b"%d" % i for i in range(10_000))))
    with open_input("-", TextColumns("text"), Options(encoding), given=False) as source:
        chunks = [texts for _, texts in source.chunks("csv")]
    assert [text for chunk in chunks for text in chunk] == [str(i) for i in range(10_000)]
    assert max(map(len, chunks)) <= 2048


def test_how_standard_input_is_read_is_said_before_it_ends(tiny_run, tmp_path, monkeypatch):
    said = []

    class Endless(io.BytesIO):
        def read1(self, size=-1):
            if chunk := super().read1(size):
                return chunk
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdin", type("Pipe", (), {"buffer": Endless(b"lovely\nawful\n")}))
    with pytest.raises(KeyboardInterrupt):
        predict_file(tiny_run.folder, "-", str(tmp_path / "out.csv"), say=said.append)
    assert said == ["standard input: read as one text a line"]


def test_what_goes_wrong_with_the_input_is_not_blamed_on_the_output(tiny_run, tmp_path, monkeypatch):
    class Broken(io.BytesIO):
        def read1(self, size=-1):
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(sys, "stdin", type("Pipe", (), {"buffer": Broken(b"lovely\n")}))
    with pytest.raises(UserError, match=r"standard input: cannot be read \(Input/output error\)"):
        predict_file(tiny_run.folder, "-", str(tmp_path / "out.csv"))
    assert not (tmp_path / "out.csv").exists()


def test_the_input_is_not_replaced_by_its_answers(tiny_run, reviews, tmp_path):
    shutil.copy(reviews, tmp_path / "mine.csv")
    (tmp_path / "link.csv").symlink_to("mine.csv")
    for name in ("mine.csv", "link.csv"):
        with pytest.raises(UserError, match="is the data itself"):
            predict_file(tiny_run.folder, str(tmp_path / "mine.csv"), str(tmp_path / name))
    assert (tmp_path / "mine.csv").read_bytes() == reviews.read_bytes()


def test_redirected_input_is_not_replaced_by_its_answers(tiny_run, tmp_path, monkeypatch):
    (tmp_path / "mine.txt").write_text("lovely\n")
    (tmp_path / "mine.csv").symlink_to("mine.txt")
    with (tmp_path / "mine.txt").open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        with pytest.raises(UserError, match="is the data itself"):
            predict_file(tiny_run.folder, "-", str(tmp_path / "mine.csv"))


def test_a_full_disk_under_the_answers_is_one_message(tiny_run, tmp_path, monkeypatch):
    """Flushing fails, and so does closing, which flushes once more."""

    class Full(io.TextIOWrapper):
        def flush(self):
            raise OSError(28, "No space left on device")

    (tmp_path / "in.csv").write_text("text\nlovely\n")
    plain = Path.open
    monkeypatch.setattr(
        Path, "open", lambda path, *a, **k: Full(io.BytesIO()) if "answers" in path.name else plain(path, *a, **k)
    )
    with pytest.raises(GateError, match=r"cannot be written \(No space left on device\)"):
        predict_file(tiny_run.folder, str(tmp_path / "in.csv"), str(tmp_path / "out.csv"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv"]


def test_an_answer_file_keeps_its_rights_and_its_link(tiny_run, tmp_path):
    (tmp_path / "in.csv").write_text("text\nlovely\n")
    (tmp_path / "private.csv").touch(mode=0o600)
    (tmp_path / "link.csv").symlink_to("private.csv")
    predict_file(tiny_run.folder, str(tmp_path / "in.csv"), str(tmp_path / "link.csv"))
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "private.csv").stat().st_mode & 0o777 == 0o600
    assert "lovely" in (tmp_path / "private.csv").read_text()


def test_scores_on_the_training_data_come_with_a_word(tiny_run, reviews, tmp_path):
    out = io.StringIO()
    evaluate_file(tiny_run.folder, str(reviews), journal=Journal(out))
    assert "is what this classifier was trained on" in out.getvalue()
    (tmp_path / "other.csv").write_text(reviews.read_text() + "lovely,positive,web\n")
    out = io.StringIO()
    evaluate_file(tiny_run.folder, str(tmp_path / "other.csv"), journal=Journal(out))
    assert "trained on" not in out.getvalue()


def test_a_zipped_parquet_file_is_read_with_its_types(tiny_run, tmp_path):
    table = pa.table({"text": ["lovely", "awful"], "n": pa.array([1, None], pa.int16())})
    pq.write_table(table, tmp_path / "in.parquet")
    (tmp_path / "in.parquet.gz").write_bytes(gzip.compress((tmp_path / "in.parquet").read_bytes()))
    for name in ("in.parquet", "in.parquet.gz"):
        predict_file(tiny_run.folder, str(tmp_path / name), str(tmp_path / f"{name}.out.parquet"))
    one, two = (pq.read_table(tmp_path / f"{name}.out.parquet") for name in ("in.parquet", "in.parquet.gz"))
    assert one == two
    assert two.schema.field("n").type == pa.int16()


def test_a_number_that_json_cannot_keep_is_refused(tiny_run, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"text": "lovely", "n": 1e999}\n')
    with pytest.raises(UserError, match="1e999 is too large"):
        predict_file(tiny_run.folder, str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl"))


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_is_what_the_hub_library_takes_it_to_be(name, monkeypatch):
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    assert not is_offline()
    monkeypatch.setenv(name, "1")
    assert is_offline()


def test_a_run_that_cannot_be_merged_is_used_unmerged(reviews, tmp_path):
    base = tiny.make("llama", tmp_path / "llama")  # its linear layers have no biases
    settings = [f'model="{base}"', *TINY_SETTINGS, "method=bitfit", "train.epochs=0.1"]
    run = lightune.run(str(reviews), settings=settings, output=tmp_path / "run", journal=Journal(io.StringIO()))
    assert len(lightune.Classifier.load(run.folder).predict(TEXTS)) == len(TEXTS)


@pytest.mark.parametrize(
    ("machine", "asked", "used"),
    [("bf16", "auto", "fp32"), ("fp32", "auto", "fp32"), ("fp32", "bf16", "bf16")],
)
def test_the_precision_is_the_runs_unless_asked(machine, asked, used, tiny_run, monkeypatch):
    monkeypatch.setattr("lightune.hardware._cpu_precision", lambda: (machine, "for a test"))
    classifier = lightune.Classifier.load(tiny_run.folder, device="cpu", precision=asked)
    assert classifier.hardware.precision == used
    assert not hasattr(classifier.model, "peft_config")  # merged: its blocks are written out in either precision


def test_in_16_bits_what_is_not_written_out_stays_unmerged(reviews, tmp_path):
    base = tiny.make("llama", tmp_path / "llama")
    settings = [f'model="{base}"', *TINY_SETTINGS, "train.epochs=0.1"]
    run = lightune.run(str(reviews), settings=settings, output=tmp_path / "run", journal=Journal(io.StringIO()))
    for precision, merged in (("fp32", True), ("bf16", False)):
        classifier = lightune.Classifier.load(run.folder, device="cpu", precision=precision)
        assert hasattr(classifier.model, "peft_config") != merged


def test_a_run_in_bf16_is_used_in_bf16(reviews, tiny_bert, tmp_path, monkeypatch):
    settings = [f'model="{tiny_bert}"', *TINY_SETTINGS, "hardware.precision=bf16"]
    run = lightune.run(str(reviews), settings=settings, output=tmp_path / "run", journal=Journal(io.StringIO()))
    assert read_contract(tmp_path / "run" / "adapter").precision == "bf16"
    monkeypatch.setattr("lightune.hardware._cpu_precision", lambda: ("bf16", "for a test"))
    classifier = lightune.Classifier.load(run.folder, device="cpu")
    assert classifier.hardware.precision == "bf16"
    plain = lightune.Classifier.load(run.folder, device="cpu", precision="fp32")
    assert np.allclose(classifier.predict_proba(TEXTS), plain.predict_proba(TEXTS), atol=2e-2)


def test_answers_that_are_no_numbers_are_no_answers(tiny_run, monkeypatch):
    classifier = lightune.Classifier.load(tiny_run.folder)
    monkeypatch.setattr("lightune.use.classifier.predict_logits", lambda *_: np.array([[np.nan, 1.0]]))
    with pytest.raises(GateError, match="in fp32 are no numbers"):
        classifier.predict(["a text"])


def test_an_unknown_precision_is_refused(tiny_run):
    with pytest.raises(UserError, match="precision = 'fp8'"):
        lightune.Classifier.load(tiny_run.folder, precision="fp8")


def test_the_cards_lines_load_a_base_whose_own_head_has_another_size(reviews, tiny_bert, tmp_path):
    model, _ = tiny.load_base(tiny_bert, 3, seed=0)
    model.save_pretrained(tmp_path / "base")
    tiny.load_tokenizer(tiny_bert).save_pretrained(tmp_path / "base")
    settings = [f'model="{tmp_path / "base"}"', *TINY_SETTINGS]
    run = lightune.run(str(reviews), settings=settings, output=tmp_path / "run", journal=Journal(io.StringIO()))
    expected = lightune.Classifier.load(run.folder).predict(TEXTS[:1])[0]
    process = run_card(run.folder, TEXTS[0])
    assert process.returncode == 0, process.stderr[-2000:]
    assert f"{expected.score:.4f}"[:5] in process.stdout


def test_a_base_elsewhere_is_named_without_its_folders(tiny_bert, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert locate(str(tiny_bert)).name == tiny_bert.name
    shutil.copytree(tiny_bert, tmp_path / "models" / "bert")
    assert locate(str(tmp_path / "models" / "bert")).name == "models/bert"


def test_a_device_behind_a_link_is_not_replaced(tiny_run, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "out.csv").symlink_to(tmp_path / "pipe")
    (tmp_path / "in.csv").write_text("text\na lovely lamp\n")
    with pytest.raises(UserError, match=r"out\.csv: cannot be written there\. Choose another --output"):
        predict_file(tiny_run.folder, str(tmp_path / "in.csv"), str(tmp_path / "out.csv"))
    assert (tmp_path / "pipe").is_fifo()


def test_an_empty_text_gets_one_answer_alone_and_in_company(tiny_run):
    classifier = lightune.Classifier.load(tiny_run.folder)
    alone, (beside, _) = classifier.predict_proba([""]), classifier.predict_proba(["", "a lovely lamp"])
    assert np.allclose(alone[0], beside, atol=1e-6)


@pytest.mark.filterwarnings(
    "ignore:This process:DeprecationWarning"
)  # Python 3.12 does not like forks beside threads
def test_a_forked_process_tokenises_alone(monkeypatch):
    """It has none of its parent's threads, for which the tokenizer would wait for ever."""
    monkeypatch.delenv("TOKENIZERS_PARALLELISM")
    settle_libraries()
    assert os.environ["TOKENIZERS_PARALLELISM"] == "true"
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writer, os.environ["TOKENIZERS_PARALLELISM"].encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 10) == b"false"


def test_names_in_a_card_stay_text():
    from lightune.report.card import _plain

    assert (
        _plain("<script> [x](y) `a` *b* |c| \u202ed") == "&lt;script> \\[x\\](y) \\`a\\` \\*b\\* \\|c\\| \\\\u202ed"
    )
