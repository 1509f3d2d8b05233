"""Real clients in QEMU whose initramfs gets the live root over the network by itself.

As in tests/test_boot.py the trees are built as a user would build them, and a boot counts when the
live root prints its token. The token's line ends with the kernel's command line, so it also tells
by which way the root came; the servers tell what was fetched.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from catalyst_pxeboot.lab.boottest import run_path
from catalyst_pxeboot.lab.machine import (
    BIOS,
    Accel,
    TapLink,
    choose_accel,
    find_qemu,
    qemu_argv,
)
from catalyst_pxeboot.lab.network import TAP, Subnet, make_network, why_no_network
from catalyst_pxeboot.lab.paths import Scheme
from catalyst_pxeboot.lab.result import Outcome
from catalyst_pxeboot.lab.serve import serve_tree
from catalyst_pxeboot.lab.watch import Verdict, watch_machine
from tests.boot.test_loaders import IPXE_BIOS, IPXE_EFI, TIMEOUT, boot, changed, make_tree
from tests.support import live_image as liveimage
from tests.support.boot import BootResult, Client
from tests.support.boot_paths import find_paths
from tests.support.nfs_server import EXPORT, NfsServer, serve_nfs

SQUASHFS = "image.squashfs"
#: PXELINUX does not know its server; it gets the other entry.
HTTP = "http embedded"
#: A failure must be told long before livenet would give up.
SOON = 120.0  # seconds

#: iPXE as a kernel; its initrd is its script.
_IPXE_KERNELS = ("/usr/lib/ipxe/ipxe.lkrn", "/usr/share/ipxe/ipxe.lkrn")
#: QEMU's user network: this machine, as the client sees it.
_HOST = "10.0.2.2"

genkernel = pytest.mark.genkernel


@pytest.fixture(scope="module")
def http_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("http"), "dracut-net", pxeboot__root=HTTP)


@pytest.fixture(scope="module")
def nfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NfsServer]:
    """Serve a folder; a tree that boots over NFS must be told the port when it is built."""
    with serve_nfs(tmp_path_factory.mktemp("nfs")) as server:
        yield server


def make_nfs_tree(nfs: NfsServer, name: str, generator: str) -> Path:
    folder = nfs.root / name
    folder.mkdir()
    export = f"{_HOST}:{EXPORT}/{name}/tree,{nfs.options}"
    return make_tree(folder, generator, pxeboot__root="nfs", pxeboot__nfs_root=export)


def told(result: BootResult | Verdict) -> str:
    return "\n".join([result.reason, *result.console_tail])


# --- over HTTP ------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", [IPXE_BIOS, IPXE_EFI], ids=lambda client: client.name)
def test_a_root_over_http_boots(http_tree: Path, client: Client) -> None:
    """Debian's iPXE tells a script's folder only as `boot.ipxe/..`, which curl understands."""
    result = boot(http_tree, client)
    assert result.passed, told(result)
    assert " root=live:http://" in result.reason
    assert re.search(r" BOOTIF=01(-[0-9a-f]{2}){6}( |$)", result.reason)
    # Once, and by the initramfs: the loader was given nothing to put the root into.
    assert result.fetched[f"/{SQUASHFS}"] == (http_tree / SQUASHFS).stat().st_size
    assert "root check: the live root is the one" in told(result)


def test_a_root_over_http_boots_by_grub(http_tree: Path) -> None:
    """GRUB comes by TFTP and names its server's web server; only the root comes by HTTP."""
    (path,) = find_paths(["x64-grub"])
    if obstacle := why_no_network():
        pytest.skip(obstacle)
    until = re.compile("^" + re.escape(liveimage.TOKEN))
    path = replace(path, name="x64-grub-http-root", payload=Scheme.HTTP)
    result = run_path(http_tree, path, timeout=TIMEOUT, until=until)
    if result.outcome is Outcome.SKIPPED:
        pytest.skip(result.reason)
    assert result.outcome is Outcome.PASSED, "\n".join([result.reason, *result.console_tail])
    assert f" root=live:http://{Subnet().server}/" in result.reason
    assert not any(name.startswith("tftp:") and SQUASHFS in name for name in result.fetched)


STATIC = f"""\
#!ipxe
set net0/ip 192.0.2.50
set net0/netmask 255.255.255.0
set net0/gateway {Subnet().server}
set dns {Subnet().server}
ifopen net0
set base-url http://{Subnet().server}
chain ${{base-url}}/boot.ipxe
"""


def boot_without_dhcp(tree: Path, folder: Path) -> Verdict:
    """Boot iPXE with the script `STATIC` on a network where nobody answers DHCP.

    All there is on it are the tree's web server and its NFS server.
    """
    if obstacle := why_no_network():
        pytest.skip(obstacle)
    kernel = next((name for name in _IPXE_KERNELS if Path(name).is_file()), None)
    if kernel is None:
        pytest.skip("ipxe.lkrn is missing: install ipxe")
    script = folder / "caller.ipxe"
    script.write_text(STATIC)
    subnet = Subnet()
    with make_network(subnet, other=False) as network:
        web = serve_tree(tree, address=subnet.server, port=80, inside=network.inside)
        exported = serve_nfs(tree, address=subnet.server, namespace=network.server, portmap=True)
        with web, exported:
            qemu = find_qemu()
            argv = qemu_argv(BIOS, TapLink(TAP), qemu=qemu, accel=choose_accel(Accel.AUTO, qemu))
            # The card's own iPXE would come first, and ask for an address.
            words = [word.replace(",bootindex=0", ",romfile=") for word in argv]
            words += ["-kernel", kernel, "-initrd", str(script)]
            until = re.compile("^" + re.escape(liveimage.TOKEN))
            return watch_machine(network.inside(words), until=until, timeout=TIMEOUT)


