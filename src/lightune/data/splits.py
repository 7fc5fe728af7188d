"""Train, dev and test rows that share no text, the same for the same seed whatever the order of the file.

A row's place is decided by a hash of its normalised text and the seed: copies of a text always land in the
same split, and adding rows to a file does not reshuffle the others.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lightune.errors import UserError, near_match
from lightune.records import Decision, Examples, Splits

TEST_SHARE, TEST_ROWS = 0.2, 2000  # of the source where it has no test split, and at most
DEV_SHARE, DEV_ROWS = 0.1, 500
Size = int | str


def text_key(text: str, seed: int) -> bytes:
    """A hash that is equal for texts that differ only in case, white space or Unicode form."""
    normal = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return hashlib.blake2b(f"{seed}\0{normal}".encode("utf-8", "surrogatepass"), digest_size=8).digest()


@dataclass(frozen=True)
class Pool:
    """Examples with the hash of each text; splits are lists of indices into it."""

    examples: Examples
    labels: list[str]
    keys: list[bytes]

    def pick(self, indices: Sequence[int]) -> Examples:
        """The examples at `indices`, in that order."""
        texts = [self.examples.texts[i] for i in indices]
        return Examples(texts, [self.labels[i] for i in indices], [self.examples.rows[i] for i in indices])


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
    class_names: Sequence[str] | None = None,
) -> Splits:
    """Stratified splits of `source` (and of `test` and `dev`, where they are separate) without a shared text.

    Sizes are rows, "all" or "auto"; most_train_rows and most_test_rows cap automatic ones. class_names gives the
    order of the class ids where the source has one. UserError if a split cannot be made.
    """
    pool, decisions = _without_copies(_pool(source, seed))
    names = _order(pool.labels, class_names)
    rest = list(range(len(pool.keys)))
    asked: dict[str, int] = {}
    if test is None:
        asked["test"] = _size("data.test_rows", test_rows, len(rest), TEST_SHARE, TEST_ROWS)
        scored, rest, why = _cut_off(pool, rest, "data.test_rows", asked["test"])
        test_keys = {text_key(text, seed) for text in scored.texts}
        decisions.append(Decision("test rows", f"{len(scored):,}", f"no separate test file; stratified{why}"))
    else:
        separate = _pool(test, seed)
        _check_test_classes(names, separate.labels)
        # leaks are looked for in the whole test split, not only in the rows that are scored
        test_keys = set(separate.keys)
        rest, leaks = _without(pool, rest, test_keys, "test")
        is_capped = test_rows == "auto" and len(test) > (most_test_rows or len(test))
        scored = _subset(separate, most_test_rows or "all" if is_capped else test_rows, "data.test_rows")
        asked["test"] = len(scored) if isinstance(test_rows, str) else test_rows
        decisions += [*leaks, *_repeats(separate)]
        why = "; a first run should end in minutes: --set data.test_rows=all takes all" if is_capped else ""
        decisions += [Decision("test rows", f"{len(scored):,}", f"of {len(test):,} in the test split{why}")]
    own_dev, refused = (None, []) if dev is None else _own_dev(_pool(dev, seed), names, pool, rest, test_keys)
    decisions += refused
    if own_dev is None:
        asked["dev"] = _size("data.dev_rows", dev_rows, len(rest), DEV_SHARE, DEV_ROWS)
        guide, rest, why = _cut_off(pool, rest, "data.dev_rows", asked["dev"])
        decisions.append(Decision("dev rows", f"{len(guide):,}", f"the best state is chosen on them{why}"))
    else:
        rest, leaks = _without(pool, rest, set(own_dev.keys), "dev")
        wanted: Size = min(DEV_ROWS, len(own_dev.keys)) if dev_rows == "auto" else dev_rows
        guide = _subset(own_dev, wanted, "data.dev_rows")
        asked["dev"] = len(guide) if isinstance(wanted, str) else wanted
        why = f"of {len(own_dev.keys):,} in the source's own dev split; the best state is chosen on them"
        decisions += [*leaks, Decision("dev rows", f"{len(guide):,}", why)]
    train, asked["train"] = _training_rows(pool, rest, train_rows, most_train_rows, decisions)
    splits = Splits(pool.pick(train), guide, scored, names, decisions, asked)
    return replace(splits, decisions=[*decisions, *_absent_classes(splits)])


def _cut_off(pool: Pool, rest: list[int], key: str, wanted: int) -> tuple[Examples, list[int], str]:
    """Rows held out of `rest`, what remains, and a remark where it could not be just as many as asked."""
    taken, rest = _take(pool, rest, wanted, key)
    return pool.pick(taken), rest, _instead_of(wanted, len(taken))


def _own_dev(
    dev: Pool, names: Sequence[str], pool: Pool, rest: list[int], test_keys: set[bytes]
) -> tuple[Pool | None, list[Decision]]:
    """The rows of a source's own dev split that are in no test split; None, with the reason, if it is no guide."""
    clean = [i for i, key in enumerate(dev.keys) if key not in test_keys]
    keys = {dev.keys[i] for i in clean}
    shared = len(dev.keys) - len(clean)
    why = ""
    if unseen := sorted(set(dev.labels) - set(names)):
        why = f"it has labels that no training row has: {unseen[:5]}"
    elif shared * 2 > len(dev.keys):
        why = f"{shared:,} of its {len(dev.keys):,} texts are in the test split too"
    elif 2 * sum(pool.keys[i] in keys for i in rest) > len(rest):
        why = "it holds most of the training rows"
    if why:
        return None, [Decision("dev split", "not used", why)]
    labels, left = [dev.labels[i] for i in clean], [dev.keys[i] for i in clean]
    dropped = [Decision("leaks", f"{shared:,} dev rows dropped", "their text is in the test split too")]
    return Pool(dev.pick(clean), labels, left), dropped if shared else []


