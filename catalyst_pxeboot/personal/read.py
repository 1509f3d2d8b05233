"""Read what a spec gives a machine beside the stock image."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from catalyst_pxeboot.model.settings import HostSettings, PersonalSettings
from catalyst_pxeboot.personal.files import read_overlay
from catalyst_pxeboot.personal.keys import PRIVATE_KEY, read_keys
from catalyst_pxeboot.personal.model import Host, Personal
from catalyst_pxeboot.util.errors import PxebootError, SpecError
from catalyst_pxeboot.util.files import read_regular

_MAX_SCRIPT: Final = 16 << 20

#: A password's hash in a line of shadow(5), by any method of crypt(5).
_HASH: Final = re.compile(rb"^[^:\n]{1,64}:!?\$(?:1|2[abxy]|5|6|7|y|gy|md5|sha1)\$", re.MULTILINE)


def read_personal(settings: PersonalSettings, name: str = "pxeboot/") -> Personal:
    """Read the keys, files and script that a spec names.

    `name` is what messages have before a key's own name. Raises `PxebootError` or `SpecError`, with
    each fault of a kind; also for what must stay secret, unless the spec allows it: every client of
    the network can read these files.
    """
    personal = Personal(
        keys=read_keys(settings.ssh_keys, key=f"{name}ssh_keys") if settings.ssh_keys else (),
        overlay=read_overlay(settings.files, key=f"{name}files") if settings.files else (),
        script=_read_script(settings.script, f"{name}script") if settings.script else b"",
        hostname=settings.hostname,
        keymap=settings.keymap,
    )
    if not settings.allow_secrets and (secrets := list(_find_secrets(settings, personal, name))):
        raise SpecError(secrets)
    return personal


def read_hosts(settings: Iterable[HostSettings], common: Personal) -> tuple[Host, ...]:
    """Read what single machines get beside `common`, which all do.

    Raises `SpecError` with every fault of every machine.
    """
    hosts: list[Host] = []
    problems: list[PxebootError] = []
    for host in settings:
        try:
            own = read_personal(host.personal, f"pxeboot/hosts: {host.where}: ")
        except SpecError as error:
            problems += error.problems
            continue
        except PxebootError as error:
            problems.append(error)
            continue
        # One file has the keys: a machine's own come beside those of all.
        if own.keys:
            own = replace(own, keys=(*common.keys, *own.keys))
        hosts.append(Host(host.name, host.where, own, host.entry, host.arguments))
    if problems:
        raise SpecError(problems)
    return tuple(hosts)


def _read_script(file: Path, key: str) -> bytes:
    try:
        content = read_regular(file, limit=_MAX_SCRIPT)
    except OSError as error:
        raise PxebootError(
            f"{key}: {file} cannot be read: {error}", hint="name a script"
        ) from error
    if not content.startswith(b"#!/"):
        raise PxebootError(
            f"{key}: {file} does not say what runs it",
            hint="begin it with a line such as #!/bin/sh",
        )
    return content


def _find_secrets(
    settings: PersonalSettings, personal: Personal, name: str
) -> Iterator[PxebootError]:
    places = [
        (f"{name}files", (settings.files or Path()) / member.name, member.content)
        for member in personal.overlay
    ]
    if settings.script:
        places.append((f"{name}script", settings.script, personal.script))
    for key, place, content in places:
        found = (
            "a private key" if PRIVATE_KEY.search(content)
            else "a password's hash" if _HASH.search(content)
            else ""
        )  # fmt: skip
        if found:
            yield PxebootError(
                f"{key}: {place} holds {found}, which every client of the network could read",
                hint="take it out, or say pxeboot/allow_secrets: yes",
            )
