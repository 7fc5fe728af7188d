"""Trackers get the run's numbers, write under the run folder, and never break the run."""

from __future__ import annotations

import importlib.machinery
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lightune import trackers
from lightune.errors import UserError

CONFIG = {
    "model": "tiny",
    "train": {"epochs": 2, "learning_rate": 5e-4},
    "data": {"rows": None, "text": ["a"]},
}
FLAT = {
    "model": "tiny",
    "train.epochs": 2,
    "train.learning_rate": 5e-4,
    "data.rows": "null",
    "data.text": '["a"]',
}


def fake_module(monkeypatch: pytest.MonkeyPatch, name: str, **functions: Any) -> ModuleType:
    """A stand-in for a package that is not installed here: it only records."""
    module = ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, loader=None)
    module.__dict__.update(functions)
    monkeypatch.setitem(sys.modules, name, module)
    return module


class Recorder:
    """A tracker that keeps what it is told, or raises where it is told to."""

    def __init__(self, fails_in: str = "") -> None:
        self.fails_in = fails_in
        self.logged: list[tuple[dict[str, float], int]] = []
        self.finished = 0

    def log(self, values: dict[str, float], step: int) -> None:
        if self.fails_in == "log":
            raise ConnectionError("server\nis down")
        self.logged.append((values, step))

    def finish(self) -> None:
        self.finished += 1
        if self.fails_in == "finish":
            raise OSError("No space left on device")


