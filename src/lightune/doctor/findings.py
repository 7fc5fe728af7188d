"""What the doctor found: the shape of doctor.json; its JSON Schema is published in schemas/doctor.schema.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Fix = Literal["drop", "relabel", "retext"]
Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
MOST_ROWS = 1000  # that a finding names
ROWS_ONLY = "rows only"  # ends the reason why a check was made in part


class Strict(BaseModel):
    """Base of the parts: nothing unknown, no NaN."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class Example(Strict):
    """A row that a finding is about, cut to a line, with invisible characters as escapes."""

    row: int = Field(description="from 0")
    label: str
    text: str


class Finding(Strict):
    """One thing that is wrong: what, how many, where, why it matters, what to do."""

    check: str = Field(description="the row of CHECKS that found it")
    severity: Severity
    count: int = Field(description="rows, or what `what` names")
    what: str
    why: str
    do: str
    rows: dict[str, list[int]] = Field(
        {}, description=f"split -> row numbers from 0, of the first {MOST_ROWS:,} rows that it is about"
    )
    fix: Fix | None = Field(None, description="what --fix does about it")
    examples: dict[str, list[Example]] | None = Field(
        None, description="split -> the first few of the rows, where texts were asked for; else null"
    )


class Diagnosis(Strict):
    """All that was found in a data source."""

    format_version: Literal[1] = 1
    lightune: str
    source: str
    digest: str = Field(description="sha256 of the source as it was read")
    text: str
    pair: str | None = Field(None, description="the second text, where there are two")
    label: str
    rows: dict[str, int] = Field(description="split -> rows")
    findings: list[Finding]
    left_out: dict[str, str] = Field(description="check -> why it was not made, or on how many rows only")
    seconds: float

    def about(self, check: str) -> list[Finding]:
        """What a check found."""
        return [each for each in self.findings if each.check == check]

    def in_words(self, check: str) -> str:
        """What a check found, or why it was not made."""
        said = [each.what for each in self.about(check)]
        return "; ".join(said) or self.left_out.get(check, "none found")

    def followed_up(self, check: str, found: Sequence[Finding], why: str | None = None) -> Diagnosis:
        """With what a check found that had been left out, or with why it could not be made after all."""
        left_out = {name: reason for name, reason in self.left_out.items() if name != check}
        left_out |= {} if why is None else {check: why}
        return self.model_copy(update={"findings": [*self.findings, *found], "left_out": left_out})

    def worst(self) -> Severity | None:
        """The highest severity among the findings."""
        return min((each.severity for each in self.findings), key=SEVERITIES.index, default=None)

    def is_of_sample(self) -> bool:
        """Whether some checks looked at a part of the rows."""
        return any(why.endswith(ROWS_ONLY) for why in self.left_out.values())
