"""The newc reader and writer, against GNU cpio and against damage."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalyst_pxeboot.formats.cpio import (
    MAX_MEMBER,
    Budget,
    Member,
    member_header,
    parse_member_header,
    read_members,
    write_archive,
)
from catalyst_pxeboot.util.errors import FormatError
from tests.support.builders import FILE, LINK, newc, newc_member

ARCHIVE = newc({"./etc/a": b"hello", "/b": (LINK | 0o777, b"etc/a"), ".": (0o040755, b"")})


def read(data: bytes, max_members: int = 1000) -> list[Member]:
    budget = Budget("x.img", members=max_members)
    return list(read_members(io.BytesIO(data), where="x.img", budget=budget))


def test_header_of_the_root_member() -> None:
    header = member_header("image.squashfs.img", 700_000_000)
    assert len(header) == 132
    assert header == (
        b"070701"
        b"00000001"
        b"00008124"
        b"00000000"
        b"00000000"
        b"00000001"
        b"00000000"
        b"29B92700"
        b"00000000"
        b"00000000"
        b"00000000"
        b"00000000"
        b"00000013"
        b"00000000"
        b"image.squashfs.img\0\0\0\0"
    )
    assert parse_member_header(header) == ("image.squashfs.img", 700_000_000)


@pytest.mark.parametrize("name", ["a", "ab", "abc", "abcd", "a/b.img"])
@pytest.mark.parametrize("size", [0, 1, MAX_MEMBER])
def test_header_round_trip(name: str, size: int) -> None:
    header = member_header(name, size, mode=0o100644, mtime=1)
    assert len(header) % 4 == 0
    assert parse_member_header(header) == (name, size)


@pytest.mark.parametrize("size", [MAX_MEMBER + 1, -1])
def test_header_refuses_a_size_beyond_32_bits(size: int) -> None:
    with pytest.raises(FormatError) as caught:
        member_header("image.squashfs.img", size)
    assert caught.value.message == (
        f"image.squashfs.img: {size} bytes cannot be embedded in an initramfs, "
        "a cpio member holds at most 4294967295 bytes"
    )
    assert caught.value.hint == ("fetch the image over the network instead, or make it smaller")


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 4096, "\udc80"])
def test_header_refuses_names_it_cannot_hold(name: str) -> None:
    with pytest.raises(FormatError, match="expected a member name"):
        member_header(name, 1)


def test_header_refuses_a_mode_it_cannot_hold() -> None:
    with pytest.raises(FormatError, match=r"^a: mode 40000000000 or time 0 does not fit"):
        member_header("a", 1, mode=1 << 32)


def test_reads_what_gnu_cpio_writes(tmp_path: Path) -> None:
    cpio = shutil.which("cpio")
    if cpio is None:
        pytest.skip("cpio is not installed")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/file").write_bytes(b"12345")
    (tmp_path / "in/file").chmod(0o640)
    (tmp_path / "in/link").symlink_to("file")
    data = subprocess.run(
        [cpio, "--quiet", "-o", "-H", "newc"],
        input=b"./file\n./link\n",
        cwd=tmp_path / "in",
        capture_output=True,
        check=True,
    ).stdout
    assert read(data) == [
        Member("file", FILE | 0o640, 5, b"12345"),
        Member("link", LINK | 0o777, 4, b"file"),
    ]


def test_gnu_cpio_reads_what_member_header_writes(tmp_path: Path) -> None:
    cpio = shutil.which("cpio")
    if cpio is None:
        pytest.skip("cpio is not installed")
    data = member_header("image.squashfs.img", 8) + b"squashfs" + newc({})
    subprocess.run([cpio, "--quiet", "-i"], input=data, cwd=tmp_path, check=True)
    assert (tmp_path / "image.squashfs.img").read_bytes() == b"squashfs"


def test_gnu_cpio_reads_what_write_archive_writes(tmp_path: Path) -> None:
    if not shutil.which("cpio"):
        pytest.skip("cpio is not installed")
    data = write_archive(
        [("a", 0o040755, b""), ("a/b", FILE | 0o755, b"12345"), ("a/c", LINK | 0o777, b"b")]
    )
    assert len(data) == 512
    run = subprocess.run(
        ["cpio", "-idm", "--quiet"],
        input=data + data,
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    assert run.stderr == b""
    file = tmp_path / "a/b"
    assert (file.read_bytes(), file.stat().st_mode, file.stat().st_mtime) == (b"12345", 0o100755, 0)
    assert (tmp_path / "a/c").readlink() == Path("b")


def test_what_write_archive_writes_reads_back() -> None:
    members = [("a", 0o040755, b""), ("a/b", FILE | 0o644, b"x" * 1000)]
    data = write_archive(members)
    assert data == write_archive(iter(members))
    assert len(data) % 512 == 0
    found = [(member.name, member.mode, member.content or b"") for member in read(data)]
    assert found == members
    assert read(write_archive([])) == []


def test_normalises_names_and_keeps_folders_without_content() -> None:
    assert read(ARCHIVE) == [
        Member("etc/a", FILE | 0o644, 5, b"hello"),
        Member("b", LINK | 0o777, 5, b"etc/a"),
        Member(".", 0o040755, 0, None),
    ]


def test_keeps_only_what_is_wanted_and_small() -> None:
    data = newc({"small": b"12", "large": b"123", "other": b"1"})
    members = read_members(
        io.BytesIO(data), where="x", wanted=lambda name: name != "other", limit=2
    )
    assert [m.content for m in members] == [b"12", None, None]


def test_takes_checksummed_archives() -> None:
    data = newc_member("a", b"1", magic=b"070702") + newc_member("TRAILER!!!")
    assert [m.name for m in read(data)] == ["a"]


def test_stops_behind_the_trailer() -> None:
    stream = io.BytesIO(newc({"a": b"1"}, block=4) + b"next")
    list(read_members(stream, where="x"))
    assert stream.read() == b"next"


def test_counts_members() -> None:
    data = newc({"a": b"", "b": b""})
    assert len(read(data, max_members=2)) == 2
    with pytest.raises(FormatError) as caught:
        read(data, max_members=1)
    assert caught.value.message == "x.img: has more than 1 members"


LONG = newc_member("a")
BAD = {
    "ends early, expected a cpio archive with its trailer": [
        b"",
        b"07070",
        ARCHIVE[:200],
        newc({"a": b"1"}, trailer=False, block=4),
        newc_member("a", b"12345678")[:-4],
    ],
    "expected a newc cpio header (070701) at byte 0 of the archive, found 30 37 30 37 30 37": [
        b"070707" + bytes(200)
    ],
    "expected a newc cpio header (070701) at byte 112 of the archive, found 00 00 00 00 00 00": [
        LONG + bytes(200)
    ],
    "expected hexadecimal digits in the cpio header at byte 0 of the archive": [
        LONG[:6] + b"0x000001" + LONG[14:]
    ],
    "expected a name of 1 to 4096 bytes at byte 0 of the archive, found 0": [
        LONG[:94] + b"00000000" + LONG[102:]
    ],
    "expected a name of 1 to 4096 bytes at byte 0 of the archive, found 4097": [
        LONG[:94] + b"00001001" + LONG[102:]
    ],
    "expected a zero byte after the member name at byte 0 of the archive": [
        LONG[:110] + b"aa" + LONG[112:]
    ],
}


@pytest.mark.parametrize(
    ("message", "data"), [(text, data) for text, cases in BAD.items() for data in cases]
)
def test_damage(message: str, data: bytes) -> None:
    with pytest.raises(FormatError) as caught:
        read(data)
    assert caught.value.message == f"x.img: {message}"
    assert caught.value.hint


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (member_header("a", 1)[:-1], "the cpio header: expected 112 bytes, found 111"),
        (member_header("a", 1) + b"\0", "the cpio header: expected 112 bytes, found 113"),
        (
            member_header("ab", 1)[:-1] + b"x",
            "the cpio header: expected zeros after the name",
        ),
        (
            b"",
            "the cpio header: expected a newc cpio header (070701) at byte 0 of the archive, "
            "found nothing",
        ),
    ],
)
def test_parse_member_header_damage(data: bytes, message: str) -> None:
    with pytest.raises(FormatError) as caught:
        parse_member_header(data)
    assert caught.value.message == message


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_random_bytes(data: bytes) -> None:
    for raw in (data, b"070701" + data, b"070701" + b"0" * 104 + data):
        with pytest.raises(FormatError):
            read(raw)
        with pytest.raises(FormatError):
            parse_member_header(raw)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(ARCHIVE) - 1), st.integers(0, 255), st.integers(0, len(ARCHIVE)))
def test_mutated_archives(place: int, value: int, end: int) -> None:
    data = bytearray(ARCHIVE[:end])
    if place < len(data):
        data[place] = value
    try:
        read(bytes(data))
    except FormatError as error:
        assert error.message.startswith("x.img: ")
