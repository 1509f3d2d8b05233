"""The manifest, its schema, the digest files, and what verify finds."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import catalyst_pxeboot
from catalyst_pxeboot.build.pipeline import build
from catalyst_pxeboot.loader import loader_of
from catalyst_pxeboot.model.files import Role
from catalyst_pxeboot.model.loader import Loader
from catalyst_pxeboot.spec.parse import parse_settings
from catalyst_pxeboot.tree.manifest import read_manifest
from catalyst_pxeboot.tree.verify import verify_tree
from catalyst_pxeboot.util.checksum import digest_bytes
from catalyst_pxeboot.util.errors import VerifyError
from catalyst_pxeboot.util.files import list_files
from catalyst_pxeboot.util.sums import render_sums
from tests.support.paths import GOLDEN
from tests.support.stage2 import TIME, release_settings

SCHEMA = json.loads(
    (Path(catalyst_pxeboot.__file__).parent / "tree/manifest.schema.json").read_text()
)


@pytest.fixture
def tree(storedir: Path) -> Path:
    return build(parse_settings(release_settings(storedir)), report=lambda _line: None).output


CASES = sorted(path.parent.name for path in GOLDEN.glob("*/manifest.json"))


@pytest.mark.parametrize("case", CASES)
def test_schema_describes_every_golden_manifest(case: str) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(json.loads((GOLDEN / case / "manifest.json").read_text()), SCHEMA)


def test_schema_knows_every_loader_and_role() -> None:
    assert SCHEMA["$defs"]["loader"]["enum"] == list(Loader)
    file = SCHEMA["properties"]["files"]["items"]["properties"]
    assert file["role"]["enum"] == list(Role)


def test_digest_files_cover_the_tree_and_coreutils_reads_them(tree: Path) -> None:
    covered = {line.split("  ")[1] for line in (tree / "SHA256SUMS").read_text().splitlines()[1::2]}
    assert covered == set(list_files(tree)) - {"SHA256SUMS", "DIGESTS"}
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"],
        cwd=tree, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_digests_have_catalysts_form(tree: Path) -> None:
    content = (tree / "image.squashfs").read_bytes()
    text = (tree / "DIGESTS").read_text()
    for name in ("blake2b", "sha512"):
        digest = hashlib.new(name, content).hexdigest()
        assert f"# {name.upper()} HASH\n{digest}  image.squashfs\n" in text
    assert "SHA256" not in text


def test_bsd_digests(storedir: Path) -> None:
    settings = release_settings(storedir, digest_format="bsd", digests={"md5"})
    tree = build(parse_settings(settings), report=lambda _line: None).output
    digest = hashlib.md5((tree / "image.squashfs").read_bytes()).hexdigest()
    assert f"# MD5 HASH\nMD5 (image.squashfs) = {digest}\n" in (tree / "DIGESTS").read_text()
    assert verify_tree(tree).faults == ()


def test_no_digests_no_digests_file(storedir: Path) -> None:
    settings = release_settings(storedir)
    del settings["digests"]
    tree = build(parse_settings(settings), report=lambda _line: None).output
    assert not (tree / "DIGESTS").exists()
    assert (tree / "SHA256SUMS").exists()
    assert verify_tree(tree).faults == ()


def test_no_private_path_reaches_the_tree(storedir: Path, tree: Path) -> None:
    for name in list_files(tree):
        assert os.fsencode(storedir) not in (tree / name).read_bytes(), name


@pytest.mark.parametrize("epoch", ["1000000000", None])
def test_time_of_every_file(
    storedir: Path, monkeypatch: pytest.MonkeyPatch, epoch: str | None
) -> None:
    if epoch:
        monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    settings = release_settings(storedir, pxeboot__link="copy")
    tree = build(parse_settings(settings), report=lambda _line: None).output
    # The live image's own files keep their time, as a link to them does.
    own = {tree / "image.squashfs", tree / "boot/gentoo", tree / "boot/gentoo.igz"}
    times = {int(path.stat().st_mtime) for path in {tree, *tree.rglob("*")} - own}
    assert times == {int(epoch) if epoch else TIME}
    assert {int(path.stat().st_mtime) for path in own} == {TIME}


def test_same_input_same_tree(storedir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees = []
    for umask, zone in ((0o022, "UTC"), (0o077, "Pacific/Chatham")):
        monkeypatch.setenv("TZ", zone)
        old = os.umask(umask)
        try:
            tree = build(parse_settings(release_settings(storedir)), report=lambda _l: None).output
        finally:
            os.umask(old)
        trees.append(
            [(str(path), path.stat().st_mode, path.stat().st_mtime,
              path.read_bytes() if path.is_file() else b"") for path in sorted(tree.rglob("*"))]
        )  # fmt: skip
    assert trees[0] == trees[1]


def test_verify_finds_any_changed_byte(tree: Path) -> None:
    choose = random.Random(69)
    names = list_files(tree)
    for _ in range(150):
        path = tree / choose.choice(names)
        content = path.read_bytes()
        position = choose.randrange(len(content))
        changed = bytearray(content)
        changed[position] ^= 1 << choose.randrange(8)
        path.unlink()  # the payload is linked to the source, which stays as it is
        path.write_bytes(changed)
        try:
            assert verify_tree(tree).faults, (path, position)
        except VerifyError:
            assert path.name == "manifest.json"
        path.write_bytes(content)
    assert verify_tree(tree).faults == ()


def faults(tree: Path) -> list[str]:
    return [str(fault) for fault in verify_tree(tree).faults]


def test_verify_finds_what_is_missing_extra_and_unreadable(tree: Path) -> None:
    (tree / "boot/gentoo").unlink()
    (tree / "boot/notes").touch()
    (tree / "boot.ipxe").chmod(0o600)
    (tree / "pxelinux.cfg").chmod(0o700)
    (tree / "SHA256SUMS").unlink()
    assert faults(tree) == [
        "boot/notes: not in the manifest; remove it, or build the tree again",
        "pxelinux.cfg: a server may not enter this folder; chmod 755",
        "boot.ipxe: a server may not read it; chmod 644",
        "boot/gentoo: missing; build the tree again",
        "SHA256SUMS: cannot be read: No such file or directory; build the tree again",
        "boot.ipxe: loads boot/gentoo, which is not in the tree; build the tree again",
        "boot/grub/grub.cfg: loads boot/gentoo, which is not in the tree; build the tree again",
        "pxelinux.cfg/default: loads boot/gentoo, which is not in the tree; build the tree again",
    ]


def rewrite(tree: Path, name: str, content: bytes) -> None:
    """Change a file and make manifest and sums agree with it again."""
    (tree / name).write_bytes(content)
    manifest = json.loads((tree / "manifest.json").read_text())
    for file in manifest["files"]:
        if file["path"] == name:
            file["bytes"] = len(content)
            file["digests"] = {
                algorithm: hashlib.new(algorithm, content).hexdigest()
                for algorithm in file["digests"]
            }
    raw = (json.dumps(manifest, indent=1) + "\n").encode()
    (tree / "manifest.json").write_bytes(raw)
    by_path = {file["path"]: file["digests"] for file in manifest["files"]}
    by_path["manifest.json"] = digest_bytes(raw, sorted(manifest["files"][0]["digests"]))
    for sums, text in render_sums(by_path, manifest["sums"], "linux").items():
        (tree / sums).write_bytes(text)


def test_verify_finds_any_changed_name(tree: Path) -> None:
    """One letter of a file's name in a configuration; digests and manifest agree with it."""
    choose = random.Random(70)
    whole = {name: (tree / name).read_bytes() for name in list_files(tree)}
    configs = {"boot.ipxe", "boot/grub/grub.cfg", "pxelinux.cfg/default"}
    places = []
    for name in sorted(configs):
        text = whole[name].decode()
        loader = loader_of(name)
        assert loader
        files = loader.check(text).files
        for file in files:
            # Where it is loaded, not where a comment tells of it.
            name_there = rf"(?<![\w/.-]){re.escape(file)}(?![\w/.-])"
            for there in re.finditer(rf"(?m)^(?!\s*(?:#|echo\b)).*?{name_there}", text):
                places.append((name, there.end() - len(file), len(file)))
    assert len(places) > 20
    for _ in range(100):
        name, start, length = choose.choice(places)
        content = bytearray(whole[name])
        position = start + choose.randrange(length)
        content[position] = choose.choice([c for c in b"abcxyz" if c != content[position]])
        rewrite(tree, name, bytes(content))
        found = [fault for fault in faults(tree) if fault.startswith(f"{name}: ")]
        assert found, (name, content[start : start + length])
        for path in (name, "manifest.json", "SHA256SUMS", "DIGESTS"):
            (tree / path).write_bytes(whole[path])
    assert verify_tree(tree).faults == ()


