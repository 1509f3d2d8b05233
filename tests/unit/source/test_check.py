"""Digests and signatures beside an ISO: checked before anything else, and told."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalyst_pxeboot.formats.signing.openpgp import find_signer, open_keyring
from catalyst_pxeboot.source import check as isocheck
from catalyst_pxeboot.source.check import check_iso
from catalyst_pxeboot.util.errors import PxebootError, SourceError, VerifyError
from catalyst_pxeboot.util.sums import Sum, parse_sums
from tests.unit.formats.signing.test_openpgp import TIME, Keyring

NAME = "install-amd64-minimal-20261122T170000Z.iso"
CONTENT = b"an ISO, as far as digests go" * 1000
AGAIN = "fetch or make the ISO again"

needs_gpg = pytest.mark.skipif(
    not shutil.which("gpg") or not shutil.which("gpgconf"), reason="no gpg and gpgconf"
)


@pytest.fixture
def iso(tmp_path: Path) -> Path:
    path = tmp_path / NAME
    path.write_bytes(CONTENT)
    return path


def digest(algorithm: str, content: bytes = CONTENT) -> str:
    return hashlib.new(algorithm, content).hexdigest()


def catalyst_sums(*algorithms: str, name: str = NAME, content: bytes = CONTENT) -> str:
    """Return digests as catalyst's gen_digest_file writes them."""
    return "".join(
        f"# {algorithm.upper()} HASH\n{digest(algorithm, content)}  {name}\n"
        for algorithm in algorithms
    )


def beside(iso: Path, ending: str, content: str | bytes) -> Path:
    path = iso.with_name(iso.name + ending)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def check(iso: Path, keyring: Path | None = None) -> list[str]:
    """Check the ISO and return what was reported."""
    lines: list[str] = []
    stamp = check_iso(iso, keyring=keyring, report=lines.append)
    assert stamp.bytes == len(CONTENT)
    return lines


def refused(iso: Path, keyring: Path | None = None, kind: type[PxebootError] = SourceError) -> str:
    with pytest.raises(kind) as raised:
        check_iso(iso, keyring=keyring, report=lambda _line: None)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# The formats -----------------------------------------------------------------------------------


def test_catalysts_two_formats() -> None:
    text = catalyst_sums("blake2b", "sha512") + catalyst_sums("sha512", name="x.CONTENTS.gz")
    assert list(parse_sums(text)) == [
        Sum("blake2b", NAME, digest("blake2b")),
        Sum("sha512", NAME, digest("sha512")),
        Sum("sha512", "x.CONTENTS.gz", digest("sha512")),
    ]
    bsd = f"# SHA512 HASH\nSHA512 ({NAME}) = {digest('sha512').upper()}\n"
    assert list(parse_sums(bsd)) == [Sum("sha512", NAME, digest("sha512"))]


def test_others_formats() -> None:
    text = (
        f"{digest('sha256')} *./{NAME}\n{digest('sha512')}  /tmp/{NAME}\r\n"
        f"{digest('md5')}  {NAME}\nno digest\n\n{digest('sha1')[:20]}  short\n"
    )
    assert list(parse_sums(text)) == [
        Sum("sha256", NAME, digest("sha256")), Sum("sha512", NAME, digest("sha512")),
    ]  # fmt: skip


# Digests ---------------------------------------------------------------------------------------


def test_nothing_beside_it(iso: Path) -> None:
    assert check(iso) == [f"Not checked: no digests of {NAME} lie beside it"]


def test_catalysts_digests(iso: Path) -> None:
    beside(
        iso, ".DIGESTS",
        catalyst_sums("blake2b", "sha512")
        + catalyst_sums("blake2b", name=f"{NAME}.CONTENTS.gz", content=b"x"),
    )  # fmt: skip
    beside(iso, ".sha256", catalyst_sums("sha256"))
    assert check(iso) == [
        f"Checking {NAME}, 27.3 KiB, by {NAME}.DIGESTS and {NAME}.sha256",
        f"Digests of {NAME}: good (blake2b, sha256, sha512)",
    ]


