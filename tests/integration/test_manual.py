"""The manual pages, completions and the README's keys agree with --help and keys.toml."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from catalyst_pxeboot.cli import main as cli
from catalyst_pxeboot.spec.keys import tables
from catalyst_pxeboot.spec.parse import parse_settings
from tests.support.paths import ROOT
from tests.tools.manual import manual_files, roff

PAGES = ("man/catalyst-pxeboot.1", "man/pxeboot-spec.5")


def test_files_are_what_their_source_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")  # argparse wraps --help at the terminal's width
    for name, text in manual_files(ROOT).items():
        if os.environ.get("UPDATE_GOLDEN"):
            (ROOT / name).write_text(text)
        assert (ROOT / name).read_text() == text, f"{name}: run `make manual`"


@pytest.mark.parametrize("page", PAGES)
def test_pages_are_right_for_roff(page: str) -> None:
    if shutil.which("groff") is None:
        pytest.skip("no groff")
    done = subprocess.run(
        ["groff", "-man", "-ww", "-z", "-Tutf8", ROOT / page],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stderr == ""


def test_page_tells_each_command_option_and_exit_code() -> None:
    page = (ROOT / PAGES[0]).read_text()
    parser = cli.make_parser()
    (commands,) = (action for action in parser._actions if action.dest == "command")
    assert isinstance(commands.choices, dict)
    for name, command in commands.choices.items():
        _head, found, section = page.partition(f".SS catalyst\\-pxeboot {roff(name)}\n")
        assert found, name
        section = section.partition(".SS")[0] + page.partition(".SH OUTPUT")[2]
        for action in command._actions:
            for option in action.option_strings:
                assert roff(option) in section or option in ("-h", "--help"), (name, option)
    for code, meaning in cli.EXIT_CODES.items():
        assert f".B {code}\n{meaning}\n" in page
        assert f"{code} {meaning}" in parser.format_help()


def test_page_of_specs_tells_each_key() -> None:
    page = (ROOT / PAGES[1]).read_text()
    for group in ("required", "shared", "pxeboot"):
        for key in tables()[group]:
            assert roff(key) in page, key
    for key in tables()["ignored"]["keys"]:
        assert f".B {roff(key)}" in page, key


def test_roff_quotes_what_it_would_take_as_its_own() -> None:
    assert roff("a-b") == r"a\-b"
    assert roff(".cfg") == r"\&.cfg"
    assert roff("it's `x-y` \\n") == r"it\(aqs \fBx\-y\fR \en"


@pytest.mark.parametrize(
    ("words", "expected"),
    [(["verif"], {"verify"}), (["build", "--dry"], {"--dry-run"}), (["bu"], {"build"})],
)
def test_bash_completes(words: list[str], expected: set[str]) -> None:
    script = (
        f'source "{ROOT}/completions/catalyst-pxeboot.bash"\n'
        'COMP_WORDS=(catalyst-pxeboot "$@"); COMP_CWORD=$#; COMPREPLY=()\n'
        "_shtab_catalyst_pxeboot\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["bash", "-c", script, "bash", *words],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert set(done.stdout.split()) == expected


def test_zsh_takes_its_completion() -> None:
    if shutil.which("zsh") is None:
        pytest.skip("no zsh")
    file = ROOT / "completions/_catalyst-pxeboot"
    assert file.read_text().startswith("#compdef catalyst-pxeboot\n")
    done = subprocess.run(["zsh", "-n", file], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_example_of_the_template_is_accepted(tmp_path: Path) -> None:
    text = (ROOT / "specs/pxeboot_template.spec").read_text()
    examples = dict(re.findall(r"^# example:\n# (\S+): (.+)$", text, re.MULTILINE))
    assert examples.keys() >= {*tables()["required"], *tables()["pxeboot"]}
    base = {key: examples[key] for key in tables()["required"]} | {"digests": "sha512"}
    # Those must be there.
    paths = {"pxeboot/loader_path", "pxeboot/templates", "pxeboot/files", "pxeboot/hosts"}
    together = {"pxeboot/sign_cert", "pxeboot/sign_key", "pxeboot/sign_verify"}
    pair = {"pxeboot/secureboot_cert", "pxeboot/secureboot_key"}
    images = {*pair, "pxeboot/uki_entries", "pxeboot/first", "pxeboot/secureboot_passphrase_file"}
    for key in examples.keys() - paths:
        given = {key: examples[key].split() if " " in examples[key] else examples[key]}
        if key in together:
            given |= {other: examples[other] for other in together}
        if key in images:
            given["pxeboot/loaders"] = "uki"
        if key in pair:
            given |= {other: examples[other] for other in pair}
        if key == "pxeboot/iso":
            del base["source_subpath"]
        parse_settings({**base, **given})
        base["source_subpath"] = examples["source_subpath"]