def test_verify_reads_header_and_configurations_not_only_digests(tree: Path) -> None:
    header = (tree / "boot/root.cpio-header").read_bytes()
    size = (tree / "image.squashfs").stat().st_size
    wrong = header.replace(b"%08X" % size, b"%08X" % (size - 1))
    rewrite(tree, "boot/root.cpio-header", wrong)
    script = (tree / "boot.ipxe").read_bytes().replace(b"goto boot_failed", b"goto boot_fialed", 1)
    rewrite(tree, "boot.ipxe", script)
    found = [fault for fault in faults(tree) if "SUMS" not in fault and "DIGESTS" not in fault]
    assert found[0] == (
        f"boot/root.cpio-header: it names image.squashfs.img of {size - 1} bytes, not"
        f" image.squashfs.img of {size}; build the tree again"
    )
    assert "boot_fialed" in found[1]
    assert found[1].startswith("boot.ipxe: ")


OURS = '{"generator": {"name": "catalyst-pxeboot"}'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "",
            "not a valid manifest (Expecting value: line 1 column 1 (char 0)); build the tree",
        ),
        ("{", "not a valid manifest (Expecting property name enclosed in double quotes: line 1"),
        ("[]", "not a manifest of this program; give the folder of a netboot tree"),
        (OURS + "}", "its format is None, not 1; use the version of this program that made the"),
        (OURS + ', "format": 1}', "not a valid manifest (generator.version: is missing); build"),
        ("[" * 100_000, "not a valid manifest (maximum recursion depth exceeded"),
    ],
)
def test_verify_without_a_manifest_of_ours(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(VerifyError) as caught:
        verify_tree(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/manifest.json: {message}")


def _names(what: str, path: str) -> Callable[[dict[str, Any]], None]:
    """Return what has a manifest name `path` as its `what`."""

    def edit(manifest: dict[str, Any]) -> None:
        entry, kernel = manifest["menu"]["entries"][0], manifest["kernels"][0]
        match what:
            case "kernel":
                kernel["path"] = path
            case "initramfs":
                kernel["initramfs"]["path"] = path
            case "squashfs":
                manifest["squashfs"]["path"] = path
            case "program":  # what `qemu` would put on a disk of the client
                kernel["path"], entry["uki"] = path, f"{path}.efi"
            case "loader's kernel":
                entry["kernels"]["ipxe"] = path
            case _:
                entry["initrds"]["ipxe"] = [path]

    return edit


@pytest.mark.parametrize(
    ("what", "place"),
    [
        ("kernel", "kernels"),
        ("initramfs", "kernels"),
        ("squashfs", "squashfs"),
        ("program", "kernels"),
        ("loader's kernel", "menu.entries"),
        ("initrd", "menu.entries"),
    ],
)
@pytest.mark.parametrize("path", ["boot/other", "../tree/boot/gentoo", "/etc/hostname"])
def test_a_manifest_names_files_of_its_tree_only(
    tree: Path, what: str, place: str, path: str
) -> None:
    """Whoever made a tree must not choose a file outside of it for a command to read."""
    manifest = json.loads((tree / "manifest.json").read_text())
    _names(what, path)(manifest)
    (tree / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(VerifyError) as caught:
        read_manifest(tree)
    assert str(caught.value) == (
        f"{tree}/manifest.json: not a valid manifest ({place}: {path!r} is not among the files);"
        " build the tree again"
    )


@pytest.mark.parametrize("digest", ["0" * 63, "0" * 65, "G" * 64, "A" * 64, ""])
def test_a_manifest_has_whole_digests(tree: Path, digest: str) -> None:
    manifest = json.loads((tree / "manifest.json").read_text())
    manifest["files"][0]["digests"]["sha256"] = digest
    (tree / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(VerifyError, match="has a sha256 that is not one"):
        read_manifest(tree)
