"""Runs a piece of work in a process of its own and stands at its system calls.

Each call can be let through, failed with an error of one's choice, or be the moment at which the
process is killed or anything else is done beside it. Nothing is preloaded or patched, so what the
C library and other programs do is met as well: the kernel stops the calls and asks
(seccomp_unotify(2), Linux 5.9).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import pickle
import platform
import select
import signal
import socket
import struct
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum, auto
from pathlib import Path
from typing import Final, NamedTuple, NoReturn, TypeVar, cast

from catalyst_pxeboot.util.errors import PxebootError

#: What is done with a call: it goes on, its process is killed before it, or it fails with the
#: error number that was answered.
GO_ON: Final = 0
KILL: Final = -1


T = TypeVar("T")


class Unavailable(Exception):
    """This machine cannot stop system calls; the text says why."""


class End(StrEnum):
    """How a piece of work ended."""

    DONE = auto()
    REFUSED = auto()  # by an error of this project's own
    BUG = auto()  # by any other
    KILLED = auto()
    HUNG = auto()


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a piece of work; `text` is the error's one line, or a bug's place."""

    end: End
    text: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """A system call: `path` is the file concerned, as the process knows it.

    `name` says what is done, whichever of the calls for it is used: open, rename, unlink and so
    on for openat, renameat2, unlinkat.
    """

    name: str
    path: str
    writes: bool


Decide = Callable[[Call], int]


class _Entry(NamedTuple):
    """Numbers of a call on x86_64 and arm64, and which arguments are a folder and a path."""

    x86_64: int | None
    aarch64: int | None
    folder: int | None  # a file descriptor: of the file itself where `path` is None
    path: int | None


_WRITING: Final = {
    "write": _Entry(1, 64, 0, None),
    "pwrite64": _Entry(18, 68, 0, None),
    "writev": _Entry(20, 66, 0, None),
    "sendfile": _Entry(40, 71, 0, None),
    "copy_file_range": _Entry(326, 285, 2, None),
    "fallocate": _Entry(285, 47, 0, None),
    "ftruncate": _Entry(77, 46, 0, None),
    "truncate": _Entry(76, 45, None, 0),
    "fsync": _Entry(74, 82, 0, None),
    "fdatasync": _Entry(75, 83, 0, None),
    "ioctl": _Entry(16, 29, 0, None),
    "open": _Entry(2, None, None, 0),
    "openat": _Entry(257, 56, 0, 1),
    "creat": _Entry(85, None, None, 0),
    "mkdir": _Entry(83, None, None, 0),
    "mkdirat": _Entry(258, 34, 0, 1),
    "rmdir": _Entry(84, None, None, 0),
    "unlink": _Entry(87, None, None, 0),
    "unlinkat": _Entry(263, 35, 0, 1),
    "rename": _Entry(82, None, None, 1),
    "renameat": _Entry(264, 38, 2, 3),
    "renameat2": _Entry(316, 276, 2, 3),
    "link": _Entry(86, None, None, 1),
    "linkat": _Entry(265, 37, 2, 3),
    "symlink": _Entry(88, None, None, 1),
    "symlinkat": _Entry(266, 36, 1, 2),
    "chmod": _Entry(90, None, None, 0),
    "fchmod": _Entry(91, 52, 0, None),
    "fchmodat": _Entry(268, 53, 0, 1),
    "utimensat": _Entry(280, 88, 0, 1),
}
_READING: Final = {
    "read": _Entry(0, 63, 0, None),
    "pread64": _Entry(17, 67, 0, None),
    "readv": _Entry(19, 65, 0, None),
    "preadv": _Entry(295, 69, 0, None),
    "getdents64": _Entry(217, 61, 0, None),
}
#: Sets of calls to stand at. Opening a file stands in both, as it does either.
WRITING: Final = frozenset(_WRITING)
READING: Final = frozenset(_READING) | {"open", "openat"}

_TABLE: Final = _WRITING | _READING
_AUDIT_ARCH: Final = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
_SECCOMP: Final = {"x86_64": 317, "aarch64": 277}
#: FICLONE and FICLONERANGE, the only ioctls that write to a file.
_CLONES: Final = frozenset({0x40049409, 0x4020940D})

# linux/seccomp.h, linux/filter.h, linux/prctl.h
_SET_MODE_FILTER, _NEW_LISTENER = 1, 1 << 3
_ALLOW, _USER_NOTIF = 0x7FFF_0000, 0x7FC0_0000
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
_NO_NEW_PRIVS = 38
_RECEIVE, _SEND = 0xC050_2100, 0xC018_2101
_CONTINUE = 1
_NOTIFICATION: Final = struct.Struct("=QIIiIQ6Q")
_RESPONSE: Final = struct.Struct("=QqiI")
_AT_FDCWD = 0xFFFF_FF9C


