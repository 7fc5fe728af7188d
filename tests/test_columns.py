"""The right columns are chosen for a reason that is said, and no row disappears without being counted."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lightune.data import columns, scratch
from lightune.data.columns import choose_columns
from lightune.data.examples import examples
from lightune.data.sources import read
from lightune.errors import UserError

REAL = Path(__file__).parents[2] / "shared" / "data"
REVIEWS = ["It broke after a week of use", "Great value and quick delivery", "I would buy this again"]


def table(n=30, **columns):
    """n rows; a list is repeated to that length, a function makes each cell from its row."""

    def cells(values):
        return [values(i) for i in range(n)] if callable(values) else [values[i % len(values)] for i in range(n)]

    return pa.table({name: cells(values) for name, values in columns.items()})


def text_of(i):
    return f"{REVIEWS[i % 3]}, number {i}"


def choice(data, text=None, label=None):
    return choose_columns(data, text=text, label=label)[:2]


# The choice

REAL_FILES = {
    "amazon_reviews.csv.gz": ("text", "sentiment"),
    "trec_train.tsv": ("question", "class"),
    "banking77_train.csv": ("text", "category"),
    "mpqa_polarity.csv": ("phrase", "label"),
    "sst_fine_train.tsv": ("sentence", "stars"),
    "spam_cp1252.csv": ("text", "label"),
}


@pytest.mark.parametrize("name", REAL_FILES)
def test_the_columns_of_real_files(name):
    if not (REAL / name).is_file():
        pytest.skip(f"needs the shared file {name}")
    corpus = read(str(REAL / name), encoding="cp1252" if "cp1252" in name else None)
    text, label, decisions, _ = choose_columns(corpus.tables["train"], text=None, label=None)
    assert (text, label) == REAL_FILES[name]
    assert [decision.choice for decision in decisions] == [label, text]


def test_the_reason_is_in_words_and_numbers():
    if not (REAL / "amazon_reviews.csv.gz").is_file():
        pytest.skip("needs the shared file amazon_reviews.csv.gz")
    data = read(str(REAL / "amazon_reviews.csv.gz")).tables["train"]
    why = {decision.what: decision.why for decision in choose_columns(data, text=None, label=None)[2]}
    expected = "2 distinct values in 30,000 rows; named like a label; also possible: domain"
    assert why["label column"] == expected
    assert why["text column"].startswith("longest text: 135 words on average")  # 134 by another count: README there


def test_a_list_of_labels_is_found():
    if not (REAL / "emotions_test.jsonl").is_file():
        pytest.skip("needs the shared file emotions_test.jsonl")
    data = read(str(REAL / "emotions_test.jsonl")).tables["train"]
    assert choice(data) == ("text", "emotions")
    assert choose_columns(data, text=None, label="emotions")[1] == "emotions"


def test_the_spam_file_of_the_web_without_names_for_its_columns():
    data = table(v1=["ham", "spam"], v2=text_of, unnamed_3=["", "", "x"])
    assert choice(data) == ("v2", "v1")


CHOICES = {
    "names in capitals": ({"Text": text_of, "Label": ["a", "b"]}, ("Text", "Label")),
    "a label among other classes": ({"area": ["x", "y"], "intent": ["a", "b"], "q": text_of}, ("q", "intent")),
    "an unknown label name": ({"verb": ["a", "b"], "q": text_of}, ("q", "verb")),
    "a name that holds a known one": ({"shop": ["x", "y"], "their_sentiment": ["a", "b"], "q": text_of}, ("q", "their_sentiment")),
    "an earlier name wins": ({"topic": ["x", "y"], "label": ["a", "b"], "text": text_of}, ("text", "label")),
    "title and content": ({"title": lambda i: f"Title no. {i}", "content": text_of, "label": ["0", "1"]}, ("content", "label")),
    "an address is no text": ({"url": lambda i: f"https://example.org/{i:060}", "said": lambda i: f"so {i}", "label": ["0", "1"]}, ("said", "label")),
    "no spaces": ({"id": lambda i: f"{i:08}", "文": lambda i: f"这个产品非常好用我很喜欢{i}", "label": ["好", "坏"]}, ("文", "label")),
    "known name at equal length": ({"answer": text_of, "question": text_of, "label": ["0", "1"]}, ("question", "label")),
    "a text of few values": ({"text": ["good stuff", "bad stuff"], "label": ["1", "0"]}, ("text", "label")),
    "one class is still the label": ({"text": text_of, "label": ["only"]}, ("text", "label")),
    "no label at all in it": ({"text": text_of, "label": [""]}, ("text", "label")),
}  # fmt: skip


@pytest.mark.parametrize("case", CHOICES)
def test_the_choice(case):
    columns, expected = CHOICES[case]
    assert choice(table(**columns)) == expected
    assert choice(table(**dict(reversed(columns.items())))) == expected, "the order of the columns must not matter"


def test_a_file_sorted_by_class_is_seen_as_a_whole():
    n = 25_000
    data = pa.table({"kind": ["a"] * (n // 2) + ["b"] * (n // 2), "said": [f"word {i}" for i in range(n)]})
    text, label, decisions, _ = choose_columns(data, text=None, label=None)
    assert (text, label) == ("said", "kind")
    assert decisions[0].why == "2 distinct values in 25,000 rows; the only column with few, short, repeated values"


def test_a_second_text_is_mentioned_with_the_template_that_uses_it():
    data = table(title=lambda i: f"Title no. {i}", content=text_of, label=["0", "1"])
    why = choose_columns(data, text=None, label=None)[2][1].why
    assert "not used: title (3 words); data.text = '{title}. {content}' would use both" in why


def test_given_columns_are_taken_and_give_no_decision():
    data = table(text=text_of, label=["a", "b"], area=["x", "y"])
    assert choose_columns(data, text="{area}: {text}", label="label") == ("{area}: {text}", "label", [], None)
    assert choice(data, label="area") == ("text", "area")
    assert choice(data, text="label", label="area") == ("label", "area")
    assert choice(data, text="{label} {text}") == ("{label} {text}", "area")


MIXED = pa.schema(
    [pa.field("text", pa.string(), metadata={b"lightune.mixed": b"number (line 1) and string (line 2)"})]
)
LIST, STRUCT, BINARY = pa.array([["a"]]), pa.array([{"id": "a"}]), pa.array([b"a"])
# (columns, text, label) -> what was seen, and what to do
BAD_CHOICES = {
    "no such label": (table(text=text_of, y=["a", "b"]), None, "label", r"no column 'label'\. Found: \['text', 'y'\]\. Set data\.label"),
    "near": (table(text=text_of, label=["a", "b"]), None, "lable", r"no column 'lable'.*Did you mean 'label'\? Set data\.label"),
    "no such text": (table(text=text_of, y=["a", "b"]), "body", None, r"no column 'body'\. Found: \['text', 'y'\]\. Set data\.text"),
    "template": (table(text=text_of, y=["a", "b"]), "{titel} {text}", "y", r"no column 'titel'\..*Set data\.text"),
    "open brace": (table(text=text_of, y=["a", "b"]), "{text", "y", r"data\.text is '\{text': .*Write '\{column\}'"),
    "no name": (table(text=text_of, y=["a", "b"]), "{}", "y", r"data\.text is '\{\}': only plain .*Name a column"),
    "format": (table(text=text_of, y=["a", "b"]), "{text!r:>9}", "y", r"only plain '\{column\}'"),
    "same twice": (table(text=text_of, y=["a", "b"]), "{text}", "text", r"'text' is named as text and as label\. Set data\.text"),
    "list": (pa.table({"text": LIST, "y": ["a"]}), "text", "y", r"'text' cannot be the text: it holds list<item: string>.*another of \['y'\]"),
    "struct": (pa.table({"text": ["a"], "y": STRUCT}), "text", "y", r"'y' cannot be the label: it holds struct<id: string>"),
    "binary": (pa.table({"text": BINARY, "y": ["a"]}), "text", "y", r"'text' cannot be the text: it holds binary"),
    "mixed": (pa.table([["1"]], schema=MIXED).append_column("y", [["a"]]), "text", "y", r"it holds number \(line 1\) and string \(line 2\), not text\. Turn"),
    "several labels": (table(a=["x", "y"], b=["u", "v"], q=text_of), None, None, r"the label could be any of \['a', 'b'\]\. .*'a' \(e\.g\. 'x', 2 distinct\).*--label"),
    "no label": (table(a=text_of, b=lambda i: str(i)), None, None, r"no column looks like a label.*'b' \(e\.g\. '0', 30 distinct\).*--label"),
    "two texts": (table(first=text_of, second=text_of, y=["a", "b"]), None, None, r"the text could be any of \['first', 'second'\].*'\{first\}\. \{second\}'"),
    "label only": (table(label=["a", "b"]), None, None, r"no column is left for the text.*--text"),
    "no header": (pa.table({"I loved it so much": ["Bad film", "A fine one"] * 3, "positive": ["negative", "positive"] * 3}), None, None, r"no header row: .*'positive' is there 3 times more\. Add a first line"),
    "no header, digits": (pa.table({"I loved it so much": ["Bad film", "A fine one"] * 3, "1": ["0", "1"] * 3}), None, None, r"no header row: .*'1' is there 3 times more"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_CHOICES)
def test_no_clear_choice_is_one_message_with_the_fix(case):
    data, text, label, message = BAD_CHOICES[case]
    with pytest.raises(UserError, match=message):
        choose_columns(data, text=text, label=label)


def test_columns_named_by_number_are_no_missing_header():
    assert choice(pa.table({"0": [text_of(i) for i in range(30)], "1": ["0", "1"] * 15})) == ("0", "1")


def test_a_message_about_many_columns_stays_short():
    data = table(**{f"column {i}": lambda row, i=i: f"{row} {i} " + "long " * 99 for i in range(200)})
    with pytest.raises(UserError, match=r"and 188 more") as caught:
        choose_columns(data, text=None, label=None)
    assert len(str(caught.value)) < 3000


# The examples


def test_rows_without_text_or_label_are_dropped_and_counted():
    texts = ["a ", "", " \t", None, "e", "f", "g", " h", "i", "j"]
    labels = [" x", "x", "y", "y", "", None, "y", "y ", "X", "0"]
    found, decisions = examples(pa.table({"text": texts, "label": labels}), text="text", label="label")
    assert found.texts == ["a ", "g", " h", "i", "j"]
    assert found.labels == ["x", "y", "y", "X", "0"]
    assert found.rows == [0, 6, 7, 8, 9]
    assert [(d.what, d.choice, d.why) for d in decisions] == [
        ("rows without a label", "dropped", "2 of 10 rows"),
        ("rows without a text", "dropped", "3 of 10 rows"),
    ]


def test_a_template_is_filled_byte_exact():
    data = pa.table({"title": ["A {x}", None, " "], "content": ["b\n", "c", None], "y": ["0", "1", "1"]})
    found, decisions = examples(data, text="{{{title}}}. {content}", label="y")
    assert found.texts == ["{A {x}}. b\n", "{}. c"]
    assert [decision.why for decision in decisions] == ["1 of 3 rows"]


def test_a_column_whose_name_has_braces_is_a_column():
    data = pa.table({"{text}": ["a", "b"], "y": ["0", "1"]})
    assert choose_columns(data, text="{text}", label="y")[0] == "{text}"
    assert examples(data, text="{text}", label="y")[0].texts == ["a", "b"]


def test_prediction_keeps_every_row():
    data = pa.table({"text": ["a", "", None, " "]})
    found, decisions = examples(data, text="text", label=None)
    assert (found.texts, found.labels, found.rows, decisions) == (["a", "", "", ""], None, [0, 1, 2, 3], [])


def test_blank_is_what_python_strips():
    spaces = [chr(code) for code in range(0x110000) if chr(code).isspace()]
    found, _ = examples(pa.table({"text": [*spaces, "".join(spaces)]}), text="text", label=None)
    assert set(found.texts) == {""}
    found, _ = examples(pa.table({"text": [f"{space}\u200b" for space in spaces]}), text="text", label=None)
    assert "" not in set(found.texts)


@pytest.mark.parametrize("text", ["text", "{text}: {{{area}}}"])
def test_a_table_in_many_parts_on_disk_gives_the_same_examples(text, monkeypatch):
    n = 5000
    rows = pa.table(
        {
            "text": [None if i % 7 == 0 else f"text {i}" for i in range(n)],
            "area": [f"area {i % 3}" if i % 2 else " " for i in range(n)],
            "y": [None if i % 11 == 0 else f" {'ab'[i % 2]}" for i in range(n)],
        }
    )
    whole, notes = examples(rows, text=text, label="y")
    assert (whole.rows[0], whole.labels[0]) == (1, "b")
    monkeypatch.setattr(scratch, "HELD_BYTES", 0)
    parts = scratch.gathered(rows.slice(start, 777) for start in range(0, n, 777))
    assert examples(parts, text=text, label="y") == (whole, notes)


@pytest.mark.parametrize("held", [0, 2**26])
def test_rows_are_taken_in_any_order_and_again(held, monkeypatch):
    monkeypatch.setattr(scratch, "HELD_BYTES", held)
    part = pa.table({"text": ["a", None, "c"], "n": [1, 2, None]})
    table = pa.concat_tables([part, part.slice(0, 0), part, part.slice(1)])
    for places in ([7, 0, 1, 2, 3, 3, 3, 6], [], [4], [5, 4, 3], list(range(8)) * 600):
        assert scratch.rows_at(table, np.array(places, np.int64)).equals(table.take(pa.array(places, pa.int64())))


def test_rows_are_taken_from_more_text_than_fits_one_array():
    mebibyte = pa.array(["x" * 2**20] * 64)
    table = pa.table({"text": pa.chunked_array([mebibyte] * 40)})  # 2.5 GiB, of which 64 MiB are there
    before = pa.total_allocated_bytes()
    taken = scratch.rows_at(table, np.array([2559, 64]))
    assert pa.total_allocated_bytes() - before < 2**23
    assert taken.num_rows == 2


def test_one_number_in_several_spellings_is_a_warning():
    labels = ["1", "1.0", "2", "02", "3", "x", "1"]
    found, decisions = examples(pa.table({"text": list("abcdefg"), "y": labels}), text="text", label="y")
    assert found.labels == labels
    assert [decision.choice for decision in decisions] == ["kept apart: '1', '1.0'", "kept apart: '02', '2'"]
    assert "'1' 2 rows, '1.0' 1 rows" in decisions[0].why


def test_ids_become_the_names_of_a_source_that_has_them():
    data = pa.table({"text": ["a", "b"], "y": ["1", "0"]})
    found, decisions = examples(data, text="text", label="y", class_names=["neg", "pos"])
    assert found.labels == ["pos", "neg"]
    assert [decision.choice for decision in decisions] == ["neg, pos"]
    data = pa.table({"text": ["a", "b"], "y": ["pos", "neg"]})
    assert examples(data, text="text", label="y", class_names=["neg", "pos"])[1] == []


def labels_table(labels):
    return pa.table({"text": [f"t{i}" for i in range(len(labels))], "y": labels})


BAD_LABELS = {
    "none": (labels_table(["", None, " "]), None, r"column 'y': all 3 labels are missing\. Set data\.label"),
    "one": (labels_table(["a", "a ", ""]), None, r"'y' has a single class: 'a' in all 2 rows\. Add rows"),
    "most missing": (labels_table(["a", "", "", "b", ""]), None, r"3 of 5 rows have no label in 'y' and 0 more .*over half"),
    "long": (labels_table(["a", "b" * 201]), None, r"class name 'b{40}'… has 201 characters, at most 200 .*Set data\.label"),
    "control": (labels_table(["a", "b\x07c"]), None, r"class name 'b\\x07c' holds a control character\. Remove it"),
    "unknown": (labels_table(["pos", "negg"]), ["neg", "pos"], r"no class: \{'negg': 1\}.*are \['neg', 'pos'\]\. Did you mean 'neg'"),
    "high id": (labels_table(["0", "2"]), ["neg", "pos"], r"no class: \{'0': 1, '2': 1\}.*Correct the labels"),
    "no text": (pa.table({"text": ["", " ", "c"], "y": ["a", "b", "a"]}), None, r"0 of 3 rows have no label in 'y' and 2 more have no text"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_LABELS)
def test_unfit_labels_are_one_message_with_the_fix(case):
    data, class_names, message = BAD_LABELS[case]
    with pytest.raises(UserError, match=message):
        examples(data, text="text", label="y", class_names=class_names)


def test_exactly_half_may_be_dropped_and_200_characters_are_a_name():
    found, _ = examples(labels_table(["a" * 200, "b/..<script>=cmd", "", ""]), text="text", label="y")
    assert found.labels == ["a" * 200, "b/..<script>=cmd"]


# ruff: noqa: E501


@pytest.mark.parametrize("n_rows", [10_000, 10_001, 34_567])
def test_a_table_in_many_parts_is_looked_at_in_even_steps_without_a_copy(n_rows):
    rows = pa.table({"text": [str(i) for i in range(n_rows)]})
    parts = pa.concat_tables([rows.slice(start, 777) for start in range(0, n_rows, 777)])
    step = -(-n_rows // 10_000)
    assert columns._sample(parts)["text"].to_pylist() == [str(i) for i in range(0, n_rows, step)]
    assert columns._sample(parts)["text"].num_chunks == parts["text"].num_chunks
