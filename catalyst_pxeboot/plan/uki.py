"""Unified kernel images: which entries get one, and what is in it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from catalyst_pxeboot.formats.uki import MAX_UKI
from catalyst_pxeboot.loader.uki import UKI
from catalyst_pxeboot.model.files import UkiFile
from catalyst_pxeboot.model.loader import Loader
from catalyst_pxeboot.model.menu import LiveEntry, Menu
from catalyst_pxeboot.model.settings import RootMode
from catalyst_pxeboot.personal.model import Personal
from catalyst_pxeboot.plan.entries import part_sizes
from catalyst_pxeboot.plan.roots import root_location
from catalyst_pxeboot.source.image import Source, SourceKernel
from catalyst_pxeboot.spec.parse import Spec
from catalyst_pxeboot.util.errors import PxebootError
from catalyst_pxeboot.util.text import nearest, size

#: The ways to the root, where the spec names none: the least memory first, as the firmware holds
#: all of the file twice.
_ROOTS = (RootMode.STREAM, RootMode.HTTP, RootMode.NFS, RootMode.EMBEDDED)


def plan_ukis(spec: Spec, source: Source, menu: Menu, personal: Personal) -> Iterator[UkiFile]:
    """Plan an image for each kernel, and one for each further entry that the spec names.

    Raises `PxebootError` for the name of an entry that there is not.
    """
    if Loader.UKI not in spec.loaders:
        return
    live = menu.live_for(Loader.UKI)
    done = set()
    for kernel in source.kernels:
        own = [entry for entry in live if entry.kernel == kernel.iso.path]
        if own:
            entry = _choose(own, spec)
            done.add(entry.name)
            yield _plan(
                entry, f"{kernel.iso.path}.efi", kernel, part_sizes(kernel, source, personal), menu
            )
    names = [entry.name for entry in live]
    for name in spec.uki_entries:
        if name not in names:
            raise PxebootError(
                f"pxeboot/uki_entries: the menu has no {name!r}{nearest(name, names)}",
                hint="it has " + ", ".join(names),
            )
        if name in done:
            continue
        entry = live[names.index(name)]
        kernel = next(kernel for kernel in source.kernels if kernel.iso.path == entry.kernel)
        # The usual entry has its kernel's own name, which is that of the kernel's first image.
        taken = name in {kernel.iso.name for kernel in source.kernels}
        path = f"boot/{name}-{entry.root}.efi" if taken else f"boot/{name}.efi"
        yield _plan(entry, path, kernel, part_sizes(kernel, source, personal), menu)


def _choose(entries: Sequence[LiveEntry], spec: Spec) -> LiveEntry:
    order = spec.roots or _ROOTS
    return min(entries, key=lambda entry: order.index(entry.root))


def _plan(
    entry: LiveEntry, path: str, kernel: SourceKernel, sizes: Mapping[str, int], menu: Menu
) -> UkiFile:
    count = kernel.kernel.bytes + sum(sizes[part] for part in entry.parts)
    if count > MAX_UKI:
        raise PxebootError(
            f"{path}: {size(count)} in one EFI program is more than {size(MAX_UKI)}",
            hint="let it stream its root (pxeboot/root: stream), or leave uki out of"
            " pxeboot/loaders",
        )
    words = (*entry.arguments, *root_location(entry, menu, UKI.root_variables))
    return UkiFile(
        path=path,
        entry=entry.name,
        title=f"{menu.title}: {entry.title}",
        kernel=UKI.kernel(entry),
        initrds=entry.parts,
        arguments=UKI.quote_arguments(words),
        release=kernel.kernel.version or "",
        bytes=count,
    )
