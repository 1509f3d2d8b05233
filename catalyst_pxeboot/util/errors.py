"""The errors a user can cause.

Everything the package raises on purpose is a `PxebootError`. It is raised where the fault is
seen, never logged there, and turned into text once, by the entry point.
An error of the system that no code expected becomes a line there too (`from_system`). Any other
exception is a bug and keeps its traceback.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from catalyst_pxeboot.util.text import one_line


class PxebootError(Exception):
    """A fault of the input or the machine, in one line.

    `message` names the spec key or the path and what was expected there; `hint` says what to do.
    Neither holds a line break, so `str()` is always one line.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = one_line(message)
        self.hint = one_line(hint)

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class SpecError(PxebootError):
    """The settings are wrong. All faults found are reported together."""

    def __init__(self, problems: Iterable[PxebootError]) -> None:
        self.problems = tuple(problems)
        super().__init__(" | ".join(str(problem) for problem in self.problems))


class FormatError(PxebootError):
    """A file is not what its name promises: damaged, truncated or of another format."""


class SourceError(PxebootError):
    """The live image cannot be network-booted as it is, or is not a live image."""


class TemplateError(PxebootError):
    """A template, or a value for it, cannot be rendered for its loader."""


class PublishError(PxebootError):
    """The tree could not be written or put in place."""


class VerifyError(PxebootError):
    """A published tree is not what its manifest says."""


class CommandError(PxebootError):
    """A program that this one runs failed or is missing."""


@contextmanager
def needs_extra(extra: str, what: str) -> Iterator[None]:
    """Raise `PxebootError` if a package of the optional dependencies `extra` is missing.

    `what` is what needs it: a spec key or an option. The packages are imported within the context.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise PxebootError(
            f"{what}: the Python package {error.name} is missing",
            hint=f"install it, or all of catalyst-pxeboot[{extra}]",
        ) from error


#: What the machine may refuse at any time, wherever the code is.
SYSTEM_ERRORS = (OSError, MemoryError, RuntimeError, SystemError)


def from_system(error: Exception) -> PxebootError:
    """Make a `PxebootError` of one of `SYSTEM_ERRORS` that no code expected.

    A `RuntimeError` or `SystemError` that is not the machine's is a bug, and raised again.
    """
    if isinstance(error, SystemError) and "without exception set" not in str(error):
        raise error
    # The interpreter's import has no other word for it where memory ends.
    if isinstance(error, MemoryError | SystemError):
        return PxebootError("not enough memory", hint="free some, or raise the limit (ulimit -v)")
    if isinstance(error, RuntimeError):
        if "start new thread" not in str(error):
            raise error
        return PxebootError(
            "no thread can be started", hint="raise the limits (ulimit -v and ulimit -u)"
        )
    if not isinstance(error, OSError):
        raise TypeError(f"{error!r} is not an error of the system")
    what = f"{error.filename or 'the system'}: {error.strerror or error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return PxebootError(what, hint="free space there; TMPDIR says where temporary files go")
    try:
        os.getcwd()  # noqa: PTH109 - light
    except OSError:
        return PxebootError(
            what, hint="the current folder has been removed: cd to one that is there"
        )
    return PxebootError(what, hint="correct that and try again; --verbose shows where it was")


def from_os_error(error: OSError, doing: str, *, hint: str = "") -> PublishError:
    """Make a `PublishError` of an operating system error met while `doing` something."""
    what = error.strerror or str(error)
    where = f" ({error.filename})" if error.filename else ""
    return PublishError(f"{doing}: {what}{where}", hint=hint)
