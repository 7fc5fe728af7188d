"""What a check is given, and what it may say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from lightune.doctor.findings import Fix, Severity
from lightune.doctor.patient import Patient
from lightune.doctor.reading import Readings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lightune.doctor.embedded import Embed
    from lightune.doctor.tokenised import Tokeniser

    Bools = NDArray[np.bool_]
    Ints = NDArray[np.int64]

SHOWN, MOST_SHOWN = 5, 60  # names in a sentence, and characters of each


@dataclass(frozen=True)
class Symptom:
    """What a check found: how bad, how many, in words, at which places, and what --fix does; label: the right one."""

    severity: Severity
    count: int
    what: str
    places: Ints | Sequence[int] = ()
    fix: Fix | None = None
    label: str | None = None


@dataclass
class Exam:
    """What a check works on: the patient, what was read of each row, and a place for what it could not look at.

    group: a column that says what a row is about; embed, tokeniser: of a base model, where one was named.
    """

    patient: Patient
    readings: Readings
    seed: int = 0
    group: str | None = None
    embed: Embed | None = None
    tokeniser: Callable[[], Tokeniser] | None = None
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def rng(self) -> np.random.Generator:
        """A fresh generator: what a check draws does not depend on the others."""
        return np.random.default_rng(self.seed)

    @property
    def labelled(self) -> Bools:
        """(N,) rows that have a label."""
        names = self.patient.labels.names
        labelled: Bools = self.patient.labels.codes != (names.index("") if "" in names else -1)
        return labelled

    @property
    def usable(self) -> Bools:
        """(N,) rows that have a text and a label."""
        usable: Bools = self.labelled & ~self.readings.flags["blank"]
        return usable

    def sample(self, most: int) -> Ints:
        """At most so many places of usable rows of the training split, in order."""
        places = np.flatnonzero(self.usable & (self.patient.split_of == 0))
        return places if len(places) <= most else np.sort(self.rng.permutation(places)[:most])


def share(count: int, whole: int) -> str:
    """ "3 of 200 rows (1.5 %)"."""
    return f"{count:,} of {whole:,} rows ({percent(count / max(1, whole))})"


def percent(part: float) -> str:
    """ "1.5 %", of a part of 1."""
    value = 100 * part
    return f"{value:{'.2g' if value < 99 else '.4g'}} %"


def quoted(name: str, written: Callable[[str], str] = repr) -> str:
    """A name as it stands in a sentence: of a long one the beginning and the end."""
    return written(name if len(name) <= MOST_SHOWN else f"{name[: MOST_SHOWN - 10]}…{name[-9:]}")
