"""The menu of a live ISO's grub.cfg: what catalyst writes, and what people change in it.

Read are entries, submenus, variables and both ways of an `if`; commands that have no part in a menu
are passed over. Loops and functions are refused: what they would make of a menu only GRUB can know.

Source of the form: catalyst's targets/support/iso-bootloader-setup.sh; the GRUB manual, "Writing
full configuration files directly".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from catalyst_pxeboot.util.errors import FormatError

#: Real menus have some KiB and fewer than 50 entries; these take 100 MiB of memory and a second.
MAX_CHARACTERS: Final = 512 << 10
MAX_ENTRIES: Final = 256
MAX_NESTING: Final = 64

_MAX_VALUE: Final = 64 << 10  # characters of one word once its variables are replaced
_MAX_EXPANDED: Final = 16 << 20  # characters that all variables are replaced by

#: A word keeps its quotes. GRUB splits at ASCII's white space only.
_TOKEN: Final = re.compile(
    r"""
      (?P<space> (?: [ \t\r\f\v] | \\\n )+ | \#[^\n]* )
    | (?P<mark> [\n;{}] )
    | (?P<word> (?: '[^']*' | "(?:[^"\\]|\\.)*" | \\.? | \$\{[^}\n]*\} | [^ \t\r\f\v\n;{}'"\\] )+ )
    """,
    re.VERBOSE | re.DOTALL,
)
_PART: Final = re.compile(
    r"""'(?P<single>[^']*)'|"(?P<double>(?:[^"\\]|\\.)*)"|\\(?P<escaped>.?)|(?P<plain>[^'"\\]+)""",
    re.DOTALL,
)
_VARIABLE: Final = re.compile(
    r"""\\(?P<escaped>[$"\\\n])|\$(?:\{(?P<braced>\w+|[?*@#])\}|(?P<bare>[A-Za-z_]\w*|\d+|[?*@#]))"""
)
_ASSIGNMENT: Final = re.compile(r"(\w+)=(.*)", re.DOTALL)
_DEVICE: Final = re.compile(r"\([^()]*\)|\$root|\$\{root\}|\(\$(?:root|\{root\})\)")
_SPLIT: Final = "\0"  # where white space of a variable's value splits a word

#: Options of menuentry and submenu that take a word.
_WITH_WORD: Final = frozenset({"--class", "--users", "--hotkey", "--source", "--id"})
_LINUX: Final = frozenset({"linux", "linux16", "linuxefi"})
_INITRD: Final = frozenset({"initrd", "initrd16", "initrdefi"})
_REFUSED: Final = frozenset({"for", "while", "until", "function"})


@dataclass(frozen=True, slots=True)
class GrubEntry:
    """A menu entry. Paths have no leading slash and no device.

    One that starts a kernel on one kind of firmware and another program on another is here twice.
    """

    title: str
    submenus: tuple[str, ...]  # titles of the menus it lies in, outermost first
    kernel: str | None = None
    arguments: tuple[str, ...] = ()
    initrds: tuple[str, ...] = ()
    chainloader: str | None = None


@dataclass(frozen=True, slots=True)
class GrubConfig:
    """A menu. `default` is an index or a title; `timeout` in seconds, None for no limit."""

    default: int | str
    timeout: int | None
    entries: tuple[GrubEntry, ...]


def parse_grub_cfg(text: str, *, where: str) -> GrubConfig:
    """Read the menu of the grub.cfg that `text` holds.

    Variables are replaced where the text sets them before, and left as they stand elsewhere. Of
    commands of a kind in an entry the last one counts. `where` names the file in errors. Raises
    `FormatError` with the line for quotes, braces and keywords without their partner, for loops and
    functions, and for a text over `MAX_CHARACTERS` characters or `MAX_ENTRIES` entries or nested
    deeper than `MAX_NESTING`.
    """
    if len(text) > MAX_CHARACTERS:
        raise FormatError(
            f"{where}: expected a boot menu of at most {MAX_CHARACTERS} characters",
            hint="check that the file is a grub.cfg",
        )
    return _MenuReader(where).read(text.replace("\r\n", "\n"))


@dataclass(slots=True)
class _Block:
    """Something open that wants to be closed: an if, menuentry or submenu."""

    kind: str
    line: int
    title: str = ""
    linux: Sequence[str] = ()
    initrds: Sequence[str] = ()
    chainloader: Sequence[str] = ()


