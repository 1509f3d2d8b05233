"""Talk to a running QEMU by its machine protocol (QMP; QEMU's docs/interop/qmp-spec)."""

from __future__ import annotations

import json
import os
import shutil
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

from catalyst_pxeboot.util.errors import CommandError, from_os_error

_TIMEOUT = 10.0  # seconds for an answer


def save_screen(control: Path, file: Path) -> None:
    """Save a running client's screen as a PNG picture; `control` is QEMU's socket.

    `file` is replaced at once or not at all. Raises `CommandError` if QEMU cannot do it, and
    `PublishError` if `file` cannot be written.
    """
    taken = control.with_name(f"{control.name}.png")
    try:
        ask(control, "screendump", {"filename": str(taken), "format": "png"})
        place_file(taken, file)
    finally:
        with suppress(FileNotFoundError):
            taken.unlink()


def place_file(source: Path, file: Path) -> None:
    """Put a copy of `source` at `file` by one rename. Raises `PublishError`."""
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        shutil.copyfile(source, partial)
        partial.replace(file)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise from_os_error(error, f"{file} could not be written") from error


def ask(control: Path, command: str, arguments: dict[str, Any]) -> None:
    """Have QEMU run `command`; `control` is its socket. Raises `CommandError` if it refuses."""
    try:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(_TIMEOUT)
            link.connect(str(control))
            with link.makefile("rwb") as stream:
                stream.readline()  # the greeting
                for name, values in (("qmp_capabilities", {}), (command, arguments)):
                    stream.write(json.dumps({"execute": name, "arguments": values}).encode())
                    stream.flush()
                    _read_answer(stream.readline, name)
    except (OSError, ValueError) as error:
        raise CommandError(f"QEMU did not answer on its control socket: {error}") from error


def _read_answer(readline: Any, name: str) -> None:
    while line := readline():
        answer = json.loads(line)
        if "error" in answer:
            raise CommandError(
                f"QEMU refused {name}: {answer['error'].get('desc', '')}",
                hint="a picture of the screen needs QEMU 7.1 or newer, built with PNG",
            )
        if "return" in answer:
            return  # what else comes are events
    raise CommandError(f"QEMU ended before it answered {name}")
