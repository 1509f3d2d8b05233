"""Read a folder whose content is laid over the live root."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Final

from catalyst_pxeboot.util.errors import PxebootError, SpecError

#: A client holds them twice, packed and unpacked, whatever its memory.
MAX_BYTES: Final = 128 << 20
_MAX_FILES: Final = 20_000
_MAX_NAME: Final = 4096  # bytes of a path, as Linux takes it

#: What starts the live system, and what its package manager knows of it.
_KEPT: Final = (
    "init", "linuxrc", "sbin/init", "usr/sbin/init", "bin/init", "usr/bin/init",
    "lib/systemd/systemd", "usr/lib/systemd/systemd", "sbin/openrc*", "usr/sbin/openrc*",
    "var/db/pkg", "var/db/pkg/*", "var/lib/portage", "var/lib/portage/*", "updates", "updates/*",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class OverlayMember:
    """A member of the archive: mode with its kind, as in a cpio archive; a link's target."""

    name: str
    mode: int
    content: bytes


def read_overlay(folder: Path, *, key: str) -> tuple[OverlayMember, ...]:
    """Read a folder with all that is below it, folders before what is in them.

    `key` is the spec key or option that names it. What a link leads to is not read. Raises
    `SpecError` with every file that cannot be taken.
    """
    problems: list[PxebootError] = []
    members: list[OverlayMember] = []
    total = 0

    def refuse(name: str, reason: str, hint: str) -> None:
        problems.append(PxebootError(f"{key}: {folder / name}: {reason}", hint=hint))

    try:
        if not folder.is_dir():
            raise NotADirectoryError("it is not a folder")
        # By descriptors, so that a link put in a file's place after its check is not followed.
        for place, folders, files, at in os.fwalk(folder, onerror=_raise):
            below = PurePosixPath(place).relative_to(PurePosixPath(folder))
            for name in sorted([*folders, *files]):
                path = str(below / name)
                info = os.stat(name, dir_fd=at, follow_symlinks=False)
                if reason := _find_fault(path):
                    refuse(path, *reason)
                elif stat.S_ISDIR(info.st_mode):
                    members.append(OverlayMember(path, info.st_mode, b""))
                elif stat.S_ISLNK(info.st_mode):
                    target = os.readlink(name, dir_fd=at)
                    if _leads_out(path, target):
                        refuse(path, f"a link that leads out, to {target}", "shorten or remove it")
                    members.append(OverlayMember(path, info.st_mode, os.fsencode(target)))
                elif not stat.S_ISREG(info.st_mode):
                    refuse(path, "neither a file, a folder nor a link", "remove it")
                elif (total := total + info.st_size) <= MAX_BYTES:
                    members.append(OverlayMember(path, info.st_mode, _read(name, at)))
            # In an order that does not depend on the disk.
            folders.sort()
            if len(members) > _MAX_FILES:
                break
    except OSError as error:
        raise PxebootError(
            f"{key}: {folder} cannot be read: {error}", hint="correct its name or permissions"
        ) from error
    if total > MAX_BYTES or len(members) > _MAX_FILES:
        refuse("", f"more than {MAX_BYTES >> 20} MiB or {_MAX_FILES} files", "take some out")
    if problems:
        raise SpecError(problems)
    return tuple(members)


def _raise(error: OSError) -> None:
    raise error


def _find_fault(path: str) -> tuple[str, str] | None:
    # dracut reads the names line by line, and without read's -r.
    plain = path.isprintable() and "\\" not in path and path == path.strip()
    if not plain or len(os.fsencode(path)) > _MAX_NAME:
        return "its name has what no name should have", "rename it"
    if any(fnmatchcase(path, pattern) for pattern in _KEPT):
        return (
            "it would take the place of what starts the live system or of a database",
            "remove it",
        )
    return None


def _leads_out(path: str, target: str) -> bool:
    """Whether a relative link climbs above the live root's /; `/x` is a path in it."""
    depth = len(PurePosixPath(path).parts) - 1
    if target.startswith("/"):
        depth = 0
    for part in _parts(target):
        depth += -1 if part == ".." else 1
        if depth < 0:
            return True
    return not target or not target.isprintable()


def _parts(target: str) -> Iterator[str]:
    yield from (part for part in target.split("/") if part not in ("", "."))


def _read(name: str, at: int) -> bytes:
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)
    with os.fdopen(fd, "rb") as stream:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(f"{name} changed while it was read")
        content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise OSError(f"{name} grew while it was read")
    return content
