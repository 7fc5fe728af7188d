"""`lightune tune` from end to end on a tiny network: every key changes something, kills change nothing."""

from __future__ import annotations

import importlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import lightune
import lightune.run
from lightune.data.prepare import prepare, split_prepared
from lightune.errors import GateError, UserError
from lightune.hardware import choose_hardware
from lightune.recipe import SearchRecipe
from lightune.records import Proof
from lightune.search.bench import Bench, Stopped
from lightune.search.outcome import best_by_mean
from lightune.search.plan import Parts, SearchPlan, pinned, plan_search
from lightune.search.record import _finalist
from lightune.search.space import Choices, Range, read_space, searchable, with_values
from lightune.search.study import Study
from lightune.search.trials import Final, Finalist, seeds_apart, train_finalists
from lightune.settings import load_recipe
from lightune.training.train import count_steps
from tests.conftest import TINY_SETTINGS

QUICK = ["evidence.doctor=false", "search.rows=24", "train.learning_rate=2e-5", "data.dev_rows=32"]
KEYS = ["search.train.learning_rate={low=1e-5, high=5e-2, log=true}", "search.method.rank=[2, 8]"]


def exchange(one: Path, other: Path) -> None:
    shutil.move(one, one.with_name("kept"))
    shutil.move(other, one)
    shutil.move(one.with_name("kept"), other)


def settings(model: Path, *more: str) -> list[str]:
    return [f"model={model}", *TINY_SETTINGS, *QUICK, *KEYS, *more]


