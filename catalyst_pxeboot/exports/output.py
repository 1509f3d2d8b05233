"""An export's files: kept in memory, then put in place, and never over somebody else's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from catalyst_pxeboot.errors import PublishError, from_os_error
from catalyst_pxeboot.reading import read_regular

_MAX_OLD = 16 * 1024 * 1024  # bytes


@dataclass(frozen=True, slots=True)
class Exported:
    """A file of an export; `path` is relative to the folder that it is written to."""

    path: str
    content: bytes


def write_files(files: Sequence[tuple[Path, bytes]], *, force: bool = False) -> None:
    """Write each file by a rename, making its folders.

    A file that is there already stays if it is the same; if it is not, nothing at all is written
    and `PublishError` says so, unless `force`.
    """
    try:
        wanted = [
            (path, content) for path, content in files if not _is_there(path, content, force=force)
        ]
        for path, content in wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, content)
    except OSError as error:
        raise from_os_error(error, "the export cannot be written", hint="check --output") from error


def _is_there(path: Path, content: bytes, *, force: bool) -> bool:
    if path.is_dir():
        raise PublishError(f"{path}: is a folder, not a file", hint="give another --output")
    if not os.path.lexists(path):
        return False
    try:
        same = not path.is_symlink() and read_regular(path, limit=_MAX_OLD) == content
    except OSError as error:
        raise PublishError(
            f"{path}: is in the way: {error.strerror}", hint="give another --output"
        ) from error
    if not same and not force:
        raise PublishError(
            f"{path}: is already there and not the same",
            hint="give another --output, or --force to replace it",
        )
    return same


def _replace(path: Path, content: bytes) -> None:
    staged = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with staged.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        staged.chmod(0o644)
        staged.replace(path)
    except BaseException:
        with suppress(OSError):
            staged.unlink()
        raise
