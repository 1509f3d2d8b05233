"""What the servers' logs tell: dnsmasq's of DHCP and TFTP, the web servers' of requests."""

from __future__ import annotations

import json
import os
import re
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

_MOST_LOG = 4 << 20  # bytes; what is read and larger is emptied
MOST_KEPT = 4096  # clients, connections, transactions
K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class DhcpLine:
    """A line of dnsmasq's log about one DHCP transaction.

    `kind` is what was sent or received (`DHCPACK`, `PXE`, …), or what is said about it: `vendor`,
    `tags` or `file`, with `text`.
    """

    transaction: str
    kind: str
    ip: str = ""
    mac: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class TftpLine:
    """How a TFTP transfer ended: `sent`, `failed`, `missing`, or `aborted` by the client.

    `closed`: the client says that it has all it wants, without acknowledging the last block, as
    PXELINUX does at the end of a long file; `failed` follows.
    """

    outcome: str
    client: str
    file: str = ""


@dataclass(frozen=True, slots=True)
class HttpBegin:
    """A request has come."""

    client: str
    port: int
    path: str


@dataclass(frozen=True, slots=True)
class HttpEnd:
    """A request was answered: `bytes` of the file, `sent` with headers; `query` is as it came."""

    client: str
    port: int
    method: str
    path: str
    status: int
    bytes: int
    sent: int
    seconds: float
    query: str = ""


Line = DhcpLine | TftpLine | HttpBegin | HttpEnd
_MAC = r"[0-9a-f]{2}(?::[0-9a-f]{2}){5,}"

# The time and the program's name are dnsmasq's own; all behind them may be a client's text, which
# can look like another line but cannot begin one.
_BEGIN = r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d "

_DHCP = re.compile(
    rf"{_BEGIN}dnsmasq-dhcp\[\d+\]: (?P<transaction>\d+) (?:"
    r"(?P<kind>DHCP[A-Z]+|PXE)\([^)]*\) (?:(?P<ip>\d+(?:\.\d+){3}) )?"
    rf"(?P<mac>{_MAC})(?: (?P<rest>.*))?|"
    r"vendor class: (?P<vendor>.*)|"
    r"tags: (?P<tags>.*)|"
    r"(?:bootfile name: |sent size: *\d+ option: 67 bootfile-name +)(?P<file>.*))"
)

_TFTP = re.compile(
    rf"{_BEGIN}dnsmasq-tftp\[\d+\]: (?:"
    r"(?P<outcome>sent|failed sending) (?P<file>/.*) to |"
    r"file (?P<missing>/.*) not found for |"
    r"(?P<closed>error 0 No error, file close) received from |"
    r"error \d+ .* received from "
    r")(?P<client>[0-9a-f.:]+)"
)


def parse_dnsmasq(line: str) -> DhcpLine | TftpLine | None:
    """Read a line of dnsmasq's log; None for one that says nothing of a client."""
    found = _DHCP.fullmatch(line)
    if found:
        for kind in ("vendor", "tags", "file"):
            if found[kind] is not None:
                return DhcpLine(found["transaction"], kind, text=found[kind])
        return DhcpLine(
            found["transaction"], found["kind"], found["ip"] or "", found["mac"],
            found["rest"] or "",
        )  # fmt: skip
    found = _TFTP.fullmatch(line)
    if found is None:
        return None
    if found["missing"]:
        return TftpLine("missing", found["client"], found["missing"])
    if found["closed"]:
        return TftpLine("closed", found["client"])
    if found["outcome"] is None:
        return TftpLine("aborted", found["client"])
    outcome = "sent" if found["outcome"] == "sent" else "failed"
    return TftpLine(outcome, found["client"], found["file"])


class TftpEnds:
    """Joins what dnsmasq says of one transfer in two lines.

    `take` returns the line by which a transfer is known to have ended: `sent`, `failed`, `missing`
    or, if the client only asked for the size, `aborted` with the file's name; None before that.
    """

    def __init__(self) -> None:
        # By client. A hostile one could bring any number of addresses.
        self._aborted: OrderedDict[str, int] = OrderedDict()
        self._closed: OrderedDict[str, bool] = OrderedDict()

    def take(self, line: TftpLine) -> TftpLine | None:
        """Take the next line."""
        client = line.client
        if line.outcome == "aborted":
            # A firmware asks for a file's size this way; dnsmasq says "sent" next.
            keep(self._aborted, client, self._aborted.get(client, 0) + 1)
            return None
        if line.outcome == "closed":
            keep(self._closed, client, True)
            return None
        if line.outcome == "failed" and self._closed.pop(client, False):
            return replace(line, outcome="sent")
        if line.outcome == "sent" and self._aborted.get(client):
            self._aborted[client] -= 1
            return replace(line, outcome="aborted")
        return line


def keep(kept: OrderedDict[K, V], key: K, value: V) -> None:
    """Keep a value as the latest one; an old one makes room for a new one."""
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > MOST_KEPT:
        kept.popitem(last=False)


def parse_web(line: str) -> HttpBegin | HttpEnd | None:
    """Read a line of a web server's log; None for one that is none."""
    try:
        data = json.loads(line)
        if data.get("event") == "begin":
            path = unquote(urlsplit(data["path"]).path)
            return HttpBegin(data["client"], int(data["port"] or 0), path)
        return HttpEnd(
            data["client"], int(data["port"] or 0), data["method"], data["path"],
            data["status"], data["bytes"], data["sent"], data["seconds"], data.get("query", ""),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


class Tail:
    """Reads a growing log's new lines, and empties it when it has become large."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._position = 0
        self._rest = b""

    def lines(self) -> Iterator[str]:
        """Yield the whole lines that have come since the last call."""
        try:
            fd = os.open(self._file, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        with os.fdopen(fd, "r+b") as stream:
            stream.seek(self._position)
            data = stream.read()
            self._position += len(data)
            if self._position > _MOST_LOG:
                # Servers append, so they go on at its new end.
                stream.truncate(0)
                self._position = 0
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            yield line.decode("utf-8", "replace")
