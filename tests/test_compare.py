"""`lightune compare`: which recipes are run, what may be said of them, and the law of more rows."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import lightune
from lightune.cli import main
from lightune.comparison.cell_run import Runner
from lightune.comparison.cells import SHORT, make_cells, read_asked, read_method
from lightune.comparison.curve import fit_curve
from lightune.comparison.outcome import Entrant, compare_all, front, learning_curve, spread_of_seeds
from lightune.comparison.words import verdicts
from lightune.data.prepare import prepare, split_prepared
from lightune.errors import GateError, UserError
from lightune.evidence.seeds import Between, p_of_recipes
from lightune.journal import Journal
from lightune.model.methods import METHODS
from lightune.records import Proof, Score
from lightune.report.charts import HEIGHT, LEFT, WIDTH, Dots, plot
from lightune.report.compare_page import compare_page
from lightune.report.compare_screen import Waiting
from lightune.settings import load_recipe
from tests.conftest import TINY_SETTINGS
from tests.pages import comparison

REAL_CALL = Runner._call
TINY = [*TINY_SETTINGS, "train.epochs=2", "evidence.doctor=false", "data.dev_rows=32"]


def settings(model: Path, *more: str) -> list[str]:
    return [f"model={model}", *TINY, *more]


@pytest.fixture(scope="module")
def in_this_process():
    """Each run in this process, and its proof taken for granted: both are tested where they belong."""
    with pytest.MonkeyPatch.context() as patch:
        import lightune.run as run_module  # noqa: F401  the module, which its name also calls

        patch.setattr(sys.modules["lightune.run"], "prove", lambda *args, **more: Proof(32, 0.0, 1e-4, True))

        def call(self: Runner, cell: Any, arguments: Any, held: int, tell: Any, storage: Any = None) -> str:
            return "" if main([*arguments]) == 0 else "it failed"

        patch.setattr(Runner, "_call", call)
        yield


@pytest.fixture(scope="module")
def found(reviews, tiny_bert, tmp_path_factory, in_this_process):
    folder = tmp_path_factory.mktemp("compare") / "compare"
    return lightune.compare(reviews, methods="lora,dora,head", seeds=2, settings=settings(tiny_bert), output=folder)


def test_a_comparison_has_a_row_for_each_method_and_baseline_and_a_page(found):
    folder, results = Path(found.folder), found.results
    assert json.loads((folder / "compare.json").read_text()) == results
    rows = {row["name"]: row for row in results["rows"]}
    assert [name for name, row in rows.items() if not row["is_baseline"]] == ["lora", "dora", "head"]
    assert {row["method"] for row in rows.values() if row["is_baseline"]} >= {"TF-IDF + logistic regression"}
    for name in ("lora", "dora", "head"):
        made = json.loads((folder / "runs" / name / "results.json").read_text())
        assert rows[name]["by_seed"] == made["seeds"]["scores"]["accuracy"]
        assert len(rows[name]["by_seed"]) == 2
        assert rows[name]["score"]["value"] == pytest.approx(np.mean(rows[name]["by_seed"]))
        assert rows[name]["score"]["low"] < rows[name]["score"]["value"] < rows[name]["score"]["high"]
        assert rows[name]["artifact_bytes"] == sum(
            path.stat().st_size for path in (folder / "runs" / name / "adapter").iterdir()
        )
        assert rows[name]["texts_per_second"] > 0
        assert rows[name]["peak_memory_bytes"] == made["peak_memory_bytes"]
    assert rows["head"]["trainable_parameters"] < rows["lora"]["trainable_parameters"]
    assert rows["dora"]["trainable_parameters"] > rows["lora"]["trainable_parameters"]  # the lengths of columns
    page = (folder / "compare.html").read_text()
    assert "TF-IDF + logistic regression" in page
    assert "the lamp" not in page  # no text of the data


def test_all_answer_the_same_rows_and_each_pair_is_tested_once(found):
    import pyarrow.parquet as pq

    folder, results = Path(found.folder), found.results
    tables = [pq.read_table(path) for path in sorted(folder.glob("runs/*/predictions.parquet"))]
    assert len(tables) == 4
    assert all(sorted(t["row"].to_pylist()) == sorted(tables[0]["row"].to_pylist()) for t in tables)
    pairs = [frozenset((pair["one"], pair["other"])) for pair in results["pairs"]]
    n_baselines = sum(row["is_baseline"] for row in results["rows"])
    assert len(pairs) == len(set(pairs)) == 3 + 3 * n_baselines
    assert all(pair["p_adjusted"] >= pair["p_value"] for pair in results["pairs"])


def test_the_answers_of_other_seeds_are_kept_with_the_run(found):
    from lightune.artifact.finished import read_finished

    run = read_finished(Path(found.folder) / "runs" / "lora")
    assert len(run.predictions.by_seed) == 2
    shares = [float((answers == run.predictions.label).mean()) for answers in run.predictions.by_seed]
    assert shares == pytest.approx(run.results["seeds"]["scores"]["accuracy"])


def test_what_is_over_is_not_run_again(found, reviews, tiny_bert):
    before = sorted((str(path), path.stat().st_mtime_ns) for path in Path(found.folder).rglob("*"))
    again = lightune.compare(
        reviews, methods=["lora", "dora", "head"], seeds=2, settings=settings(tiny_bert), output=found.folder
    )
    assert again.results == found.results
    assert sorted((str(path), path.stat().st_mtime_ns) for path in Path(found.folder).rglob("*")) == before


def test_a_folder_of_another_comparison_is_left_alone(found, reviews, tiny_bert):
    with pytest.raises(UserError, match=r"holds a comparison of something else \(compare.methods = "):
        lightune.compare(reviews, methods="lora", seeds=2, settings=settings(tiny_bert), output=found.folder)


def test_a_recipe_that_cannot_be_run_leaves_the_others(reviews, tiny_bert, tmp_path, in_this_process, capsys):
    """OFT's blocks must divide the width, which is known only when the model is there."""
    given = {"settings": settings(tiny_bert), "no_baselines": True, "output": tmp_path / "c"}
    found = lightune.compare(reviews, methods="head,oft:block_size=7", **given)
    rows = {row["name"]: row for row in found.results["rows"]}
    assert rows["oft-block_size=7"]["failed"] == "it failed"
    assert not rows["head"]["failed"]
    assert "What could not be run" in (tmp_path / "c" / "compare.html").read_text()
    made = (tmp_path / "c" / "runs" / "head" / "results.json").stat().st_mtime_ns
    again = lightune.compare(reviews, methods="head,oft:block_size=7", **given)  # tried once more
    assert {row["name"] for row in again.results["rows"] if row["failed"]} == {"oft-block_size=7"}
    assert (tmp_path / "c" / "runs" / "head" / "results.json").stat().st_mtime_ns == made
    with pytest.raises(GateError, match="no run came to its end: it failed"):
        lightune.compare(
            reviews,
            methods="oft:block_size=7",
            settings=settings(tiny_bert),
            output=tmp_path / "d",
            no_baselines=True,
        )


