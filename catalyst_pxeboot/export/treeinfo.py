"""treeinfo: the `.treeinfo` at the top of an installable tree, which virt-install and others read.

Source of the form: productmd's treeinfo, version 1.2 (doc/treeinfo-1.0.rst, productmd/treeinfo.py).
It is an INI file that configparser reads, where `%` begins an interpolation; paths are relative to
the file. It names one kernel and one initrd, and no kernel arguments.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from catalyst_pxeboot.export.output import Exported
from catalyst_pxeboot.export.tree import Entry, Tree, with_root_arguments
from catalyst_pxeboot.model.loader import Loader
from catalyst_pxeboot.render.templates import render_file
from catalyst_pxeboot.util.errors import TemplateError, VerifyError

NAME = ".treeinfo"

#: productmd's names of architectures are those of RPM.
_ARCHES = {"arm64": "aarch64", "arm": "armhfp", "loongarch": "loongarch64"}
_VERSION = re.compile(r"[0-9]+(\.[0-9]+)*")


def render(tree: Tree, base_url: str | None, templates: Path | None = None) -> tuple[Exported, ...]:
    """Return `.treeinfo`, with the kernel arguments in a comment if `base_url` is known."""
    entry, initrd = _choose(tree)
    paths = {entry.kernel.path, initrd, tree.squashfs.path}
    values = {
        "arch": _ARCHES.get(tree.machine, tree.machine),
        "version": _version(tree),
        "timestamp": _timestamp(tree),
        "kernel": entry.kernel.path,
        "initrd": initrd,
        "squashfs": tree.squashfs.path,
        "root": str(entry.root),
        "complete": entry.fetches or len(entry.initrds) == 1,
        "arguments": _comment(" ".join(with_root_arguments(entry, tree, base_url)))
        if base_url
        else "",
        "checksums": [(path, tree.files[path].sha256) for path in sorted(paths)],
    }
    return (Exported(NAME, render_file(f"export/{NAME}", values, templates).content),)


def _choose(tree: Tree) -> tuple[Entry, str]:
    """Choose the entry that a reader of one kernel and one initrd can boot, and its initrd.

    One that fetches its root needs no more; then one whose initrd is all in one, for U-Boot.
    """
    entries = [entry for loader in Loader for entry in tree.entries.get(loader, ())]
    if not entries:
        raise VerifyError(
            f"{tree.name}: it has no entry that can be exported"
            + (f": {'; '.join(tree.left_out)}" if tree.left_out else ""),
            hint="build the tree with `embedded` or `http` in pxeboot/root, too",
        )
    ranked = sorted(entries, key=lambda entry: (not entry.fetches, len(entry.initrds) > 1))
    return ranked[0], ranked[0].initrds[0].path


def _version(tree: Tree) -> str:
    # productmd wants numbers with dots of a version that begins with a digit.
    stamp = tree.version_stamp
    if not stamp[0].isdigit() or _VERSION.fullmatch(stamp):
        return stamp
    return _time(tree).strftime("%Y%m%d.%H%M%S")


def _timestamp(tree: Tree) -> int:
    return int(_time(tree).timestamp())


def _time(tree: Tree) -> datetime:
    try:
        return datetime.strptime(tree.time, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError as error:
        raise VerifyError(
            f"{tree.name}: {tree.time!r} is not a time", hint="build the tree again"
        ) from error


def _comment(text: str) -> str:
    if not text.isprintable():
        raise TemplateError(
            f'treeinfo: the kernel arguments "{text}" hold a control character',
            hint="build the tree without it",
        )
    return text
