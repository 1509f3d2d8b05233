"""The one place that starts other programs."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from catalyst_pxeboot.util.errors import CommandError
from catalyst_pxeboot.util.text import one_line


def find_program(name: str) -> Path | None:
    """Find the program `name` on PATH or in the sbin folders, which a user's PATH lacks."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"
    found = shutil.which(name, path=path)
    return Path(found) if found else None


def run(
    argv: Sequence[str | Path],
    *,
    timeout: float = 120,
    env: Mapping[str, str] | None = None,
    stdin: BinaryIO | None = None,
) -> bytes:
    """Run `argv` without a shell and return what it wrote to standard output.

    The child sees a small fixed environment (the C locale, so that its messages and orders are
    the same everywhere), and no standard input but `stdin`. `timeout` is in seconds. Raises
    `CommandError` with the last line of its standard error.
    """
    name = Path(argv[0]).name
    try:
        done = subprocess.run(
            [str(word) for word in argv],
            stdin=stdin or subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
            env=_environment() | dict(env or {}),
        )
    except subprocess.TimeoutExpired as error:
        raise CommandError(
            f"{name} did not end within {timeout:.0f} s", hint="run it by hand to see why"
        ) from error
    except OSError as error:
        raise _not_started(name, error) from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        last = one_line(lines[-1]) if lines else "no message"
        raise CommandError(f"{name} failed with exit code {done.returncode}: {last}")
    return done.stdout


def read_output(
    argv: Sequence[str | Path],
    *,
    timeout: float,
    limit: int,
    memory: int,
    file_bytes: int | None = None,
) -> bytes:
    """Run a program on what someone else wrote; return what it wrote to standard output.

    It ends, at the latest, after `timeout` seconds or `limit` bytes, and gets `memory` bytes of
    address space; no file that it writes gets more than `file_bytes`. Raises `CommandError` for all
    of these and where the program fails; its messages are not kept.
    """
    name = Path(argv[0]).name
    try:
        process = subprocess.Popen(
            [str(word) for word in argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
        )
    except OSError as error:
        raise _not_started(name, error) from error
    with suppress(ProcessLookupError):  # it has ended already
        resource.prlimit(process.pid, resource.RLIMIT_AS, (memory, memory))
        if file_bytes is not None:
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    timer = threading.Timer(timeout, process.kill)
    timer.start()
    try:
        with process:
            found = process.stdout.read(limit + 1) if process.stdout else b""
            process.kill() if len(found) > limit else process.wait()
    finally:
        process.kill()
        timer.cancel()
    if len(found) > limit:
        raise CommandError(f"{name} wrote more than {limit} bytes")
    if process.returncode:
        raise CommandError(f"{name} failed with exit code {process.returncode}")
    return found


def _environment() -> dict[str, str]:
    """Return what every program sees: messages and orders are the same everywhere."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _not_started(name: str, error: OSError) -> CommandError:
    return CommandError(
        f"{name} could not be started: {error.strerror}", hint="install it or correct PATH"
    )
