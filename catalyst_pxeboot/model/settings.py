"""What a spec can set, parsed."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from catalyst_pxeboot.formats.signing.pkcs11 import TokenKey

#: Characters of a title; a loader's screen has 80 columns.
MAX_TITLE = 200

#: How a machine is named: its MAC address or SMBIOS UUID, in lower case with hyphens.
MAC: Final = re.compile(r"[0-9a-f]{2}(?:-[0-9a-f]{2}){5}")
UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

#: The port that a URL does not name.
HTTP_PORT: Final = 80


class RootMode(StrEnum):
    """How the live root, a squashfs, gets to the running system."""

    EMBEDDED = "embedded"  # the loader puts it into the initramfs
    STREAM = "stream"  # the initramfs reads it from a web server, block by block
    HTTP = "http"  # the initramfs fetches it into memory
    NFS = "nfs"  # the initramfs mounts the folder it lies in; it stays on the server

    @property
    def by_addon(self) -> bool:
        """Whether an add-on can do it for an initramfs that cannot."""
        return self in {RootMode.STREAM, RootMode.HTTP}


def may_stream(modes: Collection[RootMode]) -> bool:
    """Say whether an add-on may get the root in one of these modes; none at all are any."""
    return any(mode.by_addon for mode in modes or RootMode)


class LinkMode(StrEnum):
    """How a payload file gets from the stage2 tree into the netboot tree."""

    AUTO = "auto"
    HARDLINK = "hardlink"
    REFLINK = "reflink"
    COPY = "copy"


@dataclass(frozen=True, slots=True)
class Serial:
    """A serial console: `device` as the kernel names it, `speed` in baud."""

    device: str
    speed: int

    @property
    def unit(self) -> int:
        """The port's number, as loaders count them (ttyS0 and ttyAMA0 are both port 0)."""
        return int("".join(c for c in self.device if c.isdigit()) or "0")


def tree_url(address: str, port: int, prefix: str = "") -> str:
    """Return the URL of a tree in the folder `prefix` of a web server, with a slash at its end."""
    where = f"{address}:{port}" if port != HTTP_PORT else address
    return f"http://{where}/{prefix}/" if prefix else f"http://{where}/"


@dataclass(frozen=True, slots=True)
class Server:
    """The machine that serves the tree, as its clients see it.

    The defaults are placeholders: addresses that RFC 5737 keeps for documentation. `interface`
    None serves every interface that is on the network. `tftp_root` is the folder that TFTP
    clients see. `tftp_prefix` and `http_prefix` are the tree's folder below the TFTP root and
    below the web server's root, empty where the root is the tree; no slash at either end.
    """

    address: str = "192.0.2.1"
    netmask: str = "255.255.255.0"
    range_first: str = "192.0.2.100"
    range_last: str = "192.0.2.199"
    interface: str | None = None
    http_port: int = HTTP_PORT
    http_prefix: str = ""
    tftp_prefix: str = ""
    tftp_root: str = "/srv/pxeboot"

    @property
    def url(self) -> str:
        """The tree's URL, with a slash at its end."""
        return tree_url(self.address, self.http_port, self.http_prefix)


@dataclass(frozen=True, slots=True)
class NfsRoot:
    """The folder of an NFS server in which the squashfs lies.

    `server` None is the boot server, whose address only the loader knows; `options` are mount's,
    with commas between, or empty.
    """

    server: str | None
    path: str
    options: str = ""


@dataclass(frozen=True, slots=True)
class Release:
    """A release's name in flat file names; it ends in `stamp`, which the mirrors go by."""

    name: str
    stamp: str


@dataclass(frozen=True, slots=True)
class PersonalSettings:
    """What the spec gives a machine beside the stock image; files and folders are the user's."""

    ssh_keys: Path | None = None
    files: Path | None = None
    script: Path | None = None
    hostname: str = ""
    keymap: str = ""
    allow_secrets: bool = False

    def __bool__(self) -> bool:
        return bool(self.ssh_keys or self.files or self.script or self.hostname or self.keymap)


@dataclass(frozen=True, slots=True)
class HostSettings:
    """What the spec gives one machine alone.

    `name` is its MAC address or SMBIOS UUID, `where` the file that says it. An empty `entry`
    leaves it the menu.
    """

    name: str
    where: str
    personal: PersonalSettings
    entry: str
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SecureBoot:
    """The user's own certificate and key for EFI programs."""

    certificate: Path
    key: Path | TokenKey
    passphrase_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Signing:
    """What the spec says of signatures; the files are the user's own and named nowhere else."""

    gpg_key: str | None = None
    certificate: Path | None = None
    key: Path | None = None
    passphrase_file: Path | None = None
    always: bool = False  # iPXE always checks; otherwise if its caller asks for it
