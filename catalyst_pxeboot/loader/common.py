"""What the checks of all configurations share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Config:
    """What a configuration asks for.

    `files` are paths in the tree, relative to its root, sorted; `problems` are lines of the form
    `line 12: what is wrong`.
    """

    files: tuple[str, ...]
    problems: tuple[str, ...]


# --- common -------------------------------------------------------------------------------------


# dracut's root=live: with an address or a setting that holds one. A root in the initramfs has a
# path after the colon.
_FETCHED_ROOT = re.compile(r"root=live:(?:[a-z0-9]+:|\$).*[/}](?P<file>[A-Za-z0-9._+-]+)")


_VARIABLE = re.compile(r"\$(?:\{(?P<braced>[A-Za-z0-9_-]+)\}|(?P<plain>[A-Za-z0-9_]+))")


def expand_files(
    word: str, assigned: Mapping[str, Iterable[str]], seen: frozenset[str] = frozenset()
) -> Iterator[str]:
    """Yield each file that `word` can name, relative to the tree.

    `assigned` are the values that a script gives to each of its variables; a variable that is not
    among them is left as it is.
    """
    path = word.removeprefix("${base}")
    found = _VARIABLE.fullmatch(path)
    name = (found["braced"] or found["plain"]) if found else ""
    if name not in assigned:
        yield path
    elif name not in seen:
        for value in sorted(assigned[name]):
            for part in value.split():
                yield from expand_files(part, assigned, seen | {name})


def note_file(path: str, files: set[str], problem: Callable[[str], None]) -> None:
    """Note a file of the tree, or the problem with its name. Other servers' files are theirs."""
    if "://" in path:
        return
    if "$" in path:
        problem(f'"{path}" depends on a setting that is not known here')
    elif "//" in path:
        problem(f'"{path}" holds a double slash')
    elif path.startswith("/") or ".." in path.split("/"):
        problem(f'"{path}" leads out of the tree')
    elif not path:
        problem("a file name is empty")
    else:
        files.add(path)


def note_root(words: Iterable[str], files: set[str]) -> None:
    """Note the tree's file that kernel arguments name as a root in the network."""
    given = list(words)
    for word in given:
        if found := _FETCHED_ROOT.fullmatch(word):
            files.add(found["file"])
    if any(word.startswith("nfsroot=") for word in given):
        files.update(word.removeprefix("loop=/") for word in given if word.startswith("loop=/"))


def make_config(files: set[str], problems: list[str]) -> Config:
    return Config(tuple(sorted(files)), tuple(sorted(problems, key=line_number)))


def line_number(problem: str) -> int:
    match = re.match(r"line (\d+)", problem)
    return int(match[1]) if match else 0


@dataclass(frozen=True, slots=True)
class RootVariables:
    """Text that a loader replaces by what only it knows when it boots.

    `url` is the tree on its web server, with a slash at the end; empty values are not known to it.
    """

    url: str = ""
    nfs_server: str = ""
    address: str = "ip=dhcp"  # of the client, for dracut
    genkernel_address: str = "ip=dhcp"
    mac: str = ""  # of the network card that it booted by
