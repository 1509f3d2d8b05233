"""What an ELF program or library needs to run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from catalyst_pxeboot.util.errors import FormatError

#: The machines that a root can be streamed to, as kernels name them.
_MACHINES: Final = {"EM_X86_64": "x86_64", "EM_386": "i386", "EM_AARCH64": "arm64", "EM_ARM": "arm"}


@dataclass(frozen=True, slots=True)
class Program:
    """An ELF file: its `machine` as kernels name it, and what it is loaded with."""

    machine: str
    needed: tuple[str, ...]  # libraries, by their names
    runpath: tuple[str, ...]  # folders that it names for them; may begin with $ORIGIN
    interpreter: str  # the dynamic loader's path; empty for a library or a static program


def read_program(path: Path) -> Program:
    """Read an ELF file's dynamic section; raises `FormatError` if it is not one, and OSError."""
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    with path.open("rb") as stream:
        try:
            elf: Any = ELFFile(stream)  # type: ignore[no-untyped-call]
            machine = _MACHINES.get(elf.header.e_machine)
            needed, runpath, interpreter = [], [], ""
            for segment in elf.iter_segments():
                if segment.header.p_type == "PT_INTERP":
                    interpreter = segment.get_interp_name()
                elif segment.header.p_type == "PT_DYNAMIC":
                    for tag in segment.iter_tags():
                        if tag.entry.d_tag == "DT_NEEDED":
                            needed.append(tag.needed)
                        elif tag.entry.d_tag == "DT_RUNPATH":
                            runpath += tag.runpath.split(":")
                        elif tag.entry.d_tag == "DT_RPATH":
                            runpath += tag.rpath.split(":")
        except (ELFError, ValueError, KeyError, IndexError, AttributeError) as error:
            raise FormatError(f"{path}: not an ELF program ({error})", hint="") from error
    if machine is None:
        raise FormatError(f"{path}: for a machine that is not known here", hint="")
    return Program(machine, tuple(needed), tuple(filter(None, runpath)), interpreter)
