"""catalyst-pxeboot serve: a netboot tree to the clients of a network, in the foreground."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Mapping
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING

from catalyst_pxeboot.cli import personal
from catalyst_pxeboot.cli.console import Console
from catalyst_pxeboot.util.errors import SpecError

if TYPE_CHECKING:
    from catalyst_pxeboot.serve.facts import Account, ServedTree
    from catalyst_pxeboot.serve.plan import Facts, ServePlan


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        "serve",
        help="serve a netboot tree to the clients of a network",
        description="Serve a netboot tree by HTTP and TFTP on one network interface, until Ctrl-C,"
        " and tell who boots what. DHCP is served only if asked for: with --dhcp-range as the"
        " network's only DHCP server, with --proxy-dhcp beside another one. DHCP and TFTP need"
        " root and dnsmasq; without them it is HTTP only.",
        allow_abbrev=False,
    )
    parser.add_argument("tree", type=Path, metavar="TREE", help="netboot tree")
    parser.add_argument(
        "--interface", metavar="NAME", help="the network interface; needed if there are several"
    )
    dhcp = parser.add_mutually_exclusive_group()
    dhcp.add_argument(
        "--proxy-dhcp", action="store_true",
        help="name the loader to clients that get their address from another DHCP server",
    )  # fmt: skip
    dhcp.add_argument(
        "--dhcp-range", type=address_range, metavar="FIRST,LAST",
        help="give out these addresses, where there is no other DHCP server",
    )  # fmt: skip
    parser.add_argument(
        "--http-port", type=port, metavar="N", help="port for HTTP (80, or 8080 without root)"
    )
    parser.add_argument(
        "--no-verify", action="store_true", help="do not compare the tree with its manifest first"
    )
    personal.add_options(parser)
    parser.add_argument(
        "--known-hosts", type=Path, metavar="FILE",
        help="append the ssh host keys of machines that are up",
    )  # fmt: skip
    listed = parser.add_mutually_exclusive_group()
    listed.add_argument(
        "--only", type=mac_addresses, default=(), metavar="MAC,...",
        help="answer no other machines by DHCP",
    )  # fmt: skip
    listed.add_argument(
        "--only-hosts", action="store_true",
        help="answer no machines by DHCP but those of pxeboot/hosts",
    )  # fmt: skip
    parser.add_argument(
        "--exit-after", type=count, default=0, metavar="N", help="end when N machines are up"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the configurations and start nothing"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Serve until Ctrl-C."""
    from catalyst_pxeboot.serve.advice import advice_lines, tree_notes
    from catalyst_pxeboot.serve.events import stopped_event
    from catalyst_pxeboot.serve.facts import read_facts, read_served_tree
    from catalyst_pxeboot.serve.pinned import Binding
    from catalyst_pxeboot.serve.plan import ServeOptions, plan_serving
    from catalyst_pxeboot.serve.run import pinned_tree, serve

    tree = read_served_tree(arguments.tree)
    given = personal.read_given(arguments)
    facts = read_facts()
    options = ServeOptions(
        arguments.interface, arguments.proxy_dhcp, arguments.dhcp_range, arguments.http_port,
        tree.macs() if arguments.only_hosts else arguments.only,
    )  # fmt: skip
    plan = plan_serving(options, facts)
    for note in (*plan.notes, *tree_notes(tree, plan)):
        console.warning(note)
    if arguments.dry_run:
        if not arguments.no_verify:
            _verify(arguments.tree, console)
        _print_setups(plan, tree, facts, console)
        return

    def started(account: Account | None) -> None:
        for line in advice_lines(plan, tree):
            console.step(line)
        if account and account.uid == 0:
            console.warning(
                f"the servers run as root: no other account may read {tree.path}; move it to /srv"
            )

    try:
        with pinned_tree(tree, facts) as pinned:
            if not arguments.no_verify:
                pinned.require(_verify(arguments.tree, console))
            if pinned.binding is Binding.NAMES:
                console.warning(
                    "this machine lets us mount nothing: a file that is replaced while it is served"
                    " may be sent for a second before that is noticed"
                )
            serve(
                plan, tree, facts, pinned,
                tell=lambda event: console.event(event.data, event.text), started=started,
                personal=given, known_hosts=arguments.known_hosts,
                exit_after=arguments.exit_after,
            )  # fmt: skip
    except KeyboardInterrupt:
        pass
    event = stopped_event()
    console.event(event.data, event.text)


def address_range(text: str) -> tuple[IPv4Address, IPv4Address]:
    """Read `FIRST,LAST`."""
    first, comma, last = text.partition(",")
    try:
        if not comma:
            raise AddressValueError("no comma")
        return IPv4Address(first.strip()), IPv4Address(last.strip())
    except AddressValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not two IPv4 addresses with a comma between, such as 10.0.0.50,10.0.0.99"
        ) from error


def port(text: str) -> int:
    """Read a port's number."""
    return _number(text, "a port: a number")


def count(text: str) -> int:
    """Read a number of machines."""
    return _number(text, "a number")


def _number(text: str, what: str) -> int:
    if not text.isdecimal() or not 1 <= int(text[:6]) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what} from 1 to 65535")
    return int(text)


def mac_addresses(text: str) -> tuple[str, ...]:
    """Read hardware addresses with commas between."""
    from catalyst_pxeboot.model.settings import MAC

    found = tuple(word.strip().lower().replace("-", ":") for word in text.split(","))
    for mac in found:
        if not MAC.fullmatch(mac.replace(":", "-")):
            raise argparse.ArgumentTypeError(
                f"{mac!r} is not a hardware address such as 52:54:00:12:34:56"
            )
    return found


def _verify(tree: Path, console: Console) -> Mapping[str, os.stat_result]:
    """Check the tree; returns the state of each file that was read. Raises `SpecError`."""
    from catalyst_pxeboot.tree.verify import verify_tree

    console.step(f"checking {tree} against its manifest")
    verified = verify_tree(tree)
    if verified.faults:
        raise SpecError(verified.faults)
    return verified.read


def _print_setups(plan: ServePlan, tree: ServedTree, facts: Facts, console: Console) -> None:
    from catalyst_pxeboot.serve.run import dry_run

    setups = dry_run(plan, tree, facts)
    console.result(
        {
            "url": plan.url,
            "servers": [
                {"name": setup.name, "argv": list(setup.argv), "files": setup.files}
                for setup in setups
            ],
        }
    )
    for setup in setups:
        for name, text in setup.files.items():
            console.line(f"# ---- {name}")
            console.text(text)
        console.line(f"# {setup.name} would be started as")
        console.text(shlex.join(setup.argv) + "\n\n")
