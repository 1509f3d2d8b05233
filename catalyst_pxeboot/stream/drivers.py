"""Take the network drivers of a kernel, with the firmware that they name, out of a live root.

Source of the formats: modules.dep(5); the kernel's include/linux/module.h (MODULE_FIRMWARE).
"""

from __future__ import annotations

import filecmp
import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from io import BytesIO
from pathlib import Path
from typing import Final

from catalyst_pxeboot.formats.compression import Compression, detect_compression, open_decompressed
from catalyst_pxeboot.util.errors import CommandError, FormatError, SourceError
from catalyst_pxeboot.util.files import read_regular
from catalyst_pxeboot.util.process import find_program, read_output
from catalyst_pxeboot.util.resources import read_table
from catalyst_pxeboot.util.tempdir import scratch_folder

#: What modprobe reads to load a module by its name or alias.
_INDEX: Final = (
    "modules.dep.bin", "modules.alias.bin", "modules.softdep", "modules.builtin.bin",
    "modules.builtin.alias.bin",
)  # fmt: skip
_PACKED: Final = ("", ".xz", ".zst")

_MODULE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+/-]*\.ko(?:\.xz|\.zst|\.gz)?")
_NAMED: Final = re.compile(rb"firmware=([A-Za-z0-9_][A-Za-z0-9._+/-]{0,200})\0")

_SECONDS: Final = 120.0
_MEMORY: Final = 2 << 30  # bytes of address space; unsquashfs has threads, each with a stack
_MAX_FILE: Final = 32 << 20  # bytes of a file that is taken out
_MAX_MODULE: Final = 16 << 20
_MAX_MODULES: Final = 4000
_MAX_INDEX: Final = 8 << 20
#: A firmware file that is larger is for a switch or an accelerator.
_MAX_FIRMWARE: Final = 2 << 20


def choose_modules(index: str) -> tuple[str, ...]:
    """Return the modules that the table names, with what they depend on, sorted.

    `index` is modules.dep; the result's paths are as they are there. Raises `FormatError` if
    there are more of them than a kernel has.
    """
    table = read_table("stream/drivers.toml")
    needs: dict[str, list[str]] = {}
    for line in index.splitlines():
        path, _, dependencies = line.partition(":")
        needs[path.strip()] = dependencies.split()
    chosen: set[str] = set()
    for path, required in needs.items():
        name = path.removeprefix("kernel/").partition(".ko")[0]
        if _matches(name, table["modules"]) and not _matches(name, table["without"]):
            chosen |= {path, *required}
    wrong = [path for path in chosen if not _MODULE.fullmatch(path) or "/../" in f"/{path}"]
    if wrong or len(chosen) > _MAX_MODULES:
        raise FormatError(f"modules.dep: {min(wrong, default='too many modules')!a}", hint="")
    return tuple(sorted(chosen))


def take_drivers(image: Path, *, offset: int, modules: str, target: Path) -> None:
    """Put the drivers of the live root into `target`, below lib/modules and lib/firmware.

    The squashfs begins at byte `offset` of `image`; `modules` is the folder in it with those of the
    kernel. Raises `SourceError`.
    """
    scratch = target.with_name(f"{target.name}.root")
    version = Path(modules).name
    try:
        _unpack(image, offset, [f"{modules}/{name}" for name in ("modules.dep", *_INDEX)], scratch)
        text = read_regular(scratch / modules / "modules.dep", limit=_MAX_INDEX).decode()
        chosen = choose_modules(text)
        _unpack(image, offset, [f"{modules}/{path}" for path in chosen], scratch)
        place = target / "lib/modules" / version
        for name in (*_INDEX, *chosen):
            _move(scratch / modules / name, place / name)
        names = {name for path in chosen for name in _firmware(place / path)}
        firmware = f"{Path(modules).parent.parent}/firmware"
        _take_firmware(image, offset, firmware, names, scratch, target / "lib/firmware")
    except (OSError, ValueError, FormatError, CommandError) as error:
        raise SourceError(
            f"{image}: the drivers in {modules} cannot be taken out of it: {error}",
            hint="leave stream out of pxeboot/root",
        ) from error
    # Newer builds of modprobe look below usr/.
    (target / "usr").mkdir()
    (target / "usr/lib").symlink_to("../lib")


