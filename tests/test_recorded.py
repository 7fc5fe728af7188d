"""Passes recorded once a shape: the same gradients, and what happens where a recording fails or is wrong."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from lightune.training import recorded
from lightune.training.recorded import PAYS_FROM, Recorded, recording_pays


class Weights:
    """A small network: the loss of `x` (B, 3), all of it read, is the sum of (x · w)², its gradient 2 (x · w) x."""

    def __init__(self) -> None:
        import torch

        self.w = torch.nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
        self.n_calls = 0

    def run(self, inputs: dict[str, Any]) -> Any:
        import torch

        self.n_calls += 1
        loss = ((inputs["x"] * inputs["attention_mask"]) @ self.w).square().sum()
        torch.autograd.backward(loss)
        return loss.detach()


@pytest.fixture
def network(monkeypatch):
    """On a machine without a GPU: a graph that computes its pass again, from where its inputs are, when replayed.

    `error` in the network's attributes is raised by a recording, `factor` falsifies the gradients of a replay.
    """
    import torch

    weights = Weights()

    class Graph:
        def replay(self) -> None:
            before = weights.w.grad.clone()
            self.loss.copy_(weights.run(self.inputs))
            weights.n_calls -= 1
            weights.w.grad.copy_(before + getattr(weights, "factor", 1.0) * (weights.w.grad - before))

    @contextmanager
    def capture(graph: Graph, **_: Any) -> Any:
        before, run = weights.w.grad.clone(), weights.run

        def noted(inputs: Any) -> Any:
            graph.inputs, graph.loss = inputs, torch.zeros(())  # nothing is computed while a graph is made
            return graph.loss

        passes._run = noted
        if hasattr(weights, "error"):
            passes._run = run
            raise weights.error
        yield
        passes._run = run
        weights.w.grad.copy_(before)

    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    passes = Recorded(weights.run, [weights.w])
    weights.passes = passes
    return weights


def check(weights: Weights, n_rows: int, seed: int) -> None:
    """The loss and the gradient of two passes after one another are those of the formula."""
    import torch

    weights.w.grad.zero_()
    total, expected = torch.zeros(3), 0.0
    for part in range(2):
        x = torch.randn(n_rows, 3, generator=torch.Generator().manual_seed(2 * seed + part))
        got = float(weights.passes({"x": x, "attention_mask": torch.ones(n_rows, 3)}))
        with torch.no_grad():
            total += 2 * (x @ weights.w) @ x
            expected = float((x @ weights.w).square().sum())
        assert got == pytest.approx(expected, rel=1e-5)
    assert torch.allclose(weights.w.grad, total, rtol=1e-4)


def test_a_shape_that_is_met_again_is_recorded_and_replayed(network):
    for seed in range(4):
        check(network, 5, seed)
    assert network.n_calls == 2  # the first meeting, and the one that the recording was compared with
    check(network, 6, 9)
    assert network.n_calls == 4
    assert not network.passes.refusal


def test_a_recording_that_fails_leaves_the_passes_as_they_were(network):
    network.error = RuntimeError("operation not permitted when stream is capturing\nmore")
    for seed in range(3):
        check(network, 5, seed)
    assert network.n_calls == 7  # one more, to compare a recording with
    assert network.passes.refusal == "RuntimeError: operation not permitted when stream is capturing"


def test_a_recording_with_other_gradients_is_not_used(network):
    network.factor = 1.1
    for seed in range(3):
        check(network, 5, seed)
    assert network.n_calls == 7
    assert re.fullmatch(r"a recording was \d\.\d% off", network.passes.refusal)


def test_recording_pays_where_shapes_come_back():
    lengths = np.array([10, 11, 60, 300])  # three shapes: 16, 64 and 320 tokens
    assert recording_pays(lengths, 3 * PAYS_FROM)
    assert not recording_pays(lengths, 3 * PAYS_FROM - 1)


@pytest.mark.filterwarnings("ignore:.*defaults to a non-deterministic algorithm")  # where order matters least
def test_on_a_gpu_training_learns_the_same(tiny_bert, monkeypatch):
    """In fp32, where the order in which numbers are added up makes next to no difference."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a GPU, and LIGHTUNE_TEST_GPU=1 to see it")
    from lightune.data.batching import Labelled, make_encoder
    from lightune.hardware import choose_hardware
    from lightune.model import methods
    from lightune.model.anatomy import inspect
    from lightune.model.backbones import load_base, locate
    from lightune.model.engine import quicken
    from lightune.recipe import TrainRecipe
    from lightune.records import Plan
    from lightune.training.train import Loop

    def learned(pays: bool) -> tuple[list[float], dict[str, Any], Any]:
        monkeypatch.setattr(recorded, "PAYS_FROM", 1 if pays else 10**6)
        torch.manual_seed(0)
        base = load_base(locate(str(tiny_bert)), ["neg", "pos"], seed=0)
        model, _ = methods.apply(base.model, inspect(base.model, base.missing_keys), "lora", {})
        model = model.cuda()
        assert quicken(model, "fp32")[0].choice == "written out in fp32"
        encoder = make_encoder(base.tokenizer, 32, "head", 64)
        texts = ["good fine"] * 8 + ["bad poor awful a b c d e"] * 8
        rows = Labelled(encoder.tokenise(texts), np.arange(16) // 8)
        hardware, plan = choose_hardware("cuda", "fp32"), Plan(1.0, 1e-2, 4096, False)
        loop = Loop(model, encoder, rows, TrainRecipe(batch_size=8), plan, hardware, 100)
        losses = [float(loop.step(np.arange(8) + 8 * (step % 2), rows.tokens)) for step in range(12)]
        parameters = {name: p.detach().cpu() for name, p in model.named_parameters() if p.requires_grad}
        return losses, parameters, loop.recorded

    losses, parameters, passes = learned(True)
    assert isinstance(passes, Recorded)
    assert passes._recordings
    assert not passes.refusal
    others, expected, plain = learned(False)
    assert plain is None
    assert np.allclose(losses, others, atol=1e-4)
    for name, parameter in parameters.items():
        assert torch.allclose(parameter, expected[name], atol=1e-3), name
