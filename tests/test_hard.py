"""Long tests, for `make test-hard`: the embedded default with real weights and real reviews, on few rows."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

import lightune
from lightune.journal import Journal

pytestmark = pytest.mark.hard

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
FEW = {"data.train_rows": 800, "data.dev_rows": 100, "data.test_rows": 300, "data.max_tokens": 128}


@pytest.fixture(scope="module")
def small_default(tmp_path_factory):
    output = tmp_path_factory.mktemp("hard") / "imdb"
    return lightune.run(settings=FEW, output=str(output), journal=Journal(io.StringIO()))


def test_real_reviews_are_learnt_from_a_few_hundred(small_default):
    before, after = (small_default.results[when]["accuracy"] for when in ("before", "after"))
    assert 0.4 < before["value"] < 0.6
    assert after["low"] > before["high"]
    assert after["value"] > 0.7


@pytest.mark.parametrize("preset", [None, "fast"])
def test_a_time_budget_that_presses_is_kept(preset, tmp_path):
    """A hundred epochs into 75 seconds: the clock ends the training, and all that follows fits."""
    few = FEW | {"data.test_rows": 100, "data.max_tokens": 64}  # a slow core has time for more than answers, too
    few |= {"train.epochs": 100.0, "train.max_tokens": "auto", "train.patience": 1000}
    options = {"settings": few, "preset": preset, "time_budget": "75s", "output": tmp_path / "run"}
    results = lightune.run(**options, journal=Journal(io.StringIO())).results
    assert 0.7 * 75 < results["seconds"]["total"] < 1.1 * 75, results["seconds"]
    assert results["recipe"]["train"]["epochs"] < 100


def test_the_estimate_is_of_the_right_size(small_default):
    results = small_default.results
    spent = sum(results["seconds"][phase] for phase in ("before", "train", "after", "proof"))
    assert 0.3 < results["estimated_seconds"] / spent < 3


def test_the_fast_paths_were_taken_and_proved_on_real_texts(small_default):
    choices = {decision["what"]: decision["choice"] for decision in small_default.results["decisions"]}
    assert choices["last block"] == "first token only"
    is_fp32 = choices["precision"] == "fp32"
    assert choices["LoRA"] == ("added to the weights" if is_fp32 else "plain")
    assert small_default.results["proof"]["max_logit_difference"] < (1e-4 if is_fp32 else 2e-2)


def test_a_review_is_answered_like_in_the_run(small_default):
    classifier = lightune.Classifier.load(small_default.folder)
    answers = classifier.predict(
        ["A masterpiece. I loved every minute of it.", "Dull, badly acted and far too long."]
    )
    assert [answer.label for answer in answers] == ["positive", "negative"]
    contract = json.loads((Path(small_default.folder) / "adapter" / "contract.json").read_text())
    assert contract["label"] == "label"
    assert "adapter_model.safetensors" in contract["files"]


def test_labelling_a_large_file_takes_no_more_memory_than_a_small_one(small_default):
    subprocess.run([sys.executable, str(BENCHMARKS / "predict_memory.py"), str(small_default.folder)], check=True)


def test_a_run_on_a_million_rows_takes_about_the_memory_of_one_on_few():
    subprocess.run([sys.executable, str(BENCHMARKS / "big_data.py"), "1000000", "20000"], check=True)
