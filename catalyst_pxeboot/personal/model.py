"""What a machine gets beside the stock image: keys, files, a script, a name."""

from __future__ import annotations

import stat
from dataclasses import dataclass

from catalyst_pxeboot.personal.files import OverlayMember
from catalyst_pxeboot.personal.keys import PublicKey
from catalyst_pxeboot.util.text import size

#: A member's header, its name and what rounds it up, in an archive; and the archive's own scripts.
_MEMBER_BYTES, _OWN_BYTES = 256, 16 << 10


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

    def __str__(self) -> str:
        files = [file for file in self.overlay if not stat.S_ISDIR(file.mode)]
        total = size(sum(len(file.content) for file in files))
        parts = (
            _count(len(self.keys), "key"),
            f"{_count(len(files), 'file')} of {total}" if files else "",
            "a script" if self.script else "",
            f"hostname {self.hostname}" if self.hostname else "",
            f"keymap {self.keymap}" if self.keymap else "",
        )
        return ", ".join(filter(None, parts))

    @property
    def reports(self) -> bool:
        """Whether the live system reports to the boot server that it is up."""
        return bool(self.keys or self.script)

    @property
    def arguments(self) -> tuple[str, ...]:
        """The kernel arguments by which a live image does its part.

        Source: the boot options of Gentoo's live images (livecd-tools); dracut.cmdline(7).
        """
        keymap = (f"keymap={self.keymap}", f"rd.vconsole.keymap={self.keymap}")
        return (*(("dosshd",) if self.keys else ()), *(keymap if self.keymap else ()))

    @property
    def bytes(self) -> int:
        """An estimate of the bytes of its archive."""
        files = sum(len(member.content) + _MEMBER_BYTES for member in self.overlay)
        return files + sum(len(key.line) for key in self.keys) + len(self.script) + _OWN_BYTES


NO_PERSONAL = Personal()


@dataclass(frozen=True, slots=True)
class Host:
    """A machine with something of its own.

    `name` is its MAC address or SMBIOS UUID, with hyphens, `where` the file that says so. It boots
    `entry` at once; if that is empty, it gets the menu.
    """

    name: str
    where: str
    personal: Personal = NO_PERSONAL
    entry: str = ""
    arguments: tuple[str, ...] = ()


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number > 1)}" if number else ""
