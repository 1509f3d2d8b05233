"""The lab's web server."""

from __future__ import annotations

import http.client
from collections.abc import Iterator

import pytest

from catalyst_pxeboot.lab.serve import WebServer, serve_tree


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    folder = tmp_path_factory.mktemp("served")
    tree = folder / "tree"
    (tree / "boot").mkdir(parents=True)
    (tree / "boot/root.img").write_bytes(b"abc" * 100_000)
    (tree / "a b").write_text("spaces")
    (tree / "private").write_text("x")
    (tree / "private").chmod(0o600)
    (folder / "secret").write_text("x")
    (tree / "leak").symlink_to(folder / "secret")
    (tree / "inside").symlink_to("a b")
    with serve_tree(tree) as running:
        yield running


def ask(server: WebServer, path: str, method: str = "GET") -> tuple[int, bytes, str | None]:
    link = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    try:
        link.request(method, path)
        answer = link.getresponse()
        return answer.status, answer.read(), answer.getheader("Content-Length")
    finally:
        link.close()


def test_server_serves_and_counts(server: WebServer) -> None:
    assert ask(server, "/boot/root.img") == (200, b"abc" * 100_000, "300000")
    assert ask(server, "/boot/root.img", "HEAD") == (200, b"", "300000")
    assert ask(server, "/a%20b?x=1") == (200, b"spaces", "6")
    assert ask(server, "/inside")[:2] == (200, b"spaces")
    found = server.requests[-4:]
    assert [(request.method, request.path, request.status) for request in found] == [
        ("GET", "/boot/root.img", 200),
        ("HEAD", "/boot/root.img", 200),
        ("GET", "/a b", 200),
        ("GET", "/inside", 200),
    ]
    fetched = {path: count for path, count in server.fetched.items() if count}
    assert fetched == {"/boot/root.img": 300_000, "/a b": 6, "/inside": 6}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/../secret", 400),
        ("/boot/../../secret", 400),
        ("/%2e%2e/secret", 400),
        ("/..%2fsecret", 400),
        ("/boot/%00", 400),
        ("/leak", 403),
        ("/private", 403),
        ("/boot", 404),
        ("/", 404),
        ("/none", 404),
    ],
)
def test_server_refuses(server: WebServer, path: str, status: int) -> None:
    assert ask(server, path)[0] == status
    (request,) = server.requests[-1:]
    assert request.status == status
    assert server.fetched[request.path] == 0


def test_server_takes_no_path_without_a_slash(server: WebServer) -> None:
    assert ask(server, "secret")[0] == 400


def test_server_knows_no_other_method(server: WebServer) -> None:
    assert ask(server, "/a%20b", "DELETE")[0] == 405
