"""The compressions of an initramfs, read as a stream.

Source of the formats: the kernel's lib/decompress*.c, which tell them by their first bytes, and
for legacy lz4 the "Legacy frame" of lz4_Frame_format.md.
"""

from __future__ import annotations

import bz2
import io
import lzma
import os
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Generator
from enum import StrEnum
from typing import IO, Final, Protocol, Self

import lz4.block
import zstandard

from catalyst_pxeboot.formats.cpio import MAGICS, Readable
from catalyst_pxeboot.util.errors import FormatError
from catalyst_pxeboot.util.process import find_program
from catalyst_pxeboot.util.text import one_line


class Compression(StrEnum):
    """A compression that the kernel can undo in an initramfs."""

    NONE = "none"
    GZIP = "gzip"
    BZIP2 = "bzip2"
    LZMA = "lzma"
    XZ = "xz"
    LZO = "lzo"
    LZ4 = "lz4"
    ZSTD = "zstd"


#: The first bytes of each compression. The kernel asks for two bytes only; the longer ones keep
#: arbitrary files from passing for compressed.
_FIRST_BYTES: Final = (
    (b"\x1f\x8b", Compression.GZIP),
    (b"BZh", Compression.BZIP2),
    (b"\x5d\x00\x00", Compression.LZMA),
    (b"\xfd7zXZ\x00", Compression.XZ),
    (b"\x89LZO\x00", Compression.LZO),
    (b"\x02\x21\x4c\x18", Compression.LZ4),
    (b"\x28\xb5\x2f\xfd", Compression.ZSTD),
    *((magic, Compression.NONE) for magic in MAGICS),
)
_MAGIC: Final = {compression: magic for magic, compression in _FIRST_BYTES}

_INPUT = 64 << 10
_OUTPUT = 256 << 10
#: What a decompressor may keep at hand of what it unpacked: the kernel's own limit for zstd.
#: dracut's and genkernel's need 64 MiB.
_WINDOW = 128 << 20
_MEMORY = _WINDOW + (1 << 20)
# zstd gives all that its input holds at once, and four bytes can hold 128 KiB: input in pieces
# this small keeps that at 8 MiB.
_ZSTD_INPUT = 256
_LZ4_BLOCK = 8 << 20  # what a block of legacy lz4 holds, unpacked
_LZ4_PACKED = _LZ4_BLOCK + _LZ4_BLOCK // 255 + 16  # what it can take at worst, packed

#: Streams, frames or blocks that follow each other in one file. Tools that pack in parallel make
#: one of each 64 KiB at least.
_MAX_FRAMES = 16_384

_Chunks = Generator[bytes, None, None]


def detect_compression(head: bytes) -> Compression | None:
    """Tell the compression of an initramfs by its first bytes, 6 of them at least.

    Returns `Compression.NONE` for a bare newc archive and None for anything unknown.
    """
    for magic, compression in _FIRST_BYTES:
        if head.startswith(magic):
            return compression
    return None


class Decompressed:
    """A stream of what another one holds, unpacked as it is read. Close it after use."""

    def __init__(self, chunks: _Chunks, *, where: str, max_bytes: int) -> None:
        self._chunks = chunks
        self._where = where
        self._max_bytes = max_bytes
        self._chunk = b""
        self._at = 0
        #: Bytes unpacked so far.
        self.total = 0

    def read(self, size: int = -1, /) -> bytes:
        """Return `size` bytes, fewer only at the end; all that is left where it is negative.

        Raises `FormatError` where the stream is damaged, ends early or holds too much.
        """
        parts = []
        want = self._max_bytes + 1 if size < 0 else size
        while want:
            if self._at == len(self._chunk):
                chunk = next(self._chunks, b"")
                if not chunk:
                    break
                self._chunk, self._at = chunk, 0
                self.total += len(chunk)
                if self.total > self._max_bytes:
                    self.close()
                    raise FormatError(
                        f"{self._where}: unpacks to more than {self._max_bytes} bytes",
                        hint="the file is damaged or made to exhaust memory; build it again",
                    )
            part = self._chunk[self._at : self._at + want]
            self._at += len(part)
            want -= len(part)
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """End the stream and whatever unpacks it."""
        self._chunks.close()
        self._chunk, self._at = b"", 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def open_decompressed(
    stream: Readable, compression: Compression, *, where: str, max_bytes: int
) -> Decompressed:
    """Open what `stream`, from its position on, holds in `compression`.

    Streams of one compression that follow each other, with zeros between them or not, are read
    as one; what follows otherwise is left alone. `where` names the file in errors. At most
    `max_bytes` bytes are unpacked. Reading raises `FormatError` for damaged data, and for lzo
    where the program lzop is missing.
    """
    match compression:
        case Compression.NONE:
            chunks = _read_plain(stream)
        case Compression.LZ4:
            chunks = _unpack_lz4(stream, where)
        case Compression.LZO:
            chunks = _unpack_lzo(stream, where, max_bytes)
        case _:
            chunks = _unpack(stream, compression, where)
    return Decompressed(chunks, where=where, max_bytes=max_bytes)


