"""Servers as child processes: started, watched, stopped, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from catalyst_pxeboot.util.errors import CommandError
from catalyst_pxeboot.util.text import one_line

START_SECONDS = 10.0  # for a server to come up
_STOP_SECONDS = 5.0  # for a process to end when it is asked to

# It reads each server's process id and ends them when its standard input closes: when this process
# has gone, however it went. (The kernel's own PR_SET_PDEATHSIG is lost when a server changes its
# user.)
_GUARD = 'while read -r id; do ids="$ids $id"; done; kill -TERM $ids'


@dataclass(frozen=True, slots=True)
class Child:
    """A running server, and where it says what is wrong."""

    name: str
    process: subprocess.Popen[bytes]
    said: tuple[Path, ...]

    def check(self) -> None:
        """Raise `CommandError` with the last lines of its logs if the server has ended."""
        code = self.process.poll()
        if code is not None:
            raise CommandError(f"{self.name} ended with exit code {code}: {last_lines(self.said)}")


class Guard:
    """Ends servers whose starter was killed outright."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the starter
        )

    def watch(self, process: int) -> None:
        """End this process too."""
        if self._process.stdin:
            with suppress(BrokenPipeError):
                self._process.stdin.write(f"{process}\n".encode())
                self._process.stdin.flush()

    def close(self) -> None:
        """Stop guarding: the servers have been stopped."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin:
            with suppress(BrokenPipeError):
                self._process.stdin.close()


@contextmanager
def guarding() -> Iterator[Guard]:
    """Give a guard while the context lasts."""
    guard = Guard()
    try:
        yield guard
    finally:
        guard.close()


@contextmanager
def running(
    name: str,
    argv: Sequence[str | Path],
    *,
    messages: Path,
    ready: Callable[[], bool],
    log: Path,
    guard: Guard | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[Child]:
    """Run a server until the context ends; enter when it is `ready`.

    `messages` receives its output; `log` is its own. It sees a small environment and `env`.
    Raises `CommandError` if it does not start.
    """
    said = (messages, log)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(messages, flags, 0o600), "wb") as sink:
        try:
            process = subprocess.Popen(
                [str(word) for word in argv],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us: we stop them in order
                umask=0o022,  # what a server makes is for itself to write, whatever ours is
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", **(env or {})},
            )
        except OSError as error:
            raise CommandError(f"{name} could not be started: {error.strerror}") from error
    try:
        if guard:
            guard.watch(process.pid)
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise CommandError(f"{name} did not start: {last_lines(said, count=1)}")
            time.sleep(0.02)
        yield Child(name, process, said)
    finally:
        _stop(process)


def last_lines(files: Sequence[Path], *, count: int = 3) -> str:
    """Return the last lines of servers' logs, as one."""
    lines = "".join(read_text(file) for file in files).strip().splitlines()[-count:]
    return " | ".join(one_line(line) for line in lines) or "no message"


def read_text(file: Path) -> str:
    """Read a log; one that is not there yet is empty."""
    try:
        return file.read_text("utf-8", "replace")
    except FileNotFoundError:
        return ""


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a server and all that it started; a second Ctrl-C waits until that is done."""
    waiting = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        end_process(process)
        with suppress(ProcessLookupError):  # a server's workers, if it was killed
            os.killpg(process.pid, signal.SIGKILL)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, waiting)


def end_process(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, kill it if it does not, and wait until it is gone."""
    process.terminate()
    try:
        process.wait(timeout=_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
