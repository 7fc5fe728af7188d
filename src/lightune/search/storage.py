"""Where a search is kept: an Optuna storage, opened with its pruner, and what goes wrong with one told in a line."""

from __future__ import annotations

import re
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
REDIS = "redis://", "rediss://", "unix://"
NO_STORAGE = "Leave it out for a file."
PASSWORD_OPTION = re.compile(r"((?:password|passwd|pwd)=)[^&\s'\"]+", re.IGNORECASE)
LEAST_SECRET = 4  # letters of a password that is looked for wherever it stands


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


def without_password(text: str, url: str) -> str:
    """A text about a storage that does not tell its password, nor what may be one in what is no URL."""
    told = PASSWORD_OPTION.sub(r"\1***", text)
    start, mark, rest = url.rpartition("://")
    who, at, _ = rest.rpartition("@")
    user, colon, password = who.partition(":")
    if not (at and colon):
        return told
    told = told.replace(f"{start}{mark}{who}@", f"{start}{mark}{user}:***@" if mark else "***@")
    for part in {password, unquote(password), *password.split("@")} - {""}:  # as a driver may quote it
        told = told.replace(f"{part}@", "***@")
        told = told.replace(part, "***") if len(part) >= LEAST_SECRET else told
    return told


@contextmanager
def storage_errors(url: str | None = None) -> Iterator[None]:
    """A storage that fails while it is used is one message; the same command goes on with the search."""
    try:
        yield
    except failures_of_storage() as error:
        told = without_password(first_line(error.__cause__ or error), url or "")
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
    """UserError for what is no storage, or one that cannot be used here, before anything is read; makes nothing."""
    with quiet_optuna(), _opening(url, told_storage(url), NO_STORAGE):
        if url.startswith(REDIS):
            _storage(url)  # which looks for the library alone
            return
        file = Path(url) if _is_journal(url) else _file_of(url)
        if file is None:
            from sqlalchemy import create_engine

            create_engine(url).connect().close()
        elif not file.absolute().parent.is_dir():
            raise OSError(f"there is no folder {file.parent}")


def told_storage(url: str) -> str:
    """How a storage is named in a message."""
    return f"search.storage = {without_password(url, url)!r}"


def _is_journal(url: str) -> bool:
    return "://" not in url and url.endswith(JOURNALS)


def _file_of(url: str) -> Path | None:
    """The file of a database that is one."""
    from sqlalchemy import make_url

    read = make_url(url)
    return Path(read.database) if read.drivername.startswith("sqlite") and read.database else None


@contextmanager
def _opening(url: str, shown: str, mend: str) -> Iterator[None]:
    failures: tuple[type[Exception], ...] = (*failures_of_storage(), ImportError, ValueError, RuntimeError, OSError)
    try:
        yield
    except failures as error:
        why = without_password(first_line(error), url)
        raise UserError(f"{shown}: cannot be opened ({why}). {mend}") from None


def _storage(url: str) -> Any:
    """A journal in a file or in Redis, as Optuna's own command takes them, or a database."""
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend, JournalRedisBackend

    if url.startswith(REDIS):
        return JournalStorage(JournalRedisBackend(url))
    if _is_journal(url):
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
