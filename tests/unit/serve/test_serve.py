"""Serving: what is planned from which facts, the configurations, and what the logs tell."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest

from catalyst_pxeboot.cli import main as cli
from catalyst_pxeboot.model.arch import find_arch
from catalyst_pxeboot.render.servers import nginx_config
from catalyst_pxeboot.serve.advice import advice_lines, tree_notes
from catalyst_pxeboot.serve.configs import plan_servers, server_for
from catalyst_pxeboot.serve.events import Event, Tracker, stopped_event
from catalyst_pxeboot.serve.facts import Account, ServedTree, choose_account, logs_request_start
from catalyst_pxeboot.serve.plan import (
    Dhcp,
    Facts,
    ServeOptions,
    ServePlan,
    Web,
    plan_serving,
    spare_range,
)
from catalyst_pxeboot.services import interfaces as interfaces_room
from catalyst_pxeboot.services.interfaces import Interface, find_ip, parse_interfaces
from catalyst_pxeboot.services.logs import HttpBegin, HttpEnd, Tail, parse_dnsmasq, parse_web
from catalyst_pxeboot.util.errors import CommandError, PxebootError
from tests.support.serve_trees import make_tree

ETH1 = Interface("eth1", True, False, (IPv4Interface("10.0.0.1/24"),))
WLAN = Interface("wlan0", True, False, (IPv4Interface("192.168.7.20/24"),))
BARE = Interface("eth2", False, False, ())
LO = Interface("lo", True, True, (IPv4Interface("127.0.0.1/8"),))
FACTS = Facts(
    (LO, ETH1, WLAN, BARE), True, Path("/sbin/dnsmasq"), Path("/sbin/nginx"), True, True, True
)
RANGE = (IPv4Address("10.0.0.50"), IPv4Address("10.0.0.99"))
NOBODY = Account("nobody", "nogroup", 65534, 65534)

FILES = (
    "boot.ipxe", "undionly.kpxe", "pxelinux.0", "snponly.efi", "boot/grub/x86_64-efi/core.efi",
)  # fmt: skip
TREE = ServedTree(
    path=Path("/srv/my tree"),
    arch=find_arch("amd64"),
    title="Gentoo",
    files={**dict.fromkeys(FILES, 1000), "image.squashfs": 700 << 20, "boot/gentoo": 15 << 20},
    digests={},
    roots=frozenset({"image.squashfs"}),
    grub_server="",
)


# --- the plan -------------------------------------------------------------------------------------


def test_a_laptop_and_one_client() -> None:
    plan = plan_serving(ServeOptions("eth1", dhcp_range=RANGE), FACTS)
    assert plan == ServePlan(
        interface=ETH1, address=IPv4Interface("10.0.0.1/24"), dhcp=Dhcp.RANGE, dhcp_range=RANGE,
        tftp=True, web=Web.NGINX, http_port=80, notes=(),
    )  # fmt: skip
    assert plan.url == "http://10.0.0.1/"


def test_no_dhcp_unless_it_is_asked_for() -> None:
    plan = plan_serving(ServeOptions("eth1"), FACTS)
    assert (plan.dhcp, plan.tftp, plan.notes) == (Dhcp.NONE, True, ())
    assert plan_serving(ServeOptions("eth1", proxy_dhcp=True), FACTS).dhcp is Dhcp.PROXY


def test_the_interface_of_the_range_is_taken() -> None:
    assert plan_serving(ServeOptions(dhcp_range=RANGE), FACTS).interface is ETH1
    one = replace(FACTS, interfaces=(LO, WLAN, BARE))
    assert plan_serving(ServeOptions(), one).interface is WLAN


def test_the_address_of_the_range_is_taken() -> None:
    two = replace(ETH1, addresses=(IPv4Interface("192.0.2.1/24"), *ETH1.addresses))
    plan = plan_serving(ServeOptions("eth1", dhcp_range=RANGE), replace(FACTS, interfaces=(two,)))
    assert str(plan.address) == "10.0.0.1/24"


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        (
            {"dnsmasq": None},
            "HTTP only, no DHCP and no TFTP: dnsmasq is missing (install dnsmasq-base (Debian) or"
            " net-dns/dnsmasq (Gentoo))",
        ),
        ({"root": False}, "HTTP only, no DHCP and no TFTP: they need root"),
        (
            {"root": False, "dnsmasq": None},
            "HTTP only, no DHCP and no TFTP: they need root, and dnsmasq is missing (install"
            " dnsmasq-base (Debian) or net-dns/dnsmasq (Gentoo))",
        ),
    ],
)
def test_what_remains_possible(changes: dict[str, object], note: str) -> None:
    facts = replace(FACTS, **changes)  # type: ignore[arg-type]
    plan = plan_serving(ServeOptions("eth1", dhcp_range=RANGE), facts)
    assert (plan.dhcp, plan.dhcp_range, plan.tftp, plan.notes) == (Dhcp.NONE, None, False, (note,))
    assert plan.http_port == (80 if facts.root else 8080)


def test_without_nginx_it_is_our_own() -> None:
    plan = plan_serving(ServeOptions("eth1", http_port=8123), replace(FACTS, nginx=None))
    assert (plan.web, plan.url) == (Web.EMBEDDED, "http://10.0.0.1:8123/")


LISTED = "lo (127.0.0.1/8), eth1 (10.0.0.1/24), wlan0 (192.168.7.20/24), eth2 (no IPv4 address)"
OFF = replace(FACTS, interfaces=(replace(ETH1, up=False),))


def addresses(first: str, last: str) -> tuple[IPv4Address, IPv4Address]:
    return IPv4Address(first), IPv4Address(last)


@pytest.mark.parametrize(
    ("wish", "facts", "message"),
    [
        (
            ServeOptions("eth9"), FACTS,
            f"no network interface 'eth9' (did you mean 'eth2'?); those there are:"
            f" {LISTED}",
        ),
        (
            ServeOptions(), FACTS,
            "more than one network interface fits; name one with --interface; those there are:"
            f" {LISTED}",
        ),
        (
            ServeOptions(), replace(FACTS, interfaces=(LO,)),
            "no network interface fits; name one with --interface; those there are: lo"
            " (127.0.0.1/8)",
        ),
        (
            ServeOptions("eth2"), FACTS,
            "eth2 has no IPv4 address; give it one: ip address add 10.0.0.1/24 dev eth2 && ip link"
            " set eth2 up",
        ),
        (
            ServeOptions("eth2", dhcp_range=addresses("172.16.5.1", "172.16.5.9")), FACTS,
            "eth2 has no IPv4 address; give it one: ip address add 172.16.5.10/24 dev eth2 && ip"
            " link set eth2 up",
        ),
        (ServeOptions("eth1"), OFF, "eth1 is switched off; ip link set eth1 up"),
        (
            ServeOptions("eth1", dhcp_range=addresses("10.0.1.50", "10.0.1.99")), FACTS,
            "--dhcp-range: 10.0.1.50 is no address for a client of eth1's network 10.0.0.0/24;"
            " choose both ends in it, such as 10.0.0.2,10.0.0.51",
        ),
        (
            ServeOptions("eth1", dhcp_range=addresses("10.0.0.50", "10.0.0.255")), FACTS,
            "--dhcp-range: 10.0.0.255 is no address for a client of eth1's network 10.0.0.0/24;"
            " choose both ends in it, such as 10.0.0.2,10.0.0.51",
        ),
        (
            ServeOptions("eth1", dhcp_range=addresses("10.0.0.99", "10.0.0.50")), FACTS,
            "--dhcp-range: 10.0.0.99 to 10.0.0.50 runs backwards; write 10.0.0.50,10.0.0.99",
        ),
        (
            ServeOptions("wlan0", dhcp_range=addresses("192.168.7.10", "192.168.7.30")), FACTS,
            "--dhcp-range: 192.168.7.10 to 192.168.7.30 holds wlan0's own address 192.168.7.20;"
            " leave it out of the range",
        ),
        (
            ServeOptions("eth1"), replace(FACTS, nginx=None, embedded=False),
            "there is no web server: nginx and the Python package aiohttp are both missing;"
            " install nginx (Debian: nginx-light; Gentoo: www-servers/nginx) or"
            " catalyst-pxeboot[serve]",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be(wish: ServeOptions, facts: Facts, message: str) -> None:
    with pytest.raises(PxebootError) as caught:
        plan_serving(wish, facts)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.0.0.1/24", ("10.0.0.2", "10.0.0.51")),
        ("10.0.0.254/24", ("10.0.0.204", "10.0.0.253")),
        ("10.0.0.1/30", ("10.0.0.2", "10.0.0.2")),
    ],
)
def test_spare_addresses(address: str, expected: tuple[str, str]) -> None:
    assert spare_range(IPv4Interface(address)) == addresses(*expected)


def test_a_network_without_room() -> None:
    with pytest.raises(PxebootError) as caught:
        spare_range(IPv4Interface("10.0.0.1/32"))
    assert caught.value.message == "10.0.0.1/32 is a network without room for a client"


# --- facts ----------------------------------------------------------------------------------------


def test_interfaces_as_ip_tells_them() -> None:
    link = {
        "ifname": "eth1", "flags": ["BROADCAST", "UP"],
        "addr_info": [
            {"family": "inet", "local": "10.0.0.1", "prefixlen": 24},
            {"family": "inet6", "local": "fe80::1", "prefixlen": 64},
        ],
    }  # fmt: skip
    down = {"ifname": "eth2", "flags": ["BROADCAST"], "addr_info": []}
    assert parse_interfaces([link, {}, down]) == (ETH1, BARE)


def test_ip_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interfaces_room, "find_program", lambda _name: None)
    with pytest.raises(CommandError) as caught:
        find_ip()
    assert str(caught.value) == "ip is missing; install iproute2 (Debian: iproute2)"


def test_nginx_without_the_mirror_tells_no_begin() -> None:
    assert logs_request_start("configure arguments: --with-threads --with-http_slice_module")
    assert not logs_request_start(
        "configure arguments: --with-threads --without-http_mirror_module"
    )


def test_who_the_servers_run_as(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        assert choose_account(tmp_path) is None
        return
    tree = tmp_path / "home/tree"
    tree.mkdir(parents=True)
    for place in (tmp_path, *tmp_path.parents):
        if not place.stat().st_mode & 1:
            place.chmod(place.stat().st_mode | 0o111)
    account = choose_account(tree)
    assert account and account.user == "nobody"
    (tmp_path / "home").chmod(0o750)
    os.chown(tmp_path / "home", 1, 1)
    account = choose_account(tree)
    assert account and (account.uid, account.user) == (1, "daemon")
    os.chown(tmp_path / "home", 54321, 54321)
    with pytest.raises(PxebootError) as caught:
        choose_account(tree)
    assert str(caught.value) == (
        f"{tmp_path}/home: is closed to others, and its owner 54321 is not a user of this machine;"
        " move the tree to /srv, or open the folder: chmod o+x"
    )


# --- configurations -------------------------------------------------------------------------------


def setups(wish: ServeOptions, facts: Facts = FACTS, tree: ServedTree = TREE) -> dict[str, str]:
    """Return the files of all servers, in a scratch folder, by name."""
    plan = plan_serving(wish, facts)
    found = plan_servers(plan, tree, facts, Path("/run/x"), NOBODY)
    return {name: text for setup in found for name, text in setup.files.items()}


def rules(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_dnsmasq_is_told_who_it_is_and_where_to_stay() -> None:
    files = setups(ServeOptions("eth1", dhcp_range=RANGE))
    assert files["dnsmasq/dnsmasq.conf"] == (
        """\
