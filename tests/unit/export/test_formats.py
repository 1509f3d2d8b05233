"""Exports for other provisioning systems: whole files, their consumers' grammars, safe writing.

After a change to a template, `UPDATE_GOLDEN=1 pytest tests/unit/export` writes
tests/golden-exports again.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2
import pytest

from catalyst_pxeboot.export.foreman import KINDS
from catalyst_pxeboot.export.formats import Format, export_tree, write_export
from catalyst_pxeboot.loader import LOADERS
from catalyst_pxeboot.model.loader import Loader
from catalyst_pxeboot.util.errors import PxebootError
from tests.golden.test_golden import CASES, make
from tests.support.paths import GOLDEN_EXPORTS as GOLDEN
from tests.support.release_trees import make_manifest, write_tree

GOLDEN_CASES = ("amd64-all-roots", "amd64-genkernel-consoles")
URL = "http://192.168.7.1:8080/gentoo"


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that builds a tree of tests/test_golden.py, each once."""
    made: dict[str, Path] = {}

    def tree(name: str) -> Path:
        if name not in made:
            made[name] = make(CASES[name], tmp_path_factory.mktemp(name))
        return made[name]

    return tree


def texts(tree: Path, form: Format, url: str | None = URL) -> dict[str, str]:
    return {
        file.path: file.content.decode() for file in export_tree(tree, form, base_url=url).files
    }


def small_tree(folder: Path, change: Callable[[dict[str, Any]], None] = lambda _: None) -> Path:
    manifest = make_manifest()
    entry = manifest["menu"]["entries"][0]
    entry["initrds"] = {
        **entry["initrds"], "ipxe": ["boot/gentoo.igz", "image.squashfs"]
    }  # fmt: skip
    change(manifest)
    return write_tree(folder, manifest)


# --- whole files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", Format)
@pytest.mark.parametrize("case", GOLDEN_CASES)
def test_golden(case: str, form: Format, trees: Callable[[str], Path]) -> None:
    found = texts(trees(case), form)
    golden = GOLDEN / case / form
    if "UPDATE_GOLDEN" in os.environ:
        shutil.rmtree(golden, ignore_errors=True)
        for path, text in found.items():
            (golden / path).parent.mkdir(parents=True, exist_ok=True)
            (golden / path).write_text(text)
    there = {str(path.relative_to(golden)) for path in golden.rglob("*") if path.is_file()}
    assert found.keys() == there
    for path, text in found.items():
        assert text == (golden / path).read_text(), path


@pytest.mark.parametrize("case", GOLDEN_CASES)
def test_an_export_reads_the_manifest_and_nothing_else(
    case: str, trees: Callable[[str], Path], tmp_path: Path
) -> None:
    shutil.copy(trees(case) / "manifest.json", tmp_path)
    for form in Format:
        assert texts(tmp_path, form) == texts(trees(case), form)


# --- the consumers' own grammars ------------------------------------------------------------------


@pytest.mark.parametrize("form", [Format.NETBOOT_XYZ, Format.IPXE_VARS])
@pytest.mark.parametrize("case", GOLDEN_CASES)
def test_ipxe_scripts_are_sound(case: str, form: Format, trees: Callable[[str], Path]) -> None:
    tree = trees(case)
    (text,) = texts(tree, form).values()
    config = LOADERS[Loader.IPXE].check(text)
    assert config.problems == ()
    there = {str(path.relative_to(tree)) for path in tree.rglob("*")}
    assert set(config.files) <= there
    if form is Format.NETBOOT_XYZ:
        assert {"boot/gentoo", "boot/gentoo.igz", "image.squashfs", "boot.ipxe"} <= {*config.files}


def test_netboot_xyz_renders_its_menu_to_itself(trees: Callable[[str], Path]) -> None:
    """Its generator takes every file of that folder for a template of Ansible's, so Jinja2's."""
    import jinja2

    (text,) = texts(trees("amd64-all-roots"), Format.NETBOOT_XYZ).values()
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    assert environment.from_string(text).render() == text


def test_ipxe_vars_tell_each_part(trees: Callable[[str], Path]) -> None:
    tree = trees("amd64-all-roots")
    (text,) = texts(tree, Format.IPXE_VARS).values()
    settings = dict(re.findall(r"^set (\S+) (.*)$", text, re.MULTILINE))
    files = {
        file["path"]: file for file in json.loads((tree / "manifest.json").read_text())["files"]
    }
    assert settings["live-entries"] == "4"
    assert settings["live-1-initrd-2"] == f"{URL}/image.squashfs"
    assert settings["live-1-initrd-2-member"] == "/image.squashfs.img"
    assert settings["live-1-initrd-2-bytes"] == str(files["image.squashfs"]["bytes"])
    assert settings["live-1-kernel-sha256"] == files["boot/gentoo"]["digests"]["sha256"]
    assert settings["live-3-root"] == "http"
    assert f"root=live:{URL}/image.squashfs ip=dhcp" in settings["live-3-args"]
    assert not any(name.startswith("live-5") for name in settings)


