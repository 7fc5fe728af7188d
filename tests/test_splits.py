"""Splits: no shared text, exact sizes, proportions kept, the same for the same seed whatever the order."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from lightune.data.splits import split, text_key
from lightune.errors import UserError
from lightune.records import Examples


def examples(n: int = 300, copies: int = 0, classes=("a", "b", "b")) -> Examples:
    texts = [f"text number {i}" for i in range(n)] + [f"  TEXT  number {i}" for i in range(copies)]
    labels = [classes[i % len(classes)] for i in range(n)] + [classes[i % len(classes)] for i in range(copies)]
    return Examples(texts, labels, list(range(len(texts))))


def keys(part: Examples) -> set[bytes]:
    return {text_key(text, 0) for text in part.texts}


def test_no_text_is_in_two_splits_even_in_other_case_or_spacing():
    splits = split(examples(copies=100), None, seed=0)
    train, dev, test = keys(splits.train), keys(splits.dev), keys(splits.test)
    assert not train & dev
    assert not train & test
    assert not dev & test
    assert [d.choice for d in splits.decisions if d.what == "duplicates"] == ["100 rows dropped"]


def test_sizes_are_exact_and_classes_in_proportion():
    splits = split(examples(3000), None, seed=0, train_rows=900, dev_rows=150, test_rows=300)
    assert [len(part) for part in splits.parts().values()] == [900, 150, 300]
    for part in splits.parts().values():
        assert Counter(part.labels)["b"] == pytest.approx(len(part) * 2 / 3, abs=1)


def test_the_order_of_the_file_does_not_matter():
    source = examples()
    order = np.random.default_rng(1).permutation(len(source))
    shuffled = Examples([source.texts[i] for i in order], [source.labels[i] for i in order], list(map(int, order)))
    assert split(source, None, seed=0) == split(shuffled, None, seed=0)


def test_another_seed_gives_another_split():
    assert split(examples(), None, seed=0).test.texts != split(examples(), None, seed=1).test.texts


def test_rows_point_into_the_source():
    source = examples()
    for part in split(source, None, seed=0).parts().values():
        assert [source.texts[row] for row in part.rows] == part.texts


def test_a_separate_test_split_is_kept_whole_and_cleans_the_training_rows():
    test = Examples(["Text Number 3", "new", "newer"], ["a", "b", "a"], [0, 1, 2])
    splits = split(examples(), test, seed=0)
    assert splits.test.texts == test.texts
    assert text_key("text number 3", 0) not in keys(splits.train) | keys(splits.dev)


def test_the_same_text_under_two_labels_never_straddles():
    source = examples()
    twins = Examples([*source.texts, *source.texts[:60]], [*source.labels, *["c"] * 60], list(range(360)))
    splits = split(twins, None, seed=0)
    assert not keys(splits.test) & keys(splits.train)
    assert any(d.what == "contradictions" and d.choice == "60 texts" for d in splits.decisions)


def test_a_class_of_one_stays_in_training_and_is_announced():
    source = examples()
    rare = Examples([*source.texts, "the only one"], [*source.labels, "rare"], list(range(301)))
    splits = split(rare, None, seed=0)
    assert "rare" in splits.train.labels
    assert any(d.what == "classes not in test" and "rare" in d.choice for d in splits.decisions)


def test_a_class_of_three_or_more_is_tested():
    source = examples()
    few = Examples([*source.texts, "x1", "x2", "x3"], [*source.labels, *["few"] * 3], list(range(303)))
    assert "few" in split(few, None, seed=0).test.labels


def test_class_order_is_the_sources_or_by_number_or_by_alphabet():
    assert split(examples(), None, seed=0, class_names=["b", "a"]).class_names == ["b", "a"]
    assert split(examples(classes=("10", "9", "1")), None, seed=0).class_names == ["1", "9", "10"]
    assert split(examples(classes=("no", "Maybe", "yes")), None, seed=0).class_names == ["Maybe", "no", "yes"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_rows": 299}, r"data\.test_rows = 299: only 300 different rows"),
        ({"test_rows": "all"}, r"data\.test_rows = 'all': nothing would be left"),
        ({"train_rows": 5000}, r"data\.train_rows = 5000: only \d+ rows are left"),
    ],
)
def test_sizes_that_cannot_be_met_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        split(examples(), None, seed=0, **options)


def test_a_test_label_unseen_in_training_is_refused_with_its_count():
    test = Examples(["new", "newer"], ["a", "aa"], [0, 1])
    with pytest.raises(UserError, match=r"1 label\(s\) that no training row has: 'aa' \(1\)"):
        split(examples(), test, seed=0)


def test_an_automatic_training_size_is_capped_and_says_how_to_take_all():
    splits = split(examples(), None, seed=0, most_train_rows=50)
    assert len(splits.train) == 50
    assert any("data.train_rows=all" in d.why for d in splits.decisions)
    assert len(split(examples(), None, seed=0, most_train_rows=50, train_rows="all").train) > 200


def test_a_dev_split_of_the_source_is_used_and_shares_no_text():
    dev = Examples(["text number 7", "fresh", "fresher", "tested"], ["a", "b", "a", "b"], [0, 1, 2, 3])
    test = Examples(["Tested", "other"], ["b", "a"], [0, 1])
    splits = split(examples(), test, dev, seed=0)
    assert splits.dev.texts == ["text number 7", "fresh", "fresher"]
    assert len(splits.train) == 299
    said = {decision.what: decision for decision in splits.decisions}
    assert "own dev split" in said["dev rows"].why


def test_a_large_dev_split_is_sampled():
    dev = Examples([f"dev {i}" for i in range(2000)], ["a", "b"] * 1000, list(range(2000)))
    assert len(split(examples(), None, dev, seed=0).dev) == 500
    assert len(split(examples(), None, dev, seed=0, dev_rows=800).dev) == 800


def test_the_training_data_as_test_data_is_refused():
    with pytest.raises(UserError, match="300 of 300 training rows are in the test split too: is it the same data"):
        split(examples(), examples(), seed=0)


def test_more_test_rows_than_the_test_split_has_are_refused():
    test = Examples(["new", "newer"], ["a", "b"], [0, 1])
    with pytest.raises(UserError, match=r"data\.test_rows = 5: the split has 2 rows"):
        split(examples(), test, seed=0, test_rows=5)


def test_a_size_that_many_classes_do_not_allow_is_said():
    source = examples(400, classes=[f"class {i}" for i in range(80)])
    splits = split(source, None, seed=0, test_rows=50)
    said = next(decision for decision in splits.decisions if decision.what == "test rows")
    assert (said.choice, "50 asked" in said.why) == ("80", True)


@pytest.mark.parametrize(
    ("dev", "why"),
    [
        (Examples(["fresh", "fresher"], ["a", "unheard"], [0, 1]), "no training row has: ['unheard']"),
        (Examples(["tested", "other"], ["a", "b"], [0, 1]), "2 of its 2 texts are in the test split"),
        (examples(), "it holds most of the training rows"),
    ],
)
def test_a_dev_split_that_is_no_guide_is_not_used(dev, why):
    test = Examples(["Tested", "other"], ["b", "a"], [0, 1])
    splits = split(examples(), test, dev, seed=0)
    said = {decision.what: decision for decision in splits.decisions}
    assert (said["dev split"].choice, why in said["dev split"].why) == ("not used", True)
    assert len(splits.dev) == 30


def test_the_sizes_that_were_asked_give_the_same_splits_again():
    """Small classes get a row each beyond what was asked; asking for those too would give them more again."""
    source = examples(300, classes=["large"] * 50 + [f"class {i}" for i in range(50)])
    first = split(source, None, seed=0)
    assert len(first.test) > first.asked["test"]
    sizes = {f"{name}_rows": size for name, size in first.asked.items()}
    second = split(source, None, seed=0, **sizes)
    assert all(second.parts()[name].rows == part.rows for name, part in first.parts().items())
    assert second.asked == first.asked


@pytest.mark.parametrize("most", [50, 10_000])
def test_an_automatic_training_size_can_be_asked_again(most):
    first = split(examples(), None, seed=0, most_train_rows=most)
    assert split(examples(), None, seed=0, train_rows=first.asked["train"]).train.rows == first.train.rows


def test_copies_inside_a_separate_test_split_are_told_and_kept():
    texts, labels = [f"other text {i}" for i in range(60)], ["a", "b"] * 30
    splits = split(examples(), Examples(texts * 2, labels * 2, list(range(120))), seed=0)
    assert len(splits.test) == 120
    assert [d.choice for d in splits.decisions if d.what == "test copies"] == ["60 rows"]
    clean = split(examples(), Examples(texts, labels, list(range(60))), seed=0)
    assert not [d for d in clean.decisions if d.what == "test copies"]


def test_an_automatic_test_size_of_a_large_split_is_capped_and_says_so():
    test = Examples([f"held out {i}" for i in range(100)], ["a", "b"] * 50, list(range(100)))
    capped = split(examples(), test, seed=0, most_test_rows=40)
    assert len(capped.test) == 40
    assert any(
        d.what == "test rows" and "of 100" in d.why and "data.test_rows=all" in d.why for d in capped.decisions
    )
    assert len(split(examples(), test, seed=0, test_rows="all", most_test_rows=40).test) == 100
    assert len(split(examples(), test, seed=0, most_test_rows=100).test) == 100


# Against a reference: lists, one row after the other


def hash_order(source: Examples, places: list[int], seed: int) -> list[int]:
    return sorted(places, key=lambda i: text_key(source.texts[i], seed))


def first_rows(source: Examples, seed: int) -> list[int]:
    """One row of each text and label."""
    rows: dict[tuple[bytes, str], int] = {}
    for i, (text, label) in enumerate(zip(source.texts, source.labels, strict=True)):
        rows.setdefault((text_key(text, seed), label), i)
    return list(rows.values())


def shares(sizes: dict[str, int], wanted: int) -> dict[str, int]:
    """Rows of each class: the nearest below its share, at least 1 of 3, then one more for the largest remainders."""
    exact = {name: Fraction(wanted * size, sum(sizes.values())) for name, size in sizes.items()}
    counts = {name: min(size - 1, max(int(exact[name]), int(size >= 3))) for name, size in sizes.items()}
    order = sorted(sizes, key=lambda name: (counts[name] - exact[name], name))
    while sum(counts.values()) < wanted and any(counts[name] < sizes[name] - 1 for name in sizes):
        for name in order:
            if counts[name] < sizes[name] - 1 and sum(counts.values()) < wanted:
                counts[name] += 1
    return counts


def cut(source: Examples, places: list[int], wanted: int, seed: int) -> tuple[list[int], list[int]]:
    """The first rows of each class in the order of their hashes, and the others that share no text with them."""
    members: dict[str, list[int]] = {}
    for i in hash_order(source, places, seed):
        members.setdefault(source.labels[i], []).append(i)
    counts = shares({name: len(rows) for name, rows in members.items()}, wanted)
    taken = [i for name, rows in members.items() for i in rows[: counts[name]]]
    seen = {text_key(source.texts[i], seed) for i in taken}
    others = [i for name, rows in members.items() for i in rows[counts[name] :]]
    rest = [i for i in others if text_key(source.texts[i], seed) not in seen]
    return hash_order(source, taken, seed), hash_order(source, rest, seed)


def random_examples(rng: np.random.Generator, n: int) -> Examples:
    """Copies, texts under several labels, a class of a few rows and one of a single row."""
    texts = [f"{' ' * rng.integers(3)}{'Tt'[rng.integers(2)]}ext {rng.integers(n)}" for _ in range(n)]
    labels = [*rng.choice(["b", "a", "c"], p=[0.6, 0.3, 0.1], size=n - 4).tolist(), "few", "few", "few", "one"]
    return Examples(texts, [labels[i] for i in rng.permutation(n)], list(range(n)))


@pytest.mark.parametrize("seed", range(12))
def test_the_rows_of_each_split_are_those_of_the_reference(seed):
    source = random_examples(np.random.default_rng(seed), 400)
    test, rest = cut(source, first_rows(source, seed), 60, seed)
    dev, rest = cut(source, rest, 30, seed)
    train, _ = cut(source, rest, 100, seed)
    splits = split(source, None, seed=seed, train_rows=100, dev_rows=30, test_rows=60)
    assert (splits.test.rows, splits.dev.rows, splits.train.rows) == (test, dev, train)
    assert split(source, None, seed=seed, train_rows="all", dev_rows=30, test_rows=60).train.rows == rest


@pytest.mark.parametrize("seed", range(12))
def test_separate_splits_are_sampled_and_cleaned_as_in_the_reference(seed):
    rng = np.random.default_rng(seed)
    source, dev, test = random_examples(rng, 400), random_examples(rng, 150), random_examples(rng, 90)

    def among(part: Examples, places: list[int], *others: Examples) -> list[int]:
        seen = {text_key(text, seed) for other in others for text in other.texts}
        return [i for i in places if text_key(part.texts[i], seed) not in seen]

    clean = among(dev, list(range(150)), test)
    guide = Examples([dev.texts[i] for i in clean], [dev.labels[i] for i in clean], clean)
    splits = split(source, test, dev, seed=seed, train_rows="all", dev_rows=40, test_rows=50)
    assert splits.train.rows == among(source, first_rows(source, seed), test, guide)
    assert splits.dev.rows == cut(dev, clean, 40, seed)[0]
    assert splits.test.rows == cut(test, list(range(90)), 50, seed)[0]
