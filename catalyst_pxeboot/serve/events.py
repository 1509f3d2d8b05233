"""Who boots what, from the servers' logs.

An event is a mapping for machines and a line for people. Each has `event` (its kind) and `time`
(UTC, RFC 3339); the others, by kind, are these and no more, null where it is not known:

    serving   tree title interface address url http dhcp range tftp
              http: nginx or embedded; dhcp: range, proxy or none; range: two addresses; tftp: bool
    offer     ip mac arch file              DHCP named a boot file to a client
    progress  ip mac arch scheme file bytes total percent    25, 50 and 75 of a large file
    file      ip mac arch scheme file bytes seconds          fetched (seconds: of HTTP only)
    root      ip mac arch scheme file bytes seconds          the live root, all of it
    streamed  ip mac arch scheme file bytes                  of the live root, at 1, 2, 4 ... MiB
    broken    ip mac arch scheme file bytes                  a transfer ended early
    refused   ip mac arch scheme file status                 status: of HTTP; TFTP has no such file
    changed   file served                      a file of the tree is no longer what was checked;
              served: the one that was checked still is
    up        ip mac arch seconds status keys  the live system is there; seconds since its first
              sign; status: the script's, null without one; keys: of sshd, each type key fingerprint
    stopped                                     all servers were stopped, after Ctrl-C

`arch` is the client's firmware as the DHCP configurations call it (`BIOS`, `UEFI x64`), `scheme`
http or tftp, `file` a path in the tree.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from catalyst_pxeboot.model.arch import Arch
from catalyst_pxeboot.serve.facts import ServedTree
from catalyst_pxeboot.serve.personal import REPORT
from catalyst_pxeboot.serve.reports import HostKey, read_report
from catalyst_pxeboot.services.logs import (
    DhcpLine,
    HttpBegin,
    HttpEnd,
    Line,
    TftpEnds,
    TftpLine,
    keep,
)
from catalyst_pxeboot.util.text import one_line, size

#: A file whose progress is reported.
LARGE = 32 << 20  # bytes
#: A client that streams its root asks for less at a time; who goes on with a download, for more.
_LARGEST_RANGE = 4 << 20  # bytes
_STEPS = (25, 50, 75)  # per cent
_REPEAT_SECONDS = 30.0  # a client that asks again so soon is reported once
_PAUSE_SECONDS = 600.0  # after it the next sign of a machine is that of a new boot
_ARCH_CODE = re.compile(r"(?:PXE|HTTP)Client:Arch:(\d{5})")


@dataclass(frozen=True, slots=True)
class Event:
    """What has happened: for machines, and for people in a line."""

    data: Mapping[str, Any]
    text: str


@dataclass(slots=True)
class _Transaction:
    kind: str = ""
    ip: str = ""
    mac: str = ""
    arch: str = ""  # known before the line that names the client


@dataclass(slots=True)
class _Transfer:
    file: str
    before: int  # bytes of the connection that had arrived before it
    reported: int = 0  # per cent


@dataclass(slots=True)
class _Boot:
    """A machine that boots, from its first sign to its report."""

    begun: datetime
    last: datetime
    fetched: bool = False  # something of the live image
    up: bool = False


@dataclass(slots=True)
class Tracker:
    """Turns log lines into events; it remembers what a client said of itself.

    `root` is the tree as dnsmasq's log names it. `find_mac` asks the kernel who has an address.
    """

    tree: ServedTree
    root: Path
    find_mac: Callable[[str], str | None]
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _macs: OrderedDict[str, str] = field(default_factory=OrderedDict)  # by IP address
    _arches: OrderedDict[str, str] = field(default_factory=OrderedDict)  # by MAC
    _offers: OrderedDict[tuple[str, str], datetime] = field(default_factory=OrderedDict)
    _transactions: OrderedDict[str, _Transaction] = field(default_factory=OrderedDict)
    _transfers: OrderedDict[tuple[str, int], _Transfer] = field(default_factory=OrderedDict)
    _sent: OrderedDict[tuple[str, int], int] = field(default_factory=OrderedDict)
    _parts: OrderedDict[tuple[str, str], int] = field(default_factory=OrderedDict)
    _ranges: OrderedDict[tuple[str, str], int] = field(default_factory=OrderedDict)
    _boots: OrderedDict[str, _Boot] = field(default_factory=OrderedDict)  # by MAC, else IP
    _tftp_ends: TftpEnds = field(default_factory=TftpEnds)

    def is_watching(self) -> bool:
        """Say whether a large file is on its way."""
        return bool(self._transfers)

    def event(self, kind: str, text: str, **more: object) -> Event:
        """Make an event of this moment."""
        return _event(self.now(), kind, text, **more)

    def changed(self, file: str, *, served: bool) -> Event:
        """Say that a file of the tree has changed."""
        text = (
            "was replaced in the tree: the file that was checked is served on, until serve is"
            " started again"
            if served
            else "has changed since it was checked: it is served no more"
        )
        return self.event("changed", f"{file}: {text}", file=file, served=served)

    def take(self, line: Line) -> Iterator[Event]:
        """Yield the events in a line of a log."""
        if isinstance(line, DhcpLine):
            yield from self._dhcp(line)
        elif isinstance(line, TftpLine):
            yield from self._tftp(line)
        elif isinstance(line, HttpBegin):
            file = line.path.lstrip("/")
            if self.tree.files.get(file, 0) >= LARGE:
                connection = (line.client, line.port)
                before = self._sent.get(connection, 0)
                keep(self._transfers, connection, _Transfer(file, before))
        else:
            yield from self._http(line)

    def progress(self, arrived: Mapping[tuple[str, int], int]) -> Iterator[Event]:
        """Yield how far large files are, from the bytes that have arrived by connection."""
        for connection, transfer in self._transfers.items():
            ip, _ = connection
            if connection not in arrived:
                continue
            total = self.tree.files[transfer.file]
            done = arrived[connection] - transfer.before + self._parts.get((ip, transfer.file), 0)
            percent = max((step for step in _STEPS if done * 100 >= step * total), default=0)
            if percent > transfer.reported:
                transfer.reported = percent
                yield self._of_client(
                    "progress", ip, f"{transfer.file} {percent} % of {size(total)}",
                    scheme="http", file=transfer.file, bytes=min(done, total), total=total,
                    percent=percent,
                )  # fmt: skip

    def _dhcp(self, line: DhcpLine) -> Iterator[Event]:
        known = self._transactions.get(line.transaction) or _Transaction()
        keep(self._transactions, line.transaction, known)
        if line.mac:
            known.kind, known.mac = line.kind, line.mac
            known.ip = line.ip or known.ip
            if line.ip:
                keep(self._macs, line.ip, line.mac)
            if known.arch:
                keep(self._arches, known.mac, known.arch)
        if line.kind == "vendor":
            code = _ARCH_CODE.match(line.text)
            known.arch = arch_title(self.tree.arch, int(code[1])) if code else ""
        elif line.kind == "file" and known.kind in ("DHCPACK", "PXE"):
            yield from self._offer(known, line.text)

    def _offer(self, known: _Transaction, file: str) -> Iterator[Event]:
        self._boot(known.mac)
        reported = self._offers.get((known.mac, file))
        now = self.now()
        if reported is None or (now - reported).total_seconds() > _REPEAT_SECONDS:
            keep(self._offers, (known.mac, file), now)
            arch = self._arches.get(known.mac)
            yield self.event(
                "offer", _line(known.ip or known.mac, arch, f"is offered {file}"),
                ip=known.ip or None, mac=known.mac, arch=arch, file=file,
            )  # fmt: skip

    def _tftp(self, logged: TftpLine) -> Iterator[Event]:
        line = self._tftp_ends.take(logged)
        if line is None:
            return
        path = Path(line.file or "/")
        file = str(path.relative_to(self.root)) if path.is_relative_to(self.root) else line.file
        if line.outcome == "missing":
            yield self._of_client(
                "refused", line.client, f"{file}: not in the tree",
                scheme="tftp", file=file, status=None,
            )  # fmt: skip
        elif line.outcome == "failed":
            yield self._broken(line.client, "tftp", file, 0)
        elif line.outcome == "sent":
            yield self._fetched(line.client, "tftp", file, self.tree.files.get(file, 0), None)

    def _http(self, line: HttpEnd) -> Iterator[Event]:
        connection = (line.client, line.port)
        self._transfers.pop(connection, None)
        keep(self._sent, connection, self._sent.get(connection, 0) + line.sent)
        file = line.path.lstrip("/")
        if file == REPORT and line.method == "GET":
            yield from self._up(line)
        elif line.status >= 400:
            yield self._of_client(
                "refused", line.client, f"{file or line.method or 'no request'}: {line.status}",
                scheme="http", file=file, status=line.status,
            )  # fmt: skip
        elif line.method == "GET" and line.status in (200, 206):
            total = self.tree.files.get(file, 0)
            if line.status == 200 and line.bytes < total:
                yield self._broken(line.client, "http", file, line.bytes)
                return
            got = line.bytes
            if self._is_streamed(line, file):
                yield from self._streamed(line, file)
                return
            if line.status == 206:
                got += self._parts.get((line.client, file), 0)
                keep(self._parts, (line.client, file), got)
            if got >= total:
                self._parts.pop((line.client, file), None)
                yield self._fetched(line.client, "http", file, total, line.seconds)

    def _is_streamed(self, line: HttpEnd, file: str) -> bool:
        return (
            line.status == 206
            and file in self.tree.roots
            and line.bytes <= _LARGEST_RANGE
            and (line.client, file) not in self._parts
        )

    def _streamed(self, line: HttpEnd, file: str) -> Iterator[Event]:
        """Yield how much of a root was read block by block, at each power of two MiB."""
        before = self._ranges.get((line.client, file), 0)
        now = before + line.bytes
        keep(self._ranges, (line.client, file), now)
        if (now >> 20).bit_length() > (before >> 20).bit_length():
            yield self._of_client(
                "streamed", line.client, f"live root streamed, {size(now)} so far",
                scheme="http", file=file, bytes=now,
            )  # fmt: skip

    def _mac(self, ip: str) -> str | None:
        mac = self._macs.get(ip) or self.find_mac(ip)
        if mac:
            keep(self._macs, ip, mac)
        return mac

    def _boot(self, key: str) -> _Boot:
        """Return the boot that a machine is in, a new one if it was up or silent."""
        now, known = self.now(), self._boots.get(key)
        if known is None or known.up or (now - known.last).total_seconds() > _PAUSE_SECONDS:
            known = _Boot(now, now)
        known.last = now
        keep(self._boots, key, known)
        return known

    def _up(self, line: HttpEnd) -> Iterator[Event]:
        """Yield that a machine is up, once, if its boot was seen here.

        Who it is is what the network says: the report itself could name anyone.
        """
        ip = line.client
        mac = self._mac(ip)
        boot = self._boots.get(mac or ip)
        if boot is None or boot.up or not boot.fetched:
            return
        boot.up = True
        report = read_report(line.query)
        seconds = round((self.now() - boot.begun).total_seconds())
        first = next((key for key in report.keys if key.kind == "ssh-ed25519"), None)
        login = f": ssh root@{ip}" if report.keys else ""
        shown = f"  ({_key_name(first)} {first.fingerprint})" if first else ""
        ended = "" if report.status is None else f"; its script ended with {report.status}"
        keys = [
            {"type": key.kind, "key": key.data, "fingerprint": key.fingerprint}
            for key in report.keys
        ]
        yield self.event(
            "up", _line(ip, mac, f"up after {seconds} s{login}{shown}{ended}"),
            ip=ip, mac=mac, arch=self._arches.get(mac) if mac else None, seconds=seconds,
            status=report.status, keys=keys,
        )  # fmt: skip

    def _fetched(self, ip: str, scheme: str, file: str, count: int, seconds: float | None) -> Event:
        kind, text = "file", file
        if file in self.tree.roots:
            duration = "" if seconds is None else f" in {seconds:.{int(seconds < 1)}f} s"
            kind, text = "root", f"live root fetched, {size(count)}{duration}"
        return self._of_client(
            kind, ip, text, scheme=scheme, file=file, bytes=count, seconds=seconds
        )

    def _broken(self, ip: str, scheme: str, file: str, count: int) -> Event:
        return self._of_client(
            "broken", ip, f"{file}: ended early, after {size(count)}",
            scheme=scheme, file=file, bytes=count,
        )  # fmt: skip

    def _of_client(self, kind: str, ip: str, text: str, **more: object) -> Event:
        mac = self._mac(ip)
        if kind in ("file", "root"):  # a root is streamed long after its machine is up
            boot = self._boot(mac or ip)
            file = more["file"]
            boot.fetched |= file in self.tree.initramfs or file in self.tree.roots
        arch = self._arches.get(mac) if mac else None
        return self.event(kind, _line(ip, arch, text), ip=ip, mac=mac, arch=arch, **more)


def stopped_event() -> Event:
    """Return the last event."""
    return _event(datetime.now(UTC), "stopped", "all servers stopped")


def _key_name(key: HostKey) -> str:
    return key.kind.removeprefix("ssh-").upper()


def arch_title(arch: Arch, code: int) -> str:
    """Name a client architecture (option 93) as the DHCP configurations do."""
    for client in arch.dhcp:
        if code in client.codes:
            return client.title
        if code in client.http_codes:
            return f"{client.title}, HTTP Boot"
    return f"architecture {code}"


def read_mac(ip: str) -> str | None:
    """Ask the kernel's neighbour table (/proc/net/arp, man 5 proc) who has an address."""
    try:
        lines = Path("/proc/net/arp").read_text().splitlines()[1:]
    except OSError:
        return None
    for columns in map(str.split, lines):
        if columns[0] == ip and columns[3] != "00:00:00:00:00:00":
            return columns[3]
    return None


def _event(now: datetime, kind: str, text: str, **more: object) -> Event:
    time = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return Event({"event": kind, "time": time, **more}, one_line(text))


def _line(client: str, arch: str | None, text: str) -> str:
    return "  ".join(filter(None, (client, arch, text)))