#: storage.proto of matchbox: what its JSON may hold.
MATCHBOX_PROFILE = {"id", "name", "ignition_id", "cloud_id", "boot", "generic_id"}
MATCHBOX_BOOT = {"kernel", "initrd", "args"}
MATCHBOX_GROUP = {"id", "name", "profile", "selector", "metadata"}


def matchbox_script(profile: Mapping[str, Any]) -> str:
    """Write a profile down as matchbox's http/ipxe.go does."""
    boot = profile["boot"]
    lines = ["#!ipxe", " ".join(["kernel", boot["kernel"], *boot["args"]])]
    return "\n".join([*lines, *(f"initrd {initrd}" for initrd in boot["initrd"]), "boot", ""])


@pytest.mark.parametrize("case", GOLDEN_CASES)
def test_matchbox_fields_and_scripts(case: str, trees: Callable[[str], Path]) -> None:
    found = {path: json.loads(text) for path, text in texts(trees(case), Format.MATCHBOX).items()}
    profiles = {path: data for path, data in found.items() if path.startswith("profiles/")}
    (group,) = (data for path, data in found.items() if path.startswith("groups/"))
    for path, profile in profiles.items():
        assert profile.keys() <= MATCHBOX_PROFILE
        assert profile["boot"].keys() == MATCHBOX_BOOT
        assert path == f"profiles/{profile['id']}.json"
        # matchbox writes no `|| goto`, so that is all there is to find fault with.
        problems = LOADERS[Loader.IPXE].check(matchbox_script(profile)).problems
        assert {re.sub(r"^line \d+: \w+: ", "", line) for line in problems} == {
            "nothing says what to do when it fails"
        }
    assert group.keys() <= MATCHBOX_GROUP
    assert f"profiles/{group['profile']}.json" in profiles
    assert group["selector"] == {}
    default = profiles[f"profiles/{group['profile']}.json"]["boot"]
    assert default["initrd"][-1] == f"{URL}/image.squashfs /image.squashfs.img"


@pytest.mark.parametrize("case", GOLDEN_CASES)
def test_productmd_reads_treeinfo(case: str, trees: Callable[[str], Path], tmp_path: Path) -> None:
    productmd = pytest.importorskip("productmd.treeinfo", reason="productmd is not installed")
    tree = trees(case)
    path = tmp_path / ".treeinfo"
    path.write_text(texts(tree, Format.TREEINFO)[".treeinfo"])
    info = productmd.TreeInfo()
    info.load(str(path))
    assert (info.release.name, info.release.short) == ("Gentoo Linux", "Gentoo")
    assert info.release.version == "20261122.170000"
    assert (info.tree.arch, info.tree.platforms) == ("x86_64", {"x86_64"})
    assert info.tree.build_timestamp == 1_795_366_800
    assert info.images.images == {
        "x86_64": {"kernel": "boot/gentoo", "initrd": "boot/gentoo.igz"}
    }  # fmt: skip
    assert info.stage2.mainimage == "image.squashfs"
    assert list(info.variants) == ["Live"]
    files = json.loads((tree / "manifest.json").read_text())["files"]
    digests = {file["path"]: file["digests"]["sha256"] for file in files}
    named = ("boot/gentoo", "boot/gentoo.igz", "image.squashfs")
    assert info.checksums.checksums == {name: ("sha256", digests[name]) for name in named}
    # What it writes of that is what it read.
    info.dump(str(tmp_path / "again"))
    once, again = configparser.ConfigParser(), configparser.ConfigParser()
    once.read(path)
    again.read(tmp_path / "again")
    for section in set(again.sections()) - {"general"}:
        assert dict(once[section]) == dict(again[section]), section


def test_treeinfo_tells_how_to_reach_the_root(trees: Callable[[str], Path]) -> None:
    dracut = texts(trees("amd64-all-roots"), Format.TREEINFO)[".treeinfo"]
    assert f"root=live:{URL}/image.squashfs ip=dhcp\n" in dracut
    unknown = texts(trees("amd64-all-roots"), Format.TREEINFO, None)[".treeinfo"]
    assert "# are written if the tree's address is known (--base-url).\n" in unknown
    genkernel = texts(trees("amd64-genkernel-consoles"), Format.TREEINFO)[".treeinfo"]
    assert "# The initrd reaches no live root by itself" in genkernel


def test_treeinfo_takes_the_joined_initrd_of_uboot(trees: Callable[[str], Path]) -> None:
    text = texts(trees("arm64-all-loaders"), Format.TREEINFO)[".treeinfo"]
    assert "\n[images-aarch64]\nkernel = boot/gentoo.Image\ninitrd = boot/gentoo.initrd\n" in text
    assert "# The live root is inside the initrd." in text


