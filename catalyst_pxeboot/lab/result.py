"""The result of a boot path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from catalyst_pxeboot.lab.paths import BootPath


class Outcome(StrEnum):
    """How a path ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class PathResult:
    """The result of one path.

    `reason` is one line: what proved it, what went wrong, or why it was skipped. `fetched` holds
    bytes by file, each with its scheme before a colon. `note` says in what the boot fell short
    of the path, if it did. `cause` is what probably was wrong, and what to do. `screenshot` is
    a picture of the screen at the end.
    """

    path: BootPath
    outcome: Outcome
    seconds: float
    reason: str
    fetched: Mapping[str, int]
    console_tail: tuple[str, ...]
    note: str = ""
    cause: str = ""
    screenshot: Path | None = None

    def data(self) -> dict[str, Any]:
        """Return the result for machines."""
        return {
            "name": self.path.name,
            "firmware": self.path.machine.name,
            "loader": self.path.loader.value,
            "dhcp": self.path.dhcp.value,
            "chain": [str(step) for step in self.path.chain],
            "outcome": self.outcome.value,
            "seconds": round(self.seconds, 1),
            "reason": self.reason,
            "cause": self.cause,
            "note": self.note,
            "screenshot": str(self.screenshot) if self.screenshot else None,
            "fetched": dict(self.fetched),
            "console": list(self.console_tail),
        }
