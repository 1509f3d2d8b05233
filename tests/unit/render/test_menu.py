"""Menus become loader configurations; whole outputs are compared in the golden cases."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from catalyst_pxeboot.formats.initramfs import Generator
from catalyst_pxeboot.loader import LOADERS
from catalyst_pxeboot.loader.common import Config
from catalyst_pxeboot.loader.grub import GRUB
from catalyst_pxeboot.model.files import Role
from catalyst_pxeboot.model.loader import Firmware, Loader
from catalyst_pxeboot.model.menu import HostEntry, Limits, LiveEntry, MemtestEntry, Menu
from catalyst_pxeboot.model.settings import NfsRoot, RootMode, Serial, Server
from catalyst_pxeboot.render.menu import render_configs, render_grub_early
from catalyst_pxeboot.util.errors import TemplateError
from catalyst_pxeboot.util.resources import templates_folder

LIVE = LiveEntry(
    name="gentoo",
    title="Boot LiveCD (kernel: gentoo)",
    kernel="boot/gentoo",
    initramfs="boot/gentoo.igz",
    padding=None,
    root_header="boot/root.cpio-header",
    squashfs="image.squashfs",
    arguments=("dokeymap", "root=live:/image.squashfs.img", "cdroot"),
    generator=Generator.DRACUT,
    joined="boot/gentoo.initrd",
)
#: The loaders that read a configuration.
CONFIGURED = [kind for kind, loader in LOADERS.items() if loader.configs]
HTTP = replace(LIVE, root=RootMode.HTTP, root_header=None)
MENU = Menu(title="Gentoo amd64", timeout=10, live=(LIVE,), memtests=(), serial=None)
URL = "http://10.1.2.3/live"
NFS = NfsRoot("10.1.2.4", "/srv/live", "vers=3")
MEMTESTS = (
    MemtestEntry("memtest-1", "Memtest BIOS 64", "memtest64.bios", Firmware.BIOS, 64),
    MemtestEntry("memtest-2", "Memtest BIOS 32", "memtest32.bios", Firmware.BIOS, 32),
    MemtestEntry("memtest-3", "Memtest EFI 64", "memtest.efi64", Firmware.EFI, 64),
    MemtestEntry("memtest-4", "Memtest EFI 32", "memtest.efi32", Firmware.EFI, 32),
)


def render(loader: Loader, menu: Menu = MENU, templates: Path | None = None) -> str:
    """Render one loader's configuration, check it, and return its text."""
    file = render_configs(menu, loaders=[loader], templates=templates)[0]
    text = file.content.decode()
    if templates is None:
        assert LOADERS[loader].check(text).problems == ()
    return text


def lines(text: str, start: str) -> list[str]:
    """Return the lines of `text` that begin with `start`, without white space around."""
    return [line.strip() for line in text.splitlines() if line.strip().startswith(start)]


def test_files_are_sorted_and_say_what_they_were_made_from() -> None:
    files = render_configs(MENU, loaders=CONFIGURED, templates=None)
    assert [(file.path, file.role, file.origin) for file in files] == [
        ("boot.ipxe", Role.CONFIG, "template boot.ipxe.j2"),
        ("boot/grub/grub.cfg", Role.CONFIG, "template boot/grub/grub.cfg.j2"),
        ("grub.cfg", Role.CONFIG, "template grub.cfg.j2"),
        ("grub/grub.cfg", Role.CONFIG, "template grub/grub.cfg.j2"),
        ("pxelinux.cfg/default", Role.CONFIG, "template pxelinux.cfg/default.j2"),
        ("pxelinux.cfg/default-arm", Role.CONFIG, "template pxelinux.cfg/default-arm.j2"),
    ]
    assert all(file.content.endswith(b"\n") and b"\r" not in file.content for file in files)


