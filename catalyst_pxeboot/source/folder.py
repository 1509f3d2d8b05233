"""A live image in a folder, as livecd-stage2 leaves it."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from catalyst_pxeboot.model.files import IsoExtent
from catalyst_pxeboot.source.live import SQUASHFS, LiveImage, check_name, reading
from catalyst_pxeboot.util.errors import SourceError
from catalyst_pxeboot.util.files import InputFile, open_input

REMEDY = "build livecd-stage2 again"


class FolderImage(LiveImage):
    """The folder `root`; raises `SourceError` if it is not a livecd-stage2 folder."""

    remedy = REMEDY

    def __init__(self, root: Path) -> None:
        self.root = root
        _check_root(root)

    def has(self, name: str) -> bool:
        return os.path.lexists(self.root / name)

    def names(self, folder: str) -> Iterator[str]:
        for path in (self.root / folder).rglob("*"):
            yield str(path.relative_to(self.root))

    def size(self, name: str, what: str) -> int:
        return _regular(self.root, name, what).stat().st_size

    @contextmanager
    def open(self, name: str, what: str) -> Iterator[InputFile]:
        path = _regular(self.root, name, what)
        with reading(path), open_input(path) as file:
            yield file

    def time(self, name: str) -> int:
        return int((self.root / name).stat().st_mtime)

    def extent(self, name: str, *, time: int) -> IsoExtent | None:
        return None


def _check_root(root: Path) -> None:
    try:
        names = sorted(entry.name for entry in root.iterdir()) if root.is_dir() else None
    except OSError as error:
        raise SourceError(
            f"{root}: the source cannot be read: {error.strerror}", hint="check its permissions"
        ) from error
    if names is not None:
        if not names:
            raise SourceError(f"{root}: the source is an empty folder", hint=REMEDY)
        if SQUASHFS not in names and "boot" not in names:
            raise SourceError(
                f"{root}: not a livecd-stage2 tree (neither {SQUASHFS} nor boot/ in it)",
                hint="give the folder livecd-stage2-<subarch>-<version_stamp> itself",
            )
        return
    if root.is_symlink() and not root.exists():
        raise SourceError(
            f"{root}: the source is a dangling symlink", hint="point it at the build or remove it"
        )
    if root.exists():
        folder = Path(re.sub(r"\.(tar(\.\w+)?|t[bgx]z)$", "", str(root)))
        hint = (
            f"give the folder {folder} beside it"
            if folder.is_dir()
            else "give the livecd-stage2 folder or an ISO made of it"
        )
        raise SourceError(f"{root}: the source is neither a folder nor an ISO", hint=hint)
    raise SourceError(f"{root}: no such livecd-stage2 build", hint=_hint_of_missing(root))


def _hint_of_missing(root: Path) -> str:
    """Name the newest build that there is, as a wrong time stamp is the usual reason."""
    try:
        builds = [p for p in root.parent.iterdir() if p.name.startswith("livecd-stage2-")]
        builds = [path for path in builds if path.is_dir()]
        newest = max(builds, key=lambda path: (path.stat().st_mtime, path.name), default=None)
    except OSError:
        newest = None
    if newest is None:
        return "check the path, or run catalyst on the livecd-stage2 spec first"
    return f"the newest build there is {newest.name}; correct source_subpath or build it"


def _regular(root: Path, name: str, what: str) -> Path:
    """Return the path of a file of the tree that is a readable, regular file inside it."""
    path = root / name
    check_name(root, name)
    try:
        info = path.stat()
        inside = path.resolve(strict=True).is_relative_to(root.resolve(strict=True))
    except FileNotFoundError:
        if path.is_symlink():
            raise SourceError(f"{path}: {what} is a dangling symlink", hint=REMEDY) from None
        raise SourceError(f"{path}: {what} is missing", hint=REMEDY) from None
    except OSError as error:
        raise SourceError(
            f"{path}: {what} cannot be read: {error.strerror}", hint="check the permissions"
        ) from error
    if not inside:
        raise SourceError(
            f"{path}: {what} is a symlink that leads out of the tree",
            hint="put the file itself there",
        )
    if not stat.S_ISREG(info.st_mode):
        raise SourceError(f"{path}: {what} is not a regular file", hint=REMEDY)
    if info.st_size == 0:
        raise SourceError(f"{path}: {what} is an empty file", hint=REMEDY)
    if not os.access(path, os.R_OK):
        raise SourceError(f"{path}: {what} may not be read", hint="run as root, as catalyst does")
    return path
