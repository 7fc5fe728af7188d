"""What a length limit costs is counted as a run cuts, and said only where something is lost."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from lightune.data.batching import Labelled, find_frame, make_encoder, token_lists
from lightune.doctor.examine import examine
from lightune.doctor.findings import Diagnosis
from lightune.doctor.patient import of_corpus
from lightune.doctor.tokenised import Tokeniser, tokeniser_of
from lightune.doctor.truncation import Cut, cut_of, unread_in_run
from lightune.errors import UserError
from lightune.records import Corpus
from tests import tiny
from tests.test_doctor import diagnose, findings, reviews

LENGTHS = np.array([3, 10, 11, 30])


def by_spaces(limit: float) -> Tokeniser:
    """Each word is a token, with one special token before and one after the text."""
    ids: dict[str, int] = {}

    def tokens(texts):
        return [[ids.setdefault(word, len(ids)) for word in text.split()] for text in texts]

    return Tokeniser(tokens, 2, limit)


def look_at(texts, labels, limit) -> Diagnosis:
    table = pa.Table.from_pylist([{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)])
    patient = of_corpus(Corpus("texts", {"train": table}, "digest"), None, "text", "label")
    return examine(patient, checks=["truncation"], tokeniser=lambda: by_spaces(limit))[0]


def padding(rng, n):
    return " ".join(f"w{k}" for k in rng.integers(0, 400, n))


def test_what_is_cut_by_hand():
    """Of 54 tokens 1 and 20 are over 10."""
    cut = cut_of(LENGTHS, 10)
    assert cut == Cut(n_texts=4, n_longer=2, n_tokens=54, n_lost=21)
    assert str(cut) == "2 of 4 rows (50 %) are longer and 39 % of all tokens are never read"


def test_the_rows_that_are_cut_are_named_and_the_shares_are_exact():
    """A limit of 12 leaves room for 10: of 200 texts of 10 tokens and 50 of 40, 1,500 of 4,000 tokens are lost."""
    rng = np.random.default_rng(0)
    texts = [padding(rng, 40 if i % 5 == 3 else 10) for i in range(250)]
    (found,) = look_at(texts, ["ab"[i % 2] for i in range(250)], 12).findings
    assert found.rows == {"train": list(range(3, 250, 5))}
    assert (
        "data.max_tokens = 12, 50 of 250 rows (20 %) are longer and 38 % of all tokens are never read" in found.what
    )
    assert "head+tail keeps both ends" in found.what
    assert found.severity == "warning"


def test_nothing_is_said_where_nothing_is_lost():
    diagnosis = look_at(["one two three"] * 30, ["ab"[i % 2] for i in range(30)], 5)
    assert (diagnosis.findings, diagnosis.left_out) == ([], {})


def test_little_unread_text_is_a_note():
    rng = np.random.default_rng(0)
    texts = [padding(rng, 16 if i < 4 else 10) for i in range(200)]
    (found,) = look_at(texts, ["ab"[i % 2] for i in range(200)], 12).findings
    assert (found.severity, found.count) == ("note", 4)
    assert "1.2 % of all tokens" in found.what


@pytest.mark.parametrize(("at", "loses", "equal"), [(-1, "head", "tail"), (0, "tail", "head")])
def test_the_end_that_says_more_is_told_with_its_interval(at, loses, equal):
    """The word that decides is the last (or the first) of 30; of these a run reads the first and last five."""
    rng = np.random.default_rng(0)
    words = [padding(rng, 29).split() for _ in range(300)]
    labels = ["good" if good else "bad" for good in rng.random(300) < 0.5]
    texts = [" ".join([*own, label] if at else [label, *own]) for own, label in zip(words, labels, strict=True)]
    (found,) = look_at(texts, labels, 12).findings
    told = dict(part.split(" alone (both ends: ") for part in found.what.split(" by the ")[1:])
    low_lost = float(told[loses].split("CI ")[1].split(" to ")[0])
    low, high = (float(end.strip(")")) for end in told[equal].split("CI ")[1].split(" and")[0].split(" to "))
    assert low_lost > 20
    assert low <= 0 <= high


def test_no_end_says_more_where_labels_do_not_follow_from_the_texts():
    rng = np.random.default_rng(0)
    texts = [padding(rng, 30) for _ in range(300)]
    (found,) = look_at(texts, ["ab"[k] for k in rng.integers(0, 2, 300)], 12).findings
    assert found.what.endswith("head+tail keeps both ends, by default")


def test_a_longer_limit_that_the_model_has_is_named():
    rng = np.random.default_rng(0)
    texts = [padding(rng, 600 if i < 20 else 100) for i in range(60)]
    (found,) = look_at(texts, ["ab"[i % 2] for i in range(60)], 512).findings
    assert "data.max_tokens = 256, 20 of 60 rows" in found.what
    assert "43 % of all tokens are never read (11 % with 512)" in found.what  # 6,920 and 1,800 of 16,000


# ---- the tokenizer without its network


@pytest.mark.parametrize("name", sorted(tiny.ARCHITECTURES))
def test_tokens_are_those_that_a_run_makes(name, tmp_path):
    folder = tiny.make(name, tmp_path / name)
    tokenizer = tiny.load_tokenizer(folder)
    texts = ["the lamp is lovely", "", "my new chair feels very quick today " * 9]
    tokeniser = tokeniser_of(str(folder))
    assert tokeniser.tokens(texts) == token_lists(texts, tokenizer)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    assert tokeniser.n_special == find_frame(tokenizer).n_special


def test_a_tokenizer_that_cuts_and_pads_by_itself_is_told_not_to(tiny_bert, tmp_path):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tiny_bert / "tokenizer.json"))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    found = tokeniser_of(str(tmp_path)).tokens(["the lamp", "the lamp is lovely " * 5])
    assert [len(ids) for ids in found] == [2, 20]


def test_a_tokenizer_without_its_own_file_is_read_by_transformers(tiny_bert, tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "lamp", "is", "lovely"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    (tmp_path / "config.json").write_text('{"model_type": "bert", "max_position_embeddings": 64}')
    tokeniser = tokeniser_of(str(tmp_path))
    assert tokeniser.tokens(["the lamp is lovely"]) == [[5, 6, 7, 8]]
    assert (tokeniser.n_special, tokeniser.max_tokens(), tokeniser.room(64)) == (2, 64, 62)


def test_a_damaged_tokenizer_is_one_message_and_the_check_is_left_out(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="its tokenizer cannot be read"):
        tokeniser_of(str(tmp_path))
    diagnosis = diagnose(tmp_path, reviews(60), model=str(tmp_path), only=["truncation"])
    assert "its tokenizer cannot be read" in diagnosis.left_out["truncation"]


def test_without_a_model_the_check_is_left_out(tmp_path):
    diagnosis = diagnose(tmp_path, reviews(60), only=["truncation"])
    assert diagnosis.left_out == {"truncation": "no base model was named whose tokenizer could count"}


def test_counting_tokens_loads_no_torch(tiny_bert, tmp_path):
    rows = reviews(60)
    for row in rows:
        row["text"] = f"{row['text']} " * 10
    diagnosis = diagnose(tmp_path, rows, model=str(tiny_bert), only=["truncation"])
    assert findings(diagnosis, "truncation")
    check = f"lightune.check({str(tmp_path / 'data.csv')!r}, model={str(tiny_bert)!r}, only='truncation')"
    code = f"import sys, lightune; assert {check}.findings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- in a run


def test_a_run_tells_of_each_split_what_its_own_encoder_cuts(tiny_bert):
    encoder = make_encoder(tiny.load_tokenizer(tiny_bert), 6, "tail", 64)
    texts = {"train": ["lamp " * 10, "lamp lamp"], "dev": ["lamp"], "test": ["lamp " * 5]}
    rows = {name: Labelled(encoder.tokenise(own), np.zeros(len(own), int)) for name, own in texts.items()}
    (found,) = unread_in_run(rows, encoder)
    assert found.what == (
        "with data.max_tokens = 6, train: 1 of 2 rows (50 %) are longer and 50 % of all tokens are never read; "
        "test: 1 of 1 rows (100 %) are longer and 20 % of all tokens are never read; the tail is kept"
    )
    assert (found.count, found.severity) == (2, "warning")
    assert unread_in_run({"dev": rows["dev"]}, encoder) == []
