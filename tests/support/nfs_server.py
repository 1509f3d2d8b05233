"""A read-only NFS server for boot tests, in user space: NFS 3 over TCP, and nothing else.

    with serve_nfs(folder) as server:
        f"{address}:{EXPORT},{server.options}"

Formats: XDR (RFC 4506), RPC (RFC 5531), NFS and MOUNT version 3 (RFC 1813), and as much of the port
mapper (RFC 1833) as says where the two are. Servers of a distribution want more than a bare
container has: the kernel's its module, nfs-ganesha the right to open files by handle, both a
running rpcbind.
"""

from __future__ import annotations

import os
import socketserver
import stat
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import ClassVar

from catalyst_pxeboot.lab.network import join_namespace

#: The name under which the folder is exported. Folders below it can be mounted as well.
EXPORT = "/export"

_PORTMAP_PORT = 111
_CALL_LIMIT = 1 << 20  # bytes; a call that reads is far smaller
_READ_LIMIT = 256 << 10  # bytes an answer


class Program(IntEnum):
    """The RPC programs that are served, all on one port."""

    PORTMAP = 100000
    NFS = 100003
    MOUNT = 100005


_VERSIONS = {Program.PORTMAP: 2, Program.NFS: 3, Program.MOUNT: 3}


class Status(IntEnum):
    """Answers of NFS and MOUNT; those that both have are the same number."""

    OK = 0
    NOENT = 2
    IO = 5
    ACCES = 13
    NOTDIR = 20
    INVAL = 22
    STALE = 70
    NOTSUPP = 10004


class _AcceptError(Exception):
    """A call that RPC itself answers; `body` starts with the accept_stat."""

    def __init__(self, *body: int) -> None:
        self.body = _u32(*body)


_PROG_UNAVAIL, _PROG_MISMATCH, _PROC_UNAVAIL, _GARBAGE_ARGS = 1, 2, 3, 4


class NfsError(Exception):
    """An answer that is no success."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.name)
        self.status = status


def _u32(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)


def _u64(*values: int) -> bytes:
    return struct.pack(f">{len(values)}Q", *values)


def _opaque(data: bytes) -> bytes:
    return _u32(len(data)) + data + bytes(-len(data) % 4)


class _Arguments:
    """The rest of a call."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def u32(self) -> int:
        return int(struct.unpack(">I", self.fixed(4))[0])

    def u64(self) -> int:
        return int(struct.unpack(">Q", self.fixed(8))[0])

    def opaque(self) -> bytes:
        size = self.u32()
        return self.fixed(size + -size % 4)[:size]

    def fixed(self, size: int) -> bytes:
        part = self._data[self._at : self._at + size]
        if len(part) != size:
            raise _AcceptError(_GARBAGE_ARGS)
        self._at += size
        return part


