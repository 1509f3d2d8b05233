"""Attacks by kind: what an attacker may write, and the outcome that it must have.

Each class is a kind; `make fuzz` prints how many attacks each has (attacks.py).
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import io
import json
import lzma
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lz4.block
import pytest
import zstandard

from catalyst_pxeboot.build.pipeline import build
from catalyst_pxeboot.cli import main as cli
from catalyst_pxeboot.formats.signing.cms import load_cms_signer
from catalyst_pxeboot.formats.signing.openpgp import find_signer
from catalyst_pxeboot.model.manifest import CMS_PROOFS, OPENPGP_PROOFS
from catalyst_pxeboot.spec.parse import parse_settings
from catalyst_pxeboot.tree.verify import verify_tree
from catalyst_pxeboot.util.checksum import digest_bytes
from catalyst_pxeboot.util.files import list_files
from catalyst_pxeboot.util.sums import render_sums
from tests.conftest import hide_loaders
from tests.golden.test_golden import MEMTEST
from tests.robustness.test_hostile import BUILD_ANEW, MIB
from tests.robustness.test_hostile import command as measured
from tests.support import builders
from tests.support.iso import plain_iso
from tests.support.paths import ROOT
from tests.support.raw_iso import record, rock_ridge_name, write_raw_iso
from tests.support.stage2 import release_settings, storedir_stage2, write_stage2
from tests.unit.formats.signing.test_cms import CODE, issue, key_pem, pem
from tests.unit.formats.signing.test_openpgp import Keyring

TIME = 1_600_000_000  # of signatures
ATTACKS = 200  # generated ones, for each kind of key
Copy = Callable[[Path], Path]

# --- signed trees: whoever writes the tree holds no key ---

pytestmark = pytest.mark.skipif(
    not shutil.which("gpg") or not shutil.which("gpgconf"), reason="no gpg and gpgconf"
)


@dataclass(frozen=True)
class Trees:
    """What an attacker has: genuine trees of one key, old and new, and what it signed besides."""

    new: Path
    old: Path
    weak: Path  # signed, of MD5 only
    unsigned: Path
    keyring: Path
    root: Path
    note: bytes  # a clear-signed text of the same key
    note_cms: tuple[bytes, bytes]  # another text, and its signature by the same certificate
    stranger: bytes  # a clear-signed DIGESTS of a key that the keyring lacks
    both: Path  # a keyring that has that key too
    stranger_sig: bytes  # that key's signature of boot/gentoo
    weak_proof: bytes  # the tree's DIGESTS of MD5, signed by the release key
    longer_proof: bytes  # the new tree's DIGESTS and a line more, signed by the release key


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trees]:
    """Build them once; each attack gets copies."""
    folder = tmp_path_factory.mktemp("trees")
    root = issue("root", ca=True)
    code = issue("signer", root, purposes=[CODE])
    (folder / "crt").write_bytes(pem(code, root))
    (folder / "key").write_bytes(key_pem(code.key))
    (folder / "root").write_bytes(pem(root))
    with (
        tempfile.TemporaryDirectory(prefix="pg") as home,  # the agent's socket has a short path
        pytest.MonkeyPatch.context() as patch,
    ):
        hide_loaders(patch)
        ring = Keyring(Path(home))
        patch.setenv("GNUPGHOME", home)
        try:
            ring.make("release")
            ring.make("stranger")
            spec = {
                "pxeboot__gpg_key": ring.fingerprints("release")[0],
                "pxeboot__sign_cert": str(folder / "crt"),
                "pxeboot__sign_key": str(folder / "key"),
            }
            (folder / "ring").write_bytes(ring.gpg("--export", "release@example.org"))
            (folder / "both").write_bytes(ring.gpg("--export"))
            new, weak = _built(folder / "1", **spec), _built(folder / "3", digests={"md5"}, **spec)
            digests = (new / "DIGESTS").read_bytes()
            signer, stranger = (find_signer(f"{n}@example.org") for n in ("release", "stranger"))
            yield Trees(
                new=new,
                old=_built(folder / "2", pxeboot__bootargs="old", **spec),
                weak=weak,
                unsigned=_built(folder / "4", pxeboot__bootargs="evil"),
                keyring=folder / "ring",
                root=folder / "root",
                note=signer.clearsign(b"a note\n", time=TIME),
                note_cms=(b"a note\n", _sign_cms(folder, b"a note\n")),
                stranger=stranger.clearsign(digests, time=TIME),
                both=folder / "both",
                stranger_sig=stranger.detach(new / "boot/gentoo", time=TIME),
                weak_proof=signer.clearsign((weak / "DIGESTS").read_bytes(), time=TIME),
                longer_proof=signer.clearsign(digests + b"a line\n", time=TIME),
            )
        finally:
            ring.forget()


def _built(folder: Path, **settings: Any) -> Path:
    write_stage2(storedir_stage2(folder), extra=MEMTEST)
    return build(
        parse_settings(release_settings(folder, **settings)), report=lambda _l: None
    ).output


def _sign_cms(folder: Path, content: bytes) -> bytes:
    signer = load_cms_signer(folder / "crt", folder / "key", time=int(time.time()))
    return signer.sign_digest(hashlib.sha256(content).digest())


@pytest.fixture
def copy(trees: Trees, tmp_path: Path) -> Callable[[Path], Path]:
    """Return a function that gives a copy of a tree."""

    def copied(tree: Path) -> Path:
        target = tmp_path / "tree"
        shutil.rmtree(target, ignore_errors=True)
        return shutil.copytree(tree, target, symlinks=True)

    return copied


def replace_file(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def reseal(tree: Path, change: Callable[[dict[str, Any]], object] | None = None) -> None:
    """Make the manifest and the sums agree with the files again, as an attacker would.

    `change` may then do anything to the manifest.
    """
    manifest = json.loads((tree / "manifest.json").read_bytes())
    known = {file["path"]: file for file in manifest["files"]}
    apart = {"manifest.json", *manifest["sums"], *OPENPGP_PROOFS, *CMS_PROOFS}
    algorithms = sorted({"sha256", *(n for names in manifest["sums"].values() for n in names)})
    manifest["files"] = [
        {"role": "text", "origin": ""}
        | known.get(name, {})
        | {"path": name, "bytes": (tree / name).stat().st_size}
        | {"digests": dict(digest_bytes((tree / name).read_bytes(), algorithms))}
        for name in list_files(tree)
        if name not in apart and (tree / name).is_file()
    ]
    if change:
        change(manifest)
    raw = json.dumps(manifest, indent=1).encode() + b"\n"
    replace_file(tree / "manifest.json", raw)
    by_path = {file["path"]: file["digests"] for file in manifest["files"]}
    by_path["manifest.json"] = digest_bytes(raw, algorithms)
    try:
        for name, text in render_sums(by_path, manifest["sums"], "linux").items():
            replace_file(tree / name, text)
    except (KeyError, OSError):
        pass  # the change to the manifest leaves no sums to write


def passes(tree: Path, trees: Trees, how: str, key: Path | None = None) -> bool:
    """Whether the command says that the tree is as it was signed; refusals are one line each."""
    key = key or {"--keyring": trees.keyring, "--certificates": trees.root}[how]
    out = io.StringIO()
    with contextlib.redirect_stderr(out), contextlib.redirect_stdout(io.StringIO()):
        code = cli.main(["verify", "-q", how, str(key), str(tree)])
    assert code in (0, 1)
    assert code == 0 or out.getvalue().startswith("catalyst-pxeboot: error: ")
    return code == 0


HOW = ("--keyring", "--certificates")


class TestSignedTrees:
    """Whoever may change every byte of a tree, but holds no key, cannot make `verify` exit 0."""

    @pytest.mark.parametrize("how", HOW)
    def test_genuine_trees_pass(self, trees: Trees, how: str) -> None:
        """And an older one too, as a whole: its signature does not say what is newest."""
        assert passes(trees.new, trees, how)
        assert passes(trees.old, trees, how)
        assert not passes(trees.unsigned, trees, how)

    @pytest.mark.parametrize("how", HOW)
    def test_md5_alone_is_never_signed(self, trees: Trees, copy: Copy, how: str) -> None:
        names = set(list_files(trees.weak))
        assert "SHA256SUMS.asc" in names
        assert "DIGESTS.asc" not in names
        assert passes(trees.weak, trees, how)

    def test_signed_md5_vouches_for_nothing(self, trees: Trees, copy: Copy) -> None:
        tree = copy(trees.weak)
        (tree / "SHA256SUMS.asc").unlink()
        replace_file(tree / "DIGESTS.asc", trees.weak_proof)
        assert [str(fault) for fault in verify_tree(tree, keyring=trees.keyring).faults] == [
            "DIGESTS.asc: holds no sha256 or better of manifest.json; add sha512 to catalyst's"
            " digests, then build the tree again"
        ]

    def test_the_signed_text_is_the_sums_file(self, trees: Trees, copy: Copy) -> None:
        tree = copy(trees.new)
        replace_file(tree / "DIGESTS.asc", trees.longer_proof)
        assert [str(fault) for fault in verify_tree(tree, keyring=trees.keyring).faults] == [
            "DIGESTS.asc: signs another text than DIGESTS; build the tree again"
        ]

    def test_one_key_signs_a_tree(self, trees: Trees, copy: Copy) -> None:
        """GRUB's images hold one key, whatever other keys the keyring has."""
        assert passes(trees.new, trees, "--keyring", trees.both)
        tree = copy(trees.new)
        replace_file(tree / "boot/gentoo.sig", trees.stranger_sig)
        faults = [str(fault) for fault in verify_tree(tree, keyring=trees.both).faults]
        assert "boot/gentoo.sig: is of another key than the rest; build the tree again" in faults

    def test_a_note_of_the_key_vouches_for_nothing(self, trees: Trees, copy: Copy) -> None:
        tree = copy(trees.unsigned)
        replace_file(tree / "NOTE", b"a note\n")
        replace_file(tree / "NOTE.asc", trees.note)
        reseal(tree, lambda manifest: manifest.update(clearsigned=["NOTE.asc"]))
        assert not passes(tree, trees, "--keyring")
        replace_file(tree.parent / "OUT.asc", trees.note)
        reseal(tree, lambda manifest: manifest.update(clearsigned=["../OUT.asc"]))
        assert not passes(tree, trees, "--keyring")

    def test_an_old_file_with_its_signature_vouches_for_nothing(
        self, trees: Trees, copy: Copy
    ) -> None:
        tree = copy(trees.unsigned)
        replace_file(tree / "old", trees.note_cms[0])
        replace_file(tree / "old.p7s", trees.note_cms[1])
        reseal(tree)
        assert not passes(tree, trees, "--certificates")

    @pytest.mark.parametrize("how", HOW)
    def test_a_loader_that_was_exchanged(self, trees: Trees, copy: Copy, how: str) -> None:
        """The unsigned part of a tree is bound to the signature as well."""
        tree = copy(trees.new)
        replace_file(tree / "index.html", b"<p>evil</p>")
        reseal(tree)
        assert not passes(tree, trees, how)

    @pytest.mark.parametrize("how", HOW)
    def test_generated_attacks(
        self, trees: Trees, copy: Copy, how: str, record_property: Callable[[str, object], None]
    ) -> None:
        """Each does one to three things to a genuine or an evil tree, then makes it consistent."""
        choose = random.Random(f"2026 {how}")
        kinds: Counter[str] = Counter()
        attacks = 0
        for number in range(ATTACKS):
            base = choose.choice([trees.new, trees.new, trees.unsigned, trees.weak])
            tree = copy(base)
            names = [choose.choice(sorted(TREE_ATTACKS)) for _ in range(choose.randint(1, 3))]
            for name in names:
                with contextlib.suppress(OSError):  # an earlier step took the file away
                    TREE_ATTACKS[name](Attack(tree, trees, choose))
            if choose.random() < 0.8:
                with contextlib.suppress(OSError, ValueError):
                    reseal(tree, MANIFEST_ATTACKS[choose.choice(sorted(MANIFEST_ATTACKS))])
            if _same(tree, base) and base != trees.unsigned:
                continue  # they undid one another
            kinds.update(names)
            attacks += 1
            assert not passes(tree, trees, how), (number, base.parent.parent.parent.name, names)
        assert kinds.keys() == TREE_ATTACKS.keys()
        assert attacks > 150
        record_property("attacks", attacks)