@pytest.mark.parametrize("form", [form for form in Format if form is not Format.TREEINFO])
def test_a_streamed_root_is_named_as_its_addon_reads_it(
    form: Format, tmp_path: Path, streaming: None
) -> None:
    tree = make(CASES["amd64-stream"], tmp_path)
    found = texts(tree, form)
    assert any(f"pxeboot.url={URL}/image.squashfs" in text for text in found.values())
    assert any("boot/gentoo.net.cpio" in text for text in found.values())
    # Readers of .treeinfo take one initrd, which does not reach the root: the file says so.
    assert "reaches no live root by itself" in texts(tree, Format.TREEINFO)[".treeinfo"]


def test_a_tree_from_before_the_manifest_named_the_argument(tmp_path: Path) -> None:
    def older(manifest: dict[str, Any]) -> None:
        manifest["menu"]["entries"][0]["root"] = "http"
        manifest["menu"]["entries"][0].pop("url_argument", None)

    (script,) = texts(small_tree(tmp_path, older), Format.IPXE_VARS).values()
    assert f"root=live:{URL}/image.squashfs ip=dhcp" in script


#: Reads an ERB file as Foreman does (Template.parse_metadata) and renders it with its macros.
RUBY = r"""
require "erb"; require "yaml"; require "json"
text = File.read(ARGV[0])
header = YAML.safe_load(text.match(/<%\#[\t a-z0-9=:]*(.+?).-?%>/m)[1])
PARAMETERS = JSON.parse(ARGV[1])
def host_param(name) = PARAMETERS[name]
def pxe_kernel_options = PARAMETERS.fetch("kernelcmd", "")
puts JSON.generate({"header" => header, "text" => ERB.new(text, trim_mode: "-").result(binding)})
"""


def render_erb(path: Path, **parameters: str) -> tuple[dict[str, Any], str]:
    ruby = shutil.which("ruby")
    if ruby is None:
        pytest.skip("ruby is not installed")
    done = subprocess.run(
        [ruby, "-e", RUBY, str(path), json.dumps(parameters)],
        check=True, capture_output=True, text=True, env={"LANG": "C.UTF-8"},
    )  # fmt: skip
    found = json.loads(done.stdout)
    return found["header"], found["text"]


@pytest.mark.parametrize("parameters", [{}, {"kernelcmd": "quiet", "live_folder": "a/b"}])
@pytest.mark.parametrize("case", GOLDEN_CASES)
def test_foreman_renders_configurations(
    case: str, parameters: dict[str, str], trees: Callable[[str], Path], tmp_path: Path
) -> None:
    tree = trees(case)
    export = export_tree(tree, Format.FOREMAN, base_url=URL)
    paths = write_export(export, Format.FOREMAN, tmp_path)
    assert len(paths) == len(KINDS)
    there = {str(path.relative_to(tree)) for path in tree.rglob("*")}
    folder = parameters.get("live_folder", "pxeboot-amd64-20261122T170000Z")
    for path, (kind, loader) in zip(paths, KINDS.items(), strict=True):
        header, text = render_erb(path, **parameters)
        assert header["kind"] == kind
        assert header["name"] == f"Gentoo Linux amd64 (2026-11-22) {kind}"
        assert (header["model"], header["oses"]) == ("ProvisioningTemplate", ["Gentoo"])
        assert "snippet" not in header
        config = LOADERS[loader].check(text)
        assert config.problems == (), kind
        assert ("quiet" in text) == ("kernelcmd" in parameters)
        if loader is Loader.IPXE:
            assert text.startswith("#!ipxe\n")
            assert f"kernel {URL}/boot/gentoo " in text
        elif loader is Loader.PXELINUX:
            asked = {name.removeprefix(f"{folder}/") for name in config.files}
            assert "boot/gentoo" in asked
            assert asked <= there
        else:
            assert f"\nset base=/{folder}/\n" in text
            assert "boot/gentoo" in config.files
            assert set(config.files) <= there


def test_foreman_chooses_an_entry(trees: Callable[[str], Path], tmp_path: Path) -> None:
    export = export_tree(trees("amd64-all-roots"), Format.FOREMAN, base_url=URL)
    ipxe, pxelinux, grub = write_export(export, Format.FOREMAN, tmp_path)
    assert "\ngoto gentoo-http\n" in render_erb(ipxe, live_entry="gentoo-http")[1]
    assert "\nDEFAULT gentoo-http\n" in render_erb(pxelinux, live_entry="gentoo-http")[1]
    assert render_erb(grub, live_entry="gentoo-http")[1].startswith("set default=gentoo-http\n")


# --- hostile values -------------------------------------------------------------------------------

