"""LoRA on every architecture: the right layers, the whole head saved, the same logits in another process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lightune.data.batching import make_encoder
from lightune.errors import UserError
from lightune.evidence.evaluate import predict_logits
from lightune.hardware import choose_hardware
from lightune.model import adapters, methods
from lightune.model import anatomy as anatomies
from lightune.model.backbones import load_base, locate, settle_padding
from tests import tiny

N_CLASSES = 3
NAMES = list(tiny.ARCHITECTURES)

# last parts of the names of the linear layers in the blocks; from each model's published layer names
LINEARS = {
    "bert": {"query", "key", "value", "dense"},
    "distilbert": {"q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"},
    "roberta": {"query", "key", "value", "dense"},
    "electra": {"query", "key", "value", "dense"},
    "mpnet": {"q", "k", "v", "o", "dense"},
    "modernbert": {"Wqkv", "Wo", "Wi"},
    "albert": {"query", "key", "value", "dense", "ffn", "ffn_output"},
    "deberta": {"in_proj", "pos_proj", "pos_q_proj", "dense"},
    "deberta-v2": {"query_proj", "key_proj", "value_proj", "dense"},
    "xlnet": {"layer_1", "layer_2"},
    "gpt2": {"c_attn", "c_proj", "c_fc"},
    "llama": {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
    "qwen2": {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
    "qwen3": {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
    "bart": {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"},
}
HEADS = {
    "bert": ("classifier",),
    "distilbert": ("classifier", "pre_classifier"),
    "roberta": ("classifier",),
    "electra": ("classifier",),
    "mpnet": ("classifier",),
    "modernbert": ("classifier", "head"),
    "albert": ("classifier",),
    "deberta": ("classifier", "pooler"),
    "deberta-v2": ("classifier", "pooler"),
    "xlnet": ("logits_proj", "sequence_summary"),
    "gpt2": ("score",),
    "llama": ("score",),
    "qwen2": ("score",),
    "qwen3": ("score",),
    "bart": ("classification_head",),
}
POOLERS = {"bert": ("bert.pooler",), "albert": ("albert.pooler",)}
DECODERS = {"gpt2", "llama", "qwen2", "qwen3"}
TAKE_PREFIX = {"bert", "roberta", "electra", *DECODERS}

# runs in another process, under another seed: our loader, and PEFT's own on the folder alone
RELOAD = """
import sys, warnings
from pathlib import Path
import torch
from peft import AutoPeftModelForSequenceClassification
from safetensors.torch import save_file
sys.path.insert(0, sys.argv[1])
from tests import tiny
from lightune.model import adapters, anatomy
root, answers = Path(sys.argv[2]), {}
for name in sys.argv[3:]:
    tokenizer = tiny.load_tokenizer(root / name)
    base, _ = tiny.load_base(root / name, 3, seed=1234)
    anatomy.ensure_pad_token(tokenizer, base)
    inputs, _ = tiny.batch(tokenizer, 3, n_rows=6)
    folder = root / f"{name}-adapter"
    ours = adapters.load(base, folder)
    stock = AutoPeftModelForSequenceClassification.from_pretrained(folder, num_labels=3).eval()
    anatomy.ensure_pad_token(tokenizer, stock.get_base_model())
    with torch.no_grad():
        answers[f"{name}.ours"], answers[f"{name}.stock"] = ours(**inputs).logits, stock(**inputs).logits
