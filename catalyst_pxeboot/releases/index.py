"""releases.json: the trees below a folder, for other programs and for the next run.

index.schema.json describes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from catalyst_pxeboot import __version__
from catalyst_pxeboot.model.manifest import GENERATOR, MadeBy
from catalyst_pxeboot.releases.scan import FoundTree
from catalyst_pxeboot.util.errors import PublishError
from catalyst_pxeboot.util.files import read_regular
from catalyst_pxeboot.util.records import decode, encode

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

    format: int
    generator: MadeBy
    templates: str
    menus: Mapping[str, str]
    releases: tuple[FoundTree, ...]


def make_index(releases: tuple[FoundTree, ...], menus: Mapping[str, str], templates: str) -> Index:
    """Return the list of `releases`."""
    made_by = MadeBy(GENERATOR, __version__)
    return Index(FORMAT, made_by, templates, dict(sorted(menus.items())), releases)


def read_index(path: Path) -> Index | None:
    """Read releases.json at `path`; None if there is none.

    Raises `PublishError` if this program did not write it, or not in this format.
    """
    try:
        if path.is_symlink():
            raise ValueError("a link")
        index: Index = decode(Index, json.loads(read_regular(path, limit=_MAX_INDEX)))
        if index.generator.name != GENERATOR or index.format != FORMAT:
            raise ValueError("another program or format")
        if not OWN.issuperset(index.menus):  # what this names may be replaced and removed
            raise ValueError("it names other files than menus")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PublishError(
            f"{path}: cannot be read: {error.strerror}", hint="give a folder that you may write"
        ) from error
    except (ValueError, RecursionError) as error:
        raise PublishError(
            f"{path}: is not a list that this {GENERATOR} wrote, so nothing is replaced",
            hint="move it away, or give another folder",
        ) from error
    return index


def render_index(index: Index) -> bytes:
    """Return the content of releases.json."""
    return (json.dumps(encode(index), indent=1, ensure_ascii=False) + "\n").encode()
