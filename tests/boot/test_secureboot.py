"""Secure Boot: firmware, shim, GRUB and kernel, each verified by the one before it.

The signed files are Debian's: downloaded with apt-get and unpacked, not installed. The kernel of
tests/liveimage.py is signed as Debian delivers it.
"""

from __future__ import annotations

import re
import shutil
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from catalyst_pxeboot.build.pipeline import build
from catalyst_pxeboot.formats.pe import is_signed
from catalyst_pxeboot.lab.boot import prepare_flash
from catalyst_pxeboot.lab.machine import (
    UEFI_X64_SECURE,
    Accel,
    UserLink,
    choose_accel,
    find_qemu,
    qemu_argv,
)
from catalyst_pxeboot.lab.watch import Verdict, watch_machine
from catalyst_pxeboot.spec.parse import parse_folders
from catalyst_pxeboot.tree.verify import verify_tree
from catalyst_pxeboot.util.errors import CommandError
from tests.support import live_image as liveimage
from tests.support.paths import CACHE
from tests.support.stage2 import STAMP

PACKAGES = ("shim-signed", "shim-helpers-amd64-signed", "grub-efi-amd64-signed")
GRUB = "usr/lib/grub/x86_64-efi-signed"
TIMEOUT = 240.0  # seconds under emulation on a busy machine; a boot takes 7 to 50


@dataclass(frozen=True)
class Signed:
    """A tree with signed loaders, and the folder of their packages, unpacked."""

    tree: Path
    packages: Path


def unpack(top: Path) -> None:
    """Download and unpack the packages of the signed loaders."""
    top.mkdir()
    with tempfile.TemporaryDirectory() as scratch:
        # Root's apt hands the download to the user _apt, who must be able to write here.
        Path(scratch).chmod(0o777)
        liveimage._run("apt-get", "-qq", "download", *PACKAGES, folder=Path(scratch))
        for package in Path(scratch).glob("*.deb"):
            liveimage._run("dpkg-deb", "-x", str(package), str(top))


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    """Build a tree as a user would whose build host has the signed loaders."""
    folder = tmp_path_factory.mktemp("secureboot")
    packages = CACHE / "secureboot"
    try:
        CACHE.mkdir(parents=True, exist_ok=True)
        if not packages.is_dir():
            liveimage._once(packages, unpack)
        stage2 = liveimage.build_live_image(folder / "stage2", cache=CACHE)
    except (CommandError, RuntimeError, OSError) as error:
        pytest.skip(f"needs Debian's {' '.join(PACKAGES)} and a live image: {error}")
    settings = {
        "subarch": "amd64",
        "version_stamp": STAMP,
        "digests": ["sha512"],
        "pxeboot/loaders": ["grub"],
        "pxeboot/loader_path": [str(packages / "usr/lib/shim"), str(packages / GRUB)],
        "pxeboot/serial": "ttyS0,115200",
        "pxeboot/timeout": "1",
    }
    spec = parse_folders(stage2, folder / "tree", settings)
    tree = build(spec, report=lambda _line: None).output
    assert verify_tree(tree).faults == ()
    assert is_signed(tree / "boot/gentoo")
    return Signed(tree, packages)


def boot(
    root: Path, boot_file: str, until: str, tmp_path: Path, *typed: tuple[str, str]
) -> Verdict:
    """Boot a client with Microsoft's keys, for which DHCP names `boot_file` of `root`."""
    try:
        qemu = find_qemu(UEFI_X64_SECURE)
        flash = prepare_flash(UEFI_X64_SECURE, tmp_path)
    except CommandError as error:
        pytest.skip(str(error))
    argv = qemu_argv(
        UEFI_X64_SECURE,
        UserLink(root, boot_file),
        qemu=qemu,
        accel=choose_accel(Accel.AUTO, qemu, UEFI_X64_SECURE),
        flash=flash,
    )
    return watch_machine(argv, until=re.compile(until), timeout=TIMEOUT, typed=typed)


def shown(verdict: Verdict) -> str:
    return "\n".join([*verdict.console_tail, verdict.reason])


def changed(tree: Path, copy: Path) -> Path:
    """Return a copy of the tree that a test may damage."""
    shutil.copytree(tree, copy)
    return copy


def unsign(program: Path) -> None:
    """Take the signature off a 64-bit UEFI program: its table and what points there."""
    data = bytearray(program.read_bytes())
    entry = struct.unpack_from("<I", data, 60)[0] + 24 + 112 + 4 * 8
    place, count = struct.unpack_from("<II", data, entry)
    assert place + count == len(data)
    struct.pack_into("<II", data, entry, 0, 0)
    program.write_bytes(data[:place])


