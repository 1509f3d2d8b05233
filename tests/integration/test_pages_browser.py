"""index.html in a real browser: Chromium without a window, on trees that were built and are served.

What a page does there (copying, its width, its contrast) is not to be read off its text.
"""

from __future__ import annotations

import json
import re
import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from catalyst_pxeboot.build.pipeline import build
from catalyst_pxeboot.lab.serve import serve_tree
from catalyst_pxeboot.releases.write import write_menu
from catalyst_pxeboot.render.pages import PLACEHOLDER
from catalyst_pxeboot.spec.parse import parse_settings
from tests.golden.test_golden import MEMTEST, NETWORK
from tests.support import builders
from tests.support.stage2 import STAMP, release_settings, storedir_stage2, write_stage2

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright")
axe = pytest.importorskip(
    "axe_playwright_python.sync_playwright", reason="no axe-playwright-python"
)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is missing"),
    pytest.mark.timeout(180),
]

#: A name that is not this machine's own: what is "secure" on localhost is not on a server.
HOST = "pxe.example"
NARROW, WIDE = 320, 1280
PAGES = ("tree/index.html", "index.html")


@dataclass
class Opened:
    """A page, and all that happened while it was open."""

    page: Page
    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def commands(self) -> dict[str, str]:
        found: dict[str, str] = self.page.evaluate(
            "Object.fromEntries([...document.querySelectorAll('.command')].map("
            "c => [c.dataset.label, c.querySelector('code').textContent]))"
        )
        return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Serve a folder with the page of all trees and one tree of every way; return the port."""
    folder = tmp_path_factory.mktemp("site")
    root = folder / "root"
    for stamp in (STAMP, "20261115T170000Z"):
        store = folder / stamp
        write_stage2(storedir_stage2(store), initramfs=builders.initramfs(NETWORK), extra=MEMTEST)
        settings = release_settings(store, version_stamp=stamp, pxeboot__nfs_root=":/srv/gentoo")
        built = build(parse_settings(settings), report=lambda _line: None).output
        shutil.copytree(built, root / ("tree" if stamp == STAMP else "older"), symlinks=True)
    write_menu(root, templates=None, report=lambda _line: None)
    with serve_tree(root) as server:
        yield server.port


def get(site: int, path: str) -> bytes:
    """Fetch a file of the site; an HTTP error is raised."""
    with urllib.request.urlopen(f"http://127.0.0.1:{site}/{path}", timeout=10) as answer:
        content: bytes = answer.read()
    return content


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=CHROMIUM,
            # Root may not use its sandbox; the pages are our own.
            args=["--no-sandbox", f"--host-resolver-rules=MAP {HOST} 127.0.0.1"],
        )
        yield started
        started.close()


@contextmanager
def opened(
    browser: Browser,
    url: str,
    *,
    width: int = WIDE,
    scheme: Any = "light",
    script: bool = True,
    permissions: tuple[str, ...] = (),
) -> Iterator[Opened]:
    """Open a page in a context of its own."""
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, java_script_enabled=script
    )
    if permissions:
        context.grant_permissions(list(permissions))
    page = context.new_page()
    found = Opened(page)
    page.on("console", lambda message: found.messages.append(message.text))
    page.on("pageerror", lambda error: found.messages.append(str(error)))
    page.on("request", lambda request: found.requests.append(request.url))
    page.goto(url)
    try:
        yield found
    finally:
        context.close()


@pytest.mark.parametrize("name", PAGES)
def test_no_fault_is_told_and_nothing_else_is_asked_for(
    browser: Browser, site: int, name: str
) -> None:
    url = f"http://{HOST}:{site}/{name}"
    with opened(browser, url) as found:
        found.page.wait_for_timeout(300)
        assert found.messages == []
        assert found.requests == [url]


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(browser: Browser, site: int, name: str) -> None:
    with opened(browser, f"http://{HOST}:{site}/{name}") as found:
        links = found.page.evaluate("[...document.links].map(link => link.href)")
        assert len(links) > 8
        for link in sorted({link.partition("#")[0] for link in links}):
            start = f"http://{HOST}:{site}/"
            assert link.startswith(start)
            assert get(site, link.removeprefix(start)), link
        for place in {link.partition("#")[2] for link in links} - {""}:
            assert found.page.locator(f"[id='{place}']").count() == 1


@pytest.mark.parametrize("secure", [True, False], ids=["clipboard", "over-http"])
@pytest.mark.parametrize("name", PAGES)
def test_each_button_copies_its_command(
    browser: Browser, site: int, name: str, secure: bool
) -> None:
    """A page that came over http may not use the clipboard, and copies all the same."""
    host = "127.0.0.1" if secure else HOST
    url = f"http://{host}:{site}/{name}"
    with opened(browser, url, permissions=("clipboard-read", "clipboard-write")) as found:
        page = found.page
        assert page.evaluate("isSecureContext") is secure
        commands = found.commands()
        assert page.get_by_role("button").count() == len(commands) >= 3
        for label, text in commands.items():
            page.get_by_role("button", name=f"Copy {label}").click()
            told = f"Copied: {label}"
            page.wait_for_function(
                "t => document.getElementById('status').textContent === t", arg=told
            )
            assert pasted(page) == text


def pasted(page: Page) -> str:
    """Return what is in the clipboard, by pasting it as a person would."""
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('textarea'), {id: 'paste'}))"
    )
    page.focus("#paste")
    page.keyboard.press("Control+V")
    text = page.input_value("#paste")
    page.evaluate("document.getElementById('paste').remove()")
    return text


def test_commands_have_the_address_that_the_page_came_from(browser: Browser, site: int) -> None:
    url = f"http://{HOST}:{site}/tree"
    with opened(browser, f"{url}/index.html?x=1#files") as found:
        commands = found.commands()
        assert commands["the iPXE command"] == f"dhcp && chain {url}/boot.ipxe"
        assert commands["the kexec command"] == f"curl -fsSL {url}/kexec.sh | sh -s {url}"
        assert f"bootfile={url}/boot.ipxe" in commands["the QEMU command"]
        assert f"dhcp-boot=tag:ipxe,{url}/boot.ipxe\n" in commands["the dnsmasq configuration"]
        assert not found.page.is_visible("#address-note")
    with opened(browser, f"http://{HOST}:{site}/") as found:
        command = found.commands()["the iPXE command"]
        assert command == f"dhcp && chain http://{HOST}:{site}/menu.ipxe"


def test_localhost_is_no_address_for_another_machine(browser: Browser, site: int) -> None:
    with opened(browser, f"http://127.0.0.1:{site}/tree/") as found:
        commands = found.commands()
        address = f"http://SERVER:{site}/tree"
        assert commands["the iPXE command"] == f"dhcp && chain {address}/boot.ipxe"
        # QEMU's own network has one for it.
        guest = f"bootfile=http://10.0.2.2:{site}/tree/boot.ipxe"
        assert guest in commands["the QEMU command"]
        assert found.page.inner_text("#address-note").startswith("SERVER in the commands is")


def test_from_a_file_or_an_odd_address_the_placeholder_stays(
    browser: Browser, site: int, tmp_path: Path
) -> None:
    copy = tmp_path / "a;b $(c)"
    copy.mkdir()
    (copy / "index.html").write_bytes(get(site, "tree/index.html"))
    with serve_tree(tmp_path) as server:
        odd = f"http://{HOST}:{server.port}/a;b%20$(c)/index.html"
        for url in ((copy / "index.html").as_uri(), odd):
            with opened(browser, url) as found:
                command = found.commands()["the kexec command"]
                assert command == f"curl -fsSL {PLACEHOLDER}/kexec.sh | sh -s {PLACEHOLDER}"
                assert found.page.is_visible("#address-note")
                assert found.messages == []


@pytest.mark.parametrize(("scheme", "width"), [("light", WIDE), ("dark", WIDE), ("dark", NARROW)])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_no_fault(
    browser: Browser, site: int, name: str, scheme: str, width: int
) -> None:
    with opened(browser, f"http://{HOST}:{site}/{name}", scheme=scheme, width=width) as found:
        violations = axe.Axe().run(found.page).response["violations"]
        told = [
            (item["id"], item["impact"], [n["html"] for n in item["nodes"]][:3])
            for item in violations
        ]
        assert told == []


@pytest.mark.parametrize("script", [True, False])
@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_wider_than_a_small_screen(
    browser: Browser, site: int, name: str, script: bool
) -> None:
    url = f"http://{HOST}:{site}/{name}"
    with opened(browser, url, width=NARROW, script=script) as found:
        right, scrolled = found.page.evaluate(
            "[Math.max(...[...document.querySelectorAll('body *:not(pre.lines *)')].map("
            "e => e.getBoundingClientRect().right)), document.documentElement.scrollWidth]"
        )
        assert right <= NARROW
        assert scrolled == NARROW


@pytest.mark.parametrize("name", PAGES)
def test_without_its_script_all_is_there_but_the_buttons(
    browser: Browser, site: int, name: str
) -> None:
    url = f"http://{HOST}:{site}/{name}"
    with opened(browser, url, script=False) as found:
        page = found.page
        assert page.get_by_role("button").count() == 0
        assert page.is_visible("#address-note")
        assert PLACEHOLDER in page.inner_text(".command >> nth=0")
        headings = page.get_by_role("heading").all_inner_texts()
    with opened(browser, url) as found:
        assert found.page.get_by_role("heading").all_inner_texts() == headings
        assert len(headings) >= 6


def test_by_keyboard(browser: Browser, site: int) -> None:
    with opened(browser, f"http://{HOST}:{site}/tree/index.html") as found:
        page = found.page
        page.keyboard.press("Tab")
        skip = page.locator(":focus")
        assert skip.inner_text() == "Skip to the content"
        box = skip.bounding_box()
        assert box and box["x"] >= 0  # seen once it has the focus
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Copy the iPXE command"
        style = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert style == "solid"
        page.keyboard.press("Enter")
        page.wait_for_function("document.getElementById('status').textContent !== ''")


def test_landmarks_and_tables_as_a_screen_reader_has_them(browser: Browser, site: int) -> None:
    for width in (NARROW, WIDE):  # rows that are blocks on a small screen are still rows
        with opened(browser, f"http://{HOST}:{site}/tree/index.html", width=width) as found:
            page = found.page
            for role in ("banner", "navigation", "main", "contentinfo"):
                assert page.get_by_role(role).count() == 1, role
            table = page.get_by_role("table", name="Every file with its size and SHA-256 digest")
            assert table.get_by_role("columnheader").all_inner_texts() == [
                "File",
                "Size",
                "SHA-256",
            ]
            assert table.get_by_role("rowheader", name="image.squashfs").count() == 1
            assert page.get_by_role("region", name="Boot it").count() == 1


def test_dark_is_dark_and_light_is_light(browser: Browser, site: int) -> None:
    found = {}
    for scheme in ("light", "dark"):
        with opened(browser, f"http://{HOST}:{site}/tree/", scheme=scheme) as at:
            colour = at.page.evaluate("getComputedStyle(document.body).backgroundColor")
            found[scheme] = sum(map(int, re.findall(r"\d+", colour)[:3]))
    assert found["light"] > 3 * 230
    assert found["dark"] < 3 * 40


def test_the_page_of_all_trees(browser: Browser, site: int) -> None:
    with opened(browser, f"http://{HOST}:{site}/index.html") as at:
        page = at.page
        table = page.get_by_role("table").first
        assert table.get_by_role("link").all_inner_texts() == ["Gentoo Linux amd64 (2026-11-22)"]
        table.get_by_role("link").click()
        assert page.url == f"http://{HOST}:{site}/tree/"
        assert page.title() == "Gentoo Linux amd64 (2026-11-22): network boot"
        listed = json.loads(get(site, "releases.json"))
        assert listed["menus"].keys() >= {"index.html", "menu.ipxe"}
