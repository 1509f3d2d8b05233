"""A menu over many netboot trees: what it shows, what it reads again, what it leaves alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import catalyst_pxeboot
from catalyst_pxeboot.build.pipeline import build
from catalyst_pxeboot.cli import main as cli
from catalyst_pxeboot.loader import check_config
from catalyst_pxeboot.model.arch import all_machines
from catalyst_pxeboot.model.loader import Loader
from catalyst_pxeboot.releases import write
from catalyst_pxeboot.releases.index import MENUS, OWN, PAGE, read_index
from catalyst_pxeboot.releases.render import group_releases, render_menus
from catalyst_pxeboot.releases.scan import find_releases
from catalyst_pxeboot.releases.write import MenuWritten, write_menu
from catalyst_pxeboot.spec.parse import parse_settings
from catalyst_pxeboot.util.errors import PublishError, PxebootError, TemplateError
from catalyst_pxeboot.util.files import list_files
from tests.support.iso import plain_iso
from tests.support.paths import GOLDEN_MENU as GOLDEN
from tests.support.release_trees import KINDS, make_manifest, write_tree
from tests.support.stage2 import release_settings, write_stage2

PACKAGE = Path(catalyst_pxeboot.__file__).parent
ALL = ("grub.cfg", "index.html", "menu.ipxe", "pxelinux.cfg/default", "releases.json")

OLD, MIDDLE, NEW = "20261108T170000Z", "20261115T170000Z", "20261122T170000Z"


def run(root: Path, templates: Path | None = None, *, dry_run: bool = False) -> MenuWritten:
    """Write the menus without a word."""
    return write_menu(root, templates=templates, report=lambda _line: None, dry_run=dry_run)


def tree(root: Path, path: str, *arguments: str, **more: Any) -> Path:
    """Write a tree at `path`."""
    return write_tree(root / path, make_manifest(*arguments, **more))


def change(tree: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Edit a tree's manifest."""
    manifest = json.loads((tree / "manifest.json").read_text())
    edit(manifest)
    (tree / "manifest.json").write_text(json.dumps(manifest))


def contents(root: Path) -> dict[str, bytes]:
    """Return what lies in the root that is no tree's."""
    trees = {path.parent for path in root.rglob("manifest.json")}
    return {
        name: b"" if (root / name).is_symlink() else (root / name).read_bytes()
        for name in list_files(root)
        if not trees & {root / parent for parent in Path(name).parents}
    }


def times(root: Path) -> dict[str, tuple[int, int]]:
    """Return inode and time of the files that the menu consists of."""
    found = {name: (root / name).stat() for name in ALL if (root / name).exists()}
    return {name: (info.st_ino, info.st_mtime_ns) for name, info in found.items()}


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """Return a folder with two releases for amd64 and one for arm64."""
    root = tmp_path / "mirror"
    tree(root, f"amd64/{OLD}", "amd64", OLD)
    tree(root, f"amd64/{NEW}", "amd64", NEW)
    tree(root, f"arm64/{NEW}", "arm64", NEW)
    return root


class Opened:
    """Names that Python opens; an audit hook cannot be taken away, so there is one for all."""

    names: list[str] | None = None

    @classmethod
    def note(cls, event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and cls.names is not None:
            cls.names.append(str(arguments[0]))


sys.addaudithook(Opened.note)


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """Return the list of names that are opened from here on."""
    Opened.names = []
    yield Opened.names
    Opened.names = None


# ---- what is shown


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
        checked = check_config(Loader(loader), text)
        assert checked.problems == ()
        wanted = {str((path / config).relative_to(tmp_path)) for path in trees}
        wanted = {name for name in wanted if (tmp_path / name).exists()}
        assert {name for name in checked.files if not name.endswith(".c32")} == wanted
    text = (GOLDEN / "grub.cfg").read_text()
    assert check_config(Loader.GRUB, text).problems == ()
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
        ("", OLD), ("", NEW), ("", NEW), ("", "")
    ]  # fmt: skip
    groups = group_releases(find_releases(root, {}).releases)
    assert sorted([release.path for release in group] for group in groups) == [
        [names[1], names[0]], [names[2]], ["my-own"]
    ]  # fmt: skip
    menu = (root / "menu.ipxe").read_text()
    assert "Older: amd64 (1)" in menu
    assert f"Gentoo Linux amd64 {NEW} ({names[2]})" in menu
    assert "()" not in menu


