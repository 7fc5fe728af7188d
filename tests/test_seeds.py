"""Several seeds: the same split, other trainings, and what is said of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import lightune
from lightune.training.plan import AUTO_EPOCHS, Cost, Plan, Work, fit

SETTINGS = ["train.epochs=2", "data.max_tokens=16", "evidence.doctor=false", "evidence.baselines=[]"]


@pytest.fixture(scope="module")
def three(reviews, tiny_bert, tmp_path_factory):
    output = tmp_path_factory.mktemp("seeds") / "run"
    return lightune.run(reviews, settings=[f"model={tiny_bert}", *SETTINGS], seed=3, seeds=3, output=output)


def test_the_first_seed_is_the_run_itself(three, reviews, tiny_bert, tmp_path):
    settings = [f"model={tiny_bert}", *SETTINGS]
    one = lightune.run(reviews, settings=settings, seed=3, output=tmp_path / "one")
    assert one.results["seeds"] is None
    assert one.results["after"] == three.results["after"]
    record = three.results["seeds"]
    assert record["seeds"] == [3, 4, 5]
    for name, score in three.results["after"].items():
        assert record["scores"][name][0] == score["value"]


def test_other_seeds_train_otherwise_on_the_same_split(three):
    losses = three.results["seeds"]["scores"]["log_loss"]
    assert len(set(losses)) == 3
    record = three.results["seeds"]
    assert record["mean"]["log_loss"] == pytest.approx(np.mean(losses))
    assert record["deviation"]["log_loss"] == pytest.approx(np.std(losses, ddof=1))
    assert three.results["recipe"]["seeds"] == 3


def test_the_time_for_all_trainings_is_planned():
    """A token a millisecond, 1,000 for an epoch, 100 for an evaluation: each of three has a third of the room."""
    cost = Cost(forward=1e-3, step=1e-3, depth=1, n_blocks=1, keeps=False)
    work = Work(readings=((1000, 1.0),), dev=0.0, test=100.0, evaluations=1, rest=0.0)
    plan = Plan(100.0, 1e-3, 1024, False)
    one, _ = fit(plan, False, cost, work, 100.0)
    three, why = fit(plan, False, cost, replace(work, trainings=3), 100.0)
    assert one.seconds == pytest.approx(100 - 2 * 0.1)
    assert (three.seconds, three.seconds_later) == (pytest.approx((100 - 4 * 0.1) / 3),) * 2
    assert "for 3 trainings" in why.why
    assert cost.estimate(replace(work, trainings=3), 2.0, 0.0).train == pytest.approx(6.0)
    assert cost.estimate(replace(work, trainings=3), 2.0, 0.0).after == pytest.approx(0.3)


def test_trainings_that_find_a_full_cache_get_less_time_for_as_many_steps():
    """Three epochs of 1,000 tokens in the top of two blocks: 2 ms a token, and 1.5 where the lower one is known."""
    cost = Cost(forward=1e-3, step=2e-3, depth=1, n_blocks=2, keeps=True)
    work = Work(readings=((1000, 1.0),), dev=0.0, test=0.0, evaluations=1, rest=0.0, trainings=3)
    budget = (2.0 + 2 * 1.5) + 2 * (3 * 1.5)
    plan, _ = fit(Plan(3.0, 1e-3, 1024, False), False, cost, work, budget)
    assert (plan.epochs, plan.seconds, plan.seconds_later) == (3.0, pytest.approx(5.0), pytest.approx(4.5))
    ample, why = fit(Plan(3.0, 1e-3, 1024, False), False, cost, work, 2 * budget)
    assert (ample.seconds, ample.seconds_later, why.choice) == (pytest.approx(10.0), pytest.approx(9.0), "enough")
    untrained, _ = fit(Plan(0.0, 1e-3, 1024, False), False, cost, work, budget)
    assert (untrained.seconds, untrained.seconds_later) == (pytest.approx(budget / 3),) * 2
    auto, _ = fit(Plan(1.0, 1e-3, 1024, False), True, cost, work, 1000.0)
    assert (auto.epochs, auto.seconds / auto.seconds_later) == (AUTO_EPOCHS, pytest.approx((2 + 5 * 1.5) / (6 * 1.5)))
    no_room, _ = fit(Plan(3.0, 1e-3, 1024, False), False, cost, replace(work, room=0), budget)
    assert no_room.seconds == pytest.approx(no_room.seconds_later)
