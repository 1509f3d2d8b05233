"""Runs the attacks, and prints how many of each kind there are and what became of them.

`python -m tests.robustness.attacks`. A kind is a class of tests; a test that makes attacks by the
hundred records their number as its property `attacks`. The exit code is 1 if one got through.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

SUITES = tuple(
    str(Path(__file__).with_name(name))
    for name in ("test_attacks.py", "test_attacks_on_serve.py", "test_accepted.py")
)


class Kinds:
    """A plugin of pytest that counts attacks by kind and outcome."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        parts = report.nodeid.split("::")
        kind = parts[1] if len(parts) > 2 else Path(parts[0]).stem
        number = next((int(str(n)) for name, n in report.user_properties if name == "attacks"), 1)
        self.counts.setdefault(kind, Counter())[report.outcome] += number


def table_lines(counts: dict[str, Counter[str]]) -> Iterator[str]:
    """Yield the counts as a table."""
    yield f"{'kind of attack':24} {'withstood':>9} {'got through':>11} {'not run':>8}"
    rows = [*sorted(counts.items()), ("all", sum(counts.values(), Counter()))]
    for kind, row in rows:
        yield f"{kind:24} {row['passed']:9} {row['failed']:11} {row['skipped']:8}"


def main(arguments: Sequence[str]) -> int:
    """Run the suites with more `arguments` for pytest; the exit code is pytest's."""
    kinds = Kinds()
    code = pytest.main(["-q", "--no-header", *SUITES, *arguments], plugins=[kinds])
    print(*table_lines(kinds.counts), sep="\n")
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
