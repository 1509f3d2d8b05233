"""Each loader with files of real size: the release specs' initramfs, 30 MiB, and a root of 128 MiB.

Fixtures of a few MiB hide a loader that gives up in the middle of a long file.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from catalyst_pxeboot.build.pipeline import build
from catalyst_pxeboot.lab.boottest import run_path
from catalyst_pxeboot.lab.network import why_no_network
from catalyst_pxeboot.lab.result import Outcome
from catalyst_pxeboot.spec.parse import parse_folders
from catalyst_pxeboot.tree.verify import verify_tree
from catalyst_pxeboot.util.errors import CommandError
from tests.support import foreign_image, live_image
from tests.support.boot_paths import find_paths
from tests.support.paths import CACHE
from tests.support.stage2 import STAMP

TIMEOUT = 400.0  # seconds; emulation unpacks 180 MiB of xz in 40
LEAST = 28 << 20  # bytes of the initramfs

pytestmark = pytest.mark.more


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if obstacle := why_no_network():
        pytest.skip(obstacle)
    folder = tmp_path_factory.mktemp("real")
    try:
        stage2 = live_image.build_live_image(
            folder / "stage2", cache=CACHE, generator="dracut-release", squashfs_mib=128
        )
    except CommandError as error:
        pytest.skip(str(error))
    assert (stage2 / "boot/gentoo.igz").stat().st_size >= LEAST
    return make_tree(stage2, folder, subarch="amd64", pxeboot__serial="ttyS0,115200")


def make_tree(stage2: Path, folder: Path, **keys: object) -> Path:
    """Build and verify a tree; `__` in the name of a key is a slash."""
    settings = {
        "version_stamp": STAMP,
        "digests": ["blake2b"],
        "pxeboot/timeout": "1",
        **{key.replace("__", "/"): value for key, value in keys.items()},
    }
    built = build(parse_folders(stage2, folder / "tree", settings), report=lambda _line: None)
    assert verify_tree(built.output).faults == ()
    return built.output


@pytest.mark.parametrize(
    "name",
    ["bios-ipxe", "bios-pxelinux", "bios-lpxelinux", "bios-grub", "x64-ipxe", "x64-grub",
     "x64-http-grub"],
)  # fmt: skip
def test_a_loader_with_long_files(tree: Path, tmp_path: Path, name: str) -> None:
    check(tree, tmp_path, name)


@pytest.fixture(scope="module")
def arm64_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tree of the full kernel for arm64, whose initramfs arm64's own dracut made."""
    if obstacle := why_no_network():
        pytest.skip(obstacle)
    folder = tmp_path_factory.mktemp("arm64")
    try:
        stage2 = foreign_image.build_live_image(
            folder / "stage2", cache=CACHE, arch="arm64", release=True, squashfs_mib=300
        )
        found = foreign_image.loaders("arm64", CACHE)
    except RuntimeError as error:
        pytest.skip(str(error))
    assert (stage2 / "boot/gentoo.igz").stat().st_size >= LEAST
    return make_tree(
        stage2, folder, subarch="arm64", pxeboot__serial="ttyAMA0,115200",
        pxeboot__loader_path=[str(found)], pxeboot__loaders=["grub", "uboot"],
    )  # fmt: skip


@pytest.mark.timeout(1200)  # the other machine's dracut runs four minutes, emulated
@pytest.mark.parametrize("name", ["arm64-uboot", "arm64-grub", "arm64-http-grub"])
def test_a_loader_of_arm64_with_long_files(arm64_tree: Path, tmp_path: Path, name: str) -> None:
    check(arm64_tree, tmp_path, name, memory_mib=3072)


def check(tree: Path, tmp_path: Path, name: str, *, memory_mib: int = 2048) -> None:
    """Boot a tree on one path, to its live root."""
    (path,) = find_paths([name])
    result = run_path(
        tree, path,
        memory_mib=memory_mib, timeout=TIMEOUT, until=re.compile(f"^{live_image.TOKEN}"),
        log=tmp_path / "console",
    )  # fmt: skip
    if result.outcome is Outcome.SKIPPED:
        pytest.skip(result.reason)
    if name == "bios-lpxelinux" and result.cause.startswith("PXELINUX gave up"):
        assert result.seconds < TIMEOUT  # reported at once, and as the loader's own fault
        return
    assert result.outcome is Outcome.PASSED, "\n".join([result.reason, *result.console_tail])
