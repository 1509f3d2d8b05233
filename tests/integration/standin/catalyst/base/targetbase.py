"""Stand-in for catalyst.base.targetbase."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from catalyst.support import addl_arg_parse


class TargetBase(ABC):
    """The toplevel class of all targets."""

    # abstract properties in catalyst; a target sets plain attributes
    required_values: frozenset[str]
    valid_values: frozenset[str]

    def __init__(self, myspec: dict[str, Any], addlargs: Mapping[str, Any]) -> None:
        addl_arg_parse(myspec, addlargs, self.required_values, self.valid_values)
        self.settings = myspec

    @abstractmethod
    def run(self) -> bool:
        """Build the target."""
