"""Keys, files and script as a spec names them, and what must stay secret."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from catalyst_pxeboot.model.settings import HostSettings, PersonalSettings
from catalyst_pxeboot.personal.model import Personal
from catalyst_pxeboot.personal.read import read_hosts, read_personal
from catalyst_pxeboot.util.errors import PxebootError, SpecError
from tests.support.paths import ROOT

KEYS = ROOT / "tests/data/personal/authorized_keys"


def settings(folder: Path, *, shadow: str = "", script: str = "#!/bin/sh\n") -> PersonalSettings:
    (folder / "files/etc").mkdir(parents=True)
    (folder / "files/etc/shadow").write_text(f"root:{shadow or '*'}:19000::::::\n")
    (folder / "script").write_text(script)
    return PersonalSettings(KEYS, folder / "files", folder / "script", "box", "de")


def test_all_of_it(tmp_path: Path) -> None:
    found = read_personal(settings(tmp_path))
    assert str(found) == "1 key, 1 file of 19 B, a script, hostname box, keymap de"
    assert found.arguments == ("dosshd", "keymap=de", "rd.vconsole.keymap=de")
    assert found.reports


def test_a_host_name_alone_reports_nothing() -> None:
    found = read_personal(PersonalSettings(hostname="box"))
    assert (found.reports, found.arguments) == (False, ())


SECRETS = {
    "hash": {"shadow": "$6$salt$hash"},
    "yescrypt": {"shadow": "$y$j9T$salt$hash"},
    "locked hash": {"shadow": "!$6$salt$hash"},
    "key in a script": {"script": "#!/bin/sh\ncat <<E\n-----BEGIN OPENSSH PRIVATE KEY-----\n"},
}


@pytest.mark.parametrize("name", SECRETS)
def test_secrets_are_refused_unless_allowed(name: str, tmp_path: Path) -> None:
    given = settings(tmp_path, **SECRETS[name])
    with pytest.raises(SpecError, match=r"which every client of the network could read") as raised:
        read_personal(given)
    assert all("pxeboot/allow_secrets" in problem.hint for problem in raised.value.problems)
    assert read_personal(replace(given, allow_secrets=True))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"echo hello\n", "does not say what runs it"),
        (b"", "does not say"),
    ],
)
def test_no_script(content: bytes | None, message: str, tmp_path: Path) -> None:
    place = tmp_path / "script"
    if content is not None:
        place.write_bytes(content)
    with pytest.raises(PxebootError, match=f"^pxeboot/script: {place} {message}"):
        read_personal(PersonalSettings(script=place))


def make_host(folder: Path, **personal: object) -> HostSettings:
    return HostSettings("02-00-00-00-00-01", "x.toml", PersonalSettings(**personal), "", ())  # type: ignore[arg-type]


def test_a_machine_keeps_the_keys_of_all(tmp_path: Path) -> None:
    common = read_personal(PersonalSettings(ssh_keys=KEYS, hostname="any"))
    own, bare = read_hosts(
        [make_host(tmp_path, ssh_keys=KEYS), make_host(tmp_path, hostname="node1")], common
    )
    assert own.personal.keys == (*common.keys, *common.keys)
    assert bare.personal == Personal(hostname="node1")


def test_every_fault_of_every_machine_is_told(tmp_path: Path) -> None:
    (tmp_path / "script").write_text("echo\n")
    (tmp_path / "secret").write_text("#!/bin/sh\n-----BEGIN PRIVATE KEY-----\n")
    hosts = [
        make_host(tmp_path, script=tmp_path / "script"),
        make_host(tmp_path, script=tmp_path / "secret"),
        make_host(tmp_path, ssh_keys=tmp_path / "none"),
    ]
    with pytest.raises(SpecError) as raised:
        read_hosts(hosts, Personal())
    found = [problem.message for problem in raised.value.problems]
    assert [text.partition(": x.toml: ")[2].partition(":")[0] for text in found] == [
        "script", "script", "ssh_keys",
    ]  # fmt: skip
    assert "a private key" in found[1]
