"""Many clients read a streamed root at once, each what a real one read when it booted.

tests/data/streamed-root-ranges.txt was recorded by nginx: the ranges in which a client of 352 MiB
read a squashfs of 340 MiB until the live root was up, about 8 MB.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from catalyst_pxeboot.util.process import find_program
from tests.integration.test_serve_http import free_port
from tests.support.serve_trees import make_tree, serving

pytestmark = pytest.mark.more

CLIENTS = 100
RECORDED = Path(__file__).parent.parent / "data/streamed-root-ranges.txt"
#: The root is this again and again; its length is no multiple of a block's.
PATTERN = bytes(number * number % 251 for number in range(1_000_003))
SIZE = 356_876_288


def recorded_ranges() -> Sequence[tuple[int, int]]:
    lines = RECORDED.read_text().split()
    return [(int(first), int(last)) for first, last in (line.split("-") for line in lines)]


def write_root(file: Path) -> None:
    file.unlink()
    with file.open("wb") as stream:
        for _ in range(SIZE // len(PATTERN)):
            stream.write(PATTERN)
        stream.write(PATTERN[: SIZE % len(PATTERN)])


def expected(first: int, last: int) -> bytes:
    start = first % len(PATTERN)
    count = min(last, SIZE - 1) - first + 1
    return (PATTERN * (2 + count // len(PATTERN)))[start : start + count]


async def boot(port: int, ranges: Sequence[tuple[int, int]]) -> tuple[float, int]:
    """Ask as one client does, on one connection; return seconds and bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    begun, received = time.monotonic(), 0
    for first, last in ranges:
        request = f"GET /image.squashfs HTTP/1.1\r\nHost: a\r\nRange: bytes={first}-{last}\r\n\r\n"
        writer.write(request.encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert head.startswith("http/1.1 206 ")
        length = int(head.split("content-length:")[1].split("\r\n")[0])
        body = await reader.readexactly(length)
        assert body == expected(first, last)
        received += length
    writer.close()
    return time.monotonic() - begun, received


async def boot_all(port: int) -> list[tuple[float, int]]:
    ranges = recorded_ranges()
    return await asyncio.gather(*(boot(port, ranges) for _ in range(CLIENTS)))


@pytest.mark.parametrize("kind", ["embedded", "nginx"])
def test_100_clients_get_every_byte_and_none_waits_for_long(kind: str, tmp_path: Path) -> None:
    if kind == "nginx" and find_program("nginx") is None:
        pytest.skip("nginx is missing (Debian: nginx-light)")
    tree = make_tree(tmp_path)
    write_root(tree / "image.squashfs")
    without = ("dnsmasq",) if kind == "nginx" else ("dnsmasq", "nginx")
    port = free_port()
    options = ("--interface", "lo", "--http-port", str(port), "--no-verify")
    with serving(tree, tmp_path / "run", *options, without=without):
        found = asyncio.run(boot_all(port))
    seconds = [spent for spent, _ in found]
    each = found[0][1]
    assert {received for _, received in found} == {each}
    assert each <= 10 << 20
    print(f"{kind}: {each} bytes each of {SIZE}; {statistics.median(seconds):.1f} s median,"
          f" {max(seconds):.1f} s slowest")  # fmt: skip
    assert max(seconds) <= 3 * statistics.median(seconds)
