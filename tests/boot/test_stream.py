"""Real clients whose initramfs, a stock one, streams its root over HTTP by the add-on.

The initramfs is made by the release specs' arguments: it has no network driver, no livenet, no
curl. The tree is built from an ISO, as a user would build it, with nothing set but a serial line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from catalyst_pxeboot.build.pipeline import build, parse_image
from catalyst_pxeboot.build.stream import find_stream_tools
from catalyst_pxeboot.lab.boottest import run_path
from catalyst_pxeboot.lab.network import why_no_network
from catalyst_pxeboot.lab.paths import Scheme
from catalyst_pxeboot.lab.result import Outcome, PathResult
from catalyst_pxeboot.model.loader import Firmware, Loader
from catalyst_pxeboot.model.settings import RootMode
from catalyst_pxeboot.source.image import read_source
from catalyst_pxeboot.stream.tools import NoTools
from catalyst_pxeboot.tree.manifest import read_manifest
from catalyst_pxeboot.tree.verify import verify_tree
from catalyst_pxeboot.util.errors import CommandError
from tests.boot.test_loaders import changed
from tests.support import live_image
from tests.support.boot_paths import find_paths
from tests.support.iso import plain_iso
from tests.support.paths import CACHE

SQUASHFS = "image.squashfs"
HASHES = f"{SQUASHFS}.verity"
SERVER = "http://192.0.2.1"
LEAST = 352  # MiB of the client
TOKEN = re.compile(f"^{live_image.TOKEN}")

more = pytest.mark.more


@pytest.fixture(scope="module")
def iso(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_iso(tmp_path_factory.mktemp("iso"), "dracut-release")


def make_iso(folder: Path, generator: str) -> Path:
    return pack_iso(make_stage2(folder, generator, 100, live_image.CLOUD), folder)


def make_stage2(
    folder: Path,
    generator: str,
    mib: int,
    package: str,
    init: str = live_image.INIT,
    members: Sequence[tuple[str, int, bytes]] = (),
) -> Path:
    """Return a live image, as `build_live_image`; skip where none can be booted."""
    if obstacle := why_no_network():
        pytest.skip(obstacle)
    try:
        return live_image.build_live_image(
            folder / "stage2", cache=CACHE, generator=generator, squashfs_mib=mib, modules=True,
            package=package, init=init, members=members,
        )  # fmt: skip
    except CommandError as error:
        pytest.skip(str(error))


def pack_iso(stage2: Path, folder: Path) -> Path:
    return plain_iso(stage2, folder / "install-amd64-minimal-20261122T170000Z.iso")


def make_tree(iso: Path, folder: Path, **keys: object) -> Path:
    source = read_source(iso)
    tools = find_stream_tools(source, [])
    if isinstance(tools, NoTools):
        pytest.skip(f"{tools.what}: {tools.reason}; {tools.hint}")
    settings = {
        "pxeboot/serial": "ttyS0,115200",
        "pxeboot/timeout": "1",
        **{key.replace("__", "/"): value for key, value in keys.items()},
    }
    spec = parse_image(iso, folder / "tree", settings)
    tree = build(spec, report=lambda _line: None).output
    assert verify_tree(tree).faults == ()
    return tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tree with every root mode that the image has.

    Its live root does not read all of itself: with the least memory, under emulation, that takes
    one to six minutes. The tests that `make test` leaves out do.
    """
    folder = tmp_path_factory.mktemp("stream")
    stage2 = make_stage2(
        folder, "dracut-release", 100, live_image.CLOUD, init=live_image.QUICK_INIT
    )
    return make_tree(pack_iso(stage2, folder), folder)


