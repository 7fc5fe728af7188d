"""Recipes: what is accepted, what is refused and in which words, what survives a round trip."""

from __future__ import annotations

import json
import tomllib

import numpy as np
import pytest

from lightune.data.prepare import prepare
from lightune.errors import UserError
from lightune.recipe import Recipe, flatten, seconds_of, write_recipe
from lightune.settings import PRESETS, load_recipe, name_of, parse_setting, shipped_recipes


def test_every_shipped_recipe_is_valid():
    assert {"imdb-minilm", "imdb-minilm-best", "amazon-distilbert"} <= set(shipped_recipes())
    for name in shipped_recipes():
        assert load_recipe(name).name == name


def test_the_shipped_amazon_recipe_is_the_origin_reports_job():
    recipe = load_recipe("amazon-distilbert").recipe
    assert recipe.model == "distilbert/distilbert-base-uncased"
    assert recipe.data.source == "fancyzhx/amazon_polarity"
    assert recipe.data.text == "{title}. {content}"
    assert recipe.method.name == "lora"


def test_a_data_source_gets_the_defaults():
    checked = load_recipe("reviews.csv")
    assert checked.recipe == Recipe.model_validate({"data": {"source": "reviews.csv"}})
    assert checked.origins["train.epochs"] == "default"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("data/reviews.csv.gz", "reviews"),
        ("fancyzhx/amazon_polarity@0123abc", "amazon_polarity"),
        ("org/name:config", "name"),
        ("embedded:imdb", "imdb"),
        ("../", "data"),
        ("my data/r\u00e9sum\u00e9s & more.csv", "r\u00e9sum\u00e9s-more"),
    ],
)
def test_a_run_is_named_after_its_data(source, name):
    assert load_recipe(source).name == name


def test_each_value_knows_where_it_came_from():
    checked = load_recipe("imdb-minilm", {"seed": 3}, ["lora.rank=16"])
    assert checked.origins["seed"] == checked.origins["method.rank"] == "command line"
    assert checked.origins["data.source"] == "recipe imdb-minilm"
    assert checked.origins["train.clip"] == "default"


def test_a_written_recipe_reads_back_the_same(tmp_path):
    checked = load_recipe("imdb-minilm", {}, ["data.text={title}. {content}", 'trackers=["tensorboard"]'])
    path = tmp_path / "recipe.toml"
    write_recipe(checked, {"train.epochs": 2.0}, path)
    assert (
        load_recipe(str(path)).recipe
        == load_recipe(
            "imdb-minilm", {}, ["data.text={title}. {content}", 'trackers=["tensorboard"]', "train.epochs=2"]
        ).recipe
    )
    assert "# chosen" in path.read_text()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=3", 3),
        ("a=3e-4", 3e-4),
        ("a=true", True),
        ("a=no", "no"),
        ('a="3"', "3"),
        ("a={title}. {content}", "{title}. {content}"),
        ("a=x=y", "x=y"),
        ('a=["q","v"]', ["q", "v"]),
    ],
)
def test_a_setting_is_toml_and_a_bare_word_is_a_string(text, value):
    assert parse_setting(text) == ("a", value)


def test_replacing_the_method_drops_the_options_of_the_old_one():
    recipe = load_recipe("imdb-minilm", {}, ["method=ia3"]).recipe
    assert recipe.method.name == "ia3"
    assert recipe.method.options == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["train.epoch=2"], r"train\.epoch: unknown key\. Did you mean 'epochs'\? Known: epochs, "),
        (["data.train_rows=-5"], r"data\.train_rows = -5: should be 'auto' or 'all', or .* than or equal to 2"),
        (["train.schedule=lin"], r"train\.schedule = 'lin': should be 'linear', 'cosine' or 'constant'"),
        (["train.learning_rate=nan"], r"train\.learning_rate = nan: .*finite number"),
        (["train.batch_size=1.5"], r"train\.batch_size = 1\.5: should be a valid integer"),
        (["data.dev_rows=true"], r"data\.dev_rows = True"),
        (["lra.rank=3"], r"--set lra\.rank: no table 'lra'.*Did you mean 'lora'"),
        (["ia3.rank=3"], r"the method is 'lora'.*Set method=ia3 before it"),
        (["nonsense"], r"--set nonsense: expected key=value"),
        (["seed.x=1"], r"--set seed\.x: 'seed' is a single value"),
    ],
)
def test_a_mistake_is_named_with_its_key_its_value_and_the_range(settings, message):
    if settings == ["seed.x=1"]:
        settings = ["seed=1", *settings]
    with pytest.raises(UserError, match=message):
        load_recipe("imdb-minilm", {}, settings)


def test_every_mistake_is_reported_at_once():
    with pytest.raises(UserError) as caught:
        load_recipe("imdb-minilm", {}, ["train.epoch=2", "data.trunc=head"])
    assert "train.epoch" in str(caught.value)
    assert "data.trunc" in str(caught.value)


def test_a_recipe_that_is_not_there_or_not_toml_says_so(tmp_path):
    with pytest.raises(UserError, match=r"none\.toml: cannot read this recipe.*imdb-minilm"):
        load_recipe(str(tmp_path / "none.toml"))
    (tmp_path / "bad.toml").write_text("model = distilbert")
    with pytest.raises(UserError, match=r"bad\.toml: not valid TOML"):
        load_recipe(str(tmp_path / "bad.toml"))


