"""Train, dev and test rows that share no text, the same for the same seed whatever the order of the file.

A row's place is decided by a hash of its normalised text and the seed: copies of a text always land in the
same split, and adding rows to a file does not reshuffle the others.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lightune.data.targets import NUMBER, classes_in, strata
from lightune.data.values import Names, Numbers, Texts
from lightune.errors import UserError, near_match
from lightune.legible import counted
from lightune.recipe import Task
from lightune.records import Decision, Examples, Splits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Keys = NDArray[np.uint64]
    Places = NDArray[np.int64]

TEST_SHARE, TEST_ROWS = 0.2, 2000  # of the source where it has no test split, and at most
DEV_SHARE, DEV_ROWS = 0.1, 500
Size = int | str


def text_key(text: str, seed: int) -> bytes:
    """A hash that is equal for texts that differ only in case, white space or Unicode form."""
    return hashlib.blake2b(f"{seed}\0{normalised(text)}".encode("utf-8", "surrogatepass"), digest_size=8).digest()


def normalised(text: str) -> str:
    """The text without the differences of case, white space and Unicode form."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


@dataclass(frozen=True)
class Pool:
    """N examples with the hash of each text, keys (N,); splits are arrays of places in it."""

    texts: Texts
    labels: Names
    rows: Numbers
    keys: Keys
    strata: Names  # what rows are split in proportion by

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def examples(self) -> Examples:
        """The examples alone."""
        return Examples(self.texts, self.labels, self.rows)

    def pick(self, places: Places) -> Pool:
        """The examples at `places`, in that order."""
        return Pool(
            self.texts.take(places),
            self.labels.take(places),
            self.rows.take(places),
            self.keys[places],
            self.strata.take(places),
        )


def split(
    source: Examples,
    test: Examples | None,
    dev: Examples | None = None,
    *,
    seed: int,
    train_rows: Size = "auto",
    dev_rows: Size = "auto",
    test_rows: Size = "auto",
    most_train_rows: int | None = None,
    most_test_rows: int | None = None,
    most_dev_rows: int | None = None,
    class_names: Sequence[str] | None = None,
    task: Task = "single_label",
) -> Splits:
    """Stratified splits of `source` (and of `test` and `dev`, where they are separate) without a shared text.

    Sizes are rows, "all" or "auto"; most_train_rows and the like cap automatic ones. class_names gives the
    order of the class ids where the source has one. UserError if a split cannot be made.
    """
    pool = _pool(source, seed, task)
    names = _order(classes_in(pool.labels, task), class_names)
    rest, decisions = _without_copies(pool)
    asked: dict[str, int] = {}
    if test is None:
        most = min(TEST_ROWS, most_test_rows or TEST_ROWS)
        asked["test"] = _size("data.test_rows", test_rows, len(rest), TEST_SHARE, most)
        scored, rest, why = _cut_off(pool, rest, "data.test_rows", asked["test"])
        test_keys = scored.keys
        decisions.append(Decision("test rows", f"{len(scored):,}", f"no separate test file; stratified{why}"))
    else:
        separate = _pool(test, seed, task)
        _check_test_classes(names, classes_in(separate.labels, task))
        # leaks are looked for in the whole test split, not only in the rows that are scored
        test_keys = separate.keys
        rest, leaks = _without(pool, rest, test_keys, "test")
        is_capped = test_rows == "auto" and len(test) > (most_test_rows or len(test))
        scored = _subset(separate, most_test_rows or "all" if is_capped else test_rows, "data.test_rows")
        asked["test"] = len(scored) if isinstance(test_rows, str) else test_rows
        decisions += [*leaks, *_repeats(separate)]
        why = "; a first run should end in minutes: --set data.test_rows=all takes all" if is_capped else ""
        decisions += [Decision("test rows", f"{len(scored):,}", f"of {len(test):,} in the test split{why}")]
    guides = None if dev is None else _pool(dev, seed, task)
    own_dev, refused = (None, []) if guides is None else _own_dev(guides, names, pool, rest, test_keys, task)
    decisions += refused
    most_guides = min(DEV_ROWS, most_dev_rows or DEV_ROWS)
    if own_dev is None:
        asked["dev"] = _size("data.dev_rows", dev_rows, len(rest), DEV_SHARE, most_guides)
        guide, rest, why = _cut_off(pool, rest, "data.dev_rows", asked["dev"])
        decisions.append(Decision("dev rows", f"{len(guide):,}", f"the best state is chosen on them{why}"))
    else:
        rest, leaks = _without(pool, rest, own_dev.keys, "dev")
        wanted: Size = min(most_guides, len(own_dev)) if dev_rows == "auto" else dev_rows
        guide = _subset(own_dev, wanted, "data.dev_rows")
        asked["dev"] = len(guide) if isinstance(wanted, str) else wanted
        why = f"of {len(own_dev):,} in the source's own dev split; the best state is chosen on them"
        decisions += [*leaks, Decision("dev rows", f"{len(guide):,}", why)]
    rest, asked["train"] = _training_rows(pool, rest, train_rows, most_train_rows, decisions)
    train = pool.pick(rest)
    decisions += [*_absent_classes("train", names, train, task), *_absent_classes("test", names, scored, task)]
    return Splits(train.examples, guide.examples, scored.examples, names, decisions, asked, task)


