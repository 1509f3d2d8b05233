"""Rows of the table of boot paths, and stand-ins for programs and trees."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.boot_paths import find_paths
from tests.support.release_trees import make_manifest


def write_script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


ROW_1 = find_paths(["bios-ipxe"])[0]
ROW_6 = find_paths(["x64-http-ipxe"])[0]
PXELINUX = find_paths(["bios-pxelinux"])[0]
LPXELINUX = find_paths(["bios-lpxelinux"])[0]
PROXY = find_paths(["proxy-bios-pxelinux"])[0]
FETCHED = {"http:boot.ipxe": 6633, "http:image.squashfs": 1 << 20, "tftp:undionly.kpxe": 74213}


def mute_manifest() -> str:
    """Return the manifest of a tree whose default entry has no serial console."""
    manifest = make_manifest()
    (entry,) = (entry for entry in manifest["menu"]["entries"] if entry["name"] == "gentoo")
    memory = {"bios": 943718400, "efi": 2140143616}
    entry["limits"] = {"ipxe": {"wire_bytes": 1, "memory_bytes": memory, "warnings": []}}
    entry["arguments"] = "cdroot console=tty0"
    serial = {**entry, "name": "serial", "arguments": "cdroot console=ttyS0,115200"}
    manifest["menu"] = {"default": "gentoo", "timeout": None, "entries": [serial, entry]}
    return json.dumps(manifest)


MUTE = mute_manifest()
