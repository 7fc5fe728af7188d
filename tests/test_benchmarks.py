"""The benchmarks measure what they say: their pieces at tiny size on the CPU, contenders in their own processes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

import answers
import bench
import gpu
import jobs
import peers
import render
import same_accuracy
import scaling
import setting
import steps
import turns
from setting import Job, Rows, Setting
from tests import tiny

MACHINE = {"processor": "one", "cores": 2, "threads": 2, "bf16": True, "memory_gib": 24.0, "gpu": None}
VERSIONS = dict.fromkeys(["python", "lightune", "torch", "transformers", "peft", "onnxruntime"], "1.0")


@pytest.fixture(scope="module", autouse=True)
def _workers_find_the_library():
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[1] / "src")
    yield
    os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)


@pytest.fixture
def job(tiny_bert, tmp_path) -> Job:
    """A tiny model on texts of unlike length."""
    texts = [" ".join([text] * (1 + i % 3)) for i, (text, _) in enumerate(tiny.EXAMPLES[2])]
    path = setting.write_rows(tmp_path / "rows.csv", Rows(texts, [y for _, y in tiny.EXAMPLES[2]]))
    return Job(str(tiny_bert), str(path), str(tmp_path), max_tokens=32, batch_size=8)


def shared(race: dict) -> set[str]:
    return set.intersection(*(set(figures) for figures in race["contenders"].values()))


# ------------------------------------------------------------------------------------------------- races


def test_training_steps_are_raced_in_processes_that_take_turns(job):
    race = steps.race(job, ["best stock", steps.CACHED], 1)
    assert shared(race) >= {"tokens_per_second", "ratio", "of_peak", "peak_bytes", "lowest", "highest"}
    assert race["contenders"]["best stock"]["ratio"] == 1
    assert race["matrix_peak_flops"] > 1e8


def test_figures_of_the_plain_path_are_refused(job, monkeypatch):
    from lightune.model import engine

    monkeypatch.setattr(engine, "quicken", lambda model, precision: [])
    with pytest.raises(SystemExit, match="plain path"):
        steps.lightune_epoch(job, cached=False)


@pytest.mark.hard
def test_every_contender_takes_training_steps(job):
    race = steps.race(job, steps.CONTENDERS, 1)
    assert list(race["contenders"]) == list(steps.CONTENDERS)


def test_a_race_on_a_gpu_takes_the_same_path_on_a_cpu(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    path = tmp_path / "gpu.json"
    tiny_race = ["--device", "cpu", "--tiny", "--networks", "DistilBERT", "--contenders", "lightune"]
    gpu.main([*tiny_race, "--results", str(path)])
    record = json.loads(path.read_text())
    assert set(record["networks"]["DistilBERT"]["contenders"]) == {"lightune"}
    assert record["machine"]["cores"] > 0
    assert "| lightune |" in capsys.readouterr().out


@pytest.mark.hard
def test_every_contender_runs_on_both_networks_of_the_race_on_a_gpu(tmp_path):
    path = tmp_path / "gpu.json"
    turns.finish([str(Path(gpu.__file__)), "--device", "cpu", "--tiny", "--results", str(path)])
    networks = json.loads(path.read_text())["networks"]
    assert [list(race["contenders"]) for race in networks.values()] == [list(gpu.CONTENDERS)] * 2


def test_a_gpu_is_asked_for_where_there_is_none(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match="--device cpu --tiny"):
        gpu.main([])


def again(folder: Path) -> Path:
    """A test file for `job`."""
    return setting.write_rows(folder / "test.csv", Rows([f"{t} again" for t, _ in tiny.EXAMPLES[2]], [0, 1] * 21))


def test_a_whole_job_of_a_peer_ends_with_its_accuracy(job):
    done = jobs.run_peer("tfidf", job, Path(job.rows))
    assert 0 < done["low"] < done["accuracy"] <= done["high"] <= 1
    assert done["seconds"] == done["seconds_bare"] > 0
    assert done["peak_bytes"] > 2**20


def test_jobs_are_raced_on_the_same_tokens(job, tmp_path):
    race = jobs.race(job, again(tmp_path), 42, ["tfidf", "lightune"], 1)
    of_words, ours = (race["contenders"][name] for name in ("tfidf", "lightune"))
    n_tokens = sum(setting.token_lengths(job.model, setting.read_rows(job.rows).texts, job.max_tokens))
    assert ours["tokens_per_second"] * ours["seconds_bare"] == pytest.approx(n_tokens * 38 / 42)  # 4 are dev rows
    assert of_words["of_peak"] is of_words["tokens_per_second"] is None
    assert 0 < ours["of_peak"] < 1
    assert race["matrix_peak_flops"] > 1e8
    assert "| tfidf | " in render.table("jobs", {"figures": race})


def test_a_whole_job_of_lightune_is_its_command_line(job, tmp_path):
    test = again(tmp_path)
    done = jobs.run_lightune(job, test, {**jobs.as_the_tutorial(job), "data.dev_rows": 4})
    assert 0 < done["seconds_bare"] < done["seconds"]
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()
    assert set(done) == set(jobs.run_peer("tfidf", job, test))


IN_PEERS = f"import sys; sys.path.insert(0, {str(Path(peers.__file__).parent)!r}); import peers, turns; "


@pytest.mark.hard
def test_the_steps_of_the_best_of_stock_hold_texts_of_like_length(job):
    code = """
