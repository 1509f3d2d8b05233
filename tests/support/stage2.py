"""Small livecd-stage2 trees made by hand, and the settings of a release spec."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.support import builders
from tests.support.paths import DATA

# Compressed once and kept, as another version of a compressor gives other bytes.
INITRAMFS = DATA / "initramfs"
STAMP = "20261122T170000Z"
TIME = 1_795_366_800  # 2026-11-22 17:00:00 UTC
#: The spec of the README.
SPEC = f"""subarch: amd64
version_stamp: {STAMP}
target: pxeboot
rel_type: 23.0-default
source_subpath: 23.0-default/livecd-stage2-amd64-{STAMP}
"""

MakeStage2 = Callable[..., Path]


def write_stage2(
    root: Path,
    *,
    kernel: bytes | None = None,
    initramfs: bytes | None = None,
    squashfs: bytes | None = None,
    grub_cfg: str | None = "amd64-dracut.cfg",
    config: str | None = None,
    extra: Mapping[str, bytes] | None = None,
) -> Path:
    """Write a livecd-stage2 tree as catalyst leaves it; None leaves a part as it usually is."""
    (root / "boot/grub").mkdir(parents=True)
    if initramfs is None:
        initramfs = (INITRAMFS / "dracut-059.xz").read_bytes()
    files = {
        "boot/gentoo": builders.bzimage() if kernel is None else kernel,
        "boot/gentoo.igz": initramfs,
        "boot/System-gentoo.map": b"0 A _text\n",
        "image.squashfs": builders.squashfs_image() if squashfs is None else squashfs,
        "livecd": b"",
        "README.txt": b"A live image.\n",
        **(extra or {}),
    }
    if config is not None:
        files["boot/gentoo-config"] = config.encode()
    if grub_cfg is not None:
        sample = DATA / "grub-cfg" / grub_cfg
        files["boot/grub/grub.cfg"] = sample.read_bytes() if sample.exists() else grub_cfg.encode()
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (TIME, TIME))
    (root / "boot/gentoo.igz").chmod(0o600)  # as dracut leaves it
    return root


def storedir_stage2(storedir: Path, *, subarch: str = "amd64") -> Path:
    """Return where catalyst puts the livecd-stage2 build of `subarch`."""
    return storedir / "builds/23.0-default" / f"livecd-stage2-{subarch}-{STAMP}"


def release_settings(storedir: Path, **changes: object) -> dict[str, object]:
    """Return catalyst's settings for a release spec, with `changes` (`_` stands for `/`)."""
    settings: dict[str, object] = {
        "storedir": str(storedir),
        "digests": {"blake2b", "sha512"},
        "digest_format": "linux",
        "options": [],
        "subarch": "amd64",
        "version_stamp": STAMP,
        "target": "pxeboot",
        "rel_type": "23.0-default",
        "profile": "default/linux/amd64/23.0/no-multilib",
        "snapshot_treeish": "stable",
        "source_subpath": f"23.0-default/livecd-stage2-amd64-{STAMP}",
    }
    return settings | {key.replace("__", "/"): value for key, value in changes.items()}
