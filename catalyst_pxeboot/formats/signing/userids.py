"""Whose an OpenPGP key is, as its owner says; a reader compares the fingerprint."""

from __future__ import annotations

import re
from pathlib import Path

from catalyst_pxeboot.util.process import run
from catalyst_pxeboot.util.tempdir import scratch_folder

_PUBLIC, _FINGERPRINT, _USER_ID = "pub", "fpr", "uid"
_FIELD = 9  # of a colon listing (GnuPG's doc/DETAILS): the fingerprint or the user ID


def find_user_id(fingerprint: str, keyring: Path) -> str:
    """Return the first user ID of the key `fingerprint` of the file `keyring`; empty if none.

    Raises `CommandError` if gpg cannot read the file.
    """
    with scratch_folder() as home:
        listing = run(
            ["gpg", "--batch", "--no-tty", "--homedir", home, "--no-options", "--no-autostart",
             "--with-colons", "--show-keys", "--", keyring]
        )  # fmt: skip
    primary, expected = "", False
    for line in listing.decode(errors="replace").splitlines():
        fields = line.split(":")
        if fields[0] == _PUBLIC:
            primary, expected = "", True
        elif fields[0] == _FINGERPRINT and expected:
            primary, expected = fields[_FIELD], False
        elif fields[0] == _USER_ID and primary == fingerprint:
            return _unescape(fields[_FIELD])
    return ""


def _unescape(text: str) -> str:
    """Undo the listing's escapes, `\\x3a` for a colon and the like."""
    return re.sub(r"\\x([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), text)