from transformers import TrainerCallback
class Widths(TrainerCallback):
    def on_train_begin(self, *_, train_dataloader, **__):
        turns.report({"useful": [float(batch["attention_mask"].float().mean()) for batch in train_dataloader]})
peers.best_stock(peers.Job.of(sys.argv[1]), [Widths()])
"""
    (_, found) = turns.finish(["-c", IN_PEERS + code, job.word()]).reports[0]
    assert len(found["useful"]) == 6
    assert sum(found["useful"]) / 6 > 0.7  # in random order about a half


@pytest.mark.hard
@pytest.mark.parametrize("name", [name for name in peers.PEERS if name != "tfidf"])
def test_a_peers_answers_are_in_the_order_of_the_texts(name, job, tmp_path):
    """Rows it has learnt by heart: in another order they would be right by half."""
    learnt = Job(job.model, job.rows, job.folder, job.max_tokens, job.batch_size, epochs=60)
    rate = {"adapter": 1e-2, "full": 1e-3}
    code = IN_PEERS + f"peers.RATE.update({rate}); peers.main(*sys.argv[1:])"
    command = ["-c", code, name, learnt.word(), job.rows]
    (_, scored) = turns.finish(command).reports[1]
    assert sum(scored["right"]) > 0.8 * len(scored["right"])


COUNTS = "import json, sys\nfor n, _ in enumerate(sys.stdin): print(json.dumps({'n': n}), flush=True)"


def test_a_warm_up_is_as_many_turns_as_begin_in_its_time():
    (first, second) = turns.race({"one": ["-c", COUNTS]}, 2, warm_up=1.5)["one"]
    assert first["n"] > 2
    assert second["n"] == first["n"] + 1
    assert [turn["n"] for turn in turns.race({"one": ["-c", COUNTS]}, 2)["one"]] == [1, 2]


def test_a_race_of_some_contenders_keeps_their_order(tmp_path):
    some = Setting("model", setting.QUICK, tmp_path, only=("lightune", "tutorial"))
    assert some.of(steps.CONTENDERS) == ["tutorial", "lightune"]
    assert Setting("model", setting.QUICK, tmp_path).of(steps.CONTENDERS) == list(steps.CONTENDERS)
    with pytest.raises(SystemExit, match="none of tfidf takes part here; there are tutorial"):
        Setting("model", setting.QUICK, tmp_path, only=("tfidf",)).of(steps.CONTENDERS)


def test_a_record_tells_the_command_that_makes_it_again():
    arguments = bench._parser().parse_args(["steps", "--only", "best stock", "--model", "distilbert-base-uncased"])
    told = " ".join(bench._command("steps", arguments))
    assert told == "python benchmarks/bench.py steps --only 'best stock' --model distilbert-base-uncased"
    arguments = gpu._parser().parse_args(["--device", "cpu", "--contenders", "best stock"])
    assert " ".join(gpu._command(arguments)) == "python benchmarks/gpu.py --device cpu --contenders 'best stock'"


def test_a_worker_that_dies_is_told_of():
    with pytest.raises(RuntimeError, match="ended with 3"):
        turns.race({"one": ["-c", "raise SystemExit(3)"]}, 1)
    with pytest.raises(RuntimeError, match="ended with 3"):
        turns.finish(["-c", "raise SystemExit(3)"])


def test_what_libraries_print_is_no_report():
    done = turns.finish(["-c", "print(\"{'loss': 1}\"); print('{\"seconds\": 2}')"])
    assert [turn for _, turn in done.reports] == [{"seconds": 2}]


# ----------------------------------------------------------------------------------------------- answers


@pytest.fixture(scope="module")
def merged(tiny_run, tmp_path_factory) -> Path:
    """The folder of a race of answers: a run, and its adapter merged."""
    folder = tmp_path_factory.mktemp("answers")
    (folder / "run").symlink_to(tiny_run.folder)
    answers.merge(folder)
    return folder


TEXTS = [f"{text} here" for text, _ in tiny.EXAMPLES[2]][:9]


@pytest.mark.parametrize("name", ["lightune", "pipeline"])
def test_every_way_to_ask_gives_the_labels_of_the_classifier(name, merged, tiny_run):
    import lightune

    wanted = [answer.label for answer in lightune.Classifier.load(tiny_run.folder).predict(TEXTS)]
    ways = answers.ways_of(name, merged, [1, 4], 32, 1)
    assert {"negative", "positive"} == set(wanted)
    assert all(ask(TEXTS) == wanted for ask in ways.values()), list(ways)


@pytest.mark.filterwarnings("ignore")  # of the exporter, about itself
def test_onnx_runtime_gives_the_labels_of_the_classifier(merged, tiny_run):
    if not answers.has_onnx():
        pytest.skip(answers.LEFT_OUT)
    answers.export(merged, 32)
    (wanted,) = (ask(TEXTS) for ask in answers.ways_of("lightune", merged, [1], 32, 1).values())
    for name in answers.ONNX:
        ways = answers.ways_of(name, merged, [1, 4], 32, 1)
        assert all(ask(TEXTS) == wanted for ask in ways.values()), name


def test_the_fastest_way_is_found_by_time():
    ways = {"slow": lambda texts: texts * 2, "fast": lambda texts: texts}
    assert answers._fastest(ways, lambda ask: (float(len(ask(["a"]))), [])) == "fast"


# ----------------------------------------------------------------------------------------- rows, figures


def test_reviews_of_race_and_tuning_share_no_text():
    race = setting.reviews(40, 20)
    tuning = setting.reviews(60, tuning=True)
    assert len({text for rows in (*race, *tuning) for text in rows.texts}) == 120
    assert {y for rows in race for y in rows.y} == {0, 1}
    assert setting.reviews(40, 20) == race


def test_few_rows_are_grouped_by_length_too():
    """Stock's own sampler makes groups of one step from 48 rows, which are in random order."""
    from transformers.trainer_pt_utils import get_length_grouped_indices

    lengths = [7 * i % 48 for i in range(48)]
    stock = get_length_grouped_indices(lengths, 16)
    ours = get_length_grouped_indices(lengths, 16, peers.GROUPED_STEPS)
    spread = {name: _spread(lengths, order) for name, order in (("stock", stock), ("ours", ours))}
    assert spread["ours"] < 20 < spread["stock"]


