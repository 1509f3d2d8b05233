"""DHCP configurations: their text, what each server's own checker says, and what they answer.

The answers are those of the real servers, each in a network namespace of its own, to the requests
that firmware and iPXE send.
"""

from __future__ import annotations

import json
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

from catalyst_pxeboot.model.arch import all_arches, find_arch
from catalyst_pxeboot.model.files import Role
from catalyst_pxeboot.model.loader import BootProgram
from catalyst_pxeboot.model.settings import Server
from catalyst_pxeboot.render.dhcp import DHCP_CONFIGS, render_dhcp
from catalyst_pxeboot.util.errors import SpecError, TemplateError
from catalyst_pxeboot.util.process import find_program
from catalyst_pxeboot.util.resources import read_table
from tests.support.readers import rules

AMD64_FILES = (
    "boot.ipxe",
    "undionly.kpxe",
    "pxelinux.0",
    "lpxelinux.0",
    "boot/grub/i386-pc/core.0",
    "snponly.efi",
    "ipxe.efi",
    "boot/grub/x86_64-efi/core.efi",
    "boot/grub/i386-efi/core.efi",
)


def render(
    config: str,
    *,
    arch: str = "amd64",
    files: tuple[str, ...] = AMD64_FILES,
    server: Server | None = None,
    templates: Path | None = None,
) -> str:
    """Render the configuration `dhcp/<config>` and return its text."""
    made = render_dhcp(find_arch(arch), files=files, server=server, templates=templates)
    return {file.path: file.content.decode() for file in made}[f"dhcp/{config}"]


def switch_on(text: str, line: str) -> str:
    """Take the comment sign away from one line, as a user would."""
    commented = re.findall(rf"^ *(?:#|// ){re.escape(line)}$", text, re.MULTILINE)
    assert len(commented) == 1, (line, commented)
    return text.replace(commented[0], line)


def test_files_are_sorted_and_say_what_they_were_made_from() -> None:
    files = render_dhcp(find_arch("amd64"), files=AMD64_FILES, server=None, templates=None)
    assert [(file.path, file.role, file.origin) for file in files] == [
        (path, Role.CONFIG, f"template {path}.j2") for path in sorted(DHCP_CONFIGS)
    ]
    assert all(file.content.endswith(b"\n") and b"\r" not in file.content for file in files)
    assert not [
        line for file in files for line in file.content.split(b"\n") if line != line.rstrip()
    ]


def test_dnsmasq() -> None:
    assert rules(render("dnsmasq.conf")) == [
        "dhcp-range=192.0.2.100,192.0.2.199,255.255.255.0,1h",
        "enable-tftp",
        "tftp-root=/srv/pxeboot",
        "port=0",
        "dhcp-authoritative",
        "dhcp-userclass=set:ipxe,iPXE",
        "dhcp-match=set:ipxe,175",
        "dhcp-boot=tag:ipxe,http://192.0.2.1/boot.ipxe",
        "dhcp-match=set:bios,option:client-arch,0",
        "dhcp-boot=tag:bios,tag:!ipxe,undionly.kpxe",
        "dhcp-match=set:x64,option:client-arch,7",
        "dhcp-match=set:x64,option:client-arch,9",
        "dhcp-boot=tag:x64,tag:!ipxe,snponly.efi",
        "dhcp-match=set:x64-http,option:client-arch,16",
        "dhcp-option-force=tag:x64-http,tag:!ipxe,60,HTTPClient",
        "dhcp-boot=tag:x64-http,tag:!ipxe,http://192.0.2.1/boot/grub/x86_64-efi/core.efi",
        "dhcp-match=set:ia32,option:client-arch,6",
        "dhcp-boot=tag:ia32,tag:!ipxe,boot/grub/i386-efi/core.efi",
        "dhcp-match=set:ia32-http,option:client-arch,15",
        "dhcp-option-force=tag:ia32-http,tag:!ipxe,60,HTTPClient",
        "dhcp-boot=tag:ia32-http,tag:!ipxe,http://192.0.2.1/boot/grub/i386-efi/core.efi",
    ]