def run_apart(
    work: Callable[[], object],
    *,
    decide: Decide | None = None,
    calls: frozenset[str] = WRITING,
    kill_after: float | None = None,
    timeout: float = 60,
) -> Outcome:
    """Run `work` in a child of this process and tell how it ended.

    With `decide`, the child stops at each of `calls` until `decide` has said what becomes of it.
    With `kill_after`, it is killed that many seconds after its start. After `timeout` seconds it
    counts as hung and is killed. Raises `Unavailable` where calls cannot be stopped.
    """
    supervisor = _start(work, decide, calls)
    try:
        return supervisor.watch(kill_after, time.monotonic() + timeout)
    finally:
        supervisor.close()


def run_both(
    one: Callable[[], object], other: Callable[[], object], *, timeout: float = 60
) -> tuple[Outcome, Outcome]:
    """Run two pieces of work at the same time, each in a child, and tell how they ended."""
    supervisors = [_start(work, None, frozenset()) for work in (one, other)]
    deadline = time.monotonic() + timeout
    try:
        first, second = (supervisor.watch(None, deadline) for supervisor in supervisors)
        return first, second
    finally:
        for supervisor in supervisors:
            supervisor.close()


def call_apart(work: Callable[[], T]) -> T:
    """Return what `work` returns in a child of this process, or raise what it raises."""
    into, out_of = os.pipe()
    child = _fork()
    if child == 0:
        try:
            try:
                result: tuple[bool, object] = (True, work())
            except BaseException as error:
                result = (False, error)
            with os.fdopen(out_of, "wb") as stream:
                stream.write(pickle.dumps(result))
        finally:
            os._exit(0)
    os.close(out_of)
    with os.fdopen(into, "rb") as stream:
        answer = stream.read()
    os.waitpid(child, 0)
    done, found = pickle.loads(answer)
    if not done:
        raise found
    return cast("T", found)


def _start(work: Callable[[], object], decide: Decide | None, calls: frozenset[str]) -> _Supervisor:
    ours, theirs = socket.socketpair()
    child = _fork()
    if child == 0:
        ours.close()
        _be_child(work, theirs, None if decide is None else calls)
    theirs.close()
    return _Supervisor(child, ours, decide)


def _fork() -> int:
    """Fork; the child is this process's only thread there, whatever else runs here."""
    with warnings.catch_warnings():
        # Python 3.12 warns of threads; what the children do waits for none of ours.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _be_child(
    work: Callable[[], object], parent: socket.socket, calls: frozenset[str] | None
) -> NoReturn:
    """Do the work, tell the parent of it and end, whatever happens."""
    try:
        if calls is None:
            parent.send(b"-")
        else:
            try:
                listener = _install_filter(calls)
            except OSError as error:
                parent.sendall(f"-{End.BUG}seccomp: {error.strerror}".encode())
                os._exit(3)
            socket.send_fds(parent, [b"+"], [listener])
            os.close(listener)
        try:
            work()
            said = str(End.DONE)
        except PxebootError as error:
            said = f"{End.REFUSED}{error}"
        except BaseException as error:
            said = f"{End.BUG}{_describe_bug(error)}"
        parent.sendall(said.encode(errors="backslashreplace"))
    finally:
        os._exit(0)


def _describe_bug(error: BaseException) -> str:
    """Return an error of Python's own with the innermost places it came through, in a line."""
    frames = traceback.extract_tb(error.__traceback__)[-5:]
    places = (f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames)
    return f"{error!r} in {', '.join(places)}"


