"""The squashfs superblock."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalyst_pxeboot.formats.squashfs import Squashfs
from catalyst_pxeboot.util.errors import FormatError
from tests.support.builders import squashfs_image
from tests.support.readers import read_squashfs


def patch(form: str, place: int, *values: int) -> bytes:
    image = bytearray(squashfs_image())
    struct.pack_into(form, image, place, *values)
    return bytes(image)


@pytest.mark.parametrize("compression", ["gzip", "lzma", "lzo", "xz", "lz4", "zstd"])
def test_reads_every_field(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "image.squashfs"
    path.write_bytes(squashfs_image(8192, compression, block_size=131072, created=7))
    assert read_squashfs(path) == Squashfs(path, 8192, 8092, compression, (4, 0), 131072, 7)


def test_reads_what_mksquashfs_writes(tmp_path: Path) -> None:
    program = shutil.which("mksquashfs")
    if program is None:
        pytest.skip("mksquashfs is not installed")
    (tmp_path / "root").mkdir()
    (tmp_path / "root/file").write_bytes(b"x" * 9999)
    path = tmp_path / "image.squashfs"
    subprocess.run(
        [program, tmp_path / "root", path, "-comp", "xz", "-b", "256K", "-mkfs-time", "12345"],
        check=True,
        capture_output=True,
    )
    size = path.stat().st_size
    found = read_squashfs(path)
    assert found == Squashfs(path, size, found.used, "xz", (4, 0), 262144, 12345)
    assert size - 4096 < found.used <= size


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected a squashfs image (it begins with hsqs), found nothing"),
        (b"sqsh" * 90, "expected a squashfs image (it begins with hsqs), found 73 71 73 68"),
        (
            squashfs_image()[:95],
            "truncated: a squashfs superblock has 96 bytes, the file has 95",
        ),
        (squashfs_image(version=(3, 1)), "expected squashfs 4.0, found 3.1"),
        (
            squashfs_image(8192, used=8193),
            "truncated: superblock says 8193 bytes, file has 8192",
        ),
        (
            squashfs_image(8192, used=95),
            "damaged: superblock says 95 bytes, fewer than it has itself",
        ),
        (
            squashfs_image(block_size=2048),
            "expected a block size that is a power of two from 4 KiB to 1 MiB, found 2048 bytes",
        ),
        (
            squashfs_image(block_size=1 << 21),
            "expected a block size that is a power of two from 4 KiB to 1 MiB, found 2097152 bytes",
        ),
        (
            patch("<I", 12, 5000),
            "expected a block size that is a power of two from 4 KiB to 1 MiB, found 5000 bytes",
        ),
        (
            patch("<H", 20, 7),
            "expected one of the compressions gzip, lzma, lzo, xz, lz4, zstd, found number 7",
        ),
    ],
)
def test_damage(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "image.squashfs"
    path.write_bytes(data)
    with pytest.raises(FormatError) as caught:
        read_squashfs(path)
    assert caught.value.message == f"{path}: {message}"
    assert caught.value.hint


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_squashfs(tmp_path / "none")


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=120), st.integers(0, 110))
def test_only_format_errors(tmp_path: Path, junk: bytes, place: int) -> None:
    path = tmp_path / "image.squashfs"
    valid = squashfs_image(256)
    for data in (junk, b"hsqs" + junk, valid[:place] + junk + valid[place + len(junk) :]):
        path.write_bytes(data)
        try:
            found = read_squashfs(path)
        except FormatError as error:
            assert error.message.startswith(f"{path}: ")
        else:
            assert found.used <= found.bytes == len(data)