def test_sizes_give_a_learning_curve(reviews, tiny_bert, tmp_path, in_this_process):
    found = lightune.compare(
        reviews, methods="head", sizes="60,120,all", settings=settings(tiny_bert), output=tmp_path / "c"
    )
    curves = {curve["title"]: curve for curve in found.results["curves"]}
    assert set(curves) >= {"head", "TF-IDF + logistic regression"}
    n_train = json.loads((tmp_path / "c" / "runs" / f"{_name_of_most(tmp_path / 'c')}" / "results.json").read_text())
    assert curves["head"]["sizes"] == [60, 120, n_train["n_train"]]
    assert curves["head"]["more"][0]["size"] == 2 * n_train["n_train"]
    assert any("twice as many training rows" in told for told in found.results["verdicts"])
    assert "More training rows" in (tmp_path / "c" / "compare.html").read_text()


def _name_of_most(folder: Path) -> str:
    return max(
        (path.name for path in (folder / "runs").iterdir()), key=lambda name: int(re.sub(r"\D", "", name) or 0)
    )


def test_models_are_compared_too(reviews, tiny_bert, tmp_path, in_this_process):
    from tests import tiny

    other = tiny.make("roberta", tmp_path / "tiny-roberta")
    found = lightune.compare(
        reviews, models=[tiny_bert, other], settings=TINY, output=tmp_path / "c", no_baselines=True
    )
    assert [row["name"] for row in found.results["rows"]] == ["tiny-bert", "tiny-roberta"]
    assert {row["method"] for row in found.results["rows"]} == {"lora"}
    assert len(found.results["pairs"]) == 1


