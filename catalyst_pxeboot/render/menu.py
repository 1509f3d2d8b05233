"""Render a menu into each loader's configuration, by Jinja2 templates.

A template is written by people who know the loader, not Python. So every value reaches it checked
and quoted for that loader, and what goes wrong in it names the template and the line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from catalyst_pxeboot.formats.initramfs import Generator
from catalyst_pxeboot.loader import quoting
from catalyst_pxeboot.loader.pxelinux import PXELINUX_LINE
from catalyst_pxeboot.model.files import MadeFile
from catalyst_pxeboot.model.loader import CONFIGS, GRUB_EARLY, Firmware, Loader
from catalyst_pxeboot.model.menu import ROOT_MEMBER, LiveEntry, MemtestEntry, Menu
from catalyst_pxeboot.model.settings import RootMode, Serial, Server
from catalyst_pxeboot.render.templates import render_file, render_text
from catalyst_pxeboot.util.errors import TemplateError
from catalyst_pxeboot.util.text import mebibytes


@dataclass(frozen=True, slots=True)
class LiveView:
    """A live entry as a template sees it: checked and quoted."""

    name: str
    title: str
    kernel: str
    initramfs: str
    padding: str  # empty where there is none
    root: str  # where the live root comes from: embedded, http or nfs
    root_header: str
    root_check: str  # an initrd that compares the root with its digest; empty if it is not
    squashfs: str
    initrds: tuple[str, ...]  # all that the loader loads behind the kernel, in order
    arguments: str
    memory: int  # MiB, the least on any firmware of the loader; 0 where it is not known
    memory_bios: int  # the same on a BIOS and under UEFI; 0 where the loader is not started by it
    memory_efi: int
    dracut: bool
    genkernel: bool
    joined: str  # U-Boot's only initrd; empty for other loaders
    device_trees: str  # a folder; empty where there is none


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
    memtests: tuple[MemtestView, ...]
    root_member: str
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
        for path in CONFIGS[loader]:
            made.append(render_file(path, {**values, "folder": "", "config": path}, templates))
    return tuple(sorted(made, key=lambda file: file.path))


def render_flat_config(
    loader: Loader, menu: Menu, *, folder: str, name: str, templates: Path | None
) -> MadeFile:
    """Render a loader's menu for files that lie in `folder`, with a slash at its end.

    `name` is the configuration's own name there.
    """
    values = {**_menu_values(loader, menu), "folder": folder, "config": name}
    return replace(render_file(CONFIGS[loader][0], values, templates), path=name)


def _menu_values(loader: Loader, menu: Menu) -> dict[str, Any]:
    view = view_menu(loader, menu)
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


def view_menu(loader: Loader, menu: Menu) -> MenuView:
    """Check and quote all of `menu` for `loader`."""
    _check_menu(menu)
    live = tuple(_view_live(loader, entry, menu) for entry in menu.live_for(loader))
    return MenuView(
        title=quoting.quote_title(loader, menu.title),
        timeout=menu.timeout,
        default=live[0].name,
        serial=menu.serial,
        live=live,
        memtests=tuple(_view_memtest(loader, entry) for entry in menu.memtests),
        root_member=quoting.quote_path(loader, ROOT_MEMBER),
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


def _view_live(loader: Loader, entry: LiveEntry, menu: Menu) -> LiveView:
    path = partial(quoting.quote_path, loader)
    view = LiveView(
        name=quoting.quote_label(loader, entry.name),
        title=quoting.quote_title(loader, entry.title_for(loader)),
        kernel=path(entry.kernel_for(loader)),
        initramfs=path(entry.initramfs),
        padding=path(entry.padding) if entry.padding else "",
        root=str(entry.root),
        root_header=path(entry.root_header),
        root_check=path(entry.root_check) if entry.root_check else "",
        squashfs=path(entry.squashfs),
        initrds=tuple(map(path, entry.initrds_for(loader))),
        arguments=quoting.quote_arguments(loader, entry.arguments),
        memory=mebibytes(entry.limits[loader].least_memory) if loader in entry.limits else 0,
        memory_bios=_memory(entry, loader, Firmware.BIOS),
        memory_efi=_memory(entry, loader, Firmware.EFI),
        dracut=entry.generator is Generator.DRACUT,
        genkernel=entry.generator is Generator.GENKERNEL,
        joined=path(entry.joined) if entry.joined and loader is Loader.UBOOT else "",
        device_trees=path(entry.device_trees) if entry.device_trees else "",
    )
    if loader is Loader.PXELINUX:
        _check_pxelinux_line(view, menu)
    return view


def _memory(entry: LiveEntry, loader: Loader, firmware: Firmware) -> int:
    limits = entry.limits.get(loader)
    return mebibytes(limits.memory.get(firmware, 0)) if limits else 0


def _check_pxelinux_line(view: LiveView, menu: Menu) -> None:
    where = {
        RootMode.HTTP: f" ip=dhcp root=live:{menu.base_url}/{view.squashfs}",
        RootMode.NFS: f" ip=dhcp root=live:nfs://{menu.nfs}",
    }
    line = (
        f".linux {view.kernel} {view.arguments}{where.get(RootMode(view.root), '')}"
        f" initrd={','.join(view.initrds)} BOOTIF=01-00-00-00-00-00-00"
    )
    if len(line) >= PXELINUX_LINE:
        raise TemplateError(
            f'PXELINUX: the command line of "{view.title}" is {len(line)} bytes long, more than'
            f" its {PXELINUX_LINE - 1}",
            hint="shorten the arguments, or leave pxelinux out of pxeboot/loaders",
        )


def _view_memtest(loader: Loader, entry: MemtestEntry) -> MemtestView:
    return MemtestView(
        name=quoting.quote_label(loader, entry.name),
        title=quoting.quote_title(loader, entry.title),
        path=quoting.quote_path(loader, entry.path),
        bios=entry.firmware is Firmware.BIOS,
        efi=entry.firmware is Firmware.EFI,
        bits=entry.bits,
    )