@pytest.fixture(autouse=True)
def same_environment() -> Iterator[None]:
    """Trackers set variables for their libraries; no test sees those of another."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> dict[str, trackers.TrackerRow]:
    """An empty table of trackers; `json` stands for the package of every row that a test adds."""
    table: dict[str, trackers.TrackerRow] = {}
    monkeypatch.setattr(trackers, "TRACKERS", table)
    return table


def row_of(start: Any) -> trackers.TrackerRow:
    return trackers.TrackerRow("a row for a test", "json", "none", start)


def test_import_of_the_module_imports_no_tracker_and_no_torch() -> None:
    code = "import sys, lightune.trackers; print(*{'torch', 'accelerate', 'mlflow', 'wandb'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_unknown_name_is_the_users_error_with_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'tensorbord'. Did you mean 'tensorboard'\? Known: tensorboard, mlflow"):
        trackers.start(["tensorbord"], tmp_path, "run", {})


@pytest.mark.parametrize("name", trackers.TRACKERS)
def test_missing_package_stops_before_any_work_and_says_what_to_install(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda module: None)
    with pytest.raises(UserError, match=rf"pip install 'lightune\[{name}\]'"):
        trackers.start([name], tmp_path, "run", {})
    assert list(tmp_path.iterdir()) == []


def test_every_row_has_an_extra_in_the_package() -> None:
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert {row.extra for row in trackers.TRACKERS.values()} <= set(project["optional-dependencies"])


def test_no_names_start_nothing(tmp_path: Path) -> None:
    none = trackers.start([], tmp_path, "run", CONFIG)
    none.log({"loss": 1.0}, 1)
    none.finish()
    assert none.active == {}
    assert list(tmp_path.iterdir()) == []


def test_numbers_reach_every_tracker_as_floats(rows: dict[str, trackers.TrackerRow], tmp_path: Path) -> None:
    made = [Recorder(), Recorder()]
    rows["first"] = row_of(lambda *_: made[0])
    rows["second"] = row_of(lambda *_: made[1])
    running = trackers.start(["first", "second", "first"], tmp_path, "run", CONFIG)
    running.log({"loss": np.float32(0.5), "rows": 3}, 7)
    running.finish()
    running.finish()
    for tracker in made:
        assert tracker.logged == [({"loss": 0.5, "rows": 3.0}, 7)]
        assert {type(value) for value in tracker.logged[0][0].values()} == {float}
        assert tracker.finished == 1


def test_a_row_gets_its_own_folder_and_a_flat_config(rows: dict[str, trackers.TrackerRow], tmp_path: Path) -> None:
    seen: list[Any] = []
    rows["one"] = row_of(lambda *arguments: seen.append(arguments) or Recorder())
    trackers.start(["one"], tmp_path, "a run", CONFIG)
    assert seen == [(tmp_path / "trackers" / "one", "a run", FLAT)]
    assert seen[0][0].is_dir()


def test_a_long_setting_is_cut() -> None:
    assert len(str(trackers.flat({"text": "a" * 9000})["text"])) == 500


@pytest.mark.parametrize("where", ["log", "finish"])
def test_a_failing_tracker_is_reported_once_and_the_others_go_on(
    where: str, rows: dict[str, trackers.TrackerRow], tmp_path: Path
) -> None:
    bad, good, said = Recorder(fails_in=where), Recorder(), []
    rows["bad"], rows["good"] = row_of(lambda *_: bad), row_of(lambda *_: good)
    running = trackers.start(["bad", "good"], tmp_path, "run", {}, said.append)
    running.log({"loss": 1.0}, 1)
    running.log({"loss": 0.5}, 2)
    running.finish()
    assert len(said) == 1
    assert said[0].startswith(f"Tracker bad failed in {where} and was dropped; the run goes on without it: ")
    assert "\n" not in said[0]
    assert [step for _, step in good.logged] == [1, 2]
    assert (bad.finished, good.finished) == (1, 1)


def test_a_tracker_that_cannot_start_is_reported_and_the_others_go_on(
    rows: dict[str, trackers.TrackerRow], tmp_path: Path
) -> None:
    def broken(*_: Any) -> Recorder:
        raise RuntimeError("no login")

    said: list[str] = []
    rows["bad"], rows["good"] = row_of(broken), row_of(lambda *_: Recorder())
    running = trackers.start(["bad", "good"], tmp_path, "run", {}, said.append)
    assert list(running.active) == ["good"]
    assert said == ["Tracker bad failed in start and was dropped; the run goes on without it: RuntimeError: no login"]


def test_without_a_callback_the_message_is_a_warning(rows: dict[str, trackers.TrackerRow], tmp_path: Path) -> None:
    rows["bad"] = row_of(lambda *_: Recorder(fails_in="log"))
    running = trackers.start(["bad"], tmp_path, "run", {})
    with pytest.warns(UserWarning, match="Tracker bad failed in log .* ConnectionError: server is down"):
        running.log({"loss": 1.0}, 1)


def test_what_a_library_prints_or_deprecates_stays_out_of_the_run(
    rows: dict[str, trackers.TrackerRow], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def chatty(*_: Any) -> Recorder:
        print("* Created new run")
        warnings.warn("noload is deprecated", DeprecationWarning, stacklevel=1)
        return Recorder()

    rows["chatty"] = row_of(chatty)
    running = trackers.start(["chatty"], tmp_path, "run", {}, pytest.fail)
    assert list(running.active) == ["chatty"]
    assert capsys.readouterr().out == ""


def test_other_processes_track_nothing(
    rows: dict[str, trackers.TrackerRow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows["one"] = row_of(lambda *_: Recorder())
    monkeypatch.setattr("accelerate.PartialState", lambda cpu: SimpleNamespace(is_main_process=False))
    assert trackers.start(["one"], tmp_path, "run", {}).active == {}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("run_name", ["org/model", "../../outside", "plain"])
def test_tensorboard_reads_back_what_was_logged(run_name: str, tmp_path: Path) -> None:
    reason = "needs tensorboard, an optional extra"
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason=reason
    ).EventAccumulator
    folder = tmp_path / "run"
    running = trackers.start(["tensorboard"], folder, run_name, CONFIG, pytest.fail)
    running.log({"train/loss": 0.75}, 1)
    running.log({"train/loss": np.float32(0.5)}, 2)
    running.finish()
    written = [path for path in tmp_path.rglob("events.out.tfevents.*") if path.is_file()]
    assert all(path.is_relative_to(folder / "trackers" / "tensorboard") for path in written)
    main = min(written, key=lambda path: len(path.parts))
    events = accumulator(str(main)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 0.75), (2, 0.5)]
    yml = next(folder.rglob("hparams.yml")).read_text()
    assert "train.epochs: 2" in yml


def fake_mlflow(monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, list[Any]]:
    """mlflow's functions as accelerate 1.15 calls them; it also puts the URI into the environment."""
    calls: list[Any] = []

    def set_tracking_uri(uri: str | None) -> None:
        calls.append(("uri", uri))
        os.environ.pop("MLFLOW_TRACKING_URI", None) if uri is None else os.environ.update(MLFLOW_TRACKING_URI=uri)

    limits = SimpleNamespace(MAX_PARAM_VAL_LENGTH=500, MAX_PARAMS_TAGS_PER_BATCH=100)
    module = fake_module(
        monkeypatch,
        "mlflow",
        set_tracking_uri=set_tracking_uri,
        search_experiments=lambda filter_string: [],
        create_experiment=lambda **given: calls.append(("experiment", given)) or "1",
        start_run=lambda **given: calls.append(("run", given["run_name"])),
        log_params=lambda values: calls.append(("params", values)),
        log_metrics=lambda values, step: calls.append(("metrics", values, step)),
        end_run=lambda: calls.append("end"),
        utils=SimpleNamespace(validation=limits),
    )
    return module, calls


