"""Where a search is kept: an Optuna storage, opened with its pruner, and what goes wrong with one told in a line."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from lightune.errors import GateError, UserError, first_line

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

FAILURE = "failure"  # noted at an attempt: what failed
REDUCTION = 2  # of the trials that came as far as this one, half may go on
SQLITE_SECONDS = 120.0  # that one process waits for another
JOURNALS = ".log", ".journal"  # what a file ends in that is no database
NO_STORAGE = "Leave it out for a file."


def failures_of_storage() -> tuple[type[Exception], ...]:
    """What a storage raises that fails."""
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    redis: Any = sys.modules.get("redis")  # where a search is kept there
    return (OptunaError, SQLAlchemyError, *((redis.RedisError,) if redis else ()))


def file_url(path: Path) -> str:
    """The storage in a file, whatever its name."""
    from sqlalchemy import URL

    return URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)


def _without_password(text: str, url: str) -> str:
    """A text about a storage that does not tell its password, nor what may be one in what is no URL."""
    _, mark, rest = url.partition("://")
    who, at, _ = (rest if mark else url).rpartition("@")
    user, colon, password = who.partition(":")
    shown = f"{user}:***@" if mark and colon else f"{user}@" if mark else "***@"
    told = text.replace(f"{who}@", shown) if at else text
    return told.replace(f":{unquote(password)}@", ":***@") if password else told


@contextmanager
def storage_errors(url: str | None = None) -> Iterator[None]:
    """A storage that fails while it is used is one message; the same command goes on with the search."""
    try:
        yield
    except failures_of_storage() as error:
        told = _without_password(first_line(error.__cause__ or error), url or "")
        raise GateError(
            f"the search's storage failed ({told}). What is done is kept; the same command goes on once it can be "
            f"used."
        ) from None


def open_study(url: str, name: str, shown: str, mend: str) -> optuna.Study:
    """The study of this name, made if there is none.

    UserError where the storage cannot be used: of what is shown, and how to mend it.
    """
    import optuna

    with _opening(url, shown, mend):
        return optuna.create_study(storage=_storage(url), study_name=name, load_if_exists=True, pruner=_halving())


def check_storage(url: str) -> None:
    """UserError for what is no storage, or one that cannot be used here, before anything is read."""
    with _opening(url, f"search.storage = {url!r}", NO_STORAGE):
        _storage(url)


@contextmanager
def _opening(url: str, shown: str, mend: str) -> Iterator[None]:
    failures: tuple[type[Exception], ...] = (*failures_of_storage(), ImportError, ValueError, RuntimeError, OSError)
    try:
        yield
    except failures as error:
        told = f"{shown}: cannot be opened ({first_line(error)}). {mend}"
        raise UserError(_without_password(told, url)) from None


def _storage(url: str) -> Any:
    """A journal in a file or in Redis, as Optuna's own command takes them, or a database."""
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend, JournalRedisBackend

    if url.startswith("redis"):
        return JournalStorage(JournalRedisBackend(url))
    if url.endswith(JOURNALS):
        return JournalStorage(JournalFileBackend(url))
    waits = {"connect_args": {"timeout": SQLITE_SECONDS}} if url.startswith("sqlite") else None
    return RDBStorage(url, engine_kwargs=waits)


def _halving() -> Any:
    """Successive halving that does not count the attempts of dead processes twice."""
    import optuna
    from optuna.trial import TrialState

    class Counted:
        """A study without its failed trials, and attempts that failed."""

        def __init__(self, study: optuna.Study):
            self._study, self._storage, self.direction = study, study._storage, study.direction

        def get_trials(self, deepcopy: bool = False) -> list[FrozenTrial]:
            trials = self._study.get_trials(deepcopy=deepcopy)
            return [t for t in trials if t.state != TrialState.FAIL and FAILURE not in t.user_attrs]

    class Halving(optuna.pruners.SuccessiveHalvingPruner):
        """As its base, on such a study."""

        def prune(self, study: Any, trial: FrozenTrial) -> bool:
            return super().prune(Counted(study), trial)  # type: ignore[arg-type]

    return Halving(min_resource=1, reduction_factor=REDUCTION, min_early_stopping_rate=0)


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Optuna says nothing of its own, neither lines nor warnings about what is experimental in it."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
