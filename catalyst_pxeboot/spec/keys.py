"""The spec keys, as data: keys.toml."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from catalyst_pxeboot.util.errors import PxebootError
from catalyst_pxeboot.util.resources import read_table
from catalyst_pxeboot.util.text import nearest

_KERNEL_KEY = re.compile(r"boot/kernel/(?P<name>[^/]+)/(?P<sub>[^/]+)")
_KERNEL_CONSOLE = "console"


def tables() -> Mapping[str, Any]:
    """Return keys.toml as it is."""
    return read_table("spec/keys.toml")


#: Where the live image is: the folder, as every spec names it, or an ISO in its place.
FOLDER_KEY, ISO_KEY = "source_subpath", "pxeboot/iso"


def required_keys(given: Iterable[str] = ()) -> frozenset[str]:
    """Return the keys that a spec of this target must have; `given` are those that it has."""
    return frozenset(tables()["required"]) - ({FOLDER_KEY} if ISO_KEY in given else set())


def loader_keys() -> Mapping[str, str]:
    """Return the keys that are for one loader, each with its name."""
    return {key: row["loader"] for key, row in tables()["pxeboot"].items() if "loader" in row}


def known_keys(keys: Iterable[str]) -> frozenset[str]:
    """Return every key that is accepted, with the per-kernel ones among `keys`."""
    named = {key for group in ("required", "shared", "pxeboot") for key in tables()[group]}
    subkeys = {*tables()["ignored"]["kernel"], _KERNEL_CONSOLE}
    per_kernel = {
        key for key in keys if (found := _KERNEL_KEY.fullmatch(key)) and found["sub"] in subkeys
    }
    return frozenset(named | set(tables()["ignored"]["keys"]) | per_kernel)


def ignored_warnings(keys: Iterable[str]) -> tuple[str, ...]:
    """Return a line for each key that is accepted and not read."""
    ignored = tables()["ignored"]
    return tuple(
        f"{key}: means nothing to the target pxeboot"
        for key in keys
        if key in ignored["keys"]
        or ((found := _KERNEL_KEY.fullmatch(key)) and found["sub"] in ignored["kernel"])
    )


def unknown_key_problems(keys: Iterable[str]) -> list[PxebootError]:
    """Return one error for each unknown key, naming the nearest known one."""
    given = list(keys)
    known = known_keys(given)
    return [
        PxebootError(
            f"{key}: no such spec key{nearest(key, known)}",
            hint="correct or remove it"
            if ":" not in key and not key.startswith("http")
            else "a value that holds a colon must stand on its key's own line",
        )
        for key in given
        if key not in known
    ]