def _cut_off(pool: Pool, rest: Places, key: str, wanted: int) -> tuple[Pool, Places, str]:
    """Rows held out of `rest`, what remains, and a remark where it could not be just as many as asked."""
    taken, rest = _take(pool, rest, wanted, key)
    return pool.pick(taken), rest, _instead_of(wanted, len(taken))


def _own_dev(
    dev: Pool, names: Sequence[str], pool: Pool, rest: Places, test_keys: Keys, task: Task
) -> tuple[Pool | None, list[Decision]]:
    """The rows of a source's own dev split that are in no test split; None, with the reason, if it is no guide."""
    clean = dev.pick(np.flatnonzero(~_are_in(dev.keys, test_keys)))
    shared = len(dev) - len(clean)
    why = ""
    if unseen := sorted(classes_in(dev.labels, task).keys() - set(names)):
        why = f"it has labels that no training row has: {unseen[:5]}"
    elif shared * 2 > len(dev):
        why = f"{shared:,} of its {len(dev):,} texts are in the test split too"
    elif 2 * int(_are_in(pool.keys[rest], clean.keys).sum()) > len(rest):
        why = "it holds most of the training rows"
    if why:
        return None, [Decision("dev split", "not used", why)]
    dropped = [Decision("leaks", f"{counted(shared, 'dev row')} dropped", "their text is in the test split too")]
    return clean, dropped if shared else []


def _subset(pool: Pool, asked: Size, key: str) -> Pool:
    """All rows of a separate split, or `asked` of them, stratified. UserError if it has fewer."""
    if asked in ("auto", "all") or int(asked) == len(pool):
        return pool
    if int(asked) > len(pool):
        raise UserError(f"{key} = {asked}: the split has {len(pool):,} rows. Ask for fewer, or leave it out.")
    return pool.pick(_take(pool, np.arange(len(pool)), int(asked), key)[0])


def _instead_of(asked: int, got: int) -> str:
    return "" if asked == got else f"; {asked:,} asked, but each class has one at least and leaves one at least"


def _pool(examples: Examples, seed: int, task: Task) -> Pool:
    assert examples.labels is not None, "only labelled examples are split"
    keys = (int.from_bytes(text_key(text, seed), "big") for text in examples.texts)  # in the order of their bytes
    labels = Names.of(examples.labels)
    return Pool(
        Texts.of(examples.texts),
        labels,
        Numbers.of(examples.rows),
        np.fromiter(keys, np.uint64, len(examples)),
        strata(labels, task),
    )


