"""What the name of a live image tells: its subarch, its version stamp, its release type.

catalyst's folders are `<rel_type>/livecd-stage2-<subarch>-<version_stamp>`. An ISO has any name
that livecd/iso gives it; Gentoo's are `install-amd64-minimal-20261122T170000Z.iso`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from catalyst_pxeboot.model.arch import all_arches

_ENDING = ".iso"

#: What the last part of an ISO's name must be to be its version stamp.
_STAMP = re.compile(r"20[0-9]{2}.*|latest")


def read_name(source: Path, subarch: str, *, iso: bool) -> Mapping[str, str]:
    """Return subarch, version_stamp and rel_type, as far as the name and place of `source` tell.

    `subarch` is what the user said, or empty.
    """
    guess = _read_iso_name(source, subarch) if iso else _read_folder_name(source, subarch)
    if guess and source.parent.parent.name == "builds":
        guess["rel_type"] = source.parent.name
    return guess


def _names(subarch: str) -> list[str]:
    known = [name for arch in all_arches() for name in arch.subarches]
    # Longest first: a subarch may hold a hyphen (k8-sse3), and so may a stamp.
    return sorted([subarch] if subarch else known, key=len, reverse=True)


def _read_folder_name(source: Path, subarch: str) -> dict[str, str]:
    for name in _names(subarch):
        stamp = source.name.removeprefix(f"livecd-stage2-{name}-")
        if stamp != source.name:
            return {"subarch": name, "version_stamp": stamp}
    return {}


def _read_iso_name(source: Path, subarch: str) -> dict[str, str]:
    stem = plain_name(source)
    last = stem.rpartition("-")[2]
    guess = {"version_stamp": last} if _STAMP.fullmatch(last) else {}
    for name in _names(subarch):
        # What is called x86-64 is not x86.
        if re.search(rf"(^|-){re.escape(name)}(?!-64)(-|$)", stem):
            return {"subarch": name, **guess}
    return guess


def plain_name(source: Path) -> str:
    """Return the name of a folder or ISO without folders and without `.iso`."""
    name = Path(os.path.abspath(source)).name  # noqa: PTH100 - resolve() would rename a symlink
    return name[: -len(_ENDING)] if name.lower().endswith(_ENDING) else name


def default_output(source: Path) -> Path:
    """Return where the tree of `source` goes if the user does not say: the current folder."""
    return Path.cwd() / f"{plain_name(source)}-netboot"
