"""What one machine, or all of them, get beside the stock image."""

from __future__ import annotations

from dataclasses import dataclass

from catalyst_pxeboot.personal.files import OverlayMember
from catalyst_pxeboot.personal.keys import PublicKey


@dataclass(frozen=True, slots=True)
class Personal:
    """All of it; what is empty is not given."""

    keys: tuple[PublicKey, ...] = ()
    overlay: tuple[OverlayMember, ...] = ()
    script: bytes = b""
    hostname: str = ""
    keymap: str = ""

    def __bool__(self) -> bool:
        return bool(self.keys or self.overlay or self.script or self.hostname or self.keymap)

    @property
    def reports(self) -> bool:
        """Whether the live system has something to tell the boot server."""
        return bool(self.keys or self.script)
