"""Check the loaders' configurations: a parser of the subset that each template may use.

Not the loaders' own parsers, but strict where a slip would be seen only at a boot: unknown
commands, jumps to nowhere, blocks left open, and which files of the tree are asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from catalyst_pxeboot.model.loader import Loader


@dataclass(frozen=True, slots=True)
class Config:
    """What a configuration asks for.

    `files` are paths in the tree, relative to its root, sorted; `problems` are lines of the form
    `line 12: what is wrong`.
    """

    files: tuple[str, ...]
    problems: tuple[str, ...]


def check_config(loader: Loader, text: str) -> Config:
    """Check a configuration of `loader`."""
    return CHECKS[loader](text)


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
                if default is not None and default not in items:
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
                else:
                    problem("set: wants the name of a setting")
            elif name == "imgverify":
                if len(rest) != 2:
                    problem("imgverify: wants an image and the file of its signature")
                else:
                    _note_file(re.sub(r"^\$\{base\}", "", rest[1]), files, problem)
            elif name in _IPXE_FETCHES:
                if not rest:
                    problem(f"{name}: wants a file")
                else:
                    _note_root(rest[1:], files)
                    _note_file(re.sub(r"^\$\{base\}", "", rest[0]), files, problem)
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
    return _config(files, problems)


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
            _note_file(words[1], files, problem)
        elif key == "initrd":
            if len(words) != 2:
                problem("INITRD wants one word, its files separated by commas")
            for name in words[1].split(","):
                _note_file(name, files, problem)
        if key == "append":
            _note_root(words[1:], files)
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
    return _config(files, problems)


# --- U-Boot -------------------------------------------------------------------------------------

# What boot/pxe_utils.c reads of PXELINUX's grammar, without what asks for more files at run time.
# Anything else ends an entry and is ignored, so that the rest of the entry is lost.
_UBOOT_GLOBAL = frozenset({"default", "menu", "ontimeout", "prompt", "timeout"})
_UBOOT_ENTRY = frozenset(
    {"append", "devicetree", "devicetreedir", "fdt", "fdtdir", "initrd", "ipappend", "kernel",
     "linux", "localboot", "menu"}
)  # fmt: skip
_UBOOT_FILES = frozenset({"kernel", "linux", "initrd", "fdt", "devicetree"})
_UBOOT_NUMBERS = frozenset({"timeout", "ipappend", "localboot"})
_UBOOT_KINDS = frozenset({"kernel", "linux", "localboot"})


def check_uboot(text: str) -> Config:
    """Check a configuration for U-Boot's `pxe boot`."""
    problems: list[str] = []
    files: set[str] = set()
    labels: dict[str, int] = {}
    given: dict[str, dict[str, int]] = {}
    wanted: list[tuple[int, str]] = []
    entry = ""
    for number, line in enumerate(text.split("\n"), 1):

        def problem(what: str, number: int = number) -> None:
            problems.append(f"line {number}: {what}")

        words = line.split(maxsplit=1)
        if not words or words[0].startswith("#"):
            continue
        key, value = words[0].lower(), words[1].rstrip() if len(words) > 1 else ""
        if key == "menu":
            sub, _, shown = value.partition(" ")
            if sub.lower() not in ({"label", "default"} if entry else {"title"}):
                problem(f'unknown directive "MENU {sub.upper()}"')
            elif not shown.strip() and sub.lower() != "default":
                problem(f"MENU {sub.upper()} wants a text")
            elif shown.strip().startswith("#"):
                problem(f"MENU {sub.upper()}: its text begins with #, a comment")
            continue
        if key == "label":
            if value in labels:
                problem(f'label "{value}" is already on line {labels[value]}')
            if len(value.split()) != 1:
                problem("LABEL wants one word")
            labels[value] = number
            given[value] = {}
            entry = value
        elif key not in (_UBOOT_ENTRY if entry else _UBOOT_GLOBAL):
            where = f'in the entry "{entry}"' if entry else "before the first LABEL"
            problem(f'unknown directive "{words[0]}" {where}')
        elif not value or value.startswith("#"):
            problem(f"{words[0]} wants a value")
        elif key in _UBOOT_NUMBERS and not re.fullmatch(r"-?\d+", value):
            problem(f'{words[0]} wants a number, not "{value}"')
        elif key in {"default", "ontimeout"}:
            wanted.append((number, value))
        elif key in _UBOOT_FILES and len(value.split()) != 1:
            problem(f"{words[0]} wants one file")
        elif key in _UBOOT_FILES and "," in value:
            problem(f"{words[0]} takes one file; U-Boot splits no list at commas")
        elif key in _UBOOT_FILES:
            _note_file(value, files, problem)
        elif key in {"fdtdir", "devicetreedir"}:
            # U-Boot chooses the file there by its own board's name.
            _note_file(value, set(), problem)
        elif key == "append":
            _note_root(value.split(), files)
            if re.search(r"[$'\\]", value):
                problem("APPEND holds $, a quote or a backslash, which U-Boot expands")
        if entry and key in _UBOOT_ENTRY:
            kind = "kernel" if key in _UBOOT_KINDS else key
            if kind in given[entry]:
                problem(f'{words[0]} is already on line {given[entry][kind]} of "{entry}"')
            given[entry].setdefault(kind, number)
    for number, label in wanted:
        if label not in labels:
            problems.append(f'line {number}: there is no label "{label}"')
    for label, number in labels.items():
        if "kernel" not in given[label]:
            problems.append(f'line {number}: the entry "{label}" starts nothing')
    return _config(files, problems)


