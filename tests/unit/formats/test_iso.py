"""ISO images: where each file lies, by which names, and what is refused."""

from __future__ import annotations

import os
import random
import re
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from catalyst_pxeboot.formats.iso import Iso, is_iso, read_iso
from catalyst_pxeboot.util.errors import FormatError, PxebootError
from tests.support.iso import (
    MKISOFS,
    SECTOR,
    VOLUME,
    find_record,
    plain_iso,
    rescue_iso,
    set_extent,
    set_length,
)
from tests.support.stage2 import TIME, write_stage2

WANTED = "image.squashfs"
AGAIN = "fetch or make the ISO again"


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_stage2(tmp_path_factory.mktemp("iso") / "tree")
    (root / "boot/latest").symlink_to("gentoo")
    (root / "out").symlink_to("../../etc/passwd")
    (root / "loop").symlink_to("loop")
    (root / "boot/tool").write_bytes(b"#!/bin/sh\n")
    (root / "boot/tool").chmod(0o755)
    os.utime(root / "boot/tool", (TIME + 1, TIME + 1))
    return root


@pytest.fixture(scope="session")
def plain(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plain_iso(tree, tmp_path_factory.mktemp("iso") / "plain.iso")


@pytest.fixture
def spoil(plain: Path, tmp_path: Path) -> Callable[[Callable[[bytearray], object]], Path]:
    def make(change: Callable[[bytearray], object]) -> Path:
        content = bytearray(plain.read_bytes())
        change(content)
        path = tmp_path / "spoilt.iso"
        path.write_bytes(content)
        return path

    return make


def content_of(iso: Iso, name: str) -> bytes:
    file = iso.find(name)
    assert file is not None
    return iso.path.read_bytes()[file.offset : file.offset + file.bytes]


def check_all(iso: Iso, tree: Path) -> None:
    for path in tree.rglob("*"):
        if path.is_file() and not path.is_symlink():
            name = str(path.relative_to(tree))
            assert content_of(iso, name) == path.read_bytes(), name
            assert iso.files[name].time == int(path.stat().st_mtime), name


def test_mkisofs(plain: Path, tree: Path) -> None:
    iso = read_iso(plain, wanted=WANTED)
    check_all(iso, tree)
    assert iso.volume == VOLUME
    assert iso.stamp.bytes == plain.stat().st_size
    assert iso.files["boot/tool"].mode == 0o755
    assert iso.files["boot/gentoo.igz"].mode == 0o600
    assert iso.files["out"].link == "../../etc/passwd"
    assert content_of(iso, "boot/latest") == (tree / "boot/gentoo").read_bytes()
    assert iso.find("out") is iso.find("loop") is iso.find("boot") is iso.find("no") is None


def test_grub_mkrescue(tree: Path, tmp_path: Path) -> None:
    iso = read_iso(rescue_iso(tree, tmp_path / "rescue.iso"), wanted=WANTED)
    check_all(iso, tree)
    assert iso.files["boot/gentoo.igz"].mode == 0o444


def test_joliet_where_there_is_no_rock_ridge(tree: Path, tmp_path: Path) -> None:
    path = plain_iso(tree, tmp_path / "j.iso", "-J", "-V", VOLUME, "--norock", "-l")
    iso = read_iso(path, wanted=WANTED)
    assert content_of(iso, "boot/gentoo.igz") == (tree / "boot/gentoo.igz").read_bytes()
    assert "README.txt" in iso.files
    assert iso.files["boot/gentoo"].time == TIME


def test_plain_names_in_lower_case(tree: Path, tmp_path: Path) -> None:
    path = plain_iso(tree, tmp_path / "p.iso", "-V", VOLUME, "--norock", "-iso-level", "3")
    iso = read_iso(path, wanted=WANTED)
    assert content_of(iso, "boot/gentoo") == (tree / "boot/gentoo").read_bytes()
    assert content_of(iso, "boot/gentoo.igz") == (tree / "boot/gentoo.igz").read_bytes()
    assert content_of(iso, WANTED) == (tree / WANTED).read_bytes()


def test_where_nothing_is_wanted_the_first_names_are_told(plain: Path) -> None:
    assert "boot/System-gentoo.map" in read_iso(plain, wanted="boot/gentoo").files
    assert "README.txt" in read_iso(plain, wanted="not there").files


def test_what_is_an_iso(plain: Path, tree: Path, tmp_path: Path) -> None:
    bare = tmp_path / "image"
    bare.write_bytes(plain.read_bytes())
    folder = tmp_path / "folder.iso"
    folder.mkdir()
    text = tmp_path / "text"
    text.write_text("no")
    assert [is_iso(path) for path in (plain, bare, tmp_path / "none.ISO")] == [True] * 3
    assert [is_iso(path) for path in (folder, tree, text, tmp_path / "none")] == [False] * 4
    too_long = "x" * 300
    assert [is_iso(tmp_path / name) for name in (f"{too_long}.iso", too_long)] == [True, False]


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (0, "not an ISO 9660 image: 0 bytes without a volume descriptor at byte 32768;"
            " give the ISO of a livecd-stage2 build"),
        (32768, "not an ISO 9660 image: 32768 bytes without a volume descriptor at byte 32768;"
            " give the ISO of a livecd-stage2 build"),
        (33000, f"truncated: 33000 bytes, which end in its volume descriptor; {AGAIN}"),
        (34816, f"truncated: 34816 bytes, its volume says {{size}}; {AGAIN}"),
        (60000, f"truncated: 60000 bytes, its volume says {{size}}; {AGAIN}"),
        (-1, f"truncated: {{less}} bytes, its volume says {{size}}; {AGAIN}"),
    ],
)  # fmt: skip
def test_truncated(plain: Path, tmp_path: Path, size: int, message: str) -> None:
    content = plain.read_bytes()
    path = tmp_path / "cut.iso"
    path.write_bytes(content[:size])
    with pytest.raises(FormatError) as raised:
        read_iso(path, wanted=WANTED)
    expected = message.format(size=len(content), less=len(content) - 1)
    assert str(raised.value) == f"{path}: {expected}"


