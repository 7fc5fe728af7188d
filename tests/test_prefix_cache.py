"""What leaves the frozen blocks is computed once a text, and no answer and no gradient tells the difference."""

from __future__ import annotations

import errno
import zlib
from typing import Any

import numpy as np
import pytest

from lightune.data.batching import make_encoder
from lightune.data.framing import join_pair
from lightune.errors import UserError
from lightune.evidence.evaluate import predict_logits
from lightune.hardware import choose_hardware
from lightune.model import anatomy as anatomies
from lightune.model import methods
from lightune.model.engine import plain_network, quicken
from lightune.model.methods import METHODS
from lightune.recipe import TrainRecipe
from lightune.training import prefix_cache
from lightune.training.prefix_cache import PrefixCache, frozen_blocks, open_cache
from tests import tiny

# ALBERT passes many times through one block; XLNet has texts in the second dimension
WITHOUT = {"albert", "xlnet"}
BYTES = 4 * tiny.SIZES["hidden_size"]


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    root = tmp_path_factory.mktemp("prefix")
    return {name: tiny.make(name, root / name) for name in tiny.ARCHITECTURES}


@pytest.fixture(scope="module")
def hardware():
    return choose_hardware("cpu", "fp32")


def adapted(folder: Any, method: str = "lora", layers: Any = 1) -> tuple[Any, Any, Any, Any]:
    """A network with the method in its top blocks, changed from its start; its encoder, tokens and class ids."""
    import torch

    model, missing = tiny.load_base(folder, seed=1)
    tokenizer = tiny.load_tokenizer(folder)
    anatomies.ensure_pad_token(tokenizer, model)
    anatomy = anatomies.inspect(model, missing)
    options = methods.check_options(method, {})
    torch.manual_seed(2)
    model, _ = methods.apply(model, anatomy, method, options, layers=layers, train_pooler=True)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.02 * torch.randn_like(parameter)
    encoder = make_encoder(tokenizer, 16, "head", 64)
    texts, y = zip(*tiny.EXAMPLES[2], strict=True)
    return model.eval(), encoder, encoder.tokenise(texts), np.array(y)


def gradients(model: Any, encoder: Any, tokens: Any, y: Any) -> dict[str, Any]:
    import torch

    rows = np.arange(7, 20)
    logits = model(**encoder.batch(tokens, rows, "cpu")).logits
    torch.nn.functional.cross_entropy(logits, torch.from_numpy(y[rows])).backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("fast", [False, True], ids=["plain", "fast"])
@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_every_architecture_answers_and_learns_the_same(architecture, fast, bases, hardware):
    import torch

    model, encoder, tokens, y = adapted(bases[architecture], layers="all" if architecture == "albert" else 1)
    if fast:
        quicken(model, "fp32")
    expected, slopes = predict_logits(model, encoder, tokens, hardware), gradients(model, encoder, tokens, y)
    n_blocks = frozen_blocks(model)
    if architecture in WITHOUT:
        cache = PrefixCache(1, [tokens], BYTES)
        assert cache.attach(model).choice == "computed each time"
        assert predict_logits(model, encoder, tokens, hardware) == pytest.approx(expected, abs=2e-5)
        return
    assert n_blocks == (2 if architecture == "bart" else 1)  # all of its encoder
    cache = PrefixCache(n_blocks, [tokens], BYTES)
    decision = cache.attach(model)
    assert decision.choice == "computed once a text", decision
    for n_read in (0, len(tokens)):
        assert predict_logits(model, encoder, tokens, hardware) == pytest.approx(expected, abs=2e-5)
        assert cache.n_read == n_read
    found = gradients(model, encoder, tokens, y)
    assert cache.n_read == len(tokens) + 13
    assert found.keys() == slopes.keys()
    for name, slope in slopes.items():
        assert torch.allclose(found[name], slope, atol=2e-5 * max(1.0, float(slope.abs().max()))), name


@pytest.mark.parametrize(("architecture", "keeps"), [("bert", True), ("xlnet", False), ("albert", False)])
def test_what_a_cache_will_save_is_planned_for_networks_that_suit_it(architecture, keeps, bases):
    model, _, tokens, _ = adapted(bases[architecture], layers="all")
    assert prefix_cache.can_keep(model, tokens, "fp32") == keeps


