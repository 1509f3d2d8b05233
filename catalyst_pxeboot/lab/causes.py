"""Find out from a failed boot's console what was probably wrong, and what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from catalyst_pxeboot.util.resources import read_table

#: Seconds of silence after which a boot is held for stuck.
STUCK = 30.0

# What all menus end with.
_MENU = re.compile(r"Power off")
# The last thing that OpenRC and systemd start in a live image.
_SERVICES = re.compile(r"Starting local|Multi-User System|multi-user\.target")
# A kernel's own lines, or its stub's.
_KERNEL = re.compile(r"^\[ *\d+\.\d{6}\]|Linux version \d")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a failed boot.

    `reason` is how it ended and `tail` the console's last lines. `silence` is for how many seconds
    nothing had come before the end, `timed_out` whether time ended it. `serial` says whether the
    kernel uses the serial console, `waits` whether the menu goes on by itself never.
    `fetched` holds bytes by scheme:path; without servers to ask it is None.
    """

    reason: str
    tail: Sequence[str]
    timed_out: bool = False
    silence: float = 0.0
    timeout: float = 0.0
    memory_mib: int = 0
    serial: bool = True
    waits: bool = False
    fetched: Mapping[str, int] | None = field(default=None)


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    patterns: tuple[re.Pattern[str], ...]
    says: str


def find_cause(evidence: Evidence) -> str:
    """Name the likely cause and what to do, in one line; empty if none is known."""
    text = "\n".join((*evidence.tail, evidence.reason))
    for row in _rows():
        for pattern in row.patterns:
            found = list(pattern.finditer(text))
            if found:
                # The last one, as loaders try other names first. The lab's TFTP root ends so.
                named = (found[-1].groupdict().get("file") or "").rpartition("/tftp/")[2]
                file = f" ({named})" if named else ""
                return row.says.format(memory=evidence.memory_mib or "?", file=file)
    return _by_silence(evidence)


def name_cause(text: str) -> str:
    """Return the name of the table's row that fits a console, or nothing."""
    for row in _rows():
        if any(pattern.search(text) for pattern in row.patterns):
            return row.name
    return ""


@cache
def _rows() -> tuple[_Row, ...]:
    return tuple(
        _Row(
            row["name"],
            tuple(re.compile(text, re.IGNORECASE | re.MULTILINE) for text in row["patterns"]),
            row["says"],
        )
        for row in read_table("lab/causes.toml")["cause"]
    )


def _by_silence(evidence: Evidence) -> str:
    """Judge a boot that reported no error by how far it got."""
    tail = evidence.tail
    more = f"--timeout {max(int(evidence.timeout * 3), 60)}"
    if not tail:
        if evidence.fetched and any(evidence.fetched.values()):
            return (
                "the client fetched files but nothing came on its serial console: give --until or"
                " --screenshot"
            )
        return (
            "nothing came on the console and nothing was fetched: the firmware did not start, or"
            f" not within the time; try {more}, and --screenshot to see the screen"
        )
    kernel = any(_KERNEL.search(line) for line in tail)
    if not evidence.timed_out:
        if kernel:
            return "the client stopped or restarted by itself after its kernel had started"
        return "the client stopped or restarted by itself before its kernel printed anything"
    if not kernel and _MENU.search(tail[-1]):
        ever = "it waits for ever (pxeboot/timeout: -1)" if evidence.waits else "its time goes on"
        return f"the menu was still there when time was over: {ever}; {more}"
    if not kernel and not evidence.serial and evidence.silence >= STUCK:
        return (
            "the kernel prints to the screen only, so nothing can be read: build the tree with"
            " pxeboot/serial: ttyS0,115200, or give --until or --screenshot"
        )
    last = tail[-1].strip()
    if any(_SERVICES.search(line) for line in tail):
        return (
            "the live system has started its services but shows no prompt on the serial console:"
            " give what it does show there with --until, such as --until 'Starting local'"
        )
    if evidence.silence < STUCK:
        return f"it was still going on when time was over, and had come to {last!r}; try {more}"
    if kernel:
        return f"nothing more came for {evidence.silence:.0f} s after {last!r}"
    return (
        f"nothing more came for {evidence.silence:.0f} s after {last!r}: the kernel did not start,"
        " or printed nothing; too little memory is the most usual reason (--memory)"
    )
