"""The servers of a lab's network: dnsmasq for DHCP and TFTP, nginx for HTTP, and their logs."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

from catalyst_pxeboot.lab.network import BRIDGE, OTHER, Network, Subnet, join_namespace
from catalyst_pxeboot.lab.paths import BootPath, DhcpMode, Scheme
from catalyst_pxeboot.lab.serve import TreeServer, running_server
from catalyst_pxeboot.model.arch import all_arches
from catalyst_pxeboot.render.dhcp import render_dhcp
from catalyst_pxeboot.render.servers import ACCESS_LOG, dnsmasq_config, nginx_config
from catalyst_pxeboot.services.children import read_text, running
from catalyst_pxeboot.services.logs import TftpLine, parse_dnsmasq
from catalyst_pxeboot.tree.manifest import read_config, read_manifest
from catalyst_pxeboot.util.errors import CommandError, PxebootError
from catalyst_pxeboot.util.process import find_program


@dataclass(frozen=True, slots=True)
class Site:
    """What a configuration of dnsmasq says of its network, and the text to run.

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
        port = "" if self.http_port == 80 else f":{self.http_port}"
        return f"http://{self.subnet.server}{port}/" + _folder(self.http_prefix)


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
        count = stack.enter_context(_web_server(network, site, roots[Scheme.HTTP], scratch))

        def fetched() -> Mapping[str, int]:
            sent: Counter[str] = Counter()
            for name, size in count().items():
                sent[f"{Scheme.HTTP}:{name.removeprefix(_folder(site.http_prefix))}"] += size
            for name, size in tftp_bytes(read_text(own / "log"), roots[Scheme.TFTP]).items():
                sent[f"{Scheme.TFTP}:{name.removeprefix(_folder(site.tftp_prefix))}"] += size
            return dict(sorted(sent.items()))

        yield Services(fetched, {"dnsmasq": own / "log", "nginx": scratch / ACCESS_LOG})


# --- configurations -------------------------------------------------------------------------------


def path_site(tree: Path, path: BootPath) -> Site:
    """Read the tree's own configuration of dnsmasq, with the path's loader switched on.

    A tree without one gets what it would have today. Raises `PxebootError` if it does not offer
    the loader to any client.
    """
    name = "dhcp/dnsmasq-proxy.conf" if path.dhcp is DhcpMode.PROXY else "dhcp/dnsmasq.conf"
    if (tree / name).is_file():
        config = read_config(tree, name)
    else:
        (arch,) = (arch for arch in all_arches() if arch.name == _arch_for(tree, path))
        files = {str(file.relative_to(tree)) for file in tree.rglob("*") if file.is_file()}
        rendered = render_dhcp(arch, files=files, server=None, templates=None)
        (config,) = (file.content.decode() for file in rendered if file.path == name)
    return choose_loader(read_site(config), path)


def read_site(config: str) -> Site:
    """Read addresses and folders out of a configuration of dnsmasq as we render it.

    Raises `PxebootError` for one that lacks them.
    """
    tree_url = re.search(r"serves the tree as (http://\S+)/(?=\s)", config)
    ranges = re.search(r"^dhcp-range=([\d.]+),(proxy|[\d.]+),([\d.]+)", config, re.MULTILINE)
    root = re.search(r"^tftp-root=(\S+)", config, re.MULTILINE)
    below = re.search(
        r"^# The folder that TFTP clients see; the tree is (\S+)", config, re.MULTILINE
    )
    if not (tree_url and ranges and root and below):
        raise PxebootError(
            "the tree's DHCP configuration does not say where the tree is, or for which addresses",
            hint="keep the comments and lines of its first part, or run the shipped template",
        )
    url = urlsplit(tree_url[1])
    network = IPv4Network(f"{url.hostname}/{ranges[3]}", strict=False)
    server = IPv4Address(str(url.hostname))
    hosts = (network[number] for number in range(1, network.num_addresses))
    if ranges[2] == "proxy":
        # The other server's addresses are its own affair: any will do.
        free = [str(host) for host in islice((host for host in hosts if host != server), 30)]
        other, first, last = free[0], free[1], free[-1]
    else:
        first, last = ranges[1], ranges[2]
        taken = (IPv4Address(first), IPv4Address(last))
        other = next(
            str(host) for host in hosts if host != server and not taken[0] <= host <= taken[1]
        )
    subnet = Subnet(str(server), other, ranges[3], network.prefixlen, first, last)
    prefix = below[1].removeprefix(root[1].rstrip("/")).strip("/")
    return Site(config, subnet, url.port or 80, url.path.strip("/"), prefix)


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
    """Set what a user must set: the folder that TFTP clients see, and the network card."""
    config = re.sub(r"^tftp-root=.*$", f"tftp-root={tftp_root}", config, flags=re.MULTILINE)
    return re.sub(r"^interface=.*$", f"interface={BRIDGE}", config, flags=re.MULTILINE)


