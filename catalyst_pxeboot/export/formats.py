"""The formats that a tree can be exported in, and what each needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from catalyst_pxeboot.export import foreman, ipxevars, matchbox, netbootxyz, treeinfo
from catalyst_pxeboot.export.output import Exported
from catalyst_pxeboot.export.tree import Tree, read_export_tree
from catalyst_pxeboot.spec.values import parse_base_url
from catalyst_pxeboot.util.errors import PublishError, PxebootError, from_os_error
from catalyst_pxeboot.util.files import write_files
from catalyst_pxeboot.util.resources import check_templates


class Format(StrEnum):
    """What a tree can be exported for."""

    MATCHBOX = "matchbox"
    NETBOOT_XYZ = "netboot.xyz"
    FOREMAN = "foreman"
    TREEINFO = "treeinfo"
    IPXE_VARS = "ipxe-vars"


#: Those of more than one file.
FOLDERS = frozenset({Format.MATCHBOX, Format.FOREMAN})


@dataclass(frozen=True, slots=True)
class Export:
    """An export: its files, and what of the tree is not in it."""

    files: tuple[Exported, ...]
    left_out: tuple[str, ...]


def export_tree(
    folder: Path, form: Format, *, base_url: str | None, templates: Path | None = None
) -> Export:
    """Render the export of the netboot tree `folder`.

    `base_url` is the tree's address on its web server. Raises `PxebootError` if the format needs
    it, or if a value of the tree cannot be written down in the format.
    """
    if templates is not None:
        check_templates(templates)
    tree = read_export_tree(folder)
    url = _check_url(base_url)
    if url is None and form is not Format.TREEINFO:
        raise PxebootError(
            f"--format {form}: needs the address of the tree's folder on the web server",
            hint="give --base-url http://SERVER/FOLDER",
        )
    return Export(_render(tree, form, url, templates), tree.left_out)


def write_export(export: Export, form: Format, output: Path, *, force: bool = False) -> list[Path]:
    """Write the export to `output`, a folder for some formats and a file for others.

    Returns where each file is. Raises `PublishError` and changes nothing if a file of someone
    else's is in the way.
    """
    try:
        is_folder = output.is_dir()
        if form in FOLDERS and not is_folder and output.exists():
            raise PublishError(
                f"{output}: is not a folder, and {form} takes several files",
                hint="give a folder as --output",
            )
    except OSError as error:
        raise from_os_error(error, "the export cannot be written", hint="check --output") from error
    if form in FOLDERS or is_folder:
        paths = [output / file.path for file in export.files]
    else:
        paths = [output]
    contents = [file.content for file in export.files]
    write_files(list(zip(paths, contents, strict=True)), force=force)
    return paths


def lies_in_tree(folder: Path, output: Path) -> bool:
    """Say whether `output` lies in the netboot tree `folder`."""
    return output.resolve().is_relative_to(folder.resolve())


def _check_url(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        url = parse_base_url(text, None)
    except PxebootError:
        url = None
    if url is None:
        raise PxebootError(
            f"--base-url: {text!r} is not a plain http:// or https:// address of a folder",
            hint="write it as http://192.168.1.1/gentoo",
        )
    return url


def _render(
    tree: Tree, form: Format, url: str | None, templates: Path | None
) -> tuple[Exported, ...]:
    if form is Format.TREEINFO or url is None:
        return treeinfo.render(tree, url, templates)
    if form is Format.MATCHBOX:
        return matchbox.render(tree, url)
    renderers: dict[Format, Callable[[Tree, str, Path | None], tuple[Exported, ...]]] = {
        Format.NETBOOT_XYZ: netbootxyz.render,
        Format.FOREMAN: foreman.render,
        Format.IPXE_VARS: ipxevars.render,
    }
    return renderers[form](tree, url, templates)
