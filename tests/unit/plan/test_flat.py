"""The flat release files for mirrors: their names, and what the mirror mover makes of them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urljoin

import pytest

from catalyst_pxeboot.build.pipeline import build
from catalyst_pxeboot.loader import LOADERS
from catalyst_pxeboot.model.loader import Loader
from catalyst_pxeboot.spec.parse import parse_settings
from catalyst_pxeboot.tree import flat as flat_room
from catalyst_pxeboot.tree.verify import verify_tree
from catalyst_pxeboot.util.errors import PublishError, SpecError
from catalyst_pxeboot.util.files import list_files
from tests.golden.test_golden import MEMTEST, NETWORK
from tests.support import builders
from tests.support.stage2 import STAMP, release_settings, storedir_stage2, write_stage2

RELEASE = f"amd64-minimal-{STAMP}"
IPXE = f"netboot-ipxe-{RELEASE}.ipxe"


@pytest.fixture
def store(tmp_path: Path, no_loaders: None) -> Path:
    store = tmp_path / "store"
    initramfs = builders.initramfs(NETWORK, "gzip")
    initramfs += bytes(1 + -len(initramfs) % 4)  # so that padding is needed
    write_stage2(storedir_stage2(store), initramfs=initramfs, extra=MEMTEST)
    return store


def build_flat(store: Path, **keys: object) -> Path:
    """Build with a flat set; return the folder it lies in."""
    settings = release_settings(store, pxeboot__release=RELEASE, **keys)
    return build(parse_settings(settings), report=lambda _line: None).output.parent


def flat_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def test_the_parts_are_links_to_the_trees(store: Path) -> None:
    folder = build_flat(store)
    tree = folder / f"pxeboot-amd64-{STAMP}"
    same = {
        f"netboot-check-{RELEASE}.cpio": "boot/root-check.cpio",
        f"netboot-header-{RELEASE}.cpio": "boot/root.cpio-header",
        f"netboot-initramfs-{RELEASE}.igz": "boot/gentoo.igz",
        f"netboot-kernel-{RELEASE}": "boot/gentoo",
        f"netboot-memtest64-bios-{RELEASE}": "memtest64.bios",
        f"netboot-memtest64-efi-{RELEASE}": "memtest.efi64",
        f"netboot-padding-{RELEASE}.pad": "boot/gentoo.igz.pad",
        f"netboot-root-{RELEASE}.squashfs": "image.squashfs",
    }
    for name, path in same.items():
        assert (folder / name).samefile(tree / path)
    assert flat_files(folder) == sorted(
        [
            *same,
            IPXE,
            f"netboot-pxelinux-{RELEASE}.cfg",
            f"netboot-grub-{RELEASE}.cfg",
            f"pxeboot-{RELEASE}.DIGESTS",
            f"pxeboot-{RELEASE}.sha256",
        ]
    )
    assert verify_tree(tree).faults == ()
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_a_streamed_root_names_its_hash_tree(
    tmp_path: Path, streaming: None, no_loaders: None
) -> None:
    """Mirrors take the longest of two names for one: it cannot be the root's with an ending."""
    store = tmp_path / "store"
    write_stage2(storedir_stage2(store), initramfs=builders.initramfs(builders.dracut_members()))
    folder = build_flat(store)
    hashes = f"netboot-hashes-{RELEASE}.verity"
    tree = folder / f"pxeboot-amd64-{STAMP}"
    assert (folder / hashes).samefile(tree / "image.squashfs.verity")
    assert (folder / f"netboot-net-{RELEASE}.cpio").samefile(tree / "boot/gentoo.net.cpio")
    text = (folder / IPXE).read_text()
    assert f"netboot-root-{RELEASE}.squashfs pxeboot.hashes={hashes} " in text
    assert "pxeboot.hashes" not in (tree / "boot.ipxe").read_text()


