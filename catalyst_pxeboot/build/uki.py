"""Make the plan's unified kernel images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from catalyst_pxeboot.formats.uki import make_uki
from catalyst_pxeboot.loader.binaries import FoundStub
from catalyst_pxeboot.model.files import MadeFile, Role, UkiFile
from catalyst_pxeboot.plan.tree import Plan
from catalyst_pxeboot.util.files import read_regular

if TYPE_CHECKING:
    from catalyst_pxeboot.formats.signing.secureboot import SecureBootSigner

_MAX_STUB = 4 << 20  # bytes


def make_ukis(
    plan: Plan, tree: Path, signer: SecureBootSigner | None, *, time: int
) -> Iterator[MadeFile]:
    """Make the images of the files in the staged `tree`; `time` is that of its files.

    Raises `FormatError` for a stub that is none, `CommandError` where it cannot be signed.
    """
    stub = plan.loaders.stub
    if stub is None:
        return
    program = read_regular(stub.origin, limit=_MAX_STUB)
    for uki in plan.ukis:
        content = make_uki(program, uki_sections(uki, tree), where=str(stub.origin))
        if signer:
            content = signer.sign(content, name=uki.path, time=time)
        yield MadeFile(uki.path, content, Role.UKI, _origin(stub))


def uki_sections(uki: UkiFile, tree: Path) -> dict[str, bytes]:
    """Return the sections of an image, by name and in their order."""
    initrd = b"".join((tree / part).read_bytes() for part in uki.initrds)
    os_release = f'ID=gentoo\nNAME=Gentoo\nPRETTY_NAME="{_plain(uki.title)}"\n'
    sections = {
        ".osrel": os_release.encode(),
        ".cmdline": uki.arguments.encode(),
        ".uname": uki.release.encode(),
        ".initrd": initrd,
        # At the end: a kernel that unpacks in its place writes behind itself.
        ".linux": (tree / uki.kernel).read_bytes(),
    }
    return {name: content for name, content in sections.items() if content}


def _plain(text: str) -> str:
    """Return a title as it may stand between double quotes (os-release(5))."""
    return "".join(letter for letter in text if letter not in '"\\$`')


def _origin(stub: FoundStub) -> str:
    name = stub.origin.name
    return f"{name} ({stub.version})" if stub.version else name
