"""The loop: what it fits, what it leaves alone, what it keeps, when it stops."""

from __future__ import annotations

import io
import math
import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from lightune.data.batching import Labelled, make_encoder
from lightune.errors import GateError, UserError
from lightune.evidence.evaluate import predict_logits
from lightune.hardware import choose_hardware, own_randomness, seed_everything, told_when_full, tune_process
from lightune.journal import Journal
from lightune.model.anatomy import inspect
from lightune.model.backbones import load_base, locate
from lightune.model.methods import apply
from lightune.recipe import Recipe, TrainRecipe
from lightune.records import Decision, Plan
from lightune.training.plan import OVERHEAD_SECONDS, Cost, Work, choose_depth, make_plan, probe_rows_in
from lightune.training.plan import fit as fit_time
from lightune.training.rehearsal import _speed, measure, rehearse
from lightune.training.train import Best, Loop, count_steps, make_optimizer, modules_in_training, train
from tests import tiny


@pytest.fixture(scope="module")
def hardware():
    return choose_hardware("cpu", "fp32")


@pytest.fixture(scope="module")
def rows(tiny_bert):
    return some_rows(tiny_bert)


def some_rows(tiny_bert):
    encoder = make_encoder(tiny.load_tokenizer(tiny_bert), 24, "head", 64)
    texts, y = zip(*tiny.EXAMPLES[2], strict=True)
    return encoder, Labelled(encoder.tokenise(texts), np.array(y))


def adapted(tiny_bert, **options):
    base = load_base(locate(str(tiny_bert)), ["negative", "positive"], seed=0)
    return apply(base.model, inspect(base.model, base.missing_keys), "lora", options)[0]


def anatomy_of(tiny_bert):
    base = load_base(locate(str(tiny_bert)), ["negative", "positive"], seed=0)
    return inspect(base.model, base.missing_keys)


def fit(model, rows, hardware, *, epochs=2.0, rate=1e-2, memory_tokens=4096, seed=0, dev=None, on_log=None, **recipe):
    encoder, labelled = rows
    logs = {} if on_log is None else {"on_log": on_log}
    plan = Plan(epochs, rate, memory_tokens, False)
    settings = TrainRecipe(**({"batch_size": 8} | recipe))
    logs["journal"] = Journal(io.StringIO())
    return train(model, encoder, labelled, dev or labelled, settings, plan, hardware, seed=seed, **logs)


def trainable(model) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def test_small_passes_accumulate_to_the_same_step(tiny_bert, rows, hardware):
    whole, pieces = adapted(tiny_bert), adapted(tiny_bert)
    fit(whole, rows, hardware, epochs=1)
    fit(pieces, rows, hardware, epochs=1, memory_tokens=24)
    for name, parameter in trainable(whole).items():
        assert torch.allclose(parameter, trainable(pieces)[name], atol=1e-5), name


def test_the_same_seed_gives_the_same_bits_and_another_one_does_not(tiny_bert, rows, hardware):
    first, second, other = (adapted(tiny_bert) for _ in range(3))
    for model, seed in ((first, 0), (second, 0), (other, 1)):
        fit(model, rows, hardware, seed=seed)
    assert all(torch.equal(p, trainable(second)[n]) for n, p in trainable(first).items())
    assert not all(torch.equal(p, trainable(other)[n]) for n, p in trainable(first).items())


def test_the_best_state_is_kept_not_the_last(tiny_bert, rows, hardware):
    labelled = rows[1]
    model = adapted(tiny_bert)
    # dev labels are turned around: the better the training, the worse the dev score
    history = fit(model, rows, hardware, epochs=8, dev=Labelled(labelled.tokens, 1 - labelled.y), patience=100)
    assert history.best_step < history.n_steps
    best = max(history.dev_curve, key=lambda point: (point["accuracy"], -point["loss"]))
    assert best["step"] == history.best_step


