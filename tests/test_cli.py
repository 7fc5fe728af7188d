"""The command line as its user meets it: exit codes, one message per mistake, JSON that stays alone."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from lightune import cli
from lightune.journal import Journal
from lightune.records import Decision
from lightune.settings import shipped_recipes
from tests.conftest import TINY_SETTINGS


def call(*arguments: str) -> int:
    try:
        return cli.main(arguments)
    except SystemExit as end:
        return int(end.code or 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnu"], "invalid choice: 'rnu'"),
        (["run", "--tset", "x.csv"], "--tset. Did you mean"),
        (["evaluate", "somewhere"], "--data"),
        (["run", "--seed", "many"], "--seed"),
    ],
)
def test_a_wrong_word_is_one_line_and_exit_2(arguments, message, capsys):
    assert call(*arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


BAD_FILES = {
    "empty.csv": (b"", "empty.csv"),
    "header.csv": (b"text,label\n", "header.csv"),
    "one.csv": (b"text,label\nfirst row,a\nsecond row,a\nthird row,a\n", "class"),
    "latin.csv": ("text,label\ncaf\xe9 is fine,a\ncaf\xe9 is not,b\n".encode("latin-1"), "data.encoding"),
}


@pytest.mark.parametrize("name", sorted(BAD_FILES))
def test_a_bad_file_is_one_message_and_exit_2(name, tmp_path, capsys):
    content, message = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    assert call("run", str(tmp_path / name), "--label", "label", "--output", str(tmp_path / "run")) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert len(error.splitlines()) < 15
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "run.partial").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--label", "verdict"], r"verdict"),
        (["--set", "train.epoch=2"], "Did you mean 'epochs'"),
        (["--set", "method=lara"], "Did you mean 'lora'"),
        (["--set", "lora.rnak=2"], "Did you mean 'rank'"),
        (["--set", "model=nobody/nothing"], "not in the local cache"),
        (["--set", "model=./nowhere"], "no such folder"),
        (["--set", "model=minlm"], "Did you mean 'minilm'"),
        (["--set", 'trackers=["tensorbord"]'], "Did you mean 'tensorboard'"),
        (["--set", "data.max_tokens=100000"], "reads"),
        (["--test", "nowhere.csv"], "nowhere.csv"),
        (["--text", "{title}"], "title"),
        (["--set", "seed=" + "9" * 5000], "--set seed: its value cannot be read"),
        (["--set", "metrics=" + "[" * 5000], "--set metrics: its value cannot be read"),
        (["--set", "lora.alpha=inf"], "method.alpha"),
    ],
)
def test_a_mistake_about_good_data_is_one_message_and_leaves_nothing(
    arguments, message, reviews, tiny_bert, tmp_path, capsys
):
    model = ["--set", f'model="{tiny_bert}"']
    assert call("run", str(reviews), *model, *arguments, "--output", str(tmp_path / "run"), "--offline") == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir())


def test_json_is_alone_on_standard_output(reviews, tiny_bert, tmp_path, capsys):
    settings = [part for s in [f'model="{tiny_bert}"', *TINY_SETTINGS] for part in ("--set", s)]
    assert call("run", str(reviews), *settings, "--json", "--output", str(tmp_path / "run")) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == json.loads((tmp_path / "run" / "results.json").read_text())
    assert "Fine-tuning with lora" in captured.err


def test_dry_run_prints_the_cost(reviews, tiny_bert, tmp_path, capsys):
    arguments = ["--set", f'model="{tiny_bert}"', "--dry-run", "--json", "--output", str(tmp_path / "run")]
    assert call("run", str(reviews), *arguments) == 0
    assert json.loads(capsys.readouterr().out)["estimated_seconds"] > 0
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["recipes", "methods", "metrics", "env"])
def test_lists_are_readable_and_json(command, capsys):
    assert call(command) == 0
    assert len(capsys.readouterr().out.splitlines()) >= 3
    assert call(command, "--json") == 0
    assert json.loads(capsys.readouterr().out)


def test_recipes_lists_what_ships(capsys):
    call("recipes", "--json")
    assert {row["name"] for row in json.loads(capsys.readouterr().out)} == set(shipped_recipes())


def test_evaluate_scores_other_data(tiny_run, reviews, capsys):
    assert call("evaluate", tiny_run.folder, "--data", str(reviews), "--json") == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["n_rows"] == 336
    assert scores["scores"]["accuracy"]["low"] <= scores["scores"]["accuracy"]["value"]


def test_evaluate_refuses_a_class_it_does_not_know(tiny_run, tmp_path, capsys):
    other = tmp_path / "other.csv"
    other.write_text("text,sentiment\nit is fine today,neutral\nit is bad today,negative\nit is good,neutral\n")
    assert call("evaluate", tiny_run.folder, "--data", str(other), "--label", "sentiment") == 2
    assert "neutral" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "message"),
    [("--device=tpu", "--device 'tpu': .*hoose from auto"), ("--precision=fp16", "--precision 'fp16': no fast path")],
)
def test_what_a_device_cannot_be_is_told_in_the_words_of_the_options(option, message, tiny_run, reviews, capsys):
    assert call("predict", tiny_run.folder, str(reviews), option) == 2
    assert call("evaluate", tiny_run.folder, "--data", str(reviews), option) == 2
    assert len(re.findall(message, capsys.readouterr().err)) == 2


def test_predict_reads_lines_from_standard_input(tiny_run, monkeypatch, capsys):
    stdin = io.TextIOWrapper(io.BytesIO(b"the lamp is lovely\nthe lamp is awful\n"))
    monkeypatch.setattr("sys.stdin", stdin)
    assert call("predict", tiny_run.folder) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "text,label,score,p_negative,p_positive"
    assert [line.split(",")[1] for line in lines[1:]] == ["positive", "negative"]


@pytest.mark.parametrize("output", ["n" * 300, "n" * 250, "file/run", "/", "~nobody_of_this_name/run", "a\0b"])
def test_an_output_that_cannot_be_a_folder_is_said_before_the_work(output, reviews, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("in the way")
    assert call("run", str(reviews), "--output", output) == 2
    assert "Choose another --output" in capsys.readouterr().err


def spoil(folder, name, content):
    """A copy of a model folder in which one file is another."""
    if content is None:
        (folder / name).unlink()
    elif isinstance(content, dict):
        (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | content))
    else:
        (folder / name).write_bytes(content)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 90868376\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.safetensors", LFS, "cannot be loaded as a text classifier"),
        ("model.safetensors", b"", "cannot be loaded as a text classifier"),
        ("config.json", b"[]", "cannot be loaded as a text classifier"),
        ("config.json", {"num_attention_heads": 0}, "cannot be loaded as a text classifier"),
        ("config.json", {"hidden_size": 64}, "its weights lack"),
        ("config.json", {"num_hidden_layers": 3}, "its weights lack"),
        ("config.json", {"max_position_embeddings": 4}, "its weights lack"),
        ("config.json", {"vocab_size": 10}, "its weights lack"),
        ("tokenizer_config.json", {"model_max_length": "x"}, "model_max_length is 'x'"),
        ("tokenizer.json", None, "the tokenizer of this model does not know"),
    ],
)
def test_a_broken_model_folder_is_one_message(name, content, message, reviews, tiny_bert, tmp_path, capsys):
    shutil.copytree(tiny_bert, tmp_path / "model")
    spoil(tmp_path / "model", name, content)
    if content is None:
        (tmp_path / "model" / "tokenizer_config.json").unlink()
    model = f'model="{tmp_path / "model"}"'
    assert call("run", str(reviews), "--set", model, "--dry-run") == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_an_adapter_in_the_place_of_a_base_is_named(tiny_run, reviews, capsys):
    assert call("run", str(reviews), "--set", f'model="{tiny_run.folder}/adapter"', "--dry-run") == 2
    assert "an adapter, not a base model" in capsys.readouterr().err


def test_the_columns_of_a_test_file_are_asked_of_the_test_file(reviews, tmp_path, capsys):
    (tmp_path / "unlabelled.csv").write_text("text\nlovely\nawful\n")
    assert call("run", str(reviews), "--test", str(tmp_path / "unlabelled.csv"), "--dry-run") == 2
    assert "unlabelled.csv, split train: needs the columns of the training data" in capsys.readouterr().err


def test_a_name_that_is_no_text_is_refused_before_the_work(reviews, tmp_path, capsys):
    odd = os.fsdecode(bytes(tmp_path) + b"/n\xff.csv")
    shutil.copy(reviews, odd)
    assert call("run", odd, "--dry-run") == 2
    assert "the name is not UTF-8" in capsys.readouterr().err
    folder = tmp_path / "folder"
    for name in ("good", "bad"):
        (folder / name).mkdir(parents=True)
        (folder / name / "1.txt").write_text(name)
    os.rename(os.fsencode(folder / "bad" / "1.txt"), os.fsencode(folder / "bad") + b"/\xff.txt")
    assert call("run", str(folder), "--dry-run") == 2
    assert "the name is not UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["methods", "--json"], ["recipes", "--json"], ["metrics"]])
def test_a_terminal_without_every_letter_and_a_full_one_are_no_crash(arguments):
    command = [sys.executable, "-m", "lightune", *arguments]
    plain = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=plain, capture_output=True, check=True)
    assert "--json" not in arguments or json.loads(done.stdout)
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 3
    assert "standard output: cannot be written (No space left on device)" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_prediction_that_is_told_to_end_leaves_nothing(tiny_run, tmp_path):
    command = [sys.executable, "-m", "lightune", "predict", tiny_run.folder, "-o", str(tmp_path / "out.csv")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdin.write("lovely\n")
        process.stdin.flush()
        assert "read as one text a line" in process.stderr.readline()
        process.terminate()
        assert process.wait(60) == 143
        assert process.stderr.read() == "lightune: interrupted; no run was published and no file replaced\n"
    assert list(tmp_path.iterdir()) == []


def test_nothing_that_steers_a_terminal_reaches_it(capsys):
    told = io.StringIO()
    journal = Journal(told)
    journal.say("red \x1b[31m and \u202eback\twith a tab\nand a line")
    journal.decide(Decision("column", "\x1b[31mcol", "\u202e"))
    journal.warn("\x07")
    assert not set(told.getvalue()) & set("\x1b\x07\u202e")
    assert "red \\x1b[31m and \\u202eback" in told.getvalue()
    assert "\nand a line" in told.getvalue()
    assert cli.main(["predict", "nope\x1b[31m", "x.csv"]) == 2
    assert "\x1b" not in capsys.readouterr().err
