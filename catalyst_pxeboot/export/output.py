"""An export's files: kept in memory, then put in place, and never over another file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Exported:
    """A file of an export; `path` is relative to the folder that it is written to."""

    path: str
    content: bytes