user=nobody
group=nogroup
except-interface=lo
no-hosts
no-resolv
# One client that asks and takes nothing holds each of its transfers for half a minute.
tftp-max=8000
log-dhcp
log-facility=/run/x/dnsmasq/log
dhcp-leasefile=/run/x/dnsmasq/leases
pid-file=
conf-file=/run/x/dnsmasq/boot.conf
"""
    )
    assert rules(files["dnsmasq/boot.conf"]) == [
        "dhcp-range=10.0.0.50,10.0.0.99,255.255.255.0,1h",
        "interface=eth1",
        "bind-dynamic",
        "enable-tftp",
        "tftp-root=/run/x/tree",
        "port=0",
        "dhcp-authoritative",
        "dhcp-userclass=set:ipxe,iPXE",
        "dhcp-match=set:ipxe,175",
        "dhcp-boot=tag:ipxe,http://10.0.0.1/boot.ipxe",
        "dhcp-match=set:bios,option:client-arch,0",
        "dhcp-boot=tag:bios,tag:!ipxe,undionly.kpxe",
        "dhcp-match=set:x64,option:client-arch,7",
        "dhcp-match=set:x64,option:client-arch,9",
        "dhcp-boot=tag:x64,tag:!ipxe,snponly.efi",
        "dhcp-match=set:x64-http,option:client-arch,16",
        "dhcp-option-force=tag:x64-http,tag:!ipxe,60,HTTPClient",
        "dhcp-boot=tag:x64-http,tag:!ipxe,http://10.0.0.1/boot/grub/x86_64-efi/core.efi",
    ]


def test_without_dhcp_dnsmasq_does_tftp_only() -> None:
    assert setups(ServeOptions("eth1"))["dnsmasq/boot.conf"] == (
        "port=0\ninterface=eth1\nbind-dynamic\nenable-tftp\ntftp-root=/run/x/tree\n"
    )
    assert "dnsmasq/boot.conf" not in setups(ServeOptions("eth1"), replace(FACTS, dnsmasq=None))


def test_a_proxy_offers_grub_only_with_the_address_inside() -> None:
    wish = ServeOptions("eth1", proxy_dhcp=True)
    assert "boot/grub" not in "".join(rules(setups(wish)["dnsmasq/boot.conf"]))
    here = replace(TREE, grub_server="10.0.0.1", files=dict.fromkeys(FILES[-1:], 1))
    assert "dhcp-boot=tag:x64,boot/grub/x86_64-efi/core.efi" in rules(
        setups(wish, tree=here)["dnsmasq/boot.conf"]
    )
    elsewhere = replace(here, grub_server="10.0.0.9")
    assert "boot/grub" not in "".join(rules(setups(wish, tree=elsewhere)["dnsmasq/boot.conf"]))


def test_nginx_listens_on_one_address() -> None:
    text = setups(ServeOptions("eth1", http_port=8080))["nginx.conf"]
    assert [line.strip() for line in text.splitlines() if "listen" in line] == [
        "listen 10.0.0.1:8080;"
    ]
    assert "user nobody nogroup;\n" in text
    assert "disable_symlinks on from=$document_root;\n" in text
    assert "mirror /.begin;\n" in text
    assert (
        "mirror"
        not in setups(ServeOptions("eth1"), replace(FACTS, nginx_tells_begin=False))["nginx.conf"]
    )


def test_nginx_of_the_lab() -> None:
    text = nginx_config(
        Path("/run/lab"), Path("/run/lab/http"), "192.0.2.1", 80, account=("root", "root"),
        closed=False, begin=False,
    )  # fmt: skip
    assert text.startswith(
        """\