@pytest.mark.hard
def test_each_recipe_is_searched_for_first(reviews, tiny_bert, tmp_path, in_this_process):
    found = lightune.compare(
        reviews,
        methods="lora,head",
        tune=3,
        settings=settings(tiny_bert, "search.train.learning_rate={low=1e-4, high=5e-2, log=true}", "search.rows=24"),
        output=tmp_path / "c",
        no_baselines=True,
    )
    for name in ("lora", "head"):
        search = json.loads((tmp_path / "c" / "searches" / name / "search.json").read_text())
        assert len(search["trials"]) == 3
        assert not search["runs"]
        row = next(row for row in found.results["rows"] if row["name"] == name)
        assert row["values"] == search["winner"]["values"]
        if row["values"]:
            assert row["learning_rate"] == row["values"]["train.learning_rate"]


@pytest.mark.hard
def test_two_processes_share_a_comparison(reviews, tiny_bert, tmp_path):
    given = [part for each in settings(tiny_bert) for part in ("--set", each)]
    command = [
        sys.executable,
        "-m",
        "lightune",
        "compare",
        str(reviews),
        "--methods",
        "head,bitfit,ln_tuning",
        *given,
    ]
    command += ["--no-baselines", "--output", str(tmp_path / "c"), "--json"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for _ in range(2)]
    told = [json.loads(process.communicate()[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert [row["score"] for row in told[0]["rows"]] == [row["score"] for row in told[1]["rows"]]
    assert all(
        (tmp_path / "c" / "logs" / f"{name}.txt").read_text().count("Planning") == 1 for name in ("head", "bitfit")
    )


@pytest.mark.hard
def test_a_comparison_that_is_killed_goes_on(reviews, tiny_bert, tmp_path):
    """Its processes are real ones; what was over when it was killed is not run again."""
    given = [part for each in settings(tiny_bert) for part in ("--set", each)]
    command = [sys.executable, "-m", "lightune", "compare", str(reviews), "--methods", "head,bitfit", *given]
    command += ["--no-baselines", "--output", str(tmp_path / "c")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    first = tmp_path / "c" / "cells" / "head.json"
    while not first.is_file() and process.poll() is None:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)  # the run under way is left on its own
    process.wait()
    made = first.stat().st_mtime_ns
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    assert {row["name"] for row in json.loads(done.stdout)["rows"]} == {"head", "bitfit"}
    assert first.stat().st_mtime_ns == made


DEFAULT = load_recipe(None)
RECIPE = DEFAULT.recipe


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"methods_": "lora,ai3"},
            r"method.name = 'ai3': no such method. Did you mean 'ia3'\?.*Short for LoRA.*dora",
        ),
        ({"methods_": "lora,lora"}, "lora is there twice"),
        ({"methods_": "lora,,ia3"}, "a name is missing"),
        ({"methods_": "ia3:rank=3"}, "method.rank: ia3 has no such option"),
        ({"methods_": "lora:rank=0"}, "method.rank = 0"),
        ({"methods_": "lora:rank"}, "methods: 'lora:rank': write options as in lora:rank=4"),
        ({"methods_": {"lora": {"rank": 4}}}, "methods = .*: give a list, or a text with commas"),
        ({"sizes": "100,many"}, "sizes: 'many': give numbers of training rows"),
        ({"sizes": "1"}, "sizes: '1'"),
        ({"seeds": 0}, "seeds = 0: give a whole number from 1 to 10,000"),
        ({"tune": -1}, "tune = -1"),
        ({"models": ""}, "a name is missing"),
    ],
)
def test_what_cannot_be_compared_is_one_message(given, message):
    asked = {"methods_": None, "models": None, "sizes": None, "seeds": None, "tune": None}
    with pytest.raises(UserError, match=message):
        read_asked(DEFAULT, **asked | given)


