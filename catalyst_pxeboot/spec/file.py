"""catalyst's two file formats, read by catalyst's rules: spec files and catalyst.conf.

Used by the command line only; inside catalyst, catalyst has read both. The rules are those of
catalyst 4's `config.py` and `main.py`, surprises included, so that a file means the same here.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from catalyst_pxeboot.util.errors import PxebootError

#: What catalyst sets where catalyst.conf does not; only the keys that this target reads.
CONF_DEFAULTS: Mapping[str, object] = {
    "storedir": "/var/tmp/catalyst",
    "sharedir": "/usr/share/catalyst",
    "digest_format": "linux",
}

#: The digests that catalyst's own catalyst.conf turns on, for machines that have none.
DEFAULT_DIGESTS = ("blake2b", "sha512")
DEFAULT_CONF = Path("/etc/catalyst/catalyst.conf")

#: Real files have some KiB.
_MAX_FILE = 64 * 1024  # bytes
_MAX_VALUE = 64 * 1024  # characters of a value once others stand in it
_WIDTHS = re.compile(r"[#0 +-]*(\d*)\.?(\d*)")


def parse_spec(text: str, *, where: str) -> dict[str, str | list[str] | None]:
    """Parse a spec file's text into catalyst's loose values.

    One word is a str, several are a list, `none` is None, and a key without a value is left
    out. Text from `#` on is a comment, inside URLs too. A line without a colon continues the
    key above it. Of two equal keys the last wins. `%(key)s` takes the value of an earlier key.
    Raises `PxebootError` with the line's number.
    """
    values: dict[str, str | list[str]] = {}
    words: list[str] = []
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.strip().partition("#")[0].rstrip()
        if not line:
            continue
        key, colon, rest = line.partition(":")
        if colon:
            _note(words, values)
            words = [key]
            if rest := rest.strip().strip('"'):
                words += _substitute(rest, values, where=f"{where}, line {number}").split()
        else:
            words += line.split()
    _note(words, values)
    return {
        key: None if isinstance(value, str) and value.lower() == "none" else value
        for key, value in values.items()
        if value
    }


def _note(words: list[str], values: dict[str, str | list[str]]) -> None:
    """Set the key that is the first of `words` to the rest of them."""
    if words:
        values[words[0]] = words[1] if len(words) == 2 else words[1:]


def _substitute(text: str, values: Mapping[str, object], *, where: str) -> str:
    try:
        if _longest(text, values) > _MAX_VALUE:
            raise ValueError(f"more than {_MAX_VALUE} characters")
        return text % values
    except (ValueError, TypeError, KeyError) as error:
        raise PxebootError(
            f"{where}: {text!r} cannot be expanded ({error})",
            hint="write %% for a percent sign; %(key)s takes a key set further up",
        ) from error


def _longest(text: str, values: Mapping[str, object]) -> int:
    """Return how many characters `text` has at most once its conversions are made."""
    longest = len(text)
    for sign in re.finditer("%", text):
        at, depth = sign.end(), 0
        # As Python does, which pairs the parentheses around a key.
        while at < len(text) and (depth or text[at] == "("):
            depth += {"(": 1, ")": -1}.get(text[at], 0)
            at += 1
            if not depth:
                break
        longest += len(str(values.get(text[sign.end() + 1 : at - 1], "")))
        if found := _WIDTHS.match(text, at):
            longest += sum(int(number[:18] or 0) for number in found.groups())
        if longest > _MAX_VALUE:
            break
    return longest


def read_spec(path: Path) -> dict[str, str | list[str] | None]:
    """Read and parse the spec file at `path`."""
    return parse_spec(_read_text(path, "spec file"), where=str(path))


def read_conf(path: Path | None) -> dict[str, object]:
    """Read catalyst.conf (TOML) with catalyst's defaults beneath.

    Without `path`, catalyst's own /etc/catalyst/catalyst.conf is read if it is there; if not,
    the digests are those it ships with. Raises `PxebootError`.
    """
    settings = dict(CONF_DEFAULTS)
    if path is None and not DEFAULT_CONF.exists():
        settings["digests"] = list(DEFAULT_DIGESTS)
        return settings
    path = path or DEFAULT_CONF
    try:
        settings.update(tomllib.loads(_read_text(path, "catalyst.conf")))
    except (ValueError, RecursionError) as error:
        raise PxebootError(
            f"{path}: not valid TOML: {error}", hint="catalyst.conf is TOML since catalyst 4"
        ) from error
    for key, value in list(settings.items()):
        if isinstance(value, str):
            settings[key] = _substitute(value, settings, where=f"{path}, key {key}")
    return settings


def _read_text(path: Path, what: str) -> str:
    try:
        # Not only a regular file: a shell gives what a command prints as a pipe.
        with path.open("rb") as file:
            content = file.read(_MAX_FILE + 1)
        if len(content) > _MAX_FILE:
            raise PxebootError(
                f"{path}: the {what} has more than {_MAX_FILE} bytes",
                hint="check that it is the right file",
            )
        return content.decode()
    except OSError as error:
        raise PxebootError(
            f"{path}: the {what} cannot be read: {error.strerror}", hint="check the path given"
        ) from error
    except UnicodeDecodeError as error:
        raise PxebootError(
            f"{path}: the {what} is not UTF-8 text (byte {error.start})",
            hint="check that it is the right file",
        ) from error
