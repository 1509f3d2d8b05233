"""The servers' configurations."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from catalyst_pxeboot.render.servers import nginx_config
from catalyst_pxeboot.serve.advice import advice_lines, tree_notes
from catalyst_pxeboot.serve.configs import plan_servers, server_for
from catalyst_pxeboot.serve.facts import ServedTree
from catalyst_pxeboot.serve.plan import Facts, ServeOptions, plan_serving
from catalyst_pxeboot.util.errors import PxebootError
from tests.support.readers import rules
from tests.support.serve_facts import FACTS, FILES, NOBODY, RANGE, TREE


def setups(wish: ServeOptions, facts: Facts = FACTS, tree: ServedTree = TREE) -> dict[str, str]:
    """Return the files of all servers, in a scratch folder, by name."""
    plan = plan_serving(wish, facts)
    found = plan_servers(plan, tree, facts, Path("/run/x"), NOBODY)
    return {name: text for setup in found for name, text in setup.files.items()}


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


@pytest.mark.parametrize(
    "wish", [ServeOptions("eth1", dhcp_range=RANGE), ServeOptions("eth1", proxy_dhcp=True)]
)
def test_only_listed_machines(wish: ServeOptions) -> None:
    listed = replace(wish, only=("52:54:00:12:34:56", "52:54:00:12:34:57"))
    usual, only = (rules(setups(each)["dnsmasq/boot.conf"]) for each in (wish, listed))
    assert only == [
        *usual,
        "dhcp-host=52:54:00:12:34:56,set:listed",
        "dhcp-host=52:54:00:12:34:57,set:listed",
        "dhcp-ignore=tag:!listed",
    ]
