"""What this machine has for serving, and what a tree says of itself."""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from catalyst_pxeboot.model.arch import Arch, all_arches
from catalyst_pxeboot.model.files import Role
from catalyst_pxeboot.model.loader import BootProgram
from catalyst_pxeboot.model.manifest import GRUB_ENDING, IPXE_ENDING, MANIFEST
from catalyst_pxeboot.model.settings import MAC, RootMode
from catalyst_pxeboot.serve.plan import Facts
from catalyst_pxeboot.services.interfaces import read_interfaces
from catalyst_pxeboot.services.webcommand import has_web_server
from catalyst_pxeboot.tree.manifest import list_tree, read_manifest
from catalyst_pxeboot.util.errors import CommandError, PxebootError
from catalyst_pxeboot.util.process import find_program
from catalyst_pxeboot.util.sums import MANIFEST_DIGEST

#: Who owns nothing, so that a server's fault has least to reach.
_NOBODY = "nobody"
_MIRROR = ("--without-http_mirror_module", "--without-http_rewrite_module")


@dataclass(frozen=True, slots=True)
class ServedTree:
    """A tree to be served: its files with their bytes, and those that hold the live root.

    `digests` are the sha256 of those that the manifest has one of. `grub_server` is the address
    that GRUB's images fetch from, where they have one inside. `initramfs` are the files in front of
    an initrd; `hosts` are the machines that the tree has something for, by MAC address or UUID;
    `program` is offered to UEFI clients beside the loaders; `personal` is whether the tree has the
    user's own files, `signed` whether it has signatures that loaders check.
    """

    path: Path
    arch: Arch
    title: str
    files: Mapping[str, int]
    digests: Mapping[str, str]
    roots: frozenset[str]
    grub_server: str
    initramfs: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    program: BootProgram | None = None
    personal: bool = False
    signed: bool = False

    def macs(self) -> tuple[str, ...]:
        """Return the MAC addresses of `hosts`, with colons. Raises `PxebootError` without any."""
        if not self.hosts:
            raise PxebootError(
                f"--only-hosts: {self.path} has nothing for single machines",
                hint="build it with pxeboot/hosts, or name them with --only",
            )
        for name in self.hosts:
            if not MAC.fullmatch(name):
                raise PxebootError(
                    f"--only-hosts: {name} is a UUID, which a running system does not tell by DHCP",
                    hint="name this machine by its MAC address in pxeboot/hosts",
                )
        return tuple(name.replace("-", ":") for name in self.hosts)


@dataclass(frozen=True, slots=True)
class Account:
    """Who the servers run as."""

    user: str
    group: str
    uid: int
    gid: int


def read_facts() -> Facts:
    """Look at this machine. Raises `CommandError` where that fails."""
    nginx = find_program("nginx")
    built = "" if nginx is None else _nginx_options(nginx)
    return Facts(
        interfaces=read_interfaces(),
        root=os.geteuid() == 0,
        dnsmasq=find_program("dnsmasq"),
        nginx=nginx,
        nginx_tells_begin=nginx is not None and logs_request_start(built),
        nginx_limits=nginx is not None and "--without-http_limit_conn_module" not in built,
        embedded=has_web_server(),
        default_route=read_default_route(),
    )


def read_default_route(table: Path = Path("/proc/net/route")) -> str:
    """Return the interface of the IPv4 default route; empty where there is none (man 5 proc)."""
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:
        return ""
    routes = map(str.split, lines)
    return next((route[0] for route in routes if route[1] == route[7] == "00000000"), "")


def logs_request_start(options: str) -> bool:
    """Say whether an nginx of these options of `configure` can log a request when it comes."""
    return not any(option in options.split() for option in _MIRROR)


def _nginx_options(nginx: Path) -> str:
    try:
        done = subprocess.run([nginx, "-V"], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandError(f"{nginx} could not be started: {error}") from error
    return done.stderr.decode(errors="replace")


def read_served_tree(tree: Path) -> ServedTree:
    """Read what serving needs of a netboot tree. Raises `PxebootError` if it is none.

    A tree holds regular files only; a symbolic link is refused. What the manifest does not name
    is not a file of the tree.
    """
    _, manifest = read_manifest(tree)
    names = [name for name in list_tree(tree) if name == MANIFEST or name in manifest.own_files]
    arch = next((arch for arch in all_arches() if arch.name == manifest.release.arch), None)
    if arch is None:
        raise PxebootError(
            f"{tree}: it is for {manifest.release.arch}, which is not known here",
            hint="use the version of this program that made the tree",
        )
    # Who loads one initrd only gets the live root inside of it.
    embedded = (entry for entry in manifest.menu.live if entry.root is RootMode.EMBEDDED)
    alone = (files for entry in embedded for files in entry.initrds.values() if len(files) == 1)
    roots = {manifest.squashfs.path, *(name for files in alone for name in files)}
    return ServedTree(
        path=tree.resolve(),
        arch=arch,
        title=manifest.release.title,
        files={name: (tree / name).stat().st_size for name in names},
        digests={file.path: file.digests[MANIFEST_DIGEST] for file in manifest.files},
        roots=frozenset(roots),
        grub_server=manifest.grub_server or "",
        initramfs=tuple(file.path for file in manifest.files if file.role is Role.INITRAMFS),
        hosts=manifest.hosts or (),
        program=manifest.program,
        personal=any(file.role is Role.PERSONAL for file in manifest.files),
        signed=any(file.path.endswith((GRUB_ENDING, IPXE_ENDING)) for file in manifest.files),
    )


def choose_account(*folders: Path) -> Account | None:
    """Choose the user who may read `folders` and least else; None if we are not root.

    That is nobody, unless a folder on the way is closed to others (a home, usually): then its
    owner, and root only where that is the owner. Raises `PxebootError` for one without a name.
    """
    if os.geteuid() != 0:
        return None
    for folder in folders:
        for place in reversed((folder, *folder.parents)):
            status = place.stat()
            if not status.st_mode & 0o001:
                return _owner(place, status.st_uid)
    try:
        return _account(pwd.getpwnam(_NOBODY))
    except KeyError:
        return _account(pwd.getpwuid(0))


def _owner(folder: Path, number: int) -> Account:
    try:
        return _account(pwd.getpwuid(number))
    except KeyError as error:  # of a container, or of another machine's disk
        raise PxebootError(
            f"{folder}: is closed to others, and its owner {number} is not a user of this machine",
            hint="move the tree to /srv, or open the folder: chmod o+x",
        ) from error


def _account(entry: pwd.struct_passwd) -> Account:
    return Account(entry.pw_name, grp.getgrgid(entry.pw_gid).gr_name, entry.pw_uid, entry.pw_gid)
