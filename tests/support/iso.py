"""Makes ISOs as catalyst and mkisofs do, and spoils them."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

SECTOR = 2048
VOLUME = "Gentoo-amd64-20261122"
#: As catalyst's create-iso.sh has them, for grub-mkrescue and for mkisofs.
RESCUE = ("--mbr-force-bootable", "-volid", VOLUME, "-joliet", "-iso-level", "3")
MKISOFS = ("-R", "-l", "-J", "-V", VOLUME)


def rescue_iso(tree: Path, target: Path) -> Path:
    """Make an ISO of the folder `tree` by grub-mkrescue."""
    for program in ("grub-mkrescue", "xorriso", "mformat"):
        _need(program)
    return _make(["grub-mkrescue", *RESCUE, "-o", target, tree], target)


def plain_iso(tree: Path, target: Path, *options: str) -> Path:
    """Make an ISO of the folder `tree` by `xorriso -as mkisofs`."""
    _need("xorriso")
    return _make(["xorriso", "-as", "mkisofs", *(options or MKISOFS), "-o", target, tree], target)


def _need(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"no {program}: see tests/system-packages.sh")


def _make(argv: list[str | Path], target: Path) -> Path:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise RuntimeError(f"{argv[0]}: {done.stderr}")
    return target


def find_record(content: bytes | bytearray, name: bytes) -> int:
    """Return where the directory record of the plain file or folder `name` begins."""
    place = content.index(bytes([len(name)]) + name)
    return place - 32


def set_extent(content: bytearray, record: int, sector: int) -> None:
    """Let a directory record say that its content begins at `sector`."""
    struct.pack_into("<I", content, record + 2, sector)
    struct.pack_into(">I", content, record + 6, sector)


def set_length(content: bytearray, record: int, count: int) -> None:
    """Let a directory record say that its content has `count` bytes."""
    struct.pack_into("<I", content, record + 10, count)
    struct.pack_into(">I", content, record + 14, count)
