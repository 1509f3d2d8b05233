"""The lab's servers: their configurations and logs."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from catalyst_pxeboot.lab import servers as services
from catalyst_pxeboot.lab.network import Subnet
from catalyst_pxeboot.lab.paths import BootPath, DhcpMode
from catalyst_pxeboot.lab.servers import (
    Site,
    choose_loader,
    path_site,
    plan_site,
    tftp_bytes,
)
from catalyst_pxeboot.model.arch import all_arches, find_arch
from catalyst_pxeboot.model.loader import BootProgram
from catalyst_pxeboot.model.manifest import MANIFEST
from catalyst_pxeboot.model.settings import Server
from catalyst_pxeboot.render.dhcp import render_dhcp
from catalyst_pxeboot.services.children import running
from catalyst_pxeboot.util.errors import CommandError, PxebootError, SpecError, VerifyError
from catalyst_pxeboot.util.records import encode
from tests.support.lab import LPXELINUX, PROXY, PXELINUX, ROW_1, mute_manifest, write_script

TFTP_LOG = """\
Nov 22 17:00:00 dnsmasq-tftp[77]: TFTP root is {root}
Nov 22 17:00:01 dnsmasq-dhcp[77]: 12 sent size:  1 option: 53 message-type  2
Nov 22 17:00:02 dnsmasq-tftp[77]: error 8 User aborted the transfer received from 192.0.2.7
Nov 22 17:00:02 dnsmasq-tftp[77]: sent {root}/boot/core.efi to 192.0.2.7
Nov 22 17:00:03 dnsmasq-tftp[77]: sent {root}/boot/core.efi to 192.0.2.7
Nov 22 17:00:03 dnsmasq-tftp[77]: file {root}/pxelinux.cfg/C not found for 192.0.2.7
Nov 22 17:00:04 dnsmasq-tftp[77]: sent {root}/my file to 192.0.2.7
dnsmasq-tftp: sent {root}/my file to 192.0.2.7
Nov 22 17:00:05 dnsmasq-tftp[77]: failed sending {root}/boot/big to 192.0.2.7
Nov 22 17:00:06 dnsmasq-tftp[77]: error 0 No error, file close received from 192.0.2.7
Nov 22 17:00:06 dnsmasq-tftp[77]: failed sending {root}/image to 192.0.2.7
"""


def test_bytes_from_dnsmasqs_log(tmp_path: Path) -> None:
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot/core.efi").write_bytes(bytes(1000))
    (tmp_path / "boot/big").write_bytes(bytes(9))
    (tmp_path / "my file").write_bytes(bytes(10))
    (tmp_path / "image").write_bytes(bytes(5))
    assert tftp_bytes(TFTP_LOG.format(root=tmp_path), tmp_path) == {
        "boot/core.efi": 1000,
        "pxelinux.cfg/C": 0,
        "my file": 10,  # the line without dnsmasq's time could be a client's text
        "boot/big": 0,
        "image": 5,  # PXELINUX had all of it
    }


def test_dnsmasq_configs() -> None:
    assert services.lab_config(Path("/run/lab/dhcp"), Path("/run/lab/own.conf")) == (
        """\
no-ping
user=root
group=root
# One client that asks and takes nothing holds each of its transfers for half a minute.
tftp-max=8000
log-dhcp
log-facility=/run/lab/dhcp/log
dhcp-leasefile=/run/lab/dhcp/leases
pid-file=
conf-file=/run/lab/own.conf
"""
    )
    assert services.other_config(Subnet()) == (
        """\
port=0
interface=lan0
bind-dynamic
dhcp-range=192.0.2.100,192.0.2.199,255.255.255.0,10m
"""
    )


def site(path: BootPath, server: Server | None = None, *, proxy: bool = False) -> services.Site:
    """Render the configuration of a tree that has every loader, and choose the path's."""
    (arch,) = (arch for arch in all_arches() if arch.name == "amd64")
    files = {"boot.ipxe", *(file for client in arch.dhcp for file in client.loaders)}
    name = "dhcp/dnsmasq-proxy.conf" if proxy else "dhcp/dnsmasq.conf"
    (made,) = (
        made
        for made in render_dhcp(arch, files=files, server=server, templates=None)
        if made.path == name
    )
    dhcp = DhcpMode.PROXY if proxy else DhcpMode.OWN
    return choose_loader(plan_site(made.content.decode(), server or Server(), dhcp), path)


