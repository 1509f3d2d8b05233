"""Render configurations for DHCP servers, so that every client gets the loader it can start.

What a client is, it says itself: its architecture in option 93 (RFC 4578), iPXE in options 77
(user class) and 175, UEFI HTTP Boot in the architecture too (UEFI specification, "HTTP Boot":
the answer must carry option 60 `HTTPClient` and a URL).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from catalyst_pxeboot.model.arch import Arch, DhcpClient
from catalyst_pxeboot.model.files import MadeFile
from catalyst_pxeboot.model.loader import BootProgram
from catalyst_pxeboot.model.settings import Server
from catalyst_pxeboot.render.templates import render_file
from catalyst_pxeboot.util.errors import PxebootError, SpecError, TemplateError
from catalyst_pxeboot.util.resources import read_table

#: The configurations, by their paths in the tree. Each template has the same name with `.j2`.
DHCP_CONFIGS = (
    "dhcp/dhcpd.conf",
    "dhcp/dnsmasq-proxy.conf",
    "dhcp/dnsmasq.conf",
    "dhcp/kea-dhcp4.json",
)

#: iPXE's script.
IPXE_SCRIPT = "boot.ipxe"

#: The file field of a DHCP message holds 128 bytes, its final zero included (RFC 2131).
BOOT_FILE_BYTES = 127

# What ends or changes a value in any of the servers' grammars (comma, quote, white space, `#`) is
# left out, and so is what a URL would need to escape.
_PATH = re.compile(r"[A-Za-z0-9._+-]+(?:/[A-Za-z0-9._+-]+)*")

#: A network interface's name that each of the servers reads as just that.
INTERFACE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}")

#: Loaders that, like iPXE, go on from a proxy's answer. GRUB (a signed one behind shim too) and
#: U-Boot read that of the server which gave the address, and look for their menu there; our own
#: images of GRUB know better if they have the server's address inside.
_PROXY_LOADERS = frozenset({"pxelinux.0", "lpxelinux.0"})

#: PXELINUX with HTTP and FTP; it fetches by them only if option 210 names a URL.
_PATH_PREFIX_LOADERS = frozenset({"lpxelinux.0"})


@dataclass(frozen=True, slots=True)
class LoaderView:
    """A loader as a template sees it: `file` below the TFTP root, or a URL for HTTP Boot.

    `path_prefix` is the tree's URL for a loader that needs it in option 210, else empty.
    """

    file: str
    path_prefix: str


@dataclass(frozen=True, slots=True)
class ClientView:
    """A kind of client as a template sees it; only loaders that the tree has, the best first."""

    name: str
    title: str
    codes: tuple[int, ...]
    http_codes: tuple[int, ...]
    loaders: tuple[LoaderView, ...]
    http_loaders: tuple[LoaderView, ...]
    proxy_loaders: tuple[LoaderView, ...]  # those that a proxy's answer is enough for
    bios: bool


def render_dhcp(
    arch: Arch,
    *,
    files: Collection[str],
    server: Server | None,
    templates: Path | None,
    grub_knows: bool | None = None,
    program: BootProgram | None = None,
) -> tuple[MadeFile, ...]:
    """Render the DHCP servers' configurations, sorted by their path in the tree.

    `files` are the paths of the tree's loaders and configurations; only those are named. iPXE
    itself is offered only with its script, without which it would load itself for ever. A file in
    the folder `templates` replaces the shipped template of the same relative name. `grub_knows`
    says whether GRUB's images have the server's address inside, as those of a tree that is being
    built for `server` have. `program` is offered to UEFI clients of the architecture beside the
    loaders.
    Raises `SpecError` with all that is wrong with `server`, `TemplateError` for a name too long
    for DHCP and for a faulty template.
    """
    known = server is not None if grub_knows is None else grub_knows
    server = server or Server()
    check_server(server)
    values = _values(arch, files, server, known=known, program=program)
    return tuple(render_file(path, values, templates) for path in DHCP_CONFIGS)


def check_server(server: Server) -> None:
    """Raise `SpecError` with all that is wrong with `server`."""
    problems = tuple(_server_problems(server))
    if problems:
        raise SpecError(problems)


def _values(
    arch: Arch,
    files: Collection[str],
    server: Server,
    *,
    known: bool,
    program: BootProgram | None,
) -> dict[str, Any]:
    """Collect everything that a template may use, by these names.

    `known`: GRUB's images have the server's address inside.
    """
    network = IPv4Network((server.address, server.netmask), strict=False)
    root = server.url
    ipxe = set() if IPXE_SCRIPT in files else _ipxe_loaders()
    usable = set(files) - ipxe
    clients = tuple(
        _view_client(client, usable, server, known=known, program=program) for client in arch.dhcp
    )
    offered = [loader.file for client in clients for loader in client.loaders]
    return {
        "arch": arch.name,
        "address": server.address,
        "address_pattern": re.escape(server.address),
        "network": str(network.network_address),
        "netmask": server.netmask,
        "prefix_length": network.prefixlen,
        "range_first": server.range_first,
        "range_last": server.range_last,
        "interface": server.interface or "",
        "tftp_root": server.tftp_root,
        "tftp_tree": "/".join(filter(None, (server.tftp_root.rstrip("/"), server.tftp_prefix))),
        "http_root": root,
        "ipxe": _boot_file(root + IPXE_SCRIPT) if IPXE_SCRIPT in files else "",
        "ipxe_tftp": _boot_file(_below(server.tftp_prefix, IPXE_SCRIPT)),
        "clients": clients,
        "grub_by_proxy": known,
        "shim": any(Path(file).name.startswith("shim") for file in offered),
    }


def _view_client(
    client: DhcpClient,
    files: Collection[str],
    server: Server,
    *,
    known: bool,
    program: BootProgram | None,
) -> ClientView:
    root = server.url
    own = [program.path] if program and client.uki else []
    before, after = (own, []) if program and program.first else ([], own)
    loaders = [*before, *(file for file in client.loaders if file in files), *after]
    by_http = [*before, *(file for file in client.http_loaders if file in files), *after]

    def view(file: str) -> LoaderView:
        prefix = root if file in _PATH_PREFIX_LOADERS else ""
        return LoaderView(_boot_file(_below(server.tftp_prefix, file)), prefix)

    return ClientView(
        name=client.name,
        title=client.title,
        codes=client.codes,
        http_codes=client.http_codes,
        loaders=tuple(view(file) for file in loaders),
        proxy_loaders=tuple(
            view(file)
            for file in loaders
            if file in {*_PROXY_LOADERS, *_ipxe_loaders(), *own}
            or (known and file.startswith("boot/grub/"))
        ),
        http_loaders=tuple(LoaderView(_boot_file(root + file), "") for file in by_http),
        bios=0 in client.codes,
    )


def _ipxe_loaders() -> set[str]:
    return {file["path"] for file in read_table("loader/binaries.toml")["ipxe"]["files"]}


def _below(prefix: str, file: str) -> str:
    return f"{prefix}/{file}" if prefix else file


def _boot_file(name: str) -> str:
    if len(name) > BOOT_FILE_BYTES:
        raise TemplateError(
            f'DHCP: the boot file "{name}" is {len(name)} bytes long, more than the'
            f" {BOOT_FILE_BYTES} that an answer holds",
            hint="serve the tree from a folder with a shorter name",
        )
    return name


def _server_problems(server: Server) -> Iterator[PxebootError]:
    """Find all that is wrong with `server`, in the order of its fields."""
    addresses: dict[str, IPv4Address] = {}
    for name in ("address", "range_first", "range_last"):
        value = getattr(server, name)
        try:
            addresses[name] = IPv4Address(value)
        except ValueError:
            yield _problem(f"{name} {value!r} is not an IPv4 address", "write it as 192.0.2.1")
    network = None
    try:
        network = IPv4Network(f"{addresses.get('address', '0.0.0.0')}/{server.netmask}", False)
        usual = str(network.netmask) == server.netmask
    except ValueError:
        usual = False
    if not usual:
        yield _problem(
            f"netmask {server.netmask!r} is not an IPv4 network mask", "write it as 255.255.255.0"
        )
    elif network is not None and len(addresses) == 3:
        yield from _range_problems(addresses, network)
    if server.interface is not None and not INTERFACE_NAME.fullmatch(server.interface):
        yield _problem(
            f"interface {server.interface!r} is not the name of a network card",
            "name one of those that `ip link` lists",
        )
    if not 1 <= server.http_port <= 65535:
        yield _problem(f"HTTP port {server.http_port} is not between 1 and 65535", "correct it")
    for what, value in (("HTTP", server.http_prefix), ("TFTP", server.tftp_prefix)):
        if value and not _is_plain(value):
            yield _problem(
                f"{what} folder {value!r} holds more than letters, digits and . _ + - between"
                " single slashes",
                "name it without a slash at either end, or rename the folder",
            )
    if not server.tftp_root.startswith("/") or not (
        server.tftp_root == "/" or _is_plain(server.tftp_root[1:])
    ):
        yield _problem(
            f"TFTP root {server.tftp_root!r} is not an absolute path of letters, digits and ._+-",
            "write it as /srv/pxeboot",
        )


def _range_problems(
    addresses: dict[str, IPv4Address], network: IPv4Network
) -> Iterator[PxebootError]:
    server, first, last = (addresses[name] for name in ("address", "range_first", "range_last"))
    for name in ("range_first", "range_last"):
        if addresses[name] not in network:
            yield _problem(
                f"{name} {addresses[name]} is not in the server's network {network}",
                "choose one in it, or correct the netmask",
            )
    if first > last:
        yield _problem(f"the range {first} to {last} runs backwards", "exchange its ends")
    elif first <= server <= last:
        yield _problem(
            f"the range {first} to {last} holds the server's own address {server}",
            "leave the server's address out of the range",
        )


def _is_plain(path: str) -> bool:
    return bool(_PATH.fullmatch(path)) and not {".", ".."} & set(path.split("/"))


def _problem(message: str, hint: str) -> PxebootError:
    return PxebootError(f"pxeboot/server: {message}", hint=hint)
