"""Fixtures of these tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalyst_pxeboot.lab import boot, watch
from tests.support.lab import LPXELINUX, PXELINUX, ROW_1


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty tree, and a `qemu` beside it that a test writes."""
    (tmp_path / "tree").mkdir()
    monkeypatch.setattr(watch, "_PROMPT", 0.05)
    monkeypatch.setattr(boot, "find_qemu", lambda _machine: tmp_path / "qemu")
    return tmp_path / "tree"


@pytest.fixture
def row_tree(tmp_path: Path) -> Path:
    """A tree that has the files of row 1 and of lpxelinux.0, but no kernel."""
    tree = tmp_path / "tree"
    for path in (ROW_1, LPXELINUX, PXELINUX):
        for step in path.chain:
            (tree / step.file).parent.mkdir(parents=True, exist_ok=True)
            (tree / step.file).touch()
    return tree
