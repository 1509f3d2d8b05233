"""The manual pages, the table of keys of keys and the shells' completions, from one source.

The source is what the command line's parser and keys.toml say; `make manual` writes the files and
a test compares them, so that they cannot disagree with --help.
"""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalyst_pxeboot import __version__
from catalyst_pxeboot.cli.main import EXIT_CODES, PROGRAM, make_parser
from catalyst_pxeboot.model.files import Role
from catalyst_pxeboot.render.templates import render_file
from catalyst_pxeboot.spec.keys import tables

_KEYS = "doc/spec-keys.md"


@dataclass(frozen=True, slots=True)
class Option:
    """An option or argument: how it is written, such as `-f SPEC, --file SPEC`, and its help."""

    names: str
    help: str


@dataclass(frozen=True, slots=True)
class Command:
    """A command's name, its line of help, description, synopsis and options."""

    name: str
    summary: str
    description: str
    synopsis: str
    options: tuple[Option, ...]


def main() -> None:
    """Write the files into the checkout that this package lies in."""
    root = Path(__file__).parents[2]
    for name, text in manual_files(root).items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)


def manual_files(root: Path) -> dict[str, str]:
    """Return each file's text by its path; `root` is the checkout, for the rest of the README."""
    import shtab

    parser = make_parser()
    return {
        "man/catalyst-pxeboot.1": _page("man/catalyst-pxeboot.1", _command_values(parser)),
        "man/pxeboot-spec.5": _page("man/pxeboot-spec.5", _key_values()),
        f"completions/{PROGRAM}.bash": shtab.complete(_with_files(make_parser()), shell="bash"),
        f"completions/_{PROGRAM}": shtab.complete(_with_files(make_parser()), shell="zsh"),
        _KEYS: _with_key_table((root / _KEYS).read_text()),
        "specs/pxeboot_template.spec": _template_spec(),
    }


def _page(name: str, values: dict[str, Any]) -> str:
    return render_file(name, values, None, role=Role.TEXT).content.decode()


def roff(text: str) -> str:
    r"""Quote plain text for roff, words between backticks in bold.

    groff_char(7): `-` is a hyphen there, `\-` the sign one types; a line that begins with `.` or
    `'` is a request.
    """
    quoted = text.replace("\\", r"\e").replace("-", r"\-").replace("~", r"\(ti")
    quoted = quoted.replace("^", r"\(ha").replace("'", r"\(aq")
    quoted = re.sub(r"`([^`]+)`", r"\\fB\1\\fR", quoted)
    return f"\\&{quoted}" if quoted.startswith(".") else quoted


def _command_values(parser: argparse.ArgumentParser) -> dict[str, Any]:
    commands = tuple(_commands(parser))
    return {
        "version": __version__,
        "description": parser.description,
        "commands": commands,
        "common": _common(parser),
        "codes": tuple((str(code), meaning) for code, meaning in EXIT_CODES.items()),
        "roff": roff,
    }


def _key_values() -> dict[str, Any]:
    table = tables()
    return {
        "version": __version__,
        "required": table["required"],
        "keys": {**table["shared"], **table["pxeboot"]},
        "ignored": table["ignored"]["keys"],
        "ignored_kernel": table["ignored"]["kernel"],
        "roff": roff,
    }


def _commands(parser: argparse.ArgumentParser) -> Iterator[Command]:
    subparsers = _subparsers(parser)
    for summary in subparsers._choices_actions:
        command = subparsers.choices[summary.dest]
        yield Command(
            name=summary.dest,
            summary=summary.help or "",
            description=command.description or "",
            synopsis=_synopsis(command),
            options=tuple(_options(command, common=False)),
        )


def _common(parser: argparse.ArgumentParser) -> tuple[Option, ...]:
    return tuple(_options(next(iter(_subparsers(parser).choices.values())), common=True))


