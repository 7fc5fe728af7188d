"""Tokens and batches: specials kept, cuts where asked, nothing lost or doubled, little padding."""

from __future__ import annotations

import numpy as np
import pytest

from lightune.data import batching, scratch
from lightune.data.batching import (
    Encoder,
    cut_shorter,
    epoch_steps,
    make_encoder,
    within_budget,
)
from lightune.data.framing import find_frame, truncate
from lightune.errors import GateError, UserError
from tests import tiny

TEXTS = ["the lamp is lovely", "a cheap kettle , i think", "my new chair feels very quick today " * 9]


@pytest.fixture(scope="module", params=sorted(tiny.ARCHITECTURES))
def tokenizer(request, tmp_path_factory):
    loaded = tiny.load_tokenizer(tiny.make(request.param, tmp_path_factory.mktemp("tok") / request.param))
    if loaded.pad_token is None:
        loaded.pad_token = loaded.eos_token
    return loaded


def encoder(tokenizer, max_tokens: int = 24, truncation="head") -> Encoder:
    return make_encoder(tokenizer, max_tokens, truncation, 512)


def test_tokens_are_the_tokenizers_own(tokenizer):
    tokens = encoder(tokenizer, 500).tokenise(TEXTS)
    for i, text in enumerate(TEXTS):
        own = tokens.ids[tokens.offsets[i] : tokens.offsets[i + 1]].tolist()
        assert own == tokenizer(text)["input_ids"]
    assert tokens.n_truncated == tokens.lost == 0


def test_cutting_the_head_equals_the_tokenizers_own_truncation(tokenizer):
    tokens = encoder(tokenizer, 16).tokenise(TEXTS[2:])
    if tokenizer.truncation_side == "right":
        assert tokens.ids.tolist() == tokenizer(TEXTS[2], truncation=True, max_length=16)["input_ids"]
    assert tokens.n_truncated == 1


def test_a_batch_is_what_the_tokenizer_would_pad(tokenizer):
    own = encoder(tokenizer, 500)
    tokens = own.tokenise(TEXTS)
    batch = own.batch(tokens, np.arange(3), "cpu")
    # 65 to 256 tokens are rounded up to a multiple of 16
    padded = tokenizer(TEXTS, padding=True, return_tensors="pt", pad_to_multiple_of=16)
    assert 64 < tokens.lengths.max() <= 256
    assert set(batch) == set(padded) & {"input_ids", "attention_mask", "token_type_ids"}
    for name, tensor in batch.items():
        assert tensor.tolist() == padded[name].tolist(), name


def test_a_short_text_alone_is_as_long_as_it_is(tokenizer):
    own = encoder(tokenizer, 500)
    short, long = own.tokenise([TEXTS[0]]), own.tokenise([TEXTS[2]])
    assert short.n_tokens % 8
    assert short.n_tokens < 64 < long.n_tokens
    (batch,) = own.batches(short, 1024)
    assert own.batch(short, batch, "cpu")["input_ids"].tolist() == [short.ids.tolist()]
    assert own.batch(own.tokenise([TEXTS[0]] * 2), batch, "cpu")["input_ids"].shape[1] % 8 == 0
    assert own.batch(long, batch, "cpu")["input_ids"].shape[1] % 16 == 0


@pytest.mark.parametrize(
    ("truncation", "kept"), [("head", [0, 1, 2, 3, 4]), ("tail", [5, 6, 7, 8, 9]), ("head+tail", [0, 1, 7, 8, 9])]
)
def test_truncation_keeps_what_its_name_says(truncation, kept):
    assert list(truncate(range(10), 5, truncation)) == kept
    assert list(truncate(range(4), 5, truncation)) == [0, 1, 2, 3]


def test_tokens_on_disk_are_those_in_memory(tokenizer, monkeypatch):
    texts = [f"{TEXTS[i % 3]} {i}" for i in range(50)]
    for truncation in ("head", "tail", "head+tail"):
        held = encoder(tokenizer, 24, truncation).tokenise(texts)
        monkeypatch.setattr(batching, "TOKENISE_ROWS", 7)
        monkeypatch.setattr(scratch, "HELD_BYTES", 0)
        mapped = encoder(tokenizer, 24, truncation).tokenise(texts)
        assert (held.ids.flags.writeable, mapped.ids.flags.writeable) == (True, False)
        assert (mapped.ids.dtype, mapped.offsets.dtype) == (np.int32, np.int64)
        np.testing.assert_array_equal(held.ids, mapped.ids)
        np.testing.assert_array_equal(held.offsets, mapped.offsets)
        assert (held.n_truncated, held.lost) == (mapped.n_truncated, mapped.lost)
        monkeypatch.undo()


def test_no_text_gives_no_token(tokenizer):
    tokens = encoder(tokenizer).tokenise([])
    assert (len(tokens), tokens.n_tokens) == (0, 0)


def test_no_room_for_tokens_is_one_message(monkeypatch, tmp_path):
    monkeypatch.setattr(scratch, "HELD_BYTES", 0)
    monkeypatch.setattr(scratch, "scratch_folder", lambda: str(tmp_path / "gone"))
    with pytest.raises(GateError, match=r"gone: no scratch file can be written \(No such .*\)\. Set TMPDIR to"):
        scratch.joined([np.ones(3, np.int32)], np.int32)


def test_a_limit_without_room_for_text_is_one_message(tokenizer):
    frame = find_frame(tokenizer)
    tokens = encoder(tokenizer).tokenise(TEXTS)
    for cut in (
        lambda: encoder(tokenizer, frame.n_special).tokenise(TEXTS),
        lambda: batching.cut_shorter(tokens, frame, max_tokens=frame.n_special, truncation="head"),
    ):
        with pytest.raises(UserError, match="the special tokens alone are"):
            cut()


