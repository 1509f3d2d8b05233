"""The command as a process: what it starts, and that nothing of it is left, however it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from catalyst_pxeboot.serve.ports import Protocol, find_owner, why_taken
from catalyst_pxeboot.services.children import Child, running
from catalyst_pxeboot.util.process import find_program
from tests.integration.test_serve_clients import server_processes
from tests.integration.test_serve_http import free_port
from tests.support.serve_trees import COMMAND, Served, make_tree, serving

pytestmark = pytest.mark.skipif(find_program("nginx") is None, reason="nginx is missing")

WITHOUT = {"nginx": ("dnsmasq",), "embedded": ("dnsmasq", "nginx")}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("tree"))


def options(port: int) -> tuple[str, ...]:
    return ("--interface", "lo", "--http-port", str(port))


def gone(processes: list[int]) -> bool:
    """Wait until none of them runs."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if not [process for process in processes if Path(f"/proc/{process}").exists()]:
            return True
        time.sleep(0.05)
    return False


def left_over(served: Served) -> list[str]:
    return [path.name for path in (served.output.parent / "tmp").iterdir()]


@pytest.mark.parametrize("kind", list(WITHOUT))
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_a_signal_stops_all(tree: Path, tmp_path: Path, kind: str, number: int, code: int) -> None:
    with serving(tree, tmp_path, *options(free_port()), without=WITHOUT[kind]) as served:
        processes = server_processes(served.process.pid)
        assert len(processes) >= 2  # the server and the guard
        assert len(left_over(served)) == 1
        assert served.stop(number) == code
        assert gone(processes)
        assert left_over(served) == []
        assert [event["event"] for event in served.read() if "event" in event] == (
            ["serving", "stopped"] if number == signal.SIGINT else ["serving"]
        )


@pytest.mark.parametrize("kind", list(WITHOUT))
def test_killed_outright_it_leaves_no_server(tree: Path, tmp_path: Path, kind: str) -> None:
    port = free_port()
    with serving(tree, tmp_path, *options(port), without=WITHOUT[kind]) as served:
        processes = server_processes(served.process.pid)
        assert served.stop(signal.SIGKILL) == -9
        assert gone(processes)
    with socket.create_server(("127.0.0.1", port)):
        pass
    # The next one removes the folder that is nobody's.
    (old,) = left_over(served)
    with serving(tree, tmp_path, *options(port), without=WITHOUT[kind]) as served:
        assert old not in left_over(served)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.skipif(find_program("dnsmasq") is None, reason="dnsmasq is missing")
def test_the_servers_account_owns_no_folder_that_root_reads(tree: Path, tmp_path: Path) -> None:
    with serving(tree, tmp_path, *options(free_port())) as served:
        (name,) = left_over(served)
        scratch = tmp_path / "tmp" / name
        assert (scratch / "dnsmasq/log").owner() == "nobody"
        assert {scratch.owner(), (scratch / "dnsmasq").owner()} == {"root"}


def test_a_server_that_ends_takes_all_with_it(tree: Path, tmp_path: Path) -> None:
    with serving(tree, tmp_path, *options(free_port()), without=WITHOUT["embedded"]) as served:
        processes = server_processes(served.process.pid)
        (web,) = [
            process for process in processes
            if b"services.web" in Path(f"/proc/{process}/cmdline").read_bytes()
        ]  # fmt: skip
        os.kill(web, signal.SIGKILL)
        assert served.process.wait(timeout=10) == 1
        assert "the web server ended with exit code -9" in served.errors.read_text()
        assert gone(processes)
        assert left_over(served) == []


def test_a_port_that_is_taken(tree: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [*COMMAND, "serve", str(tree), *options(port)],
            capture_output=True, text=True, timeout=60, check=False,
            env=dict(os.environ) | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )  # fmt: skip
        name = Path("/proc/self/comm").read_text().strip()
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"catalyst-pxeboot: error: TCP port {port} of 127.0.0.1 cannot be used: {name} (process"
        f" {os.getpid()}) has it; stop it, or take another: --http-port 8080"
    )


def test_a_tree_that_is_none(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "serve", str(tmp_path), "--interface", "lo"],
        capture_output=True, text=True, timeout=60, check=False,
        env=dict(os.environ) | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (
        1,
        f"catalyst-pxeboot: error: {tmp_path}/manifest.json: cannot be read: No such file or"
        " directory; give the folder of a netboot tree\n",
    )


def test_a_damaged_tree_is_not_served(tree: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(tree, copy)
    (copy / "boot/gentoo").write_bytes(b"x")
    (copy / "link").symlink_to("/etc/passwd")
    ask = [*COMMAND, "serve", str(copy), "--interface", "lo", "--json"]
    environment = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

    def problems() -> list[str]:
        done = subprocess.run(
            ask, capture_output=True, text=True, timeout=60, check=False, env=environment
        )
        assert done.returncode == 1
        return [found["message"] for found in json.loads(done.stdout)["problems"]]

    assert problems() == [f"{copy}/link: a symbolic link, which leads anywhere"]
    (copy / "link").unlink()
    assert problems()[0].startswith("boot/gentoo: 1 bytes, but ")


def test_a_port_and_its_owner() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        port = udp.getsockname()[1]
        assert f"(process {os.getpid()})" in find_owner(Protocol.UDP, port)
        assert why_taken(Protocol.UDP, "127.0.0.1", port).endswith(" has it")
    assert find_owner(Protocol.UDP, port) == ""
    assert why_taken(Protocol.UDP, "127.0.0.1", port) == ""


def test_a_stubborn_server_is_killed_with_its_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("catalyst_pxeboot.services.children._STOP_SECONDS", 0.3)
    script = f"trap '' TERM; sleep 60 & echo $! > {tmp_path}/worker; wait; wait"
    with running(
        "stubborn", ["/bin/sh", "-c", script], messages=tmp_path / "messages",
        ready=lambda: (tmp_path / "worker").exists(), log=tmp_path / "log",
    ) as child:  # fmt: skip
        assert isinstance(child, Child)
        time.sleep(0.1)
        worker = int((tmp_path / "worker").read_text())
    assert gone([child.process.pid, worker])
