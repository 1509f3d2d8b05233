"""ipxe-vars: an iPXE script that only sets settings, for scripts that other people wrote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from catalyst_pxeboot.export.output import Exported
from catalyst_pxeboot.export.tree import Entry, File, Tree, with_root_arguments
from catalyst_pxeboot.loader.ipxe import IPXE
from catalyst_pxeboot.render.templates import render_file

NAME = "live-vars.ipxe"


def render(tree: Tree, base_url: str, templates: Path | None = None) -> tuple[Exported, ...]:
    """Return a script that sets `live-…` settings: about the tree, then about each entry."""
    entries = tree.entries_for(IPXE.kind)
    settings = [
        ("live-title", IPXE.quote_title(tree.title)),
        ("live-arch", tree.arch),
        ("live-version", tree.version_stamp),
        ("live-base", base_url),
        ("live-entries", str(len(entries))),
    ]
    groups = [
        list(_entry_settings(f"live-{number}", tree, entry, base_url))
        for number, entry in enumerate(entries, 1)
    ]
    values = {
        "title": settings[0][1],
        "settings": settings,
        "groups": groups,
    }
    return (Exported(NAME, render_file(f"export/{NAME}", values, templates).content),)


def _entry_settings(
    prefix: str, tree: Tree, entry: Entry, base_url: str
) -> Iterator[tuple[str, str]]:
    arguments = IPXE.quote_arguments(with_root_arguments(entry, tree, base_url))
    yield f"{prefix}-name", entry.name
    yield f"{prefix}-title", IPXE.quote_title(entry.full_title)
    yield f"{prefix}-root", str(entry.root)
    if entry.memory:
        yield f"{prefix}-memory", str(entry.memory)
    yield from _file_settings(f"{prefix}-kernel", entry.kernel, base_url)
    yield f"{prefix}-args", arguments
    yield f"{prefix}-initrds", str(len(entry.initrds))
    for number, file in enumerate(entry.initrds, 1):
        yield from _file_settings(f"{prefix}-initrd-{number}", file, base_url)
        if file.member:
            yield f"{prefix}-initrd-{number}-member", f"/{file.member}"


def _file_settings(name: str, file: File, base_url: str) -> Iterator[tuple[str, str]]:
    yield name, f"{base_url}/{file.path}"
    yield f"{name}-bytes", str(file.bytes)
    yield f"{name}-sha256", file.sha256
