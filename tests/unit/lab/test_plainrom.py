"""The disguise of QEMU's ROM."""

from __future__ import annotations

import struct

import pytest

from catalyst_pxeboot.lab.plainrom import Disguise, split_frames


def udp_frame(port: int, payload: bytes) -> bytes:
    """Write an Ethernet frame with a UDP datagram to `port`."""
    udp = struct.pack("!HHHH", 68, port, 8 + len(payload), 0xABCD) + payload
    ip = struct.pack("!BBHHHBBH8x", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0)
    return bytes(12) + b"\x08\x00" + ip + udp


def dhcp_frame(*options: bytes) -> bytes:
    """Write a DHCP request with `options`, each with its code and length."""
    return udp_frame(67, bytes(236) + b"\x63\x82\x53\x63" + b"".join(options) + b"\xff")


KIND, USER_CLASS, OWN = b"\x35\x01\x01", b"\x4d\x04iPXE", b"\xaf\x03\xb1\x01\x01"
ARCHITECTURE = b"\x5d\x02\x00\x00"


def test_the_disguise_blanks_what_tells_an_ipxe() -> None:
    disguise = Disguise()
    sent = disguise.pass_frame(dhcp_frame(KIND, USER_CLASS, ARCHITECTURE, OWN))
    plain = bytearray(dhcp_frame(KIND, bytes(6), ARCHITECTURE, bytes(5)))
    plain[40:42] = bytes(2)  # no checksum
    assert sent == bytes(plain)
    assert disguise.requests == 1


def test_the_disguise_ends_with_the_first_file() -> None:
    disguise = Disguise()
    for frame in (udp_frame(69, b"\0\1undionly.kpxe\0octet\0"), dhcp_frame(USER_CLASS, OWN)):
        assert disguise.pass_frame(frame) == frame
    assert disguise.requests == 0


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        bytes(60),
        udp_frame(68, dhcp_frame(OWN)),
        dhcp_frame(KIND, ARCHITECTURE),
        dhcp_frame(b"\xaf\xff"),  # an option longer than the frame
        udp_frame(67, b"short"),
        bytes(12) + b"\x08\x00" + bytes(9) + b"\x11",
    ],
)
def test_the_disguise_leaves_other_frames(frame: bytes) -> None:
    assert Disguise().pass_frame(frame) == frame


def test_frames_of_a_stream() -> None:
    assert split_frames(b"\0\0\0\2ab\0\0\0\1c\0\0\0\5de") == ([b"ab", b"c"], b"\0\0\0\5de")
    assert split_frames(b"\0\0") == ([], b"\0\0")
