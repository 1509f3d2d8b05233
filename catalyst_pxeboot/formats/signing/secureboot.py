"""Secure Boot: keys, the variables that enrol them, and signatures of EFI programs.

Sources: UEFI specification, "Secure Boot and Driver Signing" (EFI_SIGNATURE_LIST,
EFI_VARIABLE_AUTHENTICATION_2). Programs are signed by osslsigncode, which takes the signature's
time from us, so that one key makes the same bytes of the same program; sbsign writes the clock's.
They are checked by sbverify.
"""

from __future__ import annotations

import os
import struct
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs7,
)
from cryptography.x509.oid import NameOID

from catalyst_pxeboot.formats.signing.cms import read_key_file, read_passphrase
from catalyst_pxeboot.formats.signing.pkcs11 import TokenKey
from catalyst_pxeboot.util.errors import CommandError, PxebootError
from catalyst_pxeboot.util.process import find_program, run
from catalyst_pxeboot.util.tempdir import scratch_folder

CERTIFICATE: Final = "pxeboot/secureboot_cert"
KEY: Final = "pxeboot/secureboot_key"
_PASSPHRASE: Final = "pxeboot/secureboot_passphrase_file"
_SIGNER: Final = "osslsigncode"
_CHECKER: Final = "sbverify"
_PACKAGES: Final = {
    _SIGNER: "app-crypt/osslsigncode (Debian: osslsigncode)",
    _CHECKER: "app-crypt/sbsigntools (Debian: sbsigntool)",
}
_ALL_TOKENS: Final = "p11-kit-proxy.so"
_BITS: Final = 2048  # what every firmware takes; longer ones are refused by some
_YEARS: Final = 20  # firmware looks at no clock

_X509: Final = uuid.UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072")  # EFI_CERT_X509_GUID
_PKCS7: Final = uuid.UUID("4aafd29d-68df-49ee-8aa9-347d375665a7")  # EFI_CERT_TYPE_PKCS7_GUID
_GLOBAL: Final = uuid.UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")  # EFI_GLOBAL_VARIABLE
_IMAGES: Final = uuid.UUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f")  # EFI_IMAGE_SECURITY_DATABASE
#: Not volatile, for boot services and at run time, written by time-based authentication.
_ATTRIBUTES: Final = 0x27
#: The variables of Secure Boot: whose, and the key that signs them.
VARIABLES: Final = {"PK": (_GLOBAL, "PK"), "KEK": (_GLOBAL, "PK"), "db": (_IMAGES, "KEK")}


