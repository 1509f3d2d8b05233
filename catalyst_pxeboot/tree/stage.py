"""Plan and loaders become files in a staging folder; every file's digests come back."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Self

from catalyst_pxeboot.formats.cpio import Readable, archive_parts
from catalyst_pxeboot.formats.kernel import open_unpacked
from catalyst_pxeboot.model.files import (
    IsoExtent,
    JoinedFile,
    MadeFile,
    SourceFile,
    TreeFile,
    UnpackedFile,
)
from catalyst_pxeboot.model.settings import LinkMode
from catalyst_pxeboot.tree.link import cannot_link_iso, clone_range, finish_like, link_or_clone
from catalyst_pxeboot.util.checksum import (
    BLOCK,
    Hasher,
    Meter,
    Progress,
    digest_bytes,
    digest_file,
    new_hash,
    write_all,
)
from catalyst_pxeboot.util.errors import SourceError
from catalyst_pxeboot.util.files import FileStamp, create_file, finish_file, write_file

FOLDER_MODE = 0o755


def stage_source_file(
    file: SourceFile,
    staging: Path,
    *,
    link: LinkMode,
    algorithms: Sequence[str],
    meter: Meter | None = None,
    also: Sequence[Hasher] = (),
) -> TreeFile:
    """Link, clone or copy a payload file into `staging`, read once for all digests and `also`.

    It keeps the time and, if anybody may read it, the mode that it has in the source.
    """
    meter = meter or Meter(None, "", file.bytes)
    if file.extent:
        return _stage_extent(file, file.extent, staging, link, algorithms, meter, also)
    return _stage(file, staging, link, algorithms, meter, also)


@contextmanager
def staging_beside(
    file: SourceFile,
    staging: Path,
    *,
    link: LinkMode,
    algorithms: Sequence[str],
    progress: Progress | None = None,
    also: Sequence[Hasher] = (),
) -> Iterator[Future[TreeFile]]:
    """Stage a payload file in a thread of its own; leaving the context ends it, done or not."""
    meter = Meter(progress, "Staging the live root", file.bytes)
    with ThreadPoolExecutor(max_workers=1) as pool:
        try:
            yield pool.submit(
                stage_source_file, file, staging, link=link, algorithms=algorithms, meter=meter,
                also=also,
            )  # fmt: skip
        finally:
            meter.stop()


def stage_made_files(
    files: Iterable[MadeFile], staging: Path, *, algorithms: Sequence[str], time: int
) -> list[TreeFile]:
    """Write files whose content is at hand."""
    staged = []
    for file in files:
        target = _make_place(staging, file.path)
        write_file(target, file.content, time=time)
        staged.append(
            TreeFile(
                path=file.path,
                bytes=len(file.content),
                role=file.role,
                digests=digest_bytes(file.content, algorithms),
                origin=file.origin,
                written=len(file.content),
            )
        )
    return staged


def stage_unpacked_files(
    files: Iterable[UnpackedFile], staging: Path, *, algorithms: Sequence[str], time: int
) -> list[TreeFile]:
    """Unpack kernels of `staging`, which must be there, a block at a time.

    Raises `FormatError` where one is damaged or unpacks to more than a kernel may have.
    """
    return [_unpack(file, staging, algorithms, time) for file in files]


def stage_joined_files(
    files: Iterable[JoinedFile], staging: Path, *, algorithms: Sequence[str], time: int
) -> list[TreeFile]:
    """Write files that are others of `staging`, which must be there, one behind the other."""
    return [_join(file, staging, algorithms, time) for file in files]


def stage_archive(
    file: MadeFile,
    members: Iterable[tuple[str, int, bytes | Path]],
    staging: Path,
    *,
    algorithms: Sequence[str],
    time: int,
) -> TreeFile:
    """Write a newc cpio archive of `members`, as `archive_parts` takes them.

    `file` names the archive, its role and its origin; its content is not used.
    """
    with _Writer(_make_place(staging, file.path), algorithms, time) as writer:
        for part in archive_parts(members):
            with part.open("rb") if isinstance(part, Path) else BytesIO(part) as stream:
                writer.take(stream)
        digests = writer.digests
    return TreeFile(file.path, writer.bytes, file.role, digests, file.origin, writer.bytes)


def check_links(files: Iterable[TreeFile], staging: Path) -> None:
    """Raise `SourceError` if what was linked from the source has changed since it was read."""
    for file in files:
        info = (staging / file.path).lstat()
        if file.linked and (info.st_mtime_ns, info.st_size) != (file.linked, file.bytes):
            raise _changed(Path(file.path), file.bytes)


def seal_folders(staging: Path, *, time: int) -> None:
    """Give every folder of the tree its mode and time and make all of it durable."""
    folders = [Path(root) for root, _, _ in os.walk(staging)]
    for folder in reversed(folders):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fchmod(fd, FOLDER_MODE)
            os.utime(fd, (time, time))
            os.fsync(fd)
        finally:
            os.close(fd)


def _make_place(staging: Path, path: str) -> Path:
    target = staging / path
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _stage(
    file: SourceFile,
    staging: Path,
    link: LinkMode,
    algorithms: Sequence[str],
    meter: Meter,
    also: Sequence[Hasher],
) -> TreeFile:
    target = _make_place(staging, file.path)
    source = _open_source(file.origin)
    try:
        info = os.fstat(source)
        if not stat.S_ISREG(info.st_mode) or info.st_size != file.bytes:
            raise _changed(file.origin, file.bytes)
        written = 0
        if not link_or_clone(file, target, source, info, link):
            written = file.bytes
            copy = create_file(target)
            try:
                digests = digest_file(
                    source, algorithms, where=str(file.origin), copy_to=copy, meter=meter, also=also
                )
                finish_like(copy, info)
            finally:
                os.close(copy)
        else:
            digests = digest_file(
                source, algorithms, where=str(file.origin), meter=meter, also=also
            )
            # A clone may be of what was there before.
            if os.fstat(source).st_mtime_ns != info.st_mtime_ns:
                raise _changed(file.origin, file.bytes)
    finally:
        os.close(source)
    there = target.stat()
    linked = info.st_mtime_ns if (there.st_dev, there.st_ino) == (info.st_dev, info.st_ino) else 0
    return TreeFile(file.path, file.bytes, file.role, digests, "", written, linked)


def _stage_extent(
    file: SourceFile,
    extent: IsoExtent,
    staging: Path,
    link: LinkMode,
    algorithms: Sequence[str],
    meter: Meter,
    also: Sequence[Hasher],
) -> TreeFile:
    """Clone or copy a file out of the ISO that it lies in."""
    if link is LinkMode.HARDLINK:
        raise cannot_link_iso(file.origin)
    target = _make_place(staging, file.path)
    source = _open_source(file.origin)
    try:
        copy = create_file(target)
        try:
            cloned = clone_range(file, extent, copy, source, link)
            digests = digest_file(
                source,
                algorithms,
                where=str(file.origin / file.path),
                copy_to=None if cloned else copy,
                start=extent.offset,
                length=file.bytes,
                meter=meter,
                also=also,
            )
            if FileStamp.of(os.fstat(source)) != extent.iso:
                raise SourceError(
                    f"{file.origin}: it changed since it was looked at",
                    hint="wait until the ISO is complete, then build again",
                )
            os.fchmod(copy, extent.mode)
            os.utime(copy, (extent.time, extent.time))
            os.fsync(copy)
        finally:
            os.close(copy)
    finally:
        os.close(source)
    return TreeFile(file.path, file.bytes, file.role, digests, "", file.bytes - cloned)


def _open_source(path: Path) -> int:
    # O_NONBLOCK: what was a file a moment ago may be a FIFO now, and must not hang the build.
    try:
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise SourceError(
            f"{path}: it can no longer be opened: {error.strerror}",
            hint="wait until livecd-stage2 has ended, then build again",
        ) from error


def _unpack(file: UnpackedFile, staging: Path, algorithms: Sequence[str], time: int) -> TreeFile:
    kernel = file.kernel
    with (
        (staging / file.packed).open("rb") as stream,
        _Writer(_make_place(staging, file.path), algorithms, time) as writer,
    ):
        with open_unpacked(stream, kernel) as unpacked:
            writer.take(unpacked)
        digests = writer.digests
    origin = f"{Path(file.packed).name} ({kernel.image}), unpacked"
    return TreeFile(file.path, writer.bytes, file.role, digests, origin, writer.bytes)


def _join(file: JoinedFile, staging: Path, algorithms: Sequence[str], time: int) -> TreeFile:
    with _Writer(_make_place(staging, file.path), algorithms, time) as writer:
        for part in file.parts:
            with (staging / part).open("rb", buffering=0) as stream:
                writer.take(stream)
        if writer.bytes != file.bytes:
            raise _changed(Path(file.path), file.bytes)
        digests = writer.digests
    origin = " + ".join(file.parts)
    return TreeFile(file.path, writer.bytes, file.role, digests, origin, writer.bytes)


class _Writer:
    """A new file of the tree that takes streams, with all digests of what was written."""

    def __init__(self, path: Path, algorithms: Sequence[str], time: int) -> None:
        self._path = path
        self._time = time
        self._states = {name: new_hash(name) for name in algorithms}
        self._fd = -1
        self.bytes = 0

    @property
    def digests(self) -> Mapping[str, str]:
        return {name: state.hexdigest() for name, state in self._states.items()}

    def __enter__(self) -> Self:
        self._fd = create_file(self._path)
        return self

    def __exit__(self, kind: object, *_error: object) -> None:
        try:
            if kind is None:
                finish_file(self._fd, self._time)
        finally:
            os.close(self._fd)

    def take(self, stream: Readable) -> None:
        while block := stream.read(BLOCK):
            for state in self._states.values():
                state.update(block)
            self.bytes += len(block)
            write_all(self._fd, memoryview(block))


def _changed(path: Path, count: int) -> SourceError:
    return SourceError(
        f"{path}: it changed since it was looked at ({count} bytes then)",
        hint="wait until livecd-stage2 has ended, then build again",
    )
