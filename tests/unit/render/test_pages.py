"""index.html and README.txt: what they tell, that values stay values, and that commands work."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from catalyst_pxeboot.build.pipeline import build
from catalyst_pxeboot.loader import LOADERS
from catalyst_pxeboot.model.loader import Loader
from catalyst_pxeboot.render.pages import PLACEHOLDER
from catalyst_pxeboot.spec.parse import parse_settings
from catalyst_pxeboot.tree.verify import verify_tree
from catalyst_pxeboot.util.errors import TemplateError
from tests.golden.test_golden import CASES
from tests.support.page import Page, read_page
from tests.support.paths import GOLDEN, ROOT
from tests.support.stage2 import TIME, release_settings, storedir_stage2, write_stage2


def make(folder: Path, **settings: object) -> Path:
    write_stage2(storedir_stage2(folder))
    spec = parse_settings(release_settings(folder, **settings))
    return build(spec, report=lambda _line: None).output


@pytest.mark.parametrize("case", [*CASES, "../menu"])
def test_pages_are_whole_and_ask_for_nothing(case: str) -> None:
    text = (GOLDEN / case / "index.html").read_text()
    found = Page(text)
    assert found.open == []
    assert len(found.ids) == len(set(found.ids))
    assert {"main", "header", "nav", "footer", "h1", "h2"} <= set(found.tags)
    assert found.tags.count("h1") == 1
    assert text.count('lang="en"') == 1
    for name, value in found.attributes:
        if name in ("src", "srcset", "action", "poster"):
            pytest.fail(f"{name}={value}")
        # Only the page's own tree: a path below it, a place on the page, the empty icon.
        if name == "href":
            assert value == "data:," or not re.match(r"[a-z]+:|/|\.\.", value), value
    assert not re.search(r"@import|url\(", text)
    targets = [link[1:] for link in found.links if link.startswith("#")]
    assert set(targets) <= set(found.ids)


@pytest.mark.parametrize("case", CASES)
def test_every_other_file_is_there_with_its_digest(case: str) -> None:
    """But for those that are made after it."""
    manifest = json.loads((GOLDEN / case / "manifest.json").read_text())
    text = (GOLDEN / case / "index.html").read_text()
    rows = re.findall(
        r'<a href="([^"]+)">\1</a></th>.*?<data value="(\d+)">.*?<code>([0-9a-f]{64})</code>', text
    )
    assert {path: (int(count), digest) for path, count, digest in rows} == {
        file["path"]: (file["bytes"], file["digests"]["sha256"])
        for file in manifest["files"]
        if file["path"] != "index.html"
    }
    assert len(rows) == len(manifest["files"]) - 1
    links = Page(text).links
    assert {"manifest.json", "SHA256SUMS", "README.txt"} <= set(links)
    roles = {file["path"]: file["role"] for file in manifest["files"]}
    assert (roles["index.html"], roles["README.txt"]) == ("page", "text")


@pytest.mark.parametrize("case", CASES)
def test_links_lead_to_files_of_the_tree(case: str) -> None:
    there = {line.split()[-1] for line in (GOLDEN / case / "listing.txt").read_text().splitlines()}
    links = Page((GOLDEN / case / "index.html").read_text()).links
    assert {link for link in links if not link.startswith("#")} <= there


@pytest.mark.parametrize("case", CASES)
def test_readme_lines_are_short_and_its_sections_belong(case: str) -> None:
    text = (GOLDEN / case / "README.txt").read_text()
    manifest = json.loads((GOLDEN / case / "manifest.json").read_text())
    assert max(map(len, text.splitlines())) <= 140
    assert "\n\n\n" not in text
    loaders = {
        "ipxe": "iPXE: ", "pxelinux": "PXELINUX: ", "grub": "GRUB: ", "uboot": "U-Boot: ",
        "uki": "UKI: ",
    }  # fmt: skip
    for loader, start in loaders.items():
        assert (f"\n{start}" in text) == (loader in manifest["loaders"]), loader
    live = [entry for entry in manifest["menu"]["entries"] if "root" in entry]
    roots = {entry["root"] for entry in live}
    assert ("curl: (22)" in text) == ("http" in roots)
    assert ("mount.nfs" in text) == ("nfs" in roots)
    assert ("\nroot check: " in text or '"root check: ' in text) == any(
        entry["checked"] for entry in live
    )
    generators = {kernel["initramfs"]["generator"] for kernel in manifest["kernels"]}
    assert ("\ndracut: " in text) == ("dracut" in generators)
    assert ("\ngenkernel: " in text) == ("genkernel" in generators)


def test_readme_quotes_what_the_templates_say(tmp_path: Path, no_loaders: None) -> None:
    """A symptom is of use only in the words that the client shows."""
    readme = (GOLDEN / "amd64-all-roots/README.txt").read_text()
    templates = ROOT / "templates"
    for words, source in {
        "This did not work: ": "boot.ipxe.j2",
        "of memory, and this entry needs": "include/ipxe-enough-memory.inc.j2",
        "This did not work; the reason is above": "boot/grub/grub.cfg.j2",
        "bad shim signature": "boot/grub/grub.cfg.j2",
        "the live root is not the one that this netboot tree was made with": "",
        "the running kernel is locked down, as under Secure Boot": "kexec.sh.j2",
        "is not the file that this script was made with": "kexec.sh.j2",
    }.items():
        assert words in readme, words
        if source:
            assert words in (templates / source).read_text(), words


HOSTILE = "<script>alert(1)</script> & \"x\" 'y' {{ 7 * 7 }} </title> <img src=x onerror=z>"


@pytest.mark.parametrize("loaders", [["ipxe"], ["pxelinux"], ["grub"]])
def test_a_title_stays_text(tmp_path: Path, no_loaders: None, loaders: list[str]) -> None:
    tree = make(tmp_path, pxeboot__title=HOSTILE.split(), pxeboot__loaders=loaders)
    found = read_page(tree)
    assert found.open == []
    assert (found.tags.count("script"), found.tags.count("img")) == (1, 0)
    assert found.text.count(HOSTILE) == 2  # in the head's title and the heading
    # Plain text is not escaped for HTML.
    assert (tree / "README.txt").read_text().startswith(HOSTILE + "\n")
    assert HOSTILE in (tree / "boot.ipxe").read_text() if loaders == ["ipxe"] else True


def test_the_address_where_it_is_known(tmp_path: Path, no_loaders: None) -> None:
    tree = make(tmp_path / "a", pxeboot__base_url="http://192.168.7.1:8080/gentoo")
    found = read_page(tree)
    url = "http://192.168.7.1:8080/gentoo"
    assert found.commands["the iPXE command"] == f"dhcp && chain {url}/boot.ipxe"
    assert found.commands["the kexec command"] == f"curl -fsSL {url}/kexec.sh | sh -s {url}"
    assert f"bootfile={url}/boot.ipxe" in found.commands["the QEMU command"]
    assert f"dhcp-boot=tag:ipxe,{url}/boot.ipxe" in found.commands["the dnsmasq configuration"]
    assert "address-note" not in found.ids
    assert PLACEHOLDER not in found.text
    assert f"chain {url}/boot.ipxe\n" in (tree / "README.txt").read_text()


def test_the_address_where_it_is_not_known(tmp_path: Path, no_loaders: None) -> None:
    tree = make(tmp_path)
    found = read_page(tree)
    assert "address-note" in found.ids
    for label in ("the iPXE command", "the kexec command", "the QEMU command"):
        assert PLACEHOLDER in found.commands[label]
    assert "192.0.2.1/" not in found.commands["the dnsmasq configuration"]
    assert f"chain {PLACEHOLDER}/boot.ipxe\n" in (tree / "README.txt").read_text()


def test_the_same_bytes_each_time(tmp_path: Path, no_loaders: None) -> None:
    first, second = make(tmp_path / "a"), make(tmp_path / "elsewhere/b")
    for name in ("index.html", "README.txt", "kexec.sh"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert "2026-11-22 17:00 UTC" in read_page(first).text
    assert int((first / "index.html").stat().st_mtime) == TIME


def test_a_changed_page_is_found(tmp_path: Path, no_loaders: None) -> None:
    tree = make(tmp_path)
    assert verify_tree(tree).faults == ()
    text = (tree / "index.html").read_text()
    (tree / "index.html").write_text(text.replace("Boot it", "Boot et"))
    assert [str(fault) for fault in verify_tree(tree).faults] == [
        f"index.html: its {name} is not the manifest's; build the tree again"
        for name in ("blake2b", "sha256", "sha512")
    ]


def test_own_templates(tmp_path: Path, no_loaders: None) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "index.html.j2").write_text(
        '{% extends "page/base.html.j2" %}{% block main %}<b>{{ title }}</b>{% endblock %}'
    )
    (own / "README.txt.j2").write_text("{{ title }}: {{ modes | join(' ') }}\n")
    tree = make(tmp_path / "store", pxeboot__templates=str(own), pxeboot__title=["a", "<b>"])
    assert "<b>a &lt;b&gt;</b>" in (tree / "index.html").read_text()
    assert (tree / "README.txt").read_text() == "a <b>: embedded\n"
    manifest = json.loads((tree / "manifest.json").read_text())
    origins = {file["path"]: file.get("origin") for file in manifest["files"]}
    assert origins["index.html"] == "template index.html.j2 (own)"
    (own / "index.html.j2").write_text("{{ nothing }}")
    with pytest.raises(TemplateError, match=r"index\.html\.j2, line 1: 'nothing' is undefined"):
        make(tmp_path / "other", pxeboot__templates=str(own))


def test_missing_loaders_are_named(tmp_path: Path, no_loaders: None) -> None:
    text = read_page(make(tmp_path, pxeboot__loaders=["pxelinux"])).text
    missing = re.findall(r"had no (.*); put them here", text)
    assert sorted(missing[0].split(", ")) == [
        "ldlinux.c32", "libcom32.c32", "libutil.c32", "menu.c32", "poweroff.c32", "pxelinux.0",
        "reboot.c32",
    ]  # fmt: skip


# --- the commands ---------------------------------------------------------------------------------


@pytest.mark.parametrize("server", [None, ["192.168.7.1/24", "http_prefix=gentoo"]])
def test_dnsmasq_takes_the_lines(
    tmp_path: Path, no_loaders: None, server: list[str] | None
) -> None:
    if shutil.which("dnsmasq") is None:
        pytest.skip("dnsmasq is missing")
    tree = make(tmp_path, **({"pxeboot__server": server} if server else {}))
    text = read_page(tree).commands["the dnsmasq configuration"]
    lines = text.replace(PLACEHOLDER, "http://192.168.7.1/gentoo")
    assert "dhcp-boot=tag:ipxe,http://192.168.7.1/gentoo/boot.ipxe\n" in lines + "\n"
    assert not any(line.startswith("#") for line in lines.splitlines())
    (tmp_path / "dnsmasq.conf").write_text(lines + f"\ntftp-root={tmp_path}\n")
    done = subprocess.run(
        ["dnsmasq", "--test", "-C", tmp_path / "dnsmasq.conf"], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_ipxe_takes_the_command() -> None:
    command = read_page(GOLDEN / "amd64-dracut").commands["the iPXE command"]
    config = LOADERS[Loader.IPXE].check(f"#!ipxe\n{command}\n")
    assert config.problems == ()


def test_the_digests_command(tmp_path: Path, no_loaders: None) -> None:
    tree = make(tmp_path)
    command = read_page(tree).commands["the command that checks every file"]
    subprocess.run(command, shell=True, cwd=tree, check=True, capture_output=True)
    (tree / "kexec.sh").write_text("x")
    done = subprocess.run(command, shell=True, cwd=tree, check=False, capture_output=True)
    assert done.returncode == 1