save_file(answers, root / "answers.safetensors")
"""


def load(folder: Path, seed: int = 1) -> tuple[Any, set[str], Any, Any]:
    model, missing = tiny.load_base(folder, N_CLASSES, seed=seed)
    tokenizer = tiny.load_tokenizer(folder)
    decision = anatomies.ensure_pad_token(tokenizer, model)
    return model, missing, tokenizer, decision


def train_one(root: Path, name: str) -> dict[str, Any]:
    """Two steps of LoRA, saved beside the base; the logits and what was seen on the way."""
    import torch

    model, missing, tokenizer, decision = load(tiny.make(name, root / name))
    anatomy = anatomies.inspect(model, missing)
    adapted = methods.apply(model, anatomy, "lora", {"rank": 2})[0]
    inputs, labels = tiny.batch(tokenizer, N_CLASSES, n_rows=6)
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(2):
        torch.nn.functional.cross_entropy(adapted(**inputs).logits, labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    moved = {key: bool(p.abs().sum() > 0) for key, p in adapted.named_parameters() if "lora_B" in key}
    adapters.save(adapted, root / f"{name}-adapter")
    with torch.no_grad():
        logits = adapted(**inputs).logits
    seen = {"anatomy": anatomy, "missing": missing, "decision": decision, "moved": moved, "logits": logits}
    return {**seen, "folder": root / f"{name}-adapter"}


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("architectures")


@pytest.fixture(scope="session")
def runs(root):
    return {name: train_one(root, name) for name in NAMES}


@pytest.fixture(scope="session")
def reloaded(root, runs):
    from safetensors.torch import load_file

    here = str(Path(tiny.__file__).parent)
    subprocess.run([sys.executable, "-c", RELOAD, here, str(root), *NAMES], check=True, timeout=300)
    return load_file(root / "answers.safetensors")


@pytest.mark.parametrize("name", NAMES)
def test_the_linear_layers_of_the_blocks_are_the_targets(runs, name):
    anatomy = runs[name]["anatomy"]
    assert {linear.rpartition(".")[2] for linear in anatomy.linears} == LINEARS[name]
    assert anatomies.inside(next(iter(anatomy.linears)), anatomy.layers[:1])
    assert anatomies.inside(list(anatomy.linears)[-1], anatomy.layers[-1:])


@pytest.mark.parametrize("name", NAMES)
def test_every_adapted_layer_learns(runs, name):
    moved = runs[name]["moved"]
    assert len(moved) == len(runs[name]["anatomy"].linears)
    assert all(moved.values()), [key for key, value in moved.items() if not value]


@pytest.mark.parametrize("name", NAMES)
def test_the_head_and_the_pooler_are_found_exactly(runs, name):
    anatomy = runs[name]["anatomy"]
    assert anatomy.head_modules == HEADS[name]
    assert anatomy.pooler_modules == POOLERS.get(name, ())


@pytest.mark.parametrize("name", NAMES)
def test_the_adapter_file_holds_all_that_the_checkpoint_lacked(runs, name):
    from safetensors import safe_open

    with safe_open(runs[name]["folder"] / "adapter_model.safetensors", framework="pt") as file:
        saved = {key.removeprefix("base_model.model.") for key in file.keys()}  # noqa: SIM118
    assert runs[name]["missing"]
    assert runs[name]["missing"] <= saved


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("loader", ["ours", "stock"])
def test_another_process_gives_the_same_logits(runs, reloaded, name, loader):
    import torch

    torch.testing.assert_close(reloaded[f"{name}.{loader}"], runs[name]["logits"], atol=1e-6, rtol=0)


def test_a_saved_adapter_reaches_the_logits(runs, reloaded):
    """The control: another architecture's logits do differ, so the comparison above can fail."""
    import torch

    assert not torch.allclose(reloaded["bert.ours"], runs["electra"]["logits"], atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_decoders_are_told_from_encoders_and_get_a_padding_token(runs, name):
    assert runs[name]["anatomy"].is_decoder == (name in DECODERS)
    assert (runs[name]["decision"] is not None) == (name in DECODERS)


@pytest.mark.parametrize("name", NAMES)
def test_prefix_works_or_is_refused_before_training(root, runs, name):
    model, missing, _, _ = load(root / name)
    anatomy = anatomies.inspect(model, missing)
    if name in TAKE_PREFIX:
        methods.apply(model, anatomy, "prefix", {"virtual_tokens": 4})
    else:
        with pytest.raises(UserError, match=r"method.name = 'prefix': .*Use '"):
            methods.apply(model, anatomy, "prefix", {"virtual_tokens": 4})


@pytest.mark.parametrize("name", ["albert", "electra"])
@pytest.mark.parametrize(("method", "options"), [("prompt", {"init": "random"}), ("p_tuning", {})])
def test_prompts_have_the_width_of_the_token_embeddings(root, runs, name, method, options):
    model, missing, _, _ = load(root / name)
    anatomy = anatomies.inspect(model, missing)
    adapted = methods.apply(model, anatomy, method, {"virtual_tokens": 4, **options})[0]
    assert adapted.prompt_encoder["default"].embedding.weight.shape == (4, 16)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("xlnet", "'prompt': with it this model's answers depend on padding"),
        ("bart", r"'prompt': this model refuses it \(Passing input embeddings is currently not supported"),
    ],
)
def test_a_prompt_is_tried_before_training(root, runs, name, message):
    model, missing, _, _ = load(root / name)
    with pytest.raises(UserError, match=message):
        methods.apply(model, anatomies.inspect(model, missing), "prompt", {"virtual_tokens": 4})


