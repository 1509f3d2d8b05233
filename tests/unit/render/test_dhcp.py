"""DHCP configurations: their text."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from catalyst_pxeboot.model.arch import all_arches, find_arch
from catalyst_pxeboot.model.files import Role
from catalyst_pxeboot.model.loader import BootProgram
from catalyst_pxeboot.model.settings import Server
from catalyst_pxeboot.render.dhcp import DHCP_CONFIGS, render_dhcp
from catalyst_pxeboot.util.errors import SpecError, TemplateError
from catalyst_pxeboot.util.resources import read_table
from tests.support.dhcp import AMD64_FILES, render
from tests.support.readers import rules


def test_files_are_sorted_and_say_what_they_were_made_from() -> None:
    files = render_dhcp(find_arch("amd64"), files=AMD64_FILES, server=None, templates=None)
    assert [(file.path, file.role, file.origin) for file in files] == [
        (path, Role.CONFIG, f"template {path}.j2") for path in sorted(DHCP_CONFIGS)
    ]
    assert all(file.content.endswith(b"\n") and b"\r" not in file.content for file in files)
    assert not [
        line for file in files for line in file.content.split(b"\n") if line != line.rstrip()
    ]


def test_dnsmasq() -> None:
    assert rules(render("dnsmasq.conf")) == [
        "dhcp-range=192.0.2.100,192.0.2.199,255.255.255.0,1h",
        "enable-tftp",
        "tftp-root=/srv/pxeboot",
        "port=0",
        "dhcp-authoritative",
        "dhcp-userclass=set:ipxe,iPXE",
        "dhcp-match=set:ipxe,175",
        "dhcp-boot=tag:ipxe,http://192.0.2.1/boot.ipxe",
        "dhcp-match=set:bios,option:client-arch,0",
        "dhcp-boot=tag:bios,tag:!ipxe,undionly.kpxe",
        "dhcp-match=set:x64,option:client-arch,7",
        "dhcp-match=set:x64,option:client-arch,9",
        "dhcp-boot=tag:x64,tag:!ipxe,snponly.efi",
        "dhcp-match=set:x64-http,option:client-arch,16",
        "dhcp-option-force=tag:x64-http,tag:!ipxe,60,HTTPClient",
        "dhcp-boot=tag:x64-http,tag:!ipxe,http://192.0.2.1/boot/grub/x86_64-efi/core.efi",
        "dhcp-match=set:ia32,option:client-arch,6",
        "dhcp-boot=tag:ia32,tag:!ipxe,boot/grub/i386-efi/core.efi",
        "dhcp-match=set:ia32-http,option:client-arch,15",
        "dhcp-option-force=tag:ia32-http,tag:!ipxe,60,HTTPClient",
        "dhcp-boot=tag:ia32-http,tag:!ipxe,http://192.0.2.1/boot/grub/i386-efi/core.efi",
    ]


def test_dnsmasq_proxy() -> None:
    server = Server(
        address="198.51.100.130",
        netmask="255.255.255.192",
        range_first="198.51.100.140",
        range_last="198.51.100.150",
        interface="br0",
        http_port=8080,
        http_prefix="c",
        tftp_prefix="a/b",
        tftp_root="/srv/live",
    )
    files = ("boot.ipxe", "undionly.kpxe", "ipxe.efi")
    assert rules(render("dnsmasq-proxy.conf", files=files, server=server)) == [
        "dhcp-range=198.51.100.128,proxy,255.255.255.192",
        "interface=br0",
        "bind-dynamic",
        "enable-tftp",
        "tftp-root=/srv/live",
        "port=0",
        "dhcp-userclass=set:ipxe,iPXE",
        "dhcp-match=set:ipxe,175",
        "dhcp-boot=tag:ipxe,http://198.51.100.130:8080/c/boot.ipxe",
        'pxe-service=tag:ipxe,x86PC,"iPXE menu",http://198.51.100.130:8080/c/boot.ipxe',
        "dhcp-match=set:bios,option:client-arch,0",
        'pxe-service=tag:!ipxe,x86PC,"Network boot",a/b/undionly.kpxe',
        "dhcp-match=set:x64,option:client-arch,7",
        "dhcp-match=set:x64,option:client-arch,9",
        "dhcp-boot=tag:x64,tag:!ipxe,a/b/ipxe.efi",
        "dhcp-ignore=tag:!ipxe,tag:!bios,tag:!x64",
    ]


def read_kea(text: str) -> dict[str, object]:
    """Read Kea's JSON without its comments."""
    lines = [line for line in text.splitlines() if not line.strip().startswith("//")]
    loaded = json.loads("\n".join(lines))["Dhcp4"]
    assert isinstance(loaded, dict)
    return loaded


