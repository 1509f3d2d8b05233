"""The streamed root on networks as they are: cards, addresses, servers, and what can go wrong.

QEMU starts the kernel itself: the loaders' part is tested elsewhere. The kernel is Debian's with
every driver, the initramfs one of the release specs' arguments.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from catalyst_pxeboot.render import stream
from catalyst_pxeboot.util.errors import CommandError
from catalyst_pxeboot.util.process import find_program
from tests.boot.test_stream import make_stage2, make_tree, pack_iso
from tests.support import live_image, login_root
from tests.support.direct import CARD, DHCP, DNS, MAC, SERVER, Place, boot_direct, tagged
from tests.support.init_root import PACKAGES, build_init_image
from tests.support.paths import CACHE

pytestmark = pytest.mark.more

TOKEN = f"^{live_image.TOKEN}"
STATIC = "ip=192.0.2.50::192.0.2.1:255.255.255.0::{card}:none"
OTHER_MAC = "52:54:00:00:00:01"
UNPLUGGED = f"virtio-net-pci,netdev=other,mac={OTHER_MAC}"
HUB = ("-netdev", "hubport,id=other,hubid=0")

ARGUMENTS = (
    "root=live:/dev/mapper/live-root", "rd.live.overlay.overlayfs=1", "cdroot",
    "console=ttyS0,115200",
)  # fmt: skip

_REDIRECT = f"listen {SERVER}:80; return 302 http://{SERVER}:8080$request_uri;"
_TLS = (
    f"listen {SERVER}:443 ssl; root {{tree}};"
    " ssl_certificate {keys}/server.crt; ssl_certificate_key {keys}/server.key;"
)
_SIX = "listen [2001:db8::1]:80; root {tree};"
_RA = "port=0\nenable-ra\nra-param=br0,10\ndhcp-range=2001:db8::,ra-only,64,10m\n"


@dataclass(frozen=True)
class Case:
    """A network, the kernel arguments for it, and what the console must show."""

    place: Place = field(default_factory=Place)
    arguments: str = ""
    url: str = f"http://{SERVER}/image.squashfs"
    until: str = TOKEN
    devices: tuple[str, ...] = CARD
    more: tuple[str, ...] = ()
    trusted: bool = False  # the add-on has the web server's certificate


CASES = {
    "e1000e": Case(devices=("e1000e,netdev=net0",)),
    "rtl8139": Case(devices=("rtl8139,netdev=net0",)),
    "usb-net": Case(devices=("qemu-xhci", "usb-net,netdev=net0")),
    "two cards": Case(devices=(UNPLUGGED, *CARD), more=HUB),
    "the card of BOOTIF": Case(
        devices=(f"virtio-net-pci,netdev=other,mac={MAC}", f"e1000e,netdev=net0,mac={OTHER_MAC}"),
        arguments=f"BOOTIF=01-{OTHER_MAC.replace(':', '-')}", more=HUB,
    ),
    "static address and a name": Case(
        Place(DNS), f"{STATIC.format(card='eth0')} nameserver={SERVER}",
        "http://server.test/image.squashfs",
    ),
    "VLAN with DHCP": Case(Place(cable=tagged(7)), "vlan=vlan7:eth0"),
    "VLAN with a static address": Case(
        Place(cable=tagged(7)), f"vlan=eth0.7:eth0 {STATIC.format(card='eth0.7')}"
    ),
    "IPv6 only": Case(
        Place(_RA, ("ip addr add 2001:db8::1/64 dev br0 nodad",), (_SIX,)),
        url="http://[2001:db8::1]/image.squashfs",
    ),
    "a link after 65 s": Case(Place(no_link=65)),  # 30 s after the initramfs looks for one
    "redirect": Case(Place(web=(_REDIRECT, f"listen {SERVER}:8080; root {{tree}};"))),
    "HTTPS": Case(
        Place(web=(_TLS,)), url=f"https://{SERVER}/image.squashfs", trusted=True
    ),
    "HTTPS of a stranger": Case(
        Place(web=(_TLS,)), url=f"https://{SERVER}/image.squashfs",
        until="the live root cannot be opened: .*URL",
    ),
    "no ranges": Case(
        Place(web=(f"listen {SERVER}:80; root {{tree}}; max_ranges 0;",)),
        until="the live root cannot be opened: .*range",
    ),
    "no DHCP": Case(Place(DNS), until="streamed root: no DHCP server gave an address to eth0$"),
    "no card": Case(devices=(), more=HUB, until="streamed root: no network card was found"),
    "no link": Case(
        Place(no_link=1000), until="streamed root: no network card has a link: eth0$"
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650",
         "-subj", "/CN=server.test", "-addext", f"subjectAltName=IP:{SERVER}",
         "-keyout", folder / "server.key", "-out", folder / "server.crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_program("nginx") is None:
        pytest.skip("nginx is missing (nginx-light)")
    folder = tmp_path_factory.mktemp("image")
    return pack_iso(full_stage2(folder), folder)


def full_stage2(folder: Path, mib: int = 0) -> Path:
    return make_stage2(folder, "dracut-release", mib, live_image.FULL)


@pytest.fixture(scope="module")
def trees(image: Path, keys: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Return a tree without and one with the web server's certificate."""
    made = {}
    for trusted in (False, True):
        settings = {"pxeboot__ca_file": str(keys / "server.crt")} if trusted else {}
        made[trusted] = make_tree(image, tmp_path_factory.mktemp("trees"), **settings)
    return made