def test_more_rows_than_there_are_is_told_before_the_work(reviews, tiny_bert, tmp_path):
    with pytest.raises(UserError, match=r"sizes: 5000: there are \d+ rows to train on"):
        lightune.compare(reviews, sizes="100,5000", settings=settings(tiny_bert), output=tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_one_size_and_one_model_need_no_list():
    asked = read_asked(DEFAULT, None, Path("nets/mine"), 100, None, None)
    assert (asked.models, asked.sizes) == (("nets/mine",), (100,))


def test_fewer_rows_than_classes_are_told_before_the_work(reviews, tiny_bert, tmp_path):
    rows = [{"text": f"{name} number {i}", "label": name} for name in ("red", "green", "blue") for i in range(40)]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with pytest.raises(UserError, match="sizes: 2: there are 3 classes"):
        lightune.compare(source, sizes="2,30", settings=settings(tiny_bert), output=tmp_path / "c")


def test_layers_are_not_searched_where_a_method_has_none(reviews, tiny_bert):
    given = ["search.train.layers=[1, 2]", "search.train.warmup=[0.0, 0.1]", *settings(tiny_bert)]
    checked = load_recipe(str(reviews), None, given)
    asked = read_asked(checked, "lora,head", None, None, None, 2)
    data = prepare(checked.recipe.data)
    splits = split_prepared(data, checked.recipe.data, seed=0, device="cpu")
    spaces = {cell.method: set(cell.checked.search.space) for cell in make_cells(checked, splits, asked)}
    assert spaces["lora"] == {"train.layers", "train.warmup"}
    assert spaces["head"] == {"train.warmup"}


def test_a_model_that_is_not_there_is_told_before_the_work(reviews, tmp_path):
    with pytest.raises(UserError, match="no-such-model"):
        lightune.compare(reviews, models=str(tmp_path / "no-such-model"), output=tmp_path / "c", offline=True)
    assert not (tmp_path / "c").exists()


@pytest.fixture(scope="module")
def cells(reviews):
    checked = load_recipe(str(reviews), None, ["train.layers=1", "train.epochs=2"], None)
    splits = split_prepared(prepare(checked.recipe.data), checked.recipe.data, seed=0, device="cpu")
    asked = read_asked(checked, "all", None, "50,all", 3, None)
    return make_cells(checked, splits, asked)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_cell_that_it_can_take(cells, method):
    few, most = (cell for cell in cells if cell.method == method)
    assert (few.size, few.name) == (50, f"{method}-50")
    assert most.size > 200
    recipe = most.checked.recipe
    assert recipe.method.name == method
    assert recipe.train.layers == (1 if METHODS[method].by_layers else "all")
    assert recipe.train.epochs == 2  # typed, so it stays
    assert (recipe.seeds, recipe.evidence.baselines, recipe.evidence.doctor) == (3, [], False)
    assert few.checked.recipe.data.test_rows == recipe.data.test_rows


def test_a_rate_stays_with_its_method_and_model():
    checked = load_recipe(None)
    splits = SplitsLike({"train": 22000, "dev": 300, "test": 2000})
    asked = read_asked(checked, "lora,dora,ia3", ["minilm", "other"], "1000,all", None, None)
    made = {(c.method, c.model, c.size): c.checked.recipe for c in make_cells(checked, splits, asked) if c.method}
    assert made["lora", "minilm", 22000].train == checked.recipe.train
    assert made["dora", "minilm", 22000].train.learning_rate == checked.recipe.train.learning_rate
    assert made["dora", "minilm", 22000].method.options == {"rank": 8, "use_dora": True}
    assert made["ia3", "minilm", 22000].train.learning_rate == "auto"
    assert made["lora", "other", 22000].train.learning_rate == "auto"
    assert made["lora", "minilm", 1000].train.epochs == "auto"  # few rows want more passes than many
    assert made["lora", "minilm", 1000].data.train_rows == 1000


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


class SplitsLike:
    task, class_names = "single_label", ("negative", "positive")

    def __init__(self, asked: dict[str, int]):
        self.asked = asked


@pytest.mark.parametrize("short", SHORT)
def test_short_names_are_methods_with_options(short):
    name, options = read_method(short, RECIPE)
    assert name in METHODS
    assert options.items() >= SHORT[short][1].items()
    assert read_method(f"{short}:rank=3", RECIPE)[1]["rank"] == 3


def test_the_front_holds_what_none_is_cheaper_and_better_than():
    costs = {"a": (1, 0.5), "b": (2, 0.4), "c": (3, 0.9), "d": (3, 0.8), "e": (9, 0.9), "f": (10, 0.95)}
    assert front(costs) == ["a", "c", "f"]


@pytest.mark.parametrize("n_seeds", [1, 3])
@pytest.mark.parametrize("n_repeats", [40, pytest.param(400, marks=pytest.mark.hard)])
def test_equal_recipes_are_told_apart_in_at_most_one_comparison_of_twenty(n_seeds, n_repeats, rng):
    """Five recipes of one true accuracy, seeds that move it by what is known of them: any verdict is a mistake."""
    wrong = 0
    for _ in range(n_repeats):
        y, hard = rng.integers(0, 2, 500), rng.random(500)
        entrants = [
            Entrant(str(i), str(i), "m", 100, str(i), [_answers(y, hard, rng) for _ in range(n_seeds)])
            for i in range(5)
        ]
        between = spread_of_seeds(y, entrants, 0)
        wrong += any(pair.outcome != "not distinguishable" for pair in compare_all(y, entrants, between, 0))
    assert wrong <= 0.05 * n_repeats


def test_a_better_recipe_is_found_better(rng):
    y, hard = rng.integers(0, 2, 2000), rng.random(2000)
    good, poor = ([_answers(y, hard, rng, share=p, spread=0.0) for _ in range(2)] for p in (0.9, 0.8))
    entrants = [Entrant("good", "good", "m", 9, "good", good), Entrant("poor", "poor", "m", 9, "poor", poor)]
    (pair,) = compare_all(y, entrants, spread_of_seeds(y, entrants, 0), 0)
    assert pair.outcome == "better"
    assert pair.gain.low > 0.05


def _answers(
    y: np.ndarray, hard: np.ndarray, rng: np.random.Generator, share: float = 0.8, spread: float = 0.008
) -> np.ndarray:
    """Answers with about this share right, by a seed: 4 % of the error; mostly the same rows are hard for all."""
    easiness = 0.7 * hard + 0.3 * rng.random(len(y))
    reached = 0.7 * rng.random(20_000) + 0.3 * rng.random(20_000)
    is_right = easiness < np.quantile(reached, np.clip(share + rng.normal(0, spread), 0, 1))
    return np.where(is_right, y, 1 - y)


def test_p_of_recipes_goes_with_their_interval():
    gain = Score(0.02, 0.0, 0.04)
    assert p_of_recipes(gain, Between(0.0, 0.0)) == pytest.approx(0.05, abs=1e-3)
    assert p_of_recipes(gain, Between(0.01**2, 4)) > 0.1
    assert p_of_recipes(gain, Between(0.01**2, 4), n_seeds=10_000) == pytest.approx(0.05, abs=2e-3)
    assert p_of_recipes(Score(0.0, 0.0, 0.0), Between(0.0, 0.0)) == 1.0


def test_a_law_is_extrapolated_with_intervals_that_hold(rng):
    """Errors that fall as 0.05 + 1.2 n^-0.4, seen at five sizes on 1,000 rows: the error at four times the most."""
    sizes, true = [100, 300, 1000, 3000, 10_000], lambda n: 0.05 + 1.2 * n**-0.4
    n_held, widths = 0, []
    for _ in range(150):
        seen = np.array([rng.binomial(1000, true(n)) / 1000 for n in sizes])
        draws = rng.binomial(1000, np.tile(seen, (1000, 1))) / 1000
        curve = fit_curve(sizes, draws, rng)
        found = curve.at(40_000)
        n_held += found.low <= true(40_000) <= found.high
        widths.append(found.high - found.low)
        assert curve.gain(10_000, 40_000).low >= 0  # more rows never harm, by this law
    assert n_held >= 0.92 * 150
    assert np.mean(widths) < 0.08  # and not because they hold anything


def test_two_sizes_show_no_law(rng):
    assert fit_curve([10, 100], np.full((50, 2), 0.2), rng) is None


@pytest.mark.parametrize("task", ["single_label", "multi_label", "regression"])
def test_a_learning_curve_of_every_kind_of_label(task, rng):
    y = {
        "single_label": rng.integers(0, 3, 300),
        "multi_label": rng.integers(0, 2, (300, 4)),
        "regression": rng.normal(0, 1, 300),
    }[task]

    def answers(error: float) -> np.ndarray:
        if task == "regression":
            return y + rng.normal(0, error, 300)
        return np.where(rng.random(y.shape) < error, (y + 1) % (3 if y.ndim == 1 else 2), y)

    entrants = [Entrant(str(n), "m", "b", n, "m", [answers(e)]) for n, e in ((50, 0.4), (200, 0.3), (800, 0.22))]
    curve = learning_curve(y, entrants, {}, 0)
    assert curve.at(3200).value < curve.at(800).value < curve.at(50).value


def test_names_beside_dots_cover_no_dot_and_stay_inside():
    points = [(10.0 ** (3 + i / 4), 0.8 + 0.01 * (i % 3)) for i in range(11)]
    names = [f"method-{i}" for i in range(11)]
    markup = plot("p", "t", "a", [Dots(points, "after", names=names, spreads=[(0.7, 0.9)] * 11)], "cost", log=True)
    dots = [
        (float(x), float(y)) for x, y in re.findall(r'<circle class="dot after" cx="([\d.]+)" cy="([\d.]+)"', markup)
    ]
    drawn = re.findall(r'<text x="([\d.-]+)" y="([\d.]+)" class="([a-z ]*name)">(method-\d+)</text>', markup)
    assert len(dots) == len(drawn) == 11
    n_covered = 0
    for x, y, look, name in drawn:
        width = 5.6 * len(name)
        left = float(x) - width * (1.0 if "end" in look else 0.5 if "middle" in look else 0.0)
        assert left >= LEFT
        assert left + width <= WIDTH
        assert 0 < float(y) < HEIGHT
        n_covered += sum(left < dx < left + width and float(y) - 9 < dy < float(y) + 2 for dx, dy in dots)
    assert n_covered == 0
    assert markup.count('class="spread"') == 11


@pytest.mark.parametrize("sizes", [(1000,), (100, 1000, 10_000)])
def test_a_page_shows_every_run_and_no_markup_of_names(sizes):
    results = comparison(model="<script>alert(1)</script>", sizes=sizes)
    told = verdicts(results)
    page = compare_page(results | {"verdicts": told})
    assert "<script" not in page
    for row in results["rows"]:
        assert str(row["method"]) in page
    assert "its blocks do not divide the width" in page
    assert told[0].startswith(f"full-{sizes[-1]} is ahead with accuracy" if len(sizes) > 1 else "full-1000 is ahead")
    assert f"worse: head-{sizes[-1]}" in told[0]
    assert f"of these lora-{sizes[-1]} trains the fewest parameters, 1,000" in told
    assert any(
        "twice as many training rows, 20,000, would bring accuracy from about 0.868 to about 0.880" in each
        for each in told
    )


def test_what_there_is_to_beat_comes_first_where_it_wins():
    results = comparison(sizes=(1000,))
    rows = [row for row in results["rows"] if row["method"] in ("head", "ia3") or row["is_baseline"]]
    rows = [row for row in rows if not row["failed"]]
    told = verdicts(results | {"rows": rows, "curves": []})
    assert told[0].startswith("ia3-1000 is not distinguishable from TF-IDF + logistic regression, 0.710")
    assert ": -1.0 points (95 % CI " in told[0]


def test_of_numbers_the_lowest_error_is_the_best():
    results = comparison(sizes=(1000,), measure="mae")
    told = verdicts(results)
    assert told[0].startswith("full-1000 is ahead with mae 0.270 (0.255 to 0.285); not distinguishable from it: lora")
    page = compare_page(results | {"verdicts": told})
    rows = page[page.index('id="all"') :]
    assert rows.index("full-1000") < rows.index("lora-1000") < rows.index("head-1000")
    assert front({"a": (1, -0.3), "b": (2, -0.2), "c": (3, -0.25)}) == [
        "a",
        "b",
    ]  # errors with a minus, as it is used


def test_what_has_failed_is_tried_again_in_the_same_folder(
    reviews, tiny_bert, tmp_path, in_this_process, monkeypatch
):
    """Without --output too: a folder that lacks a run is not over."""
    monkeypatch.chdir(tmp_path)
    given = {"methods": "head,oft:block_size=7", "settings": settings(tiny_bert), "no_baselines": True}
    folders = [lightune.compare(reviews, **given).folder for _ in range(2)]
    assert folders == ["runs/reviews-compare"] * 2
    monkeypatch.setattr(sys.modules["lightune.compare"], "SPEED_TEXTS", 3)
    monkeypatch.setattr(
        Runner,
        "run",
        lambda self, cell, held, tell: _copied(self.run_of(cell), tmp_path / folders[0] / "runs" / "head"),
    )
    assert lightune.compare(reviews, **given).folder == folders[0]  # whole now
    assert lightune.compare(reviews, **given).folder == "runs/reviews-compare-2"


def test_what_failed_in_one_process_is_not_tried_by_those_that_share_it(tmp_path):
    ours, theirs = Runner(tmp_path), Runner(tmp_path)
    ours.make_folders()
    cell: Any = SimpleNamespace(name="oft")
    assert ours.failure_of(cell) == ""
    theirs.note_failure(cell, "no memory")
    assert ours.failure_of(cell) == "no memory"
    assert Runner(tmp_path, began=time.time() + 1).failure_of(cell) == ""  # the next command tries it once more


def test_a_failure_is_noted_for_those_that_share_the_comparison(tmp_path, monkeypatch):
    module, asked = sys.modules["lightune.compare"], []
    monkeypatch.setattr(module, "show_cell", lambda waiting, over, seconds: None)
    monkeypatch.setattr(Runner, "run", lambda self, cell, held, tell: asked.append(cell.name) or "no memory")
    cells: Any = [SimpleNamespace(name=name) for name in ("oft", "vera")]
    waiting: Any = SimpleNamespace(tell=lambda *told: None)
    began = time.time()
    for _ in range(2):  # two processes that began at the same moment
        runner = Runner(tmp_path, began=began)
        runner.make_folders()
        overs = module._run_all(runner, cells, [], waiting)
        assert [over.why_not for over in overs] == ["no memory"] * 2
    assert asked == ["oft", "vera"]


def _copied(run: Path, other: Path) -> str:
    if not run.exists():
        shutil.copytree(other, run)
    return ""


def test_a_cell_searches_what_its_method_has():
    keys = ["search.method.rank=[2, 4]", "search.train.learning_rate={low=1e-4, high=1e-2, log=true}"]
    checked = load_recipe(None, None, [*keys, "search.rows=50"])
    splits = SplitsLike({"train": 22000, "dev": 300, "test": 2000})
    made = make_cells(checked, splits, read_asked(checked, "lora,dora,ia3", None, None, None, 5))
    spaces = {cell.method: cell.checked.search for cell in made if cell.method}
    assert set(spaces["lora"].space) == set(spaces["dora"].space) == {"method.rank", "train.learning_rate"}
    assert set(spaces["ia3"].space) == {"train.learning_rate"}
    assert {search.trials for search in spaces.values()} == {5}
    assert {search.rows for search in spaces.values()} == {50}
    sized = make_cells(checked, splits, read_asked(checked, "lora", None, "20,100", None, 5))
    assert [cell.checked.search.rows for cell in sized if cell.method] == [20, 50]
    for key, why in (
        ("search.method.rnk=[2, 4]", "lora has no such option"),
        ("search.train.layers=[1, 2]", "whole network"),
    ):
        names = ["head", "prompt"] if "layers" in key else ["lora", "head"]
        with pytest.raises(UserError, match=why):
            read_asked(load_recipe(None, None, [key]), names, None, None, None, 5)
    for key in ("search.method.name=['lora', 'ia3']", "search.model=['a', 'b']"):
        with pytest.raises(UserError, match=r"each recipe of a comparison has its own. Name them with --m"):
            read_asked(load_recipe(None, None, [key]), "lora", None, None, None, 5)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("lora,lora:rank=8", "methods: lora and lora:rank=8 are the same"),
        ("dora,lora:use_dora=true", "methods: dora and lora:use_dora=true are the same"),
        ("lora:rank=4:rank=8", "'lora:rank=4:rank=8': rank is there twice"),
    ],
)
def test_the_same_twice_is_told(names, message):
    with pytest.raises(UserError, match=message):
        read_asked(load_recipe(None), names, None, None, None, None)


