"""What a live root has for a network: its services, and the folders of its kernels' modules.

A root brings its network up by itself by its runlevels, or its systemd units.

An ISO's kernel arguments hold `nodhcp`, which is for a machine with a CD. A root with
NetworkManager in a runlevel gets an address all the same; another one has no network at all when
it was booted from the network, unless `dodhcp` is given (gentoo/livecd-tools, init.d/autoconfig).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from catalyst_pxeboot.util.errors import CommandError
from catalyst_pxeboot.util.process import find_program, read_output

OFF: Final = "nodhcp"
ON: Final = "dodhcp"

_FOLDERS: Final = ("etc/runlevels", "etc/systemd/system")
_MODULE_INDEX: Final = ("lib/modules/*/modules.dep", "usr/lib/modules/*/modules.dep")
_MODULES: Final = re.compile(
    r"(?P<folder>(?:usr/)?lib/modules/(?P<version>[A-Za-z0-9._+-]+))/modules\.dep"
)
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


@dataclass(frozen=True, slots=True)
class LiveContents:
    """What is in a live root: its network, and folders of modules by the kernel's version."""

    network: LiveNetwork
    modules: Mapping[str, str] = field(default_factory=dict)


def read_contents(image: Path, *, offset: int) -> LiveContents:
    """Look into the squashfs that begins at byte `offset` of `image`."""
    program = find_program("unsquashfs")
    if program is None:
        return LiveContents(LiveNetwork(why="unsquashfs is missing (squashfs-tools)"))

    def names(*wanted: str) -> list[str]:
        # One processor and small queues: nothing is unpacked.
        argv: list[str | Path] = [
            program, "-p", "1", "-da", "8", "-fr", "8", "-o", str(offset), "-l", image, *wanted
        ]  # fmt: skip
        listed = read_output(argv, timeout=_SECONDS, limit=_MOST, memory=_MEMORY)
        lines = listed.decode(errors="replace").splitlines()
        return [line.removeprefix(_ROOT) for line in lines if line.startswith(_ROOT)]

    try:
        network = _find_network(names(*_FOLDERS))
        # One at a time: unsquashfs 4.5 crashes where it looks for others beside one that would lie
        # behind a symbolic link, as lib is in a live root of today.
        modules: dict[str, str] = {}
        for pattern in _MODULE_INDEX:
            for found in filter(None, map(_MODULES.fullmatch, names(pattern))):
                modules[found["version"]] = found["folder"]
    except CommandError as error:
        return LiveContents(LiveNetwork(why=error.message))
    return LiveContents(network, modules)


def _find_network(names: Sequence[str]) -> LiveNetwork:
    for found in filter(None, map(_SERVICE.fullmatch, names)):
        if found["unit"]:
            return LiveNetwork(service=found["unit"])
        return LiveNetwork(service=f"{found['script']} in the runlevel {found['runlevel']}")
    if not any(name.startswith(folder) for name in names for folder in _FOLDERS):
        return LiveNetwork(why="it has neither runlevels nor systemd units")
    return LiveNetwork()
