"""What machines say of themselves when they are up."""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path

import pytest

from catalyst_pxeboot.serve.reports import add_known_hosts, read_report
from catalyst_pxeboot.util.errors import PxebootError


def blob(kind: str, rest: bytes = b"x" * 32) -> str:
    name = kind.encode()
    return base64.b64encode(len(name).to_bytes(4, "big") + name + rest).decode()


def query(kind: str, data: str) -> str:
    return f"key={kind}%20{data.replace('+', '%2B')}"


def test_keys_and_status() -> None:
    rsa = blob("ssh-rsa", bytes(range(200)))
    report = read_report(f"status=0&{query('ssh-rsa', rsa)}&{query('ssh-rsa', rsa)}")
    assert report.status == 0
    assert [key.data for key in report.keys] == [rsa, rsa]
    assert report.keys[0].fingerprint.startswith("SHA256:")


@pytest.mark.parametrize(
    "given",
    [
        "", "&&&", "status=", "status=-1", "status=256", "status=99999999999", "status=%D9%A1",
        "key=", "key=ssh-rsa", "key=ssh-rsa%20!!!", query("ssh-rsa", blob("ssh-dss")),
        query("ssh-rsa%0Aroot", blob("ssh-rsa\nroot")),
        query("ssh-rsa", blob("ssh-rsa", bytes(9999))),
        "&".join([query("ssh-rsa", blob("ssh-rsa"))] * 20),
    ],
)  # fmt: skip
def test_what_is_no_report_says_nothing(given: str) -> None:
    report = read_report(given)
    assert (report.status, report.keys) == (None, ())


def test_known_hosts(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    before = os.umask(0)
    try:
        add_known_hosts(file, "10.0.0.52", ["ssh-rsa A", "ssh-ed25519 B"])
    finally:
        os.umask(before)
    add_known_hosts(file, "10.0.0.53", ["ssh-rsa C"])
    assert file.read_text() == "10.0.0.52 ssh-rsa A\n10.0.0.52 ssh-ed25519 B\n10.0.0.53 ssh-rsa C\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PxebootError, match="could not be written"):
        add_known_hosts(link, "10.0.0.52", ["ssh-rsa A"])
    assert not (tmp_path / "elsewhere").exists()
