"""Clients with as much memory as the tree says, and with a quarter less."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from catalyst_pxeboot.build.pipeline import build
from catalyst_pxeboot.spec.parse import parse_folders
from catalyst_pxeboot.util.errors import CommandError
from tests.boot.test_loaders import IPXE_BIOS, PXELINUX_BIOS, boot, make_tree
from tests.support import live_image as liveimage
from tests.support.boot import Client, boot_tree
from tests.support.paths import CACHE


def estimate(tree: Path, client: Client) -> int:
    """Return what the tree's manifest says of its first entry, in MiB."""
    entry = json.loads((tree / "manifest.json").read_text())["menu"]["entries"][0]
    return int(entry["limits"][client.loader]["memory_bytes"][client.firmware]) >> 20


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("memory"), "genkernel-like")


@pytest.mark.parametrize("client", [IPXE_BIOS, PXELINUX_BIOS], ids=lambda client: client.name)
def test_the_estimate_is_enough(tree: Path, client: Client) -> None:
    result = boot(tree, replace(client, memory_mib=estimate(tree, client)))
    assert result.passed, "\n".join([result.reason, *result.console_tail])


def test_a_quarter_less_is_told_before_the_download(tree: Path, tmp_path: Path) -> None:
    """And then tried, as nobody is there to choose otherwise; the kernel says why it stops."""
    needs = estimate(tree, IPXE_BIOS)
    client = replace(IPXE_BIOS, memory_mib=needs * 3 // 4)
    log = tmp_path / "console"
    try:
        result = boot_tree(tree, client, token=liveimage.TOKEN, timeout=90, log=log)
    except CommandError as error:
        pytest.skip(str(error))
    assert not result.passed
    console = log.read_text(errors="replace")
    warning = f"This machine has {needs * 3 // 4} MiB of memory, and this entry needs {needs}."
    assert warning in console, console[-4000:]
    assert "System is deadlocked on memory" in console, console[-4000:]


@pytest.mark.more
def test_768_mib_are_enough_for_a_squashfs_of_320(tmp_path: Path) -> None:
    try:
        stage2 = liveimage.build_live_image(
            tmp_path / "stage2", cache=CACHE, generator="genkernel-like", squashfs_mib=320
        )
    except CommandError as error:
        pytest.skip(str(error))
    settings = {
        "subarch": "amd64", "pxeboot/serial": "ttyS0,115200", "pxeboot/timeout": "1",
        "pxeboot/root": "embedded",
    }  # fmt: skip
    spec = parse_folders(stage2, tmp_path / "tree", settings)
    tree = build(spec, report=lambda _line: None).output
    assert estimate(tree, IPXE_BIOS) <= 768
    result = boot(tree, replace(IPXE_BIOS, memory_mib=768))
    assert result.passed, "\n".join([result.reason, *result.console_tail])
