"""Whole initramfs images: generators, compressions, archives before the real one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalyst_pxeboot.formats import initramfs as module
from catalyst_pxeboot.formats.compression import Compression
from catalyst_pxeboot.formats.initramfs import Generator, Initramfs, alignment_padding
from catalyst_pxeboot.util.errors import FormatError
from tests.support.builders import (
    Content,
    compress,
    dracut_members,
    genkernel_members,
    initramfs,
    microcode_archive,
    newc,
)
from tests.support.readers import read_initramfs

Write = Callable[[bytes], Path]
DRACUT = dracut_members(
    "059", ("dmsquash-live", "base", "livenet"), ("loop", "nfs-v3.ko.xz", "e1000e.ko.zst")
)
GENKERNEL = genkernel_members("4.3.17", drivers=("nfsv3",))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def put(data: bytes) -> Path:
        path = tmp_path / "gentoo.igz"
        path.write_bytes(data)
        return path

    return put


def unpacked(members: dict[str, Content]) -> int:
    return sum(len(c[1] if isinstance(c, tuple) else c) for c in members.values())


@pytest.mark.parametrize("compression", Compression)
@pytest.mark.parametrize("early", [0, 1, 2])
def test_dracut(write: Write, compression: Compression, early: int) -> None:
    data = initramfs(DRACUT, compression, early=early)
    path = write(data)
    assert read_initramfs(path) == Initramfs(
        path=path,
        bytes=len(data),
        generator=Generator.DRACUT,
        version="059",
        modules=("base", "dmsquash-live", "livenet"),
        drivers=frozenset({"loop", "nfs_v3", "e1000e"}),
        compression=compression,
        unpacked_bytes=unpacked(DRACUT) + early * 2048,
        loop_wo_mount=False,
        fetcher=False,
        hasher=False,
        hooks="usr/lib/dracut/hooks",
        splash=False,
    )


@pytest.mark.parametrize("compression", Compression)
def test_genkernel(write: Write, compression: Compression) -> None:
    data = initramfs(GENKERNEL, compression, early=1)
    path = write(data + bytes(4))
    assert read_initramfs(path) == Initramfs(
        path=path,
        bytes=len(data) + 4,
        generator=Generator.GENKERNEL,
        version="4.3.17",
        modules=(),
        drivers=frozenset({"nfsv3"}),
        compression=compression,
        unpacked_bytes=unpacked(GENKERNEL) + 2048,
        loop_wo_mount=True,
        fetcher=False,
        hasher=False,
        hooks=None,
        splash=True,
    )


def test_genkernel_too_old_for_an_embedded_root(write: Write) -> None:
    found = read_initramfs(write(initramfs(genkernel_members("3.5.3", loop_wo_mount=False))))
    assert (found.generator, found.version, found.loop_wo_mount) == ("genkernel", "3.5.3", False)


@pytest.mark.parametrize(
    ("members", "version"),
    [
        ({"etc/build_id": b"Genkernel 4.1.0"}, "4.1.0"),
        ({"etc/initrd-release": b'NAME=x\nID="genkernel"\nVERSION_ID="4.1.2"\n'}, "4.1.2"),
        ({"etc/initrd.scripts": b""}, "unknown"),
    ],
)
def test_genkernel_by_each_of_its_marks(
    write: Write, members: dict[str, Content], version: str
) -> None:
    found = read_initramfs(write(newc(dracut_members() | members)))
    assert (found.generator, found.version, found.modules) == ("genkernel", version, ())


@pytest.mark.parametrize(
    ("members", "version"),
    [
        ({"lib/dracut/modules.txt": b"base"}, "unknown"),
        ({"usr/lib/dracut/dracut-110-r1": b""}, "110-r1"),
        ({"usr/lib/initrd-release": b'VERSION="12 (bookworm) dracut-059-4"\n'}, "059-4"),
    ],
)
def test_dracut_by_each_of_its_marks(
    write: Write, members: dict[str, Content], version: str
) -> None:
    found = read_initramfs(write(newc(members)))
    assert (found.generator, found.version) == ("dracut", version)


def test_dracut_before_the_usr_merge_with_curl(write: Write) -> None:
    members = dracut_members(usr_merge=False, curl=True, drivers=("loop",), kernel="6.6.1")
    found = read_initramfs(write(initramfs(members, "zstd")))
    assert found.modules == ("base", "dmsquash-live")
    assert found.drivers == {"loop"}
    assert found.fetcher


@pytest.mark.parametrize(
    "member", [(0o100755, b"\x7fELF"), (0o120777, b"busybox")], ids=["program", "busybox"]
)
@pytest.mark.parametrize("folder", ["usr/bin", "bin", "usr/sbin"])
def test_sha256sum(write: Write, folder: str, member: Content) -> None:
    found = read_initramfs(write(newc(dracut_members() | {f"{folder}/sha256sum": member})))
    assert found.hasher


@pytest.mark.parametrize(
    ("members", "hooks"),
    [
        (dracut_members(usr_merge=False), "lib/dracut/hooks"),
        (dracut_members("111", hooks="var/lib/dracut/hooks"), "var/lib/dracut/hooks"),
        # dracut-ng takes hooks from there, too, but not in the first place.
        (
            dracut_members("111", hooks="var/lib/dracut/hooks")
            | {"usr/lib/dracut/hooks/cmdline": (0o040755, b"")},
            "var/lib/dracut/hooks",
        ),
        (dracut_members(hooks="opt/dracut/hooks"), None),
    ],
)
def test_hooks(write: Write, members: dict[str, Content], hooks: str | None) -> None:
    assert read_initramfs(write(newc(members))).hooks == hooks


@pytest.mark.parametrize("call", ["initrd.splash", "cache_cd", "cdupdate", "run_emergency"])
def test_genkernel_that_calls_less_has_no_place_for_a_script(write: Write, call: str) -> None:
    members = genkernel_members()
    init = members["init"]
    assert isinstance(init, tuple)
    members["init"] = (init[0], init[1].replace(call.encode(), b"other"))
    assert not read_initramfs(write(newc(members))).splash


def test_genkernel_with_a_splash_of_its_own(write: Write) -> None:
    members = genkernel_members() | {"etc/initrd.splash": b"splash() { :; }\n"}
    assert not read_initramfs(write(newc(members))).splash


def test_early_drivers_count(write: Write) -> None:
    # dracut-ng can put compressed drivers and firmware before the compressed archive.
    early = newc({"usr/lib/modules/6.9/kernel/fs/squashfs.ko.xz": b"12"})
    found = read_initramfs(write(early + compress(newc(dracut_members()), "zstd")))
    assert found.drivers == frozenset({"squashfs"})


def test_several_archives_in_one_compression(write: Write) -> None:
    both = newc(dracut_members()) + newc({"usr/bin/curl": b""})
    assert read_initramfs(write(compress(both, "gzip"))).fetcher
    parts = compress(newc(dracut_members()), "gzip") + compress(newc({"bin/curl": b""}), "gzip")
    assert read_initramfs(write(parts)).fetcher


def test_what_follows_a_compressed_archive_is_left_alone(write: Write) -> None:
    data = initramfs(DRACUT, "gzip") + bytes(8) + b"something else"
    assert read_initramfs(write(data)).compression is Compression.GZIP


def test_a_link_named_like_a_mark_has_no_content(write: Write) -> None:
    members = {"etc/build_id": (0o120777, b"Genkernel 4.3.17")}
    assert read_initramfs(write(newc(dracut_members() | members))).generator == "dracut"


ANY = "bare or compressed with gzip, bzip2, lzma, xz, lzo, lz4 or zstd"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty, expected an initramfs"),
        (bytes(5000), "is empty, expected an initramfs"),
        (
            b"#!/bin/sh\n",
            f"expected a newc cpio archive, {ANY}, found 23 21 2f 62 69 6e",
        ),
        (
            b"\x04\x22\x4d\x18" + bytes(20),
            f"expected a newc cpio archive, {ANY}, found lz4's frame format, of which the kernel "
            "reads only the legacy one",
        ),
        (
            microcode_archive() + b"garbage",
            f"after its early archives: expected a newc cpio archive, {ANY}, "
            "found 67 61 72 62 61 67",
        ),
        (
            initramfs(DRACUT, "zstd")[:-30],
            "ends early, in the middle of its zstd data",
        ),
        (
            initramfs(DRACUT)[:700],
            "ends early, expected a cpio archive with its trailer",
        ),
        (
            compress(newc(DRACUT)[:700], "gzip"),
            "ends early, expected a cpio archive with its trailer",
        ),
        (compress(bytes(600), "xz"), "holds no archive, only its compression"),
        (
            compress(b"some text", "gzip"),
            "expected a newc cpio archive within its compression, found 73 6f 6d 65 20 74",
        ),
        (
            initramfs({"init": b"#!/bin/sh\n"}, "gzip"),
            "expected an initramfs by dracut or genkernel, but it has neither etc/build_id and "
            "etc/initrd.scripts (genkernel) nor usr/lib/dracut/modules.txt (dracut)",
        ),
        (
            microcode_archive(),
            "expected an initramfs by dracut or genkernel, but it has neither etc/build_id and "
            "etc/initrd.scripts (genkernel) nor usr/lib/dracut/modules.txt (dracut)",
        ),
    ],
)
def test_damage(write: Write, data: bytes, message: str) -> None:
    path = write(data)
    with pytest.raises(FormatError) as caught:
        read_initramfs(path)
    assert caught.value.message == f"{path}: {message}"
    assert caught.value.hint


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_is_bounded(write: Write, monkeypatch: pytest.MonkeyPatch, compression: str) -> None:
    path = write(initramfs(dracut_members() | {"big": bytes(9000)}, compression))
    read_initramfs(path)
    monkeypatch.setattr(module, "MAX_UNPACKED", 8999)
    with pytest.raises(FormatError) as caught:
        read_initramfs(path)
    assert caught.value.message == f"{path}: unpacks to more than 8999 bytes"


@pytest.mark.parametrize("compression", Compression)
@pytest.mark.parametrize("size", range(1000, 1009))
def test_alignment_padding(size: int, compression: Compression) -> None:
    padding = alignment_padding(size, compression)
    assert (size + padding) % 4 == 0
    least = 4 if compression is Compression.LZ4 else 0
    assert least <= padding < least + 4


@pytest.mark.parametrize("compression", [c for c in Compression if c is not Compression.LZO])
def test_padding_keeps_the_image_readable(write: Write, compression: Compression) -> None:
    data = initramfs(DRACUT, compression)
    padded = data + bytes(alignment_padding(len(data), compression))
    assert read_initramfs(write(padded + newc({"x": b""}))).generator is Generator.DRACUT


VALID = [initramfs(DRACUT, c, early=1) for c in Compression if c is not Compression.LZO]


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from(VALID), st.floats(0, 1), st.binary(max_size=20), st.floats(0, 1))
def test_only_format_errors(
    write: Write, valid: bytes, where: float, junk: bytes, end: float
) -> None:
    place = int(where * len(valid))
    bent = valid[:place] + junk + valid[place + len(junk) :]
    for data in (junk, bent, bent[: int(end * len(bent))]):
        path = write(data)
        try:
            found = read_initramfs(path)
        except FormatError as error:
            assert error.message.startswith(str(path))
        else:
            assert found.bytes == len(data)
