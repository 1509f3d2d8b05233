"""The servers of a lab's network: dnsmasq for DHCP and TFTP, a web server, and their logs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from itertools import islice
from pathlib import Path

from catalyst_pxeboot.lab.network import BRIDGE, OTHER, Network, Subnet
from catalyst_pxeboot.lab.paths import BootPath, DhcpMode, Scheme
from catalyst_pxeboot.lab.serve import serve_tree
from catalyst_pxeboot.model.arch import all_arches
from catalyst_pxeboot.model.settings import Server, tree_url
from catalyst_pxeboot.render.dhcp import check_server, render_dhcp
from catalyst_pxeboot.render.servers import dnsmasq_config
from catalyst_pxeboot.services.children import read_text, running
from catalyst_pxeboot.services.logs import TftpEnds, TftpLine, parse_dnsmasq
from catalyst_pxeboot.tree.manifest import read_config, read_manifest
from catalyst_pxeboot.util.errors import CommandError, PxebootError, VerifyError
from catalyst_pxeboot.util.process import find_program

#: The options of dnsmasq that say what clients are answered, and no more.
_OPTIONS = frozenset(
    {
        "bind-dynamic", "bind-interfaces", "dhcp-authoritative", "dhcp-boot", "dhcp-host",
        "dhcp-ignore", "dhcp-mac", "dhcp-match", "dhcp-no-override", "dhcp-option",
        "dhcp-option-force", "dhcp-range", "dhcp-userclass", "dhcp-vendorclass", "enable-tftp",
        "interface", "log-dhcp", "port", "pxe-prompt", "pxe-service", "tag-if", "tftp-mtu",
        "tftp-no-blocksize", "tftp-root",
    }
)  # fmt: skip
_LONGEST_LINE = 1000  # bytes; dnsmasq takes what is behind 1024 for another line


@dataclass(frozen=True, slots=True)
class Site:
    """A configuration of dnsmasq, and the network that it is for.

    `http_port` and `http_prefix` are where the web server must have the tree, `tftp_prefix` the
    tree's folder below the TFTP root; prefixes have no slash at either end.
    """

    config: str
    subnet: Subnet
    http_port: int = 80
    http_prefix: str = ""
    tftp_prefix: str = ""

    @property
    def url(self) -> str:
        """The tree's URL, with a slash at its end."""
        return tree_url(self.subnet.server, self.http_port, self.http_prefix)


@dataclass(frozen=True, slots=True)
class Services:
    """The servers of one boot, running. `fetched` reads their logs: bytes by scheme:path."""

    fetched: Callable[[], Mapping[str, int]]
    logs: Mapping[str, Path]  # by the server's kind


@contextmanager
def serve_site(network: Network, tree: Path, site: Site, scratch: Path) -> Iterator[Services]:
    """Serve `tree` as `site` says while the context lasts; logs go to `scratch`.

    Raises `CommandError` if a server does not start.
    """
    roots = {}
    for scheme, prefix in ((Scheme.TFTP, site.tftp_prefix), (Scheme.HTTP, site.http_prefix)):
        # By names of ours, as a tree's own path may hold what a server cannot read.
        roots[scheme] = scratch / scheme
        link = roots[scheme] / prefix
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(tree, target_is_directory=True)
    with ExitStack() as stack:
        if network.other:
            plain = scratch / "other-dhcp"
            plain.mkdir()
            stack.enter_context(
                _dnsmasq(network, plain, other_config(site.subnet), namespace=network.other)
            )
        own = scratch / "dhcp"
        own.mkdir()
        config = _placed(site.config, roots[Scheme.TFTP])
        stack.enter_context(_dnsmasq(network, own, config, namespace=network.server))
        web = stack.enter_context(
            serve_tree(
                roots[Scheme.HTTP], address=site.subnet.server, port=site.http_port,
                follow=True, inside=network.inside,
            )
        )  # fmt: skip

        def fetched() -> Mapping[str, int]:
            sent: Counter[str] = Counter()
            for name, size in web.fetched.items():
                sent[f"{Scheme.HTTP}:{name.removeprefix('/' + _folder(site.http_prefix))}"] += size
            for name, size in tftp_bytes(read_text(own / "log"), roots[Scheme.TFTP]).items():
                sent[f"{Scheme.TFTP}:{name.removeprefix(_folder(site.tftp_prefix))}"] += size
            return dict(sorted(sent.items()))

        yield Services(fetched, {"dnsmasq": own / "log", "web": web.log})