@pytest.mark.parametrize("architecture", ["bert", "distilbert"])
def test_in_bf16_half_the_bytes_are_kept(architecture, bases):
    """What written-out blocks put out in 16 bits, read back by them, gives the answers and gradients it gave."""
    import torch

    from lightune.data.batching import Labelled

    model, encoder, tokens, y = adapted(bases[architecture])
    bf16 = choose_hardware("cpu", "bf16")
    assert quicken(model, "bf16")[0].choice == "written out in bf16"
    expected = predict_logits(model, encoder, tokens, bf16)
    with bf16.autocast():
        slopes = gradients(model, encoder, tokens, y)
    rows = dict.fromkeys(("train", "dev", "test"), Labelled(tokens, y))
    cache = open_cache(model, rows, TrainRecipe(), 2.0, "cpu")
    assert cache._bytes_per_token == BYTES // 2
    assert cache.attach(model, "bf16").choice == "computed once a text"
    for n_read in (0, len(tokens)):
        got = predict_logits(model, encoder, tokens, bf16)
        assert np.abs(got - expected).max() < 2e-2 * np.abs(expected).max()
        assert cache.n_read == n_read
    assert {place.dtype for place in cache._places.values() if place.checksum is not None} == {torch.bfloat16}
    with bf16.autocast():
        found = gradients(model, encoder, tokens, y)
    assert cache.n_read == len(tokens) + 13
    for name, slope in slopes.items():
        assert (found[name] - slope).norm() < 3e-2 * slope.norm(), name


