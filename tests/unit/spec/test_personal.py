"""Single machines in the folder of pxeboot/hosts, as a spec reads them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from catalyst_pxeboot.model.settings import HostSettings, PersonalSettings
from catalyst_pxeboot.spec.parse import parse_settings
from catalyst_pxeboot.spec.personal import take_hosts
from catalyst_pxeboot.spec.reader import KeyReader
from catalyst_pxeboot.util.errors import SpecError
from tests.support.paths import ROOT
from tests.support.stage2 import release_settings

MAC, UUID = "52-54-00-12-34-56", "4c4c4544-0044-4a10-8030-b7c04f4b3233"


def read(folder: Path, **more: object) -> tuple[HostSettings, ...]:
    reader = KeyReader({"pxeboot/hosts": [str(folder)], **more})
    hosts = take_hosts(reader)
    if reader.problems:
        raise SpecError(reader.problems)
    return hosts


def test_a_file_says_all_of_a_machine(tmp_path: Path) -> None:
    (tmp_path / "52:54:00:12:34:56.toml").write_text(
        'hostname = "node1"\nkeymap = "de"\nssh_keys = "sub/keys"\nscript = "/opt/run"\n'
        'entry = "gentoo-http"\narguments = "quiet net.ifnames=0"\n'
    )
    personal = PersonalSettings(
        ssh_keys=tmp_path / "sub/keys", script=Path("/opt/run"), hostname="node1", keymap="de"
    )
    assert read(tmp_path) == (
        HostSettings(
            MAC, str(tmp_path / "52:54:00:12:34:56.toml"), personal, "gentoo-http",
            ("quiet", "net.ifnames=0"),
        ),
    )  # fmt: skip


def test_a_folder_names_its_files_by_itself(tmp_path: Path) -> None:
    place = tmp_path / UUID.upper()
    (place / "files").mkdir(parents=True)
    (place / "script").touch()
    (host,) = read(tmp_path)
    assert (host.name, host.where) == (UUID, str(place / "host.toml"))
    assert host.personal == PersonalSettings(files=place / "files", script=place / "script")


def test_machines_are_sorted_and_hidden_files_are_not_theirs(tmp_path: Path) -> None:
    for name in (UUID, "02-00-00-00-00-01", MAC):
        (tmp_path / f"{name}.toml").write_text('hostname = "x"\n')
    (tmp_path / ".gitignore").touch()
    assert [host.name for host in read(tmp_path)] == ["02-00-00-00-00-01", UUID, MAC]


def test_secrets_are_allowed_for_all_or_none(tmp_path: Path) -> None:
    (tmp_path / f"{MAC}.toml").write_text('hostname = "x"\n')
    (host,) = read(tmp_path, **{"pxeboot/allow_secrets": "yes"})
    assert host.personal.allow_secrets


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no machine": (lambda top: None, "names no machine"),
    "a name": (lambda top: (top / "node1.toml").touch(), "named after a MAC address"),
    "another ending": (lambda top: (top / f"{MAC}.tom").touch(), "named after a MAC address"),
    "short": (lambda top: (top / "52-54-00-12-34.toml").touch(), "named after a MAC address"),
    "twice": (
        lambda top: [(top / f"{name}.toml").write_text("") for name in (MAC, MAC.upper())]
        + [(top / f"{MAC.replace('-', ':')}.toml").write_text("")],
        "this machine is in .*, too",
    ),
    "not TOML": (lambda top: (top / f"{MAC}.toml").write_text("a b"), "not readable as TOML"),
    "not text": (lambda top: (top / f"{MAC}.toml").write_bytes(b"\xff"), "not readable as TOML"),
    "deep": (
        lambda top: (top / f"{MAC}.toml").write_text("a = " + "[" * 9999), "not readable as TOML",
    ),
    "large": (
        lambda top: (top / f"{MAC}.toml").write_text("#" * 99_999), "not readable as TOML",
    ),
    "a pipe": (lambda top: os.mkfifo(top / f"{MAC}.toml"), "not readable as TOML"),
    "a key": (
        lambda top: (top / f"{MAC}.toml").write_text('hostnam = "x"\n'),
        f"{MAC}.toml: hostnam: no such key .did you mean 'hostname'",
    ),
    "a number": (
        lambda top: (top / f"{MAC}.toml").write_text("hostname = 7\n"),
        f"{MAC}.toml: hostname: 7 is not a text",
    ),
    "a host name": (
        lambda top: (top / f"{MAC}.toml").write_text('hostname = "a_b"\n'),
        f"{MAC}.toml: hostname: 'a_b' is not a name",
    ),
    "a path in words": (
        lambda top: (top / f"{MAC}.toml").write_text('files = ["a", "b"]\n'),
        f"{MAC}.toml: files: 'a' is not an absolute path",
    ),
    "no folder": (
        lambda top: (top / f"{MAC}.toml").write_text('files = "nothing"\n'),
        f"{MAC}.toml: files: .*nothing' is not a folder",
    ),
    "an entry": (
        lambda top: (top / f"{MAC}.toml").write_text('entry = "a;b"\n'),
        f"{MAC}.toml: entry: 'a;b' is not the name of an entry",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_names_the_file_and_key(name: str, tmp_path: Path) -> None:
    prepare, message = BAD[name]
    prepare(tmp_path)
    with pytest.raises(SpecError, match=message) as raised:
        read(tmp_path)
    assert all(str(problem).startswith("pxeboot/hosts: ") for problem in raised.value.problems)


def test_release_files_have_no_machines(tmp_path: Path) -> None:
    keys = {
        "pxeboot/hosts": str(ROOT / "tests/data/hosts"),
        "pxeboot/release": "amd64-20261122T170000Z",
    }
    with pytest.raises(SpecError, match="pxeboot/release: its files are for everyone"):
        parse_settings(release_settings(tmp_path) | keys)
