"""Downloads, child programs and private Python environments, each against the real thing on loopback."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from llmctl.errors import DownloadFailed, LlmctlError
from llmctl.system.command import run
from llmctl.system.download import fetch, fetch_text
from llmctl.system.python_packages import Requirement, index_url, install_to
from llmctl.system.reach import proxy_for, require_reachable
from tests.engines.conftest import Registry
from tests.engines.standins import Answer, Site, program_wheel


def test_a_file_arrives_with_its_hash_and_its_progress(site: Site, tmp_path: Path) -> None:
    body = os.urandom(300_000)
    site.answers["/file"] = Answer(body)
    seen: list[tuple[int, int | None]] = []
    fetched = fetch(f"{site.url}/file", tmp_path / "file", max_bytes=1 << 20, on_bytes=lambda *n: seen.append(n))
    assert fetched.path.read_bytes() == body
    assert fetched.sha256 == hashlib.sha256(body).hexdigest()
    assert seen[-1] == (300_000, 300_000)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(b"x" * 2000),
        Answer(b"x" * 900, cut=500),
        Answer(b"x" * 900, hold=threading.Event()),
        Answer(b"x" * 900, headers={"Content-Encoding": "gzip", "Content-Type": "text/html"}),
        Answer(status=302, headers={"Location": "ftp://127.0.0.1/file"}),
        Answer(status=302, headers={"Location": "http://[nonsense"}),
    ],
    ids=["too large", "cut", "stalled", "web page", "other protocol", "nonsense"],
)
def test_a_download_that_goes_wrong_says_so(answer: Answer, site: Site, tmp_path: Path) -> None:
    site.answers["/file"] = answer
    with pytest.raises(DownloadFailed, match=r"127\.0\.0\.1"):
        fetch(f"{site.url}/file", tmp_path / "file", max_bytes=1000, stall_seconds=0.2)


def test_a_text_without_end_is_cut_off(site: Site) -> None:
    site.answers["/text"] = Answer(b"x" * 2000)
    assert fetch_text(f"{site.url}/text", max_bytes=2000) == "x" * 2000
    with pytest.raises(DownloadFailed, match="more than"):
        fetch_text(f"{site.url}/text", max_bytes=1999)


@pytest.mark.parametrize("url", ["http://[::1", "nonsense://x/y", "http://", "not an address", "http://a\x00b/"])
def test_what_is_no_address_says_so(url: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed):
        fetch(url, tmp_path / "file", max_bytes=1000)


def test_lines_of_a_program_come_as_they_are_printed(environ: dict[str, str]) -> None:
    seen: list[str] = []
    code = "import sys; print('one'); print('two\\rthree', file=sys.stderr, flush=True); print('\\xff', end='')"
    finished = run([sys.executable, "-c", code], environ=environ, on_line=seen.append)
    assert finished.status == 0
    assert set(seen) >= {"one", "two", "three"}
    assert finished.tail == tuple(seen)


def test_a_program_that_is_not_there_is_named(environ: dict[str, str]) -> None:
    with pytest.raises(LlmctlError, match=r"cannot run no-such-program: No such file"):
        run(["no-such-program"], environ=environ)


def test_a_program_past_its_time_is_ended_with_its_children(environ: dict[str, str]) -> None:
    # The `leaves_no_process` guard sees to it that both sleepers are gone.
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"
    with pytest.raises(LlmctlError, match="did not end in time"):
        run([sys.executable, "-c", code], environ=environ, timeout_seconds=0.5)


def test_a_program_is_ended_when_its_reader_fails(environ: dict[str, str]) -> None:
    def fail(_: str) -> None:
        raise RuntimeError("reader")

    code = "import time; print('hello', flush=True); time.sleep(600)"
    with pytest.raises(RuntimeError):
        run([sys.executable, "-c", code], environ=environ, on_line=fail)


def test_packages_are_installed_by_hash_into_an_environment_of_their_own(
    registry: Registry, environ: dict[str, str], tmp_path: Path
) -> None:
    name, wheel = program_wheel("hello", "1.0", "hello", "#!python\nprint('hello')\n")
    digest = registry.index.offer("hello", name, wheel)
    environment = install_to(tmp_path / "own", [Requirement("hello", "1.0", (digest,))], environ)
    assert run([str(environment.bin / "hello")], environ=environ).tail == ("hello",)
    wrong = Requirement("hello", "1.0", ("0" * 64,))
    with pytest.raises(DownloadFailed, match="pinned hash"):
        install_to(tmp_path / "other", [wrong], environ)


@pytest.mark.parametrize(
    ("config", "url"),
    [
        ([], "https://pypi.org/simple"),
        (["global.index-url='https://mirror.example/simple'"], "https://mirror.example/simple"),
        ([":env:.index-url='http://a.example/'", "global.index-url='http://b.example/'"], "http://a.example/"),
        (["global.no-index='true'", "global.find-links='/wheels'"], None),
    ],
)
def test_pips_own_configuration_says_where_the_index_is(config: list[str], url: str | None) -> None:
    assert index_url(config) == url


@pytest.mark.parametrize(
    ("environ", "proxy"),
    [
        ({}, None),
        ({"HTTPS_PROXY": "http://p:3128"}, "http://p:3128"),
        ({"https_proxy": "http://p:3128", "no_proxy": ".python.org,pypi.org"}, None),
        ({"all_proxy": "socks5://p", "http_proxy": "http://q"}, "socks5://p"),
    ],
)
def test_the_proxy_in_front_of_an_index_is_what_must_answer(environ: dict[str, str], proxy: str | None) -> None:
    assert proxy_for("https://pypi.org/simple", environ) == proxy


def test_reaching_a_host_that_refuses_fails(free_port: Callable[[], int], site: Site) -> None:
    require_reachable(site.url, {})
    with pytest.raises(DownloadFailed, match="cannot connect"):
        require_reachable(f"http://127.0.0.1:{free_port()}/simple", {})
