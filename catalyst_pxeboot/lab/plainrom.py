"""Make QEMU's network ROM look like a card's own ROM to the DHCP server.

That ROM is an iPXE and says so in its DHCP requests, so a server gives it the script at once and
"chain to undionly.kpxe" never happens. Here every frame of the client passes through this
process. Until the client asks TFTP for its first file, the two options by which iPXE is known
(77, its user class, and 175, its own) are blanked in its DHCP requests; what the ROM then loads
is recognized by its own requests. The server and its configuration stay as they are.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from catalyst_pxeboot.lab.machine import StreamLink

_BLANKED = (77, 175)  # RFC 3004; iPXE's encapsulated options
_DHCP_PORTS = (67, 4011)  # RFC 2131, PXE 2.1
_TFTP_PORT = 69
_FRAME = 65536  # bytes, more than any frame has


class Disguise:
    """Rewrites the frames that a client sends, until the client has its first file."""

    def __init__(self) -> None:
        self.on = True
        self.requests = 0  # DHCP requests that were rewritten

    def pass_frame(self, frame: bytes) -> bytes:
        """Return what goes to the network in place of `frame`, of the same length."""
        if not self.on or frame[12:14] != b"\x08\x00" or frame[23:24] != b"\x11":
            return frame
        udp = 14 + (frame[14] & 15) * 4
        (port,) = struct.unpack_from("!H", frame, udp + 2)
        if port == _TFTP_PORT:
            self.on = False
        elif port in _DHCP_PORTS:
            changed = bytearray(frame)
            if _blank_options(changed, udp + 8 + 240):
                # No UDP checksum: RFC 768 allows that over IPv4.
                changed[udp + 6 : udp + 8] = bytes(2)
                self.requests += 1
            return bytes(changed)
        return frame


def _blank_options(frame: bytearray, start: int) -> bool:
    """Overwrite the telling options by padding (RFC 2132); say whether there were any."""
    found = False
    while start + 1 < len(frame) and frame[start] != 255:
        if frame[start] == 0:
            start += 1
            continue
        end = start + 2 + frame[start + 1]
        if frame[start] in _BLANKED and end <= len(frame):
            frame[start:end] = bytes(end - start)
            found = True
        start = end
    return found


@contextmanager
def disguised_link(tap: int) -> Iterator[tuple[StreamLink, Disguise]]:
    """Lead a client to the open tap `tap` through a `Disguise`, as `relayed_link`."""
    disguise = Disguise()
    with relayed_link(tap, partial(_relay, disguise)) as link:
        yield link, disguise


@contextmanager
def relayed_link(
    tap: int, relay: Callable[[socket.socket, int, socket.socket], None]
) -> Iterator[StreamLink]:
    """Lead a client to the open tap `tap` while the context lasts; the tap is closed then.

    `relay` carries the frames between the client's socket and the tap, in a thread of its own,
    until its third argument is closed at the other end. QEMU must inherit the link's descriptor.
    """
    ours, theirs = socket.socketpair()
    stop, stopped = socket.socketpair()
    thread = threading.Thread(target=relay, args=(ours, tap, stopped), daemon=True)
    thread.start()
    try:
        yield StreamLink(theirs.fileno())
    finally:
        stop.close()
        ours.shutdown(socket.SHUT_RDWR)  # ends a send that is no longer read
        thread.join()
        for end in (ours, theirs, stopped):
            end.close()
        os.close(tap)


def _relay(disguise: Disguise, client: socket.socket, tap: int, stopped: socket.socket) -> None:
    with suppress(OSError):  # QEMU has ended; the caller sees that by itself
        for inward, frame in read_frames(client, tap, stopped):
            send_frame(client, tap, inward, frame if inward else disguise.pass_frame(frame))


def read_frames(
    client: socket.socket,
    tap: int,
    stopped: socket.socket,
    wait: Callable[[], float | None] = lambda: None,
) -> Iterator[tuple[bool, bytes]]:
    """Yield whether a frame goes to the client, and the frame, until `stopped` is closed.

    A frame is empty where none came in the seconds that `wait` gave. Raises `OSError` when QEMU
    has ended.
    """
    pending = b""
    with selectors.DefaultSelector() as selector:
        for source in (client, tap, stopped):
            selector.register(source, selectors.EVENT_READ)
        while True:
            ready = [key.fileobj for key, _ in selector.select(wait())]
            if stopped in ready:
                return
            if client in ready:
                data = client.recv(_FRAME * 4)
                if not data:  # QEMU has ended
                    selector.unregister(client)
                frames, pending = split_frames(pending + data)
                for frame in frames:
                    yield False, frame
            if tap in ready:
                yield True, os.read(tap, _FRAME)
            if not ready:
                yield False, b""


def send_frame(client: socket.socket, tap: int, inward: bool, frame: bytes) -> None:
    """Send `frame` to the client, or to the network. Raises `OSError` when QEMU has ended."""
    if inward:
        client.sendall(len(frame).to_bytes(4, "big") + frame)
    else:
        with suppress(OSError):  # the network is on its way down
            os.write(tap, frame)


def split_frames(data: bytes) -> tuple[list[bytes], bytes]:
    """Split a QEMU stream, where 4 bytes of length precede each frame; return frames and rest."""
    frames = []
    start = 0
    while start + 4 <= len(data):
        end = start + 4 + int.from_bytes(data[start : start + 4], "big")
        if end > len(data):
            break
        frames.append(data[start + 4 : end])
        start = end
    return frames, data[start:]
