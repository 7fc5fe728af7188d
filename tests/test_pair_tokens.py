"""Pairs as tokens: the tokenizer's own ids, token types and cuts, for every family."""

from __future__ import annotations

import random

import numpy as np
import pytest

from lightune.data import batching, scratch
from lightune.data.batching import Encoder, cut_shorter, make_encoder
from lightune.data.framing import find_frame, join_pair, split_pair
from lightune.errors import UserError
from tests import tiny

WORDS = ["the", "lamp", "is", "lovely", ",", "a", "cheap", "kettle", "feels", "very", "quick", "today"]
NOTHING_BETWEEN = {"gpt2", "llama", "qwen2", "qwen3"}  # of the tiny ones, whose tokenizer is GPT-2's


def drawn(n_pairs: int, most: int) -> list[tuple[str, str]]:
    """Pairs of up to `most` words a text."""
    rng = random.Random(0)
    return [tuple(" ".join(rng.choices(WORDS, k=rng.randint(0, most))) for _ in range(2)) for _ in range(n_pairs)]


PAIRS = [*drawn(60, 12), ("the lamp", "the lamp"), ("", "a chair"), ("a chair", "")]
JOINED = [join_pair(*pair) for pair in PAIRS]


@pytest.fixture(scope="module", params=sorted(tiny.ARCHITECTURES))
def family(request, tmp_path_factory):
    loaded = tiny.load_tokenizer(tiny.make(request.param, tmp_path_factory.mktemp("tok") / request.param))
    if loaded.pad_token is None:
        loaded.pad_token = loaded.eos_token
    return request.param, loaded


@pytest.fixture(scope="module")
def tokenizer(family):
    return family[1]


def own_ids(family, pair, limit=None) -> list[int]:
    """The tokenizer's ids of a pair, and what lightune promises where it puts nothing between the two."""
    name, tokenizer = family
    if name in NOTHING_BETWEEN and limit is None:
        return tokenizer(tokenizer.eos_token.join(pair))["input_ids"]
    extra = name in NOTHING_BETWEEN  # for the token between, which the tokenizer does not know of
    cut = {} if limit is None else {"truncation": "longest_first", "max_length": limit - extra}
    own = tokenizer([pair[0]], [pair[1]], **cut)  # lists, since alone an empty second text would count as none
    ids, n_first = own["input_ids"][0], own.sequence_ids(0).count(0)
    return [*ids[:n_first], tokenizer.eos_token_id, *ids[n_first:]] if extra else ids


def encoder(tokenizer, max_tokens: int = 200, truncation="head") -> Encoder:
    return make_encoder(tokenizer, max_tokens, truncation, 512, pair=True)


def rows_of(tokens) -> list[list[int]]:
    return [tokens.ids[start:stop].tolist() for start, stop in zip(tokens.offsets, tokens.offsets[1:], strict=False)]


def test_the_ids_are_the_tokenizers_own_of_two_texts(family):
    tokens = encoder(family[1]).tokenise(JOINED)
    assert rows_of(tokens) == [own_ids(family, pair) for pair in PAIRS]
    assert tokens.n_truncated == tokens.lost == 0


@pytest.mark.parametrize("limit", [8, 9, 14, 15])
def test_a_cut_of_the_head_is_longest_first_of_the_tokenizer(family, limit):
    tokens = encoder(family[1], limit).tokenise(JOINED)
    assert rows_of(tokens) == [own_ids(family, pair, limit) for pair in PAIRS]
    whole = [len(own_ids(family, pair)) for pair in PAIRS]
    assert tokens.n_truncated == sum(length > limit for length in whole) > 20
    assert tokens.lost == sum(max(0, length - limit) for length in whole)


