"""The doctor finds what was planted, as often as it was planted, and nothing in sound data."""

from __future__ import annotations

import csv
import io
import json
import shlex
from pathlib import Path

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lightune
from lightune import checkup, cli
from lightune.checkup import check
from lightune.data.columns import check_column
from lightune.data.values import Texts
from lightune.doctor import copies
from lightune.doctor import examine as examine_module
from lightune.doctor.checks import CHECKS
from lightune.doctor.exam import share
from lightune.doctor.examine import BY_LABEL, examine, glance
from lightune.doctor.findings import Diagnosis
from lightune.doctor.giveaways import likeness_of_neighbours, telling_tokens
from lightune.doctor.label_errors import by_embeddings, likely_errors, stratified_folds
from lightune.doctor.labels import twins
from lightune.doctor.patient import admit, of_corpus
from lightune.doctor.reading import PERSONAL, band_hashes, read_through, shingles, words_of
from lightune.doctor.target import log_of
from lightune.errors import UserError
from lightune.journal import Journal
from lightune.records import Corpus
from lightune.report.screen import show_faults

SHARED = Path(__file__).parents[2] / "shared" / "data"
THINGS = ["lamp", "kettle", "chair", "table", "mirror", "window", "garden", "carpet", "bottle", "pencil"]
PLACES = ["kitchen", "cellar", "office", "attic", "hallway", "bedroom", "garage", "terrace", "workshop"]
GOOD = ["lovely", "sturdy", "bright", "splendid", "useful", "quiet"]
BAD = ["awful", "broken", "dull", "useless", "noisy", "slow"]