def test_mlflow_keeps_to_the_run_folder_and_gives_the_uri_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    _, calls = fake_mlflow(monkeypatch)
    running = trackers.start(["mlflow"], tmp_path, "a run", CONFIG, pytest.fail)
    running.log({"loss": 0.5}, 3)
    running.finish()
    own = tmp_path / "trackers" / "mlflow"
    experiment = {"name": "lightune", "artifact_location": (own / "artifacts").as_uri(), "tags": None}
    assert calls == [
        ("uri", f"sqlite:///{own}/mlflow.db"),
        ("experiment", experiment),
        ("run", "a run"),
        ("params", FLAT),
        ("metrics", {"loss": 0.5}, 3),
        "end",
        ("uri", None),
    ]
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_mlflow_start_that_fails_leaves_no_run_and_no_uri_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    module, calls = fake_mlflow(monkeypatch)
    said: list[str] = []
    monkeypatch.setattr(module, "log_params", lambda values: 1 / 0)
    assert trackers.start(["mlflow"], tmp_path, "run", CONFIG, said.append).active == {}
    assert calls[-2:] == ["end", ("uri", None)]
    assert "ZeroDivisionError" in said[0]


def test_mlflow_of_the_user_is_respected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    _, calls = fake_mlflow(monkeypatch)
    trackers.start(["mlflow"], tmp_path, "run", CONFIG, pytest.fail).finish()
    assert calls[0] == ("experiment", {"name": "lightune", "artifact_location": None, "tags": None})
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:5000"


@pytest.mark.parametrize(("chosen", "expected"), [(None, "offline"), ("online", "online")])
def test_wandb_is_offline_unless_the_user_says_otherwise(
    chosen: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    if chosen:
        monkeypatch.setenv("WANDB_MODE", chosen)
    given, run, config = [], Recorder(), {}
    settings = SimpleNamespace(update=lambda values, allow_val_change: config.update(values))
    fake_module(monkeypatch, "wandb", init=lambda **kw: given.append(kw) or run, config=settings)
    running = trackers.start(["wandb"], tmp_path, "a run", CONFIG, pytest.fail)
    running.log({"loss": 0.5}, 3)
    running.finish()
    own = str(tmp_path / "trackers" / "wandb")
    assert given == [{"project": "lightune", "name": "a run", "dir": own, "mode": expected}]
    assert (config, run.logged, run.finished) == (FLAT, [({"loss": 0.5}, 3)], 1)
    assert os.environ["WANDB_ERROR_REPORTING"] == "false"


def test_trackio_writes_to_the_run_folder_and_gets_the_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRACKIO_DIR", raising=False)
    given, folders, run = [], [], Recorder()

    def init(**settings: Any) -> Recorder:
        given.append(settings)
        folders.append(os.environ["TRACKIO_DIR"])
        return run

    fake_module(monkeypatch, "trackio", init=init)
    running = trackers.start(["trackio"], tmp_path, "a run", CONFIG, pytest.fail)
    running.log({"loss": 0.5}, 3)
    running.finish()
    assert folders == [str(tmp_path / "trackers" / "trackio")]
    assert "TRACKIO_DIR" not in os.environ
    assert {"project": "lightune", "name": "a run", "config": FLAT}.items() <= given[0].items()
    assert (run.logged, run.finished) == ([({"loss": 0.5}, 3)], 1)


def test_a_second_trackio_run_of_a_process_is_dropped_with_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRACKIO_DIR", raising=False)
    warned, first = [], tmp_path / "first.partial" / "trackers" / "trackio"
    fake_module(monkeypatch, "trackio", init=lambda **kw: pytest.fail("it would write into the first run's folder"))
    fake_module(monkeypatch, "trackio.utils", TRACKIO_DIR=first)
    running = trackers.start(["trackio"], tmp_path / "second", "a run", CONFIG, warned.append)
    assert running.active == {}
    assert len(warned) == 1
    assert str(first) in warned[0]
    assert not first.exists()


def test_a_run_that_failed_says_so_to_its_trackers(tmp_path: Path) -> None:
    recorder = Recorder()
    running = trackers.Trackers({"one": recorder}, pytest.fail)
    running.log({"loss": 0.5}, 3)
    with pytest.raises(ValueError, match="diverged"), running:
        raise ValueError("diverged")
    assert recorder.logged == [({"loss": 0.5}, 3), ({"failed": 1.0}, 3)]
    assert recorder.finished == 1


def test_mlflow_itself_reads_back_what_was_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    pytest.importorskip("sqlalchemy", reason="needs mlflow with its SQLite store, an optional extra")
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow, an optional extra")
    running = trackers.start(["mlflow"], tmp_path, "a run", CONFIG, pytest.fail)
    running.log({"loss": 0.5}, 3)
    running.finish()
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/trackers/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("lightune")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status, run.data.metrics) == ("a run", "FINISHED", {"loss": 0.5})
    assert run.data.params["train.epochs"] == "2"
