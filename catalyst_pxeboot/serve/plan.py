"""What serving a tree comes to on this machine: which servers, for whom, and what is left out.

Pure: the facts come from elsewhere, nothing is started, and `--dry-run` prints it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface
from itertools import islice
from pathlib import Path

from catalyst_pxeboot.model.settings import HTTP_PORT, Server, tree_url
from catalyst_pxeboot.render.dhcp import INTERFACE_NAME
from catalyst_pxeboot.services.interfaces import Interface
from catalyst_pxeboot.services.webcommand import INSTALL
from catalyst_pxeboot.util.errors import PxebootError
from catalyst_pxeboot.util.text import nearest

#: For who may not have port 80.
UNPRIVILEGED_PORT = 8080
_DNSMASQ = "dnsmasq-base (Debian) or net-dns/dnsmasq (Gentoo)"


class Dhcp(StrEnum):
    """What this machine does about DHCP."""

    NONE = "none"  # another server must be configured
    RANGE = "range"  # it gives out addresses
    PROXY = "proxy"  # it adds the loader to another server's answers


class Web(StrEnum):
    """Which web server runs."""

    NGINX = "nginx"
    EMBEDDED = "embedded"


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What the user asked for; None and False are what was not said."""

    interface: str | None = None
    proxy_dhcp: bool = False
    dhcp_range: tuple[IPv4Address, IPv4Address] | None = None
    http_port: int | None = None
    only: tuple[str, ...] = ()  # MAC addresses; empty: any machine


@dataclass(frozen=True, slots=True)
class Facts:
    """This machine: its interfaces, whether we are root, and which servers it has."""

    interfaces: tuple[Interface, ...]
    root: bool
    dnsmasq: Path | None
    nginx: Path | None
    nginx_tells_begin: bool  # it has the modules that log a request when it comes
    nginx_limits: bool  # it has the module that limits connections by address
    embedded: bool  # the library of our own web server is there
    default_route: str = ""  # the interface that leads to all other networks; empty: none


@dataclass(frozen=True, slots=True)
class ServePlan:
    """What will run. `notes` say, a line each, what does not and why."""

    interface: Interface
    address: IPv4Interface
    dhcp: Dhcp
    dhcp_range: tuple[IPv4Address, IPv4Address] | None
    tftp: bool
    web: Web
    http_port: int
    notes: tuple[str, ...]
    only: tuple[str, ...] = ()  # MAC addresses; empty: any machine

    @property
    def url(self) -> str:
        """The tree's URL, with a slash at its end."""
        return tree_url(str(self.address.ip), self.http_port)

    def server(self, tftp_root: str = "/") -> Server:
        """Return what the DHCP configurations are rendered for."""
        first, last = self.dhcp_range or spare_range(self.address)
        return Server(
            address=str(self.address.ip),
            netmask=str(self.address.netmask),
            range_first=str(first),
            range_last=str(last),
            interface=self.interface.name,
            http_port=self.http_port,
            tftp_root=tftp_root,
        )


def plan_serving(options: ServeOptions, facts: Facts) -> ServePlan:
    """Decide what runs. Raises `PxebootError` for what is not possible.

    Without an option for DHCP there is none: a DHCP server that no one asked for would take a
    network's clients away from its own.
    """
    interface = _choose_interface(options, facts)
    address = _choose_address(interface, options)
    if options.dhcp_range:
        check_range(*options.dhcp_range, address, interface.name)
    dhcp = Dhcp.PROXY if options.proxy_dhcp else Dhcp.RANGE if options.dhcp_range else Dhcp.NONE
    notes = []
    obstacle = _no_dnsmasq(facts)
    if obstacle:
        notes.append(f"HTTP only, no DHCP and no TFTP: {obstacle}")
        dhcp = Dhcp.NONE
    if dhcp is Dhcp.RANGE and interface.name == facts.default_route:
        notes.append(
            f"{interface.name} has the default route, so its network has another DHCP server as a"
            " rule: two of them take each other's clients away; use --proxy-dhcp there"
        )
    if facts.nginx is None and not facts.embedded:
        raise PxebootError(
            "no web server found: nginx and the Python package aiohttp are both missing",
            hint=f"install nginx (Debian: nginx-light; Gentoo: www-servers/nginx) or {INSTALL}",
        )
    if options.only and dhcp is Dhcp.NONE:
        raise PxebootError(
            "--only: there is no DHCP here that could answer some machines and not others",
            hint="add --dhcp-range or --proxy-dhcp" if not obstacle else "leave it out",
        )
    web = Web.NGINX if facts.nginx else Web.EMBEDDED
    return ServePlan(
        interface=interface,
        address=address,
        dhcp=dhcp,
        dhcp_range=options.dhcp_range if dhcp is Dhcp.RANGE else None,
        tftp=not obstacle,
        web=web,
        http_port=options.http_port or (HTTP_PORT if facts.root else UNPRIVILEGED_PORT),
        notes=tuple(notes),
        only=options.only,
    )