def _spread(lengths: list[int], order: list[int]) -> int:
    """The widest range of lengths in a step but the first, which gets the longest text."""
    steps_of = [[lengths[i] for i in order[start : start + 16]] for start in (16, 32)]
    return max(max(step) - min(step) for step in steps_of)


def test_flops_are_those_counted_by_hand(tiny_bert):
    # two blocks of 4 * 32 * 32 + 2 * 32 * 64 weights; attention 4 * 8 tokens * 32 * 2 blocks
    assert steps.flops_per_token(str(tiny_bert), [8, 8]) == 4 * 2 * 8192 + 3 * 2048
    assert steps.flops_per_token(str(tiny_bert), [8, 8], all_weights=True) == 6 * 2 * 8192 + 3 * 2048


def test_the_power_of_what_grows_linearly_is_one():
    points = [{"tokens": n, "seconds": 3.0 * n} for n in (10, 40, 160)]
    assert scaling.power(points) == pytest.approx(1)
    assert scaling.power([p | {"seconds": p["tokens"] ** 2} for p in points]) == pytest.approx(2)


def _figures() -> dict[str, dict]:
    """Made-up figures of every part."""
    step = {
        "tokens_per_second": 100.0,
        "lowest": 90.0,
        "highest": 110.0,
        "ratio": 1.0,
        "of_peak": 0.1,
        "peak_bytes": 2**30,
    }
    job = {"accuracy": 0.85, "low": 0.83, "high": 0.87, "seconds": 600.0, "seconds_bare": 600.0, "peak_bytes": 2**30}
    job |= {"tokens_per_second": 300.0, "of_peak": 0.12}
    ours = {"seconds": 60.0, "seconds_bare": 40.0, "accuracy": 0.86}
    answer = {"tokens_per_second": 1e3, "milliseconds_single": 9.0, "equal": 1.0, "accuracy": 0.8}
    answer |= {"way": "fp32", "way_single": "fp32"}
    faster = {"tokens_per_second": 850.0, "ratio": 8.5}
    figures = {
        "steps": {"contenders": {"tutorial": step, "lightune": step | faster}, "matrix_peak_flops": 1.6e11},
        "jobs": {"contenders": {"tutorial": job, "lightune": job | ours}, "matrix_peak_flops": 1.6e11},
        "answers": {"contenders": {"pipeline": answer, "lightune": answer}, "left_out": {"onnx": "not here"}},
        "scaling": {"points": [{"rows": n, "tokens": 9 * n, "seconds": n} for n in (1, 4)], "power": 1.0},
    }
    about = {"command": "python bench", "machine": MACHINE, "versions": VERSIONS}
    return {name: about | {"figures": values} for name, values in figures.items()}


