"""Attacks on `serve`, by who makes them: a local user, who writes the tree, or a client."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from catalyst_pxeboot.serve.facts import read_served_tree
from catalyst_pxeboot.serve.pinned import Binding, pin_tree
from catalyst_pxeboot.serve.plan import ServeOptions, plan_serving
from catalyst_pxeboot.services.interfaces import Interface
from catalyst_pxeboot.services.logs import TftpLine, parse_dnsmasq
from catalyst_pxeboot.tree.verify import verify_tree
from catalyst_pxeboot.util.errors import PxebootError, VerifyError
from tests.integration.test_serve_http import free_port
from tests.integration.test_serve_run import left_over
from tests.support.serve_facts import FACTS
from tests.support.serve_trees import Served, make_tree, serving

KINDS = {"nginx": ("dnsmasq",), "embedded": ("dnsmasq", "nginx")}
SECRET = b"root's own"
Wrap = Callable[[Sequence[str | Path]], Sequence[str]]

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is missing"),
    pytest.mark.skipif(not shutil.which("dnsmasq"), reason="dnsmasq is missing"),
]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "made")


def get(port: int, path: str) -> tuple[int, bytes]:
    """Ask for a file by HTTP; the status is 0 if the server closes at once."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as link:
        link.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while chunk := link.recv(1 << 16):
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]) if head else 0, body


def tftp(name: str, *, seconds: float = 5) -> bytes | None:
    """Return the first block of a file, None where there is an error (RFC 1350).

    Asks again each second, as clients do: a datagram that meets a full buffer is lost.
    """
    ask = b"\0\1" + name.encode() + b"\0octet\0"
    end = time.monotonic() + seconds
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.settimeout(1)
        while True:
            link.sendto(ask, ("127.0.0.1", 69))
            try:
                answer, there = link.recvfrom(2048)
                break
            except TimeoutError:
                if time.monotonic() > end:
                    raise
        link.sendto(b"\0\5\0\0enough\0", there)
    return answer[4:] if answer[1] == 3 else None


def plainly(argv: Sequence[str | Path]) -> Sequence[str]:
    return list(map(str, argv))


def with_umask(mask: str) -> Wrap:
    return lambda argv: ["sh", "-c", f'umask {mask}; exec "$@"', "sh", *map(str, argv)]


def with_signals(argv: Sequence[str | Path]) -> Sequence[str]:
    return ["env", "--default-signal=HUP", *map(str, argv)]


def without_mounts(argv: Sequence[str | Path]) -> Sequence[str]:
    """Root as in a container: it may mount nothing."""
    return ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", *map(str, argv)]


def as_nobody(argv: Sequence[str | Path]) -> Sequence[str]:
    words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    return [*words, OPEN_PYTHON or "", *map(str, argv[1:])]


def _is_open(path: Path) -> bool:
    return all(place.stat().st_mode & 0o001 for place in (path, *path.parents))


#: An interpreter of this version that any user can start. A home is closed, usually.
OPEN_PYTHON = next(
    (
        str(path)
        for path in (
            Path(sys.executable).resolve(),
            Path(f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}"),
        )
        if path.exists() and _is_open(path)
    ),
    None,
)


@contextmanager
def served_on_lo(
    tree: Path, folder: Path, kind: str = "", wrap: Wrap = plainly
) -> Iterator[tuple[Served, int]]:
    port = free_port()
    options = ("--interface", "lo", "--http-port", str(port))
    without = KINDS.get(kind, ())
    with serving(tree, folder, *options, without=without, inside=wrap) as served:
        yield served, port


class TestLocalUsers:
    """Who may log in, but owns nothing of this."""

    @pytest.mark.parametrize("mask", ["000", "077", "777"])
    def test_scratch_is_ours_to_write(self, tree: Path, tmp_path: Path, mask: str) -> None:
        with served_on_lo(tree, tmp_path / "run", wrap=with_umask(mask)) as (served, port):
            scratch = next((tmp_path / "run/tmp").iterdir())
            found = [scratch, *scratch.rglob("*")]
            assert len(found) > 20
            for path in found:
                assert not path.lstat().st_mode & 0o002, path
                assert path.owner() == "root" or path.parent.name == "dnsmasq" or path.is_dir()
                assert path.parent == tmp_path / "run/tmp" or path.parent.owner() == "root"
            assert get(port, "/boot.ipxe")[0] == 200
            assert tftp("boot.ipxe")
            (link,) = {path for path in found if path.name == "access.log"}
            assert link.parent.stat().st_uid == 0
            assert served.stop() == 143
        assert left_over(served) == []

    def test_a_log_that_became_a_link_is_not_emptied(self, tree: Path, tmp_path: Path) -> None:
        """Only root could do that now; what reads the logs refuses it all the same."""
        precious = tmp_path / "precious"
        precious.write_bytes(bytes(5 << 20))
        with served_on_lo(tree, tmp_path / "run") as (served, _):
            log = next((tmp_path / "run/tmp").glob("*/access.log"))
            log.unlink()
            log.symlink_to(precious)
            assert served.process.wait(timeout=20) != 0
        assert precious.stat().st_size == 5 << 20

    @pytest.mark.parametrize("kind", list(KINDS))
    def test_the_terminal_goes_away(self, tree: Path, tmp_path: Path, kind: str) -> None:
        # Whoever runs the tests by nohup ignores the signal, and so do their children.
        with served_on_lo(tree, tmp_path / "run", kind, with_signals) as (served, _):
            assert served.stop(signal.SIGHUP) == 128 + signal.SIGHUP
        assert left_over(served) == []

    @pytest.mark.parametrize("name", ["*", "lo,sv0", "sv*", "a'b", "#x", "-i"])
    def test_an_interface_with_a_name_of_its_own(self, name: str) -> None:
        odd = Interface(name, True, False, (IPv4Interface("10.9.0.1/24"),))
        facts = replace(FACTS, interfaces=(odd,))
        for options in (ServeOptions(name), ServeOptions()):
            with pytest.raises(PxebootError, match="has a name that dnsmasq would read otherwise"):
                plan_serving(options, facts)