def rules(path: BootPath, *, proxy: bool = False) -> list[str]:
    """Return the lines about loaders that count, of the rendered configuration for `path`."""
    kinds = ("dhcp-boot=", "pxe-service=", "dhcp-option-force=tag:bios")
    lines = site(path, proxy=proxy).config.splitlines()
    return [line for line in lines if line.startswith(kinds) and "x64" not in line]


def test_the_network_takes_the_configurations_addresses() -> None:
    assert site(ROW_1).subnet == Subnet()
    server = Server("10.1.2.1", "255.255.254.0", "10.1.2.2", "10.1.3.8", "eth7", 8080, "a/b", "c")
    read = site(ROW_1, server)
    assert read.subnet == Subnet(
        "10.1.2.1", "10.1.3.9", "255.255.254.0", 23, "10.1.2.2", "10.1.3.8"
    )
    assert (read.url, read.tftp_prefix) == ("http://10.1.2.1:8080/a/b/", "c")
    assert "dhcp-boot=tag:bios,tag:!ipxe,c/undionly.kpxe\n" in read.config
    placed = services._placed(read.config, Path("/run/lab/tftp"))
    changed = set(placed.splitlines()) - set(read.config.splitlines())
    assert changed == {"tftp-root=/run/lab/tftp", "interface=br0"}


def test_a_proxys_network() -> None:
    server = Server("10.1.2.1", interface="eth7", range_first="10.1.2.3", range_last="10.1.2.4")
    assert site(PROXY, server, proxy=True).subnet == Subnet(
        "10.1.2.1", "10.1.2.2", "255.255.255.0", 24, "10.1.2.3", "10.1.2.31"
    )


def test_a_server_that_cannot_be() -> None:
    with pytest.raises(SpecError, match="is not an IPv4 address"):
        plan_site("", Server("pxe.example"), DhcpMode.OWN)


def test_the_smallest_networks() -> None:
    server = Server("10.0.0.0", "255.255.255.254", "10.0.0.1", "10.0.0.1")
    assert plan_site("", server, DhcpMode.OWN).subnet.first == "10.0.0.1"
    with pytest.raises(PxebootError, match="has no room for another DHCP server and a client"):
        plan_site("", server, DhcpMode.PROXY)


@pytest.mark.parametrize(
    "line",
    [
        "dhcp-script=/srv/tree/run",
        " dhcp-luascript = /x",
        "\fdhcp-script=/x",
        "conf-file=/etc/shadow",
        "log-facility=/etc/cron.d/x",
        "dhcp-hostsfile=/etc/shadow",
        "user=root",
        'dhcp"-script"=/x',
        "--dhcp-script=/x",
        "tftp-root /",
        "x # dhcp-boot=a",
        "dhcp-boot=a\0b",
        "dhcp-boot=a\rdhcp-script=/x",
        # dnsmasq reads 1,024 bytes at a time.
        "dhcp-boot=" + 1014 * "a" + "dhcp-script=/x",
        "# " + 1022 * "a" + "dhcp-script=/x",
    ],
)
def test_a_tree_cannot_make_dnsmasq_run_or_read_a_file(line: str) -> None:
    """`boot-test` runs it as root, and the tree may be anybody's."""
    with pytest.raises(VerifyError, match="the tree's configuration of dnsmasq: line 2 has "):
        services._placed(f"enable-tftp\n{line}\n", Path("/run/lab/tftp"))


def test_the_folder_is_the_labs_however_it_is_written() -> None:
    placed = services._placed("tftp-root = /\n\ttftp-root=/etc,br0\nenable-tftp\n", Path("/lab"))
    assert placed == "tftp-root=/lab\ntftp-root=/lab\nenable-tftp\n"


