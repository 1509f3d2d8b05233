"""The table of root modes and what each needs of a client, as lines of text.

Made from the manifest's entries, so a plan, a published tree and its README.txt show the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from catalyst_pxeboot.model.loader import Firmware
from catalyst_pxeboot.model.manifest import EntryInfo
from catalyst_pxeboot.util.text import mebibytes, size

_HEAD = ("kernel", "root", "loader", "memory, BIOS", "memory, UEFI", "over the wire")
Row = tuple[str, ...]


def limit_rows(entries: Sequence[EntryInfo]) -> list[Row]:
    """Return the table of the live entries in `entries` (the manifest's), its head first.

    Entries that differ in their arguments only share a row.
    """
    rows: list[Row] = [_HEAD]
    for entry in entries:
        for loader, limits in (entry.limits or {}).items():
            memory = limits.memory_bytes
            row = (
                entry.kernel.rpartition("/")[2],
                str(entry.root),
                str(loader),
                *(
                    f"{mebibytes(memory[firmware])} MiB" if firmware in memory else "-"
                    for firmware in Firmware
                ),
                size(limits.wire_bytes),
            )
            if row not in rows:
                rows.append(row)
    return rows


def limit_lines(entries: Sequence[EntryInfo]) -> list[str]:
    """Return `limit_rows` as lines of text."""
    rows = limit_rows(entries)
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def limit_warnings(entries: Sequence[EntryInfo]) -> Iterator[str]:
    """Yield what depends on the client or the server, each once, with whom it concerns."""
    found: dict[str, list[str]] = {}
    for entry in entries:
        for loader, limits in (entry.limits or {}).items():
            for warning in limits.warnings:
                names = found.setdefault(warning, [])
                if str(loader) not in names:
                    names.append(str(loader))
    for warning, names in found.items():
        yield f"{', '.join(names)}: {warning}"