class NfsServer(socketserver.ThreadingTCPServer):
    """Serves the folder `root` as `EXPORT`, to any client and from any port of the client's.

    What only its owner may read is refused, as a server refuses it that takes a client's root for
    nobody.
    """

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, root: Path, address: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__((address, port), _Connection)
        self.root = root.resolve()
        self.export = EXPORT
        self._lock = threading.Lock()
        self._paths = [self.root]
        self._sent: Counter[str] = Counter()

    @property
    def port(self) -> int:
        """The TCP port; the kernel chose it where none was asked for."""
        return int(self.server_address[1])

    @property
    def options(self) -> str:
        """The options of mount(8) that find the server without a port mapper."""
        return f"vers=3,proto=tcp,port={self.port},mountproto=tcp,mountport={self.port}"

    @property
    def sent(self) -> Mapping[str, int]:
        """Bytes read of each file so far, by its path below `root`."""
        with self._lock:
            return dict(self._sent)

    def count(self, path: Path, size: int) -> None:
        """Remember that `size` more bytes of `path` go out."""
        with self._lock:
            self._sent[str(path.relative_to(self.root))] += size

    def handle_of(self, path: Path) -> bytes:
        """Return the file handle of `path`: its place in the list of all that were asked for."""
        with self._lock:
            if path not in self._paths:
                self._paths.append(path)
            return _u64(self._paths.index(path))

    def path_of(self, handle: bytes) -> Path:
        """Return the path of a file handle. Raises `NfsError`."""
        with self._lock:
            number = int.from_bytes(handle, "big")
            if len(handle) != 8 or number >= len(self._paths):
                raise NfsError(Status.STALE)
            return self._paths[number]

    def find(self, folder: Path, name: bytes) -> Path:
        """Find `name` in `folder`, never outside `root`. Raises `NfsError`."""
        if b"/" in name or b"\0" in name:
            raise NfsError(Status.INVAL)
        if not folder.is_dir():
            raise NfsError(Status.NOTDIR)
        if name == b"." or (name == b".." and folder == self.root):
            return folder
        if name == b"..":
            return folder.parent
        path = folder / os.fsdecode(name)
        if not os.path.lexists(path):
            raise NfsError(Status.NOENT)
        return path

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay quiet: a client that goes away in the middle is nothing to report."""


class _Connection(socketserver.BaseRequestHandler):
    """One client: calls and answers, each in records of one or more fragments."""

    server: NfsServer

    def handle(self) -> None:
        answers = _Answers(self.server)
        with suppress(OSError, EOFError):
            while True:
                answer = answers.to(self._record())
                if answer:
                    self.request.sendall(_u32(1 << 31 | len(answer)) + answer)

    def _record(self) -> bytes:
        record = b""
        while True:
            (head,) = struct.unpack(">I", self._exactly(4))
            if len(record) + (head & 0x7FFFFFFF) > _CALL_LIMIT:
                raise EOFError
            record += self._exactly(head & 0x7FFFFFFF)
            if head >> 31:
                return record

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.request.recv(size - len(data))
            if not part:
                raise EOFError
            data += part
        return data


@dataclass(frozen=True, slots=True)
class _Procedure:
    """`act` answers with what follows the status; `refused` follows one that is no success."""

    act: Callable[[_Answers, _Arguments], bytes]
    refused: bytes = b""
    has_status: bool = True


class _Answers:
    """What each procedure answers."""

    def __init__(self, server: NfsServer) -> None:
        self._server = server

    def to(self, call: bytes) -> bytes:
        """Answer a call with a whole reply; nothing for what is no call."""
        given = _Arguments(call)
        try:
            xid, kind, rpc, program, version, procedure = (given.u32() for _ in range(6))
            for _ in ("credentials", "verifier"):
                given.u32()
                given.opaque()
        except _AcceptError:
            return b""
        if (kind, rpc) != (0, 2):
            return b""
        try:
            body = _u32(0) + self._result(program, version, procedure, given)
        except _AcceptError as error:
            body = error.body
        return _u32(xid, 1, 0, 0, 0) + body  # a reply, accepted, with an empty verifier

    def _result(self, program: int, version: int, number: int, given: _Arguments) -> bytes:
        if program not in _VERSIONS:
            raise _AcceptError(_PROG_UNAVAIL)
        served = _VERSIONS[Program(program)]
        if version != served:
            raise _AcceptError(_PROG_MISMATCH, served, served)
        if number == 0:
            return b""
        procedure = self._PROCEDURES.get((Program(program), number))
        if procedure is None:
            raise _AcceptError(_PROC_UNAVAIL)
        try:
            result = procedure.act(self, given)
        except NfsError as error:
            return _u32(error.status) + procedure.refused
        except OSError:
            return _u32(Status.IO) + procedure.refused
        return (_u32(Status.OK) if procedure.has_status else b"") + result

    # --- port mapper and MOUNT --------------------------------------------------------------------

    def _getport(self, given: _Arguments) -> bytes:
        program, _version, protocol = given.u32(), given.u32(), given.u32()
        known = program in _VERSIONS and protocol == 6  # TCP
        return _u32(self._server.port if known else 0)

    def _mount(self, given: _Arguments) -> bytes:
        asked = os.fsdecode(given.opaque()).rstrip("/")
        if asked != EXPORT and not asked.startswith(f"{EXPORT}/"):
            raise NfsError(Status.ACCES)
        path = self._server.root
        for name in asked.removeprefix(EXPORT).split("/")[1:]:
            path = self._server.find(path, os.fsencode(name))
        # A handle, and the ways to say who one is: AUTH_SYS and none.
        return _opaque(self._server.handle_of(path)) + _u32(2, 1, 0)

    def _unmount(self, given: _Arguments) -> bytes:
        given.opaque()
        return b""

    # --- NFS --------------------------------------------------------------------------------------

    def _path(self, given: _Arguments) -> Path:
        return self._server.path_of(given.opaque())

    def _getattr(self, given: _Arguments) -> bytes:
        return _attributes(self._path(given))

    def _lookup(self, given: _Arguments) -> bytes:
        folder = self._path(given)
        path = self._server.find(folder, given.opaque())
        return _opaque(self._server.handle_of(path)) + _attached(path) + _attached(folder)

    def _access(self, given: _Arguments) -> bytes:
        path, asked = self._path(given), given.u32()
        mode = path.lstat().st_mode
        readable = 0x01 if mode & stat.S_IROTH else 0
        passable = 0x22 if mode & stat.S_IXOTH else 0  # look up in it, execute it
        return _attached(path) + _u32(asked & (readable | passable))

    def _read(self, given: _Arguments) -> bytes:
        path, offset, count = self._path(given), given.u64(), given.u32()
        mode = path.lstat().st_mode
        if not stat.S_ISREG(mode):
            raise NfsError(Status.INVAL)
        if not mode & stat.S_IROTH:
            raise NfsError(Status.ACCES)
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(min(count, _READ_LIMIT))
            at_end = file.tell() >= os.fstat(file.fileno()).st_size
        self._server.count(path, len(data))
        return _attached(path) + _u32(len(data), at_end) + _opaque(data)

    def _readdir(self, given: _Arguments) -> bytes:
        folder, cookie = self._path(given), given.u64()
        given.fixed(8)  # what the last answer began with; the folder does not change
        room = given.u32()
        if not folder.is_dir():
            raise NfsError(Status.NOTDIR)
        result = _attached(folder) + bytes(8)
        names = [".", "..", *sorted(path.name for path in folder.iterdir())]
        for number, name in enumerate(names[cookie:], cookie + 1):
            inode = self._server.find(folder, os.fsencode(name)).lstat().st_ino
            entry = _u32(1) + _u64(inode) + _opaque(os.fsencode(name)) + _u64(number)
            if len(result) + len(entry) + 16 > room:
                return result + _u32(0, 0)
            result += entry
        return result + _u32(0, 1)

    def _readdirplus(self, given: _Arguments) -> bytes:
        raise NfsError(Status.NOTSUPP)  # the client asks by READDIR then

    def _fsstat(self, given: _Arguments) -> bytes:
        path = self._path(given)
        told = os.statvfs(path)
        space = (told.f_blocks * told.f_frsize, 0, 0)
        return _attached(path) + _u64(*space, told.f_files, 0, 0) + _u32(0)

    def _fsinfo(self, given: _Arguments) -> bytes:
        path = self._path(given)
        reads, writes = (_READ_LIMIT, _READ_LIMIT, 4096), (4096, 4096, 4096)
        homogeneous = 0x08
        return (
            _attached(path)
            + _u32(*reads, *writes, 4096)
            + _u64((1 << 63) - 1)
            + _u32(0, 1, homogeneous)
        )

    def _pathconf(self, given: _Arguments) -> bytes:
        return _attached(self._path(given)) + _u32(1, 255, 1, 1, 0, 1)

    # Where RFC 1813 has attributes after a refusal, none are given: a zero for each.
    _PROCEDURES: ClassVar[Mapping[tuple[Program, int], _Procedure]] = {
        (Program.PORTMAP, 3): _Procedure(_getport, has_status=False),
        (Program.MOUNT, 1): _Procedure(_mount),
        (Program.MOUNT, 3): _Procedure(_unmount, has_status=False),
        (Program.NFS, 1): _Procedure(_getattr),
        (Program.NFS, 3): _Procedure(_lookup, _u32(0)),
        (Program.NFS, 4): _Procedure(_access, _u32(0)),
        (Program.NFS, 6): _Procedure(_read, _u32(0)),
        (Program.NFS, 16): _Procedure(_readdir, _u32(0)),
        (Program.NFS, 17): _Procedure(_readdirplus, _u32(0)),
        (Program.NFS, 18): _Procedure(_fsstat, _u32(0)),
        (Program.NFS, 19): _Procedure(_fsinfo, _u32(0)),
        (Program.NFS, 20): _Procedure(_pathconf, _u32(0)),
    }


_KINDS = {stat.S_IFREG: 1, stat.S_IFDIR: 2}


def _attributes(path: Path) -> bytes:
    """Pack fattr3. Raises `NfsError` where nothing is, or neither a file nor a folder."""
    try:
        told = path.lstat()
    except FileNotFoundError as error:
        raise NfsError(Status.STALE) from error
    kind = _KINDS.get(stat.S_IFMT(told.st_mode))
    if kind is None:
        raise NfsError(Status.ACCES)
    result = _u32(kind, stat.S_IMODE(told.st_mode), told.st_nlink, told.st_uid, told.st_gid)
    result += _u64(told.st_size, told.st_blocks * 512) + _u32(0, 0)
    result += _u64(told.st_dev, told.st_ino)
    for nanoseconds in (told.st_atime_ns, told.st_mtime_ns, told.st_ctime_ns):
        result += _u32(*divmod(nanoseconds, 10**9))
    return result


def _attached(path: Path) -> bytes:
    """Pack the attributes as they stand beside another answer."""
    return _u32(1) + _attributes(path)


@contextmanager
def serve_nfs(
    folder: Path,
    *,
    address: str = "127.0.0.1",
    port: int = 0,
    namespace: str = "",
    portmap: bool = False,
) -> Iterator[NfsServer]:
    """Serve `folder` as `EXPORT` at `address` while the context lasts.

    QEMU's user network reaches 127.0.0.1 as 10.0.2.2. `port` 0 takes a free one. `namespace`
    names a network namespace of `ip netns`. `portmap` answers on port 111 as well, so that clients
    need no options; that wants root and the port to be free.
    """

    def opened(number: int) -> NfsServer:
        def act() -> NfsServer:
            return NfsServer(folder, address, number)

        return join_namespace(namespace, act) if namespace else act()

    with ExitStack() as stack:
        server = _started(stack, opened(port))
        if portmap:
            mapper = opened(_PORTMAP_PORT)
            # It answers GETPORT with the address of the server that holds the files.
            mapper.server_address = server.server_address
            _started(stack, mapper)
        yield server


def _started(stack: ExitStack, server: NfsServer) -> NfsServer:
    """Answer calls until the stack unwinds; the server is closed then."""
    stack.enter_context(server)
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
    )
    thread.start()
    stack.callback(thread.join)
    stack.callback(server.shutdown)
    return server
