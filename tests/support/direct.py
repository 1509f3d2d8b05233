"""Boot a tree's kernel and initrds as QEMU's own, without a loader, on a network of one's own."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from catalyst_pxeboot.lab.machine import BIOS, TapLink, find_qemu
from catalyst_pxeboot.lab.network import TAP, Subnet, make_network
from catalyst_pxeboot.lab.plainrom import read_frames, relayed_link, send_frame
from catalyst_pxeboot.lab.qmp import ask
from catalyst_pxeboot.lab.servers import _dnsmasq
from catalyst_pxeboot.lab.watch import Verdict, watch_machine
from catalyst_pxeboot.services.children import running
from catalyst_pxeboot.util.errors import CommandError
from catalyst_pxeboot.util.process import run

SERVER = "192.0.2.1"
MAC = "52:54:00:12:34:56"
CARD = (f"virtio-net-pci,netdev=net0,mac={MAC}",)
DHCP = "port=0\ndhcp-range=192.0.2.100,192.0.2.199,255.255.255.0,10m\n"
#: No addresses, but a name.
DNS = f"no-resolv\nno-hosts\naddress=/server.test/{SERVER}\n"

#: Carries frames between the client's socket and the tap until the third is closed.
Cable = Callable[[socket.socket, int, socket.socket], None]


@dataclass(frozen=True)
class Place:
    """What a test may change of the network before and while the client boots."""

    dnsmasq: str = DHCP
    commands: Sequence[str] = ()  # run in the server's namespace first
    web: Sequence[str] = ()  # nginx's server blocks; the embedded one's place is theirs
    cable: Cable | None = None
    no_link: float = 0.0  # seconds for which the card has none


def boot_direct(
    tree: Path,
    folder: Path,
    arguments: Sequence[str],
    *,
    place: Place,
    until: str,
    devices: Sequence[str] = CARD,
    more: Sequence[str] = (),
    memory_mib: int = 384,
    timeout: float = 300.0,
) -> Verdict:
    """Boot the streamed entry of `tree` with more kernel `arguments` until the console shows it."""
    with ExitStack() as stack:
        network = stack.enter_context(make_network(Subnet(), other=False))
        for command in place.commands:
            run([*network.inside(command.split())])
        config = f"interface=br0\nbind-dynamic\n{place.dnsmasq}"
        stack.enter_context(_dnsmasq(network, folder, config, namespace=network.server))
        blocks = place.web or [f"listen {SERVER}:80; root {tree};"]
        nginx = folder / "nginx.conf"
        servers = "".join(f"server {{ {block} }}" for block in blocks)
        nginx.write_text(
            f"daemon off; pid {folder}/nginx.pid; user root; events {{}}\n"
            f"http {{ access_log {folder}/access; {servers} }}\n"
        )
        log, pid = folder / "nginx.log", folder / "nginx.pid"
        stack.enter_context(
            running(
                "nginx", network.inside(("nginx", "-e", log, "-c", nginx)),
                messages=folder / "messages", ready=pid.exists, log=log,
            )
        )  # fmt: skip
        inherited: tuple[int, ...] = ()
        netdev = TapLink(TAP).netdev
        if place.cable:
            link = stack.enter_context(relayed_link(network.open_tap(), place.cable))
            netdev, inherited = link.netdev, (link.descriptor,)
        initrd = folder / "initrd"
        parts = [tree / f"boot/gentoo.{end}" for end in ("igz", "net.cpio")]
        contents = [part.read_bytes() for part in parts]
        initrd.write_bytes(b"".join(data + bytes(-len(data) % 512) for data in contents))
        argv: list[str | Path] = [
            find_qemu(BIOS), "-nodefaults", "-no-user-config", "-machine", BIOS.board,
            "-accel", "tcg,thread=multi", "-cpu", BIOS.cpu, "-m", str(memory_mib),
            "-display", "none", "-vga", "std", "-device", "virtio-rng-pci", "-monitor", "none",
            "-serial", "stdio", "-no-reboot",
            "-kernel", tree / "boot/gentoo", "-initrd", initrd,
            "-append", " ".join(arguments), "-netdev", netdev, *more,
        ]  # fmt: skip
        for device in devices:
            argv += ["-device", device]
        if place.no_link:
            control = folder / "qmp"
            argv += ["-qmp", f"unix:{control},server=on,wait=off"]
            worker = threading.Thread(target=_unplug, args=(control, place.no_link), daemon=True)
            worker.start()
        return watch_machine(
            network.inside(argv), until=re.compile(until), timeout=timeout,
            log=folder / "console", inherited=inherited,
        )  # fmt: skip


def _unplug(control: Path, seconds: float) -> None:
    """Take the client's cable out before it starts, and put it in `seconds` later."""
    while not control.exists():  # QEMU has not made it yet
        time.sleep(0.1)
    ask(control, "set_link", {"name": "net0", "up": False})
    time.sleep(seconds)
    with suppress(CommandError):  # QEMU has ended
        ask(control, "set_link", {"name": "net0", "up": True})


def tagged(vlan: int) -> Cable:
    """Return a cable on which the client's frames must have the tag of `vlan`."""
    tag = b"\x81\x00" + vlan.to_bytes(2, "big")

    def relay(client: socket.socket, tap: int, stopped: socket.socket) -> None:
        with suppress(OSError):  # QEMU has ended
            for inward, frame in read_frames(client, tap, stopped):
                if inward:
                    send_frame(client, tap, inward, frame[:12] + tag + frame[12:])
                elif frame[12:16] == tag:
                    send_frame(client, tap, inward, frame[:12] + frame[16:])

    return relay
