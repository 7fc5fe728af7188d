"""Folders that several processes share: what the first one writes stays."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from lightune.artifact.claimed import Claim, write_once
from lightune.errors import GateError, UserError
from lightune.search.folder import claim_of
from lightune.settings import load_recipe


def refuse(number: int):
    def link(source: object, target: object, **more: object) -> None:
        raise OSError(number, os.strerror(number))

    return link


@pytest.mark.parametrize("has_links", [True, False])
def test_the_first_one_writes_and_the_others_read(has_links, tmp_path, monkeypatch):
    if not has_links:  # as on a network drive
        monkeypatch.setattr(os, "link", refuse(errno.EOPNOTSUPP))
    path = tmp_path / "plan.json"
    assert write_once(path, {"rows": 1}) == ({"rows": 1}, True)
    assert write_once(path, {"rows": 2}) == ({"rows": 1}, False)
    assert [each for each in tmp_path.iterdir() if each.suffix != ".lock"] == [path]
    (other := tmp_path / "other").write_text("")
    assert path.stat().st_mode == other.stat().st_mode  # for whoever may read files here


def test_results_of_other_data_are_not_taken_for_those_of_this(tmp_path):
    claim = Claim("search", {"seed": 0}, "search.json", output=tmp_path / "s")
    claim.take(tmp_path / "s", "one")
    (tmp_path / "s" / "search.json").write_text('{"winner": 1}')
    assert claim.over(tmp_path / "s", "one") == {"winner": 1}
    with pytest.raises(UserError, match="s: holds a search of other data: it has changed since"):
        claim.over(tmp_path / "s", "other")
    with pytest.raises(UserError, match="s: holds a search, not a comparison"):
        Claim("comparison", {"seed": 0}, "compare.json", output=tmp_path / "s").find()
    (tmp_path / "s" / "settings.json").write_text('{"x": 1}')
    with pytest.raises(UserError, match="s: holds something else, not a search"):
        claim.find()


def test_without_output_the_next_folder_will_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one, other = (Claim("search", {"seed": seed}, "search.json", "x-search") for seed in (0, 1))
    wanted = [claim.find() for claim in (one, other)]  # both before either has begun
    assert wanted[0] == wanted[1]
    taken = [claim.take(wanted[0], "d") for claim in (one, other)]
    assert [(path.name, is_begun) for path, _, is_begun in taken] == [("x-search", False), ("x-search-2", False)]
    changed = one.take(one.find(), "other data")
    assert (changed[0].name, changed[2]) == ("x-search-3", False)
    again = one.take(one.find(), "d")
    assert (again[0].name, again[2]) == ("x-search", True)
    with pytest.raises(UserError, match=r"seed = 0, not 1\)\. Choose another --output"):
        replace(other, output=wanted[0]).take(wanted[0], "d")


def test_a_search_in_another_storage_is_not_begun_anew_in_the_folder(monkeypatch):
    known = []
    for url in (None, "sqlite:///a.db"):
        if url:
            monkeypatch.setenv("LIGHTUNE_STORAGE", url)
        known.append(claim_of(load_recipe(None), with_runs=True).settings["search.storage"])
    assert known == ["in the folder", "elsewhere"]


def test_a_folder_may_be_under_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Claim("search", {}, "search.json", output="~/a").find() == tmp_path / "a"


def test_a_folder_that_cannot_be_is_told_at_once():
    with pytest.raises(UserError, match="cannot be a folder"):
        Claim("search", {}, "search.json", output="a" * 300).find()


def test_a_full_disk_is_one_message(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", refuse(errno.ENOSPC))
    with pytest.raises(GateError, match=r"plan.json: cannot be written \(No space left on device\)"):
        write_once(tmp_path / "plan.json", {"rows": 1})
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()

    def half(path: Path, text: str, **more: object) -> None:
        path.write_bytes(text[:1].encode())
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(GateError, match="cannot be written"):
        write_once(tmp_path / "plan.json", {"rows": 1})
    assert list(tmp_path.iterdir()) == []
