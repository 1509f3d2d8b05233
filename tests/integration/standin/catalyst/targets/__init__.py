"""Stand-in for catalyst.targets: the folder of the checkout that holds the target joins it."""

from pathlib import Path

__path__.append(str(Path(__file__).parents[5] / "targets"))
