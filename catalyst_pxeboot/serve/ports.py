"""Whether a port is free, and who has it otherwise."""

from __future__ import annotations

import socket
from enum import StrEnum
from pathlib import Path

_TCP_LISTEN = "0A"  # the state column of /proc/net/tcp (include/net/tcp_states.h)


class Protocol(StrEnum):
    """A transport protocol, by the name of its table in /proc/net."""

    TCP = "tcp"
    UDP = "udp"


def why_taken(protocol: Protocol, address: str, port: int, *, shared: bool = False) -> str:
    """Say why a server cannot have the port; empty if it can.

    `shared` is for DHCP: its servers on other interfaces may have the same port, if all of them
    say so (SO_REUSEADDR and SO_REUSEPORT), and `address` is 0.0.0.0 then.
    """
    kind = socket.SOCK_STREAM if protocol is Protocol.TCP else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as probe:
        if protocol is Protocol.TCP or shared:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            probe.bind((address, port))
            if protocol is Protocol.TCP:
                probe.listen(1)
        except PermissionError:
            return "it needs root"
        except OSError as error:
            owner = find_owner(protocol, port)
            return f"{owner} has it" if owner else str(error.strerror)
    return ""


def find_owner(protocol: Protocol, port: int) -> str:
    """Name the process that has a port, as `nginx (process 7)`; empty where it is not known."""
    sockets = _find_sockets(protocol, port)
    for process in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            for descriptor in (process / "fd").iterdir():
                if str(descriptor.readlink()) in sockets:
                    name = (process / "comm").read_text("utf-8", "replace").strip()
                    return f"{name} (process {process.name})"
        except OSError:
            continue  # another user's, or gone
    return ""


def _find_sockets(protocol: Protocol, port: int) -> set[str]:
    """Find the inodes of a port's sockets, as /proc/PID/fd names them (man 5 proc)."""
    found = set()
    for table in (protocol, f"{protocol}6"):
        try:
            lines = Path("/proc/net", table).read_text().splitlines()[1:]
        except OSError:
            continue
        for columns in map(str.split, lines):
            local, state, inode = columns[1], columns[3], columns[9]
            listening = protocol is Protocol.UDP or state == _TCP_LISTEN
            if listening and int(local.rpartition(":")[2], 16) == port:
                found.add(f"socket:[{inode}]")
    return found