# --- GRUB ---------------------------------------------------------------------------------------

_GRUB = frozenset(
    {"[", "boot", "break", "cat", "chainloader", "clear", "configfile", "cpuid", "devicetree",
     "echo", "exit", "export", "false", "fwsetup", "halt", "initrd", "insmod", "linux", "ls",
     "menuentry", "normal", "read", "reboot", "regexp", "return", "search", "serial", "set",
     "sleep", "source", "submenu", "terminal_input", "terminal_output", "test", "true", "unset"}
)  # fmt: skip
_GRUB_FETCHES = frozenset({"linux", "initrd", "chainloader", "configfile", "source", "devicetree"})
_GRUB_BLOCKS = {"if": "fi", "while": "done", "until": "done"}


@dataclass(frozen=True, slots=True)
class _Word:
    text: str  # without its quotes
    raw: str
    line: int


def check_grub(text: str) -> Config:
    """Check a GRUB configuration."""
    problems: list[str] = []
    files: set[str] = set()
    ids: dict[str, int] = {}
    functions: set[str] = set()
    called: list[tuple[int, str]] = []
    default: tuple[int, str] | None = None
    blocks: list[tuple[str, int]] = []
    for words in _split_grub(text, problems):
        line = words[0].line

        def problem(what: str, line: int = line) -> None:
            problems.append(f"line {line}: {what}")

        rest = list(words)
        # Words that open, go on with or close a block, and may be followed by a command.
        while rest and rest[0].raw in {"if", "elif", "then", "else", "fi", "while", "until", "do",
                                       "done", "!", "{", "}"}:  # fmt: skip
            keyword = rest.pop(0).raw
            if keyword in _GRUB_BLOCKS:
                blocks.append((_GRUB_BLOCKS[keyword], line))
            elif keyword == "{":
                blocks.append(("}", line))
            elif keyword in {"fi", "done", "}"}:
                if not blocks or blocks[-1][0] != keyword:
                    problem(f'"{keyword}" closes nothing')
                else:
                    blocks.pop()
            elif keyword in {"elif", "then", "else"} and (not blocks or blocks[-1][0] != "fi"):
                problem(f'"{keyword}" stands in no if')
        if not rest:
            continue
        name, arguments = rest[0].text, rest[1:]
        if name == "for":
            if len(arguments) < 3 or arguments[1].text != "in":
                problem("for: wants a name, the word in and values")
            blocks.append(("done", line))
            continue
        if name == "function":
            if len(arguments) != 2 or arguments[1].raw != "{":
                problem("function: wants a name and {")
            else:
                functions.add(arguments[0].text)
                blocks.append(("}", line))
            continue
        if name in {"menuentry", "submenu"}:
            if not arguments or arguments[-1].raw != "{":
                problem(f"{name}: wants a title and {{ at the line's end")
                continue
            blocks.append(("}", line))
            texts = [word.text for word in arguments]
            if "--id" in texts[:-1]:
                identity = texts[texts.index("--id") + 1]
                if identity in ids and name == "submenu":
                    problem(f'the id "{identity}" is already on line {ids[identity]}')
                ids.setdefault(identity, line)
            continue
        if name == "[" and (not arguments or arguments[-1].text != "]"):
            problem('"[" without "]"')
        if name == "set" and arguments and arguments[0].text.startswith("default="):
            default = (line, arguments[0].text.removeprefix("default="))
        if name not in _GRUB:
            called.append((line, name))
        if name in _GRUB_FETCHES:
            _note_root((word.text for word in arguments), files)
            fetched = arguments if name == "initrd" else arguments[:1]
            if not fetched:
                problem(f"{name}: wants a file")
            for word in fetched:
                path = re.sub(r"^\$\{base\}", "", word.text)
                if not path.startswith("("):
                    _note_file(path, files, problem)
    for line, name in called:
        if name not in functions:
            problems.append(f'line {line}: unknown command "{name}"')
    problems.extend(f'line {line}: not closed by "{end}"' for end, line in blocks)
    if default and not default[1].isdigit() and default[1] not in ids:
        problems.append(f'line {default[0]}: the default "{default[1]}" is no entry\'s id')
    return _config(files, problems)


