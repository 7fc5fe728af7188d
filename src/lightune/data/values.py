"""A table's texts, labels and row numbers as sequences: 3.6 million texts are not 3.6 million Python strings."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

import numpy as np

from lightune.data.scratch import CHUNK_ROWS

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

T = TypeVar("T")


class Values(Sequence[T]):
    """Reads like a list and equals one of the same values; an item becomes a Python object when it is asked for."""

    @abstractmethod
    def take(self, places: Ints) -> Self:
        """The values at `places` (M,), in that order."""

    @abstractmethod
    def tolist(self) -> list[T]:
        """All of them as Python objects."""

    @overload
    def __getitem__(self, at: int) -> T: ...
    @overload
    def __getitem__(self, at: slice) -> Self: ...
    def __getitem__(self, at: int | slice) -> T | Self:
        places = range(len(self))[at]
        if isinstance(places, int):
            return self.take(np.array([places])).tolist()[0]
        return self.take(np.arange(places.start, places.stop, places.step))

    def __iter__(self) -> Iterator[T]:
        for start in range(0, len(self), CHUNK_ROWS):
            yield from self[start : start + CHUNK_ROWS].tolist()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(own == its for own, its in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, eq=False)
class Texts(Values[str]):
    """Cells of an Arrow column, which stay where they lie: in memory or in a mapped file.

    chunks: the column's; starts (C,) the place of each one's first cell; places (N,) which cells, in which order.
    """

    chunks: Sequence[pa.StringArray]
    starts: Ints
    places: Ints

    @classmethod
    def of_column(cls, column: pa.ChunkedArray, places: Ints) -> Texts:
        """The cells at `places` of a column of strings; none of them is missing."""
        chunks = column.chunks
        return cls(chunks, np.cumsum([0, *map(len, chunks)], dtype=np.int64)[:-1], places)

    @classmethod
    def of(cls, texts: Sequence[str]) -> Texts:
        """The same texts."""
        import pyarrow as pa

        if isinstance(texts, Texts):
            return texts
        return cls.of_column(pa.chunked_array([pa.array(texts, pa.string())]), np.arange(len(texts)))

    def __len__(self) -> int:
        return len(self.places)

    def take(self, places: Ints) -> Texts:
        """The texts at `places` (M,), in that order."""
        return replace(self, places=self.places[places])

    def tolist(self) -> list[str]:
        """All of them as strings."""
        which = np.searchsorted(self.starts, self.places, side="right") - 1
        within = self.places - self.starts[which]
        # cell by cell: Arrow's `take` copies the whole column before it takes anything
        return [self.chunks[i][j].as_py() for i, j in zip(which.tolist(), within.tolist(), strict=True)]

    def lengths(self) -> Ints:
        """(N,) characters of each."""
        import pyarrow.compute as pc

        lengths = [pc.fill_null(pc.utf8_length(chunk), 0).to_numpy() for chunk in self.chunks]
        every: Ints = np.concatenate([np.zeros(0, np.int32), *lengths])
        return every[self.places]


@dataclass(frozen=True, eq=False)
class Names(Values[str]):
    """Names of classes: codes (N,) int32, places in `names`, which are all different and may hold some not used."""

    codes: NDArray[np.int32]
    names: Sequence[str]

    @classmethod
    def of(cls, labels: Iterable[str]) -> Names:
        """The same labels."""
        if isinstance(labels, Names):
            return labels
        places: dict[str, int] = {}
        codes = np.fromiter((places.setdefault(label, len(places)) for label in labels), np.int32)
        return cls(codes, list(places))

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, places: Ints) -> Names:
        """The labels at `places` (M,), in that order."""
        return replace(self, codes=self.codes[places])

    def tolist(self) -> list[str]:
        """All of them as strings."""
        return [self.names[code] for code in self.codes.tolist()]

    def counts(self) -> dict[str, int]:
        """Rows of each name that occurs, in the order in which they first do."""
        present, first, n_rows = np.unique(self.codes, return_index=True, return_counts=True)
        return {self.names[present[i]]: int(n_rows[i]) for i in np.argsort(first)}

    def renamed(self, new: Mapping[str, str]) -> Names:
        """The labels with other names, those that `new` has; two names may become one."""
        renamed = Names.of([new.get(name, name) for name in self.names])
        return Names(renamed.codes[self.codes], renamed.names)

    def ids(self, class_names: Sequence[str]) -> Ints:
        """(N,) the place of each label in `class_names`."""
        places = {name: i for i, name in enumerate(class_names)}
        ids = np.zeros(len(self.names), dtype=np.int64)
        for code in np.unique(self.codes):
            ids[code] = places[self.names[code]]
        return ids[self.codes]


@dataclass(frozen=True, eq=False)
class Numbers(Values[int]):
    """Whole numbers, array (N,)."""

    array: Ints

    @classmethod
    def of(cls, numbers: Sequence[int]) -> Numbers:
        """The same numbers."""
        return numbers if isinstance(numbers, Numbers) else cls(np.array(numbers, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.array)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.array, dtype, copy=copy)

    def take(self, places: Ints) -> Numbers:
        """The numbers at `places` (M,), in that order."""
        return Numbers(self.array[places])

    def tolist(self) -> list[int]:
        """All of them."""
        numbers: list[int] = self.array.tolist()
        return numbers