class _Decompressor(Protocol):
    """What the decompressors of the libraries are brought to."""

    @property
    def eof(self) -> bool: ...

    @property
    def rest(self) -> bytes:
        """What followed the end of the compressed data in the last input."""

    def feed(self, data: bytes) -> Generator[bytes, None, None]: ...


class _Gzip:
    """Adapts zlib, which hands back the input it did not get to."""

    def __init__(self) -> None:
        self._it = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)

    @property
    def eof(self) -> bool:
        return self._it.eof

    @property
    def rest(self) -> bytes:
        return self._it.unused_data

    def feed(self, data: bytes) -> _Chunks:
        while data and not self._it.eof:
            yield self._it.decompress(data, _OUTPUT)
            data = self._it.unconsumed_tail
        # Output can wait inside when all input is taken.
        while not self._it.eof and (more := self._it.decompress(b"", _OUTPUT)):
            yield more


class _Library:
    """Adapts bz2 and lzma, which keep the input they did not get to."""

    def __init__(self, it: bz2.BZ2Decompressor | lzma.LZMADecompressor) -> None:
        self._it = it

    @property
    def eof(self) -> bool:
        return self._it.eof

    @property
    def rest(self) -> bytes:
        return self._it.unused_data

    def feed(self, data: bytes) -> _Chunks:
        yield self._it.decompress(data, _OUTPUT)
        while not self._it.eof and not self._it.needs_input:
            yield self._it.decompress(b"", _OUTPUT)


class _Zstd:
    """Adapts zstandard, which gives all output at once."""

    def __init__(self) -> None:
        self._it = zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj()
        self._rest = b""

    @property
    def eof(self) -> bool:
        return self._it.eof

    @property
    def rest(self) -> bytes:
        return self._rest

    def feed(self, data: bytes) -> _Chunks:
        for start in range(0, len(data), _ZSTD_INPUT):
            yield self._it.decompress(data[start : start + _ZSTD_INPUT])
            if self._it.eof:
                self._rest = self._it.unused_data + data[start + _ZSTD_INPUT :]
                return


_MAKE: Final[dict[Compression, Callable[[], _Decompressor]]] = {
    Compression.GZIP: _Gzip,
    Compression.BZIP2: lambda: _Library(bz2.BZ2Decompressor()),
    Compression.LZMA: lambda: _Library(lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_MEMORY)),
    Compression.XZ: lambda: _Library(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY)),
    Compression.ZSTD: _Zstd,
}


def _unpack(stream: Readable, compression: Compression, where: str) -> _Chunks:
    magic = _MAGIC[compression]
    data = stream.read(_INPUT)
    for _frame in range(_MAX_FRAMES):
        decompressor = _MAKE[compression]()
        while not decompressor.eof:
            if not data:
                raise _truncated(where, compression)
            try:
                yield from filter(None, decompressor.feed(data))
            except (zlib.error, lzma.LZMAError, zstandard.ZstdError, OSError, ValueError) as error:
                # bz2 reports damaged data by OSError, and here nothing else can raise one.
                raise _damaged(where, compression, str(error)) from error
            except MemoryError as error:
                raise _damaged(where, compression, "it asks for too much memory") from error
            data = decompressor.rest if decompressor.eof else stream.read(_INPUT)
        while len(data := data.lstrip(b"\0")) < len(magic):
            more = stream.read(_INPUT)
            if not more:
                return
            data += more
        if not data.startswith(magic):
            return
    raise _too_many(where, compression)


