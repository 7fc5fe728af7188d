"""Baselines learn from the training rows, answer the test rows, and cost little; every row of BASELINES."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lightune.data.batching import Labelled, make_encoder
from lightune.errors import UserError
from lightune.evidence import baselines
from lightune.evidence.baselines import BASELINES, Embeddings, Lesson, answer, check, embed, probe_rows
from lightune.evidence.evaluate import evaluate, predict
from lightune.hardware import choose_hardware
from lightune.model.anatomy import ensure_pad_token
from lightune.model.embeddings import embeddings_beside_logits
from lightune.model.engine import quicken
from tests import tiny

WORDS = {0: ["awful", "broken", "dull"], 1: ["lovely", "sturdy", "bright"], 2: ["plain", "usual", "medium"]}


def rows(rng, n, n_classes):
    y = np.concatenate([np.arange(n_classes), rng.integers(0, n_classes, n - n_classes)])
    return [f"a {rng.choice(WORDS[label])} lamp , number {rng.integers(1000)}" for label in y], y


def lesson_of(n_train=120, n_classes=2, seed=0):
    rng = np.random.default_rng(seed)
    (train, y_train), (dev, y_dev), (test, y_test) = (rows(rng, n, n_classes) for n in (n_train, 30, 60))
    return Lesson(train, y_train, dev, y_dev, test, n_classes), y_test


def with_embeddings(lesson, y_test, seed=0):
    """Embeddings in which the classes lie apart."""
    rng = np.random.default_rng(seed)
    train, test = (
        np.eye(lesson.n_classes)[y] + 0.1 * rng.normal(size=(len(y), lesson.n_classes))
        for y in (lesson.y_train, y_test)
    )
    return replace(lesson, embeddings=Embeddings(train, lesson.y_train, np.arange(len(train)), test))


def answers(lesson, names=tuple(BASELINES), seed=0):
    told = []
    return answer(names, lesson, seed=seed, tell=told.append), told


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("name", BASELINES)
def test_answers_are_probabilities_of_every_class(name, n_classes):
    lesson = with_embeddings(*lesson_of(n_classes=n_classes))
    found = answers(lesson)[0][name]
    assert found.proba.shape == (60, n_classes)
    np.testing.assert_allclose(found.proba.sum(axis=1), 1, atol=1e-6)
    assert found.n_train == 120
    assert found.seconds > 0


@pytest.mark.parametrize("name", ["tfidf", "probe"])
def test_a_baseline_that_reads_learns_what_can_be_learned(name):
    lesson, y_test = lesson_of()
    found = answers(with_embeddings(lesson, y_test))[0][name]
    assert (found.proba.argmax(axis=1) == y_test).mean() > 0.95
    assert found.chosen["C"] > 0


@pytest.mark.parametrize("name", ["tfidf", "probe"])
def test_what_is_learned_comes_from_the_labels_of_the_training_rows(name):
    lesson, y_test = lesson_of()
    told = with_embeddings(lesson, y_test)
    lied_to = replace(told, y_train=1 - told.y_train, y_dev=1 - told.y_dev)
    lied_to = replace(lied_to, embeddings=replace(told.embeddings, y=1 - told.y_train))
    assert (answers(lied_to)[0][name].proba.argmax(axis=1) == y_test).mean() < 0.05


def test_the_majority_is_the_most_frequent_class_of_the_training_rows():
    lesson, _ = lesson_of()
    skewed = replace(lesson, y_train=np.array([1] * 90 + [0] * 30))
    np.testing.assert_allclose(answers(skewed, ["majority"])[0]["majority"].proba, [[0.25, 0.75]] * 60)


@pytest.mark.parametrize("name", BASELINES)
def test_the_same_seed_gives_the_same_answers(name):
    lesson = with_embeddings(*lesson_of())
    first, second = (answers(lesson, [name])[0][name].proba for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_tfidf_reads_a_random_part_of_too_much_text(monkeypatch):
    monkeypatch.setattr(baselines, "MOST_CHARACTERS", 1000)
    lesson, _ = lesson_of()
    found, told = answers(lesson, ["tfidf"])
    assert 20 < found["tfidf"].n_train < 60
    assert f"learned from {found['tfidf'].n_train} of 120 training rows" in told[0].why


@pytest.mark.parametrize("texts", [["", "  "], ["x"], ["…"]])
def test_texts_without_words_are_answered_all_the_same(texts):
    lesson = Lesson(texts * 4, np.arange(4 * len(texts)) % 4 // 2, ["z"], np.zeros(1, int), ["y", ""], 2)
    found, _ = answers(lesson, ["tfidf"])
    np.testing.assert_allclose(found["tfidf"].proba, 0.5, atol=1e-3)


def test_a_class_that_training_rows_lack_has_no_chance():
    lesson, _ = lesson_of(n_classes=2)
    found, _ = answers(replace(lesson, n_classes=3), ["tfidf", "majority"])
    assert (found["tfidf"].proba[:, 2] == 0).all()
    assert (found["majority"].proba[:, 2] == 0).all()


def test_a_single_class_among_the_training_rows_is_answered():
    lesson, y_test = lesson_of()
    alone = replace(with_embeddings(lesson, y_test), y_train=np.zeros(120, int))
    alone = replace(alone, embeddings=replace(alone.embeddings, y=np.zeros(120, int)))
    for found in answers(alone)[0].values():
        np.testing.assert_allclose(found.proba, [[1, 0]] * 60)


def test_a_baseline_without_its_embeddings_is_left_out_and_says_so():
    found, told = answers(lesson_of()[0])
    assert "probe" not in found
    assert told[-1].choice == "left out"


def test_a_name_that_is_none_is_refused():
    assert check(["tfidf", "tfidf"]) == ["tfidf"]
    with pytest.raises(
        UserError, match=r"no baseline 'tfdif'. Did you mean 'tfidf'\? There are majority, tfidf, probe"
    ):
        check(["tfdif"])


def test_the_probe_reads_half_as_many_training_rows_as_there_are_test_rows():
    lesson = Lesson(["a"] * 5000, np.zeros(5000, int), [], np.zeros(0, int), ["b"] * 2000, 2)
    assert probe_rows(["majority", "probe"], lesson) == 1000
    assert probe_rows(["majority", "tfidf"], lesson) == 0
    assert probe_rows(["probe"], replace(lesson, test=["b"] * 50)) == 200
    assert probe_rows(["probe"], replace(lesson, test=["b"] * 50, n_classes=70)) == 700
    assert probe_rows(["probe"], replace(lesson, train=["a"] * 90)) == 90


# ---- embeddings


@pytest.mark.parametrize("name", ["bert", "distilbert", "gpt2", "bart"])
def test_an_embedding_is_the_mean_of_what_the_last_block_reads(name, tmp_path):
    import torch

    folder = tiny.make(name, tmp_path / name)
    model, _ = tiny.load_base(folder, seed=0)
    tokenizer = tiny.load_tokenizer(folder)
    ensure_pad_token(tokenizer, model)
    hardware = choose_hardware("cpu", "fp32")
    encoder = make_encoder(tokenizer, 32, "head", 32)
    tokens = encoder.tokenise(["the lamp is lovely", "a broken kettle , i think", "clean"])
    plain = predict(model, encoder, tokens, hardware)
    quicken(model, "fp32")
    with embeddings_beside_logits(model):
        found = predict(model, encoder, tokens, hardware)
    assert plain.embeddings is None
    np.testing.assert_allclose(found.logits, plain.logits, atol=1e-5)
    model, _ = tiny.load_base(folder, seed=0)
    ensure_pad_token(tokenizer, model)
    for i in range(3):
        batch = encoder.batch(tokens, np.array([i]), "cpu")
        with torch.no_grad():
            states = model(**batch, output_hidden_states=True)
        hidden = getattr(states, "decoder_hidden_states", None) or states.hidden_states
        mask = batch["attention_mask"][0].bool()
        expected = hidden[-2][0][mask].mean(dim=0).numpy()
        np.testing.assert_allclose(found.embeddings[i], expected, atol=1e-5)
    assert predict(model, encoder, tokens, hardware).embeddings is None  # the hooks are gone


def test_the_probe_learns_from_rows_that_the_frozen_network_read(tmp_path):
    folder = tiny.make("bert", tmp_path / "bert")
    model, _ = tiny.load_base(folder, seed=0)
    hardware = choose_hardware("cpu", "fp32")
    encoder = make_encoder(tiny.load_tokenizer(folder), 32, "head", 32)
    lesson, y_test = lesson_of()
    with embeddings_beside_logits(model):
        before = evaluate(
            model, encoder, Labelled(encoder.tokenise(lesson.test), y_test), hardware, ["accuracy"], seed=0
        )
        learned = embed(lesson, before, model, encoder, 40, hardware, seed=0)
    assert learned.embeddings.train.shape == (40, 32)
    assert learned.embeddings.test.shape == (60, 32)
    assert embed(lesson, before, model, encoder, 0, hardware, seed=0) is lesson
    assert embed(lesson, replace(before, embeddings=None), model, encoder, 40, hardware, seed=0) is lesson
