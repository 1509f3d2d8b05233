"""Every loader is one object, and nothing else knows of it."""

from __future__ import annotations

import pytest

from catalyst_pxeboot.loader import LOADERS, loader_of
from catalyst_pxeboot.model.loader import Loader


def test_every_loader_is_there() -> None:
    assert list(LOADERS) == list(Loader)
    assert [loader.kind for loader in LOADERS.values()] == list(Loader)
    for loader in LOADERS.values():
        assert [loader_of(path) for path in loader.configs] == [loader] * len(loader.configs)
    assert loader_of("README.txt") is None


@pytest.mark.parametrize("loader", list(Loader))
@pytest.mark.parametrize(
    "text",
    ["", "\n", "\0", "'", '"', "{", "}", "if", ":", "||", "MENU", "goto", "set", "item", "function",
     "menuentry", "\\", "LABEL", "initrd", "linux", "[", "DEFAULT", "kernel --name"],
)  # fmt: skip
def test_odd_text_is_no_crash(loader: Loader, text: str) -> None:
    LOADERS[loader].check(text)


@pytest.mark.parametrize(
    ("loader", "before", "after"),
    [
        (
            Loader.IPXE,
            "#!ipxe\n# Menu\n",
            "#!ipxe\nset cmdline a=b c ${cmdline}\n#!ipxe\n# Menu\n",
        ),
        (
            Loader.GRUB,
            "# Menu\n",
            'set cmdline="a=b c $cmdline"\nexport cmdline\n# Menu\n',
        ),
        (
            Loader.PXELINUX,
            "LABEL x\n  APPEND cdroot\nLABEL y\n  APPEND -\n  SYSAPPEND 2\n",
            "LABEL x\n  APPEND cdroot a=b c\nLABEL y\n  APPEND a=b c\n  SYSAPPEND 2\n",
        ),
    ],
)
def test_more_arguments_for_every_entry(loader: Loader, before: str, after: str) -> None:
    assert LOADERS[loader].add_arguments(before, "a=b c") == after
