"""Input made to do harm: one line that names it, and bounds on memory and time.

What a live image, a template folder, a netboot tree or a spec could hold if somebody meant ill.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import lz4.block
import pytest
import zstandard

from catalyst_pxeboot.build.pipeline import build
from catalyst_pxeboot.formats.compression import Compression
from catalyst_pxeboot.source.image import read_source
from catalyst_pxeboot.spec.parse import parse_settings
from catalyst_pxeboot.tree.verify import verify_tree
from catalyst_pxeboot.util.errors import PxebootError
from catalyst_pxeboot.util.process import find_program
from tests.robustness.faults import digest_folder
from tests.robustness.syscalls import End, Outcome, run_apart
from tests.support import builders
from tests.support.mirror import edit
from tests.support.paths import DATA, ROOT
from tests.support.readers import read_initramfs
from tests.support.stage2 import INITRAMFS, release_settings, storedir_stage2, write_stage2

MIB = 1 << 20
#: Bounds of one command: the interpreter and its modules take 40 MiB and 0.2 s of them. Seconds
#: are a processor's, so that other work on the machine does not count.
MEMORY = 200 * MIB
SECONDS = 10.0

AGAIN = "build livecd-stage2 again"
BUILD_ANEW = "the file is damaged or made to exhaust memory; build it again"


@dataclass(frozen=True)
class Ran:
    """What a command came to: exit code, standard error, bytes of memory, seconds."""

    code: int
    error: str
    memory: int
    seconds: float


_COMMAND = """
import re, resource, sys
from catalyst_pxeboot.cli.main import main
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
code = main(sys.argv[1:])
# Not ru_maxrss, which still has what the process was before it became this one.
memory = int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]) * 1024
own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
seconds = sum(used.ru_utime + used.ru_stime for used in (own, others))
print(f"\\n{code} {memory} {seconds}")
"""


def command(*words: str | Path) -> Ran:
    """Run this project's command in a process of its own; it may take a minute, no more."""
    done = subprocess.run(
        [sys.executable, "-c", _COMMAND, *words],
        capture_output=True, text=True, check=False, timeout=60,
        cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    code, memory, seconds = done.stdout.splitlines()[-1].split()
    return Ran(int(code), done.stderr, int(memory), float(seconds))


def refused(ran: Ran, message: str, *, memory: int = MEMORY, seconds: float = SECONDS) -> None:
    """Assert that a command ended with the one line `message`, within bounds."""
    assert ran.error == f"catalyst-pxeboot: error: {message}\n"
    assert ran.code == 1
    assert ran.memory < memory, f"{ran.memory / MIB:.0f} MiB"
    assert ran.seconds < seconds, f"{ran.seconds:.1f} s"


def attempt(work: Callable[[], object]) -> str:
    """Run `work` where it does no harm if it hangs; return the one line that it is refused with."""

    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
        work()

    outcome = run_apart(bounded, timeout=20)
    assert outcome.end is End.REFUSED, outcome
    assert "\n" not in outcome.text
    return outcome.text


def build_of(storedir: Path, **keys: object) -> Callable[[], object]:
    settings = release_settings(storedir, **keys)
    return lambda: build(parse_settings(settings), report=lambda _line: None)


# --- what lies where a file should --------------------------------------------------------------

#: Files that a build reads, each with what the messages call it.
FILES = {
    "image.squashfs": "the live root",
    "boot/gentoo": "the kernel",
    "boot/gentoo.igz": "the initramfs",
    "boot/gentoo-config": "the kernel's config",
    "boot/grub/grub.cfg": "the ISO's menu",
    "boot/dtbs/board.dtb": "a device tree",
    "memtest64.bios": "a memtest image",
}


_CONFIG = "".join(
    f"CONFIG_{name}=y\n"
    for name in ("BLK_DEV_INITRD", "BLK_DEV_LOOP", "OVERLAY_FS", "RD_GZIP", "RD_XZ", "SQUASHFS",
                 "SQUASHFS_XZ")
)  # fmt: skip


@pytest.fixture
def source(storedir: Path) -> Path:
    """Return a live image that has every kind of file."""
    folder = storedir_stage2(storedir)
    extra = {"boot/dtbs/board.dtb": b"\xd0\x0d\xfe\xed", "memtest64.bios": b"memtest"}
    shutil.rmtree(folder)
    return write_stage2(folder, config=_CONFIG, extra=extra)


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    os.mknod(path, 0o140644)


def _device(path: Path, *, kind: int, number: tuple[int, int]) -> None:
    try:
        os.mknod(path, kind | 0o666, os.makedev(*number))
    except PermissionError:
        pytest.skip("no permission to make a device")


ODDITIES: dict[str, Callable[[Path], None]] = {
    "a pipe": _fifo,
    "a socket": _socket,
    "a folder": Path.mkdir,
    "/dev/zero": partial(_device, kind=0o020000, number=(1, 5)),
    "a disk": partial(_device, kind=0o060000, number=(7, 0)),
}


@pytest.mark.parametrize("oddity", ODDITIES)
@pytest.mark.parametrize("name", FILES)
def test_no_regular_file(source: Path, storedir: Path, name: str, oddity: str) -> None:
    path = source / name
    path.unlink()
    ODDITIES[oddity](path)
    what = FILES[name]
    assert attempt(build_of(storedir)) == f"{path}: {what} is not a regular file; {AGAIN}"
    assert [entry.name for entry in source.parent.iterdir()] == [source.name]


@pytest.mark.parametrize("to", ["/etc/passwd", "../secret", "/dev/zero", "relative"])
@pytest.mark.parametrize("name", FILES)
def test_a_link_out_of_the_source(source: Path, storedir: Path, name: str, to: str) -> None:
    path = source / name
    secret = source.parent / "secret"
    shutil.copy2(path, secret)  # what it leads to is a good file
    path.unlink()
    path.symlink_to(os.path.relpath(secret, path.parent) if to == "relative" else to)
    if to == "../secret" and "/" in name:
        path.unlink()
        path.symlink_to(secret)
    assert attempt(build_of(storedir)) == (
        f"{path}: {FILES[name]} is a symlink that leads out of the tree; put the file itself there"
    )


def test_a_folder_of_the_source_is_a_link_out_of_it(source: Path, storedir: Path) -> None:
    (source / "boot").rename(source.parent / "elsewhere")
    (source / "boot").symlink_to("../elsewhere")
    path = source / "boot/grub/grub.cfg"
    assert attempt(build_of(storedir)) == (
        f"{path}: the ISO's menu is a symlink that leads out of the tree; put the file itself there"
    )


def test_a_link_within_the_source_is_none_of_these(source: Path, storedir: Path) -> None:
    (source / "image.squashfs").rename(source / "root.img")
    (source / "image.squashfs").symlink_to("root.img")
    assert run_apart(build_of(storedir)) == Outcome(End.DONE)


@pytest.mark.parametrize("oddity", [name for name in ODDITIES if name != "a folder"])
def test_the_source_itself_is_none(source: Path, storedir: Path, oddity: str) -> None:
    shutil.rmtree(source)
    ODDITIES[oddity](source)
    why = "the source is neither a folder nor an ISO"
    hint = "give the livecd-stage2 folder or an ISO made of it"
    assert attempt(build_of(storedir)) == f"{source}: {why}; {hint}"


# --- archives -----------------------------------------------------------------------------------


def test_names_that_leave_the_archive(source: Path, storedir: Path, tmp_path: Path) -> None:
    """Nothing of an archive is ever written to a disk; and no name counts as what it ends in."""
    names = ("../../../../../../../../tmp/evil", "/etc/evil", "usr/../../evil", "..")
    hostile: dict[str, builders.Content] = dict.fromkeys(names, b"evil")
    hostile["../usr/lib/modules/6.6.6-evil/kernel/overlay.ko"] = b"\x7fELF"
    hostile["../usr/bin/curl"] = b"\x7fELF"
    hostile["../usr/lib/dracut/hooks/cmdline"] = (builders.FOLDER | 0o755, b"")
    hostile["link"] = (builders.LINK | 0o777, b"../../../../etc")
    hostile["link/evil"] = b"evil"
    members = builders.dracut_members()
    path = source / "boot/gentoo.igz"
    path.write_bytes(builders.initramfs(members, "gzip"))
    good = read_initramfs(path)
    path.write_bytes(builders.initramfs(hostile | members, "gzip"))
    before = digest_folder(tmp_path)

    bad = read_initramfs(path)
    build_of(storedir)()

    assert (bad.drivers, bad.fetcher) == (frozenset(), False)
    assert (bad.modules, bad.hooks, bad.version) == (good.modules, good.hooks, good.version)
    after = digest_folder(tmp_path)
    new = {
        Path(name).relative_to("store/builds/23.0-default").parts[0]
        for name in after.keys() - before.keys()
    }
    assert new == {name for name in new if name.startswith("pxeboot-amd64-")}
    assert not Path("/tmp/evil").exists()
    assert not Path("/etc/evil").exists()


CLAIMED = 50 << 30
_BLOCK = 64 * MIB


def make_bomb(compression: Compression) -> bytes:
    """Return up to 8 MiB that unpack to 50 GiB of zeros, or to what the format can at most."""
    head = b""
    match compression:
        case Compression.GZIP:
            one = gzip.compress(bytes(_BLOCK), mtime=0)
        case Compression.BZIP2:
            one = bz2.compress(bytes(_BLOCK))
        case Compression.LZMA:
            one = lzma.compress(bytes(_BLOCK), lzma.FORMAT_ALONE, preset=0)
        case Compression.XZ:
            one = lzma.compress(bytes(_BLOCK), check=lzma.CHECK_CRC32, preset=0)
        case Compression.LZ4:
            head = b"\x02\x21\x4c\x18"
            block = lz4.block.compress(bytes(8 * MIB), store_size=False)
            one = (struct.pack("<I", len(block)) + block) * 8
        case Compression.ZSTD:
            one = zstandard.ZstdCompressor(level=1).compress(bytes(_BLOCK))
        case _:
            one = builders.lzop(bytes(_BLOCK))
    return head + one * min(CLAIMED // _BLOCK, 8 * MIB // len(one))


@pytest.fixture
def plain_source(tmp_path: Path) -> Iterator[Path]:
    """Return a live image in a folder that is emptied behind the test, as some grow large."""
    folder = write_stage2(tmp_path / "livecd-stage2-amd64-1")
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("compression", [name for name in Compression if name != "none"])
def test_a_bomb(plain_source: Path, compression: Compression) -> None:
    path = plain_source / "boot/gentoo.igz"
    bomb = make_bomb(compression)
    path.write_bytes(bomb)
    bzip2 = compression is Compression.BZIP2
    most = max(192 * MIB, int(3.5 * len(bomb))) if bzip2 else max(256 * MIB, 12 * len(bomb))
    assert most < 272 * MIB
    refused(
        command("inspect", plain_source), f"{path}: unpacks to more than {most} bytes; {BUILD_ANEW}"
    )


def test_a_real_initramfs_is_no_bomb(plain_source: Path) -> None:
    """Ten times what it weighs, as no compressor gets out of programs, and 200 MiB."""
    path = plain_source / "boot/gentoo.igz"
    noise = os.urandom(64 << 10)
    content = {f"usr/lib/firmware/{number}": (noise + bytes(576 << 10)) for number in range(320)}
    path.write_bytes(builders.initramfs({**content, **builders.dracut_members()}, "gzip"))
    ran = command("inspect", plain_source)
    assert (ran.code, ran.error) == (0, "")
    assert ran.memory < MEMORY


def _wide_xz() -> bytes:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 128 * MIB}]
    packer = lzma.LZMACompressor(lzma.FORMAT_XZ, check=lzma.CHECK_CRC32, filters=filters)
    return b"".join(packer.compress(bytes(_BLOCK)) for _ in range(5)) + packer.flush()


