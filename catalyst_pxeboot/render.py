"""Render a menu into each loader's configuration, by Jinja2 templates.

A template is written by people who know the loader, not Python. So every value reaches it checked
and quoted for that loader, and what goes wrong in it names the template and the line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from catalyst_pxeboot.formats.initramfs import Generator
from catalyst_pxeboot.loader import quoting
from catalyst_pxeboot.loader.pxelinux import PXELINUX_LINE
from catalyst_pxeboot.model.files import MadeFile, Role
from catalyst_pxeboot.model.loader import CONFIGS, GRUB_EARLY, Firmware, Loader
from catalyst_pxeboot.model.menu import ROOT_MEMBER, LiveEntry, MemtestEntry, Menu
from catalyst_pxeboot.model.settings import RootMode, Serial, Server
from catalyst_pxeboot.util.errors import TemplateError
from catalyst_pxeboot.util.files import read_regular
from catalyst_pxeboot.util.resources import templates_folder
from catalyst_pxeboot.util.text import mebibytes

if TYPE_CHECKING:
    import jinja2

_MAX_TEMPLATE = 1024 * 1024  # bytes


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


def render_file(
    path: str, values: Mapping[str, Any], templates: Path | None, *, role: Role = Role.CONFIG
) -> MadeFile:
    """Render the tree's file `path` by the template of its name, the user's before the shipped.

    `values` must have been checked for what reads the file. Raises `TemplateError`.
    """
    text, origin = _render(path, values, templates)
    return MadeFile(path, text.encode(), role, origin)


def render_grub_early(
    templates: Path | None, server: Server | None = None, *, signed: bool = False
) -> str:
    """Render the configuration that goes into GRUB's network images.

    With `server` they fetch from its address, whichever server DHCP names. With `signed` they
    open only what is signed.
    """
    values = {"server": server.address if server else None, "signed": signed}
    return _render(GRUB_EARLY, values, templates)[0]


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


def _render(path: str, values: Mapping[str, Any], templates: Path | None) -> tuple[str, str]:
    """Return the rendered text and what it was made from."""
    from jinja2.exceptions import TemplateNotFound, TemplateSyntaxError

    name = f"{path}.j2"
    environment = _shipped() if templates is None else _environment(templates)
    try:
        template = environment.get_template(name)
        text = template.render(values)
    except TemplateSyntaxError as error:
        where = error.filename or error.name or name
        raise TemplateError(
            f"template {where}, line {error.lineno}: {error.message}",
            hint="correct the template; see Jinja2's template documentation",
        ) from error
    except TemplateNotFound as error:
        raise TemplateError(
            f'template {name}: includes "{error.message}", which is not there',
            hint="put it into the folder of pxeboot/templates or leave the include out",
        ) from error
    except OSError as error:
        raise TemplateError(
            f"template {error.filename or name}: {error.strerror or error}",
            hint="make the file readable or correct pxeboot/templates",
        ) from error
    except UnicodeDecodeError as error:
        raise TemplateError(
            f"template {name}: byte {error.start} is not UTF-8", hint="save the file as UTF-8"
        ) from error
    except TemplateError:
        raise
    except Exception as error:  # whatever a template's expression can raise
        known = " ".join(sorted(values)) or "none"
        raise TemplateError(
            f"template {_place(error, name)}: {error}",
            hint=f"correct the template; the values it may use are: {known}",
        ) from error
    return text, f"template {name}" + (" (own)" if _is_own(templates, name) else "")


@cache
def _shipped() -> jinja2.Environment:
    return _environment(None)


def _environment(templates: Path | None) -> jinja2.Environment:
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    if templates is not None and not templates.is_dir():
        raise TemplateError(
            f"pxeboot/templates: {templates} is no folder",
            hint="name a folder, or leave the key out to use the shipped templates",
        )
    folders = [templates_folder()] if templates is None else [templates, templates_folder()]
    return ImmutableSandboxedEnvironment(
        loader=jinja2.ChoiceLoader([_folder_loader(folder) for folder in folders]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=_is_html,
    )


def _is_html(name: str | None) -> bool:
    """Say whether values are escaped for HTML; elsewhere they were quoted before."""
    return name is not None and name.endswith(".html.j2")


def _folder_loader(folder: Path) -> jinja2.BaseLoader:
    """Make a loader of one folder that shows its file names in errors and stays inside it."""
    import jinja2

    real = folder.resolve()

    def load(name: str) -> tuple[str, str, Callable[[], bool]] | None:
        if not _stays_inside(name):
            return None
        file = real / name
        # A dangling link is a mistake to tell, not a template that is not there.
        if not file.exists() and not file.is_symlink():
            return None
        if not file.resolve().is_relative_to(real):
            raise TemplateError(
                f"template {file}: leads out of {folder}",
                hint="put a copy into the folder instead of a link",
            )
        return read_regular(file, limit=_MAX_TEMPLATE).decode(), str(file), lambda: True

    return jinja2.FunctionLoader(load)


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def _is_own(templates: Path | None, name: str) -> bool:
    return templates is not None and (templates / name).exists()


def _place(error: BaseException, name: str) -> str:
    """Name the template's file and line, which Jinja2 writes into the traceback only."""
    place = name
    traceback = error.__traceback__
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        if file.endswith(".j2"):
            place = f"{file}, line {traceback.tb_lineno}"
        traceback = traceback.tb_next
    return place
