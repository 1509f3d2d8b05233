"""Digest files: catalyst's `FILE.DIGESTS` and `FILE.sha256`, and those of sha256sum and the like.

Source of the format: catalyst's base/genbase.py, coreutils' manual (cksum).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

_HEADER: Final = re.compile(r"# (?P<algorithm>[A-Za-z0-9_-]+) HASH")
_LINUX: Final = re.compile(r"(?P<digest>[0-9A-Fa-f]{32,128}) [ *](?P<name>.+)")

_BSD: Final = re.compile(
    r"(?P<algorithm>[A-Za-z0-9_-]+) \((?P<name>.+)\) = (?P<digest>[0-9A-Fa-f]{32,128})"
)

#: What a line without a header above it is, by its digits.
_BY_DIGITS: Final = {64: "sha256", 96: "sha384", 128: "sha512"}


@dataclass(frozen=True, slots=True)
class Sum:
    """A line of a digest file: `name` without folders, `digest` in lower-case hexadecimal."""

    algorithm: str
    name: str
    digest: str


def parse_sums(text: str) -> Iterator[Sum]:
    """Yield the digests of a digest file; what is none (a signature, a comment) is stepped over."""
    header = ""
    for line in text.splitlines():
        if found := _HEADER.fullmatch(line.rstrip()):
            header = found["algorithm"]
        elif found := _BSD.fullmatch(line.rstrip()):
            yield _sum(found["algorithm"], found["name"], found["digest"])
        elif found := _LINUX.fullmatch(line.rstrip()):
            algorithm = header or _BY_DIGITS.get(len(found["digest"]), "")
            if algorithm:
                yield _sum(algorithm, found["name"], found["digest"])


def _sum(algorithm: str, name: str, digest: str) -> Sum:
    return Sum(algorithm.lower(), PurePosixPath(name).name, digest.lower())


DIGESTS = "DIGESTS"
SHA256SUMS = "SHA256SUMS"

#: Digests that an attacker cannot make another file for.
STRONG: Final = frozenset(
    {"sha256", "sha384", "sha512", "sha512_256", "sha3_256", "sha3_384", "sha3_512"}
    | {"blake2b", "blake2s"}
)

#: In every manifest, whatever catalyst.conf's digests are, so that a tree can be verified.
MANIFEST_DIGEST = "sha256"


def algorithms(digests: Sequence[str]) -> tuple[str, ...]:
    """Return the digests to take of every file: those asked for, and sha256."""
    return tuple(sorted({*digests, MANIFEST_DIGEST}))


def sum_files(digests: Sequence[str]) -> dict[str, list[str]]:
    """Return the names of the digest files that a tree has, each with its algorithms."""
    return {**({DIGESTS: list(digests)} if digests else {}), SHA256SUMS: [MANIFEST_DIGEST]}


def signed_sums(digests: Sequence[str]) -> str:
    """Return the digest file that is clear-signed: DIGESTS where it has a strong digest."""
    return DIGESTS if STRONG.intersection(digests) else SHA256SUMS


def render_sums(
    by_path: Mapping[str, Mapping[str, str]],
    sums: Mapping[str, Sequence[str]],
    digest_format: str,
) -> dict[str, bytes]:
    """Return the digest files of `sums` by name, from every file's digests by path."""
    return {
        name: "".join(
            _sum_lines(path, algorithm, by_path[path][algorithm], digest_format)
            for path in sorted(by_path)
            for algorithm in names
        ).encode()
        for name, names in sums.items()
    }


def _sum_lines(path: str, algorithm: str, digest: str, digest_format: str) -> str:
    name = algorithm.upper()
    line = f"{name} ({path}) = {digest}" if digest_format == "bsd" else f"{digest}  {path}"
    return f"# {name} HASH\n{line}\n"
