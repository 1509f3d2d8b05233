"""What the logs tell, as events."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from catalyst_pxeboot.serve.events import Event, Tracker, stopped_event
from catalyst_pxeboot.services.logs import HttpBegin, HttpEnd, Tail, parse_dnsmasq, parse_web
from tests.support.paths import ROOT
from tests.support.serve_facts import TREE

MAC = "52:54:00:12:34:56"
#: As dnsmasq 2.90 writes it.
OWN_LOG = f"""\
Nov 22 17:00:00 dnsmasq-dhcp[7]: 19 available DHCP range: 10.0.0.50 -- 10.0.0.99
Nov 22 17:00:00 dnsmasq-dhcp[7]: 19 vendor class: PXEClient:Arch:00007:UNDI:003016
Nov 22 17:00:00 dnsmasq-dhcp[7]: 19 DHCPDISCOVER(eth1) {MAC}\x20
Nov 22 17:00:00 dnsmasq-dhcp[7]: 19 tags: x64, eth1
Nov 22 17:00:00 dnsmasq-dhcp[7]: 19 DHCPOFFER(eth1) 10.0.0.52 {MAC}\x20
Nov 22 17:00:00 dnsmasq-dhcp[7]: 19 sent size: 12 option: 67 bootfile-name  snponly.efi
Nov 22 17:00:00 dnsmasq-dhcp[7]: 19 vendor class: PXEClient:Arch:00007:UNDI:003016
Nov 22 17:00:01 dnsmasq-dhcp[7]: 19 DHCPREQUEST(eth1) 10.0.0.52 {MAC}\x20
Nov 22 17:00:01 dnsmasq-dhcp[7]: 19 DHCPACK(eth1) 10.0.0.52 {MAC} host
Nov 22 17:00:01 dnsmasq-dhcp[7]: 19 sent size: 12 option: 67 bootfile-name  snponly.efi
Nov 22 17:00:02 dnsmasq-tftp[7]: error 8 User aborted the transfer received from 10.0.0.52
Nov 22 17:00:02 dnsmasq-tftp[7]: sent /run/x/tree/snponly.efi to 10.0.0.52
Nov 22 17:00:02 dnsmasq-tftp[7]: sent /run/x/tree/snponly.efi to 10.0.0.52
Nov 22 17:00:02 dnsmasq-tftp[7]: file /run/x/tree/autoexec.ipxe not found for 10.0.0.52
Nov 22 17:00:03 dnsmasq-tftp[7]: failed sending /run/x/tree/boot/gentoo to 10.0.0.52
"""
PROXY_LOG = f"""\
Nov  2 17:00:00 dnsmasq-dhcp[7]: 20 vendor class: PXEClient:Arch:00000:UNDI:003016
Nov  2 17:00:00 dnsmasq-dhcp[7]: 20 PXE(eth1) {MAC} proxy
Nov  2 17:00:00 dnsmasq-dhcp[7]: 20 tags: bios, eth1
Nov  2 17:00:00 dnsmasq-dhcp[7]: 20 bootfile name: undionly.kpxe
Nov  2 17:00:00 dnsmasq-dhcp[7]: 20 PXE(eth1) 10.0.0.52 {MAC} undionly.kpxe
Nov  2 17:00:00 dnsmasq-dhcp[7]: 20 bootfile name: undionly.kpxe
"""
NOW = datetime(2026, 11, 22, 17, 0, tzinfo=UTC)
TIME = "2026-11-22T17:00:00Z"
CLIENT = {"ip": "10.0.0.52", "mac": MAC, "arch": "UEFI x64"}


def make_tracker() -> Tracker:
    return Tracker(TREE, Path("/run/x/tree"), lambda _ip: None, lambda: NOW)


def tell(tracker: Tracker, log: str) -> list[tuple[dict[str, object], str]]:
    lines = [line for line in map(parse_dnsmasq, log.splitlines()) if line]
    return told(event for line in lines for event in tracker.take(line))


def told(events: Iterable[Event]) -> list[tuple[dict[str, object], str]]:
    found = []
    for event in events:
        data = dict(event.data)
        assert data.pop("time") == TIME
        found.append((data, event.text))
    return found


def test_events_of_own_dhcp_and_tftp() -> None:
    assert tell(make_tracker(), OWN_LOG) == [
        (
            {"event": "offer", **CLIENT, "file": "snponly.efi"},
            "10.0.0.52  UEFI x64  is offered snponly.efi",
        ),
        (
            {
                "event": "file", **CLIENT, "scheme": "tftp", "file": "snponly.efi", "bytes": 1000,
                "seconds": None,
            },
            "10.0.0.52  UEFI x64  snponly.efi",
        ),
        (
            {
                "event": "refused", **CLIENT, "scheme": "tftp", "file": "autoexec.ipxe",
                "status": None,
            },
            "10.0.0.52  UEFI x64  autoexec.ipxe: not in the tree",
        ),
        (
            {"event": "broken", **CLIENT, "scheme": "tftp", "file": "boot/gentoo", "bytes": 0},
            "10.0.0.52  UEFI x64  boot/gentoo: ended early, after 0 B",
        ),
    ]  # fmt: skip


def test_events_of_a_proxy() -> None:
    data = {"event": "offer", "mac": MAC, "arch": "BIOS", "file": "undionly.kpxe"}
    # Told once, though the client asks twice.
    assert tell(make_tracker(), PROXY_LOG) == [
        ({**data, "ip": None}, f"{MAC}  BIOS  is offered undionly.kpxe")
    ]


def test_an_offer_is_told_again_after_a_while() -> None:
    now = [NOW]
    tracker = Tracker(TREE, Path("/run/x/tree"), lambda _ip: None, lambda: now[0])
    lines = [line for line in map(parse_dnsmasq, PROXY_LOG.splitlines()) if line]
    count = 0
    for line in lines:
        count += len(list(tracker.take(line)))
        now[0] += timedelta(seconds=20)
    assert count == 2


def end(file: str, count: int, status: int = 200, method: str = "GET", port: int = 9) -> HttpEnd:
    return HttpEnd("10.0.0.52", port, method, file, status, count, count + 300, 8.2)


def test_events_of_a_large_file() -> None:
    tracker = make_tracker()
    tell(tracker, OWN_LOG)
    connection = ("10.0.0.52", 9)
    assert not tracker.is_watching()
    list(tracker.take(HttpBegin("10.0.0.52", 9, "/boot.ipxe")))
    list(tracker.take(end("/boot.ipxe", 1000)))
    assert not tracker.is_watching()
    list(tracker.take(HttpBegin("10.0.0.52", 9, "/image.squashfs")))
    assert tracker.is_watching()
    total = 700 << 20
    steps = [
        (
            1300 + part * total // 100,
            told(tracker.progress({connection: 1300 + part * total // 100})),
        )
        for part in (0, 24, 25, 26, 49, 80, 99)
    ]
    lines = [text for _, found in steps for _, text in found]
    assert lines == [
        "10.0.0.52  UEFI x64  image.squashfs 25 % of 700 MiB",
        "10.0.0.52  UEFI x64  image.squashfs 75 % of 700 MiB",
    ]
    assert steps[2][1][0][0] == {
        "event": "progress", **CLIENT, "scheme": "http", "file": "image.squashfs",
        "bytes": total // 4, "total": total, "percent": 25,
    }  # fmt: skip
    assert told(tracker.take(end("/image.squashfs", total))) == [
        (
            {
                "event": "root", **CLIENT, "scheme": "http", "file": "image.squashfs",
                "bytes": total, "seconds": 8.2,
            },
            "10.0.0.52  UEFI x64  live root fetched, 700 MiB in 8 s",
        )
    ]  # fmt: skip
    assert not tracker.is_watching()


def test_pxelinux_closes_a_long_file_before_its_last_block_is_acknowledged() -> None:
    tracker = make_tracker()
    begin = "Nov 22 17:00:02 dnsmasq-tftp[7]: "
    lines = [
        f"{begin}error 0 No error, file close received from 10.0.0.52",
        f"{begin}failed sending /run/x/tree/boot/gentoo to 10.0.0.52",
        f"{begin}sent /run/x/tree/snponly.efi to 10.0.0.52",
        f"{begin}failed sending /run/x/tree/boot/gentoo to 10.0.0.52",
    ]
    found = tell(tracker, "\n".join(lines))
    assert [(data["event"], data["file"]) for data, _ in found] == [
        ("file", "boot/gentoo"), ("file", "snponly.efi"), ("broken", "boot/gentoo"),
    ]  # fmt: skip


def test_a_root_read_block_by_block_is_told_at_powers_of_two() -> None:
    tracker = make_tracker()
    lines = [
        line
        for _ in range(33)
        for _, line in told(tracker.take(end("/image.squashfs", 128 << 10, 206)))
    ]
    assert lines == [f"10.0.0.52  live root streamed, {mib}.0 MiB so far" for mib in (1, 2, 4)]
    # Another client has an account of its own.
    other = replace(end("/image.squashfs", 1 << 20, 206), client="10.0.0.53")
    assert [data["bytes"] for data, _ in told(tracker.take(other))] == [1 << 20]


def test_a_file_in_parts_a_part_of_a_file_and_no_file() -> None:
    tracker = make_tracker()
    total = 700 << 20
    assert told(tracker.take(end("/image.squashfs", total - 1, 206))) == []
    assert [data["event"] for data, _ in told(tracker.take(end("/image.squashfs", 1, 206)))] == [
        "root"
    ]
    assert told(tracker.take(end("/image.squashfs", 1 << 20)))[0][1] == (
        "10.0.0.52  image.squashfs: ended early, after 1.0 MiB"
    )
    assert told(tracker.take(end("/boot.ipxe", 0, 200, "HEAD"))) == []
    assert told(tracker.take(end("/boot.ipxe", 0, 304))) == []
    assert told(tracker.take(end("/a\n\x1b[2J", 9, 404)))[0][1] == "10.0.0.52  a\\n\\x1b[2J: 404"
    assert told(tracker.take(end("", 9, 400, "")))[0][1] == "10.0.0.52  no request: 400"


def test_many_clients_are_not_kept_for_ever() -> None:
    tracker = make_tracker()
    for number in range(6000):
        list(tracker.take(replace(end("/boot.ipxe", 1000, port=number), client=f"c{number}")))
    assert len(tracker._sent) == 4096


KEY = (ROOT / "tests/data/personal/authorized_keys").read_text().split()[1]
UP = "mac=52:54:00:00:00:00&address=1.2.3.4&status=3&key=ssh-ed25519%20" + KEY.replace("+", "%2B")


def up(query: str = UP, client: str = "10.0.0.52") -> HttpEnd:
    return HttpEnd(client, 9, "GET", "/pxeboot-up", 200, 3, 300, 0.0, query)


def test_a_machine_that_is_up() -> None:
    """Its address is the one that asks, whatever it says; it is told once a boot."""
    now = [NOW]
    tree = replace(TREE, initramfs=("boot/gentoo.igz",))
    tracker = Tracker(tree, Path("/run/x/tree"), lambda _ip: None, lambda: now[0])
    tell(tracker, OWN_LOG)
    assert told(tracker.take(up())) == []  # it has fetched nothing that could boot
    list(tracker.take(end("/boot/gentoo.igz", 0)))
    now[0] += timedelta(seconds=41)
    (event,) = tracker.take(up())
    assert event.text == (
        "10.0.0.52  52:54:00:12:34:56  up after 41 s: ssh root@10.0.0.52"
        "  (ED25519 SHA256:lbmsoA0yIEcEiVDRnMWuzm+nV+3ZEEpVIURqFoeSspg); its script ended with 3"
    )
    (key,) = event.data["keys"]
    assert (event.data["seconds"], event.data["status"], key["key"]) == (41, 3, KEY)
    assert list(tracker.take(up())) == []
    list(tracker.take(end("/image.squashfs", 2 << 20, 206)))  # its root is streamed
    assert list(tracker.take(up())) == []
    list(tracker.take(end("/boot/gentoo.igz", 0)))
    assert len(list(tracker.take(up("")))) == 1


def test_who_did_not_boot_here_is_not_up() -> None:
    tracker = make_tracker()
    tell(tracker, OWN_LOG)
    list(tracker.take(end("/image.squashfs", 700 << 20)))
    assert told(tracker.take(up(client="10.0.0.99"))) == []
    assert told(tracker.take(replace(up(), method="HEAD"))) == []
    assert len(list(tracker.take(up()))) == 1


def test_the_last_event() -> None:
    assert (stopped_event().data["event"], stopped_event().text) == (
        "stopped",
        "all servers stopped",
    )


def test_lines_of_a_web_server() -> None:
    assert parse_web('{"event":"begin","client":"a","port":"7","path":"/b%20c?x=1"}') == (
        HttpBegin("a", 7, "/b c")
    )
    assert parse_web("no line") is None
    assert parse_web("[]") is None
    assert parse_web('{"event":"end"}') is None
    assert parse_dnsmasq("dnsmasq[7]: started, version 2.90 DNS disabled") is None


def test_a_log_is_read_as_it_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("catalyst_pxeboot.services.logs._MOST_LOG", 10)
    log = tmp_path / "log"
    tail = Tail(log)
    assert list(tail.lines()) == []
    with log.open("ab", buffering=0) as stream:
        stream.write(b"one\ntw")
        assert list(tail.lines()) == ["one"]
        stream.write(b"o\nthree\n")
        assert list(tail.lines()) == ["two", "three"]
        assert log.stat().st_size == 0  # it had become large
        stream.write(b"four\n")
        assert list(tail.lines()) == ["four"]
