"""Machines with something of their own: each is who it should be, and an unlisted one has the menu.

The menu waits for ever, so that only a machine with an entry of its own boots.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

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
from catalyst_pxeboot.lab.network import BRIDGE, Network, make_network
from catalyst_pxeboot.lab.servers import find_dnsmasq
from catalyst_pxeboot.lab.watch import watch_machine
from catalyst_pxeboot.services.interfaces import find_ip
from catalyst_pxeboot.util.errors import CommandError
from catalyst_pxeboot.util.process import run
from tests.boot.test_login import STREAM, Login, make_iso, make_keys
from tests.boot.test_serve import LAPTOP, RANGE
from tests.boot.test_stream import make_tree
from tests.support.serve_trees import Served, serving

pytestmark = pytest.mark.more
FIRST, SECOND, OTHER = (f"52:54:00:00:00:0{number}" for number in (1, 2, 3))
UUID = "4c4c4544-0044-4a10-8030-b7c04f4b3233"
ENTRY = "gentoo-stream"


@pytest.fixture(scope="module")
def iso(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_iso(tmp_path_factory.mktemp("hosts"), "dracut-release")


def write_hosts(folder: Path) -> Path:
    """Write a machine by its MAC address, one by its UUID, and keys for all."""
    make_keys(folder)
    hosts = folder / "hosts"
    place = hosts / UUID
    (place / "files/etc").mkdir(parents=True)
    (place / "files/etc/motd").write_text("second of all\n")
    (place / "host.toml").write_text(f'hostname = "second"\nentry = "{ENTRY}"\n')
    (hosts / f"{FIRST.replace(':', '-')}.toml").write_text(
        f'hostname = "first"\nentry = "{ENTRY}"\narguments = "own.word=a*b"\nscript = "../script"\n'
    )
    return hosts


@contextmanager
def running_machine(
    machine: Machine, network: Network, folder: Path, number: int, mac: str
) -> Iterator[None]:
    """Boot a machine with a tap and addresses of its own while the context lasts."""
    qemu, tap, place = find_qemu(machine), f"own{number}", folder / mac.replace(":", "")
    place.mkdir()
    for command in (f"tuntap add dev {tap} mode tap", f"link set {tap} master {BRIDGE} up"):
        run([find_ip(), "-n", network.server, *command.split()])
    argv = qemu_argv(
        machine, TapLink(tap), qemu=qemu, accel=choose_accel(Accel.AUTO, qemu, machine),
        memory_mib=640, flash=prepare_flash(machine, place),
    )  # fmt: skip
    argv = tuple(re.sub(r"^(virtio-net-pci,)", rf"\1mac={mac},", word) for word in argv)
    if mac == SECOND:
        argv = (*argv, "-uuid", UUID)
    stop = threading.Event()

    def watch() -> None:
        watch_machine(
            network.inside(argv), until=re.compile("reboot: Power down"), timeout=500,
            log=place / "console", stop=stop,
        )  # fmt: skip

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=30)


def is_up(mac: str, event: dict[str, Any]) -> bool:
    return event.get("event") == "up" and event["mac"] == mac


def fetched(served: Served, mac: str) -> set[str]:
    return {event["file"] for event in served.kinds("file") if event["mac"] == mac}


#: The loader, the machine, and the files that an unlisted one has when its menu waits.
CASES = {
    "iPXE": ("ipxe", BIOS, {"boot.ipxe"}),
    "iPXE on UEFI": ("ipxe", UEFI_X64, {"snponly.efi", "boot.ipxe"}),
    "GRUB": ("grub", BIOS, {"boot/grub/i386-pc/core.0", "boot/grub/grub.cfg"}),
    "GRUB on UEFI": ("grub", UEFI_X64, {"boot/grub/x86_64-efi/core.efi", "boot/grub/grub.cfg"}),
    "PXELINUX": ("pxelinux", BIOS, {"pxelinux.cfg/default", "menu.c32"}),
}


@pytest.mark.parametrize("name", CASES)
def test_each_machine_gets_its_own(name: str, iso: Path, tmp_path: Path) -> None:
    loader, machine, menu = CASES[name]
    hosts = write_hosts(tmp_path)
    tree = make_tree(
        iso, tmp_path / "tree", pxeboot__root=STREAM, pxeboot__loaders=loader,
        pxeboot__base_url=f"http://{LAPTOP.server}", pxeboot__server=f"{LAPTOP.server}/24",
        pxeboot__timeout="-1", pxeboot__hosts=str(hosts),
        pxeboot__ssh_keys=str(tmp_path / "key.pub"),
    )  # fmt: skip
    try:
        find_qemu(machine)
        find_dnsmasq()
    except CommandError as error:
        pytest.skip(str(error))
    with ExitStack() as stack:
        network = stack.enter_context(make_network(LAPTOP, other=False))
        known = tmp_path / "known_hosts"
        served = stack.enter_context(
            serving(
                tree, tmp_path / "serve", "--interface", BRIDGE, *RANGE, "--known-hosts",
                str(known), inside=network.inside,
            )
        )  # fmt: skip
        for number, mac in enumerate((FIRST, SECOND, OTHER)):
            stack.enter_context(running_machine(machine, network, tmp_path, number, mac))
        shown = {}
        for mac in (FIRST, SECOND):
            event = served.wait_for(partial(is_up, mac), seconds=400)
            login = Login(network, tmp_path, event)
            shown[mac] = login.run("hostname; cat /etc/motd; cat /proc/cmdline").stdout, event
        first, second = shown[FIRST], shown[SECOND]
        assert first[0].startswith("first\n") and " own.word=a*b " in f"{first[0].strip()} "
        assert first[1]["status"] == 3
        assert second[0].startswith("second\nsecond of all\n") and "own.word" not in second[0]
        assert second[1]["status"] is None
        # Longer there than the two took to boot, and the menu is all that it has.
        other = fetched(served, OTHER)
        assert menu <= other
        assert [file for file in other if file.startswith(("boot/gentoo", "hosts/"))] == []
        for mac, own in ((FIRST, FIRST.replace(":", "-")), (SECOND, UUID)):
            archives = {file for file in fetched(served, mac) if file.startswith("hosts/")}
            assert archives == {f"hosts/{own}.cpio"}
