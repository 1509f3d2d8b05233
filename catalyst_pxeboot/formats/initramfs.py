"""What an initramfs holds: who made it, with which modules and drivers.

Source of the format: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst and
Documentation/arch/x86/microcode.rst for the archives before the real one; for what distinguishes
the generators, dracut's dracut.sh and genkernel's gen_initramfs.sh.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from catalyst_pxeboot.formats.compression import (
    Compression,
    Decompressed,
    detect_compression,
    open_decompressed,
)
from catalyst_pxeboot.formats.cpio import Budget, Readable, read_members
from catalyst_pxeboot.util.errors import FormatError
from catalyst_pxeboot.util.files import InputFile

#: The most bytes an initramfs may unpack to. All of linux-firmware, unpacked, is below 2 GiB.
MAX_UNPACKED: Final = 4 << 30

#: How many times its own size it may unpack to, beyond what any may. Real ones unpack to 2 to 6
#: times; what unpacks to much more is made to cost time.
_MAX_RATIO: Final = 12
_ANY_UNPACKED: Final = 256 << 20
#: bzip2 packs less, and unpacks at half the speed of xz.
_MAX_RATIO_BZIP2: Final = 3.5
_ANY_UNPACKED_BZIP2: Final = 192 << 20

_BUILD_ID = "etc/build_id"
_RELEASES = ("etc/initrd-release", "usr/lib/initrd-release", "lib/initrd-release")
_MODULES = ("usr/lib/dracut/modules.txt", "lib/dracut/modules.txt")
_KEPT = frozenset({_BUILD_ID, "init", *_RELEASES, *_MODULES})
#: What genkernel's init sources behind its own functions, if it is there.
GENKERNEL_HOOK: Final = "etc/initrd.splash"
#: What genkernel's init must call so that the hook can check a root image: the function that finds
#: the image's file, the last one before the root's init, the shell.
_SPLASH_CALLS = (b"/etc/initrd.splash", b"cache_cd_contents", b"cdupdate", b"run_emergency_shell")
_CURL = frozenset({"usr/bin/curl", "bin/curl"})
_SHA256SUM = frozenset({"usr/bin/sha256sum", "bin/sha256sum", "usr/sbin/sha256sum"})
#: Its programs are not to be seen among the members, but named in it; release specs bring it.
_BUSYBOX = frozenset({"usr/bin/busybox", "bin/busybox", "usr/sbin/busybox", "sbin/busybox"})
_BUSYBOX_SHA256SUM = "busybox sha256sum"
_MAX_READ = 4 << 20  # bytes of a member that is looked into; busybox has one to two MiB
_MAX_TEXT = 64 << 10  # bytes of a text that says what made the image; dracut's have 1 KiB
_NAMED = _CURL | _SHA256SUM | {GENKERNEL_HOOK, "etc/initrd.scripts", "linuxrc"}
#: Where dracut looks for hooks, the first first. Which of them it was is known by their folder.
_HOOKS = ("var/lib/dracut/hooks", "usr/lib/dracut/hooks", "lib/dracut/hooks")

_DRACUT_NAME = re.compile(r"(?:usr/)?lib/dracut/dracut-(\d[^/]*)")
_DRACUT_RELEASE = re.compile(r"\bdracut-(\d[^\s\"';]*)")
_GENKERNEL_BUILD = re.compile(r"Genkernel\s+(\S+)")
_GENKERNEL_ID = re.compile(r"^ID=([\"']?)genkernel\1\s*$", re.MULTILINE)
_GENKERNEL_VERSION = re.compile(r"^VERSION_ID=[\"']?([^\"'\s]+)", re.MULTILINE)
# No longer than the kernel takes them (64 bytes of uts_namelen, 56 of a module's name), as a
# hostile archive can name a million.
_KERNEL = re.compile(r"(?:usr/)?lib/modules/([^/]{1,64})(?:/|$)")
_DRIVER = re.compile(r"(?:^|/)([^/]{1,56})\.ko(?:\.(?:gz|xz|zst|bz2|lzma))?$")
_ALIGNMENT = 4
_BLOCK = 1 << 20


class Generator(StrEnum):
    """The program that made an initramfs, which decides the words of its command line."""

    DRACUT = "dracut"
    GENKERNEL = "genkernel"


@dataclass(frozen=True, slots=True)
class Initramfs:
    """An initramfs, by its members. `bytes` is the file's size, `unpacked_bytes` its members'."""

    path: Path
    bytes: int
    generator: Generator
    version: str  # the generator's; "unknown" where nothing names it
    modules: tuple[str, ...]  # dracut's, sorted
    drivers: frozenset[str]  # kernel modules; hyphens are underscores, as modprobe sees them
    compression: Compression  # of the last archive
    unpacked_bytes: int
    loop_wo_mount: bool  # genkernel's: a root image inside the initramfs is found
    fetcher: bool  # curl is there, which fetches a root image by HTTP
    hasher: bool  # sha256sum is there, as a program of its own or busybox's
    hooks: str | None  # the folder of dracut's hooks, without a slash before it
    splash: bool  # genkernel's: init would source an etc/initrd.splash, and there is none yet


def read_initramfs(source: InputFile) -> Initramfs:
    """Read an initramfs: all its members, but only a few small ones' content.

    Archives before the last one count among its members, as they do for the kernel. Raises
    `FormatError` where the file is empty, not an archive, damaged, ends early, unpacks to more than
    `MAX_UNPACKED` bytes or by more than real ones do, or comes from neither dracut nor
    genkernel; `OSError` where it cannot be read.
    """
    path, size = source.path, source.bytes
    found = _Found(Budget(str(path)))
    if size > MAX_UNPACKED:  # a hole, perhaps: it takes no disk, but time to read
        raise _too_much(path)
    reader = _Rewindable(source.stream)
    head = reader.next_archive()
    if not size or not head:
        raise FormatError(
            f"{path}: is empty, expected an initramfs",
            hint="build livecd-stage2 again",
        )
    where = str(path)
    while head:
        compression = detect_compression(head)
        if compression is None:
            raise _unknown(where, head)
        where = f"{path}: after its early archives"
        last = compression
        if compression is Compression.NONE:
            found.add(reader, path)
        else:
            # What follows a compressed archive is not read: no generator puts anything there,
            # and padding does not matter.
            if compression is Compression.BZIP2:
                most = max(_ANY_UNPACKED_BZIP2, int(size * _MAX_RATIO_BZIP2))
            else:
                most = max(_ANY_UNPACKED, size * _MAX_RATIO)
            most = min(MAX_UNPACKED, most)
            with open_decompressed(
                reader, compression, where=str(path), max_bytes=most
            ) as unpacked:
                _add_archives(found, unpacked, path)
            break
        head = reader.next_archive()
    generator, version = _tell_generator(found, path)
    return Initramfs(
        path=path,
        bytes=size,
        generator=generator,
        version=version,
        modules=found.modules() if generator is Generator.DRACUT else (),
        drivers=frozenset(found.drivers),
        compression=last,
        unpacked_bytes=found.unpacked,
        loop_wo_mount=generator is Generator.GENKERNEL
        and b"got_loop_wo_mount" in found.content.get("init", b""),
        fetcher=not found.names.isdisjoint(_CURL),
        hasher=not found.names.isdisjoint(_SHA256SUM | {_BUSYBOX_SHA256SUM}),
        hooks=found.hooks() if generator is Generator.DRACUT else None,
        splash=generator is Generator.GENKERNEL
        and GENKERNEL_HOOK not in found.names
        and all(call in found.content.get("init", b"") for call in _SPLASH_CALLS),
    )


def alignment_padding(size: int, compression: Compression) -> int:
    """Return the zero bytes that must follow an initramfs of `size` bytes before another archive.

    The kernel looks for an archive on multiples of 4 bytes only, and its reader of legacy lz4
    takes the next archive for one more block unless four zero bytes end the stream.
    """
    marker = 4 if compression is Compression.LZ4 else 0
    return marker + -(size + marker) % _ALIGNMENT


class _Rewindable:
    """A stream that can be handed back what was read too far."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._back = b""
        self._at = 0

    def read(self, size: int, /) -> bytes:
        if self._at == len(self._back):
            return self._stream.read(size)
        data = self._back[self._at : self._at + size]
        self._at += len(data)
        return data

    def next_archive(self) -> bytes:
        """Read past zeros and return, without taking them, the bytes that follow; 6 if it can."""
        data = b""
        while len(data) < 6:
            more = self.read(_BLOCK)
            if not more:
                break
            data = (data + more).lstrip(b"\0")
        if self._at < len(self._back):
            data += self._back[self._at :]
        self._back, self._at = data, 0
        return data[:6]


