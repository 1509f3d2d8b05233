"""A folder of keys for Secure Boot, with what enrols them."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding

from catalyst_pxeboot.formats.signing.secureboot import (
    VARIABLES,
    make_key,
    signature_list,
    signed_variable,
)
from catalyst_pxeboot.util.errors import PxebootError, from_os_error

_ENROL: Final = "enrol.sh"
_SCRIPT: Final = """\
#!/bin/sh
# Enrols the keys beside this script in this machine's firmware, which must be in setup mode: its
# own keys were deleted in its setup ("clear keys", "reset to setup mode"). Run it as root.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
variables=/sys/firmware/efi/efivars
modprobe efivarfs 2> /dev/null || true
mode=$variables/SetupMode-{vendor}
[ -e "$mode" ] || mount -t efivarfs efivarfs $variables
if [ "$(tail -c 1 "$mode")" != "$(printf '\\001')" ]; then
    echo "This machine is not in setup mode: delete its Secure Boot keys in its setup first." >&2
    exit 1
fi
# The first four bytes are the variable's attributes; all of it must come in one piece.
enrol() {{
    file=$(mktemp)
    {{ printf '\\047\\000\\000\\000'; cat "$here/$1.auth"; }} > "$file"
    dd if="$file" of="$variables/$1-$2" bs=64k 2> /dev/null
    rm "$file"
    echo "enrolled $1"
}}
{lines}
"""


def write_keys(folder: Path, name: str) -> tuple[str, ...]:
    """Make `folder`, which must not be there, with PK, KEK and db; return its files' names.

    For each: the key and its certificate (.key, .crt in PEM), the certificate for a firmware's menu
    (.cer in DER), the variable's content (.esl), and that signed (.auth). Raises `PxebootError`.
    """
    if not name.isprintable() or not 0 < len(name) <= 50:
        raise PxebootError(f"--name: {name!r} is not a name", hint="use 1 to 50 printable letters")
    files = dict(_make_files(name))
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError as error:
        raise PxebootError(
            f"{folder}: is there already, and keys are never overwritten", hint="name a new folder"
        ) from error
    except OSError as error:
        raise from_os_error(error, f"{folder} could not be made") from error
    try:
        for file, content in files.items():
            mode = 0o600 if file.endswith(".key") else 0o755 if file == _ENROL else 0o644
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(folder / file, flags, mode), "wb") as stream:
                stream.write(content)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)  # half a set is none
        if isinstance(error, OSError):
            raise from_os_error(error, f"{folder} could not be written") from error
        raise
    return tuple(files)


def _make_files(name: str) -> Iterator[tuple[str, bytes]]:
    now, owner = datetime.now(UTC), uuid.uuid4()
    keys = {variable: make_key(f"{name} {variable}", now) for variable in VARIABLES}
    for variable, (_, signer) in VARIABLES.items():
        own = keys[variable]
        listed = signature_list(own.certificate, owner)
        yield f"{variable}.key", own.key_pem
        yield f"{variable}.crt", own.certificate.public_bytes(Encoding.PEM)
        yield f"{variable}.cer", own.certificate.public_bytes(Encoding.DER)
        yield f"{variable}.esl", listed
        yield f"{variable}.auth", signed_variable(variable, listed, keys[signer], now)
    # PK last, as it ends setup mode.
    lines = [f"enrol {variable} {VARIABLES[variable][0]}" for variable in ("db", "KEK", "PK")]
    yield _ENROL, _SCRIPT.format(vendor=VARIABLES["PK"][0], lines="\n".join(lines)).encode()