def test_training_stops_when_nothing_improves_any_more(tiny_bert, rows, hardware):
    labelled = rows[1]
    history = fit(
        adapted(tiny_bert), rows, hardware, epochs=50, dev=Labelled(labelled.tokens, 1 - labelled.y), patience=2
    )
    assert history.stopped_early
    assert len(history.dev_curve) - 1 - [p["step"] for p in history.dev_curve].index(history.best_step) == 2


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_the_rate_rises_then_falls_to_zero_or_stays(schedule, tiny_bert, rows, hardware):
    history = fit(adapted(tiny_bert), rows, hardware, epochs=4, warmup=0.25, schedule=schedule)
    rates = [point["learning_rate"] for point in history.curve]
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[0] < max(rates) / 2
    assert (rates[-1] == max(rates)) if schedule == "constant" else (rates[-1] < max(rates) / 5)
    assert max(rates) == pytest.approx(1e-2, rel=0.1)


def test_the_loss_and_dev_points_reach_whoever_listens(tiny_bert, rows, hardware):
    heard: list[tuple[set[str], int]] = []
    history = fit(adapted(tiny_bert), rows, hardware, on_log=lambda values, step: heard.append((set(values), step)))
    assert ({"dev_loss", "dev_accuracy"}, history.n_steps) in heard
    assert sum("train_loss" in names for names, _ in heard) == len(history.curve)


def test_a_loss_that_is_no_number_stops_with_advice(tiny_bert, rows, hardware):
    model = adapted(tiny_bert)
    with torch.no_grad():
        next(p for p in model.parameters() if p.requires_grad).fill_(float("nan"))
    with pytest.raises(GateError, match=r"the loss is nan at step 1.*Lower train\.learning_rate"):
        fit(model, rows, hardware)


def test_the_frozen_network_runs_without_dropout(tiny_bert, rows, hardware):
    states = []
    model = adapted(tiny_bert, dropout=0.5)
    names = {id(module): name for name, module in model.named_modules()}
    hook = torch.nn.modules.module.register_module_forward_hook(
        lambda module, inputs, output: states.append((names.get(id(module), ""), type(module), module.training))
    )
    fit(model, rows, hardware, epochs=0.2, evaluations=1)
    hook.remove()
    dropout = [(name, training) for name, kind, training in states if kind is torch.nn.Dropout]
    assert any("lora_dropout" in name and training for name, training in dropout)
    assert not any(training for name, training in dropout if "lora_dropout" not in name)
    assert not any(module.training for module in model.modules())  # so that its answers afterwards are its own


def test_the_head_can_have_a_rate_of_its_own(tiny_bert):
    optimizer = make_optimizer(adapted(tiny_bert), TrainRecipe(head_rate=3.0), 1e-3)
    rates = sorted({group["lr"] for group in optimizer.param_groups})
    assert rates == pytest.approx([1e-3, 3e-3])
    for group in optimizer.param_groups:
        assert all((p.ndim > 1) == (group["weight_decay"] > 0) for p in group["params"])


def test_the_head_of_a_whole_model_can_have_a_rate_of_its_own(tiny_bert):
    model, _ = tiny.load_base(tiny_bert, seed=1)
    optimizer = make_optimizer(model, TrainRecipe(head_rate=3.0), 1e-3, ["classifier"])
    fast = {id(p) for group in optimizer.param_groups for p in group["params"] if group["lr"] > 2e-3}
    assert fast == {id(model.classifier.weight), id(model.classifier.bias)}


def test_steps_of_fractions_of_an_epoch():
    assert count_steps(100, 16, 1.0) == 7
    assert count_steps(100, 16, 2.5) == 18
    assert count_steps(100, 16, 0.0) == 0


def test_no_training_keeps_the_start(tiny_bert, rows, hardware):
    model = adapted(tiny_bert)
    start = trainable(model)
    history = fit(model, rows, hardware, epochs=0.0)
    assert history.n_steps == 0
    assert all(torch.equal(p, start[n]) for n, p in trainable(model).items())