def _wide_zstd() -> bytes:
    how = zstandard.ZstdCompressionParameters(window_log=27, chain_log=6, hash_log=6, strategy=1)
    packer = zstandard.ZstdCompressor(compression_params=how).compressobj()
    return b"".join(packer.compress(bytes(_BLOCK)) for _ in range(5)) + packer.flush()


@pytest.mark.parametrize("make", [_wide_xz, _wide_zstd])
def test_a_bomb_with_the_widest_window(plain_source: Path, make: Callable[[], bytes]) -> None:
    """What a decompressor keeps at hand is memory: 128 MiB of the 200, as the kernel allows."""
    path = plain_source / "boot/gentoo.igz"
    path.write_bytes(make())
    refused(
        command("inspect", plain_source),
        f"{path}: unpacks to more than {256 * MIB} bytes; {BUILD_ANEW}",
    )


def test_a_wider_window_is_refused_at_once(plain_source: Path) -> None:
    path = plain_source / "boot/gentoo.igz"
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 192 * MIB}]
    path.write_bytes(lzma.compress(b"", filters=filters, check=lzma.CHECK_CRC32))
    small = command("inspect", plain_source)
    path.write_bytes(lzma.compress(bytes(600), filters=filters, check=lzma.CHECK_CRC32))
    refused(
        command("inspect", plain_source),
        f"{path}: its xz data is damaged: Memory usage limit exceeded;"
        " copy or build the file again",
        memory=100 * MIB,
    )
    assert small.code == 1


