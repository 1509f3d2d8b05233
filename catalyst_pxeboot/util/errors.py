"""The errors a user can cause.

Everything the package raises on purpose is a `PxebootError`. It is raised where the fault is
seen, never logged there, and turned into text once, at a door (the command line or catalyst).
Any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from catalyst_pxeboot.util.text import one_line


class PxebootError(Exception):
    """A fault of the input or the machine, in one line.

    `message` names the spec key or the path and what was expected there; `hint` names the way
    out. Neither holds a line break, so `str()` is always one line.
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


def from_os_error(error: OSError, doing: str, *, hint: str = "") -> PublishError:
    """Make a `PublishError` of an operating system error met while `doing` something."""
    what = error.strerror or str(error)
    where = f" ({error.filename})" if error.filename else ""
    return PublishError(f"{doing}: {what}{where}", hint=hint)