MODES: dict[str, tuple[str, Wrap]] = {
    "nginx": ("nginx", plainly),
    "embedded": ("embedded", plainly),
    "nginx-no-mounts": ("nginx", without_mounts),
    "embedded-no-mounts": ("embedded", without_mounts),
}
if OPEN_PYTHON:
    MODES |= {"nginx-nobody": ("nginx", as_nobody), "embedded-nobody": ("embedded", as_nobody)}


class TestWritersOfTheTree:
    """Who writes the tree after it was checked, or beside that."""

    @pytest.mark.parametrize("mode", list(MODES))
    def test_a_tree_that_changes(self, tree: Path, tmp_path: Path, mode: str) -> None:
        """Links put in, a file replaced, one overwritten, a backup by hard links."""
        kind, wrap = MODES[mode]
        if wrap is as_nobody:
            _open_to_nobody(tree, tmp_path)
        (tmp_path / "secret").write_bytes(SECRET)
        script = (tree / "boot.ipxe").read_bytes()
        with served_on_lo(tree, tmp_path / "run", kind, wrap) as (served, port):
            assert get(port, "/boot.ipxe") == (200, script)
            os.link(tree / "README.txt", tmp_path / "backup")
            (tree / "leak").symlink_to(tmp_path / "secret")
            (tree / "etc").symlink_to("/etc")
            (tree / "late").write_bytes(SECRET)
            for path in ("/leak", "/late", "/etc/passwd", "/etc/hostname"):
                status, body = get(port, path)
                assert (status, SECRET in body) == (404, False), path
            (tmp_path / "new").write_bytes(b"#!ipxe\nother\n")
            (tmp_path / "new").replace(tree / "boot.ipxe")
            event = served.wait_for(lambda event: event.get("event") == "changed")
            kept = "no-mounts" not in mode
            assert (event["file"], event["served"]) == ("boot.ipxe", kept)
            assert (
                get(port, "/boot.ipxe") == (200, script)
                if kept
                else (get(port, "/boot.ipxe")[0] in (403, 404))
            )
            with (tree / "boot/gentoo").open("r+b") as stream:
                stream.write(b"evil")
            event = served.wait_for(
                lambda event: event.get("event") == "changed" and event["file"] == "boot/gentoo"
            )
            assert event["served"] is False
            status, body = get(port, "/boot/gentoo")
            assert status in (403, 404)
            assert b"evil" not in body
            assert get(port, "/README.txt")[0] == 200
            assert len(served.kinds("changed")) == 2
            assert served.stop() == 143
        assert left_over(served) == []

    @pytest.mark.parametrize("kind", ["nginx", "embedded"])
    def test_the_tree_is_moved_away(self, tree: Path, tmp_path: Path, kind: str) -> None:
        """And a link to /etc put in its place; by HTTP and by TFTP."""
        without = {"nginx": (), "embedded": ("nginx",)}[kind]
        port = free_port()
        options = ("--interface", "lo", "--http-port", str(port))
        script = (tree / "boot.ipxe").read_bytes()
        with serving(tree, tmp_path / "run", *options, without=without) as served:
            tree.rename(tmp_path / "elsewhere")
            tree.symlink_to("/etc")
            (tmp_path / "elsewhere/leak").symlink_to("/etc/passwd")
            for path in ("hostname", "passwd", "leak", "../etc/passwd"):
                assert get(port, f"/{path}")[0] in (400, 404)
                assert tftp(path) is None
            assert get(port, "/boot.ipxe") == (200, script)
            assert tftp("boot.ipxe") == script[:512]
            event = served.wait_for(lambda event: event.get("event") == "changed")
            assert event["served"] is True

    def test_a_file_that_is_replaced_while_it_is_checked(self, tree: Path, tmp_path: Path) -> None:
        """What is held open must be what was read, also if the name is put right in between."""
        genuine, evil = tree / "boot/gentoo", tmp_path / "evil"
        evil.write_bytes(genuine.read_bytes()[:-1] + b"!")
        os.utime(evil, ns=(genuine.stat().st_atime_ns, genuine.stat().st_mtime_ns))
        genuine.rename(tmp_path / "kept")
        evil.rename(genuine)
        with pin_tree(read_served_tree(tree), Binding.DESCRIPTORS) as pinned:
            genuine.rename(evil)
            (tmp_path / "kept").rename(genuine)
            verified = verify_tree(tree)
            genuine.rename(tmp_path / "kept")
            evil.rename(genuine)
            assert verified.faults == ()
            with pytest.raises(VerifyError, match="boot/gentoo: changed while it was checked"):
                pinned.require(verified.read)


