"""OpenPGP signatures, made and checked by GnuPG.

GnuPG is asked by its machine interface alone: status lines and colon listings (its doc/DETAILS),
never the texts that it writes for people. Those could also name files of the user's.

The time of a signature is given, not read from the clock. An RSA signature of OpenPGP is PKCS #1
v1.5 (RFC 4880, 13.1.3), which has no random part: one key, text and time give the same bits each
time.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from catalyst_pxeboot.util.errors import CommandError, PxebootError, VerifyError
from catalyst_pxeboot.util.files import open_regular
from catalyst_pxeboot.util.process import find_program, run
from catalyst_pxeboot.util.tempdir import scratch_folder

KEY = "pxeboot/gpg_key"
_OLDEST = (2, 2)  # the first GnuPG whose agent alone holds the secret keys
_PATIENCE = 60  # seconds; a smart card takes some
_LEAST_ROOM = 64 << 10  # bytes
_SLOWEST = 20_000_000  # bytes that the slowest disk and processor read and hash in a second

#: Public-key algorithms (RFC 4880, 9.1, and RFC 9580, 9.1).
_ALGORITHMS = {
    1: "RSA",
    3: "RSA",
    17: "DSA",
    19: "ECDSA",
    22: "EdDSA",
    27: "Ed25519",
    28: "Ed448",
}

#: What GRUB's grub-core/commands/pgp.c has in its table `pkalgos`, from 2.02 to 2.14.
_GRUB_ALGORITHMS = frozenset({1, 3, 17})
_V4_FINGERPRINT = 40  # hexadecimal digits; those of version 5 and 6 keys have 64
_SHA2 = frozenset({"8", "9", "10"})  # SHA-256, SHA-384 and SHA-512 (RFC 4880, 9.4)
_BINARY, _TEXT = "00", "01"  # signature types (RFC 4880, 5.2.1)

#: Codes of libgpg-error for a passphrase that would have to be asked for.
_NO_PASSPHRASE = frozenset({11, 31, 85, 86, 99, 177})
_LONGEST = 16_384  # bytes of a line; gpg cuts a clear text's at some 20 000 without a word
_LARGEST_KEYRING = 64 << 20  # bytes; all keys of Gentoo's developers have some 10 MB
_BEGIN = b"-----BEGIN PGP SIGNED MESSAGE-----"
_SIGNATURE = b"-----BEGIN PGP SIGNATURE-----"
_END = b"-----END PGP SIGNATURE-----"


@dataclass(frozen=True, slots=True)
class Signer:
    """A secret key of the user's keyring that was seen to sign."""

    key: str  # as the user named it
    fingerprint: str  # of the primary key, which people compare
    signing_fingerprint: str  # of the primary key or subkey that signs, as GRUB lists it
    algorithm: int  # of that key (RFC 9580, 9.1)
    created: int  # when that key was made, in seconds since 1970

    def clearsign(self, text: bytes, *, time: int) -> bytes:
        """Return `text` clear-signed with SHA-512, as Gentoo publishes its DIGESTS.

        `time` is in seconds since 1970. `text` must be what comes back when it is checked: lines
        that end in a line feed and not in white space, which such a signature does not cover (RFC
        4880, 7.1), and are not so long that gpg cuts them. Raises `CommandError` if gpg does not
        sign.
        """
        *lines, end = text.split(b"\n")
        whole = lines and not end and b"\0" not in text
        if not whole or any(line != line.rstrip() or len(line) > _LONGEST for line in lines):
            raise ValueError("a clear-signed text is of whole lines without white space at the end")
        with scratch_folder() as folder:
            file = Path(folder, "text")
            file.write_bytes(text)
            return self._sign("--clearsign", file, time)

    def detach(self, file: Path, *, time: int) -> bytes:
        """Return the binary detached signature of `file` that GRUB expects in `<file>.sig`.

        `time` is in seconds since 1970. Reads the file in a stream, whatever its size. Raises
        `PxebootError` as `require_grub` does and `CommandError` if gpg does not sign.
        """
        self.require_grub()
        return self._sign("--detach-sign", file, time)

    def export_public(self) -> bytes:
        """Return the public key in binary form, as `grub-mkimage --pubkey` embeds it.

        It holds the key that signs and its primary key alone. GRUB trusts every RSA and DSA key
        of the file, revoked and expired ones too; and it cannot step over a photograph, as it
        reads the length of new-format packets wrongly.
        """
        options = ("--export-options", "export-minimal,no-export-attributes")
        answer = _gpg("--no-armor", *options, "--export", "--", f"{self.signing_fingerprint}!")
        if not answer.done or not answer.output:
            raise CommandError(
                f"{KEY}: gpg did not export the public key of {self.key}",
                hint="run gpg --export with it by hand to see why",
            )
        return answer.output

    def require_grub(self) -> None:
        """Raise `PxebootError` if GRUB cannot read this key or what it signs."""
        if len(self.signing_fingerprint) != _V4_FINGERPRINT:
            raise PxebootError(
                f"{KEY}: {self.key} is not an OpenPGP key of version 4, and GRUB reads no other",
                hint="name an RSA key made with gpg --quick-gen-key NAME rsa4096 sign",
            )
        if self.algorithm not in _GRUB_ALGORITHMS:
            kind = _ALGORITHMS.get(self.algorithm, f"algorithm {self.algorithm}")
            raise PxebootError(
                f"{KEY}: {self.key} signs by {kind}, and GRUB checks only RSA and DSA signatures",
                hint="name an RSA key, or its RSA subkey by fingerprint with an exclamation mark",
            )

    def _sign(self, how: str, file: Path, time: int) -> bytes:
        """Let gpg sign `file` and return what it made, having checked that it is as asked."""
        # A key that is younger than the tree can only sign as of its own first second.
        moment = max(time, self.created)
        kind, form = ("C", _TEXT) if how == "--clearsign" else ("D", _BINARY)
        asked = (kind, str(self.algorithm), "10", form, str(moment), self.signing_fingerprint)
        # gpg does not stop its clock at a moment that is the current second: a signature that it
        # began there and dated in the next one is made again.
        for _ in range(2):
            answer = _gpg(
                *("--faked-system-time", f"{moment}!"),
                *("--local-user", f"{self.signing_fingerprint}!"),
                *("--digest-algo", "SHA512"),
                # What the user's gpg.conf may say otherwise.
                *("--no-armor", "--no-textmode", "--no-emit-version", "--no-comments"),
                *("--output", "-", how, "--", file),
                patience=_PATIENCE + file.stat().st_size / _SLOWEST,
            )
            if not answer.done:
                reason, hint = _why_unsigned(answer)
                raise CommandError(f"{KEY}: gpg did not sign with {self.key}: {reason}", hint=hint)
            if answer.all("SIG_CREATED") == [asked]:
                return answer.output
        raise CommandError(
            f"{KEY}: gpg made another signature than it was asked for",
            hint="look in gpg.conf for local-user, digest-algo and the like",
        )