def _subset(pool: Pool, asked: Size, key: str) -> Examples:
    """All rows of a separate split, or `asked` of them, stratified. UserError if it has fewer."""
    everything = list(range(len(pool.keys)))
    if asked in ("auto", "all") or int(asked) == len(everything):
        return pool.pick(everything)
    if int(asked) > len(everything):
        raise UserError(f"{key} = {asked}: the split has {len(everything):,} rows. Ask for fewer, or leave it out.")
    return pool.pick(_take(pool, everything, int(asked), key)[0])


def _instead_of(asked: int, got: int) -> str:
    return "" if asked == got else f"; {asked:,} asked, but each class has one at least and leaves one at least"


def _pool(examples: Examples, seed: int) -> Pool:
    assert examples.labels is not None, "only labelled examples are split"
    return Pool(examples, examples.labels, [text_key(text, seed) for text in examples.texts])


def _without_copies(pool: Pool) -> tuple[Pool, list[Decision]]:
    """Keeps the first row of each text and label."""
    first: dict[tuple[bytes, str], int] = {}
    for i, pair in enumerate(zip(pool.keys, pool.labels, strict=True)):
        first.setdefault(pair, i)
    kept = list(first.values())
    copies = len(pool.keys) - len(kept)
    found = []
    if copies:
        why = "same text and label as an earlier row; kept once, so that no text is in two splits"
        found.append(Decision("duplicates", f"{copies:,} rows dropped", why))
    contradictions = len(kept) - len({pool.keys[i] for i in kept})
    if contradictions:
        found.append(Decision("contradictions", f"{contradictions:,} texts", "the same text under several labels"))
    return Pool(pool.pick(kept), [pool.labels[i] for i in kept], [pool.keys[i] for i in kept]), found


def _repeats(test: Pool) -> list[Decision]:
    """Texts that a separate test split holds more than once: they are scored as they come."""
    repeats = len(test.keys) - len(set(test.keys))
    why = "a text that stands there already; each is scored, and the intervals take them for different ones"
    return [Decision("test copies", f"{repeats:,} rows", why)] if repeats else []


def _without(pool: Pool, rest: list[int], seen: set[bytes], other: str) -> tuple[list[int], list[Decision]]:
    """`rest` without the rows whose text is in the `other` split. UserError if that is most of them."""
    clean = [i for i in rest if pool.keys[i] not in seen]
    leaks = len(rest) - len(clean)
    if leaks * 2 > len(rest):
        raise UserError(
            f"{leaks:,} of {len(rest):,} training rows are in the {other} split too: is it the same data? Give "
            f"other rows for it, or leave it out to have some held out."
        )
    why = f"their text is in the {other} split too"
    return clean, [Decision("leaks", f"{leaks:,} training rows dropped", why)] if leaks else []


def _order(labels: Sequence[str], given: Sequence[str] | None) -> list[str]:
    """The source's own order, else numbers by value and words by alphabet."""
    present = set(labels)
    if given:
        return [name for name in given if name in present]
    if all(name.lstrip("-").isdecimal() for name in present):
        return sorted(present, key=lambda name: (int(name), name))
    return sorted(present, key=lambda name: (name.casefold(), name))


def _check_test_classes(names: Sequence[str], labels: Sequence[str]) -> None:
    unseen = {name: n for name, n in Counter(labels).items() if name not in names}
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


def _take(pool: Pool, indices: Sequence[int], wanted: int, key: str) -> tuple[list[int], list[int]]:
    """`wanted` of `indices`, each class in proportion, in the order of their hashes; and those that remain."""
    by_class: dict[str, list[int]] = defaultdict(list)
    for i in sorted(indices, key=lambda i: pool.keys[i]):
        by_class[pool.labels[i]].append(i)
    counts = _proportions({name: len(members) for name, members in by_class.items()}, wanted)
    if sum(counts.values()) < 1:
        raise UserError(f"{key}: {len(indices)} rows of {len(by_class)} classes are too few to split.")
    taken = [i for name, members in by_class.items() for i in members[: counts[name]]]
    keys = {pool.keys[i] for i in taken}
    # a text under two labels can straddle the cut: its other rows go nowhere
    rest = [i for name, members in by_class.items() for i in members[counts[name] :] if pool.keys[i] not in keys]
    return sorted(taken, key=lambda i: pool.keys[i]), sorted(rest, key=lambda i: pool.keys[i])


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
    pool: Pool, rest: list[int], asked: Size, most: int | None, decisions: list[Decision]
) -> tuple[list[int], int]:
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


def _absent_classes(splits: Splits) -> list[Decision]:
    found = []
    for where, part in (("train", splits.train), ("test", splits.test)):
        absent = [name for name in splits.class_names if name not in set(part.labels or [])]
        if absent:
            shown = ", ".join(map(repr, absent[:5]))
            found.append(Decision(f"classes not in {where}", shown, "none of their rows is there"))
    return found
