"""Our own web server, for where nginx is not: the files of one folder, to many clients at once.

    python -m catalyst_pxeboot.services.web SETTINGS

A process of its own, as nginx is, with the same log: a line when a request comes and one when it
has ended. SETTINGS is a JSON file: `root` `follow` (whether the links of that folder are followed)
`address` `port` `log` `ready` (a file for its process id and port, written when it listens) `probe`
(a file of `root`) `uid` `gid` (who it becomes; null: no other). aiohttp brings HTTP, byte ranges,
keep-alive and sendfile; what it leaves open, clients that are slow on purpose, is closed here.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import HttpProcessingError

from catalyst_pxeboot.services.files import find_file
from catalyst_pxeboot.services.sockets import BYTES_ACKED, raise_file_limit

_MOST_CONNECTIONS = 4096
_MOST_OF_ONE = 256  # connections of one address, so that no client takes the place of all others
_ASK_SECONDS = 10.0  # for a connection's first request
_IDLE_SECONDS = 60.0  # between requests
_STALL_SECONDS = 60.0  # in which a client takes nothing of an answer
_WATCH_SECONDS = 2.0
_LINE_BYTES = 4096  # of a request's line, and of each header

_TYPES = {
    ".html": "text/html",
    ".txt": "text/plain",
    ".cfg": "text/plain",
    ".conf": "text/plain",
    ".ipxe": "text/plain",
    ".json": "application/json",
    ".efi": "application/efi",
}


class TreeFileServer:
    """Answers GET and HEAD for the files below `root`, and writes `log`."""

    def __init__(self, root: Path, log: Path, *, follow: bool) -> None:
        self.root = root.resolve(strict=True)
        self.connections: Counter[str] = Counter()  # by address
        self.silent = False
        self._follow = follow
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._log = os.open(log, flags, 0o644)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request; the answer itself logs its end."""
        if isinstance(request.protocol, _Connection):
            request.protocol.asked()
        path = _decoded(request)
        refused = {"client": _client(request), "method": request.method, "path": path}
        if request.method not in ("GET", "HEAD"):
            return self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, refused, {"Allow": "GET, HEAD"})
        if path.endswith("/"):
            path += "index.html"
        found = find_file(self.root, path, follow=self._follow)
        if isinstance(found, HTTPStatus):
            return self._refuse(found, refused, {})
        answer = _FileAnswer(found, self)
        answer.content_type = _TYPES.get(found.suffix, "application/octet-stream")
        return answer

    def write(self, line: dict[str, Any]) -> None:
        """Write a line of the log."""
        if not self.silent:
            os.write(self._log, (json.dumps(line) + "\n").encode())

    def _refuse(
        self, status: HTTPStatus, line: dict[str, Any], headers: dict[str, str]
    ) -> web.StreamResponse:
        client, port = line["client"]
        self.write(
            {"event": "end", **line, "client": client, "port": port, "status": int(status),
             "bytes": 0, "sent": 0, "seconds": 0.0}
        )  # fmt: skip
        answer = web.Response(
            status=status, text=f"{int(status)} {status.phrase}\n", headers=headers
        )
        answer.force_close()
        return answer


class _FileAnswer(web.FileResponse):
    """A file being sent: logged, and cut off when its client stops reading."""

    def __init__(self, path: Path, server: TreeFileServer) -> None:
        super().__init__(path, chunk_size=256 << 10)
        self._server = server

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        client, port = _client(request)
        path, query = _decoded(request), urlsplit(request.raw_path).query
        self._server.write({"event": "begin", "client": client, "port": port, "path": path})
        begun = time.monotonic()
        before = _arrived(request)
        watch = asyncio.ensure_future(_cut_off_when_stalled(request))
        whole = False
        try:
            writer = await super().prepare(request)
            whole = True
            return writer
        finally:
            watch.cancel()
            size = 0 if request.method == "HEAD" else self.content_length or 0
            sent = size if whole else min(size, max(0, _arrived(request) - before))
            self._server.write(
                {"event": "end", "client": client, "port": port, "method": request.method,
                 "path": path, "query": query, "status": self.status, "bytes": sent, "sent": sent,
                 "seconds": round(time.monotonic() - begun, 3)}
            )  # fmt: skip


