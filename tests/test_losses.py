"""Losses and the balance of classes: by hand, against references, and what they do to a small class."""

from __future__ import annotations

import csv
import random
from typing import get_args

import numpy as np
import pytest

import lightune
from lightune.evidence.metrics import HEADLINE, headline
from lightune.recipe import TrainRecipe
from lightune.training.losses import FOCUS, LOSSES, OF_NUMBERS, balanced_draw, class_weights, find_loss


def test_the_recipe_names_every_loss():
    assert list(get_args(TrainRecipe.model_fields["loss"].annotation)) == ["auto", *LOSSES]


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in OF_NUMBERS])
def test_a_loss_is_one_number_a_text_and_pushes_to_the_true_class(name):
    import torch

    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0]], requires_grad=True)
    losses = LOSSES[name](logits, torch.tensor([1, 2]))
    assert losses.shape == (2,)
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    assert gradient[0, 1] < 0 < gradient[0, 0]
    assert gradient[1, 2] < 0 < gradient[1, 0]
    assert float(LOSSES[name](torch.tensor([[20.0, 0.0]]), torch.tensor([0]))) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", OF_NUMBERS)
def test_a_loss_of_numbers_pushes_to_the_number(name):
    import torch

    logits = torch.tensor([[2.0], [-1.0], [0.5]], requires_grad=True)
    losses = LOSSES[name](logits, torch.tensor([0.0, 1.0, 0.5]))
    assert losses.tolist() == pytest.approx([4.0, 4.0, 0.0] if name == "squared_error" else [2.0, 2.0, 0.0])
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    assert gradient[1, 0] < 0 < gradient[0, 0]


def test_auto_is_the_loss_that_suits_the_labels():
    assert find_loss("auto", np.array([0, 1])) is LOSSES["cross_entropy"]
    assert find_loss("auto", np.array([[0, 1]])) is LOSSES["cross_entropy"]
    assert find_loss("auto", np.array([0.5, 1.5])) is LOSSES["squared_error"]


def test_focal_loss_is_the_formula():
    import torch

    p = torch.tensor([0.9, 0.5, 0.1])
    logits = torch.stack([p.log(), (1 - p).log()], dim=1)
    expected = (1 - p) ** FOCUS * -p.log()
    assert torch.allclose(LOSSES["focal"](logits, torch.zeros(3, dtype=torch.long)), expected, atol=1e-6)


def test_class_weights_are_those_of_scikit_learn():
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.array([0] * 7 + [1] * 2 + [3] * 1)  # class 2 does not occur
    weights = class_weights(labels)
    assert weights[[0, 1, 3]] == pytest.approx(
        compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=labels)
    )
    assert weights[2] == 0
    assert weights[labels].mean() == pytest.approx(1)


def test_a_balanced_draw_has_each_class_as_often_and_leaves_no_row_of_a_small_one_out():
    labels = np.array([0] * 90 + [1] * 7 + [2] * 3)
    rows = balanced_draw(labels, np.random.default_rng(0))
    assert len(rows) == 100
    assert sorted(np.bincount(labels[rows])) == [33, 33, 34]
    times = np.bincount(rows, minlength=100)
    assert set(times[90:97]) <= {4, 5}
    assert set(times[97:]) <= {11, 12}
    assert times[:90].max() == 1


def test_metrics_that_count_classes_alike_come_first_where_sizes_differ_much():
    assert headline([50, 60, 0]) == HEADLINE
    assert headline([400, 100])[:3] == ("f1_macro", "balanced_accuracy", "mcc")
    assert set(HEADLINE) <= set(headline([400, 100]))
    assert len(set(headline([400, 100]))) == len(headline([400, 100]))


@pytest.fixture(scope="module")
def rare(tmp_path_factory):
    """A class of one row in twelve, told by one word that half of its texts have."""
    rng = random.Random(1)
    path = tmp_path_factory.mktemp("rare") / "rare.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for i in range(480):
            is_rare = i % 12 == 0
            words = rng.choices(["good", "fine", "great", "film", "lamp"], k=4)
            writer.writerow(
                [" ".join([*words, "bad" if is_rare else "good", str(i)]), "rare" if is_rare else "usual"]
            )
    return path


COMMON = ["train.epochs=3", "train.learning_rate=1e-2", "data.max_tokens=16", "method=head"]
COMMON += ["evidence.doctor=false", "evidence.baselines=[]", "evidence.calibrate=false"]


@pytest.fixture(scope="module")
def share_of_rare(rare, tiny_bert, tmp_path_factory):
    """Setting -> the mean probability of the rare class."""
    import pyarrow.parquet as pq

    shares: dict[str, float] = {}
    for setting in ("loss=cross_entropy", "balance=weights", "balance=sampling", "loss=focal"):
        output = tmp_path_factory.mktemp("rare") / "run"
        settings = [f"model={tiny_bert}", *COMMON, f"train.{setting}"]
        result = lightune.run(rare, settings=settings, output=output)
        proba = pq.read_table(f"{result.folder}/predictions.parquet")["p_rare"].to_numpy()
        shares[setting] = float(np.mean(proba))
    return shares


@pytest.mark.parametrize("setting", ["balance=weights", "balance=sampling", "loss=focal"])
def test_a_rare_class_is_answered_more_often(setting, share_of_rare):
    assert share_of_rare[setting] > 1.2 * share_of_rare["loss=cross_entropy"]
