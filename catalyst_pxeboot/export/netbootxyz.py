"""netboot.xyz: a menu of one's own, `custom.ipxe`.

Source of the form: netboot.xyz's etc/netbootxyz/custom/README.md and its menu.ipxe.j2, which loads
the file as `custom/custom.ipxe` of a self-hosted site, or from the folder in `custom_url`. A
self-hosted site renders it with Jinja2 first, so nothing in it may look like Jinja2's own words.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from catalyst_pxeboot.export.output import Exported
from catalyst_pxeboot.export.tree import Entry, Tree, with_root_arguments
from catalyst_pxeboot.loader.ipxe import IPXE
from catalyst_pxeboot.model.arch import all_machines
from catalyst_pxeboot.render.templates import render_file
from catalyst_pxeboot.util.errors import TemplateError

NAME = "custom.ipxe"
_JINJA = ("{{", "{%", "{#")


@dataclass(frozen=True, slots=True)
class InitrdView:
    """An initrd as the template sees it; `member` is empty where it has no name inside."""

    path: str
    member: str


@dataclass(frozen=True, slots=True)
class NetbootXyzEntry:
    """An entry as the template sees it: checked and quoted."""

    name: str
    title: str
    kernel: str
    arguments: str
    initrds: tuple[InitrdView, ...]


def render(tree: Tree, base_url: str, templates: Path | None = None) -> tuple[Exported, ...]:
    """Return `custom.ipxe`."""
    script = IPXE.configs[0]
    values = {
        "title": _escape(IPXE.quote_title(tree.title)),
        "base_url": base_url,
        "machine": tree.machine,
        "buildarch": _buildarch(tree),
        "entries": [_view(tree, entry, base_url) for entry in tree.entries_for(IPXE.kind)],
        "script": script if script in tree.files else "",
    }
    text = render_file(f"export/{NAME}", values, templates).content
    return (Exported(NAME, text),)


def _view(tree: Tree, entry: Entry, base_url: str) -> NetbootXyzEntry:
    return NetbootXyzEntry(
        name=entry.name,
        title=_escape(IPXE.quote_title(entry.full_title)),
        kernel=entry.kernel.path,
        arguments=_escape(IPXE.quote_arguments(with_root_arguments(entry, tree, base_url))),
        initrds=tuple(InitrdView(file.path, file.member) for file in entry.initrds),
    )


def _buildarch(tree: Tree) -> str:
    for machine in all_machines():
        if machine.name == tree.machine:
            return machine.buildarch
    raise TemplateError(
        f"{tree.name}: its kernel is for {tree.machine}, which no iPXE is known for",
        hint="use the version of this program that made the tree",
    )


def _escape(text: str) -> str:
    """Write braces that Jinja2 would read as iPXE's setting `brace`: either reader gets a brace."""
    return text.replace("{", "${brace:string}") if any(mark in text for mark in _JINJA) else text
