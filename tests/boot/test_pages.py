"""The QEMU command of index.html boots the tree, as printed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from catalyst_pxeboot.build.pipeline import build
from catalyst_pxeboot.lab.machine import BIOS, UEFI_ARM64, find_qemu, kvm_runs
from catalyst_pxeboot.lab.serve import serve_tree
from catalyst_pxeboot.render.pages import PLACEHOLDER
from catalyst_pxeboot.spec.parse import parse_folders
from catalyst_pxeboot.util.errors import CommandError
from tests.boot.test_loaders import make_tree
from tests.support import foreign_image as foreignimage
from tests.support import live_image as liveimage
from tests.support.page import read_page
from tests.support.paths import CACHE
from tests.support.stage2 import STAMP


def boot(command: str, folder: Path) -> str:
    """Run a QEMU command as printed, without its window; return its console."""
    argv = command.split()
    try:
        qemu = find_qemu(BIOS if "x86_64" in argv[0] else UEFI_ARM64)
    except CommandError as error:
        pytest.skip(str(error))
    more = ["-no-reboot"]
    if "-nographic" not in argv:
        more += ["-display", "none", "-serial", "stdio"]
    if "kvm" in argv and not kvm_runs(qemu):  # it may open and run no guest
        place = argv.index("kvm") - 1
        del argv[place : place + 2]
    done = subprocess.run(
        [*argv, *more], cwd=folder, stdin=subprocess.DEVNULL, timeout=400,
        capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


@pytest.mark.timeout(600)
def test_the_qemu_command_boots(tmp_path: Path) -> None:
    """As printed, the page's address put in as its script does."""
    tree = make_tree(tmp_path, "dracut")
    command = read_page(tree).commands["the QEMU command"]
    with serve_tree(tree) as server:
        shown = boot(command.replace(PLACEHOLDER, f"http://10.0.2.2:{server.port}"), tmp_path)
    assert re.search(rf"^{liveimage.TOKEN} ", shown, re.M), shown[-4000:]


@pytest.mark.more
@pytest.mark.timeout(600)
def test_the_qemu_command_for_arm64_boots(tmp_path: Path) -> None:
    """As printed, in a copy of the folder: its firmware gets GRUB by TFTP."""
    if not Path("/usr/share/qemu-efi-aarch64/QEMU_EFI.fd").is_file():
        pytest.skip("qemu-efi-aarch64 is missing")
    stage2 = foreignimage.build_live_image(tmp_path / "stage2", cache=CACHE, arch="arm64")
    settings = {
        "subarch": "arm64",
        "version_stamp": STAMP,
        "pxeboot/timeout": "1",
        "pxeboot/loader_path": str(foreignimage.loaders("arm64", CACHE)),
    }
    spec = parse_folders(stage2, tmp_path / "tree", settings)
    tree = build(spec, report=lambda _line: None).output
    shown = boot(read_page(tree).commands["the QEMU command"], tree)
    assert re.search(rf"^{liveimage.TOKEN} ", shown, re.M), shown[-4000:]