def check_range(
    first: IPv4Address,
    last: IPv4Address,
    address: IPv4Interface,
    interface: str,
    option: str = "--dhcp-range",
) -> None:
    """Raise `PxebootError` if a server with `address` cannot give out `first` to `last`."""
    network = address.network
    for end in (first, last):
        if end not in network or end in (network.network_address, network.broadcast_address):
            raise PxebootError(
                f"{option}: {end} is not an address for a client of {interface}'s network"
                f" {network}",
                hint="choose both ends in it, such as " + ",".join(map(str, spare_range(address))),
            )
    if first > last:
        raise PxebootError(
            f"{option}: {first} to {last} runs backwards", hint=f"write {last},{first}"
        )
    if first <= address.ip <= last:
        raise PxebootError(
            f"{option}: {first} to {last} holds {interface}'s own address {address.ip}",
            hint="leave it out of the range",
        )


def spare_range(address: IPv4Interface) -> tuple[IPv4Address, IPv4Address]:
    """Return addresses of a network that are not the server's own, fifty of them if it has them.

    Raises `PxebootError` for a network without other addresses.
    """
    network = address.network
    behind = islice(range(int(address.ip) + 1, int(network.broadcast_address)), 50)
    before = islice(range(int(address.ip) - 1, int(network.network_address), -1), 50)
    found = max(sorted(behind), sorted(before), key=len)
    if not found:
        raise PxebootError(
            f"{network} is a network without room for a client",
            hint="give the interface an address of a larger one, such as 10.0.0.1/24",
        )
    return IPv4Address(found[0]), IPv4Address(found[-1])


def _choose_interface(options: ServeOptions, facts: Facts) -> Interface:
    listed = ", ".join(map(str, facts.interfaces)) or "none"
    if options.interface is not None:
        for interface in facts.interfaces:
            if interface.name == options.interface:
                return _usable(interface)
        known = [interface.name for interface in facts.interfaces]
        raise PxebootError(
            f"no network interface {options.interface!r}{nearest(options.interface, known)}",
            hint=f"those there are: {listed}",
        )
    able = [found for found in facts.interfaces if found.addresses and not found.loopback]
    if options.dhcp_range:
        able = [found for found in able if _holding(found, options.dhcp_range[0])]
    if len(able) == 1:
        return _usable(able[0])
    why = "no network interface fits" if not able else "more than one network interface fits"
    raise PxebootError(why, hint=f"name one with --interface; those there are: {listed}")


def _usable(interface: Interface) -> Interface:
    """Return the interface, if dnsmasq reads its name as this one interface's."""
    if not INTERFACE_NAME.fullmatch(interface.name):
        raise PxebootError(
            f"--interface: {interface.name!r} has a name that dnsmasq would read otherwise",
            hint="give it one of letters, digits and . _ - : ip link set NAME name lan0",
        )
    return interface


def _choose_address(interface: Interface, options: ServeOptions) -> IPv4Interface:
    """Choose which of the interface's addresses serves: the one whose network holds the range."""
    if not interface.addresses:
        address = _advised_address(options)
        raise PxebootError(
            f"{interface.name} has no IPv4 address",
            hint=f"give it one: ip address add {address} dev {interface.name}"
            + ("" if interface.up else f" && ip link set {interface.name} up"),
        )
    if not interface.up:
        raise PxebootError(
            f"{interface.name} is switched off", hint=f"ip link set {interface.name} up"
        )
    if options.dhcp_range:
        holding = _holding(interface, options.dhcp_range[0])
        if holding:
            return holding
    return interface.addresses[0]


def _advised_address(options: ServeOptions) -> IPv4Interface:
    """Return an address that would do: the first of the range's network that is not in it."""
    if options.dhcp_range is None:
        return IPv4Interface("10.0.0.1/24")
    first, last = options.dhcp_range
    network = IPv4Interface(f"{first}/24").network
    free = (host for host in network.hosts() if not first <= host <= last)
    return IPv4Interface(f"{next(free, network.network_address + 1)}/24")


def _holding(interface: Interface, address: IPv4Address) -> IPv4Interface | None:
    return next((found for found in interface.addresses if address in found.network), None)


def _no_dnsmasq(facts: Facts) -> str:
    """Say why there can be no dnsmasq; empty where there can."""
    missing = f"dnsmasq is missing (install {_DNSMASQ})"
    if not facts.root:
        return "they need root" if facts.dnsmasq else f"they need root, and {missing}"
    return "" if facts.dnsmasq else missing