def _without_copies(pool: Pool) -> tuple[Places, list[Decision]]:
    """The first row of each text and label."""
    order = np.lexsort((pool.labels.codes, pool.keys))  # stable: equal rows stay in the order of the source
    is_new_text = _differs(pool.keys[order])
    is_first = is_new_text | _differs(pool.labels.codes[order])
    kept = np.sort(order[is_first])
    copies = len(pool) - len(kept)
    found = []
    if copies:
        why = "same text and label as an earlier row; kept once, so that no text is in two splits"
        found.append(Decision("duplicates", f"{counted(copies, 'row')} dropped", why))
    contradictions = len(kept) - int(is_new_text.sum())
    if contradictions:
        found.append(Decision("contradictions", f"{contradictions:,} texts", "the same text under several labels"))
    return kept, found


def _differs(ordered: NDArray[np.generic]) -> NDArray[np.bool_]:
    """(N,) whether each value is another than the one before it."""
    return np.concatenate([np.ones(min(1, len(ordered)), bool), ordered[1:] != ordered[:-1]])


def _are_in(keys: Keys, others: Keys) -> NDArray[np.bool_]:
    """(N,) whether each of `keys` is among `others`, in a fraction of the memory that np.isin takes."""
    if not len(others):
        return np.zeros(len(keys), bool)
    others = np.sort(others)
    places = np.minimum(np.searchsorted(others, keys), len(others) - 1)
    found: NDArray[np.bool_] = others[places] == keys
    return found


def _repeats(test: Pool) -> list[Decision]:
    """Texts that a separate test split holds more than once: they are scored as they come."""
    repeats = len(test) - len(np.unique(test.keys))
    why = "a text that stands there already; each is scored, and the intervals take them for different ones"
    return [Decision("test copies", f"{repeats:,} rows", why)] if repeats else []


def _without(pool: Pool, rest: Places, seen: Keys, other: str) -> tuple[Places, list[Decision]]:
    """`rest` without the rows whose text is in the `other` split. UserError if that is most of them."""
    clean = rest[~_are_in(pool.keys[rest], seen)]
    leaks = len(rest) - len(clean)
    if leaks * 2 > len(rest):
        raise UserError(
            f"{leaks:,} of {len(rest):,} training rows are in the {other} split too: is it the same data? Give "
            f"other rows for it, or leave it out to have some held out."
        )
    why = f"their text is in the {other} split too"
    return clean, [Decision("leaks", f"{counted(leaks, 'training row')} dropped", why)] if leaks else []


def _order(labels: Iterable[str], given: Sequence[str] | None) -> list[str]:
    """The source's own order, else numbers by value and words by alphabet."""
    present = set(labels)
    if given:
        return [name for name in given if name in present]
    if all(NUMBER.fullmatch(name) for name in present):
        return sorted(present, key=lambda name: (float(name), name))
    return sorted(present, key=lambda name: (name.casefold(), name))


def _check_test_classes(names: Sequence[str], counts: Mapping[str, int]) -> None:
    unseen = {name: n for name, n in counts.items() if name not in names}
    if unseen:
        seen = ", ".join(f"{name!r} ({n:,})" for name, n in sorted(unseen.items())[:10])
        raise UserError(
            f"the test split has {len(unseen)} label(s) that no training row has: {seen}."
            f"{near_match(min(unseen), names)} Training labels: {', '.join(map(repr, names[:10]))}."
        )


def _size(key: str, asked: Size, available: int, share: float, most: int) -> int:
    if asked == "all":
        raise UserError(f"{key} = 'all': nothing would be left to train on. Give a number of rows.")
    wanted = min(most, max(2, round(available * share))) if asked == "auto" else int(asked)
    if wanted > available - 2:
        fix = "Label some more." if asked == "auto" else "Ask for fewer."
        raise UserError(f"{key} = {asked!r}: only {available:,} different rows, and some must be left. {fix}")
    return wanted


