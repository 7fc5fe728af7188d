"""The search's memory: an Optuna study that outlives its processes, and that several of them may share.

A trial of ours has a number of its own. Whatever number Optuna gives to an attempt at it, its values and its seed
follow from ours: after a kill the same number is tried again, and the search goes on as if nothing had happened.
"""

from __future__ import annotations

import hashlib
import os
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lightune.artifact.claimed import ELSEWHERE
from lightune.artifact.folder import alone, is_locked, lock
from lightune.errors import GateError, UserError, first_line
from lightune.search.folder import CLOSED
from lightune.search.space import Space

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

DATABASE, WORKERS, QUEUE, LAST = "search.db", "workers", "queue.lock", "last.lock"
NAME, FINALS = "trials", "finals"  # the two studies
NUMBER, WORKER, SETTLED = "number", "worker", "settled"  # what is noted at an attempt
REPORTS = 3  # evaluations of a trial, at equal distances
REDUCTION = 2  # of the trials that came as far as this one, half may go on
ATTEMPTS = 2  # at a trial that fails
MOST_DEATHS = 10  # of processes at one trial
FEWEST_TO_WEIGH = 5  # trials, for a word on which keys matter
SQLITE_SECONDS = 120.0  # that one process waits for another


def seed_of(*parts: object) -> int:
    """A seed that follows from what it is for, and from nothing else; below 2**31."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=4).digest(), "big") >> 1


@dataclass(frozen=True)
class Trial:
    """A trial that is over.

    values: what it set; loss: at its end, None where it did not come there; scores: of the dev rows, as people read
    them; reports: part of it, of REPORTS -> the loss then; trained: parameters; why: it failed.
    """

    number: int
    values: dict[str, Any]
    state: Literal["complete", "stopped", "failed"]
    loss: float | None
    scores: dict[str, float]
    reports: dict[int, float]
    seconds: float
    trained: int | None
    why: str


@dataclass(frozen=True)
class Attempt:
    """A trial that is ours to run: its number, what it tries, and whether it may be pruned."""

    number: int
    values: dict[str, Any]
    may_stop: bool
    trial: optuna.Trial


class Study:
    """The trials of a search in `folder`, of which other processes may run some.

    starts: what the first trial tries, every key of the space, and what the next ones change in the best so far; they
    are never pruned. name: of the search in a storage that others use, too.
    """

    def __init__(
        self,
        folder: Path,
        storage: str | None,
        space: Space,
        n_trials: int,
        starts: Sequence[Mapping[str, Any]],
        seed: int,
        name: str = "",
    ):
        self.folder, self.space, self.n_trials, self.seed = folder, space, n_trials, seed
        self.starts = [self._told_back(start) for start in starts][:n_trials]
        (folder / WORKERS).mkdir(parents=True, exist_ok=True)
        self._me = uuid.uuid4().hex
        self._held = lock(folder / WORKERS / self._me)  # until this process ends, however it ends
        url = storage or _file_url(folder / DATABASE)
        prefix = f"lightune-{name}-" if storage else ""  # of the search, wherever its folder is moved to
        of = (
            (f"search.storage = {url!r}", "Leave it out for a file.")
            if storage
            else (str(folder / DATABASE), ELSEWHERE)
        )
        with self._alone(), quiet_optuna():
            self._trials, self._finals = _open(url, prefix + NAME, *of), _open(url, prefix + FINALS, *of)

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the database and of this process's mark."""
        with suppress(OSError):
            (self.folder / WORKERS / self._me).unlink()
        os.close(self._held)

    def next(self) -> Attempt | None:
        """The next trial, begun; None if all are settled or in the hands of other processes."""
        import optuna

        with self._alone(), quiet_optuna():
            self._bury()
            taken = {number_of(t) for t in self._trials.get_trials(deepcopy=False) if _is_taken(t)}
            number = next(n for n in range(len(taken) + 1) if n not in taken)
            if number >= self.n_trials:
                return None
            sampler: Any = optuna.samplers.TPESampler(
                seed=seed_of(self.seed, "sampler", number),
                n_startup_trials=max(3, self.n_trials // 4),
                multivariate=True,
            )
            fixed, start = self._tried_before(number), {}
            if number < len(self.starts) and not fixed:
                start = dict(self.starts[number]) if number == 0 else self._best_so_far() | dict(self.starts[number])
                fixed = {key: self.space[key].as_parameter(value) for key, value in start.items()}
            self._trials.sampler = optuna.samplers.PartialFixedSampler(fixed, sampler) if fixed else sampler
            trial = self._trials.ask()
            trial.set_user_attr(NUMBER, number)
            trial.set_user_attr(WORKER, self._me)
            values = {key: domain.suggest(trial, key) for key, domain in self.space.items()} | start
        return Attempt(number, values, number >= len(self.starts), trial)

    def report(self, attempt: Attempt, step: int, value: float) -> bool:
        """Notes how good a trial is after `step` of REPORTS; whether it should stop, as others did better."""
        with quiet_optuna():
            attempt.trial.report(value, step)
            is_behind = step < REPORTS and attempt.trial.should_prune()  # also notes it for the others
        return is_behind and attempt.may_stop

    def finish(self, attempt: Attempt, loss: float | None, notes: Mapping[str, Any]) -> None:
        """Settles a trial: its loss, None where it was stopped; and what else is known of it."""
        from optuna.trial import TrialState

        with self._alone(), quiet_optuna():
            for key, value in notes.items():
                attempt.trial.set_user_attr(key, value)
            if loss is None:
                self._trials.tell(attempt.trial, state=TrialState.PRUNED)
            else:
                self._trials.tell(attempt.trial, loss)

    def fail(self, attempt: Attempt, why: str, seconds: float = 0.0, *, again: bool) -> None:
        """A trial that broke off: it is tried once more if `again`, else that settles it."""
        from optuna.trial import TrialState

        with self._alone(), quiet_optuna():
            before = [t for t in self._trials.get_trials(deepcopy=False) if number_of(t) == attempt.number]
            n_failed = sum("failure" in t.user_attrs for t in before) + 1
            attempt.trial.set_user_attr("failure", why)
            attempt.trial.set_user_attr("seconds", seconds)
            attempt.trial.set_user_attr(SETTLED, not again or n_failed >= ATTEMPTS)
            self._trials.tell(attempt.trial, state=TrialState.FAIL)

    def settled(self) -> list[Trial]:
        """The trials that are over, by number."""
        with quiet_optuna():
            over = [t for t in self._trials.get_trials(deepcopy=False) if _is_settled(t)]
        return sorted(map(self._told, over), key=lambda trial: trial.number)

    def _told(self, trial: FrozenTrial) -> Trial:
        noted = trial.user_attrs
        state: Any = {"COMPLETE": "complete", "PRUNED": "stopped"}.get(trial.state.name, "failed")
        return Trial(
            number_of(trial),
            {key: self.space[key].as_value(given) for key, given in trial.params.items()},
            state,
            trial.value if state == "complete" else None,
            noted.get("scores", {}),
            dict(trial.intermediate_values),
            noted.get("seconds", 0.0),
            noted.get("trained"),
            noted.get("failure", ""),
        )

    def importances(self) -> dict[str, float]:
        """Key -> the share of what made good trials good, by the trials that came to their end; nothing of a few.

        Source: Watanabe et al. 2023, arXiv:2304.10255 (PED-ANOVA).
        """
        import optuna
        from optuna.trial import TrialState

        with quiet_optuna(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            complete = self._trials.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            if len(complete) < FEWEST_TO_WEIGH:
                return {}
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
            found = optuna.importance.get_param_importances(self._trials, evaluator=evaluator)
        return {key: float(share) for key, share in found.items() if np.isfinite(share)}

    @property
    def is_over(self) -> bool:
        """Whether every trial is settled."""
        return len(self.settled()) >= self.n_trials

    def _tried_before(self, number: int) -> dict[str, Any]:
        """What an attempt at this trial was to try, as Optuna knows it; nothing if there was none."""
        attempts = (t for t in self._trials.get_trials(deepcopy=False) if number_of(t) == number)
        return next((dict(t.params) for t in attempts if set(t.params) == set(self.space)), {})

    def _best_so_far(self) -> dict[str, Any]:
        """What the best of the trials that came to their end tried; the first one's, if none did."""
        complete = [(trial.loss, trial.number, trial) for trial in self.settled() if trial.loss is not None]
        if complete:
            return min(complete)[2].values
        return dict(self.starts[0])

    def _told_back(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values as they are known after they were written down: a trial is the same before and after a kill."""
        return {key: self.space[key].as_value(self.space[key].as_parameter(value)) for key, value in values.items()}

    @property
    def is_closed(self) -> bool:
        """Whether a process has chosen the finalists: no trial counts any more."""
        return self.closing.is_file()

    @property
    def closing(self) -> Path:
        """The file that says which trials are finalists."""
        return self.folder / CLOSED

    # ---- finals

    @contextmanager
    def final(self, number: int, seed: int) -> Iterator[bool]:
        """Whether the training of a finalist with this seed is ours to do; another process may be at it."""
        place = self.folder / FINALS
        place.mkdir(exist_ok=True)
        try:
            held = lock(place / f"{number}-{seed}.lock")
        except BlockingIOError:
            yield False
            return
        try:
            yield (number, seed) not in self.finals()
        finally:
            os.close(held)

    def finish_final(self, number: int, seed: int, value: float, notes: Mapping[str, Any]) -> None:
        """Keeps how good a finalist was with a seed."""
        from optuna.trial import create_trial

        with self._alone(), quiet_optuna():
            self._finals.add_trial(create_trial(value=value, user_attrs={NUMBER: number, "seed": seed, **notes}))

    def seconds(self) -> float:
        """Of all trials and finals, in whichever process."""
        with quiet_optuna():
            all_of_them = self._trials.get_trials(deepcopy=False) + self._finals.get_trials(deepcopy=False)
        return float(sum(trial.user_attrs.get("seconds", 0.0) for trial in all_of_them))

    def finals(self) -> dict[tuple[int, int], float]:
        """(number, seed) -> the loss that was found."""
        with quiet_optuna():
            found = self._finals.get_trials(deepcopy=False)
        return {(t.user_attrs[NUMBER], t.user_attrs["seed"]): float(t.value or 0.0) for t in found}

    @contextmanager
    def last(self, waits: Callable[[], None]) -> Iterator[None]:
        """One process after the other; waits is called if there is one before."""
        with alone(self.folder / LAST, waits):
            yield

    # ---- inside

    def _alone(self) -> AbstractContextManager[None]:
        """No other process of this search changes anything meanwhile."""
        return alone(self.folder / QUEUE)

    def _bury(self) -> None:
        """Attempts of processes that died are failed ones; their trials are free again."""
        from optuna.trial import TrialState

        for trial in self._trials.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if self._is_alive(trial.user_attrs.get(WORKER)):
                continue
            same = [t for t in self._trials.get_trials(deepcopy=False) if number_of(t) == number_of(trial)]
            if len(same) >= MOST_DEATHS:  # it ends whoever tries it: no memory, most likely
                storage = self._trials._storage
                storage.set_trial_user_attr(trial._trial_id, "failure", f"its process ended {len(same)} times")
                storage.set_trial_user_attr(trial._trial_id, SETTLED, True)
            self._trials.tell(trial.number, state=TrialState.FAIL)

    def _is_alive(self, worker: str | None) -> bool:
        if worker == self._me:
            return True
        return worker is not None and is_locked(self.folder / WORKERS / worker)


def number_of(trial: FrozenTrial) -> int:
    """Our number of an attempt; -1 where it was not noted before a kill."""
    return int(trial.user_attrs.get(NUMBER, -1))


def _is_settled(trial: FrozenTrial) -> bool:
    from optuna.trial import TrialState

    is_over = trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
    return number_of(trial) >= 0 and (is_over or bool(trial.user_attrs.get(SETTLED)))


def _is_taken(trial: FrozenTrial) -> bool:
    """Settled or running: the dead are buried before it is asked."""
    from optuna.trial import TrialState

    return _is_settled(trial) or (number_of(trial) >= 0 and trial.state == TrialState.RUNNING)


def _file_url(path: Path) -> str:
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
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (OptunaError, SQLAlchemyError) as error:
        told = _without_password(first_line(error.__cause__ or error), url or "")
        raise GateError(
            f"the search's storage failed ({told}). What is done is kept; the same command goes on once it can be "
            f"used."
        ) from None


def _open(url: str, name: str, shown: str, mend: str) -> optuna.Study:
    """The study of this name, made if there is none.

    UserError where the storage cannot be used: of what is shown, and how to mend it.
    """
    import optuna
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        waits = {"connect_args": {"timeout": SQLITE_SECONDS}}
        is_file = url.startswith("sqlite")
        storage = (
            optuna.storages.RDBStorage(url, engine_kwargs=waits) if is_file else optuna.storages.get_storage(url)
        )
        return optuna.create_study(storage=storage, study_name=name, load_if_exists=True, pruner=_halving())
    except (OptunaError, SQLAlchemyError, ImportError, ValueError, RuntimeError, OSError) as error:
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