# --- configurations -------------------------------------------------------------------------------


def path_site(tree: Path, path: BootPath) -> Site:
    """Read the tree's own configuration of dnsmasq, with the path's loader switched on.

    A tree without one gets what it would have today. Raises `PxebootError` if it does not offer
    the loader to any client.
    """
    manifest = read_manifest(tree)[1]
    server = manifest.server or Server()
    name = "dhcp/dnsmasq-proxy.conf" if path.dhcp is DhcpMode.PROXY else "dhcp/dnsmasq.conf"
    if (tree / name).is_file():
        config = read_config(tree, name)
    else:
        wanted = path.arches[0] if len(path.arches) == 1 else manifest.release.arch
        (arch,) = (arch for arch in all_arches() if arch.name == wanted)
        files = {str(file.relative_to(tree)) for file in tree.rglob("*") if file.is_file()}
        rendered = render_dhcp(
            arch, files=files, server=manifest.server, templates=None, program=manifest.program
        )
        (config,) = (file.content.decode() for file in rendered if file.path == name)
    return choose_loader(plan_site(config, server, path.dhcp), path)


def plan_site(config: str, server: Server, dhcp: DhcpMode) -> Site:
    """Plan the network for dnsmasq's configuration `config`, which was rendered for `server`.

    Raises `SpecError` for a server that cannot be.
    """
    check_server(server)
    network = IPv4Network(f"{server.address}/{server.netmask}", strict=False)
    own = IPv4Address(server.address)
    hosts = (network[number] for number in range(1, network.num_addresses))
    if dhcp is DhcpMode.PROXY:
        # The other server's addresses are its own affair: any will do.
        free = [str(host) for host in islice((host for host in hosts if host != own), 30)]
        if len(free) < 2:
            raise PxebootError(
                f"the tree's network {network} has no room for another DHCP server and a client",
                hint="build the tree for a larger network in pxeboot/server",
            )
        other, first, last = free[0], free[1], free[-1]
    else:
        first, last = server.range_first, server.range_last
        taken = (IPv4Address(first), IPv4Address(last))
        outside = (host for host in hosts if host != own and not taken[0] <= host <= taken[1])
        other = str(next(outside, own))  # unused: this network has no other server
    subnet = Subnet(server.address, other, server.netmask, network.prefixlen, first, last)
    return Site(config, subnet, server.http_port, server.http_prefix, server.tftp_prefix)


def choose_loader(site: Site, path: BootPath) -> Site:
    """Switch a configuration to the path's loader, as its comments tell a user to do.

    The other loaders for the same client stand in it as comments, and of several `dhcp-boot`
    lines the last counts; of `pxe-service` lines there may be one only. Nothing else changes.
    """
    if not path.named_by_dhcp:
        return site
    named = (site.url if path.http_boot else _folder(site.tftp_prefix)) + path.boot_file
    lines = []
    found = False
    for line in site.config.splitlines():
        rule = line.removeprefix("#")
        if re.match(r"(dhcp-boot|pxe-service)=", rule) and rule.endswith(f",{named}"):
            line = rule
            found = True
        elif rule.startswith("pxe-service=") and "tag:ipxe," not in rule:
            line = f"#{rule}"
        elif rule.startswith("dhcp-option-force=") and ",210," in rule and path.http_prefix:
            line = rule
        lines.append(f"{line}\n")
    if not found:
        raise PxebootError(f"{path.name}: the tree's DHCP configuration does not name {named}")
    return replace(site, config="".join(lines))