def _take(pool: Pool, places: Places, wanted: int, key: str) -> tuple[Places, Places]:
    """`wanted` of `places`, each class in proportion, in the order of their hashes; and those that remain."""
    by_class, sizes = _by_class(pool, places)
    counts = _proportions(sizes, wanted)
    if sum(counts.values()) < 1:
        numbers = all(NUMBER.fullmatch(name) for name in sizes)
        hint = " To predict them as numbers: --task regression." if numbers and len(sizes) > 2 else ""
        raise UserError(f"{key}: {len(places)} rows of {len(sizes)} classes are too few to split.{hint}")
    is_taken = np.concatenate([np.arange(size) < counts[name] for name, size in sizes.items()])
    taken, rest = by_class[is_taken], by_class[~is_taken]
    # a text under two labels can straddle the cut: its other rows go nowhere
    rest = rest[~_are_in(pool.keys[rest], pool.keys[taken])]
    return _by_key(pool, taken), _by_key(pool, rest)


def _by_key(pool: Pool, places: Places) -> Places:
    """`places` in the order of their hashes; equal ones stay in the order they are in."""
    return places[np.argsort(pool.keys[places], kind="stable")]


def _by_class(pool: Pool, places: Places) -> tuple[Places, dict[str, int]]:
    """`places` class after class, each in the order of their hashes, and the rows of each class in that order.

    The class of the lowest hash comes first: it decides the order of rows that share a text.
    """
    ordered = _by_key(pool, places)
    codes = pool.strata.codes[ordered]
    present, first = np.unique(codes, return_index=True)
    present = present[np.argsort(first)]
    rank = np.zeros(len(pool.strata.names), np.int32)
    rank[present] = np.arange(len(present))
    names = [pool.strata.names[code] for code in present]
    sizes = np.bincount(rank[codes], minlength=len(present)).tolist()
    return ordered[np.argsort(rank[codes], kind="stable")], dict(zip(names, sizes, strict=True))


def _proportions(sizes: dict[str, int], wanted: int) -> dict[str, int]:
    """Rows of each class: in proportion, summing to `wanted`, one at least from 3 up, one at least left."""
    total = sum(sizes.values())
    exact = {name: wanted * size / total for name, size in sizes.items()}
    counts = {name: min(size - 1, max(int(exact[name]), int(size >= 3))) for name, size in sizes.items()}
    by_remainder = sorted(sizes, key=lambda name: (counts[name] - exact[name], name))
    short = wanted - sum(counts.values())
    while short > 0 and (growable := [name for name in by_remainder if counts[name] < sizes[name] - 1]):
        for name in growable[:short]:
            counts[name] += 1
            short -= 1
    return counts


def _training_rows(
    pool: Pool, rest: Places, asked: Size, most: int | None, decisions: list[Decision]
) -> tuple[Places, int]:
    """The rows to train on, and how many were wanted."""
    limit = len(rest) if asked == "all" else (most or len(rest)) if asked == "auto" else int(asked)
    if asked not in ("auto", "all") and limit > len(rest):
        raise UserError(f"data.train_rows = {asked}: only {len(rest):,} rows are left after test and dev.")
    train = _take(pool, rest, limit, "data.train_rows")[0] if limit < len(rest) else rest
    why = f"of {len(rest):,} that are left" + ("" if limit >= len(rest) else _instead_of(limit, len(train)))
    if asked == "auto" and limit < len(rest):
        why += "; a first run should end in minutes: --set data.train_rows=all takes all"
    decisions.append(Decision("training rows", f"{len(train):,}", why))
    return train, min(limit, len(rest))


def _absent_classes(where: str, names: Sequence[str], part: Pool, task: Task) -> list[Decision]:
    present = classes_in(part.labels, task)
    absent = [name for name in names if name not in present]
    shown = ", ".join(map(repr, absent[:5]))
    return [Decision(f"classes not in {where}", shown, "none of their rows is there")] if absent else []
