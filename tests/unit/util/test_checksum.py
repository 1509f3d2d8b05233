"""The cores that digests share."""

from __future__ import annotations

import threading
import time

from catalyst_pxeboot.util import checksum


def test_cores_are_lent_in_turn() -> None:
    """A file that was asked for later, and gives a core back, does not get it again at once."""
    cores = checksum._Cores(1)
    order: list[int] = []

    def ask(number: int) -> None:
        with cores:
            order.append(number)

    with cores:
        threads = []
        for number in range(5):
            thread = threading.Thread(target=ask, args=(number,))
            thread.start()
            threads.append(thread)
            while len(cores._waiting) <= number:
                time.sleep(0.001)
    with cores:  # behind all that waited
        assert order == [0, 1, 2, 3, 4]
    for thread in threads:
        thread.join()
    assert cores._free == 1