def test_dnsmasq_proxy() -> None:
    server = Server(
        address="198.51.100.130",
        netmask="255.255.255.192",
        range_first="198.51.100.140",
        range_last="198.51.100.150",
        interface="br0",
        http_port=8080,
        http_prefix="c",
        tftp_prefix="a/b",
        tftp_root="/srv/live",
    )
    files = ("boot.ipxe", "undionly.kpxe", "ipxe.efi")
    assert rules(render("dnsmasq-proxy.conf", files=files, server=server)) == [
        "dhcp-range=198.51.100.128,proxy,255.255.255.192",
        "interface=br0",
        "bind-dynamic",
        "enable-tftp",
        "tftp-root=/srv/live",
        "port=0",
        "dhcp-userclass=set:ipxe,iPXE",
        "dhcp-match=set:ipxe,175",
        "dhcp-boot=tag:ipxe,http://198.51.100.130:8080/c/boot.ipxe",
        'pxe-service=tag:ipxe,x86PC,"iPXE menu",http://198.51.100.130:8080/c/boot.ipxe',
        "dhcp-match=set:bios,option:client-arch,0",
        'pxe-service=tag:!ipxe,x86PC,"Network boot",a/b/undionly.kpxe',
        "dhcp-match=set:x64,option:client-arch,7",
        "dhcp-match=set:x64,option:client-arch,9",
        "dhcp-boot=tag:x64,tag:!ipxe,a/b/ipxe.efi",
        "dhcp-ignore=tag:!ipxe,tag:!bios,tag:!x64",
    ]


def read_kea(text: str) -> dict[str, object]:
    """Read Kea's JSON without its comments."""
    lines = [line for line in text.splitlines() if not line.strip().startswith("//")]
    loaded = json.loads("\n".join(lines))["Dhcp4"]
    assert isinstance(loaded, dict)
    return loaded


def test_kea() -> None:
    files = ("boot.ipxe", "lpxelinux.0", "boot/grub/i386-efi/core.efi")
    server = Server(interface="lan0", tftp_prefix="sub")
    first = "substring(option[93].hex, 0, 2)"
    assert read_kea(render("kea-dhcp4.json", files=files, server=server)) == {
        "next-server": "192.0.2.1",
        "interfaces-config": {"interfaces": ["lan0"]},
        "subnet4": [
            {
                "id": 1,
                "subnet": "192.0.2.0/24",
                "pools": [{"pool": "192.0.2.100 - 192.0.2.199"}],
                "option-data": [],
            }
        ],
        "authoritative": True,
        "valid-lifetime": 3600,
        "lease-database": {"type": "memfile"},
        "client-classes": [
            {
                "name": "ipxe",
                "test": "option[77].hex == 'iPXE' or option[175].exists",
                "boot-file-name": "http://192.0.2.1/boot.ipxe",
            },
            {
                "name": "bios",
                "test": f"not member('ipxe') and ({first} == 0x0000)",
                "option-data": [
                    {
                        "code": 210,
                        "csv-format": False,
                        "data": "'http://192.0.2.1/'",
                        "always-send": True,
                    }
                ],
                "boot-file-name": "sub/lpxelinux.0",
            },
            {
                "name": "ia32",
                "test": f"not member('ipxe') and ({first} == 0x0006)",
                "boot-file-name": "sub/boot/grub/i386-efi/core.efi",
            },
            {
                "name": "ia32-http",
                "test": f"not member('ipxe') and ({first} == 0x000f)",
                "option-data": [
                    {"name": "vendor-class-identifier", "data": "HTTPClient", "always-send": True}
                ],
                "boot-file-name": "http://192.0.2.1/boot/grub/i386-efi/core.efi",
            },
        ],
    }


