"""A client's screen, by QEMU's control socket: its picture, and the text on it."""

from __future__ import annotations

import re
from pathlib import Path

from catalyst_pxeboot.lab.qmp import save_screen, take_screen
from catalyst_pxeboot.lab.screentext import find_font, read_screen
from catalyst_pxeboot.util.errors import PxebootError

_CURSOR = re.compile("[_█]$")


class Screen:
    """A client's screen. With `file` its picture is saved there at the end.

    `fault` says why it was not.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self.fault = ""
        self._control: Path | None = None

    def control(self, scratch: Path) -> Path:
        """Name the socket by which QEMU is asked, in `scratch`."""
        self._control = scratch / "control"
        return self._control

    def save(self, *, running: bool) -> None:
        """Save the picture, or keep the reason why not."""
        if self.file is None:
            return
        if self._control is None or not running:
            self.fault = "no picture of the screen: the client had stopped"
            return
        try:
            save_screen(self._control, self.file)
        except PxebootError as error:
            self.fault = f"no picture of the screen: {error}"

    def read(self) -> tuple[str, ...]:
        """Read the lines of text on it, without empty ones; none where that does not work."""
        font = find_font()
        if self._control is None or not font:
            return ()
        try:
            lines = read_screen(take_screen(self._control), font)
        except PxebootError:  # it is a second witness: without it the serial console is left
            return ()
        lines = tuple(_CURSOR.sub("", line).rstrip() for line in lines)
        return tuple(line for line in lines if line)
