"""Trees with something for single machines."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from catalyst_pxeboot.build.pipeline import build, make_plan
from catalyst_pxeboot.spec.parse import parse_settings
from catalyst_pxeboot.tree.verify import verify_tree
from catalyst_pxeboot.util.errors import SpecError
from tests.support.paths import ROOT
from tests.support.stage2 import release_settings, storedir_stage2, write_stage2
from tests.unit.tree.test_stream import swap

KEYS = ROOT / "tests/data/personal/authorized_keys"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_stage2(storedir_stage2(tmp_path))
    (tmp_path / "hosts").mkdir()
    return tmp_path


def make_tree(store: Path, **keys: object) -> Path:
    settings = release_settings(store) | {f"pxeboot/{key}": value for key, value in keys.items()}
    settings["pxeboot/hosts"] = str(store / "hosts")
    return build(parse_settings(settings), report=lambda _line: None).output


def write_hosts(store: Path, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        (store / "hosts" / f"{name}.toml").write_text(text)


def test_a_thousand_machines(store: Path, no_loaders: None) -> None:
    text = f'hostname = "node"\nssh_keys = "{KEYS}"\nentry = "gentoo"\narguments = "quiet"\n'
    write_hosts(store, {f"02-00-00-00-{n >> 8:02x}-{n & 255:02x}": text for n in range(1000)})
    begun = time.monotonic()
    tree = make_tree(store)
    assert time.monotonic() - begun < 12  # 1.5 to 3.5 s on a machine of two cores
    assert len(list((tree / "hosts").iterdir())) == 1000
    assert verify_tree(tree).faults == ()


def test_an_entry_that_is_not_there_names_the_file(store: Path) -> None:
    write_hosts(store, {"02-00-00-00-00-01": 'entry = "gento"\n'})
    with pytest.raises(SpecError, match=r"02-00-00-00-00-01\.toml: entry: the menu has no 'gento'"):
        make_tree(store)


def test_what_a_loader_does_not_have_is_told(store: Path, no_loaders: None) -> None:
    write_hosts(store, {"02-00-00-00-00-01": 'hostname = "x"\n'})
    settings = release_settings(store) | {"pxeboot/hosts": str(store / "hosts")}
    before = make_plan(parse_settings(settings)).left_out
    settings["pxeboot/loaders"] = ["ipxe", "uki"]
    (line,) = set(make_plan(parse_settings(settings)).left_out) - set(before)
    assert line.startswith("what single machines get (pxeboot/hosts), by uki: ")


def test_verify_knows_what_machines_get(store: Path, no_loaders: None) -> None:
    write_hosts(store, {"02-00-00-00-00-01": 'hostname = "x"\n'})
    tree = make_tree(store)
    archive = "hosts/02-00-00-00-00-01.cpio"
    assert swap(tree, "boot.ipxe", lambda text: text.replace(b"01.cpio", b"02.cpio"))
    (tree / archive).unlink()
    assert f"{archive}: missing" in [fault.message for fault in verify_tree(tree).faults]
