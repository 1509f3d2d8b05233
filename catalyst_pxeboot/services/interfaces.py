"""This machine's network interfaces, as `ip` reports them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

from catalyst_pxeboot.util.errors import CommandError
from catalyst_pxeboot.util.process import find_program, run


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface; `up` is whether it was switched on, with a cable or without."""

    name: str
    up: bool
    loopback: bool
    addresses: tuple[IPv4Interface, ...]

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(map(str, self.addresses)) or 'no IPv4 address'})"


def find_ip() -> Path:
    """Find the program `ip`. Raises `CommandError`."""
    found = find_program("ip")
    if found is None:
        raise CommandError("ip is missing", hint="install iproute2 (Debian: iproute2)")
    return found


def read_interfaces() -> tuple[Interface, ...]:
    """Ask `ip` for the interfaces and their IPv4 addresses, in its order."""
    return parse_interfaces(json.loads(run([find_ip(), "-json", "address", "show"])))


def parse_interfaces(links: list[dict[str, Any]]) -> tuple[Interface, ...]:
    """Read what `ip -json address show` prints: a list of links (man 8 ip-address)."""
    return tuple(
        Interface(
            name=link["ifname"],
            up="UP" in link["flags"],
            loopback="LOOPBACK" in link["flags"],
            addresses=tuple(
                IPv4Interface(f"{found['local']}/{found['prefixlen']}")
                for found in link.get("addr_info", ())
                if found.get("family") == "inet"
            ),
        )
        for link in links
        if "ifname" in link
    )