def _wanted(name: str) -> bool:
    return name in _KEPT or name in _BUSYBOX


class _Found:
    """What was seen of the members so far."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.content: dict[str, bytes] = {}
        self.names: set[str] = set()
        self.drivers: set[str] = set()
        self.dracut_version = ""
        self.unpacked = 0

    def add(self, archive: Readable, path: Path) -> None:
        """Take note of the members of `archive`."""
        for member in read_members(
            archive, where=str(path), wanted=_wanted, limit=_MAX_READ, budget=self._budget
        ):
            name = member.name
            self.unpacked += member.size
            if self.unpacked > MAX_UNPACKED:
                raise _too_much(path)
            if name in _KEPT:
                self.names.add(name)
                # A link's target is not looked into.
                most = _MAX_READ if name == "init" else _MAX_TEXT
                self.content[name] = (member.content or b"")[:most] if member.is_file else b""
            elif "lib/modules/" in name:
                self._add_driver(name)
            elif "lib/dracut/" in name:
                if match := _DRACUT_NAME.fullmatch(name):
                    self.dracut_version = match[1]
                elif name.removesuffix("/cmdline") in _HOOKS:
                    self.names.add(name)
            elif name in _BUSYBOX:
                if b"sha256sum" in (member.content or b""):
                    self.names.add(_BUSYBOX_SHA256SUM)
            elif name in _NAMED:
                self.names.add(name)

    def _add_driver(self, name: str) -> None:
        if _KERNEL.match(name) and (driver := _DRIVER.search(name)):
            self.drivers.add(driver[1].replace("-", "_"))

    def text(self, *names: str) -> str:
        """Return the first content there is among `names`."""
        data = next((self.content[name] for name in names if self.content.get(name)), b"")
        return data.decode(errors="backslashreplace")

    def modules(self) -> tuple[str, ...]:
        """Return the names in dracut's list of its modules."""
        return tuple(sorted(set(self.text(*_MODULES).split())))

    def hooks(self) -> str | None:
        """Return the folder that dracut's hooks lie in, the one that it prefers."""
        return next((folder for folder in _HOOKS if f"{folder}/cmdline" in self.names), None)