def test_the_readmes_recipe_is_the_shipped_one():
    from tests.test_docs import README

    block = README.split("```toml")[1].split("```")[0]
    shown = flatten(tomllib.loads(block))
    shipped = flatten(load_recipe("amazon-distilbert").recipe.model_dump())
    assert shown == {key: shipped[key] for key in shown}


def test_a_method_in_one_word_and_its_options_in_any_order(tmp_path):
    path = tmp_path / "short.toml"
    path.write_text('method = "lora"')
    assert load_recipe(str(path), {}, ["lora.rank=4"]).recipe.method.options == {"rank": 4}
    assert load_recipe(str(path), {}, ["method=ia3"]).recipe.method.name == "ia3"
    assert load_recipe(None, {}, ["lora.rank=4", "method=lora"]).recipe.method.options == {"rank": 4}


@pytest.mark.parametrize(
    ("target", "settings", "message"),
    [
        ("imdb-minlm", [], "Did you mean 'imdb-minilm'"),
        ("", [], "the name is empty"),
        (None, ["learning_rate=1"], r"Did you mean train\.learning_rate\?"),
        (None, ["modl=1"], "Did you mean 'model'"),
        (None, ["model="], "model = ''"),
        (None, ["method=3", "lora.rank=2"], "the method is '3'"),
        (None, ["data.dev_rows=all"], r"data\.dev_rows = 'all'"),
        (None, "train.epochs=1", "give a list"),
        (None, 3, "give a list"),
        (None, ["train.epochs=2\nfoo=1"], "more than one setting"),
    ],
)
def test_what_was_meant_is_said(target, settings, message):
    with pytest.raises(UserError, match=message):
        load_recipe(target, None, settings)


def test_settings_may_be_a_dictionary():
    flat = load_recipe(None, None, {"train.epochs": 2.0})
    nested = load_recipe(None, None, {"train": {"epochs": 2.0}})
    assert flat == nested
    assert (nested.recipe.train.epochs, nested.recipe.train.max_tokens) == (2.0, 96)  # the rest stays the recipe's
    assert nested.origins["train.epochs"] == "command line"
    assert load_recipe(None, None, ["train={epochs=2.0}"]) == flat


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    (tmp_path / "own.toml").write_bytes(b'\xef\xbb\xbfmodel = "minilm"\n')
    assert load_recipe(str(tmp_path / "own.toml")).recipe.model == "minilm"


def test_a_method_that_is_no_table_is_one_message(tmp_path):
    (tmp_path / "own.toml").write_text("method = 3\n")
    with pytest.raises(UserError, match="method = 3: give its name"):
        load_recipe(str(tmp_path / "own.toml"), None, ["lora.rank=2"])


def test_a_preset_goes_before_the_recipe_and_after_what_is_set_by_hand():
    checked = load_recipe("imdb-minilm", {}, ["train.epochs=2.5"], "best")
    assert checked.recipe.data.train_rows == "all"  # the recipe has a number
    assert checked.origins["data.train_rows"] == "preset best"
    assert checked.recipe.train.epochs == 2.5
    assert checked.origins["train.epochs"] == "command line"


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_recipe(name):
    assert load_recipe("imdb-minilm", None, (), name).recipe.model == "minilm"


def test_an_unknown_preset_is_told_with_the_near_one():
    with pytest.raises(UserError, match=r"preset 'fats': not known\. Did you mean 'fast'"):
        load_recipe(None, None, (), "fats")


@pytest.mark.parametrize(("words", "seconds"), [("90s", 90), ("10m", 600), ("1.5h", 5400)])
def test_a_time_budget_is_a_number_with_a_unit(words, seconds):
    assert seconds_of(load_recipe(None, {"time_budget": words}).recipe.time_budget) == seconds


@pytest.mark.parametrize("words", ["10", "ten minutes", "-5m", "5 m", "٣m", "9" * 400 + "h"])
def test_a_time_budget_without_a_unit_is_refused(words):
    with pytest.raises(UserError, match=r"time_budget = .*: write it like 90s, 10m or 2h"):
        load_recipe(None, {"time_budget": words})


def test_numbers_of_numpy_are_numbers():
    given = {
        "train.epochs": np.float64(2.0),
        "method.rank": np.int64(4),
        "search.method.rank": list(np.array([4, 8])),
    }
    checked = load_recipe(None, None, given)
    assert (checked.recipe.train.epochs, checked.recipe.method.options["rank"]) == (2.0, 4)
    assert json.dumps(checked.search.space["method.rank"]) == "[4, 8]"


def test_what_nobody_could_type_is_no_data():
    with pytest.raises(UserError, match="the data is a dict: give the name of a recipe, a file or a data set"):
        name_of({"text": ["a"]})
    with pytest.raises(UserError, match=r"^'x{60}'...: longer than any name"):
        load_recipe("x" * 5000)
    with pytest.raises(UserError, match="cannot be opened"):
        prepare(load_recipe("x" * 300).recipe.data)