def test_what_is_read_back_is_what_the_network_sees(bases, hardware):
    """A control: with other states in the file, the answers are others."""
    model, encoder, tokens, _ = adapted(bases["bert"])
    cache = PrefixCache(1, [tokens], BYTES)
    cache.attach(model)
    expected = predict_logits(model, encoder, tokens, hardware)
    for place in cache._places.values():
        content = np.random.default_rng(0).normal(size=(place.n_tokens, BYTES // 4)).astype(np.float32)
        cache._file.seek(place.start * BYTES)
        cache._file.write(content)
        if place.checksum is not None:
            place.checksum = zlib.crc32(content)
    assert np.abs(predict_logits(model, encoder, tokens, hardware) - expected).max() > 0.01


def test_a_damaged_text_is_computed_again(bases, hardware):
    model, encoder, tokens, _ = adapted(bases["bert"])
    cache = PrefixCache(1, [tokens], BYTES)
    cache.attach(model)
    expected = predict_logits(model, encoder, tokens, hardware)
    cache._file.seek(5 * BYTES)
    cache._file.write(b"\x7f" * 64)
    assert predict_logits(model, encoder, tokens, hardware) == pytest.approx(expected, abs=2e-5)
    assert cache.n_damaged == 1
    cache.n_read = 0
    assert predict_logits(model, encoder, tokens, hardware) == pytest.approx(expected, abs=2e-5)
    assert (cache.n_read, cache.n_damaged) == (len(tokens), 1)
    assert "1 texts' states were damaged there; computed again" in cache.trouble


def test_a_full_disk_costs_time_and_no_answer(bases, hardware):
    model, encoder, tokens, _ = adapted(bases["bert"])
    expected = predict_logits(model, encoder, tokens, hardware)
    cache = PrefixCache(1, [tokens], BYTES)
    cache.attach(model)

    class Full:
        """A file on a full disk."""

        def seek(self, at):
            """Does nothing."""

        def write(self, content):
            """Is refused."""
            raise OSError(errno.ENOSPC, "No space left on device")

    cache._file = Full()
    for _ in range(2):
        assert predict_logits(model, encoder, tokens, hardware) == pytest.approx(expected, abs=2e-5)
    assert cache.n_read == 0
    assert "no room left" in cache.trouble


def test_pairs_of_the_same_tokens_are_told_apart_by_their_types(bases, hardware):
    model, encoder, *_ = adapted(bases["bert"])
    encoder = make_encoder(encoder.tokenizer, 24, "head", 64, pair=True)
    one, other = (join_pair("the lamp [SEP] a chair", "i think"), join_pair("the lamp", "a chair [SEP] i think"))
    tokens = encoder.tokenise([one, other])
    assert np.array_equal(*np.split(tokens.ids, 2))
    expected = predict_logits(model, encoder, tokens, hardware)
    assert np.abs(expected[0] - expected[1]).max() > 1e-3
    cache = PrefixCache(1, [tokens], BYTES)
    assert cache.attach(model).choice == "computed once a text"
    for _ in range(2):
        for row, text in enumerate((one, other)):
            alone = predict_logits(model, encoder, encoder.tokenise([text]), hardware)
            assert alone[0] == pytest.approx(expected[row], abs=2e-5)
    assert cache.n_read == 1  # the first of them: the other has its place, and is computed each time


def test_a_cache_that_is_refused_leaves_the_blocks_as_they_were(bases, monkeypatch):
    model, _, tokens, _ = adapted(bases["bert"])
    quicken(model, "fp32")
    blocks = [plain_network(model).get_submodule(name) for name in anatomies.find_layers(plain_network(model))]
    before = [block.forward for block in blocks]
    monkeypatch.setattr(prefix_cache, "is_close", lambda *_, **__: False)
    assert PrefixCache(1, [tokens], BYTES).attach(model).choice == "computed each time"
    assert [block.forward for block in blocks] == before


def test_texts_that_do_not_fit_as_a_whole_are_left_out(bases, hardware):
    model, encoder, tokens, _ = adapted(bases["bert"])
    few = encoder.tokenise(["a lovely lamp", "the cheap chair"])
    cache = PrefixCache(1, [tokens, few], BYTES, limit=BYTES * (few.n_tokens + 1))
    assert cache.n_tokens == few.n_tokens
    assert "; no room for" in cache.attach(model).why
    assert not cache.trouble
    nothing = PrefixCache(1, [tokens], BYTES, limit=BYTES).attach(adapted(bases["bert"])[0])
    assert (nothing.choice, nothing.why[:11]) == ("computed each time", "no room for")
    for _ in range(2):
        predict_logits(model, encoder, few, hardware)
        predict_logits(model, encoder, tokens, hardware)
    assert cache.n_read == len(few)


@pytest.mark.parametrize("method", METHODS)
def test_only_what_no_training_changes_counts_as_frozen(method, bases, hardware):
    """Trains a step, and compares what leaves the blocks that are said to be frozen."""
    import torch

    try:
        model, encoder, tokens, _ = adapted(bases["bert"], method, "all" if method in {"full", "prompt"} else 1)
    except UserError as refused:
        pytest.skip(str(refused))
    n_frozen = frozen_blocks(model)
    assert n_frozen == (0 if method in {"full", "prompt"} else 1)
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    states = []
    for _ in range(2):
        with torch.inference_mode():
            inputs = encoder.batch(tokens, np.arange(4), "cpu")
            states.append(plain(**inputs, output_hidden_states=True).hidden_states[n_frozen])
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data += 0.1
    assert n_frozen == 0 or torch.equal(*states)


@pytest.mark.parametrize(
    ("epochs", "evaluations", "trainings", "n_splits"),
    [(1.0, 1, 1, 1), (1.0, 2, 1, 2), (2.0, 1, 1, 3), (1.0, 1, 2, 3), (0.4, 1, 2, 2)],
)
def test_only_texts_that_come_again_are_kept(epochs, evaluations, trainings, n_splits, bases):
    from lightune.data.batching import Labelled

    model, encoder, _, y = adapted(bases["bert"])
    texts = {"test": ["a"], "dev": ["b", "c"], "train": [text for text, _ in tiny.EXAMPLES[2]]}
    rows = {name: Labelled(encoder.tokenise(some), y[: len(some)]) for name, some in texts.items()}
    recipe = TrainRecipe(evaluations=evaluations)
    cache = open_cache(model, rows, recipe, epochs, "cpu", trainings)
    assert cache.n_tokens == sum(rows[name].n_tokens for name in list(texts)[:n_splits])
    assert open_cache(model, rows, recipe, epochs, "cuda") is None
    assert open_cache(adapted(bases["bert"], layers="all")[0], rows, recipe, epochs, "cpu") is None
    assert open_cache(model, rows, recipe.model_copy(update={"cache": False}), epochs, "cpu") is None