def _same(tree: Path, base: Path) -> bool:
    return list_files(tree) == list_files(base) and all(
        (tree / name).read_bytes() == (base / name).read_bytes() for name in list_files(base)
    )


@dataclass(frozen=True)
class Attack:
    """The tree to change, and what the attacker has."""

    tree: Path
    trees: Trees
    choose: random.Random

    def name(self, *endings: str) -> str:
        """Choose a file of the tree."""
        names = [name for name in list_files(self.tree) if not endings or name.endswith(endings)]
        if not names:
            raise FileNotFoundError
        return self.choose.choice(names)

    @property
    def proof(self) -> str:
        """Choose a signature that vouches for the whole tree."""
        return self.choose.choice([*OPENPGP_PROOFS, *CMS_PROOFS])


def _flip(attack: Attack) -> None:
    path = attack.tree / attack.name()
    content = bytearray(path.read_bytes() or b"\0")
    content[attack.choose.randrange(len(content))] ^= 1 << attack.choose.randrange(8)
    replace_file(path, bytes(content))


def _replay(attack: Attack) -> None:
    """A genuine file of an older release, with its genuine signatures, at its place."""
    name = attack.choose.choice(list_files(attack.trees.old)).removesuffix(".sig")
    name = name.removesuffix(".p7s")
    for ending in ("", ".sig", ".p7s"):
        if (old := attack.trees.old / f"{name}{ending}").exists():
            replace_file(attack.tree / f"{name}{ending}", old.read_bytes())


