"""A kernel's configuration, as `.config` or /boot/config-*.

Source of the format: the kernel's Documentation/kbuild/kconfig.rst and scripts/kconfig.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from catalyst_pxeboot.util.errors import FormatError
from catalyst_pxeboot.util.files import InputFile

#: The most bytes a configuration may have; real ones have about 300 KiB.
MAX_BYTES: Final = 4 << 20

_LINE: Final = re.compile(r"CONFIG_[A-Za-z0-9_]+=.*")
_ESCAPE: Final = re.compile(r"\\(.)")
_HINT: Final = "give the kernel's own .config"


def read_kconfig(source: InputFile) -> Mapping[str, str]:
    """Return the options that are set in a kernel configuration.

    Keys begin with `CONFIG_`; values are y, m, a number or a string without its quotes. An
    option that "is not set" is absent. Raises `FormatError` for anything but such a text and
    for more than `MAX_BYTES` bytes; `OSError` where the file cannot be read.
    """
    from snakeoil.bash import read_dict  # here: most images have no .config, and it takes long

    path = source.path
    data = source.stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise FormatError(
            f"{path}: expected a kernel configuration of at most {MAX_BYTES} bytes", hint=_HINT
        )
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise FormatError(
            f"{path}: expected a kernel configuration, which is UTF-8 text; "
            f"byte {error.start} is not",
            hint=_HINT,
        ) from error
    lines = []
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        # Checked here, as snakeoil's errors count lines without the comments.
        if line and not line.startswith("#"):
            if not _LINE.fullmatch(line):
                raise FormatError(
                    f"{path}: line {number}: expected CONFIG_NAME=VALUE or a comment", hint=_HINT
                )
            lines.append(line)
    # Given lines and not a file's name, as the name of this parameter's type differs between
    # snakeoil 0.10 and 0.11; comments within a line do not exist, a # is part of a string.
    options: dict[str, str] = read_dict(lines, allow_inline_comments=False)
    # snakeoil leaves an empty string its quotes.
    return MappingProxyType(
        {key: "" if value == '""' else _ESCAPE.sub(r"\1", value) for key, value in options.items()}
    )
