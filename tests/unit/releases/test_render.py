"""What the menus and releases.json show."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from catalyst_pxeboot.build.pipeline import build
from catalyst_pxeboot.cli import main as cli
from catalyst_pxeboot.loader import LOADERS
from catalyst_pxeboot.model.arch import all_machines
from catalyst_pxeboot.model.loader import Loader
from catalyst_pxeboot.releases.index import MENUS, OWN
from catalyst_pxeboot.releases.render import group_releases
from catalyst_pxeboot.releases.scan import find_releases
from catalyst_pxeboot.releases.write import MenuWritten
from catalyst_pxeboot.spec.parse import parse_settings
from catalyst_pxeboot.util.files import list_files
from tests.support.iso import plain_iso
from tests.support.mirror import ALL, MIDDLE, NEW, OLD, PACKAGE, change, read, run, tree
from tests.support.paths import GOLDEN_MENU as GOLDEN
from tests.support.release_trees import KINDS, make_manifest
from tests.support.stage2 import release_settings, write_stage2


def golden_mirror(root: Path) -> None:
    """Make a mirror with every case of a menu."""
    for stamp in (OLD, MIDDLE, NEW):
        tree(root, f"releases/amd64/{stamp}", "amd64", stamp)
    tree(root, f"releases/amd64/hardened-{NEW}", "amd64", NEW, rel_type="23.0-hardened")
    tree(root, f"releases/amd64/musl.{MIDDLE}", "amd64", MIDDLE, rel_type="23.0-musl")
    tree(root, f"releases/x86/{OLD}", "i686", OLD)
    tree(root, f"releases/x86/{NEW}", "i686", NEW)
    # the kernel is 64-bit though the system is not
    tree(root, f"releases/x86/{MIDDLE}", "i686", MIDDLE, machine="x86_64")
    tree(root, f"releases/arm64/{NEW}", "arm64", NEW, memory_mib=None)
    tree(root, f"releases/arm/{NEW}", "armv7a_hardfp", NEW)
    tree(root, f"releases/riscv/{OLD}", "rv64_lp64d", OLD, loaders=[Loader.GRUB])
    tree(root, "rescue", "amd64", MIDDLE, title="It's a rescue <system>", rel_type="lab")


def test_golden(tmp_path: Path) -> None:
    golden_mirror(tmp_path)
    assert run(tmp_path) == MenuWritten(trees=12, read=12, warnings=(), written=ALL)
    found = {name: (tmp_path / name).read_text() for name in ALL}
    # Of the file system, and of the program's version.
    text = re.sub(r'("(?:inode|ctime_ns)": )\d+', r"\1 1", found["releases.json"])
    found["releases.json"] = re.sub(r'"templates": "\w{64}"', f'"templates": "{"0" * 64}"', text)
    if "UPDATE_GOLDEN" in os.environ:
        for name, text in found.items():
            (GOLDEN / name).parent.mkdir(parents=True, exist_ok=True)
            (GOLDEN / name).write_text(text)
    for name, text in found.items():
        assert text == (GOLDEN / name).read_text(), name
    assert tuple(list_files(GOLDEN)) == ALL


def test_golden_menus_are_sound_and_lead_to_every_tree(tmp_path: Path) -> None:
    golden_mirror(tmp_path)
    trees = {path.parent for path in tmp_path.rglob("manifest.json")}
    for loader, config in (("ipxe", "boot.ipxe"), ("pxelinux", "pxelinux.cfg/default")):
        text = (GOLDEN / MENUS[loader]).read_text()
        checked = LOADERS[Loader(loader)].check(text)
        assert checked.problems == ()
        wanted = {str((path / config).relative_to(tmp_path)) for path in trees}
        wanted = {name for name in wanted if (tmp_path / name).exists()}
        assert {name for name in checked.files if not name.endswith(".c32")} == wanted
    text = (GOLDEN / "grub.cfg").read_text()
    assert LOADERS[Loader.GRUB].check(text).problems == ()
    led_to = re.findall(r"^ +boot_tree (\S+)$", text, re.MULTILINE)
    assert sorted(led_to) == sorted(str(path.relative_to(tmp_path)) for path in trees)


def test_pxelinux_changes_into_the_tree() -> None:
    text = (GOLDEN / "pxelinux.cfg/default").read_text()
    lines = re.findall(r"^  CONFIG (\S+) (\S+)$", text, re.MULTILINE)
    assert len(lines) == 9
    assert all(config == f"{folder}pxelinux.cfg/default" for config, folder in lines)


@pytest.mark.skipif(not shutil.which("grub-script-check"), reason="needs grub-script-check")
def test_grub_itself_reads_its_menu() -> None:
    done = subprocess.run(
        ["grub-script-check", GOLDEN / "grub.cfg"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_schema_describes_the_list(tmp_path: Path) -> None:
    schema = json.loads((PACKAGE / "releases/index.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads((GOLDEN / "releases.json").read_text()), schema)
    release = schema["properties"]["releases"]["items"]["properties"]
    assert release["loaders"]["propertyNames"]["enum"] == list(Loader)
    assert schema["properties"]["menus"]["propertyNames"]["enum"] == sorted(OWN)


@pytest.mark.parametrize("subarch", KINDS)
def test_the_manifests_of_these_tests_are_as_the_schema_wants_them(subarch: str) -> None:
    schema = json.loads((PACKAGE / "tree/manifest.schema.json").read_text())
    jsonschema.validate(make_manifest(subarch), schema)


def test_a_tree_that_was_built(storedir: Path) -> None:
    """From a real build: its loaders, its default entry, what that needs, and its files."""
    built = build(parse_settings(release_settings(storedir)), report=lambda _line: None).output
    root = built.parents[1]
    written = run(root)
    assert (written.trees, written.warnings) == (1, ())
    (release,) = read(root).values()
    manifest = json.loads((built / "manifest.json").read_text())
    assert release["path"] == str(built.relative_to(root))
    assert release["loaders"].keys() == manifest["loaders"].keys() == {"ipxe", "pxelinux", "grub"}
    default = manifest["menu"]["entries"][0]
    for name, loader in release["loaders"].items():
        assert (root / loader["config"]).stat().st_size == loader["bytes"]
        assert loader["entry"] == manifest["menu"]["default"]
        assert loader["memory_bytes"] == default["limits"][name]["memory_bytes"]
        assert loader["memory_bytes"].keys() == (
            {"bios"} if name == "pxelinux" else {"bios", "efi"}
        )


def test_trees_of_isos(tmp_path: Path, no_loaders: None) -> None:
    """An ISO's place tells no release type, and a name of one's own no stamp."""
    names = (f"install-amd64-minimal-{OLD}", f"install-amd64-minimal-{NEW}",
             f"livegui-amd64-{NEW}", "my-own")  # fmt: skip
    for name in names:
        live = write_stage2(tmp_path / "live" / name)
        iso = plain_iso(live, tmp_path / f"{name}.iso")
        argv = ["build", "-q", "--source", str(iso), "--output", str(tmp_path / "www" / name)]
        assert cli.main(argv) == 0
    root = tmp_path / "www"
    assert (run(root).trees, run(root).warnings) == (4, ())
    releases = read(root)
    assert [(r["rel_type"], r["version_stamp"]) for r in map(releases.get, names) if r] == [
        ("", OLD), ("", NEW), ("", NEW), ("", "20261122")  # the last by the volume's label
    ]  # fmt: skip
    groups = group_releases(find_releases(root, {}).releases)
    assert sorted([release.path for release in group] for group in groups) == [
        [names[1], names[0]], [names[2]], ["my-own"]
    ]  # fmt: skip
    menu = (root / "menu.ipxe").read_text()
    assert "Older: amd64 (1)" in menu
    for title in ("livegui (2026-11-22)", "minimal (2026-11-22)"):
        assert f"Gentoo Linux amd64 {title}, " in menu
    assert "()" not in menu


def test_the_entry_that_a_loader_boots_is_the_first_it_offers(tmp_path: Path) -> None:
    path = tree(tmp_path, "a", "amd64", NEW)

    def edit(manifest: dict[str, Any]) -> None:
        (entry,) = manifest["menu"]["entries"]
        over_nfs = {**entry, "name": "nfs", "kernels": {"ipxe": "boot/gentoo"}, "limits": {}}
        memtest = {**entry, "name": "memtest", "firmware": "bios"}
        manifest["menu"]["entries"] = [over_nfs, memtest, entry]

    change(path, edit)
    run(tmp_path)
    loaders = read(tmp_path)["a"]["loaders"]
    assert {name: loader["entry"] for name, loader in loaders.items()} == {
        "grub": "gentoo", "ipxe": "nfs", "pxelinux": "gentoo"
    }  # fmt: skip
    assert loaders["ipxe"]["memory_bytes"] == {}


def test_newest_first_and_64_bit_before_32_bit(tmp_path: Path) -> None:
    tree(tmp_path, "x86", "i686", NEW)
    tree(tmp_path, "old", "amd64", OLD)
    tree(tmp_path, "musl", "amd64", NEW, rel_type="23.0-musl")
    tree(tmp_path, "hardened", "amd64", MIDDLE, rel_type="23.0-hardened")
    tree(tmp_path, "middle", "amd64", MIDDLE)
    tree(tmp_path, "arm", "armv7a_hardfp", NEW)
    groups = group_releases(find_releases(tmp_path, {}).releases)
    assert [[release.path for release in group] for group in groups] == [
        ["musl"], ["middle", "old"], ["hardened"], ["x86"], ["arm"]
    ]  # fmt: skip


def test_the_time_is_asked_before_the_stamp(tmp_path: Path) -> None:
    """A stamp may be any word; of the same time, the greater one is the newer."""
    for path, stamp, time in (("a", "zebra", "2026-01-01T00:00:00Z"),
                              ("b", "alpha", "2026-01-02T00:00:00Z"),
                              ("c", "beta", "2026-01-02T00:00:00Z")):  # fmt: skip
        change(
            tree(tmp_path, path, "amd64", NEW),
            lambda manifest, stamp=stamp, time=time: manifest["release"].update(  # type: ignore[misc]
                version_stamp=stamp, time=time
            ),
        )
    (group,) = group_releases(find_releases(tmp_path, {}).releases)
    assert [release.path for release in group] == ["c", "b", "a"]


def test_names_and_titles_are_each_ones_own(tmp_path: Path) -> None:
    for path in ("a.b/c", "a-b/c", "a/b-c"):
        tree(tmp_path, path, "amd64", NEW)
    tree(tmp_path, "d", "amd64", NEW, rel_type="23.0-musl")
    run(tmp_path)
    items = re.findall(
        r"item (a\S*|d) (.*?)(?: \|\||$)", (tmp_path / "menu.ipxe").read_text(), re.M
    )
    title = f"Gentoo Linux amd64 {NEW}"
    assert dict(items) == {
        "a-b-c": f"{title} (23.0-default) (a-b/c), 800 MiB of memory",
        "a-b-c-2": f"{title} (23.0-default) (a.b/c), 800 MiB of memory",
        "a-b-c-3": f"{title} (23.0-default) (a/b-c), 800 MiB of memory",
        "d": f"{title} (23.0-musl), 800 MiB of memory",
    }


def test_every_machine_has_a_way_to_be_told(tmp_path: Path) -> None:
    """What arch.toml knows a kernel for can be shown by iPXE and by GRUB."""
    for subarch in KINDS:
        tree(tmp_path, subarch, subarch, NEW)
    run(tmp_path)
    assert {machine.name for machine in all_machines()} == {kind[1] for kind in KINDS.values()}
    for machine in all_machines():
        assert f"iseq ${{buildarch}} {machine.buildarch} " in (tmp_path / "menu.ipxe").read_text()
        for platform in machine.platforms:
            assert f'"$client" = {platform} ' in (tmp_path / "grub.cfg").read_text()


# An iPXE: its ${buildarch} and ${platform}, and if the processor is a 64-bit x86.
CLIENTS = {
    ("x86_64", "efi", True): ["amd64", "x86-64"],
    ("x86_64", "pcbios", True): ["amd64", "x86", "x86-64"],
    ("i386", "pcbios", True): ["amd64", "x86", "x86-64"],
    ("i386", "pcbios", False): ["x86"],
    # UEFI starts programs of its own kind only, whatever the processor can
    ("i386", "efi", True): ["x86"],
    ("arm64", "efi", False): ["arm64"],
    ("arm32", "efi", False): ["arm"],
    ("riscv64", "efi", False): ["riscv"],
    ("loong64", "efi", False): [],
}  # fmt: skip


@pytest.mark.parametrize(("client", "shown"), CLIENTS.items(), ids=str)
def test_ipxe_shows_what_the_client_can_boot(
    client: tuple[str, str, bool], shown: list[str], tmp_path: Path
) -> None:
    tree(tmp_path, "x86", "i686", NEW)
    tree(tmp_path, "x86-64", "i686", OLD, machine="x86_64")
    tree(tmp_path, "riscv", "rv64_lp64d", NEW)
    tree(tmp_path, "arm", "armv7a_hardfp", NEW)
    tree(tmp_path, "arm64", "arm64", NEW)
    tree(tmp_path, "amd64", "amd64", OLD)
    run(tmp_path)
    items = run_ipxe((tmp_path / "menu.ipxe").read_text(), *client)
    trees = {path.parent.name for path in tmp_path.glob("*/manifest.json")}
    assert [item for item in items if item in trees] == shown
    told = any("No live image here" in line for line in items.values())
    assert told == (not shown)


def run_ipxe(script: str, buildarch: str, platform: str, long_mode: bool) -> dict[str, str]:
    """Run a script up to its first choice as iPXE would; return its menu's items with their texts.

    A command's result decides whether the next one runs: after && if it was good, after || if not.
    """
    settings = {"buildarch": buildarch, "platform": platform}
    items: dict[str, str] = {}

    def do(name: str, *words: str) -> bool:
        match name:
            case "set":
                settings[words[0]] = " ".join(words[1:])
            case "clear":
                settings.pop(words[0], None)
            case "isset":
                return words != ("",)
            case "iseq":
                return words[0] == words[1]
            case "cpuid":
                assert words == ("--ext", "29")
                return long_mode
            case "item":
                items[words[0]] = items.get(words[0], "") + " ".join(words[1:])
            case "menu":
                pass
            case _:
                raise AssertionError(name)
        return True

    def expand(found: re.Match[str]) -> str:
        return settings.get(found[1], "")

    for line in script.splitlines():
        if line.startswith(("#", ":")) or not line:
            continue
        if line.startswith("choose "):
            break
        good, wanted = True, True
        for part in re.split(r" (&&|\|\|)(?: |$)", line):
            if part in ("&&", "||"):
                wanted = good if part == "&&" else not good
            elif wanted:
                words = [re.sub(r"\$\{(.+?)\}", expand, word) for word in part.split()]
                good = do(*words) if words else True
        assert good, line  # a script ends at a command that fails
    return items