def find_signer(key: str) -> Signer:
    """Find the secret key that the user named in the spec, and see that it can sign.

    `key` is what gpg takes as the name of a key: a fingerprint, a key ID, a mail address. It is
    looked up in the user's keyring (GNUPGHOME, or ~/.gnupg) and signs nothing once, so that a
    passphrase or a smart card that is missing is found at once; a passphrase comes from gpg-agent's
    memory or not at all, as no one may sit at a build. Raises `PxebootError`.
    """
    if not key.strip() or not key.isprintable() or key.startswith("-"):
        raise PxebootError(
            f"{KEY}: {key!r} is not the name of a key",
            hint="give the fingerprint that gpg --list-secret-keys shows",
        )
    _require_gpg(f"{KEY}: signing")
    listing = _gpg("--with-colons", "--list-secret-keys", "--", key)
    records = list(_key_records(listing.output))
    primaries = [record for record in records if record.kind == "sec"]
    if not primaries:
        raise PxebootError(
            f"{KEY}: gpg finds no secret key {key}",
            hint="import it, or set GNUPGHOME to the folder of the keyring that has it",
        )
    if len(primaries) > 1:
        raise PxebootError(
            f"{KEY}: {key} names {len(primaries)} secret keys", hint="give a fingerprint"
        )
    primary = primaries[0]
    if primary.validity == "e":
        day = datetime.fromtimestamp(primary.expires, UTC).date()
        raise PxebootError(
            f"{KEY}: {key} expired on {day}",
            hint="extend it with gpg --quick-set-expire, or name another key",
        )
    if primary.validity == "r":
        raise PxebootError(f"{KEY}: {key} is revoked", hint="name another key")
    trial = _gpg("--local-user", key, "--output", "-", "--detach-sign", "--", Path(os.devnull))
    made = trial.all("SIG_CREATED")
    if not trial.done or len(made) != 1 or len(made[0]) != 6:
        reason, hint = _why_unsigned(trial)
        raise PxebootError(f"{KEY}: {key} cannot sign: {reason}", hint=hint)
    # Which of its subkeys signs is gpg's choice, and every signature to come is to be of that one.
    signing = made[0][5]
    return Signer(
        key=key,
        fingerprint=primary.fingerprint,
        signing_fingerprint=signing,
        algorithm=int(made[0][1]),
        created=max(record.created for record in records if record.fingerprint == signing),
    )


