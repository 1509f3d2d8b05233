"""The table of ways to the live root and what each asks of a client, as lines of text.

Made from the manifest's entries, so a plan, a published tree and its README.txt show the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from catalyst_pxeboot.util.text import mebibytes, size

_HEAD = ("kernel", "root", "loader", "memory, BIOS", "memory, UEFI", "over the wire")
Row = tuple[str, ...]


def limit_rows(entries: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return the table of the live entries in `entries` (the manifest's), its head first.

    Entries that differ in their arguments only share a row.
    """
    rows: list[Row] = [_HEAD]
    for entry in entries:
        for loader, limits in entry.get("limits", {}).items():
            memory = limits["memory_bytes"]
            row = (
                entry["kernel"].rpartition("/")[2],
                entry["root"],
                loader,
                *(
                    f"{mebibytes(memory[firmware])} MiB" if firmware in memory else "-"
                    for firmware in ("bios", "efi")
                ),
                size(limits["wire_bytes"]),
            )
            if row not in rows:
                rows.append(row)
    return rows


def limit_lines(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return `limit_rows` as lines of text."""
    rows = limit_rows(entries)
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def limit_warnings(entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what depends on the client or the server, each once, with whom it concerns."""
    told: dict[str, list[str]] = {}
    for entry in entries:
        for loader, limits in entry.get("limits", {}).items():
            for warning in limits["warnings"]:
                names = told.setdefault(warning, [])
                if loader not in names:
                    names.append(loader)
    for warning, names in told.items():
        yield f"{', '.join(names)}: {warning}"
