"""All or nothing: a staging folder beside the target, and one rename.

A reader of the target sees the old tree or the new one, never a half. The process that holds the
lock file beside the target builds it; the kernel lets go of the lock when its holder dies, however
it dies, so the next run knows that a staging folder left there is not in use and removes it.
"""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from catalyst_pxeboot.model.manifest import GENERATOR, MANIFEST, Manifest
from catalyst_pxeboot.tree.manifest import read_manifest
from catalyst_pxeboot.util.errors import PublishError, VerifyError, from_os_error
from catalyst_pxeboot.util.files import (
    list_files,
    remove_tree,
    sync_folder,
    take_lock,
)

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2  # renameat2(2): both names stay, their folders change places


class Publication:
    """A place to build a tree in, published as `target` by `commit` or removed.

    Use as a context manager; entering returns the staging folder. Raises `PublishError` if the
    target is not this program's own, is being built by another process, or cannot be written.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.staging = _staging_path(target)
        self._lock_path = _lock_path(target)
        self._lock: int | None = None
        self._made_folders: list[Path] = []

    def __enter__(self) -> Path:
        try:
            _check_replaceable(self.target)
            self._make_parents()
            self._take_lock()
            remove_tree(self.staging)
            self.staging.mkdir(mode=0o755)
        except BaseException as error:
            self._leave()
            if isinstance(error, OSError):
                raise self._os_error(error) from error
            raise
        return self.staging

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _tb: TracebackType | None,
    ) -> None:
        # An interrupt or a fault during this clean-up leaves only what the next run removes.
        left = None
        try:
            remove_tree(self.staging)
        except OSError as fault:
            left = fault
        self._leave()
        if isinstance(error, OSError):
            raise self._os_error(error) from error
        if left and error is None:
            raise from_os_error(
                left,
                f"{self.target}: published, but {self.staging} cannot be removed",
                hint="remove it, or build again",
            ) from left

    def commit(self) -> None:
        """Put the staged tree in the target's place. It must be complete and synced."""
        # Looked at again: minutes may have passed, and a user may have put something there.
        _check_replaceable(self.target)
        try:
            if self.target.exists() and any(self.target.iterdir()):
                _exchange(self.staging, self.target)
            else:
                self.staging.rename(self.target)
            sync_folder(self.target.parent)
        except OSError as error:
            raise self._os_error(error) from error
        self._made_folders.clear()

    def _make_parents(self) -> None:
        missing = []
        folder = self.target.parent
        while not folder.exists():
            missing.append(folder)
            folder = folder.parent
        for folder in reversed(missing):
            folder.mkdir(mode=0o755, exist_ok=True)
            self._made_folders.append(folder)

    def _take_lock(self) -> None:
        self._lock = take_lock(self._lock_path)
        if self._lock is None:
            raise PublishError(
                f"{self.target}: another process is building this tree",
                hint="wait for it to end, or give another version_stamp",
            )

    def _leave(self) -> None:
        if self._lock is not None:
            # A lock file that no process holds is not a lock; the next run takes it over.
            with suppress(OSError):
                self._lock_path.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None
        while self._made_folders:
            try:
                self._made_folders.pop().rmdir()
            except OSError:
                break  # something else is in it by now

    def _os_error(self, error: OSError) -> PublishError:
        hints = {
            errno.ENOSPC: "free space there, or point storedir at a larger disk",
            errno.EDQUOT: "free space there, or raise the quota",
            errno.EACCES: "run as root, as catalyst does, or give a folder that you may write",
            errno.EPERM: "run as root, as catalyst does, or give a folder that you may write",
            errno.EROFS: "give a folder on a writable file system",
        }
        return from_os_error(
            error, f"{self.target}: not published", hint=hints.get(error.errno or 0, "try again")
        )


def clean_leftovers(target: Path) -> None:
    """Remove what a killed build of `target` left, unless a build of it is running."""
    if not (_staging_path(target).exists() or _lock_path(target).exists()):
        return
    lock = take_lock(_lock_path(target))
    if lock is None:
        return
    try:
        remove_tree(_staging_path(target))
        _lock_path(target).unlink(missing_ok=True)
    except OSError as error:
        raise from_os_error(error, f"{_staging_path(target)}: not removed") from error
    finally:
        os.close(lock)


def _staging_path(target: Path) -> Path:
    return target.parent / f".{target.name}.staging"


def _lock_path(target: Path) -> Path:
    return target.parent / f".{target.name}.lock"


def _check_replaceable(target: Path) -> None:
    """Raise `PublishError` unless `target` is absent, empty, or a tree of this program.

    A file that is not in its manifest is the user's, and replacing the tree would lose it.
    """
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise PublishError(
            f"{target}: is in the way and not a folder", hint="move it away or give another folder"
        )
    if not target.exists() or not any(target.iterdir()):
        return
    names = own_names(target)
    if names is None:
        raise PublishError(
            f"{target}: is not a tree that {GENERATOR} made, so it is not replaced",
            hint="move it away or give another folder",
        )
    foreign = sorted(set(list_files(target)) - names)
    if foreign:
        raise PublishError(
            f"{target}: holds {foreign[0]}, which is not in its manifest and would be lost",
            hint="move it out of the tree",
        )


def own_names(target: Path) -> frozenset[str] | None:
    """Return the names that the manifest in `target` lists, or None if it is not this program's."""
    manifest = _own_manifest(target)
    return manifest.own_files | {MANIFEST} if manifest else None


def own_flat_names(target: Path) -> frozenset[str]:
    """Return the names of the flat release files that the tree `target` was published with."""
    manifest = _own_manifest(target)
    return frozenset(manifest.flat.files) if manifest and manifest.flat else frozenset()


def _own_manifest(target: Path) -> Manifest | None:
    path = target / MANIFEST
    try:
        return read_manifest(target)[1] if path.is_file() and not path.is_symlink() else None
    except VerifyError:
        return None


def _exchange(one: Path, other: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.renameat2(
        _AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE
    )
    if done == 0:
        return
    code = ctypes.get_errno()
    if code not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        raise OSError(code, os.strerror(code), str(other))
    raise PublishError(
        f"{other}: its file system cannot exchange two folders in one step (renameat2), so the"
        " tree there cannot be replaced without a moment in which there is none",
        hint="remove the old tree first, or keep storedir on ext4, xfs, btrfs or tmpfs",
    )