def _placed(config: str, tftp_root: Path) -> str:
    """Set what a user must set: the folder that TFTP clients see, and the network card.

    The tree may be anybody's, and dnsmasq runs as root: raises `VerifyError` for an option that
    could make it run, read or write a file. Lines are rendered again, so that dnsmasq reads in
    them what was read here.
    """
    places = {"tftp-root": str(tftp_root), "interface": BRIDGE}
    lines = []
    for number, line in enumerate(config.split("\n"), 1):
        name, equals, value = map(str.strip, line.partition("="))
        if len(line.encode()) > _LONGEST_LINE:
            raise _refused(number, f"has more than {_LONGEST_LINE} bytes")
        if not name or name.startswith("#"):
            continue
        if name not in _OPTIONS or not value.isprintable():
            raise _refused(number, f"has {name!r}, which a test of a tree does not need")
        lines.append(f"{name}{equals}{places.get(name, value)}\n")
    return "".join(lines)


def _refused(number: int, what: str) -> VerifyError:
    return VerifyError(
        f"the tree's configuration of dnsmasq: line {number} {what}",
        hint="leave it out of the template",
    )


def _folder(prefix: str) -> str:
    return f"{prefix}/" if prefix else ""


def read_arch(tree: Path) -> str:
    """Read a netboot tree's architecture from its manifest. Raises `VerifyError`."""
    return read_manifest(tree)[1].release.arch


def other_config(subnet: Subnet) -> str:
    """Write dnsmasq's configuration as a DHCP server that gives addresses and nothing else."""
    addresses = f"{subnet.first},{subnet.last},{subnet.mask}"
    return f"port=0\ninterface={OTHER}\nbind-dynamic\ndhcp-range={addresses},10m\n"


def lab_config(folder: Path, config: Path) -> str:
    """Write the other settings of the lab's dnsmasq: where its files are, what to log.

    As root it still refuses files that not everyone may read.
    """
    return dnsmasq_config(folder, config, user="root", group="root", hurry=True, only=False)


# --- logs -----------------------------------------------------------------------------------------


def tftp_bytes(log: str, root: Path) -> Mapping[str, int]:
    """Read bytes by path below `root` from dnsmasq's log.

    dnsmasq reports no sizes: a file counts with its own, once for every transfer that was
    finished. One that the client broke off (dnsmasq says "error", then "sent"), that failed or
    was asked for without success adds nothing, but its name is there.
    """
    fetched: Counter[str] = Counter()
    ends = TftpEnds()
    for logged in map(parse_dnsmasq, log.splitlines()):
        line = ends.take(logged) if isinstance(logged, TftpLine) else None
        if line is None:
            continue
        file = Path(line.file or "/")
        name = str(file.relative_to(root)) if file.is_relative_to(root) else str(file)
        sent = line.outcome == "sent" and file.is_file()
        fetched[name] += file.stat().st_size if sent else 0
    return dict(fetched)


# --- running them ---------------------------------------------------------------------------------


def find_dnsmasq() -> Path:
    """Find dnsmasq. Raises `CommandError` naming the packages."""
    found = find_program("dnsmasq")
    if found is None:
        raise CommandError(
            "dnsmasq is missing", hint="install dnsmasq-base (Debian) or net-dns/dnsmasq (Gentoo)"
        )
    return found


@contextmanager
def _dnsmasq(network: Network, folder: Path, config: str, *, namespace: str) -> Iterator[None]:
    program = find_dnsmasq()
    own, lab, log = folder / "dnsmasq.conf", folder / "lab.conf", folder / "log"
    own.write_text(config, "utf-8")
    lab.write_text(lab_config(folder, own), "utf-8")
    argv = network.inside([program, "--keep-in-foreground", f"--conf-file={lab}"], namespace)
    with running(
        "dnsmasq",
        argv,
        messages=folder / "messages",
        ready=lambda: "started, version" in read_text(log),
        log=log,
    ):
        yield
