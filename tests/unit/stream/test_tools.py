"""Finding the programs that stream a root, and every library of theirs."""

from __future__ import annotations

import builtins
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest

from catalyst_pxeboot.formats.elf import read_program
from catalyst_pxeboot.stream import tools as stream_tools
from catalyst_pxeboot.stream.tools import NoTools, Tools, find_tools
from catalyst_pxeboot.util import process
from catalyst_pxeboot.util.errors import FormatError

TRIPLET = "aarch64-linux-gnu"
EM_AARCH64, EM_X86_64 = 183, 62


def elf(*needed: str, interpreter: str = "", machine: int = EM_AARCH64, runpath: str = "") -> bytes:
    """Return an ELF file with nothing but what says how it is loaded."""
    names = b"\0"
    tags = []
    for tag, word in [*((1, name) for name in needed), *([(29, runpath)] if runpath else [])]:
        tags.append((tag, len(names)))
        names += word.encode() + b"\0"
    at = 64 + 56 * 3
    interp = interpreter.encode() + b"\0"
    strings = at + len(interp)
    dynamic = strings + len(names)
    tags += [(5, strings), (10, len(names)), (0, 0)]
    table = b"".join(struct.pack("<QQ", *tag) for tag in tags)
    end = dynamic + len(table)
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, 0, 0, 64, 56, 3, 64, 0, 0)

    def segment(kind: int, start: int, count: int) -> bytes:
        return struct.pack("<IIQQQQQQ", kind, 4, start, start, start, count, count, 1)

    segments = segment(1, 0, end) + segment(2, dynamic, len(table))
    segments += segment(3 if interpreter else 0, at, len(interp))
    return header + segments + interp + names + table


def write(root: Path, path: str, content: bytes) -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


LOADER = "/lib/ld-linux-aarch64.so.1"


@pytest.fixture
def sysroot(tmp_path: Path) -> Path:
    """A folder with arm64's packages unpacked, one library in a place that ld.so.conf names."""
    root = tmp_path / "sysroot"
    folder = f"usr/lib/{TRIPLET}"
    write(root, "usr/bin/nbdkit", elf("libgnutls.so.30", interpreter=LOADER))
    write(root, f"{folder}/nbdkit/plugins/nbdkit-curl-plugin.so", elf("libcurl.so.4"))
    write(root, f"{folder}/nbdkit/filters/nbdkit-retry-request-filter.so", elf())
    write(root, "usr/sbin/nbd-client", elf("libc.so.6", interpreter=LOADER))
    write(root, "bin/busybox", elf())
    write(root, f"{folder}/libgnutls.so.30", elf("libc.so.6", "libodd.so.1"))
    write(root, f"{folder}/libcurl.so.4", elf("libown.so", runpath="$ORIGIN/curl"))
    write(root, f"{folder}/curl/libown.so", elf())
    write(root, "lib64/libc.so.6", elf(machine=EM_X86_64))  # another architecture's
    write(root, "lib/libc.so.6", elf())
    write(root, "opt/odd/libodd.so.1", elf())
    write(root, "etc/ld.so.conf", b"# where else\ninclude ld.so.conf.d/*.conf\n")
    write(root, "etc/ld.so.conf.d/odd.conf", b"/opt/odd\n")
    write(root, LOADER.lstrip("/"), elf())
    return root


def test_every_library_is_found_for_the_kernels_machine(sysroot: Path) -> None:
    found = find_tools("arm64", [sysroot])
    assert isinstance(found, Tools)
    assert {path: str(file.relative_to(sysroot)) for path, file in found.files.items()} == {
        "@/nbdkit": "usr/bin/nbdkit",
        "@/nbd-client": "usr/sbin/nbd-client",
        "@/busybox": "bin/busybox",
        "lib/nbdkit-curl-plugin.so": f"usr/lib/{TRIPLET}/nbdkit/plugins/nbdkit-curl-plugin.so",
        "lib/nbdkit-retry-request-filter.so": (
            f"usr/lib/{TRIPLET}/nbdkit/filters/nbdkit-retry-request-filter.so"
        ),
        "lib/libgnutls.so.30": f"usr/lib/{TRIPLET}/libgnutls.so.30",
        "lib/libcurl.so.4": f"usr/lib/{TRIPLET}/libcurl.so.4",
        "lib/libown.so": f"usr/lib/{TRIPLET}/curl/libown.so",
        "lib/libc.so.6": "lib/libc.so.6",
        "lib/libodd.so.1": "opt/odd/libodd.so.1",
        "lib/ld-linux-aarch64.so.1": "lib/ld-linux-aarch64.so.1",
    }
    assert found.interpreter == ""


