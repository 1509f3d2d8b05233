"""What the name of a live image says: its subarch, its version stamp, its release type, its kind.

catalyst's folders are `<rel_type>/livecd-stage2-<subarch>-<version_stamp>`. An ISO has any name
that livecd/iso gives it, and whatever a browser made of that; Gentoo's are
`install-amd64-minimal-20261122T170000Z.iso`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from catalyst_pxeboot.formats.iso import read_volume_label
from catalyst_pxeboot.model.arch import all_arches
from catalyst_pxeboot.util.errors import SourceError

#: An ISO's ending; wget puts a number behind it where the name is taken.
_ENDING = re.compile(r"\.iso(\.\d+)?$", re.IGNORECASE)

#: What browsers and file managers add to a name that is taken: "(1)", "- Copy (2)", "copy 2", "2".
_COPY = re.compile(
    r"([ _]*\((copy ?)?\d*\)|[ _]+-[ _]+copy|[ _]+copy([ _]+\d+)?|[ _]+\d\d?)+$", re.I
)

#: Endings of downloads that are under way: Firefox and aria2, Chromium, Safari, Edge, Opera.
_UNFINISHED = (".part", ".aria2", ".crdownload", ".download", ".partial", ".opdownload")

#: catalyst's @TIMESTAMP@ or a date, somewhere in a name.
_TIMESTAMP = re.compile(r"(?<!\d)(20\d{2})(\d{2})(\d{2})(T\d{6}Z?)?(?!\d)", re.IGNORECASE)

#: What else the last part of an ISO's name can be to be its version stamp.
_STAMP = re.compile(r"20[0-9]{2}[A-Za-z0-9._+]*|latest")

#: Kinds of image, as they stand in the names of Gentoo's ISOs and in volume labels.
_KINDS = ("minimal", "livegui", "admincd", "livedvd", "livecd")

#: What livecd/type has before the kind.
_TYPE_PREFIX = "gentoo-release-"


def read_name(source: Path, subarch: str, *, iso: bool) -> Mapping[str, str]:
    """Return subarch, version_stamp, rel_type and kind, as far as `source`'s name and place say.

    `subarch` is what the user said, or empty. Raises `SourceError` for a download that is still
    under way.
    """
    if source.name.lower().endswith(_UNFINISHED):
        raise SourceError(
            f"{source}: is a download that is not finished", hint="wait for it, or start it again"
        )
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
    stem = _COPY.sub("", plain_name(source))
    label = read_volume_label(source)
    guess = {}
    last = stem.rpartition("-")[2]
    if _STAMP.fullmatch(last) and not _TIMESTAMP.match(last):
        guess["version_stamp"] = last
    for text in (stem, label):
        if "version_stamp" not in guess and (found := _TIMESTAMP.search(text)):
            guess["version_stamp"] = found[0].upper()
        if "kind" not in guess and (kind := find_kind(text)):
            guess["kind"] = kind
    for name in _names(subarch):
        # What is called x86-64 is not x86.
        word = rf"(^|[^a-z0-9]){re.escape(name)}(?![-_]64)([^a-z0-9]|$)"
        if re.search(word, stem, re.IGNORECASE):
            return {"subarch": name, **guess}
    return guess


def find_kind(text: str) -> str:
    """Return the kind of image that a name or a label has; empty if there is none."""
    return next((kind for kind in _KINDS if kind in text.lower()), "")


def make_title(subarch: str, stamp: str, *, kind: str, live_type: str, volume: str) -> str:
    """Return the title of an image: what it is, of what kind, and when it was made.

    `kind` is what its name says. Otherwise the kind is that of livecd/type (`live_type`), what
    is in `stamp` before a date, or that of livecd/volid (`volume`).
    """
    found = _TIMESTAMP.search(stamp)
    day = f"({found[1]}-{found[2]}-{found[3]})" if found else stamp
    kind = (
        kind
        or (live_type.startswith(_TYPE_PREFIX) and live_type.removeprefix(_TYPE_PREFIX))
        or (stamp[: found.start()].strip("-_.") if found else "")
        or find_kind(volume)
    )
    return " ".join(filter(None, ("Gentoo Linux", subarch, kind, day)))


def plain_name(source: Path) -> str:
    """Return the name of a folder or ISO without folders and without `.iso`."""
    name = Path(os.path.abspath(source)).name  # noqa: PTH100 - resolve() would rename a symlink
    return _ENDING.sub("", name)


def default_output(source: Path) -> Path:
    """Return where the tree of `source` goes if the user does not say: the current folder."""
    return Path.cwd() / f"{plain_name(source)}-netboot"
