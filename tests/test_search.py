"""What may be tried, the study that outlives its processes, and what is said of a winner."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sqlalchemy.exc import SQLAlchemyError

from lightune.errors import GateError, UserError
from lightune.evidence.seeds import Between, between_seeds, gain_of_recipes
from lightune.evidence.verdict import compare
from lightune.journal import Journal
from lightune.model import methods
from lightune.recipe import Recipe, SearchRecipe, check_recipe
from lightune.records import Plan, Score
from lightune.report.search_screen import Board, _table
from lightune.search import outcome
from lightune.search.bench import Tried, lack_of_fit
from lightune.search.outcome import best_by_mean, expected_luck
from lightune.search.plan import Parts, SearchPlan, first_trials, time_parts
from lightune.search.record import Made, _n_others, _trial
from lightune.search.space import Choices, Range, default_space, read_space, with_values
from lightune.search.storage import check_storage, quiet_optuna, storage_errors, without_password
from lightune.search.study import ATTEMPTS, MOST_DEATHS, Study, covered, seed_of
from lightune.search.trials import Finalist, choose_finalists, train_finalists, try_all
from lightune.settings import load_recipe

SPACE = {"train.learning_rate": Range(1e-4, 1e-2, log=True), "method.rank": Choices((4, 8, 16))}


# ---- what may be tried


def test_a_search_table_is_read_from_a_recipe_and_from_the_command_line(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        '[search]\ntrials = 5\n"train.layers" = ["all", 2]\n'
        "train.learning_rate = {low = 1e-4, high = 1e-2, log = true}\n"
    )
    search = load_recipe(str(path), None, ["search.method.rank=[2, 4]", "search.fresh_seeds=3"]).search
    assert (search.trials, search.fresh_seeds, search.finalists) == (5, 3, SearchRecipe().finalists)
    assert search.space == {
        "train.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "train.layers": ["all", 2],
        "method.rank": [2, 4],
    }
    space = read_space(search.space, Recipe())
    assert space["train.learning_rate"] == Range(1e-4, 1e-2, log=True)
    assert space["train.layers"].values == ("all", 2)


def test_what_is_typed_takes_the_place_of_what_the_table_says(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('[search]\ntrain.epochs = {low = 1, high = 5, step = 1}\n"train.layers" = ["all", 2]\n')
    typed = ["search.train.epochs={low=1, high=3, log=true}", "search.train.layers=[1, 2]"]
    as_dictionary = {"search": {"train": {"epochs": {"low": 1, "high": 3, "log": True}, "layers": [1, 2]}}}
    for settings in (typed, as_dictionary):
        space = load_recipe(str(path), None, settings).search.space
        assert space == {"train.epochs": {"low": 1, "high": 3, "log": True}, "train.layers": [1, 2]}


def test_a_number_of_many_digits_stays_in_its_range():
    rates = Range(1.2345e-4, 9.8765e-3, log=True)
    assert (rates.as_value(1.2345e-4), rates.as_value(9.8765e-3)) == (1.2345e-4, 9.8765e-3)
    assert rates.as_value(1.23456e-3) == 1.23e-3


@pytest.mark.parametrize("key", ["method.rank", "data.max_tokens", "train.batch_size", "train.epochs"])
@pytest.mark.parametrize("width", [1, 2, 3, 4, 7, 10, 12, 20, 60, 320])
def test_ranges_of_any_width(key, width):
    space = read_space({key: {"low": 8, "high": 8 + width}}, Recipe())
    assert space[key].whole == (key != "train.epochs")


def test_a_range_may_hold_numbers_of_numpy_and_is_given_whole():
    given = {"search.method.rank": {"low": np.int64(4), "high": np.int64(15)}}
    assert read_space(load_recipe(None, None, given).search.space, Recipe())["method.rank"] == Range(
        4, 15, whole=True
    )
    halves = load_recipe(None, None, ["search.train.epochs.low=1", "search.train.epochs.high=3"]).search.space
    with pytest.raises(
        UserError, match=r"search.train.epochs.low: give the range whole, such as search.train.epochs ="
    ):
        read_space(halves, Recipe())


def test_a_narrow_range_is_not_taken_for_one_of_whole_numbers():
    space = read_space({"train.whole_steps": {"low": 0.999, "high": 1.0}}, Recipe())
    assert not space["train.whole_steps"].whole


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (
            {"train.learning_rte": [1, 2]},
            r"search.train.learning_rte: no such key in a recipe. Did you mean 'train.lear",
        ),
        ({"trails": 20}, "search.trails: no such key. Did you mean 'trials'"),
        ({"train.learning_rte": 1e-3}, "no such key in a recipe. Did you mean 'train.learning_rate'"),
        ({"seed": [1, 2]}, r"search.seed: cannot be searched.* What can: model, method.name"),
        ({"train.cache": [True, False]}, "it changes time and memory, and no answer: there is nothing to find"),
        ({"train.patience": [1, 2]}, "in a trial dev rows are looked at as the search says"),
        ({"train.epochs": [1.0]}, r"search.train.epochs = \[1.0\]: give two different values or more"),
        ({"train.epochs": 2}, "give a list of values, or a range such as"),
        ({"train.epochs": {"low": 2, "high": 2}}, "low = 2, high = 2: an empty range"),
        ({"train.epochs": {"low": 3, "high": 2}}, "an empty range. Low must be less than high"),
        ({"train.epochs": {"low": 1}}, "a range needs low and high"),
        ({"train.epochs": {"low": "a", "high": "b"}}, "low = 'a', high = 'b': a range is of numbers"),
        ({"train.cache": [True]}, "it changes time and memory"),
        ({"train.epochs": {"low": 0, "high": 2, "log": True}}, "a logarithmic scale needs low above 0"),
        ({"train.epochs": {"low": 1, "high": 2, "step": 5}}, "that is one value only"),
        ({"train.epochs": {"low": 1, "high": 2, "lgo": True}}, r"a range has low, high, log and step, not \['lgo'\]"),
        ({"train.learning_rate": {"low": 0.1, "high": 7}}, r"train.learning_rate = 7.*less than or equal to 1"),
        ({"train.schedule": ["linear", "wavy"]}, "train.schedule = 'wavy'"),
        ({"train.batch_size": {"low": 8.5, "high": 16}}, "train.batch_size = 8.5: should be a valid integer"),
        ({"train.batch_size": {"low": 8, "high": 16, "step": 0.5}}, "takes whole numbers"),
        ({"method.rank": [0, 4]}, r"method.rank = 0"),
        ({"method.name": ["lora", "lra"]}, r"no such method. Did you mean 'lora'"),
        ({"method.name": ["lora", "ia3"], "method.rank": [4, 8]}, "method.rank: ia3 has no such option"),
        ({"method.name": ["head", "prompt"], "train.layers": [1, 2]}, "head, prompt works on the whole network"),
    ],
)
def test_what_cannot_be_searched_is_one_message(written, message):
    with pytest.raises(UserError, match=message):
        read_space(written, Recipe())


def test_a_mistake_in_the_table_is_told_before_the_work(capsys, tmp_path, monkeypatch):
    from lightune.cli import main

    monkeypatch.chdir(tmp_path)
    assert main(["tune", "--set", "search.train.epochs=[]"]) == 2
    assert "give two different values or more" in capsys.readouterr().err
    assert main(["tune", "--trials", "0"]) == 2
    assert "search.trials = 0: should be greater" in capsys.readouterr().err
    assert main(["tune", "--set", "search.rows=0"]) == 2
    assert "search.rows = 0: should be 'auto', or should be greater" in capsys.readouterr().err
    assert main(["tune", "--set", "search.trails=5"]) == 2
    assert "search.trails: no such key. Did you mean 'trials'? Known: trials" in capsys.readouterr().err
    assert main(["tune", "--set", "search.learning_rate.low=1"]) == 2
    assert "give the range whole" in capsys.readouterr().err
    assert main(["tune", "--set", "search=5"]) == 2
    assert "search: is a table. Set a key of it" in capsys.readouterr().err
    assert main(["tune", "--set", "search.learning_rate=[1e-3,1e-4]"]) == 2
    assert "Did you mean 'search.train.learning_rate'?" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_whole_numbers_stay_whole():
    space = read_space(
        {"train.batch_size": {"low": 8, "high": 64, "log": True}, "train.head_rate": [0.5, 2]}, Recipe()
    )
    assert space["train.batch_size"].whole
    with quiet_optuna():
        import optuna

        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        for _ in range(5):
            value = space["train.batch_size"].suggest(study.ask(), "train.batch_size")
            assert isinstance(value, int)
            assert with_values(Recipe(), {"train.batch_size": value}).train.batch_size == value


def test_a_range_suits_all_methods_that_are_tried():
    recipe = check_recipe({"method": {"name": "ia3"}})
    space = read_space({"method.name": ["lora", "vera"], "method.dropout": {"low": 0.0, "high": 0.5}}, recipe)
    assert not space["method.dropout"].whole
    assert 0.3 in Range(0.0, 0.5, step=0.1)


def test_every_value_of_every_kind_survives_optuna():
    import optuna

    choices = Choices((None, True, 3, 2.5, "all", ["query", "value"]))
    trial = optuna.trial.FixedTrial({"method.targets": choices.as_parameter(["query", "value"])})
    assert choices.suggest(trial, "method.targets") == ["query", "value"]
    assert [choices.as_value(choices.as_parameter(value)) for value in choices.values] == list(choices.values)
    assert ["query", "value"] in choices
    assert ["key"] not in choices
    numbers = Range(0.0, 1.0, step=0.25)
    assert 0.75 in numbers
    assert 0.7 not in numbers
    assert True not in numbers


def test_layers_are_for_those_of_the_methods_that_can_be_kept_to_some():
    space = read_space({"method.name": ["lora", "head"], "train.layers": ["all", 2]}, Recipe())
    assert set(space) == {"method.name", "train.layers"}
    tried = [with_values(Recipe(), {"method.name": name, "train.layers": 2}) for name in ("lora", "head")]
    assert [recipe.train.layers for recipe in tried] == [2, "all"]


def test_another_method_starts_from_its_own_options_and_rate():
    recipe = check_recipe({"method": {"name": "lora", "rank": 64}, "train": {"learning_rate": 2e-5}})
    other = with_values(recipe, {"method.name": "ia3"})
    assert (other.method.options, other.train.learning_rate) == ({}, "auto")
    same = with_values(recipe, {"method.name": "lora"})
    assert (same.method.options["rank"], same.train.learning_rate) == (64, 2e-5)


@pytest.mark.parametrize("name", list(methods.METHODS))
@pytest.mark.parametrize("n_trials", [1, 12, 30, 100])
def test_the_own_space_is_one_that_a_recipe_takes(name, n_trials):
    recipe = check_recipe({"method": {"name": name}})
    plan = Plan(2.0, 2.36e-5, 1024, False)
    space = default_space(recipe, plan, 5e-4, 6, n_trials, "single_label")
    assert next(iter(space)) == "train.learning_rate"
    assert 2.36e-5 in space["train.learning_rate"]  # where it starts is inside
    assert len(space) >= 2
    written = {
        key: list(domain.values) if isinstance(domain, Choices) else {"low": domain.low, "high": domain.high}
        for key, domain in space.items()
    }
    assert set(read_space(written, recipe)) == set(space)


def test_more_trials_try_more_keys():
    sizes = [
        len(default_space(Recipe(), Plan(1.0, 1e-3, 1024, False), 1e-3, 6, n, "single_label")) for n in (4, 12, 100)
    ]
    assert sizes == [2, 3, 11]


def test_the_first_trials_change_one_thing_each():
    recipe = check_recipe({"method": {"name": "lora", "rank": 8}, "train": {"layers": 4}})
    space = default_space(recipe, Plan(1.5, 2e-3, 1024, False, layers=4), 1e-3, 6, 16, "single_label")
    own = {"train.learning_rate": 2e-3, "train.epochs": 1.5, "train.layers": 4, "method.rank": 8}
    assert list(space) == list(own)
    rate = {"train.learning_rate": 1e-3}
    changes = [{"train.epochs": 3.0}, rate, {"train.layers": "all"}, {"method.rank": 16}]
    assert first_trials(own, space, 1e-3, alone=True) == [own, *changes]
    assert first_trials(own, space, 1e-3, alone=False) == [own, rate]
    assert first_trials(own | {"train.layers": 5}, space, 1e-3, alone=True) == []  # which none of the trials could be
    assert first_trials(own, space, 2e-3, alone=False) == [own]


def test_a_rate_is_judged_where_a_training_is_long_enough():
    keys = "train.learning_rate", "train.epochs", "train.layers"
    space = default_space(Recipe(), Plan(1.0, 2e-3, 1024, False), 1e-3, 6, 12, "single_label")
    assert tuple(space) == keys
    near, far = dict(zip(keys, (2e-3, 1.0, "all"), strict=True)), dict(zip(keys, (2e-5, 1.0, "all"), strict=True))
    assert [next(iter(start)) for start in first_trials(near, space, 1e-3, alone=True)[1:]] == [
        keys[1],
        keys[0],
        keys[2],
    ]
    wide = default_space(Recipe(), Plan(1.0, 2e-5, 1024, False), 1e-3, 6, 12, "single_label")
    assert [next(iter(start)) for start in first_trials(far, wide, 1e-3, alone=True)[1:]] == list(keys)


def test_what_leaves_no_choice_is_not_tried():
    plan = Plan(1000.0, 1e-3, 1024, False)
    space = default_space(Recipe(), plan, 1e-3, 1, 40, "single_label")
    assert not {"train.layers", "train.epochs"} & set(space)
    own = dict.fromkeys(space, 1e-3) | {
        key: domain.values[0] for key, domain in space.items() if key != next(iter(space))
    }
    assert len(first_trials(own, space, 1e-3, alone=True)) == len(space)


def test_a_method_without_layers_takes_them_all():
    recipe = check_recipe({"train": {"layers": 2}})
    assert with_values(recipe, {"method.name": "head"}).train.layers == "all"
    assert with_values(recipe, {"method.name": "ia3"}).train.layers == 2


def test_a_budget_that_is_too_little_for_two_runs_is_told_before_the_work():
    with pytest.raises(
        UserError, match=r"of 1 min 00 s each of the two runs .* would have 15 s.* Ask for 3m or more, or"
    ):
        time_parts(60.0, with_runs=True)
    assert time_parts(60.0, with_runs=False) == Parts(36.0, 24.0, None)
    assert time_parts(180.0, with_runs=True).run == 45.0


# ---- the study


def make_study(folder: Path, n_trials: int = 8, seed: int = 0, **more: Any) -> Study:
    return Study(folder, None, SPACE, n_trials, [{"train.learning_rate": 1e-3, "method.rank": 8}], seed, **more)


def quality(values: dict[str, Any], seed: int) -> float:
    """A made-up loss: best at a rate of 3e-3 and a rank of 16."""
    noise = np.random.default_rng(seed).normal() * 0.01
    return float(abs(np.log10(values["train.learning_rate"] / 3e-3)) + 0.1 * (values["method.rank"] != 16) + noise)


def run_trials(study: Study, pause: float = 0.0) -> None:
    while (attempt := study.next()) is not None:
        loss = quality(attempt.values, seed_of("quality", attempt.number))
        for stage in (1, 2, 3):
            time.sleep(pause)
            if study.report(attempt, stage, loss + 0.1 / stage):
                study.finish(attempt, None, {"seconds": 1.0})
                break
        else:
            study.finish(attempt, loss, {"seconds": 1.0, "scores": {"accuracy": 0.9}})


def told(study: Study) -> list[tuple[Any, ...]]:
    return [(t.number, t.values, t.state, t.loss, t.reports) for t in study.settled()]


def test_trials_start_with_the_recipe_as_it_is_and_some_are_stopped(tmp_path):
    study = make_study(tmp_path, 16)
    run_trials(study)
    trials = study.settled()
    assert study.is_over
    assert [trial.number for trial in trials] == list(range(16))
    assert trials[0].values == {"train.learning_rate": 1e-3, "method.rank": 8}
    assert trials[0].state == "complete"
    assert {trial.state for trial in trials} == {"complete", "stopped"}
    assert min(t.loss for t in trials if t.loss is not None) < trials[0].loss
    assert set(study.importances()) == set(SPACE)
    study.close()
    assert make_study(tmp_path).n_alive() == 1


def test_the_time_of_a_search_is_that_in_which_any_process_was_at_it(tmp_path):
    assert covered([(0, 10), (5, 12), (20, 21), (6, 7)]) == 13
    now = time.time()
    first = make_study(tmp_path, began=now - 100)
    (killed,) = (tmp_path / "workers").iterdir()
    os.close(first._held)
    killed.write_text(f"{now - 70:.3f}")  # the last that was heard of it
    both = [make_study(tmp_path, began=now - 50) for _ in range(2)]
    assert both[0].spent() == pytest.approx(30 + 50, abs=2)
    assert both[0].n_alive() == 2
    both[1].close()
    assert both[0].n_alive() == 1
    assert both[0].spent() == pytest.approx(80, abs=2)


def test_a_search_goes_on_as_if_it_had_not_been_cut_off(tmp_path):
    whole = make_study(tmp_path / "whole")
    run_trials(whole)
    for cut in range(8):
        study = make_study(tmp_path / "cut")
        attempt = study.next()
        assert attempt is not None
        assert attempt.number == cut
        study.report(attempt, 1, -5.0)  # a report that would stop all others, were it counted
        os.close(study._held)  # as at the end of a process that was killed
        again = make_study(tmp_path / "cut")
        attempt = again.next()
        assert attempt is not None
        assert attempt.number == cut
        loss = quality(attempt.values, seed_of("quality", attempt.number))
        stopped = next((s for s in (1, 2, 3) if again.report(attempt, s, loss + 0.1 / s)), None)
        again.finish(attempt, None if stopped else loss, {"seconds": 1.0})
        os.close(again._held)
    last = make_study(tmp_path / "cut")
    assert last.next() is None
    assert told(last) == told(whole)
    with quiet_optuna():
        assert not [t for t in last._trials.get_trials() if t.state.name in ("RUNNING", "WAITING")]


def test_a_rate_of_many_digits_is_the_same_before_a_kill_and_after_it(tmp_path):
    starts = [{"train.learning_rate": 1.23456e-3, "method.rank": 8}, {"train.learning_rate": 2.34567e-3}]
    seen = []
    for _ in range(4):
        study = Study(tmp_path, None, SPACE, 2, starts, 0)
        attempt = study.next()
        seen.append((attempt.number, attempt.values["train.learning_rate"]))
        if len(seen) % 2 == 0:
            study.finish(attempt, 0.5, {})
        os.close(study._held)  # as at the end of a process, killed or not
    assert seen == [(0, 1.23e-3)] * 2 + [(1, 2.35e-3)] * 2
    assert [trial.values["train.learning_rate"] for trial in study.settled()] == [1.23e-3, 2.35e-3]


class Trainings:
    """A bench that trains nothing: what comes of one training after the other, a loss or an error."""

    def __init__(self, *outcomes: float | Exception):
        self.outcomes = list(outcomes)

    def train(self, recipe: Recipe, n_rows: int, *, seed: int, on_stage: Any = None) -> Tried:
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return Tried(np.zeros((1, 2)), outcome, {}, 1.0, 1)


def tried_until(study: Study, deadline: float | None, *losses: float) -> list[int]:
    try_all(study, Trainings(*losses), Recipe(), 1, deadline, lambda *told: None, lambda what: None)
    return [trial.number for trial in study.settled()]


def test_no_trial_begins_when_their_time_is_over_but_one_has_to_be_there(tmp_path):
    study = make_study(tmp_path, 5)
    assert tried_until(study, time.monotonic() - 1, 0.5) == [0]
    assert tried_until(study, time.monotonic() - 1) == [0]
    assert tried_until(study, time.monotonic() + 60, 0.4, 0.3, 0.2, 0.1) == [0, 1, 2, 3, 4]


def test_what_ends_after_the_finalists_are_chosen_changes_nothing(tmp_path):
    study = Study(tmp_path, None, {"method.rank": Choices((4, 8))}, 4, [{"method.rank": 8}], 0)
    late = []
    for loss in (0.5, 0.4, 0.3, None):
        attempt = study.next()
        if loss is None or (attempt.values["method.rank"] == 4 and late == []):
            late.append(attempt)  # still under way
        else:
            study.finish(attempt, loss, {})
    chosen, counted = choose_finalists(study, Recipe(), 2), study.settled()
    assert late
    for attempt in late:
        study.finish(attempt, 0.1, {})
    assert study.settled() == counted
    assert choose_finalists(study, Recipe(), 2) == chosen
    assert study.is_closed
    assert tried_until(make_study(tmp_path, 9), None) == [trial.number for trial in counted]  # no trial more


def test_whatever_a_process_does_is_a_sign_of_life(tmp_path):
    study = make_study(tmp_path, 4, began=time.time() - 100)
    (mark,) = (tmp_path / "workers").iterdir()

    def is_seen(act: Callable[[], Any]) -> bool:
        mark.write_text("1.0")
        act()
        return float(mark.read_text()) > 1.0

    first, second = study.next(), study.next()
    assert is_seen(lambda: study.report(first, 1, 0.5))
    assert is_seen(lambda: study.finish(first, 0.5, {}))
    assert is_seen(lambda: study.fail(second, "no memory", again=True))
    assert is_seen(lambda: study.finish_final(0, 7, 0.5))
    assert is_seen(study.close)


def test_importances_are_those_of_the_trials_that_count(tmp_path):
    study = make_study(tmp_path, 8)
    run_trials(study)
    known = study.importances()
    assert set(known) == set(SPACE)
    counted = [trial.number for trial in study.settled()][:4]
    study.closing.write_text(json.dumps({"finalists": [], "trials": counted}))
    assert study.importances() == {}  # of four there is nothing to say


def test_a_trial_that_ends_after_the_finalists_were_chosen_is_told_as_such(tmp_path):
    study, said = make_study(tmp_path, 3), []

    class Meanwhile(Trainings):
        def train(self, *given: Any, **more: Any) -> Tried:
            if len(self.outcomes) == 1:
                choose_finalists(make_study(tmp_path, 3), Recipe(), 2)
            return super().train(*given, **more)

    board = Board(Journal(quiet=True), study)
    try_all(study, Meanwhile(0.5, 0.4), Recipe(), 1, None, board.tell, said.append)
    assert said == ["the finals: it chose the finalists before trial 2 was over"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SQLAlchemyError("gone")])
def test_a_full_disk_is_no_fault_of_a_recipe(error, tmp_path):
    study = make_study(tmp_path, 2)
    with pytest.raises(type(error)):
        tried_until(study, None, 0.5, error)
    os.close(study._held)
    assert tried_until(make_study(tmp_path, 2), None, 0.4) == [0, 1]


def test_what_breaks_off_says_which_and_why(tmp_path, capsys):
    study, journal = make_study(tmp_path, 1), Journal()
    board = Board(journal, study)
    try_all(study, Trainings(RuntimeError("no\nmemory"), 0.5), Recipe(), 1, None, board.tell, print)
    assert (
        "trial 1 broke off: RuntimeError: no; it is tried once more\n  trial 1 of 1: dev" in capsys.readouterr().out
    )
    finalist, bench = Finalist(0, {}, Recipe()), Trainings(RuntimeError("no memory"), RuntimeError("no memory"))
    train_finalists(study, bench, [finalist], [7], 1, None, board.tell_final, print)
    assert "the recipe as it is, seed 7: cannot be trained: RuntimeError: no memory" in capsys.readouterr().out


def test_the_time_left_is_no_longer_than_that_for_trials(tmp_path):
    study = make_study(tmp_path, 100)
    tried_until(study, time.monotonic() - 1, 0.5)  # which takes a second
    settled = study.settled()
    assert "about 1 min 39 s left" in str(_table(settled, None, study, None).renderables[0])
    assert "about 12 s left" in str(_table(settled, None, study, 12.0).renderables[0])


def test_finals_end_with_their_time_and_are_the_same_after_a_kill(tmp_path):
    study = make_study(tmp_path, 1)
    base, other = (Finalist(n, {"method.rank": 4} if n else {}, Recipe()) for n in (0, 1))

    def losses(finalists: Sequence[Finalist], seconds_left: float, *outcomes: float) -> Any:
        bench, deadline = Trainings(*outcomes), time.monotonic() + seconds_left
        found = train_finalists(study, bench, finalists, [5, 6], 1, deadline, lambda *told: None, lambda what: None)
        assert bench.outcomes == []
        return found

    assert losses([base, other], -1.0, 0.5, 0.4) == {0: {5: 0.5}, 1: {5: 0.4}}  # each once in any case
    assert losses([base, other], 60.0) == {0: {5: 0.5}, 1: {5: 0.4}}  # which stays so
    (tmp_path / "seeds.json").unlink()
    assert losses([base, other], 60.0, 0.3, 0.6) == {0: {5: 0.5, 6: 0.3}, 1: {5: 0.4, 6: 0.6}}
    study.close()
    study, alone = make_study(tmp_path / "alone", 1), Trainings(0.5)
    assert train_finalists(study, alone, [base], [5, 6], 1, None, lambda *told: None, print) == {0: {5: 0.5}}


def test_a_final_is_tried_again_but_not_on_a_full_disk(tmp_path):
    study = make_study(tmp_path, 1)
    finalist = Finalist(0, {}, Recipe())

    def final(seed: int, *outcomes: float | Exception) -> float:
        bench = Trainings(*outcomes)
        (tmp_path / "seeds.json").unlink(missing_ok=True)
        losses = train_finalists(study, bench, [finalist], [seed], 1, None, lambda *told: None, lambda what: None)
        assert bench.outcomes == []
        return losses[0][seed]

    assert final(1, RuntimeError("CUDA out of memory"), 0.5) == 0.5
    assert final(2, ValueError("odd"), RuntimeError("no memory")) == float("inf")
    assert final(3, UserError("this model reads up to 32 tokens")) == float("inf")
    with pytest.raises(OSError, match="No space left"):
        final(4, OSError(28, "No space left on device"))


def test_a_lock_that_cannot_be_had_is_no_other_process(tmp_path, monkeypatch):
    from lightune.search import study as module

    study = make_study(tmp_path, 1)

    def full(path: Path, **more: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "lock", full)
    with pytest.raises(OSError, match="No space left"), study.final(0, 5):
        pass


def test_the_recipe_as_it_is_counts_where_others_are_stopped(tmp_path):
    """It is not stopped itself; one that is worse than it at a third is."""
    study = make_study(tmp_path, 3)
    first, second = study.next(), study.next()
    assert not study.report(first, 1, 0.5)
    assert study.report(second, 1, 0.9)
    study.finish(second, None, {})
    assert not study.report(first, 2, 9.0)
    study.finish(first, 9.0, {})
    assert [trial.state for trial in study.settled()] == ["complete", "stopped"]


def test_a_trial_that_ends_its_process_is_given_up(tmp_path):
    for _ in range(MOST_DEATHS):
        study = make_study(tmp_path, 2)
        assert study.next().number == 0
        os.close(study._held)
    study = make_study(tmp_path, 2)
    assert study.next().number == 1
    (trial,) = study.settled()
    assert (trial.state, trial.why) == ("failed", f"its process ended {MOST_DEATHS} times")


def test_the_next_trials_change_the_best_so_far(tmp_path):
    starts = [{"train.learning_rate": 1e-3, "method.rank": 8}, {"train.learning_rate": 2e-3}, {"method.rank": 16}]
    study = Study(tmp_path, None, SPACE, 4, starts, 0)
    for loss in (0.5, 0.4):
        attempt = study.next()
        assert not any(study.report(attempt, stage, loss) for stage in (1, 2, 3))
        study.finish(attempt, loss, {})
    assert study.next().values == {"train.learning_rate": 2e-3, "method.rank": 16}
    os.close(study._held)  # as at the end of a process that was killed
    assert Study(tmp_path, None, SPACE, 4, starts, 0).next().values == {
        "train.learning_rate": 2e-3,
        "method.rank": 16,
    }


def test_another_seed_is_another_search(tmp_path):
    studies = [make_study(tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    for study in studies:
        run_trials(study)
    assert [t.values for t in studies[0].settled()][1:] != [t.values for t in studies[1].settled()][1:]


def test_a_trial_that_breaks_off_is_tried_once_more(tmp_path):
    study = make_study(tmp_path, 2)
    values = []
    for _ in range(ATTEMPTS):
        assert not study.is_over
        attempt = study.next()
        assert attempt.number == 0
        values.append(attempt.values)
        study.fail(attempt, "no memory", again=True)
    assert values[0] == values[1]
    assert study.next().number == 1
    (failed,) = study.settled()
    assert (failed.number, failed.state, failed.loss, failed.why) == (0, "failed", None, "no memory")


def test_what_a_recipe_cannot_do_is_not_tried_again(tmp_path):
    study = make_study(tmp_path, 2)
    study.fail(study.next(), "no such thing", again=False)
    assert study.next().number == 1


def test_the_sampler_keeps_away_from_what_cannot_be_trained(tmp_path):
    """Two of three methods fail: of what is drawn after the first trials, fewer do than would by chance."""
    space, failed = {"method.name": Choices(("lora", "prompt", "prefix"))}, []
    for seed in range(4):
        study = Study(tmp_path / str(seed), None, space, 24, [], seed)
        while (attempt := study.next()) is not None:
            if fails := attempt.values["method.name"] != "lora":
                study.fail(attempt, "cannot", again=False)
            else:
                study.finish(attempt, 0.3, {})
            failed += [fails] * (attempt.number >= 12)
        states = {trial.state for trial in study.settled()}
        assert states == {"complete", "failed"}
        assert all(trial.why == "cannot" for trial in study.settled() if trial.state == "failed")
    assert sum(failed) < len(failed) / 3


def test_what_failed_is_no_trial_that_others_are_measured_by(tmp_path):
    study = make_study(tmp_path, 8)
    for _ in range(3):
        attempt = study.next()
        study.report(attempt, 1, 0.1)
        study.fail(attempt, "its loss is nan", again=False)
    attempts = [study.next() for _ in range(2)]
    assert [study.report(attempt, 1, loss) for attempt, loss in zip(attempts, (0.5, 0.9), strict=True)] == [
        False,
        True,
    ]


def test_what_another_process_trains_is_left_to_it(tmp_path):
    one, other = make_study(tmp_path, 3), make_study(tmp_path, 3)
    numbers = [study.next().number for study in (one, other, one)]
    assert numbers == [0, 1, 2]
    assert other.next() is None
    assert not other.is_over
    with one.final(0, 5) as ours, other.final(0, 5) as theirs:
        assert (ours, theirs) == (True, False)
        one.finish_final(0, 5, 0.25, {})
    with other.final(0, 5) as theirs:
        assert not theirs  # it is done
    assert other.finals() == {(0, 5): 0.25}


def test_a_process_that_waits_for_another_says_what_for(tmp_path):
    one, other = make_study(tmp_path, 1), make_study(tmp_path, 1)
    attempt, told = one.next(), []

    def trial(what: str) -> None:
        told.append(what)
        one.finish(attempt, 0.5, {"seconds": 1.0})

    try_all(other, None, Recipe(), 1, None, print, trial)  # trains nothing: there is no bench
    assert told == ["the last trials"]

    def end() -> None:
        with other.last(lambda: told.append("the runs")):
            told.append("over")

    with ThreadPoolExecutor() as pool:
        with one.last(lambda: told.append("nobody is there")):
            ending = pool.submit(end)
            deadline = time.monotonic() + 10
            while len(told) < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
        ending.result(10)
    assert told == ["the last trials", "the runs", "over"]


def _work(folder: str) -> None:
    study = make_study(Path(folder), 24)
    while not study.is_over:
        run_trials(study, 0.005)
        time.sleep(0.01)
    study.close()


@pytest.mark.hard
def test_eight_processes_share_a_new_study(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_work, args=(str(tmp_path),)) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0] * 8
    study = make_study(tmp_path, 24)
    assert [trial.number for trial in study.settled()] == list(range(24))
    with quiet_optuna():
        assert {t.state.name for t in study._trials.get_trials()} <= {"COMPLETE", "PRUNED"}


def test_a_storage_that_cannot_be_opened_is_one_message(tmp_path):
    with pytest.raises(UserError, match=r"search.storage = 'nosuch://x'.*Leave it out for a file"):
        Study(tmp_path, "nosuch://x", SPACE, 3, [], 0)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:SECRET@127.0.0.1:1/db", "'postgresql://me:***@127.0.0.1:1/db'"),
        ("postgresql://me:SECRET@host:abc/db", "'postgresql://me:***@host:abc/db'"),
        ("postgresql//me:SECRET@host/db", "'***@host/db'"),
        ("me:SECRET@host", "'***@host'"),
        ("mysql://me:SE@CRET@host/db", "'mysql://me:***@host/db'"),
        ("postgresql://me:SE\\CRET@host:abc/db", "'postgresql://me:***@host:abc/db'"),
        ("nosuch://host/db?user=me&password=SECRET", "'nosuch://host/db?user=me&password=***'"),
        ("nosuch/me@corp/x", "'nosuch/me@corp/x'"),
        ("nosuch://me:s@host/db", "'nosuch://me:***@host/db'"),
    ],
)
def test_the_password_of_a_storage_is_not_told(url, shown, tmp_path):
    with pytest.raises(UserError) as told:
        Study(tmp_path, url, SPACE, 3, [], 0)
    assert str(told.value).startswith(f"search.storage = {shown}: cannot be opened (")
    assert not any(secret in str(told.value) for secret in ("SECRET", "CRET@", ":s@"))
    with pytest.raises(UserError, match="cannot be opened"):
        check_storage(url)


def test_what_a_driver_says_of_a_password_is_not_told():
    url = "mysql://me:SE@CRET@host/db"
    assert without_password('no such host "CRET@host"', url) == 'no such host "***@host"'
    assert without_password(f"cannot open {url!r}", url) == "cannot open 'mysql://me:***@host/db'"
    assert without_password("access denied for 's e c' at host", "mysql://me:s%20e%20c@host") == (
        "access denied for '***' at host"
    )
    assert without_password("a search storage", "mysql://me:s@host") == "a search storage"


def _checks(url: str) -> None:
    check_storage(url)
    Study(Path(url.removeprefix("sqlite:///")).parent, url, SPACE, 3, [], 0).close()


@pytest.mark.hard
def test_processes_that_start_at_once_make_one_database(tmp_path):
    context = multiprocessing.get_context("spawn")
    for place in (tmp_path / str(i) for i in range(3)):
        place.mkdir()
        workers = [context.Process(target=_checks, args=(f"sqlite:///{place}/shared.db",)) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(120)
        assert [worker.exitcode for worker in workers] == [0] * 4


@pytest.mark.parametrize("name", ["trials.log", "sqlite:///{}/a.db", "sqlite:///{}/a.log"])
def test_the_check_of_a_storage_makes_nothing(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_storage(name.format(tmp_path))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="there is no folder"):
        check_storage(name.replace("trials", "nowhere/trials").format(tmp_path / "nowhere"))


def test_a_database_may_have_the_name_of_a_journal(tmp_path):
    (tmp_path / "redis-x").mkdir()
    for url in (f"sqlite:///{tmp_path}/a.log", str(tmp_path / "redis-x" / "b.log")):
        run_trials(study := Study(tmp_path / "s", url, SPACE, 3, [], 0))
        assert study.is_over
        study.close()
    assert (tmp_path / "a.log").read_bytes().startswith(b"SQLite")
    assert (tmp_path / "redis-x" / "b.log").read_bytes().startswith(b"{")


@pytest.mark.parametrize("ending", ["log", "journal"])
def test_a_journal_file_is_a_storage_as_a_database_is(ending, tmp_path):
    study, journal = make_study(tmp_path / "a", 6), str(tmp_path / f"trials.{ending}")
    other = Study(tmp_path / "b", journal, SPACE, 6, study.starts, 0)
    run_trials(study)
    run_trials(other)
    assert told(study) == told(other)
    other.close()
    again = Study(tmp_path / "b", journal, SPACE, 6, study.starts, 0)
    assert again.is_over
    assert told(study) == told(again)


def test_a_redis_that_is_not_there_is_one_message(tmp_path):
    """Neither the library, where it is not installed, nor a server."""
    with pytest.raises(UserError, match=r"search.storage = 'redis://127.0.0.1:1': cannot.*redis.*Leave it out for"):
        Study(tmp_path, "redis://127.0.0.1:1", SPACE, 3, [], 0)


@pytest.mark.parametrize("name", ["50%20off", "a?1", "{x}", "ü b"])
def test_a_folder_may_have_any_name(name, tmp_path):
    study = make_study(tmp_path / name, 1)
    run_trials(study)
    study.close()
    assert (tmp_path / name / "search.db").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_search_in_a_storage_of_ones_own_may_be_moved(tmp_path):
    url = f"sqlite:///{tmp_path / 'all.db'}"
    for folder in ("before", "after"):
        with Study(tmp_path / folder, url, SPACE, 2, [], 0, "id") as study:
            assert len(study.settled()) == (folder == "after")
            study.finish(study.next(), 0.5, {})
    with Study(tmp_path / "after", url, SPACE, 2, [], 0, "other") as study:
        assert study.settled() == []


def test_a_storage_that_fails_later_does_not_tell_its_password():
    url = "postgresql://me:SECRET@127.0.0.1:1/db"
    told = r"failed \(no answer from postgresql://me:\*\*\*@127.0.0.1:1/db\)"
    with pytest.raises(GateError, match=told), storage_errors(url):
        raise SQLAlchemyError(f"no answer from {url}")


def test_a_storage_that_fails_later_is_one_message(tmp_path):
    study = make_study(tmp_path, 2)
    (tmp_path / "search.db").write_bytes(b"no database" * 1000)
    with (
        pytest.raises(GateError, match=r"the search's storage failed \(.*the same command goes on"),
        storage_errors(),
    ):
        study.next()


def test_the_other_recipes_are_counted_once_each():
    def trial(number: int, values: dict[str, Any], state: str = "complete") -> Any:
        return SimpleNamespace(number=number, values=values, state=state)

    as_it_is, other = {"method.block_size": 8}, {"method.block_size": 4}
    trials = [trial(0, as_it_is), trial(1, as_it_is), trial(2, other, "failed"), trial(3, other), trial(4, other)]
    plan: Any = SimpleNamespace(starts=[as_it_is])
    assert [_n_others(Made(plan, trials[:n], {})) for n in range(1, 6)] == [0, 0, 0, 1, 1]
    assert _n_others(Made(SimpleNamespace(starts=[]), trials, {})) == 2  # its space does not hold the recipe as it is


def test_a_loss_that_is_no_number_can_be_written(tmp_path):
    study = make_study(tmp_path, 1)
    attempt = study.next()
    study.report(attempt, 1, float("nan"))
    study.report(attempt, 2, 0.5)
    study.finish(attempt, 0.4, {})
    plan = SearchPlan(Recipe(), SPACE, [], 1, 1)
    (told,) = (_trial(trial, plan) for trial in study.settled())
    assert json.loads(json.dumps(told, allow_nan=False))["reports"] == {"2": 0.5}


def test_the_studies_open_in_optuna(tmp_path):
    import optuna

    run_trials(make_study(tmp_path, 3))
    names = optuna.get_all_study_names(f"sqlite:///{tmp_path / 'search.db'}")
    assert set(names) == {"finals", "trials"}
    trials = optuna.load_study(study_name="trials", storage=f"sqlite:///{tmp_path / 'search.db'}").trials
    assert [t.user_attrs["number"] for t in trials] == [0, 1, 2]


# ---- what is said of a winner


def test_the_winner_is_the_best_on_average():
    assert best_by_mean({0: {1: 0.3, 2: 0.3}, 4: {1: 0.1, 2: 0.4}, 2: {1: 0.35, 2: 0.2}}) == 4
    assert best_by_mean({7: {1: 0.3}, 2: {1: 0.3}}) == 2  # of equals the earlier


def test_expected_luck_is_that_of_equal_trials():
    rng = np.random.default_rng(0)
    losses = {n: {s: float(rng.normal(1, 0.05)) for s in range(50)} for n in range(3)}
    simulated = -rng.normal(0, 0.05, (20_000, 12)).min(axis=1).mean()
    assert expected_luck(losses, 12) == pytest.approx(simulated, rel=0.12)
    assert expected_luck({0: {1: 0.3}}, 12) == 0.0
    assert expected_luck(losses, 1) == 0.0
    failed = losses | {7: {0: float("inf"), 1: 1.0}}
    assert expected_luck(failed, 12) == expected_luck(losses, 12)


def test_seeds_that_differ_by_chance_of_rows_alone_are_not_apart():
    """Answers that are right with the same probability; then some that are right with another one."""
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 4000)

    def answers(share: float) -> np.ndarray:
        return np.where(rng.random(4000) < share, y, 1 - y)

    same = between_seeds(y, {n: [answers(0.85), answers(0.85), answers(0.85)] for n in range(4)}, 0)
    apart = between_seeds(y, {n: [answers(0.80), answers(0.85), answers(0.90)] for n in range(4)}, 0)
    assert np.sqrt(same.variance) < 0.008
    assert np.sqrt(apart.variance) > 0.03
    alone = between_seeds(y, {0: [answers(0.85)]}, 0)  # one seed says nothing: what is known beforehand
    assert np.sqrt(alone.variance) == pytest.approx(0.04 * 0.15, rel=0.1)
    assert alone.degrees == pytest.approx(4)
    assert between_seeds(y, {0: [y, y]}, 0) == Between(0.0, 0.0)  # all right, always


def test_a_gain_of_recipes_is_less_sure_than_one_of_trainings():
    gain = Score(0.02, 0.005, 0.035)
    assert gain_of_recipes(gain, Between(0.0, 3)) == gain
    wider = gain_of_recipes(gain, Between(0.01**2, 3))
    assert wider.value == gain.value
    assert wider.low < gain.low
    assert wider.high > gain.high
    # by hand: rows (0.03 / 3.92)² = 5.857e-5, seeds 2e-4, df = (2.586e-4)² / ((2e-4)² / 3) = 5.01, t = 2.57
    assert wider.high - wider.value == pytest.approx(2.57 * np.sqrt(2.5857e-4), rel=0.01)


MIXED = np.sort(np.random.default_rng(0).random((100_000, 2)) @ [0.75, 0.25])


def equal_study(rng: np.random.Generator, spread: float, n_configurations: int = 50) -> tuple[Score, Score]:
    """The gain that is reported where all configurations are equal: seeds alone move what a training is worth.

    Before it the same with what the rows alone leave open.
    """
    y_dev, y_test = rng.integers(0, 2, 300), rng.integers(0, 2, 2000)
    hard_dev, hard_test = rng.random(300), rng.random(2000)

    def answers(y: np.ndarray, hard: np.ndarray, worth: float) -> np.ndarray:
        # rows are hard for all classifiers alike, for the most part; two differ on about 9 % of them
        return np.where(0.75 * hard + 0.25 * rng.random(len(y)) < MIXED[int(worth * len(MIXED))], y, 1 - y)

    def training() -> tuple[np.ndarray, np.ndarray]:
        worth = 0.88 + spread * rng.normal()
        return answers(y_dev, hard_dev, worth), answers(y_test, hard_test, worth)

    def error(of: np.ndarray) -> float:
        return float((of != y_dev).mean())

    trials = [error(training()[0]) for _ in range(n_configurations)]
    best = np.argsort(trials, kind="stable")[:3]
    fresh = {int(n): [training()[0] for _ in range(2)] for n in best}
    between = between_seeds(y_dev, fresh, 0)
    compared = compare(y_test, training()[1], {"other": training()[1]}, seed=0)["other"]
    return compared.gain, gain_of_recipes(compared.gain, between)


@pytest.mark.parametrize("spread", [0.0, 0.005])
def test_of_equal_configurations_none_is_said_to_be_better(spread):
    """The winner of 50 equal ones: 0 is in the interval of its gain in 95 % of 200 searches.

    spread: of what trainings are worth, by their seed; 0.005 is what is counted with beforehand.
    """
    rng = np.random.default_rng(5)
    gains = [equal_study(rng, spread) for _ in range(200)]
    by_rows, reported = (np.mean([gain.low <= 0 <= gain.high for gain in kind]) for kind in zip(*gains, strict=True))
    assert reported >= 0.95
    if spread:
        assert by_rows < 0.95  # without what a seed is worth too much would be promised


def test_the_gain_in_words():
    y = np.zeros(400, int)
    ours, theirs = np.where(np.arange(400) < 20, 1, 0), np.where(np.arange(400) < 60, 1, 0)
    compared = compare(y, ours, {"other": theirs}, seed=0)["other"]
    told = outcome.in_words(compared, compared.gain, 12)
    assert told.startswith("tuning gained: +10.0 points of accuracy (95 % CI +")
    assert "training time" not in told
    assert "), in 2.1 times the training time; take" in outcome.in_words(compared, compared.gain, 12, times=2.08)
    nearer = replace(compared, measure="mae")
    assert "gained: -0.100 of mean absolute error (95 % CI -0" in outcome.in_words(nearer, nearer.gain, 12)
    assert "not compared with the recipe as it is: other rows" in outcome.in_words(None, None, 12, "other rows")
    assert outcome.in_words(compared, compared.gain, 12).endswith("take the recipe found")
    unsure = replace(compared, gain=Score(0.01, -0.01, 0.03))
    assert "that may be chance; keep the recipe" in outcome.in_words(unsure, unsure.gain, 12)
    one_sided = compare(np.zeros(100, int), np.zeros(100, int), {"other": np.arange(100) < 5}, seed=0)["other"]
    assert one_sided.gain.low > 0  # the exact test of five rows is not that sure
    assert "(p = 0.06): that may be chance; keep the recipe" in outcome.in_words(one_sided, one_sided.gain, 12)
    worse = replace(compared, gain=Score(-0.01, -0.03, 0.01))
    assert outcome.in_words(worse, worse.gain, 12).startswith("tuning gained nothing: -1.0 points of accuracy")
    assert "), in 125 times the" in outcome.in_words(compared, compared.gain, 12, times=125.2)
    assert "there was no time to try another recipe" in outcome.in_words(None, None, 0, is_cut=True)
    assert outcome.in_words(None, None, 1, is_cut=True) == outcome.in_words(None, None, 1)
    ends = (
        "no other recipe was tried",
        "one other recipe that was tried is no",
        "none of the 2 other recipes that were",
    )
    for n, told in enumerate(ends):
        assert told in outcome.in_words(None, None, n)
        assert outcome.in_words(None, None, n).endswith(": keep the recipe as it is")


def test_lack_of_fit_leaves_out_what_a_temperature_mends():
    from lightune.records import UNSCALED

    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 500)
    logits = np.eye(3)[y] + rng.normal(size=(500, 3))
    assert lack_of_fit(y, 3 * logits, UNSCALED) == pytest.approx(lack_of_fit(y, logits, UNSCALED), rel=0.05)
    assert lack_of_fit(y, logits, UNSCALED) < lack_of_fit(y, rng.normal(size=(500, 3)), UNSCALED)
    sets = rng.integers(0, 2, (500, 3))
    assert lack_of_fit(sets, 4.0 * sets - 2, UNSCALED) < 0.2
    numbers = rng.normal(size=500)
    assert lack_of_fit(numbers, (numbers + 0.5)[:, None], UNSCALED) == pytest.approx(0.5)
