"""The engine's log, line by line. The lines are those of ollama v0.34.0, seen or as its source writes them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest

from llmctl.core.checks.facts.log import LogFacts
from llmctl.core.engine_log import parse

AT = "time=2026-11-23T08:17:{}.240Z level={} source=x.go:1 "
CONFIG = AT.format("43", "INFO") + (
    'msg="server config" env="map[HTTPS_PROXY:http://ann:swordfish@proxy:3128 OLLAMA_CONTEXT_LENGTH:512 '
    "OLLAMA_DEBUG:INFO OLLAMA_HOST:http://127.0.0.1:24555 OLLAMA_KV_CACHE_TYPE: "
    'OLLAMA_ORIGINS:[http://localhost app://*] ROCR_VISIBLE_DEVICES: http_proxy: no_proxy:]"'
)
BLOB = "ab" * 32
START = (
    AT.format("49", "INFO") + 'msg="starting llama-server" cmd="/lib/llama-server --model /models/blobs/sha256-'
    f'{BLOB} --port 1 -c 1024 -np 2 --flash-attn auto"'
)


def read(*lines: str) -> LogFacts:
    return parse("\n".join((CONFIG, *lines)) + "\n", "log", since_start=True)


def test_the_effective_settings_without_the_password_of_a_proxy() -> None:
    config = read().config
    assert config is not None
    assert config["OLLAMA_CONTEXT_LENGTH"] == "512"
    assert config["OLLAMA_KV_CACHE_TYPE"] == ""
    assert config["OLLAMA_HOST"] == "http://127.0.0.1:24555"
    assert config["OLLAMA_ORIGINS"] == "[http://localhost app://*]"
    assert config["no_proxy"] == ""
    assert config["HTTPS_PROXY"] == "http://[removed]@proxy:3128"
    assert parse("nothing\n", "log", since_start=False).config is None


def test_loads_and_their_contexts() -> None:
    (load,) = read(START).loads
    assert (load.weights_digest, load.context, load.slots, load.per_slot) == (f"sha256:{BLOB}", 1024, 2, 512)
    assert load.at_seconds == pytest.approx(1795421869.24)
    discovery = AT.format("44", "INFO") + 'msg="starting llama-server" cmd="/lib/llama-server --list-devices"'
    assert read(discovery).loads == ()


LOAD_FAILED = (
    AT.format("50", "INFO") + f'msg="Load failed" model=/models/blobs/sha256-{BLOB} error="llama-server process has '
    "terminated: exit status 1: error loading model: unknown model architecture: 'x'\\nerror loading model: unknown "
    'model architecture: \'x\'\\nit \\"ended\\""'
)


def test_a_load_that_failed_in_the_engines_own_words() -> None:
    (failed,) = read(START, LOAD_FAILED).failed
    assert failed.weights_digest == f"sha256:{BLOB}"
    assert failed.at_seconds == pytest.approx(1795421870.24)
    assert failed.error == (
        "llama-server process has terminated: exit status 1: error loading model: unknown model architecture: 'x'; "
        "error loading model: unknown model architecture: 'x'; it \"ended\""
    )
    # Whatever came of the next try, this one is no longer the last.
    assert read(START, LOAD_FAILED, START).failed == ()
    early = AT.format("51", "INFO") + f'msg="failed to load model metadata" model=/m/blobs/sha256-{BLOB} error=EOF'
    assert [one.error for one in read(START, LOAD_FAILED, early).failed] == ["EOF"]
    other = "cd" * 32
    assert len(read(START, LOAD_FAILED, early.replace(BLOB, other)).failed) == 2


@pytest.mark.parametrize(
    ("field", "line"),
    [
        (
            "out_of_memory",
            "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 9 MiB: cudaMalloc failed: out of memory",
        ),
        (
            "out_of_memory",
            AT.format("50", "WARN")
            + 'msg="runtime OOM detected; expiring loaded models to clear memory before next request"',
        ),
        ("truncated", AT.format("50", "WARN") + 'msg="truncating input prompt" limit=259 prompt=902 keep=5 new=259'),
        ("discovery_failed", AT.format("50", "WARN") + 'msg="llama-server GPU discovery watchdog timed out" error=x'),
        ("discovery_failed", AT.format("50", "INFO") + 'msg="failure during llama-server GPU discovery" error=x'),
        (
            "driver_too_old",
            AT.format("50", "WARN") + 'msg="NVIDIA driver too old" driver=535 required_driver="550 or newer"',
        ),
        (
            "device_skipped",
            AT.format("50", "INFO") + 'msg="skipping CUDA device — compute capability not in compiled architectures"',
        ),
        (
            "slots_cut",
            AT.format("50", "WARN") + 'msg="model architecture does not currently support parallel requests"',
        ),
        (
            "context_capped",
            AT.format("50", "WARN") + 'msg="requested context size too large for model" num_ctx=9 n_ctx_train=8',
        ),
        ("memory_not_refreshed", AT.format("50", "WARN") + 'msg="unable to refresh free memory, using old values"'),
        (
            "evicting",
            AT.format("50", "INFO") + 'msg="llama-server model predicted to exceed available memory, evicting"',
        ),
        (
            "context_lowered",
            AT.format("50", "WARN") + 'msg="llama-server load failed; reducing automatic context and retrying once"',
        ),
        (
            "runner_ended",
            AT.format("50", "WARN") + 'msg="llama-server process no longer running" sys=9 string="signal: killed"',
        ),
        ("port_in_use", "Error: listen tcp 127.0.0.1:11434: bind: address already in use"),
    ],
)
def test_each_kind_of_line(field: str, line: str) -> None:
    assert getattr(read(), field) is None
    found = getattr(read(line, line), field)
    assert found.count == 1, "the engine says some things twice at once"
    assert line.startswith(found.text)
    later = line.replace(":50.", ":51.")
    if later != line:
        assert getattr(read(line, later), field).count == 2


@pytest.mark.parametrize(
    "line",
    [
        AT.format("50", "DEBUG") + 'msg="completion request" prompt="my dog is out of memory"',
        "my dog is out of memory",
        '{"prompt": "failed to allocate a room"}',
    ],
)
def test_no_text_of_a_request_is_taken_for_a_line_of_the_engine(line: str) -> None:
    assert read(line).out_of_memory is None


def gin(status: int, took: str, path: str) -> str:
    return f'[GIN] 2026/11/23 - 08:17:49 | {status} |  {took} |       127.0.0.1 | POST     "{path}"'


def test_requests_that_were_refused() -> None:
    found = read(
        gin(400, "173.886µs", "/api/generate"),
        gin(400, "10.1ms", "/api/chat"),
        gin(400, "90.1µs", "/api/show"),
        gin(501, "62.3ms", "/api/embed"),
        gin(501, "44.9ms", "/v1/embeddings"),
        gin(200, "1.2s", "/api/embed"),
    )
    assert found.keep_alive_string is not None
    assert found.keep_alive_string.count == 1
    assert found.embedding_refused is not None
    assert (found.embedding_refused.count, found.embedding_refused.text) == (
        2,
        "[GIN] 2026/11/23 - 08:17:49 | 501 | 127.0.0.1 | POST /v1/embeddings",
    )


def test_which_gpus_the_server_found() -> None:
    line = AT.format("44", "INFO") + 'msg="inference compute" id=0 library={} name={} description="{}" total="23.6 GiB"'
    assert read().gpus is None
    assert read(line.format("cpu", "cpu", "cpu")).gpus == ()
    assert read(line.format("CUDA", "CUDA0", "NVIDIA GeForce RTX 3090")).gpus == ("CUDA0 NVIDIA GeForce RTX 3090",)


@pytest.mark.parametrize(
    ("level", "debug"), [("INFO", False), ("DEBUG", True), ("DEBUG-4", True), ("WARN", False), ("ERROR+4", False)]
)
def test_debug_logging(level: str, debug: bool) -> None:
    found = parse(CONFIG.replace("DEBUG:INFO", f"DEBUG:{level}") + "\n", "log", since_start=True)
    assert found.debug == debug


def test_memory_that_did_not_come_back_is_said_at_the_level_of_debug() -> None:
    """server/sched.go:1492 of ollama v0.34.0; other lines of that level may hold a prompt."""
    line = (
        "time=2026-01-02T03:04:05.678Z level=DEBUG source=sched.go:1492 "
        'msg="gpu VRAM usage didn\'t recover within timeout" seconds=5.1\n'
    )
    found = parse(line, "server.log", since_start=False).memory_not_recovered
    assert found is not None
    assert found.count == 1
    prompt = 'time=2026-01-02T03:04:05.678Z level=DEBUG source=x.go:1 msg="ran out of memory, said the prompt"\n'
    assert parse(prompt, "server.log", since_start=False).out_of_memory is None


@pytest.mark.parametrize(("later_seconds", "recent"), [(0.0, 3), (3585.0, 2), (3595.0, 1), (7200.0, 0)])
def test_what_is_of_the_last_hour(later_seconds: float, recent: int) -> None:
    """A runner's own line has no time, and is as old as the server's last one before it."""
    failed = "alloc_tensor_range: failed to allocate CPU buffer of size {}"
    at = [AT.format(second, "INFO") + 'msg="x"' for second in ("44", "50", "59")]
    lines = [CONFIG, at[0], failed.format(1), at[1], failed.format(2), at[2], failed.format(3)]
    now = 1795421880.0 + later_seconds
    found = parse("\n".join(lines) + "\n", "log", since_start=True, now_seconds=now).out_of_memory
    assert found is not None
    assert (found.count, found.recent, found.lately) == (3, recent, recent)
    assert found.text.endswith("size 3")


def test_one_end_that_two_calls_notice_counts_once() -> None:
    """As the real server says it when it is busy: a millisecond apart."""
    words = 'level=WARN source=llama_server.go:1196 msg="llama-server process no longer running" sys=9 string="{}"'
    times = ("27:57.240", "27:57.241", "28:02.556", "28:02.556", "28:12.701", "28:12.703")
    lines = [f"time=2026-11-23T11:{time}Z " + words.format("signal: killed") for time in times]
    found = read(*lines).runner_ended
    assert found is not None
    assert found.count == 3
    # Another cause at the same time is another runner's end.
    found = read(*lines, lines[-1].replace("killed", "aborted")).runner_ended
    assert found is not None
    assert found.count == 4


def test_ends_are_told_from_the_first_line_of_each() -> None:
    words = 'level=WARN source=llama_server.go:1196 msg="llama-server process no longer running" sys=9 string="killed"'
    # Each line is close to the one before it, the last not to the first.
    times = ("27:57.000", "27:57.200", "27:57.400", "27:57.600")
    found = read(*(f"time=2026-11-23T11:{time}Z {words}" for time in times)).runner_ended
    assert found is not None
    assert found.count == 2


def test_many_requests_that_are_cut_in_a_second_are_many() -> None:
    line = 'level=WARN source=llama_server.go:317 msg="truncating input prompt" limit=2048 prompt=9000 keep=4 new=2048'
    found = read(*(f"time=2026-11-23T11:27:{number * 0.6:06.3f}Z {line}" for number in range(90))).truncated
    assert found is not None
    assert found.count == 90


def test_the_same_words_of_the_runner_at_another_time_are_another_event() -> None:
    failed = "alloc_tensor_range: cudaMalloc failed: out of memory"
    hours = [f'time=2026-11-23T{hour}:00:00.000Z level=INFO source=x.go:1 msg="x"' for hour in ("08", "09")]
    found = read(hours[0], failed, failed, hours[1], failed).out_of_memory
    assert found is not None
    assert found.count == 2


def test_requests_are_counted_by_the_local_time() -> None:
    lines = [f'[GIN] 2026/11/23 - {hour:02}:18:11 | 501 | 9.1ms | 127.0.0.1 | POST "/api/embed"' for hour in (6, 8)]
    now = datetime(2026, 11, 23, 8, 30, 0).timestamp()
    found = parse("\n".join(lines) + "\n", "log", since_start=True, now_seconds=now).embedding_refused
    assert found is not None
    assert (found.count, found.recent) == (2, 1)
    assert read(*lines).embedding_refused == replace(found, recent=None)
