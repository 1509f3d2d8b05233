"""
Network-boot target, serves a finished livecd-stage2 build to iPXE, PXELINUX and GRUB
"""
# NOTE: catalyst makes its catalyst-spec(5) man page from a target's docstring.

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from catalyst import log
from catalyst.base.targetbase import TargetBase
from catalyst.support import CatalystError

from catalyst_pxeboot.build import report as describe
from catalyst_pxeboot.build.pipeline import build
from catalyst_pxeboot.spec.keys import ignored_warnings, known_keys, required_keys
from catalyst_pxeboot.spec.parse import check_keys, parse_settings
from catalyst_pxeboot.tree.publish import clean_leftovers
from catalyst_pxeboot.util.errors import SYSTEM_ERRORS, PxebootError, SpecError, from_system
from catalyst_pxeboot.util.text import one_line


class pxeboot(TargetBase):
    """
    Builder class for network-boot trees.

    A thin adapter: catalyst's settings go in, catalyst's log and return value come out. All
    else is catalyst_pxeboot's, which the command catalyst-pxeboot uses just the same.
    """

    required_values = required_keys()
    valid_values = known_keys(())

    def __init__(self, myspec: dict[str, Any], addlargs: Mapping[str, Any]) -> None:
        try:
            check_keys(list(addlargs))
        except SpecError as error:
            raise CatalystError(_text(error)) from error
        self.required_values = required_keys(addlargs)
        self.valid_values = known_keys(addlargs)
        for line in ignored_warnings(addlargs):
            log.warning("%s", one_line(line))
        TargetBase.__init__(self, myspec, addlargs)

    def run(self) -> bool:
        """Build the tree; False makes catalyst exit with code 2."""
        options = self.settings["options"]
        try:
            spec = parse_settings(self.settings)
            if "purgeonly" in options or "purgetmponly" in options or "purge" in options:
                log.notice(
                    "Removing what an interrupted build may have left beside %s",
                    one_line(str(spec.output)),
                )
                clean_leftovers(spec.output)
            if "purgeonly" in options or "purgetmponly" in options:
                return True
            if "fetch" in options:
                log.notice("pxeboot has nothing to fetch")
                return True
            built = build(spec, report=lambda line: log.notice("%s", one_line(line)))
        except PxebootError as error:
            log.error("%s", _text(error))
            return False
        except SYSTEM_ERRORS as error:
            log.error("%s", from_system(error))
            return False
        for line in describe.built_warnings(built):
            log.warning("%s", one_line(line))
        for line in describe.built_lines(built):
            log.notice("%s", one_line(line))
        return True


def _text(error: PxebootError) -> str:
    problems = error.problems if isinstance(error, SpecError) else (error,)
    return "\n".join(str(problem) for problem in problems)