@dataclass(frozen=True, slots=True)
class OwnKey:
    """A key with a certificate signed by itself."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey

    @property
    def key_pem(self) -> bytes:
        """The key, not encrypted."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def make_key(name: str, now: datetime) -> OwnKey:
    """Make an RSA key and a certificate named `name`."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=_BITS)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=365 * _YEARS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    return OwnKey(certificate, key)


def signature_list(certificate: x509.Certificate, owner: uuid.UUID) -> bytes:
    """Return an EFI_SIGNATURE_LIST with one certificate (.esl)."""
    content = certificate.public_bytes(Encoding.DER)
    entry = owner.bytes_le + content
    head = struct.pack("<16sIII", _X509.bytes_le, 28 + len(entry), 0, len(entry))
    return head + entry


def signed_variable(name: str, content: bytes, signer: OwnKey, now: datetime) -> bytes:
    """Return what firmware takes as a new value of the variable `name` (.auth)."""
    # EFI_TIME in UTC, without parts of a second.
    stamp = struct.pack("<HBBBBB9x", *now.astimezone(UTC).timetuple()[:6])
    vendor, _ = VARIABLES[name]
    signed = name.encode("utf-16-le") + vendor.bytes_le + struct.pack("<I", _ATTRIBUTES) + stamp
    message = (
        pkcs7.PKCS7SignatureBuilder()
        .set_data(signed + content)
        .add_signer(signer.certificate, signer.key, SHA256())
        .sign(
            Encoding.DER,
            [
                pkcs7.PKCS7Options.DetachedSignature,
                pkcs7.PKCS7Options.Binary,
                pkcs7.PKCS7Options.NoAttributes,
            ],
        )
    )
    # WIN_CERTIFICATE_UEFI_GUID; firmware wants the SignedData without the ContentInfo around it.
    inner = _signed_data(message)
    head = struct.pack("<IHH16s", 24 + len(inner), 0x0200, 0x0EF1, _PKCS7.bytes_le)
    return stamp + head + inner + content


def _signed_data(message: bytes) -> bytes:
    """Return the SignedData of a DER ContentInfo: SEQUENCE { OID, [0] { SignedData } }."""

    def body(at: int) -> int:
        """Return where the content of the element at `at` begins."""
        first = message[at + 1]
        return at + 2 + (first & 0x7F if first & 0x80 else 0)

    kind = body(0)
    tagged = body(kind) + message[kind + 1]
    return message[body(tagged) :]


@dataclass(frozen=True, slots=True)
class SecureBootSigner:
    """A key that signs EFI programs: in PEM, or in a token with its PIN."""

    certificate: Path  # the user's file
    key: bytes | TokenKey = field(repr=False)
    pin: bytes = field(default=b"", repr=False)

    def sign(self, content: bytes, *, name: str, time: int) -> bytes:
        """Return an EFI program with a signature of `time`, in seconds since 1970.

        The same bytes come of the same program, key and time. Raises `CommandError`.
        """
        program = _find(_SIGNER)
        with ExitStack() as stack:
            folder = stack.enter_context(scratch_folder())
            plain, signed = folder / "plain", folder / "signed"
            plain.write_bytes(content)
            try:
                run(
                    [
                        program, "sign", "-h", "sha256", "-time", str(time),
                        "-certs", self.certificate, *self._key_words(stack),
                        "-in", plain, "-out", signed,
                    ],
                    # PKCS #11 libraries find their settings by environment variables.
                    env=os.environ if isinstance(self.key, TokenKey) else None,
                )  # fmt: skip
            except CommandError as error:
                raise CommandError(
                    f"{name}: not signed by {KEY}: {error}",
                    hint="correct the URI or the PIN, or name the certificate of that key",
                ) from error
            return signed.read_bytes()

    def _key_words(self, stack: ExitStack) -> Iterator[str | Path]:
        # Keys and PINs stay in memory.
        if isinstance(self.key, bytes):
            yield from ("-key", stack.enter_context(_in_memory(self.key)))
            return
        yield from ("-pkcs11module", self.key.module or _ALL_TOKENS, "-key", self.key.uri)
        if self.pin:
            yield from ("-readpass", stack.enter_context(_in_memory(self.pin)))


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """Yield the name of a file that is on no disk."""
    fd = os.memfd_create("key")
    try:
        os.write(fd, content)
        yield f"/proc/{os.getpid()}/fd/{fd}"
    finally:
        os.close(fd)


def load_secureboot_signer(
    certificate: Path, key: Path | TokenKey, passphrase_file: Path | None
) -> SecureBootSigner:
    """Read the user's certificate and key, and see that they belong together.

    A key in a token is compared with the certificate when it signs. Raises `PxebootError` naming
    the spec key.
    """
    found = read_certificate(certificate, CERTIFICATE)
    _find(_SIGNER)
    passphrase = read_passphrase(passphrase_file, _PASSPHRASE) if passphrase_file else b""
    if isinstance(key, TokenKey):
        return SecureBootSigner(certificate, key, passphrase)
    try:
        loaded = load_pem_private_key(read_key_file(key, KEY), passphrase or None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # None of what cryptography raises is kept: a message must not tell of a key.
        raise PxebootError(
            f"{KEY}: {key} cannot be read as a key",
            hint=f"name a key in PEM, and its {_PASSPHRASE} if it is encrypted",
        ) from None
    if not isinstance(loaded, rsa.RSAPrivateKey) or loaded.key_size < _BITS:
        raise PxebootError(
            f"{KEY}: {key} is not an RSA key of {_BITS} bits or more, as firmware wants it",
            hint="make one: catalyst-pxeboot keys FOLDER",
        )
    if loaded.public_key() != found.public_key():
        raise PxebootError(
            f"{KEY}: {key} is not the key of {certificate}", hint="name the two of one pair"
        )
    return SecureBootSigner(certificate, OwnKey(found, loaded).key_pem)


def read_certificate(file: Path, key: str) -> x509.Certificate:
    """Read a certificate in PEM; `key` is the spec key or option. Raises `PxebootError`."""
    try:
        return x509.load_pem_x509_certificate(read_key_file(file, key))
    except ValueError as error:
        raise PxebootError(
            f"{key}: {file} cannot be read as a certificate: {error}", hint="name one in PEM"
        ) from error


def is_signed_by(program: Path, certificate: Path) -> bool:
    """Say whether an EFI program has a good signature of that certificate's key.

    Raises `CommandError` where sbverify is missing.
    """
    checker = _find(_CHECKER)
    try:
        run([checker, "--cert", certificate, program])
    except CommandError:
        return False
    return True


def _find(name: str) -> Path:
    program = find_program(name)
    if program is None:
        raise CommandError(f"{name} is missing", hint=f"install {_PACKAGES[name]}")
    return program
