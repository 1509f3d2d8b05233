"""The archive of personal files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from catalyst_pxeboot.personal.files import OverlayMember
from catalyst_pxeboot.personal.keys import PublicKey
from catalyst_pxeboot.personal.model import Personal
from catalyst_pxeboot.render.personal import personal_members

KEY = PublicKey("ssh-ed25519", "SHA256:x", "me", "ssh-ed25519 AAAA me")


def names(personal: Personal) -> dict[str, tuple[int, bytes]]:
    return {name: (mode, content) for name, mode, content in personal_members(personal, None, {})}


def test_keys_and_a_script() -> None:
    found = names(Personal(keys=(KEY, KEY), script=b"#!/bin/sh\n", hostname="one", keymap="de"))
    assert found["updates/root"][0] == 0o040700
    assert found["updates/root/.ssh/authorized_keys"] == (0o100600, f"{KEY.line}\n".encode() * 2)
    assert found["updates/etc/pxeboot/script"] == (0o100700, b"#!/bin/sh\n")
    assert found["updates/etc/hostname"][1] == b"one\n"
    assert b'keymap="de"' in found["updates/etc/conf.d/keymaps"][1]
    link = found["updates/etc/systemd/system/multi-user.target.wants/pxeboot-personal.service"]
    assert link[0] == 0o120777 and link[1][1:] in {
        name.removeprefix("updates/").encode() for name in found
    }


def test_folders_come_first_and_files_alone_report_nothing() -> None:
    overlay = (OverlayMember("opt/a/b", 0o100755, b"x"), OverlayMember("etc", 0o040711, b""))
    order = [name for name, _, _ in personal_members(Personal(overlay=overlay), None, {})]
    assert order.index("updates") < order.index("updates/opt") < order.index("updates/opt/a")
    assert not any("pxeboot" in name or "ssh" in name for name in order)
    assert names(Personal(overlay=overlay))["updates/etc"][0] == 0o040711


def test_the_users_own_file_wins() -> None:
    own = OverlayMember("root/.ssh/authorized_keys", 0o100600, b"mine")
    found = names(Personal(keys=(KEY,), overlay=(own,)))
    assert found["updates/root/.ssh/authorized_keys"][1] == b"mine"


def test_scripts_are_shells(tmp_path: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is missing")
    for name, (_, content) in names(Personal(script=b"#!/bin/sh\n")).items():
        if content.startswith(b"#!/bin/sh"):
            file = tmp_path / name.replace("/", "-")
            file.write_bytes(content)
            argv = ["shellcheck", "--shell=sh", "--exclude=SC2013", str(file)]
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout
