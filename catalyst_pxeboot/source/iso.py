"""A live image in an ISO, read in place."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from catalyst_pxeboot.formats.iso import AGAIN, Iso, IsoFile, read_iso
from catalyst_pxeboot.model.files import IsoExtent
from catalyst_pxeboot.source.live import GRUB_CFG, SQUASHFS, LiveImage, check_name, reading
from catalyst_pxeboot.util.errors import SourceError
from catalyst_pxeboot.util.files import FileStamp, InputFile, Section, open_regular

_CHANGED = "wait until the ISO is complete, then build again"


class IsoImage(LiveImage):
    """The ISO `iso`, open as `stream`."""

    remedy = AGAIN

    def __init__(self, iso: Iso, stream: BinaryIO) -> None:
        self.root = iso.path
        self.stamp = iso.stamp
        self._iso = iso
        self._stream = stream

    def has(self, name: str) -> bool:
        return self._iso.find(name) is not None

    def names(self, folder: str) -> Iterator[str]:
        return (name for name in self._iso.files if name.startswith(f"{folder}/"))

    def size(self, name: str, what: str) -> int:
        return self._find(name, what).bytes

    @contextmanager
    def open(self, name: str, what: str) -> Iterator[InputFile]:
        file = self._find(name, what)
        path = self.root / name
        section = Section(self._stream.fileno(), file.offset, file.bytes)
        with reading(path):
            yield InputFile(path, file.bytes, cast(BinaryIO, io.BufferedReader(section)))

    def time(self, name: str) -> int:
        file = self._iso.find(name)
        return file.time if file else 0

    def extent(self, name: str, *, time: int) -> IsoExtent | None:
        """Return where a file is, with the mode that it most likely had in the folder.

        ISOs are read-only, and grub-mkrescue takes every w of a mode away and gives every r.
        """
        file = self._iso.find(name)
        if file is None:
            return None
        mode = 0o755 if file.mode & 0o111 else 0o644
        return IsoExtent(file.offset, mode, file.time or time, self._iso.stamp)

    def _find(self, name: str, what: str) -> IsoFile:
        check_name(self.root, name)
        file = self._iso.find(name)
        if file is None:
            raise SourceError(f"{self.root / name}: {what} is missing", hint=AGAIN)
        if not file.bytes:
            raise SourceError(f"{self.root / name}: {what} is an empty file", hint=AGAIN)
        return file


@contextmanager
def open_iso_image(path: Path, *, checked: FileStamp | None) -> Iterator[IsoImage]:
    """Open the ISO at `path`; raises `SourceError` if it is not the live image that was checked."""
    with open_iso(path):
        pass  # says what is wrong with the path
    with reading(path):
        iso = read_iso(path, wanted=SQUASHFS)
    _check_live(iso)
    if checked is not None and iso.stamp != checked:
        raise SourceError(f"{path}: it changed since it was checked", hint=_CHANGED)
    with open_iso(path) as stream:
        if FileStamp.of(os.fstat(stream.fileno())) != iso.stamp:
            raise SourceError(f"{path}: it changed while it was read", hint=_CHANGED)
        yield IsoImage(iso, stream)


def open_iso(path: Path) -> BinaryIO:
    """Open the ISO at `path`, or raise `SourceError`."""
    try:
        return open_regular(path)
    except FileNotFoundError as error:
        what = "a dangling symlink" if path.is_symlink() else "no such ISO"
        raise SourceError(f"{path}: {what}", hint="check the path") from error
    except OSError as error:
        raise SourceError(
            f"{path}: the ISO cannot be read: {error.strerror}", hint="check the path and its mode"
        ) from error


def _check_live(iso: Iso) -> None:
    lacks = [name for name in (SQUASHFS, GRUB_CFG) if iso.find(name) is None]
    if lacks == [GRUB_CFG] and any(re.fullmatch(r"boot/[^/]+\.igz", name) for name in iso.files):
        return  # catalyst writes no menu on some architectures
    if lacks:
        raise SourceError(
            f"{iso.path}: not a catalyst live image: no {' and no '.join(lacks)} in it, and its"
            f" volume is named {iso.volume!r}",
            hint="give the ISO of a livecd-stage2 build, such as install-amd64-minimal-….iso",
        )
