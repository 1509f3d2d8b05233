"""Public keys for ssh: every line is read, and a private key is refused."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from catalyst_pxeboot.personal.keys import read_keys
from catalyst_pxeboot.util.errors import PxebootError, SpecError

KEY = "pxeboot/ssh_keys"
ED25519 = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def public(key: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def write(folder: Path, text: str | bytes) -> Path:
    file = folder / "keys"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def test_kinds_options_and_comments(tmp_path: Path) -> None:
    rsa_key = public(rsa.generate_private_key(65537, 2048))
    curve = public(ec.generate_private_key(ec.SECP384R1()))
    text = (
        f"# mine\n\n{public(ED25519)} me@home, at last\r\n"
        f'from="10.0.0.*",command="echo \\"a b\\" # c" {rsa_key}\n'
        f"  no-pty {curve} two words\n"
    )
    found = read_keys(write(tmp_path, text), key=KEY)
    assert [key.kind for key in found] == ["ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp384"]
    assert [key.comment for key in found] == ["me@home, at last", "", "two words"]
    assert found[1].line.startswith("from=") and found[2].line.startswith("no-pty ")


def test_the_fingerprint_is_sshs(tmp_path: Path) -> None:
    file = write(tmp_path, public(ED25519) + "\n")
    (found,) = read_keys(file, key=KEY)
    try:
        shown = subprocess.run(
            ["ssh-keygen", "-lf", file], capture_output=True, text=True, check=True
        )
    except FileNotFoundError:
        pytest.skip("ssh-keygen is missing")
    assert found.fingerprint == shown.stdout.split()[1]


PRIVATE = (
    ED25519.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()),
    ED25519.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    b"PuTTY-User-Key-File-3: ssh-ed25519\n",
)


@pytest.mark.parametrize("content", PRIVATE)
@pytest.mark.parametrize("behind", [b"", public(ED25519).encode() + b"\n"])
def test_a_private_key_is_refused(tmp_path: Path, content: bytes, behind: bytes) -> None:
    with pytest.raises(PxebootError, match="PRIVATE") as raised:
        read_keys(write(tmp_path, behind + content), key=KEY)
    assert "keys.pub" in raised.value.hint


GOOD = public(ED25519)
LINES = {
    "words": "this is not a key",
    "no key": "ssh-ed25519",
    "cut off": GOOD[:-5],
    "other kind": GOOD.replace("ssh-ed25519", "ssh-rsa", 1),
    "short": public(rsa.generate_private_key(65537, 1024)),
    "control": GOOD + " \x1b[31m",
    "dss": GOOD.replace("ssh-ed25519", "ssh-dss", 1),
    "unclosed": f'command="a {GOOD}',
}  # fmt: skip


@pytest.mark.parametrize("name", LINES)
def test_a_line_that_is_no_key_is_named(name: str, tmp_path: Path) -> None:
    file = write(tmp_path, f"{GOOD}\n{LINES[name]}\n")
    with pytest.raises(SpecError) as raised:
        read_keys(file, key=KEY)
    (problem,) = raised.value.problems
    assert problem.message.startswith(f"{KEY}: {file}, line 2: ")
    assert problem.message.isprintable()


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"\xff\xfe", bytes(2 << 20)])
def test_what_holds_no_key_is_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(PxebootError, match=f"^{KEY}: "):
        read_keys(write(tmp_path, content), key=KEY)
