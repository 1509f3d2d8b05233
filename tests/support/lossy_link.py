"""A client's cable that is long and loses frames: a relay, as not every kernel has netem."""

from __future__ import annotations

import random
import socket
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from catalyst_pxeboot.lab.machine import StreamLink
from catalyst_pxeboot.lab.plainrom import Disguise, read_frames, relayed_link, send_frame


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
        under_way: deque[tuple[float, bool, bytes]] = deque()  # due, to the client, frame

        def wait() -> float | None:
            return max(0.0, under_way[0][0] - time.monotonic()) if under_way else None

        with suppress(OSError):  # QEMU has ended
            for inward, frame in read_frames(client, tap, stopped, wait):
                if frame and self._random.random() >= self._loss:
                    passed = frame if inward else self._disguise.pass_frame(frame)
                    under_way.append((time.monotonic() + self._delay, inward, passed))
                while under_way and under_way[0][0] <= time.monotonic():
                    send_frame(client, tap, *under_way.popleft()[1:])
