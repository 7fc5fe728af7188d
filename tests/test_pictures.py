"""The picture shows what results.json says, for any class names, and is the same bytes every time."""

from __future__ import annotations

import copy
import subprocess
import sys
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest

from lightune.report import lettering, panels, pictures

HOSTILE = [
    r"$\frac{1}{0}$",
    "<script>alert(1)</script>",
    "line\nbreak",
    "שלום עולם",
    "😀🦄 emoji",
    "体育",
    "财经",
    "\u202egnp.exe",
    "a" * 3000,
    "\ud800 half a character",
    "",
]


def confusion(n_classes: int, n_right: int, n_wrong: int) -> list[list[int]]:
    return (np.full((n_classes, n_classes), n_wrong) + np.eye(n_classes, dtype=int) * (n_right - n_wrong)).tolist()


def results_of(labels: list[str]) -> dict[str, Any]:
    """results.json of a run that went from 0.503 to 0.889 accuracy in 4 steps."""
    scores = {
        "before": {"accuracy": {"value": 0.503, "low": 0.481, "high": 0.525}, "log_loss": {"value": 0.69}},
        "after": {"accuracy": {"value": 0.889, "low": 0.875, "high": 0.902}, "log_loss": {"value": 0.31}},
    }
    scores["before"]["mcc"] = {"value": -0.014, "low": -0.03, "high": 0.01}
    scores["after"]["mcc"] = {"value": 0.778, "low": 0.75, "high": 0.8}
    losses, accuracies = [0.7, 0.6, 0.4, 0.3], [0.81, 0.79]
    baselines = {"tfidf": 0.861, "probe": 0.79, "majority": 0.5}
    return scores | {
        "verdict": "better than TF-IDF + logistic regression by 2.8 points (95 % CI 1.3 to 4.3); once in 3,000",
        "baselines": {
            name: {"scores": {"accuracy": {"value": value, "low": value - 0.015, "high": value + 0.015}}}
            for name, value in baselines.items()
        },
        "labels": labels,
        "n_train": 4000,
        "n_dev": 500,
        "n_test": 2000,
        "model": {"name": "all-MiniLM-L6-v2"},
        "data": {"source": "imdb"},
        "recipe": {"method": {"name": "lora"}},
        "confusion": {"before": confusion(len(labels), 51, 49), "after": confusion(len(labels), 1089, 11)},
        "curve": [
            {"step": i + 1, "epoch": i / 2, "train_loss": loss, "learning_rate": 1e-3}
            for i, loss in enumerate(losses)
        ],
        "dev_curve": [
            {"step": 2 * i + 2, "epoch": i + 1.0, "loss": 0.5, "accuracy": accuracy}
            for i, accuracy in enumerate(accuracies)
        ],
        "best_step": 2,
        "trainable_parameters": 133_000,
        "total_parameters": 22_700_000,
        "seconds": {"train": 333.0, "total": 400.0},
    }


def axes_of(sheet: Any, gid: str) -> Any:
    return next(axes for axes in sheet.axes if axes.get_gid() == gid)


def texts_of(artist: Any) -> list[str]:
    return [text.get_text() for text in artist.findobj(matplotlib.text.Text) if text.get_text()]


def line(axes: Any, label: str) -> Any:
    return next(found for found in axes.lines if found.get_label() == label)


@pytest.fixture(scope="module")
def two_classes() -> Any:
    return pictures.figure(results_of(["negative", "positive"]))


def test_import_of_the_module_imports_no_matplotlib() -> None:
    code = "import sys, lightune.report.pictures; print(*{'matplotlib', 'torch', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_file_has_its_size_and_the_same_bytes_twice(tmp_path: Path) -> None:
    results = results_of(["negative", "positive"])
    before = copy.deepcopy(results)
    for name in ("one.png", "two.png"):
        pictures.draw_results(results, tmp_path / name)
    one, two = (tmp_path / "one.png").read_bytes(), (tmp_path / "two.png").read_bytes()
    assert one.startswith(b"\x89PNG")
    width, height = int.from_bytes(one[16:20], "big"), int.from_bytes(one[20:24], "big")
    assert (width, height) == (1600, 1100)
    assert one == two
    assert b"tEXt" not in one  # no version, no date: a newer matplotlib alone changes no byte here
    assert results == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.png", "two.png"]


def test_other_results_give_other_bytes(tmp_path: Path) -> None:
    one, two = results_of(["negative", "positive"]), results_of(["negative", "positive"])
    two["after"]["accuracy"]["value"] = 0.891
    pictures.draw_results(one, tmp_path / "one.png")
    pictures.draw_results(two, tmp_path / "two.png")
    assert (tmp_path / "one.png").read_bytes() != (tmp_path / "two.png").read_bytes()


