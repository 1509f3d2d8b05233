"""matchbox: a profile for each entry, and a group that gives every machine the default one.

Source of the form: matchbox's docs/matchbox.md and storage.proto. Its HTTP service makes an iPXE
script of a profile: `kernel`, the arguments with a space between, and a line `initrd` for each
initrd, as it is; so the second word of an initrd names it inside the initramfs, as in any iPXE
script. GRUB, which matchbox can serve as well, would take both words for one name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from catalyst_pxeboot.export.output import Exported
from catalyst_pxeboot.export.tree import Entry, File, Tree, with_root_arguments
from catalyst_pxeboot.loader.ipxe import IPXE
from catalyst_pxeboot.model.settings import RootMode

#: iPXE fills it in; the live system learns which network card it was booted by.
_BOOTIF = "BOOTIF=01-${netX/mac:hexhyp}"


def render(tree: Tree, base_url: str) -> tuple[Exported, ...]:
    """Return `profiles/*.json` and `groups/*.json` for matchbox's data folder."""
    entries = tree.entries_for(IPXE.kind)
    profiles = {_identity(tree, entry): _profile(tree, entry, base_url) for entry in entries}
    default = next(iter(profiles))
    group = {
        "id": tree.name,
        "name": _title(tree.title),
        "profile": default,
        # Of the groups that fit a machine, matchbox takes the one with the most selectors; this
        # one, with none, fits all.
        "selector": {},
        "metadata": {"arch": tree.arch, "version": tree.version_stamp},
    }
    return (
        *(_json(f"profiles/{name}.json", profile) for name, profile in profiles.items()),
        _json(f"groups/{tree.name}.json", group),
    )


def _profile(tree: Tree, entry: Entry, base_url: str) -> dict[str, Any]:
    return {
        "id": _identity(tree, entry),
        "name": _title(f"{tree.title}: {entry.full_title}"),
        "boot": {
            "kernel": f"{base_url}/{entry.kernel.path}",
            "initrd": [_initrd(file, base_url) for file in entry.initrds],
            "args": [
                *(
                    IPXE.quote_arguments([word])
                    for word in with_root_arguments(entry, tree, base_url)
                ),
                *_initrd_words(entry),
                _BOOTIF,
            ],
        },
    }


def _initrd(file: File, base_url: str) -> str:
    return f"{base_url}/{file.path}" + (f" /{file.member}" if file.member else "")


def _initrd_words(entry: Entry) -> Iterator[str]:
    """Name the initrds for a kernel's UEFI stub, which an iPXE before 2023-02 hands them by name.

    Files that iPXE joins have one name; plain ones have their own, which any iPXE knows.
    """
    if entry.root is RootMode.EMBEDDED:
        yield "initrd=initrd.magic"
    else:
        yield from (f"initrd={file.path.rsplit('/', 1)[-1]}" for file in entry.initrds)


def _identity(tree: Tree, entry: Entry) -> str:
    return f"{tree.name}-{entry.name}"


def _title(text: str) -> str:
    # Only people read it, but it ends in logs.
    return IPXE.quote_title(text)


def _json(path: str, data: Mapping[str, Any]) -> Exported:
    return Exported(path, (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode())
