"""Readers for tests: formats/ for files that lie alone in a folder, and a configuration's lines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from catalyst_pxeboot.formats import initramfs, kconfig, kernel, squashfs
from catalyst_pxeboot.util.files import open_input


def read_kernel(path: Path) -> kernel.Kernel:
    with open_input(path) as file:
        return kernel.read_kernel(file)


def read_initramfs(path: Path) -> initramfs.Initramfs:
    with open_input(path) as file:
        return initramfs.read_initramfs(file)


def read_squashfs(path: Path) -> squashfs.Squashfs:
    with open_input(path) as file:
        return squashfs.read_squashfs(file)


def read_kconfig(path: Path) -> Mapping[str, str]:
    with open_input(path) as file:
        return kconfig.read_kconfig(file)


def rules(text: str) -> list[str]:
    """Return the lines that are no comment and not empty."""
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith(("#", "//"))]
