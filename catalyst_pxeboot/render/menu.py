"""Render a menu into each loader's configuration, by Jinja2 templates.

A template is written by people who know the loader, not Python. So every value reaches it checked
and quoted for that loader, and what goes wrong in it names the template and the line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from catalyst_pxeboot.loader import LOADERS
from catalyst_pxeboot.loader.common import BootLoader
from catalyst_pxeboot.loader.grub import GRUB_EARLY
from catalyst_pxeboot.model.files import MadeFile
from catalyst_pxeboot.model.loader import MENU_COLUMNS, Firmware, Loader
from catalyst_pxeboot.model.menu import ROOT_MEMBER, HostEntry, LiveEntry, MemtestEntry, Menu
from catalyst_pxeboot.model.settings import Serial, Server
from catalyst_pxeboot.plan.roots import ROOTS, root_location
from catalyst_pxeboot.render.templates import render_file, render_text
from catalyst_pxeboot.util.errors import TemplateError
from catalyst_pxeboot.util.text import mebibytes


@dataclass(frozen=True, slots=True)
class LiveView:
    """A live entry as a template sees it: checked and quoted."""

    name: str
    title: str  # without the memory that the entry needs
    kernel: str
    initramfs: str
    padding: str  # empty where there is none
    root: str  # the root mode: embedded, stream, http or nfs
    by_url: bool  # the root's address on a web server is a kernel argument
    root_header: str  # empty unless the loader loads the live root
    addon: str  # an initrd that checks or fetches the root; empty where there is none
    squashfs: str
    initrds: tuple[str, ...]  # all that the loader loads behind the kernel, in order
    arguments: str  # the kernel command line, but for what the template adds
    memory: str  # the name of its `MemoryView`; empty where the memory is not known
    memory_unit: str  # what a title says after the figure
    memory_bios: int  # MiB; 0 where the loader is not started by a BIOS
    memory_efi: int
    device_trees: str  # a folder; empty where there is none


@dataclass(frozen=True, slots=True)
class MemoryView:
    """The least memory of some entries, in MiB by firmware; 0 where that does not start them."""

    name: str
    bios: int
    efi: int


@dataclass(frozen=True, slots=True)
class MemtestView:
    """A memtest entry as a template sees it."""

    name: str
    title: str
    path: str
    bios: bool
    efi: bool
    bits: int


@dataclass(frozen=True, slots=True)
class HostView:
    """What one machine gets of its own, as a template sees it; what is empty it does not get."""

    name: str  # its MAC address or SMBIOS UUID, with hyphens
    mac: str  # the MAC address with colons; empty for a UUID
    archive: str  # an initrd more
    arguments: str  # kernel arguments more, as the value of a variable
    entry: str  # boots at once


@dataclass(frozen=True, slots=True)
class NfsView:
    """The NFS export with the live root, as a template sees it."""

    server: str  # empty: the boot server
    path: str
    options: str  # mount's, with commas between, or empty


@dataclass(frozen=True, slots=True)
class MenuView:
    """Everything that the template of a loader's menu may use, by these names."""

    title: str
    timeout: int | None
    default: str
    serial: Serial | None
    live: tuple[LiveView, ...]
    memories: tuple[MemoryView, ...]  # each figure once
    memtests: tuple[MemtestView, ...]
    root_member: str
    personal: str  # the initrd with the user's files, which every entry has; empty: none has
    hosts: tuple[HostView, ...]  # single machines, if this configuration is for all
    base_url: str  # the tree on its web server, without a slash at the end; empty if not known
    nfs: NfsView | None
    signed: str  # whether iPXE's signatures are there and checked: empty, asked or always


def render_configs(
    menu: Menu, *, loaders: Sequence[Loader], templates: Path | None
) -> tuple[MadeFile, ...]:
    """Render the configuration files of `loaders`, sorted by their path in the tree.

    A file in the folder `templates` replaces the shipped template of the same relative name.
    Raises `TemplateError` for a value that a loader cannot express and for a faulty template.
    """
    made = []
    for loader in sorted(set(loaders)):
        values = _menu_values(loader, menu)
        for path in LOADERS[loader].configs:
            made.append(render_file(path, {**values, "folder": "", "config": path}, templates))
        made += _render_host_configs(loader, menu, templates)
    return tuple(sorted(made, key=lambda file: file.path))


def _render_host_configs(kind: Loader, menu: Menu, templates: Path | None) -> Iterator[MadeFile]:
    """Make the whole menu of each single machine, for a loader that looks for that.

    It is rendered once for each entry that boots at once, however many the machines are.
    """
    loader = LOADERS[kind]
    rendered: dict[str, MadeFile] = {}
    for host in menu.hosts:
        paths = loader.host_configs(host.name)
        if paths and host.entry not in rendered:
            view = view_menu(kind, replace(menu, hosts=()))
            if host.entry in {entry.name for entry in view.live}:
                view = replace(view, default=host.entry, timeout=0)
            values = {**_values(view), "folder": "", "config": loader.configs[0]}
            rendered[host.entry] = render_file(loader.configs[0], values, templates)
        for path in paths:
            made = rendered[host.entry]
            with _naming(host):
                text = loader.own_config(made.content.decode(), host.arguments, host.archive)
            yield replace(made, path=path, content=text.encode())


@contextmanager
def _naming(host: HostEntry) -> Iterator[None]:
    """Have what a loader refuses name the file that it comes from."""
    try:
        yield
    except TemplateError as error:
        raise TemplateError(
            f"pxeboot/hosts: {host.where}: {error.message}", hint=error.hint
        ) from error


