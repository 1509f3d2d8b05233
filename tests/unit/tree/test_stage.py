"""Payload files: one read, all digests, and never a change of the source."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from catalyst_pxeboot.model.files import MadeFile, Role, SourceFile, TreeFile
from catalyst_pxeboot.model.settings import LinkMode
from catalyst_pxeboot.tree import stage as tree
from catalyst_pxeboot.tree.stage import stage_made_files, stage_source_file
from catalyst_pxeboot.util import checksum as digest
from catalyst_pxeboot.util.checksum import BLOCK, RING, digest_bytes, digest_file
from catalyst_pxeboot.util.errors import PublishError, SourceError

ALGORITHMS = ("blake2b", "sha256", "sha512")
TIME = 1_000_000_000


def payload(folder: Path, content: bytes = b"payload" * 1000, mode: int = 0o644) -> SourceFile:
    origin = folder / "origin"
    origin.write_bytes(content)
    origin.chmod(mode)
    return SourceFile("boot/gentoo", origin, Role.KERNEL, len(content))


def stage(file: SourceFile, staging: Path, link: LinkMode) -> TreeFile:
    staging.mkdir(exist_ok=True)
    return stage_source_file(file, staging, link=link, algorithms=ALGORITHMS)


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, 4 * BLOCK, RING * BLOCK * 2 + 12345])
def test_digests_are_those_of_hashlib(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    copy = os.open(tmp_path / "copy", os.O_WRONLY | os.O_CREAT)
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    another = hashlib.sha1(usedforsecurity=False)
    digests = digest_file(fd, ALGORITHMS, where="file", copy_to=copy, also=[another])
    os.close(fd)
    os.close(copy)
    expected = {name: hashlib.new(name, content).hexdigest() for name in ALGORITHMS}
    assert digests == expected == digest_bytes(content, ALGORITHMS)
    assert (tmp_path / "copy").read_bytes() == content
    assert another.digest() == hashlib.sha1(content, usedforsecurity=False).digest()


def test_every_available_digest_has_hashlibs_value() -> None:
    for name in ("blake2b", "blake2s", "md5", "sha1", "sha3_256", "sha512"):
        assert digest_bytes(b"x", [name])[name] == hashlib.new(name, b"x").hexdigest()


def test_each_byte_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(bytes(10 * BLOCK))
    read = []
    real = os.readv

    def count(fd: int, buffers: Any) -> int:
        read.append(real(fd, buffers))
        return read[-1]

    monkeypatch.setattr(os, "readv", count)
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    digest_file(fd, ALGORITHMS, where="file")
    os.close(fd)
    assert sum(read) == 10 * BLOCK


@pytest.mark.parametrize("size", [64 * BLOCK, 512 * BLOCK])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, size: int) -> None:
    with (tmp_path / "file").open("wb") as stream:
        stream.truncate(size)
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    tracemalloc.start()
    digest_file(fd, ("sha256", "md5"), where="file")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    os.close(fd)
    assert peak < (RING + 1) * BLOCK


@pytest.mark.parametrize("size", [BLOCK, 8 * BLOCK])
def test_a_file_that_changes_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(size))
    real = os.readv

    def grow(fd: int, buffers: Any) -> int:
        with path.open("ab") as stream:
            stream.write(b"x")
        return real(fd, buffers)

    fd = os.open(path, os.O_RDONLY)
    with monkeypatch.context() as patch:
        patch.setattr(os, "readv", grow)
        with pytest.raises(SourceError) as raised:
            digest_file(fd, ALGORITHMS, where="image.squashfs")
    os.close(fd)
    assert str(raised.value).startswith("image.squashfs: it changed while it was read (")
    assert raised.value.hint == "wait until livecd-stage2 has ended, then build again"


def test_a_file_rewritten_in_place_at_the_same_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(8 * BLOCK))
    os.utime(path, (TIME, TIME))
    real = os.readv

    def touch(fd: int, buffers: Any) -> int:
        with path.open("r+b") as stream:
            stream.write(b"x")
        return real(fd, buffers)

    fd = os.open(path, os.O_RDONLY)
    monkeypatch.setattr(os, "readv", touch)
    with pytest.raises(SourceError, match="it changed while it was read"):
        digest_file(fd, ALGORITHMS, where="file")
    os.close(fd)


@pytest.mark.parametrize("size", [BLOCK, 8 * BLOCK])
def test_a_disk_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    (tmp_path / "file").write_bytes(bytes(size))

    def fail(_fd: int, _buffers: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    fd = os.open(tmp_path / "file", os.O_RDONLY)
    monkeypatch.setattr(os, "readv", fail)
    with pytest.raises(SourceError) as raised:
        digest_file(fd, ALGORITHMS, where="/src/image.squashfs")
    os.close(fd)
    assert str(raised.value) == (
        "/src/image.squashfs: it cannot be read to its end: Input/output error;"
        " check the disk that it is on"
    )


@pytest.mark.parametrize("link", [LinkMode.AUTO, LinkMode.HARDLINK])
def test_hard_link(tmp_path: Path, link: LinkMode) -> None:
    file = payload(tmp_path)
    before = file.origin.stat()
    staged = stage(file, tmp_path / "tree", link)
    assert (tmp_path / "tree/boot/gentoo").samefile(file.origin)
    assert staged.written == 0
    after = file.origin.stat()
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


def test_hard_link_to_what_a_symlink_means(tmp_path: Path) -> None:
    file = payload(tmp_path)
    (tmp_path / "link").symlink_to("origin")
    stage(SourceFile("boot/gentoo", tmp_path / "link", Role.KERNEL, file.bytes),
          tmp_path / "tree", LinkMode.AUTO)  # fmt: skip
    assert not (tmp_path / "tree/boot/gentoo").is_symlink()
    assert (tmp_path / "tree/boot/gentoo").samefile(file.origin)


def test_copy(tmp_path: Path) -> None:
    file = payload(tmp_path)
    staged = stage(file, tmp_path / "tree", LinkMode.COPY)
    target = tmp_path / "tree/boot/gentoo"
    assert target.read_bytes() == file.origin.read_bytes()
    assert not target.samefile(file.origin)
    assert staged.written == file.bytes
    assert target.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("mode", "expected"), [(0o644, 0o644), (0o755, 0o755), (0o444, 0o444), (0o600, 0o644)]
)
def test_a_copy_has_the_mode_and_time_of_a_link(tmp_path: Path, mode: int, expected: int) -> None:
    """But where a server could not read it, which is never linked."""
    file = payload(tmp_path)
    file.origin.chmod(mode)
    os.utime(file.origin, ns=(TIME * 10**9 + 123, TIME * 10**9 + 456))
    for link in (LinkMode.AUTO, LinkMode.COPY):
        stage(file, tmp_path / link, link)
        info = (tmp_path / link / "boot/gentoo").stat()
        assert (info.st_mode & 0o7777, info.st_mtime_ns) == (expected, TIME * 10**9 + 456)


def test_a_file_that_no_server_could_read_is_copied(tmp_path: Path) -> None:
    file = payload(tmp_path, mode=0o600)
    stage(file, tmp_path / "tree", LinkMode.AUTO)
    assert (tmp_path / "tree/boot/gentoo").stat().st_mode & 0o777 == 0o644
    assert file.origin.stat().st_mode & 0o777 == 0o600
    assert file.origin.stat().st_nlink == 1
    with pytest.raises(PublishError) as raised:
        stage(file, tmp_path / "other", LinkMode.HARDLINK)
    assert str(raised.value) == (
        f"pxeboot/link: {file.origin} has mode 0600, so a hard link to it could not be served;"
        " use auto, which copies such a file"
    )


def test_across_file_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = payload(tmp_path)

    def cross(*_args: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", cross)
    monkeypatch.setattr(fcntl, "ioctl", cross)
    assert stage(file, tmp_path / "tree", LinkMode.AUTO).written == file.bytes
    for link in (LinkMode.HARDLINK, LinkMode.REFLINK):
        with pytest.raises(PublishError) as raised:
            stage(file, tmp_path / link, link)
        assert str(raised.value) == (
            f"pxeboot/link: {file.origin} cannot be taken over by {link}:"
            " Invalid cross-device link; use auto"
        )


def test_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = payload(tmp_path, mode=0o600)

    def clone(copy: int, request: int, source: int) -> int:
        assert request == 0x40049409
        os.write(copy, os.pread(source, 1 << 20, 0))
        return 0

    monkeypatch.setattr(fcntl, "ioctl", clone)
    for link in (LinkMode.AUTO, LinkMode.REFLINK):
        staged = stage(file, tmp_path / link, link)
        assert staged.written == 0
        assert (tmp_path / link / "boot/gentoo").read_bytes() == file.origin.read_bytes()
        assert (tmp_path / link / "boot/gentoo").stat().st_mode & 0o777 == 0o644


def test_a_full_disk_is_no_reason_to_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", full)
    # As it is: whoever publishes tells it, with the way out.
    with pytest.raises(OSError, match="No space left on device"):
        stage(payload(tmp_path), tmp_path / "tree", LinkMode.AUTO)


@pytest.mark.parametrize("bend", ["shorter", "fifo", "gone"])
def test_a_file_that_is_not_what_was_planned(tmp_path: Path, bend: str) -> None:
    file = payload(tmp_path)
    if bend == "shorter":
        os.truncate(file.origin, 10)
    else:
        file.origin.unlink()
        if bend == "fifo":
            os.mkfifo(file.origin)
    with pytest.raises(SourceError):
        stage(file, tmp_path / "tree", LinkMode.AUTO)


def test_made_files_have_the_trees_mode_and_time_under_any_umask(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        made = [MadeFile("boot/grub/grub.cfg", b"menu", Role.CONFIG)]
        (staged,) = stage_made_files(made, tmp_path, algorithms=["md5"], time=TIME)
        tree.seal_folders(tmp_path, time=TIME)
    finally:
        os.umask(old)
    assert staged.digests == {"md5": hashlib.md5(b"menu").hexdigest()}
    for name, mode in {"boot": 0o755, "boot/grub": 0o755, "boot/grub/grub.cfg": 0o644}.items():
        info = (tmp_path / name).stat()
        assert (info.st_mode & 0o7777, info.st_mtime) == (mode, TIME)


def test_small_files_take_no_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest, "_Ring", None)
    (tmp_path / "file").write_bytes(b"x")
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    assert digest_file(fd, ["md5"], where="file") == {"md5": hashlib.md5(b"x").hexdigest()}
    os.close(fd)
