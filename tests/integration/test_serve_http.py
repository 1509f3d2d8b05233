"""What the web servers refuse, nginx and our own alike: everything but the tree's files."""

from __future__ import annotations

import http.client
import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from catalyst_pxeboot.util.process import find_program
from tests.support.serve_trees import Served, make_tree, serving

SECRET = b"not for clients"
SLOW = 100


@dataclass(frozen=True)
class Site:
    """A tree that is served, and how."""

    kind: str
    tree: Path
    port: int
    served: Served
    slow: tuple[Future[float], ...]

    def raw(self, data: bytes, *, seconds: float = 10) -> bytes:
        """Send bytes and return all that comes back until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as link:
            try:
                link.sendall(data)
            except (BrokenPipeError, ConnectionResetError):
                return b""
            answer = b""
            try:
                while chunk := link.recv(65536):
                    answer += chunk
            except ConnectionResetError:
                pass
            return answer

    def get(self, target: str, *headers: str, method: str = "GET") -> tuple[int, bytes]:
        """Ask for a target as it is written, and return the status and the body."""
        lines = (f"{method} {target} HTTP/1.1", "Host: a", "Connection: close", *headers, "", "")
        answer = self.raw("\r\n".join(lines).encode("latin-1"))
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]) if head else 0, body


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def serving_site(kind: str, folder: Path) -> Iterator[Site]:
    tree = make_tree(folder)
    (folder / "secret").write_bytes(SECRET)
    (folder / ".tree.staging").mkdir()
    (folder / ".tree.staging/file").write_bytes(SECRET)
    port = free_port()
    without = ("dnsmasq",) if kind == "nginx" else ("dnsmasq", "nginx")
    options = ("--interface", "lo", "--http-port", str(port), "--no-verify")
    with serving(tree, folder / "run", *options, without=without) as served:
        assert served.events[0]["http"] == kind
        # What somebody puts into the tree later.
        (tree / "leak").symlink_to(folder / "secret")
        (tree / "up").symlink_to(folder)
        (tree / "private").write_bytes(SECRET)
        (tree / "private").chmod(0o600)
        os.mkfifo(tree / "pipe")
        with ThreadPoolExecutor(SLOW) as pool:
            slow = tuple(pool.submit(ask_slowly, port) for _ in range(SLOW))
            yield Site(kind, tree, port, served, slow)


def ask_slowly(port: int) -> float:
    """Be a client that never finishes its request; return the seconds until it is cut off."""
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=1) as link:
        link.sendall(b"GET /boot.ipxe HTTP/1.1\r\nHost: a\r\n")
        while time.monotonic() - begun < 30:
            try:
                link.sendall(b"X: y\r\n")
                if not link.recv(1000):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
    return time.monotonic() - begun


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Site]]:
    """Both servers, each busy with many slow clients while the tests ask."""
    kinds = ["embedded", *(["nginx"] if find_program("nginx") else [])]
    with ExitStack() as stack:
        yield {
            kind: stack.enter_context(serving_site(kind, tmp_path_factory.mktemp(kind)))
            for kind in kinds
        }


@pytest.fixture(params=["nginx", "embedded"])
def site(request: pytest.FixtureRequest, sites: dict[str, Site]) -> Site:
    if request.param not in sites:
        pytest.skip("nginx is missing (Debian: nginx-light)")
    return sites[request.param]


@pytest.mark.parametrize(
    "target",
    [
        "/../secret",
        "/boot/../../secret",
        "/boot/../../../../../../../../etc/passwd",
        "/%2e%2e/secret",
        "/%2e%2e%2fsecret",
        "/..%2fsecret",
        "/boot/%2e%2e/%2e%2e/secret",
        "/%252e%252e/secret",
        "/..%5csecret",
        "/..\\secret",
        "/%c0%ae%c0%ae/secret",
        "/..%00/secret",
        "/boot.ipxe%00.txt",
        "//etc/passwd",
        "/./../secret",
        "/..;/secret",
        "../secret",
        "secret",
        "http://a/../secret",
        "file:///etc/passwd",
        "/.tree.staging/file",
        "/../.tree.staging/file",
        "/up/secret",
        "/up/run/events",
        "/leak",
        "/private",
        "/boot",
        "/boot/",
        "/.begin",
        "/access.log",
        "//[a",
        "*",
    ],
)
def test_nothing_but_the_trees_files(site: Site, target: str) -> None:
    status, body = site.get(target)
    # nginx brings a path into its plain form first; what is not a file of the tree then is refused.
    assert status == 0 or 300 <= status < 500, (status, body)
    assert SECRET not in body
    assert b"root:" not in body
    assert site.served.process.poll() is None


def test_a_pipe_keeps_nobody_waiting(site: Site) -> None:
    begun = time.monotonic()
    status, _ = site.get("/pipe")
    assert status in (403, 404)
    assert time.monotonic() - begun < 3


def test_a_folder_is_not_listed(site: Site) -> None:
    assert site.get("/boot/")[0] in (403, 404)
    assert site.get("/")[1] == (site.tree / "index.html").read_bytes()


@pytest.mark.parametrize(
    "method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "MKCOL", "PROPFIND", "X"]
)
def test_other_methods_are_refused(site: Site, method: str) -> None:
    before = (site.tree / "boot.ipxe").read_bytes()
    status, _ = site.get("/boot.ipxe", "Content-Length: 0", method=method)
    assert status in (400, 405), status
    assert (site.tree / "boot.ipxe").read_bytes() == before


def test_a_file_a_head_and_a_range(site: Site) -> None:
    content = (site.tree / "image.squashfs").read_bytes()
    assert site.get("/image.squashfs") == (200, content)
    assert site.get("/image.squashfs?x=1") == (200, content)
    assert site.get("/image.squashfs", method="HEAD") == (200, b"")
    assert site.get("/image.squashfs", "Range: bytes=10-19") == (206, content[10:20])
    assert site.get("/image.squashfs", "Range: bytes=-5") == (206, content[-5:])
    assert site.get("/image.squashfs", f"Range: bytes={len(content)}-")[0] == 416


def test_one_connection_serves_many_requests(site: Site) -> None:
    link = http.client.HTTPConnection("127.0.0.1", site.port, timeout=5)
    link.connect()
    sock = link.sock
    for _ in range(20):
        link.request("GET", "/boot.ipxe")
        answer = link.getresponse()
        assert answer.read() == (site.tree / "boot.ipxe").read_bytes()
        assert link.sock is sock  # http.client drops it when the server closes
    link.close()


def test_huge_requests_are_refused(site: Site) -> None:
    assert site.get("/" + "a" * 100_000)[0] in (0, 400, 414)
    assert site.get("/boot.ipxe", "X: " + "a" * 100_000)[0] in (0, 400, 431)
    many = [f"X-{number}: {'a' * 100}" for number in range(2000)]
    assert site.get("/boot.ipxe", *many)[0] in (0, 400, 431)
    body = b"POST /boot.ipxe HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n" + bytes(
        1 << 20
    )
    assert b" 200 " not in site.raw(body).split(b"\r\n")[0]
    endless = b"GET /boot.ipxe HTTP/1.1\r\nHost: a\r\n" + b"A" * 1_000_000
    assert b" 200 " not in site.raw(endless).split(b"\r\n")[0]
    assert site.get("/boot.ipxe")[0] == 200


@pytest.mark.parametrize(
    "data",
    [
        b"\0" * 100 + b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100) + b"\r\n\r\n",
        b"GET /boot.ipxe HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"GET /boot.ipxe HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    ],
)
def test_what_is_no_request(site: Site, data: bytes) -> None:
    answer = site.raw(data, seconds=20)
    assert SECRET not in answer
    assert site.get("/boot.ipxe")[0] == 200


def test_events_tell_of_it(site: Site) -> None:
    assert site.get("/image.squashfs")[0] == 200
    assert site.get("/none")[0] == 404
    refused = site.served.wait_for(lambda event: event.get("file") == "none")
    assert {**refused, "time": ""} == {
        "event": "refused", "time": "", "ip": "127.0.0.1", "mac": None, "arch": None,
        "scheme": "http", "file": "none", "status": 404,
    }  # fmt: skip


def test_no_request_fills_a_log(site: Site) -> None:
    """What is told of each request stands in access.log, which is emptied when it is large."""
    (scratch,) = (site.served.output.parent / "tmp").iterdir()

    def others() -> dict[str, int]:
        logs = (*scratch.glob("*.log"), *scratch.glob("*.messages"))
        return {log.name: log.stat().st_size for log in logs if log.name != "access.log"}

    before = others()
    assert before
    long = "/" + "a" * 300
    for target in ("/boot/", "/private", "/leak", "/pipe", "/none", "//[a", "/%00", "*", long):
        site.get(target)
    assert others() == before


def test_slow_askers_were_cut_off(site: Site) -> None:
    """All the tests before had them beside them."""
    begun = time.monotonic()
    assert site.get("/boot.ipxe")[0] == 200
    assert time.monotonic() - begun < 1
    assert max(future.result() for future in site.slow) < 15
    assert min(future.result() for future in site.slow) > 5  # a client may take its time
