"""The official archive, from a stand-in that redirects and answers as the real host does; and every way it fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from llmctl.engines import Engines
from llmctl.errors import ConsentNeeded, DiskFull, DownloadFailed, EngineMissing, LlmctlError, Refused
from llmctl.system.paths import from_environment
from tests.engines.conftest import Asked
from tests.engines.standins import VERSION, Answer, Release, engine_members, tar_zst

INSTALL = """
import os, sys
from llmctl.engines import Engines
from llmctl.system.paths import from_environment
def progress(step):
    print(step.id, step.state, step.detail, flush=True)
engines = Engines(from_environment(os.environ), os.environ)
print("prefix", engines.install("0.34.0", "release", progress=progress, consent=lambda _: None).prefix, flush=True)
"""


def install(engines: Engines, asked: Asked) -> object:
    return engines.install(VERSION, "release", progress=asked.progress, consent=asked.consent)


def nothing_left(engines: Engines) -> bool:
    """Neither an engine nor a staging folder."""
    return engines.list() == [] and not list(engines.paths.engines.glob(".staging-*"))


def start_install(environ: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", INSTALL],
        env={**environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_installs_the_archive_through_a_redirect(with_release: Release, engines: Engines, asked: Asked) -> None:
    digest = with_release.offer(tar_zst(engine_members()))
    engine = engines.install(VERSION, progress=asked.progress, consent=asked.consent)
    assert (engine.version, engine.origin, engine.backend) == (VERSION, "release", "cuda")
    assert engine.release_sha256 == digest
    assert engine.prefix == engines.paths.engines / VERSION
    assert os.access(engine.executable, os.X_OK)
    assert engines.find() == engine
    assert asked.questions == []
    assert not list(engines.paths.engines.glob(".staging-*"))


def test_a_second_install_does_nothing(with_release: Release, engines: Engines, asked: Asked) -> None:
    first = install(engines, asked)
    with_release.site.answers.clear()
    assert install(engines, asked) == first
    assert asked.final()["engine.installed"].state == "skipped"


def test_ensure_gets_the_release_where_nothing_is(with_release: Release, engines: Engines, asked: Asked) -> None:
    engine = engines.ensure(None, cpu_only_allowed=False, progress=asked.progress, consent=asked.consent)
    assert engine.origin == "release"
    assert asked.final()["engine"].state == "done"


def test_a_hash_that_differs_from_the_list_is_refused(with_release: Release, engines: Engines, asked: Asked) -> None:
    with_release.offer(tar_zst(engine_members()), listed="0" * 64)
    with pytest.raises(DownloadFailed, match="sha256") as failure:
        engines.install(VERSION, progress=asked.progress, consent=asked.consent)
    assert failure.value.code == "hash_mismatch"
    assert nothing_left(engines)


def test_a_hash_that_differs_from_the_lock_is_refused(with_release: Release, engines: Engines, asked: Asked) -> None:
    with pytest.raises(Refused, match="lock"):
        engines.ensure(VERSION, cpu_only_allowed=True, expected_sha256="1" * 64, consent=asked.consent)
    assert with_release.archives_sent() == 0
    assert nothing_left(engines)


def test_an_installed_archive_that_is_not_the_locks_is_not_used(
    with_release: Release, engines: Engines, asked: Asked
) -> None:
    install(engines, asked)
    with pytest.raises(Refused, match="lock"):
        engines.ensure(VERSION, cpu_only_allowed=True, expected_sha256="1" * 64, consent=asked.consent)


def outside() -> dict[str, str | tarfile.TarInfo]:
    return {**engine_members(), "../../escaped": "#!/bin/sh\n"}


def link_outside() -> dict[str, str | tarfile.TarInfo]:
    link = tarfile.TarInfo("lib/ollama/libz.so")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return {**engine_members(), "link": link}


def device() -> dict[str, str | tarfile.TarInfo]:
    node = tarfile.TarInfo("lib/ollama/null")
    node.type, node.devmajor, node.devminor = tarfile.CHRTYPE, 1, 3
    return {**engine_members(), "node": node}


@pytest.mark.parametrize("members", [outside, link_outside, device])
def test_a_member_that_reaches_outside_is_refused(
    members: Callable[[], dict[str, str | tarfile.TarInfo]],
    with_release: Release,
    engines: Engines,
    asked: Asked,
    tmp_path: Path,
) -> None:
    with_release.offer(tar_zst(members()))
    with pytest.raises(DownloadFailed, match="not allowed"):
        install(engines, asked)
    assert nothing_left(engines)
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize("name", ["bin/ollama", "lib/ollama/llama-server"])
def test_an_archive_without_a_program_is_refused(
    name: str, with_release: Release, engines: Engines, asked: Asked
) -> None:
    members = engine_members()
    del members[name]
    with_release.offer(tar_zst(members))
    with pytest.raises(LlmctlError, match=f"no {name}"):
        install(engines, asked)
    assert nothing_left(engines)


def test_an_archive_of_another_version_is_refused(with_release: Release, engines: Engines, asked: Asked) -> None:
    with_release.offer(tar_zst(engine_members("0.33.1")))
    with pytest.raises(EngineMissing, match=r"is 0\.33\.1, not 0\.34\.0"):
        install(engines, asked)
    assert nothing_left(engines)


@pytest.mark.parametrize("archive", [b"", b"not an archive", tar_zst(engine_members())[:200]])
def test_an_archive_that_cannot_be_unpacked_is_refused(
    archive: bytes, with_release: Release, engines: Engines, asked: Asked
) -> None:
    with_release.offer(archive)
    with pytest.raises(LlmctlError):
        install(engines, asked)
    assert nothing_left(engines)


def test_an_archive_cut_short_on_the_way_is_refused(with_release: Release, engines: Engines, asked: Asked) -> None:
    with_release.change(lambda answer: setattr(answer, "cut", 100))
    with pytest.raises(DownloadFailed):
        install(engines, asked)
    assert nothing_left(engines)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(b"Not Found", 404),
        Answer(b"oops", 500),
        Answer(b"<html>Please log in</html>", headers={"Content-Type": "text/html; charset=utf-8"}),
        Answer(b"<html>Please log in</html>"),
        Answer(b""),
        Answer(b"x" * (2 << 20)),
        Answer(status=302, headers={"Location": "/storage/0.34.0/sha256sum.txt"}),
    ],
    ids=["404", "500", "web page", "web page as a file", "empty", "endless", "redirect loop"],
)
def test_a_release_that_answers_something_else_counts_as_unreachable(
    answer: Answer, with_release: Release, engines: Engines, asked: Asked
) -> None:
    with_release.put("sha256sum.txt", answer)
    with pytest.raises(DownloadFailed):
        install(engines, asked)
    # Without a source named, the next one is tried: it has no compiler here.
    with pytest.raises(EngineMissing, match="gcc") as failure:
        engines.install(VERSION, cuda=False, progress=asked.progress, consent=asked.consent)
    assert "official release" in failure.value.message
    assert asked.final()["engine.release"].state == "failed"
    assert "registries" in asked.final()["engine.next"].detail
    assert nothing_left(engines)


def test_a_refused_connection_names_the_host(engines: Engines, asked: Asked) -> None:
    with pytest.raises(DownloadFailed, match=r"cannot connect to 127\.0\.0\.1"):
        install(engines, asked)


def test_a_release_that_accepts_and_stays_silent_is_given_up(
    with_release: Release, engines: Engines, asked: Asked
) -> None:
    with_release.put("sha256sum.txt", Answer(b"0" * 100, hold=threading.Event()))
    with pytest.raises(DownloadFailed, match=r"did not answer in 5 s|stopped sending"):
        install(engines, asked)


def test_a_large_download_needs_consent(
    with_release: Release, engines: Engines, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmctl.engines.release.CONSENT_BYTES", 100)

    def refuse(question: str) -> None:
        raise ConsentNeeded(question)

    with pytest.raises(ConsentNeeded, match="downloaded from"):
        engines.install(VERSION, consent=refuse)
    assert nothing_left(engines)


@pytest.mark.real("tmpfs")
@pytest.mark.parametrize("unpacked_bytes", [1 << 20, 8 << 20])
def test_a_full_disk_leaves_nothing_behind(
    unpacked_bytes: int,
    with_release: Release,
    environ: dict[str, str],
    small_disk: Callable[[int], Path],
    asked: Asked,
) -> None:
    environ["LLMCTL_ENGINES_DIR"] = str(small_disk(1 << 20) / "engines")
    engines = Engines(from_environment(environ), environ)
    # Compresses to nothing: the room ends while it is unpacked.
    with_release.offer(tar_zst({**engine_members(), "lib/ollama/big.so": "0" * unpacked_bytes}))
    with pytest.raises(DiskFull):
        install(engines, asked)
    assert nothing_left(engines)


@pytest.mark.real("tmpfs")
def test_a_download_larger_than_the_disk_fails_before_it_starts(
    with_release: Release, environ: dict[str, str], small_disk: Callable[[int], Path], asked: Asked
) -> None:
    environ["LLMCTL_ENGINES_DIR"] = str(small_disk(1 << 20) / "engines")
    engines = Engines(from_environment(environ), environ)
    with_release.offer(os.urandom(2 << 20))
    with pytest.raises(DiskFull, match="needs"):
        install(engines, asked)
    assert nothing_left(engines)


def test_killed_in_the_middle_then_installed(
    with_release: Release, environ: dict[str, str], engines: Engines, asked: Asked
) -> None:
    hold = threading.Event()
    with_release.change(lambda answer: setattr(answer, "hold", hold))
    with start_install(environ) as process:
        assert with_release.site.begun.wait(30)
        assert process.stdout is not None
        while "engine.download" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    hold.set()
    assert engines.list() == []
    assert list(engines.paths.engines.glob(".staging-*"))
    with_release.change(lambda answer: setattr(answer, "hold", None))
    install(engines, asked)
    assert [engine.version for engine in engines.list()] == [VERSION]
    assert not list(engines.paths.engines.glob(".staging-*"))


def test_two_installs_at_once_download_once(with_release: Release, environ: dict[str, str]) -> None:
    hold = threading.Event()
    with_release.change(lambda answer: setattr(answer, "hold", hold))
    with start_install(environ) as first:
        assert with_release.site.begun.wait(30)
        with start_install(environ) as second:
            assert second.stdout is not None
            said = second.stdout.readline()
            assert "another llmctl installs 0.34.0" in said
            hold.set()
            one, two = first.communicate(timeout=60)[0], second.communicate(timeout=60)[0]
    assert (first.returncode, second.returncode) == (0, 0)
    assert one.splitlines()[-1] == two.splitlines()[-1]
    assert "engine.download" in one
    assert "engine.download" not in two
