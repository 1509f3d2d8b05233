"""Whether a live root brings up its network by itself: by its runlevels, or its systemd units.

An ISO's kernel arguments hold `nodhcp`, which is for a machine with a CD. A root with
NetworkManager in a runlevel gets an address all the same; another one has no network at all when
it was booted from the network, unless `dodhcp` is given (gentoo/livecd-tools, init.d/autoconfig).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from catalyst_pxeboot.util.errors import CommandError
from catalyst_pxeboot.util.process import find_program, read_output

OFF: Final = "nodhcp"
ON: Final = "dodhcp"

_FOLDERS: Final = ("etc/runlevels", "etc/systemd/system")
_ROOT: Final = "squashfs-root/"  # what unsquashfs puts before each name
_SECONDS: Final = 8.0
_MEMORY: Final = 512 << 20  # bytes of address space
_MOST: Final = 4 << 20  # bytes of the list; a real one has some 10 KiB

_SERVICE: Final = re.compile(
    r"etc/runlevels/(?P<runlevel>[^/]+)/(?P<script>NetworkManager|connman|dhcpcd|net\.(?!lo$)[^/]+)"
    r"|etc/systemd/system/[^/]+\.(?:wants|requires)/"
    r"(?P<unit>(?:NetworkManager|connman|dhcpcd|systemd-networkd)(?:@[^/]*)?\.service)"
)


@dataclass(frozen=True, slots=True)
class LiveNetwork:
    """What brings up the live root's network: `service`, or nothing, or not known for `why`."""

    service: str = ""
    why: str = ""

    @property
    def is_missing(self) -> bool:
        """Whether the live root is known to bring up no network."""
        return not self.service and not self.why

    def __str__(self) -> str:
        if self.service:
            return f"by {self.service}"
        if self.why:
            return f"not known: {self.why}"
        return f"nothing brings it up, so {ON} takes the place of {OFF}"


def read_network(image: Path, *, offset: int) -> LiveNetwork:
    """Look into the squashfs that begins at byte `offset` of `image`."""
    program = find_program("unsquashfs")
    if program is None:
        return LiveNetwork(why="unsquashfs is missing (squashfs-tools)")
    # One processor and small queues: nothing is unpacked.
    argv: list[str | Path] = [
        program,
        "-p",
        "1",
        "-da",
        "8",
        "-fr",
        "8",
        "-o",
        str(offset),
        "-l",
        image,
        *_FOLDERS,
    ]
    try:
        listed = read_output(argv, timeout=_SECONDS, limit=_MOST, memory=_MEMORY)
    except CommandError as error:
        return LiveNetwork(why=error.message)
    names = [
        line.removeprefix(_ROOT)
        for line in listed.decode(errors="replace").splitlines()
        if line.startswith(_ROOT)
    ]
    for found in filter(None, map(_SERVICE.fullmatch, names)):
        if found["unit"]:
            return LiveNetwork(service=found["unit"])
        return LiveNetwork(service=f"{found['script']} in the runlevel {found['runlevel']}")
    if not any(name.startswith(folder) for name in names for folder in _FOLDERS):
        return LiveNetwork(why="it has neither runlevels nor systemd units")
    return LiveNetwork()
