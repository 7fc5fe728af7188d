"""report.html says what the run's files say, holds no text of the data, and whatever stands in them stays text."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from lightune import cli, reporting
from lightune.artifact.finished import read_finished
from lightune.errors import UserError
from lightune.records import Attribution, Word
from lightune.report.answers import shortened
from lightune.report.charts import Scale, around
from lightune.report.explained import rows_to_explain
from lightune.report.marks import Piece, balance, pieces, told
from lightune.report.page import SECTIONS, run_page
from lightune.report.versus import versus_page
from lightune.reporting import make_report
from tests.pages import Reader, change, write_folder

LABELS = ["negative", "neutral", "positive"]
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "\u202egnp.exe",
    "\x1b[31mred",
    "=cmd|' /C calc'!A0",
    "nul\x00here",
    "{{ 7 * 7 }}",
    "x" * 200,
    "שלום",
]


def hostile_words(run: Any) -> dict[int, Attribution]:
    """Every third word for, against, not read; weights from 0.1 to 1."""
    text = " ".join([*HOSTILE, "plain words " * 30])
    found = [match.span() for match in re.finditer(r"\S+", text)]
    words = [Word(*span, [0.1 + i / len(found), -1.0 + i / len(found), None][i % 3]) for i, span in enumerate(found)]
    rows = run.predictions.rows[:3].tolist()
    return {row: Attribution(text, "negative", words, 2.5, -0.5, 0.01, 16) for row in rows}


def page_of(folder: Path) -> Reader:
    return Reader(run_page(read_finished(folder)))


def without_drawings(folder: Path) -> Reader:
    """What the tables and paragraphs say."""
    return Reader(re.sub(r"<svg.*?</svg>", "", run_page(read_finished(folder)), flags=re.S))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("pages") / "whole", LABELS, more=True)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("pages") / "<b>hostile", HOSTILE, more=True)


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    labels = [f"card_payment_number_{i}" for i in range(77)]
    return write_folder(tmp_path_factory.mktemp("pages") / "many", labels, more=True, n_test=400)


@pytest.fixture(scope="module", params=["whole", "hostile", "many", "versus"])
def any_page(request) -> Reader:
    if request.param == "versus":
        whole = request.getfixturevalue("whole")
        other = write_folder(whole.parent / "other", LABELS, seed=1)
        return Reader(versus_page(read_finished(whole), read_finished(other)))
    return page_of(request.getfixturevalue(request.param))


def test_a_page_is_well_formed_and_its_ids_are_unique(any_page):
    assert any_page.wrong == []
    ids = any_page.values("id")
    assert len(ids) == len(set(ids))
    named = {name for value in any_page.values("aria-labelledby") for name in value.split()}
    targets = {value.removeprefix("#") for value in any_page.values("href") if value.startswith("#")}
    assert named | targets <= set(ids)


def test_headings_are_in_order_and_every_table_and_drawing_has_a_name(any_page):
    headings = [tag for tag, _ in any_page.tags if re.fullmatch(r"h\d", tag)]
    assert headings[0] == "h1"
    assert set(headings[1:]) == {"h2"}
    count = {
        name: sum(tag == name for tag, _ in any_page.tags) for name in ("table", "caption", "svg", "title", "desc")
    }
    assert count["table"] == count["caption"] > 0
    assert count["svg"] == count["desc"] == count["title"] - 1 > 0
    assert all(attrs.get("scope") in ("row", "col") for tag, attrs in any_page.tags if tag == "th")
    assert all(attrs["role"] == "img" for tag, attrs in any_page.tags if tag == "svg")


def test_nothing_is_asked_of_another_place(any_page):
    assert not {"script", "iframe", "img", "object", "form"} & {tag for tag, _ in any_page.tags}
    assert not any(name.startswith("on") for _, attrs in any_page.tags for name in attrs)
    assert any_page.values("src") == []
    assert {value for value in any_page.values("href") if not value.startswith("#")} == {"data:,"}
    (policy,) = [attrs["content"] for _, attrs in any_page.tags if attrs.get("http-equiv")]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_the_sections_come_in_order_and_the_verdict_first(whole):
    page = page_of(whole)
    targets = [value.removeprefix("#") for value in page.values("href") if value.startswith("#")]
    assert targets == ["content", *(name for name in SECTIONS if name != "words")]  # nobody asked for texts
    verdict = json.loads((whole / "results.json").read_text())["verdict"]
    after_heading = page.texts[page.texts.index("Verdict", page.texts.index("Verdict") + 1) + 1]
    assert after_heading == f"The tuned classifier is {verdict}."
    assert "it is 0.8780" in page.text  # why a requirement does not hold


def numbers_in(values: Any) -> list[float]:
    """Every number of the files, those in texts, the lengths of lists and the ids of places in them included."""
    if isinstance(values, bool) or values is None:
        return []
    if isinstance(values, int | float):
        return [float(values)]
    if isinstance(values, str):
        return [float(found.replace(",", "")) for found in re.findall(r"\d[\d,]*(?:\.\d+)?(?:e-?\d+)?", values)]
    parts = list(values.values()) + list(values) if isinstance(values, dict) else values
    return [number for part in parts for number in numbers_in(part)] + [float(len(values))]


def test_every_number_on_the_page_is_in_the_files(whole):
    """As it is written: rounded, in per cent, in GiB; times and axes aside, which the next tests are about."""
    files = [json.loads((whole / f"{name}.json").read_text()) for name in ("results", "doctor", "environment")]
    table = pq.read_table(whole / "predictions.parquet").to_pydict()
    known = numbers_in([*files, table])
    known += [sum(map(sum, counts)) for counts in files[0]["confusion"].values()]
    known += [sum(counts[i][i] for i in range(3)) for counts in files[0]["confusion"].values()]
    right = {when: [a == b for a, b in zip(table[when], table["label"], strict=True)] for when in ("before", "after")}
    pairs = list(zip(right["before"], right["after"], strict=True))
    known += [pairs.count((False, True)), pairs.count((True, False)), right["after"].count(False)]
    known += [value * 100 for value in known] + [files[0]["peak_memory_bytes"] / 2**30]
    page = without_drawings(whole)
    cells = re.sub(r"\d+ min \d+ s|95 %|from 0\b|F1|sha256|0\.001|\b[0-9a-f]{64}\b", "", page.text)
    for found in re.findall(r"\d[\d,]*(?:\.\d+)?(?:e-\d+)?", cells):
        value, digits = float(found.replace(",", "")), len(found.partition(".")[2].partition("e")[0])
        unit = 0.51 * 10.0**-digits * (10.0 ** float(found.partition("e")[2] or 0))
        assert any(abs(value - number) <= unit for number in known), found


@pytest.mark.parametrize(
    "place", ["after.accuracy.value", "baselines.tfidf.scores.mcc.low", "comparisons.probe.broken"]
)
def test_another_number_in_results_is_another_number_on_the_page(place, tmp_path):
    """The control of the test above, which holds for many numbers by chance."""
    folder = write_folder(tmp_path / "run", LABELS)
    results = json.loads((folder / "results.json").read_text())
    *path, last = place.split(".")
    inner = results
    for key in path:
        inner = inner[key]
    inner[last] = 0.7777 if "." in str(inner[last]) else 7777
    shown = "0.778" if last == "low" else "0.7777" if last == "value" else "7,777"
    assert shown not in without_drawings(folder).text
    change(folder, **results)
    assert shown in without_drawings(folder).text


def test_scores_are_drawn_where_they_are(whole):
    page = page_of(whole)
    x = around([0.485, 0.904, 0.503], 10, 336)
    (told,) = [text for text in page.texts if text.startswith("Values with") and "0.8890" in text]
    assert "the tuned classifier 0.8890 (0.874 to 0.904)" in told
    places = [attrs for tag, attrs in page.tags if tag == "circle" and attrs["class"] == "dot after"]
    assert float(str(places[0]["cx"])) == pytest.approx(x.at(0.889), abs=0.06)


def test_ticks_are_round_and_on_the_scale():
    assert Scale(0.0, 1.0, 0, 1).ticks(5) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert Scale(0.47, 0.92, 0, 1).ticks(6) == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9])
    assert Scale(0, 231, 0, 1).ticks(5) == pytest.approx([0, 50, 100, 150, 200])


def test_a_loss_that_is_no_number_breaks_the_line(tmp_path):
    folder = write_folder(tmp_path / "run", LABELS)
    curve = json.loads((folder / "results.json").read_text())["curve"]
    curve[1]["train_loss"] = None
    change(folder, curve=curve)
    (path,) = [attrs["d"] for _, attrs in page_of(folder).tags if attrs.get("class") == "line faint"]
    assert str(path).count("M") == 2


def test_hostile_names_stay_text(hostile):
    page = page_of(hostile)
    raw = run_page(read_finished(hostile))
    assert page.wrong == []
    assert "script" not in {tag for tag, _ in page.tags}
    for seen in (
        "<script>alert(1)</script>",
        r"\u202egnp.exe",
        r"\x1b[31mred",
        r"nul\x00here",
        "{{ 7 * 7 }}",
        "שלום",
    ):
        assert seen in page.text
    assert not {"\u202e", "\x1b", "\x00"} & set(raw)
    assert "<b>hostile" in page.text
    assert max(map(len, page.texts)) < 2000


def test_many_classes_show_the_pairs_that_are_confused_most(many):
    results = json.loads((many / "results.json").read_text())
    results["confusion"]["after"][5][9] = 4321
    change(many, confusion=results["confusion"])
    texts = page_of(many).texts
    start = texts.index("The most confused pairs of 77 classes, in rows")
    assert texts[start + 5 : start + 9] == ["card_payment_number_5", "card_payment_number_9", "49", "4,321"]
    assert texts[start + 9] != texts[start + 10]  # no right answer is among them
    assert sum("Before:" in text for text in texts) == 0


def test_rows_fixed_broken_and_wrong_are_those_of_the_predictions(whole):
    table = pq.read_table(whole / "predictions.parquet").to_pylist()
    fixed = [row for row in table if row["before"] != row["label"] == row["after"]]
    fixed.sort(key=lambda row: -row[f"p_{row['after']}"])
    texts = page_of(whole).texts
    start = texts.index(f"Fixed by tuning: {len(fixed)} rows, the 20 most confident") + 9
    shown = [int(text) for text in texts[start : start + 8 * 20 : 8]]
    assert shown == [row["row"] for row in fixed[:20]]


def test_a_run_without_calibration_slices_doctor_and_environment_has_a_page(tmp_path):
    folder = write_folder(tmp_path / "old", LABELS)
    for name in ("doctor.json", "environment.json"):
        (folder / name).unlink()
    change(folder, baselines={}, comparisons={}, dev_curve=[], requirements=[])
    page = page_of(folder)
    assert page.wrong == []
    assert not {"calibration", "slices"} & set(page.values("id"))
    assert "Nobody looked for faults in the data of this run." in page.text
    assert "Nothing was required of this run." in page.text
    change(folder, curve=[])
    assert "No training step was taken." in page_of(folder).text


def test_folders_of_the_user_are_not_on_the_page(whole):
    text = page_of(whole).text
    assert "reviews.csv" in text
    assert not re.search("/home|customer|/models|/ann", text)


def test_a_run_leaves_its_page_under_its_name_without_texts(tiny_run):
    folder = Path(tiny_run.folder)
    page = Reader((folder / "report.html").read_text(encoding="utf-8"))
    assert page.wrong == []
    assert f"lightune run {folder.name}/recipe.toml" in page.text
    assert ".partial" not in page.text
    assert "kettle" not in page.text


def test_texts_are_shown_where_they_are_asked_for(tiny_run, reviews, tmp_path):
    output = tmp_path / "with texts.html"
    assert cli.main(["report", tiny_run.folder, "-o", str(output)]) == 0
    assert "kettle" not in output.read_text(encoding="utf-8")
    assert cli.main(["report", tiny_run.folder, "--show-texts", "-o", str(output)]) == 0
    page = Reader(output.read_text(encoding="utf-8"))
    lines = reviews.read_text().splitlines()[1:]
    start = page.texts.index("probability")
    row, text = int(page.texts[start + 1]), page.texts[start + 9]  # under its eight cells
    assert lines[row].startswith(text)
    assert len(text) > 10
    assert "kettle" in page.text


def test_a_list_of_rows_that_is_empty_is_a_sentence(tmp_path):
    folder = write_folder(tmp_path / "run", LABELS)
    table = pq.read_table(folder / "predictions.parquet")
    pq.write_table(table.set_column(3, "after", table.column("label")), folder / "predictions.parquet")
    text = page_of(folder).text
    assert "Wrong with the most confidence, perhaps wrong labels: no row." in text
    assert "Broken by tuning: no row." in text


def test_hostile_texts_stay_text(whole):
    run = read_finished(whole)
    raw = run_page(replace(run, texts=dict.fromkeys(run.predictions.rows.tolist(), "".join(HOSTILE))))
    page = Reader(raw)
    assert page.wrong == []
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert any("<script>alert(1)</script>" in text and r"\u202egnp" in text for text in page.texts)
    assert not {"\u202e", "\x1b", "\x00"} & set(raw)


def test_texts_of_other_data_are_refused(tiny_run, reviews, tmp_path, monkeypatch):
    changed = tmp_path / "run"
    changed.mkdir()
    for path in Path(tiny_run.folder).iterdir():
        if path.is_file():
            (changed / path.name).write_bytes(path.read_bytes())
    data = json.loads((changed / "results.json").read_text())["data"]
    change(changed, data=data | {"digest": "0" * 64})
    message = r"reviews.csv: changed since the run \(sha256 \w{12}…, the run read 0{12}…\)"
    with pytest.raises(UserError, match=message):
        make_report(changed, show_texts=True)
    assert "kettle" not in (changed / "report.html").read_text()


def test_a_text_is_cut_and_stays_in_one_line():
    assert shortened("a\n b\t c") == "a b c"
    assert len(shortened("word " * 5000)) == 300
    assert shortened("word " * 5000).endswith("…")


def test_two_runs_on_the_same_rows_are_compared_in_pairs(whole, tmp_path, monkeypatch, capsys):
    other = write_folder(tmp_path / "other", LABELS, seed=1)
    recipe = json.loads((other / "results.json").read_text())["recipe"]
    change(other, recipe=recipe | {"method": {"name": "ia3"}})
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report", str(whole), str(other), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["page"] == "report-vs-other.html"
    rows = [pq.read_table(folder / "predictions.parquet").to_pydict() for folder in (whole, other)]
    right = [[a == b for a, b in zip(each["after"], each["label"], strict=True)] for each in rows]
    pairs = list(zip(*right, strict=True))
    assert made["comparison"]["fixed"] == pairs.count((True, False))
    assert made["comparison"]["broken"] == pairs.count((False, True))
    page = Reader(Path(made["page"]).read_text(encoding="utf-8"))
    assert f"whole is {made['comparison']['outcome']}" in page.text
    start = page.texts.index("method.name")
    assert page.texts[start : start + 3] == ["method.name", "lora", "ia3"]
    assert "train.epochs" not in page.texts
    assert f"whole alone is right: {pairs.count((True, False))} row" in page.text


def test_the_order_of_the_rows_and_of_the_classes_does_not_matter(whole, tmp_path):
    other = write_folder(tmp_path / "other", LABELS, seed=1)
    plain = versus_page(read_finished(whole), read_finished(other))
    table = pq.read_table(other / "predictions.parquet")
    pq.write_table(table.take(list(range(table.num_rows))[::-1]), other / "predictions.parquet")
    change(other, labels=LABELS[::-1])
    assert versus_page(read_finished(whole), read_finished(other)) == plain


@pytest.mark.parametrize(
    ("differs", "why"),
    [
        ("data", "they were tested on different data, as the digests say"),
        ("rows", "of 60 and 59 test rows, 59 are the same"),
        ("classes", "they tell other classes apart"),
        ("labels", "the same rows have other labels"),
    ],
)
def test_where_the_rows_are_not_the_same_the_page_says_so(differs, why, whole, tmp_path):
    labels = ["bad", *LABELS[1:]] if differs == "classes" else LABELS
    other = write_folder(tmp_path / "other", labels)
    data = json.loads((other / "results.json").read_text())["data"]
    path = other / "predictions.parquet"
    table = pq.read_table(path)
    if differs == "data":
        change(other, data=data | {"digest": "1" * 64})
    if differs == "rows":
        pq.write_table(table.slice(1), path)
        change(other, n_test=len(table) - 1)
    if differs == "labels":
        pq.write_table(table.set_column(1, "label", table.column("after")), path)
    made = make_report(whole, other, output=tmp_path / "page.html")
    assert made["comparison"] is None
    assert made["why_not"] == why
    page = Reader((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert f"The two are not compared row by row: {why}." in page.texts
    assert "rows" not in page.values("id")


def test_two_runs_of_one_name_are_told_apart(whole, tmp_path):
    other = write_folder(tmp_path / "whole", LABELS, seed=1)
    make_report(whole, other, output=tmp_path / "page.html")
    page = Reader((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert page.texts[0] == "whole (first) against whole (second)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["nowhere"],
            r"nowhere: no run of lightune \(results.json is not there\). Name the folder that `run` wrote.",
        ),
        (["RUN", "nowhere"], r"nowhere: no run of lightune"),
        (["RUN", "-o", "RUN/results.json"], r"results.json: cannot be written as .json. Use .html, .htm."),
        (
            ["RUN", "-o", "no/page.html"],
            r"no/page.html: its folder does not exist. Make it first, or choose another --output.",
        ),
        (["RUN", "-o", "n" * 300 + ".html"], r"cannot be written \(File name too long\). Choose another --output."),
    ],
)
def test_a_mistake_is_one_message(arguments, message, whole, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = [argument.replace("RUN", str(whole)) for argument in arguments]
    assert cli.main(["report", *arguments]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert len(error.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("results.json", "{", r"results.json: cannot be read \(Expecting"),
        ("results.json", "[]", r"results.json: holds a list, not an object"),
        ("results.json", '{"format_version": 2}', r"results.json: format_version 2, this lightune reads 1"),
        ("results.json", '{"format_version": 1}', r"results.json: lacks \['lightune', 'labels'"),
        ("doctor.json", "nonsense", r"doctor.json: cannot be read"),
        ("predictions.parquet", "PAR1", r"predictions.parquet: cannot be read"),
        ("predictions.parquet", None, r"predictions.parquet: cannot be read"),
    ],
)
def test_a_damaged_run_is_named(name, content, message, tmp_path):
    folder = write_folder(tmp_path / "run", LABELS)
    (folder / name).write_text(content) if content is not None else (folder / name).unlink()
    with pytest.raises(UserError, match=message):
        make_report(folder)
    assert not (folder / "report.html").exists()


def test_predictions_of_another_run_are_refused(tmp_path):
    folder = write_folder(tmp_path / "run", LABELS)
    change(folder, labels=["negative", "neutral", "splendid"])
    with pytest.raises(UserError, match=r"predictions.parquet: cannot be read \(.*p_splendid"):
        make_report(folder)


def test_making_a_page_loads_no_torch(whole, tmp_path):
    code = (
        "import sys; from lightune.cli import main\n"
        f"main(['report', {str(whole)!r}, '-o', {str(tmp_path / 'page.html')!r}])\n"
        "heavy = {'torch', 'transformers', 'matplotlib', 'sklearn'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "page.html").is_file()


# Words behind some answers


def test_a_text_is_cut_into_marked_plain_and_unread_pieces():
    text = "the lamp,  is\nlovely but " + "dull " * 60
    spans = [match.span() for match in re.finditer(r"\w+|,", text)]
    weights = [0.01, 0.0, 0.0, -0.02, 2.0, -1.0, *[None] * 60]
    found = Attribution(
        text, "positive", [Word(*s, w) for s, w in zip(spans, weights, strict=True)], 3.0, 1.0, 0.0, 16
    )
    one, two, _, three, _, four = pieces(found)
    assert one == Piece("the lamp, is ")
    assert two == Piece("lovely", 2.0, 1.0)
    assert three == Piece("but", -1.0, -0.5)
    assert (two.sign, three.sign) == ("+", "\N{MINUS SIGN}")
    assert not four.is_read
    assert four.text.startswith("dull dull")
    assert "…" in four.text
    assert len(four.text) < 130
    assert told(found, "-") == "for positive: lovely +2.00, the +0.01; against it: but -1.00, is -0.02"
    assert balance(replace(found, gap=-0.06), "-") == (
        "log-odds +3.00, +1.00 for a blank text; the words make up the difference but for 0.06 "
        "(2.0% of all weights, 16 steps)"
    )
    assert balance(replace(found, blank=2.0)).endswith(
        "; a blank text has this label nearly as much, so the words say little"
    )


def test_a_text_of_faint_words_has_no_mark():
    found = Attribution("a b", "x", [Word(0, 1, 0.02), Word(2, 3, -0.03)], 1.0, 1.0, 0.0, 16)
    assert pieces(found) == [Piece("a b")]


def test_hostile_words_stay_text_and_are_marked(whole):
    run = read_finished(whole)
    raw = run_page(replace(run, attributions=hostile_words(run)))
    page = Reader(raw)
    assert page.wrong == []
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert not {"\u202e", "\x1b", "\x00"} & set(raw)
    assert "<script>alert(1)</script>" in page.text
    marks = [attrs for tag, attrs in page.tags if tag == "mark"]
    assert {attrs["class"] for attrs in marks} == {"for", "against"}
    assert all(0.15 <= float(str(attrs["style"]).removeprefix("--share: ")) <= 1 for attrs in marks)
    assert "words" in page.values("id")
    head = f"Row {run.predictions.rows[0]}, labelled negative: answered"
    assert any(text.startswith(head) for text in page.texts)


def test_the_rows_that_are_explained_are_wrong_broken_and_fixed_in_turn(whole):
    predictions = read_finished(whole).predictions
    chosen = rows_to_explain(predictions, 7)
    assert len(set(chosen)) == 7
    places = [predictions.rows.tolist().index(row) for row in chosen]
    before, after = predictions.right("before"), predictions.right()
    wrong = [place for place in places if not after[place]]
    fixed = [place for place in places if after[place] and not before[place]]
    assert len(wrong) + len(fixed) == 7
    assert len(fixed) >= 2
    assert predictions.confidence[places[0]] == predictions.confidence[~after].max()
    assert rows_to_explain(predictions, 0) == []


@pytest.fixture(scope="module")
def marked_page(tiny_run, tmp_path_factory) -> Reader:
    output = tmp_path_factory.mktemp("words") / "page.html"
    assert cli.main(["report", tiny_run.folder, "--show-texts", "--explain", "3", "-o", str(output)]) == 0
    return Reader(output.read_text(encoding="utf-8"))


def test_words_are_marked_where_texts_are_shown(marked_page):
    assert marked_page.wrong == []
    assert sum(attrs.get("class") == "marked" for _, attrs in marked_page.tags) == 3
    assert sum(tag == "mark" for tag, _ in marked_page.tags) > 3 + 2  # two are in the legend
    assert "for a blank text; the words make up the difference but for" in marked_page.text
    assert not [text for text in marked_page.texts if "are not marked" in text]


def test_without_its_base_the_page_is_made_and_says_why(tiny_run, tmp_path, monkeypatch, capsys):
    def gone(*others: Any, **named: Any) -> Any:
        raise UserError(f"{tiny_run.folder}/adapter: its base model 'tiny' is not there. Give it with --base.")

    monkeypatch.setattr("lightune.use.classifier.Classifier.load", gone)
    output = tmp_path / "page.html"
    assert cli.main(["report", tiny_run.folder, "--show-texts", "-o", str(output)]) == 0
    page = Reader(output.read_text(encoding="utf-8"))
    assert "kettle" in page.text
    name = Path(tiny_run.folder).name
    why = f"rows are not marked: {name}/adapter: its base model 'tiny' is not there. Give it with --base."
    assert [text for text in page.texts if text.endswith(why)]
    assert str(Path(tiny_run.folder).parent) not in page.text
    assert "not all words are marked" in capsys.readouterr().err


def test_when_the_time_is_over_the_rest_is_left_out_and_said(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(reporting, "EXPLAIN_SECONDS", 0.0)
    make_report(tiny_run.folder, show_texts=True, explain=3, output=tmp_path / "page.html")
    page = Reader((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert sum(attrs.get("class") == "marked" for _, attrs in page.tags) == 1
    assert "The words of 2 of 3 rows are not marked: there was time for 0 s." in page.texts


def test_no_rows_are_explained_where_none_are_wanted(tiny_run, tmp_path):
    make_report(tiny_run.folder, show_texts=True, explain=0, output=tmp_path / "page.html")
    assert "words" not in Reader((tmp_path / "page.html").read_text(encoding="utf-8")).values("id")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"explain": 3}, "--explain 3: without --show-texts no words are marked"),
        ({"explain": -1, "show_texts": True}, "--explain -1: no number of rows"),
        ({"explain": 3, "show_texts": True, "other": "x"}, "--explain 3: with two runs no words are marked"),
    ],
)
def test_rows_that_no_page_shows_cannot_be_explained(options, message, whole):
    with pytest.raises(UserError, match=message):
        make_report(whole, **options)