class _Connection(web.RequestHandler):
    """A connection that must ask soon, and of which there are not too many."""

    def __init__(self, files: TreeFileServer, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._files = files
        self._address = ""
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        count = self._files.connections
        self._address = str((transport.get_extra_info("peername") or ("",))[0])
        count[self._address] += 1
        if isinstance(transport, asyncio.Transport):
            loop = asyncio.get_running_loop()
            self._patience = loop.call_later(_ASK_SECONDS, transport.abort)
            if count[self._address] > _MOST_OF_ONE or count.total() > _MOST_CONNECTIONS:
                transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        count = self._files.connections
        count[self._address] -= 1
        if not count[self._address]:
            del count[self._address]
        self.asked()
        super().connection_lost(exc)

    def asked(self) -> None:
        """Stop waiting for the first request: it has come."""
        if self._patience:
            self._patience.cancel()
            self._patience = None


def main(argv: list[str]) -> int:
    """Serve until SIGTERM, as the settings file says."""
    settings = json.loads(Path(argv[0]).read_text("utf-8"))
    raise_file_limit(3 * _MOST_CONNECTIONS)  # two for each client, and our own
    # What is not HTTP is a client's affair, and must not fill the log.
    logging.getLogger("aiohttp.server").addFilter(_is_our_fault)
    listener = socket.create_server((settings["address"], settings["port"]), backlog=1024)
    files = TreeFileServer(Path(settings["root"]), Path(settings["log"]), follow=settings["follow"])
    ready = Path(settings["ready"])
    become = None if settings["uid"] is None else (settings["uid"], settings["gid"])
    asyncio.run(_serve(files, listener, ready, become, settings["probe"]))
    return 0


async def _serve(
    files: TreeFileServer,
    listener: socket.socket,
    ready: Path,
    become: tuple[int, int] | None,
    probe: str,
) -> None:
    loop = asyncio.get_running_loop()
    manager = web.Server(files.answer)

    def connect() -> _Connection:
        return _Connection(
            files, manager, loop=loop, keepalive_timeout=_IDLE_SECONDS, access_log=None,
            max_line_size=_LINE_BYTES, max_field_size=_LINE_BYTES, lingering_time=2.0,
        )  # fmt: skip

    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    with ready.open("w") as stream:
        if become:
            await _rehearse(files, connect, probe)
            user, group = become
            os.setgroups([])
            os.setgid(group)
            os.setuid(user)
        server = await loop.create_server(connect, sock=listener)
        stream.write(f"{os.getpid()} {listener.getsockname()[1]}\n")
    await stop.wait()
    server.close()
    await manager.shutdown(0)


async def _rehearse(files: TreeFileServer, connect: Callable[[], _Connection], probe: str) -> None:
    """Answer requests of our own for the file `probe`, so that all modules are loaded.

    Later we may not read them.

    Python's own folder can be closed to who we become (a home has it, sometimes).
    """
    files.silent = True
    stage = await asyncio.get_running_loop().create_server(connect, "127.0.0.1", 0)
    try:
        for target, range_header in ((f"/{probe}", ""), (f"/{probe}", "1-2"), ("/..", "")):
            reader, writer = await asyncio.open_connection(*stage.sockets[0].getsockname())
            lines = [f"GET {target} HTTP/1.1", "Host: localhost", "Connection: close"]
            if range_header:
                lines.append(f"Range: bytes={range_header}")
            writer.write("\r\n".join([*lines, "", ""]).encode())
            await reader.read()
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
    finally:
        stage.close()
        files.silent = False


async def _cut_off_when_stalled(request: web.BaseRequest) -> None:
    last, since = -1, time.monotonic()
    while True:
        await asyncio.sleep(_WATCH_SECONDS)
        now = _arrived(request)
        if now > last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > _STALL_SECONDS and request.transport:
            request.transport.abort()
            return


def _arrived(request: web.BaseRequest) -> int:
    """Return how many bytes of the connection have arrived at the client; 0 if it has gone."""
    if request.transport is None:
        return 0
    sock = request.transport.get_extra_info("socket")
    with suppress(OSError, struct.error):
        data = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, BYTES_ACKED + 8)
        return int(struct.unpack_from("=Q", data, BYTES_ACKED)[0])
    return 0


def _decoded(request: web.BaseRequest) -> str:
    """Return the path that is asked for; empty, which names no file, where it is none."""
    try:
        return unquote(urlsplit(request.raw_path).path)
    except ValueError:  # `//[`, which urlsplit takes for half an IPv6 address
        return ""


def _client(request: web.BaseRequest) -> tuple[str, int]:
    peer = request.transport.get_extra_info("peername") if request.transport else None
    return (str(peer[0]), int(peer[1])) if peer else ("", 0)


def _is_our_fault(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