def read(root: Path) -> dict[str, Any]:
    """Return the releases that releases.json lists, by path."""
    data = json.loads((root / "releases.json").read_text())
    return {release["path"]: release for release in data["releases"]}


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


# ---- what is read again


def test_nothing_new_reads_no_manifest_and_touches_no_file(mirror: Path, opened: list[str]) -> None:
    assert run(mirror).read == 3
    before = times(mirror)
    opened.clear()
    assert run(mirror) == MenuWritten(trees=3, read=0, warnings=(), written=())
    assert [name for name in opened if name.endswith("manifest.json")] == []
    assert str(mirror / "releases.json") in opened  # so this does see what is opened
    assert times(mirror) == before


def test_nothing_new_takes_no_template_language(mirror: Path) -> None:
    run(mirror)
    code = (
        "import sys; from pathlib import Path; from catalyst_pxeboot.releases.write import *;"
        f"written = write_menu(Path({str(mirror)!r}), templates=None, report=print);"
        "print(written.written, [name for name in sys.modules if name in"
        " ('jinja2', 'catalyst_pxeboot.model.menu', 'zstandard')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        f"{mirror}: 3 netboot trees, 0 manifests read", "nothing new", "() []"
    ]  # fmt: skip


def test_only_a_changed_tree_is_read(mirror: Path, opened: list[str]) -> None:
    run(mirror)
    change(
        mirror / f"arm64/{NEW}", lambda manifest: manifest["release"].update(title="Another title")
    )
    opened.clear()
    written = run(mirror)
    assert [name for name in opened if name.endswith("manifest.json")] == [
        str(mirror / f"arm64/{NEW}/manifest.json")
    ]
    # PXELINUX is not for arm64, so that its menu is the same.
    assert (written.read, written.written) == (
        1,
        ("grub.cfg", "index.html", "menu.ipxe", "releases.json"),
    )
    assert "Another title" in (mirror / "menu.ipxe").read_text()


def test_a_tree_built_again_is_read_though_its_manifest_looks_the_same(mirror: Path) -> None:
    """Same size, same time: a build takes both from the squashfs. And perhaps the same inode."""
    run(mirror)
    manifest = mirror / f"arm64/{NEW}/manifest.json"
    info = manifest.stat()
    manifest.write_text(manifest.read_text().replace("Gentoo Linux arm64", "Gentoo Penux arm64"))
    os.utime(manifest, ns=(info.st_atime_ns, info.st_mtime_ns))
    after = manifest.stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (
        info.st_ino, info.st_size, info.st_mtime_ns
    )  # fmt: skip
    assert run(mirror).read == 1
    assert "Gentoo Penux arm64" in (mirror / "grub.cfg").read_text()


def test_new_trees_come_and_removed_ones_go(mirror: Path) -> None:
    run(mirror)
    shutil.rmtree(mirror / f"amd64/{OLD}")
    tree(mirror, f"amd64/{MIDDLE}", "amd64", MIDDLE)
    written = run(mirror)
    assert (written.trees, written.read, written.written) == (3, 1, ALL)
    assert list(read(mirror)) == [f"amd64/{MIDDLE}", f"amd64/{NEW}", f"arm64/{NEW}"]
    assert OLD not in (mirror / "menu.ipxe").read_text()


def test_a_lost_menu_is_written_again(mirror: Path) -> None:
    run(mirror)
    before = contents(mirror)
    (mirror / "grub.cfg").unlink()
    written = run(mirror)
    assert (written.read, written.written) == (0, ("grub.cfg", "releases.json"))
    assert contents(mirror) == before


def test_a_menu_that_no_tree_needs_any_more_goes(mirror: Path) -> None:
    run(mirror)
    shutil.rmtree(mirror / "amd64")
    lines: list[str] = []
    written = write_menu(mirror, templates=None, report=lines.append)
    assert written.written == ("grub.cfg", "index.html", "menu.ipxe", "releases.json")
    assert lines[-1] == f"removed: {mirror}/pxelinux.cfg/default: no tree has it"
    assert contents(mirror).keys() == {"grub.cfg", "index.html", "menu.ipxe", "releases.json"}
    assert run(mirror).written == ()


