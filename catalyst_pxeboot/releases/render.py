"""Render the menus that lead to each tree's own, by the templates in templates/menu/."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from catalyst_pxeboot import __version__
from catalyst_pxeboot.loader import LOADERS
from catalyst_pxeboot.model.arch import all_arches, all_machines
from catalyst_pxeboot.model.loader import Loader
from catalyst_pxeboot.releases.index import INDEX, MENUS, PAGE
from catalyst_pxeboot.releases.scan import FoundTree
from catalyst_pxeboot.render.kexec import KEXEC
from catalyst_pxeboot.render.pages import PLACEHOLDER, qemu_command
from catalyst_pxeboot.render.templates import render_file
from catalyst_pxeboot.util.text import mebibytes

#: Where the menus' templates lie.
_TEMPLATES = "menu"


@dataclass(frozen=True, slots=True)
class TreeView:
    """A tree as a template sees it: checked and quoted."""

    name: str  # unique; letters, digits and hyphens
    title: str
    path: str  # its folder, without a slash at the end
    config: str  # the loader's configuration in it


@dataclass(frozen=True, slots=True)
class TreeGroup:
    """Trees that differ in age only: the newest, and the older ones with a title for them all."""

    machine: str
    newest: TreeView
    older: tuple[TreeView, ...]  # newest first
    older_title: str


@dataclass(frozen=True, slots=True)
class RowView:
    """A tree as the page's template sees it."""

    title: str
    path: str
    arch: str
    subarch: str
    made: str  # UTC
    memory: int  # MiB; 0 where it is not known
    loaders: tuple[str, ...]  # as people write them


def render_menus(releases: Sequence[FoundTree], *, templates: Path | None) -> Mapping[str, bytes]:
    """Render the menu of each loader that one of `releases` has a configuration for, and the page.

    They are returned by their paths.

    A file in the folder `templates` replaces the shipped template of the same relative name.
    Raises `TemplateError` for a faulty template.
    """
    names = _name(releases)
    titles = _entitle(releases)
    menus = {}
    for name, path in MENUS.items():
        loader = Loader(name)
        offered = [release for release in releases if loader in release.loaders]
        if offered:
            groups = [
                _view_group(loader, group, names, titles) for group in group_releases(offered)
            ]
            used = {group.machine for group in groups}
            values: dict[str, Any] = {
                "groups": groups,
                "machines": [machine for machine in all_machines() if machine.name in used],
            }
            menus[path] = render_file(f"{_TEMPLATES}/{path}", values, templates).content
    menus[PAGE] = _render_page(releases, menus, titles, templates)
    return menus


def _render_page(
    releases: Sequence[FoundTree],
    menus: Mapping[str, bytes],
    titles: Mapping[str, str],
    templates: Path | None,
) -> bytes:
    """Render the page of all trees that a loader leads to; the texts of others are not checked."""
    releases = [release for release in releases if release.loaders]
    offered = {loader: path for loader, path in MENUS.items() if path in menus}
    groups = [
        (newest, older)
        for newest, *older in (
            [_view_row(release, titles[release.path]) for release in group]
            for group in group_releases(releases)
        )
    ]
    values: dict[str, Any] = {
        "groups": [{"newest": newest, "older": older} for newest, older in groups],
        "menus": offered,
        "qemu": _qemu(releases, offered),
        "kexec": KEXEC,
        "index": INDEX,
        "placeholder": PLACEHOLDER,
        "version": __version__,
    }
    return render_file(f"{_TEMPLATES}/{PAGE}", values, templates).content


def _qemu(releases: Sequence[FoundTree], menus: Mapping[str, str]) -> str:
    """Write the command that shows iPXE's menu in QEMU; empty if no tree boots there."""
    if Loader.IPXE not in menus:
        return ""
    for arch in all_arches():
        able = [
            release.loaders[Loader.IPXE].memory_bytes.get(arch.qemu.firmware, 0)
            for release in releases
            if arch.qemu and arch.qemu.http and release.arch == arch.name
            if Loader.IPXE in release.loaders
        ]
        if able and arch.qemu:
            return qemu_command(arch.qemu, max(able), f"{PLACEHOLDER}/{menus[Loader.IPXE]}")
    return ""


