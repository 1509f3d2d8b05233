"""catalyst's two file formats, read by catalyst's rules: spec files and catalyst.conf.

Used by the command line only; inside catalyst, catalyst has read both. The rules are those of
catalyst 4's `config.py` and `main.py`, surprises included, so that a file means the same here.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from catalyst_pxeboot.errors import PxebootError

#: What catalyst sets where catalyst.conf does not; only the keys that this target reads.
CONF_DEFAULTS: Mapping[str, object] = {
    "storedir": "/var/tmp/catalyst",
    "sharedir": "/usr/share/catalyst",
    "digest_format": "linux",
}

#: The digests that catalyst's own catalyst.conf turns on, for machines that have none.
DEFAULT_DIGESTS = ("blake2b", "sha512")

DEFAULT_CONF = Path("/etc/catalyst/catalyst.conf")

_COMMENT = re.compile(r"\s*#.*$")


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
        line = _COMMENT.sub("", raw.strip())
        if not line:
            continue
        key, colon, rest = line.partition(":")
        if colon:
            words = [key]
            if rest := rest.strip().strip('"'):
                words += _substitute(rest, values, where=f"{where}, line {number}").split()
        else:
            words = [*words, *line.split()]
        values[words[0]] = words[1] if len(words) == 2 else words[1:]
    return {
        key: None if isinstance(value, str) and value.lower() == "none" else value
        for key, value in values.items()
        if value
    }


def _substitute(text: str, values: Mapping[str, object], *, where: str) -> str:
    try:
        return text % values
    except (ValueError, TypeError, KeyError) as error:
        raise PxebootError(
            f"{where}: {text!r} cannot be expanded ({error})",
            hint="write %% for a percent sign; %(key)s takes a key set further up",
        ) from error


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
    except tomllib.TOMLDecodeError as error:
        raise PxebootError(
            f"{path}: not valid TOML: {error}", hint="catalyst.conf is TOML since catalyst 4"
        ) from error
    for key, value in list(settings.items()):
        if isinstance(value, str):
            settings[key] = _substitute(value, settings, where=f"{path}, key {key}")
    return settings


def _read_text(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise PxebootError(
            f"{path}: the {what} cannot be read: {error.strerror}", hint="check the path given"
        ) from error
    except UnicodeDecodeError as error:
        raise PxebootError(
            f"{path}: the {what} is not UTF-8 text (byte {error.start})",
            hint="check that it is the right file",
        ) from error
