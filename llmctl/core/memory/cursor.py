"""A walk over untrusted bytes in which every length is held against what is left, and against a budget."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from llmctl.errors import LlmctlError

Read = Callable[[int, int], bytes]
Scalar = int | float | bool | str

MAXIMUM_NAME_BYTES = 1 << 10
# The largest vocabularies of 2026 have 262,144 tokens and some 515,000 merges.
MAXIMUM_STRINGS = 1 << 21
MAXIMUM_KEPT_BYTES = 16 << 20
MAXIMUM_READ_BYTES = 128 << 20
# What Python adds to a kept text or number, roughly.
KEPT_OVERHEAD_BYTES = 64
WINDOW_BYTES = 256 << 10

U32, U64 = struct.Struct("<I"), struct.Struct("<Q")


class GgufError(LlmctlError):
    """The bytes are no GGUF header that can be used."""

    code = "bad_gguf"


@dataclass
class Cursor:
    """Reads little-endian values from `position` on. `what` names the part in errors."""

    read: Read
    size: int
    position: int = 0
    what: str = "the file"
    window: bytes = b""
    window_start: int = 0
    budget_read: int = MAXIMUM_READ_BYTES
    budget_kept: int = MAXIMUM_KEPT_BYTES
    budget_strings: int = MAXIMUM_STRINGS

    def error(self, text: str) -> GgufError:
        return GgufError(f"{self.what} {text} (at byte {self.position:,})")

    def take(self, length: int) -> bytes:
        start = self._require(length)
        self.position += length
        return self.window[start : start + length]

    def unpack(self, layout: struct.Struct) -> Scalar:
        start = self._require(layout.size)
        self.position += layout.size
        return cast("Scalar", layout.unpack_from(self.window, start)[0])

    def u32(self) -> int:
        return cast("int", self.unpack(U32))

    def u64(self) -> int:
        return cast("int", self.unpack(U64))

    def count(self, what: str, most: int, least_bytes: int) -> int:
        """A number of things of which each takes at least `least_bytes`."""
        count = self.u64()
        if count * least_bytes > self.size:
            raise GgufError(f"the file says {count:,} {what}, which {self.size:,} bytes cannot hold")
        if count > most:
            raise GgufError(f"the file says {count:,} {what}; up to {most:,} are read")
        return count

    def name(self, what: str) -> str:
        self.what = what
        length = self.u64()
        if not 0 < length <= MAXIMUM_NAME_BYTES:
            raise self.error(f"has a name of {length:,} bytes; 1 to {MAXIMUM_NAME_BYTES:,} are possible")
        self.keep(length)
        data = self.take(length)
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise self.error(f"has a name that is not UTF-8: {data[:40]!r}") from None

    def text(self) -> str:
        length = self.u64()
        self._left(length)
        self.keep(length)
        return self.take(length).decode("utf-8", "replace")

    def skip(self, length: int) -> None:
        self._left(length)
        self.position += length

    def spend_strings(self, count: int) -> None:
        """Before `count` strings are walked, kept or not."""
        self._left(count * U64.size)
        self.budget_strings -= count
        if self.budget_strings < 0:
            raise self.error(f"brings the file over {MAXIMUM_STRINGS:,} texts")

    def skip_strings(self, count: int) -> None:
        """Step over `count` strings. The hot loop: a vocabulary has a million of them."""
        unpack = U64.unpack_from
        while count:
            start = offset = self._require(U64.size)
            window, last = self.window, len(self.window) - U64.size
            while count and offset <= last:
                offset += U64.size + unpack(window, offset)[0]
                count -= 1
            self.skip(offset - start)

    def keep(self, length: int, values: int = 1) -> None:
        """Before `values` values of `length` bytes in all are kept in memory."""
        self.budget_kept -= length + values * KEPT_OVERHEAD_BYTES
        if self.budget_kept < 0:
            raise self.error(f"brings what the file wants kept over {MAXIMUM_KEPT_BYTES:,} bytes")

    def _left(self, length: int) -> None:
        left = max(self.size - self.position, 0)
        if length > left:
            raise self.error(f"needs {length:,} bytes, {left:,} are left: the file is cut short or damaged")

    def _require(self, length: int) -> int:
        """Have `length` bytes at the position in the window; where in the window they begin."""
        start = self.position - self.window_start
        if start >= 0 and start + length <= len(self.window):
            return start
        self._left(length)
        wanted = min(max(length, WINDOW_BYTES), self.size - self.position)
        self.budget_read -= wanted
        if self.budget_read < 0:
            raise self.error(f"lies beyond {MAXIMUM_READ_BYTES:,} bytes of header")
        self.window, self.window_start = self.read(self.position, wanted), self.position
        if len(self.window) < length:
            raise self.error("cannot be read: the source ended early")
        return 0