def _view_row(release: FoundTree, title: str) -> RowView:
    memory = [
        count for config in release.loaders.values() for count in config.memory_bytes.values()
    ]
    return RowView(
        title=title,
        path=release.path,
        arch=release.arch,
        subarch=release.subarch,
        made=release.time.replace("T", " ").removesuffix("Z")[:16],
        memory=mebibytes(max(memory, default=0)),
        loaders=tuple(LOADERS[Loader(name)].name for name in release.loaders),
    )


def group_releases(releases: Iterable[FoundTree]) -> list[list[FoundTree]]:
    """Group `releases` by what they are, each group newest first.

    Architectures stand in the order of arch.toml, which has the 64-bit one before the 32-bit one
    that the same machines boot; within one, the group with the newest release is the first. What
    is of the same age is in alphabetical order.
    """
    ordered = sorted(releases, key=lambda release: (_kind(release), release.path))
    groups = [
        sorted(group, key=lambda release: release.age, reverse=True)
        for _, group in groupby(ordered, key=_kind)
    ]
    groups.sort(key=lambda group: group[0].age, reverse=True)
    order = [known.name for known in all_arches()]
    return sorted(
        groups,
        key=lambda group: order.index(group[0].arch) if group[0].arch in order else len(order),
    )


def _kind(release: FoundTree) -> tuple[str, str, str, str]:
    # The machine is part of it: what boots the newest may not boot an older one otherwise.
    # An ISO's tree has no release type: of one kind are those named alike but for their stamp.
    kind = release.rel_type or f"/{release.path.replace(release.version_stamp or '/', '/')}"
    return release.arch, kind, release.subarch, release.machine


def _name(releases: Sequence[FoundTree]) -> Mapping[str, str]:
    """Return a name for each tree, by path, that every loader takes as a label."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for path in sorted(release.path for release in releases):
        plain = "".join(c if c.isalnum() else "-" for c in path).strip("-") or "tree"
        name, count = plain, 1
        while name in taken:
            count += 1
            name = f"{plain}-{count}"
        taken.add(name)
        names[path] = name
    return names


def _entitle(releases: Sequence[FoundTree]) -> Mapping[str, str]:
    """Return a title for each tree, by path, that no other one has."""
    titles = {release.path: release.title for release in releases}
    for more in ("rel_type", "path"):
        shown = Counter(titles.values())
        for release in releases:
            if shown[titles[release.path]] > 1 and (word := getattr(release, more)):
                titles[release.path] += f" ({word})"
    return titles


def _view_group(
    loader: Loader, group: Sequence[FoundTree], names: Mapping[str, str], titles: Mapping[str, str]
) -> TreeGroup:
    newest, *older = (
        _view_tree(loader, release, names[release.path], titles[release.path]) for release in group
    )
    first = group[0]
    kind = ", ".join(filter(None, (first.subarch, first.rel_type)))
    text = f"Older: {kind} ({len(older)})"
    return TreeGroup(first.machine, newest, tuple(older), LOADERS[loader].quote_title(text))


def _view_tree(loader: Loader, release: FoundTree, name: str, title: str) -> TreeView:
    config = release.loaders[loader]
    memory = max(config.memory_bytes.values(), default=0)
    needs = f", {mebibytes(memory)} MiB of memory" if memory else ""
    return TreeView(
        name=LOADERS[loader].quote_label(name),
        title=LOADERS[loader].quote_title(title + needs),
        path=LOADERS[loader].quote_path(release.path),
        config=LOADERS[loader].quote_path(config.config),
    )
