"""Small netboot trees as a menu over many of them sees them: a manifest, and files of its sizes.

The manifests are as the schema wants them; the tests of `releases` compare them with it, and build
real trees besides.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from catalyst_pxeboot.loader import LOADERS
from catalyst_pxeboot.model.loader import Loader

MIB = 1024 * 1024

#: By catalyst's subarch: the architecture, what its kernels are for, the loaders it has by default.
KINDS = {
    "amd64": ("amd64", "x86_64", (Loader.IPXE, Loader.PXELINUX, Loader.GRUB)),
    "i486": ("x86", "i386", (Loader.IPXE, Loader.PXELINUX, Loader.GRUB)),
    "i686": ("x86", "i386", (Loader.IPXE, Loader.PXELINUX, Loader.GRUB)),
    "arm64": ("arm64", "arm64", (Loader.IPXE, Loader.GRUB)),
    "armv7a_hardfp": ("arm", "arm", (Loader.IPXE, Loader.GRUB, Loader.UBOOT)),
    "rv64_lp64d": ("riscv64", "riscv64", (Loader.IPXE, Loader.GRUB)),
}

_PAYLOAD = (
    ("boot/gentoo", "kernel", 16384),
    ("boot/gentoo.igz", "initramfs", 304),
    ("boot/root.cpio-header", "root-header", 132),
    ("image.squashfs", "squashfs", 65536),
)
_INITRDS = ["boot/gentoo.igz", "boot/root.cpio-header", "image.squashfs"]


def make_manifest(
    subarch: str = "amd64",
    stamp: str = "20261122T170000Z",
    *,
    rel_type: str = "23.0-default",
    title: str | None = None,
    machine: str | None = None,
    loaders: Sequence[Loader] | None = None,
    memory_mib: int | None = 800,
) -> dict[str, Any]:
    """Return the manifest of a tree for `subarch`; `stamp` is its time, too."""
    arch, native, usual = KINDS[subarch]
    names = [str(loader) for loader in (usual if loaders is None else loaders)]
    configs = sorted(path for name in names for path in LOADERS[Loader(name)].configs)
    files = [
        *((path, "config", 100 + len(path)) for path in configs),
        *_PAYLOAD,
        ("README.txt", "text", 50),
    ]
    limits = {
        name: {
            "wire_bytes": 90000,
            "memory_bytes": dict.fromkeys(_firmware(arch, name), memory_mib * MIB),
            "warnings": [],
        }
        for name in names
        if memory_mib is not None
    }
    time = f"{stamp[:4]}-{stamp[4:6]}-{stamp[6:8]}T{stamp[9:11]}:{stamp[11:13]}:{stamp[13:15]}Z"
    return {
        "format": 1,
        "generator": {"name": "catalyst-pxeboot", "version": "0.1.0"},
        "release": {
            "arch": arch,
            "subarch": subarch,
            "rel_type": rel_type,
            "version_stamp": stamp,
            "title": title or f"Gentoo Linux {subarch} {stamp}",
            "time": time,
        },
        "kernels": [
            {
                "name": "gentoo",
                "path": "boot/gentoo",
                "machine": machine or native,
                "image": "bzImage",
                "version": "6.1.0-test",
                "efi_stub": True,
                "initramfs": {
                    "path": "boot/gentoo.igz",
                    "generator": "dracut",
                    "version": "059",
                    "compression": "xz",
                    "unpacked_bytes": 110,
                    "modules": ["base", "dmsquash-live"],
                },
            }
        ],
        "squashfs": {
            "path": "image.squashfs",
            "bytes": 65536,
            "compression": "xz",
            "version": "4.0",
            "member": "image.squashfs.img",
        },
        "menu": {
            "default": "gentoo",
            "timeout": 10,
            "entries": [
                {
                    "name": "gentoo",
                    "title": "Boot LiveCD (kernel: gentoo)",
                    "kernel": "boot/gentoo",
                    "kernels": dict.fromkeys(names, "boot/gentoo"),
                    "arguments": "dokeymap",
                    "root": "embedded",
                    "checked": False,
                    "initrds": dict.fromkeys(names, _INITRDS),
                    "limits": limits,
                }
            ],
        },
        "loaders": {name: {"missing": []} for name in names},
        "notes": [],
        "left_out": [],
        "files": [
            {
                "path": path,
                "bytes": count,
                "role": role,
                "digests": {
                    name: hashlib.new(name, path.encode()).hexdigest()
                    for name in ("blake2b", "sha256", "sha512")
                },
            }
            for path, role, count in sorted(files)
        ],
        "sums": {"SHA256SUMS": ["sha256"]},
    }


def _firmware(arch: str, loader: str) -> list[str]:
    if loader == Loader.PXELINUX:
        return ["bios"]
    return ["bios", "efi"] if arch in ("amd64", "x86") else ["efi"]


def write_tree(tree: Path, manifest: dict[str, Any]) -> Path:
    """Write a tree: its files are holes of the right sizes."""
    for file in manifest["files"]:
        path = tree / file["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as stream:
            stream.truncate(file["bytes"])
    (tree / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    return tree
