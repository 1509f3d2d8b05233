"""Read the public keys that may log in: a file of sshd's format authorized_keys.

Source of the format: sshd(8), AUTHORIZED_KEYS FILE FORMAT. The keys themselves are read by
cryptography.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from catalyst_pxeboot.util.errors import PxebootError, SpecError, needs_extra
from catalyst_pxeboot.util.files import read_regular

_MAX_BYTES: Final = 1 << 20
_MAX_KEYS: Final = 1000
#: A private key of ssh, TLS, OpenPGP or PuTTY.
PRIVATE_KEY: Final = re.compile(
    rb"-----BEGIN [A-Z ]*PRIVATE KEY|^PuTTY-User-Key-File", re.MULTILINE
)
_KIND: Final = re.compile(
    r"ssh-(?:ed25519|rsa)|ecdsa-sha2-nistp(?:256|384|521)"
    r"|sk-(?:ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com"
)
#: Options before the key: words with commas between, in which a quoted part may hold anything.
_OPTIONS: Final = re.compile(r'(?:[^\s"]|"(?:[^"\\]|\\.)*")+')
_SHORTEST_RSA: Final = 2048  # bits; sshd of today refuses less than 1024


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key, and its line of the file."""

    kind: str  # as sshd names it
    fingerprint: str  # SHA256:…, as ssh-keygen prints it
    comment: str
    line: str


def read_keys(file: Path, *, key: str) -> tuple[PublicKey, ...]:
    """Read a file of public keys, at least one.

    `key` is the spec key or option that names it. Raises `SpecError` with every line that is
    not one, and loudly for a private key.
    """
    try:
        content = read_regular(file, limit=_MAX_BYTES)
        text = content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise PxebootError(
            f"{key}: {file} cannot be read: {error}", hint="name a file of public keys"
        ) from error
    if PRIVATE_KEY.search(content):
        raise PxebootError(
            f"{key}: {file} holds a PRIVATE key, which every client of the network could read",
            hint=f"name the public one: {file}.pub",
        )
    problems, found = [], []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        try:
            found.append(_read(line))
        except ValueError as error:
            problems.append(
                PxebootError(f"{key}: {file}, line {number}: {error}", hint="correct or remove it")
            )
    if problems:
        raise SpecError(problems)
    if not found or len(found) > _MAX_KEYS:
        raise PxebootError(
            f"{key}: {file} holds {len(found)} keys",
            hint=f"put at least one and at most {_MAX_KEYS} into it",
        )
    return tuple(found)


def _read(line: str) -> PublicKey:
    """Read one line; raises ValueError."""
    if not line.isprintable():
        raise ValueError("it holds a control character")
    words = line.split()
    if not _KIND.fullmatch(words[0]):
        options = _OPTIONS.match(line)
        words = line[options.end() :].split() if options else []
    if len(words) < 2 or not _KIND.fullmatch(words[0]):
        raise ValueError(f"it is not a public key of ssh: {line[:40]!r}")
    kind, packed = words[:2]
    try:
        blob = base64.b64decode(packed, validate=True)
    except ValueError:
        raise ValueError("the key is not in base64, or cut off") from None
    _check(kind, packed, blob)
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    return PublicKey(kind, f"SHA256:{digest}", " ".join(words[2:]), line)


def _check(kind: str, packed: str, blob: bytes) -> None:
    with needs_extra("sign", "pxeboot/ssh_keys"):
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric import rsa
        from cryptography.hazmat.primitives.serialization import load_ssh_public_key

    named = len(kind).to_bytes(4, "big") + kind.encode()
    if not blob.startswith(named):
        raise ValueError(f"the key is not one of {kind}")
    try:
        loaded = load_ssh_public_key(f"{kind} {packed}".encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"the key is damaged: {error}") from None
    if isinstance(loaded, rsa.RSAPublicKey) and loaded.key_size < _SHORTEST_RSA:
        raise ValueError(f"an RSA key of {loaded.key_size} bits, {_SHORTEST_RSA} at least")
