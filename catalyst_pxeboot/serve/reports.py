"""What a machine says of itself when it is up: its host keys, and how its script ended."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl

from catalyst_pxeboot.util.errors import from_os_error

_MOST_KEYS: Final = 8
_KIND: Final = re.compile(r"(?:ssh|ecdsa|sk)-[a-z0-9@.-]{1,60}")
_LONGEST_KEY: Final = 2048  # letters of base64; an RSA key of 8192 bits has 1400


@dataclass(frozen=True, slots=True)
class HostKey:
    """A public key of the machine's sshd, in base64 as a known_hosts file has it."""

    kind: str
    data: str
    fingerprint: str  # SHA256:…, as ssh prints it


@dataclass(frozen=True, slots=True)
class Report:
    """`status` is the script's, None where there was none."""

    status: int | None
    keys: tuple[HostKey, ...]


def read_report(query: str) -> Report:
    """Read the query of a machine's request. What is not as it should be is left out."""
    pairs = parse_qsl(query, max_num_fields=_MOST_KEYS * 2) if query.count("&") < _MOST_KEYS else ()
    status = next((value for name, value in pairs if name == "status"), "")
    known = status.isascii() and status.isdecimal() and int(status[:4]) <= 255
    return Report(
        status=int(status) if known else None,
        keys=tuple(_read_keys(value for name, value in pairs if name == "key")),
    )


def _read_keys(values: Iterator[str]) -> Iterator[HostKey]:
    for value in values:
        kind, _, data = value.partition(" ")
        if not _KIND.fullmatch(kind) or len(data) > _LONGEST_KEY:
            continue
        try:
            blob = base64.b64decode(data, validate=True)
        except ValueError:
            continue
        if blob.startswith(len(kind).to_bytes(4, "big") + kind.encode()):
            digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
            yield HostKey(kind, data, f"SHA256:{digest}")


def add_known_hosts(file: Path, address: str, keys: Iterable[str]) -> None:
    """Append a machine's keys to a file as ssh's UserKnownHostsFile. Raises `PublishError`."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(file, flags, 0o600), "w", encoding="ascii") as stream:
            stream.write("".join(f"{address} {key}\n" for key in keys))
    except OSError as error:
        raise from_os_error(error, f"{file} could not be written") from error