def test_equal_scores_are_not_ahead():
    results = comparison(sizes=(1000,))
    rows = [row | {"score": results["rows"][-2]["score"]} for row in results["rows"] if not row["is_baseline"]]
    rows = [row for row in rows if not row["failed"]]
    assert " is among the best with accuracy" in verdicts(results | {"rows": rows, "curves": []})[0]


def test_a_search_reads_its_table_from_the_recipe_of_its_cell(tmp_path):
    from lightune.comparison.cell_run import _add_search
    from lightune.recipe import write_recipe

    given = ["search.train.learning_rate={low=1e-4, high=1e-2, log=true}", "search.method.targets=['all', 'qv']"]
    checked = load_recipe(None, None, [*given, "search.rows=50", "search.storage=sqlite:///x"])
    write_recipe(checked, {}, tmp_path / "cell.toml")
    _add_search(checked.search, tmp_path / "cell.toml")
    again = load_recipe(str(tmp_path / "cell.toml"))
    assert again.search.space == checked.search.space
    assert again.search.rows == 50
    assert again.search.storage is None  # an address may hold a password
    assert again.recipe == checked.recipe


def test_models_and_sizes_have_names_of_their_own_and_each_model_its_probe():
    checked = load_recipe(None)
    splits = SplitsLike({"train": 22000, "dev": 300, "test": 2000})
    made = make_cells(checked, splits, read_asked(checked, None, "minilm,org/large", "100,all", None, None))
    assert [cell.name for cell in made if cell.size == 100] == [
        "baselines-100",
        "baselines-large-100",
        "minilm-100",
        "large-100",
    ]
    asked = [cell.checked.recipe.evidence.baselines for cell in made if cell.is_baselines]
    assert asked[0] == checked.recipe.evidence.baselines
    assert asked[1] == ["probe"]


