"""Fifty clients at once fetch a whole tree: every byte right, nobody starved, memory flat."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from catalyst_pxeboot.util.process import find_program
from tests.integration.test_serve_http import free_port
from tests.support import builders
from tests.support.serve_trees import make_tree, serving

CLIENTS = 50
#: The largest resident memory that fifty transfers may add to all of a server's processes.
MORE_KIB = 24 << 10


def fetch_tree(port: int, digests: dict[str, str]) -> tuple[float, list[str]]:
    """Fetch all files over one connection; return the seconds and the names that were wrong."""
    begun = time.monotonic()
    wrong = []
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    for name, digest in digests.items():
        link.request("GET", f"/{name}")
        answer = link.getresponse()
        sha = hashlib.sha256()
        while chunk := answer.read(256 << 10):
            sha.update(chunk)
        if answer.status != 200 or sha.hexdigest() != digest:
            wrong.append(name)
    link.close()
    return time.monotonic() - begun, wrong


def server_processes(process: int) -> list[int]:
    """Return the servers below the command, all generations."""
    found: list[int] = []
    for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
        found += [int(child), *server_processes(int(child))]
    return found


def resident_kib(processes: list[int]) -> int:
    """Add up the memory of their own that processes have."""
    total = 0
    for process in processes:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
    return total


def run_clients(kind: str, folder: Path, mib: int) -> dict[str, float]:
    """Serve a tree of so many MiB, let the clients fetch it twice, and return the figures."""
    if kind == "nginx" and find_program("nginx") is None:
        pytest.skip("nginx is missing (Debian: nginx-light)")
    squashfs = builders.squashfs_image()
    squashfs += os.urandom((mib << 20) - len(squashfs))
    tree = make_tree(folder, squashfs=squashfs)
    manifest = json.loads((tree / "manifest.json").read_text())
    digests = {file["path"]: file["digests"]["sha256"] for file in manifest["files"]}
    port = free_port()
    without = ("dnsmasq",) if kind == "nginx" else ("dnsmasq", "nginx")
    options = ("--interface", "lo", "--http-port", str(port))
    with serving(tree, folder / "run", *options, without=without) as served:
        assert served.events[0]["http"] == kind
        processes = server_processes(served.process.pid)
        before = resident_kib(processes)
        begun = time.monotonic()
        with ThreadPoolExecutor(CLIENTS) as pool:
            results = list(pool.map(lambda _: fetch_tree(port, digests), range(CLIENTS)))
        whole = time.monotonic() - begun
        after = resident_kib(processes)
        served.wait_for(lambda _event: len(served.kinds("root")) == CLIENTS)
        assert served.kinds("broken") == served.kinds("refused") == []
    assert [wrong for _, wrong in results if wrong] == []
    seconds = [duration for duration, _ in results]
    figures = {
        "slowest": max(seconds), "median": statistics.median(seconds), "before": before,
        "after": after, "MiB/s": CLIENTS * mib / whole,
    }  # fmt: skip
    print(kind, figures)
    assert figures["slowest"] < 5 * figures["median"], figures
    assert after - before < MORE_KIB, figures
    return figures


@pytest.mark.parametrize("kind", ["nginx", "embedded"])
def test_fifty_clients(kind: str, tmp_path: Path) -> None:
    run_clients(kind, tmp_path, 30)


@pytest.mark.more
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", ["nginx", "embedded"])
def test_fifty_clients_of_a_release(kind: str, tmp_path: Path) -> None:
    run_clients(kind, tmp_path, 700)