def test_kea() -> None:
    files = ("boot.ipxe", "lpxelinux.0", "boot/grub/i386-efi/core.efi")
    server = Server(interface="lan0", tftp_prefix="sub")
    first = "substring(option[93].hex, 0, 2)"
    assert read_kea(render("kea-dhcp4.json", files=files, server=server)) == {
        "next-server": "192.0.2.1",
        "interfaces-config": {"interfaces": ["lan0"]},
        "subnet4": [
            {
                "id": 1,
                "subnet": "192.0.2.0/24",
                "pools": [{"pool": "192.0.2.100 - 192.0.2.199"}],
                "option-data": [],
            }
        ],
        "authoritative": True,
        "valid-lifetime": 3600,
        "lease-database": {"type": "memfile"},
        "client-classes": [
            {
                "name": "ipxe",
                "test": "option[77].hex == 'iPXE' or option[175].exists",
                "boot-file-name": "http://192.0.2.1/boot.ipxe",
            },
            {
                "name": "bios",
                "test": f"not member('ipxe') and ({first} == 0x0000)",
                "option-data": [
                    {
                        "code": 210,
                        "csv-format": False,
                        "data": "'http://192.0.2.1/'",
                        "always-send": True,
                    }
                ],
                "boot-file-name": "sub/lpxelinux.0",
            },
            {
                "name": "ia32",
                "test": f"not member('ipxe') and ({first} == 0x0006)",
                "boot-file-name": "sub/boot/grub/i386-efi/core.efi",
            },
            {
                "name": "ia32-http",
                "test": f"not member('ipxe') and ({first} == 0x000f)",
                "option-data": [
                    {"name": "vendor-class-identifier", "data": "HTTPClient", "always-send": True}
                ],
                "boot-file-name": "http://192.0.2.1/boot/grub/i386-efi/core.efi",
            },
        ],
    }


def test_dhcpd() -> None:
    text = render("dhcpd.conf", arch="arm64", files=("boot/grub/arm64-efi/core.efi",))
    first = "substring(option client-arch, 0, 2)"
    assert rules(text) == [
        "option tree-url code 224 = text;",
        'option tree-url "http://192.0.2.1/";',
        "next-server 192.0.2.1;",
        "subnet 192.0.2.0 netmask 255.255.255.0 {",
        "range 192.0.2.100 192.0.2.199;",
        "}",
        "authoritative;",
        "default-lease-time 3600;",
        "max-lease-time 7200;",
        "ddns-update-style none;",
        "option client-arch code 93 = string;",
        "option path-prefix code 210 = text;",
        "option ipxe-options code 175 = string;",
        f"if {first} = 00:0b {{",
        'filename "boot/grub/arm64-efi/core.efi";',
        "}",
        f"elsif {first} = 00:13 {{",
        'option vendor-class-identifier "HTTPClient";',
        "option dhcp-parameter-request-list = concat(option dhcp-parameter-request-list, 3c);",
        'filename = concat(config-option tree-url, "boot/grub/arm64-efi/core.efi");',
        "}",
    ]


ALL_LOADERS = sorted({f for a in all_arches() for c in a.dhcp for f in c.loaders + c.http_loaders})


@pytest.mark.parametrize("arch", [arch.subarches[0] for arch in all_arches()])
@pytest.mark.parametrize("config", [Path(path).name for path in DHCP_CONFIGS])
def test_only_loaders_that_the_tree_has_are_named(config: str, arch: str) -> None:
    def named(text: str) -> set[str]:
        files = r"(?:[\w./:-]*[a-z]\w*\.(?:efi|kpxe|0)|manifest\.json)(?=[\"'\n])"
        return set(re.findall(files, text))

    client_files = {f for c in find_arch(arch).dhcp for f in c.loaders}
    if "proxy" in config:
        # GRUB, shim and U-Boot read the other server's answer only. HTTP Boot is told of in a
        # comment: a URL to type into the firmware.
        pxe = {f for f in client_files if f.startswith(("ipxe", "snponly", "undionly"))}
        http = {f for c in find_arch(arch).dhcp for f in c.http_loaders}
        client_files = pxe | http | (client_files & {"pxelinux.0", "lpxelinux.0"})
    for file in ALL_LOADERS:
        text = render(config, arch=arch, files=("boot.ipxe", file))
        found = {name.removeprefix("http://192.0.2.1/") for name in named(text)}
        assert found == ({file} & client_files), file
    assert named(render(config, arch=arch, files=("boot.ipxe", "README.efi"))) == set()