def _members(count: int, name: Callable[[int], str]) -> bytes:
    parts = [builders.newc(builders.dracut_members(), trailer=False, block=1)]
    parts += [builders.newc_member(name(number)) for number in range(count)]
    return zstandard.ZstdCompressor(level=1).compress(b"".join(parts) + builders.newc({}))


def test_names_that_are_to_be_kept(plain_source: Path) -> None:
    """60,000 names of 4 KiB, each a kernel's, a driver's or a hook's, in less than 2 MiB."""
    path = plain_source / "boot/gentoo.igz"
    long = "a" * 3900
    names = (f"lib/modules/{long}{{0}}/x.ko", f"lib/modules/6.1/{long}{{0}}.ko",
             f"lib/dracut/{long}{{0}}/hooks/cmdline")  # fmt: skip
    path.write_bytes(_members(60_000, lambda number: names[number % 3].format(number)))
    assert path.stat().st_size < 2 * MIB
    ran = command("inspect", plain_source)
    assert (ran.code, ran.error) == (0, "")
    assert ran.memory < 100 * MIB
    assert ran.seconds < SECONDS


def test_too_many_members(plain_source: Path) -> None:
    path = plain_source / "boot/gentoo.igz"
    path.write_bytes(_members(200_001, lambda number: f"lib/modules/6.1/{number:050}.ko"))
    refused(
        command("inspect", plain_source),
        f"{path}: has more than 200000 members; check that the file is an initramfs",
    )