HOSTILE_TITLES = [
    ("${net0/mac}", 'iPXE: the title "${net0/mac}" holds \'${\', which iPXE expands'),
    ("a || reboot", 'iPXE: the title "a || reboot" holds the word \'||\', which ends an'),
    ("a\nreboot", "holds a line break or control character"),
]  # fmt: skip


@pytest.mark.parametrize(("title", "told"), HOSTILE_TITLES)
def test_a_hostile_title_is_refused(title: str, told: str, tmp_path: Path) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["release"]["title"] = title

    with pytest.raises(PxebootError) as caught:
        texts(small_tree(tmp_path, change), Format.NETBOOT_XYZ)
    assert told in str(caught.value)


@pytest.mark.parametrize("title", ["{{ site_name }}", "{% raw %}", "{# x"])
def test_braces_are_text_to_netboot_xyz(title: str, tmp_path: Path) -> None:
    """With its generator, which is Jinja2, and without."""

    def change(manifest: dict[str, Any]) -> None:
        manifest["menu"]["entries"][0] |= {"title": title, "arguments": "quiet x={{y}}"}

    text = texts(small_tree(tmp_path, change), Format.NETBOOT_XYZ)["custom.ipxe"]
    assert jinja2.Template(text, keep_trailing_newline=True).render() == text
    assert "set brace:hex 7b\n" in text
    seen = text.replace("${brace:string}", "{")
    assert title in seen
    assert " quiet x={{y}} " in seen


@pytest.mark.parametrize(
    "title",
    ["it's", 'a "quoted" one', "- [x]: {y}", "é 😀", "100 %", "\\n", "a # b", "yes",
     "<%= `id` %>", "a %> b", "<%# x"],
)  # fmt: skip
def test_an_odd_title_is_text_to_foreman(title: str, tmp_path: Path) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["release"]["title"] = title

    if " # " in f" {title} ":
        with pytest.raises(PxebootError, match="begins with '#', an iPXE comment"):
            texts(small_tree(tmp_path / "tree", change), Format.FOREMAN)
        return
    tree = small_tree(tmp_path / "tree", change)
    export = export_tree(tree, Format.FOREMAN, base_url=URL)
    for path, kind in zip(
        write_export(export, Format.FOREMAN, tmp_path / "out"), KINDS, strict=True
    ):
        header, text = render_erb(path)
        assert header["name"] == f"{title} {kind}"
        assert LOADERS[KINDS[kind]].check(text).problems == ()
        assert f"# {title}\n" in text or kind != "iPXE"


@pytest.mark.parametrize("word", ["${x}", "#x", "||"])
def test_a_hostile_argument_is_refused(word: str, tmp_path: Path) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["menu"]["entries"][0]["arguments"] = f"quiet {word}"

    with pytest.raises(PxebootError) as caught:
        texts(small_tree(tmp_path, change), Format.NETBOOT_XYZ)
    assert word in caught.value.message


@pytest.mark.parametrize("value", ["../x", "a b", "a/b", "-x", ".x", ""])
def test_a_hostile_name_is_no_path(value: str, tmp_path: Path) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["release"]["subarch"] = value

    with pytest.raises(PxebootError, match=r"manifest\.json: "):
        texts(small_tree(tmp_path, change), Format.MATCHBOX)


@pytest.mark.parametrize(
    ("stamp", "word"),
    [("../x", "x"), ("a b/c", "a-b-c"), ("é", "20261122T170000Z"), ("", "20261122T170000Z")],
)
def test_any_stamp_is_a_word(stamp: str, word: str, tmp_path: Path) -> None:
    """An image whose name has no stamp gets its time."""

    def change(manifest: dict[str, Any]) -> None:
        manifest["release"] |= {"version_stamp": stamp, "time": "2026-11-22T17:00:00Z"}

    assert f"groups/pxeboot-amd64-{word}.json" in texts(
        small_tree(tmp_path, change), Format.MATCHBOX
    )


@pytest.mark.parametrize("form", Format)
def test_no_stamp_and_no_time_is_an_error(form: Format, tmp_path: Path) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["release"] |= {"version_stamp": "", "time": "é"}

    with pytest.raises(PxebootError, match=r"manifest\.json: "):
        texts(small_tree(tmp_path, change), form)


def test_percent_signs_are_none_to_treeinfos_readers(tmp_path: Path) -> None:
    """configparser would replace %(name)s; what a user can choose stands in a comment only."""

    def change(manifest: dict[str, Any]) -> None:
        manifest["release"]["title"] = "%(x)s"
        manifest["menu"]["entries"][0]["arguments"] = "%(x)s"

    parser = configparser.ConfigParser()
    parser.read_string(texts(small_tree(tmp_path, change), Format.TREEINFO)[".treeinfo"])
    for section in parser.sections():
        assert "x" not in dict(parser[section])