@dataclass(frozen=True, slots=True)
class Keyring:
    """The keys of one file, all of them trusted, and nothing else of the user's."""

    path: Path
    _home: Path

    def clearsigned(self, text: bytes, *, where: str) -> tuple[bytes, str]:
        """Return what is signed in `text`, and the fingerprint of the primary key that signed it.

        The content is as gpg reads it, without what the signature does not cover. Raises
        `VerifyError`, naming `where`, if the text is not one clear-signed text from its first line
        to its last, or if the signature is not a good one of an unexpired key.
        """
        _require_one_text(text, where)
        answer = self._gpg("--output", "-", "--verify", "--", self._copy(text))
        return answer.output, _good_signer(answer, where, self.path, form=_TEXT)

    def detached(self, file: Path, signature: bytes, *, where: str) -> str:
        """Return the fingerprint of the primary key whose detached `signature` of `file` is good.

        Raises `VerifyError`, naming `where`, if it is not a good one of an unexpired key.
        """
        with _opened(file) as content:
            patience = _PATIENCE + os.fstat(content.fileno()).st_size / _SLOWEST
            words = ("--verify", "--", self._copy(signature), "-")
            answer = self._gpg(*words, patience=patience, stdin=content)
        return _good_signer(answer, where, self.path, form=_BINARY)

    def user_id(self, fingerprint: str) -> str:
        """Return the first user ID of a key, as its owner wrote it; empty if it has none."""
        listing = self._gpg("--with-colons", "--list-keys", "--", fingerprint).output
        lines = (line.split(":") for line in listing.decode(errors="replace").splitlines())
        found = next((fields[9] for fields in lines if fields[0] == "uid"), "")
        # Undo the listing's escapes, \\x3a for a colon and the like.
        return re.sub(r"\\x([0-9a-f]{2})", lambda code: chr(int(code[1], 16)), found)

    def _copy(self, content: bytes) -> Path:
        """Give gpg what was read, as it opens any file again, and waits for pipes."""
        file = self._home / "checked"
        file.write_bytes(content)
        return file

    def _gpg(
        self, *words: str | Path, patience: float = _PATIENCE, stdin: BinaryIO | None = None
    ) -> _Answer:
        return _gpg(
            *("--homedir", self._home, "--no-options", "--no-autostart"),
            *("--disable-dirmngr", "--no-auto-key-retrieve", "--trust-model", "always"),
            *words,
            patience=patience,
            stdin=stdin,
        )


