"""`serve` on one side of a cable, a client in QEMU on the other, until the live root's token.

The commands run as their user would run them: `build` on an ISO, then `serve` in a network
namespace of its own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from catalyst_pxeboot.build.pipeline import build
from catalyst_pxeboot.lab.boot import prepare_flash
from catalyst_pxeboot.lab.machine import (
    BIOS,
    UEFI_X64,
    Accel,
    Machine,
    TapLink,
    choose_accel,
    find_qemu,
    qemu_argv,
)
from catalyst_pxeboot.lab.network import BRIDGE, TAP, Network, Subnet, make_network, why_no_network
from catalyst_pxeboot.lab.servers import find_dnsmasq, other_config
from catalyst_pxeboot.lab.watch import Verdict, watch_machine
from catalyst_pxeboot.services.children import read_text, running
from catalyst_pxeboot.spec.parse import parse_folders
from catalyst_pxeboot.util.errors import CommandError
from tests.support import live_image as liveimage
from tests.support.iso import rescue_iso
from tests.support.paths import ROOT
from tests.support.serve_trees import Served, serving
from tests.support.stage2 import STAMP

CACHE = Path(os.environ.get("PXEBOOT_CACHE", ROOT / ".cache"))
UNTIL = re.compile("^" + re.escape(liveimage.TOKEN))
TIMEOUT = 300.0

#: A laptop with a cable to one client.
LAPTOP = Subnet("10.0.0.1", "10.0.0.2", "255.255.255.0", 24, "10.0.0.50", "10.0.0.99")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serve")
    iso = rescue_iso(make_image(folder), folder / f"install-amd64-minimal-{STAMP}.iso")
    more = ["--set", "pxeboot/serial=ttyS0,115200", "--set", "pxeboot/timeout=1"]
    subprocess.run(
        [sys.executable, "-m", "catalyst_pxeboot", "build", "--source", iso, *more],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, timeout=120,
    )  # fmt: skip
    return folder / f"install-amd64-minimal-{STAMP}-netboot"


@pytest.fixture(scope="module")
def server_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(
        tmp_path_factory.mktemp("serve"),
        {"pxeboot/server": f"{LAPTOP.server}/24", "pxeboot/loaders": "grub"},
    )


def make_image(folder: Path) -> Path:
    try:
        return liveimage.build_live_image(
            folder / "stage2", cache=CACHE, generator="genkernel-like"
        )
    except CommandError as error:
        pytest.skip(str(error))


def make_tree(folder: Path, more: dict[str, object]) -> Path:
    settings: dict[str, object] = {
        "subarch": "amd64",
        "version_stamp": STAMP,
        "digests": ["blake2b"],
        "pxeboot/serial": "ttyS0,115200",
        "pxeboot/timeout": "1",
        **more,
    }
    spec = parse_folders(make_image(folder), folder / "tree", settings)
    return build(spec, report=lambda _line: None).output


@contextmanager
def other_dhcp(network: Network, folder: Path) -> Iterator[None]:
    """Run a DHCP server that gives addresses and knows nothing of network boots."""
    folder.mkdir()
    config, log = folder / "conf", folder / "log"
    config.write_text(
        f"{other_config(network.subnet)}user=root\nlog-facility={log}\npid-file=\n"
        f"dhcp-leasefile={folder}/leases\nno-ping\n"
    )
    argv = network.inside([find_dnsmasq(), "-k", "-C", config], str(network.other))
    with running(
        "dnsmasq", argv, messages=folder / "messages",
        ready=lambda: "started, version" in read_text(log), log=log,
    ):  # fmt: skip
        yield


def boot(
    tree: Path, machine: Machine, folder: Path, *options: str, without: tuple[str, ...] = ()
) -> tuple[Verdict, Served]:
    """Serve the tree with `options`, boot a client, and stop both."""
    obstacle = why_no_network()
    if obstacle:
        pytest.skip(obstacle)
    try:
        qemu = find_qemu(machine)
        find_dnsmasq()
        flash = prepare_flash(machine, folder)
    except CommandError as error:
        pytest.skip(str(error))
    proxy = "--proxy-dhcp" in options
    with ExitStack() as stack:
        network = stack.enter_context(make_network(LAPTOP, other=proxy))
        if proxy:
            stack.enter_context(other_dhcp(network, folder / "other"))
        served = stack.enter_context(
            serving(
                tree,
                folder / "serve",
                "--interface",
                BRIDGE,
                *options,
                inside=network.inside,
                without=without,
            )
        )
        argv = qemu_argv(
            machine, TapLink(TAP), qemu=qemu, accel=choose_accel(Accel.AUTO, qemu, machine),
            memory_mib=1024, flash=flash,
        )  # fmt: skip
        verdict = watch_machine(
            network.inside(argv), until=UNTIL, timeout=TIMEOUT, log=folder / "console"
        )
        served.wait_for(lambda event: event.get("event") == "root", seconds=5)
        assert served.stop() == 143
    return verdict, served


def check(verdict: Verdict, served: Served, arch: str, *files: tuple[str, str]) -> None:
    """The live root was reached, and the events tell the same story."""
    assert verdict.passed, "\n".join([verdict.reason, *verdict.console_tail])
    assert served.errors.read_text() == ""
    (root,) = served.kinds("root")
    assert (root["arch"], root["file"]) == (arch, "image.squashfs")
    assert root["mac"] == "52:54:00:12:34:56"
    assert re.fullmatch(r"10\.0\.0\.[5-9]\d", root["ip"])
    fetched = [
        (event["scheme"], event["file"])
        for event in served.events
        if event["event"] in ("file", "root")
    ]
    for file in files:
        assert file in fetched
    assert served.kinds("broken") == []
    assert list((served.output.parent / "tmp").iterdir()) == []


RANGE = ("--dhcp-range", f"{LAPTOP.first},{LAPTOP.last}")


def test_uefi_by_own_dhcp(tree: Path, tmp_path: Path) -> None:
    verdict, served = boot(tree, UEFI_X64, tmp_path, *RANGE)
    check(
        verdict, served, "UEFI x64", ("tftp", "snponly.efi"), ("http", "boot.ipxe"),
        ("http", "image.squashfs"),
    )  # fmt: skip
    assert served.events[0]["dhcp"] == "range"
    offers = [(offer["ip"], offer["arch"], offer["file"]) for offer in served.kinds("offer")]
    ip = served.kinds("root")[0]["ip"]
    assert offers == [
        (ip, "UEFI x64", "snponly.efi"),
        (ip, "UEFI x64", "http://10.0.0.1/boot.ipxe"),
    ]


@pytest.mark.more
def test_bios_by_own_dhcp(tree: Path, tmp_path: Path) -> None:
    # QEMU's own network ROM is an iPXE.
    verdict, served = boot(tree, BIOS, tmp_path, *RANGE)
    check(verdict, served, "BIOS", ("http", "boot.ipxe"), ("http", "image.squashfs"))


@pytest.mark.more
def test_bios_by_the_embedded_web_server(tree: Path, tmp_path: Path) -> None:
    verdict, served = boot(tree, BIOS, tmp_path, *RANGE, without=("nginx",))
    assert served.events[0]["http"] == "embedded"
    check(verdict, served, "BIOS", ("http", "boot.ipxe"), ("http", "image.squashfs"))


@pytest.mark.more
def test_bios_beside_another_dhcp_server(tree: Path, tmp_path: Path) -> None:
    verdict, served = boot(tree, BIOS, tmp_path, "--proxy-dhcp")
    check(verdict, served, "BIOS", ("http", "boot.ipxe"), ("http", "image.squashfs"))


@pytest.mark.more
def test_uefi_beside_another_dhcp_server(tree: Path, tmp_path: Path) -> None:
    verdict, served = boot(tree, UEFI_X64, tmp_path, "--proxy-dhcp")
    check(
        verdict, served, "UEFI x64", ("tftp", "snponly.efi"), ("http", "boot.ipxe"),
        ("http", "image.squashfs"),
    )  # fmt: skip


@pytest.mark.more
def test_grub_beside_another_dhcp_server(server_tree: Path, tmp_path: Path) -> None:
    verdict, served = boot(server_tree, UEFI_X64, tmp_path, "--proxy-dhcp")
    check(
        verdict, served, "UEFI x64", ("tftp", "boot/grub/x86_64-efi/core.efi"),
        ("tftp", "boot/grub/grub.cfg"), ("tftp", "image.squashfs"),
    )  # fmt: skip
