"""arm64 clients that stream their root, by GRUB and from a unified kernel image.

The initramfs has genkernel's own scripts, read from a checkout: they fit any processor.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from catalyst_pxeboot.build.pipeline import build, parse_image
from catalyst_pxeboot.lab.network import why_no_network
from catalyst_pxeboot.lab.result import Outcome
from catalyst_pxeboot.model.settings import RootMode
from catalyst_pxeboot.tree.verify import verify_tree
from tests.boot.test_stream import SERVER, boot
from tests.support import foreign_image
from tests.support.iso import plain_iso
from tests.support.paths import CACHE

ARCH = "arm64"

pytestmark = pytest.mark.genkernel


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if obstacle := why_no_network():
        pytest.skip(obstacle)
    folder = tmp_path_factory.mktemp(ARCH)
    try:
        stage2 = foreign_image.build_live_image(
            folder / "stage2", cache=CACHE, arch=ARCH, genkernel=Path(os.environ["GENKERNEL_SRC"]),
            modules=True, squashfs_mib=100,
        )  # fmt: skip
        found = [
            foreign_image.stream_tools(ARCH, CACHE),
            foreign_image.stub(ARCH, CACHE),
            foreign_image.loaders(ARCH, CACHE),
        ]
    except RuntimeError as error:
        pytest.skip(str(error))
    iso = plain_iso(stage2, folder / f"install-{ARCH}-minimal-20261122T170000Z.iso")
    settings = {
        "pxeboot/serial": "ttyAMA0,115200",
        "pxeboot/timeout": "1",
        "pxeboot/loaders": ["uki", "grub"],
        "pxeboot/first": "uki",
        "pxeboot/root": str(RootMode.STREAM),
        "pxeboot/base_url": SERVER,
        "pxeboot/loader_path": list(map(str, found)),
    }
    spec = parse_image(iso, folder / "tree", settings)
    tree = build(spec, report=lambda _line: None).output
    assert verify_tree(tree).faults == ()
    return tree


@pytest.mark.parametrize("name", ["arm64-http-grub", "arm64-http-uki"])
def test_a_root_is_streamed(name: str, tree: Path, tmp_path: Path) -> None:
    result = boot(tree, name, tmp_path, 512)
    assert result.outcome is Outcome.PASSED, "\n".join([result.reason, *result.console_tail])
    assert " looptype=squashfs loop=/live-root cdroot " in result.reason