def test_best_prefers_accuracy_then_loss():
    best, logits = Best(torch.nn.Linear(1, 1)), np.zeros((3, 2))
    assert best.offer({"step": 1, "accuracy": 0.8, "loss": 0.5}, logits) == 0
    assert best.offer({"step": 2, "accuracy": 0.8, "loss": 0.6}, logits) == 1
    assert best.offer({"step": 3, "accuracy": 0.8, "loss": 0.4}, logits + 1) == 0
    assert best.offer({"step": 4, "accuracy": 0.7, "loss": 0.1}, logits) == 1
    assert best.step == 3
    assert best.dev_logits is not None
    assert (best.dev_logits == 1).all()
    assert best.offer({"step": 5, "accuracy": 0.7, "loss": 0.1}, logits, counts=False) == 1


def test_measuring_the_speed_changes_no_random_numbers(tiny_bert, rows, hardware):
    encoder, labelled = rows
    model, anatomy = adapted(tiny_bert), anatomy_of(tiny_bert)
    seed_everything(5)
    expected = torch.rand(3)
    seed_everything(5)
    plan = Plan(1.0, 1e-3, 4096, checkpointing=False)
    parts = {"train": labelled, "test": labelled}
    cost = measure(model, anatomy, encoder, parts, TrainRecipe(), plan, hardware, 0)
    assert torch.equal(torch.rand(3), expected)
    assert cost.forward > 0
    assert cost.step > 0
    assert (cost.depth, cost.n_blocks) == (2, 2)


def test_the_speed_of_training_weighs_short_and_whole_texts_by_their_tokens(tiny_bert, rows, hardware, monkeypatch):
    encoder, labelled = rows
    short = replace(encoder, max_tokens=4).tokenise([text for text, _ in tiny.EXAMPLES[2]])
    train_rows = replace(labelled, short=short)
    other = Labelled(encoder.tokenise(["lovely", "awful"]), np.array([1, 0]))
    speeds = {labelled.n_tokens: 100.0, short.n_tokens: 1000.0, other.n_tokens: 5000.0}
    monkeypatch.setattr("lightune.training.rehearsal._speed", lambda work, batches, lengths: speeds[lengths.sum()])
    recipe, plan = TrainRecipe(whole_steps=0.25), Plan(1.0, 1e-3, 4096, checkpointing=False)
    parts = {"train": train_rows, "test": other}
    cost = measure(adapted(tiny_bert), anatomy_of(tiny_bert), encoder, parts, recipe, plan, hardware, 0)
    n_short, n_whole = 0.75 * short.n_tokens, 0.25 * labelled.n_tokens
    assert 1 / cost.step == pytest.approx((n_short + n_whole) / (n_short / 1000 + n_whole / 100))
    assert 1 / cost.forward == pytest.approx(5000.0)