def reviews(n, seed=0):
    """n different texts of ten words and more with labels that follow from them, in no order."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        good = bool(rng.integers(2))
        words = [rng.choice(GOOD if good else BAD), *rng.choice(THINGS, 3), *rng.choice(PLACES, 2)]
        rng.shuffle(words)
        numbers = " ".join(str(k) for k in rng.integers(10_000, 99_999, 5))
        rows.append({"text": f"{' '.join(words)} number {i} of {numbers}", "label": "good" if good else "bad"})
    return rows


def write(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def diagnose(tmp_path, rows, **options) -> Diagnosis:
    return check(write(tmp_path / "data.csv", rows), **{"model": None} | options)


def findings(diagnosis, name):
    return [finding for finding in diagnosis.findings if finding.check == name]


# ---- sound data


def test_nothing_is_found_in_sound_data(tmp_path):
    diagnosis = diagnose(tmp_path, reviews(600))
    assert diagnosis.findings == []
    assert diagnosis.worst() is None
    assert diagnosis.rows == {"train": 600}


# ---- copies


def test_copies_are_counted_exactly_and_by_their_kind(tmp_path):
    rows = reviews(300)
    rows += [dict(row) for row in rows[:20]]  # whole rows
    rows += [{**row, "text": row["text"].upper() + "  "} for row in rows[20:27]]
    exact, alike = findings(diagnose(tmp_path, rows), "duplicates")
    assert (exact.count, alike.count) == (20, 7)
    assert exact.rows == {"train": list(range(300, 320))}
    assert alike.rows == {"train": list(range(320, 327))}
    assert "20 of them all columns" in exact.what


def test_near_copies_are_found_and_texts_on_one_subject_are_not(tmp_path):
    rows = reviews(400)
    for i in range(40):  # one word of sixteen is another
        words = rows[i]["text"].split()
        words[3] = "otherwise"
        rows.append({**rows[i], "text": " ".join(words)})
    (found,) = findings(diagnose(tmp_path, rows), "near_duplicates")
    assert found.count == 40
    assert found.rows == {"train": list(range(400, 440))}


def nearly(row):
    """A row with another word of sixteen."""
    words = row["text"].split()
    words[3] = "otherwise"
    return {**row, "text": " ".join(words)}


def test_near_copies_across_splits_are_told_by_the_split_they_are_in():
    rows, dev = reviews(100), reviews(60, seed=1)
    splits = {
        "train": rows,
        "validation": dev + [nearly(row) for row in rows[:7]],
        "test": reviews(60, seed=2) + [nearly(row) for row in dev[10:13]],
    }
    tables = {name: pa.Table.from_pylist(each) for name, each in splits.items()}
    patient = of_corpus(Corpus("three splits", tables, "digest"), None, "text", "label")
    diagnosis, _ = examine(patient, checks=["near_duplicates"])
    first, second = diagnosis.findings
    assert (first.count, first.rows) == (7, {"train": list(range(7))})
    assert "7 training rows are nearly a text of another split" in first.what
    assert (second.count, second.rows) == (3, {"validation": [10, 11, 12]})
    assert "3 rows of split validation are nearly" in second.what


def test_many_near_copies_are_read_few_times(monkeypatch):
    rows = [{"text": " ".join(f"word{k}" for k in range(40)) + f" {i}", "label": "ab"[i % 2]} for i in range(300)]
    patient = of_corpus(Corpus("near", {"train": pa.Table.from_pylist(rows)}, "d"), None, "text", "label")
    readings, n_read = read_through(patient.texts), []
    monkeypatch.setattr(copies, "words_of", lambda text: n_read.append(text) or words_of(text))
    pairs, is_all = copies.near_pairs(patient, readings, np.random.default_rng(0))
    assert is_all
    assert len(n_read) < len(pairs)  # two for each pair without a memory


def test_rows_without_a_label_are_no_first_copy(tmp_path):
    rows = [{**row, "more": "x"} for row in reviews(100)]
    rows += [{**rows[1], "label": ""}, {**rows[1], "label": ""}, {**rows[1], "more": "y"}]
    (found,) = findings(diagnose(tmp_path, rows, text="text", label="label"), "duplicates")
    assert found.rows == {"train": [102]}
    assert "0 of them all columns" in found.what


def test_empty_texts_are_told_as_such_and_leak_nothing(tmp_path):
    rows, held_out = reviews(100), reviews(60, seed=1)
    for row in (*rows[:3], *held_out[:3]):
        row["text"] = ""
    diagnosis = diagnose(tmp_path, rows, test=write(tmp_path / "test.csv", held_out))
    assert findings(diagnosis, "leaks") == []
    assert "2 of 100 rows (2 %) of split train" in findings(diagnosis, "duplicates")[0].what
    assert findings(diagnosis, "duplicates")[0].what.endswith(", 2 of them without a text")


@pytest.mark.parametrize(
    ("count", "whole", "told"),
    [(3, 200, "1.5 %"), (9999, 10_000, "99.99 %"), (200, 200, "100 %"), (1, 30_000, "0.0033 %"), (75, 200, "38 %")],
)
def test_shares_are_written_out(count, whole, told):
    assert share(count, whole) == f"{count:,} of {whole:,} rows ({told})"


def test_the_hashes_of_near_texts_meet_and_those_of_others_do_not():
    """Two sets that share a part p are candidates with chance 1 - (1 - p⁴)¹⁶."""
    rng = np.random.default_rng(0)
    for part in (0.9, 0.7, 0.3):
        met = []
        for _ in range(300):
            n_common = round(200 * part)
            ids = rng.integers(0, 10**12, 400 - n_common)
            common, one, other = np.split(ids, [n_common, 200])
            first, second = ({f"t{i}" for i in (*common, *each)} for each in (one, other))
            real = len(first & second) / len(first | second)
            hashes = band_hashes([first, second])
            met.append((bool((hashes[0] == hashes[1]).any()), 1 - (1 - real**4) ** 16))
        observed, theory = np.mean([m for m, _ in met]), np.mean([t for _, t in met])
        assert observed == pytest.approx(theory, abs=0.1)


def test_the_same_text_under_several_labels_is_a_contradiction(tmp_path):
    rows = reviews(200)
    rows += [{"text": row["text"].upper(), "label": "bad" if row["label"] == "good" else "good"} for row in rows[:9]]
    (found,) = findings(diagnose(tmp_path, rows), "contradictions")
    assert found.count == 9
    assert sorted(found.rows["train"]) == [*range(9), *range(200, 209)]


def test_training_rows_that_stand_in_the_test_file_are_leaks(tmp_path):
    rows, held_out = reviews(300), reviews(100, seed=1)
    leaked = [{**row, "text": row["text"].title()} for row in rows[10:15]]
    test = write(tmp_path / "test.csv", held_out + leaked)
    (found,) = findings(diagnose(tmp_path, rows, test=test), "leaks")
    assert (found.severity, found.count) == ("error", 5)
    assert found.rows == {"train": [10, 11, 12, 13, 14]}


# ---- rows and texts


def test_empty_and_unlabelled_rows_are_counted(tmp_path):
    rows = reviews(200)
    rows[3]["text"], rows[7]["text"], rows[9]["label"] = "", " \t", ""
    blank, unlabelled = findings(diagnose(tmp_path, rows), "empty")
    assert (blank.rows, unlabelled.rows) == ({"train": [3, 7]}, {"train": [9]})


def test_texts_that_say_nothing_or_were_decoded_wrongly_are_found(tmp_path):
    rows = reviews(200)
    rows[0]["text"], rows[1]["text"] = "!!!! ---- ???? ....", "aaaaaaaaaaaaaaaaaaa"
    rows[2]["text"] = "The cafÃ© was lovely, weâ€™ll come again to the kitchen"
    rows[3]["text"] = "a lovely lamp \ufffd in the kitchen of the house"
    rows[4]["text"] = "a lovely\x07 lamp in the kitchen of the old house"
    rows[5]["text"] = "a <b>lovely</b> lamp<br /> in the kitchen of the house"
    rows[6]["text"] = "Der Fußboden im Café ist schön, der Tisch auch"  # sound
    rows[7]["text"] = "if a < b and c > d the lamp in the kitchen is lovely"  # no tag
    diagnosis = diagnose(tmp_path, rows)
    for name, where in (("garbage", [0, 1]), ("mojibake", [2, 3]), ("controls", [4]), ("markup", [5])):
        assert [found.rows for found in findings(diagnosis, name)] == [{"train": where}], name


@pytest.mark.parametrize(
    ("kind", "text", "sound"),
    [
        ("e-mail addresses", "write to jo.doe+x@mail.example.org", "meet @ noon, not a@b"),
        ("telephone numbers", "call 020 7946 0958 or not", "1,200 and 3-4 and 12 345"),
        ("telephone numbers", "+44 20 7946 0958 or so", "+5 and +10, 2 + 2 = 4"),
        ("telephone numbers", "+33 1 23 45 67 89", "the years 1985 1986 1987"),
        ("telephone numbers", "+1 (555) 123-4567", "on 07-06-2006 and 2020-10-12 10:30"),
        ("telephone numbers", "1-800-555-0199 toll free", "ISBN 0306406152 and 978-0-306-40615-7"),
        ("telephone numbers", "call 555.123.4567 now", "100.234.567 people, 192.168.100.200"),
        ("telephone numbers", "on 07911 123456 or", "order 1234567890, part 0000012345"),
        ("telephone numbers", "txt 07911123456 now", "code 0036000291452"),
        ("telephone numbers", "bei 0170/1234567 gern", "10/100/1000 and 1/002-9480983-6492045"),
        ("telephone numbers", "au 01 23 45 67 89 merci", "card 4111 1111 1111 1112 please"),
        ("payment card numbers", "card 4111 1111 1111 1111 please", "card 4111 1111 1111 1112 please"),
        ("payment card numbers", "amex 3782 822463 10005 please", "card 3782 822463 10006 please"),
        ("IBANs", "pay to DE89 3704 0044 0532 0130 00 soon", "flight BA12 and LH400"),
        ("IBANs", "pay to GB82WEST12345698765432 soon", "not GB82 WEST 1234 5698 7654 33"),
        ("IP addresses", "from 192.168.0.17 today", "version 1.2.3 and 999.1.1.1"),
        ("US social security numbers", "it is 123-45-6789 here", "in 000-12-3456 or 2020-10-12"),
    ],
)
def test_personal_data_is_found_and_numbers_are_not(kind, text, sound, tmp_path):
    assert kind in PERSONAL
    rows = reviews(60)
    rows[5]["text"], rows[6]["text"] = f"{text} {rows[5]['text']}", f"{sound} {rows[6]['text']}"
    found = [each for each in findings(diagnose(tmp_path, rows), "personal_data") if kind in each.what]
    assert [each.rows for each in found] == [{"train": [5]}]


def test_texts_in_another_language_are_noticed(tmp_path):
    english = "This is a long and rather ordinary sentence about the weather of this week, number"
    german = "Das ist ein langer und recht gewöhnlicher Satz über das Wetter in dieser Woche, Nummer"
    rows = [{"text": f"{german if i in (11, 42) else english} {i}", "label": "ab"[i % 2]} for i in range(80)]
    (found,) = findings(diagnose(tmp_path, rows, only=["languages"]), "languages")
    assert found.rows == {"train": [11, 42]}
    assert "en: de 2" in found.what


def test_a_short_text_in_letters_of_many_bytes_is_long_enough(tmp_path):
    english = "This is a long and rather ordinary sentence about the weather of this week, number"
    rows = [{"text": f"{english} {i}", "label": "ab"[i % 2]} for i in range(80)]
    rows[7]["text"] = "とても素敵なランプなのでまたすぐに買います"
    (found,) = findings(diagnose(tmp_path, rows, only=["languages"]), "languages")
    assert (found.rows, "en: ja 1" in found.what) == ({"train": [7]}, True)


def test_the_language_of_short_texts_is_not_guessed(tmp_path):
    english = "This is a long and rather ordinary sentence about the weather of this week, number"
    rows = [{"text": f"{english} {i}", "label": "ab"[i % 2]} for i in range(80)]
    rows[3]["text"] = "Das Wetter ist schön, und der Tisch auch."
    diagnosis = diagnose(tmp_path, rows, only=["languages"])
    assert (diagnosis.findings, diagnosis.left_out) == ([], {})
    diagnosis = diagnose(tmp_path, rows[:12], only=["languages"], text="text", label="label")
    assert diagnosis.left_out == {"languages": "fewer than 20 texts of 60 bytes"}


@pytest.mark.parametrize(("n_rows", "severity"), [(2, "warning"), (1, "note")])
def test_what_few_rows_have_is_a_note_and_what_many_have_a_warning(n_rows, severity, tmp_path):
    rows = reviews(800)
    for row in rows[:n_rows]:
        row["text"] = f"!!!! ---- ???? {row['text'][:1]}...."
    (found,) = findings(diagnose(tmp_path, rows, only=["garbage"]), "garbage")
    assert (found.count, found.severity) == (n_rows, severity)


def test_a_file_that_is_not_utf_8_is_read_as_what_it_looks_like(tmp_path):
    rows = reviews(100)
    rows[4]["text"] = "a lovely café in the cellar"
    text = io.StringIO()
    writer = csv.DictWriter(text, ["text", "label"])
    writer.writeheader()
    writer.writerows(rows)
    path = tmp_path / "latin.csv"
    path.write_bytes(text.getvalue().encode("cp1252"))
    (found,) = findings(check(str(path), model=None), "encoding")
    assert found.count == 1
    assert "read as cp1252" in found.what
    assert findings(check(str(path), model=None, encoding="cp1252"), "encoding") == []
    with pytest.raises(UserError, match="not ascii"):
        check(str(path), encoding="ascii")


# ---- labels


@pytest.mark.parametrize(
    ("counts", "kept", "others", "how"),
    [
        ({"Positive": 90, "positive": 4}, "Positive", ("positive",), "case"),
        ({"spam": 140, "SPAM": 55, "Spam": 5}, "spam", ("SPAM", "Spam"), "case"),
        ({"no reply": 9, "noreply": 40}, "noreply", ("no reply",), "white space or Unicode form"),
        ({"cafe\u0301": 3, "caf\u00e9": 40}, "caf\u00e9", ("cafe\u0301",), "Unicode form"),
        ({"cafe\u0301": 3, "caf\u00e9": 40, "Caf\u00e9": 2}, "caf\u00e9", ("cafe\u0301", "Caf\u00e9"), "case"),
        ({"2": 9, "2.0": 3, "Two": 4}, "2", ("Two", "2.0"), "how a number is written"),
    ],
)
def test_labels_of_one_class_are_one_group_with_the_commonest_first(counts, kept, others, how):
    assert twins(counts) == [(kept, others, how, True)]


@pytest.mark.parametrize(
    ("counts", "kept", "other", "how"),
    [
        ({"student": 500, "studen": 3}, "student", "studen", "a letter or two"),
        ({"student": 500, "studnet": 3, "students": 20}, "student", "studnet", "a letter or two"),
        ({"irrelevant": 180, "relevant": 20}, "irrelevant", "relevant", "a letter or two"),
        ({"hypertension": 180, "hypotension": 20}, "hypertension", "hypotension", "a letter or two"),
        ({"card-payment": 9, "card_payment": 80}, "card_payment", "card-payment", "punctuation or accents"),
        ({"n/a": 9, "na": 80}, "na", "n/a", "punctuation or accents"),
        ({"a\u00f1o": 90, "ano": 80}, "a\u00f1o", "ano", "punctuation or accents"),
    ],
)
def test_labels_that_may_be_two_classes_are_in_doubt(counts, kept, other, how):
    assert (kept, (other,), how, False) in twins(counts)


@pytest.mark.parametrize(
    "names",
    [
        *(["-1", "1"], ["-1", "0", "1"], ["A+", "A-", "A"], ["C", "C++", "C#"], ["<5", ">5"], ["1.5", "15"]),
        *(["1-2", "12"], ["A.1.1", "A.11"], ["1 5", "15"], ["1.1", "1.10"], ["1234567", "1234568"]),
        *(["10\u00b2", "102"], ["Ma\u00dfe", "Masse"], ["1", "2", "3"], ["!", "?"], ["cat", "car"]),
        *(["version 1", "version 2"], ["positive", "negative"], ["complaint", "compliment"]),  # three letters
    ],
)
@pytest.mark.parametrize("rows", [3, 100])
def test_labels_that_are_two_are_no_twins(names, rows):
    assert twins({name: rows if place else 100 for place, name in enumerate(names)}) == []


def test_labels_a_letter_apart_that_are_both_common_are_no_twins():
    assert twins({"politics": 500, "political": 400}) == []


def test_a_chain_of_twins_is_one_finding(tmp_path):
    rows = reviews(300)
    for i, row in enumerate(rows):
        row["label"] = "Spam" if i < 5 else "SPAM" if i < 60 else "spam" if i < 200 else "ham"
    (found,) = findings(diagnose(tmp_path, rows, only=["label_twins"]), "label_twins")
    assert (found.severity, found.fix, found.count) == ("error", "relabel", 60)
    assert "labels 'SPAM' (55 rows), 'Spam' (5 rows) and 'spam' (140 rows) differ in case only" in found.what


def test_twins_that_look_the_same_are_told_apart(tmp_path):
    rows = reviews(100)
    for i, row in enumerate(rows):
        row["label"] = "caf\u00e9" if i < 60 else "cafe\u0301" if i < 80 else "tea"
    (found,) = findings(diagnose(tmp_path, rows, only=["label_twins"]), "label_twins")
    assert "'cafe\\u0301' (20 rows) and 'caf\\xe9' (60 rows)" in found.what


def test_a_long_label_is_shortened(tmp_path):
    rows = [row | {"label": "x" * 1000 + row["label"]} for row in reviews(100)]
    rows[0]["label"] = "y" * 1000
    for finding in diagnose(tmp_path, rows, text="text", label="label").findings:
        assert len(finding.what) < 300


def test_a_misspelt_label_is_a_warning_and_a_class_of_one_an_error(tmp_path):
    rows = reviews(200)
    for row in rows:
        row["label"] = {"good": "splendid", "bad": "terrible"}[row["label"]]
    rows[5]["label"] = "splendit"
    diagnosis = diagnose(tmp_path, rows)
    (twin,), (rare,) = findings(diagnosis, "label_twins"), findings(diagnosis, "rare_classes")
    assert (twin.severity, twin.rows, twin.fix) == ("warning", {"train": [5]}, None)
    assert (rare.severity, rare.rows) == ("error", {"train": [5]})
    assert diagnosis.worst() == "error"


def test_a_class_of_few_rows_is_a_warning_and_its_training_rows_count(tmp_path):
    rows, held_out = reviews(200), reviews(60, seed=1)
    for row in rows[:5] + held_out[:20]:
        row["label"] = "special"
    test = write(tmp_path / "test.csv", held_out)
    (found,) = findings(diagnose(tmp_path, rows, test=test), "rare_classes")
    assert (found.severity, found.rows) == ("warning", {"train": [0, 1, 2, 3, 4]})
    assert "1 of 3 classes have fewer than 10 training rows: 'special' (5)" in found.what


def test_labels_that_mean_no_value_are_a_warning(tmp_path):
    rows = reviews(100)
    for i, name in enumerate(["None", "NaN", "null"]):
        for row in rows[i * 12 : i * 12 + 12]:
            row["label"] = name
    (found,) = findings(diagnose(tmp_path, rows), "missing_labels")
    assert (found.severity, found.count) == ("warning", 36)
    assert "written for no value: 'None', 'NaN', 'null'" in found.what


@pytest.mark.parametrize(("label", "told"), [("a", "all training rows are 'a'"), ("", "no training row has a label")])
def test_a_single_class_is_an_error(label, told, tmp_path):
    rows = [row | {"label": label} for row in reviews(60)]
    (found,) = findings(diagnose(tmp_path, rows, text="text", label="label"), "single_class")
    assert (found.severity, found.what) == ("error", told)


def test_classes_that_one_split_lacks_are_named(tmp_path):
    rows, held_out = reviews(200), reviews(60, seed=1)
    held_out[0]["label"] = "strange"
    for row in rows[:20]:
        row["label"] = "special"
    test = write(tmp_path / "test.csv", held_out)
    missing, untested = findings(diagnose(tmp_path, rows, test=test), "absent_classes")
    assert (missing.severity, "'strange'" in missing.what) == ("error", True)
    assert (untested.severity, "'special'" in untested.what) == ("note", True)


# ---- what tells the label


def test_a_token_that_tells_the_class_is_named(tmp_path):
    rows = reviews(400)
    for row in rows:
        row["text"] += " [src:7]" if row["label"] == "good" else " [src:8]"
    (*found,) = findings(diagnose(tmp_path, rows), "giveaway_token")
    assert any("'[src:7]' are 'good'" in each.what for each in found)
    assert any("'[src:8]' are 'bad'" in each.what for each in found)


def test_a_column_that_tells_the_class_is_named_and_others_are_not(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        {
            **row,
            "stars": (5 if row["label"] == "good" else 1) - int(rng.random() < 0.02),
            "price": f"{rng.random() + (row['label'] == 'good'):.6f}",
            "shop": rng.choice(["web", "town", "fair"]),
            "id": str(i),
        }
        for i, row in enumerate(reviews(600))
    ]
    diagnosis = diagnose(tmp_path, rows, text="text", label="label")
    assert {finding.what.split("'")[1] for finding in findings(diagnosis, "giveaway_column")} == {"stars", "price"}


def test_a_token_of_nearly_every_text_tells_nothing_of_a_large_class(tmp_path):
    rows = [
        row | {"label": "bad" if i % 50 == 0 else "good", "text": row["text"] + " ."}
        for i, row in enumerate(reviews(800))
    ]
    assert findings(diagnose(tmp_path, rows), "giveaway_token") == []
    for row in rows:
        row["text"] += " zebra" if row["label"] == "bad" else ""
    (found,) = findings(diagnose(tmp_path, rows), "giveaway_token")
    assert "100.0% of the texts with 'zebra' are 'bad' (classes in balance)" in found.what


def test_tokens_that_tell_are_those_of_a_plain_count():
    """The reference holds every token of every text."""
    rng = np.random.default_rng(0)
    codes = rng.choice(3, 400, p=[0.6, 0.3, 0.1]).astype(np.int32)
    chances = np.array([[0.99, 0.01, 0.0], [0.97, 0.5, 0.1], [0.02, 0.96, 0.01], [0.0, 0.0, 1.0], [0.9, 0.0, 0.0]])
    has = rng.random((400, 5)) < chances[:, codes].T
    texts = [" ".join(["all", *(f"token{k}" for k in np.flatnonzero(row))]) for row in has]
    expected = set()
    for k in range(5):
        rates = np.array([has[codes == c, k].mean() for c in range(3)])
        expected |= {(f"token{k}", c) for c in range(3) if min(rates[c], rates[c] / rates.sum()) >= 0.95}
    found = telling_tokens(Texts.of(texts), codes, 3)
    assert {(token, code) for token, code, *_ in found} == expected
    assert len(expected) == 3


@pytest.mark.parametrize("is_flat", [True, False])
def test_a_column_is_judged_with_classes_in_balance(is_flat, tmp_path):
    """A mark on all 20 rows of the small class and on 40 of 970 others: most rows with it are of the large one."""
    rows = reviews(990)
    for i, row in enumerate(rows):
        row["label"] = "rare" if i % 50 == 0 and i < 1000 else "usual"
        row["mark"] = "yes" if row["label"] == "rare" or i % 25 == 1 else "no"
        row["shop"] = ["web", "town"][i * 7 % 3 == 0]
    if is_flat:
        for row in rows:
            row["mark"] = "yes"
    found = findings(
        diagnose(tmp_path, rows, text="text", label="label", only=["giveaway_column"]), "giveaway_column"
    )
    assert [each.what.split("'")[1] for each in found] == ([] if is_flat else ["mark"])


@pytest.mark.parametrize("value", ["seen", None])
def test_a_column_that_is_filled_for_one_class_only_is_named(value, tmp_path):
    rows = reviews(300)
    for i, row in enumerate(rows):
        row["when"] = (value or str(i + 0.5)) if row["label"] == "good" else None
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data.parquet")
    options = {"only": ["giveaway_column"], "text": "text", "label": "label"}
    for path in (write(tmp_path / "data.csv", rows), str(tmp_path / "data.parquet")):
        (found,) = check(path, **options).findings
        assert "column 'when' alone tells the label" in found.what


def test_neighbours_are_compared_with_rows_that_are_none():
    """Two rows a class, side by side: whoever is drawn from the class is a neighbour, and does not count."""
    texts = Texts.of([f"gadget{i // 2} brand{i // 2} lamp{i}" for i in range(400)])
    near, apart = likeness_of_neighbours(texts, np.arange(400) // 2, np.random.default_rng(0))
    assert near > 0.4
    assert apart == 0


def test_neighbours_that_are_no_nearer_than_others_of_their_class_are_no_group(tmp_path):
    """All texts of a class share its rare words, in order or not."""
    rows = sorted(reviews(1200), key=lambda row: row["label"])
    for i, row in enumerate(rows):
        row["label"] = f"class {i // 10}"
        row["text"] += f" gadget{i // 10} brand{i // 10} maker{i // 10}"
    assert findings(diagnose(tmp_path, rows, only=["groups"], text="text", label="label"), "groups") == []


def test_neighbouring_rows_about_one_thing_are_noticed(tmp_path):
    rng = np.random.default_rng(0)
    rows = reviews(900)
    for i, row in enumerate(rows):
        row["text"] += f" gadget{i // 5} brand{i // 5}"
    (found,) = findings(diagnose(tmp_path, rows, only=["groups"]), "groups")
    assert found.severity == "warning"
    mixed = [rows[i] for i in rng.permutation(len(rows))]
    assert findings(diagnose(tmp_path, mixed, only=["groups"]), "groups") == []
    ordered = sorted(mixed, key=lambda row: row["label"])  # neighbours of one class: no group
    assert findings(diagnose(tmp_path, ordered, only=["groups"]), "groups") == []


def test_groups_that_a_split_at_random_would_tear_apart_are_a_warning(tmp_path):
    """Of 100 rows two products have 10 and 2, 8 rows none, and each other row a product of its own."""
    names = ["", " ", "", "", "", "", "", "", *["lamp"] * 10, "kettle", *(f"p{i}" for i in range(80)), "kettle"]
    rows = [{**row, "product": name} for row, name in zip(reviews(100), names, strict=True)]
    options = {"group": "product", "text": "text", "label": "label", "only": ["groups"]}
    (found,) = findings(diagnose(tmp_path, rows, **options), "groups")
    assert (found.severity, found.rows) == ("warning", {"train": [*range(8, 19), 99]})
    assert "2 values of 'product' have several rows: 12 of 100 rows (12 %)" in found.what
    apart = [{**row, "product": f"p{i}"} for i, row in enumerate(rows)]
    assert findings(diagnose(tmp_path, apart, **options), "groups") == []


def test_a_group_on_both_sides_of_a_split_is_an_error(tmp_path):
    rows = [{**row, "product": f"p{i // 10}"} for i, row in enumerate(reviews(200))]
    held_out = [{**row, "product": f"p{i + 18}"} for i, row in enumerate(reviews(40, seed=1))]
    test = write(tmp_path / "test.csv", held_out)
    options = {"test": test, "group": "product", "text": "text", "label": "label"}
    (found,) = findings(diagnose(tmp_path, rows, **options), "groups")
    assert (found.severity, found.rows) == ("error", {"train": list(range(180, 200))})
    assert "2 values of 'product'" in found.what
    for row in rows[180:]:
        row["product"] = ""  # no product, and no group
    test = write(tmp_path / "test.csv", [row | {"product": " "} for row in held_out])
    assert findings(diagnose(tmp_path, rows, **options | {"test": test}), "groups") == []
    with pytest.raises(UserError, match=r"--group produkt: split train has no such column. Did you mean 'product'"):
        diagnose(tmp_path, rows, **options | {"group": "produkt"})


# ---- label errors


def test_likely_label_errors_by_hand():
    """Usual are 0.7 for class 0 and 0.63 for class 1; of the three labelled 1, two are surely 1 and one surely 0."""
    proba = np.array([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9], [0.1, 0.9], [0.9, 0.1]])
    places, likelier = likely_errors(proba, np.array([0, 0, 1, 1, 1]))
    assert (places.tolist(), likelier.tolist()) == ([4], [0])


def test_wrong_labels_are_found_among_right_ones():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 900)
    x = np.eye(3)[truth] * 4 + rng.normal(size=(900, 3))
    wrong = rng.permutation(900)[:45]
    given = truth.copy()
    given[wrong] = (given[wrong] + 1) % 3
    places, likelier = likely_errors(by_embeddings(x, given, 3, np.arange(900) % 5), given)
    found = set(places[:45].tolist())
    assert len(found & set(wrong.tolist())) > 40
    assert np.mean(likelier[:30] == truth[places[:30]]) > 0.9


def test_wrong_labels_are_found_by_words_alone(tmp_path):
    rows = reviews(400)
    for i in (3, 77, 200, 311):
        rows[i]["label"] = "bad" if rows[i]["label"] == "good" else "good"
    diagnosis = diagnose(tmp_path, rows, only=["label_errors"])
    (found,) = findings(diagnosis, "label_errors")
    assert {3, 77, 200, 311} <= set(found.rows["train"])
    assert found.count <= 8
    assert diagnosis.left_out == {"label_errors": "by the words alone: no base model was named"}


def test_wrong_labels_are_looked_for_in_what_a_base_model_reads(tiny_bert, tmp_path):
    """A tiny random network tells words apart all the same: all labels of a lovely lamp but one are good."""
    rng = np.random.default_rng(0)
    rows = [{"text": f"the lamp is {'lovely' if i % 2 else 'awful'}", "label": "ab"[i % 2]} for i in range(200)]
    for i in rng.permutation(200)[:8]:
        rows[i]["label"] = "ab"[1 - i % 2]
    wrong = [i for i, row in enumerate(rows) if row["label"] != "ab"[i % 2]]
    (found,) = findings(diagnose(tmp_path, rows, only=["label_errors"], model=str(tiny_bert)), "label_errors")
    assert sorted(found.rows["train"]) == wrong
    assert "8 of 200 labels" in found.what
    assert "rather" in found.what


def test_labels_that_do_not_follow_from_the_texts_are_not_called_wrong(tmp_path):
    rng = np.random.default_rng(0)
    rows = [row | {"label": "ab"[rng.integers(2)]} for row in reviews(400)]
    diagnosis = diagnose(tmp_path, rows, only=["label_errors"])
    assert diagnosis.findings == []
    assert "by chance 50%: too little to speak against a label" in diagnosis.left_out["label_errors"]


def test_wrong_labels_are_found_where_nearly_all_rows_are_of_one_class(tmp_path):
    """Of 600 rows 30 are bad: a classifier that is right in all has 5 points more than the most frequent class."""
    rows = [{"text": f"{GOOD[i % 6] if i % 20 else BAD[i // 20 % 6]} thing", "label": "good"} for i in range(600)]
    for i in range(0, 600, 20):
        rows[i]["label"] = "bad"
    rows[7]["label"] = "bad"
    rows[40]["label"] = "good"
    rows = [row | {"text": f"{row['text']} {i % 11}"} for i, row in enumerate(rows)]
    (found,) = findings(diagnose(tmp_path, rows, only=["label_errors"]), "label_errors")
    assert set(found.rows["train"]) == {7, 40}


def test_every_fold_has_its_share_of_every_class():
    codes = np.array([0] * 93 + [1] * 5 + [2] * 7)
    fold = stratified_folds(codes, np.random.default_rng(0))
    for code, size in ((0, 93), (1, 5), (2, 7)):
        counts = np.bincount(fold[codes == code], minlength=5)
        assert set(counts.tolist()) <= {size // 5, -(-size // 5)}
    assert not np.array_equal(fold, stratified_folds(codes, np.random.default_rng(1)))


def test_a_class_of_five_rows_is_in_every_fold(tmp_path):
    """Drawn without regard to classes, all five may be in one fold, and the others know of one class only."""
    rows = [
        {"text": f"{'zebra' if i < 5 else 'horse'} number {i}", "label": "b" if i < 5 else "a"} for i in range(120)
    ]
    for seed in range(40):
        diagnose(tmp_path, rows, only=["label_errors"], seed=seed)


def test_wrong_labels_are_found_by_embeddings_where_words_say_nothing(tmp_path):
    rng = np.random.default_rng(0)
    rows = [{"text": f"a text about {rng.integers(10**9)} words", "label": "ab"[i % 2]} for i in range(200)]
    x = np.where(np.arange(200) % 2, 3.0, -3.0)[:, None] + rng.normal(size=(200, 4))
    for i in (10, 20, 31):
        rows[i]["label"] = "ab"[1 - i % 2]
    patient = admit(write(tmp_path / "data.csv", rows), text="text", label="label")
    diagnosis, _ = examine(patient, checks=["label_errors"], embed=lambda texts: x)
    found = set(findings(diagnosis, "label_errors")[0].rows["train"])
    assert {10, 20} <= found <= {10, 20, 31}
    assert diagnosis.left_out == {}


def test_a_base_model_that_is_not_there_is_refused_before_the_reading(tmp_path):
    with pytest.raises(UserError, match=r"--model '.*nowhere': no such folder"):
        check(str(tmp_path / "no data"), model=str(tmp_path / "nowhere"))


def test_without_the_usual_base_model_the_words_alone_are_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(checkup, "MODEL", str(tmp_path / "nowhere"))
    diagnosis = diagnose(tmp_path, reviews(150), model=checkup.MODEL)
    assert "no such folder" in diagnosis.left_out["label_errors"]
    assert diagnosis.findings == []


# ---- a glance, as a run takes it


def glance_at(tmp_path, rows, **options):
    return glance(admit(write(tmp_path / "data.csv", rows), **options), seed=0)


def test_a_run_looks_at_all_of_few_rows(tmp_path):
    rows = reviews(300)
    rows[5]["text"] = "!!!! ---- ???? ...."
    rows[6]["label"] = "goood"
    diagnosis = glance_at(tmp_path, rows)
    assert [finding.check for finding in diagnosis.findings] == ["garbage", "rare_classes"]  # "goood" is too short
    assert set(diagnosis.left_out) == {"empty", "duplicates", "leaks", "contradictions", "label_errors", "truncation"}
    assert not diagnosis.is_of_sample()


def test_a_run_looks_at_all_labels_and_some_texts_of_many_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(examine_module, "ALL_ROWS", 200)
    monkeypatch.setattr(examine_module, "SAMPLE_ROWS", 100)
    rows = reviews(400)
    for row in rows:
        row["label"] = {"good": "splendid", "bad": "terrible"}[row["label"]]
        row["text"] += " write to me@example.org"
    rows[399]["label"] = "splendit"
    diagnosis = glance_at(tmp_path, rows)
    (twin,), (personal,) = findings(diagnosis, "label_twins"), findings(diagnosis, "personal_data")
    assert twin.rows == {"train": [399]}
    assert personal.count == 100
    assert len(personal.rows["train"]) == 100
    assert max(personal.rows["train"]) > 200  # numbers of the source, not of the sample
    assert diagnosis.rows == {"train": 400}
    assert diagnosis.left_out["personal_data"] == "on 100 of 400 rows only"
    assert diagnosis.left_out["near_duplicates"].endswith("`lightune check` does it")
    assert diagnosis.is_of_sample()
    made_in_full = {"encoding", *BY_LABEL}
    assert set(diagnosis.left_out) == set(CHECKS) - made_in_full


def test_a_run_says_what_is_wrong_before_it_works(tmp_path):
    screen = io.StringIO()
    rows = reviews(100)
    for row in rows:
        row["text"] += " [src:7]" if row["label"] == "good" else ""
    show_faults(Journal(screen), glance_at(tmp_path, rows))
    assert "warning: 100.0% of the texts with '[src:7]' are 'good'" in screen.getvalue()
    assert "to look at; 0 notes; all of it, with rows: lightune check" in screen.getvalue()
    assert "a sample" not in screen.getvalue()


def test_the_command_that_a_run_suggests_reads_the_data_as_the_run_did(tmp_path):
    screen = io.StringIO()
    rows = [{"a b": row["text"], "kind": row["label"]} for row in reviews(100)]
    show_faults(Journal(screen), glance_at(tmp_path, rows), {"test": "it's.csv", "encoding": None})
    command = screen.getvalue().split("with rows: ")[1].strip()
    assert shlex.split(command)[3:] == ["--text", "a b", "--label", "kind", "--test", "it's.csv"]


# ---- the visit as a whole


def test_every_check_can_be_made_alone_and_an_unknown_one_is_refused(tmp_path):
    path = write(tmp_path / "data.csv", reviews(100))
    for name in CHECKS:
        assert check(path, only=[name], model=None).findings == []
    with pytest.raises(UserError, match=r"check 'duplicate': not known. Did you mean 'duplicates'"):
        check(path, only=["duplicate"])
    with pytest.raises(UserError, match=r"names no check\. There are encoding"):
        check(path, only=[])


def test_a_check_is_made_once_by_its_bare_name_on_a_path(tmp_path):
    source = Path(write(tmp_path / "data.csv", reviews(100) + reviews(3)))
    assert [found.check for found in check(source, only="duplicates").findings] == ["duplicates"]
    assert len(check(source, only=["duplicates", "duplicates"], test=source).findings) == 2  # one a split


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_is_none_is_refused(seed, tmp_path):
    with pytest.raises(UserError, match=f"--seed {seed}: is no seed"):
        diagnose(tmp_path, reviews(20), seed=seed)


def test_what_is_wrong_is_said_in_the_words_of_the_options(tmp_path):
    with pytest.raises(UserError, match=r"no column 'lable'.* Set --label to the one") as error:
        diagnose(tmp_path, reviews(20), label="lable")
    assert "data." not in str(error.value)


def test_a_run_has_no_words_of_options():
    """What the translation is for: the same message with the keys of a recipe."""
    with pytest.raises(UserError, match=r"Set data\.label"):
        check_column(pa.table({"text": ["a"]}), "label", "label")


def test_the_findings_fit_the_published_schema(tmp_path):
    rows = reviews(100) + reviews(10)
    target = tmp_path / "doctor.json"
    diagnosis = diagnose(tmp_path, rows, output=target)
    stored = json.loads(target.read_text())
    schema = json.loads((Path(lightune.__file__).parent / "schemas" / "doctor.schema.json").read_text())
    jsonschema.validate(stored, schema)
    assert stored == diagnosis.model_dump()


def test_the_screen_tells_what_why_and_what_to_do(tmp_path):
    screen = io.StringIO()
    diagnose(tmp_path, reviews(100) + reviews(10), journal=Journal(screen))
    said = screen.getvalue()
    assert "WARNING  10 of 110 rows (9.1 %) repeat the text of an earlier row" in said
    assert "rows, from 0, train: 100, 101" in said
    assert CHECKS["duplicates"].do in said
    assert "0 errors, 1 warning" in said


def test_texts_are_shown_only_when_asked_and_do_no_harm(tmp_path, capsys):
    rows = reviews(200)
    rows[4]["text"] = "\x1b[31mred \u202e lamp\u0007 [bold]kettle[/bold]\nin the attic " + "word " * 100
    rows[9]["text"] = rows[4]["text"]
    rows[4]["label"] = rows[9]["label"] = "g\u202eood"
    path = write(tmp_path / "data.csv", rows)
    assert cli.main(["check", path, "--model", "", "--json"]) == 0
    plain = capsys.readouterr()
    assert "kettle[/bold]" not in plain.out + plain.err
    assert all(each["examples"] is None for each in json.loads(plain.out)["findings"])
    assert cli.main(["check", path, "--model", "", "--show-texts", "--json"]) == 0
    shown = capsys.readouterr()
    (found,) = [each for each in json.loads(shown.out)["findings"] if each["check"] == "duplicates"]
    ((row, label, text),) = [tuple(each.values()) for each in found["examples"]["train"]]
    assert (row, label) == (9, r"g\u202eood")
    assert text.startswith(r"\x1b[31mred \u202e lamp\x07 [bold]kettle[/bold] in the attic word")
    assert text.endswith("…")
    assert f"  train 9 ({label}): {text}\n" in shown.err
    assert not set("\x1b\x07\u202e") & set(shown.out + shown.err)


def test_at_most_three_rows_of_a_split_are_shown(tmp_path):
    rows, held_out = reviews(100), reviews(60, seed=1)
    for row in (*rows[10:20], *held_out[:2]):
        row["text"] = "!!!! ---- ????"
    test = write(tmp_path / "test.csv", held_out)
    diagnosis = diagnose(tmp_path, rows, test=test, only=["garbage"], show_texts=True)
    (examples,) = [each.examples for each in findings(diagnosis, "garbage")]
    assert {split: [each.row for each in own] for split, own in examples.items()} == {
        "train": [10, 11, 12],
        "test": [0, 1],
    }
    assert {each.text for own in examples.values() for each in own} == {"!!!! ---- ????"}


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_a_repaired_copy_is_sound_and_every_change_is_written_down(ending, tmp_path):
    rows = reviews(300)
    rows += [dict(row) for row in rows[:5]]  # copies
    rows.append({**rows[7], "label": "bad" if rows[7]["label"] == "good" else "good"})  # a contradiction
    rows[20]["text"] = ""
    for row in rows:
        row["label"] = {"good": "splendid", "bad": "terrible"}[row["label"]]
    rows[30]["label"] = "Splendid"
    rows[40]["text"] = "The cafÃ© was lovely, weâ€™ll come again to the kitchen\x07"
    source, target = write(tmp_path / "data.csv", rows), tmp_path / f"clean{ending}"
    original = Path(source).read_bytes()
    check(source, model=None, fix=True, output=target)
    assert Path(source).read_bytes() == original
    again = check(str(target), model=None)
    assert [finding.check for finding in again.findings if finding.severity != "note"] == []
    assert again.rows == {"train": 306 - 5 - 2 - 1}
    changes = [json.loads(line) for line in (tmp_path / f"clean{ending}.changes.jsonl").read_text().splitlines()]
    kinds = [change["change"] for change in changes]
    assert (kinds.count("dropped"), kinds.count("relabelled"), kinds.count("text mended")) == (8, 1, 1)
    assert {"row": 30, "check": "label_twins", "change": "relabelled", "to": "splendid"} in changes
    table = lightune.data.sources.read(str(target)).tables["train"]
    assert "The café was lovely, we'll come again to the kitchen" in [
        text.replace("\u2019", "'") for text in table.column("text").to_pylist()
    ]


@pytest.mark.parametrize("fix", [True, False])
def test_no_file_that_is_read_is_ever_replaced(fix, tmp_path):
    ending = ".csv" if fix else ".json"
    rows = [json.dumps(row) + "\n" for row in reviews(20)]
    source, test, link = (tmp_path / f"{name}{ending}" for name in ("data", "test", "link"))
    for path in (source, test):
        if fix:
            write(path, reviews(20))
        else:
            path.write_text(f"[{','.join(rows)}]")
    link.symlink_to(source)
    before = source.read_bytes(), test.read_bytes()
    for target in (source, test, link):
        with pytest.raises(UserError, match="is the data itself"):
            check(source, test=test, fix=fix, output=target, model=None)
    assert (source.read_bytes(), test.read_bytes()) == before


def test_nothing_is_written_into_a_folder_of_data(tmp_path):
    folder = tmp_path / "data"
    for name in ("good", "bad"):
        (folder / name).mkdir(parents=True)
        (folder / name / "1.txt").write_text("a text")
    with pytest.raises(UserError, match="which is the data"):
        check(folder, output=folder / "good" / "doctor.json")


@pytest.mark.parametrize(
    ("fix", "name", "told"),
    [
        (False, "clean.csv", r"cannot be written as \.csv. Use \.json"),
        (True, "clean.xlsx", r"cannot be written as \.xlsx"),
        (True, "nowhere/clean.csv", "its folder does not exist"),
        (True, "folder.csv", "cannot be written there"),
        (False, "x" * 300 + ".json", "cannot be written .File name too long"),
        (True, "x" * 245 + ".csv", "cannot be written .File name too long"),  # of the changes
    ],
)
def test_an_output_that_cannot_be_is_refused_before_the_reading(fix, name, told, tmp_path):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UserError, match=told):
        check(tmp_path / "no data.csv", fix=fix, output=tmp_path / name)


def test_standard_output_and_no_output_are_refused_with_a_word(tmp_path):
    with pytest.raises(UserError, match="standard output with --json"):
        check(tmp_path / "data.csv", output="-")
    with pytest.raises(UserError, match="needs the file that the repaired copy goes to"):
        check(tmp_path / "data.csv", fix=True)


def test_what_the_system_refuses_is_one_message_and_leaves_nothing(tmp_path, monkeypatch):
    def full(path, values):
        path.write_text("a part")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkup, "write_json", full)
    with pytest.raises(UserError, match=r"doctor.json: cannot be written \(No space left on device\)"):
        diagnose(tmp_path, reviews(20), output=tmp_path / "doctor.json")
    assert [path.name for path in tmp_path.iterdir()] == ["data.csv"]


def test_labels_and_texts_are_mended_before_copies_and_contradictions_are_judged(tmp_path):
    rows = reviews(100)
    rows[50] |= {"text": rows[0]["text"], "label": rows[0]["label"].title()}  # a contradiction no more: a copy
    rows[51] |= {"text": rows[1]["text"] + "\x07", "label": rows[1]["label"]}  # a copy once mended
    rows[52]["text"] = "\x07"  # empty once mended
    target = tmp_path / "clean.csv"
    check(write(tmp_path / "data.csv", rows), model=None, fix=True, output=target)
    changes = [json.loads(line) for line in log_of(target).read_text().splitlines()]
    dropped = {change["row"]: change["check"] for change in changes if change["change"] == "dropped"}
    assert dropped == {50: "duplicates", 51: "duplicates", 52: "empty"}
    assert len(changes) == 3  # what is dropped was not changed
    again = check(target, model=None)
    assert again.rows == {"train": 97}
    assert {finding.check for finding in again.findings} <= {"rare_classes"}


def test_each_row_of_a_chain_of_twins_is_relabelled_once(tmp_path):
    rows = reviews(300)
    for i, row in enumerate(rows):
        row["label"] = "Spam" if i < 5 else "SPAM" if i < 60 else "spam" if i < 200 else "ham"
    target = tmp_path / "clean.jsonl"
    check(write(tmp_path / "data.csv", rows), model=None, fix=True, output=target)
    changes = [json.loads(line) for line in log_of(target).read_text().splitlines()]
    assert [(change["row"], change["to"]) for change in changes] == [(row, "spam") for row in range(60)]
    labels = [json.loads(line)["label"] for line in target.read_text().splitlines()]
    assert labels == ["spam"] * 200 + ["ham"] * 100


@pytest.mark.parametrize(
    ("rows", "left"),
    [
        ([{"text": "hello there", "label": "ab"[i % 2]} for i in range(20)], "0 rows of 0 classes"),
        (
            [row | {"text": "" if row["label"] == "bad" else row["text"]} for row in reviews(60)],
            "rows of 1 class would",
        ),
    ],
)
def test_a_repair_that_leaves_nothing_to_learn_writes_nothing(rows, left, tmp_path):
    with pytest.raises(UserError, match=f"only .*{left}"):
        diagnose(tmp_path, rows, text="text", label="label", fix=True, output=tmp_path / "clean.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["data.csv"]


@pytest.mark.parametrize(
    ("column", "ending", "fits"),
    [
        ([["x", "y"]], ".csv", False),
        ([{"a": 1}], ".tsv", False),
        ([b"\xff"], ".csv", False),
        ([b"\xff"], ".jsonl", False),
        ([[b"\xff"]], ".jsonl", False),
        ([["x", "y"]], ".jsonl", True),
        ([b"\xff"], ".parquet", True),
    ],
)
def test_columns_that_a_format_cannot_hold_are_named_before_the_reading(column, ending, fits, tmp_path):
    rows = reviews(60)
    table = pa.table({name: [row[name] for row in rows] for name in ("text", "label")} | {"more": column * 60})
    pq.write_table(table, tmp_path / "data.parquet")
    options = {"fix": True, "output": tmp_path / f"clean{ending}", "model": None, "text": "text", "label": "label"}
    if fits:
        check(tmp_path / "data.parquet", **options)
    else:
        with pytest.raises(UserError, match=r"cannot hold the lists or bytes of columns \['more'\]"):
            check(tmp_path / "data.parquet", **options)
    assert (tmp_path / f"clean{ending}").exists() == fits


def test_a_check_for_which_rows_are_dropped_says_so():
    source = {name: row for name, row in CHECKS.items() if row.drops}
    assert set(source) == {"empty", "duplicates", "leaks", "contradictions"}


def test_a_parquet_file_with_text_and_number_columns_is_checked(tmp_path):
    rows = reviews(100)
    table = pa.Table.from_pylist([{**row, "n": i} for i, row in enumerate(rows + rows[:3])])
    pq.write_table(table, tmp_path / "data.parquet")
    (found,) = findings(check(str(tmp_path / "data.parquet"), model=None), "duplicates")
    assert found.count == 3
    assert "0 of them all columns" in found.what


@pytest.mark.parametrize("more", [["x", "y"], {"a": 1}])
def test_a_parquet_file_with_lists_or_structures_is_checked_by_hand_and_by_a_run(more, tmp_path):
    rows = [{**row, "more": more} for row in reviews(100)]
    pq.write_table(pa.Table.from_pylist(rows + rows[:3]), tmp_path / "data.parquet")
    source, columns = str(tmp_path / "data.parquet"), {"text": "text", "label": "label"}
    (found,) = findings(check(source, model=None, **columns), "duplicates")
    assert "3 of them all columns" in found.what
    assert findings(glance(admit(source, **columns), seed=0), "giveaway_column") == []
    with pytest.raises(UserError, match="--group more: holds"):
        check(source, model=None, group="more", **columns)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mpqa_polarity.csv", {"duplicates": 2361, "contradictions": 99, "empty": 3}),
        ("spam_cp1252.csv", {"duplicates": 403, "encoding": 481}),
    ],
)
def test_what_is_known_of_real_data_is_found(name, expected):
    if not SHARED.exists():
        pytest.skip("the shared data is not here")
    diagnosis = check(str(SHARED / name), model=None)
    for found, count in expected.items():
        assert findings(diagnosis, found)[0].count == count


def test_words_and_pairs_are_what_texts_have_in_common():
    assert shingles(words_of("The lamp, the LAMP!")) == {"the", "lamp", "the lamp", "lamp the"}
