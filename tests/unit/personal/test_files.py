"""A folder for the live root: what is taken out of it, and what is refused."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from catalyst_pxeboot.personal import files
from catalyst_pxeboot.personal.files import read_overlay
from catalyst_pxeboot.util.errors import PxebootError, SpecError

KEY = "pxeboot/files"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    top = tmp_path / "files"
    (top / "etc/ssh").mkdir(parents=True)
    (top / "etc/motd").write_text("hello\n")
    (top / "usr/local/bin").mkdir(parents=True)
    (top / "usr/local/bin/tool").write_bytes(b"#!/bin/sh\n")
    (top / "usr/local/bin/tool").chmod(0o750)
    (top / "etc/localtime").symlink_to("../usr/share/zoneinfo/UTC")
    (top / "etc/absolute").symlink_to("/etc/motd")
    return top


def test_names_modes_and_links(folder: Path) -> None:
    members = {member.name: member for member in read_overlay(folder, key=KEY)}
    assert set(members) == {
        "etc", "etc/ssh", "etc/motd", "etc/localtime", "etc/absolute", "usr", "usr/local",
        "usr/local/bin", "usr/local/bin/tool",
    }  # fmt: skip
    assert members["usr/local/bin/tool"].mode == 0o100750
    assert members["etc/motd"].content == b"hello\n"
    assert members["etc/localtime"].content == b"../usr/share/zoneinfo/UTC"
    assert members["etc/localtime"].mode == 0o120777


def test_folders_come_first_and_the_order_is_fixed(folder: Path) -> None:
    names = [member.name for member in read_overlay(folder, key=KEY)]
    assert all(str(Path(name).parent) in (".", *names[:at]) for at, name in enumerate(names))
    again = [member.name for member in read_overlay(folder, key=KEY)]
    assert names == again


def test_what_a_link_leads_to_is_not_read(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (folder / "etc/link").symlink_to(tmp_path / "secret")
    (folder / "away").symlink_to(tmp_path, target_is_directory=True)
    members = {member.name: member.content for member in read_overlay(folder, key=KEY)}
    assert members["etc/link"] == os.fsencode(tmp_path / "secret")
    assert not any(name.startswith("away/") for name in members)
    assert b"secret" not in [content for name, content in members.items() if name != "etc/link"]


def make_socket(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(place))


def touch(place: Path) -> None:
    place.parent.mkdir(parents=True)
    place.touch()


BAD: dict[str, Callable[[Path], object]] = {
    "pipe": lambda top: os.mkfifo(top / "etc/bad"),
    "socket": lambda top: make_socket(top / "etc/bad"),
    "link out": lambda top: (top / "etc/bad").symlink_to("../../passwd"),
    "link out and in": lambda top: (top / "etc/bad").symlink_to("../../x/../etc"),
    "absolute out": lambda top: (top / "etc/bad").symlink_to("/../etc"),
    "name": lambda top: (top / "etc/b\x1bad").touch(),
    "backslash": lambda top: (top / "etc/b\\ad").touch(),
    "space": lambda top: (top / "etc/bad ").touch(),
    "init": lambda top: touch(top / "sbin/init"),
    "systemd": lambda top: touch(top / "usr/lib/systemd/systemd"),
    "packages": lambda top: touch(top / "var/db/pkg/sys-apps/x"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_taken_is_named(name: str, folder: Path) -> None:
    BAD[name](folder)
    with pytest.raises(SpecError) as raised:
        read_overlay(folder, key=KEY)
    assert all(problem.message.startswith(f"{KEY}: {folder}/") for problem in raised.value.problems)
    assert all(problem.hint for problem in raised.value.problems)


def test_a_device(folder: Path) -> None:
    try:
        os.mknod(folder / "etc/bad", 0o020644, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root makes devices")
    with pytest.raises(SpecError, match="neither a file"):
        read_overlay(folder, key=KEY)


def test_too_much(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_BYTES", 1 << 20)
    with (folder / "etc/hole").open("wb") as stream:
        stream.truncate(2 << 20)
    with pytest.raises(SpecError, match="more than 1 MiB"):
        read_overlay(folder, key=KEY)


@pytest.mark.parametrize("kind", ["absent", "file"])
def test_no_folder(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "place"
    if kind == "file":
        place.touch()
    with pytest.raises(PxebootError, match=f"^{KEY}: {place} cannot be read"):
        read_overlay(place, key=KEY)
