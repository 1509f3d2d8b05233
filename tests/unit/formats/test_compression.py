"""Every compression of an initramfs, against the programs that make them."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
import tracemalloc

import lz4.frame
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalyst_pxeboot.formats import compression as module
from catalyst_pxeboot.formats.compression import Compression, detect_compression, open_decompressed
from catalyst_pxeboot.util.errors import FormatError
from tests.support.builders import compress, lz4_legacy, newc

DATA = newc({"a": bytes(range(256)) * 300, "b": b"text" * 999})
PACKED = [c for c in Compression if c is not Compression.NONE]
STANDARD = [c for c in PACKED if c not in (Compression.LZO, Compression.LZ4)]
COMMANDS = {
    Compression.GZIP: ["gzip", "-9c"],
    Compression.BZIP2: ["bzip2", "-c"],
    Compression.LZMA: ["lzma", "-c"],
    Compression.XZ: ["xz", "--check=crc32", "-c"],
    Compression.LZO: ["lzop", "-c"],
    Compression.LZ4: ["lz4", "-l", "-c"],
    Compression.ZSTD: ["zstd", "-q", "-c"],
}


def unpack(data: bytes, compression: Compression, max_bytes: int = 1 << 24) -> bytes:
    with open_decompressed(
        io.BytesIO(data), compression, where="x.img", max_bytes=max_bytes
    ) as stream:
        out = stream.read()
        assert stream.total == len(out)
        return out


def need_lzop(compression: Compression) -> None:
    if compression is Compression.LZO and shutil.which("lzop") is None:
        pytest.skip("lzop is not installed")


@pytest.mark.parametrize("compression", Compression)
def test_detects(compression: Compression) -> None:
    assert detect_compression(compress(DATA, compression)[:6]) is compression


@pytest.mark.parametrize("head", [b"", b"\x1f", b"070707", b"\x04\x22\x4d\x18\0\0", b"MZ\0\0\0\0"])
def test_detects_nothing_else(head: bytes) -> None:
    assert detect_compression(head) is None


@pytest.mark.parametrize("compression", Compression)
def test_reads_back(compression: Compression) -> None:
    assert unpack(compress(DATA, compression), compression) == DATA


@pytest.mark.parametrize("compression", PACKED)
def test_reads_what_the_program_writes(compression: Compression) -> None:
    name, *options = COMMANDS[compression]
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"{name} is not installed")
    data = subprocess.run([program, *options], input=DATA, capture_output=True, check=True).stdout
    assert detect_compression(data) is compression
    assert unpack(data, compression) == DATA


@pytest.mark.parametrize("compression", PACKED)
@pytest.mark.parametrize("padding", [1, 3, 4, 508])
def test_stops_at_zero_padding(compression: Compression, padding: int) -> None:
    assert unpack(compress(DATA, compression) + bytes(padding), compression) == DATA


@pytest.mark.parametrize("compression", STANDARD)
def test_joins_streams_and_leaves_the_rest_alone(compression: Compression) -> None:
    two = compress(DATA, compression) + bytes(4) + compress(b"more", compression)
    assert unpack(two + b"garbage", compression) == DATA + b"more"


def test_joins_legacy_lz4_and_many_blocks() -> None:
    two = lz4_legacy(DATA, block=1000) + lz4_legacy(b"more")
    assert unpack(two, Compression.LZ4) == DATA + b"more"
    assert unpack(two + bytes(4) + b"next archive", Compression.LZ4) == DATA + b"more"


def test_reads_in_small_pieces() -> None:
    source = io.BytesIO(compress(DATA, "zstd"))
    stream = open_decompressed(source, Compression.ZSTD, where="x", max_bytes=1 << 20)
    out = b""
    while data := stream.read(1000):
        assert len(data) == min(1000, len(DATA) - len(out))
        out += data
    assert out == DATA


@pytest.mark.parametrize("compression", [c for c in PACKED if c is not Compression.LZO])
def test_truncated(compression: Compression) -> None:
    data = compress(DATA, compression)
    for end in (len(data) // 2, 7):
        with pytest.raises(FormatError) as caught:
            unpack(data[:end], compression)
        assert caught.value.message == (
            f"x.img: ends early, in the middle of its {compression} data"
        )
        assert caught.value.hint == "the file is truncated; copy or build it again"


def test_truncated_lzo() -> None:
    data = compress(DATA, "lzo")
    with pytest.raises(FormatError, match=r"^x\.img: its lzo data is damaged: lzop: "):
        unpack(data[: len(data) // 2], Compression.LZO)


@pytest.mark.parametrize("compression", PACKED)
def test_damaged(compression: Compression) -> None:
    head = {Compression.LZMA: 13, Compression.LZ4: 8, Compression.LZO: 40}.get(compression, 10)
    data = compress(DATA, compression)
    with pytest.raises(FormatError, match=f"^x.img: its {compression} data is damaged: "):
        unpack(data[:head] + b"\xff" * (len(data) - head), compression)


def test_damaged_lz4() -> None:
    for data, why in (
        (b"\x04\x22\x4d\x18", "its magic number is missing"),
        (lz4_legacy(b"")[:4] + struct.pack("<I", 1 << 30), "a block claims 1073741824 bytes"),
    ):
        with pytest.raises(FormatError) as caught:
            unpack(data, Compression.LZ4)
        assert caught.value.message == f"x.img: its lz4 data is damaged: {why}"
    assert detect_compression(lz4.frame.compress(b"x")) is None


@pytest.mark.parametrize("compression", Compression)
def test_bombs_are_stopped(compression: Compression) -> None:
    bomb = compress(bytes(9 << 20), compression)
    assert len(unpack(bomb, compression, max_bytes=9 << 20)) == 9 << 20
    with pytest.raises(FormatError) as caught:
        unpack(bomb, compression, max_bytes=(9 << 20) - 1)
    assert caught.value.message == "x.img: unpacks to more than 9437183 bytes"


@pytest.mark.parametrize("compression", STANDARD)
def test_memory_is_bounded(compression: Compression) -> None:
    bomb = compress(bytes(64 << 20), compression)
    with open_decompressed(io.BytesIO(bomb), compression, where="x", max_bytes=1 << 30) as stream:
        tracemalloc.start()
        try:
            while stream.read(1 << 16):
                pass
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert stream.total == 64 << 20
    # 8 MiB is what 256 bytes of zstd can hold, and reading makes a copy.
    assert peak < 24 << 20


def test_lzo_needs_lzop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_program", lambda _name: None)
    with pytest.raises(FormatError) as caught:
        unpack(b"\x89LZO\0", Compression.LZO)
    assert caught.value.message == (
        "x.img: is compressed with lzo, which needs the program lzop to be read"
    )
    assert caught.value.hint == (
        "install lzop (app-arch/lzop), or make the initramfs with zstd or xz"
    )


def test_lzop_ends_with_its_reader() -> None:
    source = io.BytesIO(compress(bytes(9 << 20), "lzo"))
    stream = open_decompressed(source, Compression.LZO, where="x", max_bytes=1 << 30)
    assert stream.read(5) == bytes(5)
    stream.close()
    assert stream.read(5) == b""


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([c for c in PACKED if c is not Compression.LZO]),
    st.binary(max_size=200),
    st.integers(0, 300),
)
def test_only_format_errors(compression: Compression, junk: bytes, keep: int) -> None:
    valid = compress(b"some text " * 30, compression)
    for data in (junk, valid[:6] + junk, valid[:keep] + junk + valid[keep + len(junk) :]):
        try:
            unpack(data, compression)
        except FormatError as error:
            assert error.message.startswith("x.img: ")
