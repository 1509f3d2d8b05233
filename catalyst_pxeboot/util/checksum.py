"""All digests of a file, and its copy where one is needed, in one read.

One thread reads blocks into a small ring of buffers; as many threads as there are cores feed
them to the algorithms, the one that lags most first. hashlib lets go of the interpreter's lock
while it works, so the cores, or the slowest algorithm, set the pace. A thread per algorithm
would be simpler and, with more algorithms than cores, a tenth slower: the system then shares the
cores out evenly, and the slowest algorithm holds up the others. The ring bounds the memory
whatever the file's size. `make bench` measures it, and snakeoil's `chksum.get_chksums` beside it.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time as clock
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any, Protocol

from catalyst_pxeboot.util.errors import SourceError

BLOCK = 1024 * 1024  # bytes; large enough that handing blocks over costs nothing
RING = 8  # blocks in flight

#: The digests of a fixed length that this Python has.
ALGORITHMS = hashlib.algorithms_available - {"shake_128", "shake_256"}

#: OpenSSL's names for what hashlib implements itself: the same digests, faster.
_OPENSSL_NAMES = {"blake2b": "blake2b512", "blake2s": "blake2s256"}


class Hasher(Protocol):
    """What takes all bytes of a file, one after the other."""

    def update(self, data: memoryview, /) -> None:
        """Take the next bytes."""


class _Cores:
    """Lends the machine's cores in the order in which they are asked for.

    `threading.Semaphore` gives one to whoever gives one back: a large file would keep them all, and
    the small files beside it would be left for the end.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._lock = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        turn.acquire()

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._free += 1


#: What the digests may use of this machine; each block that is hashed takes one.
_CORES = _Cores(len(os.sched_getaffinity(0)))
_SMALL = 4 * BLOCK  # bytes; below it threads cost more than they give


@contextmanager
def spare_core() -> Iterator[None]:
    """Keep the digests off one core while the context lasts.

    For work that a single thread must do: the system would share the cores out evenly, and that
    thread would end last.
    """
    with _CORES:
        yield


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


#: Called with what is read, and how many bytes of how many have been.
Progress = Callable[[str, int, int], None]
_TELL_EVERY = 0.1  # seconds


class Meter:
    """Counts bytes of `total` and reports them, some ten times a second and at the end."""

    def __init__(self, progress: Progress | None, what: str, total: int) -> None:
        self._progress = progress
        self._what = what
        self._total = total
        self._done = 0
        self._next = 0.0
        self._stopped = False

    def stop(self) -> None:
        """Let the next `add` raise `CancelledError`."""
        self._stopped = True

    def add(self, count: int) -> None:
        """Count bytes that were read."""
        if self._stopped:
            raise CancelledError
        self._done += count
        if self._progress is None:
            return
        now = clock.monotonic()
        if now >= self._next or self._done == self._total:
            self._next = now + _TELL_EVERY
            self._progress(self._what, self._done, self._total)


def digest_file(
    fd: int,
    algorithms: Sequence[str],
    *,
    where: str,
    copy_to: int | None = None,
    start: int = 0,
    length: int | None = None,
    meter: Meter | None = None,
    also: Sequence[Hasher] = (),
) -> Mapping[str, str]:
    """Read the file open at `fd` once and return its hexadecimal digests.

    `start` and `length` are in bytes; without them all of the file is meant. With `copy_to`, also
    write every block to that file descriptor; `also` get every block, too.
    Raises `SourceError`, naming `where`, if the file changes or ends while it is read, and OSError
    as reading and writing do.
    """
    before = os.fstat(fd)
    os.lseek(fd, start, os.SEEK_SET)
    count = before.st_size - start if length is None else length
    states = {name: new_hash(name) for name in algorithms}
    reader = _Reader(fd, where, length=count, meter=meter or Meter(None, where, count))
    read = _feed(reader, [*states.values(), *also], copy_to, threads=count >= _SMALL)
    after = os.fstat(fd)
    if read != count or _identity(before) != _identity(after):
        raise SourceError(
            f"{where}: it changed while it was read ({count} bytes before, {read} read)",
            hint="wait until livecd-stage2 has ended, then build again"
            if length is None
            else "wait until the ISO is complete, then build again",
        )
    return {name: state.hexdigest() for name, state in states.items()}


