"""The lab's network."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from catalyst_pxeboot.lab import network
from catalyst_pxeboot.lab.network import Network, Subnet, make_network, network_argv, why_no_network
from catalyst_pxeboot.lab.plainrom import disguised_link
from catalyst_pxeboot.util.errors import CommandError

NETWORK_LINES = """
-n lab link set lo up
-n lab link add br0 type bridge stp_state 0 forward_delay 0
-n lab address add 192.0.2.1/24 dev br0
-n lab link set br0 up
-n lab tuntap add dev tap0 mode tap
-n lab link set tap0 master br0 up
"""
OTHER_LINES = """
-n lab link add veth0 type veth peer name lan0 netns lab-other
-n lab link set veth0 master br0 up
-n lab-other link set lo up
-n lab-other address add 192.0.2.2/24 dev lan0
-n lab-other link set lan0 up
"""


def test_network_commands() -> None:
    lines = [" ".join(words) for words in network_argv(Network("lab", None, Subnet()))]
    assert lines == NETWORK_LINES.strip().splitlines()
    lines = [" ".join(words) for words in network_argv(Network("lab", "lab-other", Subnet()))]
    assert lines == (NETWORK_LINES + OTHER_LINES.lstrip()).strip().splitlines()


def test_commands_inside_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "find_ip", lambda: Path("/sbin/ip"))
    net = Network("lab", "lab-other", Subnet())
    assert net.inside(["qemu", "-x"]) == ("/sbin/ip", "netns", "exec", "lab", "qemu", "-x")
    assert net.inside(["d"], "lab-other") == ("/sbin/ip", "netns", "exec", "lab-other", "d")


class FakeIp:
    """Stands in for `ip`: keeps the commands and fails where a test says so."""

    def __init__(self, fail: str = "\0") -> None:
        self.lines: list[str] = []
        self._fail = fail

    def __call__(self, argv: list[str | Path], **_: object) -> bytes:
        line = " ".join(map(str, argv[1:]))
        self.lines.append(line)
        if self._fail in line:
            raise CommandError("ip failed")
        return b""


@pytest.mark.parametrize("fail", ["\0", "tuntap", "-other address add", "netns delete"])
def test_namespaces_are_removed_whatever_happens(
    monkeypatch: pytest.MonkeyPatch, fail: str
) -> None:
    fake = FakeIp(fail)
    monkeypatch.setattr(network, "run", fake)
    monkeypatch.setattr(network, "find_program", lambda name: Path("/sbin", name))
    with pytest.raises(CommandError), make_network(Subnet(), other=True):
        raise CommandError("the boot failed")
    added = [line.split()[-1] for line in fake.lines if line.startswith("netns add")]
    deleted = [line.split()[-1] for line in fake.lines if line.startswith("netns delete")]
    assert len(added) == 2
    assert added[1] == f"{added[0]}-other"
    assert deleted == added[::-1]
    assert fake.lines[-2:] == [f"netns delete {name}" for name in deleted]


def test_two_networks_have_names_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "run", FakeIp())
    monkeypatch.setattr(network, "find_program", lambda name: Path("/sbin", name))
    with make_network(Subnet(), other=False) as one, make_network(Subnet(), other=False) as two:
        assert one.server != two.server
        assert one.other is None


def test_no_network_without_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert why_no_network() == "network namespaces need root"


@pytest.mark.skipif(bool(why_no_network()), reason=f"no namespaces: {why_no_network()}")
def test_a_real_network_comes_and_goes() -> None:
    def names() -> bytes:
        return subprocess.run(["ip", "netns"], check=True, capture_output=True).stdout

    with make_network(Subnet(), other=True) as net:
        assert net.server.encode() in names()
        seen = subprocess.run(
            net.inside(["ip", "-brief", "address"]), check=True, capture_output=True, text=True
        ).stdout
        assert re.search(r"^br0 .*192\.0\.2\.1/24", seen, re.MULTILINE)
        assert "tap0" in seen
        os.close(net.open_tap())
        with disguised_link(net.open_tap()) as (link, _disguise):
            assert link.netdev == f"socket,id=net0,fd={link.descriptor}"
    assert net.server.encode() not in names()