@pytest.mark.parametrize("loader", CONFIGURED)
@pytest.mark.parametrize("timeout", [None, 0, 10])
@pytest.mark.parametrize("padding", [None, "boot/gentoo.padding"])
@pytest.mark.parametrize("memtests", [(), MEMTESTS])
@pytest.mark.parametrize("serial", [None, Serial("ttyS1", 9600)])
@pytest.mark.parametrize("arguments", [(), LIVE.arguments])
@pytest.mark.parametrize("generator", list(Generator))
def test_every_mix_of_options_is_a_sound_configuration(
    loader: Loader,
    timeout: int | None,
    padding: str | None,
    memtests: tuple[MemtestEntry, ...],
    serial: Serial | None,
    arguments: tuple[str, ...],
    generator: Generator,
) -> None:
    live = replace(LIVE, padding=padding, arguments=arguments, generator=generator)
    check = "boot/root-check.cpio"
    others = [
        replace(live, name=f"gentoo-{root}", root=root, root_header=None, addon=check)
        for root in (RootMode.HTTP, RootMode.NFS)
    ]
    menu = Menu("T", timeout, (live, *others), memtests, serial, base_url=URL, nfs=NFS)
    file = render_configs(menu, loaders=[loader], templates=None)[0]
    config = LOADERS[loader].check(file.content.decode())
    assert config.problems == ()
    expected = {"boot/gentoo", "boot/gentoo.igz", "boot/root.cpio-header", "image.squashfs", check}
    expected |= {padding} if padding else set()
    if loader is Loader.UBOOT:
        expected = {"boot/gentoo", "boot/gentoo.initrd", "image.squashfs"}
    expected |= {
        entry.path for entry in memtests if entry.firmware in LOADERS[loader].memtest_firmware
    }
    if loader is Loader.GRUB:
        expected |= {"boot/grub/grub.cfg"}  # the menu comes back after a failure
    if loader is Loader.PXELINUX:
        expected |= {"menu.c32"} if timeout != 0 else set()
        expected |= {"reboot.c32", "poweroff.c32"}
    assert set(config.files) == expected


def test_ipxe_entry() -> None:
    text = render(Loader.IPXE)
    entry = text[text.index(":gentoo\n") : text.index("# On UEFI the firmware")]
    assert entry == (
        ":gentoo\n"
        "set kernel boot/gentoo\n"
        "set initrd boot/gentoo.igz\n"
        "set args dokeymap root=live:/image.squashfs.img cdroot\n"
        "goto boot_embedded\n"
        "\n"
    )
    block = text[text.index("imgfree\nkernel --name kernel") : text.index("# The command that")]
    assert block == (
        "imgfree\n"
        "kernel --name kernel ${base}${kernel} ${args} ${joined} ${bootif} ${keys} ${cmdline}"
        " || goto boot_failed\n"
        "initrd --name initramfs ${base}${initrd} || goto boot_failed\n"
        "isset ${old_efi} || goto root_header_loaded\n"
        "initrd --name root-header ${base}boot/root.cpio-header || goto boot_failed\n"
        ":root_header_loaded\n"
        "initrd --name live-root ${base}image.squashfs /image.squashfs.img || goto boot_failed\n"
        "boot || goto boot_failed\n"
        "\n"
    )


def test_ipxe_script_is_short_enough_to_read() -> None:
    """A menu of two entries in 115 lines, and 8 for each one more."""
    limits = {Loader.IPXE: Limits(1, {Firmware.BIOS: 82 << 20, Firmware.EFI: 140 << 20})}
    entries = tuple(replace(LIVE, name=name, limits=limits) for name in ("one", "two", "three"))
    two, three = (
        len(render(Loader.IPXE, replace(MENU, live=live, memtests=MEMTESTS[::2])).splitlines())
        for live in (entries[:2], entries)
    )
    assert two <= 115
    assert three - two <= 8
    template = (templates_folder() / "boot.ipxe.j2").read_text()
    assert template.count("{%") <= 38


def test_ipxe_padding_is_an_initrd_of_its_own() -> None:
    text = render(Loader.IPXE, replace(MENU, live=(replace(LIVE, padding="boot/pad"),)))
    assert lines(text, "set padding") == ["set padding boot/pad"]
    assert lines(text, "initrd")[:2] == [
        "initrd --name initramfs ${base}${initrd} || goto boot_failed",
        "initrd --name padding ${base}${padding} || goto boot_failed",
    ]
    assert lines(text, "isset ${old_efi} &&") == [
        "isset ${old_efi} && set joined initrd=initramfs ||",
        "isset ${old_efi} && isset ${padding} && set joined ${joined} initrd=padding ||",
        "isset ${old_efi} && set joined ${joined} initrd=root-header initrd=live-root ||",
    ]


def test_ipxe_keyboard_words_are_those_of_both_generators() -> None:
    assert lines(render(Loader.IPXE), "isset ${keymap}") == [
        "isset ${keymap} && set keys keymap=${keymap} rd.vconsole.keymap=${keymap} || clear keys"
    ]


