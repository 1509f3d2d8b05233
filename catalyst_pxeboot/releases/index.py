"""releases.json: what lies below the folder, for other programs, and what the next run goes by.

index.schema.json describes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalyst_pxeboot import __version__
from catalyst_pxeboot.releases.scan import Release, Stamp, TreeConfig
from catalyst_pxeboot.tree.manifest import GENERATOR, parse_count, parse_text, parse_word
from catalyst_pxeboot.util.errors import PublishError
from catalyst_pxeboot.util.files import read_regular

INDEX = "releases.json"
FORMAT = 1

_MAX_INDEX = 64 * 1024 * 1024  # bytes

#: The menu of each loader that has one. Its template has the same name in templates/menu/, and
#: `.j2` behind it.
MENUS: Mapping[str, str] = {
    "grub": "grub.cfg",
    "ipxe": "menu.ipxe",
    "pxelinux": "pxelinux.cfg/default",
}

#: The same for people; templates/menu/ has its template, too.
PAGE = "index.html"

#: All that may be written beside the list.
OWN = frozenset({*MENUS.values(), PAGE})


@dataclass(frozen=True, slots=True)
class Index:
    """What releases.json says.

    `menus` are the files written beside it, each with its sha256; `templates` is the sha256 of what
    they were rendered by. `releases` are sorted by path.
    """

    releases: tuple[Release, ...]
    menus: Mapping[str, str]
    templates: str


def read_index(path: Path) -> Index | None:
    """Read releases.json at `path`; None if there is none.

    Raises `PublishError` if this program did not write it, or not in this format.
    """
    try:
        if path.is_symlink():
            raise ValueError("a link")
        index = json.loads(read_regular(path, limit=_MAX_INDEX))
        if index["generator"]["name"] != GENERATOR or index["format"] != FORMAT:
            raise ValueError("another program or format")
        return Index(
            releases=tuple(_parse_release(release) for release in index["releases"]),
            menus={_parse_menu(name): parse_text(sha) for name, sha in index["menus"].items()},
            templates=parse_text(index["templates"]),
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PublishError(
            f"{path}: cannot be read: {error.strerror}", hint="give a folder that you may write"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise PublishError(
            f"{path}: is not a list that this {GENERATOR} wrote, so nothing is replaced",
            hint="move it away, or give another folder",
        ) from error


def render_index(index: Index) -> bytes:
    """Return releases.json."""
    data = {
        "format": FORMAT,
        "generator": {"name": GENERATOR, "version": __version__},
        "templates": index.templates,
        "menus": dict(sorted(index.menus.items())),
        "releases": [_release(release) for release in index.releases],
    }
    return (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode()


def _release(release: Release) -> dict[str, Any]:
    return {
        "path": release.path,
        "arch": release.arch,
        "subarch": release.subarch,
        "rel_type": release.rel_type,
        "version_stamp": release.version_stamp,
        "title": release.title,
        "time": release.time,
        "machine": release.machine,
        "loaders": {
            loader: {
                "config": config.path,
                "bytes": config.bytes,
                "entry": config.entry,
                "memory_bytes": dict(config.memory),
            }
            for loader, config in release.configs.items()
        },
        "manifest": {
            "inode": release.stamp.inode,
            "bytes": release.stamp.bytes,
            "ctime_ns": release.stamp.ctime_ns,
        },
    }


def _parse_menu(name: str) -> str:
    # What this names may be replaced and removed.
    if name not in OWN:
        raise ValueError(f"{name!r} is no menu")
    return name


def _parse_release(release: Mapping[str, Any]) -> Release:
    manifest = release["manifest"]
    return Release(
        path=parse_text(release["path"]),
        arch=parse_text(release["arch"]),
        subarch=parse_text(release["subarch"]),
        rel_type=parse_word(release["rel_type"]),
        version_stamp=parse_word(release["version_stamp"]),
        title=parse_text(release["title"]),
        time=parse_text(release["time"]),
        machine=parse_text(release["machine"]),
        configs={
            loader: TreeConfig(
                path=parse_text(config["config"]),
                bytes=parse_count(config["bytes"]),
                entry=parse_text(config["entry"]),
                memory={key: parse_count(count) for key, count in config["memory_bytes"].items()},
            )
            for loader, config in release["loaders"].items()
        },
        stamp=Stamp(
            inode=parse_count(manifest["inode"]),
            bytes=parse_count(manifest["bytes"]),
            ctime_ns=parse_count(manifest["ctime_ns"]),
        ),
    )
