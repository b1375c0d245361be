"""Fetch files over HTTP: streamed, hashed on the way, bounded in size, redirects and waiting time.

Everything that goes wrong becomes DownloadFailed (or DiskFull), with the address in the message.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from llmctl import __version__
from llmctl.errors import DownloadFailed
from llmctl.system.disk import disk_errors

if TYPE_CHECKING:
    import ssl

    import httpx

CONNECT_SECONDS = 5.0
STALL_SECONDS = 30.0
MAX_REDIRECTS = 5
TRUST_HINT = "export SSL_CERT_FILE=/path/to/ca.pem, for llmctl and for the server"
LOOPBACK = ("127.0.0.1", "localhost", "::1")

# Ranges and lengths are of the file itself.
AS_IT_IS = {"Accept-Encoding": "identity"}

Value = TypeVar("Value")
# Called with the bytes received so far, and all of them where the server says so.
OnBytes = Callable[[int, "int | None"], None]


@dataclass(frozen=True)
class Fetched:
    """A file that arrived whole."""

    path: Path
    size_bytes: int
    sha256: str


def fetch_text(url: str, *, max_bytes: int = 1 << 20, deadline_seconds: float = CONNECT_SECONDS) -> str:
    """A small text file, or DownloadFailed within `deadline_seconds`, name lookup and redirects included."""

    def get() -> str:
        with opened(url, stall_seconds=deadline_seconds) as response:
            body = bytearray()
            for chunk in response.iter_raw():
                body += chunk
                if len(body) > max_bytes:
                    raise DownloadFailed(f"{url} sent more than {max_bytes:,} bytes")
            return body.decode(errors="replace")

    return within(deadline_seconds, url, get)


def content_length(url: str, *, deadline_seconds: float = CONNECT_SECONDS) -> int | None:
    """Bytes that `url` would send, None where the server does not say. A GET whose body is left unread: signed
    addresses that a redirect leads to may refuse HEAD."""

    def get() -> int | None:
        with opened(url, stall_seconds=deadline_seconds) as response:
            return declared_length(response)

    return within(deadline_seconds, url, get)


def fetch(
    url: str,
    target: Path,
    *,
    max_bytes: int,
    on_bytes: OnBytes | None = None,
    stall_seconds: float = STALL_SECONDS,
) -> Fetched:
    """Stream `url` into the new file `target`. Fails when nothing arrives for `stall_seconds`, when more than
    `max_bytes` come, or fewer than announced."""
    digest = hashlib.sha256()
    received_bytes = 0
    with opened(url, stall_seconds) as response, disk_errors(target.parent), target.open("xb") as file:
        total_bytes = declared_length(response)
        for chunk in response.iter_raw():
            received_bytes += len(chunk)
            if received_bytes > max_bytes:
                raise DownloadFailed(f"{url} sent more than {max_bytes:,} bytes")
            digest.update(chunk)
            file.write(chunk)
            if on_bytes is not None:
                on_bytes(received_bytes, total_bytes)
    if total_bytes is not None and received_bytes != total_bytes:
        raise DownloadFailed(f"{url} was cut short: {received_bytes:,} of {total_bytes:,} bytes came")
    return Fetched(target, received_bytes, digest.hexdigest())


@contextmanager
def opened(url: str, stall_seconds: float) -> Iterator[httpx.Response]:
    """The answer to a GET with status 200 that is no web page; its body is still to be read."""
    client = new_client(url, stall_seconds, loopback=host_of(url) in LOOPBACK)
    with http_errors(url), client, client.stream("GET", url) as response:
        check(url, response)
        yield response


def new_client(
    url: str, silence_seconds: float, *, loopback: bool, headers: Mapping[str, str] = AS_IT_IS
) -> httpx.Client:
    """A client for `url` and where it redirects to, a few times and never out of TLS."""
    import httpx

    return httpx.Client(
        follow_redirects=True,
        max_redirects=MAX_REDIRECTS,
        timeout=httpx.Timeout(silence_seconds, connect=CONNECT_SECONDS),
        # No proxy leads to this machine. SSL_CERT_FILE counts here too.
        trust_env=not loopback,
        verify=trusted(),
        headers={"User-Agent": f"llmctl/{__version__}", **headers},
        event_hooks={"request": [encrypted(url)]},
    )


def check(url: str, response: httpx.Response) -> None:
    if response.status_code != 200:
        raise DownloadFailed(f"{url} answered {response.status_code} {response.reason_phrase}".rstrip())
    if response.headers.get("content-type", "").startswith("text/html"):
        raise DownloadFailed(f"{url} answered with a web page instead of the file")


def encrypted(url: str) -> Callable[[httpx.Request], None]:
    """A hook of httpx, before each hop: what is asked for with TLS is not followed to where there is none."""

    def refuse(request: httpx.Request) -> None:
        if request.url.scheme != "https" and url.startswith("https:"):
            message = f"{host_of(url)} redirects to {request.url.host} without encryption"
            raise DownloadFailed(message, code="registry_answer")

    return refuse


def trusted() -> ssl.SSLContext:
    """The certificates that SSL_CERT_FILE or SSL_CERT_DIR name, else those that came with httpx."""
    import httpx

    try:
        return httpx.create_ssl_context()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        message = f"cannot read the certificates that SSL_CERT_FILE names: {reason}"
        raise DownloadFailed(message, 'ls -l "$SSL_CERT_FILE"', code="certificates") from error


@contextmanager
def http_errors(url: str) -> Iterator[None]:
    import httpx

    host = host_of(url)
    try:
        yield
    except httpx.ConnectTimeout as error:
        raise DownloadFailed(f"{host} did not accept a connection in {CONNECT_SECONDS:.0f} s ({url})") from error
    except httpx.ConnectError as error:
        if found := re.search(r"certificate verify failed: ([^(]+)", str(error)):
            raise DownloadFailed(f"the certificate of {host} is not trusted: {found[1].strip()}", TRUST_HINT) from error
        raise DownloadFailed(f"cannot connect to {host}: {error} ({url})") from error
    except httpx.TimeoutException as error:
        raise DownloadFailed(f"{host} stopped sending ({url})") from error
    except httpx.TooManyRedirects as error:
        raise DownloadFailed(f"{url} redirects more than {MAX_REDIRECTS} times") from error
    except UnicodeError as error:
        raise DownloadFailed(f"{host} is no name of a host ({url})", code="no_host") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise DownloadFailed(f"cannot get {url}: {error}") from error


def host_of(url: str) -> str:
    """The host that messages name. DownloadFailed where `url` is no address."""
    try:
        return urlsplit(url).hostname or url
    except ValueError as error:
        raise DownloadFailed(f"{url} is not an address: {error}") from error


def declared_length(response: httpx.Response) -> int | None:
    text = response.headers.get("content-length", "")
    return int(text) if text.isdecimal() else None


def within(seconds: float, url: str, work: Callable[[], Value]) -> Value:
    """The result of `work`, or DownloadFailed after `seconds`. A thread, because a name lookup has no timeout."""
    outcome: list[Value] = []
    failure: list[BaseException] = []

    def attempt() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(seconds)
    if failure:
        raise failure[0]
    if not outcome:
        raise DownloadFailed(f"{host_of(url)} did not answer in {seconds:.0f} s ({url})")
    return outcome[0]
