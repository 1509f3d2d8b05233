"""Fixtures of these tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from catalyst_pxeboot.lab import boot, boottest, watch
from catalyst_pxeboot.lab.machine import Accel
from catalyst_pxeboot.lab.serve import WebServer
from tests.support.lab import LPXELINUX, PXELINUX, ROW_1, write_script


@contextmanager
def _no_server(_root: Path, *, follow: bool) -> Iterator[WebServer]:
    """A web server that a stand-in for QEMU asks for nothing."""
    assert follow
    yield WebServer(80, Path("/nonexistent/log"))


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty tree, and a `qemu` beside it that a test writes."""
    (tmp_path / "tree").mkdir()
    monkeypatch.setattr(watch, "_PROMPT", 0.05)
    monkeypatch.setattr(boot, "find_qemu", lambda _machine: tmp_path / "qemu")
    monkeypatch.setattr(boot, "serve_tree", _no_server)
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


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that makes a shell script of its text run in place of QEMU."""

    def use(script: str) -> None:
        qemu = write_script(tmp_path / "qemu", script)
        for module in (boot, boottest):
            monkeypatch.setattr(module, "find_qemu", lambda _machine: qemu)
        monkeypatch.setattr(boot, "choose_accel", lambda *_: Accel.TCG)
        monkeypatch.setattr(boot, "serve_tree", _no_server)

    return use