def _swap_files(attack: Attack) -> None:
    """Two genuine files change places, signatures and all."""
    one, two = (attack.name().removesuffix(".sig").removesuffix(".p7s") for _ in range(2))
    for ending in ("", ".sig", ".p7s"):
        paths = attack.tree / f"{one}{ending}", attack.tree / f"{two}{ending}"
        contents = [path.read_bytes() for path in paths]
        for path, content in zip(paths, reversed(contents), strict=True):
            replace_file(path, content)


def _replace_proof(attack: Attack) -> None:
    content = attack.choose.choice(
        [
            attack.trees.note,
            attack.trees.note_cms[1],
            attack.trees.stranger,
            b"",
            (attack.trees.old / "DIGESTS.asc").read_bytes(),
            (attack.trees.old / "SHA256SUMS.p7s").read_bytes(),
            (attack.trees.new / "boot.ipxe.p7s").read_bytes(),
            (attack.trees.new / "grub.cfg.sig").read_bytes(),
        ]
    )
    replace_file(attack.tree / attack.proof, content)


def _pad_proof(attack: Attack) -> None:
    """Text before or behind what is signed, a second text, other line ends, a byte order mark."""
    path = attack.tree / attack.choose.choice([*OPENPGP_PROOFS])
    content = path.read_bytes()
    replace_file(
        path,
        attack.choose.choice(
            [
                b"evil\n" + content,
                content + b"evil\n",
                content + attack.trees.note,
                attack.trees.note + content,
                content.replace(b"\n", b"\r\n"),
                b"\xef\xbb\xbf" + content,
                content.replace(b"Hash: SHA512\n", b"Hash: SHA512\nComment: evil\n"),
                b"- " + content,
            ]
        ),
    )


def _move_proof(attack: Attack) -> None:
    """The same name to a person, another to the program."""
    path = attack.tree / attack.proof
    other = attack.choose.choice(
        [
            path.name.lower(),
            path.name.replace("S", "Ѕ"),  # noqa: RUF001 - Cyrillic
            f"{path.name} ",
            f"boot/{path.name}",
        ]
    )
    replace_file(attack.tree / other, path.read_bytes())
    path.unlink()