@contextmanager
def open_keyring(path: Path) -> Iterator[Keyring]:
    """Give the keys of a file of public keys, armoured or binary, while the context lasts.

    gpgv would need no folder of its own, but takes expired and revoked keys for good. Raises
    `VerifyError` if there is no key in the file.
    """
    with _opened(path) as file:
        content = file.read(_LARGEST_KEYRING)
    _require_gpg("checking a signature")
    with scratch_folder() as home:
        keyring = Keyring(path, home)
        if not keyring._gpg("--import", "--", keyring._copy(content)).all("IMPORT_OK"):
            raise VerifyError(
                f"{path}: holds no OpenPGP public key", hint="make it with gpg --export"
            )
        yield keyring


def _opened(path: Path) -> BinaryIO:
    try:
        return open_regular(path)
    except OSError as error:
        raise VerifyError(
            f"{path}: cannot be read: {error.strerror}", hint="check the path and its permissions"
        ) from error


@dataclass(frozen=True, slots=True)
class _Answer:
    """What gpg came to: whether it says it did it, its standard output, its status lines."""

    done: bool
    output: bytes
    status: tuple[tuple[str, ...], ...]

    def all(self, keyword: str) -> list[tuple[str, ...]]:
        """Return the arguments of each status line that begins with `keyword`."""
        return [line[1:] for line in self.status if line[0] == keyword]


@dataclass(frozen=True, slots=True)
class _KeyRecord:
    """A line `sec` or `ssb` of a colon listing, with the fingerprint that follows it."""

    kind: str
    validity: str
    created: int  # seconds since 1970
    expires: int  # seconds since 1970; 0 is never
    fingerprint: str


def _gpg(*words: str | Path, patience: float = _PATIENCE, stdin: BinaryIO | None = None) -> _Answer:
    """Run gpg, which asks nothing of anyone; `patience` is in seconds.

    Raises `CommandError` only if gpg could not be started or did not end, `PxebootError` if it
    failed and no room is left for its files.
    """
    with scratch_folder() as folder:
        status = Path(folder, "status")
        always = ("--batch", "--no-tty", "--pinentry-mode", "error", "--status-file", status)
        names = ("HOME", "GNUPGHOME")
        try:
            output = run(
                ["gpg", *always, *words],
                timeout=patience,
                stdin=stdin,
                env={name: os.environ[name] for name in names if name in os.environ},
            )
            done = True
        except CommandError as error:
            if error.__cause__ is not None:
                raise
            # The status lines say why; the message is for people and may name their files.
            output, done = b"", False
            _require_room(folder)
        text = status.read_text(errors="replace") if status.exists() else ""
    lines = (line.removeprefix("[GNUPG:] ").split(" ") for line in text.splitlines())
    return _Answer(done, output, tuple(tuple(line) for line in lines))


def _require_room(folder: str | Path) -> None:
    room = os.statvfs(folder)
    if room.f_bavail * room.f_frsize < _LEAST_ROOM:
        raise PxebootError(
            f"{folder}: {os.strerror(errno.ENOSPC)} for gpg's files",
            hint="free space there; TMPDIR says where temporary files go",
        )


def _require_gpg(what: str) -> None:
    """Raise `PxebootError` unless there is a gpg that this module can use."""
    if find_program("gpg") is None:
        raise PxebootError(
            f"{what} needs gpg, which is not on PATH",
            hint="install Gentoo's app-crypt/gnupg, Debian's gpg and gpg-agent",
        )
    version = run(["gpg", "--batch", "--with-colons", "--list-config", "version"])
    number = version.decode(errors="replace").strip().rpartition(":")[2]
    if tuple(int(part) for part in number.split(".")[:2] if part.isdecimal()) < _OLDEST:
        raise PxebootError(
            f"{what} needs GnuPG {'.'.join(map(str, _OLDEST))} or newer, and gpg is"
            f" {number or 'of no known version'}",
            hint="update it",
        )


