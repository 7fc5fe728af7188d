"""What a run learns of its data on the way: text that its length limit costs, labels that its base speaks against."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

import lightune
from lightune.data.values import Texts
from lightune.doctor import label_errors
from lightune.doctor.label_errors import seconds_in_run, wrong_labels_in_run
from lightune.errors import UserError
from lightune.evidence.baselines import Embeddings, Lesson
from lightune.journal import Journal
from lightune.reporting import make_report
from tests.conftest import TINY_SETTINGS

OTHER = {"positive": "negative", "negative": "positive"}


def lesson_of(n, *, noise=(), seed=0, with_embeddings=True) -> Lesson:
    """Texts that say nothing by their words, and of every second row embeddings that say the class."""
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % 2
    y = truth.copy()
    y[list(noise)] = 1 - y[list(noise)]
    texts = [f"a text about {k} words" for k in rng.integers(10**9, size=n)]
    rows = np.arange(0, n, 2) + rng.integers(0, 2, len(range(0, n, 2)))
    x = np.where(truth[rows], 3.0, -3.0)[:, None] + rng.normal(size=(len(rows), 4))
    embeddings = Embeddings(x, y[rows], rows, np.zeros((0, 4))) if with_embeddings else None
    return Lesson(texts, y, [], y[:0], [], 2, embeddings)


def test_wrong_labels_are_named_by_their_rows_in_the_source():
    """Training row i stands in row 1,000 + 3 i of the source; of the wrong ones those can be found that were read."""
    noise = range(7, 500, 17)
    lesson = lesson_of(500, noise=noise)
    read = lesson.embeddings.rows.tolist()
    (found,) = wrong_labels_in_run(lesson, 1000 + 3 * np.arange(500), ["bad", "good"], seed=0)
    named = {(int(row) - 1000) // 3 for row in found.places}
    there = set(noise) & set(read)
    assert named <= there
    assert len(named) == found.count > 0.6 * len(there)
    assert f"{found.count} of {len(read)} labels looked at" in found.what
    assert "('bad', rather 'good')" in found.what


def test_without_embeddings_or_with_few_rows_it_is_said_why():
    found = wrong_labels_in_run(lesson_of(500, with_embeddings=False), np.arange(500), ["bad", "good"], seed=0)
    assert found == "the run had no embeddings of training rows; `lightune check` does it"
    found = wrong_labels_in_run(lesson_of(100), np.arange(100), ["bad", "good"], seed=0)
    assert found.startswith("fewer than 100 training rows")


def test_the_time_that_it_takes_is_bounded(monkeypatch):
    lesson = lesson_of(2000, noise=range(0, 2000, 40))
    whole = seconds_in_run(lesson, 1000)
    assert 0 < whole < label_errors.MOST_SECONDS
    assert seconds_in_run(lesson, 500) == pytest.approx(whole / 2)
    columns = lesson.embeddings.train.shape[1]
    a_row = label_errors.seconds_a_row(Texts.of(lesson.train), 2, columns)
    monkeypatch.setattr(label_errors, "MOST_SECONDS", 200.5 * a_row)
    (found,) = wrong_labels_in_run(lesson, np.arange(2000), ["bad", "good"], seed=0)
    assert " of 200 labels looked at" in found.what or " of 201 labels looked at" in found.what
    monkeypatch.setattr(label_errors, "MOST_SECONDS", 0.0)
    assert wrong_labels_in_run(lesson, np.arange(2000), ["bad", "good"], seed=0).startswith("fewer than")


@pytest.fixture(scope="module")
def noisy(reviews, tiny_bert, tmp_path_factory):
    """A finished run on the reviews with every 15th label turned round, what it printed, and the turned rows."""
    folder = tmp_path_factory.mktemp("noisy")
    with reviews.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    turned = set(range(0, len(rows), 15))
    for row in turned:
        rows[row]["sentiment"] = OTHER[rows[row]["sentiment"]]
    rows[30]["text"] += " \u202equietly"
    with (folder / "data.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    screen = io.StringIO()
    settings = [f'model="{tiny_bert}"', *TINY_SETTINGS, "data.max_tokens=8", "train.epochs=1"]
    journal = Journal(screen)
    result = lightune.run(str(folder / "data.csv"), settings=settings, output=str(folder / "run"), journal=journal)
    return Path(result.folder), screen.getvalue(), turned


def test_a_run_names_training_rows_whose_label_is_likely_wrong(noisy):
    folder, screen, turned = noisy
    results, doctor = (json.loads((folder / name).read_text()) for name in ("results.json", "doctor.json"))
    (found,) = [each for each in doctor["findings"] if each["check"] == "label_errors"]
    assert results["label_errors"] == found
    named = set(found["rows"]["train"])
    assert found["count"] == len(named)
    assert len(named & turned) >= 0.8 * len(named) > 3
    assert screen.count(found["what"]) == 2  # when it is found, and at the end
    assert f"all {found['count']} row numbers are in doctor.json" in screen
    assert "label_errors" not in doctor["left_out"]
    assert "labels" in results["seconds"]


def test_a_run_says_what_its_length_limit_costs(noisy):
    """Of data.max_tokens = 8 the special tokens are two."""
    doctor = json.loads((noisy[0] / "doctor.json").read_text())
    (found,) = [each for each in doctor["findings"] if each["check"] == "truncation"]
    assert found["what"].startswith("with data.max_tokens = 8, train: ")
    assert "; test: " in found["what"]
    assert "truncation" not in doctor["left_out"]


def test_the_page_shows_the_texts_of_findings_only_when_asked(noisy, tmp_path):
    folder, _, _ = noisy
    plain = (folder / "report.html").read_text()
    findings = json.loads((folder / "doctor.json").read_text())["findings"]
    assert all(each["examples"] is None for each in findings)
    (found,) = [each for each in findings if each["check"] == "label_errors"]
    assert f"train: {', '.join(map(str, found['rows']['train'][:8]))}" in plain
    assert "kettle" not in plain
    with (folder.parent / "data.csv").open(encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    make_report(folder, output=tmp_path / "texts.html", show_texts=True)
    shown = (tmp_path / "texts.html").read_text()
    for row in found["rows"]["train"][:3]:
        assert f"train {row} (" in shown
        assert texts[row].split("\u202e")[0] in shown
    assert "\u202e" not in shown


def test_a_damaged_doctor_json_is_one_message(noisy, tmp_path):
    folder, _, _ = noisy
    kept = (folder / "doctor.json").read_text()
    (folder / "doctor.json").write_text("{}")
    try:
        with pytest.raises(UserError, match=r"run/doctor.json: cannot be read \(\d+ faults"):
            make_report(folder, output=tmp_path / "texts.html", show_texts=True)
    finally:
        (folder / "doctor.json").write_text(kept)