class TestClients:
    """Who reaches the servers by network."""

    @pytest.mark.parametrize(
        "name",
        [
            "dnsmasq-tftp[7]: sent {tree}/boot.ipxe to 10.0.0.9",
            "x not found for 10.0.0.9",
            "dnsmasq-dhcp[7]: 19 DHCPACK(lo) 10.0.0.9 52:54:00:12:34:56 host",
            "Nov 22 17:00:00 dnsmasq-dhcp[7]: 19 PXE(lo) 10.0.0.9 52:54:00:12:34:56 evil.0",
            "a\nNov 22 17:00:00 dnsmasq-tftp[7]: sent {tree}/boot.ipxe to 10.0.0.9",
            "a\rNov 22 17:00:00 dnsmasq-dhcp[7]: 19 bootfile name: evil.0",
        ],
    )
    def test_a_name_that_looks_like_a_log(self, tree: Path, tmp_path: Path, name: str) -> None:
        with served_on_lo(tree, tmp_path / "run") as (served, _):
            scratch = next((tmp_path / "run/tmp").iterdir())
            assert tftp(name.format(tree=scratch / "tree")) is None
            assert tftp("last") is None
            served.wait_for(lambda event: event.get("file") == "last")
            events = [event for event in served.read() if event["event"] != "serving"]
            assert {event["event"] for event in events} == {"refused"}
            assert {event["ip"] for event in events} == {"127.0.0.1"}

    def test_a_message_that_looks_like_a_log(self) -> None:
        line = "Nov 22 17:00:00 dnsmasq-tftp[7]: error 0 {} received from 10.0.0.5"
        for text in ("sent /t/a to 10.0.0.9", "dnsmasq-dhcp[7]: 1 PXE(lo) 10.0.0.9 x"):
            assert parse_dnsmasq(line.format(text)) == TftpLine("aborted", "10.0.0.5")
        host = "Nov 22 17:00:00 dnsmasq-dhcp[7]: 19 DHCPACK(lo) 10.0.0.5 52:54:00:12:34:56 {}"
        found = parse_dnsmasq(host.format("dnsmasq-tftp[7]: sent /t/a to 10.0.0.9"))
        assert found
        assert getattr(found, "ip", "") == "10.0.0.5"

    def test_half_open_tftp_reads(self, tree: Path, tmp_path: Path) -> None:
        """One client asks 3,000 times and takes nothing; another still gets its file."""
        _need_files(4000)
        with served_on_lo(tree, tmp_path / "run"), ExitStack() as stack:
            for number in range(3000):
                link = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                link.sendto(b"\0\1boot/gentoo\0octet\0", ("127.0.0.1", 69))
                if number % 50 == 0:
                    time.sleep(0.02)  # or the kernel drops them unseen
            assert tftp("boot.ipxe", seconds=10)

    @pytest.mark.parametrize("kind", list(KINDS))
    @pytest.mark.parametrize("ask", [b"", b"GET /boot.ipxe HTTP/1.1\r\nHost: a\r\n"])
    def test_thousands_of_connections(
        self, tree: Path, tmp_path: Path, kind: str, ask: bytes
    ) -> None:
        """One address opens 5,000; another one still gets its file."""
        _need_files(7000)
        with served_on_lo(tree, tmp_path / "run", kind) as (_, port), ExitStack() as stack:
            for _number in range(5000):
                link = stack.enter_context(socket.socket())
                link.bind(("127.0.0.2", 0))
                link.connect(("127.0.0.1", port))
                link.setblocking(False)
                try:
                    link.send(ask)
                except OSError:
                    continue
            begun = time.monotonic()
            assert get(port, "/boot.ipxe")[0] == 200
            assert time.monotonic() - begun < 3


def _need_files(count: int) -> None:
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < count:
        pytest.skip(f"this machine allows {most} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(now, count), most))


def _open_to_nobody(tree: Path, tmp_path: Path) -> None:
    """Let the command run as nobody: it must get to the tree, and write its scratch folder."""
    scratch = tmp_path / "run/tmp"
    scratch.mkdir(parents=True)
    scratch.chmod(0o777)
    for place in (*tree.parents, *scratch.parents):
        if not place.stat().st_mode & 0o001:
            place.chmod(place.stat().st_mode | 0o111)
