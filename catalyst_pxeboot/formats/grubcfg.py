"""The menu of a grub.cfg: the part of GRUB's script language that boot menus use.

Source of the format: the GRUB manual, "Writing full configuration files directly".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from catalyst_pxeboot.util.errors import FormatError

#: Real menus have some KiB and fewer than 50 entries; these take 100 MiB of memory and a second.
MAX_CHARACTERS: Final = 512 << 10
MAX_ENTRIES: Final = 256
MAX_NESTING: Final = 64

_MAX_VALUE: Final = 64 << 10  # characters of one word once its variables are replaced
_MAX_EXPANDED: Final = 16 << 20  # characters of all of them
_PLATFORM: Final = "grub_platform"
#: What $grub_platform can be. Beside pc and efi for the sake of "else" only.
_PLATFORMS: Final = frozenset(
    {"pc", "efi", "ieee1275", "coreboot", "multiboot", "qemu", "loongson", "arc", "uboot", "xen"}
    | {"xen_pvh", "emu"}
)

_TOKEN: Final = re.compile(
    r"""
      (?P<space>(?:[ \t\r\f\v]|\\\n)+)
    | (?P<comment>\#[^\n]*)
    | (?P<end>[\n;])
    | (?P<brace>[{}])
    | (?P<word>)
    """,
    re.VERBOSE,
)
# Other white space than ASCII's is text, for GRUB as well; both patterns must agree on that.
_PLAIN: Final = re.compile(r"[^ \t\r\f\v\n;{}'\"\\$]+")
_IN_QUOTES: Final = re.compile(r"[^\"\\$]+")
_VARIABLE: Final = re.compile(r"\$(?:\{(?P<braced>\w+|[?*@#])\}|(?P<bare>[A-Za-z_]\w*|\d+|[?*@#]))")
_ASSIGNMENT: Final = re.compile(r"(\w+)=(.*)", re.DOTALL)
_DEVICE: Final = re.compile(r"\([^()]*\)|\$root|\$\{root\}|\(\$(?:root|\{root\})\)")

#: Options of menuentry and submenu that take a word.
_WITH_WORD: Final = frozenset({"--class", "--users", "--hotkey", "--source", "--id"})
_LINUX: Final = frozenset({"linux", "linux16", "linuxefi"})
_INITRD: Final = frozenset({"initrd", "initrd16", "initrdefi"})


@dataclass(frozen=True, slots=True)
class GrubEntry:
    """A menu entry. Paths have no leading slash and no device; `line` counts from 1.

    `platform` is the value of $grub_platform that the entry is shown on, None for any. An
    entry that does different things on pc and efi is here once for each.
    """

    title: str
    submenus: tuple[str, ...]  # titles of the menus it lies in, outermost first
    platform: str | None
    kernel: str | None
    arguments: tuple[str, ...]
    initrds: tuple[str, ...]
    chainloader: str | None
    line: int


@dataclass(frozen=True, slots=True)
class GrubConfig:
    """A menu. `default` is an index or a title; `timeout` in seconds, None for no limit."""

    default: int | str
    timeout: int | None
    entries: tuple[GrubEntry, ...]


def parse_grub_cfg(text: str, *, where: str) -> GrubConfig:
    """Read the menu of the grub.cfg that `text` holds.

    Variables are replaced where the text sets them before, and left as they stand elsewhere.
    Conditions are understood where they compare $grub_platform; of others, both ways are read.
    Commands that have no part in a menu are passed over. `where` names the file in errors.
    Raises `FormatError` with the line for quotes, braces and keywords without their partner,
    and for a text over `MAX_CHARACTERS` characters or `MAX_ENTRIES` entries or nested deeper than
    `MAX_NESTING`.
    """
    if len(text) > MAX_CHARACTERS:
        raise FormatError(
            f"{where}: expected a boot menu of at most {MAX_CHARACTERS} characters",
            hint="check that the file is a grub.cfg",
        )
    return _Parser(where).parse(text.replace("\r\n", "\n"))


#: Part of a word: text, whether it is a variable's name, whether it is quoted; for a variable
#: also how it was written.
_Part = tuple[str, bool, bool, str]


@dataclass(slots=True)
class _Token:
    kind: str  # "word", "end", "{" or "}"
    line: int
    parts: list[_Part] = field(default_factory=list)

    def keyword(self) -> str:
        """Return the word if it can be a keyword: one part, not quoted; else nothing."""
        if self.kind == "word" and len(self.parts) == 1:
            text, is_variable, quoted, _written = self.parts[0]
            if not is_variable and not quoted:
                return text
        return ""


def _tokenize(text: str, fail: Callable[[int, str, str], FormatError]) -> Iterator[_Token]:
    at, line = 0, 1
    while at < len(text):
        match = _TOKEN.match(text, at)
        kind = match.lastgroup if match else "word"
        if match and kind != "word":
            if kind == "end":
                yield _Token("end", line)
            elif kind == "brace":
                yield _Token(match[0], line)
            line += match[0].count("\n")
            at = match.end()
            continue
        token = _Token("word", line)
        at = _read_word(text, at, token, fail)
        line += text.count("\n", match.start() if match else at, at)
        yield token
    yield _Token("end", line)


def _read_word(
    text: str, at: int, token: _Token, fail: Callable[[int, str, str], FormatError]
) -> int:
    """Read the word at `at` into `token` and return where it ends."""
    parts = token.parts
    start = at
    while at < len(text):
        if match := _PLAIN.match(text, at):
            parts.append((match[0], False, False, ""))
            at = match.end()
            continue
        match text[at]:
            case "'":
                end = text.find("'", at + 1)
                if end < 0:
                    raise fail(
                        token.line + text.count("\n", start, at), "' is never closed", "add a '"
                    )
                parts.append((text[at + 1 : end], False, True, ""))
                at = end + 1
            case '"':
                opened = at
                at = _read_quoted(text, at, parts)
                if at < 0:
                    raise fail(
                        token.line + text.count("\n", start, opened),
                        '" is never closed',
                        'add a "',
                    )
            case "\\":
                escaped = text[at + 1 : at + 2]
                # A backslash joins lines; nothing is left of the two characters.
                if escaped != "\n":
                    parts.append((escaped or "\\", False, True, ""))
                at += 2
            case "$":
                at = _read_variable(text, at, parts, quoted=False)
            case _:  # white space, ; { or }
                break
    return min(at, len(text))


def _read_quoted(text: str, at: int, parts: list[_Part]) -> int:
    """Read what the quote at `at` opens and return where it ends, -1 where it does not."""
    at += 1
    parts.append(("", False, True, ""))  # "" is a word, too
    while at < len(text):
        if match := _IN_QUOTES.match(text, at):
            parts.append((match[0], False, True, ""))
            at = match.end()
        elif text[at] == '"':
            return at + 1
        elif text[at] == "$":
            at = _read_variable(text, at, parts, quoted=True)
        else:
            escaped = text[at + 1 : at + 2]
            if escaped in ("$", '"', "\\"):
                parts.append((escaped, False, True, ""))
            elif escaped != "\n":
                parts.append(("\\" + escaped, False, True, ""))
            at += 2
    return -1


def _read_variable(text: str, at: int, parts: list[_Part], *, quoted: bool) -> int:
    if match := _VARIABLE.match(text, at):
        parts.append((match["braced"] or match["bare"], True, quoted, match[0]))
        return match.end()
    parts.append(("$", False, quoted, ""))
    return at + 1


@dataclass(slots=True)
class _Command:
    """What an entry does, and where."""

    name: str
    words: list[str]
    platforms: frozenset[str]


@dataclass(slots=True)
class _Frame:
    """Something open that wants to be closed."""

    kind: str  # "if", "loop", "function", "menuentry", "submenu" or "block"
    line: int
    platforms: frozenset[str]  # on which this is read
    title: str = ""
    commands: list[_Command] = field(default_factory=list)
    untested: frozenset[str] = frozenset()  # of an if: where no branch is certain so far
    open: bool = False  # of an if or loop: its then or do has come
    branches: int = 0  # of an if: 1 after else

    def closes_with(self) -> str:
        """Return the word that closes this."""
        return {"if": "fi", "loop": "done"}.get(self.kind, "}")


class _Parser:
    def __init__(self, where: str) -> None:
        self._where = where
        self._variables: dict[str, str] = {}
        self._frames: list[_Frame] = [_Frame("file", 0, _PLATFORMS)]
        self._entries: list[GrubEntry] = []
        self._expanded = 0

    def parse(self, text: str) -> GrubConfig:
        words: list[_Token] = []
        for token in _tokenize(text, self._fail):
            match token.kind:
                case "word":
                    # A keyword can be where a command can.
                    if not words and self._keyword(token):
                        continue
                    words.append(token)
                case "end":
                    self._command(words)
                    words = []
                case "{":
                    self._open_brace(words, token.line)
                    words = []
                case _:
                    self._command(words)
                    words = []
                    self._close("}", token.line)
        frame = self._frames[-1]
        if len(self._frames) > 1:
            opened = {"if": "if", "loop": "while, until or for"}.get(frame.kind, "{")
            raise self._fail(
                frame.line, f"{opened} is never closed", f"add a {frame.closes_with()}"
            )
        return GrubConfig(
            default=self._default(), timeout=self._timeout(), entries=tuple(self._entries)
        )

    def _fail(self, line: int, what: str, hint: str) -> FormatError:
        return FormatError(f"{self._where}: line {line}: {what}", hint=hint)

    def _default(self) -> int | str:
        value = self._variables.get("default", "")
        return int(value) if re.fullmatch(r"[0-9]{1,9}", value) else value or 0

    def _timeout(self) -> int | None:
        value = self._variables.get("timeout", "")
        return int(value) if re.fullmatch(r"[0-9]{1,9}", value) else None

    # Structure

    def _push(self, frame: _Frame) -> None:
        if len(self._frames) > MAX_NESTING:
            raise self._fail(frame.line, f"is nested deeper than {MAX_NESTING}", "flatten the menu")
        self._frames.append(frame)

    def _close(self, word: str, line: int) -> None:
        frame = self._frames[-1]
        if len(self._frames) == 1 or frame.closes_with() != word:
            opened = {"fi": "if", "done": "while, until or for"}.get(word, "{")
            raise self._fail(line, f"{word} closes no {opened}", f"remove the {word}")
        if frame.kind in ("if", "loop") and not frame.open:
            missing = "then" if frame.kind == "if" else "do"
            raise self._fail(line, f"{word} without {missing}", f"add a {missing}")
        self._frames.pop()
        if frame.kind == "menuentry":
            self._finish_entry(frame)

    def _keyword(self, token: _Token) -> bool:
        """Take the word if it is a keyword that needs nothing of its line."""
        frame = self._frames[-1]
        word = token.keyword()
        match word:
            case "if":
                shown = frame.platforms
                self._push(_Frame("if", token.line, shown, untested=shown))
            case "while" | "until":
                self._push(_Frame("loop", token.line, frame.platforms))
            case "then" | "do":
                kind = "if" if word == "then" else "loop"
                if frame.kind != kind or frame.open:
                    opened = "if" if word == "then" else "while, until or for"
                    raise self._fail(token.line, f"{word} without {opened}", f"remove the {word}")
                frame.open = True
            case "elif" | "else":
                if frame.kind != "if" or not frame.open or frame.branches:
                    raise self._fail(token.line, f"{word} without if", f"remove the {word}")
                frame.platforms = frame.untested
                if word == "else":
                    frame.branches = 1
                else:
                    frame.open = False
            case "fi" | "done":
                self._close(word, token.line)
            case _:
                return False
        return True

    def _open_brace(self, words: Sequence[_Token], line: int) -> None:
        frame = self._frames[-1]
        name = words[0].keyword() if words else ""
        if name in ("menuentry", "submenu"):
            title = self._title(words, name)
            self._push(_Frame(name, words[0].line, frame.platforms, title=title))
        elif name == "function":
            # What it does is done where it is called, if anywhere.
            self._push(_Frame("function", line, frozenset()))
        else:
            self._command(words)
            self._push(_Frame("block", line, frame.platforms))

    def _title(self, words: Sequence[_Token], name: str) -> str:
        arguments = iter(self._expand_all(words[1:]))
        for word in arguments:
            if word in _WITH_WORD:
                next(arguments, None)
            elif not word.startswith("--"):
                return word
        raise self._fail(words[0].line, f"{name} has no title", "give it one in quotes")

    # Commands

    def _command(self, tokens: Sequence[_Token]) -> None:
        if not tokens:
            return
        frame = self._frames[-1]
        name = tokens[0].keyword()
        if name == "for":
            self._push(_Frame("loop", tokens[0].line, frame.platforms))
        elif frame.kind == "if" and not frame.open:
            self._test(frame, tokens)
        elif not frame.platforms:
            return
        elif name == "set" or _ASSIGNMENT.match(name):
            self._set(tokens[1:] if name == "set" else tokens[:1])
        elif name == "unset":
            for word in self._expand_all(tokens[1:]):
                self._variables.pop(word, None)
        elif name in _LINUX or name in _INITRD or name == "chainloader":
            entry = next((f for f in reversed(self._frames) if f.kind == "menuentry"), None)
            if entry is not None:
                words = self._expand_all(tokens[1:])
                entry.commands.append(_Command(name, words, frame.platforms))

    def _set(self, tokens: Sequence[_Token]) -> None:
        for token in tokens:
            # Here, other than in commands, white space of a variable's value splits nothing.
            if match := _ASSIGNMENT.fullmatch(self._expand_whole(token)):
                self._variables[match[1]] = match[2]

    def _test(self, frame: _Frame, tokens: Sequence[_Token]) -> None:
        """Read an if's condition; the last of several commands is the one that counts."""
        outcomes = {platform: self._holds(tokens, platform) for platform in frame.untested}
        frame.platforms = frozenset(p for p, holds in outcomes.items() if holds is not False)
        frame.untested = frozenset(p for p, holds in outcomes.items() if holds is not True)

    def _holds(self, tokens: Sequence[_Token], platform: str) -> bool | None:
        """Tell whether the condition holds on `platform`, None where only GRUB can know."""
        words: list[str | None] = [self._known(token, platform) for token in tokens]
        negated = words[0] == "!"
        if negated:
            words = words[1:]
        match words:
            case ["[", left, ("=" | "==" | "!=") as operator, right, "]"] | [
                "test",
                left,
                ("=" | "==" | "!=") as operator,
                right,
            ]:
                if left is None or right is None:
                    return None
                return ((left == right) is (operator != "!=")) is not negated
            case ["true"]:
                return not negated
            case ["false"]:
                return negated
        return None

    def _known(self, token: _Token, platform: str) -> str | None:
        """Return the word as it is on `platform`, None where it has unknown variables."""
        pieces = []
        for text, is_variable, _quoted, _written in token.parts:
            value: str | None = text
            if is_variable:
                value = platform if text == _PLATFORM else self._variables.get(text)
            if value is None:
                return None
            pieces.append(value)
        self._spend(sum(map(len, pieces)), token.line)
        return "".join(pieces)

    # Words

    def _spend(self, characters: int, line: int) -> None:
        self._expanded += characters
        if characters > _MAX_VALUE or self._expanded > _MAX_EXPANDED:
            raise self._fail(line, "variables make too long a text", "use fewer variables")

    def _expand_whole(self, token: _Token) -> str:
        """Return the word with its variables replaced, as one."""
        pieces = [
            self._variables.get(text, written) if is_variable else text
            for text, is_variable, _quoted, written in token.parts
        ]
        if any(is_variable for _text, is_variable, _quoted, _written in token.parts):
            self._spend(sum(map(len, pieces)), token.line)
        return "".join(pieces)

    def _expand_all(self, tokens: Sequence[_Token]) -> list[str]:
        """Return the words with their variables replaced; a value without quotes is split."""
        words: list[str] = []
        for token in tokens:
            current: list[str] | None = None
            whole = self._expand_whole(token)
            if not any(is_variable and not quoted for _t, is_variable, quoted, _w in token.parts):
                words.append(whole)
                continue
            for text, is_variable, quoted, written in token.parts:
                value = self._variables.get(text, written) if is_variable else text
                if not is_variable or quoted:
                    current = current or []
                    current.append(value)
                    continue
                pieces = value.split()
                if current is not None and (not pieces or value[0].isspace()) and value:
                    words.append("".join(current))
                    current = None
                for piece in pieces[:-1]:
                    words.append("".join([*(current or ()), piece]))
                    current = None
                if pieces:
                    current = current or []
                    current.append(pieces[-1])
                    if value[-1].isspace():
                        words.append("".join(current))
                        current = None
            if current is not None:
                words.append("".join(current))
        return words

    # Entries

    def _finish_entry(self, frame: _Frame) -> None:
        """Add the entry, once for each platform that it does something else on."""
        if len(self._entries) >= MAX_ENTRIES:
            raise self._fail(
                frame.line, f"has more than {MAX_ENTRIES} menu entries", "shorten the menu"
            )
        submenus = tuple(f.title for f in self._frames if f.kind == "submenu")
        made: dict[GrubEntry, set[str]] = {}
        for platform in sorted(frame.platforms):
            entry = self._entry(frame, submenus, platform)
            made.setdefault(entry, set()).add(platform)
        useful = {e: p for e, p in made.items() if e.kernel is not None or e.chainloader}
        for entry, platforms in sorted(
            (useful or made).items(), key=lambda item: ("pc" not in item[1], min(item[1]))
        ):
            self._entries.append(replace(entry, platform=_platform_name(platforms)))

    def _entry(self, frame: _Frame, submenus: tuple[str, ...], platform: str) -> GrubEntry:
        """Make the entry as it is on `platform`. The last of commands of a kind counts."""
        kernel: str | None = None
        arguments: tuple[str, ...] = ()
        initrds: tuple[str, ...] = ()
        chainloader: str | None = None
        for command in frame.commands:
            if platform not in command.platforms:
                continue
            if command.name in _LINUX and command.words:
                kernel, arguments = _path(command.words[0]), tuple(command.words[1:])
            elif command.name in _INITRD:
                initrds = tuple(_path(word) for word in command.words)
            elif command.name == "chainloader":
                paths = [word for word in command.words if not word.startswith("--")]
                chainloader = _path(paths[0]) if paths else None
        return GrubEntry(
            frame.title, submenus, None, kernel, arguments, initrds, chainloader, frame.line
        )


def _path(word: str) -> str:
    """Return the path without the device before it and without its leading slash."""
    device = _DEVICE.match(word)
    return (word[device.end() :] if device else word).lstrip("/")


def _platform_name(platforms: set[str]) -> str | None:
    """Return the one platform that counts among `platforms`: pc and efi stand for all."""
    both = sorted(platforms & {"pc", "efi"})
    if len(both) == 2:
        return None
    return both[0] if both else min(platforms)