@pytest.mark.parametrize("ending", [".DIGESTS", ".DIGESTS.asc", ".sha256"])
@pytest.mark.parametrize("algorithm", ["blake2b", "sha256", "md5"])
def test_a_wrong_digest_ends_it(iso: Path, ending: str, algorithm: str) -> None:
    wrong = digest(algorithm, b"another")
    beside(iso, ending, catalyst_sums("sha512") + catalyst_sums(algorithm, content=b"another"))
    assert refused(iso) == (
        f"{iso}: {NAME}{ending} says {algorithm} {wrong}, but it is {digest(algorithm)}; {AGAIN}"
    )


def test_a_digest_of_half_the_length_is_wrong(iso: Path) -> None:
    beside(iso, ".DIGESTS", f"# SHA512 HASH\n{digest('sha512')[:64]}  {NAME}\n")
    assert f"says sha512 {digest('sha512')[:64]}, but it is {digest('sha512')}" in refused(iso)


def test_digests_of_another_file_and_of_unknown_kinds(iso: Path) -> None:
    beside(iso, ".DIGESTS", catalyst_sums("sha512", name="other.iso", content=b"another"))
    beside(iso, ".sha256", f"# WHIRLPOOL2 HASH\n{digest('sha512')}  {NAME}\n")
    assert check(iso) == [
        f"{NAME}.DIGESTS lists nothing of {NAME}: ignored",
        f"{NAME}.sha256 has no digest that this Python knows: ignored",
        f"Not checked: no digests of {NAME} lie beside it",
    ]


def test_beside_what_a_symlink_means(iso: Path) -> None:
    beside(iso, ".sha256", catalyst_sums("sha256"))
    link = iso.with_name("latest.iso")
    link.symlink_to(NAME)
    assert check(link)[-1] == "Digests of latest.iso: good (sha256)"
    beside(iso, ".sha256", catalyst_sums("sha256", content=b"another"))
    assert refused(link).startswith(f"{link}: {NAME}.sha256 says sha256 ")


def test_digests_that_cannot_be_read(iso: Path) -> None:
    iso.with_name(f"{NAME}.DIGESTS").mkdir()
    assert refused(iso) == (
        f"{iso}.DIGESTS: the digests cannot be read: Is a directory; correct or remove it"
    )
    iso.with_name(f"{NAME}.DIGESTS").rmdir()
    beside(iso, ".DIGESTS", b"x" * (1 << 20) + b"x")
    assert "the digests cannot be read: More than 1048576 bytes" in refused(iso)


