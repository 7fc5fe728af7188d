"""Folders that several processes share: what the first one writes stays."""

from __future__ import annotations

import errno
import os

import pytest

from lightune.artifact.claimed import Claim, write_once
from lightune.errors import GateError, UserError


def refuse(number: int):
    def link(source: str, target: object) -> None:
        raise OSError(number, os.strerror(number))

    return link


@pytest.mark.parametrize("has_links", [True, False])
def test_the_first_one_writes_and_the_others_read(has_links, tmp_path, monkeypatch):
    if not has_links:  # as on a network drive
        monkeypatch.setattr(os, "link", refuse(errno.EOPNOTSUPP))
    path = tmp_path / "plan.json"
    assert write_once(path, {"rows": 1}) == ({"rows": 1}, True)
    assert write_once(path, {"rows": 2}) == ({"rows": 1}, False)
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_may_be_under_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Claim("search", {}, "search.json").find("~/a", "x") == tmp_path / "a"


def test_a_folder_that_cannot_be_is_told_at_once():
    with pytest.raises(UserError, match="cannot be a folder"):
        Claim("search", {}, "search.json").find("a" * 300, "x")


def test_a_full_disk_is_one_message(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", refuse(errno.ENOSPC))
    with pytest.raises(GateError, match=r"plan.json: cannot be written \(No space left on device\)"):
        write_once(tmp_path / "plan.json", {"rows": 1})
    assert list(tmp_path.iterdir()) == []
