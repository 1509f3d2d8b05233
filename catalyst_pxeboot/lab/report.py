"""The results of a boot test: a table for people, JUnit XML for machines."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from pathlib import Path

from catalyst_pxeboot.lab.result import Outcome, PathResult
from catalyst_pxeboot.util.errors import from_os_error
from catalyst_pxeboot.util.text import size

_HEAD = ("#", "path", "client", "chain", "DHCP", "result", "seconds", "fetched")
_SUITE = "catalyst-pxeboot boot-test"


def table_lines(results: Sequence[PathResult]) -> tuple[str, ...]:
    """Write the results as a table; below it why a path did not pass, and the notes."""
    rows = [_HEAD, *(_row(result) for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    for result in results:
        if result.outcome is not Outcome.PASSED:
            lines.append(f"{result.path.name} {result.outcome}: {result.reason}")
        if result.cause:
            lines.append(f"{result.path.name} likely cause: {result.cause}")
    notes: dict[str, list[str]] = {}
    for result in results:
        if result.note:
            notes.setdefault(result.note, []).append(result.path.name)
    lines += [f"note: {note} ({', '.join(names)})" for note, names in notes.items()]
    count = {outcome: sum(result.outcome is outcome for result in results) for outcome in Outcome}
    lines.append(", ".join(f"{number} {outcome}" for outcome, number in count.items()))
    return tuple(lines)


def _row(result: PathResult) -> tuple[str, ...]:
    path = result.path
    return (
        str(path.number),
        path.name,
        path.machine.name,
        " > ".join(str(step) for step in path.chain),
        path.dhcp,
        result.outcome,
        f"{result.seconds:.1f}" if result.seconds else "-",
        size(sum(result.fetched.values())) if result.fetched else "-",
    )


def junit_text(results: Sequence[PathResult]) -> str:
    """Write the results as JUnit XML, one suite with a case a path."""
    suite = ET.Element(
        "testsuite",
        name=_SUITE,
        tests=str(len(results)),
        failures=_count(results, Outcome.FAILED),
        errors="0",
        skipped=_count(results, Outcome.SKIPPED),
        time=f"{sum(result.seconds for result in results):.1f}",
    )
    for result in results:
        path = result.path
        case = ET.SubElement(
            suite,
            "testcase",
            classname=f"{path.number:02}.{path.machine.name}",
            name=path.name,
            time=f"{result.seconds:.1f}",
        )
        if result.outcome is Outcome.SKIPPED:
            ET.SubElement(case, "skipped", message=_clean(result.reason))
        elif result.outcome is Outcome.FAILED:
            failure = ET.SubElement(case, "failure", message=_clean(result.reason))
            cause = [f"likely cause: {result.cause}"] if result.cause else []
            failure.text = _lines([*cause, *result.console_tail])
        lines = [f"{name} {count}" for name, count in result.fetched.items()]
        if result.note:
            lines.append(f"note: {result.note}")
        if result.screenshot:
            # As CI systems know it that show attachments.
            lines.append(f"[[ATTACHMENT|{result.screenshot}]]")
        if lines:
            ET.SubElement(case, "system-out").text = _lines(lines)
    suites = ET.Element("testsuites")
    suites.append(suite)
    ET.indent(suites, " ")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suites, "unicode") + "\n"


def write_junit(results: Sequence[PathResult], file: Path) -> None:
    """Write the results to `file` as JUnit XML. Raises `PublishError`."""
    try:
        file.write_text(junit_text(results), "utf-8")
    except OSError as error:
        raise from_os_error(error, f"{file} could not be written") from error


def _count(results: Iterable[PathResult], outcome: Outcome) -> str:
    return str(sum(result.outcome is outcome for result in results))


def _lines(lines: Iterable[str]) -> str:
    return _clean("\n".join(lines))


def _clean(text: str) -> str:
    """Replace what XML 1.0 has no way to write: a console may print anything."""
    return "".join(c if c in "\t\n" or " " <= c <= "\ud7ff" or c >= "\ue000" else "?" for c in text)