@pytest.fixture(scope="module")
def stream_tree(iso: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tree whose default is the streamed root, with its address for PXELINUX."""
    folder = tmp_path_factory.mktemp("only")
    return make_tree(iso, folder, pxeboot__root="stream", pxeboot__base_url=SERVER)


def boot(tree: Path, name: str, folder: Path, memory: int = LEAST, **more: object) -> PathResult:
    (path,) = find_paths([name])
    path = replace(path, payload=Scheme.HTTP)  # the root's, whatever brought the loader
    result = run_path(
        tree, path, memory_mib=memory, timeout=400, until=TOKEN, log=folder / "console",
        **more,  # type: ignore[arg-type]
    )  # fmt: skip
    if result.outcome is Outcome.SKIPPED:
        pytest.skip(result.reason)
    return result


def test_a_stock_iso_boots_in_352_mib(tree: Path, tmp_path: Path) -> None:
    """iPXE chooses the entry: the embedded root, the menu's first, needs more memory."""
    entries = read_manifest(tree)[1].menu.live
    assert entries[0].root is RootMode.EMBEDDED and entries[0].limits
    assert entries[0].limits[Loader.IPXE].memory_bytes[Firmware.BIOS] > LEAST << 20
    result = boot(tree, "bios-ipxe", tmp_path)
    assert result.outcome is Outcome.PASSED, "\n".join([result.reason, *result.console_tail])
    # Debian's iPXE tells a script's folder only as `boot.ipxe/..`.
    assert re.search(rf" pxeboot\.url={SERVER}/(boot\.ipxe/\.\./)?{SQUASHFS} ", result.reason)
    assert "pxeboot.copy" not in result.reason


FAULTS = {
    "first block": "the live root on the server is not the one that this netboot tree was made",
    "later block": "verity: .*data block [0-9]+ is corrupted",
    "cut short": "the live root on the server has [0-9]+ bytes, not [0-9]+",
    "missing": "the live root cannot be opened: .*404",
    "other hashes": "the live root on the server is not the one that this netboot tree was made",
    "later hash": "verity: .*metadata block [0-9]+ is corrupted",
    "hashes cut short": "the hash tree of the live root on the server has [0-9]+ bytes, not [0-9]+",
    "no hashes": "the live root cannot be opened: .*404",
}


def flip(at: float) -> Callable[[Path], None]:
    def do(file: Path) -> None:
        content = bytearray(file.read_bytes())
        content[int(at * len(content))] ^= 1
        file.write_bytes(content)

    return do


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-4096])


DAMAGE: dict[str, tuple[str, Callable[[Path], None]]] = {
    "first block": (SQUASHFS, flip(0.00001)),
    "later block": (SQUASHFS, flip(0.4)),
    "cut short": (SQUASHFS, cut),
    "missing": (SQUASHFS, Path.unlink),
    "other hashes": (HASHES, flip(0)),
    "later hash": (HASHES, flip(0.4)),
    "hashes cut short": (HASHES, cut),
    "no hashes": (HASHES, Path.unlink),
}


@pytest.mark.parametrize(
    "fault", ["first block", *(pytest.param(name, marks=more) for name in list(FAULTS)[1:])]
)
def test_another_root_is_refused(stream_tree: Path, fault: str, tmp_path: Path) -> None:
    damaged = changed(stream_tree, tmp_path / "tree")
    name, damage = DAMAGE[fault]
    damage(damaged / name)
    complaint = re.compile(FAULTS[fault])
    result = boot(damaged, "bios-ipxe", tmp_path, complaint=complaint)
    assert result.outcome is Outcome.PASSED, "\n".join([result.reason, *result.console_tail])


@more
@pytest.mark.parametrize(
    ("name", "memory"),
    [("bios-grub", LEAST), ("bios-pxelinux", LEAST), ("x64-ipxe", 512), ("x64-http-grub", 512)],
)
def test_a_loader_leads_to_the_streamed_root(
    stream_tree: Path, name: str, memory: int, tmp_path: Path
) -> None:
    result = boot(stream_tree, name, tmp_path, memory)
    assert result.outcome is Outcome.PASSED, "\n".join([result.reason, *result.console_tail])


@more
def test_a_stock_image_fetches_its_root_into_memory(iso: Path, tmp_path: Path) -> None:
    tree = make_tree(iso, tmp_path, pxeboot__root=str(RootMode.HTTP), pxeboot__base_url=SERVER)
    result = boot(tree, "bios-ipxe", tmp_path, 640)
    assert result.outcome is Outcome.PASSED, "\n".join([result.reason, *result.console_tail])
    assert " pxeboot.copy " in result.reason


@pytest.mark.genkernel
def test_genkernels_own_init_mounts_a_streamed_root(tmp_path: Path) -> None:
    tree = make_tree(make_iso(tmp_path, "genkernel"), tmp_path, pxeboot__base_url=SERVER,
                     pxeboot__root=str(RootMode.STREAM))  # fmt: skip
    result = boot(tree, "bios-ipxe", tmp_path)
    assert result.outcome is Outcome.PASSED, "\n".join([result.reason, *result.console_tail])
    assert " looptype=squashfs loop=/live-root cdroot " in result.reason
