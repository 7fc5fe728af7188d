"""The journey as a whole, on a tiny model: what it leaves behind, that it is repeatable, that it proves itself."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import numpy as np
import pyarrow.parquet as pq
import pytest

import lightune
from lightune.artifact import proof
from lightune.artifact.folder import choose_run_folder
from lightune.artifact.gathering import _without_a_number
from lightune.errors import GateError, UserError
from lightune.journal import Journal
from tests.conftest import TINY_SETTINGS

SCHEMAS = Path(lightune.__file__).parent / "schemas"


def again(reviews, tiny_bert, output, *more: str, **options):
    settings = [f'model="{tiny_bert}"', *TINY_SETTINGS, *more]
    if not options.pop("with_evidence", False):  # tiny_run has it; a second less for each of the others
        settings += ["evidence.baselines=[]", "evidence.doctor=false"]
    options.setdefault("journal", Journal(io.StringIO()))
    return lightune.run(str(reviews), settings=settings, output=str(output), **options)


def digest(folder) -> str:
    return hashlib.sha256((Path(folder) / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest()


def test_tuning_learns_the_task(tiny_run):
    assert tiny_run.results["before"]["accuracy"]["value"] < 0.8
    assert tiny_run.results["after"]["accuracy"]["value"] > 0.9
    assert tiny_run.results["comparisons"]["before"]["fixed"] > tiny_run.results["comparisons"]["before"]["broken"]


def test_baselines_answer_the_same_rows_and_the_verdict_is_about_the_strongest(tiny_run):
    results = tiny_run.results
    assert set(results["baselines"]) == {"majority", "tfidf", "probe"}
    assert set(results["comparisons"]) == {"before", "majority", "tfidf", "probe"}
    after = results["after"]["accuracy"]["value"]
    for name, baseline in results["baselines"].items():
        gain = results["comparisons"][name]["gain"]["value"]
        assert gain == pytest.approx(after - baseline["scores"]["accuracy"]["value"])
    worst = min(results["comparisons"].values(), key=lambda each: each["gain"]["value"])
    assert results["verdict"] == worst["words"]
    table = pq.read_table(Path(tiny_run.folder) / "predictions.parquet").to_pandas()
    for name, baseline in results["baselines"].items():
        assert (table["label"] == table[name]).mean() == pytest.approx(baseline["scores"]["accuracy"]["value"])


def test_a_run_that_is_worse_than_tfidf_says_so_plainly(reviews, tiny_bert, tmp_path):
    """Nothing is learned in no epoch, and TF-IDF needs no epoch."""
    screen = io.StringIO()
    options = {"with_evidence": True, "journal": Journal(screen)}
    found = again(reviews, tiny_bert, tmp_path / "run", "train.epochs=0", **options).results
    assert found["comparisons"]["tfidf"]["outcome"] == "worse"
    assert found["verdict"].startswith("worse than TF-IDF + logistic regression by ")
    assert f"verdict: {found['verdict']}" in screen.getvalue()
    assert found["verdict"] in (tmp_path / "run" / "adapter" / "README.md").read_text()


def test_a_gate_that_says_no_keeps_the_run_and_ends_with_exit_code_3(reviews, tiny_bert, tmp_path):
    gates = ["accuracy>before", "log_loss<0.000001"]
    with pytest.raises(GateError, match=r"required and not so: log_loss<1e-06: log_loss is .* The run is kept in"):
        again(reviews, tiny_bert, tmp_path / "run", require=gates)
    stored = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [(each["what"], each["passed"]) for each in stored["requirements"]] == [
        ("accuracy>before", True),
        ("log_loss<1e-06", False),
    ]
    assert stored["baselines"] == {}
    assert set(stored["comparisons"]) == {"before"}
    assert not (tmp_path / "run" / "doctor.json").exists()


def test_the_folder_holds_what_its_documentation_lists(tiny_run):
    from lightune.artifact import folder

    lines = folder.__doc__.splitlines()
    listed = [line.split()[0] for line in lines if line.startswith("    ") and line[4] != " "]
    present = {path.name for path in Path(tiny_run.folder).iterdir()}
    assert present == {name.rstrip("/") for name in listed} - {"trackers"}


def test_results_json_is_what_run_returns_and_fits_the_published_schema(tiny_run):
    stored = json.loads((Path(tiny_run.folder) / "results.json").read_text())
    assert stored == tiny_run.results
    jsonschema.validate(stored, json.loads((SCHEMAS / "results.schema.json").read_text()))


def test_results_have_every_promised_key(tiny_run):
    results = tiny_run.results
    for side in ("before", "after"):
        for score in results[side].values():
            assert score["low"] <= score["value"] <= score["high"]
    assert {"read", "load", "before", "train", "after", "proof", "total"} <= set(results["seconds"])
    assert results["tokens_per_second"]["train"] > 0
    assert results["proof"]["passed"]
    assert len(results["data"]["digest"]) == len(results["model"]["digest"]) == 64
    assert results["recipe"]["train"]["epochs"] == 6
    assert 0 < results["trainable_parameters"] < results["total_parameters"]


def test_the_same_seed_gives_the_same_bytes(tiny_run, reviews, tiny_bert, tmp_path):
    second = again(reviews, tiny_bert, tmp_path / "second")
    assert digest(second.folder) == digest(tiny_run.folder)
    other = again(reviews, tiny_bert, tmp_path / "other", "seed=1")
    assert digest(other.folder) != digest(tiny_run.folder)


def test_the_resolved_recipe_gives_the_same_adapter(tiny_run, tmp_path):
    recipe = Path(tiny_run.folder) / "recipe.toml"
    second = lightune.run(str(recipe), output=str(tmp_path / "again"), journal=Journal(io.StringIO()))
    assert digest(second.folder) == digest(tiny_run.folder)


def test_predictions_agree_with_the_accuracy(tiny_run):
    table = pq.read_table(Path(tiny_run.folder) / "predictions.parquet").to_pandas()
    assert (table["label"] == table["after"]).mean() == tiny_run.results["after"]["accuracy"]["value"]
    assert np.allclose(table[["p_negative", "p_positive"]].sum(axis=1), 1)
    assert "text" not in table.columns


def test_no_text_and_no_absolute_path_is_left_in_the_folder(tiny_run, reviews):
    for path in Path(tiny_run.folder).rglob("*"):
        if path.suffix in (".json", ".jsonl", ".md", ".toml") and not path.name.startswith("tokenizer"):
            assert "kettle" not in path.read_text(), path
    for name in ("adapter_config.json", "contract.json", "README.md"):
        text = (Path(tiny_run.folder) / "adapter" / name).read_text()
        assert str(reviews.parent) not in text, name


def test_events_tell_the_phases_in_order(tiny_run):
    lines = (Path(tiny_run.folder) / "events.jsonl").read_text().splitlines()
    phases = [event["name"] for event in map(json.loads, lines) if event["event"] == "phase"]
    assert phases == [
        "read",
        "check",
        "load",
        "tokenise",
        "plan",
        "train",
        "before",
        "after",
        "baselines",
        "labels",
        "proof",
        "report",
    ]


def test_an_adapter_that_reloads_differently_fails_the_run(reviews, tiny_bert, tmp_path, monkeypatch):
    save = proof.load_adapter.__globals__["adapters"].save

    def save_and_spoil(model, folder):
        from safetensors.torch import load_file, save_file

        save(model, folder)
        path = Path(folder) / "adapter_model.safetensors"
        tensors = load_file(path)
        head = next(name for name in tensors if "classifier" in name and name.endswith("weight"))
        tensors[head] = tensors[head] + 0.01
        save_file(tensors, path, metadata={"format": "pt"})

    monkeypatch.setattr("lightune.model.adapters.save", save_and_spoil)
    with pytest.raises(GateError, match=r"cannot load this adapter: .*answers a fixed text otherwise"):
        again(reviews, tiny_bert, tmp_path / "spoiled")
    assert not (tmp_path / "spoiled").exists()


def test_a_finished_run_is_replaced_only_on_request_and_only_by_a_proved_one(reviews, tiny_bert, tmp_path):
    first = again(reviews, tiny_bert, tmp_path / "run")
    before = digest(first.folder)
    with pytest.raises(UserError, match=r"holds a finished run.*--overwrite"):
        again(reviews, tiny_bert, tmp_path / "run", "seed=1")
    with pytest.raises(UserError, match=r"verdict"):
        again(reviews, tiny_bert, tmp_path / "run", "data.label=verdict", overwrite=True)
    assert digest(first.folder) == before
    again(reviews, tiny_bert, tmp_path / "run", "seed=1", overwrite=True)
    assert digest(first.folder) != before
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_folder_of_something_else_is_never_replaced(reviews, tiny_bert, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(UserError, match="not a run of lightune"):
        again(reviews, tiny_bert, tmp_path / "thesis", overwrite=True)


def test_dry_run_tells_the_cost_and_writes_nothing(reviews, tiny_bert, tmp_path):
    planned = again(reviews, tiny_bert, tmp_path / "run", dry_run=True)
    assert planned.folder is None
    assert planned.results["n_steps"] > 0
    assert planned.results["estimated_seconds"] > 0
    assert planned.results["estimated_memory_bytes"] > 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method", ["full", "head", "prompt"])
def test_other_kinds_of_artifact_make_the_same_journey(method, reviews, tiny_bert, tmp_path):
    result = again(reviews, tiny_bert, tmp_path / method, f"method={method}")
    assert result.results["proof"]["max_logit_difference"] <= 1e-4
    classifier = lightune.Classifier.load(result.folder)
    assert classifier.labels == ["negative", "positive"]


def test_a_test_file_that_shares_texts_with_training_costs_those_training_rows(reviews, tiny_bert, tmp_path):
    lines = reviews.read_text().splitlines()
    test = tmp_path / "test.csv"
    test.write_text("\n".join([lines[0], *lines[1:21]]) + "\n")
    result = again(reviews, tiny_bert, tmp_path / "run", test=str(test))
    assert result.results["n_test"] == 20
    leaks = [d for d in result.results["decisions"] if d["what"] == "leaks"]
    assert leaks[0]["choice"] == "20 training rows dropped"


def test_three_classes_with_text_from_a_template(tmp_path, tiny_bert):
    from tests import tiny

    rows = [{"title": text.split()[0], "body": text, "stars": y + 1} for text, y in tiny.EXAMPLES[3]]
    data = tmp_path / "three.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    settings = [f'model="{tiny_bert}"', *TINY_SETTINGS]
    result = lightune.run(
        str(data),
        text="{title}. {body}",
        settings=settings,
        output=str(tmp_path / "run"),
        journal=Journal(io.StringIO()),
    )
    assert result.results["labels"] == ["1", "2", "3"]
    assert result.results["data"]["text"] == "{title}. {body}"
    predictions = lightune.Classifier.load(result.folder).predict([rows[0]["body"]])
    assert set(predictions[0].probabilities) == {"1", "2", "3"}


def test_what_lies_beside_the_run_is_never_touched(reviews, tiny_bert, tmp_path):
    for name in ("run.old", "thesis.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "chapter.txt").write_text("years of work")
    again(reviews, tiny_bert, tmp_path / "run", "train.epochs=0.1")
    again(reviews, tiny_bert, tmp_path / "run", "train.epochs=0.1", overwrite=True)
    with pytest.raises(UserError, match=r"thesis\.partial: is in the way"):
        again(reviews, tiny_bert, tmp_path / "thesis")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run.old", "thesis.partial"]
    assert all((tmp_path / name / "chapter.txt").exists() for name in ("run.old", "thesis.partial"))


def test_a_folder_that_another_process_writes_is_refused(reviews, tiny_bert, tmp_path):
    (tmp_path / "run.partial").mkdir()
    (tmp_path / "run.partial" / "events.jsonl").touch()
    script = (
        f"import fcntl, os, sys; fcntl.flock(os.open({str(tmp_path / 'run.partial')!r}, os.O_RDONLY), fcntl.LOCK_EX)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script + "; print('held', flush=True); sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout.readline() == b"held\n"
    try:
        with pytest.raises(UserError, match="another run is writing there now"):
            again(reviews, tiny_bert, tmp_path / "run")
    finally:
        holder.communicate()


def test_a_run_that_began_meanwhile_keeps_its_files(tmp_path):
    """Two runs that chose the same folder before either wrote to it."""
    first, second = (choose_run_folder(str(tmp_path / "run"), "", overwrite=False) for _ in range(2))
    with first.being_written():
        (first.partial / "results.png").write_text("hours of work")
        with pytest.raises(UserError, match="another run is writing there now"), second.being_written():
            pytest.fail("both runs are in the folder")
        assert (first.partial / "results.png").read_text() == "hours of work"
    with second.being_written():  # what is left there is a dead run's
        assert [path.name for path in second.partial.iterdir()] == ["events.jsonl"]


def test_a_run_whose_number_was_taken_meanwhile_takes_the_next(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second, third = (choose_run_folder(None, "reviews-lora", overwrite=False) for _ in range(3))
    with first.being_written() as one, second.being_written() as two, third.being_written() as three:
        assert [str(run.final) for run in (one, two, three)] == [
            "runs/reviews-lora",
            "runs/reviews-lora-2",
            "runs/reviews-lora-3",
        ]
        one.publish()
    with first.being_written() as four:  # its name is a finished run by now
        assert str(four.final) == "runs/reviews-lora-4"


def test_overwriting_spares_files_that_are_not_the_runs(reviews, tiny_bert, tmp_path):
    again(reviews, tiny_bert, tmp_path / "run", "train.epochs=0.1")
    shutil.copy(reviews, tmp_path / "run" / "my_labels.csv")
    with pytest.raises(UserError, match=r"holds \['my_labels.csv'\] beside the run"):
        again(tmp_path / "run" / "my_labels.csv", tiny_bert, tmp_path / "run", overwrite=True)
    (tmp_path / "run" / "my_labels.csv").rename(tmp_path / "run" / "adapter" / "notes.md")
    with pytest.raises(UserError, match=r"holds \['adapter/notes.md'\] beside the run"):
        again(reviews, tiny_bert, tmp_path / "run", overwrite=True)
    (tmp_path / "run" / "adapter" / "notes.md").unlink()

    folder = choose_run_folder(str(tmp_path / "run"), "", overwrite=True)
    with folder.being_written():
        (tmp_path / "run" / "notes.txt").write_text("written meanwhile")
        with pytest.raises(GateError, match="something was put there meanwhile"):
            folder.publish()
    assert (tmp_path / "run" / "notes.txt").read_text() == "written meanwhile"


@pytest.mark.parametrize("contract", [b"\xff\xfe", b"{}"])
def test_a_run_that_cannot_be_read_any_more_can_be_replaced(contract, reviews, tiny_bert, tmp_path):
    run = tmp_path / "run"
    (run / "adapter").mkdir(parents=True)
    (run / "results.json").write_text("{}")
    (run / "adapter" / "contract.json").write_bytes(contract)
    again(reviews, tiny_bert, run, "train.epochs=0.1", overwrite=True)
    assert lightune.Classifier.load(run).labels == ["negative", "positive"]


def test_a_metric_without_a_number_is_named_with_its_side():
    before, after = SimpleNamespace(scores={"accuracy": 0.5}), SimpleNamespace(scores={"accuracy": 0.9, "hub:x": 1.0})
    reasons = _without_a_number(["hub:x", "accuracy"], {"before": before, "after": after})
    assert reasons == {"hub:x": "no number for the answers before"}


def test_a_stranger_with_a_file_of_our_name_is_not_emptied(reviews, tiny_bert, tmp_path):
    (tmp_path / "run.partial").mkdir()
    for name in ("events.jsonl", "precious.txt"):
        (tmp_path / "run.partial" / name).write_text("{}")
    with pytest.raises(UserError, match=r"run\.partial: is in the way"):
        again(reviews, tiny_bert, tmp_path / "run")
    assert (tmp_path / "run.partial" / "precious.txt").exists()


@pytest.mark.parametrize("kind", ["os", "safetensors"])
def test_a_full_disk_is_one_message(kind, reviews, tiny_bert, tmp_path, monkeypatch):
    from safetensors import SafetensorError

    full = {
        "os": OSError(28, "No space left on device"),
        "safetensors": SafetensorError("I/O error: No space left on device (os error 28)"),
    }

    def save(*_, **options):
        raise full[kind]

    monkeypatch.setattr("lightune.model.adapters.save", save)
    with pytest.raises(GateError, match=r"run\.partial: could not be written .*No space left on device"):
        again(reviews, tiny_bert, tmp_path / "run", "train.epochs=0.1")


def test_one_journal_tells_of_two_runs_one_after_the_other(reviews, tiny_bert, tmp_path):
    journal = Journal(io.StringIO())
    first = again(reviews, tiny_bert, tmp_path / "one", "train.epochs=0.1", journal=journal)
    journal.seconds["train"] += 1000.0
    second = again(reviews, tiny_bert, tmp_path / "two", "train.epochs=0.1", journal=journal)
    made = [[decision["what"] for decision in run.results["decisions"]] for run in (first, second)]
    assert made[0] == made[1]
    assert second.results["seconds"]["total"] < 1000.0
    events = [json.loads(line) for line in (Path(second.folder) / "events.jsonl").read_text().splitlines()]
    assert [event["name"] for event in events if event["event"] == "phase"].count("read") == 1


def test_the_proof_runs_no_file_of_the_users_folder(reviews, tiny_bert, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "numpy.py").write_text("raise SystemExit('this file was run')")
    assert Path(again(reviews, tiny_bert, tmp_path / "run", "train.epochs=0.1").folder).is_dir()


def test_a_failed_run_lets_go_of_its_folder_and_its_trackers(reviews, tiny_bert, tmp_path, monkeypatch):
    """A notebook's first try fails; the second must not be told that another run is writing there."""
    pytest.importorskip("tensorboard")
    finished = []

    def diverges(*_, **options):
        raise GateError("training has diverged")

    with monkeypatch.context() as patched:
        patched.setattr("lightune.trackers.Trackers.finish", lambda self: finished.append(list(self.active)))
        patched.setattr(lightune.run, "fine_tune", diverges)
        with pytest.raises(GateError, match="diverged"):
            again(reviews, tiny_bert, tmp_path / "run", 'trackers=["tensorboard"]')
    assert finished == [["tensorboard"]]
    result = again(reviews, tiny_bert, tmp_path / "run", "train.epochs=0.1")
    assert Path(result.folder) == tmp_path / "run"


def test_the_total_is_the_sum_of_the_phases_and_the_report_is_one(tiny_run):
    seconds = dict(tiny_run.results["seconds"])
    total = seconds.pop("total")
    assert seconds["report"] > 0
    assert total == pytest.approx(sum(seconds.values()), abs=0.02)


def test_a_whole_model_without_its_head_is_refused(reviews, tiny_bert, tmp_path):
    from safetensors.torch import load_file, save_file

    result = again(reviews, tiny_bert, tmp_path / "full", "method=full", "train.epochs=0.1")
    path = Path(result.folder) / "adapter" / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(path).items() if "classifier" not in name}
    save_file(kept, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"model\.safetensors: is not the file that was proved"):
        lightune.Classifier.load(result.folder)


def test_a_run_leaves_a_process_that_had_no_torch_with_its_defaults(reviews, tiny_bert, tmp_path):
    script = (
        "import sys, lightune\n"
        f"lightune.run({str(reviews)!r}, settings={[f'model={tiny_bert}', *TINY_SETTINGS, 'train.epochs=0.1']!r},"
        f" output={str(tmp_path / 'run')!r})\n"
        "import torch\n"
        "sys.exit(torch.are_deterministic_algorithms_enabled())\n"
    )
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr[-2000:]
