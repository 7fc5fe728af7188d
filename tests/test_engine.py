"""The fast paths answer, learn and save like the plain network, for every architecture and method."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from lightune.errors import UserError
from lightune.model import adapters, engine, methods
from lightune.model import anatomy as anatomies
from lightune.model.engine import quicken
from lightune.model.methods import METHODS
from tests import tiny

N_CLASSES = 3
FIRST_TOKEN_ONLY = {"bert", "roberta", "electra", "distilbert"}


@pytest.fixture(scope="session")
def bases(tmp_path_factory):
    root = tmp_path_factory.mktemp("engine")
    return {name: tiny.make(name, root / name) for name in tiny.ARCHITECTURES}


def adapted(folder: Any, method: str, **options: Any) -> tuple[Any, dict[str, Any], Any]:
    """A model whose adapters differ from their start, the model's inputs and the class ids."""
    import torch

    model, missing = tiny.load_base(folder, N_CLASSES, seed=1)
    tokenizer = tiny.load_tokenizer(folder)
    anatomies.ensure_pad_token(tokenizer, model)
    torch.manual_seed(2)
    model = methods.apply(model, anatomies.inspect(model, missing), method, options)[0].eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.02 * torch.randn_like(parameter)
    return model, *tiny.batch(tokenizer, N_CLASSES)


def answers_and_gradients(model: Any, inputs: dict[str, Any], y: Any) -> tuple[Any, dict[str, Any]]:
    import torch

    logits = model(**inputs).logits
    torch.nn.functional.cross_entropy(logits, y).backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return logits.detach(), found


def same(plain: Any, fast: Any, inputs: dict[str, Any], y: Any) -> None:
    import torch

    (expected, gradients), (logits, found) = (answers_and_gradients(m, inputs, y) for m in (plain, fast))
    assert torch.allclose(logits, expected, atol=2e-5)
    assert found.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert torch.allclose(found[name], gradient, atol=2e-5 * max(1.0, float(gradient.abs().max()))), name


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_every_architecture_answers_and_learns_the_same(architecture, bases):
    plain, inputs, y = adapted(bases[architecture], "lora")
    fast = copy.deepcopy(plain)
    choices = {decision.what: decision.choice for decision in quicken(fast, "fp32")}
    assert (choices["last block"] == "first token only") == (architecture in FIRST_TOKEN_ONLY)
    # GPT-2's layers are transposed; DeBERTa changes a projection in place
    assert (choices["LoRA"] == "plain") == (architecture in {"gpt2", "deberta"})
    same(plain, fast, inputs, y)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("architecture", ["bert", "distilbert"])
def test_every_method_answers_and_learns_the_same(method, architecture, bases):
    try:
        plain, inputs, y = adapted(bases[architecture], method)
    except UserError as refused:
        pytest.skip(str(refused))
    fast = copy.deepcopy(plain)
    quicken(fast, "fp32")
    same(plain, fast, inputs, y)


@pytest.mark.parametrize("options", [{"dropout": 0.5}, {"use_dora": True}])
def test_lora_with_an_option_that_needs_the_products_stays_plain(options, bases):
    plain, inputs, y = adapted(bases["bert"], "lora", **options)
    fast = copy.deepcopy(plain)
    choices = {decision.what: decision.choice for decision in quicken(fast, "fp32")}
    assert choices["LoRA"] == "plain"
    same(plain, fast, inputs, y)


def test_twice_is_once(bases):
    model, *_ = adapted(bases["bert"], "lora")
    assert quicken(model, "fp32")
    assert quicken(model, "fp32") == []


def test_a_quick_model_is_saved_loaded_and_merged_like_any(bases, tmp_path):
    import torch

    plain, inputs, _ = adapted(bases["bert"], "lora")
    quicken(plain, "fp32")
    adapters.save(plain, tmp_path)
    loaded = adapters.load(tiny.load_base(bases["bert"], N_CLASSES, seed=9)[0], tmp_path)
    with torch.no_grad():
        expected = plain(**inputs).logits
        assert torch.allclose(loaded(**inputs).logits, expected, atol=2e-5)
        assert torch.allclose(adapters.merge(plain)(**inputs).logits, expected, atol=2e-5)


def test_in_low_precision_the_separate_products_are_used(bases):
    """A small change added to a weight in 16 bits is lost; PEFT's own path keeps it."""
    import torch

    plain, inputs, _ = adapted(bases["bert"], "lora")
    fast = copy.deepcopy(plain)
    assert engine.fuse_adapters("LoRA", fast, "fp32").choice != "plain"
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(fast(**inputs).logits, plain(**inputs).logits)


def test_a_classifier_that_reads_every_token_keeps_the_plain_block(bases):
    import torch

    model, *_ = adapted(bases["bert"], "lora")

    class Mean(torch.nn.Module):
        def __init__(self, inner: Any):
            super().__init__()
            self.inner = inner

        def forward(self, hidden: Any) -> Any:
            return self.inner(hidden.mean(dim=1, keepdim=True))

    plain = model.get_base_model()
    plain.bert.pooler = Mean(plain.bert.pooler)
    decision = engine.shorten_last_block("last block", model)
    assert decision is not None
    assert decision.choice == "plain"


def test_the_check_changes_no_parameter_and_draws_no_random_number(bases):
    import torch

    model, *_ = adapted(bases["bert"], "lora")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    quicken(model, "fp32")
    assert torch.equal(torch.rand(2), expected)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_wrong_gradient_is_noticed_although_lora_starts_at_nothing(bases, monkeypatch):
    import torch

    model, missing = tiny.load_base(bases["bert"], N_CLASSES, seed=1)
    model = methods.apply(model, anatomies.inspect(model, missing), "lora", {})[0].eval()

    def wrong(layer: Any, x: Any) -> Any:
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        return layer.base_layer(x) + torch.nn.functional.linear(x, layer.scaling["default"] * b @ a.detach())

    monkeypatch.setattr(engine, "_fused_forward", wrong)
    assert engine.fuse_adapters("LoRA", model, "fp32").choice == "plain"


def test_the_last_block_is_compared_again_once_adapters_are_in(bases):
    """What suited the bare network was never shown to suit the adapted one."""
    model, missing = tiny.load_base(bases["bert"], N_CLASSES, seed=1)
    engine.quicken(model, "fp32")
    model = methods.apply(model, anatomies.inspect(model, missing), "lora", {})[0].eval()
    block = model.get_submodule("base_model.model.bert.encoder.layer.1")
    block.forward = lambda hidden, *others, **named: 2 * hidden
    decisions = engine.quicken(model, "fp32")
    assert [decision.what for decision in decisions] == ["LoRA"]
    assert block.forward.__class__.__name__ == "partial"


def test_in_16_bits_no_product_is_said_to_be_added_to_the_weights(bases):
    model, *_ = adapted(bases["bert"], "lora")
    decisions = {decision.what: decision for decision in quicken(model, "bf16")}
    assert decisions["LoRA"].choice == "plain"
    assert "16 bits" in decisions["LoRA"].why


def test_block_sparse_attention_is_not_touched(tmp_path):
    """BigBird turns its attention into a full one when it meets a short text, and never turns it back."""
    from transformers import BigBirdConfig, BigBirdForSequenceClassification

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    model = BigBirdForSequenceClassification(BigBirdConfig(vocab_size=60, block_size=4, num_random_blocks=1, **sizes))
    assert [decision.choice for decision in quicken(model.eval(), "fp32")] == ["plain"]
    assert model.bert.attention_type == "block_sparse"
