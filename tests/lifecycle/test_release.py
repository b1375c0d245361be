"""`up` with an engine from the release page: a stand-in of the page, which serves the real engine as an archive."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

import pytest
import zstandard

from tests.engines.standins import Release, Site
from tests.lifecycle.conftest import Llmctl
from tests.parts.engine import InstalledEngine

pytestmark = pytest.mark.real("ollama", "model")


def archive_of(engine: InstalledEngine) -> bytes:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        for folder in ("bin", "lib"):
            tar.add(engine.root / folder, folder)
    return zstandard.compress(plain.getvalue(), 1)


def test_the_hash_of_a_release_is_kept_in_the_lock_and_holds(
    llmctl: Llmctl, ready: str, engine: InstalledEngine
) -> None:
    site = Site()
    release = Release(site)
    sha256 = release.offer(archive_of(engine))
    del llmctl.environ["LLMCTL_ENGINE"]
    llmctl.environ |= {
        "LLMCTL_RELEASE_URL": release.url,
        "LLMCTL_ENGINES_DIR": str(llmctl.folder / "engines"),
        "PATH": "/usr/bin:/bin",
    }
    lock = Path(ready).with_suffix(".lock")
    try:
        up = llmctl("up", ready, "--yes", "--json")
        assert up.code == 0, up.err
        assert f"release_sha256: {sha256}" in lock.read_text()
        llmctl("down")
        shutil.rmtree(llmctl.folder / "engines")
        lock.write_text(lock.read_text().replace(sha256, "0" * 64))
        done = llmctl("up", ready, "--yes", "--json")
    finally:
        site.close()
    assert (done.code, done.error["code"]) == (5, "hash_mismatch")
    assert llmctl.owned() == []
