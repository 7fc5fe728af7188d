"""The origin report's job, end to end, against a Hub on loopback: online once, then from the cache, offline."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import hub_server as hub
from tests.test_use import run_card

SETTINGS = ["data.train_rows=240", "data.dev_rows=20", "data.test_rows=40", "data.max_tokens=32"]
ROWS = [part for setting in SETTINGS for part in ("--set", setting)]
SETTINGS += ["train.learning_rate=5e-3", "train.epochs=3", "train.batch_size=8"]


def lightune(*arguments: str, env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lightune", *arguments]
    return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, check=False, timeout=300)


def run_recipe(*more: str, env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    options = [part for setting in SETTINGS for part in ("--set", setting)]
    return lightune("run", "amazon-distilbert", *options, "--json", *more, env=env, cwd=cwd)


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The recipe's run online, and a second one offline with the Hub gone."""
    root, work = tmp_path_factory.mktemp("hub"), tmp_path_factory.mktemp("work")
    hub.write_tiny_distilbert(root / "models" / hub.MODEL_ID)
    hub.write_amazon_polarity(root / "datasets" / hub.DATASET_ID, 400, 60)
    with hub.hub_server(root) as server:
        env = hub.environment(server.url, work)
        dry = lightune("run", "amazon-distilbert", "--dry-run", *ROWS, env=env, cwd=work)  # as README shows it
        assert dry.returncode == 0, dry.stderr
        assert "240 training, 20 dev and 40 test rows" in dry.stdout
        first = run_recipe("--output", "first", env=env, cwd=work)
        refused = hub.refused_hosts(work)
    second = run_recipe("--output", "second", "--offline", env=env, cwd=work)
    return root, work, first, second, env, refused


def test_the_recipe_runs_from_the_hub_and_learns(served):
    _, _, first, *_ = served
    assert first.returncode == 0, first.stderr
    results = json.loads(first.stdout)
    assert results["labels"] == ["negative", "positive"]
    assert results["n_test"] == 40
    assert results["after"]["accuracy"]["value"] > 0.85
    assert "before" in first.stderr.lower()  # people read standard error, programs standard output


def test_the_revisions_are_resolved_and_recorded(served):
    root, work, first, *_ = served
    results = json.loads(first.stdout)
    assert results["data"]["revision"] == hub.read_repository(root, "datasets", hub.DATASET_ID).sha
    assert results["model"]["revision"] == hub.read_repository(root, "models", hub.MODEL_ID).sha
    recipe = (work / "first" / "recipe.toml").read_text()
    assert f"{hub.DATASET_ID}@{results['data']['revision']}" in recipe
    assert f"{hub.MODEL_ID}@{results['model']['revision']}" in recipe
    config = json.loads((work / "first" / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == hub.MODEL_ID
    assert config["revision"] == results["model"]["revision"]


def test_nothing_but_the_hub_was_asked(served):
    *_, refused = served
    assert refused == []


def test_offline_from_the_cache_it_gives_the_same_adapter(served):
    _, work, _, second, *_ = served
    assert second.returncode == 0, second.stderr
    assert digest(work / "first") == digest(work / "second")


def test_pefts_own_loader_finds_base_and_revision_offline(served):
    _, work, _, _, env, _ = served
    script = (
        "import json, torch\n"
        "from peft import AutoPeftModelForSequenceClassification\n"
        "from transformers import AutoTokenizer\n"
        "model = AutoPeftModelForSequenceClassification.from_pretrained('first/adapter', num_labels=2)\n"
        "tokenizer = AutoTokenizer.from_pretrained('first/adapter')\n"
        "print(model(**tokenizer(['splendid'], return_tensors='pt')).logits.shape)\n"
    )
    offline = env | {"HF_HUB_OFFLINE": "1"}
    process = subprocess.run(
        [sys.executable, "-c", script], cwd=work, env=offline, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    assert "torch.Size([1, 2])" in process.stdout


@pytest.mark.parametrize("setting", ["model=nobody/nothing", "data.source=nobody/nothing"])
def test_what_is_not_in_the_cache_offline_is_one_message(served, setting):
    _, work, _, _, env, _ = served
    process = run_recipe("--set", setting, "--offline", env=env, cwd=work)
    assert process.returncode == 2
    assert "nobody/nothing" in process.stderr
    assert "Traceback" not in process.stderr
    assert not list((work / "runs").glob("*")) if (work / "runs").exists() else True


def test_a_hub_that_is_gone_leaves_the_cache(served):
    _, work, _, _, env, _ = served  # the server has stopped
    again = run_recipe("--output", "third", env=env | {"HF_HUB_OFFLINE": "0"}, cwd=work)
    assert again.returncode == 0, again.stderr
    assert digest(work / "third") == digest(work / "first")
    absent = run_recipe("--set", "data.source=nobody/nothing", env=env | {"HF_HUB_OFFLINE": "0"}, cwd=work)
    assert absent.returncode == 2
    assert "the Hub cannot be reached" in absent.stderr


def test_the_cards_lines_work_from_the_cache(served):
    _, work, _, _, env, _ = served
    process = run_card(work / "first", "a splendid lamp", env | {"HF_HUB_OFFLINE": "1"})
    assert process.returncode == 0, process.stderr[-2000:]
    assert "positive" in process.stdout