def test_dhcpd() -> None:
    text = render("dhcpd.conf", arch="arm64", files=("boot/grub/arm64-efi/core.efi",))
    first = "substring(option client-arch, 0, 2)"
    assert rules(text) == [
        "option tree-url code 224 = text;",
        'option tree-url "http://192.0.2.1/";',
        "next-server 192.0.2.1;",
        "subnet 192.0.2.0 netmask 255.255.255.0 {",
        "range 192.0.2.100 192.0.2.199;",
        "}",
        "authoritative;",
        "default-lease-time 3600;",
        "max-lease-time 7200;",
        "ddns-update-style none;",
        "option client-arch code 93 = string;",
        "option path-prefix code 210 = text;",
        "option ipxe-options code 175 = string;",
        f"if {first} = 00:0b {{",
        'filename "boot/grub/arm64-efi/core.efi";',
        "}",
        f"elsif {first} = 00:13 {{",
        'option vendor-class-identifier "HTTPClient";',
        "option dhcp-parameter-request-list = concat(option dhcp-parameter-request-list, 3c);",
        'filename = concat(config-option tree-url, "boot/grub/arm64-efi/core.efi");',
        "}",
    ]


ALL_LOADERS = sorted({f for a in all_arches() for c in a.dhcp for f in c.loaders + c.http_loaders})


@pytest.mark.parametrize("arch", [arch.subarches[0] for arch in all_arches()])
@pytest.mark.parametrize("config", [Path(path).name for path in DHCP_CONFIGS])
def test_only_loaders_that_the_tree_has_are_named(config: str, arch: str) -> None:
    def named(text: str) -> set[str]:
        files = r"(?:[\w./:-]*[a-z]\w*\.(?:efi|kpxe|0)|manifest\.json)(?=[\"'\n])"
        return set(re.findall(files, text))

    client_files = {f for c in find_arch(arch).dhcp for f in c.loaders}
    if "proxy" in config:
        # GRUB, shim and U-Boot read the other server's answer only. HTTP Boot is told of in a
        # comment: a URL to type into the firmware.
        pxe = {f for f in client_files if f.startswith(("ipxe", "snponly", "undionly"))}
        http = {f for c in find_arch(arch).dhcp for f in c.http_loaders}
        client_files = pxe | http | (client_files & {"pxelinux.0", "lpxelinux.0"})
    for file in ALL_LOADERS:
        text = render(config, arch=arch, files=("boot.ipxe", file))
        found = {name.removeprefix("http://192.0.2.1/") for name in named(text)}
        assert found == ({file} & client_files), file
    assert named(render(config, arch=arch, files=("boot.ipxe", "README.efi"))) == set()


@pytest.mark.parametrize("config", [Path(path).name for path in DHCP_CONFIGS])
def test_ipxe_needs_its_script(config: str) -> None:
    files = tuple(file for file in AMD64_FILES if file != "boot.ipxe")
    text = render(config, files=files)
    assert "undionly" not in text and "ipxe.efi" not in text and "snponly" not in text
    assert "boot.ipxe" not in text and "!ipxe" not in text and "member('ipxe')" not in text
    assert "pxelinux.0" in text and "boot/grub/x86_64-efi/core.efi" in text


@pytest.mark.parametrize("config", [Path(path).name for path in DHCP_CONFIGS])
def test_other_loaders_stay_as_comments_in_order(config: str) -> None:
    text = render(config, files=("boot.ipxe", "ipxe.efi", "boot/grub/x86_64-efi/core.efi",
                                 "shimx64.efi", "undionly.kpxe", "pxelinux.0"))  # fmt: skip
    active = "\n".join(rules(text))
    assert "pxelinux.0" not in active and "shimx64.efi" not in active
    assert text.count("pxelinux.0") == 1
    if "proxy" in config:
        assert "shim" not in text and "# GRUB is not among them" in text
        return
    assert text.count("shimx64.efi") == 1  # no HTTP Boot by it
    assert "Secure Boot" in text and "Secure Boot" not in render(config)