def test_the_users_matplotlib_settings_have_no_say_and_are_left_alone(tmp_path: Path) -> None:
    results = results_of(["negative", "positive"])
    pictures.draw_results(results, tmp_path / "plain.png")
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30, "savefig.dpi": 20}):
        mine = dict(matplotlib.rcParams)
        pictures.draw_results(results, tmp_path / "mine.png")
        assert dict(matplotlib.rcParams) == mine
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "mine.png").read_bytes()
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_the_title_says_what_was_run(two_classes: Any) -> None:
    title, facts = (text.get_text() for text in two_classes.texts[:2])
    assert title == "accuracy 0.503 → 0.889"
    assert facts == (
        "all-MiniLM-L6-v2 · imdb · lora · 4,000 training and 2,000 test texts · "
        "0.6 % of 22.7M parameters trained · 5 min 33 s"
    )


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        (0.495, 0.919, "0.495 → 0.919"),
        (0.9234, 0.9249, "0.923 → 0.925"),
        (0.92341, 0.92349, "0.9234 → 0.9235"),
        (0.5, 0.5, "0.500 → 0.500"),
    ],
)
def test_a_small_change_is_not_rounded_away(before: float, after: float, shown: str) -> None:
    assert pictures._change(before, after) == shown


@pytest.mark.parametrize(
    ("part", "total", "shown"),
    [
        (133_000, 22_700_000, "0.6 % of 22.7M parameters trained"),
        (133_000, 7_000_000_000, "0.002 % of 7.0B parameters trained"),
        (0, 22_700_000, "0.0 % of 22.7M parameters trained"),
    ],
)
def test_a_small_trained_share_is_not_rounded_to_nothing(part: int, total: int, shown: str) -> None:
    assert pictures._share(part, total) == shown


def test_scores_are_drawn_and_printed_with_their_intervals(two_classes: Any) -> None:
    axes = axes_of(two_classes, "scores")
    points = [tuple(map(float, found.get_xydata()[0])) for found in axes.lines if found.get_marker() == "o"]
    assert points == [(0.503, 0), (0.889, 0), (-0.014, 3), (0.778, 3), (0.861, 1), (0.79, 2)]
    intervals = [tuple(found.get_xdata()) for found in axes.lines if found.get_linewidth() == 9]
    assert intervals[:4] == [(0.481, 0.525), (0.875, 0.902), (-0.03, 0.01), (0.75, 0.8)]
    shown = texts_of(axes)
    for text in (
        "accuracy",
        "0.503",
        "0.481 to 0.525",
        "0.889",
        "MCC",
        "by tfidf",
        "0.861",
        "by probe",
        "\N{MINUS SIGN}0.014",
    ):
        assert text in shown
    assert axes.get_xlim()[0] < -0.03
    assert "log_loss" not in " ".join(shown)  # lower is better there: it would read the wrong way round


def test_a_metric_without_a_value_is_left_out() -> None:
    results = results_of(["negative", "positive"])
    results["after"]["mcc"]["value"] = None
    assert "MCC" not in texts_of(axes_of(pictures.figure(results), "scores"))


def test_without_baselines_the_metrics_are_together() -> None:
    results = results_of(["negative", "positive"]) | {"baselines": {}}
    axes = axes_of(pictures.figure(results), "scores")
    assert {float(found.get_xydata()[0][1]) for found in axes.lines if found.get_marker() == "o"} == {0, 1}


def test_the_verdict_stands_under_the_title(two_classes: Any) -> None:
    assert any(text.get_text().startswith("better than TF-IDF") for text in two_classes.texts)


def test_curves_are_the_runs_own_and_the_best_step_is_marked(two_classes: Any) -> None:
    loss, dev = axes_of(two_classes, "loss"), axes_of(two_classes, "dev")
    assert line(loss, "train_loss").get_xydata().tolist() == [[1, 0.7], [2, 0.6], [3, 0.4], [4, 0.3]]
    assert line(dev, "accuracy").get_xydata().tolist() == [[2, 0.81], [4, 0.79]]
    assert line(dev, "best").get_xydata().tolist() == [[2, 0.81]]
    assert "best on 500 dev texts: 0.810 at step 2" in texts_of(two_classes)


