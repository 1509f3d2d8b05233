"""What serve adds to a tree on the fly, without changing it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from catalyst_pxeboot.build.pipeline import build
from catalyst_pxeboot.personal.keys import PublicKey
from catalyst_pxeboot.personal.model import NO_PERSONAL, Personal
from catalyst_pxeboot.render.personal import render_personal
from catalyst_pxeboot.serve.facts import read_served_tree
from catalyst_pxeboot.serve.personal import NO_ADDITIONS, plan_additions
from catalyst_pxeboot.serve.pinned import Binding, pin_tree
from catalyst_pxeboot.spec.parse import parse_folders
from catalyst_pxeboot.util.errors import PxebootError
from catalyst_pxeboot.util.files import list_files
from tests.support.paths import ROOT
from tests.support.serve_trees import make_tree
from tests.support.stage2 import STAMP, write_stage2

PERSONAL = Personal(keys=(PublicKey("ssh-ed25519", "SHA256:x", "", "ssh-ed25519 AAAA"),))
URL = "http://10.0.0.1/"
WORDS = f"dosshd pxeboot.report={URL}pxeboot-up"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("tree"))


def test_nothing_is_added_unasked(tree: Path) -> None:
    assert plan_additions(read_served_tree(tree), NO_PERSONAL, URL) == NO_ADDITIONS


def test_every_loader_gets_the_files_and_the_words(tree: Path) -> None:
    additions = plan_additions(read_served_tree(tree), PERSONAL, URL)
    texts = {path: content.decode() for path, content in additions.replaced.items()}
    assert texts.keys() == {
        "boot.ipxe", "boot/grub/grub.cfg", "pxelinux.cfg/default", "pxeboot-up",
    }  # fmt: skip
    assert f"set cmdline {WORDS} " in texts["boot.ipxe"]
    assert f'set cmdline="{WORDS} ' in texts["boot/grub/grub.cfg"]
    appended = [line for line in texts["pxelinux.cfg/default"].splitlines() if "  APPEND" in line]
    assert appended and all(line.endswith(f" {WORDS}") for line in appended)
    assert additions.appended.keys() == {"boot/gentoo.igz"}


@pytest.mark.parametrize("binding", [Binding.DESCRIPTORS, Binding.NAMES])
def test_the_view_has_them_and_the_tree_has_not(
    tree: Path, binding: Binding, tmp_path: Path
) -> None:
    before = {path: (tree / path).read_bytes() for path in list_files(tree)}
    served = read_served_tree(tree)
    additions = plan_additions(served, PERSONAL, URL)
    view = tmp_path / "view"
    view.mkdir()
    with pin_tree(served, binding) as pinned, pinned.shown(view, additions):
        shown = {path: (view / path).read_bytes() for path in additions.sizes(served.files)}
        assert list(pinned.changes()) == []
    assert {path: len(content) for path, content in shown.items()} == additions.sizes(served.files)
    initramfs = before["boot/gentoo.igz"]
    assert shown["boot/gentoo.igz"] == (
        initramfs + bytes(-len(initramfs) % 512) + render_personal(PERSONAL, None)
    )
    assert shown["image.squashfs"] == before["image.squashfs"]
    assert {path: (tree / path).read_bytes() for path in list_files(tree)} == before
    assert [path for path in view.rglob("*") if not path.is_dir()] == []


def test_a_signed_tree_is_left_alone(tree: Path) -> None:
    served = replace(read_served_tree(tree), signed=True)
    with pytest.raises(PxebootError, match="is signed"):
        plan_additions(served, PERSONAL, URL)


def test_single_machines_report_too_and_are_the_only_ones_listed(tmp_path: Path) -> None:
    stage2 = write_stage2(tmp_path / f"livecd-stage2-amd64-{STAMP}")
    folder = tmp_path / "hosts"
    folder.mkdir()
    for number in (1, 2):
        (folder / f"02-00-00-00-00-0{number}.toml").write_text(f'hostname = "n{number}"\n')
    spec = parse_folders(stage2, tmp_path / "tree", {"pxeboot/hosts": str(folder)})
    served = read_served_tree(build(spec, report=lambda _line: None).output)
    assert served.macs() == ("02:00:00:00:00:01", "02:00:00:00:00:02")
    additions = plan_additions(served, NO_PERSONAL, URL)
    assert b" pxeboot.report=" in additions.replaced["pxelinux.cfg/01-02-00-00-00-00-02"]
    by_uuid = replace(served, hosts=("4c4c4544-0044-4a10-8030-b7c04f4b3233",))
    for tree, message in ((by_uuid, "is a UUID"), (replace(served, hosts=()), "has nothing")):
        with pytest.raises(PxebootError, match=f"--only-hosts: .*{message}"):
            tree.macs()


def test_a_tree_with_files_of_its_own_reports_too(tmp_path: Path) -> None:
    stage2 = write_stage2(tmp_path / f"livecd-stage2-amd64-{STAMP}")
    keys = {"pxeboot/ssh_keys": str(ROOT / "tests/data/personal/authorized_keys")}
    spec = parse_folders(stage2, tmp_path / "tree", keys)
    served = read_served_tree(build(spec, report=lambda _line: None).output)
    additions = plan_additions(served, NO_PERSONAL, URL)
    assert not additions.appended
    assert b" pxeboot.report=" in additions.replaced["boot.ipxe"]
