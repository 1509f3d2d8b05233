"""DHCP configurations: what each server's own checker says of them, and what they answer.

The answers are those of the real servers, each in a network namespace of its own, to the requests
that firmware and iPXE send.
"""

from __future__ import annotations

import os
import re
import select
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

import pytest

from catalyst_pxeboot.model.settings import Server
from catalyst_pxeboot.util.process import find_program
from tests.support.dhcp import AMD64_FILES, render

CHECKERS: Mapping[str, tuple[str, ...]] = {
    "dnsmasq.conf": ("dnsmasq", "--test", "-C"),
    "dnsmasq-proxy.conf": ("dnsmasq", "--test", "-C"),
    "kea-dhcp4.json": ("kea-dhcp4", "-t"),
    "dhcpd.conf": ("dhcpd", "-t", "-cf"),
}
PACKAGES = {"dnsmasq": "dnsmasq", "kea-dhcp4": "kea-dhcp4-server", "dhcpd": "isc-dhcp-server"}


def need_program(name: str) -> str:
    """Find a DHCP server, or skip the test naming it."""
    found = find_program(name)
    if found is None:
        pytest.skip(f"{name} is missing (Debian: {PACKAGES.get(name, name)})")
    return str(found)


@pytest.mark.parametrize(
    ("arch", "files"),
    [
        ("amd64", AMD64_FILES),
        ("amd64", ()),
        ("amd64", ("boot.ipxe",)),
        ("amd64", ("boot/grub/i386-efi/core.efi", "shimx64.efi")),
        ("x86", ("boot.ipxe", "lpxelinux.0", "pxelinux.0", "snponly.efi")),
        ("arm64", ("boot.ipxe", "ipxe-arm64.efi", "boot/grub/arm64-efi/core.efi")),
        ("arm", ("boot/grub/arm-efi/core.efi",)),
    ],
)
@pytest.mark.parametrize("config", list(CHECKERS))
def test_the_servers_own_checker_accepts_it(
    config: str, arch: str, files: tuple[str, ...], tmp_path: Path
) -> None:
    name, *arguments = CHECKERS[config]
    program = need_program(name)
    file = tmp_path / config
    file.write_text(render(config, arch=arch, files=files))
    done = subprocess.run(
        [program, *arguments, str(file)], check=False, capture_output=True, text=True, timeout=10,
        env=os.environ | {"KEA_PIDFILE_DIR": str(tmp_path), "KEA_LOCKFILE_DIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARN" not in done.stdout + done.stderr, done.stdout + done.stderr


# --- Answers ---------------------------------------------------------------------------------

SERVER = Server(
    address="192.0.2.1",
    interface="lan0",
    http_port=8080,
    http_prefix="live/amd64",
    tftp_prefix="amd64",
)
CLIENT_ADDRESS = "192.0.2.50"
URL = "http://192.0.2.1:8080/live/amd64/"
TRANSACTION = 0x0BADCAFE
MAC = bytes.fromhex("525400123456")


@dataclass(frozen=True)
class Answer:
    """What a DHCP server answered."""

    file: str
    server: str
    address: str
    options: Mapping[int, bytes] = field(repr=False)

    @property
    def vendor_class(self) -> bytes:
        return self.options.get(60, b"")


def request(
    architecture: int | None,
    *,
    http: bool = False,
    user_class: bytes = b"",
    ipxe_options: bool = False,
    kind: int = 1,
    vendor_options: bytes = b"",
    client: str = "0.0.0.0",
    chosen: Answer | None = None,
) -> bytes:
    """Make a DHCP request as a network card sends it; `kind` 1 is DISCOVER, 3 is REQUEST, and
    `chosen` the offer that it takes.

    Option 60 is not asked for: an answer carries it only if the server insists.
    """
    options: list[tuple[int, bytes]] = [
        (53, bytes([kind])),
        (57, struct.pack("!H", 1472)),
        (55, bytes([1, 3, 6, 43, 66, 67])),
    ]
    if architecture is not None:
        name = "HTTPClient" if http else "PXEClient"
        options += [
            (93, struct.pack("!H", architecture)),
            (94, b"\x01\x03\x10"),
            (97, b"\0" + MAC + bytes(10)),
            (60, f"{name}:Arch:{architecture:05}:UNDI:003016".encode()),
        ]
    if user_class:
        options.append((77, user_class))
    if ipxe_options:
        options.append((175, bytes.fromhex("b105011af41000130101190101210101")))
    if vendor_options:
        options.append((43, vendor_options))
    if chosen:
        options += [(50, socket.inet_aton(chosen.address)), (54, chosen.options[54])]
    head = struct.pack(
        "!BBBBIHH4s4s4s4s16s64s128s4s",
        1, 1, 6, 0, TRANSACTION, 0, 0x8000,
        socket.inet_aton(client), bytes(4), bytes(4), bytes(4),
        MAC, b"", b"", bytes.fromhex("63825363"),
    )  # fmt: skip
    return head + b"".join(bytes([c, len(v)]) + v for c, v in options) + b"\xff"


def parse_options(data: bytes) -> dict[int, bytes]:
    """Parse options as code, length, value; 0 is padding and 255 the end."""
    options: dict[int, bytes] = {}
    position = 0
    while position < len(data) and data[position] != 255:
        if data[position] == 0:
            position += 1
            continue
        code, length = data[position], data[position + 1]
        options[code] = options.get(code, b"") + data[position + 2 : position + 2 + length]
        position += 2 + length
    return options


def parse_answer(data: bytes) -> Answer | None:
    """Parse a DHCP answer; None if it is none to our request."""
    if len(data) < 240 or data[0] != 2 or data[4:8] != struct.pack("!I", TRANSACTION):
        return None
    options = parse_options(data[240:])
    in_field = data[108:236].split(b"\0")[0]
    return Answer(
        file=(options.get(67) or in_field).rstrip(b"\0").decode(),
        server=socket.inet_ntoa(data[20:24]),
        address=socket.inet_ntoa(data[16:20]),
        options=options,
    )


@dataclass
class Lan:
    """Two network namespaces joined by a cable: `lan0` of the server, `lan1` of the client."""

    server: str
    client: str
    socket: socket.socket

    def ask(
        self, packet: bytes, *, seconds: float = 2, to: tuple[str, int] = ("255.255.255.255", 67)
    ) -> Answer | None:
        """Send a request and return the answer, or None if none comes in `seconds`."""
        while select.select([self.socket], [], [], 0)[0]:
            self.socket.recv(4096)
        self.socket.sendto(packet, to)
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self.socket], [], [], left)[0]:
                answer = parse_answer(self.socket.recv(4096))
                if answer is not None:
                    return answer
        return None


