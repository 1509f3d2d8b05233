"""Fixtures of all tests."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest

from catalyst_pxeboot.loader import binaries as loaders
from catalyst_pxeboot.util import resources
from tests.support.paths import STANDIN
from tests.support.stage2 import storedir_stage2, write_stage2

sys.path.insert(0, str(STANDIN))  # real catalyst runs in processes of its own


@pytest.fixture
def no_loaders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the machine's own loader binaries, so that a tree is the same everywhere."""
    table = copy.deepcopy(resources.read_table("loader/binaries.toml"))
    for loader in table.values():
        loader["folders"] = []
    monkeypatch.setattr(loaders, "read_table", lambda _name: table)


@pytest.fixture
def storedir(tmp_path: Path, no_loaders: None) -> Path:
    """Return a storedir that holds one livecd-stage2 build for amd64."""
    store = tmp_path / "store"
    write_stage2(storedir_stage2(store))
    return store


@pytest.fixture(autouse=True)
def _fixed_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