class _MenuReader:
    def __init__(self, where: str) -> None:
        self._where = where
        self._line = 1
        self._variables: dict[str, str] = {}
        self._blocks: list[_Block] = []
        self._entries: list[GrubEntry] = []
        self._expanded = 0

    def read(self, text: str) -> GrubConfig:
        words: list[str] = []
        for token in self._tokens(text):
            if token in ("\n", ";"):
                self._command(words)
                words = []
            elif token == "{":
                self._open(words)
                words = []
            elif token == "}":
                self._command(words)
                words = []
                self._close("}", "menuentry", "submenu")
            elif words or not self._keyword(token):
                words.append(token)
        self._command(words)
        if self._blocks:
            block = self._blocks[-1]
            opened, closing = ("if", "fi") if block.kind == "if" else ("{", "}")
            raise self._fail(f"{opened} is never closed", f"add a {closing}", block.line)
        timeout = self._variables.get("timeout", "")
        default = self._variables.get("default", "")
        return GrubConfig(
            default=int(default) if re.fullmatch(r"[0-9]{1,9}", default) else default or 0,
            timeout=int(timeout) if re.fullmatch(r"[0-9]{1,9}", timeout) else None,
            entries=tuple(self._entries),
        )

    def _tokens(self, text: str) -> Iterator[str]:
        at = 0
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise self._fail(f"{text[at]} is never closed", f"add a {text[at]}")
            if match.lastgroup != "space":
                yield match[0]
            self._line += match[0].count("\n")
            at = match.end()

    def _fail(self, what: str, hint: str, line: int | None = None) -> FormatError:
        return FormatError(f"{self._where}: line {line or self._line}: {what}", hint=hint)

    # --- structure ---

    def _keyword(self, word: str) -> bool:
        """Take the word if it is a keyword; only the first word of a command can be."""
        if word == "if":
            self._push(_Block("if", self._line))
        elif word in ("then", "elif", "else"):
            if not self._blocks or self._blocks[-1].kind != "if":
                raise self._fail(f"{word} without if", f"remove the {word}")
        elif word == "fi":
            self._close("fi", "if")
        elif word in _REFUSED:
            raise self._fail(
                f"{word} cannot be read, only entries, submenus and if",
                f"write the ISO's menu without {word}",
            )
        else:
            return False
        return True

    def _open(self, words: Sequence[str]) -> None:
        kind = words[0] if words else ""
        if kind not in ("menuentry", "submenu"):
            raise self._fail("{ opens no menuentry or submenu", "remove the {")
        arguments = iter(self._expand_all(words[1:]))
        for word in arguments:
            if word in _WITH_WORD:
                next(arguments, None)
            elif not word.startswith("--"):
                self._push(_Block(kind, self._line, word))
                return
        raise self._fail(f"{kind} has no title", "give it one in quotes")

    def _push(self, block: _Block) -> None:
        if len(self._blocks) >= MAX_NESTING:
            raise self._fail(f"is nested deeper than {MAX_NESTING}", "flatten the menu")
        self._blocks.append(block)

    def _close(self, word: str, *kinds: str) -> None:
        if not self._blocks or self._blocks[-1].kind not in kinds:
            opened = "{" if word == "}" else kinds[0]
            raise self._fail(f"{word} closes no {opened}", f"remove the {word}")
        block = self._blocks.pop()
        if block.kind == "menuentry":
            self._add_entry(block)

    def _add_entry(self, block: _Block) -> None:
        if len(self._entries) >= MAX_ENTRIES:
            raise self._fail(
                f"has more than {MAX_ENTRIES} menu entries", "shorten the menu", block.line
            )
        submenus = tuple(outer.title for outer in self._blocks if outer.kind == "submenu")
        paths = [_path(word) for word in block.chainloader if not word.startswith("--")]
        if block.linux or not paths:
            kernel = _path(block.linux[0]) if block.linux else None
            initrds = tuple(map(_path, block.initrds))
            self._entries.append(
                GrubEntry(block.title, submenus, kernel, tuple(block.linux[1:]), initrds)
            )
        if paths:
            self._entries.append(GrubEntry(block.title, submenus, chainloader=paths[0]))

    # --- commands ---

    def _command(self, words: Sequence[str]) -> None:
        name = words[0] if words else ""
        if name == "set" or _ASSIGNMENT.match(name):
            for word in words[1:] if name == "set" else words[:1]:
                if match := _ASSIGNMENT.fullmatch("".join(self._expand(word, split=False))):
                    self._variables[match[1]] = match[2]
        elif name == "unset":
            for word in self._expand_all(words[1:]):
                self._variables.pop(word, None)
        elif name in _LINUX or name in _INITRD or name == "chainloader":
            entry = next((b for b in reversed(self._blocks) if b.kind == "menuentry"), None)
            if entry is None:
                return
            expanded = self._expand_all(words[1:])
            if name in _LINUX:
                entry.linux = expanded
            elif name in _INITRD:
                entry.initrds = expanded
            else:
                entry.chainloader = expanded

    # --- words ---

    def _expand_all(self, words: Sequence[str]) -> list[str]:
        return [text for word in words for text in self._expand(word)]

    def _expand(self, word: str, *, split: bool = True) -> list[str]:
        """Return what GRUB makes of a word: without quotes, variables replaced.

        White space of a value that is not quoted splits the word, if `split`.
        """
        text, quoted = "", False
        for part in _PART.finditer(word):
            content = part[0]
            match part.lastgroup:
                case "single":
                    content = part["single"]
                case "double":
                    content = self._replace(part["double"], split=False)
                case "escaped":
                    # A backslash joins lines; nothing is left of the two characters.
                    content = part["escaped"].replace("\n", "") if len(part[0]) > 1 else "\\"
                case _:
                    text += self._replace(content, split=split)
                    continue
            quoted = True
            text += content
        if len(text) > _MAX_VALUE and "$" in word:
            raise self._too_long()
        if _SPLIT in text or not (text or quoted):
            return [piece for piece in text.split(_SPLIT) if piece]
        return [text]

    def _replace(self, text: str, *, split: bool) -> str:
        def value(match: re.Match[str]) -> str:
            if match["escaped"]:
                return match["escaped"].replace("\n", "")
            found = self._variables.get(match["braced"] or match["bare"], match[0])
            self._expanded += len(found)
            if self._expanded > _MAX_EXPANDED:
                raise self._too_long()
            return re.sub(r"[ \t\r\n\f\v]", _SPLIT, found) if split else found

        return _VARIABLE.sub(value, text)

    def _too_long(self) -> FormatError:
        return self._fail("variables make too long a text", "use fewer variables")


def _path(word: str) -> str:
    """Return the path without the device before it and without its leading slash."""
    device = _DEVICE.match(word)
    return (word[device.end() :] if device else word).lstrip("/")
