"""Values of single spec keys: words become what they mean, or an error that names the key."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Interface

from catalyst_pxeboot.model.settings import NfsRoot, Release, RootMode, Serial, Server
from catalyst_pxeboot.util.errors import PxebootError
from catalyst_pxeboot.util.text import nearest

#: What passes every loader and shell unharmed; RFC 3986 allows more.
_URL = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~+-]+)*")

_NFS = re.compile(
    r"((?P<server>[A-Za-z0-9.-]*):)?(?P<path>/[A-Za-z0-9._+/-]*)(,(?P<options>[A-Za-z0-9_=.,-]+))?"
)

_RELEASE = re.compile(r"[a-z0-9][A-Za-z0-9_.+-]*-(?P<stamp>20[0-9]{6}T[0-9]{6}Z)")
_SERIAL = re.compile(r"(?P<device>tty[A-Za-z]+[0-9]{1,2}|hvc0),(?P<speed>[0-9]{3,7})[a-z0-9]*")


def parse_digests(value: object) -> tuple[str, ...]:
    """Read catalyst.conf's `digests`: a name or a collection of names; sorted."""
    if value is None:
        return ()
    names = sorted({value} if isinstance(value, str) else {str(name) for name in _items(value)})
    for name in names:
        if name not in hashlib.algorithms_available:
            raise PxebootError(
                f"digests: {name!r} is not a digest this Python has"
                + nearest(name, hashlib.algorithms_available),
                hint="use blake2b and sha512",
            )
        if hashlib.new(name).digest_size == 0:
            raise PxebootError(
                f"digests: {name!r} has no length of its own", hint="use blake2b and sha512"
            )
    return tuple(names)


def _items(value: object) -> Sequence[object]:
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    raise PxebootError(
        f"digests: {value!r} is not a list of names", hint='write digests = ["blake2b", "sha512"]'
    )


def parse_serial(text: str) -> Serial | None:
    """Read `DEVICE,SPEED`; an empty text is none."""
    if not text:
        return None
    found = _SERIAL.fullmatch(text)
    if not found:
        raise PxebootError(
            f"pxeboot/serial: {text!r} is not a device and a speed",
            hint="write it as the kernel does, ttyS0,115200",
        )
    return Serial(device=found["device"], speed=int(found["speed"]))


#: What may follow the address in pxeboot/server, and the fields of `Server` that it fills.
_SERVER_WORDS = ("range", "interface", "http_port", "http_prefix", "tftp_prefix", "tftp_root")


def parse_server(words: Sequence[str]) -> Server | None:
    """Read `ADDRESS/BITS WORD=VALUE …`; render/dhcp.py checks the values."""
    if not words:
        return None
    try:
        interface = IPv4Interface(words[0] if "/" in words[0] else f"{words[0]}/24")
    except ValueError as error:
        raise PxebootError(
            f"pxeboot/server: {words[0]!r} is not an IPv4 address with a network's length",
            hint="write it as 192.168.1.1/24",
        ) from error
    given: dict[str, str] = {}
    for word in words[1:]:
        name, _, value = word.partition("=")
        if name not in _SERVER_WORDS or not value:
            raise PxebootError(
                f"pxeboot/server: {word!r} is unknown{nearest(name, _SERVER_WORDS)}",
                hint="after the address write " + ", ".join(f"{w}=…" for w in _SERVER_WORDS),
            )
        given[name] = value
    first, dash, last = given.pop("range", "").partition("-")
    if not dash:
        # A hundred addresses at the place most home and lab networks leave for it.
        base = int(interface.ip) & ~0xFF
        first, last = str(IPv4Address(base + 100)), str(IPv4Address(base + 199))
    port = given.pop("http_port", "80")
    if not port.isdecimal():
        raise PxebootError(
            f"pxeboot/server: {port!r} is not an HTTP port", hint="write http_port=80"
        )
    return Server(
        address=str(interface.ip),
        netmask=str(interface.netmask),
        range_first=first,
        range_last=last,
        http_port=int(port[:6]),
        **given,
    )


def parse_base_url(text: str, server: Server | None) -> str | None:
    """Read a folder's URL; an empty text is the server's folder, where there is a server."""
    if not text:
        if server is None:
            return None
        return server.url.rstrip("/")
    url = text.rstrip("/")
    if not _URL.fullmatch(url) or "/../" in f"{url}/":
        raise PxebootError(
            f"pxeboot/base_url: {text!r} is not a plain http:// or https:// address of a folder",
            hint="write it as http://192.168.1.1/gentoo",
        )
    return url


def parse_release(text: str) -> Release | None:
    """Read a release's name, which ends in a time stamp; an empty text is none."""
    if not text:
        return None
    found = _RELEASE.fullmatch(text)
    if not found or ".." in text:
        raise PxebootError(
            f"pxeboot/release: {text!r} is not a name that ends in a time stamp",
            hint="write it as amd64-minimal-20261122T170000Z; mirrors go by that stamp",
        )
    return Release(text, found["stamp"])


def parse_nfs_root(text: str, server: Server | None, roots: Sequence[RootMode]) -> NfsRoot | None:
    """Read `SERVER:/PATH,OPTIONS`; an empty text is the server's folder, if NFS is asked for."""
    if not text:
        if RootMode.NFS not in roots:
            return None
        # As dhcp/ has it: the tree in the TFTP server's folder, exported from there.
        where = server or Server()
        prefix = f"/{where.tftp_prefix}" if where.tftp_prefix else ""
        return NfsRoot(server.address if server else None, f"{where.tftp_root}{prefix}")
    found = _NFS.fullmatch(text)
    if not found or ".." in found["path"].split("/"):
        raise PxebootError(
            f"pxeboot/nfs_root: {text!r} is not a server and folder",
            hint="write it as 192.168.1.1:/srv/gentoo or :/srv/gentoo,vers=3",
        )
    path = found["path"].rstrip("/") or "/"
    address = found["server"] or (server.address if server else None)
    return NfsRoot(address, path, found["options"] or "")