def _folder(prefix: str) -> str:
    return f"{prefix}/" if prefix else ""


def _arch_for(tree: Path, path: BootPath) -> str:
    """Return the architecture of the tree: the path's only one, or else what the manifest says."""
    return path.arches[0] if len(path.arches) == 1 else read_arch(tree)


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

    dnsmasq tells no sizes: a file counts with its own, once for every transfer that was
    finished. One that the client broke off (dnsmasq says "error", then "sent"), that failed or
    was asked for in vain adds nothing, but its name is there.
    """
    fetched: Counter[str] = Counter()
    broken_off: Counter[str] = Counter()  # by client
    for line in map(parse_dnsmasq, log.splitlines()):
        if not isinstance(line, TftpLine):
            continue
        file = Path(line.file or "/")
        name = str(file.relative_to(root)) if file.is_relative_to(root) else str(file)
        if line.outcome in ("missing", "failed"):
            fetched[name] += 0
        elif line.outcome == "aborted":
            broken_off[line.client] += 1
        elif broken_off[line.client]:
            broken_off[line.client] -= 1
            fetched[name] += 0
        else:
            fetched[name] += file.stat().st_size if file.is_file() else 0
    return dict(fetched)


def http_bytes(log: str) -> Mapping[str, int]:
    """Read bytes by path from nginx's log; a path that was refused is there with 0."""
    fetched: Counter[str] = Counter()
    for line in log.splitlines(keepends=True):
        if not line.endswith("\n"):  # still being written
            break
        request = json.loads(line)
        good = request["status"] in (200, 206)
        fetched[request["path"].lstrip("/")] += request["bytes"] if good else 0
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


@contextmanager
def _web_server(
    network: Network, site: Site, root: Path, scratch: Path
) -> Iterator[Callable[[], Mapping[str, int]]]:
    program = find_program("nginx")
    if program is None:
        # Our own server leaves its root by no link.
        tree = (root / site.http_prefix).resolve()
        if site.http_prefix:
            raise CommandError(
                f"nginx is missing, and only it can serve the tree as {site.url}",
                hint="install nginx (Debian: nginx-light; Gentoo: www-servers/nginx)",
            )
        opened = join_namespace(
            network.server, lambda: TreeServer(tree, site.http_port, site.subnet.server)
        )
        with running_server(opened) as server:
            yield lambda: {name.lstrip("/"): size for name, size in server.fetched.items()}
        return
    config, errors = scratch / "nginx.conf", scratch / "nginx-error.log"
    text = nginx_config(
        scratch,
        root,
        site.subnet.server,
        site.http_port,
        account=("root", "root"),
        closed=False,
        begin=False,
    )
    config.write_text(text, "utf-8")
    argv = network.inside([program, "-p", scratch, "-e", errors, "-c", config])
    pid = scratch / "nginx.pid"
    with running(
        "nginx",
        argv,
        messages=scratch / "nginx-messages",
        ready=lambda: bool(read_text(pid)),
        log=errors,
    ):
        yield lambda: http_bytes(read_text(scratch / ACCESS_LOG))
