"""Pack the programs and the drivers that stream a root into two small squashfs images.

They are mounted as they are: a client holds them packed, and needs nothing but the file system
that its live root has, too.
"""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from catalyst_pxeboot.stream.drivers import take_drivers
from catalyst_pxeboot.stream.tools import Tools
from catalyst_pxeboot.util.errors import CommandError
from catalyst_pxeboot.util.process import find_program, run

#: Folders that the programs find in the root that they run in, beside their own.
_FOLDERS: Final = ("dev", "drivers", "etc", "proc", "run", "sys", "tmp")
_SECONDS: Final = 600.0
#: The highest levels take many times as long for a few hundredths less.
_LEVELS: Final = {"gzip": "6", "zstd": "3"}
_BLOCK: Final = "256K"  # larger ones pack better, and cost more memory when they are read


@dataclass(frozen=True, slots=True)
class Packed:
    """The two images."""

    tools: Path
    drivers: Path


def pack_stream(
    tools: Tools,
    *,
    image: Path,
    offset: int,
    modules: str,
    compression: str,
    scratch: Path,
    time: int,
) -> Packed:
    """Pack `tools`, and the drivers in `modules` of the squashfs at `offset` of `image`.

    Both images are made in `scratch`, which must be there, by a `compression` of mksquashfs. Raises
    `SourceError` and `CommandError`.
    """
    packed = Packed(scratch / "tools.squashfs", scratch / "drivers.squashfs")
    with ThreadPoolExecutor(max_workers=1) as beside:
        root = _make_root(tools, scratch / "tools")
        made = beside.submit(_pack, root, packed.tools, compression, time)
        drivers = scratch / "drivers"
        drivers.mkdir()
        take_drivers(image, offset=offset, modules=modules, target=drivers)
        _pack(drivers, packed.drivers, compression, time)
        made.result()
    return packed


def _make_root(tools: Tools, root: Path) -> Path:
    for name in _FOLDERS:
        (root / name).mkdir(parents=True)
    (root / "etc/resolv.conf").symlink_to("/run/resolv.conf")
    for path, file in tools.files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
        target.chmod(0o755)
    return root


def _pack(folder: Path, target: Path, compression: str, time: int) -> None:
    program = find_program("mksquashfs")
    if program is None:
        raise CommandError("mksquashfs is missing", hint="install squashfs-tools")
    for path, _, _ in os.walk(folder):
        Path(path).chmod(0o755)  # whatever the umask
    level = _LEVELS.get(compression)
    run(
        [program, folder, target, "-comp", compression,
         *(["-Xcompression-level", level] if level else []), "-b", _BLOCK, "-noappend", "-all-root",
         "-no-xattrs", "-no-progress", "-quiet", "-mkfs-time", str(time), "-all-time", str(time)],
        timeout=_SECONDS,
    )  # fmt: skip