@pytest.mark.parametrize(
    ("timeout", "milliseconds", "at_once"), [(None, 0, False), (0, 0, True), (10, 10000, False)]
)
def test_ipxe_timeout(timeout: int | None, milliseconds: int, at_once: bool) -> None:
    text = render(Loader.IPXE, replace(MENU, timeout=timeout))
    assert lines(text, "set menu_timeout")[0] == f"set menu_timeout {milliseconds}"
    start = f"set selected gentoo\nset menu_timeout {milliseconds}\n"
    assert f"{start}goto ${{selected}}\n\n:main_menu" in text or not at_once
    assert f"{start}\n:main_menu" in text or at_once
    # An unattended machine tries again; one that waits for a person goes on waiting.
    again = "prompt --timeout 30000 Press any key for the menu; in a minute it tries again ||\n"
    assert (f"{again}set menu_timeout 60000\ngoto main_menu\n" in text) == (timeout is not None)


def test_ipxe_memtest_only_where_it_can_run() -> None:
    text = render(Loader.IPXE, replace(MENU, memtests=MEMTESTS))
    assert lines(text, "iseq ${platform}")[:4] == [
        "iseq ${platform} pcbios && cpuid --ext 29 && item memtest-1 Memtest BIOS 64 ||",
        "iseq ${platform} pcbios && item memtest-2 Memtest BIOS 32 ||",
        "iseq ${platform} efi && iseq ${buildarch} x86_64 && item memtest-3 Memtest EFI 64 ||",
        "iseq ${platform} efi && iseq ${buildarch} i386 && item memtest-4 Memtest EFI 32 ||",
    ]


def test_ipxe_has_no_double_slash_and_no_own_address() -> None:
    text = render(Loader.IPXE, replace(MENU, memtests=MEMTESTS))
    commands = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    assert "//" not in commands


def test_pxelinux_entry() -> None:
    text = render(Loader.PXELINUX, replace(MENU, live=(replace(LIVE, padding="boot/pad"),)))
    assert text[text.index("LABEL gentoo") : text.index("MENU SEPARATOR")] == (
        "LABEL gentoo\n"
        "  MENU LABEL Boot LiveCD (kernel: gentoo)\n"
        "  MENU DEFAULT\n"
        "  LINUX boot/gentoo\n"
        "  INITRD boot/gentoo.igz,boot/pad,boot/root.cpio-header,image.squashfs\n"
        "  APPEND dokeymap root=live:/image.squashfs.img cdroot\n"
        "  SYSAPPEND 2\n"
        "\n"
    )


def test_pxelinux_without_arguments() -> None:
    menu = replace(MENU, live=(replace(LIVE, arguments=()),))
    assert lines(render(Loader.PXELINUX, menu), "APPEND") == ["APPEND -"]


@pytest.mark.parametrize(
    ("timeout", "directives"),
    [
        (None, ["UI menu.c32", "PROMPT 0"]),
        (0, ["DEFAULT gentoo", "PROMPT 0"]),
        (10, ["UI menu.c32", "PROMPT 0", "TIMEOUT 100"]),
    ],
)
def test_pxelinux_timeout(timeout: int | None, directives: list[str]) -> None:
    text = render(Loader.PXELINUX, replace(MENU, timeout=timeout))
    found = [line for line in text.splitlines() if line.split(" ")[0] in
             {"UI", "DEFAULT", "PROMPT", "ONERROR", "TIMEOUT"}]  # fmt: skip
    assert found == directives


def test_pxelinux_serial_is_the_first_directive() -> None:
    text = render(Loader.PXELINUX, replace(MENU, serial=Serial("ttyS1", 9600)))
    directives = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert directives[0] == "SERIAL 1 9600"
    assert lines(render(Loader.PXELINUX), "SERIAL") == []


def test_pxelinux_has_the_bios_memtests_only() -> None:
    text = render(Loader.PXELINUX, replace(MENU, memtests=MEMTESTS))
    assert lines(text, "LABEL") == [
        "LABEL gentoo",
        "LABEL memtest-1",
        "LABEL memtest-2",
        "LABEL local_disk",
        "LABEL restart",
        "LABEL power_off",
    ]


