"""Detached CMS signatures, as iPXE's `imgverify` checks them (RFC 5652).

What iPXE reads is in its src/crypto/cms.c and x509.c, and narrower than what OpenSSL writes:

* It takes the digest of the image itself for what is signed. Signed attributes are stepped over,
  so that a signature over them, which `openssl cms` makes without `-noattr`, never fits.
* The signer is found by issuer and serial number, and is to have the key usage digitalSignature
  and the extended key usage codeSigning; an absent key usage is not enough.
* A root is known by its fingerprint alone (`TRUST=` of iPXE's build), so the message has to bring
  every certificate, the root's too.
* A certificate with a critical extension that iPXE does not know spoils the whole message.
* ECDSA came with iPXE 2.0.0; the ones before, which distributions ship, know RSA alone.

With no signed attributes a signature depends on nothing but the digest of the file, which a tree
has already: no file is read again, as `openssl cms -sign` would, and the bytes are the same. RSA
PKCS #1 v1.5 has no random part and the message no time: one key and file give the same bits each
time.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    load_der_private_key,
    load_pem_private_key,
    pkcs7,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, SignatureAlgorithmOID

from catalyst_pxeboot.util.errors import PxebootError, VerifyError
from catalyst_pxeboot.util.files import open_regular

CERTIFICATE = "pxeboot/sign_cert"
KEY = "pxeboot/sign_key"
CHAIN = "pxeboot/sign_chain"
PASSPHRASE = "pxeboot/sign_passphrase_file"
_LARGEST = 1024 * 1024  # bytes; the largest certificate bundle there is has a quarter of it
_SHORTEST = 2048  # bits of an RSA key that is held to be safe
_DIGEST = 32  # bytes of SHA-256
_MOST_CERTIFICATES = 16  # among which the signer's is looked for

_OTHER_KIND = "it is not what openssl cms -sign -binary -noattr makes with RSA and sha256, in DER"

# DER's tags, and the parts of a message that are always the same (RFC 5652, 5754).
_INTEGER, _OCTETS, _SEQUENCE, _SET, _TAGGED = 0x02, 0x04, 0x30, 0x31, 0xA0
_NULL = bytes.fromhex("0500")
_VERSION = bytes.fromhex("020101")
_DATA = bytes.fromhex("06092a864886f70d010701")
_SIGNED_DATA = bytes.fromhex("06092a864886f70d010702")
_SHA256 = bytes.fromhex("0609608648016503040201")
_RSA = bytes.fromhex("06092a864886f70d010101")

#: The extensions of x509.c's table `x509_extensions`.
_EXTENSIONS = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.AUTHORITY_INFORMATION_ACCESS,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    }
)

#: How certificates may be signed: src/config/crypto.h, without SHA-1.
_ALGORITHMS = frozenset(
    {
        SignatureAlgorithmOID.RSA_WITH_SHA224,
        SignatureAlgorithmOID.RSA_WITH_SHA256,
        SignatureAlgorithmOID.RSA_WITH_SHA384,
        SignatureAlgorithmOID.RSA_WITH_SHA512,
    }
)

#: What cryptography raises for a certificate that is not as its type says.
_UNREADABLE = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)

_Kind = TypeVar("_Kind", bound=x509.ExtensionType)


@dataclass(frozen=True, slots=True)
class CmsSigner:
    """A code-signing certificate, its private key, and the certificates up to its root."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey = field(repr=False)
    chain: tuple[x509.Certificate, ...]

    def sign_digest(self, sha256: bytes) -> bytes:
        """Return the detached signature, in DER, of the file whose SHA-256 digest is `sha256`.

        It is what `openssl cms -sign -binary -noattr -outform DER` makes of the file.
        """
        if len(sha256) != _DIGEST:
            raise ValueError(f"a SHA-256 digest has {_DIGEST} bytes, not {len(sha256)}")
        value = self.key.sign(sha256, padding.PKCS1v15(), Prehashed(SHA256()))
        # DER puts the members of a set in the order of their bytes.
        members = sorted((self.certificate, *self.chain), key=_to_der)
        return _message(self.certificate, members, value)


