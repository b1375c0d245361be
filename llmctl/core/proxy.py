"""Proxy variables that carry a password."""

from __future__ import annotations

import re

# user:password@ before the host, with a scheme or without one; a password may have anything in it but blanks.
_PASSWORD = re.compile(r"^(?:[a-z][a-z0-9+.-]*://)?[^/\s@:]*:(?!//)[^\s]+@", re.IGNORECASE)


def has_password(name: str, value: str) -> bool:
    return name.upper().endswith("_PROXY") and _PASSWORD.match(value.strip()) is not None
