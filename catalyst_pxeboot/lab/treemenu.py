"""What a netboot tree's menu means for a test: its console, its time, its memory.

A live image's own menu prints to the screen, as Gentoo's do. So that the console can be read, a
tree without a serial console is served with one kernel argument more in the loader's
configuration; the tree itself stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from catalyst_pxeboot.loader import LOADERS
from catalyst_pxeboot.model.arch import all_arches
from catalyst_pxeboot.model.loader import Firmware, Loader
from catalyst_pxeboot.tree.manifest import read_manifest
from catalyst_pxeboot.util.errors import VerifyError
from catalyst_pxeboot.util.text import mebibytes

_SPEED = 115200  # baud
_SERIAL = re.compile(r"(?:^|\s)console=(?:tty[A-Z]|hvc)")
_SPARE = 256  # MiB beside what the manifest asks for: it is an estimate for the live root's start
_STEP = 256  # MiB, as memory modules come


@dataclass(frozen=True, slots=True)
class TreeMenu:
    """A tree's menu. `has_serial_console`: its kernels print to one.

    `waits` says that the menu waits for a choice. `memory` is what the default entry
    asks for, in MiB, by loader and firmware. `console` is the serial console's device.
    """

    has_serial_console: bool = True
    waits: bool = False
    console: str = "ttyS0"
    memory: Mapping[tuple[str, str], int] = field(default_factory=dict)

    @property
    def arguments(self) -> str:
        """The kernel arguments that make it print there. The last console gets the prompt, too."""
        return f"console=tty0 console={self.console},{_SPEED}"

    def memory_for(self, loader: Loader, firmware: Firmware | None, least: int) -> int:
        """Return a client's memory in MiB: `least`, or more where the default entry needs it."""
        needed = self.memory.get((loader, firmware or Firmware.EFI), 0)
        if needed + _SPARE <= least:
            return least
        return -(-(needed + _SPARE) // _STEP) * _STEP


def read_menu(tree: Path) -> TreeMenu:
    """Read what the manifest says of the menu; what it does not say is taken as harmless."""
    try:
        _, manifest = read_manifest(tree)
    except VerifyError:
        return TreeMenu()
    menu, arch = manifest.menu, manifest.release.arch
    entry = next((entry for entry in menu.entries if entry.name == menu.default), None)
    if entry is None:
        return TreeMenu()
    return TreeMenu(
        has_serial_console=bool(_SERIAL.search(entry.arguments)),
        waits=menu.timeout is None,
        console=next((known.console for known in all_arches() if known.name == arch), "ttyS0"),
        memory={
            (loader, firmware): mebibytes(count)
            for loader, limits in (entry.limits or {}).items()
            for firmware, count in limits.memory_bytes.items()
        },
    )


def why_mute(tree: Path, loader: Loader) -> str:
    """Say why the loader's configuration cannot be served with another argument; or nothing."""
    if LOADERS[loader].self_contained:
        return "a unified kernel image has its command line inside, so no console could be added"
    if loader is Loader.GRUB and (tree / f"{LOADERS[loader].configs[0]}.sig").exists():
        return "GRUB takes only signed configurations, so no console could be added"
    return ""


def view_tree(tree: Path, folder: Path, changes: Mapping[str, bytes]) -> Path:
    """Make `folder` look like `tree` with other content for some files, and return it.

    The other files are symbolic links.
    """
    for source in sorted(tree.rglob("*")):
        if source.is_dir():
            continue
        name = source.relative_to(tree)
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if str(name) in changes:
            target.write_bytes(changes[str(name)])
            target.chmod(0o644)  # servers refuse what not everyone may read, whatever the umask
        else:
            target.symlink_to(source.resolve())
    return folder