def test_the_section_and_the_picture_come_from_the_file_alone(tmp_path):
    path = tmp_path / "made.json"
    path.write_text(json.dumps(_figures()))
    render.render(path)
    text = path.with_suffix(".md").read_text()
    assert "| lightune | 850 | 90 to 110 | 8.5x |" in text
    assert "| tutorial | 0.8500 | 0.830 to 0.870 | 600.0 s | 600.0 s | 300 | 12% | 1,024 MiB |" in text
    assert "in 40 s against 600 s: 15.0 times as fast" in text
    assert "report 60 s, 10.0 times (lightune: 0.8600)" in text
    assert "not here" in text
    assert path.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"
    svg = path.with_suffix(".svg").read_bytes()
    render.render(path)
    assert path.with_suffix(".svg").read_bytes() == svg


def test_figures_of_an_earlier_version_are_told_to_be_measured_again(tmp_path):
    parts = _figures()
    del parts["jobs"]["figures"]["matrix_peak_flops"]
    with pytest.raises(SystemExit, match=r"'jobs': its figures are of another version .*Measure it again"):
        render.markdown(parts, "made.svg")


def test_results_that_cannot_be_rendered_are_one_message(tmp_path):
    (tmp_path / "made.md").write_text("figures")
    with pytest.raises(SystemExit, match=r"made\.md: results are kept under a name that ends in \.json"):
        bench.main(["render", "--results", str(tmp_path / "made.md")])
    with pytest.raises(SystemExit, match=r"none\.json: no such file"):
        bench.main(["render", "--results", str(tmp_path / "none.json")])
    parts = _figures()
    only = {"steps": parts["steps"] | {"figures": {"contenders": {}, "matrix_peak_flops": 1e9}}}
    (tmp_path / "made.json").write_text(json.dumps(only))
    bench.main(["render", "--results", str(tmp_path / "made.json")])
    assert not (tmp_path / "made.svg").exists()


def test_no_claim_is_made_where_the_tutorial_is_more_accurate():
    parts = _figures()
    parts["jobs"]["figures"]["contenders"]["lightune"]["accuracy"] = 0.84
    assert "No job of lightune's reaches the tutorial's accuracy" in render.markdown(parts, "made.svg")


def test_a_part_measured_again_leaves_the_others(tmp_path):
    path = tmp_path / "results" / "made.json"
    for name, record in (("steps", 1), ("jobs", 2), ("steps", 3)):
        bench.write(path, name, {"figures": record})
    assert json.loads(path.read_text()) == {"steps": {"figures": 3}, "jobs": {"figures": 2}}


def test_every_part_can_be_rendered():
    assert set(bench.PARTS) == set(render.TITLES) == set(render.TABLES)


