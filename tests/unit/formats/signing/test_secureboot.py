"""Keys for Secure Boot, what enrols them, and what reads a user's own."""

from __future__ import annotations

import shutil
import subprocess
import time
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from catalyst_pxeboot.formats.signing.keyset import write_keys
from catalyst_pxeboot.formats.signing.pkcs11 import TokenKey, read_token_key
from catalyst_pxeboot.formats.signing.secureboot import (
    is_signed_by,
    load_secureboot_signer,
    make_key,
    signature_list,
)
from catalyst_pxeboot.formats.uki import make_uki
from catalyst_pxeboot.util.errors import CommandError, PxebootError
from tests.support.efi import efi_program

needs_signer = pytest.mark.skipif(
    not (shutil.which("osslsigncode") and shutil.which("sbverify")),
    reason="osslsigncode or sbverify (sbsigntool) is missing",
)
STUB = Path("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")
SOFTHSM = Path("/usr/lib/softhsm/libsofthsm2.so")
NOW = 1_700_000_000


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys") / "keys"
    write_keys(folder, "test")
    return folder


def test_a_folder_of_keys(keys: Path) -> None:
    names = {
        f"{name}.{end}"
        for name in ("PK", "KEK", "db")
        for end in ("key", "crt", "cer", "esl", "auth")
    }
    assert {file.name for file in keys.iterdir()} == {*names, "enrol.sh"}
    for name in names:
        assert (keys / name).stat().st_mode & 0o777 == (0o600 if name.endswith(".key") else 0o644)
    certificate = x509.load_pem_x509_certificate((keys / "db.crt").read_bytes())
    assert certificate.subject.rfc4514_string() == "CN=test db"
    assert (
        isinstance(public := certificate.public_key(), rsa.RSAPublicKey) and public.key_size == 2048
    )
    assert (keys / "db.cer").read_bytes() == certificate.public_bytes(Encoding.DER)
    assert (keys / "db.auth").read_bytes().endswith((keys / "db.esl").read_bytes())


