"""The hash tree of dm-verity, by which the kernel checks each block that it reads of a device.

Source of the format: the kernel's Documentation/admin-guide/device-mapper/verity.rst. Version 1,
sha256, no salt, no superblock: the same bytes as
`veritysetup format --no-superblock --salt=-` makes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from catalyst_pxeboot.util.files import open_regular

BLOCK: Final = 4096  # bytes, of the data and of the tree: what every kernel can check

_READ: Final = 1 << 20
_PER_BLOCK: Final = BLOCK // hashlib.sha256().digest_size


@dataclass(frozen=True, slots=True)
class HashTree:
    """The tree over `blocks` blocks of data; `root` is the root hash."""

    blocks: int
    root: str  # 64 hexadecimal digits
    content: bytes

    @property
    def line(self) -> bytes:
        """The tree for a script: the root hash, and the blocks of the data and of the tree."""
        return f"{self.root} {self.blocks} {len(self.content) // BLOCK}\n".encode()


class HashTreeBuilder:
    """Makes the tree of data that is fed to `update`, like a hash of hashlib."""

    def __init__(self) -> None:
        self._leaves = bytearray()
        self._rest = b""
        self._stopped = False

    def stop(self) -> None:
        """Ignore all further data: the tree is not needed."""
        self._stopped = True

    def update(self, data: bytes | memoryview) -> None:
        """Take the next bytes of the data."""
        if self._stopped:
            return
        if self._rest:
            data = self._rest + bytes(data)
        view = memoryview(data)
        whole = len(view) - len(view) % BLOCK
        # Any more argument of sha256 costs a third of its time.
        sha256, leaves = hashlib.sha256, self._leaves
        for at in range(0, whole, BLOCK):
            leaves += sha256(view[at : at + BLOCK]).digest()
        self._rest = bytes(view[whole:])

    def finish(self) -> HashTree:
        """Return the tree; raises ValueError unless the data were whole blocks, at least one."""
        if self._rest or not self._leaves:
            raise ValueError(f"{len(self._rest)} bytes after the last whole block of {BLOCK}")
        blocks = len(self._leaves) // (BLOCK // _PER_BLOCK)
        digests = bytes(self._leaves)
        levels: list[bytes] = []
        while len(digests) > BLOCK // _PER_BLOCK:
            level = digests + bytes(-len(digests) % BLOCK)
            levels.append(level)
            digests = b"".join(
                hashlib.sha256(level[at : at + BLOCK]).digest()
                for at in range(0, len(level), BLOCK)
            )
        # The level with the root's block comes first.
        return HashTree(blocks, digests.hex(), b"".join(reversed(levels)))


def read_hash_tree(path: Path, *, length: int) -> HashTree:
    """Make the tree of the first `length` bytes of a file.

    Raises ValueError as `HashTreeBuilder.finish`, and OSError.
    """
    builder = HashTreeBuilder()
    with open_regular(path) as stream:
        while length and (data := stream.read(min(length, _READ))):
            builder.update(data)
            length -= len(data)
    return builder.finish()


def tree_bytes(data: int) -> int:
    """Return the bytes of the tree over `data` bytes."""
    total, blocks = 0, data // BLOCK
    while blocks > 1:
        blocks = -(-blocks // _PER_BLOCK)
        total += blocks * BLOCK
    return total
