"""An initrd that lays personal files over the live root.

Source: dracut's dmsquash-live, which copies its folder /updates over the mounted root; genkernel's
linuxrc, which runs cdupdate.sh. sshd_config(5); conf.d/hostname and conf.d/keymaps of OpenRC;
hostname(5) and vconsole.conf(5) of systemd.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from catalyst_pxeboot.formats.cpio import MEMBER_FOLDER, MEMBER_PROGRAM, write_archive
from catalyst_pxeboot.personal.model import Personal
from catalyst_pxeboot.render.templates import render_file

_TOP: Final = "updates"
_SECRET_FOLDER, _SECRET_FILE = stat.S_IFDIR | 0o700, stat.S_IFREG | 0o600
_FILE, _LINK = stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777
_UNIT: Final = "etc/systemd/system/pxeboot-personal.service"
_WANTED: Final = "etc/systemd/system/multi-user.target.wants/pxeboot-personal.service"

Member = tuple[str, int, bytes]


def render_personal(
    personal: Personal, templates: Path | None, scripts: dict[str, bytes] | None = None
) -> bytes:
    """Return the archive.

    A file in the folder `templates` replaces the shipped template of the same relative name.
    `scripts` keeps what was rendered for further archives. Raises `TemplateError`.
    """
    kept = {} if scripts is None else scripts
    return write_archive(personal_members(personal, templates, kept))


def personal_members(
    personal: Personal, templates: Path | None, scripts: dict[str, bytes]
) -> list[Member]:
    """Return the archive's members, folders before what is in them.

    The user's own folder wins where it has a file of the same name. Raises `TemplateError`.
    """

    def script(name: str) -> bytes:
        if name not in scripts:
            scripts[name] = render_file(f"initramfs/personal/{name}", {}, templates).content
        return scripts[name]

    found: dict[str, tuple[int, bytes]] = {}
    for name, mode, content in _own(personal, script):
        found[name] = (mode, content)
    for member in personal.overlay:
        found[member.name] = (member.mode, member.content)
    for name in list(found):
        for folder in PurePosixPath(name).parents:
            if folder.name:
                found.setdefault(str(folder), (MEMBER_FOLDER, b""))
    members = [(f"{_TOP}/{name}", *found[name]) for name in sorted(found)]
    cdupdate = script("cdupdate.sh")
    return [
        (_TOP, MEMBER_FOLDER, b""),
        *members,
        # genkernel looks beside a root that lies in the initramfs, otherwise where a CD would be.
        ("cdupdate.sh", MEMBER_PROGRAM, cdupdate),
        ("mnt", MEMBER_FOLDER, b""),
        ("mnt/cdrom", MEMBER_FOLDER, b""),
        ("mnt/cdrom/cdupdate.sh", MEMBER_PROGRAM, cdupdate),
    ]


def _own(personal: Personal, script: Callable[[str], bytes]) -> Iterator[Member]:
    if personal.keys:
        lines = "".join(f"{key.line}\n" for key in personal.keys)
        yield "root", _SECRET_FOLDER, b""
        yield "root/.ssh", _SECRET_FOLDER, b""
        yield "root/.ssh/authorized_keys", _SECRET_FILE, lines.encode()
    if personal.script:
        yield "etc/pxeboot/script", stat.S_IFREG | 0o700, personal.script
    if personal.reports:
        yield "etc/pxeboot/run", MEMBER_PROGRAM, script("run.sh")
        yield "etc/local.d/pxeboot.start", MEMBER_PROGRAM, script("local.start")
        yield _UNIT, _FILE, script("unit.service")
        yield _WANTED, _LINK, f"/{_UNIT}".encode()
    if personal.hostname:
        yield "etc/hostname", _FILE, f"{personal.hostname}\n".encode()
        yield "etc/conf.d/hostname", _FILE, f'hostname="{personal.hostname}"\n'.encode()
    if personal.keymap:
        yield "etc/vconsole.conf", _FILE, f"KEYMAP={personal.keymap}\n".encode()
        yield "etc/conf.d/keymaps", _FILE, f'keymap="{personal.keymap}"\n'.encode()