@pytest.mark.parametrize("name", CASES)
def test_the_root_comes_or_the_reason_is_told(
    name: str, trees: dict[bool, Path], keys: Path, tmp_path: Path
) -> None:
    case = CASES[name]
    tree = trees[case.trusted]
    web = [
        block.replace("{tree}", str(tree)).replace("{keys}", str(keys)) for block in case.place.web
    ]
    place = replace(case.place, web=web)
    arguments = (*ARGUMENTS, "quiet", f"pxeboot.url={case.url}", *case.arguments.split())
    verdict = boot_direct(
        tree, tmp_path, arguments, place=place, until=case.until, devices=case.devices,
        more=case.more,
    )  # fmt: skip
    assert verdict.passed, "\n".join([verdict.reason, *verdict.console_tail])


@pytest.mark.parametrize("init", PACKAGES)
def test_a_machine_whose_root_is_streamed_stops_within_15_s(init: str, tmp_path: Path) -> None:
    """The init system of the live root does not end what serves that root."""
    stage2 = full_stage2(tmp_path)
    (modules,) = (CACHE / live_image.FULL / "lib/modules").iterdir()
    try:
        build_init_image(stage2, cache=CACHE, init=init, modules=modules)
    except CommandError as error:
        pytest.skip(str(error))
    tree = make_tree(pack_iso(stage2, tmp_path), tmp_path)
    verdict = boot_direct(
        tree, tmp_path, (*ARGUMENTS, f"pxeboot.url=http://{SERVER}/image.squashfs"),
        place=Place(), until="reboot: Power down", memory_mib=512,
    )  # fmt: skip
    assert verdict.passed, "\n".join([verdict.reason, *verdict.console_tail])
    console = (tmp_path / "console").read_text("utf-8", "replace")
    begun, ended = (
        re.search(pattern, console)
        for pattern in (r"live root: stopping at ([0-9.]+)", r"\[ *([0-9.]+)\] reboot: Power down")
    )
    assert begun and ended and float(ended[1]) - float(begun[1]) <= 15
    assert "SQUASHFS error" not in console


def test_all_of_the_root_is_read_with_16_mib_free(tmp_path: Path) -> None:
    tree = make_tree(pack_iso(full_stage2(tmp_path, 100), tmp_path), tmp_path)
    verdict = boot_direct(
        tree, tmp_path,
        (*ARGUMENTS, f"pxeboot.url=http://{SERVER}/image.squashfs", "live.free=16"),
        place=Place(), until=TOKEN, memory_mib=384, timeout=600,
    )  # fmt: skip
    assert verdict.passed, "\n".join([verdict.reason, *verdict.console_tail])


def test_a_server_that_stays_away_ends_in_io_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What reads the root waits, the console says so once, and nothing hangs."""
    monkeypatch.setattr(stream, "PATIENCE", 20)
    tree = make_tree(pack_iso(full_stage2(tmp_path, 100), tmp_path), tmp_path)
    console = tmp_path / "console"

    def stop_server() -> None:
        while not console.exists() or b"live root: comparing" not in console.read_bytes():
            time.sleep(0.2)
        os.kill(int((tmp_path / "nginx.pid").read_text()), signal.SIGTERM)

    threading.Thread(target=stop_server, daemon=True).start()
    verdict = boot_direct(
        tree, tmp_path, (*ARGUMENTS, f"pxeboot.url=http://{SERVER}/image.squashfs"),
        place=Place(), until="live root: damaged|Kernel panic", timeout=400,
    )  # fmt: skip
    assert verdict.passed, "\n".join([verdict.reason, *verdict.console_tail])
    assert console.read_text("utf-8", "replace").count("reading waits") == 1


def test_the_lease_is_renewed_while_the_live_system_runs(tmp_path: Path) -> None:
    """With a lease of two minutes the client asks again after one."""
    stage2 = make_stage2(
        tmp_path, "dracut-release", 0, live_image.CLOUD, init=login_root.INIT,
        members=tuple(login_root.login_members()),
    )  # fmt: skip
    tree = make_tree(pack_iso(stage2, tmp_path), tmp_path)
    boot_direct(
        tree, tmp_path, (*ARGUMENTS, f"pxeboot.url=http://{SERVER}/image.squashfs"),
        place=Place(DHCP.replace("10m", "2m")), until="no line says this", timeout=120,
    )  # fmt: skip
    assert (tmp_path / "log").read_text().count("DHCPACK(br0) 192.0.2.") >= 2
    assert live_image.TOKEN in (tmp_path / "console").read_text("utf-8", "replace")