def test_a_run_that_fails_says_why_in_its_last_line(tmp_path, reviews, monkeypatch):
    monkeypatch.setattr(Runner, "_call", REAL_CALL)
    checked = load_recipe(str(reviews), {"evidence.baselines": []}, ["model=/no/such/folder"])
    asked = read_asked(checked, "lora", None, None, None, None)
    (cell,) = make_cells(checked, SplitsLike({"train": 50, "dev": 9, "test": 9}), asked)
    runner = Runner(tmp_path)
    runner.make_folders()
    with runner.held(cell) as held:
        with Runner(tmp_path).held(cell) as other:
            assert other is None
        assert not runner.is_left_alone(cell)  # this process lives
        assert "no/such/folder" in runner.run(cell, held, lambda line: None)
    lock = tmp_path / "cells" / f"{cell.name}.lock"
    for gone in ("4000000", "4000000 1.00", f"{os.getpid()} 1.00"):  # none, and a later one of the same number
        lock.write_text(f"{platform.node()} {gone}")
        assert runner.is_left_alone(cell)
    for here in ("elsewhere 4000000 1.00", f"{platform.node()} {os.getpid()}"):
        lock.write_text(here)
        assert not runner.is_left_alone(cell)


def test_nothing_starts_beside_a_run_that_was_left_alone(tmp_path, monkeypatch):
    module, asked, looks = sys.modules["lightune.compare"], [], []
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(module, "show_cell", lambda waiting, over, seconds: None)
    monkeypatch.setattr(Runner, "run", lambda self, cell, held, tell: asked.append(cell.name) or "no memory")
    runner = Runner(tmp_path)
    runner.make_folders()
    cells: Any = [SimpleNamespace(name=name) for name in ("oft", "vera")]
    others = ExitStack()
    others.enter_context(Runner(tmp_path).held(cells[0]))
    (tmp_path / "cells" / "oft.lock").write_text(f"{platform.node()} 4000000 1.00")

    def waits(name: str, why: str) -> None:
        looks.append((name, why, list(asked)))
        if len(looks) == 2:
            others.close()

    module._run_all(runner, cells, [], SimpleNamespace(tell=lambda *told: None, waits=waits))
    assert [(name, done) for name, _, done in looks] == [("oft", [])] * 2
    assert "left running when a comparison was killed" in looks[0][1]
    assert asked == ["oft", "vera"]


