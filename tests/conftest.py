"""Fixtures of all tests."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalyst_pxeboot.build import stream as build_stream
from catalyst_pxeboot.loader import binaries as loaders
from catalyst_pxeboot.source import image as source_image
from catalyst_pxeboot.source.network import LiveContents, LiveNetwork
from catalyst_pxeboot.stream import pack as stream_pack
from catalyst_pxeboot.stream.pack import Packed
from catalyst_pxeboot.stream.tools import Tools
from catalyst_pxeboot.tree import verify_stream
from catalyst_pxeboot.util import resources
from tests.support.paths import STANDIN
from tests.support.stage2 import storedir_stage2, write_stage2

sys.path.insert(0, str(STANDIN))  # real catalyst runs in processes of its own

#: What no package has, so that a test may be skipped even where nothing else may: checkouts, and
#: binaries that Debian 12 does not have.
MAY_BE_MISSING = (
    "CATALYST_SRC", "GENKERNEL_SRC", "RELENG_SRC", "PKGCHECK", "iPXE for arm64",
)  # fmt: skip


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Fail a skip for anything else where PXEBOOT_STRICT_SKIPS is set, as .ci/run does."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    strict = "PXEBOOT_STRICT_SKIPS" in os.environ
    if report.skipped and strict and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2]
        if not any(word in reason for word in MAY_BE_MISSING):
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid}: {reason}: install it, or name it in MAY_BE_MISSING"


@pytest.fixture
def no_loaders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the machine's own loader binaries, so that a tree is the same everywhere."""
    hide_loaders(monkeypatch)


def hide_loaders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide them until `monkeypatch` is undone, for fixtures that last longer."""
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


@pytest.fixture
def streaming(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every live root have drivers and every host the programs, always the same ones."""
    contents = LiveContents(
        LiveNetwork(why="it is not looked into"), {"6.1.0-test": "lib/modules/6.1"}
    )
    monkeypatch.setattr(source_image, "read_contents", lambda _image, offset: contents)
    monkeypatch.setattr(
        build_stream, "find_tools", lambda machine, _, **_more: Tools(machine, {}, "")
    )

    monkeypatch.setattr(build_stream, "find_missing", lambda *_where: None)

    def pack_stream(_tools: Tools, *, scratch: Path, **_more: object) -> Packed:
        packed = Packed(scratch / "tools", scratch / "drivers")
        packed.tools.write_bytes(b"tools" * 1000)
        packed.drivers.write_bytes(b"drivers" * 1000)
        return packed

    monkeypatch.setattr(stream_pack, "pack_stream", pack_stream)
    monkeypatch.setattr(verify_stream, "find_foreign_drivers", lambda _packed, **_where: ())
