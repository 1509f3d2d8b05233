"""All digests of a file, and its copy where one is needed, in one read.

One thread reads blocks into a small ring of buffers; one thread per algorithm takes every block
in turn. hashlib lets go of the interpreter's lock while it works, so the algorithms run on as
many cores as there are, and the slowest one, or the cores, set the pace. The ring bounds the
memory whatever the file's size. Measured against snakeoil's `chksum.get_chksums`, which reads
the same way but for a queue of its own, in `make bench`.
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from catalyst_pxeboot.errors import SourceError

BLOCK = 1024 * 1024  # bytes; large enough that handing blocks over costs nothing
RING = 8  # blocks in flight

#: OpenSSL's names for what hashlib implements itself: the same digests, faster.
_OPENSSL_NAMES = {"blake2b": "blake2b512", "blake2s": "blake2s256"}

_SMALL = 4 * BLOCK  # bytes; below it threads cost more than they give


def new_hash(name: str) -> Any:
    """Return a fresh hash object for catalyst's digest `name`, the fastest there is."""
    try:
        return hashlib.new(_OPENSSL_NAMES.get(name, name), usedforsecurity=False)
    except ValueError:
        return hashlib.new(name, usedforsecurity=False)


def digest_bytes(content: bytes, algorithms: Sequence[str]) -> Mapping[str, str]:
    """Return the hexadecimal digests of `content` by algorithm."""
    digests = {}
    for name in algorithms:
        state = new_hash(name)
        state.update(content)
        digests[name] = state.hexdigest()
    return digests


def digest_file(
    fd: int, algorithms: Sequence[str], *, where: str, copy_to: int | None = None
) -> Mapping[str, str]:
    """Read the file open at `fd` once from its start and return its hexadecimal digests.

    With `copy_to`, also write every block to that file descriptor. Raises `SourceError`, naming
    `where`, if the file changes or ends while it is read, and OSError as reading and writing do.
    """
    before = os.fstat(fd)
    os.lseek(fd, 0, os.SEEK_SET)
    states = {name: new_hash(name) for name in algorithms}
    reader = _Reader(fd, where, limit=before.st_size)
    read = _feed(reader, list(states.values()), copy_to, threads=before.st_size >= _SMALL)
    after = os.fstat(fd)
    if read != before.st_size or _identity(before) != _identity(after):
        raise SourceError(
            f"{where}: it changed while it was read ({before.st_size} bytes before, {read} read)",
            hint="wait until livecd-stage2 has ended, then build again",
        )
    return {name: state.hexdigest() for name, state in states.items()}


def _identity(info: os.stat_result) -> tuple[int, int, int, int]:
    # Not the ctime: a hard link to the file, which this program makes, changes it.
    return (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns)


class _Reader:
    """Fills buffers from a file; a fault of the disk becomes an error that names the file.

    Ends when more than `limit` bytes were read: a file that grows as it is read has no end.
    """

    def __init__(self, fd: int, where: str, *, limit: int) -> None:
        self._fd = fd
        self._where = where
        self._left = limit

    def fill(self, buffer: memoryview) -> int:
        if self._left < 0:
            return 0
        try:
            count = os.readv(self._fd, [buffer])
            self._left -= count
            return count
        except OSError as error:
            raise SourceError(
                f"{self._where}: it cannot be read to its end: {error.strerror}",
                hint="check the disk it lies on",
            ) from error


def _feed(reader: _Reader, states: Sequence[Any], copy_to: int | None, *, threads: bool) -> int:
    """Read the file to its end into `states` and `copy_to`; return the bytes read."""
    if not threads or len(states) < 2:
        buffer = memoryview(bytearray(BLOCK))
        total = 0
        while count := reader.fill(buffer):
            for state in states:
                state.update(buffer[:count])
            if copy_to is not None:
                _write_all(copy_to, buffer[:count])
            total += count
        return total
    with _Ring(states) as ring:
        return ring.feed(reader, copy_to)


class _Ring:
    """Worker threads, one per hash, and the buffers that travel between them and the reader."""

    def __init__(self, states: Sequence[Any]) -> None:
        self._free: queue.SimpleQueue[_Block] = queue.SimpleQueue()
        for _ in range(RING):
            self._free.put(_Block())
        self._queues: list[queue.SimpleQueue[_Block | None]] = []
        self._threads: list[threading.Thread] = []
        for state in states:
            todo: queue.SimpleQueue[_Block | None] = queue.SimpleQueue()
            self._queues.append(todo)
            self._threads.append(
                threading.Thread(target=self._work, args=(state, todo), daemon=True)
            )

    def __enter__(self) -> _Ring:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        for todo in self._queues:
            todo.put(None)
        for thread in self._threads:
            thread.join()

    def feed(self, reader: _Reader, copy_to: int | None) -> int:
        total = 0
        while True:
            block = self._free.get()
            block.count = reader.fill(block.data)
            if not block.count:
                return total
            total += block.count
            with block.lock:
                block.pending = len(self._queues)
            for todo in self._queues:
                todo.put(block)
            if copy_to is not None:
                _write_all(copy_to, block.data[: block.count])

    def _work(self, state: Any, todo: queue.SimpleQueue[_Block | None]) -> None:
        while (block := todo.get()) is not None:
            state.update(block.data[: block.count])
            with block.lock:
                block.pending -= 1
                done = block.pending == 0
            if done:
                self._free.put(block)


class _Block:
    """A buffer, how much of it is filled, and how many hashes have yet to see it."""

    __slots__ = ("count", "data", "lock", "pending")

    def __init__(self) -> None:
        self.data = memoryview(bytearray(BLOCK))
        self.count = 0
        self.pending = 0
        self.lock = threading.Lock()


def _write_all(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]