def test_an_address_given_to_ipxe_is_handed_on(http_tree: Path, tmp_path: Path) -> None:
    result = boot_without_dhcp(http_tree, tmp_path)
    assert result.passed, told(result)
    server = Subnet().server
    assert f" root=live:http://{server}/{SQUASHFS} " in result.reason
    assert f" ip=192.0.2.50::{server}:255.255.255.0:::none nameserver={server} " in result.reason
    assert "ip=dhcp" not in result.reason


# --- over NFS -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "generator",
    ["genkernel-like", pytest.param("genkernel", marks=genkernel), "dracut-net"],
)
def test_a_root_over_nfs_boots(nfs: NfsServer, generator: str) -> None:
    tree = make_nfs_tree(nfs, generator, generator)
    result = boot(tree, IPXE_BIOS)
    assert result.passed, told(result)
    assert nfs.sent[f"{generator}/tree/{SQUASHFS}"] >= (tree / SQUASHFS).stat().st_size // 2
    assert f"/{SQUASHFS}" not in result.fetched


@pytest.mark.parametrize(
    "generator", ["genkernel-like", pytest.param("genkernel", marks=genkernel)]
)
def test_an_address_given_to_ipxe_is_handed_on_to_genkernel(tmp_path: Path, generator: str) -> None:
    """genkernel leaves an `ip=` with colons to the kernel, which has no network so early."""
    server = Subnet().server
    tree = make_tree(
        tmp_path, generator, pxeboot__root="nfs", pxeboot__nfs_root=f"{server}:{EXPORT}"
    )
    result = boot_without_dhcp(tree, tmp_path)
    assert result.passed, told(result)
    assert f" nfsroot={server}:{EXPORT} " in result.reason
    assert f" ip=192.0.2.50/255.255.255.0 gk.net.gw={server} " in result.reason


# --- what must fail, soon and with the reason -----------------------------------------------------


def test_a_root_that_the_web_server_lacks(http_tree: Path, tmp_path: Path) -> None:
    tree = changed(http_tree, tmp_path / "tree")
    (tree / SQUASHFS).unlink()
    result = boot(tree, IPXE_BIOS, timeout=SOON)
    assert not result.passed
    assert result.reason == (
        "the console shows 'curl: (22) The requested URL returned error: 404'"
    ), told(result)
    assert result.fetched[f"/{SQUASHFS}"] == 0
    assert re.search(rf"livenet: root image at http://\S+/{SQUASHFS}$", told(result), re.MULTILINE)


@pytest.mark.parametrize(
    ("verify", "dead_end", "complaint"),
    [
        (
            "yes",
            'Generating "/run/initramfs/rdsosreport.txt"',
            "root check: the live root is not the one that this netboot tree was made with",
        ),
        (
            "no",
            "dracut: Refusing to continue",
            "dracut: FATAL: Failed to find a root filesystem in ",
        ),
    ],
    ids=["checked", "unchecked"],
)
def test_a_root_cut_short_on_the_web_server(
    tmp_path: Path, verify: str, dead_end: str, complaint: str
) -> None:
    tree = make_tree(tmp_path, "dracut-net", pxeboot__root=HTTP, pxeboot__verify_root=verify)
    os.truncate(tree / SQUASHFS, (tree / SQUASHFS).stat().st_size // 2)
    result = boot(tree, IPXE_BIOS, timeout=SOON)
    assert not result.passed
    assert result.reason == f"the console shows {dead_end!r}", told(result)
    assert complaint in told(result)


@pytest.mark.more
def test_a_root_that_the_nfs_server_lacks(nfs: NfsServer) -> None:
    tree = make_nfs_tree(nfs, "lacking", "genkernel-like")
    (tree / SQUASHFS).unlink()
    result = boot(tree, IPXE_BIOS, timeout=SOON)
    assert not result.passed
    assert result.reason.startswith("the machine stopped"), told(result)
    assert f"initramfs: /mnt/cdrom/{SQUASHFS} is not on the NFS server, which has: " in told(result)
    assert " boot.ipxe " in told(result)


@pytest.mark.more
def test_a_root_cut_short_on_the_nfs_server(nfs: NfsServer) -> None:
    tree = make_nfs_tree(nfs, "short", "genkernel-like")
    os.truncate(tree / SQUASHFS, (tree / SQUASHFS).stat().st_size // 2)
    result = boot(tree, IPXE_BIOS, timeout=SOON)
    assert not result.passed
    assert result.reason.startswith("the machine stopped"), told(result)
    assert f"initramfs: /mnt/cdrom/{SQUASHFS} cannot be mounted as squashfs" in told(result)
