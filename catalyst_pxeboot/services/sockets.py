"""How much of what a server sent has arrived: the kernel's own count, for any process's socket.

A web server logs a request when it has ended. How far a large one is, only the kernel knows:
`tcpi_bytes_acked` of its socket (linux/tcp.h, RFC 4898 tcpEStatsAppHCThruOctetsAcked), which
NETLINK_SOCK_DIAG returns (man 7 sock_diag).
"""

from __future__ import annotations

import resource
import socket
import struct
from collections.abc import Iterator, Mapping

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLM_F_REQUEST_DUMP = 0x301
_INET_DIAG_INFO = 2
_ESTABLISHED_AND_CLOSING = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8  # and FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT
_HEAD = struct.Struct("=IHHII")  # nlmsghdr
_REQUEST = struct.Struct("=BBBxI2s2s16s16sIQ")  # inet_diag_req_v2
_MESSAGE = struct.Struct("=BBBB2s2s16s16sIQIIIII")  # inet_diag_msg

#: Where `tcpi_bytes_acked` is in `struct tcp_info`.
BYTES_ACKED = 120


def raise_file_limit(wanted: int) -> None:
    """Let this process and its children open `wanted` files and sockets, or as many as they may."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    able = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(now, able), most))


def read_arrived(address: str, port: int) -> Mapping[tuple[str, int], int]:
    """Return the bytes that have arrived by each client's address and port, of a server's socket.

    Counts the whole connection, headers included. Empty where the kernel does not say.
    """
    request = _REQUEST.pack(
        socket.AF_INET, socket.IPPROTO_TCP, 1 << (_INET_DIAG_INFO - 1), _ESTABLISHED_AND_CLOSING,
        port.to_bytes(2, "big"), bytes(2), bytes(16), bytes(16), 0, 0xFFFFFFFFFFFFFFFF,
    )  # fmt: skip
    head = _HEAD.pack(_HEAD.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST_DUMP, 1, 0)
    found = {}
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as link:
            link.settimeout(1)
            link.send(head + request)
            for message in _messages(link):
                fields = _MESSAGE.unpack_from(message)
                source, client = fields[4], fields[5]
                here, there = fields[6], fields[7]
                if socket.inet_ntoa(here[:4]) != address or int.from_bytes(source) != port:
                    continue
                for kind, value in _attributes(message[_MESSAGE.size :]):
                    if kind == _INET_DIAG_INFO and len(value) >= BYTES_ACKED + 8:
                        (arrived,) = struct.unpack_from("=Q", value, BYTES_ACKED)
                        found[socket.inet_ntoa(there[:4]), int.from_bytes(client)] = arrived
    except OSError:
        return {}
    return found


def _messages(link: socket.socket) -> Iterator[bytes]:
    while True:
        data = link.recv(1 << 16)
        while len(data) >= _HEAD.size:
            length, kind, _, _, _ = _HEAD.unpack_from(data)
            if kind in (_NLMSG_DONE, _NLMSG_ERROR) or length < _HEAD.size:
                return
            yield data[_HEAD.size : length]
            data = data[-(-length // 4) * 4 :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            return
        yield kind, data[4:length]
        data = data[-(-length // 4) * 4 :]