def find_foreign_drivers(packed: bytes, *, where: str, root: Path) -> tuple[str, ...]:
    """Return the files of the image `packed` that are not those of the squashfs `root`, sorted.

    `packed` is one of drivers, as it is in the initrd `where`. Raises `SourceError`.
    """
    with scratch_folder() as scratch:
        image, theirs, ours = (scratch / name for name in ("image", "theirs", "ours"))
        image.write_bytes(packed)
        try:
            _unpack(image, 0, [], theirs)
            names = [
                str(file.relative_to(theirs))
                for file in sorted(theirs.rglob("*"))
                if not file.is_symlink() and not file.is_dir()
            ]
            if not names:
                return ()
            # A live root has lib/, or usr/lib/ and a link to it.
            for folder in ("", "usr"):
                places = [str(Path(folder, name)) for name in names]
                _unpack(root, 0, places, ours)
                names = [name for name in names if not _same(theirs / name, ours / folder / name)]
                if not names:
                    break
            return tuple(names)
        except (OSError, CommandError) as error:
            raise SourceError(
                f"{where}: its drivers cannot be compared with those of the live root: {error}",
                hint="install squashfs-tools",
            ) from error


def _same(one: Path, other: Path) -> bool:
    try:
        return all(map(Path.is_file, (one, other))) and filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _unpack(image: Path, offset: int, names: Sequence[str], target: Path) -> None:
    program = find_program("unsquashfs")
    if program is None:
        raise CommandError("unsquashfs is missing (squashfs-tools)")
    chosen: list[str | Path] = []
    if names:
        listed = target.with_name(f"{target.name}.list")
        listed.write_text("".join(f"{name}\n" for name in names))
        chosen = ["-ef", listed]
    # unsquashfs does not fail for a name that is not in the image.
    read_output(
        [program, "-o", str(offset), "-f", "-no-xattrs", "-no-progress", "-quiet",
         "-ignore-errors", "-d", target, *chosen, image],
        timeout=_SECONDS, limit=1 << 20, memory=_MEMORY, file_bytes=_MAX_FILE,
    )  # fmt: skip


def _move(source: Path, target: Path) -> None:
    if source.is_file() and not source.is_symlink():
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
        target.chmod(0o644)


def _firmware(module: Path) -> Iterator[str]:
    """Yield the names of the firmware that a module may ask for."""
    if not module.is_file():
        return
    content = read_regular(module, limit=_MAX_MODULE)
    packed = detect_compression(content[:6]) if module.suffix != ".ko" else None
    if packed not in (None, Compression.NONE):
        with open_decompressed(
            BytesIO(content), packed, where=str(module), max_bytes=_MAX_MODULE
        ) as stream:
            content = b"".join(iter(lambda: stream.read(1 << 20), b""))
    for found in _NAMED.finditer(content):
        name = found[1].decode("ascii")
        begins = found.start() == 0 or content[found.start() - 1] == 0
        if begins and ".." not in name.split("/"):
            yield name


def _take_firmware(
    image: Path, offset: int, folder: str, names: Iterable[str], scratch: Path, target: Path
) -> None:
    """Take firmware files, each by the links that lead to it."""
    left = {f"{name}{ending}" for name in names for ending in _PACKED}
    for _ in range(3):
        if not left:
            return
        _unpack(image, offset, sorted(f"{folder}/{name}" for name in left), scratch)
        links = set()
        for name in sorted(left):
            file, place = scratch / folder / name, target / name
            if file.is_symlink():
                link = Path(*_plain((Path(name).parent / file.readlink()).parts))
                links.add(str(link))
                place.parent.mkdir(parents=True, exist_ok=True)
                place.unlink(missing_ok=True)
                place.symlink_to(Path(*[".."] * (len(Path(name).parts) - 1), link))
            elif file.is_file() and file.stat().st_size <= _MAX_FIRMWARE:
                _move(file, place)
        left = links


def _plain(parts: Sequence[str]) -> list[str]:
    """Return a relative path without `..`; what would lead out stays within."""
    plain: list[str] = []
    for part in parts:
        if part == "..":
            del plain[-1:]
        elif part != "/":
            plain.append(part)
    return plain