def test_a_disk_that_fails(iso: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_more: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    beside(iso, ".DIGESTS", catalyst_sums("SHA512"))
    monkeypatch.setattr(isocheck, "digest_file", fail)
    assert refused(iso) == (
        f"{iso}: it cannot be read to its end: Input/output error; check the disk that it is on"
    )


def test_progress_is_told_and_reaches_the_end(iso: Path) -> None:
    iso.write_bytes(bytes(5 << 20))
    beside(iso, ".sha256", catalyst_sums("sha256", content=bytes(5 << 20)))
    told: list[tuple[str, int, int]] = []
    check_iso(
        iso, keyring=None, report=lambda _line: None,
        progress=lambda what, done, total: told.append((what, done, total)),
    )  # fmt: skip
    assert {what for what, _, _ in told} == {f"Checking {NAME}"}
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert told[-1][1:] == (5 << 20, 5 << 20)
    assert len(told) < 10


# Signatures ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ring() -> Iterator[Keyring]:
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        keyring = Keyring(Path(folder))
        try:
            keyring.make("release")
            keyring.make("other")
            yield keyring
        finally:
            keyring.forget()


@pytest.fixture
def signed(ring: Keyring, iso: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the ISO with digests that `release` has clear-signed, as Gentoo publishes them."""
    monkeypatch.setenv("GNUPGHOME", str(ring.home))
    text = catalyst_sums("blake2b", "sha512")
    beside(iso, ".DIGESTS", sign(text))
    return iso


def sign(text: str, name: str = "release") -> bytes:
    return find_signer(f"{name}@example.org").clearsign(text.encode(), time=TIME)


@pytest.fixture
def keyring(ring: Keyring, tmp_path: Path) -> Path:
    return export(ring, tmp_path, "release")


def export(ring: Keyring, folder: Path, name: str) -> Path:
    path = folder / f"{name}.gpg"
    path.write_bytes(ring.gpg("--export", f"{name}@example.org"))
    return path


@needs_gpg
def test_signed_and_not_checked(signed: Path) -> None:
    beside(signed, ".asc", b"a signature")
    assert check(signed) == [
        f"Signature in {NAME}.DIGESTS: not checked, give --keyring",
        f"Signature {NAME}.asc: not checked, give --keyring",
        f"Checking {NAME}, 27.3 KiB, by {NAME}.DIGESTS",
        f"Digests of {NAME}: good (blake2b, sha512)",
    ]


@needs_gpg
def test_signed_and_good(signed: Path, ring: Keyring, keyring: Path) -> None:
    fingerprint = ring.fingerprints("release")[0]
    assert check(signed, keyring) == [
        f"Signature of {NAME}.DIGESTS: good, by {fingerprint} release <release@example.org>",
        f"Checking {NAME}, 27.3 KiB, by {NAME}.DIGESTS",
        f"Digests of {NAME}: good (blake2b, sha512)",
    ]


@needs_gpg
def test_a_detached_signature_of_the_iso(
    iso: Path, ring: Keyring, keyring: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GNUPGHOME", str(ring.home))
    words = ("--armor", "--local-user", "release@example.org", "--detach-sign", "--output", "-")
    beside(iso, ".asc", ring.gpg(*words, iso))
    fingerprint = ring.fingerprints("release")[0]
    assert check(iso, keyring) == [
        f"Signature of {NAME}: good, by {fingerprint} release <release@example.org>",
    ]
    iso.write_bytes(CONTENT[:-1] + b"X")
    assert refused(iso, keyring, VerifyError) == (
        f"{iso}.asc: the signature is bad: what it signs was changed;"
        " fetch it again, or have it signed again"
    )


@needs_gpg
def test_signed_by_another_key(signed: Path, ring: Keyring, tmp_path: Path) -> None:
    other = export(ring, tmp_path, "other")
    key = ring.fingerprints("release")[0][-16:]
    assert refused(signed, other, VerifyError) == (
        f"{signed}.DIGESTS: signed by the key {key}, which is not in {other};"
        " add its public key if you trust it"
    )


@needs_gpg
def test_signed_digests_that_were_changed(signed: Path, keyring: Path) -> None:
    side = signed.with_name(f"{NAME}.DIGESTS")
    side.write_bytes(
        side.read_bytes().replace(digest("sha512").encode(), digest("sha512", b"").encode())
    )
    assert "the signature is bad: what it signs was changed" in refused(
        signed, keyring, VerifyError
    )


@needs_gpg
def test_what_stands_beside_the_signed_text_does_not_count(signed: Path, keyring: Path) -> None:
    side = signed.with_name(f"{NAME}.DIGESTS")
    side.write_bytes(catalyst_sums("sha256").encode() + side.read_bytes())
    assert "is not one clear-signed text from its first line to its last" in refused(
        signed, keyring, VerifyError
    )


@needs_gpg
def test_an_iso_changed_under_good_digests(signed: Path, keyring: Path) -> None:
    signed.write_bytes(CONTENT[:-1] + b"X")
    assert refused(signed, keyring).startswith(f"{signed}: {NAME}.DIGESTS says blake2b ")


@needs_gpg
@pytest.mark.parametrize("kind", ["none", "plain", "of another", "weak"])
def test_not_signed(
    iso: Path, ring: Keyring, keyring: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GNUPGHOME", str(ring.home))
    if kind == "plain":
        beside(iso, ".DIGESTS", catalyst_sums("sha512"))
    elif kind == "of another":
        beside(iso, ".DIGESTS", sign(catalyst_sums("sha512", name="other.iso")))
        beside(iso, ".sha256", catalyst_sums("sha256"))
    elif kind == "weak":
        beside(iso, ".DIGESTS", sign(catalyst_sums("md5")))
    assert refused(iso, keyring) == (
        f"{iso}: not signed: neither {NAME}.asc nor a signed {NAME}.DIGESTS that lists it lies"
        " beside it; put it there, or leave pxeboot/keyring (--keyring) out"
    )


@needs_gpg
def test_whose_a_key_is(ring: Keyring, keyring: Path, tmp_path: Path) -> None:
    both = tmp_path / "both.gpg"
    both.write_bytes(keyring.read_bytes() + export(ring, tmp_path, "other").read_bytes())
    with open_keyring(both) as keys:
        for name in ("release", "other"):
            (fingerprint,) = ring.fingerprints(name)
            assert keys.user_id(fingerprint) == f"{name} <{name}@example.org>"
        assert keys.user_id("0" * 40) == ""
