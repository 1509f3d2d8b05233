"""A client's cable that is long and loses frames: a relay, as not every kernel has netem."""

from __future__ import annotations

import os
import random
import selectors
import socket
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from catalyst_pxeboot.lab.machine import StreamLink
from catalyst_pxeboot.lab.plainrom import Disguise, relayed_link, split_frames

_FRAME = 65536  # bytes, more than any frame has


class LossyCable:
    """Passes frames on after `delay` seconds each way, and loses the share `loss` of them."""

    def __init__(self, *, loss: float, delay: float, hide_ipxe: bool) -> None:
        self._loss = loss
        self._delay = delay
        self._random = random.Random(1)
        self._disguise = Disguise()
        self._disguise.on = hide_ipxe

    @contextmanager
    def link(self, tap: int) -> Iterator[tuple[StreamLink, Disguise]]:
        """Lead a client to the open tap `tap` while the context lasts; the tap is closed then."""
        with relayed_link(tap, self._relay) as link:
            yield link, self._disguise

    def _relay(self, client: socket.socket, tap: int, stopped: socket.socket) -> None:
        pending = b""
        under_way: deque[tuple[float, bool, bytes]] = deque()  # due, to the client, frame
        with selectors.DefaultSelector() as selector:
            for source in (client, tap, stopped):
                selector.register(source, selectors.EVENT_READ)
            while True:
                wait = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
                ready = [key.fileobj for key, _ in selector.select(wait)]
                if stopped in ready:
                    return
                due = time.monotonic() + self._delay
                try:
                    if client in ready:
                        data = client.recv(_FRAME * 4)
                        if not data:  # QEMU has ended
                            selector.unregister(client)
                        frames, pending = split_frames(pending + data)
                        for frame in frames:
                            self._send(under_way, due, False, self._disguise.pass_frame(frame))
                    if tap in ready:
                        self._send(under_way, due, True, os.read(tap, _FRAME))
                    while under_way and under_way[0][0] <= time.monotonic():
                        _due, inward, frame = under_way.popleft()
                        if inward:
                            client.sendall(len(frame).to_bytes(4, "big") + frame)
                        else:
                            with suppress(OSError):  # the network is on its way down
                                os.write(tap, frame)
                except OSError:  # QEMU has ended
                    return

    def _send(
        self, under_way: deque[tuple[float, bool, bytes]], due: float, inward: bool, frame: bytes
    ) -> None:
        if self._random.random() >= self._loss:
            under_way.append((due, inward, frame))