def _link(attack: Attack) -> None:
    """A file becomes a link to one of the same content elsewhere."""
    name = attack.name()
    outside = attack.tree.parent / "outside" / name
    replace_file(outside, (attack.tree / name).read_bytes())
    (attack.tree / name).unlink()
    (attack.tree / name).symlink_to(outside)


def _remove(attack: Attack) -> None:
    (attack.tree / attack.name()).unlink()


def _remove_signature(attack: Attack) -> None:
    (attack.tree / attack.name(".sig", ".p7s")).unlink()


def _add(attack: Attack) -> None:
    replace_file(attack.tree / "evil", b"evil")


def _rewrite_script(attack: Attack) -> None:
    """A menu that boots the attacker's kernel, without a signature or with a genuine one."""
    name = attack.choose.choice(["boot.ipxe", "boot/grub/grub.cfg", "grub.cfg"])
    text = (attack.tree / name).read_bytes()
    replace_file(attack.tree / name, text.replace(b"boot/gentoo", b"boot/evil"))
    replace_file(attack.tree / "boot/evil", b"evil")
    for ending in (".sig", ".p7s"):
        signature = attack.tree / f"boot/gentoo{ending}"
        if signature.exists() and attack.choose.random() < 0.5:
            replace_file(attack.tree / f"boot/evil{ending}", signature.read_bytes())


def _open_to_all(attack: Attack) -> None:
    (attack.tree / attack.name()).chmod(0o666)


TREE_ATTACKS: dict[str, Callable[[Attack], None]] = {
    "flip a bit": _flip,
    "replay an older file": _replay,
    "swap two files": _swap_files,
    "replace a proof": _replace_proof,
    "pad a proof": _pad_proof,
    "move a proof": _move_proof,
    "link out of the tree": _link,
    "remove a file": _remove,
    "remove a signature": _remove_signature,
    "add a file": _add,
    "rewrite a menu": _rewrite_script,
    "let anyone write": _open_to_all,
}


def _weaken(manifest: dict[str, Any]) -> None:
    manifest["sums"] = {"DIGESTS": ["md5"], "SHA256SUMS": ["sha256"]}


def _strip_digests(manifest: dict[str, Any]) -> None:
    for file in manifest["files"]:
        file["digests"] = {}


def _only_md5(manifest: dict[str, Any]) -> None:
    for file in manifest["files"]:
        file["digests"] = {"md5": "0" * 32}


def _forget_signatures(manifest: dict[str, Any]) -> None:
    manifest["files"] = [file for file in manifest["files"] if file["role"] != "signature"]


#: What becomes of the manifest once it agrees with the files.
MANIFEST_ATTACKS: dict[str, Callable[[dict[str, Any]], object] | None] = {
    "as it is": None,
    "as it is, again": None,
    "no clear-signed file": lambda manifest: manifest.pop("clearsigned", None),
    "an empty list": lambda manifest: manifest.update(clearsigned=[]),
    "another file": lambda manifest: manifest.update(clearsigned=["boot.ipxe"]),
    "no sums": lambda manifest: manifest.update(sums={}),
    "empty sums": lambda manifest: manifest.update(sums={"DIGESTS": [], "SHA256SUMS": []}),
    "weaker sums": _weaken,
    "no digests": _strip_digests,
    "MD5 digests": _only_md5,
    "no files": lambda manifest: manifest.update(files=[]),
    "each file twice": lambda manifest: manifest["files"].extend(manifest["files"]),
    "no signatures": _forget_signatures,
    "no loaders": lambda manifest: manifest.update(loaders={}),
    "no entries": lambda manifest: manifest["menu"].update(entries=[]),
}


# --- files that are not files, or are huge ---


