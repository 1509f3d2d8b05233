"""The command dhcp."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalyst_pxeboot.cli import main as cli
from tests.support.readers import rules
from tests.support.serve_trees import make_tree


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
            "--range: 10.0.1.50 is not an address for a client of the server's network 10.0.0.0/24;"
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
