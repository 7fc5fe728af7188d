"""The fast paths answer, learn and save like the plain network, for every architecture and method."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from lightune.errors import UserError
from lightune.hardware import choose_hardware, in_fp32
from lightune.model import adapters, attention, engine, methods, projections
from lightune.model import anatomy as anatomies
from lightune.model.engine import quicken
from lightune.model.methods import METHODS
from tests import tiny

N_CLASSES = 3
WRITTEN_OUT = {"bert", "roberta", "electra", "distilbert"}


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
    if architecture in WRITTEN_OUT:
        assert choices == {"blocks": "written out in fp32"}
    else:
        # GPT-2's layers are transposed; DeBERTa changes a projection in place
        assert (choices["LoRA"] == "plain") == (architecture in {"gpt2", "deberta"})
    same(plain, fast, inputs, y)


@pytest.mark.parametrize("architecture", sorted(WRITTEN_OUT))
def test_the_paths_of_a_gpu_answer_and_learn_the_same(architecture, bases):
    """The last block for one token, and LoRA added to the weights, made of modules: for any device."""
    plain, inputs, y = adapted(bases[architecture], "lora")
    fast = copy.deepcopy(plain)
    assert engine.shorten_last_block("last block", fast).choice == "first token only"
    assert engine.fuse_adapters("LoRA", fast, "fp32").choice == "added to the weights"
    same(plain, fast, inputs, y)


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """What written-out blocks do on a GPU but not on a CPU: fused attention, and sums that are made every time."""
    monkeypatch.setitem(attention.WAYS, "cpu", attention.Fused)
    made = projections.Projection.__init__

    def init(self: Any, *given: Any) -> None:
        made(self, *given)
        self._is_on_cpu = self._packs = False

    monkeypatch.setattr(projections.Projection, "__init__", init)


@pytest.mark.parametrize("architecture", sorted(WRITTEN_OUT))
def test_blocks_written_out_as_on_a_gpu_answer_and_learn_the_same(architecture, bases, as_on_a_gpu):
    plain, inputs, y = adapted(bases[architecture], "lora")
    fast = copy.deepcopy(plain)
    assert [decision.choice for decision in quicken(fast, "fp32")] == ["written out in fp32"]
    same(plain, fast, inputs, y)


def test_wrong_gradients_of_fused_attention_are_noticed(bases, as_on_a_gpu, monkeypatch):
    model, missing = tiny.load_base(bases["bert"], N_CLASSES, seed=1)
    model = methods.apply(model, anatomies.inspect(model, missing), "lora", {})[0].eval()
    right = attention.Fused.backward
    monkeypatch.setattr(
        attention.Fused, "backward", lambda self, *given: [1.2 * each for each in right(self, *given)]
    )
    assert engine.write_out_blocks("blocks", model, "fp32").choice == "plain"


@pytest.mark.parametrize("architecture", sorted(WRITTEN_OUT))
def test_in_bf16_written_out_blocks_are_as_near_to_fp32_as_autocast_is(architecture, bases):
    """Errors relative to fp32, over the logits and over all gradients: at most 1.5 times those of autocast."""
    import torch

    plain, inputs, y = adapted(bases[architecture], "lora")
    fast, rough = copy.deepcopy(plain), copy.deepcopy(plain)
    (decision,) = quicken(fast, "bf16")
    assert decision.choice == "written out in bf16"
    exact = answers_and_gradients(plain, inputs, y)
    with torch.autocast("cpu", torch.bfloat16):
        found, usual = answers_and_gradients(fast, inputs, y), answers_and_gradients(rough, inputs, y)

    def error(got: Any) -> list[float]:
        logits = float((got[0] - exact[0]).norm() / exact[0].norm())
        gradients = [(got[1][name] - g).norm() / (g.norm() + 1e-4) for name, g in exact[1].items()]
        return [logits, float(torch.stack(gradients).mean())]

    assert found[1].keys() == exact[1].keys()
    for got, wanted in zip(error(found), error(usual), strict=True):
        assert got < 1.5 * wanted + 2e-3


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("n_tokens", [attention.SHORT // 2, (attention.SHORT + attention.LONG) // 2, attention.LONG])
@pytest.mark.parametrize("architecture", sorted(WRITTEN_OUT))
def test_without_gradients_the_answers_are_the_same(architecture, n_tokens, precision, merged, bases):
    """Short texts take torch's fused attention in bf16, long ones and one alone in fp32; plain weights are packed."""
    import torch

    plain, *_ = adapted(bases[architecture], "lora")
    plain = adapters.merge(plain) if merged else plain
    fast = copy.deepcopy(plain)
    assert quicken(fast, precision)[0].choice == f"written out in {precision}"
    ids = torch.arange(3 * n_tokens).view(3, n_tokens) % 20 + 5
    mask = torch.ones_like(ids)
    mask[1, n_tokens // 2 :] = 0
    # one text's logits of an untrained head are too small to be compared in bf16, where it takes no way of its own
    alone = [{"input_ids": ids[:1]}] if precision == "fp32" else []
    for inputs in (*alone, {"input_ids": ids}, {"input_ids": ids, "attention_mask": mask}):
        with torch.no_grad():
            expected = plain(**inputs).logits
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            for _ in range(2):  # kept from the first time, packed weights serve the second
                error = (fast(**inputs).logits.float() - expected).norm() / expected.norm()
                assert error < (2e-5 if precision == "fp32" else 2e-2)


def test_a_written_out_block_follows_its_adapters(bases):
    """An optimizer changes A and B in place, and the fused one does not even count its changes."""
    import torch

    plain, inputs, y = adapted(bases["bert"], "lora")
    fast = copy.deepcopy(plain)
    quicken(fast, "fp32")
    optimizers = [
        torch.optim.AdamW([p for p in m.parameters() if p.requires_grad], lr=0.01, fused=True) for m in (plain, fast)
    ]
    for _ in range(3):
        for model, optimizer in zip((plain, fast), optimizers, strict=True):
            torch.nn.functional.cross_entropy(model(**inputs).logits, y).backward()
            optimizer.step()
            optimizer.zero_grad()
    with torch.no_grad():
        assert torch.allclose(fast(**inputs).logits, plain(**inputs).logits, atol=1e-3)


def test_a_written_out_block_steps_aside_for_disabled_adapters(bases):
    import torch

    plain, inputs, _ = adapted(bases["bert"], "lora")
    fast = copy.deepcopy(plain)
    quicken(fast, "fp32")
    with torch.no_grad(), plain.disable_adapter(), fast.disable_adapter():
        assert torch.allclose(fast(**inputs).logits, plain(**inputs).logits, atol=1e-6)


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
    assert {decision.what: decision.choice for decision in quicken(fast, "fp32")}["LoRA"] == "plain"
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
    written_out = engine.write_out_blocks("blocks", model, "fp32")
    assert written_out is not None
    assert "first token" not in written_out.why


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


def test_what_written_out_blocks_keep_is_counted(bases):
    """In bf16 half a copy of the linear layers of each block: with tiny BERT's shapes, counted from the layers."""
    model, *_ = adapted(bases["bert"], "lora")
    assert engine.copied_bytes(model) == 0
    quicken(model, "bf16")
    inside = [m for name, m in model.named_modules() if ".layer." in name and name.endswith("base_layer")]
    assert engine.copied_bytes(model) == sum(2 * layer.weight.numel() for layer in inside) > 0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_wrong_written_out_block_is_noticed(precision, bases, monkeypatch):
    model, missing = tiny.load_base(bases["bert"], N_CLASSES, seed=1)
    model = methods.apply(model, anatomies.inspect(model, missing), "lora", {})[0].eval()
    right = projections.Projection.to_adapters
    monkeypatch.setattr(
        projections.Projection, "to_adapters", lambda self, x, grad: [1.2 * each for each in right(self, x, grad)]
    )
    assert engine.write_out_blocks("blocks", model, precision).choice == "plain"
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize(("way", "factor"), [("to_adapters", 1.2), ("to_input", 1.2), ("_packed_product", 2.0)])
def test_what_is_wrong_in_16_bits_alone_is_noticed(way, factor, bases, monkeypatch):
    """The last is used without gradients only, in the lower block, which is not adapted."""
    import torch

    def packed(self: Any, x: Any) -> Any:  # as a CPU without kernels for bf16 can compute it, too
        return torch.nn.functional.linear(x, self._weight, self._bias)

    monkeypatch.setattr(projections, "can_pack", lambda dtype: True)
    monkeypatch.setattr(projections.Projection, "_packed_product", packed)
    model, missing = tiny.load_base(bases["bert"], N_CLASSES, seed=1)
    model = methods.apply(model, anatomies.inspect(model, missing), "lora", {}, layers=1)[0].eval()
    right = getattr(projections.Projection, way)

    def wrong(self: Any, *inputs: Any, **named: Any) -> Any:
        found, by = right(self, *inputs, **named), 1.0 if self._dtype == torch.float32 else factor
        return [by * each for each in found] if isinstance(found, list) else by * found

    monkeypatch.setattr(projections.Projection, way, wrong)
    assert engine.write_out_blocks("blocks", model, "fp32").choice == "written out in fp32"
    assert engine.write_out_blocks("blocks", model, "bf16").choice == "plain"


@pytest.mark.parametrize(("precision", "n_tokens"), [("fp32", attention.LONG), ("bf16", 2)])
def test_wrong_attention_of_answers_is_noticed(precision, n_tokens, bases, monkeypatch):
    """Texts of one length take torch's own attention without gradients, which is the check's to try, too."""
    import torch

    model, missing = tiny.load_base(bases["bert"], N_CLASSES, seed=1)
    model = methods.apply(model, anatomies.inspect(model, missing), "lora", {})[0].eval()
    asked = []

    def wrong(self: Any, q: Any, kv: Any, mask: Any, n_texts: int) -> Any:
        asked.append(len(q) // n_texts)
        return torch.zeros_like(q)

    monkeypatch.setattr(attention.Fused, "_attend", wrong)
    assert engine.write_out_blocks("blocks", model, precision).choice == "plain"
    assert max(asked) >= n_tokens


def test_a_network_that_was_moved_is_computed_where_it_is(bases):
    """What a block keeps beside the network's own weights does not move with them."""
    import torch

    model, inputs, _ = adapted(bases["bert"], "lora")
    quicken(model, "fp32")
    layers = anatomies.find_layers(engine.plain_network(model))
    fast = [vars(engine.plain_network(model).get_submodule(name))["fast"] for name in layers]
    with torch.inference_mode():
        expected = model(**inputs).logits
        for block in fast:
            block.device, block.is_used = torch.device("meta"), False
        assert torch.allclose(model(**inputs).logits, expected, atol=1e-5)
    assert not any(block.is_used for block in fast)
    assert quicken(model, "fp32")[0].choice == "written out in fp32"  # where it is now
    with torch.inference_mode():
        assert torch.allclose(model(**inputs).logits, expected, atol=1e-5)
    assert all(vars(engine.plain_network(model).get_submodule(name))["fast"].is_used for name in layers)


def test_a_sum_that_memory_had_no_room_for_is_made_again(bases, monkeypatch):
    """A batch is halved then and asked again: it must not meet weights without the adapter."""
    import torch

    model, *_ = adapted(bases["bert"], "lora")
    inputs = {"input_ids": torch.arange(8).view(1, 8) + 5}
    with torch.inference_mode():
        expected = model(**inputs).logits
    quicken(model, "fp32")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.mul_(2.0)  # the sums are out of date
    right, fails = torch.addmm, iter([True])

    def addmm(*given: Any, **named: Any) -> Any:
        if next(fails, False):
            raise RuntimeError("can't allocate memory")
        return right(*given, **named)

    monkeypatch.setattr(torch, "addmm", addmm)
    with torch.inference_mode():
        with pytest.raises(RuntimeError, match="allocate"):
            model(**inputs)
        got = model(**inputs).logits
        for module in model.modules():
            if "fast" in vars(module):
                del module.forward, module.fast
        assert torch.allclose(got, model(**inputs).logits, atol=1e-5)
        assert not torch.allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("seed", range(12))
def test_a_head_that_puts_out_next_to_nothing_does_not_decide_about_the_blocks(seed, bases):
    """Rounding is a large part of some untrained heads' logits; the blocks under them are as good as any."""
    import torch

    model, missing = tiny.load_base(bases["bert"], 2, seed=seed)
    with torch.no_grad():
        model.classifier.weight[1] = model.classifier.weight[0] + 1e-4 * model.classifier.weight[1]
    model = methods.apply(model, anatomies.inspect(model, missing), "lora", {})[0].eval()
    assert quicken(model, "bf16")[0].choice == "written out in bf16"


def test_the_last_block_is_compared_again_once_adapters_are_in(bases):
    """What suited the bare network was never shown to suit the adapted one."""
    model, missing = tiny.load_base(bases["bert"], N_CLASSES, seed=1)
    engine.shorten_last_block("last block", model)
    model = methods.apply(model, anatomies.inspect(model, missing), "lora", {})[0].eval()
    block = model.get_submodule("base_model.model.bert.encoder.layer.1")
    block.forward = lambda hidden, *others, **named: 2 * hidden
    assert engine.shorten_last_block("last block", model) is None
    assert block.forward.__class__.__name__ == "FirstToken"


def test_only_blocks_that_were_adapted_since_are_written_out_anew(bases):
    model, missing = tiny.load_base(bases["bert"], N_CLASSES, seed=1)
    model.requires_grad_(False)
    quicken(model, "fp32")
    names = anatomies.find_layers(model)
    before = [model.get_submodule(name).fast for name in names]
    model = methods.apply(model, anatomies.inspect(model, missing), "lora", {}, layers=1)[0].eval()
    (decision,) = quicken(model, "fp32")
    after = [model.get_base_model().get_submodule(name).fast for name in names]
    assert decision.what == "blocks"
    assert [new is old for new, old in zip(after, before, strict=True)] == [True] * (len(names) - 1) + [False]


def test_blocks_in_which_more_than_lora_trains_are_plain_again(bases):
    model, missing = tiny.load_base(bases["bert"], N_CLASSES, seed=1)
    model.requires_grad_(False)
    quicken(model, "fp32")
    model = methods.apply(model, anatomies.inspect(model, missing), "bitfit", {})[0].eval()
    assert {decision.what: decision.choice for decision in quicken(model, "fp32")}["blocks"] == "plain"
    assert not any("fast" in vars(module) for module in model.modules())


def test_block_sparse_attention_is_not_touched(tmp_path):
    """BigBird turns its attention into a full one when it meets a short text, and never turns it back."""
    from transformers import BigBirdConfig, BigBirdForSequenceClassification

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    model = BigBirdForSequenceClassification(BigBirdConfig(vocab_size=60, block_size=4, num_random_blocks=1, **sizes))
    assert [decision.choice for decision in quicken(model.eval(), "fp32")] == ["plain"]
    assert model.bert.attention_type == "block_sparse"


def test_a_network_that_normalises_first_stays_plain(tmp_path):
    """Its parts have the names of BERT's, but for the normalisation after attention."""
    from transformers import RobertaPreLayerNormConfig, RobertaPreLayerNormForSequenceClassification

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = RobertaPreLayerNormConfig(vocab_size=60, pad_token_id=1, **sizes)
    model = RobertaPreLayerNormForSequenceClassification(config).eval().requires_grad_(False)
    assert [decision.choice for decision in quicken(model, "bf16")] == ["plain"]


def test_a_network_that_gives_its_blocks_more_stays_plain():
    """RoFormer's blocks have BERT's parts and are given positions besides: they would be right by stepping aside."""
    from transformers import RoFormerConfig, RoFormerForSequenceClassification

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    model = RoFormerForSequenceClassification(RoFormerConfig(vocab_size=60, embedding_size=32, **sizes)).eval()
    assert {decision.choice for decision in quicken(model, "fp32")} == {"plain"}


def test_blocks_that_are_to_be_computed_again_take_the_plain_path(bases):
    """Recomputing is done by the class's forward, which a written-out block would hide."""
    from lightune.training.train import enable_checkpointing, modules_in_training

    plain, inputs, y = adapted(bases["bert"], "lora")
    fast = copy.deepcopy(plain)
    quicken(fast, "fp32")
    enable_checkpointing(fast.get_base_model())
    for module in modules_in_training(fast.eval(), True):
        module.training = True
    called = []
    for name in anatomies.find_layers(fast.get_base_model()):
        block = fast.get_base_model().get_submodule(name)
        block.fast.forward = lambda *_: called.append(1)
    same(plain, fast, inputs, y)
    assert not called


def test_another_precision_writes_the_blocks_out_anew(bases):
    model, *_ = adapted(bases["bert"], "lora")
    assert quicken(model, "fp32")[0].choice == "written out in fp32"
    assert quicken(model, "bf16")[0].choice == "written out in bf16"


def test_what_a_network_cannot_compute_in_is_told(bases):
    """DeBERTa fills its mask with the least number of fp32, which bf16 does not have."""
    model, _missing = tiny.load_base(bases["deberta"], N_CLASSES, seed=1)
    assert "overflow" in engine.can_compute(model, "bf16")
    assert engine.can_compute(model, "fp32") == ""
    model, _missing = tiny.load_base(bases["bert"], N_CLASSES, seed=1)
    assert engine.can_compute(model, "bf16") == ""
    bf16 = choose_hardware("cpu", "bf16")
    told = in_fp32(bf16, "auto", "it overflows")
    assert (told.precision, told.decisions[-1].why) == ("fp32", "this network cannot compute in bf16 (it overflows)")
    with pytest.raises(UserError, match=r"hardware\.precision = 'bf16': this network cannot compute in it \(it over"):
        in_fp32(bf16, "bf16", "it overflows")


def test_a_warm_network_can_be_copied_and_pickled(bases):
    import pickle

    import torch

    plain, *_ = adapted(bases["bert"], "lora")
    merged = adapters.merge(plain)
    quicken(merged, "fp32")
    inputs = {"input_ids": torch.arange(8).view(1, 8) + 5}
    with torch.inference_mode():
        expected = merged(**inputs).logits  # packs its weights
        for again in (copy.deepcopy(merged), pickle.loads(pickle.dumps(merged))):
            assert torch.equal(again(**inputs).logits, expected)
