"""Where a search is kept: an Optuna storage, opened with its pruner, and what goes wrong with one told in a line."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightune.errors import GateError, UserError, first_line

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

REDUCTION = 2  # of the trials that came as far as this one, half may go on
SQLITE_SECONDS = 120.0  # that one process waits for another


def failures_of_storage() -> tuple[type[Exception], ...]:
    """What a storage raises that fails."""
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    return OptunaError, SQLAlchemyError


def file_url(path: Path) -> str:
    """The storage in a file, whatever its name."""
    from sqlalchemy import URL

    return URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)


def _without_password(text: str, url: str) -> str:
    """A text about a storage that does not tell its password."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        password, shown = make_url(url).password, make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return text
    text = text.replace(url, shown)
    return text.replace(password, "***") if password else text


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

    failures: tuple[type[Exception], ...] = (*failures_of_storage(), ImportError, ValueError, RuntimeError, OSError)
    try:
        waits = {"connect_args": {"timeout": SQLITE_SECONDS}}
        is_file = url.startswith("sqlite")
        storage = (
            optuna.storages.RDBStorage(url, engine_kwargs=waits) if is_file else optuna.storages.get_storage(url)
        )
        return optuna.create_study(storage=storage, study_name=name, load_if_exists=True, pruner=_halving())
    except failures as error:
        told = f"{shown}: cannot be opened ({first_line(error)}). {mend}"
        raise UserError(_without_password(told, url)) from None


def _halving() -> Any:
    """Successive halving that does not count the attempts of dead processes twice."""
    import optuna
    from optuna.trial import TrialState

    class Counted:
        """A study without its failed trials."""

        def __init__(self, study: optuna.Study):
            self._study, self._storage, self.direction = study, study._storage, study.direction

        def get_trials(self, deepcopy: bool = False) -> list[FrozenTrial]:
            return [t for t in self._study.get_trials(deepcopy=deepcopy) if t.state != TrialState.FAIL]

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
