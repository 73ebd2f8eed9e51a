"""Passwords and keys belong in the environment: settings and addresses are recorded, shown and passed on."""

from __future__ import annotations

import re

from dmp_core.errors import InputError

# Over HTTP a token may be alone; elsewhere a user's name is no secret, and `github://owner:repository@x` is none.
_PASSWORD = re.compile(
    r"(?:(?<=http://)|(?<=https://))[^/?#\s@]+@|(?<=://)(?<!github://)[^/?#\s:@]*:[^/?#\s@]*@", re.IGNORECASE
)
_KEY = re.compile(r"([?&][\w-]*(?:key|token|secret|password)[\w-]*=)[^&\s'\"]+", re.IGNORECASE)


def refuse_password(address: str, instead: str) -> str:
    """The address. Raises InputError if there is a password in it."""
    if _PASSWORD.search(address):
        raise InputError(f"{masked(address)}: a password in an address would be recorded; {instead}")
    return address


def masked(text: str) -> str:
    """Text without the passwords and keys of the addresses in it."""
    return _KEY.sub(r"\1***", _PASSWORD.sub("***@", text))
