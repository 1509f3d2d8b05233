"""Real clients in QEMU, until the live root itself prints its token.

Every boot uses the configurations as rendered; the one setting added is the documented
pxeboot/serial, so that the console can be read.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from catalyst_pxeboot.build.pipeline import build
from catalyst_pxeboot.model.loader import Firmware, Loader
from catalyst_pxeboot.spec.parse import parse_folders
from catalyst_pxeboot.tree.verify import verify_tree
from catalyst_pxeboot.util.errors import CommandError
from tests.support import live_image as liveimage
from tests.support.boot import BootResult, Client, boot_tree
from tests.support.paths import CACHE
from tests.support.stage2 import STAMP

TIMEOUT = 240.0  # seconds under emulation on a busy machine; a boot takes 15 to 60

IPXE_BIOS = Client("ipxe-bios", Loader.IPXE, Firmware.BIOS)
PXELINUX_BIOS = Client("pxelinux-bios", Loader.PXELINUX, Firmware.BIOS)
GRUB_BIOS = Client("grub-bios", Loader.GRUB, Firmware.BIOS)
GRUB_EFI = Client("grub-efi", Loader.GRUB, Firmware.EFI)
IPXE_EFI = Client("ipxe-efi", Loader.IPXE, Firmware.EFI)


def make_tree(folder: Path, generator: str, *, modules: bool = False, **keys: str) -> Path:
    """Build a live image, with or without the kernel's modules, then its netboot tree."""
    try:
        stage2 = liveimage.build_live_image(
            folder / "stage2", cache=CACHE, generator=generator, modules=modules
        )
    except CommandError as error:
        pytest.skip(str(error))
    settings = {
        "subarch": "amd64",
        "version_stamp": STAMP,
        "digests": ["blake2b", "sha512"],
        "pxeboot/serial": "ttyS0,115200",
        "pxeboot/timeout": "1",
        **{key.replace("__", "/"): value for key, value in keys.items()},
    }
    spec = parse_folders(stage2, folder / "tree", settings)
    tree = build(spec, report=lambda _line: None).output
    assert verify_tree(tree).faults == ()
    return tree


@pytest.fixture(scope="module")
def dracut_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("dracut"), "dracut")


@pytest.fixture(scope="module")
def genkernel_like_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("genkernel-like"), "genkernel-like")


def boot(tree: Path, client: Client, timeout: float = TIMEOUT) -> BootResult:
    try:
        return boot_tree(tree, client, token=liveimage.TOKEN, timeout=timeout)
    except CommandError as error:
        pytest.skip(str(error))


def assert_boots(tree: Path, client: Client) -> None:
    result = boot(tree, client)
    assert result.passed, "\n".join([result.reason, *result.console_tail])


@pytest.mark.parametrize(
    "client",
    [IPXE_BIOS, PXELINUX_BIOS, GRUB_BIOS, GRUB_EFI, IPXE_EFI],
    ids=lambda client: client.name,
)
def test_dracut_boots(dracut_tree: Path, client: Client) -> None:
    assert_boots(dracut_tree, client)


@pytest.mark.parametrize("client", [IPXE_BIOS, PXELINUX_BIOS], ids=lambda client: client.name)
def test_genkernels_words_boot(genkernel_like_tree: Path, client: Client) -> None:
    assert_boots(genkernel_like_tree, client)


@pytest.mark.genkernel
@pytest.mark.parametrize(
    "client", [IPXE_BIOS, PXELINUX_BIOS, GRUB_EFI], ids=lambda client: client.name
)
def test_genkernels_own_scripts_boot(tmp_path: Path, client: Client) -> None:
    assert_boots(make_tree(tmp_path, "genkernel"), client)


def changed(tree: Path, copy: Path) -> Path:
    """Return a copy of the tree that a test may damage."""
    shutil.copytree(tree, copy)
    return copy


def test_a_header_off_by_one_does_not_boot(genkernel_like_tree: Path, tmp_path: Path) -> None:
    """PXELINUX reads our header. One byte less in its size field cuts the last sector off.

    One byte more boots: the kernel keeps what it has of a last member that ends early. So does
    a squashfs that lies wholly before its last sector; the fixture's does not.
    """
    tree = changed(genkernel_like_tree, tmp_path / "tree")
    header = tree / "boot/root.cpio-header"
    content = bytearray(header.read_bytes())
    content[54:62] = b"%08X" % (int(content[54:62], 16) - 1)
    header.write_bytes(content)
    result = boot(tree, PXELINUX_BIOS, timeout=120)
    assert not result.passed
    assert "Run /init as init process" in "\n".join(result.console_tail), result
    (fault,) = verify_tree(tree).faults[-1:]
    assert fault.message.startswith("boot/root.cpio-header: it names image.squashfs.img of ")


def test_a_missing_squashfs_does_not_boot(genkernel_like_tree: Path, tmp_path: Path) -> None:
    tree = changed(genkernel_like_tree, tmp_path / "tree")
    (tree / "image.squashfs").unlink()
    result = boot(tree, PXELINUX_BIOS, timeout=120)
    assert not result.passed
    assert "image.squashfs" in "\n".join(result.console_tail)
