"""The lab's web server: our own, as a process beside this one, and what its log shows."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from catalyst_pxeboot.services.children import read_text, running
from catalyst_pxeboot.services.logs import HttpBegin, HttpEnd, parse_web
from catalyst_pxeboot.services.webcommand import INSTALL, has_web_server, web_command
from catalyst_pxeboot.util.errors import CommandError
from catalyst_pxeboot.util.tempdir import scratch_folder

_LAST_SECONDS = 2.0  # for the log to show the end of what a client already has


@dataclass(frozen=True, slots=True)
class WebServer:
    """A running web server: its TCP port and its log."""

    port: int
    log: Path

    @property
    def requests(self) -> tuple[HttpEnd, ...]:
        """All answered requests, in the order in which they ended."""
        deadline = time.monotonic() + _LAST_SECONDS
        while True:
            whole, _, _ = read_text(self.log).rpartition("\n")
            ended = []
            under_way = set()
            for line in map(parse_web, whole.splitlines()):
                if isinstance(line, HttpBegin):
                    under_way.add((line.client, line.port))
                elif line:
                    under_way.discard((line.client, line.port))
                    ended.append(line)
            if not under_way or time.monotonic() > deadline:
                return tuple(ended)
            time.sleep(0.02)

    @property
    def fetched(self) -> Mapping[str, int]:
        """Bytes sent of each path, such as `/boot.ipxe`; one that was refused is there with 0."""
        sent: Counter[str] = Counter()
        for request in self.requests:
            sent[request.path] += request.bytes if request.status in (200, 206) else 0
        return dict(sent)


def check_web_server() -> None:
    """Raise `CommandError` if the web server cannot run for want of a package."""
    if not has_web_server():
        raise CommandError(
            "the Python package aiohttp is missing, which the lab's web server takes",
            hint=f"install {INSTALL}",
        )


@contextmanager
def serve_tree(
    root: Path,
    *,
    address: str = "127.0.0.1",
    port: int = 0,
    follow: bool = False,
    inside: Callable[[Sequence[str]], Sequence[str]] = lambda argv: argv,
) -> Iterator[WebServer]:
    """Serve the folder `root` while the context lasts; port 0 takes a free one.

    QEMU's user network reaches 127.0.0.1 as 10.0.2.2. `follow` follows symbolic links that lead
    out of `root`. `inside` is how a command is run in a network namespace. Raises `CommandError`.
    """
    check_web_server()
    with scratch_folder() as scratch:
        settings, log, ready = (scratch / name for name in ("web.json", "access.log", "web.pid"))
        command = web_command(
            settings, root=root, follow=follow, address=address, port=port, log=log, ready=ready
        )
        settings.write_text(command.settings, "utf-8")
        with running(
            "the web server", inside(command.argv), messages=scratch / "messages",
            ready=lambda: read_text(ready).endswith("\n"), log=scratch / "web.log",
            env=command.env,
        ):  # fmt: skip
            yield WebServer(int(read_text(ready).split()[1]), log)
