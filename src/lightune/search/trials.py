"""The trials and the finals: who trains what, and what is kept of it. Other processes may train some."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lightune.artifact.claimed import ELSEWHERE, read_object, write_once
from lightune.artifact.folder import DISK, replacing
from lightune.errors import GateError, UserError, first_line
from lightune.evidence.calibration import calibrate
from lightune.evidence.decisions import scale_of
from lightune.evidence.seeds import Between, between_seeds
from lightune.recipe import Recipe
from lightune.search.bench import Bench, Stopped, Tried
from lightune.search.folder import SEEDS
from lightune.search.outcome import best_by_mean, expected_luck
from lightune.search.space import with_values
from lightune.search.storage import failures_of_storage
from lightune.search.study import ATTEMPTS, COUNTED, FINALS, Attempt, Study, Trial, seed_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

BASE = -1  # the number of the recipe as it is, where no trial is that
POLL_SECONDS = 0.5  # between looks at what other processes do


@dataclass(frozen=True)
class Finalist:
    """A recipe that is trained again with fresh seeds. values: what it sets; nothing: the recipe as it is."""

    number: int
    values: dict[str, Any]
    recipe: Recipe

    @property
    def name(self) -> str:
        """In words."""
        return f"trial {self.number + 1}" if self.values else "the recipe as it is"


Losses = dict[int, dict[int, float]]  # number of a finalist -> seed -> its loss


@dataclass(frozen=True)
class Final:
    """What came of a finalist with a fresh seed: its loss, infinite where it failed, and why it did."""

    loss: float
    scores: Mapping[str, float]
    why: str = ""


def try_all(
    study: Study,
    bench: Bench,
    recipe: Recipe,
    n_rows: int,
    deadline: float | None,
    tell: Callable[[Attempt, Trial | None, str], None],
    waits: Callable[[str], None],
) -> None:
    """Runs trials until all are settled, here or in other processes, or the deadline, in monotonic time, is over.

    tell gets each trial when it begins, and when it is over what came of it, None where it is tried once more. waits
    is told what other processes are at, while there is nothing else to do. What the disk or the storage refuses ends
    it: that is no fault of a recipe.
    """
    while not study.is_over and not study.is_closed:
        if deadline is not None and time.monotonic() > deadline and any(t.loss is not None for t in study.settled()):
            return
        attempt = study.next()
        if attempt is None:
            waits("the last trials")
            time.sleep(POLL_SECONDS)
            continue
        tell(attempt, None, "")
        why = _try(study, attempt, bench, recipe, n_rows)
        over = next((t for t in study.settled() if t.number == attempt.number), None)
        if over is None and study.is_closed:
            waits(f"the finals: it chose the finalists before trial {attempt.number + 1} was over")
        else:
            tell(attempt, over, why)


def _try(study: Study, attempt: Attempt, bench: Bench, recipe: Recipe, n_rows: int) -> str:
    """One trial, to its end or as far as it gets; why it failed, if it did."""
    started, why = time.monotonic(), ""
    try:
        tried = bench.train(
            with_values(recipe, attempt.values),
            n_rows,
            seed=seed_of(recipe.seed, "trial", attempt.number),
            on_stage=lambda stage, loss: study.report(attempt, stage, loss),
        )
    except Stopped:
        study.finish(attempt, None, {"seconds": time.monotonic() - started})
    except (UserError, GateError) as error:  # what this recipe cannot do, it cannot do again
        why = str(error)
        study.fail(attempt, why, time.monotonic() - started, again=False)
    except Exception as error:  # whatever torch, PEFT or the memory say about one recipe, the others go on
        if isinstance(error, failures_of_storage()) or (isinstance(error, OSError) and error.errno in DISK):
            raise
        why = f"{type(error).__name__}: {first_line(error)}"
        study.fail(attempt, why, time.monotonic() - started, again=True)
    else:
        if not math.isfinite(tried.loss):
            why = f"its loss is {tried.loss}"
            study.fail(attempt, why, tried.seconds, again=False)
        else:
            notes = {"seconds": tried.seconds, "scores": tried.scores, "trained": tried.trained}
            study.finish(attempt, tried.loss, notes)
    return why


def choose_finalists(study: Study, recipe: Recipe, n_best: int) -> list[Finalist]:
    """The recipe as it is, and the best trials: those that the first process to come here has chosen.

    GateError if no trial came to its end.
    """
    settled = study.settled()
    complete = [trial for trial in settled if trial.loss is not None]
    if not complete and study.is_closed:
        raise UserError(f"{study.folder}: finalists were chosen, but their trials are gone. {ELSEWHERE}")
    if not complete:
        failures = sorted({trial.why for trial in settled})
        told = "; ".join(failures)[:500] or "none was run"
        raise GateError(f"no trial came to its end: {told}. None is tried again in this folder. {ELSEWHERE}")
    base = Finalist(0 if study.starts else BASE, {}, recipe)
    known, best = list(study.starts[:1]), []
    for trial in sorted(complete, key=lambda trial: (trial.loss, trial.number)):
        if trial.values not in known:
            known.append(trial.values)
            best.append(trial.number)
    counted = [trial.number for trial in settled]
    chosen, _ = write_once(study.closing, {"finalists": best[:n_best], COUNTED: counted})
    if not isinstance(chosen.get("finalists"), list):
        raise UserError(f"{study.closing}: cannot be read. {ELSEWHERE}")
    values = {trial.number: trial.values for trial in study.settled()}  # those that the first process has counted
    if gone := [number for number in chosen["finalists"] if number not in values]:
        raise UserError(f"{study.folder}: trial {gone[0]} was chosen, and is gone. {ELSEWHERE}")
    return [
        base,
        *(Finalist(number, values[number], with_values(recipe, values[number])) for number in chosen["finalists"]),
    ]


@dataclass(frozen=True)
class Chosen:
    """The finals: who took part, the recipe as it is first, what each lost, who won, and how much of it is chance.

    luck: by how much the best of the trials would look better than it is, had all been equal.
    """

    finalists: Sequence[Finalist]
    losses: Losses
    winner: Finalist
    luck: float
    between: Between


def choose_winner(finalists: Sequence[Finalist], losses: Losses, between: Between, trials: Sequence[Trial]) -> Chosen:
    """The best by the mean over fresh seeds, of those that came out of `trials`."""
    number, n_tried = best_by_mean(losses), sum(trial.state != "failed" for trial in trials)
    winner = next(each for each in finalists if each.number == number)
    return Chosen(finalists, losses, winner, expected_luck(losses, n_tried), between)


def train_finalists(
    study: Study,
    bench: Bench,
    finalists: Sequence[Finalist],
    seeds: Sequence[int],
    n_rows: int,
    deadline: float | None,
    tell: Callable[[Finalist, int, Final], None],
    waits: Callable[[str], None],
) -> Losses:
    """The loss of every finalist with every seed, trained in any process; tell gets those that this one trains.

    deadline: in monotonic time; after it the seeds that all finalists have are enough. One finalist alone, whom
    nobody can beat, is trained once.
    """
    seeds = _counted(study) or (seeds if len(finalists) > 1 else seeds[:1])
    while missing := _missing(study, finalists, seeds):
        whole = [seed for seed in seeds if all(seed != at for _, at in missing)]
        if whole and deadline is not None and time.monotonic() > deadline:
            break
        is_idle = True
        for finalist, seed in missing:
            with study.final(finalist.number, seed) as is_ours:
                if is_ours:
                    tell(finalist, seed, _final(study, bench, finalist, seed, n_rows))
                    is_idle = False
                    break
        if is_idle:
            waits("the last finals")
            time.sleep(POLL_SECONDS)
    found = study.finals()
    whole = [seed for seed in seeds if all((each.number, seed) in found for each in finalists)]
    write_once(study.folder / SEEDS, {"seeds": whole})
    found = study.finals()  # the first process may have had more than we had just now
    return {each.number: {seed: found[each.number, seed] for seed in _counted(study)} for each in finalists}


def _counted(study: Study) -> list[int]:
    """The seeds that the first process had when its time for finals was over; none while there is no such process."""
    path = study.folder / SEEDS
    if not path.is_file():
        return []
    counted = read_object(path).get("seeds")
    if not isinstance(counted, list) or not counted or not all(isinstance(seed, int) for seed in counted):
        raise UserError(f"{path}: cannot be read. {ELSEWHERE}")
    return counted


def _missing(study: Study, finalists: Sequence[Finalist], seeds: Sequence[int]) -> list[tuple[Finalist, int]]:
    """What is not trained yet, all finalists with one seed before the next seed."""
    found = study.finals()
    return [(each, seed) for seed in seeds for each in finalists if (each.number, seed) not in found]


def _final(study: Study, bench: Bench, finalist: Finalist, seed: int, n_rows: int) -> Final:
    """What came of a finalist with a seed, kept, its logits, too."""
    tried, why = _trained(bench, finalist, seed, n_rows)
    if tried:
        _keep(_place(study, finalist, seed), tried.logits)
    final = Final(tried.loss, tried.scores) if tried and not why else Final(math.inf, {}, why)
    study.finish_final(finalist.number, seed, final.loss, why)
    return final


def _trained(bench: Bench, finalist: Finalist, seed: int, n_rows: int) -> tuple[Tried | None, str]:
    """A training of a finalist, and what is wrong with it; None where it fails as often as a trial may."""
    why = ""
    for _ in range(ATTEMPTS):
        try:
            tried = bench.train(finalist.recipe, n_rows, seed=seed)
            return tried, "" if math.isfinite(tried.loss) else f"its loss is {tried.loss}"
        except (UserError, GateError) as error:  # what this recipe cannot do, it cannot do again
            return None, str(error)
        except Exception as error:  # another process may have had the memory
            if isinstance(error, OSError) and error.errno in DISK:
                raise
            why = f"{type(error).__name__}: {first_line(error)}"
    return None, why


def seeds_apart(study: Study, bench: Bench, finalists: Sequence[Finalist], losses: Losses, n_rows: int) -> Between:
    """How far apart the seeds of a finalist are, in what verdicts are told in."""
    answers = {}
    for finalist in finalists:
        seeds = losses[finalist.number]
        if not all(map(math.isfinite, seeds.values())):
            continue
        _, rows = bench.rows(finalist.recipe, n_rows)
        y, scale = rows["dev"].y, scale_of(rows["train"].y)
        several = [_kept(_place(study, finalist, seed)) for seed in seeds]
        answers[finalist.number] = [_answers(y, logits, finalist.recipe, bench, scale) for logits in several]
    if not answers:
        raise GateError(
            f"no finalist could be trained with fresh seeds: {'; '.join(study.why_finals_failed())[:500]}. None is "
            f"tried again in this folder. Try lower learning rates in [search], with another --output."
        )
    return between_seeds(y, answers, bench.recipe.seed)


def _answers(y: NDArray[Any], logits: NDArray[np.float64], recipe: Recipe, bench: Bench, scale: Any) -> NDArray[Any]:
    readout = calibrate(y, logits, recipe.evidence, scale).readout(bench.splits.task)
    return readout.answers(readout.probabilities(logits))


def _place(study: Study, finalist: Finalist, seed: int) -> Path:
    return study.folder / FINALS / f"{finalist.number}-{seed}.npy"


def _kept(path: Path) -> NDArray[np.float64]:
    """The logits that were written. UserError if they are gone."""
    try:
        return np.load(path, allow_pickle=False)  # type: ignore[no-any-return]
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: cannot be read ({first_line(error)}). {ELSEWHERE}") from None


def _keep(path: Path, logits: NDArray[np.float64]) -> None:
    """Writes the logits in one step: a kill leaves nothing half done under their name."""
    with replacing(path) as part, part.open("wb") as file:
        np.save(file, logits, allow_pickle=False)
