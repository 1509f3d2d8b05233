"""What is fuzzed: every parser of something that a user or another program wrote, with seeds.

A parser may take an input, or refuse it by one of this project's own errors.
"""

from __future__ import annotations

import bz2
import copy
import io
import json
import lzma
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import zstandard
from pycdlib import PyCdlib

from catalyst_pxeboot.build.report import tree_lines
from catalyst_pxeboot.formats.compression import Compression
from catalyst_pxeboot.formats.cpio import member_header, parse_member_header, read_members
from catalyst_pxeboot.formats.grubcfg import parse_grub_cfg
from catalyst_pxeboot.formats.iso import SECTOR, read_iso
from catalyst_pxeboot.formats.kernel import open_unpacked
from catalyst_pxeboot.formats.uki import make_uki, read_sections
from catalyst_pxeboot.loader import LOADERS
from catalyst_pxeboot.model.loader import Loader
from catalyst_pxeboot.source.menu import read_iso_menu
from catalyst_pxeboot.spec.file import read_conf, read_spec
from catalyst_pxeboot.spec.parse import check_keys, parse_settings
from catalyst_pxeboot.tree.manifest import read_manifest
from catalyst_pxeboot.tree.publish import own_names
from catalyst_pxeboot.tree.verify import verify_tree
from catalyst_pxeboot.util.errors import PxebootError
from catalyst_pxeboot.util.process import find_program
from tests.support import builders
from tests.support.efi import efi_program
from tests.support.paths import DATA, GOLDEN, ROOT
from tests.support.readers import read_initramfs, read_kconfig, read_kernel, read_squashfs
from tests.support.stage2 import release_settings


@dataclass(frozen=True, slots=True)
class Target:
    """A parser: `parse` takes an input and a folder of its own; `tokens` are words it knows."""

    parse: Callable[[bytes, Path], object]
    seeds: tuple[bytes, ...]
    tokens: tuple[bytes, ...] = ()
    lacks: str = ""  # a program that it needs and that is not here


def by_path(parse: Callable[[Path], object]) -> Callable[[bytes, Path], object]:
    """Adapt a parser that takes a file's path."""

    def parse_file(data: bytes, scratch: Path) -> object:
        path = scratch / "input"
        path.write_bytes(data)
        return parse(path)

    return parse_file


def by_text(parse: Callable[[str], object]) -> Callable[[bytes, Path], object]:
    """Adapt a parser that takes a text."""
    return lambda data, _scratch: parse(data.decode(errors="replace"))


def _cpio(data: bytes, _scratch: Path) -> None:
    try:
        parse_member_header(data)
    except PxebootError:
        for _member in read_members(io.BytesIO(data), where="input"):
            pass


def _initramfs(compression: Compression, data: bytes, scratch: Path) -> object:
    """Read an initramfs: the first byte says whether the rest is to be compressed first."""
    content = _pack(data[1:], compression) if data[:1] == b"1" else data[1:]
    return by_path(read_initramfs)(content, scratch)


def _pack(data: bytes, compression: Compression) -> bytes:
    """Compress in the fastest way; the least of them takes as much time as all else."""
    match compression:
        case Compression.BZIP2:
            return bz2.compress(data, 1)
        case Compression.LZMA:
            return lzma.compress(data, lzma.FORMAT_ALONE, preset=0)
        case Compression.XZ:
            return lzma.compress(data, check=lzma.CHECK_CRC32, preset=0)
        case Compression.ZSTD:
            return zstandard.ZstdCompressor(level=1).compress(data)
    return builders.compress(data, compression)


def _kernel(path: Path) -> None:
    kernel = read_kernel(path)
    if kernel.packed is None:
        return
    with path.open("rb") as file, open_unpacked(file, kernel) as unpacked:
        while unpacked.read(1 << 20):
            pass


def _grub_cfg(text: str) -> None:
    read_iso_menu(parse_grub_cfg(text, where="input"))


def _spec(path: Path) -> None:
    keys = read_spec(path)
    check_keys(list(keys))
    parse_settings({**release_settings(Path("/store")), **keys})


def _manifest(data: bytes, scratch: Path) -> None:
    """Read a tree's manifest: as it stands, or the good one bent as the bytes say."""
    tree = scratch / "tree"
    if not tree.exists():
        shutil.copytree(GOLDEN / "amd64-dracut", tree)
    if not data.startswith(b"{"):
        manifest = json.loads((GOLDEN / "amd64-dracut/manifest.json").read_bytes())
        data = json.dumps(_bend(manifest, data)).encode()
    (tree / "manifest.json").write_bytes(data)
    own_names(tree)
    _, found = read_manifest(tree)
    verify_tree(tree)
    for _line in tree_lines(tree, found):
        pass


