"""What a command says: result lines, steps, warnings and progress for people, or JSON for machines.

The text is the same with and without colour; colour and the progress bar are only for terminals.
Whatever an image, a tree or a client may have written is printed with its control characters shown
as escapes, here and nowhere else; JSON escapes all but ASCII.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, TextIO

from catalyst_pxeboot.util.errors import PxebootError
from catalyst_pxeboot.util.text import one_line, printable, size

#: Called with how many bytes of all are done.
Advance = Callable[[int], None]

#: In a log, a line at each such part of the whole.
_LOG_STEP = 10  # per cent

#: Less is done before anybody has read a line about it.
_WORTH_A_LINE = 64 << 20  # bytes


class OutputError(PxebootError):
    """Nothing more can be written to standard output."""


class Color(StrEnum):
    """When to use colour."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class Console:
    """One command's way to its user.

    With `json` nothing but JSON goes to standard output: events as they come, a line each, and
    `finish`'s document. Warnings and errors go to standard error as text in any case.
    """

    def __init__(
        self,
        program: str,
        command: str,
        *,
        json: bool = False,
        quiet: bool = False,
        verbose: bool = False,
        color: Color = Color.AUTO,
    ) -> None:
        self.program = program
        self.command = command
        self.json = json
        self._quiet = quiet
        self._verbose = verbose
        self._color = color
        self._data: dict[str, Any] = {}
        self._warnings: list[str] = []

    def line(self, text: str) -> None:
        """Print a line of the command's result."""
        if not self.json:
            _print(one_line(text))

    def text(self, text: str) -> None:
        """Print a text of many lines, a file, as the command's result."""
        if not self.json:
            _print(printable(text.removesuffix("\n")))

    def step(self, text: str) -> None:
        """Say what is being done."""
        if not self._quiet:
            self.line(text)

    def detail(self, text: str) -> None:
        """Say what only some want to know."""
        if self._verbose:
            self.step(text)

    def event(self, data: Mapping[str, Any], text: str) -> None:
        """Tell what has just happened, in a line, quiet or not."""
        _print(json.dumps(dict(data)) if self.json else one_line(text))

    def result(self, data: Mapping[str, Any]) -> None:
        """Add to the JSON document that `finish` prints."""
        self._data.update(data)

    def warning(self, text: str) -> None:
        """Warn on standard error."""
        self._warnings.append(text)
        self._complain("warning", text, "33")

    def error(self, text: str) -> None:
        """Tell an error on standard error."""
        self._complain("error", text, "31")

    def finish(self, problems: Iterable[PxebootError] = ()) -> None:
        """Tell all `problems`, and with `json` print the document, in one line."""
        problems = tuple(problems)
        for problem in problems:
            self.error(str(problem))
        if self.json:
            shown = [{"message": problem.message, "hint": problem.hint} for problem in problems]
            document = {
                "command": self.command,
                "ok": not problems,
                **self._data,
                "warnings": self._warnings,
                "problems": shown,
            }
            _print(json.dumps(document))

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Advance]:
        """Show how far `what` is, of `total` bytes: a bar on a terminal, lines in a log."""
        if self.json or self._quiet or total < _WORTH_A_LINE:
            yield lambda _done: None
        elif _is_terminal(sys.stdout):
            yield from self._bar(what, total)
        else:
            yield self._log(what, total)

    def _bar(self, what: str, total: int) -> Iterator[Advance]:
        from rich.console import Console as Terminal
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        # Gone when it is done: the lines that stay are the same as in a log.
        terminal = Terminal(no_color=not self._colored(sys.stdout))
        with Progress(*columns, console=terminal, transient=True) as bar:
            task = bar.add_task(one_line(what), total=total)
            yield lambda done: bar.update(task, completed=done)

    def _log(self, what: str, total: int) -> Advance:
        shown = 0

        def advance(done: int) -> None:
            nonlocal shown
            percent = done * 100 // total
            if percent >= shown + _LOG_STEP:
                shown = percent - percent % _LOG_STEP
                self.step(f"{what}: {shown} % of {size(total)}")

        return advance

    def _complain(self, kind: str, text: str, color: str) -> None:
        word = f"{kind}:"
        if self._colored(sys.stderr):
            word = f"\033[1;{color}m{word}\033[0m"
        print(f"{self.program}: {word} {one_line(text)}", file=sys.stderr, flush=True)

    def _colored(self, stream: TextIO) -> bool:
        if self._color is not Color.AUTO:
            return self._color is Color.ALWAYS
        # https://no-color.org: set and not empty
        return _is_terminal(stream) and not os.environ.get("NO_COLOR")


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(
            f"standard output cannot be written: {error.strerror}",
            hint="free space there, or send it elsewhere",
        ) from error


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") not in (None, "", "dumb")