@pytest.mark.parametrize("limit", [14, 200])
def test_a_batch_is_what_the_tokenizer_would_pad(family, limit):
    name, tokenizer = family
    own = encoder(tokenizer, limit)
    batch = own.batch(own.tokenise(JOINED), np.arange(len(PAIRS)), "cpu")
    if name in NOTHING_BETWEEN:
        assert set(batch) == {"input_ids", "attention_mask"}
        return
    cut = {"truncation": "longest_first", "max_length": limit}
    step = 8 if limit > 14 else None
    padded = tokenizer(*map(list, zip(*PAIRS, strict=True)), padding=True, pad_to_multiple_of=step, **cut)
    assert set(batch) == set(padded) & {"input_ids", "attention_mask", "token_type_ids"}
    for key, tensor in batch.items():
        assert tensor.tolist() == padded[key], key


def test_the_second_text_has_token_types_of_its_own_where_there_are_any(tmp_path):
    own = encoder(tiny.load_tokenizer(tiny.make("bert", tmp_path / "bert")))
    batch = own.batch(own.tokenise(2 * [join_pair("the lamp", "a chair")]), np.arange(1), "cpu")
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1, 1, 0]]  # the last is padding


@pytest.mark.parametrize(
    ("truncation", "kept"),
    [("head", "abcd" + "vwxy"), ("tail", "efgh" + "wxyz"), ("head+tail", "abgh" + "vwyz")],
)
def test_each_text_is_cut_where_it_is_asked_for(truncation, kept, tmp_path):
    tokenizer = tiny.load_tokenizer(tiny.make("bert", tmp_path / "bert"))
    tokens = encoder(tokenizer, 8 + 3, truncation).tokenise([join_pair("a b c d e f g h", "v w x y z")])
    assert "".join(tokenizer.convert_ids_to_tokens(tokens.ids, skip_special_tokens=True)) == kept


@pytest.mark.parametrize("truncation", ["head", "tail", "head+tail"])
@pytest.mark.parametrize(("first", "limit"), [(18, 8), (18, 11), (17, 11), (12, 9)])
def test_a_cut_can_be_cut_shorter(truncation, first, limit, tokenizer, monkeypatch):
    monkeypatch.setattr(batching, "TOKENISE_ROWS", 7)
    expected = encoder(tokenizer, limit, truncation).tokenise(JOINED)
    longer = encoder(tokenizer, first, truncation)
    cut = cut_shorter(longer.tokenise(JOINED), longer.frame, max_tokens=limit, truncation=truncation)
    assert rows_of(cut) == rows_of(expected)
    assert (cut.n_truncated, cut.lost) == (expected.n_truncated, expected.lost)
    assert cut.pairs.kept.tolist() == expected.pairs.kept.tolist()


def test_tokens_on_disk_are_those_in_memory(tokenizer, monkeypatch):
    held = encoder(tokenizer, 14).tokenise(JOINED)
    monkeypatch.setattr(batching, "TOKENISE_ROWS", 7)
    monkeypatch.setattr(scratch, "HELD_BYTES", 0)
    mapped = encoder(tokenizer, 14).tokenise(JOINED)
    assert (held.ids.flags.writeable, mapped.ids.flags.writeable) == (True, False)
    assert rows_of(held) == rows_of(mapped)


def test_a_limit_without_room_for_two_texts_is_one_message(tokenizer):
    n_special = find_frame(tokenizer, pair=True).n_special
    with pytest.raises(UserError, match="the special tokens alone are"):
        encoder(tokenizer, n_special + 1).tokenise(JOINED)


def test_a_tokenizer_without_a_token_to_stand_between_is_refused(tmp_path):
    tokenizer = tiny.load_tokenizer(tiny.make("gpt2", tmp_path / "gpt2"))
    tokenizer.pad_token = "a"
    tokenizer.eos_token = None
    with pytest.raises(UserError, match=r"puts nothing between two texts.*make one text of the two with a template"):
        find_frame(tokenizer, pair=True)


def test_a_separator_in_a_text_becomes_a_space():
    assert split_pair(join_pair("a\x1fb", "c\x1f")) == ("a b", "c ")
