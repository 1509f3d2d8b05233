"""Keys that stay in a token, by their PKCS #11 URI (RFC 7512)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote

SCHEME: Final = "pkcs11:"


@dataclass(frozen=True, slots=True)
class TokenKey:
    """The URI of a key, and the library that reaches its token.

    Without `module` that is p11-kit's, which knows all tokens that the system has set up.
    """

    uri: str
    module: Path | None = None


def read_token_key(text: str) -> TokenKey:
    """Read a URI that begins with `SCHEME`; raises ValueError, which says what is wrong."""
    uri, _, query = text.partition("?")
    if not any(part.startswith(("object=", "id=")) for part in uri[len(SCHEME) :].split(";")):
        raise ValueError("names neither object= nor id=")
    module = None
    for part in filter(None, query.split("&")):
        name, _, value = part.partition("=")
        if name != "module-path":
            raise ValueError(f"has {name}=, and after ? only module-path= is read")
        module = Path(unquote(value))
        if not module.is_absolute():
            raise ValueError(f"has a module-path that is not absolute, {value!r}")
    if "pin-value=" in uri:
        raise ValueError("has a PIN in it")
    return TokenKey(uri, module)