def test_pxelinux_line_limit() -> None:
    fits = replace(LIVE, arguments=("x" * 1940,))
    render(Loader.PXELINUX, replace(MENU, live=(fits,)))
    with pytest.raises(TemplateError) as caught:
        render(Loader.PXELINUX, replace(MENU, live=(replace(fits, arguments=("x" * 1941,)),)))
    assert str(caught.value) == (
        'PXELINUX: the command line of "Boot LiveCD (kernel: gentoo)" is 2048 bytes long, more than'
        " its 2047; shorten the arguments, or leave pxelinux out of pxeboot/loaders"
    )


def test_grub_entry() -> None:
    live = replace(LIVE, padding="boot/pad", arguments=("a;b", "quiet"))
    text = render(Loader.GRUB, replace(MENU, live=(live,)))
    entry = text[text.index("menuentry 'Boot LiveCD") : text.index('if [ "$grub_platform" = pc ]')]
    assert entry == (
        "menuentry 'Boot LiveCD (kernel: gentoo)' --id gentoo {\n"
        '    set kernel="boot/gentoo"\n'
        '    set initrds="boot/gentoo.igz boot/pad boot/root.cpio-header image.squashfs"\n'
        "    boot_live 'a;b' quiet\n"
        "}\n"
        "\n"
    )
    block = text[text.index("function boot_live {") : text.index("menuentry 'Boot LiveCD")]
    assert block == (
        "function boot_live {\n"
        '    echo "Loading ${base}${kernel}"\n'
        '    if linux "${base}${kernel}" "$@" $bootif $cmdline; then\n'
        "        set files=\n"
        "        for file in $initrds; do\n"
        '            set files="$files ${base}${file}"\n'
        "        done\n"
        '        echo "Loading$files; this may take minutes"\n'
        "        if initrd $files; then\n"
        "            boot\n"
        "        fi\n"
        "    fi\n"
        "    menu_again\n"
        "}\n"
        "\n"
    )


@pytest.mark.parametrize(("timeout", "values"), [(None, [-1]), (0, [0, -1]), (10, [10, -1])])
def test_grub_timeout_and_default(timeout: int | None, values: list[int]) -> None:
    text = render(Loader.GRUB, replace(MENU, timeout=timeout))
    assert lines(text, "set timeout") == [f"set timeout={value}" for value in values]
    assert lines(text, "set default") == ["set default=gentoo"]
    # An unattended machine starts again; one that waits for a person goes on waiting.
    assert ("if sleep --interruptible 60; then\n            reboot" in text) == (
        timeout is not None
    )
    assert ("while sleep --interruptible 3600; do\n" in text) == (timeout is None)


def test_grub_that_was_not_made_for_the_tree() -> None:
    menu, root, folder = render_configs(MENU, loaders=[Loader.GRUB], templates=None)
    assert (menu.path, root.path, folder.path) == (
        "boot/grub/grub.cfg", "grub.cfg", "grub/grub.cfg",
    )  # fmt: skip
    assert root.content == folder.content
    assert GRUB.check(folder.content.decode()) == Config(
        ("boot/grub/grub.cfg",), (), ("boot/grub/grub.cfg",)
    )


#: The commands of Debian's signed network image (2.06-13+deb12u2) that a menu may use. Under
#: Secure Boot it loads no other module, and goes on after an unknown command as if nothing were.
SIGNED_GRUB = frozenset(
    {"[", "boot", "break", "chainloader", "configfile", "cpuid", "echo", "exit", "export", "for",
     "function", "fwsetup", "halt", "initrd", "linux", "menuentry", "reboot", "regexp", "serial",
     "set", "sleep", "source", "terminal_input", "terminal_output", "test", "true"}
)  # fmt: skip


@pytest.mark.parametrize("timeout", [None, 10])
def test_a_signed_grub_has_every_command(timeout: int | None) -> None:
    menu = replace(MENU, timeout=timeout, memtests=MEMTESTS, serial=Serial("ttyS0", 115200))
    keywords = r"(?:(?:if|elif|then|else|while|do|!)\s+)*"
    for file in render_configs(menu, loaders=[Loader.GRUB], templates=None):
        text = re.sub(r"(?m)^\s*#.*$|'[^'\n]*'|\"[^\"\n]*\"", "", file.content.decode())
        starts = re.findall(rf"(?:^|;)\s*{keywords}([a-z_\[]+)", text, re.MULTILINE)
        used = set(starts) - {"fi", "done", "else", "then", "boot_live", "menu_again"}
        assert used <= SIGNED_GRUB
        assert {"set", "source" if "source" in text else "linux"} <= used


