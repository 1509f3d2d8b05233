"""A live image as its readers see it: named files that can be opened, whatever holds them."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from catalyst_pxeboot.formats.squashfs import Squashfs, read_squashfs
from catalyst_pxeboot.model.files import IsoExtent, Role, SourceFile
from catalyst_pxeboot.util.errors import SourceError
from catalyst_pxeboot.util.files import FileStamp, InputFile

SQUASHFS = "image.squashfs"
GRUB_CFG = "boot/grub/grub.cfg"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*(/[A-Za-z0-9_][A-Za-z0-9._+-]*)*")


class LiveImage(ABC):
    """The files of a live image. Names are relative to its root, with forward slashes.

    `remedy` is the hint where a file of it is missing or damaged.
    """

    root: Path  # the folder, or the ISO
    remedy: str
    stamp: FileStamp | None = None  # of the ISO when its directories were read

    @abstractmethod
    def has(self, name: str) -> bool:
        """Return whether there is something of that name, even if it cannot be opened."""

    @abstractmethod
    def names(self, folder: str) -> Iterable[str]:
        """Return the names of all files below a folder; none if there is no such folder."""

    @abstractmethod
    def size(self, name: str, what: str) -> int:
        """Return the bytes of a file.

        Raises `SourceError`, which calls the file `what`, if it is missing, empty, not a regular
        file, cannot be read, or has a name that boot loaders cannot ask for.
        """

    @abstractmethod
    def open(self, name: str, what: str) -> AbstractContextManager[InputFile]:
        """Open a file for a reader; raises as `size`, also for errors while it is read."""

    @abstractmethod
    def time(self, name: str) -> int:
        """Return when a file was made, in seconds since 1970; 0 if the image does not say."""

    @abstractmethod
    def extent(self, name: str, *, time: int) -> IsoExtent | None:
        """Return where in the ISO a file is, of `time` if it does not say; None in a folder."""


def check_name(root: Path, name: str) -> None:
    """Raise `SourceError` for the name of a file that boot loaders cannot ask for."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise SourceError(
            f"{root}: {name!r} cannot be served under that name",
            hint="boot loaders need letters, digits and . _ + - / only, and no ..",
        )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Name the file in what the disk reports while it is read, as a `SourceError`."""
    try:
        yield
    except OSError as error:
        raise SourceError(
            f"{path}: it cannot be read to its end: {error.strerror}",
            hint="check the disk that it is on",
        ) from error


def read_live_root(image: LiveImage) -> Squashfs:
    """Read the head of an open image's live root; raises as `read_source`."""
    with image.open(SQUASHFS, "the live root") as file:
        return read_squashfs(file)


def root_time(image: LiveImage, squashfs: Squashfs) -> int:
    """Return when the live root was made, in seconds since 1970."""
    return image.time(SQUASHFS) or squashfs.created


def root_file(image: LiveImage, squashfs: Squashfs) -> SourceFile:
    """Return the live root as a file to take over, for which nothing else must be known."""
    time = root_time(image, squashfs)
    return source_file(image, squashfs.path.name, Role.SQUASHFS, squashfs.bytes, time=time)


def source_file(image: LiveImage, name: str, role: Role, count: int, *, time: int) -> SourceFile:
    """Return a file of `count` bytes to take over; `time` is its own if the image does not say."""
    extent = image.extent(name, time=time)
    origin = image.root if extent else image.root / name
    return SourceFile(name, origin, role, count, extent)