def command(*words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does; it ends by itself, or the test fails."""
    return subprocess.run(
        [sys.executable, "-m", "catalyst_pxeboot", *map(str, words)],
        cwd=options.pop("cwd", ROOT), timeout=30, capture_output=True, text=True, check=False,
        **options,
    )  # fmt: skip


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line that a refusal has."""
    assert done.returncode in (1, 2), done
    line = done.stderr.removesuffix("\n")
    assert line.startswith("catalyst-pxeboot: error: ")
    assert "\n" not in line
    return line.removeprefix("catalyst-pxeboot: error: ")


def replace_by_pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


class TestFilesThatAreNone:
    """A pipe, a device or a file of gigabytes where a small file is expected."""

    def test_a_signature(self, trees: Trees, copy: Copy) -> None:
        tree = copy(trees.new)
        replace_by_pipe(tree / "boot/gentoo.sig")
        found = command("verify", "-q", "--keyring", trees.keyring, tree)
        assert (found.returncode, found.stderr.splitlines()) == (
            1,
            [
                "catalyst-pxeboot: error: boot/gentoo.sig: not a regular file;"
                " build the tree again",
                "catalyst-pxeboot: error: boot/gentoo.sig: cannot be read: Not a regular file;"
                " build the tree again",
            ],
        )

    def test_a_proof(self, trees: Trees, copy: Copy) -> None:
        tree = copy(trees.new)
        replace_by_pipe(tree / "DIGESTS.asc")
        found = command("verify", "-q", "--keyring", trees.keyring, tree)
        assert found.returncode == 1
        assert "error: DIGESTS.asc: not a regular file; build the tree again" in found.stderr

    @pytest.mark.parametrize("option", ["--keyring", "--certificates"])
    def test_a_keyring(self, trees: Trees, tmp_path: Path, option: str) -> None:
        os.mkfifo(tmp_path / "keys")
        line = complaint(command("verify", "-q", option, tmp_path / "keys", trees.new))
        assert f"{tmp_path}/keys" in line
        assert "cannot be read: Not a regular file" in line

    @pytest.mark.parametrize("ending", [".asc", ".DIGESTS", ".DIGESTS.asc", ".sha256"])
    def test_what_is_beside_an_iso(self, trees: Trees, tmp_path: Path, ending: str) -> None:
        iso = tmp_path / "install-amd64-minimal-20261122T170000Z.iso"
        stage2 = tmp_path / "stage2"
        write_stage2(stage2)
        plain_iso(stage2, iso)
        os.mkfifo(f"{iso}{ending}")
        line = complaint(
            command("build", "-q", "--keyring", trees.keyring, "--source", iso,
                    "--output", tmp_path / "tree")
        )  # fmt: skip
        assert f"{iso}{ending}: " in line
        assert "cannot be read: Not a regular file; correct or remove it" in line
        assert not (tmp_path / "tree").exists()

    @pytest.mark.parametrize("words", [("dhcp",), ("serve", "--dry-run", "--interface", "lo")])
    @pytest.mark.parametrize("oddity", ["pipe", "huge"])
    def test_a_servers_configuration(
        self, trees: Trees, copy: Copy, words: tuple[str, ...], oddity: str
    ) -> None:
        tree = copy(trees.unsigned)
        path = tree / "dhcp/dnsmasq.conf"
        size = path.stat().st_size
        replace_by_pipe(path)
        if oddity == "huge":
            path.unlink()
            with path.open("wb") as file:
                file.truncate(2_500_000_000)
        done = command(*words, tree, preexec_fn=lambda: limit_memory(1 << 30))
        assert done.returncode == 1
        last = done.stderr.splitlines()[-1]
        if words == ("dhcp",):
            reason = "Not a regular file" if oddity == "pipe" else "More than 4194304 bytes"
            reason = f"cannot be read: {reason}"
        elif oddity == "pipe":
            reason = "not a regular file"
        else:
            reason = f"2500000000 bytes, but {size} in the manifest"
        assert last == f"catalyst-pxeboot: error: dhcp/dnsmasq.conf: {reason}; build the tree again"

    def test_a_menus_commit(self, trees: Trees, tmp_path: Path) -> None:
        root = tmp_path / "root"
        shutil.copytree(trees.unsigned, root / "tree")
        commit = root / ".releases.json.commit"
        os.mkfifo(commit)
        assert f"{commit}: is in the way" in complaint(command("menu", "-q", root))
        commit.unlink()
        commit.mkdir()
        os.mkfifo(commit / "releases.json")
        assert f"{commit}/releases.json: " in complaint(command("menu", "-q", root))
        (commit / "releases.json").unlink()
        (commit / "releases.json").write_bytes(b"\xff\x00\n" * 1000)
        assert f"{commit}/releases.json: " in complaint(command("menu", "-q", root))
        shutil.rmtree(commit)
        assert command("menu", "-q", root).returncode == 0


def limit_memory(count: int) -> None:
    """Bound the address space of the process that calls it."""
    resource.setrlimit(resource.RLIMIT_AS, (count, count))


# --- what the machine refuses ---


class TestMachine:
    """A machine that lacks something gets one line, and nothing is left."""

    @pytest.mark.parametrize(
        "words",
        [
            ("build", "--source", "image"),
            ("export", "--format", "treeinfo", "--output", "out", "tree"),
            ("menu", "trees"),
            ("verify", "tree"),
            ("qemu", "."),
        ],
    )
    def test_the_current_folder_was_removed(self, words: tuple[str, ...]) -> None:
        script = (
            'cd "$(mktemp -d)" && rmdir "$PWD" && exec "$0" -P -c'
            " 'from catalyst_pxeboot.__main__ import run; run()' \"$@\""
        )
        done = subprocess.run(
            ["sh", "-c", script, sys.executable, *words],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip
        assert complaint(done)

    @pytest.mark.parametrize("mebibytes", [40, 60, 80, 120])
    def test_little_address_space(self, tmp_path: Path, mebibytes: int) -> None:
        """From too little for the interpreter to what suffices."""
        stage2 = write_stage2(tmp_path / "stage2")
        (tmp_path / "http").mkdir()
        script = f'ulimit -v {mebibytes << 10}; exec "$0" "$@"'
        done = subprocess.run(
            ["sh", "-c", script, sys.executable, "-m", "catalyst_pxeboot", "build",
             "--subarch", "amd64", "--source", stage2, "--output", tmp_path / "http/tree"],
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        if done.returncode == 0:
            assert mebibytes > 80
            assert command("verify", tmp_path / "http/tree").returncode == 0
            return
        assert complaint(done)
        assert list((tmp_path / "http").iterdir()) == []

    @pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
    def test_no_space_for_temporary_files(self, trees: Trees, tmp_path: Path) -> None:
        small = tmp_path / "small"
        small.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "none", small], check=True)
        try:
            done = command(
                "verify", "--keyring", trees.keyring, trees.new,
                env=os.environ | {"TMPDIR": str(small)},
            )  # fmt: skip
            assert "No space left on device" in complaint(done)
            assert list(small.iterdir()) == []
        finally:
            subprocess.run(["umount", small], check=True)

    @pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv"
    )
    def test_a_umask_of_0777(self, trees: Trees) -> None:
        """The user who asks for it gets a tree that servers can read, and no folder is left."""
        with tempfile.TemporaryDirectory() as outer:
            Path(outer).chmod(0o755)
            stage2 = write_stage2(Path(outer, "stage2"))
            (stage2 / "boot/gentoo.igz").chmod(0o644)
            tree = shutil.copytree(trees.new, Path(outer, "signed"))
            keyring = shutil.copy(trees.keyring, outer)
            scratch = Path(outer, "scratch")
            scratch.mkdir()
            scratch.chmod(0o777)
            for words in (
                ("build", "--subarch", "amd64", "--source", stage2, "--output", f"{scratch}/tree"),
                ("verify", f"{scratch}/tree"),
                ("verify", "--keyring", keyring, tree),
                ("inspect", stage2),
            ):
                done = subprocess.run(
                    ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "sh", "-c",  # modes hold
                     'umask 0777; exec "$0" -m catalyst_pxeboot "$@"', sys.executable, *words],
                    cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
                    env=os.environ | {"TMPDIR": scratch},
                )  # fmt: skip
                assert done.returncode == 0, done
            assert [path.name for path in scratch.iterdir()] == ["tree"]