@pytest.mark.parametrize("config", ["dnsmasq.conf", "dnsmasq-proxy.conf", "kea-dhcp4.json"])
def test_the_command_in_the_head_sets_the_address_everywhere(config: str, tmp_path: Path) -> None:
    text = render(config)
    (command,) = re.findall(r"sed -i '(\S+)' " + re.escape(config), text)
    (tmp_path / config).write_text(text)
    done = subprocess.run(
        ["sed", command.replace("SERVER.ADDRESS", "10.1.2.3"), str(tmp_path / config)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert "192.0.2.1" not in re.sub(r"192\.0\.2\.1\d\d", "", done.stdout)
    assert "http://10.1.2.3/boot.ipxe" in done.stdout
    if "proxy" not in config:
        assert re.search(r"192\.0\.2\.100.+192\.0\.2\.199", done.stdout)


def test_every_code_belongs_to_one_client_of_an_architecture() -> None:
    for arch in all_arches():
        codes = [code for client in arch.dhcp for code in client.codes + client.http_codes]
        assert len(codes) == len(set(codes))
    clients = {
        (client.name, client.codes, client.http_codes, client.loaders, client.http_loaders)
        for arch in all_arches()
        for client in arch.dhcp
    }
    assert {(name, codes, http) for name, codes, http, *_ in clients} >= {
        ("bios", (0,), ()),
        ("ia32", (6,), (15,)),
        ("x64", (7, 9), (16,)),
        ("arm32", (10,), (18,)),
        ("arm64", (11,), (19,)),
    }
    # amd64 and x86 say the same of the clients that they share
    assert len(clients) == len({name for name, *_ in clients})


def test_every_grub_image_of_an_architecture_has_a_client() -> None:
    for arch in all_arches():
        images = {f"boot/grub/{platform}/{name}" for platform, name in arch.grub.items()}
        assert images == {
            f for client in arch.dhcp for f in client.loaders if f.startswith("boot/grub/")
        }


def test_every_loader_can_get_into_a_tree() -> None:
    tables = read_table("loader/binaries.toml")
    paths = {file["path"] for loader in ("ipxe", "pxelinux") for file in tables[loader]["files"]}
    others = [file for file in ALL_LOADERS if not file.startswith(("boot/grub/", "shim"))]
    # U-Boot is told the manifest, for its folder.
    assert [file for file in others if file not in paths] == ["manifest.json"]


@pytest.mark.parametrize(
    ("server", "message"),
    [
        (Server(address="pxe"), "address 'pxe' is not an IPv4 address; write it as 192.0.2.1"),
        (
            Server(netmask="0.0.0.255"),
            "netmask '0.0.0.255' is not an IPv4 network mask; write it as 255.255.255.0",
        ),
        (
            Server(netmask="24"),
            "netmask '24' is not an IPv4 network mask; write it as 255.255.255.0",
        ),
        (
            Server(range_first="192.0.3.1", range_last="192.0.3.2"),
            "range_first 192.0.3.1 is not in the server's network 192.0.2.0/24; choose one in it,"
            " or correct the netmask | pxeboot/server: range_last 192.0.3.2 is not in the server's"
            " network 192.0.2.0/24; choose one in it, or correct the netmask",
        ),
        (
            Server(range_first="192.0.2.9", range_last="192.0.2.8"),
            "the range 192.0.2.9 to 192.0.2.8 runs backwards; exchange its ends",
        ),
        (
            Server(address="192.0.2.100"),
            "the range 192.0.2.100 to 192.0.2.199 holds the server's own address 192.0.2.100;"
            " leave the server's address out of the range",
        ),
        (
            Server(interface="eth0\nport=53"),
            "interface 'eth0\\nport=53' is not the name of a network card; name one of those that"
            " `ip link` lists",
        ),
        (Server(http_port=0), "HTTP port 0 is not between 1 and 65535; correct it"),
        (
            Server(http_prefix="/x"),
            "HTTP folder '/x' holds more than letters, digits and . _ + - between single slashes;"
            " name it without a slash at either end, or rename the folder",
        ),
        (
            Server(tftp_prefix="a,b"),
            "TFTP folder 'a,b' holds more than letters, digits and . _ + - between single slashes;"
            " name it without a slash at either end, or rename the folder",
        ),
        (
            Server(tftp_root="/srv/../etc"),
            "TFTP root '/srv/../etc' is not an absolute path of letters, digits and ._+-; write it"
            " as /srv/pxeboot",
        ),
    ],
)
def test_a_server_that_is_wrong(server: Server, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        render("dnsmasq.conf", server=server)
    assert str(caught.value) == f"pxeboot/server: {message}"


def test_all_that_is_wrong_is_told_together() -> None:
    with pytest.raises(SpecError) as caught:
        render("dnsmasq.conf", server=Server(address="x", interface="", http_port=70000))
    assert [problem.message for problem in caught.value.problems] == [
        "pxeboot/server: address 'x' is not an IPv4 address",
        "pxeboot/server: interface '' is not the name of a network card",
        "pxeboot/server: HTTP port 70000 is not between 1 and 65535",
    ]


def test_a_boot_file_that_is_too_long() -> None:
    fits = "x" * (127 - len("http://192.0.2.1/") - len("/boot/grub/x86_64-efi/core.efi"))
    render("dnsmasq.conf", server=Server(http_prefix=fits))
    with pytest.raises(TemplateError) as caught:
        render("dnsmasq.conf", server=Server(http_prefix=fits + "x"))
    assert str(caught.value) == (
        f'DHCP: the boot file "http://192.0.2.1/{fits}x/boot/grub/x86_64-efi/core.efi" is 128 bytes'
        " long, more than the 127 that an answer holds; serve the tree from a folder with a shorter"
        " name"
    )


def test_one_template_is_replaced_and_the_others_stay(tmp_path: Path) -> None:
    (tmp_path / "dhcp").mkdir()
    (tmp_path / "dhcp/dhcpd.conf.j2").write_text("# {{ arch }} {{ clients[1].loaders[0].file }}\n")
    arch = find_arch("amd64")
    files = render_dhcp(arch, files=AMD64_FILES, server=None, templates=tmp_path)
    assert (files[0].content, files[0].origin) == (
        b"# amd64 snponly.efi\n",
        "template dhcp/dhcpd.conf.j2 (own)",
    )
    assert files[1:] == render_dhcp(arch, files=AMD64_FILES, server=None, templates=None)[1:]


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


# --- Real servers ---------------------------------------------------------------------------------

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

#: Client architecture: what it is told, by the tree's architecture.
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
            told = b"HTTPClient" if file and code in HTTP_CODES else b""
            assert (code, answer.vendor_class) == (code, told)

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


@pytest.mark.parametrize("first", [True, False])
def test_a_unified_kernel_image_is_first_or_last(first: bool) -> None:
    made = render_dhcp(
        find_arch("amd64"), files=AMD64_FILES, server=None, templates=None,
        program=BootProgram("boot/g.efi", first),
    )  # fmt: skip
    (text,) = (file.content.decode() for file in made if file.path == "dhcp/dnsmasq.conf")
    rules = re.findall(r"^(#?)dhcp-boot=tag:(x64|x64-http),tag:!ipxe,(\S+)$", text, re.MULTILINE)
    for client, file in (("x64", "boot/g.efi"), ("x64-http", "http://192.0.2.1/boot/g.efi")):
        offered = [(off, name) for off, of, name in rules if of == client]
        assert offered[0 if first else -1] == ("" if first else "#", file)
        assert [off for off, _ in offered] == ["", *"#" * (len(offered) - 1)]
    for client in ("bios", "ia32"):
        assert not re.search(rf"dhcp-boot=tag:{client}\S*boot/g\.efi", text)