def test_what_enrols_them_writes_into_no_file_of_another_user(keys: Path) -> None:
    """It runs as root, on machines whose other users know the script."""
    script = keys / "enrol.sh"
    assert "/tmp" not in script.read_text()
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is missing")
    done = subprocess.run(
        ["shellcheck", "--shell=sh", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_keys_are_never_overwritten(keys: Path, tmp_path: Path) -> None:
    before = {file: file.read_bytes() for file in keys.iterdir()}
    with pytest.raises(PxebootError, match="is there already, and keys are never overwritten"):
        write_keys(keys, "test")
    assert {file: file.read_bytes() for file in keys.iterdir()} == before
    (tmp_path / "file").touch()
    with pytest.raises(PxebootError, match="is there already"):
        write_keys(tmp_path / "file", "test")
    with pytest.raises(PxebootError, match="could not be made"):
        write_keys(tmp_path / "no/folder", "test")


def test_half_a_set_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fdopen", full)
    with pytest.raises(PxebootError, match="could not be written: No space left"):
        write_keys(tmp_path / "keys", "test")
    assert not (tmp_path / "keys").exists()


def test_a_signature_list_as_the_specification_has_it() -> None:
    certificate = make_key("x", datetime(2026, 1, 1, tzinfo=UTC)).certificate
    content, owner = certificate.public_bytes(Encoding.DER), uuid.UUID(int=7)
    found = signature_list(certificate, owner)
    assert found[:16] == uuid.UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072").bytes_le
    sizes = [int.from_bytes(found[at : at + 4], "little") for at in (16, 20, 24)]
    assert sizes == [len(found), 0, 16 + len(content)]
    assert found[28:44] == owner.bytes_le and found[44:] == content


@pytest.mark.skipif(shutil.which("sig-list-to-certs") is None, reason="efitools are missing")
def test_efitools_read_it_alike(keys: Path, tmp_path: Path) -> None:
    subprocess.run(["sig-list-to-certs", keys / "db.esl", tmp_path / "out"], check=True)
    assert (tmp_path / "out-0.der").read_bytes() == (keys / "db.cer").read_bytes()


@needs_signer
def test_a_program_is_signed_and_checked(keys: Path, tmp_path: Path) -> None:
    signer = load_secureboot_signer(keys / "db.crt", keys / "db.key", None)
    program = tmp_path / "program"
    program.write_bytes(signer.sign(efi_program(), name="x", time=NOW))
    assert is_signed_by(program, keys / "db.crt")
    assert not is_signed_by(program, keys / "KEK.crt")
    content = bytearray(program.read_bytes())
    content[0x401] ^= 1
    program.write_bytes(content)
    assert not is_signed_by(program, keys / "db.crt")
    program.write_bytes(efi_program())
    assert not is_signed_by(program, keys / "db.crt")


@needs_signer
@pytest.mark.skipif(not STUB.exists(), reason="systemd's stub is missing (systemd-boot-efi)")
def test_two_programs_agree_on_what_is_signed(keys: Path, tmp_path: Path) -> None:
    """The signer hashes the whole file, the checker its sections, as firmware does."""
    made = make_uki(STUB.read_bytes(), {".cmdline": b"a=b", ".linux": b"k" * 70_000}, where="stub")
    signer = load_secureboot_signer(keys / "db.crt", keys / "db.key", None)
    program = tmp_path / "program"
    program.write_bytes(signer.sign(made, name="x", time=NOW))
    assert is_signed_by(program, keys / "db.crt")
    checked = subprocess.run(["sbverify", "--cert", keys / "db.crt", program],
                             check=True, capture_output=True, text=True)  # fmt: skip
    assert "gap" not in checked.stderr


@needs_signer
def test_the_same_key_makes_the_same_bytes(keys: Path) -> None:
    signer = load_secureboot_signer(keys / "db.crt", keys / "db.key", None)
    first = signer.sign(efi_program(), name="x", time=NOW)
    time.sleep(1.1)  # a signature's time counts seconds
    assert signer.sign(efi_program(), name="x", time=NOW) == first
    assert signer.sign(efi_program(), name="x", time=NOW + 1) != first


@pytest.fixture
def token(keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TokenKey:
    if not (SOFTHSM.is_file() and shutil.which("softhsm2-util")):
        pytest.skip("softhsm2 is missing")
    (tmp_path / "tokens").mkdir()
    settings = tmp_path / "softhsm2.conf"
    settings.write_text(f"directories.tokendir = {tmp_path}/tokens\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(settings))
    (tmp_path / "pin").write_text("2718\n")
    for words in (
        ["--init-token", "--free", "--so-pin", "4321"],
        ["--import", keys / "db.key", "--token", "release", "--id", "01"],
    ):
        label = "release" if "--free" in words else "db"
        subprocess.run(
            ["softhsm2-util", *words, "--label", label, "--pin", "2718"],
            check=True, capture_output=True,
        )  # fmt: skip
    return read_token_key(f"pkcs11:token=release;object=db?module-path={SOFTHSM}")


@needs_signer
def test_a_key_that_stays_in_a_token(keys: Path, token: TokenKey, tmp_path: Path) -> None:
    """It makes the bytes that the same key makes from a file."""
    signer = load_secureboot_signer(keys / "db.crt", token, tmp_path / "pin")
    signed = signer.sign(efi_program(), name="x", time=NOW)
    by_file = load_secureboot_signer(keys / "db.crt", keys / "db.key", None)
    assert signed == by_file.sign(efi_program(), name="x", time=NOW)
    assert "2718" not in repr(signer)


@needs_signer
@pytest.mark.parametrize("fault", ["certificate", "pin", "object"])
def test_what_a_token_refuses(keys: Path, token: TokenKey, tmp_path: Path, fault: str) -> None:
    certificate = keys / ("KEK.crt" if fault == "certificate" else "db.crt")
    if fault == "pin":
        (tmp_path / "pin").write_text("1111\n")
    if fault == "object":
        token = replace(token, uri=token.uri.replace("db", "none"))
    signer = load_secureboot_signer(certificate, token, tmp_path / "pin")
    with pytest.raises(CommandError, match=r"^x: not signed by pxeboot/secureboot_key: ") as caught:
        signer.sign(efi_program(), name="x", time=NOW)
    assert "1111" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pkcs11:token=a", "names neither object= nor id="),
        ("pkcs11:object=a?pin-value=1", "has pin-value=, and after [?] only module-path= is read"),
        ("pkcs11:object=a;pin-value=1", "has a PIN in it"),
        ("pkcs11:object=a?module-path=x.so", "has a module-path that is not absolute, 'x.so'"),
    ],
)
def test_a_bad_uri(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_token_key(text)


def test_a_uri() -> None:
    assert read_token_key("pkcs11:id=%01?module-path=/a%20b.so") == TokenKey(
        "pkcs11:id=%01", Path("/a b.so")
    )


@needs_signer
def test_a_passphrase_opens_a_key(keys: Path, tmp_path: Path) -> None:
    own = make_key("x", datetime.now(UTC))
    (tmp_path / "crt").write_bytes(own.certificate.public_bytes(Encoding.PEM))
    (tmp_path / "key").write_bytes(
        own.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pass"))
    )
    (tmp_path / "passphrase").write_text("pass\n")
    load_secureboot_signer(tmp_path / "crt", tmp_path / "key", tmp_path / "passphrase")
    with pytest.raises(PxebootError, match=r"pxeboot/secureboot_key: .* cannot be read as a key"):
        load_secureboot_signer(tmp_path / "crt", tmp_path / "key", None)
    with pytest.raises(PxebootError, match=r"is not the key of .*db\.crt"):
        load_secureboot_signer(keys / "db.crt", keys / "PK.key", None)


def test_what_firmware_does_not_take_is_refused(keys: Path, tmp_path: Path) -> None:
    elliptic = ec.generate_private_key(ec.SECP256R1())
    short = rsa.generate_private_key(65537, 1024)
    for key in (elliptic, short):
        (tmp_path / "key").write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        with pytest.raises(PxebootError, match="is not an RSA key of 2048 bits"):
            load_secureboot_signer(keys / "db.crt", tmp_path / "key", None)
    with pytest.raises(PxebootError, match=r"pxeboot/secureboot_cert: .* as a certificate"):
        load_secureboot_signer(keys / "db.key", keys / "db.key", None)
    with pytest.raises(PxebootError, match=r"pxeboot/secureboot_cert: .* cannot be read: No such"):
        load_secureboot_signer(keys / "none", keys / "db.key", None)
