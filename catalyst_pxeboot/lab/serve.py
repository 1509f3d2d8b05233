"""A web server for one netboot tree, on one address: by default the loopback interface's."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from catalyst_pxeboot.services.files import find_file

_CHUNK = 256 << 10  # bytes


@dataclass(frozen=True, slots=True)
class Request:
    """One answered request: the path as decoded, and the HTTP status."""

    path: str
    status: int


class TreeServer(ThreadingHTTPServer):
    """Answers GET and HEAD for regular files below `root`, and remembers what it sent.

    A file that only its owner may read is refused, as a web server with a user of its own would
    refuse it.
    """

    daemon_threads = True

    def __init__(self, root: Path, port: int = 0, address: str = "127.0.0.1") -> None:
        super().__init__((address, port), _Handler)
        self.root = root.resolve()
        self._lock = threading.Lock()
        self._requests: list[Request] = []
        self._sent: dict[str, int] = {}

    @property
    def port(self) -> int:
        """The TCP port; the kernel chose it where none was asked for."""
        return int(self.server_address[1])

    @property
    def requests(self) -> tuple[Request, ...]:
        """All requests so far, in the order in which they came."""
        with self._lock:
            return tuple(self._requests)

    @property
    def fetched(self) -> Mapping[str, int]:
        """Bytes sent of each path so far; one that was asked for in vain is there with 0."""
        with self._lock:
            return dict(self._sent)

    def note(self, request: Request) -> None:
        """Remember a request that is being answered."""
        with self._lock:
            self._requests.append(request)
            self._sent.setdefault(request.path, 0)

    def count(self, path: str, sent: int) -> None:
        """Remember that `sent` more bytes of `path` go out."""
        with self._lock:
            self._sent[path] += sent

    def find(self, path: str) -> Path | HTTPStatus:
        """Find the file that the decoded URL path names, or say why it is refused."""
        return find_file(self.root, path)

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay quiet: a client that goes away in the middle is nothing to report."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: TreeServer

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Write nothing to standard error; `TreeServer.requests` has it all."""

    def _answer(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        found = self.server.find(path)
        if isinstance(found, HTTPStatus):
            self._refuse(path, found)
            return
        try:
            file = found.open("rb")
        except OSError:
            self._refuse(path, HTTPStatus.FORBIDDEN)
            return
        self.server.note(Request(path, HTTPStatus.OK))
        with file:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(os.fstat(file.fileno()).st_size))
            self.end_headers()
            if body:
                self._send(path, file)

    def _send(self, path: str, file: BinaryIO) -> None:
        with suppress(OSError):  # the client went away: no fault of ours
            while chunk := file.read(_CHUNK):
                self.server.count(path, len(chunk))
                self.wfile.write(chunk)

    def _refuse(self, path: str, status: HTTPStatus) -> None:
        self.server.note(Request(path, status))
        self.send_error(status)


@contextmanager
def serve_tree(root: Path, *, port: int = 0) -> Iterator[TreeServer]:
    """Serve the folder `root` on 127.0.0.1 while the context lasts.

    QEMU's user network reaches it as 10.0.2.2. `port` 0 takes a free one.
    """
    with running_server(TreeServer(root, port)) as server:
        yield server


@contextmanager
def running_server(server: TreeServer) -> Iterator[TreeServer]:
    """Answer requests while the context lasts; the server is closed then."""
    with server:
        thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