@contextmanager
def make_lan() -> Iterator[Lan]:
    """Lay the cable. Nothing of it is seen outside of the two namespaces."""
    server, client = f"pxeboot-{os.getpid()}-server", f"pxeboot-{os.getpid()}-client"

    def ip(*words: str) -> None:
        subprocess.run([str(find_program("ip")), *words], check=True, capture_output=True)

    try:
        ip("netns", "add", server)
        ip("netns", "add", client)
        ip("-n", server, "link", "add", "lan0", "type", "veth", "peer", "lan1", "netns", client)
        ip("-n", server, "addr", "add", f"{SERVER.address}/24", "dev", "lan0")
        ip("-n", client, "addr", "add", f"{CLIENT_ADDRESS}/24", "dev", "lan1")
        for namespace, card in ((server, "lan0"), (client, "lan1")):
            ip("-n", namespace, "link", "set", "lo", "up")
            ip("-n", namespace, "link", "set", card, "up")
        with open_socket(client) as port:
            yield Lan(server, client, port)
    finally:
        for namespace in (server, client):
            subprocess.run(
                [str(find_program("ip")), "netns", "del", namespace],
                check=False,
                capture_output=True,
            )


def open_socket(namespace: str) -> socket.socket:
    """Open the client's port in `namespace`; a socket stays in the namespace of its making."""
    from snakeoil.process.namespaces import CLONE_NEWNET, setns

    made: list[socket.socket] = []

    def make() -> None:
        with Path("/run/netns", namespace).open("rb") as handle:
            setns(handle.fileno(), CLONE_NEWNET)
        port = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        port.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        port.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lan1")
        port.bind(("0.0.0.0", 68))
        made.append(port)

    thread = Thread(target=make)  # whose namespace ends with it
    thread.start()
    thread.join()
    return made[0]


