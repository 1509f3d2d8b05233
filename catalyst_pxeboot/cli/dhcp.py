"""catalyst-pxeboot dhcp: the configuration of a DHCP server that one already has."""

from __future__ import annotations

import argparse
from ipaddress import IPv4Interface
from pathlib import Path

from catalyst_pxeboot.cli.console import Console
from catalyst_pxeboot.cli.serve import address_range
from catalyst_pxeboot.util.errors import PxebootError

#: The formats, and the files of the tree's dhcp/ that have them.
FORMATS = {
    "dnsmasq": "dhcp/dnsmasq.conf",
    "dnsmasq-proxy": "dhcp/dnsmasq-proxy.conf",
    "kea": "dhcp/kea-dhcp4.json",
    "isc": "dhcp/dhcpd.conf",
}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        "dhcp",
        help="print the configuration of a DHCP server for a netboot tree",
        description="Print the configuration of a DHCP server of your own that boots a netboot"
        " tree. Without --server it has placeholders, or the addresses that the tree was built"
        " with.",
        allow_abbrev=False,
    )
    parser.add_argument("tree", type=Path, metavar="TREE", help="netboot tree")
    parser.add_argument(
        "--format", choices=list(FORMATS), default="dnsmasq", help="for which server (dnsmasq)"
    )
    parser.add_argument(
        "--server", type=_interface, metavar="ADDRESS/PREFIX", help="where the tree is served"
    )
    parser.add_argument(
        "--range", type=address_range, metavar="FIRST,LAST", help="addresses for the clients"
    )
    parser.add_argument("--interface", metavar="NAME", help="the DHCP server's network interface")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Print the configuration."""
    from catalyst_pxeboot.serve.configs import dhcp_for, server_for
    from catalyst_pxeboot.serve.facts import read_served_tree

    if arguments.server is None and (arguments.range or arguments.interface):
        raise PxebootError(
            "--range and --interface belong to a server", hint="add --server ADDRESS/PREFIX"
        )
    tree = read_served_tree(arguments.tree)
    server = None
    if arguments.server:
        server = server_for(arguments.server, arguments.range, arguments.interface)
    text = dhcp_for(tree, FORMATS[arguments.format], server)
    console.result({"format": arguments.format, "config": text})
    console.text(text)


def _interface(text: str) -> IPv4Interface:
    try:
        if "/" not in text:
            raise ValueError("no prefix")
        return IPv4Interface(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an IPv4 address with its network's length, such as 192.168.1.1/24"
        ) from error