@pytest.mark.parametrize("arch", [arch.subarches[0] for arch in all_arches()])
def test_what_the_templates_write_is_taken(arch: str) -> None:
    program = BootProgram("boot/gentoo.efi", True)
    names = {file for client in find_arch(arch).dhcp for file in client.loaders}
    for server in (None, Server(interface="lan0")):
        made = render_dhcp(
            find_arch(arch), files={"boot.ipxe", *names}, server=server, templates=None,
            program=program,
        )  # fmt: skip
        for file in made:
            if "dnsmasq" in file.path:
                assert services._placed(file.content.decode(), Path("/lab"))


def test_a_trees_own_configuration_comes_first(row_tree: Path) -> None:
    manifest = json.loads(mute_manifest())
    (row_tree / MANIFEST).write_text(json.dumps(manifest))
    assert path_site(row_tree, ROW_1).subnet == Subnet()
    server = Server("10.1.2.1", range_first="10.1.2.3", range_last="10.1.2.4")
    (row_tree / MANIFEST).write_text(json.dumps({**manifest, "server": encode(server)}))
    expected = site(ROW_1, server)
    (row_tree / "dhcp").mkdir()
    # The comments are the template's, and no one reads them.
    lines = [line for line in expected.config.splitlines(True) if not line.startswith("# ")]
    (row_tree / "dhcp/dnsmasq.conf").write_text("".join(lines))
    assert path_site(row_tree, ROW_1) == replace(expected, config="".join(lines))


def test_the_rendered_configuration_is_used_as_it_is() -> None:
    assert rules(ROW_1) == [
        "dhcp-boot=tag:ipxe,http://192.0.2.1/boot.ipxe",
        "dhcp-boot=tag:bios,tag:!ipxe,undionly.kpxe",
        "dhcp-boot=tag:ia32,tag:!ipxe,snponly-i386.efi",
        "dhcp-boot=tag:ia32-http,tag:!ipxe,http://192.0.2.1/boot/grub/i386-efi/core.efi",
    ]


def test_another_loader_is_switched_on() -> None:
    assert rules(PXELINUX)[1:3] == [
        "dhcp-boot=tag:bios,tag:!ipxe,undionly.kpxe",
        "dhcp-boot=tag:bios,tag:!ipxe,pxelinux.0",
    ]
    assert rules(LPXELINUX)[2:4] == [
        "dhcp-boot=tag:bios,tag:!ipxe,lpxelinux.0",
        "dhcp-option-force=tag:bios,tag:!ipxe,210,http://192.0.2.1/",
    ]


def test_a_proxy_offers_bios_one_loader() -> None:
    lines = [line for line in rules(PROXY, proxy=True) if line.startswith("pxe-service")]
    assert lines == [
        'pxe-service=tag:ipxe,x86PC,"iPXE menu",http://192.0.2.1/boot.ipxe',
        'pxe-service=tag:!ipxe,x86PC,"Network boot",pxelinux.0',
    ]


def test_a_loader_that_dhcp_does_not_name() -> None:
    with pytest.raises(PxebootError) as caught:
        choose_loader(Site("dhcp-boot=tag:bios,pxelinux.0\n", Subnet()), ROW_1)
    assert str(caught.value) == (
        "bios-ipxe: the tree's DHCP configuration does not name undionly.kpxe"
    )


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    program = write_script(tmp_path / "ip", "echo 'illegal keyword at line 3' >&2; exit 1")
    argv = [str(program), "netns", "exec", "lab", "/sbin/dnsmasq"]
    with (
        pytest.raises(CommandError) as caught,
        running(
            "dnsmasq", argv, messages=tmp_path / "messages", ready=lambda: False,
            log=tmp_path / "log",
        ),
    ):  # fmt: skip
        pass
    assert str(caught.value) == "dnsmasq did not start: illegal keyword at line 3"


def test_a_server_is_stopped(tmp_path: Path) -> None:
    program = write_script(tmp_path / "ip", f"echo $$ > {tmp_path}/pid; exec sleep 60")
    argv = [str(program), "netns", "exec", "lab", "/sbin/dnsmasq"]
    ready = (tmp_path / "pid").exists
    messages = tmp_path / "messages"
    with running("dnsmasq", argv, messages=messages, ready=ready, log=tmp_path / "log"):
        pass
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
