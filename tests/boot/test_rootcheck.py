"""Real clients in QEMU that compare the live root with its digest: it passes, or the boot ends.

As in tests/test_boot.py the trees are built as a user would build them. What is flipped is a
squashfs's last byte, behind all that is ever read: the live system would not notice.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from catalyst_pxeboot.plan.roots import ROOT_CHECK
from catalyst_pxeboot.tree.verify import verify_tree
from tests.boot.test_loaders import IPXE_BIOS, boot, changed, make_tree
from tests.support import live_image as liveimage
from tests.support.boot import BootResult
from tests.support.nfs_server import NfsServer, serve_nfs

SQUASHFS = "image.squashfs"
PASSED = "root check: the live root is the one that this netboot tree was made with"
#: How the console of an initramfs shows that no live root will come: its shell, or the end.
DRACUT_END = "the console shows 'Generating \"/run/initramfs/rdsosreport.txt\"'"
GENKERNEL_END = "the console shows 'rescue shell!'"
#: QEMU's user network: this machine, as the client sees it.
HOST = "10.0.2.2"

genkernel = pytest.mark.genkernel


@pytest.fixture(scope="module")
def http_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tree that says nothing of the check: it has one wherever it can."""
    return make_tree(tmp_path_factory.mktemp("http"), "dracut-net", pxeboot__root="http embedded")


@dataclass(frozen=True)
class NfsTree:
    """A tree on an NFS server, which checks its root because it was asked to."""

    tree: Path
    server: NfsServer
    end: str

    @property
    def sent(self) -> int:
        return self.server.sent.get(SQUASHFS, 0)


@pytest.fixture(
    params=[
        ("dracut-net", DRACUT_END),
        pytest.param(("genkernel", GENKERNEL_END), marks=genkernel),
    ],
    ids=lambda param: param[0],
)
def nfs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NfsTree]:
    generator, end = request.param
    # The server is told to the tree when that is built, so it is there first.
    (tmp_path / "tree").mkdir()
    with ExitStack() as stack:
        try:
            server = stack.enter_context(serve_nfs(tmp_path / "tree", portmap=True))
        except OSError as error:
            pytest.skip(f"port 111, on which NFS servers are looked for: {error.strerror}")
        tree = make_tree(
            tmp_path,
            generator,
            pxeboot__root="nfs",
            pxeboot__nfs_root=f"{HOST}:{server.export}",
            pxeboot__verify_root="yes",
        )
        yield NfsTree(tree, server, end)


def flip(tree: Path) -> tuple[str, str]:
    """Flip the last bit of the squashfs; return its digests before and after."""
    path = tree / SQUASHFS
    content = bytearray(path.read_bytes())
    before = hashlib.sha256(content).hexdigest()
    content[-1] ^= 1
    path.unlink()  # it may be a link of the live image's
    path.write_bytes(content)
    return before, hashlib.sha256(content).hexdigest()


def told(result: BootResult) -> str:
    return "\n".join([result.reason, *result.console_tail])


def assert_stopped(result: BootResult, end: str, digests: tuple[str, str]) -> None:
    assert not result.passed
    assert result.reason == end, told(result)
    for line in (
        "root check: the live root is not the one that this netboot tree was made with",
        f"root check: expected sha256 {digests[0]}",
        f"root check: received sha256 {digests[1]}",
        "root check: It was changed on the server or on the way here. The live system is not"
        " started.",
    ):
        assert line in told(result)
    assert PASSED not in told(result)
    assert liveimage.TOKEN not in told(result)


def test_the_right_root_over_http_boots(http_tree: Path) -> None:
    result = boot(http_tree, IPXE_BIOS)
    assert result.passed, told(result)
    assert PASSED in told(result)
    # What was fetched lies in memory, so it is not copied again.
    assert "root check: copying" not in told(result)
    assert result.fetched[f"/{ROOT_CHECK}"] == (http_tree / ROOT_CHECK).stat().st_size


def test_a_flipped_byte_over_http_stops(http_tree: Path, tmp_path: Path) -> None:
    tree = changed(http_tree, tmp_path / "tree")
    digests = flip(tree)
    result = boot(tree, IPXE_BIOS)
    assert_stopped(result, DRACUT_END, digests)
    # What the console advises finds it, too.
    assert any(SQUASHFS in fault.message for fault in verify_tree(tree).faults)


@pytest.mark.more
def test_without_the_check_nobody_notices(tmp_path: Path) -> None:
    tree = make_tree(
        tmp_path, "dracut-net", pxeboot__root="http embedded", pxeboot__verify_root="no"
    )
    assert not (tree / ROOT_CHECK).exists()
    flip(tree)
    result = boot(tree, IPXE_BIOS)
    assert result.passed, told(result)
    assert "root check:" not in told(result)


@pytest.mark.more
def test_an_unattended_client_stops_for_good(tmp_path: Path) -> None:
    tree = make_tree(
        tmp_path,
        "dracut-net",
        pxeboot__root="http embedded",
        pxeboot__bootargs="rd.shell=0",
    )
    digests = flip(tree)
    result = boot(tree, IPXE_BIOS)
    assert_stopped(result, "the console shows 'dracut Warning: Boot has failed'", digests)


@pytest.mark.more
def test_the_right_root_over_nfs_boots(nfs: NfsTree) -> None:
    result = boot(nfs.tree, IPXE_BIOS)
    assert result.passed, told(result)
    assert "root check: copying the live root into memory" in told(result)
    assert PASSED in told(result)
    # Read once, by the copy: nothing of what runs comes from the server.
    assert nfs.sent == (nfs.tree / SQUASHFS).stat().st_size


@pytest.mark.more
def test_a_flipped_byte_over_nfs_stops(nfs: NfsTree) -> None:
    digests = flip(nfs.tree)
    assert_stopped(boot(nfs.tree, IPXE_BIOS), nfs.end, digests)


@pytest.mark.more
@pytest.mark.parametrize(
    "nfs",
    [pytest.param(("genkernel", GENKERNEL_END), marks=genkernel)],
    indirect=True,
    ids=["genkernel"],
)
def test_what_lies_beside_the_root_is_not_run(nfs: NfsTree) -> None:
    """genkernel unpacks add/*.tar.gz and runs cdupdate.sh of the server's folder, unchecked."""
    script = nfs.tree / "cdupdate.sh"
    script.write_text("#!/bin/sh\necho cdupdate.sh was run\n")
    script.chmod(0o755)
    (nfs.tree / "add").mkdir()
    with tarfile.open(nfs.tree / "add/more.tar.gz", "w:gz") as archive:
        archive.add(script, "etc/more")
    result = boot(nfs.tree, IPXE_BIOS)
    assert result.passed, told(result)
    assert "cdupdate.sh was run" not in told(result)
    assert "Adding additional package" not in told(result)
    assert set(nfs.server.sent) == {SQUASHFS}
