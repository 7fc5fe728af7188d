"""Several seeds: the same split, other trainings, and what is said of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import lightune
from lightune.training.plan import Cost, Plan, Work, fit

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
    assert three.seconds == pytest.approx((100 - 4 * 0.1) / 3)
    assert "each of 3 trainings" in why.why
    assert cost.estimate(replace(work, trainings=3), 2.0, 0.0).train == pytest.approx(6.0)
    assert cost.estimate(replace(work, trainings=3), 2.0, 0.0).after == pytest.approx(0.3)