def test_a_dry_run_writes_nothing(mirror: Path) -> None:
    lines: list[str] = []
    written = write_menu(mirror, templates=None, report=lines.append, dry_run=True)
    assert written == MenuWritten(trees=3, read=3, warnings=(), written=ALL)
    assert lines == [f"{mirror}: 3 netboot trees, 3 manifests read"] + [
        f"would write: {mirror}/{name}" for name in ALL
    ]
    assert contents(mirror) == {}
    run(mirror)
    assert run(mirror, dry_run=True).written == ()


# ---- what is left out


def test_hidden_folders_and_links_are_passed_over(mirror: Path, tmp_path: Path) -> None:
    tree(mirror, f".{MIDDLE}.staging", "amd64", MIDDLE)
    tree(mirror, f"amd64/.rsync/{MIDDLE}", "amd64", MIDDLE)
    tree(tmp_path, "elsewhere/tree", "amd64", MIDDLE)
    (mirror / "amd64/current").symlink_to(NEW)
    (mirror / "outside").symlink_to(tmp_path / "elsewhere")
    (mirror / "around").symlink_to(".")
    written = run(mirror)
    assert (written.trees, written.read, written.warnings) == (3, 3, ())


def test_a_tree_is_not_looked_into(mirror: Path) -> None:
    tree(mirror / f"amd64/{NEW}", "boot/inner", "amd64", OLD)
    assert run(mirror).trees == 3


def test_another_programs_manifest_is_no_matter(mirror: Path) -> None:
    (mirror / "manifest.json").write_text('{"name": "a web page"}')
    (mirror / "amd64/manifest.json").write_text('["a", "list"]')
    (mirror / "arm64/manifest.json").mkdir()
    written = run(mirror)
    assert (written.trees, written.warnings) == (3, ())


def cut(tree: Path) -> None:
    manifest = tree / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:1000])


def resize(name: str) -> Callable[[Path], None]:
    def do(tree: Path) -> None:
        (tree / name).write_bytes(b"half")

    return do


def lose(name: str) -> Callable[[Path], None]:
    return lambda tree: (tree / name).unlink()


def link(name: str) -> Callable[[Path], None]:
    def do(tree: Path) -> None:
        (tree / name).unlink()
        (tree / name).symlink_to("manifest.json")

    return do