def test_a_file_of_holes(plain_source: Path) -> None:
    """One terabyte that takes no room: zeros, which may stand before an archive."""
    path = plain_source / "boot/gentoo.igz"
    try:
        os.truncate(path, 1 << 40)
    except OSError:
        pytest.skip("no file of that size on this file system")
    refused(
        command("inspect", plain_source),
        f"{path}: unpacks to more than {4 << 30} bytes;"
        " check that the file is an initramfs; build it again",
    )


def test_a_member_that_claims_4_gib(plain_source: Path) -> None:
    path = plain_source / "boot/gentoo.igz"
    header = bytearray(builders.newc_member("init", b"x"))
    header[54:62] = b"FFFFFFFF"
    path.write_bytes(header)
    refused(
        command("inspect", plain_source),
        f"{path}: ends early, expected a cpio archive with its trailer;"
        " the file is truncated; copy or build it again",
    )


@pytest.mark.parametrize("named", [True, False])
def test_a_kernel_that_is_a_bomb(tmp_path: Path, named: bool) -> None:
    """Its version is looked for, and where it stands early, the whole is unpacked for U-Boot."""
    source = write_stage2(tmp_path / "livecd-stage2-arm64-1", grub_cfg="arm64-dracut.cfg")
    path = source / "boot/gentoo"
    image = builders.arm64_image() if named else builders.arm64_image()[:4096]
    zeros = gzip.compress(bytes(_BLOCK), mtime=0)
    path.write_bytes(gzip.compress(image, mtime=0) + zeros * 100)
    target = ("--output", tmp_path / "tree", "--set", "pxeboot/loaders=uboot")
    refused(
        command("build", "--source", source, *target),
        f"{path}: unpacks to more than {256 * MIB} bytes; {BUILD_ANEW}",
    )
    assert [entry.name for entry in tmp_path.iterdir()] == [source.name]


