"""Foreman: provisioning templates for hosts that boot the live image, by iPXE, PXELINUX and GRUB.

Source of the form: Foreman's Template.parse_metadata and its own provisioning_templates/: an ERB
file whose first comment is YAML; `hammer import-templates` and the importer read folders of
them. Foreman's proxy fetches one kernel and one initrd of an operating system; the live image has
more, so the files are taken from the web server (iPXE) or from the tree's folder on the TFTP server
(PXELINUX, GRUB).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from catalyst_pxeboot.export.output import Exported
from catalyst_pxeboot.export.tree import Entry, File, Tree, with_root_arguments
from catalyst_pxeboot.loader import LOADERS
from catalyst_pxeboot.model.loader import Loader
from catalyst_pxeboot.render.templates import render_file

#: Foreman's template kinds, each with the loader that reads it.
KINDS = {"iPXE": Loader.IPXE, "PXELinux": Loader.PXELINUX, "PXEGrub2": Loader.GRUB}


@dataclass(frozen=True, slots=True)
class ForemanEntry:
    """An entry as a template sees it: checked and quoted for its loader and for ERB."""

    name: str
    title: str
    kernel: str
    arguments: str
    embedded: bool
    initrds: tuple[File, ...]


def render(tree: Tree, base_url: str, templates: Path | None = None) -> tuple[Exported, ...]:
    """Return a template of each kind whose loader the tree has entries for."""
    found = {kind: loader for kind, loader in KINDS.items() if tree.entries.get(loader)}
    if not found:
        tree.entries_for(Loader.IPXE)  # says why
    return tuple(_render(tree, kind, base_url, templates) for kind in found)


def _render(tree: Tree, kind: str, base_url: str, templates: Path | None) -> Exported:
    loader = KINDS[kind]
    name = f"{tree.title} {kind}"
    LOADERS[loader].quote_title(name)  # what is not printable is refused
    values = {
        "kind": kind,
        # In YAML, inside a comment of ERB, which the mark would end.
        "name": json.dumps(name, ensure_ascii=False).replace("%>", r"%\u003e"),
        "title": _escape(LOADERS[loader].quote_title(tree.title)),
        "base_url": base_url,
        "folder": tree.name,
        "entries": [_view(tree, loader, entry, base_url) for entry in tree.entries_for(loader)],
    }
    template = f"export/foreman/{kind}.erb"
    stem = re.sub(r"[^a-z0-9]+", "_", f"{tree.name} {kind}".lower())
    return Exported(
        f"provisioning_templates/{kind}/{stem}.erb",
        render_file(template, values, templates).content,
    )


def _view(tree: Tree, loader: Loader, entry: Entry, base_url: str) -> ForemanEntry:
    words = with_root_arguments(entry, tree, base_url)
    return ForemanEntry(
        name=entry.name,
        title=_escape(LOADERS[loader].quote_title(entry.full_title)),
        kernel=entry.kernel.path,
        arguments=_escape(LOADERS[loader].quote_arguments(words)),
        embedded=any(file.member for file in entry.initrds),
        initrds=entry.initrds,
    )


def _escape(text: str) -> str:
    # Outside code ERB reads no other mark.
    return text.replace("<%", "<%%")