def test_noise_is_no_iso(tmp_path: Path) -> None:
    path = tmp_path / "x.iso"
    path.write_bytes(random.Random(1).randbytes(100_000))
    with pytest.raises(FormatError, match="not an ISO 9660 image: 100000 bytes without"):
        read_iso(path, wanted=WANTED)


Spoil = Callable[[Callable[[bytearray], object]], Path]


def refused(path: Path) -> str:
    begun = time.process_time()
    with pytest.raises(FormatError) as raised:
        read_iso(path, wanted=WANTED)
    assert time.process_time() - begun < 15
    text = str(raised.value)
    assert "\n" not in text
    assert text.startswith(f"{path}: ")
    assert text.endswith(f"; {AGAIN}")
    return text


def test_a_block_size_of_others(spoil: Spoil) -> None:
    path = spoil(lambda content: struct.pack_into("<H", content, 16 * SECTOR + 128, 512))
    assert "damaged: its volume descriptor names blocks of 512 bytes, not 2048" in refused(path)


def test_descriptors_without_an_end(spoil: Spoil) -> None:
    def change(content: bytearray) -> None:
        for sector in range(17, 25):
            if content[sector * SECTOR] == 255:
                content[sector * SECTOR : (sector + 1) * SECTOR] = bytes(SECTOR)

    assert "damaged: its directories cannot be read (" in refused(spoil(change))


def test_a_file_that_ends_behind_the_end(spoil: Spoil, plain: Path) -> None:
    def change(content: bytearray) -> None:
        set_extent(content, find_record(content, b"IMAGE.SQUASHFS;1"), 1_000_000)

    size = plain.stat().st_size
    end = 1_000_000 * SECTOR + 65536
    assert f"truncated: {size} bytes, but image.squashfs ends at byte {end}" in refused(
        spoil(change)
    )


