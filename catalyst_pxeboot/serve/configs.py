"""The configurations that the servers run with, and their command lines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

from catalyst_pxeboot.model.manifest import MANIFEST
from catalyst_pxeboot.model.settings import Server
from catalyst_pxeboot.render.dhcp import render_dhcp
from catalyst_pxeboot.render.servers import ACCESS_LOG, TREE, _render, dnsmasq_config, nginx_config
from catalyst_pxeboot.serve.facts import Account, ServedTree
from catalyst_pxeboot.serve.plan import Dhcp, Facts, ServePlan, Web, check_range, spare_range
from catalyst_pxeboot.services.webcommand import web_command
from catalyst_pxeboot.spec.values import parse_server
from catalyst_pxeboot.tree.manifest import read_config
from catalyst_pxeboot.util.errors import PxebootError

_PLAIN = re.compile(r"/[A-Za-z0-9._+/-]+")
_DHCP_FILES = {Dhcp.RANGE: "dhcp/dnsmasq.conf", Dhcp.PROXY: "dhcp/dnsmasq-proxy.conf"}


@dataclass(frozen=True, slots=True)
class ServerSetup:
    """One server: its files in the scratch folder with their text, and its command line.

    `log` is where it says what is wrong. It is ready when `ready_file` holds `ready_text`.
    """

    name: str
    files: dict[str, str]
    argv: tuple[str, ...]
    log: str
    ready_file: str
    ready_text: str
    env: Mapping[str, str] = field(default_factory=dict)


def plan_servers(
    plan: ServePlan,
    tree: ServedTree,
    facts: Facts,
    scratch: Path,
    account: Account | None,
    *,
    links: bool = False,
) -> tuple[ServerSetup, ...]:
    """Return the servers to run, in the order in which they start: HTTP is there before DHCP.

    `account` is who they run as, None for who we are. `links` is whether the folder that they
    serve is of symbolic links. Raises `PxebootError`.
    """
    if not _PLAIN.fullmatch(str(scratch)):
        raise PxebootError(
            f"the folder for temporary files, {scratch}, has a name that servers cannot read",
            hint="set TMPDIR to one of letters, digits and . _ + -",
        )
    setups = [_web_setup(plan, facts, scratch, account, links=links)]
    if plan.tftp and facts.dnsmasq:
        setups.append(_dnsmasq_setup(plan, tree, facts.dnsmasq, scratch, account))
    return tuple(setups)


def dhcp_for(tree: ServedTree, file: str, server: Server | None) -> str:
    """Return the configuration `file` of the tree's dhcp/ for `server`.

    None is the tree's own file, as it is; a tree without one gets what it would have today.
    """
    if server is None:
        if (tree.path / file).exists():
            return read_config(tree.path, file)
        server = Server()
    made = render_dhcp(
        tree.arch,
        files=tree.files,
        server=server,
        templates=None,
        grub_knows=tree.grub_server == server.address,
        program=tree.program,
    )
    (text,) = (found.content.decode() for found in made if found.path == file)
    return text


def _web_setup(
    plan: ServePlan, facts: Facts, scratch: Path, account: Account | None, *, links: bool
) -> ServerSetup:
    address = str(plan.address.ip)
    root = scratch / TREE
    if plan.web is Web.NGINX:
        text = nginx_config(
            scratch, root, address, plan.http_port,
            account=(account.user, account.group) if account else None,
            closed=not links, begin=facts.nginx_tells_begin, limit=facts.nginx_limits,
        )  # fmt: skip
        argv: tuple[str, ...] = (
            str(facts.nginx), "-p", str(scratch), "-e", str(scratch / "nginx-error.log"),
            "-c", str(scratch / "nginx.conf"),
        )  # fmt: skip
        return ServerSetup("nginx", {"nginx.conf": text}, argv, "nginx-error.log", "nginx.pid", "")
    command = web_command(
        scratch / "web.json", root=root, follow=links, address=address, port=plan.http_port,
        log=scratch / ACCESS_LOG, ready=scratch / "web.pid", probe=MANIFEST,
        account=(account.uid, account.gid) if account else None,
    )  # fmt: skip
    return ServerSetup(
        "the web server", {"web.json": command.settings}, command.argv, "web.log", "web.pid", "",
        command.env,
    )  # fmt: skip


def _dnsmasq_setup(
    plan: ServePlan, tree: ServedTree, program: Path, scratch: Path, account: Account | None
) -> ServerSetup:
    root = str(scratch / TREE)
    if plan.dhcp is Dhcp.NONE:
        values = {"interface": plan.interface.name, "tftp_root": root}
        config = _render("server/tftp.conf", values)
    else:
        config = dhcp_for(tree, _DHCP_FILES[plan.dhcp], plan.server(root)) + _only(plan.only)
    folder = scratch / "dnsmasq"
    own = dnsmasq_config(
        folder,
        folder / "boot.conf",
        user=account.user if account else "root",
        group=account.group if account else "root",
        only=not plan.interface.loopback,
    )
    argv = (str(program), "--keep-in-foreground", f"--conf-file={folder / 'dnsmasq.conf'}")
    return ServerSetup(
        "dnsmasq",
        {"dnsmasq/dnsmasq.conf": own, "dnsmasq/boot.conf": config},
        argv,
        "dnsmasq/log",
        "dnsmasq/log",
        "started, version",
    )


def _only(machines: tuple[str, ...]) -> str:
    """Return dnsmasq's settings that leave all other machines without an answer."""
    known = "".join(f"dhcp-host={mac},set:listed\n" for mac in machines)
    return f"{known}dhcp-ignore=tag:!listed\n" if machines else ""


def server_for(
    address: IPv4Interface,
    dhcp_range: tuple[IPv4Address, IPv4Address] | None,
    interface: str | None,
) -> Server:
    """Return the user's own server as the DHCP configurations need it. Raises `PxebootError`.

    Without a range it is the one that pxeboot/server gives, where the network holds that.
    """
    network = address.network
    if network.num_addresses > 2 and address.ip in (network[0], network[-1]):
        raise PxebootError(
            f"--server: {address} is the network {network} or its broadcast address, not a"
            " server's",
            hint=f"give the server's own address, such as {network[1]}/{network.prefixlen}",
        )
    if dhcp_range:
        check_range(*dhcp_range, address, "the server", "--range")
        first, last = dhcp_range
    else:
        usual = parse_server([str(address)])
        first, last = spare_range(address)
        if usual and _fits(usual, address):
            first, last = IPv4Address(usual.range_first), IPv4Address(usual.range_last)
    return Server(
        address=str(address.ip),
        netmask=str(address.netmask),
        range_first=str(first),
        range_last=str(last),
        interface=interface,
    )


def _fits(server: Server, address: IPv4Interface) -> bool:
    """Say whether a server's range lies in its network and leaves its own address out."""
    first, last = IPv4Address(server.range_first), IPv4Address(server.range_last)
    inside = first in address.network and last in address.network
    return inside and not first <= address.ip <= last
