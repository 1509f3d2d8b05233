"""Takes a file over into the tree by what writes least: a hard link, a clone, a clone of a range.

The source is never written, chmodded or removed: a file whose mode a web or TFTP server could
not read is cloned or copied, because a chmod of a hard link would change the source's file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from pathlib import Path

from catalyst_pxeboot.model.files import IsoExtent, SourceFile
from catalyst_pxeboot.model.settings import LinkMode
from catalyst_pxeboot.util.checksum import write_all
from catalyst_pxeboot.util.errors import PublishError, SourceError
from catalyst_pxeboot.util.files import FILE_MODE, create_file

#: ioctl(2) FICLONE: share all of another file's extents (linux/fs.h).
_FICLONE = 0x40049409

#: ioctl(2) FICLONERANGE: share some of them; takes a struct file_clone_range (linux/fs.h).
_FICLONERANGE = 0x4020940D
_CLONE_RANGE = struct.Struct("@qQQQ")

#: What the kernel answers where a link or clone cannot be had, so that `auto` goes on.
_CANNOT = frozenset(
    {errno.EXDEV, errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EPERM, errno.EMLINK,
     errno.ENOSYS, errno.EACCES}
)  # fmt: skip


def link_or_clone(
    file: SourceFile, target: Path, source: int, info: os.stat_result, link: LinkMode
) -> bool:
    """Try what `link` allows, cheapest first; return False where the file must be copied."""
    readable = _is_readable(info)
    if link in (LinkMode.AUTO, LinkMode.HARDLINK) and readable:
        try:
            # The real file: a hard link to a symlink would be a second symlink.
            os.link(file.origin.resolve(strict=True), target)
        except OSError as error:
            if error.errno not in _CANNOT:
                raise  # the disk is at fault, not the link
            if link is LinkMode.HARDLINK:
                raise _cannot(file, link, error) from error
        else:
            linked = target.lstat()
            if (linked.st_dev, linked.st_ino) != (info.st_dev, info.st_ino):
                raise SourceError(
                    f"{file.origin}: it was replaced while it was read",
                    hint="wait until livecd-stage2 has ended, then build again",
                )
            return True
    elif link is LinkMode.HARDLINK:
        raise PublishError(
            f"pxeboot/link: {file.origin} has mode {stat.S_IMODE(info.st_mode):04o}, so a hard"
            " link to it could not be served",
            hint="use auto, which copies such a file",
        )
    if link in (LinkMode.AUTO, LinkMode.REFLINK):
        return _clone(file, target, source, info, link)
    return False


def _clone(
    file: SourceFile, target: Path, source: int, info: os.stat_result, link: LinkMode
) -> bool:
    copy = create_file(target)
    try:
        fcntl.ioctl(copy, _FICLONE, source)
        finish_like(copy, info)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        target.unlink()
        if link is LinkMode.REFLINK:
            raise _cannot(file, link, error) from error
        return False
    finally:
        os.close(copy)
    return True


def _cannot(file: SourceFile, link: LinkMode, error: OSError) -> PublishError:
    return PublishError(
        f"pxeboot/link: {file.origin} cannot be taken over by {link}: {error.strerror}",
        hint="use auto" if link is not LinkMode.AUTO else "use copy",
    )


def finish_like(fd: int, info: os.stat_result) -> None:
    """Give a copy the time and mode that a link would have, so that a tree is the same by both."""
    mode = stat.S_IMODE(info.st_mode)
    os.fchmod(fd, mode if _is_readable(info) else FILE_MODE)
    os.utime(fd, ns=(info.st_mtime_ns, info.st_mtime_ns))
    os.fsync(fd)


def _is_readable(info: os.stat_result) -> bool:
    return info.st_mode & 0o444 == 0o444


def clone_range(file: SourceFile, extent: IsoExtent, copy: int, source: int, link: LinkMode) -> int:
    """Clone a file of an ISO block by block, its end written; return the bytes cloned.

    Returns 0, with nothing written, where it must be copied.
    """
    block = os.fstatvfs(copy).f_frsize
    whole = file.bytes - file.bytes % block
    if link is LinkMode.COPY or not whole:
        return 0
    order = _CLONE_RANGE.pack(source, extent.offset, whole, 0)
    try:
        fcntl.ioctl(copy, _FICLONERANGE, order)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        if link is LinkMode.REFLINK:
            raise _cannot(file, link, error) from error
        return 0
    os.lseek(copy, whole, os.SEEK_SET)
    write_all(copy, memoryview(os.pread(source, file.bytes - whole, extent.offset + whole)))
    return whole


def cannot_link_iso(iso: Path) -> PublishError:
    """Return the error of one who wants hard links to what lies in an ISO."""
    return PublishError(
        f"pxeboot/link: {iso} is an ISO, and there are no hard links to what is in one",
        hint="use auto, which clones or copies",
    )
