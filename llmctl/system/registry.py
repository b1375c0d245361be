"""Ask a model registry what a name stands for now, before anything is downloaded. httpx errors end here.

The protocol is what `ollama pull` speaks (ollama v0.34.0 server/images.go:1371, server/auth.go), without the key
that Ollama signs with: models that need a login cannot be asked for.
"""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from llmctl.core.digest import digest_of
from llmctl.core.manifest import MEDIA_TYPE, Manifest, parse_manifest
from llmctl.core.model import DEFAULT_HOST
from llmctl.errors import DownloadFailed, LlmctlError, NotFound, Refused
from llmctl.system.download import CONNECT_SECONDS, http_errors, new_client, within
from llmctl.system.reach import require_reachable

if TYPE_CHECKING:
    import httpx

    from llmctl.core.model import ModelRef
    from llmctl.core.pin import Layer

MAXIMUM_BYTES = 4 << 20
# A manifest is a few hundred bytes; a registry that needs longer than this is as good as away.
ANSWER_SECONDS = 15.0
# Once it sends, so small an answer does not pause: who asks for a verdict is not kept waiting by a stalled registry.
SILENCE_SECONDS = 1.0
PIECE_BYTES = 64 << 10
HANDSHAKE_SECONDS = 2.0
OFFLINE_HINT = "check the network and https_proxy; a small model without a registry: llmctl pull starter"


class RegistryUnreachable(DownloadFailed):
    """The registry itself cannot be asked now: no connection, no answer, or something else answers."""

    code = "registry_unreachable"


def manifest(ref: ModelRef, environ: Mapping[str, str] = os.environ) -> Manifest:
    """What `ref` stands for in its registry now.

    NotFound when it has no such model, RegistryUnreachable when it cannot be asked (within 5 s where nothing
    accepts the connection), DownloadFailed when it refuses or sends something else.
    """
    url = f"{base_url(ref)}/manifests/{ref.tag}"
    content, header = _get(ref, url, MEDIA_TYPE, environ)
    try:
        found = parse_manifest(content)
    except ValueError as error:
        raise DownloadFailed(f"{ref.host} sent no manifest for {ref}: {error}") from None
    if header and header != found.digest:
        raise DownloadFailed(f"{ref.host} sent a damaged manifest for {ref}: {found.digest}, announced as {header}")
    return found


def pinned_manifest(ref: ModelRef, digest: str, environ: Mapping[str, str] = os.environ) -> bytes:
    """The bytes of the manifest `digest` in the repository of `ref`: asked for by digest, then by its tag.

    Refused where the tag has moved and the registry keeps no manifest by digest; else raises as `manifest` does.
    """
    for reference in (digest, ref.tag):
        try:
            content, _ = _get(ref, f"{base_url(ref)}/manifests/{reference}", MEDIA_TYPE, environ)
        except (NotFound, DownloadFailed) as error:
            # A registry may not know manifests by digest at all, and says so in its own way.
            if reference == ref.tag or isinstance(error, RegistryUnreachable):
                raise
            continue
        if digest_of(content) == digest:
            return content
    raise Refused(f"{ref.host} has moved {ref} and no longer has {digest}", f"llmctl pull {ref} --update", code="drift")


def small_blob(ref: ModelRef, layer: Layer, environ: Mapping[str, str] = os.environ) -> bytes | None:
    """The bytes of a small blob such as the config. None where they cannot be had or are not those bytes."""
    if layer.size_bytes > MAXIMUM_BYTES:
        return None
    try:
        content, _ = _get(ref, f"{base_url(ref)}/blobs/{layer.digest}", "*/*", environ)
    except LlmctlError:
        return None
    return content if digest_of(content) == layer.digest else None


def base_url(ref: ModelRef) -> str:
    """Where its registry keeps it, with the scheme that it speaks."""
    return f"{'http' if plain(ref) else 'https'}://{ref.host}/v2/{ref.namespace}/{ref.model}"


def plain(ref: ModelRef) -> bool:
    """Whether its registry is asked without TLS: only on this machine, and only where none is spoken there."""
    return ref.loopback and not _speaks_tls(ref.host)