def test_attention_and_feed_forward_are_told_apart(runs):
    gpt2, albert, bart = (runs[name]["anatomy"] for name in ("gpt2", "albert", "bart"))
    assert gpt2.attention_inputs == ("transformer.h.0.attn.c_attn", "transformer.h.1.attn.c_attn")
    assert gpt2.feed_forward_outputs == ("transformer.h.0.mlp.c_proj", "transformer.h.1.mlp.c_proj")
    assert [name.rpartition(".")[2] for name in albert.feed_forward_outputs] == ["ffn_output"]
    assert {anatomies.role(name) for name in bart.attention_inputs} == {"query", "key", "value"}
    assert runs["xlnet"]["anatomy"].attention_inputs == ()


def test_one_shared_block_counts_once_and_runs_many_times(runs):
    albert = runs["albert"]["anatomy"]
    assert (len(albert.layers), albert.n_layers) == (1, 2)


def test_norms_leave_out_embeddings_and_head(runs):
    assert runs["gpt2"]["anatomy"].norm_modules[-1] == "transformer.ln_f"
    assert not any("embed" in name or "head" in name for run in runs.values() for name in run["anatomy"].norm_modules)


def test_targets_that_an_architecture_lacks_are_refused(root, runs):
    model, missing, _, _ = load(root / "xlnet")
    with pytest.raises(UserError, match=r"targets = 'attention': no such layers.*'layer_1', 'layer_2'"):
        methods.apply(model, anatomies.inspect(model, missing), "lora", {"targets": "attention"})


def test_a_checkpoint_with_its_head_still_trains_the_head(root, runs):
    model, _, _, _ = load(root / "distilbert")
    assert anatomies.inspect(model, set()).head_modules == HEADS["distilbert"]


def test_a_missing_weight_among_pretrained_layers_is_refused(root, runs):
    import torch

    model, missing, _, _ = load(root / "bert")
    model.bert.encoder.gate = torch.nn.Parameter(torch.zeros(3))
    with pytest.raises(UserError, match=r"lacks \['bert.encoder.gate'\], which sits among pretrained layers"):
        anatomies.inspect(model, missing | {"bert.encoder.gate"})


def test_a_network_that_short_texts_change_is_tried_on_none(tmp_path):
    from transformers import BigBirdConfig, BigBirdForSequenceClassification

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = BigBirdConfig(vocab_size=60, block_size=4, num_random_blocks=1, **sizes)
    model = BigBirdForSequenceClassification(config).eval()
    tokenizer = tiny.load_tokenizer(tiny.make("bert", tmp_path))
    tokenizer.padding_side = "left"
    assert settle_padding(tokenizer, model) == []
    assert model.bert.attention_type == "block_sparse"


def test_a_network_without_blocks_is_refused():
    import torch

    with pytest.raises(UserError, match="Linear: no repeated transformer blocks found"):
        anatomies.find_layers(torch.nn.Linear(2, 2))


def test_a_tokenizer_without_any_special_token_is_refused(root, runs):
    model, _, tokenizer, _ = load(root / "gpt2")
    tokenizer.pad_token = tokenizer.eos_token = tokenizer.unk_token = tokenizer.bos_token = None
    with pytest.raises(UserError, match="no padding token and no end, unknown or start token"):
        anatomies.ensure_pad_token(tokenizer, model)


@pytest.mark.parametrize(
    ("name", "side"), [("gpt2", "right"), ("bert", "right"), ("llama", "left"), ("xlnet", "left")]
)
def test_a_tokenizer_that_pads_left_does_so_only_where_the_answers_stay(name, side, tmp_path):
    """GPT-2 and BERT count places from the start of the row, padding included."""
    folder = tiny.make(name, tmp_path)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"padding_side": "left"}))
    base = load_base(locate(str(folder)), ["negative", "positive"], seed=0)
    assert base.tokenizer.padding_side == side
    assert ("padding" in {decision.what for decision in base.decisions}) == (side == "right")
    base.tokenizer.save_pretrained(tmp_path / "saved")
    encoder = make_encoder(tiny.load_tokenizer(tmp_path / "saved"), 32, "head", 64)
    tokens = encoder.tokenise([text for text, _ in tiny.EXAMPLES[2]])
    hardware = choose_hardware("cpu", "fp32")
    together = predict_logits(base.model, encoder, tokens, hardware)
    alone = predict_logits(base.model, encoder, encoder.tokenise([tiny.EXAMPLES[2][0][0]]), hardware)
    assert together[0] == pytest.approx(alone[0], abs=1e-5)