def test_grub_tells_what_secure_boot_refuses() -> None:
    text = render(Loader.GRUB)
    hint = text[text.index('if [ "$lockdown" = y ]; then') :]
    hint = hint[: hint.index("fi\n")]
    shown = [line.removeprefix("echo '").removesuffix("'") for line in lines(hint, "echo")]
    assert shown[0].startswith('Secure Boot is on. "bad shim signature" means: ')
    assert max(map(len, shown)) < 80


def test_grub_serial() -> None:
    text = render(Loader.GRUB, replace(MENU, serial=Serial("ttyS1", 9600)))
    assert lines(text, "serial") == ["serial --unit=1 --speed=9600"]
    assert lines(render(Loader.GRUB), "serial") == []


def test_grub_memtests_by_firmware_and_processor() -> None:
    text = render(Loader.GRUB, replace(MENU, memtests=MEMTESTS))
    conditions = [
        'if [ "$grub_platform" = efi -a "$grub_cpu" = x86_64 ]; then',
        'if [ "$grub_platform" = efi -a "$grub_cpu" = i386 ]; then',
    ]
    assert lines(text, 'if [ "$grub_platform" = efi -a') == conditions
    assert lines(text, "if cpuid") == ["if cpuid -l; then"]
    assert lines(text, "if linux")[1:] == [
        'if linux "${base}memtest64.bios"; then boot; fi',
        'if linux "${base}memtest32.bios"; then boot; fi',
    ]


def test_grub_early_configuration_uses_plain_commands_only() -> None:
    text = render_grub_early(None)
    assert GRUB.check(text).problems == ()
    commands = [line for line in text.splitlines() if not line.startswith("#")]
    assert {line.split(" ")[0] for line in commands} == {"regexp", "set", "export", "echo"}


def test_grub_early_configuration_takes_the_given_server_in_place_of_dhcps() -> None:
    text = render_grub_early(None, Server(address="10.1.2.3"))
    assert GRUB.check(text).problems == ()
    assert {line.split(" ")[0] for line in text.splitlines()} == {"regexp", "set", "export", "echo"}
    (line,) = [line for line in text.splitlines() if "set=3:folder" in line]
    pattern = line.split("'")[1].replace("[(]", r"\(").replace("[)]", r"\)")
    for base, expected in {
        "(tftp,192.0.2.9)": ("tftp", None, ""),
        "(tftp,192.0.2.9)sub/": ("tftp", None, "sub/"),
        "(http,192.0.2.9:8080)/deep/er/": ("http", ":8080", "/deep/er/"),
    }.items():
        found = re.fullmatch(pattern.strip("^$"), base)
        assert found and found.groups() == expected, base
    assert 'set base="($scheme,10.1.2.3$port)$folder"' in text


def test_two_entries_of_one_name_are_refused() -> None:
    with pytest.raises(TemplateError) as caught:
        render(Loader.GRUB, replace(MENU, live=(LIVE, LIVE)))
    assert str(caught.value) == ('two menu entries are named "gentoo"; give each a name of its own')


def test_a_loader_shows_what_it_can_lead_to_a_root() -> None:
    """The first of what it offers is its default, though another loader's is another one."""
    http = replace(HTTP, name="gentoo-http", offered=(Loader.GRUB,))
    menu = replace(MENU, live=(http, LIVE))
    assert lines(render(Loader.GRUB, menu), "set default") == ["set default=gentoo-http"]
    assert lines(render(Loader.PXELINUX, menu), "LABEL gentoo") == ["LABEL gentoo"]


@pytest.mark.parametrize(
    ("loader", "menu", "expected"),
    [
        (Loader.IPXE, {}, "root=live:${root_url}image.squashfs ${address}"),
        (Loader.GRUB, {}, '"root=live:${root_url}image.squashfs" ip=dhcp'),
        (Loader.PXELINUX, {"base_url": URL}, f"root=live:{URL}/image.squashfs ip=dhcp"),
        (Loader.UBOOT, {"base_url": URL}, f"root=live:{URL}/image.squashfs ip=dhcp"),
    ],
)
def test_a_root_over_http_has_its_address(
    loader: Loader, menu: dict[str, str], expected: str
) -> None:
    text = render(loader, replace(MENU, live=(HTTP,), **menu))  # type: ignore[arg-type]
    assert expected in text
    assert "boot/root.cpio-header" not in text
    assert LOADERS[loader].check(text).files.count("image.squashfs") == 1