@pytest.mark.hard
def test_one_command_measures_everything(tmp_path):
    path = tmp_path / "quick.json"
    script = str(Path(bench.__file__))
    turns.finish([script, "all", "--quick", "--results", str(path)])
    parts = json.loads(path.read_text())
    assert set(parts) == set(bench.PARTS)
    assert {record["machine"]["cores"] for record in parts.values()} == {setting.machine()["cores"]}
    assert {file.suffix for file in tmp_path.iterdir()} == {".json", ".md", ".png", ".svg"}
    assert sys.version.split()[0] == parts["steps"]["versions"]["python"]


def test_the_fast_and_the_plain_path_are_compared(tiny_bert, reviews, monkeypatch, capsys):
    """Seed by seed on the same rows; and a fast path that breaks what it is given is found out."""
    few = {"data.test_rows": 20, "data.dev_rows": 10, "data.max_tokens": 32, "train.max_tokens": "auto"}
    rows = {"data.source": str(reviews), "data.text": "text", "data.label": "sentiment"}
    monkeypatch.setattr(same_accuracy, "SETTINGS", few | rows | {"model": str(tiny_bert), "train.layers": "all"})
    assert same_accuracy.main(2, 30)
    told = capsys.readouterr().out
    assert told.count("fast : accuracy") == told.count("plain: accuracy") == 2
    assert "points (95 % CI" in told
    right = iter([np.zeros(9, bool), np.ones(9, bool)])
    monkeypatch.setattr(same_accuracy, "right_answers", lambda *_, **__: next(right))
    assert not same_accuracy.main(1, 30)


def test_a_race_of_searches_tells_the_best_at_each_quarter(tmp_path):
    import search

    points = {
        "lightune": [
            {"seconds": 20.0, "loss": 0.4, "accuracy": 0.8},
            {"seconds": 50.0, "loss": 0.3, "accuracy": 0.85},
        ],
        "Trainer.hyperparameter_search": [{"seconds": 70.0, "loss": 0.5, "accuracy": 0.75}],
    }
    figures = {"seconds": 80.0, "rows": [1000, 300], "points": points} | search.summed_up(points, 80.0)
    losses = [quarter and quarter["loss"] for quarter in figures["quarters"]["lightune"]]
    assert losses == [0.4, 0.4, 0.3, 0.3]
    assert figures["quarters"]["Trainer.hyperparameter_search"][:3] == [None] * 3
    assert figures["best_known"]["loss"] == 0.3
    told = search.markdown({"command": "python benchmarks/search.py", "figures": figures})
    assert "| lightune | 2 | 0.4000, 0.800 | 0.4000, 0.800 | 0.3000, 0.850 | 0.3000, 0.850 |" in told
    search.draw(figures, tmp_path / "race.png")
    assert (tmp_path / "race.png").read_bytes()[:4] == b"\x89PNG"
    nothing = {"lightune": [], "Trainer.hyperparameter_search": []}
    empty = {"seconds": 80.0, "rows": [1, 1], "points": nothing} | search.summed_up(nothing, 80.0)
    assert "none" in search.markdown({"command": "c", "figures": empty})
    search.draw(empty, tmp_path / "empty.png")


def test_short_trainings_tell_how_far_seeds_and_recipes_are_apart(reviews, tiny_bert, tmp_path, capsys):
    import short_trainings

    assert short_trainings.summed_up(np.array([[1.0, 3.0], [2.0, 4.0]])) == [
        (2.0, pytest.approx(2**0.5), 0.0, 0.0),
        (3.0, pytest.approx(2**0.5), 1.0, 0.0),  # a seed makes both good or bad alike
    ]
    recipe = tmp_path / "small.toml"
    recipe.write_text(
        f'model = "{tiny_bert}"\ndata = {{source = "{reviews}", dev_rows = 20, max_tokens = 32}}\n'
        'train = {epochs = 1.0, batch_size = 8}\nhardware = {device = "cpu", precision = "fp32"}\n'
    )
    small = {"target": str(recipe)}
    losses = short_trainings.main([24, 0], 2, "train.learning_rate=1e-2,train.layers=1", n_processes=2, **small)
    told = capsys.readouterr().out
    assert "24 rows, train.learning_rate=1e-2, train.layers=1, seed 1: " in told
    assert "order by 24 rows against that by all: " in told
    again = short_trainings.main([24], 2, n_dev=30, **small)
    assert again[24][0, 0] != losses[24][0, 0] != losses[0][0, 0]  # other dev rows, more training rows
    assert told.count("seed 0: ") == told.count("seed 1: ") == 4