# --- texts that reach the terminal ---

#: What a terminal obeys: C0, DEL, C1, and Unicode's marks of direction and line breaks.
EVIL = "\x1b]0;evil\x07\x1b[2J\x08\x7f\x9b2J\u202e\u2066\u2028\x85"
#: What a file name may hold of them.
EVIL_NAME = EVIL.replace("\x85", "")


def is_safe(text: str) -> bool:
    return all(c.isprintable() or c in "\n\t" for c in text)


class TestTerminal:
    """Whatever an image, a tree or a name holds: no control character is printed."""

    @pytest.fixture
    def stage2(self, tmp_path: Path) -> Path:
        folder = tmp_path / f"livecd-stage2-amd64-20261122T170000Z{EVIL_NAME}"
        menu = (ROOT / "tests/data/grub-cfg/amd64-dracut.cfg").read_text()
        write_stage2(folder, grub_cfg=menu.replace("Boot LiveCD", f"Boot {EVIL} LiveCD"))
        return folder

    @pytest.mark.parametrize("options", [(), ("--json",), ("-v",)])
    def test_an_image(self, stage2: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
        output = tmp_path / "out"
        commands: tuple[tuple[str | Path, ...], ...] = (
            ("inspect", *options, stage2),
            ("build", *options, "--dry-run", "--source", stage2, "--output", output),
            ("build", *options, "--source", stage2, "--output", output,
             "--set", "pxeboot/loaders=ipxe pxelinux grub"),
        )  # fmt: skip
        for words in commands:
            done = command(*words)
            assert is_safe(done.stdout + done.stderr), done
            assert "Traceback" not in done.stderr
            assert "1b]0;evil" in done.stdout + done.stderr

    @pytest.mark.parametrize("options", [(), ("--json",)])
    def test_a_tree(self, trees: Trees, copy: Copy, options: tuple[str, ...]) -> None:
        tree = copy(trees.unsigned)
        manifest = json.loads((tree / "manifest.json").read_bytes())
        manifest["release"]["title"] += EVIL
        manifest["notes"] = [EVIL]
        manifest["left_out"] = [EVIL]
        for entry in manifest["menu"]["entries"]:
            entry["title"] += EVIL
        replace_file(tree / "manifest.json", json.dumps(manifest).encode())
        replace_file(tree / "dhcp/dnsmasq.conf", f"a\tb\n{EVIL}\n".encode())
        evil = tree.rename(tree.with_name(f"tree{EVIL_NAME}"))
        (evil / EVIL_NAME).touch()
        commands: tuple[tuple[str | Path, ...], ...] = (
            ("inspect", *options, evil),
            ("verify", *options, evil),
            ("dhcp", *options, evil),
            ("menu", *options, evil.parent),
            ("serve", *options, "--dry-run", "--interface", "lo", evil),
            ("export", *options, "--format", "ipxe-vars", "--base-url", "http://a.example/", evil),
            ("qemu", *options, "--dry-run", evil),
            ("boot-test", *options, "--firmware", "bios", "--loader", "uboot", evil),
        )
        for words in commands:
            done = command(*words)
            assert is_safe(done.stdout + done.stderr), done
            assert "Traceback" not in done.stderr
        shown = command("dhcp", evil).stdout
        assert shown.startswith(
            "a\tb\n\\x1b]0;evil\\x07\\x1b[2J\\x08\\x7f\\x9b2J\\u202e\\u2066\\u2028"
        )

    def test_on_a_terminal(self, stage2: Path) -> None:
        """The same on a pseudo-terminal, where there is colour, but no other control."""
        parent, child = os.openpty()
        with subprocess.Popen(
            [sys.executable, "-m", "catalyst_pxeboot", "inspect", stage2],
            cwd=ROOT, stdout=child, stderr=child, env={**os.environ, "TERM": "xterm"},
        ) as process:  # fmt: skip
            os.close(child)
            output = b""
            with contextlib.suppress(OSError):  # EIO is a terminal's end
                while data := os.read(parent, 65536):
                    output += data
            process.wait()
        os.close(parent)
        assert is_safe(output.decode().replace("\r\n", "\n"))


# --- initramfs images: cost in time and memory ---


def _zstd(*parts: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=1).compress(b"".join(parts))


def _names(count: int, archives: int) -> bytes:
    """Return archives of empty members with names that are all different."""
    numbers = iter(range(count))
    return b"".join(
        b"".join(
            builders.newc_member(f"lib/modules/{next(numbers):07}.ko")
            for _ in range(count // archives)
        )
        + builders.newc({}, block=4)
        for _ in range(archives)
    )


def _repeated(part: bytes, size: int) -> bytes:
    return part * (size // len(part))


def _slow(compress: Callable[[bytes], bytes]) -> bytes:
    """Return 64 MB of a member of two letters without an order, the slowest to unpack."""
    letters = bytes(random.Random(1).choices(b"ab", k=8 * MIB))
    return compress(_FILE + b"4000000000000001" + 3 * b"00000001" + b"0000000400000000abc\0") + (
        _repeated(compress(letters), INPUT_SIZE)
    )


def _patience() -> float:
    """Return 10 s, or more on a machine that is slower at this moment than 45 MB/s of bzip2."""
    packed = bz2.compress(bytes(random.Random(1).choices(b"ab", k=4 * MIB)))
    begun = time.process_time()
    bz2.decompress(packed)
    return 10 * max(1, (time.process_time() - begun) * 45e6 / (4 * MIB))


def _bzip2_blocks() -> bytes:
    """Return a member of 4 GiB, and for it one stream of millions of blocks of a letter each."""
    member = bytearray(builders.newc_member("init"))
    member[54:62] = b"FFFFFFFF"
    bits = "".join(f"{byte:08b}" for byte in bz2.compress(b"a"))
    end = bits.index(f"{0x177245385090:048b}")
    block = bits[32:end] * 8
    return (
        bz2.compress(member)
        + bz2.compress(b"a")[:4]
        + _repeated(int(block, 2).to_bytes(len(block) // 8, "big"), INPUT_SIZE)
    )


INPUT_SIZE = 64 * MIB
_TRAILER = builders.newc({}, block=4)
_EMPTY_FRAME = zstandard.ZstdCompressor().compress(b"")
_LZ4 = b"\x02\x21\x4c\x18"
_LZ4_BLOCK = lz4.block.compress(b"a", store_size=False)
_FILE = b"07070100000001000081a4" + 4 * b"00000001"  # a member's header, up to its size
_LINK = b"070701000000010000a1ff" + 4 * b"00000001"
_ALMOST = b"Linux version 1" + 127 * b"x"
_CHECK = "check that the file is an initramfs"
_PARTS = (
    "has more than 16384 parts of {} data; the file is damaged or made to exhaust time;"
    " build it again"
)
_LARGE = f"unpacks to more than {12 * 64 * MIB} bytes; {BUILD_ANEW}"

#: Each image, and why it is refused.
INITRAMFS_ATTACKS: dict[str, tuple[Callable[[], bytes], str]] = {
    "2.1 million archives in 24 KB": (
        lambda: _zstd(_repeated(_TRAILER, 256 * MIB)), f"has more than 64 archives; {_CHECK}",
    ),
    "archives without compression": (
        lambda: _repeated(_TRAILER, INPUT_SIZE), f"has more than 64 archives; {_CHECK}",
    ),
    "names in one archive": (
        lambda: _zstd(_names(300_000, 1)), f"has more than 200000 members; {_CHECK}",
    ),
    "names in many archives": (
        lambda: _zstd(_names(300_000, 60)), f"has more than 200000 members; {_CHECK}",
    ),
    "names without compression": (
        lambda: _names(450_000, 50), f"has more than 200000 members; {_CHECK}",
    ),
    "empty zstd frames": (
        lambda: _repeated(_EMPTY_FRAME, 27_000_000), _PARTS.format("zstd"),
    ),
    "empty gzip members": (
        lambda: _repeated(gzip.compress(b"", mtime=0), INPUT_SIZE), _PARTS.format("gzip"),
    ),
    "empty bzip2 streams": (
        lambda: _repeated(bz2.compress(b""), INPUT_SIZE), _PARTS.format("bzip2"),
    ),
    "empty xz streams": (
        lambda: _repeated(lzma.compress(b""), INPUT_SIZE), _PARTS.format("xz"),
    ),
    "lz4 blocks of a byte": (
        lambda: _LZ4
        + _repeated(len(_LZ4_BLOCK).to_bytes(4, "little") + _LZ4_BLOCK, INPUT_SIZE),
        _PARTS.format("lz4"),
    ),
    "lz4 magic numbers": (lambda: _repeated(_LZ4, INPUT_SIZE), _PARTS.format("lz4")),
    "bzip2 blocks of a byte": (_bzip2_blocks, "ends early, in the middle of its bzip2 data"),
    "a bzip2 bomb": (
        lambda: (bz2.compress(bytes(40 * MIB)) * 22).ljust(INPUT_SIZE, b"\1"),
        f"unpacks to more than {7 * 32 * MIB} bytes; {BUILD_ANEW}",
    ),
    "bzip2 of two letters": (
        lambda: _slow(bz2.compress), "unpacks to more than 230358159 bytes",
    ),
    "lzma of two letters": (
        lambda: _slow(lambda data: lzma.compress(data, lzma.FORMAT_ALONE, preset=0)),
        "ends early, expected a cpio archive with its trailer",
    ),
    "xz of two letters": (
        lambda: _slow(lambda data: lzma.compress(data, preset=0)),
        "ends early, expected a cpio archive with its trailer",
    ),
    "an lzma bomb": (
        lambda: lzma.compress(bytes(780 * MIB), lzma.FORMAT_ALONE, preset=0)
        .ljust(INPUT_SIZE, b"\1"),
        _LARGE,
    ),
    "an lzo bomb": (
        lambda: builders.lzop(bytes(780 * MIB)).ljust(INPUT_SIZE, b"\1"), _LARGE,
    ),
    "a name of 1 GiB": (
        lambda: (b"070701" + 11 * b"00000001" + b"3FFFFFFF" + b"00000000").ljust(INPUT_SIZE, b"a"),
        "expected a name of 1 to 4096 bytes at byte 0 of the archive",
    ),
    "a symlink of 4 GiB": (
        lambda: (_LINK + b"FFFFFFFF" + 4 * b"00000001" + b"0000000400000000abc\0")
        .ljust(INPUT_SIZE, b"a"),
        "ends early, expected a cpio archive with its trailer",
    ),
    "an xz bomb": (
        lambda: (lzma.compress(bytes(40 * MIB)) * 22).ljust(INPUT_SIZE, b"\1"), _LARGE,
    ),
    "a gzip bomb": (
        lambda: (gzip.compress(bytes(40 * MIB), mtime=0) * 22).ljust(INPUT_SIZE, b"\1"), _LARGE,
    ),
    "zeros only": (lambda: bytes(INPUT_SIZE), "is empty, expected an initramfs"),
    "a long list of modules": (
        lambda: _zstd(builders.newc({
            **builders.dracut_members(),
            "usr/lib/dracut/modules.txt": b"".join(b"%06x\n" % n for n in range(580_000)),
        })),
        "",
    ),
}  # fmt: skip


KERNEL_ATTACKS: dict[str, Callable[[], bytes]] = {
    "almost versions in gzip": lambda: gzip.compress(
        builders.arm64_image("")[:64] + _repeated(_ALMOST, 255 * MIB), 1, mtime=0
    ),
    "almost versions": lambda: builders.arm64_image("")[:64] + _repeated(_ALMOST, INPUT_SIZE),
    "a bomb in gzip": lambda: gzip.compress(
        builders.arm64_image("")[:64] + bytes(900 * MIB), 1, mtime=0
    ),
}


class TestKernel:
    """As for an initramfs; a kernel may have no version that can be read."""

    @pytest.mark.parametrize("name", KERNEL_ATTACKS)
    def test_bounds(self, tmp_path: Path, name: str) -> None:
        source = write_stage2(tmp_path / "stage2", kernel=KERNEL_ATTACKS[name]())
        ran = measured("inspect", source)
        assert ran.code in (0, 1)
        assert ran.error.count("\n") == ran.code
        assert ran.seconds < 10
        assert ran.memory < 300 * MIB


class TestInitramfs:
    """Whatever 64 MB hold: an answer within 10 s of a processor and 300 MiB."""

    @pytest.mark.parametrize("name", INITRAMFS_ATTACKS)
    def test_bounds(self, tmp_path: Path, name: str) -> None:
        make, message = INITRAMFS_ATTACKS[name]
        source = write_stage2(tmp_path / "stage2", initramfs=make())
        patience = _patience()
        ran = measured("inspect", source)
        path = source / "boot/gentoo.igz"
        if message:
            assert ran.error.startswith(f"catalyst-pxeboot: error: {path}: {message}")
            assert ran.error.count("\n") == 1
        assert ran.code == (1 if message else 0)
        assert ran.seconds < max(patience, _patience())
        assert ran.memory < 300 * MIB


# --- the directories of an ISO ---

NO_IMAGE = "not a catalyst live image: "
ISO_ATTACKS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "many files": (
        lambda path: write_raw_iso(path, [[record(b"%05X" % n) for n in range(100_000)]]),
        NO_IMAGE,
    ),
    "too many files": (
        lambda path: write_raw_iso(path, [[record(b"%05X" % n) for n in range(150_000)]]),
        "damaged: its directories take more than 4194304 bytes",
    ),
    "backwards": (
        lambda path: write_raw_iso(path, [[record(b"%05X" % -n) for n in range(-60_000, 0)]]),
        "damaged: the directory at byte 43008 is not sorted",
    ),
    "one name": (
        lambda path: write_raw_iso(path, [[record(b"A")] * 60_000]),
        "damaged: the directory at byte 43008 is not sorted",
    ),
    "one name in each of many folders": (
        lambda path: write_raw_iso(path, [[record(b"A")] * 470] * 140),
        NO_IMAGE,
    ),
    "one folder many times": (
        lambda path: write_raw_iso(path, [[record(b"%05X" % n) for n in range(400)]] * 140, at=30),
        "damaged: ",
    ),
    "real names backwards": (
        lambda path: write_raw_iso(
            path,
            [
                [
                    record(b"%05X" % n, use=rock_ridge_name(b"%05x" % (60_000 - n)))
                    for n in range(60_000)
                ]
            ],
            ridge=True,
        ),
        "",
    ),
}


class TestIso:
    """Whatever directories say: an answer within 10 s of a processor and 300 MiB."""

    @pytest.mark.parametrize("name", ISO_ATTACKS)
    def test_bounds(self, tmp_path: Path, name: str) -> None:
        make, message = ISO_ATTACKS[name]
        ran = measured("inspect", make(tmp_path / "x.iso"))
        assert ran.code == 1
        assert ran.error.startswith(f"catalyst-pxeboot: error: {tmp_path}/x.iso: {message}")
        assert ran.error.count("\n") == 1
        assert ran.seconds < 10
        assert ran.memory < 300 * MIB
