"""Takes typed values out of loose settings and collects what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Final, TypeVar

from catalyst_pxeboot.spec.keys import FOLDER_KEY, ISO_KEY
from catalyst_pxeboot.util.errors import PxebootError
from catalyst_pxeboot.util.text import nearest

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")

T = TypeVar("T")


class KeyReader:
    """The settings, and what was found wrong; `name` is how messages name a key."""

    def __init__(
        self, settings: Mapping[str, object], name: Callable[[str], str] = lambda key: key
    ) -> None:
        self.settings = settings
        self.name_key = name
        self.problems: list[PxebootError] = []
        self.notes: list[str] = []

    def __contains__(self, key: str) -> bool:
        return self.settings.get(key) is not None

    def fault(self, key: str, what: str, hint: str) -> None:
        self.problems.append(PxebootError(f"{self.name_key(key)}: {what}", hint=hint))

    def take(self, key: str, make: Callable[[], T]) -> T | None:
        try:
            return make()
        except PxebootError as error:
            self.problems.append(error)
            return None

    def require(self, key: str) -> None:
        if not self.settings.get(key):
            self.fault(key, "this spec key is missing or empty", "add it, see the README")

    def words(self, key: str) -> list[str]:
        value = self.settings.get(key)
        if value is None:
            return []
        if isinstance(value, str):
            words = value.split()
        elif isinstance(value, list | tuple) and all(isinstance(word, str) for word in value):
            words = list(value)
        else:
            self.fault(key, f"{value!r} is not a text or a list of words", "write words")
            return []
        for word in words:
            if not word.isprintable():
                self.fault(key, f"{word!r} holds a control character", "remove it")
        return words

    def word(self, key: str) -> str:
        words = self.words(key)
        if len(words) > 1:
            self.fault(key, f"{' '.join(words)!r} is more than one word", "give one word")
        return words[0] if words else ""

    def path_part(self, key: str) -> str:
        text = self.word(key).rstrip("/")
        parts = PurePosixPath(text).parts
        if text.startswith("/") or ".." in parts:
            self.fault(key, f"{text!r} leads out of <storedir>/builds", "give a path below it")
        return text

    def folder_part(self, rel_type: str, subarch: str, stamp: str) -> str:
        """Return the stage2 folder's place below `<storedir>/builds`.

        A livecd-stage2 spec has in source_subpath the stage1 build that it begins with.
        """
        text = self.path_part(FOLDER_KEY)
        name = PurePosixPath(text).name
        if not name.startswith("livecd-stage1-"):
            return text
        stage2 = f"{rel_type}/livecd-stage2-{subarch}-{stamp}"
        self.notes.append(
            f"{FOLDER_KEY}: {name} is what livecd-stage2 begins with; taking {stage2}"
        )
        return stage2

    def source(self, rel_type: str, subarch: str, stamp: str) -> str:
        """Return the live image's place, absolute or below `<storedir>/builds`."""
        if ISO_KEY not in self:
            return self.folder_part(rel_type, subarch, stamp)
        if FOLDER_KEY in self:
            self.fault(ISO_KEY, f"is given beside {FOLDER_KEY}", "name the ISO or the folder")
        word = self.word(ISO_KEY)
        return word if word.startswith("/") else self.path_part(ISO_KEY)

    def name(self, key: str, text: str) -> str:
        if not _NAME.fullmatch(text) or ".." in text:
            self.fault(
                key,
                f"{text!r} is not a kernel name",
                "use letters, digits and . _ + - only, as in boot/<name> of the stage2 tree",
            )
        return text

    def number(self, key: str, *, lowest: int, highest: int) -> int | None:
        text = self.word(key)
        if not text:
            return None
        if not re.fullmatch(r"-?[0-9]{1,9}", text) or not lowest <= int(text) <= highest:
            self.fault(
                key, f"{text!r} is not a whole number from {lowest} to {highest}", "correct it"
            )
            return None
        return int(text)

    def boolean(self, key: str) -> bool | None:
        text = self.word(key)
        if text not in ("", "yes", "no"):
            self.fault(key, f"{text!r} is neither yes nor no", "write yes or no")
        return text == "yes" if text else None

    def enums(self, key: str, kind: type[T], *, more: Sequence[str] = ()) -> tuple[T, ...]:
        """Read words that `kind` knows; `more` are words that a message names beside them."""
        known = [*(str(member) for member in kind), *more]  # type: ignore[attr-defined]
        found: list[T] = []
        for word in self.words(key):
            if word not in known:
                self.fault(
                    key, f"{word!r} is unknown{nearest(word, known)}", "use " + ", ".join(known)
                )
            elif (member := kind(word)) not in found:  # type: ignore[call-arg]
                found.append(member)
        return tuple(found)

    def file(self, key: str) -> Path | None:
        text = self.word(key)
        if text and not Path(text).is_absolute():
            self.fault(key, f"{text!r} is not an absolute path", "write it from the root, /")
        return Path(text) if text else None

    def folder(self, key: str, hint: str) -> Path | None:
        """Read one folder; `hint` is what to do with several."""
        found = self.folders(key)
        if len(found) > 1:
            self.fault(key, "takes one folder", hint)
        return found[0] if found else None

    def folders(self, key: str) -> tuple[Path, ...]:
        folders = []
        for word in self.words(key):
            path = Path(word)
            if not path.is_absolute():
                self.fault(key, f"{word!r} is not an absolute path", "write it from the root, /")
            elif not path.is_dir():
                self.fault(key, f"{word!r} is not a folder", "correct or create it")
            folders.append(path)
        return tuple(folders)
