"""Unified kernel images of a tree: what is in them, and what `verify` says whoever wrote it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from catalyst_pxeboot.build.pipeline import build, make_plan
from catalyst_pxeboot.formats.signing.keyset import write_keys
from catalyst_pxeboot.formats.uki import read_sections
from catalyst_pxeboot.model.loader import Loader
from catalyst_pxeboot.plan import uki as plan_uki
from catalyst_pxeboot.spec.parse import parse_settings
from catalyst_pxeboot.tree.verify import verify_tree
from catalyst_pxeboot.util.errors import PxebootError, SpecError
from tests.support import builders
from tests.support.efi import efi_program
from tests.support.stage2 import release_settings, storedir_stage2, write_stage2
from tests.unit.tree.test_stream import swap

UKI = "boot/gentoo.efi"
URL = "http://10.1.2.3/x"


def settings(folder: Path, **keys: object) -> dict[str, object]:
    """Return a spec for a stock image, with a stub that the build host has."""
    stubs = folder / "stubs"
    if not stubs.exists():
        stubs.mkdir(parents=True)
        (stubs / "linuxx64.efi.stub").write_bytes(efi_program())
        write_stage2(
            storedir_stage2(folder), initramfs=builders.initramfs(builders.dracut_members())
        )
    given = {f"pxeboot/{key}": value for key, value in keys.items()}
    return {
        **release_settings(folder), "pxeboot/loaders": ["uki", "ipxe"],
        "pxeboot/loader_path": str(stubs), **given,
    }  # fmt: skip


def make_tree(folder: Path, **keys: object) -> Path:
    return build(parse_settings(settings(folder, **keys)), report=lambda _line: None).output


def sections(tree: Path, name: str = UKI) -> dict[str, bytes]:
    return dict(read_sections((tree / name).read_bytes(), where=name))


def test_it_holds_all_that_boots(tmp_path: Path, streaming: None, no_loaders: None) -> None:
    tree = make_tree(tmp_path, base_url=URL)
    found = sections(tree)
    assert found[".linux"] == (tree / "boot/gentoo").read_bytes()
    parts = [
        name
        for name in ("gentoo.igz", "gentoo.igz.pad", "gentoo.net.cpio")
        if (tree / "boot" / name).exists()
    ]
    assert found[".initrd"] == b"".join((tree / "boot" / name).read_bytes() for name in parts)
    words = found[".cmdline"].decode().split()
    assert words[-2:] == [f"pxeboot.url={URL}/image.squashfs", "ip=dhcp"]
    assert b'PRETTY_NAME="Gentoo Linux' in found[".osrel"]
    assert verify_tree(tree).faults == ()
    again = make_tree(tmp_path / "again", base_url=URL)
    assert (again / UKI).read_bytes() == (tree / UKI).read_bytes()


def test_without_an_address_it_finds_its_tree(
    tmp_path: Path, streaming: None, no_loaders: None
) -> None:
    tree = make_tree(tmp_path, loaders="uki", root="stream")
    assert "pxeboot.url=image.squashfs" in sections(tree)[".cmdline"].decode().split()
    assert verify_tree(tree).faults == ()


def test_the_least_memory_comes_first_unless_the_spec_says(
    tmp_path: Path, streaming: None, no_loaders: None
) -> None:
    def root(**keys: object) -> str:
        plan = make_plan(parse_settings(settings(tmp_path, **keys)))
        return next(uki.entry for uki in plan.ukis)

    assert root(base_url=URL) == "gentoo-stream"
    assert root(base_url=URL, root=["embedded", "stream"]) == "gentoo"
    assert root(base_url=URL, root=["http", "embedded"]) == "gentoo-http"


def test_what_firmware_cannot_hold_is_refused(
    tmp_path: Path, no_loaders: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_uki, "MAX_UKI", 1000)
    with pytest.raises(PxebootError, match=r"^boot/gentoo\.efi: .* is more than"):
        make_plan(parse_settings(settings(tmp_path, root="embedded")))


def test_more_entries_by_name(tmp_path: Path, streaming: None, no_loaders: None) -> None:
    names = ["gentoo", "gentoo-stream"]
    plan = make_plan(parse_settings(settings(tmp_path, base_url=URL, uki_entries=names)))
    assert [(uki.path, uki.entry) for uki in plan.ukis] == [
        (UKI, "gentoo-stream"), ("boot/gentoo-embedded.efi", "gentoo"),
    ]  # fmt: skip
    with pytest.raises(PxebootError, match=r"pxeboot/uki_entries: the menu has no 'gento'"):
        make_plan(parse_settings(settings(tmp_path, base_url=URL, uki_entries="gento")))


def test_a_host_without_a_stub_says_so(tmp_path: Path, streaming: None, no_loaders: None) -> None:
    given = settings(tmp_path, base_url=URL, first="uki")
    (tmp_path / "stubs/linuxx64.efi.stub").unlink()
    built = build(parse_settings(given), report=lambda _line: None)
    assert any("systemd-boot-efi" in line for line in built.missing)
    assert not (built.output / UKI).exists()
    assert verify_tree(built.output).faults == ()
    assert UKI not in (built.output / "dhcp/dnsmasq.conf").read_text()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"loaders": "ipxe", "first": "uki"}, "pxeboot/first: is for uki only"),
        ({"first": "grub"}, "pxeboot/first: 'grub' is unknown"),
        ({"secureboot_cert": "/x"}, "pxeboot/secureboot_key: is missing beside"),
        ({"secureboot_key": "/x"}, "pxeboot/secureboot_cert: is missing beside"),
        ({"secureboot_key": "pkcs11:token=x"}, "pxeboot/secureboot_key: the URI names neither"),
    ],
)
def test_keys_that_do_not_fit(keys: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=message):
        parse_settings(settings(tmp_path, **keys))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (UKI, lambda data: data.replace(b" cdroot", b" nomodu"), "its command line is not that of"),
        (UKI, lambda data: data.replace(b" ip=dhcp", b" init=/x"), "its command line is not that"),
        (UKI, lambda data: data[:-20_000] + b"x" * 20_000, "the kernel in it is not boot/gentoo"),
        (UKI, lambda data: data[:5000], ""),
        (UKI, lambda _data: b"MZ", "not a UEFI program"),
        ("boot/gentoo.net.cpio", lambda data: data + bytes(512), "the initrd in it is not boot/"),
        ("boot/gentoo", lambda data: data + b"x", "the kernel in it is not boot/gentoo"),
    ],
)
def test_what_is_not_the_trees_own_is_found(
    name: str, change: Callable[[bytes], bytes], message: str, tmp_path: Path, streaming: None,
    no_loaders: None,
) -> None:  # fmt: skip
    tree = make_tree(tmp_path, base_url=URL)
    faults = swap(tree, name, change)
    assert any(fault.startswith(f"{UKI}: ") and message in fault for fault in faults), faults


@pytest.fixture
def signed(tmp_path: Path, streaming: None, no_loaders: None) -> tuple[Path, Path]:
    for program in ("osslsigncode", "sbverify"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing")
    keys = tmp_path / "keys"
    write_keys(keys, "test")
    names = {"secureboot_cert": str(keys / "db.crt"), "secureboot_key": str(keys / "db.key")}
    return make_tree(tmp_path, base_url=URL, **names), keys


def test_a_signed_tree_is_made_again(signed: tuple[Path, Path], tmp_path: Path) -> None:
    tree, keys = signed
    first = (tree / UKI).read_bytes()
    time.sleep(1.1)  # a signature's time counts seconds
    names = {"secureboot_cert": str(keys / "db.crt"), "secureboot_key": str(keys / "db.key")}
    assert (make_tree(tmp_path, base_url=URL, **names) / UKI).read_bytes() == first


def test_signatures_are_asked_for(signed: tuple[Path, Path]) -> None:
    tree, keys = signed
    assert verify_tree(tree, secureboot=keys / "db.crt").faults == ()
    (fault,) = verify_tree(tree, secureboot=keys / "KEK.crt").faults
    assert fault.message.startswith(f"{UKI}: it is not signed by the key of ")
    manifest = (tree / "manifest.json").read_text()
    assert str(keys) not in manifest  # where the user's keys are is no one's affair


def test_no_manifest_hides_a_program(signed: tuple[Path, Path]) -> None:
    """Whoever writes the tree writes its manifest, too."""
    tree, keys = signed
    manifest = json.loads((tree / "manifest.json").read_text())
    for file in manifest["files"]:
        if file["path"] == UKI:
            file["role"] = "loader"
    (tree / "manifest.json").write_text(json.dumps(manifest))
    faults = [fault.message for fault in verify_tree(tree, secureboot=keys / "db.crt").faults]
    assert f"{UKI}: not a unified kernel image of this tree" in faults
    (tree / UKI).unlink()
    faults = [fault.message for fault in verify_tree(tree, secureboot=keys / "db.crt").faults]
    assert "there is no unified kernel image" in faults


def test_a_root_inside_needs_no_address(tmp_path: Path, no_loaders: None) -> None:
    plan = make_plan(parse_settings(settings(tmp_path, loaders="uki", root="embedded")))
    assert [uki.entry for uki in plan.ukis] == ["gentoo"]
    assert plan.menu.offers(Loader.UKI)
