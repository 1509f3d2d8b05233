"""A private network for one boot: namespaces, a bridge and a tap, made and removed by `ip`.

Nothing outside the namespaces changes: no address, route or firewall rule of the machine. Needs
root. A lab that was killed outright leaves its namespaces behind; `ip netns delete` removes them.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from catalyst_pxeboot.services.interfaces import find_ip
from catalyst_pxeboot.util.errors import CommandError
from catalyst_pxeboot.util.process import find_program, run

BRIDGE = "br0"  # the network, as the tree's server sees it
TAP = "tap0"  # the client's cable
_CABLE = "veth0"  # between the bridge and the other DHCP server
OTHER = "lan0"  # the other DHCP server's end of it

_TUNSETIFF = 0x400454CA  # linux/if_tun.h
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Subnet:
    """The addresses of a lab's network. They exist in its namespaces only.

    The defaults fit the placeholders of the rendered DHCP configurations.
    """

    server: str = "192.0.2.1"  # of the machine that serves the tree
    other: str = "192.0.2.2"  # of a DHCP server that knows nothing of network boots
    mask: str = "255.255.255.0"
    prefix: int = 24
    first: str = "192.0.2.100"
    last: str = "192.0.2.199"


@dataclass(frozen=True, slots=True)
class Network:
    """A network that is up: the namespace of the tree's server, and the other DHCP server's."""

    server: str
    other: str | None
    subnet: Subnet

    def inside(self, argv: Sequence[str | Path], namespace: str = "") -> tuple[str, ...]:
        """Write the command line that runs `argv` in a namespace, by default the server's."""
        words = [str(word) for word in argv]
        return (str(find_ip()), "netns", "exec", namespace or self.server, *words)

    def open_tap(self) -> int:
        """Open the client's end of the tap and return its descriptor: a frame a read."""
        return join_namespace(self.server, _open_tap)


def why_no_network() -> str:
    """Say why this machine cannot make a lab's network; empty where it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if find_program("ip") is None:
        return "the program ip is missing (install iproute2)"
    if not Path("/dev/net/tun").exists():
        return "/dev/net/tun is missing (modprobe tun)"
    name = _fresh_name()
    try:
        run([find_ip(), "netns", "add", name])
    except CommandError as error:
        return f"network namespaces are not available here: {error.message}"
    run([find_ip(), "netns", "delete", name])
    return ""


@contextmanager
def make_network(subnet: Subnet, *, other: bool) -> Iterator[Network]:
    """Make a network while the context lasts; `other` adds a namespace for a DHCP server.

    Its namespaces have names of their own, so labs can run beside each other. Raises
    `CommandError`.
    """
    name = _fresh_name()
    network = Network(name, f"{name}-other" if other else None, subnet)
    with ExitStack() as stack:
        for namespace in (network.server, network.other):
            if namespace:
                run([find_ip(), "netns", "add", namespace])
                stack.callback(_delete, namespace)
        for argv in network_argv(network):
            run([find_ip(), *argv])
        yield network


def network_argv(network: Network) -> tuple[tuple[str, ...], ...]:
    """Write the arguments of `ip`, a command each, that set up a network's empty namespaces."""
    subnet = network.subnet
    here = ("-n", network.server)
    lines = [
        (*here, "link", "set", "lo", "up"),
        # A bridge that learns nothing about loops forwards from the first frame on.
        (*here, "link", "add", BRIDGE, "type", "bridge", "stp_state", "0", "forward_delay", "0"),
        (*here, "address", "add", f"{subnet.server}/{subnet.prefix}", "dev", BRIDGE),
        (*here, "link", "set", BRIDGE, "up"),
        (*here, "tuntap", "add", "dev", TAP, "mode", "tap"),
        (*here, "link", "set", TAP, "master", BRIDGE, "up"),
    ]
    if network.other:
        there = ("-n", network.other)
        lines += [
            (*here, "link", "add", _CABLE, "type", "veth",
             "peer", "name", OTHER, "netns", network.other),
            (*here, "link", "set", _CABLE, "master", BRIDGE, "up"),
            (*there, "link", "set", "lo", "up"),
            (*there, "address", "add", f"{subnet.other}/{subnet.prefix}", "dev", OTHER),
            (*there, "link", "set", OTHER, "up"),
        ]  # fmt: skip
    return tuple(lines)


def join_namespace(namespace: str, act: Callable[[], T]) -> T:
    """Call `act` inside a network namespace and return what it returns.

    Sockets and taps belong to the namespace where they were opened, whoever uses them later. A
    thread of its own joins it, so nothing else of this process moves.
    """
    # Here, not at the top: everything without namespaces works without it.
    from snakeoil.process.namespaces import CLONE_NEWNET, setns

    results: list[T] = []
    faults: list[BaseException] = []

    def work() -> None:
        try:
            setns(f"/run/netns/{namespace}", CLONE_NEWNET)
            results.append(act())
        except BaseException as error:  # raised in the caller's thread
            faults.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if faults:
        raise faults[0]
    return results[0]


def _open_tap() -> int:
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", TAP.encode(), _FLAGS))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


_FLAGS = _IFF_TAP | _IFF_NO_PI


def _fresh_name() -> str:
    return f"pxeboot-{os.getpid()}-{secrets.token_hex(3)}"


def _delete(namespace: str) -> None:
    # What went wrong before matters more than this.
    with suppress(CommandError):
        run([find_ip(), "netns", "delete", namespace])