def test_every_length_cut_head_and_tail_stays_within_the_limit(tokenizer):
    for limit in (9, 16, 17):
        assert encoder(tokenizer, limit, "head+tail").tokenise(TEXTS).lengths.max() == limit


def test_an_epoch_sees_every_row_once_in_full_steps():
    lengths = np.random.default_rng(0).integers(3, 200, 1003)
    steps = list(epoch_steps(lengths, 16, np.random.default_rng(0)))
    assert sorted(np.concatenate(steps)) == list(range(1003))
    assert sorted({len(step) for step in steps}) == [1003 % 16, 16]


def test_steps_are_made_when_they_are_asked_for():
    drawn = np.random.default_rng(0)
    next(epoch_steps(np.ones(100_000, int), 1, drawn))
    expected = np.random.default_rng(0)
    expected.permutation(100_000)
    expected.permutation(50)  # the order of one chunk of steps, no more
    assert drawn.integers(2**40) == expected.integers(2**40)


def test_texts_of_a_step_are_of_similar_length():
    lengths = np.random.default_rng(0).integers(3, 200, 1600)
    steps = list(epoch_steps(lengths, 16, np.random.default_rng(0)))
    padded = sum(len(step) * lengths[step].max() for step in steps)
    assert padded / lengths.sum() < 1.1
    shuffled = np.random.default_rng(0).permutation(1600).reshape(-1, 16)
    assert sum(16 * lengths[step].max() for step in shuffled) / lengths.sum() > 1.5


def test_batches_fit_the_budget_and_lose_no_row():
    lengths = np.random.default_rng(0).integers(3, 200, 500)
    batches = within_budget(np.arange(500), lengths, 1024)
    assert sorted(np.concatenate(batches)) == list(range(500))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * -(-lengths[batch].max() // 8) * 8 <= 1024


def test_more_tokens_than_the_model_reads_are_refused(tokenizer):
    with pytest.raises(UserError, match=r"data\.max_tokens = 600: this model reads 512 tokens"):
        make_encoder(tokenizer, 600, "head", 512)
    assert make_encoder(tokenizer, "auto", "head", 100).max_tokens == 100


def test_the_frame_counts_the_special_tokens(tokenizer):
    frame = find_frame(tokenizer)
    assert frame.n_special == len(tokenizer("the")["input_ids"]) - len(
        tokenizer("the", add_special_tokens=False)["input_ids"]
    )


def test_training_texts_can_be_shorter_than_the_others(tokenizer):
    from lightune.data.batching import encode
    from lightune.records import Examples, Splits

    part = Examples(TEXTS, ["a", "b", "a"], [0, 1, 2])
    splits = Splits(part, part, part, ["a", "b"], [], {})
    own = encoder(tokenizer, 24)
    rows, _ = encode(own, splits, 12)
    assert rows["train"].short.lengths.max() == 12
    assert rows["train"].tokens.lengths.max() == rows["dev"].tokens.lengths.max() == 24
    assert rows["test"].short is None
    assert rows["test"].y.tolist() == [0, 1, 0]
    rows, told = encode(own, splits, 30)  # as where only data.max_tokens of a recipe with both was changed
    assert rows["train"].short is None
    assert ("short texts first", "no") in {(decision.what, decision.choice) for decision in told}


def test_a_text_without_a_word_is_one_token_at_least(tokenizer):
    """GPT-2's tokenizer puts nothing around a text, and a network cannot read no token at all."""
    assert encoder(tokenizer).tokenise(["", "the lamp"]).lengths.min() >= 1


def test_texts_that_the_vocabulary_does_not_know_are_told_or_refused(tmp_path):
    from lightune.data.batching import encode
    from lightune.records import Examples, Splits

    own = encoder(tiny.load_tokenizer(tiny.make("bert", tmp_path / "bert")))

    def told(texts):
        part = Examples(texts, ["a", "b"] * (len(texts) // 2), list(range(len(texts))))
        _, decisions = encode(own, Splits(part, part, part, ["a", "b"], [], {}), "auto")
        return [d.choice for d in decisions if d.what == "unknown tokens"]

    known = ["the lamp is lovely", "the lamp is awful"]
    assert told(known) == []
    assert told([f"{text} \u0436" for text in known]) == ["20%"]
    with pytest.raises(UserError, match=r"does not know 100% of the tokens .* Use a model of their language"):
        told(["\u0436 \u0449", "\u0449 \u0436"])
    own.tokenizer.unk_token = own.tokenizer.cls_token  # as where one token stands for start and unknown
    assert told(known) == []


@pytest.mark.parametrize("truncation", ["head", "tail", "head+tail"])
@pytest.mark.parametrize("limit", [8, 9, 15])
def test_a_cut_can_be_cut_shorter(truncation, limit, tokenizer, monkeypatch):
    monkeypatch.setattr(batching, "TOKENISE_ROWS", 2)
    texts = [*TEXTS, "", TEXTS[2]]
    expected = encoder(tokenizer, limit, truncation).tokenise(texts)
    longer = encoder(tokenizer, 17, truncation)
    cut = cut_shorter(longer.tokenise(texts), longer.frame, max_tokens=limit, truncation=truncation)
    assert cut.ids.tolist() == expected.ids.tolist()
    assert cut.offsets.tolist() == expected.offsets.tolist()
    assert (cut.n_truncated, cut.lost) == (expected.n_truncated, expected.lost)
