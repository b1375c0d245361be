"""Fetch one blob of a registry: hashed on the way, and gone on with where an earlier run was ended.

The unfinished file itself is the whole state: what it holds is hashed first, and the rest is asked for with Range.
Nothing is accepted that does not hash, and what may be good stays for the next run.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core.pin import Layer
from llmctl.errors import DownloadFailed, LlmctlError, NotFound
from llmctl.system import registry
from llmctl.system.disk import disk_errors
from llmctl.system.download import (
    CONNECT_SECONDS,
    STALL_SECONDS,
    http_errors,
    new_client,
)
from llmctl.system.reach import require_reachable

if TYPE_CHECKING:
    import httpx

    from llmctl.core.model import ModelRef

PIECE_BYTES = 1 << 20
# Attempts in a row that bring less than this count as failed; after so many the source is given up.
PROGRESS_BYTES = 64 << 10
ATTEMPTS = 4
BACKOFF_SECONDS = 1.0
# A registry that asks for more patience than this is told of instead of waited for.
LONGEST_WAIT_SECONDS = 30.0

OnBytes = Callable[[int, int], None]


class _Retry(Exception):
    """The attempt failed in a way that another may not; `error` is what to say if none does."""

    def __init__(self, error: LlmctlError, wait_seconds: float = 0.0) -> None:
        super().__init__(error.message)
        self.error = error
        self.wait_seconds = wait_seconds


@dataclass(frozen=True)
class FetchedBlob:
    """`fetched_bytes` came over the wire in this run; the rest was there."""

    path: Path
    fetched_bytes: int


def partial_path(folder: Path, digest: str) -> Path:
    """The unfinished file of a blob: named by its digest, so that the next run finds it."""
    return folder / f"{digest.replace(':', '-')}.part"


def fetch_blob(
    ref: ModelRef,
    layer: Layer,
    folder: Path,
    environ: Mapping[str, str] = os.environ,
    on_bytes: OnBytes | None = None,
) -> FetchedBlob:
    """Get a blob of `ref`'s repository into `folder`, whole and hashed. `on_bytes` hears (there, in all).

    A pause of 30 s ends an attempt; attempts are repeated while bytes arrive between them. Raises NotFound where the
    registry has no such blob, DiskFull, and DownloadFailed for everything that is not the blob.
    """
    url = f"{registry.base_url(ref)}/blobs/{layer.digest}"
    require_reachable(url, environ, CONNECT_SECONDS)
    with disk_errors(folder), _Partial(partial_path(folder, layer.digest), layer, on_bytes) as partial:
        download = _Download(ref, url, layer, partial)
        with download.client:
            download.complete()
            if partial.digest != layer.digest:
                # What an earlier run or another source left may be at fault: once more, from nothing.
                partial.restart()
                download.complete()
            if partial.digest != layer.digest:
                found = partial.digest
                partial.restart()
                raise DownloadFailed(f"{ref.host} sent other bytes than {layer.digest}: {found}", code="hash_mismatch")
        return FetchedBlob(partial.path, download.fetched_bytes)


class _Partial:
    """The unfinished file and the hash of what it holds."""

    def __init__(self, path: Path, layer: Layer, on_bytes: OnBytes | None) -> None:
        self.path, self.layer = path, layer
        self.on_bytes = on_bytes or (lambda *_: None)
        self.size_bytes = 0

    def __enter__(self) -> _Partial:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self.descriptor = os.open(self.path, flags, 0o600)
        try:
            self._hash_what_is_there()
        except BaseException:
            os.close(self.descriptor)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    def _hash_what_is_there(self) -> None:
        self.hash = hashlib.sha256()
        if os.fstat(self.descriptor).st_size > self.layer.size_bytes:
            self.restart()
        while piece := os.read(self.descriptor, PIECE_BYTES):
            self.hash.update(piece)
            self.size_bytes += len(piece)
            self.on_bytes(self.size_bytes, self.layer.size_bytes)

    @property
    def digest(self) -> str:
        return f"sha256:{self.hash.hexdigest()}"

    def restart(self) -> None:
        os.ftruncate(self.descriptor, 0)
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        self.hash, self.size_bytes = hashlib.sha256(), 0

    def add(self, piece: bytes) -> None:
        view = memoryview(piece)
        while view:
            written = os.write(self.descriptor, view)
            self.hash.update(view[:written])
            self.size_bytes += written
            view = view[written:]
        self.on_bytes(self.size_bytes, self.layer.size_bytes)


class _Download:
    """The attempts to get the rest of one blob."""

    def __init__(self, ref: ModelRef, url: str, layer: Layer, partial: _Partial) -> None:

        self.ref, self.url, self.layer, self.partial = ref, url, layer, partial
        self.fetched_bytes = 0
        self.headers: dict[str, str] = {}
        self.client = new_client(url, STALL_SECONDS, loopback=ref.loopback)

    def complete(self) -> None:
        """Fill the partial file up to the blob's length."""
        failures = 0
        while self.partial.size_bytes < self.layer.size_bytes:
            before = self.partial.size_bytes
            try:
                self._attempt()
            except _Retry as retry:
                arrived = self.partial.size_bytes - before
                failures = 0 if arrived >= PROGRESS_BYTES else failures + 1
                if failures >= ATTEMPTS:
                    raise retry.error from retry
                time.sleep(max(retry.wait_seconds, BACKOFF_SECONDS * 2 ** max(0, failures - 1)))

    def _attempt(self) -> None:
        """One request for what is missing. _Retry where the next one may bring more."""
        import httpx

        try:
            with http_errors(self.url):
                self._request()
        except DownloadFailed as error:
            # What the registry said stands, and a certificate that is not trusted; that it was cut off does not.
            if isinstance(error.__cause__, httpx.TransportError) and error.hint is None:
                raise _Retry(error) from error
            raise

    def _request(self) -> None:
        # A token lives for minutes, a download for hours: any attempt may need a new one.
        for token_is_new in (False, True):
            wanted = {"Range": f"bytes={self.partial.size_bytes}-{self.layer.size_bytes - 1}", **self.headers}
            with self.client.stream("GET", self.url, headers=wanted) as response:
                refused = response.status_code == 401 and not token_is_new
                if refused and (token := registry.token_for(self.client, response)):
                    self.headers = {"Authorization": f"Bearer {token}"}
                    continue
                skip_bytes = self._check(response)
                self._receive(response, skip_bytes)
                return

    def _check(self, response: httpx.Response) -> int:
        """How many bytes of the body are there already."""
        status = response.status_code
        if status == 404:
            raise NotFound(f"{self.ref.host} has no blob {self.layer.digest} any more", code="blob_not_found")
        if status in {429, 503} and (wait := _retry_after(response)) is not None and wait <= LONGEST_WAIT_SECONDS:
            raise _Retry(DownloadFailed(f"{self.ref.host} is busy ({status})", code="registry_busy"), wait)
        if response.headers.get("content-type", "").startswith("text/html"):
            said = f"{self.ref.host} answered with a web page; a proxy or a login page is in between"
            raise DownloadFailed(said, code="registry_answer")
        if status >= 500:
            raise _Retry(DownloadFailed(f"{self.ref.host} answered {status} for {self.layer.digest}"))
        if status == 206:
            self._check_range(response)
            return 0
        registry.raise_for(self.ref, response)
        # It knows no ranges: everything comes again, and what is there already is passed over.
        self._check_length(response, self.layer.size_bytes)
        return self.partial.size_bytes

    def _check_range(self, response: httpx.Response) -> None:
        said = response.headers.get("content-range", "")
        found = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", said)
        if found is None or int(found[1]) != self.partial.size_bytes:
            raise DownloadFailed(
                f"{self.ref.host} sent the range {said!r}, asked for was another", code="registry_answer"
            )
        if found[3] not in {"*", str(self.layer.size_bytes)}:
            raise self._wrong_length(int(found[3]))

    def _check_length(self, response: httpx.Response, expected_bytes: int) -> None:
        length = response.headers.get("content-length", "")
        if length.isdecimal() and int(length) != expected_bytes:
            raise self._wrong_length(int(length))

    def _wrong_length(self, found_bytes: int) -> DownloadFailed:
        return DownloadFailed(
            f"{self.ref.host} has {found_bytes:,} bytes as {self.layer.digest}, pinned are {self.layer.size_bytes:,}",
            code="registry_answer",
        )

    def _receive(self, response: httpx.Response, skip_bytes: int) -> None:
        for piece in response.iter_raw():
            self.fetched_bytes += len(piece)
            fresh = piece[skip_bytes:]
            skip_bytes = max(0, skip_bytes - len(piece))
            if self.partial.size_bytes + len(fresh) > self.layer.size_bytes:
                raise DownloadFailed(f"{self.ref.host} sent more bytes than it announced", code="registry_answer")
            self.partial.add(fresh)
        if self.partial.size_bytes < self.layer.size_bytes:
            raise _Retry(DownloadFailed(f"{self.ref.host} ended after {self.partial.size_bytes:,} bytes"))


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds that the answer asks to wait, as a number or a date. None where it does not say."""
    from email.utils import parsedate_to_datetime

    text = response.headers.get("retry-after", "")
    if text.isdecimal() and len(text) < 8:
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