def test_the_signed_loaders_are_staged_by_the_names_that_shim_asks_for(signed: Signed) -> None:
    for path, origin in (
        ("shimx64.efi", "usr/lib/shim/shimx64.efi.signed"),
        ("grubx64.efi", f"{GRUB}/grubnetx64.efi.signed"),
        ("mmx64.efi", "usr/lib/shim/mmx64.efi.signed"),
    ):
        assert (signed.tree / path).read_bytes() == (signed.packages / origin).read_bytes()


def test_signed_to_the_live_root(signed: Signed, tmp_path: Path) -> None:
    verdict = boot(signed.tree, "shimx64.efi", f"^{liveimage.TOKEN}", tmp_path)
    assert verdict.passed, shown(verdict)


def test_a_tree_in_a_folder_of_the_server(signed: Signed, tmp_path: Path) -> None:
    """Debian's GRUB asks for /grub/grub.cfg: a copy there finds the tree where shim came from."""
    root = tmp_path / "tftp"
    changed(signed.tree, root / "releases/amd64")
    shutil.copytree(signed.tree / "grub", root / "grub")
    verdict = boot(root, "releases/amd64/shimx64.efi", f"^{liveimage.TOKEN}", tmp_path)
    assert verdict.passed, shown(verdict)
    assert "(tftp,10.0.2.2)releases/amd64/boot/gentoo" in verdict.reason


def test_shim_beside_no_tree(signed: Signed, tmp_path: Path) -> None:
    root = tmp_path / "tftp"
    root.mkdir()
    for name in ("shimx64.efi", "grubx64.efi", "grub/grub.cfg"):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(signed.tree / name, root / name)
    verdict = boot(root, "shimx64.efi", "starts again", tmp_path)
    assert verdict.passed, shown(verdict)
    assert (
        "boot/grub/grub.cfg not found in (tftp,10.0.2.2), where this GRUB came from.\n"
        "Put shim and GRUB into the folder of the netboot tree, and let DHCP name that shim.\n"
    ) in shown(verdict)


@pytest.mark.parametrize("damage", ["unsigned", "one byte changed"])
def test_a_kernel_that_is_refused(signed: Signed, tmp_path: Path, damage: str) -> None:
    """GRUB says why, we say what to do, and Esc leads to a menu that waits."""
    tree = changed(signed.tree, tmp_path / "tree")
    kernel = tree / "boot/gentoo"
    if damage == "unsigned":
        unsign(kernel)
        assert not is_signed(kernel)
    else:
        content = bytearray(kernel.read_bytes())
        content[len(content) // 2] ^= 1
        kernel.write_bytes(content)
    verdict = boot(
        tree, "shimx64.efi", "ESC to return previous menu", tmp_path, ("starts again", "\x1b")
    )
    assert verdict.passed, shown(verdict)
    assert (
        "Loading (tftp,10.0.2.2)/boot/gentoo\n"
        "error: bad shim signature.\n"
        "This did not work; the reason is above. Files are fetched from (tftp,10.0.2.2)/\n"
        'Secure Boot is on. "bad shim signature" means: this file is not signed by a key\n'
        "that this machine trusts. Use a signed kernel, or enrol the key of its signer\n"
        "(mokutil, MokManager), or turn Secure Boot off (Firmware setup in the menu).\n"
    ) in shown(verdict)
    assert "EFI stub" not in shown(verdict)


def test_the_firmware_refuses_our_own_grub(signed: Signed, tmp_path: Path) -> None:
    verdict = boot(signed.tree, "boot/grub/x86_64-efi/core.efi", "BdsDxe: failed to load", tmp_path)
    assert verdict.passed, shown(verdict)
    assert verdict.reason.endswith("Access Denied")
    assert "Welcome to GRUB" not in shown(verdict)


def test_shim_refuses_an_unsigned_grub(signed: Signed, tmp_path: Path) -> None:
    tree = changed(signed.tree, tmp_path / "tree")
    unsign(tree / "grubx64.efi")
    verdict = boot(tree, "shimx64.efi", r"Verification failed: \(0x1A\)", tmp_path)
    assert verdict.passed, shown(verdict)
    assert "Security Violation" in verdict.reason
    assert "Welcome to GRUB" not in shown(verdict)