def _key_records(listing: bytes) -> Iterator[_KeyRecord]:
    fields: list[str] = []
    for line in listing.decode(errors="replace").splitlines():
        words = line.split(":")
        if words[0] in ("sec", "ssb"):
            fields = words
        elif words[0] == "fpr" and fields:
            yield _KeyRecord(
                kind=fields[0],
                validity=fields[1],
                created=int(fields[5] or 0),
                expires=int(fields[6] or 0),
                fingerprint=words[9],
            )


def _why_unsigned(answer: _Answer) -> tuple[str, str]:
    """Return why gpg did not sign, and what to do."""
    failures = [int(line[1]) for line in answer.all("FAILURE") if line[1].isdecimal()]
    code = failures[-1] & 0xFFFF if failures else 0  # the rest says which program it comes from
    if code in _NO_PASSPHRASE:
        return (
            "gpg-agent does not hold its passphrase",
            "sign something by hand first, or give it by gpg-preset-passphrase",
        )
    if answer.all("INV_SGNR"):
        return (
            "it has no secret key for signing that is valid now",
            "see gpg --list-secret-keys, and name another key",
        )
    return (
        f"gpg gives error {code}" if code else "gpg gives no reason",
        "run gpg --detach-sign with it by hand to see why",
    )


def _require_one_text(text: bytes, where: str) -> None:
    """Raise `VerifyError` unless `text` is one clear-signed text and nothing beside it.

    gpg steps over what is around the armour. A reader does not see where that ends, and a
    program that reads the file without gpg takes it for signed.
    """
    lines = text.split(b"\n")
    marks = [number for number, line in enumerate(lines) if line.startswith(b"-----")]
    if not any(lines[number].startswith(_BEGIN) for number in marks):
        raise VerifyError(f"{where}: holds no signature", hint="have it signed")
    whole = (
        [lines[number] for number in marks] == [_BEGIN, _SIGNATURE, _END]
        and marks[0] == 0
        and lines[marks[2] + 1 :] == [b""]
    )
    # Of all the headers of an armour only this one may stand here (RFC 4880, 7).
    head = lines[1 : lines.index(b"")] if whole and b"" in lines else []
    if not whole or not all(line.startswith(b"Hash: ") for line in head):
        raise VerifyError(
            f"{where}: is not one clear-signed text from its first line to its last",
            hint="only what is signed counts: remove the rest, or have it signed again",
        )


def _good_signer(answer: _Answer, where: str, keyring: Path, *, form: str) -> str:
    """Return the fingerprint that gpg found good, or raise `VerifyError` with what it found."""
    again = "fetch it again, or have it signed again"
    missing = "".join(line[0] for line in answer.all("NO_PUBKEY")[:1])
    reasons = {
        "BADSIG": ("the signature is bad: what it signs was changed", again),
        "REVKEYSIG": ("the key that signed is revoked", "have it signed by another key"),
        "EXPKEYSIG": (
            "the key that signed has expired",
            f"bring {keyring} up to date, or have it signed by another key",
        ),
        "EXPSIG": ("the signature has expired", "have it signed again"),
        "NO_PUBKEY": (
            f"signed by the key {missing}, which is not in {keyring}",
            "add its public key if you trust it",
        ),
    }
    for keyword, (reason, hint) in reasons.items():
        if answer.all(keyword):
            raise VerifyError(f"{where}: {reason}", hint=hint)
    counts = {len(answer.all(keyword)) for keyword in ("NEWSIG", "GOODSIG", "VALIDSIG")}
    if not answer.done or counts != {1}:
        raise VerifyError(f"{where}: holds no single signature that gpg can check", hint=again)
    # Its arguments are those of GnuPG's doc/DETAILS, General status codes.
    valid = answer.all("VALIDSIG")[0]
    if valid[7] not in _SHA2 or valid[8] != form:
        raise VerifyError(
            f"{where}: the signature is of another type, or by a digest that is no longer safe",
            hint="have it signed with SHA-512",
        )
    return valid[9]
