"""Bind mounts that only this process and its children see (man 7 mount_namespaces).

Python has none of these calls, so they go to the C library.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

# linux/mount.h, sched.h
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REMOUNT = 1, 2, 4, 8, 32
_MS_BIND, _MS_REC, _MS_SLAVE = 4096, 16384, 1 << 19
_MNT_DETACH = 2
_CLONE_NEWNS = 0x20000


def enter_private_mounts() -> bool:
    """Give this process mounts of its own; whether it may have them.

    What the user mounts and unmounts elsewhere is still seen here, and never the other way round.
    """
    try:
        _call("unshare", _CLONE_NEWNS)
        _mount(None, Path("/"), _MS_REC | _MS_SLAVE)
    except OSError:  # not root, or root of a container that may not mount
        return False
    return True


def bind_file(fd: int, target: Path) -> None:
    """Show the open file `fd` at the file `target`, read-only. Raises `OSError`."""
    _mount(f"/proc/self/fd/{fd}", target, _MS_BIND)
    # In a user namespace the flags of the source stay, which are for the better.
    flags = _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    with suppress(OSError):
        _mount(None, target, _MS_REMOUNT | _MS_BIND | flags)


def unbind(target: Path) -> None:
    """Take a bind mount away; who has its file open keeps that. Raises `OSError`."""
    _call("umount2", os.fsencode(target), _MNT_DETACH)


def _mount(source: str | None, target: Path, flags: int) -> None:
    name = None if source is None else os.fsencode(source)
    _call("mount", name, os.fsencode(target), None, ctypes.c_ulong(flags), None)


def _call(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