@pytest.mark.parametrize("server", ["10.1.2.4", None])
@pytest.mark.parametrize(("loader", "boot_server"), [
    (Loader.IPXE, "${nfs_server}"), (Loader.GRUB, "${nfs_server}"),
    (Loader.PXELINUX, None), (Loader.UBOOT, None),
])  # fmt: skip
def test_a_root_over_nfs_has_its_address(
    loader: Loader, boot_server: str | None, server: str | None
) -> None:
    if server is None and boot_server is None:
        return  # the plan offers no such entry
    where = server or boot_server
    for generator, expected in (
        (Generator.DRACUT, f"root=live:nfs:vers=3:{where}:/srv/live/image.squashfs"),
        (Generator.GENKERNEL, f"nfsroot={where}:/srv/live,vers=3"),
    ):
        entry = replace(HTTP, root=RootMode.NFS, generator=generator)
        menu = replace(MENU, live=(entry,), nfs=replace(NFS, server=server))
        text = render(loader, menu)
        assert expected in text
        assert ("loop=/image.squashfs" in text) is (generator is Generator.GENKERNEL)
        assert "image.squashfs" in LOADERS[loader].check(text).files


def test_the_root_check_is_one_more_initrd() -> None:
    entry = replace(HTTP, padding="boot/gentoo.igz.pad", addon="boot/root-check.cpio")
    menu = replace(MENU, live=(entry,), base_url=URL)
    assert lines(render(Loader.PXELINUX, menu), "INITRD") == [
        "INITRD boot/gentoo.igz,boot/gentoo.igz.pad,boot/root-check.cpio"
    ]
    script = render(Loader.IPXE, menu)
    assert lines(script, "isset ${old_efi}") == [
        "isset ${old_efi} && set joined initrd=initramfs ||",
        "isset ${old_efi} && isset ${padding} && set joined ${joined} initrd=padding ||",
        "isset ${old_efi} && isset ${addon} && set joined ${joined} initrd=addon ||",
    ]
    assert lines(script, "initrd ") == [
        "initrd --name initramfs ${base}${initrd} || goto boot_failed",
        "initrd --name padding ${base}${padding} || goto boot_failed",
        "initrd --name addon ${base}${addon} || goto boot_failed",
    ]


def test_titles_say_the_root_mode_and_the_memory_of_the_firmware() -> None:
    memory = Limits(1, {Firmware.BIOS: 700 << 20, Firmware.EFI: (900 << 20) - 5})
    limits = {Loader.IPXE: memory, Loader.GRUB: memory, Loader.PXELINUX: memory}
    entry = replace(HTTP, limits=limits)
    menu = replace(MENU, live=(entry, replace(entry, name="second")), base_url=URL)
    grub = render(Loader.GRUB, menu)
    assert lines(grub, "menuentry 'Boot LiveCD")[0] == (
        "menuentry 'Boot LiveCD (kernel: gentoo), root over HTTP'\", $memory_gentoo MiB of memory\""
        " --id gentoo {"
    )
    assert (
        "set memory_gentoo=900\n"
        'if [ "$grub_platform" = pc ]; then\n'
        "    set memory_gentoo=700\n"
        "fi\n\n"
    ) in grub
    script = render(Loader.IPXE, menu)
    assert lines(script, "item gentoo ") == [
        "item gentoo Boot LiveCD (kernel: gentoo), root over HTTP, ${memory_gentoo} MiB of memory"
    ]
    # The same figure has one name.
    assert lines(script, "iseq ${platform} pcbios && set memory") == [
        "iseq ${platform} pcbios && set memory_gentoo 700 || set memory_gentoo 900"
    ]
    assert lines(script, "set need") == ["set need ${memory_gentoo}"] * 2
    assert lines(render(Loader.PXELINUX, menu), "MENU LABEL Boot LiveCD")[0] == (
        "MENU LABEL Boot LiveCD (kernel: gentoo), root over HTTP, 700 MiB of memory"
    )


