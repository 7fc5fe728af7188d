"""Send a run's numbers to experiment trackers. A tracker may fail at any time; the run goes on without it.

Everything a tracker writes goes under the run folder and stays on this machine, unless the user's own
environment (MLFLOW_TRACKING_URI, WANDB_MODE, TRACKIO_DIR …) says otherwise.
"""

from __future__ import annotations

import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, cast

from lightune.errors import UserError, near_match

Config = dict[str, bool | int | float | str]
PROJECT = "lightune"


class Tracker(Protocol):
    """What a row's `start` returns; the classes of `accelerate.tracking` already look like this."""

    def log(self, values: dict[str, float], step: int) -> None: ...

    def finish(self) -> None: ...


@dataclass(frozen=True)
class TrackerRow:
    """One tracker: what it is, the module it needs, the extra that installs it, and how it starts.

    start(folder, run_name, config): `folder` exists and is this tracker's own; `config` is flat.
    """

    summary: str
    module: str
    extra: str
    start: Callable[[Path, str, Config], Tracker]


@dataclass
class Trackers:
    """The trackers that still work. A call reaches all of them; one that raises is dropped."""

    active: dict[str, Tracker]
    warn: Callable[[str], None]
    step: int = 0  # the last one logged

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log `values` at optimizer step `step` (1 = after the first) to every tracker that still works."""
        self.step = step
        for name in list(self.active):
            if not self._try(name, "log", partial(self._log_one, name, values, step)):
                _close(self.active.pop(name))

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self.log({"failed": 1.0}, self.step)
        self.finish()  # of a run that failed too: a tracker left open would take the next run's numbers

    def finish(self) -> None:
        """Flush and close every tracker; a second call does nothing."""
        while self.active:
            name, tracker = self.active.popitem()
            self._try(name, "finish", tracker.finish)

    def _log_one(self, name: str, values: Mapping[str, float], step: int) -> None:
        # accelerate drops, without a word, what is no int or float: numpy's float32 and torch's 0-d tensors.
        self.active[name].log({key: float(value) for key, value in values.items()}, step=step)

    def _try(self, name: str, what: str, call: Callable[[], Any]) -> bool:
        """Whether `call` returned. If it raised, `warn` was told once."""
        try:
            with _contained():
                call()
        except Exception as error:
            self.warn(f"Tracker {name} failed in {what} and was dropped; the run goes on without it: {_line(error)}")
            return False
        return True


def check(names: Sequence[str]) -> None:
    """Raise UserError if a name is no row of TRACKERS or its package is not installed. Imports nothing."""
    for name in names:
        if name not in TRACKERS:
            known = ", ".join(TRACKERS)
            raise UserError(f"No tracker is called {name!r}.{near_match(name, TRACKERS)} Known: {known}.")
        row = TRACKERS[name]
        if find_spec(row.module) is None:
            raise UserError(
                f"The tracker {name!r} needs the package {row.module!r}, which is not installed. "
                f"Run: pip install 'lightune[{row.extra}]'"
            )


def start(
    names: Sequence[str],
    folder: Path,
    run_name: str,
    config: Mapping[str, Any],
    warn: Callable[[str], None] = warnings.warn,
    *,
    cpu: bool = False,
) -> Trackers:
    """Start the named trackers, each in `folder`/trackers/<name>, with `config` as the run's parameters.

    folder: the run folder. config: nested settings; they are logged as train.epochs, data.source, …
    warn: told, in one line, why a tracker was dropped; cpu: the run uses no GPU. Of several processes only the
    main one tracks, the others get an empty `Trackers`. Raises UserError as `check` does, before anything starts.
    """
    check(names)
    trackers = Trackers({}, warn)
    if not names or not _is_main_process(cpu):
        return trackers
    for name in dict.fromkeys(names):
        trackers._try(name, "start", partial(_start_one, trackers, name, folder, run_name, config))
    return trackers


def _start_one(trackers: Trackers, name: str, folder: Path, run_name: str, config: Mapping[str, Any]) -> None:
    own = folder.resolve() / "trackers" / name
    own.mkdir(parents=True, exist_ok=True)
    trackers.active[name] = TRACKERS[name].start(own, run_name, flat(config))


def flat(config: Mapping[str, Any], prefix: str = "") -> Config:
    """Nested settings as one level: {"train": {"epochs": 2}} -> {"train.epochs": 2}; the rest as cut text."""
    values: Config = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            values |= flat(value, f"{name}.")
        else:
            values[name] = value if isinstance(value, bool | int | float) else _text(value)
    return values


def _text(value: Any) -> str:
    # MLflow drops a parameter of more than 6,000 characters (older: 500), and says so with all of them.
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 500 else text[:499] + "…"


def _is_main_process(cpu: bool) -> bool:
    from accelerate import PartialState

    # accelerate's loggers need this state in any case; whoever makes it first fixes the device
    return bool(PartialState(cpu=cpu).is_main_process)


@contextmanager
def _contained() -> Iterator[None]:
    """Around every call into a tracker's library: its prints and its deprecations are not the run's."""
    with (
        redirect_stdout(sys.stderr),
        warnings.catch_warnings(),
    ):  # stdout may be somebody's JSON
        warnings.simplefilter("ignore", DeprecationWarning)  # mlflow 3.17 on SQLAlchemy 2.1: "noload"
        yield


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _close(tracker: Tracker) -> None:
    """Let go of a tracker that failed, so that its library can start another run in this process."""
    with suppress(Exception), _contained():
        tracker.finish()


def _begin(tracker: Any, config: Config) -> Tracker:
    """The `accelerate.tracking` tracker, started and told the settings."""
    try:
        tracker.start()
        tracker.store_init_configuration(config)
    except Exception:
        _close(tracker)
        raise
    return cast(Tracker, tracker)


def _tensorboard(folder: Path, run_name: str, config: Config) -> Tracker:
    from accelerate.tracking import TensorBoardTracker

    # The name becomes a folder: "org/model" or "../x" must not choose another place.
    folder_name = re.sub(r"[^\w.-]+", "-", run_name).strip(".-")[:80] or "run"
    return _begin(TensorBoardTracker(folder_name, logging_dir=folder), config)


def _mlflow(folder: Path, run_name: str, config: Config) -> Tracker:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read at import; it reports usage otherwise
    import mlflow
    from accelerate.tracking import MLflowTracker

    class LocalMlflow(MLflowTracker):
        def finish(self) -> None:
            try:
                super().finish()
            finally:  # the URI is global to the process: the next run must not write into this run's folder
                mlflow.set_tracking_uri(None)

    if "MLFLOW_TRACKING_URI" in os.environ:
        return _begin(MLflowTracker(PROJECT, run_name=run_name), config)
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    artifacts = (folder / "artifacts").as_uri()  # else ./mlruns, wherever the user stands
    return _begin(LocalMlflow(PROJECT, logging_dir=artifacts, run_name=run_name), config)


def _wandb(folder: Path, run_name: str, config: Config) -> Tracker:
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read at import; it reports crashes otherwise
    from accelerate.tracking import WandBTracker

    mode = os.environ.get("WANDB_MODE", "offline")
    return _begin(WandBTracker(PROJECT, name=run_name, dir=str(folder), mode=mode), config)


def _trackio(folder: Path, run_name: str, config: Config) -> Tracker:
    from accelerate.tracking import TrackioTracker

    ours = "TRACKIO_DIR" not in os.environ
    wanted = Path(os.environ.get("TRACKIO_DIR", folder))
    kept = Path(getattr(sys.modules.get("trackio.utils"), "TRACKIO_DIR", wanted))
    if kept != wanted:  # read once, when trackio is imported: these rows would go to another run's folder
        raise RuntimeError(f"trackio keeps {kept} for this process. Start another one")
    quiet = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
    # config goes to init: store_init_configuration adds a key "allow_val_change" to the run's settings.
    tracker = TrackioTracker(PROJECT, name=run_name, config=config, **quiet)
    os.environ.setdefault("TRACKIO_DIR", str(folder))
    try:
        tracker.start()
    finally:
        if ours:
            del os.environ["TRACKIO_DIR"]
    return cast(Tracker, tracker)


TRACKERS: dict[str, TrackerRow] = {
    "tensorboard": TrackerRow(
        "event files; `tensorboard --logdir RUN/trackers`", "tensorboard", "tensorboard", _tensorboard
    ),
    "mlflow": TrackerRow("a SQLite store in the run folder, or MLFLOW_TRACKING_URI", "mlflow", "mlflow", _mlflow),
    "wandb": TrackerRow("Weights & Biases, offline unless WANDB_MODE says online", "wandb", "wandb", _wandb),
    "trackio": TrackerRow(
        "trackio's local store; one run a process, unless TRACKIO_DIR names a folder", "trackio", "trackio", _trackio
    ),
}