def test_digests_hold(store: Path) -> None:
    folder = build_flat(store)
    for name, program in (("sha256", "sha256sum"), ("DIGESTS", "sha512sum")):
        sums = folder / f"pxeboot-{RELEASE}.{name}"
        text = sums.read_text()
        if name == "DIGESTS":
            text = "".join(re.findall(r"# SHA512 HASH\n(.*\n)", text))
        done = subprocess.run(
            [program, "--strict", "-c"], input=re.sub(r"#.*\n", "", text), text=True, cwd=folder,
            capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.count(": OK\n") == len(flat_files(folder)) - 2


def test_configurations_name_flat_files_only(store: Path) -> None:
    folder = build_flat(store)
    for loader in (Loader.PXELINUX, Loader.GRUB):
        config = LOADERS[loader].check((folder / f"netboot-{loader}-{RELEASE}.cfg").read_text())
        assert config.problems == ()
        there = {*flat_files(folder), "menu.c32", "reboot.c32", "poweroff.c32"}
        assert f"netboot-root-{RELEASE}.squashfs" in config.files
        assert set(config.files) <= there
    script = (folder / IPXE).read_text()
    assert f"|| set base ../{STAMP}/\n" in script
    config = LOADERS[Loader.IPXE].check(script)
    assert config.problems == ()
    assert set(config.files) <= set(flat_files(folder))


@pytest.mark.parametrize("place", ["20261122T170000Z", "current-netboot-ipxe-amd64-minimal"])
def test_the_script_finds_the_parts_from_either_folder(store: Path, place: str) -> None:
    """iPXE resolves a name against the script's own address, as RFC 3986 has it."""
    folder = build_flat(store)
    here = f"https://mirror.example/releases/amd64/autobuilds/{place}/{IPXE}"
    script = (folder / IPXE).read_text()
    (base,) = re.findall(r"\|\| set base (.*)", script)
    (kernel,) = set(re.findall(r"^kernel --name kernel \$\{base\}(\S+)", script, re.MULTILINE))
    expected = f"https://mirror.example/releases/amd64/autobuilds/{STAMP}/{kernel}"
    assert urljoin(here, base + kernel) == expected
    # cwduri is the folder's address; what fetches the root resolves the dots (RFC 3986, 5.2.4).
    assert f"|| set root_url ${{cwduri}}../{STAMP}/\n" in script
    assert f"root=live:${{root_url}}netboot-root-{RELEASE}.squashfs" in script


def test_a_mirror_serves_no_nfs_and_has_no_known_address(store: Path) -> None:
    folder = build_flat(
        store,
        pxeboot__base_url="http://192.168.7.1/gentoo",
        pxeboot__nfs_root="192.168.7.1:/srv/gentoo",
    )
    for name in (path for path in flat_files(folder) if path.endswith((".cfg", ".ipxe"))):
        text = (folder / name).read_text()
        assert "192.168.7.1" not in text, name
        assert "nfs://" not in text, name
        assert ("gentoo-http" in text) is ("pxelinux" not in name), name


def test_a_second_build_replaces_its_own_set(store: Path) -> None:
    folder = build_flat(store)
    before = {name: (folder / name).read_bytes() for name in flat_files(folder)}
    build_flat(store)
    assert {name: (folder / name).read_bytes() for name in flat_files(folder)} == before


def test_a_foreign_file_is_not_replaced(store: Path) -> None:
    folder = store / "builds/23.0-default"
    (folder / IPXE).write_text("mine\n")
    with pytest.raises(PublishError) as caught:
        build_flat(store)
    assert str(caught.value) == (
        f"{folder / IPXE}: is in the way, and no earlier run for pxeboot/release made it; move it"
        " away or give another pxeboot/release"
    )
    assert (folder / IPXE).read_text() == "mine\n"
    assert not (folder / f"pxeboot-amd64-{STAMP}").exists()


def test_a_run_that_died_between_tree_and_set_is_made_good(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tree is there, half of the set, and what was staged: the next run cleans up."""
    moved = []

    class Died(BaseException):
        pass

    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if ".flat.staging" in str(self):
            moved.append(self)
            if len(moved) == 4:
                raise Died
        return real(self, target)

    # As a killed process: nothing is cleaned up on the way out.
    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(flat_room.FlatPublication, "__exit__", lambda *_: None)
    with pytest.raises(Died):
        build_flat(store)
    monkeypatch.undo()
    folder = build_flat(store)
    assert f"pxeboot-{RELEASE}.sha256" in flat_files(folder)
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("name", ["amd64-minimal", "a$b-20261122T170000Z", "../x-20261122T170000Z"])
def test_a_release_must_end_in_a_stamp(tmp_path: Path, name: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_settings(release_settings(tmp_path, pxeboot__release=name))
    assert str(caught.value.problems[0]) == (
        f"pxeboot/release: {name!r} is not a name that ends in a time stamp; write it as"
        " amd64-minimal-20261122T170000Z; mirrors go by that stamp"
    )


@pytest.mark.skipif("RELENG_SRC" not in os.environ, reason="RELENG_SRC names no releng checkout")
@pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed")
def test_the_mirror_mover_moves_and_links_all_of_it(store: Path, tmp_path: Path) -> None:
    """releng's own script; only its four folders are set to others."""
    mover = (Path(os.environ["RELENG_SRC"]) / "scripts/copy_buildsync.sh").read_text()
    for name in ("INCOMING_BASE", "OUTGOING_BASE", "TMPDIR_BASE", "LOGDIR_BASE"):
        mover, count = re.subn(rf'(?m)^{name}=".*"$', f'{name}="{tmp_path / name}"', mover)
        assert count == 1
    folder = build_flat(store)
    incoming, outgoing = tmp_path / "INCOMING_BASE/amd64", tmp_path / "OUTGOING_BASE/amd64"
    incoming.mkdir(parents=True)
    for arch in re.findall(r"(?m)^\t([a-z0-9]+)$", mover.partition(")\nRSYNC")[0]):
        (outgoing.parent / arch).mkdir(parents=True)
    names = flat_files(folder)
    for name in names:
        shutil.copy2(folder / name, incoming / name)
    iso = f"install-amd64-minimal-{STAMP}.iso"
    (incoming / iso).write_bytes(b"iso")
    stage3 = f"stage3-amd64-openrc-{STAMP}.tar.xz"
    (incoming / stage3).write_bytes(b"stage3")
    (tmp_path / "mover.sh").write_text(mover)
    done = subprocess.run(
        ["bash", tmp_path / "mover.sh"], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert list_files(incoming) == []
    assert set(flat_files(outgoing / STAMP)) == {*names, iso, stage3}
    for name in (name for name in names if name.startswith("netboot-")):
        variant = name.partition(f"-{STAMP}")[0]
        latest = (outgoing / f"latest-{variant}.txt").read_text().splitlines()[-1]
        assert latest == f"{STAMP}/{name} {(outgoing / STAMP / name).stat().st_size}"
        assert (outgoing / f"current-{variant}" / name).samefile(outgoing / STAMP / name)
    for listed, own in (("latest-iso.txt", iso), ("latest-stage3.txt", stage3)):
        lines = (outgoing / listed).read_text().splitlines()
        assert [line for line in lines if not line.startswith("#")] == [
            f"{STAMP}/{own} {(outgoing / STAMP / own).stat().st_size}"
        ]
