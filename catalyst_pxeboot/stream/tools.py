"""Find the build host's programs that stream a root, with every library that they load.

Packages compile them for the build host's own architecture; for another one, name a folder with
that one's packages unpacked in pxeboot/loader_path.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from catalyst_pxeboot.formats.elf import Program, read_program
from catalyst_pxeboot.util.errors import FormatError
from catalyst_pxeboot.util.process import find_program
from catalyst_pxeboot.util.resources import read_table

#: The folders of the programs and of the libraries, relative to the root that they run in. systemd
#: and OpenRC let a process be whose first argument begins with @, so the folder has that name.
PROGRAMS: Final = "@"
LIBRARIES: Final = "lib"

_HOST: Final = Path("/")
_INCLUDE: Final = re.compile(r"\s*include\s+(\S+)")
_MAX_LIBRARIES: Final = 200
_MAX_CONFIGS: Final = 50


@dataclass(frozen=True, slots=True)
class Tools:
    """Files of the build host by their path in the root that they run in."""

    machine: str  # as kernels name it
    files: Mapping[str, Path]
    interpreter: str  # of busybox, relative to that root; empty where it is static


@dataclass(frozen=True, slots=True)
class NoTools:
    """Why the root cannot be streamed with what this build host has, and the remedy."""

    what: str
    reason: str
    hint: str


#: Nothing of the image could use them.
NOT_SOUGHT: Final = NoTools("nbdkit", "not looked for", "")


def find_tools(
    machine: str, search: Sequence[Path], *, generators: Collection[str] = ()
) -> Tools | NoTools:
    """Look for the programs for a kernel of `machine`, in the folders `search` and the host's.

    `generators` made the initramfs images that will call them; some have a part of them already.
    """
    programs = _find_programs(machine, search, generators)
    if isinstance(programs, NoTools):
        return programs
    found = {path: file for path, (file, _) in programs.items()}
    try:
        found |= _find_libraries(programs.values(), (*search, _HOST), machine)
    except FormatError as error:
        return NoTools("nbdkit", error.message, error.hint)
    busybox = programs[f"{PROGRAMS}/busybox"][1]
    return Tools(machine, found, busybox.interpreter.lstrip("/"))


def find_missing(machine: str, search: Sequence[Path]) -> NoTools | None:
    """Return why `find_tools` would find nothing, if a quick look shows that."""
    table = read_table("stream/tools.toml")
    if machine not in table["triplets"]:
        return NoTools("nbdkit", f"no folder is known for {machine}", "choose another root")
    for name in ("mksquashfs", "unsquashfs"):
        if find_program(name) is None:
            return NoTools(name, "not found on this host", "install squashfs-tools")
    for tool in table["tools"]:
        needed = "generator" not in tool and not tool.get("optional", False)
        if needed and not any(map(Path.is_file, _places(tool, search, machine))):
            return _missing(tool, machine)
    return None


def _find_programs(
    machine: str, search: Sequence[Path], generators: Collection[str]
) -> Mapping[str, tuple[Path, Program]] | NoTools:
    """Look for the programs, by their path in the root that they run in."""
    if missing := find_missing(machine, search):
        return missing
    try:
        import elftools  # noqa: F401 (an extra; formats/elf.py needs it)
    except ImportError:
        return NoTools(
            "pyelftools",
            "this Python does not have it",
            "install catalyst-pxeboot[stream] (Gentoo: dev-python/pyelftools)",
        )
    found: dict[str, tuple[Path, Program]] = {}
    for tool in read_table("stream/tools.toml")["tools"]:
        if "generator" in tool and tool["generator"] not in generators:
            continue
        program = _find(_places(tool, search, machine), machine)
        if program is not None:
            kind = LIBRARIES if ".so" in tool["name"] else PROGRAMS
            found[f"{kind}/{tool['name']}"] = program
        elif not tool.get("optional", False):
            return _missing(tool, machine)
    return found


def _missing(tool: Mapping[str, Any], machine: str) -> NoTools:
    return NoTools(
        tool["name"],
        f"not found on this host for {machine}",
        f"install {tool['debian']} (Gentoo: {tool['gentoo']})",
    )


def _places(tool: Mapping[str, Any], search: Sequence[Path], machine: str) -> Iterator[Path]:
    """Yield the files that may be this tool, the best first."""
    for root in (*search, _HOST):
        for path in tool["paths"]:
            for name in [path.replace("FOLDER", folder) for folder in _library_folders(machine)]:
                yield root / name


def _library_folders(machine: str) -> Sequence[str]:
    table = read_table("stream/tools.toml")
    return [folder.replace("TRIPLET", table["triplets"][machine]) for folder in table["folders"]]


def _find(places: Iterable[Path], machine: str) -> tuple[Path, Program] | None:
    for file in places:
        if (program := _read(file)) and program.machine == machine:
            return file, program
    return None


def _read(file: Path) -> Program | None:
    try:
        return read_program(file) if file.is_file() else None
    except (OSError, FormatError):
        return None  # not a program: a wrapper script, or not to be read


def _find_libraries(
    programs: Iterable[tuple[Path, Program]],
    roots: Sequence[Path],
    machine: str,
) -> Mapping[str, Path]:
    """Return the libraries of the programs, theirs, and so on, and the dynamic loader."""
    folders = _library_folders(machine)
    places = [root / folder for root in roots for folder in (*folders, *_configured(root))]
    found: dict[str, Path] = {}
    left = list(programs)
    while left:
        file, program = left.pop()
        for name in program.needed:
            path = f"{LIBRARIES}/{name}"
            if path in found:
                continue
            own = [Path(word.replace("$ORIGIN", str(file.parent))) for word in program.runpath]
            library = next(
                (
                    (place / name, read)
                    for place in (*own, *places)
                    if (read := _read(place / name)) and read.machine == machine
                ),
                None,
            )
            if library is None or len(found) == _MAX_LIBRARIES:
                raise FormatError(
                    f"{file}: its library {name} was not found", hint="install its package again"
                )
            found[path] = library[0]
            left.append(library)
        if program.interpreter and (path := program.interpreter.lstrip("/")) not in found:
            loader = next((root / path for root in roots if (root / path).is_file()), None)
            if loader is None:
                raise FormatError(f"{file}: {program.interpreter} was not found", hint="")
            found[path] = loader
    return found


def _configured(root: Path) -> Iterator[str]:
    """Yield the folders that etc/ld.so.conf of `root` names, relative to it."""
    files = [root / "etc/ld.so.conf"]
    for file in files:
        try:
            lines = file.read_text("utf-8", "replace").splitlines()
        except OSError:
            continue
        for line in lines:
            text = line.partition("#")[0].strip()
            if include := _INCLUDE.fullmatch(text):
                base = root if include[1].startswith("/") else file.parent
                found = sorted(base.glob(include[1].lstrip("/")))[:_MAX_CONFIGS]
                files += [more for more in found if more not in files]
            elif text.startswith("/"):
                yield text.lstrip("/")
