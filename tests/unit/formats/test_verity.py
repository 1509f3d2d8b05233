"""dm-verity's hash tree, against what veritysetup says and makes."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from catalyst_pxeboot.formats.verity import (
    BLOCK,
    HashTree,
    HashTreeBuilder,
    read_hash_tree,
    tree_bytes,
)

#: Blocks: one; one level, full; two levels, one block more, full; three levels.
COUNTS = (1, 2, 128, 129, 16384, 16385)


def content(blocks: int) -> bytes:
    return random.Random(blocks).randbytes(4096) * blocks


def build(data: bytes, step: int) -> HashTree:
    builder = HashTreeBuilder()
    for at in range(0, len(data), step):
        builder.update(data[at : at + step])
    return builder.finish()


@pytest.mark.parametrize("blocks", COUNTS)
def test_as_veritysetup_makes_it(blocks: int, tmp_path: Path) -> None:
    if shutil.which("veritysetup", path="/usr/sbin:/sbin:/usr/bin") is None:
        pytest.skip("veritysetup is missing: install cryptsetup-bin")
    data, area = tmp_path / "data", tmp_path / "tree"
    data.write_bytes(content(blocks))
    area.touch()
    done = subprocess.run(
        ["/usr/sbin/veritysetup", "format", "--no-superblock", "--salt=-", data, area],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    found = re.search(r"Root hash:\s+([0-9a-f]{64})", done.stdout)
    assert found
    tree = read_hash_tree(data, length=BLOCK * blocks)
    assert tree == HashTree(blocks, found[1], area.read_bytes())
    size = area.stat().st_size // BLOCK
    assert tree.line == f"{found[1]} {blocks} {size}\n".encode()


def test_pieces_of_any_size_and_a_part_of_a_file(tmp_path: Path) -> None:
    data = content(300)
    tree = build(data, len(data))
    assert build(data, 1000) == build(data, 65537) == tree
    (tmp_path / "image").write_bytes(data + b"more")
    assert read_hash_tree(tmp_path / "image", length=len(data)) == tree
    changed = bytearray(data)
    changed[-1] ^= 1
    assert build(bytes(changed), 4096).root != tree.root


def test_one_that_nobody_wants_costs_nothing() -> None:
    builder = HashTreeBuilder()
    builder.update(content(2))
    builder.stop()
    builder.update(content(2))
    assert builder.finish() == build(content(2), BLOCK)


@pytest.mark.parametrize("blocks", COUNTS)
def test_the_size_is_known_before(blocks: int) -> None:
    data = content(blocks)
    assert tree_bytes(len(data)) == len(build(data, 1 << 20).content)


@pytest.mark.parametrize("count", [0, 1, BLOCK - 1, BLOCK + 1])
def test_only_whole_blocks(count: int) -> None:
    with pytest.raises(ValueError, match="after the last whole block"):
        build(bytes(count), 1 << 20)