@contextmanager
def run_server(
    lan: Lan, config: str, text: str, folder: Path
) -> Iterator[Callable[..., Answer | None]]:
    """Run the server of `config` with `text` and yield how to ask it."""
    file = folder / config
    if config == "kea-dhcp4.json":
        # Leases of a test belong into no file.
        text = text.replace('"type": "memfile"', '"type": "memfile", "persist": false')
    file.write_text(text.replace(SERVER.tftp_root, str(folder)))
    log = folder / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [str(find_program("ip")), "netns", "exec", lan.server, *server_argv(config, file)],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env=os.environ | {"KEA_PIDFILE_DIR": str(folder), "KEA_LOCKFILE_DIR": str(folder)},
        )
    try:
        first = request(7) if "proxy" in config else request(None)
        end = time.monotonic() + 8
        while lan.ask(first, seconds=0.3) is None:
            if process.poll() is not None or time.monotonic() > end:
                pytest.fail(f"{config}: the server does not answer:\n{log.read_text()}")
        yield lan.ask
    finally:
        process.terminate()
        process.wait(10)


def server_argv(config: str, file: Path) -> list[str]:
    """Write the command line that runs a server in the foreground."""
    folder = file.parent
    if config.startswith("dnsmasq"):
        return [
            *("dnsmasq", "-k", "--log-facility=-", "--log-dhcp", "--user=root", "--no-ping", "-C"),
            *(str(file), f"--pid-file={folder}/pid", f"--dhcp-leasefile={folder}/leases"),
        ]
    if config == "kea-dhcp4.json":
        return ["kea-dhcp4", "-c", str(file)]
    (folder / "leases").touch()
    return [
        *("dhcpd", "-d", "-cf", str(file), "-lf", f"{folder}/leases", "-pf", f"{folder}/pid"),
        *("--no-pid", "lan0"),
    ]


@pytest.fixture(scope="module")
def lan() -> Iterator[Lan]:
    """Two network namespaces with a cable between them."""
    if os.geteuid() != 0:
        pytest.skip("needs root, for network namespaces")
    if find_program("ip") is None:
        pytest.skip("ip is missing (Debian: iproute2)")
    try:
        with make_lan() as made:
            yield made
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces: {error.stderr.decode().strip()}")


#: The servers that give out addresses themselves.
SERVERS = ("dnsmasq.conf", "kea-dhcp4.json", "dhcpd.conf")

GRUB_X64, GRUB_IA32 = "boot/grub/x86_64-efi/core.efi", "boot/grub/i386-efi/core.efi"

#: Client architecture: the file it gets, by the tree's architecture.
AMD64_ANSWERS = {
    0: "amd64/undionly.kpxe",
    6: f"amd64/{GRUB_IA32}",
    7: "amd64/snponly.efi",
    9: "amd64/snponly.efi",
    10: "",
    11: "",
    15: URL + GRUB_IA32,
    16: URL + GRUB_X64,
    18: "",
    19: "",
}
ARM64_FILES = ("boot.ipxe", "ipxe-arm64.efi", "boot/grub/arm64-efi/core.efi")
ARM64_ANSWERS = dict.fromkeys(AMD64_ANSWERS, "") | {
    11: "amd64/ipxe-arm64.efi",
    19: URL + "boot/grub/arm64-efi/core.efi",
}
ARM_FILES = ("boot.ipxe", "boot/grub/arm-efi/core.efi")
ARM_ANSWERS = dict.fromkeys(AMD64_ANSWERS, "") | {
    10: "amd64/boot/grub/arm-efi/core.efi",
    18: URL + "boot/grub/arm-efi/core.efi",
}
TREES: Mapping[str, tuple[tuple[str, ...], Mapping[int, str]]] = {
    "amd64": (AMD64_FILES, AMD64_ANSWERS),
    "arm64": (ARM64_FILES, ARM64_ANSWERS),
    "arm": (ARM_FILES, ARM_ANSWERS),
}
HTTP_CODES = frozenset({15, 16, 18, 19})