def test_matrices_show_counts_coloured_by_share_of_the_true_class() -> None:
    results = results_of(["negative", "positive"])
    results["confusion"]["after"] = [[1089, 11], [300, 100]]
    sheet = pictures.figure(results)
    axes = axes_of(sheet, "confusion_after")
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.99, 0.01], [0.75, 0.25]])
    counts = {text.xy: text.get_text() for text in axes.texts if "%" not in text.get_text()}  # (column, row) -> count
    assert counts == {(0, 0): "1,089", (1, 0): "11", (0, 1): "300", (1, 1): "100"}
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["negative", "positive"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["negative", "positive"]
    assert "1,189 of 1,500 right" in texts_of(sheet)


def test_a_class_without_rows_has_no_share() -> None:
    assert panels.row_shares(np.array([[0, 0], [1, 3]])).tolist() == [[0, 0], [0.25, 0.75]]


def test_many_classes_have_no_counts_and_ticks_that_do_not_touch() -> None:
    sheet = pictures.figure(results_of([f"card_payment_number_{i}" for i in range(77)]))
    sheet.draw_without_rendering()
    axes = axes_of(sheet, "confusion_before")
    assert list(axes.texts) == []
    assert axes.images[0].get_array().shape == (77, 77)
    names = axes.get_yticklabels()
    assert 10 <= len(names) < 77
    assert names[1].get_text().endswith(f"er_{round(names[1].get_position()[1])}")
    tops = [name.get_window_extent() for name in names]
    assert all(upper.y0 > lower.y1 for upper, lower in pairwise(tops))


@pytest.mark.parametrize("n_classes", [2, 6, 12, 20])
def test_nothing_leaves_the_sheet_or_touches_another_thing(n_classes: int) -> None:
    labels = [f"a class with quite a long name, number {i}" for i in range(n_classes)]
    results = results_of(labels)
    results["model"]["name"] = results["data"]["source"] = "an-organisation/with-quite-a-long-name" * 3
    results["n_test"] = 1_000_000
    sheet = pictures.figure(results)
    sheet.draw_without_rendering()
    boxes = {text.get_text(): text.get_window_extent() for text in sheet.texts if text.get_text()}
    boxes |= {axes.get_gid(): axes.get_tightbbox() for axes in sheet.axes}  # with their labels
    for name, box in boxes.items():
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= sheet.bbox.x1 and box.y1 <= sheet.bbox.y1, name  # noqa: PT018
    for one, other in combinations(boxes, 2):
        if {one, other} != {"loss", "dev"}:  # these two share their place
            assert not boxes[one].overlaps(boxes[other]), (one, other)
    assert len(axes_of(sheet, "confusion_before").get_yticklabels()) == n_classes


def test_hostile_names_are_text_without_a_warning(tmp_path: Path) -> None:
    results = results_of(HOSTILE)
    results["model"]["name"] = "/home/someone/$evil$"
    results["data"]["source"] = "rev\niews\u202e.csv" + "x" * 500
    results["recipe"]["method"]["name"] = "$lora$"
    sheet = pictures.figure(results)
    sheet.savefig(tmp_path / "hostile.png")  # warnings are errors here: no missing glyph, no mathtext
    names = [tick.get_text() for tick in axes_of(sheet, "confusion_after").get_yticklabels()]
    assert names[:3] == [r"$\frac{1}{0}$", "<script>alert(…", r"line\nbreak"]
    assert r"\u202egnp.exe" in names
    assert any(name.startswith(r"\ud800") for name in names)
    assert len(set(names)) == len(HOSTILE)
    facts = sheet.texts[1].get_text()
    assert facts.startswith(r"$evil$ · rev\niews\u202e.csvxxx")
    assert "someone" not in facts
    for text in sheet.findobj(matplotlib.text.Text):
        assert "$" not in text.get_text() or not text.get_parse_math()


def test_a_drawn_dollar_is_no_formula(tmp_path: Path) -> None:
    """The control: with mathtext on, this very name does not draw."""
    results = results_of([r"$\frac{1}{$", "b"])
    pictures.draw_results(results, tmp_path / "results.png")
    sheet = pictures.figure(results)
    axes_of(sheet, "confusion_after").get_yticklabels()[0].set_parse_math(True)
    with pytest.raises(ValueError, match="frac"):
        sheet.savefig(tmp_path / "formula.png")


def test_names_that_look_the_same_are_told_apart() -> None:
    names = lettering.fit_names(["complaint about the delivery", "complaint about the refund", "praise"], 50, 7.5)
    assert names[0].endswith("…livery")
    assert names[1].endswith("…refund")
    assert names[2] == "praise"
    same = lettering.fit_names(["x" * 90, "x" * 80 + "y", "x" * 99], 60, 7.5)
    assert same[0].startswith("0: xx")
    assert same[2].startswith("2: xx")


@pytest.mark.parametrize("text", ["W" * 400, "i" * 400, "שלום עולם " * 40, "\x00" * 50, "short"])
def test_fit_keeps_to_the_width(text: str) -> None:
    cut = lettering.fit(text, 60, 8)
    assert lettering.text_width(cut, 8) <= 60
    assert cut == text if text == "short" else cut.endswith("…")


def test_no_training_draws_an_empty_curve(tmp_path: Path) -> None:
    results = results_of(["negative", "positive"]) | {"curve": [], "dev_curve": [], "best_step": 0}
    pictures.draw_results(results, tmp_path / "results.png")
    sheet = pictures.figure(results)
    assert "no training step was taken" in texts_of(axes_of(sheet, "loss"))
    assert not axes_of(sheet, "dev").get_visible()


def test_a_loss_that_is_no_number_leaves_a_gap(tmp_path: Path) -> None:
    results = results_of(["negative", "positive"])
    results["curve"][1]["train_loss"] = None
    results["curve"][2]["train_loss"] = float("inf")
    results["dev_curve"][0]["accuracy"] = None
    pictures.draw_results(results, tmp_path / "results.png")
    drawn = line(axes_of(pictures.figure(results), "loss"), "train_loss").get_ydata()
    assert drawn[0] == 0.7
    assert np.isnan(drawn[1:3]).all()


def test_moving_mean_against_a_loop() -> None:
    values = np.random.default_rng(0).normal(size=100)
    values[10:14] = np.nan
    expected = [np.nanmean(values[max(0, i - 2) : i + 3]) for i in range(100)]
    np.testing.assert_allclose(pictures.moving_mean(values), expected)
