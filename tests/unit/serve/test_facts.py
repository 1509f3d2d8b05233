"""What serve finds out of a machine and a tree."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from catalyst_pxeboot.build.pipeline import build
from catalyst_pxeboot.serve.facts import (
    choose_account,
    logs_request_start,
    read_default_route,
    read_served_tree,
)
from catalyst_pxeboot.services import interfaces as interfaces_room
from catalyst_pxeboot.services.interfaces import find_ip, parse_interfaces
from catalyst_pxeboot.spec.parse import parse_folders
from catalyst_pxeboot.util.errors import CommandError, PxebootError
from tests.support import builders
from tests.support.serve_facts import BARE, ETH1
from tests.support.stage2 import STAMP, write_stage2


def test_interfaces_as_ip_tells_them() -> None:
    link = {
        "ifname": "eth1", "flags": ["BROADCAST", "UP"],
        "addr_info": [
            {"family": "inet", "local": "10.0.0.1", "prefixlen": 24},
            {"family": "inet6", "local": "fe80::1", "prefixlen": 64},
        ],
    }  # fmt: skip
    down = {"ifname": "eth2", "flags": ["BROADCAST"], "addr_info": []}
    assert parse_interfaces([link, {}, down]) == (ETH1, BARE)


def test_ip_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interfaces_room, "find_program", lambda _name: None)
    with pytest.raises(CommandError) as caught:
        find_ip()
    assert str(caught.value) == "ip is missing; install iproute2 (Debian: iproute2)"


def test_nginx_without_the_mirror_tells_no_begin() -> None:
    assert logs_request_start("configure arguments: --with-threads --with-http_slice_module")
    assert not logs_request_start(
        "configure arguments: --with-threads --without-http_mirror_module"
    )


def test_who_the_servers_run_as(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        assert choose_account(tmp_path) is None
        return
    tree = tmp_path / "home/tree"
    tree.mkdir(parents=True)
    for place in (tmp_path, *tmp_path.parents):
        if not place.stat().st_mode & 1:
            place.chmod(place.stat().st_mode | 0o111)
    account = choose_account(tree)
    assert account and account.user == "nobody"
    (tmp_path / "home").chmod(0o750)
    os.chown(tmp_path / "home", 1, 1)
    account = choose_account(tree)
    assert account and (account.uid, account.user) == (1, "daemon")
    os.chown(tmp_path / "home", 54321, 54321)
    with pytest.raises(PxebootError) as caught:
        choose_account(tree)
    assert str(caught.value) == (
        f"{tmp_path}/home: is closed to others, and its owner 54321 is not a user of this machine;"
        " move the tree to /srv, or open the folder: chmod o+x"
    )


def test_the_default_route(tmp_path: Path) -> None:
    head = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
    table = tmp_path / "route"
    table.write_text(
        head + "eth1\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
        "eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
    )
    assert read_default_route(table) == "eth0"
    table.write_text(head)
    assert read_default_route(table) == ""
    assert read_default_route(tmp_path / "absent") == ""


def test_files_with_the_live_root_inside(tmp_path: Path) -> None:
    """U-Boot loads one initrd, and over HTTP it has no root in it."""
    stage2 = write_stage2(
        tmp_path / f"livecd-stage2-arm64-{STAMP}",
        grub_cfg="arm64-dracut.cfg",
        kernel=builders.arm64_image(),
    )
    spec = parse_folders(stage2, tmp_path / "tree", {"pxeboot/loaders": "ipxe uboot"})
    tree = read_served_tree(build(spec, report=lambda _line: None).output)
    assert tree.roots == {"image.squashfs", "boot/gentoo.initrd"}
    assert tree.initramfs == ("boot/gentoo.igz", "boot/gentoo.initrd")