@pytest.mark.parametrize("config", [Path(path).name for path in DHCP_CONFIGS])
def test_ipxe_needs_its_script(config: str) -> None:
    files = tuple(file for file in AMD64_FILES if file != "boot.ipxe")
    text = render(config, files=files)
    assert "undionly" not in text and "ipxe.efi" not in text and "snponly" not in text
    assert "boot.ipxe" not in text and "!ipxe" not in text and "member('ipxe')" not in text
    assert "pxelinux.0" in text and "boot/grub/x86_64-efi/core.efi" in text


@pytest.mark.parametrize("config", [Path(path).name for path in DHCP_CONFIGS])
def test_other_loaders_stay_as_comments_in_order(config: str) -> None:
    text = render(config, files=("boot.ipxe", "ipxe.efi", "boot/grub/x86_64-efi/core.efi",
                                 "shimx64.efi", "undionly.kpxe", "pxelinux.0"))  # fmt: skip
    active = "\n".join(rules(text))
    assert "pxelinux.0" not in active and "shimx64.efi" not in active
    assert text.count("pxelinux.0") == 1
    if "proxy" in config:
        assert "shim" not in text and "# GRUB is not among them" in text
        return
    assert text.count("shimx64.efi") == 1  # no HTTP Boot by it
    assert "Secure Boot" in text and "Secure Boot" not in render(config)