@pytest.fixture(scope="module", autouse=True)
def quickly_proved():
    """The proof, in a fresh process each time, is that of runs and tested there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["lightune.run"], "prove", lambda *args, **more: Proof(32, 0.0, 1e-4, True))
        yield


@pytest.fixture(scope="module")
def found(reviews, tiny_bert, tmp_path_factory):
    folder = tmp_path_factory.mktemp("search") / "search"
    return lightune.tune(reviews, trials=4, no_baselines=True, settings=settings(tiny_bert), output=folder)


def test_a_search_leaves_a_recipe_two_runs_and_a_page(found, tmp_path, monkeypatch):
    folder, results = Path(found.folder), found.results
    assert json.loads((folder / "search.json").read_text()) == json.loads(json.dumps(results))
    assert [trial["number"] for trial in results["trials"]] == list(range(4))
    assert results["trials"][0]["is_as_it_is"]
    assert results["trials"][0]["values"] == {"train.learning_rate": 2e-5, "method.rank": 8}
    assert results["winner"]["mean"] == min(each["mean"] for each in results["finalists"])
    assert results["winner"]["values"]["train.learning_rate"] > 2e-5  # which teaches this network next to nothing
    assert set(results["runs"]) == {"winner", "default"}
    best = load_recipe(str(folder / "best.toml")).recipe
    assert best.train.learning_rate == results["winner"]["values"]["train.learning_rate"]
    made = json.loads((folder / "winner" / "results.json").read_text())
    assert made["recipe"]["train"]["learning_rate"] == best.train.learning_rate
    assert "<h1>" in (folder / "search.html").read_text()
    assert lightune.Classifier.load(folder / "winner").predict(["the lamp is lovely"])[0].label in (
        "negative",
        "positive",
    )


def test_a_search_whose_files_are_gone_makes_them_again(found, reviews, tiny_bert, tmp_path):
    folder = tmp_path / "search"
    shutil.copytree(found.folder, folder)
    shutil.rmtree(folder / "winner")
    (folder / "best.toml").unlink()
    again = lightune.tune(reviews, trials=4, no_baselines=True, settings=settings(tiny_bert), output=folder)
    told = ("values", "losses", "mean", "wins")
    assert [again.results["winner"][key] for key in told] == [found.results["winner"][key] for key in told]
    assert again.results["gain"] == found.results["gain"]
    assert (folder / "winner" / "results.json").is_file()
    assert (folder / "best.toml").read_text() == (Path(found.folder) / "best.toml").read_text()


def test_trials_have_the_time_that_is_left_of_theirs(bench):
    recipe, space = with_values(bench.recipe, {"train.epochs": 50.0}), {"train.learning_rate": Range(1e-4, 1e-2)}
    asked, parts = SearchRecipe(trials=2), Parts(1000.0, 1000.0, None)
    fresh = plan_search(asked, space, recipe, bench, parts)
    late = plan_search(asked, space, recipe, bench, parts, time.monotonic() - 999.9)
    assert late.trial_rows < fresh.trial_rows == len(bench.splits.train)


@pytest.mark.hard
def test_the_recipe_found_runs_to_the_same_classifier(found, reviews, tmp_path):
    folder = Path(found.folder)
    again = lightune.run(folder / "best.toml", output=tmp_path / "again", no_baselines=True)
    made = json.loads((folder / "winner" / "results.json").read_text())
    assert again.results["after"] == made["after"]


def test_the_winner_is_compared_with_the_recipe_as_it_is_on_the_same_rows(found):
    runs = [json.loads((Path(found.folder) / name / "results.json").read_text()) for name in ("winner", "default")]
    accuracy = [run["after"]["accuracy"]["value"] for run in runs]
    assert found.results["gain"]["value"] == pytest.approx(accuracy[0] - accuracy[1])
    assert runs[1]["recipe"]["train"]["learning_rate"] == 2e-5
    assert found.results["verdict"].startswith("tuning gained")


def test_a_recipe_that_cannot_be_trained_as_it_is_does_not_end_the_search(reviews, tiny_bert, tmp_path, monkeypatch):
    given = [f"model={tiny_bert}", *TINY_SETTINGS, *QUICK, "seeds=2", 'method.targets=["query"]']
    tried = 'search.method.targets=[["query"], "all"]'
    train = Bench.train

    def refused(self, recipe, *rows, **more):
        if recipe.method.options.get("targets") == ["query"]:
            raise UserError("not this one")
        return train(self, recipe, *rows, **more)

    monkeypatch.setattr(Bench, "train", refused)
    made = lightune.tune(
        reviews, trials=4, no_baselines=True, settings=[*given, tried], output=tmp_path / "search"
    ).results
    assert made["trials"][0]["state"] == "failed"
    assert made["verdict"].endswith("not compared with the recipe as it is: the recipe as it is cannot be trained")
    assert set(made["runs"]) == {"winner"}
    best = load_recipe(str(tmp_path / "search" / "best.toml")).recipe
    assert (best.seeds, best.method.options["targets"]) == (2, "all")
    assert "train_rows = 237 # chosen" in (tmp_path / "search" / "best.toml").read_text()


def test_trials_never_read_test_rows(reviews, tiny_bert):
    recipe = load_recipe(str(reviews), None, settings(tiny_bert)).recipe
    data = prepare(recipe.data)
    splits = split_prepared(data, recipe.data, seed=0, device="cpu")
    bench = Bench(data, pinned(recipe, splits), splits, choose_hardware("cpu", "fp32"))
    _, rows = bench.rows(bench.recipe, 24)
    assert set(rows) == {"train", "dev"}
    part = bench.part(24)
    assert len(part.train) == 24
    assert part.test.texts == splits.test.texts
    assert part.dev.texts == splits.dev.texts
    assert not set(part.train.texts) & set(splits.test.texts)
    assert set(part.train.texts) <= set(splits.train.texts)
    loss = bench.train(bench.recipe, len(splits.train), seed=1).loss
    blank = replace(splits, test=replace(splits.test, texts=["nothing"] * len(splits.test), labels=None))
    other = Bench(data, pinned(recipe, splits), blank, choose_hardware("cpu", "fp32"))
    assert other.train(other.recipe, len(splits.train), seed=1).loss == loss


def test_what_is_over_is_not_begun_again(found, reviews, tiny_bert):
    before = sorted((str(path), path.stat().st_mtime_ns) for path in Path(found.folder).rglob("*"))
    again = lightune.tune(reviews, trials=4, no_baselines=True, settings=settings(tiny_bert), output=found.folder)
    assert again.results == json.loads(json.dumps(found.results))
    assert sorted((str(path), path.stat().st_mtime_ns) for path in Path(found.folder).rglob("*")) == before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda folder: (folder / "finals.json").write_text('{"finalists": [99]}'),
            "trial 99 was chosen, and is gone",
        ),
        (lambda folder: exchange(folder / "winner", folder / "default"), "winner: is of another recipe"),
        (lambda folder: (folder / "finals.json").write_text("{}"), "finals.json: cannot be read"),
        (lambda folder: (folder / "search.db").unlink(), "finalists were chosen, but their trials are gone"),
        (lambda folder: next((folder / "finals").glob("*.npy")).unlink(), r"\.npy: cannot be read"),
        (lambda folder: next((folder / "finals").glob("*.npy")).write_text("x"), r"\.npy: cannot be read"),
    ],
)
def test_a_damaged_folder_is_one_message(damage, message, found, reviews, tiny_bert, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(found.folder, copy)
    (copy / "search.json").write_text("{}")
    damage(copy)
    with pytest.raises(UserError, match=message):
        lightune.tune(reviews, trials=4, no_baselines=True, settings=settings(tiny_bert), output=copy)


def test_runs_on_data_that_has_changed_since_the_search_began_are_not_compared(
    reviews, tiny_bert, tmp_path, monkeypatch
):
    data = tmp_path / "reviews.csv"
    shutil.copy(reviews, data)
    module = importlib.import_module("lightune.tune")
    plain = module.choose_winner

    def edited(*given: Any) -> Any:
        data.write_text(data.read_text().replace("lovely", "lively", 1))
        return plain(*given)

    monkeypatch.setattr(module, "choose_winner", edited)
    with pytest.raises(UserError, match="the data has changed since the search began"):
        lightune.tune(data, trials=2, no_baselines=True, settings=settings(tiny_bert), output=tmp_path / "search")


def test_a_folder_of_another_search_is_left_alone(found, reviews, tiny_bert, tmp_path):
    shutil.copytree(found.folder, tmp_path / "copy")
    (tmp_path / "copy" / "search.json").unlink()
    with pytest.raises(UserError, match=r"holds a search of something else \((.*, )?seed = 0, not 1"):
        lightune.tune(reviews, seed=1, no_baselines=True, settings=settings(tiny_bert), output=tmp_path / "copy")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="output = 5: give the path of a folder"):
        lightune.tune(reviews, settings=settings(tiny_bert), output=5)
    with pytest.raises(UserError, match="holds something else than a search"):
        lightune.tune(reviews, settings=settings(tiny_bert), output=tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("search.data.max_tokens=[16, 9000]", "data.max_tokens = 9000: this model reads"),
        ("search.train.layers=[1, 40]", "train.layers = 40"),
        ('search.model=["minilm", "no/such-model"]', "no/such-model"),
    ],
)
def test_a_value_that_no_trial_could_take_is_told_before_the_work(space, message, reviews, tiny_bert, tmp_path):
    with pytest.raises(UserError, match=message):
        lightune.tune(reviews, settings=settings(tiny_bert, space), output=tmp_path / "search", offline=True)
    assert not (tmp_path / "search").exists()


@pytest.mark.hard
def test_a_gate_is_kept_and_the_search_too(reviews, tiny_bert, tmp_path):
    with pytest.raises(GateError, match="required log_loss>=5"):
        lightune.tune(
            reviews,
            trials=2,
            no_baselines=True,
            settings=settings(tiny_bert, 'evidence.require=["log_loss>=5"]'),
            output=tmp_path / "search",
        )
    assert (tmp_path / "search" / "search.json").exists()


def test_more_rows_than_there_are(reviews, tiny_bert, tmp_path):
    with pytest.raises(UserError, match=r"search.rows = 5000: there are \d+ training rows"):
        lightune.tune(reviews, settings=settings(tiny_bert, "search.rows=5000"), output=tmp_path / "search")


@pytest.mark.hard
def test_where_the_space_leaves_out_the_recipe_as_it_is_it_is_still_a_finalist(reviews, tiny_bert, tmp_path):
    chosen = [text for text in settings(tiny_bert) if not text.startswith("search.method")]
    result = lightune.tune(
        reviews,
        trials=2,
        no_baselines=True,
        settings=[*chosen, "search.method.rank=[2, 4]"],
        output=tmp_path / "search",
    )
    assert not any(trial["is_as_it_is"] for trial in result.results["trials"])
    assert result.results["finalists"][0]["name"] == "the recipe as it is"
    assert result.results["finalists"][0]["values"] == {}


# ---- every key that may be tried changes something


CHANGES: dict[str, list[Any]] = {
    "method.name": ["lora", "ia3"],
    "method.rank": [2, 8],
    "method.alpha": [1.0, 64.0],
    "method.dropout": [0.0, 0.5],
    "method.targets": ["all", "qv"],
    "method.use_rslora": [False, True],
    "method.use_dora": [False, True],
    "method.init": ["default", "gaussian"],
    "train.epochs": [1.0, 3.0],
    "train.learning_rate": [1e-3, 1e-2],
    "train.head_rate": [0.1, 10.0],
    "train.batch_size": [4, 8],
    "train.max_tokens": [8, 16],
    "train.whole_steps": [0.0, 0.9],
    "train.layers": [1, "all"],
    "train.pooler": [True, False],
    "train.warmup": [0.0, 0.9],
    "train.schedule": ["linear", "constant"],
    "train.weight_decay": [0.0, 0.9],
    "train.loss": ["cross_entropy", "focal"],
    "train.balance": ["none", "sampling"],
    "train.clip": [1e-3, 10.0],
    "data.max_tokens": [8, 32],
    "data.truncation": ["head", "tail"],
}


def test_every_key_that_may_be_tried_is_tried_here():
    assert set(searchable(["lora"])) - {"model"} == set(CHANGES)


@pytest.fixture(scope="module")
def bench(reviews, tiny_bert):

    more = ["train.max_tokens=8", "data.max_tokens=16", "train.whole_steps=0.5", "train.epochs=2"]
    recipe = load_recipe(str(reviews), None, [f"model={tiny_bert}", *TINY_SETTINGS, *more]).recipe
    data = prepare(recipe.data)
    splits = split_prepared(data, recipe.data, seed=0, device="cpu")
    return Bench(data, pinned(recipe, splits), splits, choose_hardware("cpu", "fp32"))


@pytest.mark.parametrize("key", list(CHANGES))
def test_every_key_that_may_be_tried_changes_a_trial(bench, key):
    short = key in ("data.truncation", "data.max_tokens")  # texts of some ten tokens are cut by these
    base = with_values(bench.recipe, {"data.max_tokens": 8, "train.max_tokens": "auto"} if short else {})
    tried = [bench.train(with_values(base, {key: value}), 32, seed=1) for value in CHANGES[key]]
    assert tried[0].loss != tried[1].loss


def test_the_same_seed_trains_the_same_and_another_does_not(bench):
    losses = [bench.train(bench.recipe, 32, seed=seed).loss for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


def test_another_base_model_is_another_trial(bench, tmp_path):
    from tests import tiny

    other = tiny.make("distilbert", tmp_path / "tiny-distilbert")
    tried = [
        bench.train(with_values(bench.recipe, {"model": model}), 32, seed=1)
        for model in (bench.recipe.model, str(other))
    ]
    assert tried[0].loss != tried[1].loss


def test_what_leaves_frozen_blocks_is_shared_and_changes_nothing(bench):
    recipe = with_values(bench.recipe, {"train.layers": 1})
    kept = bench.train(recipe, 32, seed=1)
    (cache,) = [cache for (reading, n), cache in bench._kept["caches"].items() if reading[-1] == 32 and n == 1][-1:]
    bench.train(recipe, 32, seed=2)
    assert cache.n_read >= 2 * 32  # of two epochs every text
    plain = bench.train(with_values(recipe, {"train.cache": False}), 32, seed=1)
    assert plain.loss == pytest.approx(kept.loss, abs=1e-5)


def test_a_trial_can_be_stopped_at_a_third_and_at_two_thirds(bench):
    seen: list[int] = []

    def stop(stage: int, loss: float) -> bool:
        seen.append(stage)
        return stage == 2

    with pytest.raises(Stopped):
        bench.train(bench.recipe, 32, seed=1, on_stage=stop)
    assert seen == [1, 2]
    seen.clear()
    bench.train(bench.recipe, 32, seed=1, on_stage=lambda stage, loss: bool(seen.append(stage)))
    assert seen == [1, 2, 3]


def test_the_loss_of_a_trial_is_that_at_its_end(bench):
    recipe = with_values(bench.recipe, {"train.learning_rate": 0.1, "train.schedule": "constant"})
    rising = 0
    for seed in range(5):
        losses: list[float] = []
        tried = bench.train(recipe, 32, seed=seed, on_stage=lambda stage, loss: bool(losses.append(loss)))  # noqa: B023
        assert tried.loss == losses[-1]
        rising += losses[-1] > min(losses)
    assert rising  # else its best would be its end


@pytest.mark.parametrize(("batch_size", "epochs"), [(4, 1.0), (5, 2.0), (7, 1.0), (32, 2.5)])
def test_reports_are_at_thirds_whatever_the_epochs(bench, batch_size, epochs, monkeypatch):
    from lightune.search import bench as module

    steps: list[int] = []
    plain = module.fine_tune

    def noted(*args: Any, on_dev: Any, looks: Any, **more: Any) -> Any:
        def note(logits: Any, step: int) -> None:
            steps.append(step)
            on_dev(logits, step)

        return plain(*args, on_dev=note, looks=looks, **more)

    monkeypatch.setattr(module, "fine_tune", noted)
    recipe = with_values(bench.recipe, {"train.batch_size": batch_size, "train.epochs": epochs})
    stages: list[int] = []
    bench.train(recipe, 32, seed=1, on_stage=lambda stage, loss: bool(stages.append(stage)))
    n_steps = count_steps(32, batch_size, epochs)
    assert steps == sorted({-(-k * n_steps // 3) for k in (1, 2, 3)})
    assert stages[-1] == 3


@pytest.mark.parametrize("task", ["regression", "ordinal", "multi_label"])
def test_every_kind_of_label_can_be_searched(task, reviews, tiny_bert, tmp_path):
    import csv

    with reviews.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for i, row in enumerate(rows):
        good = row["sentiment"] == "positive"
        row["y"] = {"regression": good + i / 1000, "ordinal": 1 + good, "multi_label": "a;b" if good else "b"}[task]
    with (tmp_path / "data.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    given = [f"model={tiny_bert}", *TINY_SETTINGS, f"data.task={task}", "data.label=y", "data.text=text"]
    recipe = load_recipe(str(tmp_path / "data.csv"), None, given).recipe
    data = prepare(recipe.data)
    splits = split_prepared(data, recipe.data, seed=0, device="cpu")
    bench = Bench(data, pinned(recipe, splits), splits, choose_hardware("cpu", "fp32"))
    go_on = lambda stage, loss: False  # noqa: E731  as a trial does
    poor = bench.train(with_values(bench.recipe, {"train.learning_rate": 1e-6}), 200, seed=1, on_stage=go_on)
    good = bench.train(bench.recipe, 200, seed=1, on_stage=go_on)
    assert good.loss < poor.loss


def test_a_recipe_that_trains_nothing_has_a_loss(bench):
    untrained = bench.train(with_values(bench.recipe, {"train.epochs": 0.0}), 32, seed=1, on_stage=lambda *at: False)
    assert 0.5 < untrained.loss < 1


def test_values_are_checked_with_the_methods_that_are_tried(bench):
    recipe = with_values(bench.recipe, {"method.name": "ia3"})
    space = read_space({"method.name": ["lora", "vera"], "method.dropout": [0.0, 0.5]}, recipe)
    assert plan_search(SearchRecipe(trials=2, rows=32), space, recipe, bench, Parts()).space == space
    odd = with_values(recipe, {"method.name": "oft"})
    blocks = read_space({"method.block_size": [7, 8]}, odd)
    with pytest.raises(UserError, match=r"method.block_size = 7 does not divide"):
        plan_search(SearchRecipe(trials=2, rows=32), blocks, odd, bench, Parts())
    own = with_values(recipe, {"method.name": "oft", "method.block_size": 7})  # which no trial has
    space = read_space({"method.block_size": [4, 8], "method.dropout": [0.0, 0.1]}, own)
    assert plan_search(SearchRecipe(trials=2, rows=32), space, own, bench, Parts()).space == space
    assert plan_search(SearchRecipe(trials=2, rows=32), blocks, odd, bench, Parts(), builds=False).space == blocks
    long = read_space({"data.max_tokens": [16, 9000]}, recipe)
    with pytest.raises(UserError, match="this model reads 64 tokens at most"):
        plan_search(SearchRecipe(trials=2, rows=32), long, recipe, bench, Parts())


def test_a_final_that_fails_is_no_end_of_the_search(bench, tmp_path):
    study = Study(tmp_path, None, {"train.learning_rate": Choices((1e-3, 1e-2))}, 1, [], 0)
    finalists = [
        Finalist(-1, {}, bench.recipe),
        Finalist(0, {"data.max_tokens": 9000}, with_values(bench.recipe, {"data.max_tokens": 9000})),
    ]
    told: list[Final] = []
    hear = lambda one, seed, final: told.append(final)  # noqa: E731
    losses = train_finalists(study, bench, finalists, [5], 32, None, hear, print)
    assert losses[0] == {5: float("inf")}
    assert sorted(final.loss for final in told) == [losses[-1][5], float("inf")]
    assert [final.why[:10] for final in told] == ["", "data.max_t"]
    assert best_by_mean(losses) == -1
    found = SimpleNamespace(losses=losses, winner=finalists[0])
    assert [_finalist(each, found)["mean"] for each in finalists] == [losses[-1][5], None]  # JSON has no infinity
    assert seeds_apart(study, bench, finalists, losses, 32).variance > 0
    study.close()


def test_the_plan_of_the_first_process_is_that_of_all(bench, tmp_path):
    space = {"train.learning_rate": Range(1e-4, 1e-2, log=True), "method.alpha": Choices((None, 8.0, ["a"]))}
    plan = SearchPlan(bench.recipe, space, [{"train.learning_rate": 1e-3, "method.alpha": None}], 100, 200)
    assert plan.settled_in(tmp_path / "plan.json") is plan
    other = replace(plan, trial_rows=50, final_rows=60, starts=[], space={})
    assert other.settled_in(tmp_path / "plan.json") == plan


# ---- time


def test_both_runs_have_the_same_time_and_work_also_after_a_kill(reviews, tiny_bert, tmp_path, monkeypatch):
    module, seen = importlib.import_module("lightune.tune"), []
    plain = module.run_recipe

    def run(checked: Any, journal: Any, *, output: Path) -> Any:
        recipe = checked.recipe
        seen.append(
            (output.name, recipe.time_budget, recipe.evidence.baselines, recipe.evidence.doctor, recipe.seeds)
        )
        if len(seen) == 2:
            raise KeyboardInterrupt
        cut = recipe.train.model_copy(update={"epochs": 0.5 * recipe.train.epochs})  # as the clock does
        recipe = recipe.model_copy(update={"time_budget": None, "train": cut})
        return plain(replace(checked, recipe=recipe), journal, output=output)

    monkeypatch.setattr(module, "run_recipe", run)
    given = {"trials": 3, "time_budget": "4m", "output": tmp_path / "search"}
    more = 'evidence.baselines=["majority"]', "seeds=2", "search.train.epochs=[6, 12]"
    given["settings"] = settings(tiny_bert, *more)
    with pytest.raises(KeyboardInterrupt):
        lightune.tune(reviews, **given)
    found = lightune.tune(reviews, **given).results
    assert [name for name, *_ in seen] == ["winner", "default", "default"]
    (first,) = {tuple(map(str, rest)) for _, *rest in seen}
    assert 60 <= float(first[0].removesuffix("s")) <= 120  # a quarter at least, and half of what is left
    assert first[1:] == ("['majority']", "False", "1")
    assert found["verdict"].startswith("tuning gained")


# ---- kills


def command(reviews: Path, model: Path, folder: Path, n_trials: int) -> list[str]:
    given = [word for text in settings(model) for word in ("--set", text)]
    return [
        *(sys.executable, "-m", "lightune", "tune", str(reviews), "--trials", str(n_trials), "--no-baselines"),
        *("--output", str(folder), "--json", *given),
    ]


@pytest.mark.hard
def test_twenty_kills_change_nothing(reviews, tiny_bert, tmp_path):
    whole = subprocess.run(
        command(reviews, tiny_bert, tmp_path / "whole", 8), capture_output=True, text=True, check=True
    )
    expected = json.loads(whole.stdout)
    rng, kills = random.Random(0), 0
    while kills < 20:
        process = subprocess.Popen(
            command(reviews, tiny_bert, tmp_path / "cut", 8), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(rng.uniform(4, 14))  # from the first imports to the last run
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            continue
        break
    else:
        subprocess.run(command(reviews, tiny_bert, tmp_path / "cut", 8), capture_output=True, check=True)
    assert kills == 20, "it ended before: let it be killed sooner"
    found = json.loads((tmp_path / "cut" / "search.json").read_text())
    keys = ("number", "values", "state", "loss", "reports")
    assert [[t[k] for k in keys] for t in found["trials"]] == [[t[k] for k in keys] for t in expected["trials"]]
    assert found["winner"] == expected["winner"]
    assert found["gain"] == expected["gain"]
    import optuna

    trials = optuna.load_study(study_name="trials", storage=f"sqlite:///{tmp_path / 'cut' / 'search.db'}").trials
    assert not [t for t in trials if t.state.name in ("RUNNING", "WAITING")]


@pytest.mark.hard
def test_eight_searches_started_at_once_are_one(reviews, tiny_bert, tmp_path):
    started = [
        subprocess.Popen(
            command(reviews, tiny_bert, tmp_path / "search", 12),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    answers = [process.communicate(timeout=900) for process in started]
    assert [process.returncode for process in started] == [0] * 8, [error[-500:] for _, error in answers]
    found = [json.loads(out) for out, _ in answers]
    assert all(each["winner"] == found[0]["winner"] for each in found)
    assert [trial["number"] for trial in found[0]["trials"]] == list(range(12))


GROWTH = """
import io, sys, lightune
from lightune.journal import Journal

class Weighed(Journal):
    seen = []

    def say(self, text=""):
        if text.startswith("  trial ") and " of 110" in text:
            lines = open("/proc/self/status").read().splitlines()
            self.seen.append(int(next(line for line in lines if line.startswith("VmRSS")).split()[1]))

reviews, folder, *settings = sys.argv[1:]
journal = Weighed(io.StringIO())
lightune.tune(reviews, trials=110, no_runs=True, settings=settings, output=folder, journal=journal)
print(journal.seen[19], journal.seen[-1], len(journal.seen))
"""


@pytest.mark.hard
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads what Linux tells of a process")
def test_memory_does_not_grow_over_a_hundred_trials(reviews, tiny_bert, tmp_path):
    arguments = [str(reviews), str(tmp_path / "search"), *settings(tiny_bert, "train.epochs=2")]
    done = subprocess.run([sys.executable, "-c", GROWTH, *arguments], capture_output=True, text=True, check=True)
    after_20, after_110, n_trials = map(int, done.stdout.split()[-3:])
    assert n_trials == 110
    assert after_110 < 1.03 * after_20  # 600 MiB, so 18 MiB in 90 trials, most of it Optuna's own records