# --- texts --------------------------------------------------------------------------------------


def test_a_menu_of_50_mb(plain_source: Path) -> None:
    path = plain_source / "boot/grub/grub.cfg"
    entry = (DATA / "grub-cfg/amd64-dracut.cfg").read_bytes()
    path.write_bytes((entry * (50_000_000 // len(entry) + 1))[:50_000_000])
    refused(
        command("inspect", plain_source),
        f"{path}: 50000000 bytes are too many for a GRUB menu; build livecd-stage2 again",
        memory=60 * MIB,
        seconds=3,
    )


_LIVE = "menuentry {title} {{\n linux /boot/gentoo {words}\n initrd /boot/gentoo.igz\n}}\n"
MENUS = {
    # Texts that once took the square of their length, and what is left of them.
    "empty variables": (_LIVE.format(title="a", words='$y""' * 125_000), None),
    "two entries of many words": (
        _LIVE.format(title="a", words=" ".join(map(str, range(38_000))))
        + _LIVE.format(title="b", words=" ".join(map(str, range(38_000, 76_000)))),
        None,
    ),
    "many entries": (
        "".join(_LIVE.format(title=f"e{number}", words=number) for number in range(5_000)),
        "line 1025: has more than 256 menu entries; shorten the menu",
    ),
    "words": ("a " * 262_000, None),
    "white space": (" " * 524_288, None),
    "deep nesting": (
        "submenu a {" * 40_000, "line 1: is nested deeper than 64; flatten the menu"
    ),
    "variables in variables": (
        "set a=aaaaaaaaaaaaaaaa\n" + "set a=$a$a\n" * 100,
        "line 13: variables make too long a text; use fewer variables",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MENUS)
def test_a_menu_made_to_cost_time(plain_source: Path, name: str) -> None:
    path = plain_source / "boot/grub/grub.cfg"
    text, message = MENUS[name]
    path.write_text(f"set y=\n{text}" if name == "empty variables" else text)
    ran = command("inspect", plain_source)
    if message is not None:
        assert ran.error == f"catalyst-pxeboot: error: {path}: {message}\n"
    assert ran.memory < MEMORY, f"{ran.memory / MIB:.0f} MiB"
    assert ran.seconds < SECONDS, f"{ran.seconds:.1f} s"


SPECS = {
    "laughs": (
        "a: xxxxxxxxxx\n" + "a: %(a)s%(a)s\n" * 40,
        "line 14: '%(a)s%(a)s' cannot be expanded (more than 65536 characters);"
        " write %% for a percent sign; %(key)s takes a key set further up",
    ),
    "a wide field": (
        "a: b\nc: %(a)2000000000s\n",
        "line 2: '%(a)2000000000s' cannot be expanded (more than 65536 characters);"
        " write %% for a percent sign; %(key)s takes a key set further up",
    ),
}


@pytest.mark.parametrize("name", SPECS)
def test_a_spec_that_grows(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.spec"
    text, message = SPECS[name]
    path.write_text(text)
    refused(command("build", "-f", path), f"{path}, {message}", memory=60 * MIB, seconds=3)


@pytest.mark.parametrize("text", ["a: b\n" + "c\n" * 32_000, "a: b" + " " * 65_000 + "c\n"])
def test_a_spec_made_to_cost_time(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.spec"
    path.write_text(text)
    ran = command("build", "-f", path)
    assert ran.error.startswith("catalyst-pxeboot: error: a: no such spec key")
    assert ran.memory < MEMORY
    assert ran.seconds < 3


def test_a_spec_of_any_size(tmp_path: Path) -> None:
    path = tmp_path / "x.spec"
    path.symlink_to("/dev/zero")
    refused(
        command("build", "-f", path),
        f"{path}: the spec file has more than 65536 bytes; check that it is the right file",
        memory=60 * MIB,
        seconds=3,
    )


# --- templates ----------------------------------------------------------------------------------


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    """Return an empty folder of the user's own templates; what lies beside it is not theirs."""
    (tmp_path / "secret.j2").write_text("root:x:0:0")
    folder = tmp_path / "templates"
    folder.mkdir()
    return folder


def _template_link(folder: Path) -> None:
    (folder / "boot.ipxe.j2").symlink_to("../secret.j2")


def _template_folder_link(folder: Path) -> None:
    (folder.parent / "pxelinux.cfg").mkdir()
    (folder.parent / "pxelinux.cfg/default.j2").write_text("x")
    (folder / "pxelinux.cfg").symlink_to("../pxelinux.cfg")


def _includes(name: str) -> Callable[[Path], None]:
    def bend(folder: Path) -> None:
        (folder / "boot.ipxe.j2").write_text(f"{{% include {name!r} %}}\n")

    return bend


def _template_is(oddity: str) -> Callable[[Path], None]:
    return lambda folder: ODDITIES[oddity](folder / "boot.ipxe.j2")


_LEAVES = "leads out of {folder}; put a copy into the folder instead of a link"
_ABSENT = "which is not there; put it into the folder of pxeboot/templates or leave the include out"
_UNREADABLE = "make the file readable or correct pxeboot/templates"
TEMPLATES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a link": (_template_link, f"template {{folder}}/boot.ipxe.j2: {_LEAVES}"),
    "a folder that is a link": (
        _template_folder_link, f"template {{folder}}/pxelinux.cfg/default.j2: {_LEAVES}",
    ),
    "an include from above": (
        _includes("../secret.j2"),
        f'template boot.ipxe.j2: includes "../secret.j2", {_ABSENT}',
    ),
    "an include from above, by a folder": (
        _includes("pxelinux.cfg/../../secret.j2"),
        f'template boot.ipxe.j2: includes "pxelinux.cfg/../../secret.j2", {_ABSENT}',
    ),
    "an include from the root": (
        _includes("/etc/passwd"), f'template boot.ipxe.j2: includes "/etc/passwd", {_ABSENT}',
    ),
    "a pipe": (
        _template_is("a pipe"),
        f"template {{folder}}/boot.ipxe.j2: Not a regular file; {_UNREADABLE}",
    ),
    "/dev/zero": (
        _template_is("/dev/zero"),
        f"template {{folder}}/boot.ipxe.j2: Not a regular file; {_UNREADABLE}",
    ),
    "a folder": (
        _template_is("a folder"),
        f"template {{folder}}/boot.ipxe.j2: Is a directory; {_UNREADABLE}",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_that_leaves_its_folder(storedir: Path, templates: Path, name: str) -> None:
    bend, message = TEMPLATES[name]
    bend(templates)
    before = digest_folder(storedir)
    text = attempt(build_of(storedir, pxeboot__templates=str(templates)))
    assert text == message.format(folder=templates)
    assert digest_folder(storedir) == before


# --- trees --------------------------------------------------------------------------------------


@pytest.fixture
def tree(storedir: Path) -> Path:
    """Return a published tree, its files copied."""
    settings = release_settings(storedir, pxeboot__link="copy")
    return build(parse_settings(settings), report=lambda _line: None).output


def _swap(name: str, oddity: str) -> Callable[[Path], None]:
    def bend(tree: Path) -> None:
        (tree / name).unlink()
        ODDITIES[oddity](tree / name)

    return bend


def _swap_for_link(name: str) -> Callable[[Path], None]:
    def bend(tree: Path) -> None:
        (tree / name).unlink()
        (tree / name).symlink_to("/dev/zero")

    return bend


def _sums_of(name: str) -> Callable[[Path], None]:
    return edit(lambda manifest: manifest.update(sums={name: ["sha256"]}))


_AGAIN = "build the tree again"
TREES: dict[str, tuple[Callable[[Path], None], str]] = {
    **{
        f"the manifest is {oddity}": (
            _swap("manifest.json", oddity),
            "{tree}/manifest.json: cannot be read: Not a regular file;"
            " give the folder of a netboot tree",
        )
        for oddity in ("a pipe", "/dev/zero")
    },
    "the manifest is a link to /dev/zero": (
        _swap_for_link("manifest.json"),
        "{tree}/manifest.json: cannot be read: Not a regular file;"
        " give the folder of a netboot tree",
    ),
    **{
        f"a configuration is {oddity}": (
            _swap("boot.ipxe", oddity),
            f"boot.ipxe: not a regular file; {_AGAIN}",
        )
        for oddity in ("a pipe", "/dev/zero")
    },
    "a configuration is a link to /dev/zero": (
        _swap_for_link("boot.ipxe"), f"boot.ipxe: not a regular file; {_AGAIN}",
    ),
    "the sums are a pipe": (
        _swap("SHA256SUMS", "a pipe"), f"SHA256SUMS: cannot be read: Not a regular file; {_AGAIN}",
    ),
    "the sums are elsewhere": (
        _sums_of("/dev/zero"),
        "{tree}/manifest.json: not a valid manifest (sums: has '/dev/zero'); " + _AGAIN,
    ),
    "the header is a pipe": (
        _swap("boot/root.cpio-header", "a pipe"),
        f"boot/root.cpio-header: not a regular file; {_AGAIN}",
    ),
}  # fmt: skip


def _verify(tree: Path) -> None:
    faults = verify_tree(tree).faults
    if faults:
        raise PxebootError(" | ".join(map(str, faults)))


@pytest.mark.parametrize("name", TREES)
def test_a_tree_that_is_not_to_be_trusted(tree: Path, name: str) -> None:
    bend, message = TREES[name]
    bend(tree)
    assert message.format(tree=tree) in attempt(partial(_verify, tree))


@pytest.mark.parametrize("oddity", ["a pipe", "/dev/zero"])
def test_a_tree_whose_manifest_is_no_file_is_not_replaced(
    storedir: Path, tree: Path, oddity: str
) -> None:
    (tree / "manifest.json").unlink()
    ODDITIES[oddity](tree / "manifest.json")
    assert attempt(build_of(storedir)) == (
        f"{tree}: is not a tree that catalyst-pxeboot made, so it is not replaced;"
        " move it away or give another folder"
    )


def test_a_root_argument_made_to_cost_time(tree: Path) -> None:
    """Once the square of its length."""
    text = "LABEL a\nAPPEND root=live:http://" + "}a:" * 100_000 + "/\n"
    (tree / "pxelinux.cfg/default").write_text(text)
    ran = command("verify", tree)
    assert ran.code == 1
    assert ran.memory < MEMORY
    assert ran.seconds < 3, f"{ran.seconds:.1f} s"


# --- the means of these tests -------------------------------------------------------------------


def test_the_bounds_are_measured(tmp_path: Path) -> None:
    """A command that takes more than it may would be seen."""
    ran = command("verify", tmp_path)
    with pytest.raises(AssertionError, match="MiB"):
        refused(ran, ran.error.removeprefix("catalyst-pxeboot: error: ").strip(), memory=MIB)
    with pytest.raises(AssertionError, match=" s"):
        refused(ran, ran.error.removeprefix("catalyst-pxeboot: error: ").strip(), seconds=0.001)
    assert run_apart(signal.pause, timeout=0.2).end is End.HUNG


def test_a_good_image_is_read(plain_source: Path) -> None:
    assert read_source(plain_source).kernels[0].initramfs.compression is Compression.XZ
    (plain_source / "boot/gentoo.igz").write_bytes((INITRAMFS / "dracut-103.zst").read_bytes())
    assert command("inspect", plain_source).code == 0
    assert find_program("sh")