def test_tokens_per_second_are_those_of_the_timed_batches(monkeypatch):
    clock = iter(range(100))  # a second passes between any two looks
    monkeypatch.setattr("lightune.training.rehearsal.time.perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr("lightune.training.rehearsal.ENOUGH_SECONDS", 100.0)
    done = []
    batches = [np.array([0]), np.array([1, 2])]
    speed = _speed(done.append, batches, np.array([10, 20, 30]))
    assert [batch.tolist() for batch in done] == [[0]] + 3 * [[0], [1, 2]]  # the first is not timed
    assert speed == pytest.approx(3 * (10 + 50) / 7)


def test_a_process_can_train_on_another_device_than_before(tiny_bert, rows, hardware):
    from accelerate.state import PartialState

    fit(adapted(tiny_bert), rows, hardware, epochs=1)
    PartialState().device = torch.device("meta")  # as a training on another device leaves it
    fit(adapted(tiny_bert), rows, hardware, epochs=1)
    assert PartialState().device.type == "cpu"


def test_the_rehearsal_counts_what_training_will_do(tiny_bert, rows, hardware):
    encoder, labelled = rows
    load = partial(load_base, locate(str(tiny_bert)), ["negative", "positive"], seed=0)
    recipe = Recipe.model_validate({"train": {"epochs": 3.0, "batch_size": 8}})
    parts = {"train": labelled, "dev": labelled, "test": labelled}
    rehearsal = rehearse(load(), load, recipe, {"rank": 4}, encoder, parts, hardware)
    assert rehearsal.n_steps == count_steps(len(labelled), 8, 3.0)
    assert rehearsal.trainable_parameters == sum(
        p.numel() for p in adapted(tiny_bert, rank=4).parameters() if p.requires_grad
    )
    assert rehearsal.estimate.seconds > 0


def test_automatic_layers_are_rehearsed_once_they_are_chosen(tiny_bert, rows, hardware, monkeypatch):
    encoder, labelled = rows
    load = partial(load_base, locate(str(tiny_bert)), ["negative", "positive"], seed=0)
    recipe = Recipe.model_validate({"train": {"epochs": 1.0, "layers": "auto"}})
    parts = {"train": labelled, "dev": labelled, "test": labelled}
    why = Decision("layers", "top 1", "as a test wants it")
    monkeypatch.setattr("lightune.training.rehearsal.choose_depth", lambda *_: (1, why))
    rehearsal = rehearse(load(), load, recipe, {"rank": 4}, encoder, parts, hardware)
    assert rehearsal.plan.layers == 1
    assert rehearsal.decisions[0] is why
    assert "the top 1 of 2 blocks" in rehearsal.decisions[1].choice


@pytest.mark.parametrize("method", ["head", "prompt"])
def test_a_method_without_layers_leaves_automatic_ones_alone(method, tiny_bert, rows, hardware, monkeypatch):
    encoder, labelled = rows
    load = partial(load_base, locate(str(tiny_bert)), ["negative", "positive"], seed=0)
    recipe = Recipe.model_validate({"method": {"name": method}, "train": {"epochs": 1.0, "layers": "auto"}})
    parts = {"train": labelled, "dev": labelled, "test": labelled}
    monkeypatch.setattr("lightune.training.plan.AUTO_LAYERS_SECONDS", 0.0)
    assert rehearse(load(), load, recipe, {}, encoder, parts, hardware).plan.layers == "all"


def test_each_further_seed_is_planned_with_its_setting_up(tiny_bert, rows, hardware):
    encoder, labelled = rows
    parts = {"train": labelled, "dev": labelled, "test": labelled}
    loaded = []

    def load():
        loaded.append(time.sleep(0.2))
        return load_base(locate(str(tiny_bert)), ["negative", "positive"], seed=0)

    recipe = Recipe.model_validate({"train": {"epochs": 1.0}, "seeds": 4})
    estimate = rehearse(load(), load, recipe, {}, encoder, parts, hardware).estimate
    assert estimate.rest > OVERHEAD_SECONDS + 3 * 0.2
    assert len(loaded) == 2


WORK = Work(readings=((1000, 1.0),), dev=100, test=500, evaluations=1)
COST = Cost(forward=0.01, step=0.03, depth=6, n_blocks=6, keeps=True)


def test_the_cost_of_epochs_by_hand():
    """1,000 training tokens at 0.03 s, 100 dev tokens at 0.01 s; in the top 3 of 6 blocks half the backward pass."""
    assert COST.training(WORK, 2.0) == pytest.approx(2 * 30 + 2 * 1)
    half = COST.with_depth(3)
    assert half.step == pytest.approx(0.02)
    assert half.saved == pytest.approx(0.005)
    # the second epoch and the second evaluation skip the lower half
    assert half.training(WORK, 2.0) == pytest.approx(1000 * (0.02 + 0.015) + 100 * (0.01 + 0.005))
    assert half.epochs_in(WORK, half.training(WORK, 2.0)) == pytest.approx(2.0)
    assert half.estimate(WORK, 1.0, 0.0).after == pytest.approx(500 * 0.005)


def test_only_what_is_kept_saves_time():
    """Short texts in four fifths of the steps, whole ones in the rest: over two epochs the short come 1.6 times."""
    work = replace(WORK, readings=((1000, 0.8), (3000, 0.2)))
    assert work.train == pytest.approx(0.8 * 1000 + 0.2 * 3000)
    assert work.known(2.0) == pytest.approx((500, 100, 0.6 * 1000))
    assert work.known(10.0) == pytest.approx((500, 900, 7 * 1000 + 1 * 3000))
    assert replace(work, room=650).known(10.0) == pytest.approx((500, 900, 0))  # test and dev rows leave room for 50

    shared = replace(work, trainings=2)  # with another seed the same texts come again
    assert shared.known(1.0) == pytest.approx((500, 0, 0))
    assert shared.known(1.0, is_later=True) == pytest.approx((500, 100, 0.8 * 0.8 * 1000))
    assert shared.known(10.0, is_later=True) == pytest.approx((500, 1000, 8 * 1000 + 2 * 3000))
    half = COST.with_depth(3)
    assert half.training(replace(work, room=0), 2.0) == pytest.approx(2 * 1400 * 0.02 + 2 * 100 * 0.01)


def test_the_probe_reads_what_a_twentieth_of_the_time_is_enough_for():
    """50 tokens a row at 0.01 s each: half a second a row."""
    assert probe_rows_in(COST, 50.0, 1000, None) == 1000
    assert probe_rows_in(COST, 50.0, 1000, 4000.0) == 400
    assert probe_rows_in(COST, 50.0, 300, 4000.0) == 300
    assert probe_rows_in(COST, 50.0, 1000, 100.0) == 200
    assert probe_rows_in(COST, 50.0, 0, 4000.0) == 0
    before = COST.estimate(replace(WORK, probe=200.0, rest=7.0), 0.0, 0.0)
    assert (before.before, before.after, before.rest) == (pytest.approx(7.0), pytest.approx(5.0), 7.0)


@pytest.mark.parametrize(("budget", "depth"), [(100.0, 6), (50.0, 3), (42.0, 2)])
def test_automatic_layers_are_the_most_that_fit(budget, depth):
    """Beside training: 15 s, 5 s before, and 5, 2.5 or 1.7 s after; a pass takes 31, 21 or 17.7 s."""
    chosen, why = choose_depth(COST, WORK, 1.0, budget)
    assert chosen == depth
    assert "one pass over the rows" in why.why


def test_a_time_budget_that_presses_cuts_the_epochs_and_sets_the_clock():
    plan = Plan(3.0, 1e-3, 1024, False)
    roomy, why = fit_time(plan, False, COST, WORK, 1000.0)
    assert roomy == replace(plan, seconds=1000 - 15 - 5 - 5 - 1)
    assert why.choice == "enough"
    pressed, _ = fit_time(plan, False, COST, WORK, 60.0)
    assert pressed.seconds == pytest.approx(60 - 15 - 5 - 5 - 1)  # the rest, before, after, the last evaluation
    assert 1.0 < pressed.epochs < 1.4
    with pytest.raises(UserError, match=r"everything but training takes 26 s"):
        fit_time(plan, False, COST, WORK, 28.0)


def test_the_clock_ends_a_training_and_the_rate_has_fallen_by_then(tiny_bert, rows, hardware, monkeypatch):
    """A clock of which a twentieth passes at every look: the training ends long before its 100 epochs."""
    shares = (i / 20 for i in range(1000))
    monkeypatch.setattr("lightune.training.train.Clock.share", property(lambda clock: next(shares)))
    history = fit(adapted(tiny_bert), rows, hardware, epochs=100)
    assert history.n_steps < 10
    assert history.n_steps == history.curve[-1]["step"] == history.dev_curve[-1]["step"]
    again = history.epochs * count_steps(len(rows[1]), 8, 1)
    assert math.ceil(again) == history.n_steps  # what recipe.toml says makes the same steps
    assert history.curve[-1]["learning_rate"] < 0.3 * max(point["learning_rate"] for point in history.curve)


def test_automatic_epochs_shrink_with_the_data(hardware):
    sizes = {"learning_rate": 5e-4, "max_tokens": 256, "hidden_size": 384, "n_layers": 6}
    epochs = [make_plan(TrainRecipe(), hardware, train_tokens=n, **sizes)[0].epochs for n in (10_000, 150_000, 10**7)]
    assert epochs == [6.0, 3.0, 1.0]


def test_a_device_that_is_not_there_is_refused():
    if torch.cuda.is_available():
        pytest.skip("this machine has the device")
    with pytest.raises(UserError, match=r"hardware\.device = 'cuda': not on this machine\. Usable: .*cpu"):
        choose_hardware("cuda")


def test_fp16_on_a_cpu_is_refused_and_bf16_is_not(tiny_bert, rows):
    with pytest.raises(UserError, match="no fast path on a CPU"):
        choose_hardware("cpu", "fp16")
    history = fit(adapted(tiny_bert), rows, choose_hardware("cpu", "bf16"), epochs=6)
    assert history.curve[-1]["train_loss"] < history.curve[0]["train_loss"]


def test_every_choice_has_a_reason(hardware):
    decisions = [*hardware.decisions, *tune_process(hardware)]
    assert {d.what for d in decisions} >= {"device", "precision", "optimizer", "threads", "kernels", "allocator"}
    assert all(d.choice and d.why for d in decisions)


def test_the_last_steps_read_whole_texts(tiny_bert, rows, hardware, monkeypatch):
    encoder, labelled = rows
    short = replace(encoder, max_tokens=4).tokenise([text for text, _ in tiny.EXAMPLES[2]])
    widths = []
    plain = type(encoder).batch
    monkeypatch.setattr(
        type(encoder), "batch", lambda self, t, r, d: widths.append(int(t.lengths[r].max())) or plain(self, t, r, d)
    )
    mixed = Labelled(labelled.tokens, labelled.y, short)
    history = fit(adapted(tiny_bert), (encoder, mixed), hardware, epochs=2, whole_steps=0.25, evaluations=1)
    n_whole = -(-history.n_steps // 4)
    steps = [w for w in widths if w != max(widths)]  # the dev rows come in one wide batch
    assert set(steps[: history.n_steps - n_whole]) == {4}
    assert len([w for w in widths if w > 4]) >= n_whole
    assert history.tokens < labelled.n_tokens * 2


def test_every_step_groups_texts_by_their_whole_length(tiny_bert, rows, hardware, monkeypatch):
    """The last steps read whole texts: grouped by lengths that a cut made equal, they would be half padding."""
    encoder, _ = rows
    texts = ["good lamp " * (1 + i % 5) for i in range(40)]
    tokens = encoder.tokenise(texts)
    cut = replace(encoder, max_tokens=4).tokenise(texts)
    labelled, spreads = Labelled(tokens, np.arange(40) % 2, cut), []
    plain = Loop.step
    monkeypatch.setattr(
        Loop, "step", lambda self, r, t: spreads.append(int(np.ptp(tokens.lengths[r]))) or plain(self, r, t)
    )
    fit(adapted(tiny_bert), (encoder, labelled), hardware, epochs=1, whole_steps=0.5, evaluations=1)
    assert len(set(cut.lengths)) == 1
    assert len(set(tokens.lengths)) > 2
    assert spreads == [0] * 5
    timed = []
    monkeypatch.setattr(
        "lightune.training.rehearsal._speed", lambda work, batches, lengths: timed.append(batches) or 1000.0
    )
    plan, parts = Plan(1.0, 1e-3, 4096, False), {"train": labelled, "test": labelled}
    measure(adapted(tiny_bert), anatomy_of(tiny_bert), encoder, parts, TrainRecipe(batch_size=8), plan, hardware, 0)
    assert all(np.ptp(tokens.lengths[batch]) == 0 for batches in timed[1:] for batch in batches)


def test_training_does_not_stop_before_it_has_read_whole_texts(tiny_bert, rows, hardware):
    encoder, labelled = rows
    short = replace(encoder, max_tokens=4).tokenise([text for text, _ in tiny.EXAMPLES[2]])
    mixed, reversed_dev = Labelled(labelled.tokens, labelled.y, short), Labelled(labelled.tokens, 1 - labelled.y)
    history = fit(
        adapted(tiny_bert), (encoder, mixed), hardware, epochs=20, dev=reversed_dev, patience=1, whole_steps=0.3
    )
    last = history.dev_curve[-1]["step"]
    assert history.stopped_early
    assert 0.7 * history.n_steps < last < history.n_steps


@pytest.mark.parametrize("free", [1e9, 3e9, 7.9e9])
def test_what_others_use_of_the_memory_changes_no_pass(free, hardware):
    sizes = {"learning_rate": 5e-4, "train_tokens": 1000, "max_tokens": 256, "hidden_size": 768, "n_layers": 12}
    plan, _ = make_plan(TrainRecipe(), replace(hardware, memory=int(8e9), free=int(free)), **sizes)
    assert plan.memory_tokens == 1024


def test_checkpointing_recomputes_blocks_and_gives_the_same_weights(tiny_bert, rows, hardware):
    encoder, labelled = rows
    counts = []
    models = [adapted(tiny_bert), adapted(tiny_bert)]
    for model, checkpointing in zip(models, (False, True), strict=True):
        calls: list[bool] = []
        block = next(m for name, m in model.named_modules() if name.endswith("layer.0.intermediate"))
        block.register_forward_hook(lambda *_, calls=calls: calls.append(torch.is_grad_enabled()))
        plan, settings = Plan(1.0, 1e-2, 4096, checkpointing), TrainRecipe(batch_size=8)
        journal = Journal(io.StringIO())
        train(model, encoder, labelled, labelled, settings, plan, hardware, seed=0, journal=journal)
        counts.append(sum(calls))
    assert counts[1] == 2 * counts[0]
    for name, parameter in trainable(models[0]).items():
        assert torch.allclose(parameter, trainable(models[1])[name], atol=1e-5), name


def test_a_skipped_step_of_fp16_leaves_the_rate_where_it_was(tiny_bert, rows, hardware):
    encoder, labelled = rows
    loop = Loop(
        adapted(tiny_bert), encoder, labelled, TrainRecipe(warmup=0.5), Plan(1.0, 1e-2, 4096, False), hardware, 8
    )
    batch = np.arange(8)
    loop.step(batch, labelled.tokens)
    assert loop.scheduler.state_dict()["_step_count"] == 2  # the scheduler's first is its own
    plain = loop._loss
    loop.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    loop._loss = lambda **inputs: plain(**inputs) * float("inf")  # as where 16 bits are too short
    loop.step(batch, labelled.tokens)
    assert loop.scheduler.state_dict()["_step_count"] == 2


def test_factors_of_ia3_are_not_decayed(tiny_bert):
    base = load_base(locate(str(tiny_bert)), ["negative", "positive"], seed=0)
    model = apply(base.model, inspect(base.model, base.missing_keys), "ia3", {})[0]
    decayed = [
        p for g in make_optimizer(model, TrainRecipe(), 1e-3).param_groups if g["weight_decay"] for p in g["params"]
    ]
    factors = {id(p) for name, p in model.named_parameters() if "ia3_l" in name}
    assert factors
    assert decayed
    assert not factors & {id(p) for p in decayed}


def test_checkpointed_blocks_drop_nothing():
    block = torch.nn.Linear(2, 2)
    block.gradient_checkpointing, block.dropout = True, 0.5
    assert modules_in_training(block, checkpointing=True) == [block]
    assert block.training
    assert block.dropout == 0.0


class Narrow(torch.nn.Module):
    """Answers with the first token's id; has room for two texts at a time."""

    most = 2

    def forward(self, input_ids, **_):
        if len(input_ids) > self.most:
            raise torch.OutOfMemoryError("no room")
        ids = input_ids[:, 1].float()
        return type("Output", (), {"logits": torch.stack([ids, -ids], dim=1)})


def test_a_batch_without_room_is_halved(rows, hardware):
    encoder, labelled = rows
    model = Narrow()
    halved = predict_logits(model, encoder, labelled.tokens, hardware)
    model.most = 1000
    assert np.array_equal(halved, predict_logits(model, encoder, labelled.tokens, hardware))
    model.most = 0
    with pytest.raises(GateError, match="no room for one text"):
        predict_logits(model, encoder, labelled.tokens, hardware)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_a_full_device_is_told_with_the_way_out(error):
    with pytest.raises(GateError, match=r"out of memory: .* Lower it\."), told_when_full("Lower it."):
        raise error
    with pytest.raises(RuntimeError, match="another"), told_when_full("Lower it."):
        raise RuntimeError("another")


def test_a_runs_randomness_is_its_own():
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    expected = random.random(), np.random.random(), float(torch.rand(()))
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    torch.use_deterministic_algorithms(False)
    with own_randomness():
        seed_everything(5)
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    assert (random.random(), np.random.random(), float(torch.rand(()))) == expected


def test_torch_that_a_run_brought_along_is_as_it_was_made():
    code = """
from lightune.hardware import Hardware, own_randomness, seed_everything, tune_process
with own_randomness():
    seed_everything(5)
    tune_process(Hardware("cuda", "fp32", 0, 0, ()))
import torch
assert torch.backends.cuda.cudnn_sdp_enabled()
assert not torch.are_deterministic_algorithms_enabled()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


SHARED = """
import sys
import numpy as np, torch
from pathlib import Path
from tests import test_train as t
folder, out = sys.argv[1:]
labelled = t.some_rows(Path(folder))
torch.manual_seed(0)
model = t.adapted(Path(folder))
plan = t.Plan(1.0, 1e-2, 48, False)  # a step takes several passes
loop = t.Loop(model, labelled[0], labelled[1], t.TrainRecipe(batch_size=9), plan, t.choose_hardware("cpu", "fp32"), 4)
for step in range(3):
    loop.step(np.arange(9) + step, labelled[1].tokens)
if loop.accelerator.is_main_process:
    torch.save(t.trainable(model), out)
loop.accelerator.wait_for_everyone()
loop.accelerator.end_training()  # threads of a group that is still there can abort a process on its way out
"""


def test_processes_that_share_a_step_make_the_step_of_one(tiny_bert, tmp_path):
    """Nine texts over two processes: five and four, in several passes each."""
    (tmp_path / "step.py").write_text(SHARED)
    one = [sys.executable]
    two = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    found = []
    for name, command in (("one", one), ("two", two)):
        out = tmp_path / f"{name}.pt"
        env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*command, str(tmp_path / "step.py"), str(tiny_bert), str(out)],
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        found.append(torch.load(out, weights_only=True))
    for (name, alone), shared in zip(found[0].items(), found[1].values(), strict=True):
        assert torch.allclose(alone, shared, atol=1e-5), name


def test_a_single_step_trains(tiny_bert, rows, hardware):
    model = adapted(tiny_bert)
    before = trainable(model)
    history = fit(model, rows, hardware, epochs=0.1)
    assert history.n_steps == 1
    assert any(not torch.equal(p, before[name]) for name, p in trainable(model).items())
