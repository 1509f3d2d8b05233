"""Stand-in for catalyst.support."""

from collections.abc import Container, Mapping
from typing import Any

from catalyst import log


class CatalystError(Exception):
    """Logs itself when it is made, as catalyst's does; its text is then not in `args`."""

    def __init__(self, message: str, print_traceback: bool = False) -> None:
        if message:
            log.error("CatalystError: %s", message, exc_info=print_traceback)


def addl_arg_parse(
    myspec: dict[str, Any],
    addlargs: Mapping[str, Any],
    requiredspec: Container[str],
    validspec: Container[str],
) -> None:
    """Take the spec's keys over into the settings, or refuse them."""
    messages = [f'Argument "{key}" not recognized.' for key in addlargs if key not in validspec]
    if messages:
        raise CatalystError("\n\tAlso: ".join(messages))
    myspec.update(addlargs)