def load_cms_signer(
    certificate: Path,
    key: Path,
    *,
    chain: Sequence[Path] = (),
    passphrase_file: Path | None = None,
    time: int,
) -> CmsSigner:
    """Read the signer's certificate and key, and see that iPXE will accept what they sign.

    All files are PEM or DER. That of the certificate may hold the chain behind it; `chain` are
    files of further certificates. They lead, in any order, to the one that iPXE was built to trust,
    which may be the signer's own. The first line of `passphrase_file` opens an encrypted key.
    `time`, in seconds since 1970, is the present, as iPXE goes by the client's clock. Raises
    `PxebootError`.
    """
    signer, *rest = load_certificates(certificate, where=CERTIFICATE)
    for path in chain:
        rest.extend(load_certificates(path, where=CHAIN))
    if fault := _certificate_fault(signer, time) or _signer_fault(signer):
        raise PxebootError(
            f"{CERTIFICATE}: {certificate} {fault}",
            hint="have one issued with the key usage digitalSignature and the extended key usage"
            " codeSigning, for an RSA key",
        )
    secret = _load_key(key, passphrase_file)
    if secret.public_key() != signer.public_key():
        raise PxebootError(
            f"{KEY}: {key} is not the key of the certificate {certificate}",
            hint=f"name the key that the certificate in {CERTIFICATE} was made for",
        )
    issuers = _find_issuers(signer, rest)
    for number, issuer in enumerate(issuers):
        below = (signer, *issuers)[number]
        if fault := _certificate_fault(issuer, time) or _issuer_fault(below, issuer, number):
            raise PxebootError(
                f"{CHAIN}: the certificate of {_name(issuer)} {fault}",
                hint="name the certificates that lead from the signer's to the root's",
            )
    if others := [other for other in rest if other != signer and other not in issuers]:
        raise PxebootError(
            f"{CHAIN}: the certificate of {_name(others[0])} is not an issuer of the signer's",
            hint="remove it, or add what is missing between them",
        )
    return CmsSigner(signer, secret, issuers)


def load_certificates(path: Path, *, where: str) -> tuple[x509.Certificate, ...]:
    """Read the certificates of a PEM file, or the one of a DER file.

    Raises `PxebootError`, naming the spec key `where`, if there is none.
    """
    content = read_key_file(path, where)
    try:
        if b"-----BEGIN" in content:
            return tuple(map(_named, x509.load_pem_x509_certificates(content)))
        return (_named(x509.load_der_x509_certificate(content)),)
    except _UNREADABLE as error:
        raise PxebootError(
            f"{where}: {path} holds no certificate in PEM or DER", hint="name another file"
        ) from error


def verify_digest(
    signature: bytes, sha256: bytes, *, trusted: Iterable[x509.Certificate], time: int
) -> x509.Certificate:
    """Return the certificate that signed the file whose SHA-256 digest is `sha256`.

    `signature` is a detached signature as `CmsSigner.sign_digest` makes it. It is checked as iPXE
    does, at `time` in seconds since 1970, with the roots `trusted`. Raises `VerifyError`, which
    says what is wrong with "the signature"; the caller knows of which file.
    """
    signer, certificates, value = _parse(signature)
    if fault := _certificate_fault(signer, time) or _signer_fault(signer):
        raise _bad(f"the signer's certificate {fault}")
    roots = tuple(trusted)
    path = [signer, *_find_issuers(signer, (*certificates, *roots))]
    anchor = next((number for number, cert in enumerate(path) if cert in roots), None)
    if anchor is None:
        raise _bad(f"it is of {_name(signer)}, and no trusted certificate vouches for that")
    for number, issuer in enumerate(path[1 : anchor + 1]):
        if fault := _certificate_fault(issuer, time) or _issuer_fault(path[number], issuer, number):
            raise _bad(f"the certificate of {_name(issuer)} {fault}")
    public = signer.public_key()
    if not isinstance(public, rsa.RSAPublicKey):  # _certificate_fault has reported it
        raise _bad("it is by no RSA key")
    try:
        public.verify(value, sha256, padding.PKCS1v15(), Prehashed(SHA256()))
    except (InvalidSignature, ValueError) as error:
        raise _bad("it is of another file, or this one was changed") from error
    return signer


