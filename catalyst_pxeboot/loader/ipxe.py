"""iPXE: the check of its scripts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from catalyst_pxeboot.loader.common import Config, expand_files, make_config, note_file, note_root

# --- iPXE ---------------------------------------------------------------------------------------

# Commands that a script may use, with their options; "=" after one that takes a value.
_IPXE: Mapping[str, tuple[str, ...]] = {
    "boot": ("--autofree", "--replace"),
    "chain": ("--autofree", "--replace", "--timeout=", "--name="),
    "choose": ("--default=", "--timeout=", "--keep", "--menu="),
    "clear": (),
    "console": ("--picture=", "--keep", "--x=", "--y="),
    "cpuid": ("--ext", "--ecx"),
    "dhcp": ("--configurator=",),
    "echo": ("-n",),
    "exit": (),
    "goto": (),
    "ifopen": (),
    "ifstat": (),
    "imgargs": (),
    "imgfetch": ("--name=", "--timeout="),
    "imgfree": (),
    "imgstat": (),
    "imgverify": ("--signer=", "--keep", "--timeout="),
    "inc": (),
    "initrd": ("--name=", "--timeout=", "--autofree"),
    "iseq": (),
    "isset": (),
    "item": ("--gap", "--key=", "--default", "--menu="),
    "kernel": ("--name=", "--timeout=", "--autofree"),
    "menu": ("--name=", "--delete"),
    "param": (),
    "params": (),
    "poweroff": (),
    "prompt": ("--key=", "--timeout="),
    "read": (),
    "reboot": (),
    "route": (),
    "sanboot": ("--no-describe", "--drive=", "--keep", "--filename="),
    "set": (),
    "shell": (),
    "show": (),
    "sleep": (),
}


_IPXE_FETCHES = frozenset({"kernel", "initrd", "chain", "imgfetch"})


# Commands that fail in normal use, so that a line which ends with one must say what comes next.
_IPXE_MAY_FAIL = frozenset(
    {"choose", "cpuid", "imgverify", "initrd", "iseq", "isset", "kernel", "prompt"}
)


def check_ipxe(text: str) -> Config:
    """Check an iPXE script."""
    problems: list[str] = []
    files: set[str] = set()
    labels: dict[str, int] = {}
    items: dict[str, int] = {}
    jumps: list[tuple[int, str, str]] = []
    variable_jumps: list[tuple[int, str]] = []
    assigned: dict[str, set[str]] = {}
    fetched: list[tuple[int, str]] = []
    lines = text.split("\n")
    if not re.match(r"#!ipxe\s*$", lines[0]):
        problems.append("line 1: not #!ipxe")
    for number, line in enumerate(lines, 1):

        def problem(what: str, number: int = number) -> None:
            problems.append(f"line {number}: {what}")

        if line.endswith("\\"):
            problem("ends in a backslash, which continues it on the next line")
        line = line.strip()
        if line.startswith(":"):
            label, _, line = line[1:].partition(" ")
            if not re.fullmatch(r"[A-Za-z0-9_-]+", label):
                problem(f'label "{label}" holds more than letters, digits, _ and -')
            if label in labels:
                problem(f'label "{label}" is already on line {labels[label]}')
            labels[label] = number
        commands = _split_ipxe(line)
        for index, (words, after) in enumerate(commands):
            if not words:
                continue
            name = words[0]
            if name not in _IPXE:
                problem(f'unknown command "{name}"')
                continue
            values, rest, unknown = _split_options(words[1:], _IPXE[name])
            if unknown:
                problem(f'{name}: unknown option "{unknown}"')
                continue
            if name in _IPXE_MAY_FAIL and not after and index == len(commands) - 1:
                problem(f"{name}: nothing says what to do when it fails")
            if name == "goto":
                if len(rest) != 1:
                    problem("goto: wants one label")
                elif match := re.fullmatch(r"\$\{([^}]+)\}", rest[0]):
                    variable_jumps.append((number, match[1]))
                else:
                    jumps.append((number, "goto", rest[0]))
            elif name == "choose":
                if len(rest) != 1:
                    problem("choose: wants the name of one setting")
                else:
                    assigned.setdefault(rest[0], set()).update(items)
                default = values.get("--default")
                if default is not None and "$" not in default and default not in items:
                    problem(f'choose: the default "{default}" is no item of the menu')
            elif name == "menu":
                items = {}
            elif name == "item":
                if "--gap" not in values:
                    if len(rest) < 2:
                        problem("item: wants a label and a text")
                    else:
                        items[rest[0]] = number
                        jumps.append((number, "item", rest[0]))
            elif name == "set":
                if rest:
                    setting = rest[0].split(":")[0]
                    assigned.setdefault(setting, set()).add(" ".join(rest[1:]))
                    note_root(rest[1:], files)
                else:
                    problem("set: wants the name of a setting")
            elif name == "imgverify":
                if len(rest) != 2:
                    problem("imgverify: wants an image and the file of its signature")
                else:
                    fetched += [(number, rest[1])]
            elif name in _IPXE_FETCHES:
                if not rest:
                    problem(f"{name}: wants a file")
                else:
                    fetched += [(number, rest[0])]
            for word in words:
                if word.count("${") > word.count("}"):
                    problem(f'"{word}" opens a setting and does not close it')
    for number, what, label in jumps:
        if label not in labels:
            problems.append(f'line {number}: {what}: there is no label "{label}"')
    for number, setting in variable_jumps:
        if setting not in assigned:
            problems.append(f'line {number}: goto: nothing sets "{setting}"')
        for label in sorted(assigned.get(setting, ())):
            if label not in labels:
                problems.append(f'line {number}: goto ${{{setting}}}: there is no label "{label}"')
    for number, word in fetched:
        # The signature of a file in a variable.
        word, ending = (word[:-4], word[-4:]) if word.endswith("}.p7s") else (word, "")
        for path in expand_files(word, assigned):

            def problem(what: str, number: int = number) -> None:
                problems.append(f"line {number}: {what}")

            note_file(path + ending, files, problem)
    return make_config(files, problems)


def _split_ipxe(line: str) -> list[tuple[list[str], str]]:
    """Split a line into commands, each with the separator that follows it."""
    commands: list[tuple[list[str], str]] = []
    words: list[str] = []
    for word in line.split():
        if word.startswith("#"):
            break
        if word in {"||", "&&", ";"}:
            commands.append((words, word))
            words = []
        else:
            words.append(word)
    if words or not commands:
        commands.append((words, ""))
    return commands


def _split_options(
    words: Sequence[str], known: Iterable[str]
) -> tuple[dict[str, str], list[str], str]:
    """Split options from what follows them; return values, the rest and the first unknown one."""
    options = set(known)
    values: dict[str, str] = {}
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        if f"{word}=" in options:
            if not rest:
                return values, rest, word
            values[word] = rest.pop(0)
        elif word in options:
            values[word] = ""
        else:
            return values, rest, word
    return values, rest, ""
