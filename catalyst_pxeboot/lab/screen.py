"""A picture of a client's screen, by QEMU's control socket."""

from __future__ import annotations

from pathlib import Path

from catalyst_pxeboot.lab.qmp import save_screen
from catalyst_pxeboot.util.errors import PxebootError


class Screen:
    """A client's screen, whose picture is saved as `file` at the end.

    `fault` says why it was not.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.fault = ""
        self._control: Path | None = None

    def control(self, scratch: Path) -> Path:
        """Name the socket by which QEMU is asked, in `scratch`."""
        self._control = scratch / "control"
        return self._control

    def save(self, *, running: bool) -> None:
        """Save the picture, or keep the reason why not."""
        if self._control is None or not running:
            self.fault = "no picture of the screen: the client had stopped"
            return
        try:
            save_screen(self._control, self.file)
        except PxebootError as error:
            self.fault = f"no picture of the screen: {error}"
