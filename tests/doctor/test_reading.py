"""What is read of files and processes, where a real server would be too much for the edge."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest

from llmctl.core import engine_log
from llmctl.core.checks.facts import NotGathered
from llmctl.core.checks.facts.log import LogFacts
from llmctl.core.checks.facts.store import Denied
from llmctl.server import default_store, store_of
from llmctl.system import access, process
from llmctl.workflows.gather import log, processes, store

CONFIG = (
    'time=2026-11-23T08:17:43.240Z level=INFO source=x.go:1 msg="server config" env="map[OLLAMA_NUM_PARALLEL:{}]"\n'
)
CUT = 'time=2026-11-23T08:18:{:02}.240Z level=WARN source=x.go:1 msg="truncating input prompt" limit=1 prompt=2\n'


def read(path: Path) -> LogFacts:
    found = log.of_file(path)
    return engine_log.parse(
        found.text,
        found.source,
        since_start=found.whole,
        now_seconds=0.0,
        complete_from=found.complete_from,
        gap=found.gap,
    )


def test_only_what_the_last_start_wrote_counts(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    path.write_text(CONFIG.format(1) + CUT.format(1) + CUT.format(2) + CONFIG.format(2) + CUT.format(3))
    found = read(path)
    assert found.since_start
    assert found.config == {"OLLAMA_NUM_PARALLEL": "2"}
    assert found.truncated is not None
    assert found.truncated.count == 1


def test_of_a_long_log_its_beginning_and_its_end_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "HEAD_BYTES", 1000)
    monkeypatch.setattr(log, "TAIL_BYTES", 1000)
    path = tmp_path / "server.log"
    path.write_text(CONFIG.format(3) + CUT.format(1) + "llama: a line\n" * 1000 + CUT.format(2))
    found = read(path)
    assert not found.since_start
    assert found.lines < 200
    assert found.config == {"OLLAMA_NUM_PARALLEL": "3"}
    assert found.truncated is not None
    assert found.truncated.count == 2
    assert found.complete_from == datetime(2026, 11, 23, 8, 18, 2, 240000, timezone.utc).timestamp()


STARTED = (
    'time=2026-11-23T08:17:50.240Z level=INFO source=x.go:1 msg="starting llama-server" cmd="/lib/llama-server '
    f'--model /models/blobs/sha256-{"ab" * 32} -c 1024 -np 1"\n'
)
USING = "llama_prepare_model_devices: using device CUDA0 ({}) (0000:01:00.0) - 24105 MiB free\n"


def test_what_is_left_out_of_a_long_log_belongs_to_no_load_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "HEAD_BYTES", 1000)
    monkeypatch.setattr(log, "TAIL_BYTES", 1000)
    path = tmp_path / "server.log"
    between, failed = "llama: a line\n" * 1000, "alloc_tensor_range: failed to allocate\n"
    path.write_text(
        CONFIG.format(3) + STARTED + USING.format("A") + between + failed + CUT.format(2) + USING.format("B")
    )
    found = read(path)
    (load,) = found.loads
    assert load.devices == (("CUDA0", "A"),)
    # It may have been loaded again since.
    assert found.last_load(load.weights_digest) is None
    # Nobody knows when that was.
    assert found.out_of_memory is None
    path.write_text(CONFIG.format(3) + between + STARTED + USING.format("A") + USING.format("B") + CUT.format(2))
    again = read(path).last_load(load.weights_digest)
    assert again is not None
    assert [card for _, card in again.devices] == ["A", "B"]


def test_a_log_without_a_start_and_one_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    path.write_text(CUT.format(1))
    assert not read(path).since_start
    path.write_bytes(b"")
    assert read(path).lines == 0
    path.unlink()
    with pytest.raises(NotGathered, match="there is no log"):
        log.of_file(path)
    with pytest.raises(NotGathered, match="cannot read"):
        log.of_file(tmp_path)


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (("/usr/bin/web", "-p", "hunter2", "--auth", "swordfish"), "web"),
        (("web --token=swordfish",), "web"),
        (("nginx: master process nginx -g daemon off;",), "nginx"),
        (("python3", "-m", "http.server", "8000"), "python3"),
        ((), ""),
    ],
)
def test_of_a_command_line_only_the_program_is_shown(argv: tuple[str, ...], shown: str) -> None:
    assert processes.name_of(argv) == shown


@pytest.mark.parametrize(
    ("environ", "port"),
    [
        ({}, None),
        ({"HOME": "/"}, 11434),
        ({"OLLAMA_HOST": "0.0.0.0:8080"}, 8080),
        ({"OLLAMA_HOST": "http://0.0.0.0"}, 80),
        ({"OLLAMA_HOST": "https://host"}, None),
    ],
)
def test_where_a_server_listens(environ: dict[str, str], port: int | None) -> None:
    assert processes.port_of(environ) == port


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"OLLAMA_MODELS": '"/srv/models"'}, "/srv/models"),
        ({"OLLAMA_MODELS": "/srv/models", "HOME": "/nowhere"}, "/srv/models"),
        ({"OLLAMA_MODELS": "''", "HOME": "/nowhere"}, "/nowhere/.ollama/models"),
    ],
)
def test_where_a_server_has_its_models(environ: dict[str, str], folder: str) -> None:
    assert store_of(process.Process(7, 1, ("ollama", "serve"), environ)) == folder
    assert str(default_store(environ, Path("/nowhere/.ollama/models"))) == folder


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that other users may pass, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_what_a_user_may_do_with_a_store_by_modes_and_what_they_do_not_tell(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    someone = access.Identity(54321, frozenset({54321}))
    folder, models = open_folder / "a", open_folder / "a" / "models"
    folder.mkdir(mode=0o755)
    assert store.judged(someone, models)[0] == (Denied(str(folder), "0755", folder.owner(), "write"),)
    assert store.judged(someone, models / "deeper")[0][0].path == str(folder)
    models.mkdir(mode=0o755)
    denied, unjudged = store.judged(someone, models)
    assert ([(one.path, one.needs) for one in denied], unjudged) == ([(str(models), "write")], ())
    with monkeypatch.context() as patched:
        patched.setattr(access, "has_acl", lambda path: path == models)
        assert store.judged(someone, models) == ((), (str(models),))
    folder.chmod(0o700)
    (barred,), unjudged = store.judged(someone, models)
    assert (barred.path, barred.needs, unjudged) == (str(folder), "pass", ())