@pytest.mark.parametrize("arch", list(TREES))
@pytest.mark.parametrize("config", SERVERS)
def test_each_client_gets_its_loader(lan: Lan, config: str, arch: str, tmp_path: Path) -> None:
    need_program(CHECKERS[config][0])
    files, expected = TREES[arch]
    text = render(config, arch=arch, files=files, server=SERVER)
    with run_server(lan, config, text, tmp_path) as ask:
        for code, file in expected.items():
            answer = ask(request(code, http=code in HTTP_CODES))
            assert answer is not None, code
            assert (code, answer.file, answer.server) == (code, file, SERVER.address)
            assert "192.0.2.100" <= answer.address <= "192.0.2.199"
            expected_class = b"HTTPClient" if file and code in HTTP_CODES else b""
            assert (code, answer.vendor_class) == (code, expected_class)

        # iPXE, by its user class, by its own option, and by both; whatever it was started by.
        for packet in (
            request(0, user_class=b"iPXE"),
            request(7, ipxe_options=True),
            request(11, user_class=b"iPXE", ipxe_options=True),
            request(16, user_class=b"iPXE", http=True),
        ):
            answer = ask(packet)
            assert answer is not None
            assert (answer.file, answer.vendor_class) == (URL + "boot.ipxe", b"")

        # A machine that is up already gets an address and nothing to boot.
        answer = ask(request(None))
        assert answer is not None and answer.file == ""

        # What is offered is also what is confirmed.
        code = next(code for code, file in expected.items() if file)
        offer = ask(request(code))
        assert offer is not None
        answer = ask(request(code, kind=3, chosen=offer))
        assert answer is not None and answer.options[53] == b"\x05"
        assert (answer.address, answer.file) == (offer.address, expected[code])


@pytest.mark.parametrize("config", SERVERS)
def test_ipxe_is_as_its_firmware_where_the_tree_has_no_script(
    lan: Lan, config: str, tmp_path: Path
) -> None:
    need_program(CHECKERS[config][0])
    text = render(config, files=("snponly.efi", GRUB_X64), server=SERVER)
    with run_server(lan, config, text, tmp_path) as ask:
        answer = ask(request(7, user_class=b"iPXE", ipxe_options=True))
        assert answer is not None and answer.file == f"amd64/{GRUB_X64}"


#: The line of another loader that a user switches on.
OTHERS = {
    "dnsmasq.conf": (
        "dhcp-boot=tag:ipxe,amd64/boot.ipxe",
        f"dhcp-boot=tag:x64,tag:!ipxe,amd64/{GRUB_X64}",
        f"dhcp-boot=tag:x64-http,tag:!ipxe,{URL}ipxe.efi",
        "dhcp-boot=tag:bios,tag:!ipxe,amd64/lpxelinux.0",
        f"dhcp-option-force=tag:bios,tag:!ipxe,210,{URL}",
    ),
    "dhcpd.conf": (
        'filename "amd64/boot.ipxe";',
        f'filename "amd64/{GRUB_X64}";',
        'filename = concat(config-option tree-url, "ipxe.efi");',
        'filename "amd64/lpxelinux.0";',
        "option path-prefix = config-option tree-url;",
        "option dhcp-parameter-request-list = concat(option dhcp-parameter-request-list, d2);",
    ),
    "kea-dhcp4.json": (
        '"boot-file-name": "amd64/boot.ipxe"',
        f'"boot-file-name": "amd64/{GRUB_X64}"',
        f'"boot-file-name": "{URL}ipxe.efi"',
        '"boot-file-name": "amd64/lpxelinux.0"',
        f'"option-data": [ {{ "code": 210, "csv-format": false, "data": "\'{URL}\'",'
        ' "always-send": true } ],',
    ),
}