def _speaks_tls(host: str) -> bool:
    """Whether a handshake succeeds. The certificate is judged by the request itself, which can say what is wrong."""
    name, _, port = host.partition(":")
    anyone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((name, int(port or 443)), timeout=HANDSHAKE_SECONDS) as connection,
            anyone.wrap_socket(connection, server_hostname=name),
        ):
            return True
    except (OSError, UnicodeError):
        return False


def _get(ref: ModelRef, url: str, accept: str, environ: Mapping[str, str]) -> tuple[bytes, str | None]:
    try:
        require_reachable(url, environ, CONNECT_SECONDS)
        return within(ANSWER_SECONDS, url, lambda: _ask(ref, url, accept))
    except LlmctlError as error:
        # What the host said keeps its class; that nobody answered gets one of its own.
        if type(error) is DownloadFailed and error.code == DownloadFailed.code:
            raise RegistryUnreachable(error.message, error.hint or OFFLINE_HINT) from error
        raise


def _ask(ref: ModelRef, url: str, accept: str) -> tuple[bytes, str | None]:

    client = new_client(url, ANSWER_SECONDS, loopback=ref.loopback, headers={"Accept": accept})
    with http_errors(url), client:
        response, content = _read(client, url, {})
        if response.status_code == 401 and (token := token_for(client, response)):
            response, content = _read(client, url, {"Authorization": f"Bearer {token}"})
        raise_for(ref, response)
        return content, response.headers.get("docker-content-digest")


def _read(client: httpx.Client, url: str, headers: dict[str, str]) -> tuple[httpx.Response, bytes]:
    with client.stream("GET", url, headers=headers) as response:
        body = bytearray()
        for chunk in flowing(response):
            body += chunk
            if len(body) > MAXIMUM_BYTES:
                raise DownloadFailed(f"{url} sent more than {MAXIMUM_BYTES:,} bytes", code="registry_answer")
        return response, bytes(body)


def flowing(response: httpx.Response) -> Iterator[bytes]:
    """The body of a small answer. Times out when the sender pauses for SILENCE_SECONDS."""
    response.request.extensions["timeout"]["read"] = SILENCE_SECONDS
    return response.iter_bytes(PIECE_BYTES)


def token_for(client: httpx.Client, response: httpx.Response) -> str | None:
    """A token for public models, from the realm that a 401 names. None where there is none to be had."""
    challenge = dict(re.findall(r'(\w+)="([^"]*)"', response.headers.get("www-authenticate", "")))
    realm = urlsplit(challenge.pop("realm", ""))
    # As ollama does since CVE-2025-51471: a registry may not send its clients elsewhere.
    if realm.netloc != response.url.netloc.decode() or realm.scheme != response.url.scheme:
        return None
    import httpx

    parameters = {key: challenge[key] for key in ("service", "scope") if key in challenge}
    answer, content = _read(client, str(httpx.URL(realm.geturl()).copy_merge_params(parameters)), {})
    try:
        document = json.loads(content) if answer.status_code == 200 else {}
    except ValueError:
        return None
    token = document.get("token") or document.get("access_token") if isinstance(document, dict) else None
    return token if isinstance(token, str) else None


def raise_for(ref: ModelRef, response: httpx.Response) -> None:
    status, host = response.status_code, ref.host
    if status == 404:
        raise NotFound(f"{host} has no model {ref}", f"its names: {_page(ref)}", code="model_not_found")
    if status in {401, 403}:
        raise DownloadFailed(
            f"{host} wants a login for {ref}: it is private, or there is no such model", code="registry_login"
        )
    if status == 412:
        raise DownloadFailed(
            f"{host} says that {ref} needs a newer Ollama", "llmctl engine list", code="engine_too_old"
        )
    if status == 429:
        wait = response.headers.get("retry-after", "")
        when = f"in {wait} seconds" if wait.isdecimal() else "later"
        raise DownloadFailed(f"{host} limits requests (429); try again {when}", code="registry_busy")
    if status != 200:
        raise DownloadFailed(f"{host} answered {status} for {ref}")
    if response.headers.get("content-type", "").startswith("text/html"):
        raise DownloadFailed(f"{host} answered with a web page; a proxy or a login page is in between")


def _page(ref: ModelRef) -> str:
    """The web page that lists what there is."""
    if ref.host != DEFAULT_HOST:
        return f"{base_url(ref).partition(':')[0]}://{ref.host}/{ref.namespace}/{ref.model}"
    return f"https://ollama.com/{ref.namespace}/{ref.model}/tags"
