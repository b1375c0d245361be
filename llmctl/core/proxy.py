"""Addresses that carry a password, and the variables that hold them."""

from __future__ import annotations

import re

# user:password@ before the host, with a scheme or without one; a password may have anything in it but blanks.
_PASSWORD = re.compile(r"^(?:[a-z][a-z0-9+.-]*://)?[^/\s@:]*:(?!//)[^\s]+@", re.IGNORECASE)


# The same in the middle of a text: to the last `@` before the blank, as a password may have one too.
_CREDENTIALS = re.compile(r"(?P<scheme>\b[a-z][a-z0-9+.-]*://)[^\s\"']*@", re.IGNORECASE)


def without_credentials(text: str, instead: str) -> str:
    """A text whose addresses have lost what stands before their host."""
    return _CREDENTIALS.sub(rf"\g<scheme>{instead}@", text)


def has_password(name: str, value: str) -> bool:
    return name.upper().endswith("_PROXY") and _PASSWORD.match(value.strip()) is not None