def test_who_waits_says_for_what_where_there_is_no_terminal(capsys):
    waiting = Waiting(Journal(), 3)
    for why in ("another process is at it", "another process is at it", "it comes to its end"):
        waiting.waits("oft", why)
    assert capsys.readouterr().out.splitlines() == [
        "  [0 of 3] oft: another process is at it",
        "  [0 of 3] oft: it comes to its end",
    ]


def test_a_comparison_too_short_or_with_values_that_nothing_reads_is_told_before_the_work(reviews, tmp_path):
    with pytest.raises(UserError, match=r"time budget: 20 s for each run is too little.*Ask for 45 s or more"):
        lightune.compare(reviews, time_budget="20s", output=tmp_path / "c")
    searched = {"search.method.rank": [4, 8]}
    with pytest.raises(UserError, match=r"search.method.rank: nothing is searched here. Ask for .* --tune 8"):
        lightune.compare(reviews, methods="lora", settings=searched, output=tmp_path / "c")
    with pytest.raises(UserError, match=r"search.method.rank: nothing is searched here. lightune tune does that"):
        lightune.run(reviews, settings=searched, output=tmp_path / "r")
    assert list(tmp_path.iterdir()) == []


def test_a_comparison_is_over_when_nothing_of_it_is_missing(tmp_path):
    is_whole = sys.modules["lightune.compare"]._is_whole
    rows = [{"name": "lora", "is_baseline": False, "failed": ""}, {"name": "b", "is_baseline": True, "failed": ""}]
    assert not is_whole(tmp_path, {"rows": rows})
    for name in ("compare.html", "runs/lora/results.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert is_whole(tmp_path, {"rows": rows})
    for i in range(2):
        failed = [row | {"failed": "no memory" * (i == j)} for j, row in enumerate(rows)]
        assert not is_whole(tmp_path, {"rows": failed})


@pytest.mark.parametrize("budget", [None, "2m"])
def test_where_all_have_the_same_time_none_takes_the_least(budget):
    results = comparison(sizes=(1000,)) | {"time_budget": budget}
    assert any("least time" in told for told in verdicts(results)) is (budget is None)
