"""OpenPGP signatures: gpg and a model of GRUB find ours good; what spoils one, what cannot sign.

Keys are made in a keyring of their own; the user's is never looked at.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from catalyst_pxeboot.formats.signing import openpgp
from catalyst_pxeboot.formats.signing.openpgp import find_signer, open_keyring
from catalyst_pxeboot.util.errors import CommandError, PxebootError, VerifyError

pytestmark = pytest.mark.skipif(
    not shutil.which("gpg") or not shutil.which("gpgconf"), reason="no gpg and gpgconf"
)

BORN = 1_704_067_200  # 2024-01-01, when the keys were made
TIME = 1_710_000_000  # 2024-03-09, when the tree was
TEXT = b"# SHA512 HASH\nabcd  boot/gentoo\n- a dash\n\n-----BEGIN\n"
PASSPHRASE = "open sesame"


@dataclass(frozen=True)
class Keyring:
    """A GNUPGHOME with keys in it, by their user IDs' first words."""

    home: Path

    def gpg(self, *words: str | Path, text: bytes = b"") -> bytes:
        argv = ["gpg", "--batch", "--no-tty", "--quiet", "--pinentry-mode", "loopback"]
        return subprocess.run(
            [*argv, *map(str, words)],
            input=text,
            capture_output=True,
            timeout=60,
            check=True,
            env={**os.environ, "GNUPGHOME": str(self.home)},
        ).stdout

    def make(
        self,
        name: str,
        *,
        kind: str = "rsa2048",
        born: int = BORN,
        life: str = "never",
        lock: str = "",
    ) -> None:
        time = f"--faked-system-time={born}!"
        user = f"{name} <{name}@example.org>"
        self.gpg(time, "--passphrase", lock, "--quick-gen-key", user, kind, "sign", life)

    def fingerprints(self, name: str) -> list[str]:
        listing = self.gpg("--with-colons", "--list-keys", f"{name}@example.org").decode()
        return [line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:")]

    def revocation(self, name: str) -> bytes:
        """Return the certificate that gpg made with the key, freed of its safety catch."""
        path = self.home / "openpgp-revocs.d" / f"{self.fingerprints(name)[0]}.rev"
        return path.read_bytes().replace(b"\n:-----BEGIN", b"\n-----BEGIN")

    def forget(self) -> None:
        """End the agent, and with it what it remembers of passphrases."""
        self.conf("--kill", "all")

    def conf(self, *words: str) -> None:
        subprocess.run(["gpgconf", "--homedir", str(self.home), *words], timeout=30, check=True)


@pytest.fixture(scope="module")
def ring() -> Iterator[Keyring]:
    # The agent's socket lies in it, whose path must be short.
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        keyring = Keyring(Path(folder))
        try:
            keyring.make("release")
            keyring.make("locked", lock=PASSPHRASE)
            keyring.make("curve", kind="ed25519")
            keyring.make("stale", born=1_577_836_800, life="1y")  # 2020
            keyring.make("revoked")
            keyring.make("mixed")
            primary = keyring.fingerprints("mixed")[0]
            keyring.gpg("--passphrase", "", "--quick-add-key", primary, "rsa2048", "encr", "never")
            keyring.gpg("--passphrase", "", "--quick-add-key", primary, "ed25519", "sign", "never")
            keyring.forget()
            yield keyring
        finally:
            keyring.forget()


@pytest.fixture(autouse=True)
def home(ring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GNUPGHOME", str(ring.home))


@pytest.fixture(scope="module")
def public(ring: Keyring, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of the public key `release`, as users get it."""
    path = tmp_path_factory.mktemp("public") / "release.asc"
    path.write_bytes(ring.gpg("--armor", "--export", "release@example.org"))
    return path


def grub_verifies(public: bytes, signature: bytes, content: bytes) -> bool:
    """Do as grub_load_public_key() and grub_verify_signature() in GRUB's pgp.c do."""
    keys = {}
    for kind, body in _grub_packets(public):
        if kind in (5, 6, 7, 14):
            assert body[0] == 4
            if body[5] in (1, 3):
                modulus, rest = _mpi(body[6:])
                exponent, _ = _mpi(rest)
                framed = b"\x99" + len(body).to_bytes(2, "big") + body
                identity = hashlib.sha1(framed).digest()[-8:]
                keys[identity] = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    kind, body = next(_grub_packets(signature))
    version, form, algorithm, digest = body[:4]
    assert (kind, version, form, algorithm, digest) == (2, 4, 0, 1, 10)
    hashed = 6 + int.from_bytes(body[4:6], "big")
    unhashed = hashed + 2 + int.from_bytes(body[hashed : hashed + 2], "big")
    identity, place = b"", hashed + 2
    while place < unhashed:  # the issuer is looked for here alone
        length = body[place]
        assert length < 192
        if body[place + 1] == 16:
            identity = body[place + 2 : place + 10]
        place += 1 + length
    state = hashlib.sha512(content + body[:hashed])
    state.update(b"\x04\xff" + hashed.to_bytes(4, "big"))
    if state.digest()[:2] != body[unhashed : unhashed + 2]:
        return False
    value, _ = _mpi(body[unhashed + 2 :])
    key = keys[identity]
    try:
        key.verify(
            value.to_bytes(key.key_size // 8, "big"),
            state.digest(),
            padding.PKCS1v15(),
            Prehashed(hashes.SHA512()),
        )
    except InvalidSignature:
        return False
    return True


def _grub_packets(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Split into packets as read_packet_header() does, which knows the old format well."""
    place = 0
    while place < len(content):
        tag = content[place]
        assert tag & 0xC0 == 0x80, "a packet of the new format, whose length GRUB reads wrongly"
        size = {0: 1, 1: 2, 2: 4}[tag & 3]
        start = place + 1 + size
        length = int.from_bytes(content[place + 1 : start], "big")
        yield tag >> 2 & 15, content[start : start + length]
        place = start + length


def _mpi(content: bytes) -> tuple[int, bytes]:
    size = (int.from_bytes(content[:2], "big") + 7) // 8
    return int.from_bytes(content[2 : 2 + size], "big"), content[2 + size :]


def verify_clearsigned(text: bytes, keyring: Path, where: str = "a text") -> tuple[bytes, str]:
    with open_keyring(keyring) as keys:
        return keys.clearsigned(text, where=where)


def verify_detached(file: Path, signature: Path, keyring: Path) -> str:
    with open_keyring(keyring) as keys:
        return keys.detached(file, signature.read_bytes(), where=str(signature))


def test_finds_the_key_that_signs(ring: Keyring) -> None:
    fingerprint = ring.fingerprints("release")[0]
    for key in (fingerprint, "release@example.org", fingerprint[-16:], f"{fingerprint}!"):
        assert find_signer(key) == openpgp.Signer(
            key=key,
            fingerprint=fingerprint,
            signing_fingerprint=fingerprint,
            algorithm=1,
            created=BORN,
        )


def test_finds_the_subkey_that_signs(ring: Keyring) -> None:
    primary, _, curve = ring.fingerprints("mixed")
    signer = find_signer("mixed@example.org")
    assert (signer.fingerprint, signer.signing_fingerprint) == (primary, curve)
    assert (signer.algorithm, signer.created > BORN) == (22, True)
    signer = find_signer(f"{primary}!")
    assert (signer.signing_fingerprint, signer.algorithm) == (primary, 1)
    signer.require_grub()


def test_clearsigns_as_gentoo_does(public: Path, ring: Keyring) -> None:
    signer = find_signer("release@example.org")
    signed = signer.clearsign(TEXT, time=TIME)
    assert signed.startswith(b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n# SHA512 HASH\n")
    assert signed.endswith(b"\n-----END PGP SIGNATURE-----\n")
    assert b"Version:" not in signed
    assert ring.gpg("--decrypt", text=signed) == TEXT
    assert verify_clearsigned(signed, public) == (TEXT, signer.fingerprint)
    assert signer.clearsign(TEXT, time=TIME + 1) != signed
    # However the key is named: gpg would write a mail address into what it signs.
    assert find_signer(signer.fingerprint).clearsign(TEXT, time=TIME) == signed


@pytest.mark.parametrize("text", [b"\n", b"a\n\n", b"- -\nFrom me\n", b"x" * 16_384 + b"\n"])
def test_gives_back_what_was_clearsigned(public: Path, text: bytes) -> None:
    signed = find_signer("release@example.org").clearsign(text, time=TIME)
    assert verify_clearsigned(signed, public)[0] == text


@pytest.mark.parametrize(
    "text", [b"", b"no end", b"white \nend\n", b"dos\r\n", b"\0\n", b"x" * 16_385 + b"\n"]
)
def test_clearsigns_nothing_that_would_change(text: bytes) -> None:
    signer = find_signer("release@example.org")
    with pytest.raises(ValueError, match="a clear-signed text is of whole lines"):
        signer.clearsign(text, time=TIME)


def test_grub_reads_what_is_detached(ring: Keyring, tmp_path: Path) -> None:
    content = b"a kernel\n" * 1000
    file = tmp_path / "-gentoo"
    file.write_bytes(content)
    for key in ("release@example.org", f"{ring.fingerprints('mixed')[0]}!"):
        signer = find_signer(key)
        signature = signer.detach(file, time=TIME)
        exported = signer.export_public()
        assert grub_verifies(exported, signature, content)
        assert not grub_verifies(exported, signature, content[:-1] + b"!")
        assert signer.detach(file, time=TIME) == signature
        # The subkeys stay at home: GRUB would trust what they sign, and asks for no usage.
        assert len([kind for kind, _ in _grub_packets(exported) if kind in (6, 14)]) == 1
        beside, keyring = tmp_path / "gentoo.sig", tmp_path / "key.gpg"
        beside.write_bytes(signature)
        keyring.write_bytes(exported)
        assert verify_detached(file, beside, keyring) == signer.fingerprint


def test_signs_no_earlier_than_its_key(tmp_path: Path) -> None:
    signer = find_signer("release@example.org")
    file = tmp_path / "file"
    file.write_bytes(b"old")
    assert signer.detach(file, time=BORN - 1000) == signer.detach(file, time=BORN)


def test_ignores_what_gpg_conf_says_otherwise(ring: Keyring, public: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content\n")
    signer = find_signer("release@example.org")
    plain = signer.clearsign(TEXT, time=TIME), signer.detach(file, time=TIME)
    conf = ring.home / "gpg.conf"
    try:
        conf.write_text("armor\ntextmode\nemit-version\ncomment hello\ndigest-algo SHA256\n")
        assert (signer.clearsign(TEXT, time=TIME), signer.detach(file, time=TIME)) == plain
        conf.write_text("local-user curve@example.org\n")
        with pytest.raises(CommandError) as raised:
            signer.detach(file, time=TIME)
        assert str(raised.value) == (
            "pxeboot/gpg_key: gpg made another signature than it was asked for; look in gpg.conf"
            " for local-user, digest-algo and the like"
        )
    finally:
        conf.unlink()


def test_grub_reads_no_elliptic_curves(tmp_path: Path, ring: Keyring) -> None:
    signer = find_signer("curve@example.org")
    file = tmp_path / "file"
    file.write_bytes(b"")
    for refuse in (signer.require_grub, lambda: signer.detach(file, time=TIME)):
        with pytest.raises(PxebootError) as raised:
            refuse()
        assert str(raised.value) == (
            "pxeboot/gpg_key: curve@example.org signs by EdDSA, and GRUB checks only RSA and DSA"
            " signatures; name an RSA key, or its RSA subkey by fingerprint with an exclamation"
            " mark"
        )
    keyring = tmp_path / "curve.asc"
    keyring.write_bytes(ring.gpg("--armor", "--export", "curve@example.org"))
    assert verify_clearsigned(signer.clearsign(TEXT, time=TIME), keyring)[0] == TEXT


def test_grub_reads_no_version_6_keys() -> None:
    signer = openpgp.Signer("new", "0" * 64, "0" * 64, 27, BORN)
    with pytest.raises(
        PxebootError, match="new is not an OpenPGP key of version 4, and GRUB reads"
    ):
        signer.require_grub()


def test_refuses_keys_that_cannot_sign(ring: Keyring) -> None:
    ring.forget()
    ring.gpg("--import", text=ring.revocation("revoked"))
    for key, message in [
        (
            "nobody@example.org",
            "gpg finds no secret key nobody@example.org; import it, or set GNUPGHOME to the folder"
            " of the keyring that has it",
        ),
        ("example.org", "example.org names 6 secret keys; give a fingerprint"),
        (
            "stale@example.org",
            "stale@example.org expired on 2020-12-31; extend it with gpg --quick-set-expire, or"
            " name another key",
        ),
        ("revoked@example.org", "revoked@example.org is revoked; name another key"),
        (
            "locked@example.org",
            "locked@example.org cannot sign: gpg-agent does not hold its passphrase; sign"
            " something by hand first, or give it by gpg-preset-passphrase",
        ),
        (
            f"{ring.fingerprints('mixed')[1]}!",
            f"{ring.fingerprints('mixed')[1]}! cannot sign: it has no secret key for signing that"
            " is valid now; see gpg --list-secret-keys, and name another key",
        ),
        (
            "--version",
            "'--version' is not the name of a key; give the fingerprint that gpg"
            " --list-secret-keys shows",
        ),
        (
            " ",
            "' ' is not the name of a key; give the fingerprint that gpg --list-secret-keys shows",
        ),
    ]:
        with pytest.raises(PxebootError) as raised:
            find_signer(key)
        assert str(raised.value) == f"pxeboot/gpg_key: {message}"


def test_signs_while_the_agent_holds_the_passphrase(ring: Keyring) -> None:
    ring.gpg("--passphrase", PASSPHRASE, "-u", "locked@example.org", "--clearsign", text=TEXT)
    signer = find_signer("locked@example.org")
    assert signer.clearsign(TEXT, time=TIME)
    ring.forget()
    with pytest.raises(CommandError) as raised:
        signer.clearsign(TEXT, time=TIME)
    assert str(raised.value) == (
        "pxeboot/gpg_key: gpg did not sign with locked@example.org: gpg-agent does not hold its"
        " passphrase; sign something by hand first, or give it by gpg-preset-passphrase"
    )


def test_needs_a_recent_gpg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openpgp, "find_program", lambda name: None)
    with pytest.raises(PxebootError) as raised:
        find_signer("release@example.org")
    assert str(raised.value) == (
        "pxeboot/gpg_key: signing needs gpg, which is not on PATH; install Gentoo's"
        " app-crypt/gnupg, Debian's gpg and gpg-agent"
    )
    monkeypatch.undo()
    old = tmp_path / "gpg"
    old.write_text("#!/bin/sh\necho cfg:version:1.4.23\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(PxebootError) as raised:
        find_signer("release@example.org")
    assert str(raised.value) == (
        "pxeboot/gpg_key: signing needs GnuPG 2.2 or newer, and gpg is 1.4.23; update it"
    )


def test_a_gpg_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signer = find_signer("release@example.org")
    stuck = tmp_path / "gpg"
    stuck.write_text("#!/bin/sh\nexec sleep 60\n")
    stuck.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(openpgp, "_PATIENCE", 0.5)
    with pytest.raises(CommandError, match=r"^gpg did not end within \d s; run it by hand"):
        signer.clearsign(TEXT, time=TIME)


def test_only_what_is_signed_counts(public: Path) -> None:
    signed = find_signer("release@example.org").clearsign(TEXT, time=TIME)
    partial = "; only what is signed counts: remove the rest, or have it signed again"
    whole = f"DIGESTS: is not one clear-signed text from its first line to its last{partial}"
    head, _, tail = signed.partition(b"\n\n")
    for text, message in [
        (b"added\n" + signed, whole),
        (b"\n" + signed, whole),
        (signed + b"added\n", whole),
        (signed + b"\n", whole),
        (signed[:-1], whole),
        (signed + signed, whole),
        (head + b"\nNotes: added\n\n" + tail, whole),
        (head + b"\nadded\n\n" + tail, whole),
        (signed.replace(b"\n", b"\r\n"), whole),
        (signed.partition(b"-----BEGIN PGP SIGNATURE")[0], whole),
        (TEXT, "DIGESTS: holds no signature; have it signed"),
        (b"", "DIGESTS: holds no signature; have it signed"),
        (
            signed.replace(b"abcd", b"abce"),
            "DIGESTS: the signature is bad: what it signs was changed; fetch it again, or have it"
            " signed again",
        ),
        (
            signed.partition(b"SIGNATURE-----\n")[0]
            + b"SIGNATURE-----\n\n-----END PGP SIGNATURE-----\n",
            "DIGESTS: holds no single signature that gpg can check; fetch it again, or have it"
            " signed again",
        ),
    ]:
        with pytest.raises(VerifyError) as raised:
            verify_clearsigned(text, public, where="DIGESTS")
        assert str(raised.value) == message
    # White space at the end of a line is not signed, and is not given as if it were.
    assert verify_clearsigned(signed.replace(b"gentoo\n", b"gentoo \t\n"), public)[0] == TEXT


def test_refuses_detached_signatures(ring: Keyring, public: Path, tmp_path: Path) -> None:
    file, signature = tmp_path / "gentoo", tmp_path / "gentoo.sig"
    file.write_bytes(b"a kernel\n")
    good = find_signer("release@example.org").detach(file, time=TIME)
    changed = bytearray(good)
    changed[-1] ^= 1
    stale = f"--faked-system-time={1_577_836_800 + 86400}!"
    foreign = ring.gpg("-u", "mixed@example.org", "--detach-sign", "--output", "-", file)
    both = tmp_path / "both.gpg"
    both.write_bytes(ring.gpg("--export", "release@example.org", "stale@example.org"))
    again = "; fetch it again, or have it signed again"
    single = f"holds no single signature that gpg can check{again}"
    digest = (
        "the signature is of another type, or by a digest that is no longer safe; have it signed"
        " with SHA-512"
    )

    def sign(*options: str) -> bytes:
        return ring.gpg("-u", "release@example.org", *options, "--output", "-", file)

    for content, message in [
        (bytes(changed), f"the signature is bad: what it signs was changed{again}"),
        (
            foreign,
            f"signed by the key {ring.fingerprints('mixed')[2][-16:]}, which is not in {both}; add"
            " its public key if you trust it",
        ),
        (
            ring.gpg(stale, "-u", "stale", "--detach-sign", "--output", "-", file),
            f"the key that signed has expired; bring {both} up to date, or have it signed by"
            " another key",
        ),
        (
            sign(f"--faked-system-time={TIME}!", "--default-sig-expire", "1d", "--detach-sign"),
            "the signature has expired; have it signed again",
        ),
        (b"", single),
        (b"hello", single),
        (good + good, single),
        (sign("--sign"), single),
        (sign("--digest-algo", "SHA1", "--detach-sign"), digest),
        (sign("--textmode", "--detach-sign"), digest),
    ]:
        signature.write_bytes(content)
        with pytest.raises(VerifyError) as raised:
            verify_detached(file, signature, both)
        assert str(raised.value) == f"{signature}: {message}"


def test_refuses_a_revoked_key(ring: Keyring, public: Path, tmp_path: Path) -> None:
    signed = find_signer("release@example.org").clearsign(TEXT, time=TIME)
    keyring = tmp_path / "keys.asc"
    keyring.write_bytes(public.read_bytes() + ring.revocation("release"))
    with pytest.raises(VerifyError) as raised:
        verify_clearsigned(signed, keyring, where="DIGESTS")
    assert str(raised.value) == (
        "DIGESTS: the key that signed is revoked; have it signed by another key"
    )


def test_refuses_what_is_no_keyring(public: Path, tmp_path: Path) -> None:
    signed = find_signer("release@example.org").clearsign(TEXT, time=TIME)
    text, absent = tmp_path / "text", tmp_path / "absent"
    text.write_bytes(b"hello")
    for keyring, message in [
        (text, f"{text}: holds no OpenPGP public key; make it with gpg --export"),
        (
            absent,
            f"{absent}: cannot be read: No such file or directory; check the path and its"
            " permissions",
        ),
        (
            tmp_path,
            f"{tmp_path}: cannot be read: Is a directory; check the path and its permissions",
        ),
    ]:
        with pytest.raises(VerifyError) as raised:
            verify_clearsigned(signed, keyring)
        assert str(raised.value) == message
    with pytest.raises(VerifyError) as raised:
        verify_detached(absent, text, public)
    assert str(raised.value) == (
        f"{absent}: cannot be read: No such file or directory; check the path and its permissions"
    )


def test_the_users_keyring_is_not_asked(public: Path, tmp_path: Path, ring: Keyring) -> None:
    """What the user's own keyring trusts is not trusted here."""
    signed = find_signer("curve@example.org").clearsign(TEXT, time=TIME)
    with pytest.raises(VerifyError, match=r"^a text: signed by the key \w+, which"):
        verify_clearsigned(signed, public)