def _install_filter(names: frozenset[str]) -> int:
    """Have the kernel ask about the calls `names`; return where it asks."""
    machine = platform.machine()
    if machine not in _SECCOMP:
        raise OSError(errno.ENOSYS, f"the numbers of its calls are not known on {machine}")
    numbers = sorted(
        number for name in names if (number := getattr(_TABLE[name], machine)) is not None
    )
    program = [
        (_LOAD, 0, 0, 4),  # the architecture
        (_JUMP_EQUAL, 1, 0, _AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, _ALLOW),
        (_LOAD, 0, 0, 0),  # the call's number
        *((_JUMP_EQUAL, len(numbers) - place, 0, number) for place, number in enumerate(numbers)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _USER_NOTIF),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
    # struct sock_fprog: how many steps, and where they stand
    given = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    listener: int = libc.syscall(_SECCOMP[machine], _SET_MODE_FILTER, _NEW_LISTENER, given)
    if listener < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return listener


class _Supervisor:
    """The parent's side: hears of calls and of the end."""

    def __init__(self, child: int, parent: socket.socket, decide: Decide | None) -> None:
        self._child = child
        self._socket = parent
        self._decide = decide
        self._listener: int | None = None
        self._said = bytearray()
        self._status: int | None = None
        self._names = {
            number: name
            for name, entry in _TABLE.items()
            if (number := getattr(entry, platform.machine(), None)) is not None
        }

    def watch(self, kill_after: float | None, deadline: float) -> Outcome:
        mark, listeners, _, _ = socket.recv_fds(self._socket, 1, 1)
        if listeners:
            self._listener = listeners[0]
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(self._child, signal.SIGKILL)
        hung = False
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        open_fds = {self._socket.fileno()}
        if self._listener is not None:
            poll.register(self._listener, select.POLLIN)
            open_fds.add(self._listener)
        while open_fds:
            ready = poll.poll(max(0, deadline - time.monotonic()) * 1000)
            if not ready and hung:
                break  # another program, which it started, runs on
            if not ready:
                hung = self._status is None
                os.kill(self._child, signal.SIGKILL)
                deadline = time.monotonic() + 5
            for fd, event in ready:
                if fd == self._listener and event & select.POLLIN:
                    self._answer()
                elif fd == self._socket.fileno() and (data := self._socket.recv(1 << 16)):
                    self._said += data
                else:
                    poll.unregister(fd)
                    open_fds.remove(fd)
        _, status = os.waitpid(self._child, 0)
        self._status = status
        return self._outcome(mark == b"-" and self._decide is not None, hung)

    def _outcome(self, refused: bool, hung: bool) -> Outcome:
        said = self._said.decode(errors="replace")
        for end in (End.DONE, End.REFUSED, End.BUG):
            if said.startswith(end):
                text = said.removeprefix(end)
                if refused:
                    raise Unavailable(text)
                return Outcome(end, text)
        return Outcome(End.HUNG if hung else End.KILLED)

    def close(self) -> None:
        """Leave nothing of the child behind, also where `decide` raised."""
        if self._status is None:
            os.kill(self._child, signal.SIGKILL)
            os.waitpid(self._child, 0)
        if self._listener is not None:
            os.close(self._listener)
        self._socket.close()

    def _answer(self) -> None:
        """Hear of one call, ask what becomes of it, and tell the kernel."""
        assert self._listener is not None and self._decide is not None
        notification = bytearray(_NOTIFICATION.size)
        try:
            fcntl.ioctl(self._listener, _RECEIVE, notification)
        except OSError:
            return  # who called is dead by now
        ident, caller, _, number, _, _, *arguments = _NOTIFICATION.unpack(notification)
        call = _describe(self._names[number], caller, arguments)
        verdict = GO_ON if call is None else self._decide(call)
        if verdict == KILL:
            os.kill(self._child, signal.SIGKILL)
            return
        response = _RESPONSE.pack(ident, 0, -verdict, 0 if verdict else _CONTINUE)
        with suppress(FileNotFoundError):  # killed meanwhile
            fcntl.ioctl(self._listener, _SEND, response)


def _describe(name: str, caller: int, arguments: list[int]) -> Call | None:
    """Say what a call does, None where it concerns no file."""
    writes = name in _WRITING
    if name in ("open", "openat"):
        flags = arguments[1 if name == "open" else 2]
        writes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
    if name == "ioctl" and arguments[1] & 0xFFFF_FFFF not in _CLONES:
        return None
    entry = _TABLE[name]
    try:
        path = _path(caller, entry, arguments)
    except OSError:
        return None  # dead by now, or its argument is no address
    kind = "open" if name == "creat" else name.removesuffix("2").removesuffix("at")
    return Call(kind, path, writes) if path.startswith("/") else None


def _path(caller: int, entry: _Entry, arguments: list[int]) -> str:
    path = ""
    if entry.path is not None and arguments[entry.path]:
        path = _read_string(caller, arguments[entry.path])
    if path.startswith("/"):
        return path
    fd = _AT_FDCWD if entry.folder is None else arguments[entry.folder] & 0xFFFF_FFFF
    link = "cwd" if fd == _AT_FDCWD else f"fd/{fd}"
    return os.path.join(os.readlink(f"/proc/{caller}/{link}"), path).rstrip("/")  # noqa: PTH118, PTH115


def _read_string(caller: int, address: int) -> str:
    """Read a zero-terminated string of the calling process, page by page."""
    data = b""
    with Path(f"/proc/{caller}/mem").open("rb", buffering=0) as memory:
        while b"\0" not in data and len(data) < 4096:
            memory.seek(address + len(data))
            data += memory.read(4096 - (address + len(data)) % 4096)
    return os.fsdecode(data.split(b"\0", 1)[0])
