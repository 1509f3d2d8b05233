"""What a spec gives machines beside the stock image: all of them, and single ones by address.

A machine's own keys are in the folder of pxeboot/hosts, in a TOML file named after its MAC address
or SMBIOS UUID, or in a folder of that name with the file host.toml and what belongs to it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from catalyst_pxeboot.model.settings import MAC, UUID, HostSettings, PersonalSettings
from catalyst_pxeboot.spec.reader import KeyReader
from catalyst_pxeboot.util.errors import SpecError
from catalyst_pxeboot.util.files import read_regular
from catalyst_pxeboot.util.text import nearest

_HOSTNAME: Final = re.compile(
    r"(?=.{1,64}$)(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*"
)
_KEYMAP: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_LABEL: Final = re.compile(r"[A-Za-z0-9-]+")
_PREFIX: Final = "pxeboot/"
_HOST_FILE: Final = "host.toml"
#: What a machine's own file may say; the first three name files beside it.
_PATH_KEYS: Final = ("ssh_keys", "files", "script")
_HOST_KEYS: Final = (*_PATH_KEYS, "hostname", "keymap", "entry", "arguments")
_MAX_HOST: Final = 64 << 10  # bytes of a file


def parse_personal(settings: Mapping[str, object]) -> PersonalSettings:
    """Check the keys for what a machine gets beside the stock image. Raises `SpecError`."""
    reader = KeyReader(settings)
    personal = take_personal(reader)
    if reader.problems:
        raise SpecError(reader.problems)
    return personal


def take_personal(reader: KeyReader) -> PersonalSettings:
    """Take what every machine gets out of a spec's keys."""
    personal = PersonalSettings(
        ssh_keys=reader.file("pxeboot/ssh_keys"),
        files=reader.folder("pxeboot/files", "put all files into one"),
        script=reader.file("pxeboot/script"),
        hostname=reader.word("pxeboot/hostname"),
        keymap=reader.word("pxeboot/keymap"),
        allow_secrets=reader.boolean("pxeboot/allow_secrets") or False,
    )
    if personal.hostname and not _HOSTNAME.fullmatch(personal.hostname):
        reader.fault(
            "pxeboot/hostname",
            f"{personal.hostname!r} is not a name of RFC 1123",
            "use letters, digits and hyphens, 63 at most, and dots between such names",
        )
    if personal.keymap and not _KEYMAP.fullmatch(personal.keymap):
        reader.fault(
            "pxeboot/keymap",
            f"{personal.keymap!r} is not a keymap",
            "name it as loadkeys, us or de",
        )
    if (personal or "pxeboot/hosts" in reader) and reader.word("pxeboot/release"):
        reader.fault(
            "pxeboot/release",
            "its files are for everyone, and the keys, files and script of this spec are not",
            "leave it out, or pxeboot/ssh_keys, files, script, hostname, keymap and hosts",
        )
    return personal


def take_hosts(reader: KeyReader) -> tuple[HostSettings, ...]:
    """Read the folder of pxeboot/hosts, sorted by address; an empty tuple without one."""
    folder = reader.folder("pxeboot/hosts", "put all machines into one")
    if folder is None or not folder.is_dir():
        return ()
    hosts: dict[str, HostSettings] = {}
    secrets = reader.boolean("pxeboot/allow_secrets") or False
    try:
        places = sorted(place for place in folder.iterdir() if not place.name.startswith("."))
        for place in places:
            host = _read_host(place, reader, secrets=secrets)
            if host and host.name in hosts:
                reader.fault(
                    "pxeboot/hosts", f"{place}: this machine is in {hosts[host.name].where}, too",
                    "remove one of them",
                )  # fmt: skip
            elif host:
                hosts[host.name] = host
    except OSError as error:
        reader.fault("pxeboot/hosts", f"cannot be read: {error}", "correct its permissions")
    if not (hosts or reader.problems):
        reader.fault(
            "pxeboot/hosts", f"{folder} names no machine",
            "put files into it such as 52-54-00-12-34-56.toml",
        )  # fmt: skip
    return tuple(hosts[name] for name in sorted(hosts))


def _read_host(place: Path, reader: KeyReader, *, secrets: bool) -> HostSettings | None:
    name = _host_name(place.name if place.is_dir() else place.name.removesuffix(".toml"))
    if not name or not (place.is_dir() or place.suffix == ".toml"):
        reader.fault(
            "pxeboot/hosts",
            f"{place}: neither a TOML file nor a folder named after a MAC address or SMBIOS UUID",
            "name it such as 52-54-00-12-34-56.toml",
        )
        return None
    found: dict[str, object] = {}
    file, beside = (place / _HOST_FILE, place) if place.is_dir() else (place, place.parent)
    if place.is_dir():
        found = {key: key for key in _PATH_KEYS if (place / key).exists()}
    try:
        if not place.is_dir() or file.exists():
            found |= tomllib.loads(read_regular(file, limit=_MAX_HOST).decode())
    except (OSError, ValueError, RecursionError) as error:
        reader.fault("pxeboot/hosts", f"{file}: not readable as TOML: {error}", "correct it")
        return None
    own = KeyReader(
        dict(_spec_keys(found, beside)), lambda key: f"pxeboot/hosts: {file}: {key[len(_PREFIX) :]}"
    )
    for key in found:
        if key not in _HOST_KEYS:
            own.fault(
                _PREFIX + key, f"no such key{nearest(key, _HOST_KEYS)}",
                "use " + ", ".join(_HOST_KEYS),
            )  # fmt: skip
    host = HostSettings(
        name=name,
        where=str(file),
        personal=take_personal(own),
        entry=own.word("pxeboot/entry"),
        arguments=tuple(own.words("pxeboot/arguments")),
    )
    if host.entry and not _LABEL.fullmatch(host.entry):
        own.fault("pxeboot/entry", f"{host.entry!r} is not the name of an entry", "see --dry-run")
    reader.problems += own.problems
    if secrets:
        return replace(host, personal=replace(host.personal, allow_secrets=True))
    return host


def _host_name(text: str) -> str:
    """Return a MAC address or UUID in lower case with hyphens; empty for anything else."""
    name = text.lower().replace(":", "-")
    return name if MAC.fullmatch(name) or UUID.fullmatch(name) else ""


def _spec_keys(found: Mapping[str, object], beside: Path) -> Iterator[tuple[str, object]]:
    """Yield a machine's values as a spec would have them; its paths are relative to `beside`."""
    for key, value in found.items():
        if key in _PATH_KEYS and isinstance(value, str):
            yield _PREFIX + key, [str(beside.absolute() / value)]
        else:
            yield _PREFIX + key, value
