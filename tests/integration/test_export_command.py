"""The command `export`: what it refuses, prints and writes, and what it leaves alone."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from catalyst_pxeboot.cli import export as command
from catalyst_pxeboot.cli.console import Console
from catalyst_pxeboot.export.formats import FOLDERS, Format, export_tree, write_export
from catalyst_pxeboot.model.loader import Loader
from catalyst_pxeboot.util.errors import PxebootError
from tests.golden.test_golden import CASES, make
from tests.support.release_trees import make_manifest, write_tree
from tests.unit.export.test_formats import URL, small_tree, texts

# --- what cannot be exported ----------------------------------------------------------------------

NO_ADDRESS = "the manifest does not have the address of the NFS server"


@pytest.mark.parametrize("form", [form for form in Format if form is not Format.TREEINFO])
def test_an_address_is_asked_for(form: Format, tmp_path: Path) -> None:
    with pytest.raises(PxebootError) as caught:
        export_tree(small_tree(tmp_path), form, base_url=None)
    assert str(caught.value) == (
        f"--format {form}: needs the address of the tree's folder on the web server;"
        " give --base-url http://SERVER/FOLDER"
    )


@pytest.mark.parametrize("url", ["", "ftp://x", "http://a b", "http://a/${x}", "http://a/../b"])
def test_an_address_that_is_none(url: str, tmp_path: Path) -> None:
    with pytest.raises(PxebootError) as caught:
        export_tree(small_tree(tmp_path), Format.MATCHBOX, base_url=url)
    assert str(caught.value) == (
        f"--base-url: {url!r} is not a plain http:// or https:// address of a folder;"
        " write it as http://192.168.1.1/gentoo"
    )


def test_a_slash_at_the_end_of_the_address_is_cut(tmp_path: Path) -> None:
    tree = small_tree(tmp_path)
    assert texts(tree, Format.MATCHBOX, f"{URL}/") == texts(tree, Format.MATCHBOX)


def test_only_nfs_cannot_be_exported(tmp_path: Path) -> None:
    tree = make(CASES["amd64-genkernel-nfs"], tmp_path)
    for form in Format:
        with pytest.raises(PxebootError) as caught:
            export_tree(tree, form, base_url=URL)
        assert "gentoo-nfs: the manifest does not have the address of the NFS server" in str(
            caught.value
        )
        assert caught.value.hint == "build the tree with `embedded` or `http` in pxeboot/root, too"


def test_a_tree_without_ipxe(tmp_path: Path) -> None:
    manifest = make_manifest(loaders=[Loader.GRUB])
    with pytest.raises(PxebootError) as caught:
        texts(write_tree(tmp_path, manifest), Format.NETBOOT_XYZ)
    assert str(caught.value) == (
        "pxeboot-amd64-20261122T170000Z: it has no entry for iPXE;"
        " build the tree with ipxe in pxeboot/loaders"
    )
    assert [*texts(tmp_path, Format.FOREMAN)] == [
        "provisioning_templates/PXEGrub2/pxeboot_amd64_20261122t170000z_pxegrub2.erb"
    ]


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.pop("menu"),
        lambda manifest: manifest["menu"]["entries"][0].pop("kernels"),
        lambda manifest: manifest["files"][0].update(path="../x"),
        lambda manifest: manifest["files"][0].update(bytes="many"),
        lambda manifest: manifest["files"][0]["digests"].update(sha256="x"),
        lambda manifest: manifest["menu"]["entries"].append(manifest["menu"]["entries"][0]),
        lambda manifest: manifest["menu"]["entries"][0].update(name="a b"),
        lambda manifest: manifest["menu"]["entries"][0]["initrds"].update(ipxe=[]),
        lambda manifest: manifest["squashfs"].update(path="none"),
        lambda manifest: manifest.update(release=[]),
    ],
)
def test_a_broken_manifest_is_told(
    change: Callable[[dict[str, Any]], None], tmp_path: Path
) -> None:
    tree = small_tree(tmp_path)
    manifest = json.loads((tree / "manifest.json").read_text())
    change(manifest)
    (tree / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(PxebootError) as caught:
        texts(tree, Format.MATCHBOX)
    assert str(caught.value).startswith(f"{tree}/manifest.json: ")


# --- the command ----------------------------------------------------------------------------------


def run(*words: object, json: bool = False) -> Console:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    console = Console("catalyst-pxeboot", "export", json=json)
    arguments = parser.parse_args(["export", *map(str, words)])
    arguments.run(arguments, console)
    console.finish()
    return console


def test_the_commands_formats_are_those_there_are() -> None:
    assert list(command.FORMATS) == list(Format)


@pytest.mark.parametrize("form", [form for form in Format if form not in FOLDERS])
def test_one_file_is_printed(
    form: Format, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = small_tree(tmp_path)
    run(tree, "--format", form, "--base-url", URL)
    (text,) = texts(tree, form).values()
    assert capsys.readouterr() == (text, "")
    run(tree, "--format", form, "--base-url", URL, json=True)
    told = json.loads(capsys.readouterr().out)
    (file,) = told.pop("files")
    assert file == {"path": file["path"], "bytes": len(text.encode()), "text": text}
    assert (told["format"], told["ok"]) == (form, True)


@pytest.mark.parametrize("form", sorted(FOLDERS))
def test_several_files_need_a_folder(form: Format, tmp_path: Path) -> None:
    with pytest.raises(PxebootError) as caught:
        run(small_tree(tmp_path), "--format", form, "--base-url", URL)
    assert str(caught.value) == (
        f"--format {form}: is a folder of several files; give --output FOLDER"
    )


def test_files_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree, out = small_tree(tmp_path / "tree"), tmp_path / "var/lib/matchbox"
    run(tree, "--format", "matchbox", "--base-url", URL, "--output", out, json=True)
    names = [
        "profiles/pxeboot-amd64-20261122T170000Z-gentoo.json",
        "groups/pxeboot-amd64-20261122T170000Z.json",
    ]
    told = json.loads(capsys.readouterr().out)
    assert told["format"] == "matchbox"
    assert told["files"] == [
        {"path": str(out / name), "bytes": (out / name).stat().st_size} for name in names
    ]
    written = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert written == set(names)
    assert all((out / name).stat().st_mode & 0o777 == 0o644 for name in names)


def test_a_file_is_written_by_name_or_into_a_folder(tmp_path: Path) -> None:
    tree = small_tree(tmp_path / "tree")
    run(tree, "--format", "netboot.xyz", "--base-url", URL, "--output", tmp_path / "mine.ipxe")
    run(tree, "--format", "netboot.xyz", "--base-url", URL, "--output", tmp_path)
    text = texts(tree, Format.NETBOOT_XYZ)["custom.ipxe"]
    assert (tmp_path / "mine.ipxe").read_text() == text
    assert (tmp_path / "custom.ipxe").read_text() == text


def test_somebody_elses_file_stays(tmp_path: Path) -> None:
    """Nothing at all is written then, not even the files beside it."""
    tree, out = small_tree(tmp_path / "tree"), tmp_path / "out"
    group = out / "groups/pxeboot-amd64-20261122T170000Z.json"
    group.parent.mkdir(parents=True)
    group.write_text("{}")
    words = (tree, "--format", "matchbox", "--base-url", URL, "--output", out)
    with pytest.raises(PxebootError) as caught:
        run(*words)
    assert str(caught.value) == (
        f"{group}: is already there and not the same;"
        " give another --output, or --force to replace it"
    )
    assert [path for path in out.rglob("*") if path.is_file()] == [group]
    assert group.read_text() == "{}"
    run(*words, "--force")
    assert json.loads(group.read_text())["id"] == "pxeboot-amd64-20261122T170000Z"
    before = group.stat().st_ino
    run(*words)  # the same again changes nothing
    assert group.stat().st_ino == before


def test_a_link_is_no_file_to_write_through(tmp_path: Path) -> None:
    tree = small_tree(tmp_path / "tree")
    (tmp_path / "else").write_text("mine")
    (tmp_path / "link").symlink_to("else")
    words = (tree, "--format", "treeinfo", "--output", tmp_path / "link")
    with pytest.raises(PxebootError, match="is already there and not the same"):
        run(*words)
    run(*words, "--force")
    assert (tmp_path / "else").read_text() == "mine"
    assert not (tmp_path / "link").is_symlink()


def test_a_folder_in_the_way_and_a_file_in_the_way(tmp_path: Path) -> None:
    tree = small_tree(tmp_path / "tree")
    (tmp_path / "out/profiles/pxeboot-amd64-20261122T170000Z-gentoo.json").mkdir(parents=True)
    words = (tree, "--format", "matchbox", "--base-url", URL, "--output")
    with pytest.raises(PxebootError, match="is a folder, not a file; give another --output"):
        run(*words, tmp_path / "out", "--force")
    (tmp_path / "file").write_text("")
    with pytest.raises(PxebootError, match="is not a folder, and matchbox takes several files"):
        run(*words, tmp_path / "file")
    with pytest.raises(PxebootError, match="the export cannot be written: "):
        run(tree, "--format", "treeinfo", "--output", tmp_path / "file/x")


def test_a_place_that_may_not_be_looked_at(tmp_path: Path) -> None:
    tree, place = small_tree(tmp_path / "tree"), tmp_path / ("x" * 300)
    for form in (Format.MATCHBOX, Format.TREEINFO):
        with pytest.raises(PxebootError) as caught:
            write_export(export_tree(tree, form, base_url=URL), form, place)
        assert str(caught.value) == (
            f"the export cannot be written: File name too long ({place}); check --output"
        )


@pytest.mark.parametrize("name", ["none", "x" * 300])
def test_templates_that_are_no_folder(tmp_path: Path, name: str) -> None:
    own = tmp_path / name
    with pytest.raises(PxebootError) as caught:
        export_tree(small_tree(tmp_path), Format.TREEINFO, base_url=None, templates=own)
    assert str(caught.value) == (
        f"{own}: is not a folder of templates; name a folder, or take the shipped templates"
    )


def test_inside_the_tree_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = small_tree(tmp_path)
    run(tree, "--format", "treeinfo", "--output", tree / ".treeinfo")
    assert "lies in the tree, whose manifest does not list it" in capsys.readouterr().err


def test_what_is_left_out_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = make(CASES["amd64-all-roots"], tmp_path)
    run(tree, "--format", "netboot.xyz", "--base-url", URL)
    told = capsys.readouterr()
    assert (
        "warning: left out: gentoo-nfs: the manifest does not have the address of the NFS server\n"
        in told.err
    )
    assert "gentoo-nfs" not in told.out


def test_own_templates_are_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "own/export"
    own.mkdir(parents=True)
    (own / "custom.ipxe.j2").write_text("#!ipxe\necho {{ title }}\n")
    words = ("--format", "netboot.xyz", "--base-url", URL, "--templates", tmp_path / "own")
    run(small_tree(tmp_path / "tree"), *words)
    assert capsys.readouterr().out == "#!ipxe\necho Gentoo Linux amd64 20261122T170000Z\n"