def _subparsers(parser: argparse.ArgumentParser) -> Any:
    return next(
        action for action in parser._actions if isinstance(action, argparse._SubParsersAction)
    )


def _synopsis(parser: argparse.ArgumentParser) -> str:
    words = []
    for action in _own_actions(parser, common=False):
        name = _metavar(action)
        if not action.option_strings:
            words.append(f"[{name}]" if action.nargs in ("?", "*", "...") else name)
            continue
        option = action.option_strings[-1]
        text = f"{option} {name}" if name else option
        words.append(text if action.required else f"[{text}]")
    return " ".join(words)


def _options(parser: argparse.ArgumentParser, *, common: bool) -> Iterator[Option]:
    for action in _own_actions(parser, common=common):
        name = _metavar(action)
        forms = [f"{form} {name}".rstrip() for form in action.option_strings] or [name]
        yield Option(", ".join(forms), action.help or "")


def _own_actions(parser: argparse.ArgumentParser, *, common: bool) -> Iterator[argparse.Action]:
    """Yield the actions of the command itself, or those that each command has."""
    for group in parser._action_groups:
        for action in group._group_actions:
            if not isinstance(action, argparse._HelpAction) and (group.title == "output") is common:
                yield action


def _metavar(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    if isinstance(action.metavar, str):
        return action.metavar
    if action.choices:
        return "|".join(map(str, action.choices))
    return action.dest.replace("_", "-").upper()


def _with_files(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Mark what takes a path, so that the shell completes paths there."""
    import shtab

    for command in _subparsers(parser).choices.values():
        for action in command._actions:
            if action.type is Path:
                action.complete = shtab.FILE
    return parser


def _with_key_table(readme: str) -> str:
    """Put the rows that keys.toml makes in the place of the README's."""
    table = tables()
    required = [f"| `{key}` | {doc} |" for key, doc in table["required"].items()]
    others = [
        f"| `{key}` | {entry['value']} | {entry['default']} | {entry['doc']} |"
        for key, entry in {**table["shared"], **table["pxeboot"]}.items()
    ]
    readme = _with_rows(readme, "| key | means |\n| --- | --- |\n", required)
    return _with_rows(
        readme, "| key | value | default | means |\n| --- | --- | --- | --- |\n", others
    )


#: Values of the keys that a spec must have.
_EXAMPLES = {
    "subarch": "amd64",
    "version_stamp": "20261122T170000Z",
    "target": "pxeboot",
    "rel_type": "23.0-default",
    "source_subpath": "23.0-default/livecd-stage2-amd64-20261122T170000Z",
}


def _template_spec() -> str:
    """Write a spec with every key, commented as catalyst's own example specs are."""
    table = tables()
    parts = ["# pxeboot example specfile\n# used to build a network-boot tree of a livecd-stage2\n"]
    for key, doc in table["required"].items():
        value = "pxeboot" if key == "target" else ""
        parts.append(_template_key(key, doc, _EXAMPLES[key], value))
    for key, entry in {**table["shared"], **table["pxeboot"]}.items():
        doc = f"{entry['doc']} Default: {entry['default']}."
        parts.append(_template_key(key.replace("<name>", "gentoo"), doc, entry["example"], None))
    return "\n".join(parts)


def _template_key(key: str, doc: str, example: str, value: str | None) -> str:
    comment = textwrap.wrap(doc.replace("`", ""), 78, break_on_hyphens=False)
    lines = [*comment, "example:", f"{key}: {example}"]
    text = "".join(f"# {line}\n" for line in lines)
    return text if value is None else f"{text}{key}: {value}".rstrip() + "\n"


def _with_rows(text: str, head: str, rows: list[str]) -> str:
    before, found, after = text.partition(head)
    if not found:
        raise ValueError(f"{_KEYS} has no table {head.splitlines()[0]!r}")
    return before + head + "\n".join(rows) + after[after.index("\n\n") :]


if __name__ == "__main__":
    main()