def _add_archives(found: _Found, unpacked: Decompressed, path: Path) -> None:
    """Read the archives, one as a rule, that one compressed stream holds."""
    reader = _Rewindable(unpacked)
    head = reader.next_archive()
    if not head:
        raise FormatError(
            f"{path}: holds no archive, only its compression",
            hint="let catalyst build the live image again",
        )
    while head:
        if detect_compression(head) is not Compression.NONE:
            raise FormatError(
                f"{path}: expected a newc cpio archive within its compression, "
                f"found {head.hex(' ')}",
                hint="give the initramfs that belongs to the kernel",
            )
        found.add(reader, path)
        head = reader.next_archive()


def _tell_generator(found: _Found, path: Path) -> tuple[Generator, str]:
    """Tell who made the image, and its version. genkernel's images carry lib/dracut/ too."""
    build = _GENKERNEL_BUILD.search(found.text(_BUILD_ID))
    release = found.text(*_RELEASES)
    if build or _GENKERNEL_ID.search(release) or "etc/initrd.scripts" in found.names:
        named = _GENKERNEL_VERSION.search(release)
        version = build[1] if build else named[1] if named else "unknown"
        return Generator.GENKERNEL, version
    in_release = _DRACUT_RELEASE.search(release)
    if found.dracut_version or in_release or not found.names.isdisjoint(_MODULES):
        version = found.dracut_version or (in_release[1] if in_release else "unknown")
        return Generator.DRACUT, version
    raise FormatError(
        f"{path}: expected an initramfs by dracut or genkernel, but it has neither "
        "etc/build_id and etc/initrd.scripts (genkernel) nor usr/lib/dracut/modules.txt (dracut)",
        hint="set boot/kernel/NAME/distkernel to yes in the stage2 spec for dracut, or let "
        "genkernel make it",
    )


def _too_much(path: Path) -> FormatError:
    return FormatError(
        f"{path}: unpacks to more than {MAX_UNPACKED} bytes",
        hint="check that the file is an initramfs; build it again",
    )


def _unknown(where: str, head: bytes) -> FormatError:
    names: Mapping[bytes, str] = {
        b"\x04\x22\x4d\x18": "lz4's frame format, of which the kernel reads only the legacy one"
    }
    what = names.get(head[:4], head.hex(" "))
    return FormatError(
        f"{where}: expected a newc cpio archive, bare or compressed with gzip, bzip2, lzma, xz, "
        f"lzo, lz4 or zstd, found {what}",
        hint="check that the file is an initramfs; build it again",
    )
