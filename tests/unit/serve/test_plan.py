"""What is planned from which facts."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface

import pytest

from catalyst_pxeboot.serve.plan import (
    Dhcp,
    Facts,
    ServeOptions,
    ServePlan,
    Web,
    plan_serving,
    spare_range,
)
from catalyst_pxeboot.util.errors import PxebootError
from tests.support.serve_facts import BARE, ETH1, FACTS, LO, RANGE, WLAN


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
            "--dhcp-range: 10.0.1.50 is not an address for a client of eth1's network 10.0.0.0/24;"
            " choose both ends in it, such as 10.0.0.2,10.0.0.51",
        ),
        (
            ServeOptions("eth1", dhcp_range=addresses("10.0.0.50", "10.0.0.255")), FACTS,
            "--dhcp-range: 10.0.0.255 is not an address for a client of eth1's network 10.0.0.0/24;"
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
            "no web server found: nginx and the Python package aiohttp are both missing;"
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


def test_dhcp_beside_the_default_route_is_warned_of() -> None:
    facts = replace(FACTS, default_route="eth1")
    (note,) = plan_serving(ServeOptions("eth1", dhcp_range=RANGE), facts).notes
    assert note.startswith("eth1 has the default route")
    assert plan_serving(ServeOptions("eth1", proxy_dhcp=True), facts).notes == ()
    assert plan_serving(ServeOptions("eth1", dhcp_range=RANGE), FACTS).notes == ()


def test_only_needs_dhcp() -> None:
    with pytest.raises(PxebootError, match=r"^--only: there is no DHCP here"):
        plan_serving(ServeOptions("eth1", only=("52:54:00:12:34:56",)), FACTS)
