"""What `build` accepts, every other command accepts: random specs and images."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from string import ascii_letters, digits
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from catalyst_pxeboot.cli import main as cli
from catalyst_pxeboot.export.formats import FOLDERS, Format
from tests.support.stage2 import write_stage2

BUILDS = 120
#: What a format needs that a tree may lack, by its own words.
LACKING = ("it has no entry for", "it has no entry that can be exported", "none of its entries")

# Mostly what is accepted, and now and then what is not.
odd = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
printable = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=40)
marks = st.text("{}%<>&;'\"^~= ab", min_size=1, max_size=20).map("a{}".format)
words = st.text(ascii_letters + digits + "._:,/=-", min_size=1, max_size=30)
long = st.integers(150, 2600).map(lambda count: count * "a")
texts = st.one_of(words, words, marks, printable, odd, long)
arguments = st.lists(st.one_of(words, words, words, marks), max_size=5).map(" ".join)

specs = st.fixed_dictionaries(
    {},
    optional={
        "pxeboot/title": texts,
        "pxeboot/bootargs": st.one_of(arguments, arguments, long),
        "livecd/bootargs": arguments,
        "boot/kernel/gentoo/console": st.sampled_from(["ttyS0,115200", "tty0 ttyS0"]),
        "pxeboot/timeout": st.sampled_from(["-1", "0", "7", "86400"]),
        "pxeboot/root": st.sampled_from(["auto", "embedded", "http", "http embedded", "nfs"]),
        "pxeboot/nfs_root": st.just("192.0.2.1:/srv/gentoo"),
        "pxeboot/base_url": st.sampled_from(["http://192.0.2.1/a", "https://example.org/a/b/"]),
        "pxeboot/server": st.sampled_from(["192.0.2.1", "192.0.2.1/24"]),
        "pxeboot/serial": st.sampled_from(["ttyS0,115200", "ttyS1,9600"]),
        "pxeboot/verify_root": st.sampled_from(["yes", "no"]),
        "pxeboot/loaders": st.lists(
            st.sampled_from(["ipxe", "pxelinux", "grub"]), min_size=1, max_size=3
        ).map(" ".join),
        "version_stamp": st.one_of(words, st.text("abé~+@_/.-", max_size=12), texts),
        "rel_type": st.one_of(words, st.just("23.0-default")),
    },
)
names = st.one_of(
    st.sampled_from(["stage2", "livecd-stage2-amd64-20261122T170000Z"]),
    st.text("abé .-(1)~'\"\x1b", max_size=20).map("a{}".format),
)
titles = st.one_of(texts, texts.map(lambda text: 9 * text)).map(lambda text: text.replace("'", ""))


def run(*argv: object) -> tuple[int, str]:
    """Run a command here; return its exit code and what it complained of."""
    complaints = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(complaints):
        return cli.main([str(word) for word in argv]), complaints.getvalue()


@settings(
    max_examples=BUILDS,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate],  # to shrink a finding takes minutes
    suppress_health_check=[HealthCheck.too_slow],
)
@given(spec=specs, name=names, title=titles, words=arguments)
def check_one(
    outcomes: Counter[str], spec: Mapping[str, str], name: str, title: str, words: str
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        grub_cfg = (
            f"menuentry '{title}' {{\n linux /boot/gentoo {words}\n initrd /boot/gentoo.igz\n}}\n"
        )
        source = write_stage2(
            root / "builds" / name, extra={"boot/grub/grub.cfg": grub_cfg.encode()}
        )
        options: list[Any] = []
        for key, value in spec.items():
            options += ["--set", f"{key}={value}"]
        tree = root / "http" / "tree"
        tree.parent.mkdir()
        code, told = run(
            "build", "--source", source, "--subarch", "amd64", "--output", tree, *options
        )
        outcomes["refused" if code else "accepted"] += 1
        if code:
            assert code == 1, told
            assert "error: " in told
            assert not list(tree.parent.iterdir())
            return
        for argv in (
            ("verify", tree),
            ("inspect", tree),
            ("menu", tree.parent),
            ("serve", "--dry-run", "--interface", "lo", tree),
        ):
            assert run(*argv)[0] == 0, (argv[0], run(*argv))
        for form in Format:
            output = ["--output", root / form] if form in FOLDERS else []
            url = ["--base-url", "http://192.0.2.1/tree"]
            code, told = run("export", "--format", form, *url, *output, tree)
            if code:
                assert any(reason in told for reason in LACKING), (form, told)


def test_what_build_accepts(record_property: Callable[[str, object], None]) -> None:
    outcomes: Counter[str] = Counter()
    check_one(outcomes)
    assert outcomes["accepted"] > BUILDS / 4
    assert outcomes["refused"] > BUILDS / 20
    record_property("attacks", outcomes.total())