@pytest.mark.parametrize("config", SERVERS)
def test_another_loader_is_switched_on(lan: Lan, config: str, tmp_path: Path) -> None:
    need_program(CHECKERS[config][0])
    text = render(config, server=SERVER)
    if config == "kea-dhcp4.json":
        for name in (URL + "boot.ipxe", "amd64/snponly.efi", "amd64/undionly.kpxe", URL + GRUB_X64):
            text = text.replace(f'"boot-file-name": "{name}"\n', f'// "was": "{name}"\n')
    for line in OTHERS[config]:
        text = switch_on(text, line)
    with run_server(lan, config, text, tmp_path) as ask:
        for packet, file, prefix in (
            (request(7, user_class=b"iPXE"), "amd64/boot.ipxe", b""),
            (request(7), f"amd64/{GRUB_X64}", b""),
            (request(16, http=True), f"{URL}ipxe.efi", b""),
            (request(0), "amd64/lpxelinux.0", URL.encode()),
        ):
            answer = ask(packet)
            assert answer is not None
            assert (answer.file, answer.options.get(210, b"")) == (file, prefix)


BOOT_SERVER = (SERVER.address, 4011)  # where PXE asks a proxy once more


def test_the_proxy_adds_the_loader_only(lan: Lan, tmp_path: Path) -> None:
    need_program("dnsmasq")
    config = "dnsmasq-proxy.conf"
    with run_server(lan, config, render(config, server=SERVER), tmp_path) as ask:
        # 6 has GRUB only, which is offered because the server's address is known
        for code in (6, 7, 9):
            for kind, to in ((1, ("255.255.255.255", 67)), (3, BOOT_SERVER)):
                answer = ask(request(code, kind=kind, client=CLIENT_ADDRESS), to=to)
                assert answer is not None, code
                assert (code, answer.file) == (code, AMD64_ANSWERS[code])
                assert answer.server == SERVER.address
                assert answer.vendor_class == b"PXEClient"
                assert 51 not in answer.options  # no lease: the address is another server's affair
        # iPXE under UEFI and on BIOS.
        for code in (0, 7):
            answer = ask(request(code, user_class=b"iPXE"))
            assert answer is not None and answer.file == URL + "boot.ipxe"
        # Not for the proxy: no client of this tree, no network boot, HTTP Boot.
        for packet in (request(10), request(11), request(None), request(16, http=True)):
            assert ask(packet, seconds=0.3) is None


@pytest.mark.parametrize(
    ("user_class", "file"), [(b"", "amd64/undionly.kpxe"), (b"iPXE", URL + "boot.ipxe")]
)
def test_the_proxy_gives_bios_a_menu_of_one(
    lan: Lan, user_class: bytes, file: str, tmp_path: Path
) -> None:
    need_program("dnsmasq")
    config = "dnsmasq-proxy.conf"
    with run_server(lan, config, render(config, server=SERVER), tmp_path) as ask:
        offer = ask(request(0, user_class=user_class))
        assert offer is not None
        menu = parse_options(offer.options[43])
        kind, length = menu[9][:2], menu[9][2]
        assert len(menu[9]) == 3 + length  # one entry
        assert menu[10] == b"\0PXE"  # taken at once
        # The client asks the boot server for that entry, layer 0.
        answer = ask(
            request(0, user_class=user_class, kind=3, client=CLIENT_ADDRESS,
                    vendor_options=b"\x47\x04" + kind + b"\0\0\xff"),
            to=BOOT_SERVER,
        )  # fmt: skip
        assert answer is not None
        assert (answer.file, answer.server) == (file, SERVER.address)


def switch_on(text: str, line: str) -> str:
    """Take the comment sign away from one line, as a user would."""
    commented = re.findall(rf"^ *(?:#|// ){re.escape(line)}$", text, re.MULTILINE)
    assert len(commented) == 1, (line, commented)
    return text.replace(commented[0], line)
