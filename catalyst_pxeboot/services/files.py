"""Which file of a folder a URL's path names, and whether a web server may send it."""

from __future__ import annotations

import stat
from http import HTTPStatus
from pathlib import Path


def find_file(root: Path, path: str, *, follow: bool = False) -> Path | HTTPStatus:
    """Find the file that the decoded path names below `root`, or say why it is refused.

    `root` is a resolved path. A symbolic link that leads out of it is refused, and so is a file
    that only its owner may read, as a web server with a user of its own would refuse it. With
    `follow` the folder's links are ours, and lead to open files.
    """
    if not path.startswith("/") or "\0" in path or ".." in path.split("/"):
        return HTTPStatus.BAD_REQUEST
    try:
        found = root / path.lstrip("/")
        if not follow:
            found = found.resolve(strict=True)
        mode = found.stat().st_mode
    except (OSError, RuntimeError):
        return HTTPStatus.NOT_FOUND
    if not found.is_relative_to(root):  # by a symbolic link
        return HTTPStatus.FORBIDDEN
    if not stat.S_ISREG(mode):
        return HTTPStatus.NOT_FOUND
    return found if mode & stat.S_IROTH else HTTPStatus.FORBIDDEN
