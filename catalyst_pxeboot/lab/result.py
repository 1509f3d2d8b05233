"""What came of a boot path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from catalyst_pxeboot.lab.paths import BootPath


class Outcome(StrEnum):
    """How a path ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class PathResult:
    """What came of one path.

    `reason` is one line: what proved it, what went wrong, or why it was skipped. `fetched` holds
    bytes by file, each with its scheme before a colon. `note` says in what the boot fell short
    of the path, if it did.
    """

    path: BootPath
    outcome: Outcome
    seconds: float
    reason: str
    fetched: Mapping[str, int]
    console_tail: tuple[str, ...]
    note: str = ""
