"""Kernel configurations."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalyst_pxeboot.formats import kconfig
from catalyst_pxeboot.util.errors import FormatError
from tests.support.readers import read_kconfig

TEXT = r"""#
# Automatically generated file; DO NOT EDIT.
# Linux/x86 6.1.0 Kernel Configuration
#
CONFIG_CC_VERSION_TEXT="gcc (Gentoo 14.2) 14.2.0"
CONFIG_BLK_DEV_LOOP=y
CONFIG_SQUASHFS=m
# CONFIG_SQUASHFS_LZO is not set
CONFIG_HZ=250
CONFIG_PHYSICAL_START=0x1000000
CONFIG_LOCALVERSION=""
CONFIG_CMDLINE="a=\"b c\" # d=\\e"

"""


def test_reads_every_kind_of_value(tmp_path: Path) -> None:
    path = tmp_path / "gentoo-config"
    path.write_text(TEXT)
    assert dict(read_kconfig(path)) == {
        "CONFIG_CC_VERSION_TEXT": "gcc (Gentoo 14.2) 14.2.0",
        "CONFIG_BLK_DEV_LOOP": "y",
        "CONFIG_SQUASHFS": "m",
        "CONFIG_HZ": "250",
        "CONFIG_PHYSICAL_START": "0x1000000",
        "CONFIG_LOCALVERSION": "",
        "CONFIG_CMDLINE": 'a="b c" # d=\\e',
    }


def test_takes_an_empty_configuration_and_dos_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_bytes(b"")
    assert dict(read_kconfig(path)) == {}
    path.write_bytes(b"# x\r\nCONFIG_A=y\r\n")
    assert dict(read_kconfig(path)) == {"CONFIG_A": "y"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            b"CONFIG_A=y\n\xff",
            "expected a kernel configuration, which is UTF-8 text; byte 11 is not",
        ),
        (b"# one\n\nCONFIG_A\n", "line 3: expected CONFIG_NAME=VALUE or a comment"),
        (b"PATH=/bin\n", "line 1: expected CONFIG_NAME=VALUE or a comment"),
        (b"\x7fELF\0\0", "line 1: expected CONFIG_NAME=VALUE or a comment"),
    ],
)
def test_damage(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "config"
    path.write_bytes(data)
    with pytest.raises(FormatError) as caught:
        read_kconfig(path)
    assert caught.value.message == f"{path}: {message}"
    assert caught.value.hint == "give the kernel's own .config"


def test_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config"
    path.write_text(TEXT)
    monkeypatch.setattr(kconfig, "MAX_BYTES", len(TEXT) - 1)
    with pytest.raises(FormatError) as caught:
        read_kconfig(path)
    assert caught.value.message == (
        f"{path}: expected a kernel configuration of at most {len(TEXT) - 1} bytes"
    )


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_only_format_errors(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "config"
    for raw in (data, b"CONFIG_A=" + data, b"CONFIG_A='" + data + b"'\nCONFIG_B=\"" + data):
        path.write_bytes(raw)
        try:
            options = read_kconfig(path)
        except FormatError as error:
            assert error.message.startswith(f"{path}: ")
        else:
            assert all(key.startswith("CONFIG_") for key in options)