#: What takes the place of a value that a reader relies on.
_STRANGE: Final[tuple[Any, ...]] = (
    None, True, 0, -1, 1 << 70, 1.5, "", "\0", "\ud800", "../..", "/dev/null", ".", "a" * 5000, [],
    {}, [[]], {"": None}, ["x"], "sha256", "config",
)  # fmt: skip


def _bend(document: Any, recipe: bytes) -> Any:
    """Replace values of `document`: three bytes say which one and by what."""
    for start in range(0, len(recipe) - 2, 3):
        places = list(_places(document))
        if not places:
            break
        where = int.from_bytes(recipe[start : start + 2], "big") % len(places)
        container, key = places[where]
        container[key] = copy.deepcopy(_STRANGE[recipe[start + 2] % len(_STRANGE)])
    return document


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    pairs: Any = ()
    if isinstance(document, dict):
        pairs = list(document.items())
    elif isinstance(document, list):
        pairs = list(enumerate(document))
    for key, value in pairs:
        yield document, key
        yield from _places(value)


# --- seeds --------------------------------------------------------------------------------------


def _files(folder: Path, pattern: str) -> tuple[bytes, ...]:
    return tuple(path.read_bytes() for path in sorted(folder.glob(pattern)))


def _initramfs_target(compression: Compression) -> Target:
    lacks = "lzop" if compression is Compression.LZO and find_program("lzop") is None else ""
    archives = (
        builders.newc(builders.dracut_members(drivers=("overlay", "nfsv3.ko.xz"), curl=True)),
        builders.newc(builders.genkernel_members(drivers=("loop",))),
    )
    seeds = [b"1" + archive for archive in archives]
    if not lacks:
        seeds += [
            b"0" + builders.microcode_archive() * early + _pack(archive, compression) * times
            for archive in archives
            for early, times in ((0, 1), (1, 2))
        ]
    tokens = (b"TRAILER!!!", b"070701", b"lib/modules/", b"usr/lib/dracut/modules.txt", b"../",
              b"FFFFFFFF", b"etc/build_id", b"\x02\x21\x4c\x18", b"\xfd7zXZ\0")  # fmt: skip
    return Target(partial(_initramfs, compression), tuple(seeds), tokens, lacks)


def _config_target(loader: Loader) -> Target:
    names = LOADERS[loader].configs
    seeds = tuple(
        path.read_bytes() for case in sorted(GOLDEN.iterdir()) for name in names
        if (path := case / name).exists()
    )  # fmt: skip
    return Target(by_text(LOADERS[loader].check), seeds, _WORDS)


_WORDS: Final = (
    b"menuentry ", b"submenu ", b"linux ", b"initrd ", b"set ", b"if ", b"then\n", b"else\n",
    b"fi\n", b"${grub_platform}", b"$x", b"{\n", b"}\n", b"'", b'"', b"\\", b"\\\n", b";", b"#",
    b"kernel ", b"item ", b"goto ", b":start\n", b"||", b"&&", b"LABEL ", b"APPEND ", b"root=live:",
    b"http://", b"nfsroot=", b"loop=/", b"../", b"\x00", b"\xff",
)  # fmt: skip

_KCONFIG: Final = (
    b"# Linux/x86 6.1.0 Kernel Configuration\n"
    b'CONFIG_CC_VERSION_TEXT="gcc (Gentoo 14.2) 14.2.0"\n'
    b"CONFIG_BLK_DEV_LOOP=y\nCONFIG_SQUASHFS=m\n# CONFIG_SQUASHFS_LZO is not set\nCONFIG_HZ=250\n"
    b'CONFIG_LOCALVERSION=""\nCONFIG_CMDLINE="a=\\"b c\\" # d=\\\\e"\n'
)
_CONF: Final = b"""
storedir = "/srv/catalyst"
digests = ["blake2b", "sha512"]
options = []
x.y = {z = 1979-05-27T07:32:00Z, w = '''%(storedir)s'''}
[section]
jobs = 0x10
"""


def _member_target() -> Target:
    archive = builders.newc({"./etc/a": b"hello", "/b": (builders.LINK | 0o777, b"etc/a")})
    return Target(_cpio, (archive, member_header("image.squashfs.img", 700)),
                  (b"TRAILER!!!", b"070701", b"070702", b"FFFFFFFF", b"../"))  # fmt: skip