def _identity(info: os.stat_result) -> tuple[int, int, int, int]:
    # Not the ctime: a hard link to the file, which this program makes, changes it.
    return (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns)


class _Reader:
    """Fills buffers from a file; a fault of the disk becomes an error that names the file.

    Ends after `length` bytes: a file that grows as it is read has no end.
    """

    def __init__(self, fd: int, where: str, *, length: int, meter: Meter) -> None:
        self._fd = fd
        self._where = where
        self._left = length
        self._meter = meter

    def fill(self, buffer: memoryview) -> int:
        if not self._left:
            return 0
        try:
            count = os.readv(self._fd, [buffer[: self._left]])
        except OSError as error:
            raise SourceError(
                f"{self._where}: it cannot be read to its end: {error.strerror}",
                hint="check the disk that it is on",
            ) from error
        self._left -= count
        self._meter.add(count)
        return count


def _feed(reader: _Reader, states: Sequence[Hasher], copy_to: int | None, *, threads: bool) -> int:
    """Read the file to its end into `states` and `copy_to`; return the bytes read."""
    if not threads or len(states) < 2:
        buffer = memoryview(bytearray(BLOCK))
        total = 0
        while count := reader.fill(buffer):
            for state in states:
                state.update(buffer[:count])
            if copy_to is not None:
                write_all(copy_to, buffer[:count])
            total += count
        return total
    with _Ring(states, threads=min(len(states), len(os.sched_getaffinity(0)))) as ring:
        return ring.feed(reader, copy_to)


class _Ring:
    """Threads that feed a ring of blocks, filled by the caller's thread, to every hash.

    Block n lies in buffer n modulo the ring's size until every hash has seen it. A hash takes
    its blocks in turn and is in the hands of one thread at a time.
    """

    def __init__(self, states: Sequence[Hasher], *, threads: int) -> None:
        self._states = states
        self._buffers = [memoryview(bytearray(BLOCK)) for _ in range(RING)]
        self._blocks = [buffer[:0] for buffer in self._buffers]  # what is filled of each
        self._filled = 0  # blocks read so far
        self._hashed = [0] * len(states)  # blocks that each hash has seen
        self._busy = [False] * len(states)
        self._ended = False
        lock = threading.Lock()  # guards all of the above; held by whoever waits below
        self._work = threading.Condition(lock)
        self._room = threading.Condition(lock)
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]

    def __enter__(self) -> _Ring:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        with self._work:
            self._ended = True
            self._work.notify_all()
        for thread in self._threads:
            thread.join()

    def feed(self, reader: _Reader, copy_to: int | None) -> int:
        """Read the file to its end; return the bytes read. Leaving the context waits for all."""
        total = 0
        while True:
            with self._room:
                while self._filled - min(self._hashed) >= RING:
                    self._room.wait()
            place = self._filled % RING
            count = reader.fill(self._buffers[place])
            if not count:
                return total
            total += count
            block = self._blocks[place] = self._buffers[place][:count]
            with self._work:
                self._filled += 1
                self._work.notify()
            if copy_to is not None:
                write_all(copy_to, block)
                # Begins to write it to the disk, which must have it all before the build ends.
                os.posix_fadvise(copy_to, total - count, count, os.POSIX_FADV_DONTNEED)

    def _run(self) -> None:
        while (taken := self._take()) is not None:
            with _CORES:
                self._states[taken].update(self._blocks[self._hashed[taken] % RING])
            with self._work:
                self._hashed[taken] += 1
                self._busy[taken] = False
                self._room.notify()
                self._work.notify()

    def _take(self) -> int | None:
        """Wait for a hash with a block to see and take the one that lags most; None at the end."""
        with self._work:
            while True:
                idle = [n for n, busy in enumerate(self._busy) if not busy]
                lagging = min(idle, key=self._hashed.__getitem__, default=None)
                if lagging is not None and self._hashed[lagging] < self._filled:
                    self._busy[lagging] = True
                    return lagging
                if self._ended:
                    return None
                self._work.wait()


def write_all(fd: int, data: memoryview) -> None:
    """Write all of `data` to `fd`, however little the system takes at a time."""
    while data:
        data = data[os.write(fd, data) :]
