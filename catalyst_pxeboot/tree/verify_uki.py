"""Says whether unified kernel images are made of the tree's own files, and signed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from catalyst_pxeboot.formats.uki import MAX_UKI, read_sections
from catalyst_pxeboot.model.files import Role
from catalyst_pxeboot.model.loader import Loader
from catalyst_pxeboot.model.manifest import EntryInfo, Manifest
from catalyst_pxeboot.tree.manifest import REBUILD
from catalyst_pxeboot.util.errors import FormatError, VerifyError, needs_extra
from catalyst_pxeboot.util.files import list_files, read_regular

#: What an image's command line may have beside its entry's: where the root and the client are.
_PLACES: Final = ("ip=", "nfsroot=", "gk.net.iface=")


def find_uki_faults(tree: Path, manifest: Manifest) -> Iterator[VerifyError]:
    """Yield what in an image is not of the tree: a kernel, an initrd, a command line."""
    entries = {entry.uki: entry for entry in manifest.menu.live if entry.uki}
    for name in (file.path for file in manifest.files if file.role is Role.UKI):
        entry = entries.get(name)
        if entry is None:
            yield VerifyError(f"{name}: no entry of the menu is booted by it", hint=REBUILD)
            continue
        try:
            yield from _faults(tree, name, entry)
        except OSError:
            continue  # reported already
        except FormatError as error:
            yield VerifyError(error.message, hint=REBUILD)


def _faults(tree: Path, name: str, entry: EntryInfo) -> Iterator[VerifyError]:
    sections = read_sections(read_regular(tree / name, limit=MAX_UKI), where=name)
    kernel = entry.kernels.get(Loader.UKI, "")
    if sections.get(".linux") != read_regular(tree / kernel, limit=MAX_UKI):
        yield VerifyError(f"{name}: the kernel in it is not {kernel}", hint=REBUILD)
    parts = entry.initrds.get(Loader.UKI, ())
    if sections.get(".initrd") != _joined(tree, parts):
        yield VerifyError(f"{name}: the initrd in it is not {' + '.join(parts)}", hint=REBUILD)
    words = sections.get(".cmdline", b"").decode(errors="replace").split(" ")
    own = entry.arguments.split(" ")
    places = (*_PLACES, *((entry.url_argument,) if entry.url_argument else ()))
    if words[: len(own)] != own or not all(word.startswith(places) for word in words[len(own) :]):
        yield VerifyError(
            f"{name}: its command line is not that of the entry {entry.name}", hint=REBUILD
        )


def _joined(tree: Path, parts: Iterable[str]) -> bytes:
    return b"".join(read_regular(tree / part, limit=MAX_UKI) for part in parts)


def find_secureboot_faults(
    tree: Path, manifest: Manifest, certificate: Path
) -> Iterator[VerifyError]:
    """Yield each unified kernel image without a signature of that certificate's key.

    What must be signed is not the manifest's to say: every program in the folder of the kernels.
    """
    with needs_extra("sign", "--secureboot-cert"):
        from catalyst_pxeboot.formats.signing.secureboot import is_signed_by, read_certificate

    read_certificate(certificate, "--secureboot-cert")
    folders = {str(Path(kernel.path).parent) for kernel in manifest.kernels}
    programs = [
        name
        for name in list_files(tree)
        if name.endswith(".efi") and str(Path(name).parent) in {"boot", *folders}
    ]
    listed = {file.path for file in manifest.files if file.role is Role.UKI}
    if not programs:
        yield VerifyError("there is no unified kernel image", hint="pxeboot/loaders: uki")
    for name in sorted(programs):
        if name not in listed:
            yield VerifyError(f"{name}: not a unified kernel image of this tree", hint=REBUILD)
        elif not is_signed_by(tree / name, certificate):
            yield VerifyError(
                f"{name}: it is not signed by the key of {certificate}",
                hint="build the tree with pxeboot/secureboot_cert and pxeboot/secureboot_key",
            )