@pytest.mark.parametrize("config", ["dnsmasq.conf", "dnsmasq-proxy.conf", "kea-dhcp4.json"])
def test_the_command_in_the_head_sets_the_address_everywhere(config: str, tmp_path: Path) -> None:
    text = render(config)
    (command,) = re.findall(r"sed -i '(\S+)' " + re.escape(config), text)
    (tmp_path / config).write_text(text)
    done = subprocess.run(
        ["sed", command.replace("SERVER.ADDRESS", "10.1.2.3"), str(tmp_path / config)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert "192.0.2.1" not in re.sub(r"192\.0\.2\.1\d\d", "", done.stdout)
    assert "http://10.1.2.3/boot.ipxe" in done.stdout
    if "proxy" not in config:
        assert re.search(r"192\.0\.2\.100.+192\.0\.2\.199", done.stdout)


def test_every_code_belongs_to_one_client_of_an_architecture() -> None:
    for arch in all_arches():
        codes = [code for client in arch.dhcp for code in client.codes + client.http_codes]
        assert len(codes) == len(set(codes))
    clients = {
        (client.name, client.codes, client.http_codes, client.loaders, client.http_loaders)
        for arch in all_arches()
        for client in arch.dhcp
    }
    assert {(name, codes, http) for name, codes, http, *_ in clients} >= {
        ("bios", (0,), ()),
        ("ia32", (6,), (15,)),
        ("x64", (7, 9), (16,)),
        ("arm32", (10,), (18,)),
        ("arm64", (11,), (19,)),
    }
    # amd64 and x86 say the same of the clients that they share
    assert len(clients) == len({name for name, *_ in clients})


def test_every_grub_image_of_an_architecture_has_a_client() -> None:
    for arch in all_arches():
        images = {f"boot/grub/{platform}/{name}" for platform, name in arch.grub.items()}
        assert images == {
            f for client in arch.dhcp for f in client.loaders if f.startswith("boot/grub/")
        }


def test_every_loader_can_get_into_a_tree() -> None:
    tables = read_table("loader/binaries.toml")
    paths = {file["path"] for loader in ("ipxe", "pxelinux") for file in tables[loader]["files"]}
    others = [file for file in ALL_LOADERS if not file.startswith(("boot/grub/", "shim"))]
    # U-Boot is told the manifest, for its folder.
    assert [file for file in others if file not in paths] == ["manifest.json"]


@pytest.mark.parametrize(
    ("server", "message"),
    [
        (Server(address="pxe"), "address 'pxe' is not an IPv4 address; write it as 192.0.2.1"),
        (
            Server(netmask="0.0.0.255"),
            "netmask '0.0.0.255' is not an IPv4 network mask; write it as 255.255.255.0",
        ),
        (
            Server(netmask="24"),
            "netmask '24' is not an IPv4 network mask; write it as 255.255.255.0",
        ),
        (
            Server(range_first="192.0.3.1", range_last="192.0.3.2"),
            "range_first 192.0.3.1 is not in the server's network 192.0.2.0/24; choose one in it,"
            " or correct the netmask | pxeboot/server: range_last 192.0.3.2 is not in the server's"
            " network 192.0.2.0/24; choose one in it, or correct the netmask",
        ),
        (
            Server(range_first="192.0.2.9", range_last="192.0.2.8"),
            "the range 192.0.2.9 to 192.0.2.8 runs backwards; exchange its ends",
        ),
        (
            Server(address="192.0.2.100"),
            "the range 192.0.2.100 to 192.0.2.199 holds the server's own address 192.0.2.100;"
            " leave the server's address out of the range",
        ),
        (
            Server(interface="eth0\nport=53"),
            "interface 'eth0\\nport=53' is not the name of a network card; name one of those that"
            " `ip link` lists",
        ),
        (Server(http_port=0), "HTTP port 0 is not between 1 and 65535; correct it"),
        (
            Server(http_prefix="/x"),
            "HTTP folder '/x' holds more than letters, digits and . _ + - between single slashes;"
            " name it without a slash at either end, or rename the folder",
        ),
        (
            Server(tftp_prefix="a,b"),
            "TFTP folder 'a,b' holds more than letters, digits and . _ + - between single slashes;"
            " name it without a slash at either end, or rename the folder",
        ),
        (
            Server(tftp_root="/srv/../etc"),
            "TFTP root '/srv/../etc' is not an absolute path of letters, digits and ._+-; write it"
            " as /srv/pxeboot",
        ),
    ],
)
def test_a_server_that_is_wrong(server: Server, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        render("dnsmasq.conf", server=server)
    assert str(caught.value) == f"pxeboot/server: {message}"


def test_all_that_is_wrong_is_told_together() -> None:
    with pytest.raises(SpecError) as caught:
        render("dnsmasq.conf", server=Server(address="x", interface="", http_port=70000))
    assert [problem.message for problem in caught.value.problems] == [
        "pxeboot/server: address 'x' is not an IPv4 address",
        "pxeboot/server: interface '' is not the name of a network card",
        "pxeboot/server: HTTP port 70000 is not between 1 and 65535",
    ]


def test_a_boot_file_that_is_too_long() -> None:
    fits = "x" * (127 - len("http://192.0.2.1/") - len("/boot/grub/x86_64-efi/core.efi"))
    render("dnsmasq.conf", server=Server(http_prefix=fits))
    with pytest.raises(TemplateError) as caught:
        render("dnsmasq.conf", server=Server(http_prefix=fits + "x"))
    assert str(caught.value) == (
        f'DHCP: the boot file "http://192.0.2.1/{fits}x/boot/grub/x86_64-efi/core.efi" is 128 bytes'
        " long, more than the 127 that an answer holds; serve the tree from a folder with a shorter"
        " name"
    )


def test_one_template_is_replaced_and_the_others_stay(tmp_path: Path) -> None:
    (tmp_path / "dhcp").mkdir()
    (tmp_path / "dhcp/dhcpd.conf.j2").write_text("# {{ arch }} {{ clients[1].loaders[0].file }}\n")
    arch = find_arch("amd64")
    files = render_dhcp(arch, files=AMD64_FILES, server=None, templates=tmp_path)
    assert (files[0].content, files[0].origin) == (
        b"# amd64 snponly.efi\n",
        "template dhcp/dhcpd.conf.j2 (own)",
    )
    assert files[1:] == render_dhcp(arch, files=AMD64_FILES, server=None, templates=None)[1:]


@pytest.mark.parametrize("first", [True, False])
def test_a_unified_kernel_image_is_first_or_last(first: bool) -> None:
    made = render_dhcp(
        find_arch("amd64"), files=AMD64_FILES, server=None, templates=None,
        program=BootProgram("boot/g.efi", first),
    )  # fmt: skip
    (text,) = (file.content.decode() for file in made if file.path == "dhcp/dnsmasq.conf")
    rules = re.findall(r"^(#?)dhcp-boot=tag:(x64|x64-http),tag:!ipxe,(\S+)$", text, re.MULTILINE)
    for client, file in (("x64", "boot/g.efi"), ("x64-http", "http://192.0.2.1/boot/g.efi")):
        offered = [(off, name) for off, of, name in rules if of == client]
        assert offered[0 if first else -1] == ("" if first else "#", file)
        assert [off for off, _ in offered] == ["", *"#" * (len(offered) - 1)]
    for client in ("bios", "ia32"):
        assert not re.search(rf"dhcp-boot=tag:{client}\S*boot/g\.efi", text)