def _read_plain(stream: Readable) -> _Chunks:
    while data := stream.read(_OUTPUT):
        yield data


def _unpack_lz4(stream: Readable, where: str) -> _Chunks:
    """Unpack legacy lz4: the magic, then blocks, each behind its packed size in bytes."""
    magic = _MAGIC[Compression.LZ4]
    if _read_up_to(stream, 4) != magic:
        raise _damaged(where, Compression.LZ4, "its magic number is missing")
    for _block in range(_MAX_FRAMES):
        head = _read_up_to(stream, 4)
        if head == magic:  # another such stream right behind the first
            continue
        # Zeros are the padding before another archive, or before the end.
        if not any(head):
            return
        if len(head) < 4:
            raise _truncated(where, Compression.LZ4)
        (size,) = struct.unpack("<I", head)
        if size > _LZ4_PACKED:
            raise _damaged(where, Compression.LZ4, f"a block claims {size} bytes")
        packed = _read_up_to(stream, size)
        if len(packed) < size:
            raise _truncated(where, Compression.LZ4)
        try:
            block: bytes = lz4.block.decompress(packed, uncompressed_size=_LZ4_BLOCK)
        except (lz4.block.LZ4BlockError, ValueError, MemoryError) as error:
            raise _damaged(where, Compression.LZ4, str(error)) from error
        if block:
            yield block
    raise _too_many(where, Compression.LZ4)


def _unpack_lzo(stream: Readable, where: str, max_bytes: int) -> _Chunks:
    """Unpack lzo by lzop, the only program for its container; no library of Python reads it."""
    program = find_program("lzop")
    if program is None:
        raise FormatError(
            f"{where}: is compressed with lzo, which needs the program lzop to be read",
            hint="install lzop (app-arch/lzop), or make the initramfs with zstd or xz",
        )
    # Files, not pipes, for what lzop reads and complains of: only one pipe is left, so neither
    # side can wait for the other. The stream may not be a file or not stand at its beginning.
    with tempfile.TemporaryFile() as packed, tempfile.TemporaryFile() as complaints:
        _spool(stream, packed, where, max_bytes)
        with subprocess.Popen(
            [program, "-dc"],
            stdin=packed,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        ) as process:
            try:
                if process.stdout is not None:
                    while data := process.stdout.read(_OUTPUT):
                        yield data
                code = process.wait()
            finally:
                process.kill()  # for a reader that stopped half-way
        # 2 is a warning: zeros that pad the file are garbage to lzop.
        if code not in (0, 2):
            complaints.seek(0)
            lines = complaints.read(4096).decode(errors="replace").strip().splitlines()
            last = one_line(lines[-1]) if lines else f"lzop failed with exit code {code}"
            raise _damaged(where, Compression.LZO, last)


def _spool(stream: Readable, into: IO[bytes], where: str, max_bytes: int) -> None:
    """Copy `stream` to the temporary file `into` and stand at its start."""
    size = 0
    while data := stream.read(_OUTPUT):
        size += len(data)
        if size > max_bytes:
            raise FormatError(
                f"{where}: unpacks to more than {max_bytes} bytes",
                hint="the file is damaged or made to exhaust memory; build it again",
            )
        try:
            into.write(data)
            into.flush()
        except OSError as error:
            raise FormatError(
                f"{where}: no room for its lzo data in {tempfile.gettempdir()}: {error.strerror}",
                hint="free space there, or name another folder in TMPDIR",
            ) from error
    into.seek(0)


def _read_up_to(stream: Readable, size: int) -> bytes:
    """Read `size` bytes, fewer only at the end."""
    out = io.BytesIO()
    while out.tell() < size and (data := stream.read(size - out.tell())):
        out.write(data)
    return out.getvalue()


def _too_many(where: str, compression: Compression) -> FormatError:
    return FormatError(
        f"{where}: has more than {_MAX_FRAMES} parts of {compression} data",
        hint="the file is damaged or made to exhaust time; build it again",
    )


def _truncated(where: str, compression: Compression) -> FormatError:
    return FormatError(
        f"{where}: ends early, in the middle of its {compression} data",
        hint="the file is truncated; copy or build it again",
    )


def _damaged(where: str, compression: Compression, why: str) -> FormatError:
    return FormatError(
        f"{where}: its {compression} data is damaged: {why}",
        hint="copy or build the file again",
    )
