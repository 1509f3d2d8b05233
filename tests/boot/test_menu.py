"""Real clients in QEMU that boot by one menu over many trees, as `menu ROOT` wrote it.

Two trees lie below ROOT, each with a token of its own, so a boot tells which one it came to.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from catalyst_pxeboot.build.pipeline import build
from catalyst_pxeboot.lab.boot import boot_client
from catalyst_pxeboot.lab.machine import Accel
from catalyst_pxeboot.lab.watch import Verdict
from catalyst_pxeboot.model.loader import Firmware, Loader
from catalyst_pxeboot.releases.write import write_menu
from catalyst_pxeboot.spec.parse import parse_folders
from catalyst_pxeboot.util.errors import CommandError
from tests.boot.test_loaders import TIMEOUT
from tests.support import live_image as liveimage
from tests.support.boot import Client
from tests.support.paths import CACHE

NEW, OLD = "20261122T170000Z", "20261115T170000Z"
ENTER, DOWN = "\r", "\x1b[B"
#: The last line of every menu; what is typed then comes to the menu.
SHOWN = "Power off"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build two trees of the same kind, one older, and the menu over both."""
    folder = tmp_path_factory.mktemp("menu")
    for stamp, time in ((NEW, "1795366800"), (OLD, "1794762000")):
        stage2 = folder / f"stage2-{stamp}"
        try:
            liveimage.build_live_image(
                stage2, cache=CACHE, generator="genkernel-like", token=f"live-root-{stamp}"
            )
        except CommandError as error:
            pytest.skip(str(error))
        settings = {
            "subarch": "amd64",
            "rel_type": "23.0-default",
            "version_stamp": stamp,
            "digests": ["blake2b"],
            "pxeboot/serial": "ttyS0,115200",
            "pxeboot/timeout": "1",
        }
        spec = parse_folders(stage2, folder / f"root/amd64/pxeboot-amd64-{stamp}", settings)
        spec.output.parent.mkdir(parents=True, exist_ok=True)
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("SOURCE_DATE_EPOCH", time)
            build(spec, report=lambda _line: None)
    written = write_menu(folder / "root", templates=None, report=lambda _line: None, dry_run=False)
    assert written.warnings == ()
    return folder / "root"


def newest(root: Path) -> Path:
    return root / f"amd64/pxeboot-amd64-{NEW}"


def boot(root: Path, client: Client, *typed: tuple[str, str]) -> Verdict:
    """Boot from `root`; `typed` are keys, each after what the console must show before."""
    try:
        verdict, _fetched = boot_client(
            root, client.machine, client.loader, client.entry,
            until=re.compile("^live-root-"),
            timeout=TIMEOUT,
            memory_mib=client.memory_mib,
            log=None,
            accel=Accel.AUTO,
            typed=typed,
        )  # fmt: skip
    except CommandError as error:
        pytest.skip(str(error))
    return verdict


def assert_reached(verdict: Verdict, stamp: str) -> None:
    told = "\n".join([verdict.reason, *verdict.console_tail])
    assert verdict.passed, told
    assert verdict.reason.startswith(f"live-root-{stamp} "), told


def test_ipxe_boots_the_newest_tree(root: Path) -> None:
    client = Client("ipxe", Loader.IPXE, Firmware.BIOS, boot_file="menu.ipxe")
    assert_reached(boot(root, client, (SHOWN, ENTER)), NEW)


@pytest.mark.more
def test_ipxe_boots_the_newest_tree_by_itself(root: Path) -> None:
    """The menu of all trees goes on after its 30 seconds."""
    client = Client("ipxe", Loader.IPXE, Firmware.EFI, boot_file="menu.ipxe")
    assert_reached(boot(root, client), NEW)


@pytest.mark.more
def test_ipxe_boots_an_older_tree(root: Path) -> None:
    client = Client("ipxe", Loader.IPXE, Firmware.BIOS, boot_file="menu.ipxe")
    keys = ((SHOWN, DOWN), (SHOWN, ENTER), ("Back", ENTER))
    assert_reached(boot(root, client, *keys), OLD)


@pytest.mark.more
def test_pxelinux_boots_the_newest_tree(root: Path) -> None:
    """As the menu's own text says: PXELINUX lies beside pxelinux.cfg/, from the newest tree."""
    for name in re.findall(r"\S+\.c32|pxelinux\.0", (root / "pxelinux.cfg/default").read_text()):
        if (newest(root) / name).is_file():
            shutil.copyfile(newest(root) / name, root / name)
    client = Client("pxelinux", Loader.PXELINUX, Firmware.BIOS)
    assert_reached(boot(root, client, (SHOWN, ENTER)), NEW)


@pytest.mark.more
@pytest.mark.parametrize(
    ("firmware", "image"),
    [(Firmware.EFI, "x86_64-efi/core.efi"), (Firmware.BIOS, "i386-pc/core.0")],
    ids=lambda value: str(value),
)
def test_grub_boots_the_newest_tree(root: Path, firmware: Firmware, image: str) -> None:
    """As the menu's text says: a tree's image in this folder, the menu as boot/grub/grub.cfg."""
    name = Path(image).name
    shutil.copyfile(newest(root) / "boot/grub" / image, root / name)
    (root / "boot/grub").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(root / "grub.cfg", root / "boot/grub/grub.cfg")
    client = Client("grub", Loader.GRUB, firmware, boot_file=name)
    assert_reached(boot(root, client, (SHOWN, ENTER)), NEW)