def _split_grub(text: str, problems: list[str]) -> list[list[_Word]]:
    """Split GRUB script into commands of words, at line ends and at `;` outside of quotes."""
    commands: list[list[_Word]] = []
    words: list[_Word] = []
    position, line = 0, 1
    token = re.compile(
        r"""(?P<space>[ \t\r]+)|(?P<comment>\#[^\n]*)|(?P<end>[;\n])
        |(?P<word>(?:'[^']*'|"(?:\\.|[^"\\])*"|\\.|[^\s'"\\;])+)""",
        re.VERBOSE | re.DOTALL,
    )
    while position < len(text):
        match = token.match(text, position)
        if match is None:
            problems.append(f"line {line}: a quote is not closed")
            break
        if match["word"] is not None:
            words.append(_Word(_unquote_grub(match["word"]), match["word"], line))
        elif match["end"] is not None and words:
            commands.append(words)
            words = []
        line += match[0].count("\n")
        position = match.end()
    if words:
        commands.append(words)
    return commands


def _unquote_grub(raw: str) -> str:
    parts = re.findall(r"""'([^']*)'|"((?:\\.|[^"\\])*)"|\\(.)|([^'"\\]+)""", raw, re.DOTALL)
    return "".join(
        single or re.sub(r'\\(["\\$])', r"\1", double) or escaped or plain
        for single, double, escaped, plain in parts
    )


# --- common -------------------------------------------------------------------------------------


# dracut's root=live: with an address or a setting that holds one. A root in the initramfs has a
# path after the colon.
_FETCHED_ROOT = re.compile(r"root=live:(?:[a-z0-9]+:|\$).*[/}](?P<file>[A-Za-z0-9._+-]+)")


def _note_file(path: str, files: set[str], problem: Callable[[str], None]) -> None:
    """Note a file of the tree, or the problem with its name. Other servers' files are theirs."""
    if "://" in path:
        return
    if "$" in path:
        problem(f'"{path}" depends on a setting that is not known here')
    elif "//" in path:
        problem(f'"{path}" holds a double slash')
    elif path.startswith("/") or ".." in path.split("/"):
        problem(f'"{path}" leads out of the tree')
    elif not path:
        problem("a file name is empty")
    else:
        files.add(path)


def _note_root(words: Iterable[str], files: set[str]) -> None:
    """Note the tree's file that kernel arguments name as a root in the network."""
    given = list(words)
    for word in given:
        if found := _FETCHED_ROOT.fullmatch(word):
            files.add(found["file"])
    if any(word.startswith("nfsroot=") for word in given):
        files.update(word.removeprefix("loop=/") for word in given if word.startswith("loop=/"))


def _config(files: set[str], problems: list[str]) -> Config:
    return Config(tuple(sorted(files)), tuple(sorted(problems, key=_line_number)))


def _line_number(problem: str) -> int:
    match = re.match(r"line (\d+)", problem)
    return int(match[1]) if match else 0


CHECKS: Mapping[Loader, Callable[[str], Config]] = {
    Loader.IPXE: check_ipxe,
    Loader.PXELINUX: check_pxelinux,
    Loader.GRUB: check_grub,
    Loader.UBOOT: check_uboot,
}