def edit(change_release: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    return lambda tree: change(tree, change_release)


COPY = "left out: copy or build the tree again, or remove it"
NOT_VALID = "{0}/manifest.json: not a valid manifest"
REBUILD = "left out: build the tree again"
BROKEN: Mapping[str, tuple[Callable[[Path], None], str]] = {
    "cut manifest": (cut, f"{NOT_VALID} (Expecting "),
    "no script": (lose("boot.ipxe"), f"{{0}}: boot.ipxe: No such file or directory; {COPY}"),
    "half a script": (
        resize("boot/grub/grub.cfg"),
        f"{{0}}: boot/grub/grub.cfg has 4 bytes, but 118 in the manifest; {COPY}",
    ),
    "no squashfs": (
        lose("image.squashfs"), f"{{0}}: image.squashfs: No such file or directory; {COPY}"
    ),
    "half a kernel": (
        resize("boot/gentoo"), f"{{0}}: boot/gentoo has 4 bytes, but 16384 in the manifest; {COPY}"
    ),
    "a link": (link("boot.ipxe"), f"{{0}}: boot.ipxe is not a regular file; {COPY}"),
    "a later format": (
        edit(lambda manifest: manifest.update(format=2)),
        "{0}/manifest.json: its format is 2, not 1;"
        " left out: use the version of this program that made the tree",
    ),
    "no entries": (
        edit(lambda manifest: manifest["menu"].update(entries=[])),
        f"{NOT_VALID} (menu.entries: none of them boots the live image); {REBUILD}",
    ),
    "no title": (
        edit(lambda manifest: manifest["release"].update(title=None)),
        f"{NOT_VALID} (release.title: None is not a str); {REBUILD}",
    ),
    "no size": (
        edit(lambda manifest: manifest["files"][0].update(bytes=-1)),
        f"{NOT_VALID} (files[0].bytes: -1 is not a number of 0 or more); {REBUILD}",
    ),
    "an unknown loader": (
        edit(lambda manifest: (
            manifest["loaders"].update(lilo={"missing": []}),
            manifest["menu"]["entries"][0]["kernels"].update(lilo="boot/gentoo"),
        )),  # type: ignore[arg-type]
        f"{NOT_VALID} (menu.entries[0].kernels: 'lilo' is not one of ipxe, pxelinux, grub, uboot);"
        f" {REBUILD}",
    ),
    "an unknown machine": (
        edit(lambda manifest: manifest["kernels"][0].update(machine="ppc64")),
        "{0}: its kernel is for ppc64, which no loader's menu knows;"
        " left out: use the version of this program that made the tree",
    ),
    "a title that iPXE would expand": (
        edit(lambda manifest: manifest["release"].update(title="Gentoo ${shell}")),
        "{0}: iPXE: the title \"Gentoo ${{shell}}\" holds '${{', which iPXE expands and has no"
        " quoting for; left out: write it without, or leave ipxe out of pxeboot/loaders",
    ),
    "a variant with a line break": (
        edit(lambda manifest: manifest["release"].update(rel_type="a\nshell")),
        '{0}: GRUB: the title "a\\nshell" holds a line break or control character;'
        " left out: write it without",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_tree_is_left_out_with_a_warning(case: str, mirror: Path) -> None:
    broken = tree(mirror, f"amd64/{MIDDLE}", "amd64", MIDDLE)
    break_it, text = BROKEN[case]
    break_it(broken)
    for _ in range(2):  # the second time, nothing is new, and the warning is still due
        written = run(mirror)
        (warning,) = written.warnings
        assert warning.startswith(text.format(broken))
        assert written.trees == 3
        assert MIDDLE not in (mirror / "menu.ipxe").read_text()
    assert written.written == ()


@pytest.mark.parametrize("case", ["no script", "half a script", "a link"])
def test_a_tree_that_breaks_later_goes(case: str, mirror: Path, opened: list[str]) -> None:
    """Its manifest is unchanged, and not read; only the files that menus lead to are looked at."""
    run(mirror)
    broken = mirror / f"amd64/{OLD}"
    break_it, text = BROKEN[case]
    break_it(broken)
    opened.clear()
    written = run(mirror)
    assert written.warnings == (text.format(broken),)
    assert written.trees == 2
    assert [name for name in opened if name.endswith("manifest.json")] == []


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("with space", 'GRUB: the file name "{0}" holds more than letters'),
        ("-amd64", "begins with a hyphen; left out: rename the folder"),
        ("a$b", 'GRUB: the file name "{0}" holds more than letters'),
    ],
)
def test_a_path_that_is_not_safe(name: str, why: str, mirror: Path) -> None:
    tree(mirror, name, "amd64", MIDDLE)
    (warning,) = run(mirror).warnings
    assert warning.startswith(f"{mirror}/{name}: {why.format(name)}")
    assert run(mirror).trees == 3


def test_a_path_that_is_no_text(mirror: Path) -> None:
    folder = os.fsencode(mirror) + b"/a\xff"
    write_tree(Path(os.fsdecode(folder)), make_manifest("amd64", MIDDLE))
    (warning,) = run(mirror).warnings
    assert warning.isprintable()
    assert "a\\udcff" in warning


# ---- what is left alone


def nothing_changes(root: Path, message: str, **arguments: Any) -> None:
    """Run in vain: the message is this one, and nothing in the folder is another."""
    before = contents(root)
    with pytest.raises(PxebootError) as raised:
        run(root, **arguments)
    assert str(raised.value) == message
    assert contents(root) == before


@pytest.mark.parametrize("name", ["grub.cfg", "menu.ipxe", "pxelinux.cfg/default"])
def test_a_file_of_somebody_else_is_not_replaced(name: str, mirror: Path) -> None:
    (mirror / name).parent.mkdir(exist_ok=True)
    (mirror / name).write_text("mine")
    nothing_changes(
        mirror,
        f"{mirror}/{name}: is not as catalyst-pxeboot wrote it, so it is not replaced;"
        " move it away; for a menu of your own, give a folder of templates",
    )


@pytest.mark.parametrize("how", ["file", "folder", "link", "changed"])
def test_a_page_of_somebody_else_is_left_with_a_warning(
    how: str, mirror: Path, tmp_path: Path
) -> None:
    """A mirror may have its own one, and no client boots by it."""
    page, why = mirror / "index.html", "is not as catalyst-pxeboot wrote it"
    if how == "file":
        page.write_text("mine")
    elif how == "folder":
        page.mkdir()
        why = "is in the way and not a file"
    elif how == "link":
        page.symlink_to(tmp_path / "elsewhere")
        why = "is in the way and not a file"
    else:
        run(mirror)
        page.write_text("mine")
    written = run(mirror)
    assert written.warnings == (f"{page}: {why}; left as it is",)
    assert written.written == tuple(
        name for name in ALL if name == "releases.json" or (how != "changed" and name != PAGE)
    )
    assert PAGE not in json.loads((mirror / "releases.json").read_text())["menus"]
    assert not page.is_file() or page.read_text() == "mine"
    assert not (tmp_path / "elsewhere").exists()
    # Once it is out of the way, the next change brings the page.
    page.rmdir() if how == "folder" else page.unlink()
    tree(mirror, "more", "amd64", MIDDLE)
    assert PAGE in run(mirror).written


@pytest.mark.parametrize("text", ["{}", "", "[]", '{"generator": {"name": "x"}, "format": 1}'])
def test_a_list_of_somebody_else_is_not_replaced(text: str, mirror: Path) -> None:
    (mirror / "releases.json").write_text(text)
    nothing_changes(
        mirror,
        f"{mirror}/releases.json: is not a list that this catalyst-pxeboot wrote, so nothing is"
        " replaced; move it away, or give another folder",
    )


def test_a_menu_that_somebody_changed_is_not_replaced(mirror: Path) -> None:
    run(mirror)
    with (mirror / "menu.ipxe").open("a") as stream:
        stream.write("# mine\n")
    tree(mirror, "more", "amd64", MIDDLE)
    nothing_changes(
        mirror,
        f"{mirror}/menu.ipxe: is not as catalyst-pxeboot wrote it, so it is not replaced;"
        " move it away; for a menu of your own, give a folder of templates",
    )


def test_a_list_that_names_other_files_is_not_ours(mirror: Path) -> None:
    """What it names may be removed."""
    run(mirror)
    index = json.loads((mirror / "releases.json").read_text())
    index["menus"]["../precious"] = "0" * 64
    (mirror / "releases.json").write_text(json.dumps(index))
    with pytest.raises(PublishError, match="is not a list"):
        run(mirror)


def test_things_in_the_way(mirror: Path) -> None:
    (mirror / "grub.cfg").mkdir()
    nothing_changes(
        mirror,
        f"{mirror}/grub.cfg: is in the way and not a file; move it away, or give another folder",
    )
    (mirror / "grub.cfg").rmdir()
    (mirror / "pxelinux.cfg").write_text("mine")
    nothing_changes(
        mirror,
        f"{mirror}/pxelinux.cfg: is in the way and not a folder;"
        " move it away, or give another folder",
    )


def test_links_are_not_written_through(mirror: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (mirror / "pxelinux.cfg").symlink_to(tmp_path / "outside")
    nothing_changes(
        mirror,
        f"{mirror}/pxelinux.cfg: is a link, not a folder; move it away, or give another folder",
    )
    (mirror / "pxelinux.cfg").unlink()
    (mirror / "grub.cfg").symlink_to(tmp_path / "outside/grub.cfg")
    nothing_changes(
        mirror,
        f"{mirror}/grub.cfg: is in the way and not a file; move it away, or give another folder",
    )
    assert list((tmp_path / "outside").iterdir()) == []


def test_what_is_as_it_would_be_written_is_taken_over(mirror: Path) -> None:
    """releases.json was lost: whole menus need not be moved away."""
    run(mirror)
    before = contents(mirror)
    (mirror / "releases.json").unlink()
    assert run(mirror).written == ("releases.json",)
    assert contents(mirror) == before


def test_where_there_are_no_trees(tmp_path: Path) -> None:
    hint = "give the folder that the netboot trees lie below"
    nothing_changes(tmp_path, f"{tmp_path}: there is no netboot tree below it; {hint}")
    nothing_changes(tmp_path / "none", f"{tmp_path}/none: is not a folder; {hint}")
    broken = tree(tmp_path, "tree", "amd64", NEW)
    nothing_changes(broken, f"{broken}: is a netboot tree itself (manifest.json); {hint}")
    lose("boot.ipxe")(broken)
    nothing_changes(
        tmp_path,
        f"{tmp_path}: there is no netboot tree below it that is whole"
        f" ({BROKEN['no script'][1].format(broken)}); {hint}",
    )


def test_trees_that_all_vanished_keep_their_menu(mirror: Path) -> None:
    """As when a disk is not mounted."""
    run(mirror)
    shutil.move(mirror / "amd64", mirror.parent)
    shutil.move(mirror / "arm64", mirror.parent)
    nothing_changes(
        mirror,
        f"{mirror}: there is no netboot tree below it;"
        " give the folder that the netboot trees lie below",
    )


# ---- templates


def test_own_templates(mirror: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    (own / "menu").mkdir(parents=True)
    (own / "menu/menu.ipxe.j2").write_text("#!ipxe\n{% include 'more.j2' %}\n")
    (own / "more.j2").write_text("# {{ groups[0].newest.title }}\n")
    run(mirror)
    assert run(mirror, own).written == ("menu.ipxe", "releases.json")
    assert (mirror / "menu.ipxe").read_text() == (
        f"#!ipxe\n# Gentoo Linux amd64 {NEW}, 800 MiB of memory\n"
    )
    assert run(mirror, own).written == ()
    (own / "more.j2").write_text("# another")  # what is included counts as well
    assert run(mirror, own).written == ("menu.ipxe", "releases.json")
    assert run(mirror).written == ("menu.ipxe", "releases.json")


def test_faulty_templates_change_nothing(mirror: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    (own / "menu").mkdir(parents=True)
    (own / "menu/menu.ipxe.j2").write_text("{{ nothing }}")
    run(mirror)
    before = contents(mirror)
    with pytest.raises(TemplateError, match="'nothing' is undefined"):
        run(mirror, own)
    assert contents(mirror) == before
    nothing_changes(
        mirror,
        f"{own}/none: is not a folder of templates; name a folder, or take the shipped templates",
        templates=own / "none",
    )


# ---- all or nothing


def test_servers_can_read_what_is_written(mirror: Path) -> None:
    umask = os.umask(0o077)
    try:
        run(mirror)
    finally:
        os.umask(umask)
    assert {(mirror / name).stat().st_mode & 0o777 for name in ALL} == {0o644}
    assert (mirror / "pxelinux.cfg").stat().st_mode & 0o777 == 0o755


def test_two_at_once(mirror: Path) -> None:
    with write._locked(mirror):
        nothing_changes(
            mirror, f"{mirror}: another process is writing these menus; wait for it to end"
        )
    assert run(mirror).written == ALL


def test_a_full_disk_changes_nothing(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(mirror)
    before = contents(mirror)
    tree(mirror, f"amd64/{MIDDLE}", "amd64", MIDDLE)
    written: list[Path] = []
    real = write._write_file

    def fail_late(path: Path, content: bytes) -> None:
        if len(written) == 4:
            raise OSError(28, "No space left on device", str(path))
        written.append(path)
        real(path, content)

    monkeypatch.setattr(write, "_write_file", fail_late)
    nothing_changes(
        mirror,
        f"{mirror}: menus not written: No space left on device"
        f" ({mirror}/.releases.json.new); free space there",
    )
    assert contents(mirror) == before
    monkeypatch.undo()
    # and a folder that was made for it goes as well
    for name in ALL:
        (mirror / name).unlink()
    (mirror / "pxelinux.cfg").rmdir()
    written.clear()
    monkeypatch.setattr(write, "_write_file", fail_late)
    with pytest.raises(PublishError, match="No space left"):
        run(mirror)
    assert not (mirror / "pxelinux.cfg").exists()


# Ends the process, as a kill does, right before the Nth time that a file is put in place.
KILL = """
import os, sys
from pathlib import Path
from catalyst_pxeboot.releases.write import write_menu
left = int(sys.argv[2])
replace = Path.replace
def die(self, target):
    global left
    left -= 1
    if not left:
        os._exit(9)
    return replace(self, target)
Path.replace = die
write_menu(Path(sys.argv[1]), templates=None, report=print)
"""


def kill(root: Path, moment: int) -> int:
    """Write the menus, killed at a moment; return the exit code."""
    return subprocess.run(
        [sys.executable, "-c", KILL, str(root), str(moment)],
        cwd=PACKAGE.parent, capture_output=True, check=False,
    ).returncode  # fmt: skip


# The journal, three menus, the page, the list.
MOMENTS = range(1, 7)


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_any_moment(moment: int, mirror: Path, tmp_path: Path) -> None:
    """Each file is the old one or the new one, the list is last, and the next run goes on."""
    run(mirror)
    old = contents(mirror)
    tree(mirror, f"amd64/{MIDDLE}", "amd64", MIDDLE)
    assert kill(mirror, moment) == 9
    killed = contents(mirror)
    lines: list[str] = []
    assert write_menu(mirror, templates=None, report=lines.append).trees == 4
    new = contents(mirror)
    assert new.keys() == set(ALL)
    for place, name in enumerate(ALL, 2):
        assert killed[name] == (new if place < moment else old)[name], name
    assert run(mirror).written == ()


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_the_first_time(moment: int, mirror: Path) -> None:
    assert kill(mirror, moment) == 9
    run(mirror)
    assert contents(mirror).keys() == set(ALL)


def test_killed_twice_in_different_states(mirror: Path) -> None:
    """What the first kill left is known to the third run, though the second died as well."""
    run(mirror)
    tree(mirror, f"amd64/{MIDDLE}", "amd64", MIDDLE)
    assert kill(mirror, 4) == 9
    tree(mirror, "more", "amd64", MIDDLE)
    assert kill(mirror, 2) == 9
    assert run(mirror).trees == 5
    assert contents(mirror).keys() == set(ALL)


def test_what_a_kill_left_goes_even_if_nothing_is_new(mirror: Path) -> None:
    run(mirror)
    before = contents(mirror)
    added = tree(mirror, f"amd64/{MIDDLE}", "amd64", MIDDLE)
    assert kill(mirror, 2) == 9
    assert contents(mirror).keys() > before.keys()
    shutil.rmtree(added)
    assert run(mirror).written == ()
    assert contents(mirror) == before


def test_what_a_kill_left_goes_even_if_it_is_not_written_again(mirror: Path) -> None:
    run(mirror)
    added = tree(mirror, f"amd64/{MIDDLE}", "amd64", MIDDLE)
    assert kill(mirror, 2) == 9
    assert (mirror / "pxelinux.cfg/.default.new").exists()
    shutil.rmtree(added)
    tree(mirror, f"arm64/{MIDDLE}", "arm64", MIDDLE)  # PXELINUX's menu is as it was
    assert run(mirror).written == ("grub.cfg", "index.html", "menu.ipxe", "releases.json")
    assert contents(mirror).keys() == set(ALL)


def test_a_journal_makes_nobody_elses_file_ours(mirror: Path) -> None:
    run(mirror)
    tree(mirror, f"amd64/{MIDDLE}", "amd64", MIDDLE)
    assert kill(mirror, 3) == 9
    (mirror / "menu.ipxe").write_text("mine")
    with pytest.raises(PublishError, match=r"menu\.ipxe: is not as catalyst-pxeboot wrote it"):
        run(mirror)
    assert (mirror / "menu.ipxe").read_text() == "mine"


def test_the_list_is_what_the_next_run_knows(mirror: Path) -> None:
    run(mirror)
    index = read_index(mirror / "releases.json")
    assert index is not None
    assert index.releases == find_releases(mirror, {}).releases
    assert render_menus(index.releases, templates=None).keys() == index.menus.keys()
