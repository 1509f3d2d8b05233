"""The files of a tree, held open from before they are checked until serving ends.

The servers read a folder of our own, the view, that has the tree's files and nothing else. Each
of them leads to an open file, not to a name: what is put into the tree later, or in its place, is
not served.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from catalyst_pxeboot.serve.facts import ServedTree
from catalyst_pxeboot.serve.personal import NO_ADDITIONS, Additions
from catalyst_pxeboot.services.mounts import bind_file, unbind
from catalyst_pxeboot.util.checksum import digest_file
from catalyst_pxeboot.util.errors import CommandError, PxebootError, VerifyError
from catalyst_pxeboot.util.files import open_new, open_regular
from catalyst_pxeboot.util.sums import MANIFEST_DIGEST

_CHUNK = 1 << 20


class Binding(StrEnum):
    """How the view leads to the tree's files."""

    MOUNTS = "mounts"  # bind mounts that only we and the servers see
    DESCRIPTORS = "descriptors"  # links to our open files, for servers of the same user
    NAMES = "names"  # links to the names: root that may not mount, and servers of another user


@dataclass(frozen=True, slots=True)
class Change:
    """A file that is no longer what it was; `served` is whether the one before still is."""

    path: str
    served: bool


@dataclass(slots=True)
class _Pin:
    file: BinaryIO
    state: os.stat_result
    digest: str
    replaced: bool = False


class PinnedTree:
    """A tree's files as they were when serving began, and the view that shows them."""

    def __init__(self, tree: ServedTree, binding: Binding, pins: dict[str, _Pin]) -> None:
        self.binding = binding
        self._tree = tree.path
        self._pins = pins
        self._view = Path()
        self._additions = Additions()

    @property
    def has_links(self) -> bool:
        """Whether the view is of symbolic links, which a server must follow."""
        return self.binding is not Binding.MOUNTS

    @property
    def folders(self) -> tuple[Path, ...]:
        """What the servers' account must be able to enter, besides the view."""
        return () if self.binding is Binding.MOUNTS else (self._tree,)

    def require(self, checked: Mapping[str, os.stat_result]) -> None:
        """Raise `VerifyError` unless the held files are those that were checked."""
        for path, state in checked.items():
            pin = self._pins.get(path)
            if pin is None or not same_state(pin.state, state):
                raise VerifyError(
                    f"{self._tree / path}: changed while it was checked",
                    hint="serve a tree that no one is writing",
                )

    @contextmanager
    def shown(self, view: Path, additions: Additions = NO_ADDITIONS) -> Iterator[None]:
        """Fill the empty folder `view` while the context lasts. Raises `CommandError`."""
        self._view = view
        self._additions = additions
        new = additions.replaced.keys() - self._pins.keys()
        try:
            try:
                for path in (*self._pins, *new):
                    self._show(path, view / path)
            except OSError as error:
                raise CommandError(
                    f"the tree cannot be shown to servers: {error.strerror or error}",
                    hint="set TMPDIR to a folder with room",
                ) from error
            yield
        finally:
            for path in (*self._pins, *new):
                with suppress(OSError):
                    self._hide(path)

    def changes(self) -> Iterator[Change]:
        """Look at each file, and yield those that have changed since the last look.

        One whose bytes are others is no longer in the view. One that was only replaced, as by a
        new build of the tree, is served on as it was.
        """
        for path, pin in list(self._pins.items()):
            now = os.fstat(pin.file.fileno())
            if not same_state(now, pin.state) and not self._is_same(path, pin, now):
                self._drop(path)
                yield Change(path, served=False)
                continue
            if not pin.replaced and not self._is_there(path, now):
                pin.replaced = True
                served = self.binding is not Binding.NAMES
                if not served:
                    self._drop(path)
                yield Change(path, served=served)

    def _show(self, path: str, target: Path) -> None:
        for folder in reversed(Path(path).parents):
            (self._view / folder).mkdir(exist_ok=True)
            (self._view / folder).chmod(0o755)  # whatever the umask
        if self._is_own(path):
            self._write(path, target)
            return
        fd = self._pins[path].file.fileno()
        if self.binding is Binding.MOUNTS:
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0))
            bind_file(fd, target)
        elif self.binding is Binding.DESCRIPTORS:
            target.symlink_to(f"/proc/{os.getpid()}/fd/{fd}")
        else:
            target.symlink_to(self._tree / path)

    def _is_own(self, path: str) -> bool:
        """Whether the view has a file of its own there."""
        return path in self._additions.replaced or path in self._additions.appended

    def _write(self, path: str, target: Path) -> None:
        with open_new(target) as stream:
            if path in self._additions.replaced:
                stream.write(self._additions.replaced[path])
                return
            pin, at = self._pins[path], 0
            while part := os.pread(pin.file.fileno(), _CHUNK, at):
                at += stream.write(part)
            stream.write(self._additions.appended[path])

    def _hide(self, path: str) -> None:
        target = self._view / path
        if self.binding is Binding.MOUNTS and not self._is_own(path):
            unbind(target)  # what is below may be read by no one
        target.unlink()

    def _drop(self, path: str) -> None:
        with suppress(OSError):
            self._hide(path)
        self._pins.pop(path).file.close()

    def _is_same(self, path: str, pin: _Pin, now: os.stat_result) -> bool:
        """Whether only its names, mode or times are others; a backup by hard links does that."""
        if now.st_size != pin.state.st_size or _digest(pin.file, self._tree / path) != pin.digest:
            return False
        pin.state = now
        return same_state(os.fstat(pin.file.fileno()), now)

    def _is_there(self, path: str, state: os.stat_result) -> bool:
        try:
            return os.path.samestat((self._tree / path).lstat(), state)
        except OSError:
            return False


@contextmanager
def pin_tree(tree: ServedTree, binding: Binding) -> Iterator[PinnedTree]:
    """Open each file of a tree, to hold it while the context lasts. Raises `VerifyError`."""
    with ExitStack() as stack:
        pins = {}
        for path in tree.files:
            try:
                file = stack.enter_context(open_regular(tree.path / path))
            except OSError as error:
                raise VerifyError(
                    f"{tree.path / path}: cannot be read: {error.strerror}",
                    hint="check its permissions, or build the tree again",
                ) from error
            digest = tree.digests.get(path) or _digest(file, tree.path / path)
            pins[path] = _Pin(file, os.fstat(file.fileno()), digest)
        yield PinnedTree(tree, binding, pins)


def same_state(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether a file is the same one and was not written in between.

    The time of its last change of any kind (ctime) is the kernel's, and no one can set it back.
    """
    return (one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns) == (
        (other.st_dev, other.st_ino, other.st_size, other.st_mtime_ns, other.st_ctime_ns)
    )


def _digest(file: BinaryIO, path: Path) -> str:
    try:
        return digest_file(file.fileno(), [MANIFEST_DIGEST], where=str(path))[MANIFEST_DIGEST]
    except PxebootError as error:
        raise VerifyError(error.message, hint=error.hint) from error
