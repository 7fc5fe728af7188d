"""The search's memory: an Optuna study that outlives its processes, and that several of them may share.

A trial of ours has a number of its own. Whatever number Optuna gives to an attempt at it, its values and its seed
follow from ours: after a kill the same number is tried again, and the search goes on as if nothing had happened.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lightune.artifact.claimed import ELSEWHERE, read_object
from lightune.artifact.folder import alone, is_locked, lock
from lightune.search.folder import CLOSED
from lightune.search.space import Space
from lightune.search.storage import FAILURE, NO_STORAGE, file_url, open_study, quiet_optuna, told_storage

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

DATABASE, WORKERS, QUEUE, LAST = "search.db", "workers", "queue.lock", "last.lock"
NAME, FINALS = "trials", "finals"  # the two studies
NUMBER, WORKER, SETTLED = "number", "worker", "settled"  # what is noted at an attempt
SECONDS = re.compile(r"[0-9]+\.[0-9]+")  # since the epoch
MARK = re.compile(rf"{SECONDS.pattern}-[0-9a-f]+")  # the name of a process: since when, and which
COUNTED = "trials"  # in the file of the finalists: those that had ended then
REPORTS = 3  # evaluations of a trial, at equal distances
ATTEMPTS = 2  # at a trial that fails
MOST_DEATHS = 10  # of processes at one trial
FEWEST_TO_WEIGH = 5  # trials, for a word on which keys matter


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
    are never pruned. name: of the search in a storage that others use, too. began: this process, in seconds since the
    epoch; now by default.
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
        began: float | None = None,
    ):
        self.folder, self.space, self.n_trials, self.seed = folder, space, n_trials, seed
        self.starts = [self._told_back(start) for start in starts][:n_trials]
        (folder / WORKERS).mkdir(parents=True, exist_ok=True)
        self._me = f"{time.time() if began is None else began:.3f}-{uuid.uuid4().hex}"
        # until this process ends, however it ends; another may be looking whether it is alive just now
        self._held = lock(folder / WORKERS / self._me, wait=True)
        self.seen()
        url = storage or file_url(folder / DATABASE)
        prefix = f"lightune-{name}-" if storage else ""  # of the search, wherever its folder is moved to
        of = (told_storage(url), NO_STORAGE) if storage else (str(folder / DATABASE), ELSEWHERE)
        with self._alone(), quiet_optuna():
            self._trials, self._finals = open_study(url, prefix + NAME, *of), open_study(url, prefix + FINALS, *of)

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """This process takes no more part; its mark stays, which says from when to when it did."""
        self.seen()
        os.close(self._held)
        self._held = -1

    def seen(self) -> None:
        """This process is still at it, or was until now."""
        os.pwrite(self._held, f"{time.time():.3f}".encode(), 0)

    def spent(self) -> float:
        """Seconds in which at least one process was at this search, of a killed one up to the last that is known."""
        self.seen()
        names = (mark.name for mark in (self.folder / WORKERS).iterdir())
        spans = []
        for name in filter(MARK.fullmatch, names):
            seen = (self.folder / WORKERS / name).read_text(encoding="utf-8")
            if SECONDS.fullmatch(seen):  # nothing yet of a process that is just beginning
                spans.append((float(name.partition("-")[0]), float(seen)))
        return covered(spans)

    def n_alive(self) -> int:
        """Processes that take part now, this one included."""
        others = (mark for mark in (self.folder / WORKERS).iterdir() if mark.name != self._me)
        return 1 + sum(is_locked(mark) for mark in others)

    def next(self) -> Attempt | None:
        """The next trial, begun; None if all are settled or in the hands of other processes."""
        import optuna

        with self._alone(), quiet_optuna():
            self._bury()
            taken = {our_number(t) for t in self._trials.get_trials(deepcopy=False) if _is_taken(t)}
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
        self.seen()
        with quiet_optuna():
            attempt.trial.report(value, step)
            is_behind = step < REPORTS and attempt.trial.should_prune()  # also notes it for the others
        return is_behind and attempt.may_stop

    def finish(self, attempt: Attempt, loss: float | None, notes: Mapping[str, Any]) -> None:
        """Settles a trial: its loss, None where it was stopped; and what else is known of it."""
        from optuna.trial import TrialState

        self.seen()
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

        self.seen()
        with self._alone(), quiet_optuna():
            before = [t for t in self._trials.get_trials(deepcopy=False) if our_number(t) == attempt.number]
            n_failed = sum(FAILURE in t.user_attrs for t in before) + 1
            is_settled = not again or n_failed >= ATTEMPTS
            attempt.trial.set_user_attr(FAILURE, why)
            attempt.trial.set_user_attr("seconds", seconds)
            attempt.trial.set_user_attr(SETTLED, is_settled)
            # as one that was stopped, the sampler keeps away from it; what fails to Optuna it passes over
            self._trials.tell(attempt.trial, state=TrialState.PRUNED if is_settled else TrialState.FAIL)

    def settled(self) -> list[Trial]:
        """The trials that are over, by number; once the finalists are chosen, those that were over then."""
        with quiet_optuna():
            over = [t for t in self._trials.get_trials(deepcopy=False) if _is_settled(t)]
        counted = read_object(self.closing).get(COUNTED) if self.is_closed else None
        told = [self._told(trial) for trial in over if counted is None or our_number(trial) in counted]
        return sorted(told, key=lambda trial: trial.number)

    def _told(self, trial: FrozenTrial) -> Trial:
        noted = trial.user_attrs
        state: Any = {"COMPLETE": "complete", "PRUNED": "stopped"}.get(trial.state.name)
        state = "failed" if FAILURE in noted else state
        return Trial(
            our_number(trial),
            {key: self.space[key].as_value(given) for key, given in trial.params.items()},
            state,
            trial.value if state == "complete" else None,
            noted.get("scores", {}),
            dict(trial.intermediate_values),
            noted.get("seconds", 0.0),
            noted.get("trained"),
            noted.get(FAILURE, ""),
        )

    def importances(self) -> dict[str, float]:
        """Key -> the share of what made good trials good, by the trials that came to their end; nothing of a few.

        Source: Watanabe et al. 2023, arXiv:2304.10255 (PED-ANOVA).
        """
        import optuna
        from optuna.trial import TrialState

        counted = {trial.number for trial in self.settled()}
        with quiet_optuna(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            complete = self._trials.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            complete = [trial for trial in complete if our_number(trial) in counted]
            if len(complete) < FEWEST_TO_WEIGH:
                return {}
            weighed = optuna.create_study()
            weighed.add_trials(complete)
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
            found = optuna.importance.get_param_importances(weighed, evaluator=evaluator)
        return {key: float(share) for key, share in found.items() if np.isfinite(share)}

    @property
    def is_over(self) -> bool:
        """Whether every trial is settled."""
        return len(self.settled()) >= self.n_trials

    def _tried_before(self, number: int) -> dict[str, Any]:
        """What an attempt at this trial was to try, as Optuna knows it; nothing if there was none."""
        attempts = (t for t in self._trials.get_trials(deepcopy=False) if our_number(t) == number)
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

    def finish_final(self, number: int, seed: int, value: float, why: str = "") -> None:
        """Keeps how good a finalist was with a seed; why: it failed."""
        from optuna.trial import create_trial

        self.seen()
        with self._alone(), quiet_optuna():
            noted = {NUMBER: number, "seed": seed, FAILURE: why}
            self._finals.add_trial(create_trial(value=value, user_attrs=noted))

    def why_finals_failed(self) -> list[str]:
        """What is wrong with finals that failed, each thing once."""
        with quiet_optuna():
            found = self._finals.get_trials(deepcopy=False)
        return sorted({why for trial in found if (why := trial.user_attrs.get(FAILURE))})

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
            same = [t for t in self._trials.get_trials(deepcopy=False) if our_number(t) == our_number(trial)]
            is_settled = bool(trial.user_attrs.get(SETTLED))
            if len(same) >= MOST_DEATHS:  # it ends whoever tries it: no memory, most likely
                storage, is_settled = self._trials._storage, True
                storage.set_trial_user_attr(trial._trial_id, FAILURE, f"its process ended {len(same)} times")
                storage.set_trial_user_attr(trial._trial_id, SETTLED, True)
            self._trials.tell(trial.number, state=TrialState.PRUNED if is_settled else TrialState.FAIL)

    def _is_alive(self, worker: str | None) -> bool:
        if worker == self._me:
            return True
        return worker is not None and is_locked(self.folder / WORKERS / worker)


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """The length of what intervals, each from and to, cover together."""
    total, reached = 0.0, -math.inf
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def our_number(trial: FrozenTrial) -> int:
    """Our number of an attempt; -1 where it was not noted before a kill."""
    return int(trial.user_attrs.get(NUMBER, -1))


def _is_settled(trial: FrozenTrial) -> bool:
    from optuna.trial import TrialState

    is_over = trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
    return our_number(trial) >= 0 and (is_over or bool(trial.user_attrs.get(SETTLED)))


def _is_taken(trial: FrozenTrial) -> bool:
    """Settled or running: the dead are buried before it is asked."""
    from optuna.trial import TrialState

    return _is_settled(trial) or (our_number(trial) >= 0 and trial.state == TrialState.RUNNING)
