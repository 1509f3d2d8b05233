"""The scripts of the initrd that streams a root.

Source: dracut's initqueue and its module dmsquash-live; dm-verity's table; nbdkit(1).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from catalyst_pxeboot.model.files import STREAM_FOLDER
from catalyst_pxeboot.render.templates import render_file

#: Seconds for which a server may be away before what reads the root gets an error.
PATIENCE: Final = 300

_SCRIPTS: Final = {"stream": "stream", "dhcp": "stream-dhcp", "serve": "stream-serve"}


def render_stream(
    *, hooks: str, interpreter: str, templates: Path | None
) -> Sequence[tuple[str, bytes]]:
    """Return the scripts with their paths in the initramfs.

    `hooks` is the initramfs's folder of dracut's hooks, without a slash
    before it; `interpreter` is busybox's dynamic loader in the tools' root. A file in the folder
    `templates` replaces the shipped template of the same relative name. Raises `TemplateError`.
    """
    values = {"patience": PATIENCE, "interpreter": interpreter}

    def render(name: str) -> bytes:
        return render_file(f"initramfs/{name}.sh", values, templates).content

    scripts = [(f"{STREAM_FOLDER}/{path}", render(name)) for path, name in _SCRIPTS.items()]
    # Before dracut's own, so that the root is there when they look for it.
    return [*scripts, (f"{hooks}/initqueue/settled/00-stream.sh", render("stream-dracut"))]
