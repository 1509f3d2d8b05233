"""A live image as its readers see it: named files that can be opened, whatever holds them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from catalyst_pxeboot.model.files import IsoExtent
from catalyst_pxeboot.util.errors import SourceError
from catalyst_pxeboot.util.files import FileStamp, InputFile

SQUASHFS = "image.squashfs"
GRUB_CFG = "boot/grub/grub.cfg"


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
