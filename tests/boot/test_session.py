"""A session of `qemu` in a terminal: the menu is used, and the terminal is as before at its end."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.boot.test_loaders import make_tree


class Terminal:
    """A terminal in which a program runs."""

    def __init__(self, master: int, slave: int, process: subprocess.Popen[bytes]) -> None:
        self.master, self.slave, self.process = master, slave, process
        self.seen = ""

    def wait_for(self, pattern: str, timeout: float) -> None:
        """Read until `pattern` has been shown."""
        deadline = time.monotonic() + timeout
        while not re.search(pattern, self.seen):
            left = deadline - time.monotonic()
            assert left > 0, f"{pattern!r} did not come:\n{self.seen[-2000:]}"
            if select.select([self.master], [], [], left)[0]:
                self.seen += os.read(self.master, 65536).decode(errors="replace")

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def state(self) -> list[object]:
        return termios.tcgetattr(self.slave)


@contextmanager
def terminal(*argv: str | Path) -> Iterator[Terminal]:
    """Run this project's command in a terminal of its own."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "catalyst_pxeboot", *argv],
        stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
    )  # fmt: skip
    try:
        yield Terminal(master, slave, process)
    finally:
        process.kill()
        process.wait()
        os.close(master)
        os.close(slave)


@pytest.fixture(scope="module")
def real_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree as a release has it: without a serial console, its menu waits."""
    return make_tree(
        tmp_path_factory.mktemp("session"), "genkernel-like",
        pxeboot__serial="", pxeboot__timeout="-1",
    )  # fmt: skip


@pytest.mark.timeout(300)
def test_a_session_in_a_terminal(real_tree: Path) -> None:
    """See the menu, move in it, and leave by Ctrl-A X; the terminal is as it was."""
    with terminal("qemu", real_tree, "--loader", "pxelinux", "--display", "serial") as shown:
        before = shown.state()
        shown.wait_for("Ctrl-A X ends it", 20)
        shown.wait_for("Power off", 90)
        assert shown.state() != before
        shown.type("\x1b[B\t")  # PXELINUX shows the entry's arguments to be edited
        shown.wait_for(r"dospeakup.*console=ttyS0,115200", 30)
        shown.type("\x01x")
        assert shown.process.wait(timeout=20) == 0, shown.seen[-2000:]
        assert shown.state() == before


@pytest.mark.more
@pytest.mark.timeout(300)
def test_a_session_that_is_ended_from_outside(real_tree: Path) -> None:
    with terminal("qemu", real_tree, "--loader", "pxelinux", "--display", "serial") as shown:
        before = shown.state()
        shown.wait_for("Booting from ROM", 60)
        shown.process.send_signal(signal.SIGINT)
        assert shown.process.wait(timeout=20) == 0, shown.seen[-2000:]
        assert shown.state() == before