def render_flat_config(
    loader: Loader, menu: Menu, *, folder: str, name: str, templates: Path | None
) -> MadeFile:
    """Render a loader's menu for files that lie in `folder`, with a slash at its end.

    `name` is the configuration's own name there.
    """
    values = {**_menu_values(loader, menu), "folder": folder, "config": name}
    return replace(render_file(LOADERS[loader].configs[0], values, templates), path=name)


def _menu_values(loader: Loader, menu: Menu) -> dict[str, Any]:
    return _values(view_menu(loader, menu))


def _values(view: MenuView) -> dict[str, Any]:
    return {name: getattr(view, name) for name in MenuView.__dataclass_fields__}


def render_grub_early(
    templates: Path | None, server: Server | None = None, *, signed: bool = False
) -> str:
    """Render the configuration that goes into GRUB's network images.

    With `server` they fetch from its address, whichever server DHCP names. With `signed` they
    open only what is signed.
    """
    values = {"server": server.address if server else None, "signed": signed}
    return render_text(GRUB_EARLY, values, templates)[0]


def view_menu(kind: Loader, menu: Menu) -> MenuView:
    """Check and quote all of `menu` for a loader."""
    _check_menu(menu)
    loader = LOADERS[kind]
    memories: dict[tuple[int, int], MemoryView] = {}
    live = tuple(_view_live(loader, entry, menu, memories) for entry in menu.live_for(kind))
    personal = menu.live[0].personal
    return MenuView(
        title=loader.quote_title(menu.title),
        timeout=menu.timeout,
        default=live[0].name,
        serial=menu.serial,
        live=live,
        memories=tuple(memories.values()),
        memtests=tuple(_view_memtest(loader, entry) for entry in menu.memtests),
        root_member=loader.quote_path(ROOT_MEMBER),
        personal=loader.quote_path(personal) if personal else "",
        hosts=tuple(_view_host(loader, host, live) for host in menu.hosts),
        base_url=menu.base_url or "",
        nfs=NfsView(menu.nfs.server or "", menu.nfs.path, menu.nfs.options) if menu.nfs else None,
        signed=("always" if menu.ipxe_always else "asked") if menu.ipxe_signed else "",
    )


def _check_menu(menu: Menu) -> None:
    names = [entry.name for entry in menu.live] + [entry.name for entry in menu.memtests]
    for name in names:
        if names.count(name) > 1:
            raise TemplateError(
                f'two menu entries are named "{name}"', hint="give each a name of its own"
            )


def _view_live(
    loader: BootLoader,
    entry: LiveEntry,
    menu: Menu,
    memories: dict[tuple[int, int], MemoryView],
) -> LiveView:
    bios, efi = (_memory(entry, loader, firmware) for firmware in Firmware)
    memory = None
    if bios or efi:
        name = f"memory_{entry.name.replace('-', '_')}"  # GRUB's variables have no hyphen
        memory = memories.setdefault((bios, efi), MemoryView(name, bios, efi))
    title = ", ".join(filter(None, [entry.title, ROOTS[entry.root].title]))
    location = root_location(entry, menu, loader.root_variables)
    arguments = [
        loader.quote_arguments(entry.arguments),
        *(loader.quote_variables(word) for word in location),
    ]

    def path(name: str | None) -> str:
        return loader.quote_path(name) if name else ""

    view = LiveView(
        name=loader.quote_label(entry.name),
        title=loader.quote_title(title),
        kernel=path(loader.kernel(entry)),
        initramfs=path(entry.initramfs),
        padding=path(entry.padding),
        root=str(entry.root),
        by_url=ROOTS[entry.root].by_url,
        root_header=path(entry.root_header),
        addon=path(entry.addon),
        squashfs=path(entry.squashfs),
        initrds=tuple(map(path, loader.initrds(entry))),
        arguments=" ".join(filter(None, arguments)),
        memory=memory.name if memory else "",
        memory_unit=_memory_unit(title, max(bios, efi)),
        memory_bios=bios,
        memory_efi=efi,
        device_trees=path(entry.device_trees),
    )
    loader.check_entry(title, view.kernel, view.arguments, view.initrds)
    return view


def _view_host(loader: BootLoader, host: HostEntry, live: Sequence[LiveView]) -> HostView:
    with _naming(host):
        return HostView(
            name=loader.quote_label(host.name),
            mac=host.mac,
            archive=loader.quote_path(host.archive) if host.archive else "",
            arguments=loader.quote_value(host.arguments) if host.arguments else "",
            entry=host.entry if any(entry.name == host.entry for entry in live) else "",
        )


def _memory(entry: LiveEntry, loader: BootLoader, firmware: Firmware) -> int:
    limits = entry.limits.get(loader.kind)
    return mebibytes(limits.memory.get(firmware, 0)) if limits else 0


def _memory_unit(title: str, figure: int) -> str:
    unit = "MiB of memory"
    return unit if len(f"{title}, {figure} {unit}") <= MENU_COLUMNS else "MiB"


def _view_memtest(loader: BootLoader, entry: MemtestEntry) -> MemtestView:
    return MemtestView(
        name=loader.quote_label(entry.name),
        title=loader.quote_title(entry.title),
        path=loader.quote_path(entry.path),
        bios=entry.firmware is Firmware.BIOS,
        efi=entry.firmware is Firmware.EFI,
        bits=entry.bits,
    )
