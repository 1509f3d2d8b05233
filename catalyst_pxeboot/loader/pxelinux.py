"""PXELINUX: the check of its configuration."""

from __future__ import annotations

import re

from catalyst_pxeboot.loader.common import Config, make_config, note_file, note_root

# --- PXELINUX -----------------------------------------------------------------------------------

_PXELINUX_GLOBAL = frozenset(
    {"serial", "console", "ui", "default", "prompt", "timeout", "totaltimeout", "ontimeout",
     "onerror", "noescape", "nocomplete", "allowoptions", "say", "display", "sysappend", "ipappend",
     "append"}
)  # fmt: skip


_PXELINUX_ENTRY = frozenset(
    {"linux", "kernel", "com32", "config", "localboot", "append", "initrd", "sysappend",
     "ipappend"}
)  # fmt: skip


_PXELINUX_KINDS = frozenset({"linux", "kernel", "com32", "config", "localboot"})


_PXELINUX_MENU = frozenset(
    {"title", "label", "default", "separator", "tabmsg", "autoboot", "hidden", "clear", "indent",
     "width", "margin", "rows", "tabmsgrow", "cmdlinerow", "endrow", "timeoutrow", "color",
     "begin", "end", "disable", "hide"}
)  # fmt: skip


_PXELINUX_NUMBERS = frozenset({"prompt", "timeout", "totaltimeout", "localboot"})


def check_pxelinux(text: str) -> Config:
    """Check a PXELINUX configuration with a menu.c32 menu."""
    problems: list[str] = []
    files: set[str] = set()
    labels: dict[str, int] = {}
    kinds: dict[str, str] = {}
    wanted: list[tuple[int, str]] = []
    entry = ""
    first = True
    for number, line in enumerate(text.split("\n"), 1):

        def problem(what: str, number: int = number) -> None:
            problems.append(f"line {number}: {what}")

        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(line.encode()) >= 2048:
            problem("is longer than the 2047 bytes that PXELINUX reads")
        key, value = words[0].lower(), " ".join(words[1:])
        if key == "serial" and not first:
            problem("SERIAL must be the first directive")
        first = False
        if key == "menu":
            sub = words[1].lower() if len(words) > 1 else ""
            if sub not in _PXELINUX_MENU:
                problem(f'unknown directive "MENU {sub.upper()}"')
            elif sub in {"label", "indent"} and not entry:
                problem(f"MENU {sub.upper()} stands before any LABEL")
        elif key == "label":
            if value in labels:
                problem(f'label "{value}" is already on line {labels[value]}')
            if len(words) != 2:
                problem("LABEL wants one word")
            labels[value] = number
            entry = value
        elif key not in (_PXELINUX_ENTRY if entry else _PXELINUX_GLOBAL):
            where = f'in the entry "{entry}"' if entry else "before the first LABEL"
            problem(f'unknown directive "{words[0]}" {where}')
        elif not value:
            problem(f"{words[0]} wants a value")
        elif key in _PXELINUX_NUMBERS and not re.fullmatch(r"-?\d+", value):
            problem(f'{words[0]} wants a number, not "{value}"')
        elif key in {"default", "ontimeout", "onerror"} and not words[1].endswith(".c32"):
            wanted.append((number, words[1]))
        elif key == "config" and not (len(words) == 3 and words[2].endswith("/")):
            problem("CONFIG wants a file and a folder with a slash at its end")
        elif key in {"ui", "default", "ontimeout", "onerror", "linux", "kernel", "com32", "config"}:
            note_file(words[1], files, problem)
        elif key == "initrd":
            if len(words) != 2:
                problem("INITRD wants one word, its files separated by commas")
            for name in words[1].split(","):
                note_file(name, files, problem)
        if key == "append":
            note_root(words[1:], files)
        if entry and key in _PXELINUX_KINDS:
            if entry in kinds:
                problem(f'the entry "{entry}" starts two things')
            kinds[entry] = key
    for number, label in wanted:
        if label not in labels:
            problems.append(f'line {number}: there is no label "{label}"')
    for label, number in labels.items():
        if label not in kinds:
            problems.append(f'line {number}: the entry "{label}" starts nothing')
    return make_config(files, problems)


#: menu.c32 and the loader's core cut a command line at this many bytes (its final zero included).
PXELINUX_LINE = 2048
