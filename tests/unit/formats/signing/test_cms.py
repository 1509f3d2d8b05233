"""CMS signatures for iPXE: OpenSSL makes the same bytes and finds ours good; what spoils one."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs7,
)
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from catalyst_pxeboot.formats.signing.cms import (
    CmsSigner,
    _message,
    load_certificates,
    load_cms_signer,
    verify_digest,
)
from catalyst_pxeboot.util.errors import PxebootError, VerifyError

TIME = 1_795_366_800  # 2026-11-22 17:00:00 UTC
CONTENT = b"a kernel\n" * 1000
SHA256 = hashlib.sha256(CONTENT).digest()
CODE = ExtendedKeyUsageOID.CODE_SIGNING
AS_ASKED = (
    "; have one issued with the key usage digitalSignature and the extended key usage"
    " codeSigning, for an RSA key"
)
CHAIN_HINT = "; name the certificates that lead from the signer's to the root's"
OTHER = "it is not what openssl cms -sign -binary -noattr makes with RSA and sha256, in DER"
AGAIN = "; have the file signed again"

needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl program")

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Issued:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: PrivateKey


_rsa_keys: dict[str, rsa.RSAPrivateKey] = {}


def rsa_key(name: str, bits: int = 2048) -> rsa.RSAPrivateKey:
    """Return the RSA key of that name, made once."""
    if name not in _rsa_keys:
        _rsa_keys[name] = rsa.generate_private_key(65537, bits)
    return _rsa_keys[name]


def issue(
    name: str,
    issuer: Issued | None = None,
    *,
    key: PrivateKey | None = None,
    ca: bool = False,
    path_length: int | None = None,
    digital: bool | None = True,
    purposes: Iterable[x509.ObjectIdentifier] = (),
    years: tuple[int, int] = (2020, 2040),
    extra: x509.ExtensionType | None = None,
) -> Issued:
    """Make a certificate; without an issuer it signs itself, without `digital` it has no usage."""
    own = key or rsa_key(name)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(own.public_key())
        .serial_number(1000 + len(name))
        .not_valid_before(datetime(years[0], 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(years[1], 1, 1, tzinfo=UTC))
    )
    # One that iPXE does not know, and need not.
    identifier = x509.SubjectKeyIdentifier.from_public_key(own.public_key())
    builder = builder.add_extension(identifier, critical=False)
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(True, path_length), critical=True)
    if digital is not None:
        usage = x509.KeyUsage(digital, False, False, False, False, ca, ca, False, False)
        builder = builder.add_extension(usage, critical=True)
    if list(purposes):
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    if extra:
        builder = builder.add_extension(extra, critical=True)
    signer = issuer.key if issuer else own
    return Issued(builder.sign(signer, hashes.SHA256()), own)


@pytest.fixture(scope="module")
def root() -> Issued:
    return issue("root", ca=True)


@pytest.fixture(scope="module")
def middle(root: Issued) -> Issued:
    return issue("middle", root, ca=True, path_length=0)


@pytest.fixture(scope="module")
def code(middle: Issued) -> Issued:
    return issue("code", middle, purposes=[CODE])


@pytest.fixture(scope="module")
def signer(code: Issued, middle: Issued, root: Issued) -> CmsSigner:
    assert isinstance(code.key, rsa.RSAPrivateKey)
    return CmsSigner(code.certificate, code.key, (middle.certificate, root.certificate))


def pem(*issued: Issued) -> bytes:
    return b"".join(each.certificate.public_bytes(Encoding.PEM) for each in issued)


def key_pem(key: PrivateKey, passphrase: bytes = b"") -> bytes:
    how = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)


@dataclass(frozen=True)
class Files:
    """The files of a spec; each test bends some of them."""

    folder: Path

    def write(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    def load(self, issued: Issued, *chain: Issued, time: int = TIME) -> CmsSigner:
        cert = self.write("code.crt", pem(issued))
        key = self.write("code.key", key_pem(issued.key))
        paths = [self.write(f"{number}.crt", pem(each)) for number, each in enumerate(chain)]
        return load_cms_signer(cert, key, chain=paths, time=time)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def openssl(*words: str | Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["openssl", *map(str, words)], capture_output=True, timeout=60, check=False
    )


def test_is_the_same_as_cryptographys(signer: CmsSigner) -> None:
    options = [
        pkcs7.PKCS7Options.DetachedSignature,
        pkcs7.PKCS7Options.Binary,
        pkcs7.PKCS7Options.NoAttributes,
    ]
    builder = pkcs7.PKCS7SignatureBuilder().set_data(CONTENT)
    builder = builder.add_signer(signer.certificate, signer.key, hashes.SHA256())
    for certificate in signer.chain:
        builder = builder.add_certificate(certificate)
    theirs = builder.sign(Encoding.DER, options)
    value = signer.sign_digest(SHA256)[-256:]
    members = pkcs7.load_der_pkcs7_certificates(theirs)
    assert theirs == _message(signer.certificate, members, value, parameters=b"\5\0")
    assert verify_digest(theirs, SHA256, trusted=signer.chain, time=TIME) == signer.certificate


@needs_openssl
def test_is_the_same_as_openssls(files: Files, code: Issued, middle: Issued, root: Issued) -> None:
    ours = files.load(code, middle, root).sign_digest(SHA256)
    made = openssl(
        *("cms", "-sign", "-binary", "-noattr", "-md", "sha256", "-outform", "DER"),
        *("-in", files.write("kernel", CONTENT), "-signer", files.folder / "code.crt"),
        *("-inkey", files.folder / "code.key"),
        *("-certfile", files.write("chain.crt", pem(middle, root))),
    )
    assert ours == made.stdout


@needs_openssl
@pytest.mark.parametrize("content", [CONTENT, CONTENT[:-1] + b"!", b""])
def test_openssl_checks_it(files: Files, signer: CmsSigner, root: Issued, content: bytes) -> None:
    checked = openssl(
        *("cms", "-verify", "-binary", "-inform", "DER", "-purpose", "any", "-out", "/dev/null"),
        *("-in", files.write("kernel.sig", signer.sign_digest(SHA256))),
        *("-content", files.write("kernel", content)),
        *("-CAfile", files.write("root.crt", pem(root))),
    )
    assert (checked.returncode == 0) is (content == CONTENT), checked.stderr


@needs_openssl
def test_checks_openssls(files: Files, code: Issued, middle: Issued, root: Issued) -> None:
    def sign(*options: str) -> bytes:
        return openssl(
            *("cms", "-sign", "-binary", "-outform", "DER"),
            *("-in", files.write("kernel", CONTENT)),
            *("-signer", files.write("code.crt", pem(code))),
            *("-inkey", files.write("code.key", key_pem(code.key))),
            *("-certfile", files.write("chain.crt", pem(middle, root))),
            *options,
        ).stdout

    trusted = [root.certificate]
    assert verify_digest(sign("-noattr"), SHA256, trusted=trusted, time=TIME) == code.certificate
    for signature in (
        sign(),
        sign("-noattr", "-nodetach"),
        sign("-noattr", "-md", "sha512"),
        sign("-noattr", "-keyopt", "rsa_padding_mode:pss"),
        sign("-noattr", "-keyid"),
        sign("-noattr", "-nocerts"),
    ):
        with pytest.raises(VerifyError) as raised:
            verify_digest(signature, SHA256, trusted=trusted, time=TIME)
        assert str(raised.value) == f"the signature is bad: {OTHER}{AGAIN}"


def test_is_the_same_bits_each_time(signer: CmsSigner) -> None:
    assert signer.sign_digest(SHA256) == signer.sign_digest(SHA256)
    with pytest.raises(ValueError, match="a SHA-256 digest has 32 bytes, not 64"):
        signer.sign_digest(SHA256.hex().encode())


def test_verify_takes_what_earlier_versions_signed(signer: CmsSigner, root: Issued) -> None:
    """The signer's certificate first, which is not DER's order."""
    value = signer.key.sign(SHA256, padding.PKCS1v15(), Prehashed(hashes.SHA256()))
    members = (signer.certificate, *signer.chain)
    signature = _message(signer.certificate, members, value)
    assert signature != signer.sign_digest(SHA256)
    found = verify_digest(signature, SHA256, trusted=[root.certificate], time=TIME)
    assert found == signer.certificate


def test_verify_looks_among_few_certificates(code: Issued, root: Issued) -> None:
    """Each is a comparison with the whole message, and whoever wrote it chooses how many."""
    many = tuple(issue(f"other {number}", key=rsa_key("other")).certificate for number in range(16))
    assert isinstance(code.key, rsa.RSAPrivateKey)
    value = code.key.sign(SHA256, padding.PKCS1v15(), Prehashed(hashes.SHA256()))
    for members, passes in (((code.certificate, *many), True), ((*many, code.certificate), False)):
        signature = _message(code.certificate, members, value)
        try:
            verify_digest(signature, SHA256, trusted=[code.certificate], time=TIME)
            assert passes
        except VerifyError as error:
            assert not passes, error
            assert OTHER in str(error)


def test_key_is_not_shown(signer: CmsSigner) -> None:
    assert "key" not in repr(signer)


@pytest.mark.parametrize("form", ["PEM", "DER", "bundle"])
def test_loads_each_form(
    files: Files, code: Issued, middle: Issued, root: Issued, form: str, signer: CmsSigner
) -> None:
    encoding = Encoding.DER if form == "DER" else Encoding.PEM
    cert = code.certificate.public_bytes(encoding)
    key = code.key.private_bytes(encoding, PrivateFormat.PKCS8, NoEncryption())
    chain = [files.write("root", pem(root)), files.write("middle", pem(middle))]
    if form == "bundle":
        cert, chain = pem(code, middle, root), []
    loaded = load_cms_signer(
        files.write("cert", cert), files.write("key", key), chain=chain, time=TIME
    )
    assert loaded.sign_digest(SHA256) == signer.sign_digest(SHA256)
    assert loaded.chain == (middle.certificate, root.certificate)


def test_loads_an_encrypted_key(files: Files, code: Issued) -> None:
    cert = files.write("code.crt", pem(code))
    key = files.write("code.key", key_pem(code.key, b"open sesame"))
    right = files.write("right", b"open sesame\nnot this\n")
    loaded = load_cms_signer(cert, key, passphrase_file=right, time=TIME)
    assert loaded.key.private_numbers() == rsa_key("code").private_numbers()
    plain = files.write("plain.key", key_pem(code.key))
    for path, passphrase, message in [
        (
            key,
            None,
            f"pxeboot/sign_key: {key} is encrypted; name the file of its passphrase in"
            " pxeboot/sign_passphrase_file",
        ),
        (
            key,
            files.write("wrong", b"open barley"),
            f"pxeboot/sign_key: {key} does not open with the first line of"
            " pxeboot/sign_passphrase_file; correct one of them",
        ),
        (
            plain,
            right,
            "pxeboot/sign_passphrase_file: pxeboot/sign_key names a key that is not encrypted;"
            " remove it",
        ),
        (
            key,
            files.folder / "absent",
            f"pxeboot/sign_passphrase_file: {files.folder}/absent cannot be read: No such file or"
            " directory; correct the path or its permissions",
        ),
    ]:
        with pytest.raises(PxebootError) as raised:
            load_cms_signer(cert, path, passphrase_file=passphrase, time=TIME)
        assert str(raised.value) == message


def test_a_certificate_that_signs_itself_will_do(files: Files) -> None:
    alone = issue("alone", purposes=[CODE])
    signature = files.load(alone).sign_digest(SHA256)
    trusted = [alone.certificate]
    assert verify_digest(signature, SHA256, trusted=trusted, time=TIME) == alone.certificate


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda root: issue("plain", root), "is not for code signing"),
        (
            lambda root: issue("web", root, purposes=[ExtendedKeyUsageOID.SERVER_AUTH]),
            "is not for code signing",
        ),
        (
            lambda root: issue("nodigital", root, digital=False, purposes=[CODE]),
            "is not for digital signatures",
        ),
        (
            lambda root: issue("nousage", root, digital=None, purposes=[CODE]),
            "is not for digital signatures",
        ),
        (
            lambda root: issue("old", root, purposes=[CODE], years=(2020, 2026)),
            "expired on 2026-01-01",
        ),
        (
            lambda root: issue("early", root, purposes=[CODE], years=(2027, 2030)),
            "is not valid before 2027-01-01",
        ),
        (
            lambda root: issue("short", root, purposes=[CODE], key=rsa_key("short", 1024)),
            "is of a key of 1024 bits, and 2048 are the fewest held safe",
        ),
        (
            lambda root: issue(
                "curve", root, purposes=[CODE], key=ec.generate_private_key(ec.SECP256R1())
            ),
            "has no RSA key, and iPXE before 2.0.0 reads no other",
        ),
        (
            lambda root: issue("critical", root, purposes=[CODE], extra=x509.InhibitAnyPolicy(0)),
            "has the critical extension 2.5.29.54, which iPXE does not know",
        ),
        (
            lambda _root: issue(
                "bycurve", issue("ecroot", ca=True, key=ec.generate_private_key(ec.SECP256R1()))
            ),
            "is not signed by RSA of SHA-2",
        ),
    ],
)
def test_refuses_a_certificate(
    files: Files, root: Issued, make: Callable[[Issued], Issued], fault: str
) -> None:
    issued = make(root)
    with pytest.raises(PxebootError) as raised:
        files.load(issued)
    assert str(raised.value) == (f"pxeboot/sign_cert: {files.folder}/code.crt {fault}{AS_ASKED}")
    if isinstance(issued.key, rsa.RSAPrivateKey):
        forged = CmsSigner(issued.certificate, issued.key, (root.certificate,))
        with pytest.raises(VerifyError) as wrong:
            verify_digest(forged.sign_digest(SHA256), SHA256, trusted=[root.certificate], time=TIME)
        assert str(wrong.value) == (
            f"the signature is bad: the signer's certificate {fault}{AGAIN}"
        )


def test_refuses_another_key(files: Files, code: Issued, root: Issued) -> None:
    cert, key = files.write("code.crt", pem(code)), files.write("root.key", key_pem(root.key))
    with pytest.raises(PxebootError) as raised:
        load_cms_signer(cert, key, time=TIME)
    assert str(raised.value) == (
        f"pxeboot/sign_key: {key} is not the key of the certificate {cert}; name the key that the"
        " certificate in pxeboot/sign_cert was made for"
    )


def test_refuses_what_is_no_key_or_certificate(files: Files, code: Issued) -> None:
    cert, key = files.write("code.crt", pem(code)), files.write("code.key", key_pem(code.key))
    text, large = files.write("text", b"hello"), files.write("large", bytes(1024 * 1024 + 1))
    curve = files.write("curve.key", key_pem(ec.generate_private_key(ec.SECP256R1())))
    absent = files.folder / "absent"
    for certificate, secret, message in [
        (
            absent,
            key,
            f"pxeboot/sign_cert: {absent} cannot be read: No such file or directory; correct the"
            " path or its permissions",
        ),
        (
            cert,
            files.folder,
            f"pxeboot/sign_key: {files.folder} cannot be read: Is a directory; correct the path or"
            " its permissions",
        ),
        (
            text,
            key,
            f"pxeboot/sign_cert: {text} holds no certificate in PEM or DER; name another file",
        ),
        (
            key,
            key,
            f"pxeboot/sign_cert: {key} holds no certificate in PEM or DER; name another file",
        ),
        (
            cert,
            text,
            f"pxeboot/sign_key: {text} holds no private key in PEM or DER; name another file",
        ),
        (
            cert,
            cert,
            f"pxeboot/sign_key: {cert} holds no private key in PEM or DER; name another file",
        ),
        (
            cert,
            large,
            f"pxeboot/sign_key: {large} is larger than any key or certificate; name another file",
        ),
        (
            cert,
            curve,
            f"pxeboot/sign_key: {curve} is not an RSA key, and iPXE before 2.0.0 reads no other;"
            " make one with openssl genrsa",
        ),
    ]:
        with pytest.raises(PxebootError) as raised:
            load_cms_signer(certificate, secret, time=TIME)
        assert str(raised.value) == message


def test_refuses_a_chain(files: Files, code: Issued, middle: Issued, root: Issued) -> None:
    stranger = issue("stranger", ca=True)
    impostor = issue("middle", ca=True, key=rsa_key("impostor"))
    client = issue("middle", root, key=rsa_key("middle"))
    old = issue("middle", root, key=rsa_key("middle"), ca=True, years=(2020, 2026))
    lower = issue("lower", middle, ca=True)
    deep = issue("deep", lower, purposes=[CODE])
    for leaf, chain, message in [
        (
            code,
            (middle, root, stranger),
            "the certificate of CN=stranger is not an issuer of the signer's; remove it, or add"
            " what is missing between them",
        ),
        (
            code,
            (root,),
            "the certificate of CN=root is not an issuer of the signer's; remove it, or add what is"
            " missing between them",
        ),
        (
            code,
            (impostor,),
            "the certificate of CN=middle is of the issuer of CN=code, but did not sign it"
            + CHAIN_HINT,
        ),
        (
            code,
            (client, root),
            f"the certificate of CN=middle is not for signing certificates{CHAIN_HINT}",
        ),
        (code, (old, root), f"the certificate of CN=middle expired on 2026-01-01{CHAIN_HINT}"),
        (
            deep,
            (lower, middle, root),
            "the certificate of CN=middle allows 0 issuers below it, and there are 1" + CHAIN_HINT,
        ),
    ]:
        with pytest.raises(PxebootError) as raised:
            files.load(leaf, *chain)
        assert str(raised.value) == f"pxeboot/sign_chain: {message}"


def test_verify_takes_what_was_signed(signer: CmsSigner, code: Issued, root: Issued) -> None:
    signature = signer.sign_digest(SHA256)
    assert verify_digest(signature, SHA256, trusted=[root.certificate], time=TIME) == (
        code.certificate
    )
    # iPXE may be built to trust any of them, and a message need not hold what is trusted.
    for trusted in signer.chain:
        assert verify_digest(signature, SHA256, trusted=[trusted], time=TIME)
    short = CmsSigner(signer.certificate, signer.key, signer.chain[:1]).sign_digest(SHA256)
    assert verify_digest(short, SHA256, trusted=[root.certificate], time=TIME)


def test_verify_refuses(signer: CmsSigner, code: Issued, middle: Issued, root: Issued) -> None:
    signature = signer.sign_digest(SHA256)
    other = hashlib.sha256(CONTENT + b"!").digest()
    stranger = issue("stranger", ca=True)
    twin = issue("root", ca=True, key=rsa_key("twin"))
    impostor = issue("middle", twin, ca=True, key=rsa_key("impostor"))
    foreign = CmsSigner(code.certificate, rsa_key("impostor"), signer.chain)
    misled = CmsSigner(signer.certificate, signer.key, (impostor.certificate,))
    later = int(datetime(2041, 1, 1, tzinfo=UTC).timestamp())
    vouch = "it is of CN=code, and no trusted certificate vouches for that"
    for message, digest, trusted, time, fault in [
        (signature, other, root, TIME, "it is of another file, or this one was changed"),
        (
            foreign.sign_digest(SHA256),
            SHA256,
            root,
            TIME,
            "it is of another file, or this one was changed",
        ),
        (signature, SHA256, stranger, TIME, vouch),
        (signature, SHA256, twin, TIME, vouch),
        (
            misled.sign_digest(SHA256),
            SHA256,
            twin,
            TIME,
            "the certificate of CN=middle is of the issuer of CN=code, but did not sign it",
        ),
        (signature, SHA256, root, later, "the signer's certificate expired on 2040-01-01"),
        (
            b"",
            SHA256,
            root,
            TIME,
            OTHER,
        ),
        (
            b"hello",
            SHA256,
            root,
            TIME,
            OTHER,
        ),
        (
            signature[:-1],
            SHA256,
            root,
            TIME,
            OTHER,
        ),
        (
            signature + b"\0",
            SHA256,
            root,
            TIME,
            OTHER,
        ),
        (
            middle.certificate.public_bytes(Encoding.DER),
            SHA256,
            root,
            TIME,
            OTHER,
        ),
    ]:
        with pytest.raises(VerifyError) as raised:
            verify_digest(message, digest, trusted=[trusted.certificate], time=time)
        assert str(raised.value) == f"the signature is bad: {fault}{AGAIN}"


def test_no_changed_byte_makes_another_signer(signer: CmsSigner, root: Issued) -> None:
    """Change each byte: it is told as an error, or was in a field that nothing depends on."""
    signature = signer.sign_digest(SHA256)
    value = signer.key.public_key().key_size // 8
    refused = 0
    for place in range(len(signature)):
        changed = bytearray(signature)
        changed[place] ^= 0x11
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CryptographyDeprecationWarning)
                found = verify_digest(bytes(changed), SHA256, trusted=[root.certificate], time=TIME)
        except VerifyError:
            refused += 1
            continue
        assert found == signer.certificate
        assert place < len(signature) - value
    assert refused > 0.6 * len(signature)


def test_loads_every_certificate(files: Files, middle: Issued, root: Issued) -> None:
    bundle = files.write("bundle", pem(middle, root))
    assert load_certificates(bundle, where="pxeboot/sign_chain") == (
        middle.certificate,
        root.certificate,
    )
