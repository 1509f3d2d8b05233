"""GRUB: the check of its configuration."""

from __future__ import annotations

import re
from dataclasses import dataclass

from catalyst_pxeboot.loader.common import Config, expand_files, make_config, note_file, note_root

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
    assigned: dict[str, set[str]] = {}
    fetches: list[tuple[int, str]] = []
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
            values = " ".join(word.text for word in arguments[2:])
            assigned.setdefault(arguments[0].text, set()).add(values)
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
        if name == "set" and arguments:
            variable, _, value = arguments[0].text.partition("=")
            assigned.setdefault(variable, set()).add(value)
        note_root((word.text for word in arguments), files)
        if name not in _GRUB:
            called.append((line, name))
        if name in _GRUB_FETCHES:
            fetched = arguments if name == "initrd" else arguments[:1]
            if not fetched:
                problem(f"{name}: wants a file")
            fetches += [(line, word.text) for word in fetched]
    for line, word in fetches:

        def problem(what: str, line: int = line) -> None:
            problems.append(f"line {line}: {what}")

        for path in expand_files(word, assigned):
            if not path.startswith("("):
                note_file(path, files, problem)
    for line, name in called:
        if name not in functions:
            problems.append(f'line {line}: unknown command "{name}"')
    problems.extend(f'line {line}: not closed by "{end}"' for end, line in blocks)
    if default and not default[1].isdigit() and default[1] not in ids:
        problems.append(f'line {default[0]}: the default "{default[1]}" is no entry\'s id')
    return make_config(files, problems)


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