def _kernel_target() -> Target:
    images = (
        builders.bzimage(size=2048),
        builders.bzimage(bits=32, efi_stub=False, size=2048),
        builders.arm64_image(size=5000),
        builders.riscv_image(size=5000),
        builders.loongarch_image(size=5000),
        builders.arm_zimage(efi_stub=True, size=512),
        builders.zboot_image(),
        builders.vmlinux("ppc64", big=True),
        builders.compress(builders.arm64_image(size=5000), "gzip"),
    )
    tokens = (b"HdrS", b"\x55\xaa", b"MZ", b"PE\0\0", b"zimg", b"zstd", b"xzkern", b"lzma", b"gzip",
              b"ARM\x64", b"\x7fELF", b"Linux version 6.1 (", b".compat", b"\x1f\x8b")  # fmt: skip
    return Target(by_path(_kernel), images, tokens)


def _iso(images: Sequence[bytes], data: bytes, scratch: Path) -> None:
    """Read an image with bytes changed: which, where and to what, `data` says."""
    content = bytearray(images[data[0] % len(images)] if data else b"")
    places = [at for at in range(16 * SECTOR, len(content)) if content[at]]
    for at in range(1, len(data) - 2, 3):
        place = int.from_bytes(data[at : at + 2], "big")
        content[places[place % len(places)]] = data[at + 2]
    path = scratch / "x.iso"
    path.write_bytes(content)
    iso = read_iso(path, wanted="image.squashfs")
    for name, file in iso.files.items():
        iso.find(name)
        if name.startswith("/") or ".." in name.split("/"):
            raise ValueError(f"{name} leads out of the image")
        if file.bytes and not file.link and file.offset + file.bytes > len(content):
            raise ValueError(f"{name} ends behind the image")


def _iso_target() -> Target:
    images = [_iso_image(rock_ridge="1.09"), _iso_image(joliet=3), _iso_image()]
    seeds = (b"\0", b"\1", b"\2", bytes(range(40)))
    return Target(partial(_iso, images), seeds, (b"\0\x40\xff", b"\1\x20\0"))


def _iso_image(**options: Any) -> bytes:
    ridge, joliet = "rock_ridge" in options, "joliet" in options
    image = PyCdlib()
    image.new(**options)
    image.add_directory(
        "/BOOT", rr_name="boot" if ridge else None, joliet_path="/boot" if joliet else None
    )
    for plain, name in {"/IMAGE.SQU;1": "image.squashfs", "/BOOT/GENTOO.;1": "gentoo"}.items():
        folder = plain.rpartition("/")[0].lower()
        image.add_fp(
            io.BytesIO(b"hsqs"), 4, plain, rr_name=name if ridge else None,
            joliet_path=f"{folder}/{name}" if joliet else None,
        )  # fmt: skip
    if ridge:
        image.add_symlink("/LINK.;1", "link", "boot/gentoo")
    written = io.BytesIO()
    image.write_fp(written)
    return written.getvalue()


TARGETS: Final[Mapping[str, Callable[[], Target]]] = {
    "iso": _iso_target,
    "cpio": _member_target,
    **{f"initramfs-{name}": partial(_initramfs_target, name) for name in Compression},
    "kernel": _kernel_target,
    "uki": lambda: Target(
        lambda data, _scratch: read_sections(data, where="uki"),
        (make_uki(efi_program(), {".linux": b"MZ", ".cmdline": b"a"}, where="stub"), efi_program()),
        (b"MZ", b"PE\0\0", b"\x64\x86", b"\x0b\x02", b"\xff\xff\xff\xff", b".linux\0\0"),
    ),
    "squashfs": lambda: Target(
        by_path(read_squashfs), (builders.squashfs_image(200), builders.squashfs_image(5000))
    ),
    "grub.cfg": lambda: Target(by_text(_grub_cfg), _files(DATA / "grub-cfg", "*.cfg"), _WORDS),
    "kconfig": lambda: Target(by_path(read_kconfig), (_KCONFIG,), (b"CONFIG_A=", b'"', b"\\")),
    **{
        f"config-{kind}": partial(_config_target, kind)
        for kind, loader in LOADERS.items()
        if loader.configs
    },
    "spec": lambda: Target(
        by_path(_spec),
        _files(ROOT / "specs", "**/*.spec*"),
        (b"%(subarch)s", b"%%", b"none", b"pxeboot/", b"boot/kernel/", b": ", b"#", b'"'),
    ),
    "catalyst.conf": lambda: Target(by_path(read_conf), (_CONF,), (b"[", b"{", b"'''", b"%(a)s")),
    "manifest": lambda: Target(
        _manifest, (*_files(GOLDEN, "*/manifest.json"), b"\x00\x01\x02\x00\x30\x09"), (b'"files"',)
    ),
}