def test_a_dynamic_busybox_needs_its_loader(sysroot: Path) -> None:
    write(sysroot, "bin/busybox", elf(interpreter=LOADER))
    found = find_tools("arm64", [sysroot])
    assert isinstance(found, Tools) and found.interpreter == "lib/ld-linux-aarch64.so.1"


@pytest.mark.parametrize(
    ("path", "content", "what", "says"),
    [
        ("usr/bin/nbdkit", None, "nbdkit", "install nbdkit (Gentoo: sys-block/nbdkit)"),
        ("usr/bin/nbdkit", elf(machine=EM_X86_64), "nbdkit", "install nbdkit"),
        ("usr/bin/nbdkit", b"#!/bin/sh\n", "nbdkit", "install nbdkit"),
        ("usr/sbin/nbd-client", b"", "nbd-client", "sys-block/nbd)"),
        ("bin/busybox", None, "busybox", "busybox-static"),
        (f"usr/lib/{TRIPLET}/nbdkit/plugins/nbdkit-curl-plugin.so", None,
         "nbdkit-curl-plugin.so", "sys-block/nbdkit[curl]"),
        ("opt/odd/libodd.so.1", None, "nbdkit", "install its package again"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(
    sysroot: Path, path: str, content: bytes | None, what: str, says: str
) -> None:
    (sysroot / path).unlink()
    if content is not None:
        write(sysroot, path, content)
    found = find_tools("arm64", [sysroot])
    assert isinstance(found, NoTools)
    assert found.what == what
    assert says in found.hint
    assert found.reason


def test_no_place_is_known_for_other_machines() -> None:
    found = find_tools("riscv64", [])
    assert isinstance(found, NoTools) and "riscv64" in found.reason


@pytest.mark.parametrize("program", ["mksquashfs", "unsquashfs"])
def test_squashfs_tools_are_needed(
    sysroot: Path, program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = process.find_program
    monkeypatch.setattr(
        stream_tools, "find_program", lambda name: None if name == program else there(name)
    )
    found = find_tools("arm64", [sysroot])
    assert found == NoTools(program, "not found on this host", "install squashfs-tools")


def test_without_the_extra_it_is_named(sysroot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = builtins.__import__

    def missing(name: str, *more: Any, **words: Any) -> Any:
        if name.startswith("elftools"):
            raise ImportError(name)
        return there(name, *more, **words)

    monkeypatch.setattr(builtins, "__import__", missing)
    found = find_tools("arm64", [sysroot])
    assert isinstance(found, NoTools) and "catalyst-pxeboot[stream]" in found.hint


def test_a_loop_of_includes_ends(sysroot: Path) -> None:
    write(sysroot, "etc/ld.so.conf", b"include ld.so.conf\ninclude ld.so.conf.d/*.conf\n")
    assert isinstance(find_tools("arm64", [sysroot]), Tools)


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"MZ" * 100, elf()[:80], elf(machine=7)])
def test_what_is_not_a_program_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(FormatError):
        read_program(tmp_path / "file")


def test_this_hosts_own_program() -> None:
    shell = shutil.which("sh")
    assert shell
    program = read_program(Path(shell))
    assert "libc.so.6" in program.needed
    assert program.interpreter.startswith("/lib")


def test_genkernels_initramfs_needs_more(sysroot: Path) -> None:
    found = find_tools("arm64", [sysroot], generators={"genkernel"})
    assert isinstance(found, NoTools)
    assert found.what == "modprobe" and "kmod" in found.hint
    write(sysroot, "bin/kmod", elf("libc.so.6"))
    write(sysroot, "sbin/dmsetup", elf("libc.so.6"))
    found = find_tools("arm64", [sysroot], generators={"dracut", "genkernel"})
    assert isinstance(found, Tools) and {"@/modprobe", "@/dmsetup"} <= found.files.keys()