def test_a_file_longer_than_all(spoil: Spoil) -> None:
    def change(content: bytearray) -> None:
        set_length(content, find_record(content, b"IMAGE.SQUASHFS;1"), 0xFFFF_FFFF)

    assert "but image.squashfs ends at byte 4295" in refused(spoil(change))


@pytest.mark.parametrize("name", [b"../../evil", b"a/b/c/d/ef", b"a\0b/c\0ef.."])
def test_a_name_that_leads_elsewhere(spoil: Spoil, name: bytes) -> None:
    def change(content: bytearray) -> None:
        place = content.index(b"NM\x0f\x01\x00README.txt")
        content[place + 5 : place + 15] = name

    shown = repr(name.decode())
    assert f"damaged: a file of / is named {shown}; " in refused(spoil(change))


def test_a_folder_within_itself(spoil: Spoil) -> None:
    def change(content: bytearray) -> None:
        boot = find_record(content, b"BOOT")
        (here,) = struct.unpack_from("<I", content, boot + 2)
        grub = find_record(content, b"GRUB")
        set_extent(content, grub, here)

    # pycdlib sees it since 1.21; an older one reads on until it may no more.
    assert re.search(
        r"damaged: its directories (cannot be read \(|take more)", refused(spoil(change))
    )


def test_a_folder_of_four_gigabytes(spoil: Spoil) -> None:
    def change(content: bytearray) -> None:
        set_length(content, find_record(content, b"BOOT"), 0xFFFF_F800)

    path = spoil(change)
    with path.open("r+b") as stream:
        stream.truncate(5 << 30)  # takes no room on the disk
    assert "damaged: its directories take more than 4194304 bytes" in refused(path)


def test_a_file_in_pieces(spoil: Spoil) -> None:
    def change(content: bytearray) -> None:
        content[find_record(content, b"IMAGE.SQUASHFS;1") + 26] = 4

    assert "damaged: image.squashfs does not lie in one piece; " in refused(spoil(change))


@pytest.mark.parametrize("seed", range(60))
def test_noise_in_the_directories(spoil: Spoil, seed: int) -> None:
    """Whatever is damaged, there is an image with names below it, or one error in one line."""
    noise = random.Random(seed)

    def change(content: bytearray) -> None:
        places = [at for at in range(16 * SECTOR, 34 * SECTOR) if content[at]]
        for _ in range(noise.choice((1, 4, 40))):
            content[noise.choice(places)] = noise.randrange(256)

    path = spoil(change)
    begun = time.process_time()
    try:
        iso = read_iso(path, wanted=WANTED)
    except PxebootError as error:
        assert "\n" not in str(error)
    else:
        assert not any(".." in name.split("/") or name.startswith("/") for name in iso.files)
        size = path.stat().st_size
        assert all(
            file.offset + file.bytes <= size for file in iso.files.values()
            if file.bytes and not file.link
        )  # fmt: skip
    assert time.process_time() - begun < 15


@pytest.mark.more
def test_a_file_of_more_than_four_gigabytes(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    with (tree / WANTED).open("wb") as stream:
        stream.truncate((4 << 30) + 5000)
        stream.seek(0)
        stream.write(b"begin")
        stream.seek(-3, os.SEEK_END)
        stream.write(b"end")
    path = plain_iso(tree, tmp_path / "x.iso", *MKISOFS, "-iso-level", "3")
    file = read_iso(path, wanted=WANTED).files[WANTED]
    assert file.bytes == (4 << 30) + 5000
    with path.open("rb") as stream:
        stream.seek(file.offset)
        assert stream.read(5) == b"begin"
        stream.seek(file.offset + file.bytes - 3)
        assert stream.read(3) == b"end"