def _message(
    signer: x509.Certificate,
    certificates: Iterable[x509.Certificate],
    value: bytes,
    *,
    parameters: bytes = b"",
) -> bytes:
    """Write the message with the signature `value`: a ContentInfo of a SignedData in DER.

    `parameters` are those of SHA-256: none, as RFC 5754 wants it, or a NULL, which it allows.
    """
    digest = _der(_SEQUENCE, _SHA256, parameters)
    serial = signer.serial_number
    info = _der(
        _SEQUENCE,
        _VERSION,
        _der(
            _SEQUENCE,
            signer.issuer.public_bytes(),
            _der(_INTEGER, serial.to_bytes(serial.bit_length() // 8 + 1, "big", signed=True)),
        ),
        digest,
        _der(_SEQUENCE, _RSA, _NULL),
        _der(_OCTETS, value),
    )
    signed = _der(
        _SEQUENCE,
        _VERSION,
        _der(_SET, digest),
        _der(_SEQUENCE, _DATA),
        _der(_TAGGED, *map(_to_der, certificates)),
        _der(_SET, info),
    )
    return _der(_SEQUENCE, _SIGNED_DATA, _der(_TAGGED, signed))


def _der(tag: int, *parts: bytes) -> bytes:
    """Write a value in DER (X.690, 8.1)."""
    content = b"".join(parts)
    size = len(content)
    length = size.to_bytes((size.bit_length() + 7) // 8 or 1, "big")
    if size > 127:
        length = bytes([128 + len(length)]) + length
    return bytes([tag]) + length + content


def _parse(signature: bytes) -> tuple[x509.Certificate, tuple[x509.Certificate, ...], bytes]:
    """Return the signer's certificate, all certificates of the message, and the RSA signature.

    Only the certificates are read from the message. All else must be, byte for byte, what we write
    around them, so there is nothing in it that is understood otherwise here than by iPXE. Raises
    `VerifyError`.
    """
    try:
        if len(signature) > _LARGEST:
            raise ValueError("too large")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a set that is not in order
            certificates = tuple(map(_named, pkcs7.load_der_pkcs7_certificates(signature)))
    except _UNREADABLE as error:
        raise _bad(_OTHER_KIND) from error
    for signer in certificates[:_MOST_CERTIFICATES]:
        value = signature[-_key_bytes(signer) :]
        for parameters in (b"", _NULL):
            if _message(signer, certificates, value, parameters=parameters) == signature:
                return signer, certificates, value
    raise _bad(_OTHER_KIND)


def _key_bytes(certificate: x509.Certificate) -> int:
    """Return how long a signature by the certificate's RSA key is; 0 for another kind of key."""
    try:
        public = certificate.public_key()
    except _UNREADABLE:
        return 0
    return (public.key_size + 7) // 8 if isinstance(public, rsa.RSAPublicKey) else 0


def _bad(reason: str) -> VerifyError:
    return VerifyError(f"the signature is bad: {reason}", hint="have the file signed again")


def _signer_fault(certificate: x509.Certificate) -> str:
    """Say why iPXE takes no image signed by `certificate`, or nothing."""
    usage = _extension(certificate, x509.KeyUsage)
    extended = _extension(certificate, x509.ExtendedKeyUsage)
    if extended is None or ExtendedKeyUsageOID.CODE_SIGNING not in extended:
        return "is not for code signing"
    if usage is None or not usage.digital_signature:
        return "is not for digital signatures"
    return ""


def _certificate_fault(certificate: x509.Certificate, time: int) -> str:
    """Say why iPXE cannot read `certificate` or finds it out of date, or nothing."""
    try:
        public = certificate.public_key()
        extensions = tuple(certificate.extensions)
    except _UNREADABLE:
        return "cannot be read"
    if not isinstance(public, rsa.RSAPublicKey):
        return "has no RSA key, and iPXE before 2.0.0 reads no other"
    if public.key_size < _SHORTEST:
        return f"is of a key of {public.key_size} bits, and {_SHORTEST} are the fewest held safe"
    if certificate.signature_algorithm_oid not in _ALGORITHMS:
        return "is not signed by RSA of SHA-2"
    if certificate.issuer.public_bytes() not in certificate.tbs_certificate_bytes:
        return "has a name that is not in DER, and iPXE compares names by their bytes"
    for extension in extensions:
        if extension.critical and extension.oid not in _EXTENSIONS:
            number = extension.oid.dotted_string
            return f"has the critical extension {number}, which iPXE does not know"
    moment = datetime.fromtimestamp(time, UTC)
    if certificate.not_valid_before_utc > moment:
        return f"is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}"
    if certificate.not_valid_after_utc < moment:
        return f"expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
    return ""


def _issuer_fault(certificate: x509.Certificate, issuer: x509.Certificate, between: int) -> str:
    """Say why `issuer`, with `between` issuers below it, cannot vouch for `certificate`."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError):
        return f"is of the issuer of {_name(certificate)}, but did not sign it"
    usage = _extension(issuer, x509.KeyUsage)
    basic = _extension(issuer, x509.BasicConstraints)
    if basic is None or not basic.ca or (usage is not None and not usage.key_cert_sign):
        return "is not for signing certificates"
    if basic.path_length is not None and basic.path_length < between:
        return f"allows {basic.path_length} issuers below it, and there are {between}"
    return ""


def _extension(certificate: x509.Certificate, kind: type[_Kind]) -> _Kind | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _find_issuers(
    signer: x509.Certificate, pool: Iterable[x509.Certificate]
) -> tuple[x509.Certificate, ...]:
    """Return the certificates of `pool` that lead from `signer` to its root, by name alone."""
    path = [signer]
    rest = [certificate for certificate in pool if certificate != signer]
    while path[-1].issuer != path[-1].subject:
        issuer = next((cert for cert in rest if cert.subject == path[-1].issuer), None)
        if issuer is None:
            break
        path.append(issuer)
        rest = [certificate for certificate in rest if certificate != issuer]
    return tuple(path[1:])


def _load_key(path: Path, passphrase_file: Path | None) -> rsa.RSAPrivateKey:
    content = read_key_file(path, KEY)
    passphrase = None
    if passphrase_file is not None:
        passphrase = read_passphrase(passphrase_file, PASSPHRASE)
    load = load_pem_private_key if b"-----BEGIN" in content else load_der_private_key
    # None of what cryptography raises is kept: a message must not tell of a key or a passphrase.
    try:
        key = load(content, passphrase)
    except TypeError:
        if passphrase is None:
            raise PxebootError(
                f"{KEY}: {path} is encrypted",
                hint=f"name the file of its passphrase in {PASSPHRASE}",
            ) from None
        raise PxebootError(
            f"{PASSPHRASE}: {KEY} names a key that is not encrypted", hint="remove it"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        if passphrase is None:
            raise PxebootError(
                f"{KEY}: {path} holds no private key in PEM or DER", hint="name another file"
            ) from None
        raise PxebootError(
            f"{KEY}: {path} does not open with the first line of {PASSPHRASE}",
            hint="correct one of them",
        ) from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise PxebootError(
            f"{KEY}: {path} is not an RSA key, and iPXE before 2.0.0 reads no other",
            hint="make one with openssl genrsa",
        )
    return key


def read_passphrase(path: Path, where: str) -> bytes:
    """Return the first line of a file; raises `PxebootError`, naming the spec key `where`."""
    return read_key_file(path, where).split(b"\n", 1)[0].rstrip(b"\r")


def read_key_file(path: Path, where: str) -> bytes:
    """Return a file of keys or certificates; raises `PxebootError`, naming the spec key `where`."""
    try:
        with open_regular(path) as stream:
            content = stream.read(_LARGEST + 1)
    except OSError as error:
        raise PxebootError(
            f"{where}: {path} cannot be read: {error.strerror}",
            hint="correct the path or its permissions",
        ) from error
    if len(content) > _LARGEST:
        raise PxebootError(
            f"{where}: {path} is larger than any key or certificate", hint="name another file"
        )
    return content


def _to_der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def _named(certificate: x509.Certificate) -> x509.Certificate:
    """Return `certificate`, or raise ValueError now if one of its names cannot be read."""
    _ = certificate.subject, certificate.issuer
    return certificate


def _name(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string() or "no name"