daemon off;
user root root;
worker_processes auto;
pid /run/lab/nginx.pid;
# Not of each request that is refused: a client could fill the disk.
error_log /run/lab/nginx-error.log alert;
"""
    )
    assert text.endswith(
        """\
  server {
    listen 192.0.2.1:80;
    root /run/lab/http;
  }
}
"""
    )


def test_our_own_servers_settings() -> None:
    assert json.loads(setups(ServeOptions("eth1"), replace(FACTS, nginx=None))["web.json"]) == {
        "root": "/run/x/tree", "follow": False, "address": "10.0.0.1", "port": 80,
        "log": "/run/x/access.log", "ready": "/run/x/web.pid", "probe": "manifest.json",
        "uid": 65534, "gid": 65534,
    }  # fmt: skip


def test_a_scratch_folder_that_servers_cannot_read() -> None:
    plan = plan_serving(ServeOptions("eth1"), FACTS)
    with pytest.raises(PxebootError) as caught:
        plan_servers(plan, TREE, FACTS, Path("/my tmp/x"), None)
    assert str(caught.value) == (
        "the folder for temporary files, /my tmp/x, has a name that servers cannot read; set"
        " TMPDIR to one of letters, digits and . _ + -"
    )


def test_advice() -> None:
    assert list(advice_lines(plan_serving(ServeOptions("eth1"), FACTS), TREE)) == [
        "no DHCP here; on your own DHCP server set the TFTP server to 10.0.0.1",
        "and the boot file by client:",
        "  iPXE (user class iPXE): http://10.0.0.1/boot.ipxe",
        "  BIOS (architecture 0): undionly.kpxe",
        "  UEFI x64 (architecture 7 and 9): snponly.efi",
        "a whole configuration: catalyst-pxeboot dhcp '/srv/my tree' --server 10.0.0.1/24",
    ]
    assert (
        list(advice_lines(plan_serving(ServeOptions("eth1", dhcp_range=RANGE), FACTS), TREE)) == []
    )
    bare = replace(FACTS, dnsmasq=None)
    assert list(advice_lines(plan_serving(ServeOptions("eth1"), bare), TREE)) == [
        "boot a client by iPXE: dhcp && chain http://10.0.0.1/boot.ipxe"
    ]


def test_notes_about_a_tree_of_another_server() -> None:
    proxy = plan_serving(ServeOptions("eth1", proxy_dhcp=True), FACTS)
    assert list(tree_notes(replace(TREE, grub_server="10.0.0.1"), proxy)) == []
    assert list(tree_notes(replace(TREE, grub_server="10.9.9.9"), proxy)) == [
        "the tree was built for the server 10.9.9.9: its GRUB images fetch from there, not from"
        " 10.0.0.1; build it with pxeboot/server 10.0.0.1/24"
    ]
    assert list(tree_notes(TREE, proxy)) == []  # there is iPXE
    assert list(tree_notes(replace(TREE, files=dict.fromkeys(FILES[-1:], 1)), proxy)) == [
        "GRUB is not offered: behind a proxy it boots only from a tree that was built with"
        " pxeboot/server 10.0.0.1/24"
    ]


def test_somebodys_own_server() -> None:
    server = server_for(IPv4Interface("192.168.1.1/24"), None, "eth0")
    assert (server.address, server.range_first, server.range_last, server.interface) == (
        "192.168.1.1", "192.168.1.100", "192.168.1.199", "eth0",
    )  # fmt: skip
    small = server_for(IPv4Interface("10.0.0.129/30"), None, None)
    assert (small.range_first, small.range_last) == ("10.0.0.130", "10.0.0.130")


@pytest.mark.parametrize("address", ["10.0.0.0/24", "10.0.0.255/24"])
def test_the_network_is_no_server(address: str) -> None:
    with pytest.raises(PxebootError) as caught:
        server_for(IPv4Interface(address), None, None)
    assert str(caught.value) == (
        f"--server: {address} is the network 10.0.0.0/24 or its broadcast address, not a server's;"
        " give the server's own address, such as 10.0.0.1/24"
    )


# --- the command dhcp -----------------------------------------------------------------------------


def test_dhcp_prints_a_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = make_tree(tmp_path)
    assert cli.main(["dhcp", str(tree), "--format", "kea"]) == 0
    assert capsys.readouterr().out == (tree / "dhcp/kea-dhcp4.json").read_text()
    for name, file in (("dnsmasq", "dnsmasq.conf"), ("dnsmasq-proxy", "dnsmasq-proxy.conf"),
                       ("isc", "dhcpd.conf")):  # fmt: skip
        ask = ["dhcp", str(tree), "--format", name, "--server", "192.0.2.1/24"]
        assert cli.main(ask) == 0
        assert capsys.readouterr().out == (tree / "dhcp" / file).read_text()
    more = ["--server", "10.0.0.1/24", "--range", "10.0.0.50,10.0.0.99", "--interface", "eth1"]
    assert cli.main(["dhcp", str(tree), *more]) == 0
    lines = rules(capsys.readouterr().out)
    assert lines[:2] == ["dhcp-range=10.0.0.50,10.0.0.99,255.255.255.0,1h", "interface=eth1"]
    assert "dhcp-boot=tag:ipxe,http://10.0.0.1/boot.ipxe" in lines


@pytest.mark.parametrize(
    ("more", "error"),
    [
        (
            ["--range", "10.0.0.50,10.0.0.99"],
            "--range and --interface belong to a server; add --server ADDRESS/PREFIX",
        ),
        (
            ["--server", "10.0.0.1/24", "--range", "10.0.1.50,10.0.1.99"],
            "--range: 10.0.1.50 is no address for a client of the server's network 10.0.0.0/24;"
            " choose both ends in it, such as 10.0.0.2,10.0.0.51",
        ),
    ],
)
def test_dhcp_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], error: str
) -> None:
    assert cli.main(["dhcp", str(make_tree(tmp_path)), *more]) == 1
    assert capsys.readouterr().err == f"catalyst-pxeboot: error: {error}\n"


@pytest.mark.parametrize(
    "words",
    [
        ["serve", "x", "--proxy-dhcp", "--dhcp-range", "10.0.0.1,10.0.0.2"],
        ["serve", "x", "--dhcp-range", "10.0.0.1"],
        ["serve", "x", "--http-port", "0"],
        ["dhcp", "x", "--server", "10.0.0.1"],
        ["dhcp", "x", "--format", "odhcpd"],
    ],
)
def test_wrong_usage(words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert caught.value.code == 2


# --- events ---------------------------------------------------------------------------------------

MAC = "52:54:00:12:34:56"
#: As dnsmasq 2.90 writes it.
OWN_LOG = f"""\
Nov 22 17:00:00 dnsmasq-dhcp[7]: 19 available DHCP range: 10.0.0.50 -- 10.0.0.99
Nov 22 17:00:00 dnsmasq-dhcp[7]: 19 vendor class: PXEClient:Arch:00007:UNDI:003016
Nov 22 17:00:00 dnsmasq-dhcp[7]: 19 DHCPDISCOVER(eth1) {MAC}\x20
Nov 22 17:00:00 dnsmasq-dhcp[7]: 19 tags: x64, eth1
Nov 22 17:00:00 dnsmasq-dhcp[7]: 19 DHCPOFFER(eth1) 10.0.0.52 {MAC}\x20
Nov 22 17:00:00 dnsmasq-dhcp[7]: 19 sent size: 12 option: 67 bootfile-name  snponly.efi
Nov 22 17:00:00 dnsmasq-dhcp[7]: 19 vendor class: PXEClient:Arch:00007:UNDI:003016
Nov 22 17:00:01 dnsmasq-dhcp[7]: 19 DHCPREQUEST(eth1) 10.0.0.52 {MAC}\x20
Nov 22 17:00:01 dnsmasq-dhcp[7]: 19 DHCPACK(eth1) 10.0.0.52 {MAC} host
Nov 22 17:00:01 dnsmasq-dhcp[7]: 19 sent size: 12 option: 67 bootfile-name  snponly.efi
Nov 22 17:00:02 dnsmasq-tftp[7]: error 8 User aborted the transfer received from 10.0.0.52
Nov 22 17:00:02 dnsmasq-tftp[7]: sent /run/x/tree/snponly.efi to 10.0.0.52
Nov 22 17:00:02 dnsmasq-tftp[7]: sent /run/x/tree/snponly.efi to 10.0.0.52
Nov 22 17:00:02 dnsmasq-tftp[7]: file /run/x/tree/autoexec.ipxe not found for 10.0.0.52
Nov 22 17:00:03 dnsmasq-tftp[7]: failed sending /run/x/tree/boot/gentoo to 10.0.0.52
"""
PROXY_LOG = f"""\
Nov  2 17:00:00 dnsmasq-dhcp[7]: 20 vendor class: PXEClient:Arch:00000:UNDI:003016
Nov  2 17:00:00 dnsmasq-dhcp[7]: 20 PXE(eth1) {MAC} proxy
Nov  2 17:00:00 dnsmasq-dhcp[7]: 20 tags: bios, eth1
Nov  2 17:00:00 dnsmasq-dhcp[7]: 20 bootfile name: undionly.kpxe
Nov  2 17:00:00 dnsmasq-dhcp[7]: 20 PXE(eth1) 10.0.0.52 {MAC} undionly.kpxe
Nov  2 17:00:00 dnsmasq-dhcp[7]: 20 bootfile name: undionly.kpxe
"""
NOW = datetime(2026, 11, 22, 17, 0, tzinfo=UTC)
TIME = "2026-11-22T17:00:00Z"
CLIENT = {"ip": "10.0.0.52", "mac": MAC, "arch": "UEFI x64"}


def make_tracker() -> Tracker:
    return Tracker(TREE, Path("/run/x/tree"), lambda _ip: None, lambda: NOW)


def tell(tracker: Tracker, log: str) -> list[tuple[dict[str, object], str]]:
    lines = [line for line in map(parse_dnsmasq, log.splitlines()) if line]
    return told(event for line in lines for event in tracker.take(line))


def told(events: Iterable[Event]) -> list[tuple[dict[str, object], str]]:
    found = []
    for event in events:
        data = dict(event.data)
        assert data.pop("time") == TIME
        found.append((data, event.text))
    return found


def test_events_of_own_dhcp_and_tftp() -> None:
    assert tell(make_tracker(), OWN_LOG) == [
        (
            {"event": "offer", **CLIENT, "file": "snponly.efi"},
            "10.0.0.52  UEFI x64  is offered snponly.efi",
        ),
        (
            {
                "event": "file", **CLIENT, "scheme": "tftp", "file": "snponly.efi", "bytes": 1000,
                "seconds": None,
            },
            "10.0.0.52  UEFI x64  snponly.efi",
        ),
        (
            {
                "event": "refused", **CLIENT, "scheme": "tftp", "file": "autoexec.ipxe",
                "status": None,
            },
            "10.0.0.52  UEFI x64  autoexec.ipxe: not in the tree",
        ),
        (
            {"event": "broken", **CLIENT, "scheme": "tftp", "file": "boot/gentoo", "bytes": 0},
            "10.0.0.52  UEFI x64  boot/gentoo: ended early, after 0 B",
        ),
    ]  # fmt: skip


def test_events_of_a_proxy() -> None:
    data = {"event": "offer", "mac": MAC, "arch": "BIOS", "file": "undionly.kpxe"}
    # Told once, though the client asks twice.
    assert tell(make_tracker(), PROXY_LOG) == [
        ({**data, "ip": None}, f"{MAC}  BIOS  is offered undionly.kpxe")
    ]


def test_an_offer_is_told_again_after_a_while() -> None:
    times = iter([NOW, NOW, NOW + timedelta(seconds=40), NOW])
    tracker = Tracker(TREE, Path("/run/x/tree"), lambda _ip: None, lambda: next(times))
    lines = [line for line in map(parse_dnsmasq, PROXY_LOG.splitlines()) if line]
    assert sum(len(list(tracker.take(line))) for line in lines) == 2


def end(file: str, count: int, status: int = 200, method: str = "GET", port: int = 9) -> HttpEnd:
    return HttpEnd("10.0.0.52", port, method, file, status, count, count + 300, 8.2)


def test_events_of_a_large_file() -> None:
    tracker = make_tracker()
    tell(tracker, OWN_LOG)
    connection = ("10.0.0.52", 9)
    assert not tracker.is_watching()
    list(tracker.take(HttpBegin("10.0.0.52", 9, "/boot.ipxe")))
    list(tracker.take(end("/boot.ipxe", 1000)))
    assert not tracker.is_watching()
    list(tracker.take(HttpBegin("10.0.0.52", 9, "/image.squashfs")))
    assert tracker.is_watching()
    total = 700 << 20
    steps = [
        (
            1300 + part * total // 100,
            told(tracker.progress({connection: 1300 + part * total // 100})),
        )
        for part in (0, 24, 25, 26, 49, 80, 99)
    ]
    lines = [text for _, found in steps for _, text in found]
    assert lines == [
        "10.0.0.52  UEFI x64  image.squashfs 25 % of 700 MiB",
        "10.0.0.52  UEFI x64  image.squashfs 75 % of 700 MiB",
    ]
    assert steps[2][1][0][0] == {
        "event": "progress", **CLIENT, "scheme": "http", "file": "image.squashfs",
        "bytes": total // 4, "total": total, "percent": 25,
    }  # fmt: skip
    assert told(tracker.take(end("/image.squashfs", total))) == [
        (
            {
                "event": "root", **CLIENT, "scheme": "http", "file": "image.squashfs",
                "bytes": total, "seconds": 8.2,
            },
            "10.0.0.52  UEFI x64  live root fetched, 700 MiB in 8 s",
        )
    ]  # fmt: skip
    assert not tracker.is_watching()


def test_a_file_in_parts_a_part_of_a_file_and_no_file() -> None:
    tracker = make_tracker()
    total = 700 << 20
    assert told(tracker.take(end("/image.squashfs", total - 1, 206))) == []
    assert [data["event"] for data, _ in told(tracker.take(end("/image.squashfs", 1, 206)))] == [
        "root"
    ]
    assert told(tracker.take(end("/image.squashfs", 1 << 20)))[0][1] == (
        "10.0.0.52  image.squashfs: ended early, after 1.0 MiB"
    )
    assert told(tracker.take(end("/boot.ipxe", 0, 200, "HEAD"))) == []
    assert told(tracker.take(end("/boot.ipxe", 0, 304))) == []
    assert told(tracker.take(end("/a\n\x1b[2J", 9, 404)))[0][1] == "10.0.0.52  a\\n\\x1b[2J: 404"
    assert told(tracker.take(end("", 9, 400, "")))[0][1] == "10.0.0.52  no request: 400"


def test_many_clients_are_not_kept_for_ever() -> None:
    tracker = make_tracker()
    for number in range(6000):
        list(tracker.take(replace(end("/boot.ipxe", 1000, port=number), client=f"c{number}")))
    assert len(tracker._sent) == 4096


def test_the_last_event() -> None:
    assert (stopped_event().data["event"], stopped_event().text) == (
        "stopped",
        "all servers stopped",
    )


def test_lines_of_a_web_server() -> None:
    assert parse_web('{"event":"begin","client":"a","port":"7","path":"/b%20c?x=1"}') == (
        HttpBegin("a", 7, "/b c")
    )
    assert parse_web("no line") is None
    assert parse_web("[]") is None
    assert parse_web('{"event":"end"}') is None
    assert parse_dnsmasq("dnsmasq[7]: started, version 2.90 DNS disabled") is None


def test_a_log_is_read_as_it_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("catalyst_pxeboot.services.logs._MOST_LOG", 10)
    log = tmp_path / "log"
    tail = Tail(log)
    assert list(tail.lines()) == []
    with log.open("ab", buffering=0) as stream:
        stream.write(b"one\ntw")
        assert list(tail.lines()) == ["one"]
        stream.write(b"o\nthree\n")
        assert list(tail.lines()) == ["two", "three"]
        assert log.stat().st_size == 0  # it had become large
        stream.write(b"four\n")
        assert list(tail.lines()) == ["four"]
