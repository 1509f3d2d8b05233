"""catalyst's own parsing rules; with real catalyst at hand the two parsers are compared."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalyst_pxeboot.spec.file import DEFAULT_DIGESTS, parse_spec, read_conf, read_spec
from catalyst_pxeboot.util.errors import PxebootError

RULES = {
    "one word": ("subarch: amd64", {"subarch": "amd64"}),
    "several words": ("boot/kernel: a b", {"boot/kernel": ["a", "b"]}),
    "continued": ("boot/kernel: a\n\tb c\n", {"boot/kernel": ["a", "b", "c"]}),
    "continued from nothing": ("boot/kernel:\n a\n", {"boot/kernel": "a"}),
    "no value": ("boot/kernel:\nsubarch: x\n", {"subarch": "x"}),
    "comment": ("subarch: amd64 # the fast one\n# all of it\n", {"subarch": "amd64"}),
    "a comment cuts a URL": ("a: http://x/#frag", {"a": "http://x/"}),
    "an indented URL is a key": ("a:\n  http://x/y\n", {"http": "//x/y"}),
    "the last of two wins": ("a: 1\na: 2\n", {"a": "2"}),
    "none": ("a: None\nb: none such\n", {"a": None, "b": ["none", "such"]}),
    "quotes around": ('a: "x y"', {"a": ["x", "y"]}),
    "earlier key": ("a: 1\nb: x-%(a)s\n", {"a": "1", "b": "x-1"}),
    "a doubled percent": ("a: 50%%", {"a": "50%"}),
    "a second colon": ("a: b:c", {"a": "b:c"}),
    "a line before any key": ("stray words\n", {"stray": "words"}),
}


@pytest.mark.parametrize("name", RULES)
def test_rules(name: str) -> None:
    text, expected = RULES[name]
    assert parse_spec(text, where="x.spec") == expected


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("a: 50%", "incomplete format"),
        ("a: 5%d", "%d format: a real number is required, not dict"),
        ("a: %(b)s", "'b'"),
        ("a: %q", "unsupported format character 'q' (0x71) at index 1"),
    ],
)
def test_percent_sign_is_told_with_its_line(line: str, why: str) -> None:
    with pytest.raises(PxebootError) as raised:
        parse_spec(f"subarch: amd64\n{line}\n", where="x.spec")
    assert str(raised.value) == (
        f"x.spec, line 2: {line[3:]!r} cannot be expanded ({why});"
        " write %% for a percent sign; %(key)s takes a key set further up"
    )


@given(st.text(max_size=400))
@settings(max_examples=300, deadline=None)
def test_any_text_parses_or_is_refused(text: str) -> None:
    with contextlib.suppress(PxebootError):
        for key, value in parse_spec(text, where="x").items():
            assert isinstance(key, str)
            assert value is None or value


def test_a_spec_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "x.spec"
    path.write_bytes(b"subarch: \xff\xfe")
    with pytest.raises(PxebootError) as raised:
        read_spec(path)
    assert str(raised.value) == (
        f"{path}: the spec file is not UTF-8 text (byte 9); check that it is the right file"
    )


def test_a_spec_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PxebootError) as raised:
        read_spec(tmp_path / "x.spec")
    assert str(raised.value) == (
        f"{tmp_path / 'x.spec'}: the spec file cannot be read: No such file or directory;"
        " check the path given"
    )


def test_conf_is_toml_with_substitution(tmp_path: Path) -> None:
    path = tmp_path / "catalyst.conf"
    path.write_text('storedir = "/srv"\nrepos_storedir = "%(storedir)s/repos"\ndigests = ["md5"]\n')
    conf = read_conf(path)
    assert conf["storedir"] == "/srv"
    assert conf["repos_storedir"] == "/srv/repos"
    assert conf["digests"] == ["md5"]
    assert conf["digest_format"] == "linux"


def test_conf_without_digests_has_none(tmp_path: Path) -> None:
    path = tmp_path / "catalyst.conf"
    path.write_text('storedir = "/srv"\n')
    assert "digests" not in read_conf(path)


def test_conf_of_a_machine_without_catalyst(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("catalyst_pxeboot.spec.file.DEFAULT_CONF", tmp_path / "none")
    conf = read_conf(None)
    assert conf["storedir"] == "/var/tmp/catalyst"
    assert conf["digests"] == list(DEFAULT_DIGESTS)


def test_conf_that_is_not_toml(tmp_path: Path) -> None:
    path = tmp_path / "catalyst.conf"
    path.write_text("storedir: /srv\n")
    with pytest.raises(PxebootError) as raised:
        read_conf(path)
    assert str(raised.value).startswith(f"{path}: not valid TOML: ")
    assert str(raised.value).endswith("; catalyst.conf is TOML since catalyst 4")


PARSE_THERE = """
import json, logging, sys
from catalyst.config import SpecParser
logging.disable(logging.CRITICAL)
for text in json.load(sys.stdin):
    parser = SpecParser()
    try:
        parser.parse_lines(text.split("\\n"))
        print(json.dumps(parser.get_values()))
    except Exception as error:
        print(json.dumps(repr(error)))
"""


@pytest.mark.catalyst
@pytest.mark.skipif(
    not {"CATALYST_SRC", "DECOMP_SRC", "CATALYST_PYTHON"} <= os.environ.keys(),
    reason="CATALYST_SRC, DECOMP_SRC or CATALYST_PYTHON not set",
)
def test_same_as_catalysts_own_parser(tmp_path: Path) -> None:
    (tmp_path / "libmount.py").write_text("class Context:\n    pass\n")
    choose = random.Random(2013)
    pieces = ["a", "b/c", ":", ": ", " ", "\n", "\n ", "\t", "#", " # x", "%", "%%", "%(a)s", '"',
              "none", "http://x", "x y", "'", "a: 1\n", "b/c: 2 3\n"]  # fmt: skip
    texts = ["".join(choose.choices(pieces, k=choose.randint(0, 14))) for _ in range(5000)]
    done = subprocess.run(
        [os.environ["CATALYST_PYTHON"], "-c", PARSE_THERE],
        env={"PYTHONPATH": ":".join([os.environ["CATALYST_SRC"], os.environ["DECOMP_SRC"],
                                     str(tmp_path)])},
        input=json.dumps(texts), capture_output=True, text=True, check=True,
    )  # fmt: skip
    refused = 0
    for text, line in zip(texts, done.stdout.splitlines(), strict=True):
        if isinstance(theirs := json.loads(line), str):
            refused += 1
            with pytest.raises(PxebootError):
                parse_spec(text, where=theirs)
        else:
            assert parse_spec(text, where="x") == theirs, text
    assert 0 < refused < len(texts) / 2