def write(folder: Path, name: str, text: str) -> Path:
    """Write a user's template and return the folder."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return folder


def test_one_template_is_replaced_and_the_others_stay(tmp_path: Path) -> None:
    write(tmp_path, "boot.ipxe.j2", "#!ipxe\necho {{ title }} {{ live[0].arguments }}\n")
    files = render_configs(MENU, loaders=CONFIGURED, templates=tmp_path)
    assert files[0].content == (
        b"#!ipxe\necho Gentoo amd64 dokeymap root=live:/image.squashfs.img cdroot\n"
    )
    assert files[0].origin == "template boot.ipxe.j2 (own)"
    others = [loader for loader in Loader if loader is not Loader.IPXE]
    assert files[1:] == render_configs(MENU, loaders=others, templates=None)


def test_a_template_may_include_its_neighbours_and_the_shipped_ones(tmp_path: Path) -> None:
    write(tmp_path, "site.inc", "echo {{ default }}\n")
    write(
        tmp_path, "boot.ipxe.j2", '{% include "site.inc" %}{% include "pxelinux.cfg/default.j2" %}'
    )
    text = render(Loader.IPXE, templates=tmp_path)
    assert text.startswith("echo gentoo\n# Gentoo amd64\n")


def test_the_early_configuration_can_be_replaced(tmp_path: Path) -> None:
    write(tmp_path, "boot/grub/early.cfg.j2", "set prefix=(http,192.0.2.1)/x\n")
    assert render_grub_early(tmp_path) == "set prefix=(http,192.0.2.1)/x\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "#!ipxe\n{{ titel }}\n",
            "template {file}, line 2: 'titel' is undefined; correct the template; the values it"
            " may use are: base_url config default folder hosts live memories memtests nfs personal"
            " root_member serial signed timeout title",
        ),
        (
            "\n{% for entry in live %}\n{{ entry.tilte }}\n{% endfor %}",
            "template {file}, line 3: 'catalyst_pxeboot.render.menu.LiveView object' has no"
            " attribute 'tilte'; correct the template; the values it may use are: base_url config"
            " default folder hosts live memories memtests nfs personal root_member serial signed"
            " timeout title",
        ),
        (
            "\n\n{% if %}",
            "template {file}, line 3: Expected an expression, got 'end of statement block';"
            " correct the template; see Jinja2's template documentation",
        ),
        (
            "{% for x in live %}",
            "template {file}, line 1: Unexpected end of template. Jinja was looking for the"
            " following tags: 'endfor' or 'else'. The innermost block that needs to be closed is"
            " 'for'.; correct the template; see Jinja2's template documentation",
        ),
        (
            '{% include "gone.inc" %}',
            'template boot.ipxe.j2: includes "gone.inc", which is not there; put it into the'
            " folder of pxeboot/templates or leave the include out",
        ),
        (
            '{% include "../secret" %}',
            'template boot.ipxe.j2: includes "../secret", which is not there; put it into the'
            " folder of pxeboot/templates or leave the include out",
        ),
        (
            "{{ 1 / 0 }}",
            "template {file}, line 1: division by zero; correct the template; the values it may"
            " use are: base_url config default folder hosts live memories memtests nfs personal"
            " root_member serial signed timeout title",
        ),
        (
            "{{ title.__class__.__mro__ }}",
            "template {file}, line 1: access to attribute '__class__' of 'str' object is unsafe.;"
            " correct the template; the values it may use are: base_url config"
            " default folder hosts live memories memtests nfs personal root_member serial signed"
            " timeout title",
        ),
    ],
)
def test_a_faulty_template_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path, "boot.ipxe.j2", text)
    with pytest.raises(TemplateError) as caught:
        render(Loader.IPXE, templates=tmp_path)
    assert str(caught.value) == message.format(file=tmp_path / "boot.ipxe.j2")


def test_a_template_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "boot.ipxe.j2").write_bytes(b"#!ipxe\n\xff")
    with pytest.raises(TemplateError) as caught:
        render(Loader.IPXE, templates=tmp_path)
    assert str(caught.value) == "template boot.ipxe.j2: byte 7 is not UTF-8; save the file as UTF-8"


def test_a_template_that_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "boot.ipxe.j2"
    file.mkdir()
    with pytest.raises(TemplateError) as caught:
        render(Loader.IPXE, templates=tmp_path)
    assert str(caught.value) == (
        f"template {file}: Is a directory; make the file readable or correct pxeboot/templates"
    )


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "templates"
    write(tmp_path, "outside", "x")
    folder.mkdir()
    (folder / "boot.ipxe.j2").symlink_to(tmp_path / "outside")
    with pytest.raises(TemplateError) as caught:
        render(Loader.IPXE, templates=folder)
    assert str(caught.value) == (
        f"template {folder / 'boot.ipxe.j2'}: leads out of {folder};"
        " put a copy into the folder instead of a link"
    )


def test_templates_that_are_no_folder(tmp_path: Path) -> None:
    with pytest.raises(TemplateError) as caught:
        render(Loader.IPXE, templates=tmp_path / "gone")
    assert str(caught.value) == (
        f"pxeboot/templates: {tmp_path / 'gone'} is not a folder;"
        " name a folder, or leave the key out to use the shipped templates"
    )


def test_every_loader_has_its_templates() -> None:
    assert set(LOADERS) == set(Loader)


def test_jinja_is_imported_only_to_render() -> None:
    code = (
        "import sys, catalyst_pxeboot.render.menu, catalyst_pxeboot.loader.binaries;"
        " sys.exit('jinja2' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


HOSTS = (
    HostEntry("02-00-00-00-00-01", "a.toml", "hosts/02-00-00-00-00-01.cpio", ("quiet",), "gentoo"),
    HostEntry("02-00-00-00-00-02", "b.toml", None, ("a;b", "c*"), ""),
    HostEntry("4c4c4544-0044-4a10-8030-b7c04f4b3233", "c.toml", "hosts/c.cpio", (), "other"),
)


@pytest.mark.parametrize("loader", CONFIGURED)
@pytest.mark.parametrize("timeout", [None, 0, 10])
def test_single_machines_are_in_every_sound_configuration(
    loader: Loader, timeout: int | None
) -> None:
    other = replace(LIVE, name="other", root=RootMode.HTTP, root_header=None)
    menu = replace(MENU, live=(LIVE, other), timeout=timeout, base_url=URL, hosts=HOSTS)
    files = render_configs(menu, loaders=[loader], templates=None)
    configs = {file.path: LOADERS[loader].check(file.content.decode()) for file in files}
    assert {problem for config in configs.values() for problem in config.problems} == set()
    archives = {
        name for config in configs.values() for name in config.opened if name.startswith("hosts/")
    }
    expected = {host.archive for host in HOSTS if host.archive}
    assert archives == (set() if loader is Loader.UBOOT else expected)


def test_pxelinux_has_a_menu_for_each_machine() -> None:
    files = render_configs(replace(MENU, hosts=HOSTS), loaders=[Loader.PXELINUX], templates=None)
    texts = {file.path: file.content.decode() for file in files}
    first, second, third = (f"pxelinux.cfg/{name}" for name in (
        "01-02-00-00-00-00-01", "01-02-00-00-00-00-02", HOSTS[2].name,
    ))  # fmt: skip
    swapped = "pxelinux.cfg/44454c4c-4400-104a-8030-b7c04f4b3233"  # as QEMU's ROM asks
    assert texts.keys() == {"pxelinux.cfg/default", first, second, third, swapped}
    assert texts[swapped] == texts[third]
    assert "DEFAULT gentoo" in texts[first] and "TIMEOUT" not in texts[first]
    assert lines(texts[first], "APPEND")[0].endswith(" quiet")
    assert lines(texts[first], "INITRD")[0].endswith(",hosts/02-00-00-00-00-01.cpio")
    assert lines(texts[second], "APPEND")[0].endswith(" a;b c*")
    assert "hosts/" not in texts[second]
    assert "TIMEOUT 100" in texts[third]  # its menu does not have the entry
    assert "hosts/" not in texts["pxelinux.cfg/default"]


def test_what_a_loader_refuses_names_the_machine() -> None:
    host = replace(HOSTS[0], arguments=("${x}",))
    with pytest.raises(TemplateError, match=r"^pxeboot/hosts: a\.toml: iPXE: the kernel argument"):
        render(Loader.IPXE, replace(MENU, hosts=(host,)))


def test_ipxe_finds_a_jump_to_machines_that_are_not_there() -> None:
    text = render(Loader.IPXE, replace(MENU, hosts=HOSTS)).replace(":host_", ":hust_")
    problems = LOADERS[Loader.IPXE].check(text).problems
    assert any('no label begins with "host_"' in found for found in problems)
