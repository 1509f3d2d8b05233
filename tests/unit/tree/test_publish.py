"""All or nothing: staging, lock, exchange and clean-up."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

import pytest

from catalyst_pxeboot.tree.publish import Publication, clean_leftovers, own_names
from catalyst_pxeboot.util.errors import PublishError
from catalyst_pxeboot.util.files import list_files
from tests.support.release_trees import make_manifest

FILE = {"path": "file", "bytes": 3, "role": "text", "digests": {"sha256": "0" * 64}}


def own_tree(folder: Path, content: str) -> Path:
    folder.mkdir()
    (folder / "file").write_text(content)
    manifest = make_manifest()
    manifest["files"].append(FILE)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def publish(target: Path, content: str) -> None:
    publication = Publication(target)
    with publication as staging:
        staging.rmdir()
        own_tree(staging, content)
        publication.commit()


def test_new_then_replaced(tmp_path: Path) -> None:
    target = tmp_path / "a/b/tree"
    publish(target, "old")
    publish(target, "new")
    assert (target / "file").read_text() == "new"
    assert [path.name for path in target.parent.iterdir()] == ["tree"]


def test_a_reader_of_the_old_tree_keeps_it_until_the_exchange(tmp_path: Path) -> None:
    target = own_tree(tmp_path / "tree", "old")
    publication = Publication(target)
    with publication as staging:
        staging.rmdir()
        own_tree(staging, "new")
        assert (target / "file").read_text() == "old"
        publication.commit()
        assert (target / "file").read_text() == "new"


def test_failure_leaves_the_old_tree_and_nothing_else(tmp_path: Path) -> None:
    target = own_tree(tmp_path / "tree", "old")
    with (
        pytest.raises(RuntimeError, match="bug"),
        Publication(target) as staging,
    ):
        (staging / "half").write_text("half")
        raise RuntimeError("bug")
    assert (target / "file").read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_failure_removes_the_folders_it_made(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="bug"),
        Publication(tmp_path / "a/b/tree"),
    ):
        raise RuntimeError("bug")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    publish(tmp_path / "tree", "new")
    assert (tmp_path / "tree/file").read_text() == "new"


def test_a_strangers_file_in_our_tree_is_not_lost(tmp_path: Path) -> None:
    target = own_tree(tmp_path / "tree", "old")
    (target / "notes.txt").write_text("mine")
    with pytest.raises(PublishError) as raised:
        publish(target, "new")
    assert str(raised.value) == (
        f"{target}: holds notes.txt, which is not in its manifest and would be lost;"
        " move it out of the tree"
    )
    assert (target / "notes.txt").read_text() == "mine"
    assert (target / "file").read_text() == "old"


def test_a_file_put_there_during_the_build_is_not_lost(tmp_path: Path) -> None:
    target = tmp_path / "tree"
    publication = Publication(target)
    with pytest.raises(PublishError, match="is not a tree that"), publication as staging:
        (staging / "file").write_text("new")
        target.mkdir()
        (target / "thesis").write_text("mine")
        publication.commit()
    assert list_files(tmp_path) == ["tree/thesis"]


def test_two_builds_of_one_tree(tmp_path: Path) -> None:
    target = tmp_path / "tree"
    with (
        Publication(target),
        pytest.raises(PublishError) as raised,
        Publication(target),
    ):
        pass
    assert str(raised.value) == (
        f"{target}: another process is building this tree;"
        " wait for it to end, or give another version_stamp"
    )
    publish(target, "new")
    assert (target / "file").read_text() == "new"


def test_leftovers_of_a_killed_build_are_cleaned(tmp_path: Path) -> None:
    target = own_tree(tmp_path / "tree", "old")
    (tmp_path / ".tree.staging/boot").mkdir(parents=True)
    (tmp_path / ".tree.staging/boot/half").write_text("half")
    (tmp_path / ".tree.lock").touch()
    publish(target, "new")
    assert list(tmp_path.iterdir()) == [target]


def test_clean_leftovers_spares_a_running_build(tmp_path: Path) -> None:
    target = own_tree(tmp_path / "tree", "old")
    with Publication(target) as staging:
        clean_leftovers(target)
        assert staging.is_dir()
    (tmp_path / ".tree.staging").mkdir()
    clean_leftovers(target)
    assert list(tmp_path.iterdir()) == [target]


def test_a_lock_file_that_was_removed_meanwhile_is_no_lock(tmp_path: Path) -> None:
    """Two processes must not hold locks on two files of the same name."""
    lock = os.open(tmp_path / ".tree.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    (tmp_path / ".tree.lock").unlink()
    publish(tmp_path / "tree", "new")
    os.close(lock)
    assert (tmp_path / "tree/file").read_text() == "new"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"generator": 1}', "\0", '{"generator": {}}'])
def test_no_manifest_of_ours(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    assert own_names(tmp_path) is None
