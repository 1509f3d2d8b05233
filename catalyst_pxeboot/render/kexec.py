"""kexec.sh: boots a tree's live image from a running Linux.

The script holds the digests of what it fetches, so it is made when they are known.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from catalyst_pxeboot.formats.initramfs import Generator
from catalyst_pxeboot.formats.kernel import KernelImage
from catalyst_pxeboot.loader.common import RootVariables
from catalyst_pxeboot.model.files import MadeFile, Role, TreeFile
from catalyst_pxeboot.model.menu import LiveEntry, Menu
from catalyst_pxeboot.model.settings import NfsRoot
from catalyst_pxeboot.plan.roots import ROOTS, root_location
from catalyst_pxeboot.plan.tree import Plan
from catalyst_pxeboot.render.menu import NfsView
from catalyst_pxeboot.render.templates import render_file
from catalyst_pxeboot.util.errors import TemplateError
from catalyst_pxeboot.util.sums import MANIFEST_DIGEST
from catalyst_pxeboot.util.text import mebibytes

KEXEC = "kexec.sh"


def quote_shell(text: str) -> str:
    """Return a text as one word of a POSIX shell's script.

    Raises `TemplateError` for what would not stay in its line.
    """
    if not text.isprintable():
        raise TemplateError(
            f'kexec.sh: the value "{text}" holds a line break or control character',
            hint="write it without",
        )
    return shlex.quote(text)


@dataclass(frozen=True, slots=True)
class PartView:
    """A file of the tree as the script's template sees it; nothing in it needs quotes."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class KexecEntry:
    """A live entry as the script's template sees it: quoted for the shell."""

    name: str
    title: str
    root: str  # embedded, stream, http or nfs
    by_url: bool  # the root's address on a web server is a kernel argument
    memory: int  # MiB; 0 where it is not known
    kernel: str
    packed: bool  # it is to be unpacked with gzip
    kernel_bytes: int
    kernel_sha256: str
    arguments: str
    location: str  # the arguments that say where the root is, for double quotes; may be empty
    bytes: int  # of all initrds
    initrds: tuple[PartView, ...]  # in the order in which they make one file
    dracut: bool
    genkernel: bool


#: The script's own variables; it adds an address if the caller gives none.
_VARIABLES = RootVariables(
    url="${tree_url}/", nfs_server="$nfs_server", address="", genkernel_address=""
)


def render_kexec(plan: Plan, files: Sequence[TreeFile]) -> MadeFile:
    """Render kexec.sh for the tree with the staged `files`."""
    by_path = {file.path: file for file in files}
    images = {kernel.iso.path: kernel.kernel.image for kernel in plan.source.kernels}
    menu = plan.menu
    values = {
        "title": quote_shell(menu.title),
        "machines": " | ".join(plan.spec.arch.uname),
        "base_url": quote_shell(menu.base_url or ""),
        "entries": [_view(entry, menu, by_path, images) for entry in menu.live],
        "nfs": _view_nfs(menu.nfs) if menu.nfs else None,
    }
    return render_file(KEXEC, values, plan.spec.templates, role=Role.SCRIPT)


def _least_memory(entry: LiveEntry) -> int:
    """Return what the kernel and its initramfs need in bytes, whatever loads them; 0: not known.

    Firmware and loaders take more; the smallest figure is that of the one that takes least.
    """
    counts = (count for limits in entry.limits.values() for count in limits.memory.values())
    return min(counts, default=0)


def _view(
    entry: LiveEntry,
    menu: Menu,
    files: Mapping[str, TreeFile],
    images: Mapping[str, KernelImage],
) -> KexecEntry:
    # kexec on arm64 and riscv64 takes the plain Image, as U-Boot does.
    kernel = files[entry.unpacked or entry.kernel]
    parts = tuple(_part(files[path]) for path in entry.parts)
    return KexecEntry(
        name=quote_shell(entry.name),
        title=quote_shell(entry.title),
        root=str(entry.root),
        by_url=ROOTS[entry.root].by_url,
        memory=mebibytes(_least_memory(entry)),
        kernel=quote_shell(kernel.path),
        packed=entry.unpacked is None and images[entry.kernel] is KernelImage.GZIP,
        kernel_bytes=kernel.bytes,
        kernel_sha256=kernel.digests[MANIFEST_DIGEST],
        arguments=quote_shell(" ".join(entry.arguments)),
        location=" ".join(root_location(entry, menu, _VARIABLES)),
        bytes=sum(part.bytes for part in parts),
        initrds=parts,
        dracut=entry.generator is Generator.DRACUT,
        genkernel=entry.generator is Generator.GENKERNEL,
    )


def _view_nfs(nfs: NfsRoot) -> NfsView:
    options = quote_shell(nfs.options) if nfs.options else ""
    return NfsView(quote_shell(nfs.server or ""), quote_shell(nfs.path), options)


def _part(file: TreeFile) -> PartView:
    return PartView(file.path, file.bytes, file.digests[MANIFEST_DIGEST])
