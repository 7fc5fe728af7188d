"""Every row of METHODS keeps the same promises on a tiny encoder and a tiny decoder."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from lightune.errors import UserError
from lightune.model import adapters, methods
from lightune.model import anatomy as anatomies
from lightune.model.backbones import Reference, load_base
from lightune.model.methods import METHODS
from tests import tiny

N_CLASSES, STEPS = 3, 8
MODELS = ("bert", "llama")
# a decoder given embeddings in place of token ids cannot tell padding from text
REFUSED = {("llama", "prompt"), ("llama", "p_tuning")}
PAIRS = [(model, name) for model in MODELS for name in METHODS if (model, name) not in REFUSED]


@dataclass
class Trained:
    """A method after a few steps, with what was seen on the way; answers are logits (N, C)."""

    model: Any
    untuned: Any
    at_start: Any
    answers: Any
    losses: list[float]
    before: dict[str, Any]
    folder: Path


@pytest.fixture(scope="session")
def bases(tmp_path_factory):
    root = tmp_path_factory.mktemp("bases")
    return {name: tiny.make(name, root / name) for name in (*MODELS, "gpt2", "albert", "roberta")}


def fresh(folder: Path, seed: int = 1) -> tuple[Any, Any, Any]:
    model, missing = tiny.load_base(folder, N_CLASSES, seed=seed)
    tokenizer = tiny.load_tokenizer(folder)
    anatomies.ensure_pad_token(tokenizer, model)
    return model, anatomies.inspect(model, missing), tokenizer


def adapt(folder: Path, name: str, options: dict[str, Any] | None = None, **how: Any) -> Any:
    import torch

    model, anatomy, _ = fresh(folder)
    torch.manual_seed(2)
    return methods.apply(model, anatomy, name, options or {}, **how)[0].eval()


def answer(model: Any, inputs: dict[str, Any]) -> Any:
    import torch

    with torch.no_grad():
        return model(**inputs).logits


def train(model: Any, inputs: dict[str, Any], labels: Any, rate: float) -> list[float]:
    import torch

    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    losses = []
    for _ in range(STEPS):
        loss = torch.nn.functional.cross_entropy(model(**inputs).logits, labels)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses


@pytest.fixture(scope="session")
def trained(bases, tmp_path_factory):
    """(model, method) -> the trained thing; each is made once."""

    @cache
    def make(model_name: str, name: str) -> Trained:
        folder = tmp_path_factory.mktemp("adapter")
        plain, _, tokenizer = fresh(bases[model_name])
        inputs, labels = tiny.batch(tokenizer, N_CLASSES)
        untuned = answer(plain, inputs)
        model = adapt(bases[model_name], name)
        at_start = answer(model, inputs)
        before = {key: value.detach().clone() for key, value in model.named_parameters()}
        losses = train(model, inputs, labels, rate=3 * METHODS[name].learning_rate)
        adapters.save(model, folder)
        return Trained(model, untuned, at_start, answer(model, inputs), losses, before, folder)

    return make


def inputs_of(folder: Path) -> tuple[dict[str, Any], Any]:
    return tiny.batch(fresh(folder)[2], N_CLASSES)


@pytest.mark.parametrize(("model", "name"), PAIRS)
def test_there_is_one_logit_per_text_and_class(trained, model, name):
    assert trained(model, name).answers.shape == (len(tiny.EXAMPLES[N_CLASSES]), N_CLASSES)


@pytest.mark.parametrize(("model", "name"), PAIRS)
def test_frozen_weights_do_not_move_and_trainable_ones_do(trained, model, name):
    import torch

    seen = trained(model, name)
    after = dict(seen.model.named_parameters())
    same = {key: torch.equal(value, seen.before[key]) for key, value in after.items()}
    frozen = {key for key, value in after.items() if not value.requires_grad}
    assert all(same[key] for key in frozen)
    assert not all(same[key] for key in after.keys() - frozen)
    assert bool(frozen) == METHODS[name].is_peft


@pytest.mark.parametrize(("model", "name"), PAIRS)
def test_only_the_adapter_the_head_and_the_pooler_are_trainable(trained, model, name):
    wrong = [
        key
        for key, value in trained(model, name).model.named_parameters()
        if value.requires_grad
        and METHODS[name].is_peft
        and not any(part in key for part in (".modules_to_save.default.", ".default", "prompt_encoder."))
    ]
    assert wrong == []


@pytest.mark.parametrize(("model", "name"), PAIRS)
def test_the_loss_falls(trained, model, name):
    losses = trained(model, name).losses
    assert losses[-1] < losses[0] - 0.01


@pytest.mark.parametrize(("model", "name"), PAIRS)
def test_padding_does_not_change_the_logits(trained, bases, model, name):
    import torch

    adapted, tokenizer = trained(model, name).model, tiny.load_tokenizer(bases[model])
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    short, long = "the lamp is slow", "my new chair feels very clean today , i think"
    alone = answer(adapted, dict(tokenizer([short], return_tensors="pt")))
    padded = answer(adapted, dict(tokenizer([short, long], padding=True, return_tensors="pt")))
    torch.testing.assert_close(padded[:1], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("model", "name"), PAIRS)
def test_reload_on_a_fresh_base_gives_the_same_logits(trained, bases, model, name):
    import torch

    folder = trained(model, name).folder
    if METHODS[name].is_peft:
        reloaded = adapters.load(fresh(bases[model], seed=99)[0], folder)
        assert not any(parameter.requires_grad for parameter in reloaded.parameters())
    else:
        tiny.load_tokenizer(bases[model]).save_pretrained(folder)
        labels = [str(i) for i in range(trained(model, name).answers.shape[1])]
        whole = load_base(Reference(str(folder), folder, None, "local folder"), labels, seed=99)
        assert whole.missing_keys == set()
        reloaded = whole.model.eval()
    answers = answer(reloaded, inputs_of(bases[model])[0])
    torch.testing.assert_close(answers, trained(model, name).answers, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("model", "name"), PAIRS)
def test_noop_at_start_is_what_the_table_says(trained, model, name):
    import torch

    seen = trained(model, name)
    same = torch.allclose(seen.at_start, seen.untuned, atol=1e-5, rtol=0)
    assert same == METHODS[name].noop_at_start


@pytest.mark.parametrize("name", METHODS)
def test_mergeable_is_what_the_table_says(trained, bases, name):
    import torch

    model = copy.deepcopy(trained("bert", name).model)
    if not METHODS[name].mergeable:
        with pytest.raises(UserError, match=r"cannot be merged.*method.name = 'lora'"):
            adapters.merge(model)
        return
    merged = adapters.merge(model)
    assert {key for key, _ in merged.named_parameters()} == {
        key for key, _ in fresh(bases["bert"])[0].named_parameters()
    }
    answers = answer(merged, inputs_of(bases["bert"])[0])
    torch.testing.assert_close(answers, trained("bert", name).answers, atol=1e-5, rtol=0)


def test_a_new_bias_is_not_merged_into_layers_that_have_none(bases):
    with pytest.raises(UserError, match="BEFT: cannot be merged"):
        adapters.merge(adapt(bases["llama"], "bitfit"))


@pytest.mark.parametrize("name", [name for name, row in METHODS.items() if row.is_peft])
def test_the_adapter_is_a_plain_peft_folder_without_regular_expressions(trained, name):
    folder = trained("bert", name).folder
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["task_type"] == "SEQ_CLS"
    assert config["modules_to_save"] == ["classifier", "bert.pooler"]
    for key in {"target_modules", "feedforward_modules"} & config.keys():
        names = config[key]
        assert names == adapters.NO_TARGETS or (names == sorted(names) and "*" not in "".join(names))
    assert not (folder / "config.json").exists()


LORA_VARIANTS = [
    {"init": "pissa"},
    {"init": "olora"},
    {"init": "gaussian"},
    {"use_dora": True},
    {"use_rslora": True},
    {"use_rslora": True, "init": "pissa"},
]


@pytest.mark.parametrize("options", LORA_VARIANTS, ids=str)
def test_lora_variants_reload_on_the_original_base(bases, tmp_path, options):
    import torch

    inputs, labels = inputs_of(bases["bert"])
    model = adapt(bases["bert"], "lora", options)
    torch.testing.assert_close(answer(model, inputs), answer(fresh(bases["bert"])[0], inputs), atol=1e-5, rtol=0)
    train(model, inputs, labels, rate=1e-3)
    adapters.save(model, tmp_path)
    reloaded = adapters.load(fresh(bases["bert"], seed=99)[0], tmp_path)
    # pissa and olora: W' + BA and W + (BA - B0A0) round differently in fp32
    exact = 1e-5 if options.get("init") in ("pissa", "olora") else 1e-6
    torch.testing.assert_close(answer(reloaded, inputs), answer(model, inputs), atol=exact, rtol=0)
    layer = "bert.encoder.layer.0.attention.self.query"
    original = fresh(bases["bert"])[0].get_submodule(layer).weight
    assert torch.equal(reloaded.get_base_model().get_submodule(layer).base_layer.weight, original)


@pytest.mark.parametrize("name", ["lora", "ia3", "vera", "oft", "ln_tuning", "bitfit"])
def test_layers_restricts_the_adapters_to_the_top_blocks(bases, name):
    model, anatomy, _ = fresh(bases["bert"])
    adapted, decisions = methods.apply(model, anatomy, name, {}, layers=1)
    assert {key.split(".")[3] for key in adapted.base_model.targeted_module_names} == {"1"}
    assert "layers of the top 1 of 2 blocks: " in decisions[0].choice


def test_full_with_layers_trains_the_top_blocks_and_the_head(bases):
    model = adapt(bases["bert"], "full", layers=1)
    trains = {key.split(".layer.")[-1][:2] for key, p in model.named_parameters() if p.requires_grad}
    assert trains == {"1.", "be", "cl"}  # block 1, bert.pooler, classifier
    assert not model.bert.embeddings.word_embeddings.weight.requires_grad


def test_layers_out_of_range_or_on_a_shared_block_is_refused(bases):
    with pytest.raises(UserError, match=r"layers = 3: the network has 2 blocks. Use a number from 1 to 2"):
        adapt(bases["bert"], "lora", layers=3)
    with pytest.raises(UserError, match=r"layers = 2: this network passes 2 times through one shared block"):
        adapt(bases["albert"], "lora", layers=2)
    with pytest.raises(UserError, match=r"layers = 1: prompt works on the whole network"):
        adapt(bases["bert"], "prompt", layers=1)


def test_the_pooler_is_trained_unless_it_is_left_out(bases):
    kept = adapt(bases["bert"], "lora").get_base_model().bert.pooler
    assert all(p.requires_grad for p in kept.modules_to_save.parameters())
    left = adapt(bases["bert"], "lora", train_pooler=False).get_base_model().bert.pooler
    assert not any(p.requires_grad for p in left.parameters())


def test_what_peft_wraps_for_its_name_alone_stays_frozen(bases):
    import torch

    model, anatomy, _ = fresh(bases["bert"])
    model.bert.encoder.layer[0].my_score = torch.nn.Linear(2, 2)
    adapted, _ = methods.apply(model, anatomy, "lora", {})
    trains = [key for key, p in adapted.named_parameters() if p.requires_grad and "my_score" in key]
    assert "my_score.modules_to_save" in "".join(key for key, _ in adapted.named_parameters())
    assert trains == []


def test_a_target_that_matches_nothing_is_refused_beside_ones_that_do(bases):
    with pytest.raises(UserError, match=r"ends with 'querry'. Did you mean 'query'\? The blocks have: query, key"):
        adapt(bases["bert"], "lora", {"targets": ["value", "querry"]})


@pytest.mark.parametrize(
    ("targets", "leaves"),
    [
        ("attention", ["key", "query", "value"]),
        ("qv", ["query", "value"]),
        (["attention.output.dense", "key"], ["dense", "key"]),
    ],
    ids=str,
)
def test_targets_choose_the_layers(bases, targets, leaves):
    names = adapt(bases["bert"], "lora", {"targets": targets}).base_model.targeted_module_names
    assert sorted({name.rpartition(".")[2] for name in names}) == leaves
    assert len(names) == 2 * len(leaves)


@pytest.mark.parametrize(
    ("model", "name", "options", "message"),
    [
        ("llama", "prompt", {}, r"cannot tell padding from text.*Use 'prefix' or 'lora'"),
        ("llama", "p_tuning", {}, r"cannot tell padding from text"),
        ("albert", "prefix", {}, r"does not take past_key_values. Use 'prompt' or 'lora'"),
        ("gpt2", "oft", {}, r"Conv1D layers. Use 'lora' or 'ia3'"),
        ("gpt2", "bitfit", {}, r"Conv1D layers. Use 'lora' or 'ia3'"),
        ("gpt2", "lora", {"init": "olora"}, r"'olora' does not suit this network's Conv1D"),
        ("bert", "lora", {"init": "pissa", "use_dora": True}, r"cannot be combined with use_dora"),
        (
            "bert",
            "oft",
            {"block_size": 24},
            r"block_size = 24 does not divide the layers' input widths \[32, 64\]",
        ),
    ],
)
def test_what_does_not_fit_the_model_says_what_to_use(bases, model, name, options, message):
    with pytest.raises(UserError, match=message):
        adapt(bases[model], name, options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lorra", {}, r"method.name = 'lorra': no such method. Did you mean 'lora'.*Choose from lora, ia3"),
        (
            "lora",
            {"rnak": 4},
            r"method.rnak: lora has no such option. Did you mean 'rank'\? Its options: rank, ",
        ),
        ("ia3", {"rank": 4}, r"method.rank: ia3 has no such option. It has no options"),
        ("lora", {"rank": 0}, r"method.rank = 0: input should be greater than or equal to 1. It is width of"),
        ("lora", {"rank": "8"}, r"method.rank = '8': input should be a valid integer"),
        ("lora", {"rank": True}, r"method.rank = True: input should be a valid integer"),
        ("lora", {"dropout": 1.0}, r"method.dropout = 1.0: input should be less than 1"),
        (
            "lora",
            {"init": "best"},
            r"method.init = 'best': input should be 'default', 'gaussian', 'pissa' or",
        ),
        ("lora", {"targets": "everything"}, r"method.targets = 'everything': input should be 'all', "),
        ("lora", {"targets": []}, r"method.targets = \[\]"),
        ("prompt", {"virtual_tokens": 10**6}, r"less than or equal to 256"),
    ],
)
def test_a_wrong_option_is_named_with_its_value_and_its_meaning(name, options, message):
    with pytest.raises(UserError, match=message):
        methods.check_options(name, options)


# one other value for every option of every method; a new option has to be entered here
OTHER_VALUES: dict[str, Any] = {
    "rank": 4,
    "alpha": 3.0,
    "dropout": 0.5,
    "targets": ["query"],
    "use_rslora": True,
    "use_dora": True,
    "init": {"lora": "pissa", "prompt": "random"},
    "d_initial": 0.5,
    "projection_seed": 5,
    "block_size": 8,
    "virtual_tokens": 3,
    "projection": True,
    "encoder": "lstm",
    "hidden_size": 16,
}


@pytest.mark.parametrize("name", METHODS)
def test_every_option_has_help_and_changes_the_configuration(bases, name):
    anatomy = fresh(bases["bert"])[1]

    def configured(given: dict[str, Any]) -> Any:
        config = METHODS[name].build(anatomy, **methods.check_options(name, given))
        return config and config.to_dict()

    for option in methods.options(name):
        other = OTHER_VALUES[option]
        other = other[name] if isinstance(other, dict) else other
        assert configured({option: other}) != configured({}), option
        assert len(methods.option_help(name)[option]) > 10


def test_alpha_left_out_is_twice_the_rank(bases):
    config = adapt(bases["bert"], "lora", {"rank": 6}).peft_config["default"]
    assert (config.r, config.lora_alpha) == (6, 12)


def test_defaults_fill_what_is_not_given():
    assert methods.check_options("prefix", {"projection": True}) == {"virtual_tokens": 20, "projection": True}


def test_extra_tokens_counts_the_positions_that_texts_lose():
    assert methods.extra_tokens("prompt", {"virtual_tokens": 7}) == 7
    assert methods.extra_tokens("lora", {}) == 0


@pytest.mark.parametrize(("name", "count"), [("lora", 12), ("vera", 12), ("oft", 12)])
def test_the_adapters_dropout_is_found_and_the_networks_is_not(bases, name, count):
    found = adapters.adapter_dropout_modules(adapt(bases["bert"], name, {"dropout": 0.25}))
    assert len(found) == count
    assert all(part.p == 0.25 for part in found)


def test_without_dropout_there_is_nothing_to_switch_on(bases):
    assert adapters.adapter_dropout_modules(adapt(bases["bert"], "lora")) == []


def test_prefix_through_a_small_network_reloads_without_it(bases, tmp_path):
    import torch

    model = adapt(bases["bert"], "prefix", {"projection": True, "virtual_tokens": 4})
    inputs, _ = inputs_of(bases["bert"])
    adapters.save(model, tmp_path)
    reloaded = adapters.load(fresh(bases["bert"], seed=99)[0], tmp_path)
    torch.testing.assert_close(answer(reloaded, inputs), answer(model, inputs), atol=1e-6, rtol=0)


def test_a_prefix_that_the_network_ignores_is_refused(bases):
    model, anatomy, _ = fresh(bases["bert"])
    forward = model.bert.forward

    def deaf(input_ids=None, attention_mask=None, past_key_values=None, **rest):
        mask = attention_mask[:, -input_ids.shape[1] :]
        return forward(input_ids=input_ids, attention_mask=mask, **rest)

    model.bert.forward = deaf
    with pytest.raises(UserError, match="'prefix': this model ignores it"):
        methods.apply(model, anatomy, "prefix", {})


def test_weights_that_are_not_safetensors_are_never_opened(bases, tmp_path, trained):
    config = (trained("bert", "lora").folder / "adapter_config.json").read_text()
    (tmp_path / "adapter_config.json").write_text(config)
    (tmp_path / "adapter_model.bin").write_bytes(b"cos\nsystem\n")
    with pytest.raises(UserError, match=r"no adapter_model.safetensors. Other formats can run code"):
        adapters.load(fresh(bases["bert"])[0], tmp_path)


@pytest.mark.parametrize("lost", ["classifier.weight", "0.output.dense.lora_B.weight"])
def test_an_adapter_that_lacks_a_weight_is_refused(bases, tmp_path, trained, lost):
    from safetensors.torch import load_file, save_file

    source = trained("bert", "lora").folder
    tensors = load_file(source / "adapter_model.safetensors")
    kept = {key: value for key, value in tensors.items() if not key.endswith(lost)}
    assert len(kept) < len(tensors)
    save_file(kept, tmp_path / "adapter_model.safetensors", metadata={"format": "pt"})
    (tmp_path / "adapter_config.json").write_text((source / "adapter_config.json").read_text())
    base = fresh(bases["bert"])[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as a user's Python would: PEFT only warns
        with pytest.raises(UserError, match="does not fit the base model"):
            adapters.load(base, tmp_path)


def test_an_adapter_for_three_classes_is_refused_by_a_base_with_two(bases, trained):
    base, _ = tiny.load_base(bases["bert"], 2, seed=1)
    with pytest.raises(UserError, match="the same number of classes"):
        adapters.load(base, trained("bert", "lora").folder)


def test_a_folder_that_holds_no_model_is_refused(bases, tmp_path):
    with pytest.raises(UserError, match=r"no adapter_config.json. Give the adapter folder"):
        adapters.load(fresh(bases["bert"])[0], tmp_path)


def test_the_table_lists_every_method_and_option():
    rows = methods.markdown_table().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == list(METHODS)
    assert all(
        f"`{option}`" in row for row, name in zip(rows, METHODS, strict=True) for option in methods.options(name)
    )


def test_the_decisions_say_what_is_trained(bases):
    model, anatomy, _ = fresh(bases["bert"])
    decisions = methods.apply(model, anatomy, "lora", {"rank": 2, "targets": "qv"})[1]
    assert decisions[0].choice == (
        "lora (rank 2, init default) on 4 layers of all 2 blocks: attention.self.query, attention.self.value"
    )
    assert decisions[1].choice == "classifier, bert.pooler"
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert decisions[2].choice.startswith(f"{trained:,} of ")


def test_the_options_are_checked_without_loading_torch():
    code = (
        "import sys; from lightune.model import methods as m; m.check_options('lora', {'rank': 4}); "
        "m.markdown_table(); assert not {'torch', 'peft', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("name", ["prompt", "p_tuning"])
def test_prompts_suit_distilbert(name, tmp_path):
    """Its configuration calls the number of heads n_heads, which PEFT does not look for."""
    model = adapt(tiny.make("distilbert", tmp_path / "distilbert"), name)
    adapters.save(model, tmp_path / "saved")
    base, _ = tiny.load_base(tmp_path / "distilbert", N_CLASSES, seed=5)
    _, _, tokenizer = fresh(tmp_path / "distilbert")
    inputs, _ = tiny.batch(tokenizer, N_CLASSES, 4)
    assert answer(adapters.load(base, tmp_path / "saved"), inputs).allclose(answer(model, inputs), atol=1e-5)


def test_the_head_alone_has_no_layers_to_choose(bases):
    with pytest.raises(UserError, match="adapts no layers"):
        adapt(bases["bert"], "head", layers=1)


def test_full_can_leave_the_pooler_as_it_is(bases):
    model = adapt(bases["bert"], "full", train_pooler=False)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert "classifier.weight" in trained
    assert not any("pooler" in name for name in trained)


@pytest.mark.parametrize(("width", "rate"), [(384, 1e-3), (768, 5e-4), (1024, 4e-4), (64, 1e-3)])
def test_loras_rate_falls_with_the_width(width, rate):
    assert METHODS["lora"].rate_for(width) == rate
    assert METHODS["full"].rate_for(width) == METHODS["full"].learning_rate
