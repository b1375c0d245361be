"""What Ollama's log tells, by lines that are known. Nothing else of a line is kept: a log may hold text of requests.

The lines are those of ollama v0.34.0, each with its place in the source; all of its own begin with `time=`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime

from llmctl.core.checks.facts.log import RECENT_SECONDS, FailedLoad, Load, LogFacts, LogLine
from llmctl.core.placement import OUT_OF_MEMORY, RUNNER_START
from llmctl.core.proxy import without_credentials

START = 'msg="server config"'
LINE_CHARACTERS = 300
# Of a field of LogFacts: what stands in its lines.
KINDS: Mapping[str, tuple[str, ...]] = {
    "out_of_memory": (*OUT_OF_MEMORY, 'msg="runtime oom detected'),  # llm/status.go:85-96, server/sched.go:1654
    "truncated": ('msg="truncating input prompt"',),  # llm/llama_server.go:317
    "discovery_failed": (  # discover/runner.go:522,584, discover/llama_server.go:130-135
        "gpu discovery watchdog timed out",
        "failure during llama-server gpu discovery",
        "llama-server discovery: timed out",
        "llama-server discovery: system_info line not found",
    ),
    "driver_too_old": ("nvidia driver too old", "could not verify nvidia driver"),  # discover/cuda_compat.go:39-70
    "device_skipped": ("skipping cuda device",),  # discover/llama_server.go:295
    "context_capped": ('msg="requested context size too large for model"',),  # llm/server.go:114
    "slots_cut": ("does not currently support parallel requests",),  # server/sched.go:509
    "memory_not_recovered": ("vram usage didn't recover within timeout",),  # server/sched.go:1492
    "memory_not_refreshed": ('msg="unable to refresh free memory',),  # discover/runner.go:364
    "evicting": ("model predicted to exceed available memory, evicting", "evicting all other models and retrying"),
    "context_lowered": ("reducing automatic context and retrying",),  # server/sched.go:652
    "runner_ended": ("llama-server process no longer running", 'msg="llama-server terminated"'),
    "port_in_use": ("bind: address already in use",),
}
# How the runner's own lines begin; of all others only those of the server are taken.
RUNNER_LINE = re.compile(
    r"(?:ggml|llama|~llama|alloc|cuda|srv |slot |cmn |common|graph|load|error|terminate)", re.IGNORECASE
)
# What the engine says at this level alone, without text of requests.
SAID_IN_DEBUG = KINDS["memory_not_recovered"]
DEBUG_LINE = re.compile(r"level=(?:DEBUG|TRACE)")
# The same words about a runner's end within so long are one end: a load lies between two.
AT_ONCE_SECONDS = 0.3
TIME = re.compile(r"time=(\S+)")
FIRST_TIME = re.compile(r"^time=(\S+)", re.MULTILINE)
COMMAND = re.compile(r'msg="starting llama-server" cmd="(?P<cmd>[^"]*)"')
# server/sched.go:641 and 529; each has the model's file and the error.
FAILED = ('msg="Load failed" model=', 'msg="failed to load model metadata" model=')
ERROR = re.compile(r'\berror="((?:[^"\\]|\\.)*)"|\berror=(\S+)')
# llama.cpp b10760 src/llama.cpp:305
USING_DEVICE = re.compile(r"\w+: using device (?P<name>\S+) \((?P<card>.*)\) \([^()]*\) - \d+ MiB free")
BLOB = re.compile(r"sha256-([0-9a-f]{64})")
GIN = re.compile(
    r"\[GIN\] (?P<time>\d{4}/\d\d/\d\d - \d\d:\d\d:\d\d) \| (?P<status>\d{3}) \|\s*(?P<took>\S+) \|\s*(?P<who>\S+) \| "
    r'POST\s+"(?P<path>[\w/]+)"'
)
EMBEDDING = frozenset({"/api/embed", "/api/embeddings", "/v1/embeddings"})
ASKING = frozenset({"/api/generate", "/api/chat"})
VARIABLE = re.compile(r"(?:^| )((?:[A-Z][A-Z0-9_]+|https?_proxy|no_proxy|all_proxy):)")
FIELD = r'\b{}=(?:"([^"]*)"|(\S*))'


# Of the lines that `telling` takes: what the server says of its start and its loads, and the runner of its memory.
SERVER_SAYS = re.compile(
    r'msg="(?:inference compute|Load failed|failed to load model metadata|'
    r"vram-based default context|entering low vram mode|starting llama-server|"
    r"llama-server started in|llama-server terminated|discovering available GPUs|Listening on )"
)
RUNNER_SAYS = re.compile(
    r"(?:load_tensors|llama_\w+|common\w*|srv +\w+|ggml_\w+|cmn +\w+)[^a-z]*: .{0,80}"
    r"(?:buffer size *=|offloaded \d+/\d+ layers|using device|couldn't bind|failed to allocate|cudaMalloc failed)"
)


def telling(text: str) -> Iterator[str]:
    """The lines that say how the server runs, for somebody else to read: none that could hold text of a request."""
    phrases = tuple(phrase for kind_of in KINDS.values() for phrase in kind_of if phrase.startswith('msg="'))
    for line in text.splitlines():
        if (request := GIN.match(line)) is not None:
            yield request[0][:LINE_CHARACTERS]
        elif line.startswith("time=") and DEBUG_LINE.search(line[:120]) is None:
            said = line.lower()
            if SERVER_SAYS.search(line) or any(phrase in said for phrase in phrases):
                yield line[:LINE_CHARACTERS]
        elif RUNNER_SAYS.match(line):
            yield line[:LINE_CHARACTERS]


def parse(
    text: str,
    source: str,
    *,
    since_start: bool,
    now_seconds: float | None = None,
    complete_from: float | None = None,
    gap: int | None = None,
) -> LogFacts:
    """The facts of a log that begins at the server's start, or later where `since_start` is False. `gap`: where in it
    lines are left out."""
    lowered = text.lower()
    config = effective(text)
    requests = list(GIN.finditer(text))
    found = {name: kind(text, lowered, name, now_seconds) for name in KINDS}
    gpu_lines = tuple(lines_with(text, text, 'msg="inference compute"'))
    return LogFacts(
        source,
        text.count("\n"),
        since_start,
        loads=tuple(loads(text, gap)),
        failed=tuple(failed(text)),
        keep_alive_string=of_requests(
            [
                one
                for one in requests
                if one["status"] == "400" and one["path"] in ASKING and one["took"].endswith("µs")
            ],
            now_seconds,
        ),
        embedding_refused=of_requests(
            [one for one in requests if one["status"] == "501" and one["path"] in EMBEDDING], now_seconds
        ),
        config=config,
        gpus=tuple(name for name in map(gpu_name, gpu_lines) if name) if gpu_lines else None,
        gpu_lines=tuple(line[:LINE_CHARACTERS] for line in gpu_lines),
        debug=config is not None and config.get("OLLAMA_DEBUG", "").startswith("DEBUG"),
        now_seconds=now_seconds,
        complete_from=complete_from,
        **found,
    )


def kind(text: str, lowered: str, name: str, now_seconds: float | None) -> LogLine | None:
    """The last line of a kind, and how many there are."""
    seen: set[tuple[float, str]] = set()
    for phrase in KINDS[name]:
        for begin, line in placed(text, lowered, phrase):
            hidden = phrase not in SAID_IN_DEBUG and DEBUG_LINE.search(line[:120])
            if hidden or not (line.startswith(("time=", "Error")) or RUNNER_LINE.match(line)):
                continue
            # More than one phrase may stand in a line.
            seen.add((time_at(text, begin) or 0.0, line))
    if not seen:
        return None
    said = once(sorted(seen)) if name == "runner_ended" else sorted(seen)
    return LogLine(said[-1][1][:LINE_CHARACTERS], len(said), lately([at for at, _ in said], now_seconds))


def once(said: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """Each end of a runner once: two calls notice it, a millisecond or two apart (ollama v0.34.0 server/sched.go:201
    and 256). Ordered by time, as `said` is."""
    first: dict[str, float] = {}
    found = []
    for at, line in said:
        words = TIME.sub("", line, count=1)
        if words not in first or not at or at - first[words] >= AT_ONCE_SECONDS:
            found.append((at, line))
            first[words] = at
    return found


def lately(times: list[float], now_seconds: float | None) -> int | None:
    """How many are of the last hour; None where that cannot be told. 0 is a time that is not known."""
    if now_seconds is None or not all(times):
        return None
    return sum(at >= now_seconds - RECENT_SECONDS for at in times)


def time_at(text: str, begin: int) -> float | None:
    """When the line at `begin` was written: its own time, or that of the server's last line before it."""
    if not text.startswith("time=", begin):
        before = text.rfind("\ntime=", 0, begin)
        begin = before + 1 if before >= 0 else 0
    at = TIME.match(text, begin)
    return seconds_of(at[1]) if at else None


def seconds_of(time: str) -> float | None:
    try:
        return datetime.fromisoformat(time.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None


def first_time(text: str) -> float | None:
    at = FIRST_TIME.search(text)
    return seconds_of(at[1]) if at else None


def from_first_time(text: str) -> str:
    """Without what stands before the first line that tells its time: nobody knows when that was."""
    at = FIRST_TIME.search(text)
    return text[at.start() :] if at else text


def lines_with(text: str, where: str, phrase: str) -> Iterator[str]:
    return (line for _, line in placed(text, where, phrase))


def placed(text: str, where: str, phrase: str) -> Iterator[tuple[int, str]]:
    """The lines of `text` in which a phrase stands, with their places; `where` is the same text, perhaps in lower
    case."""
    at = where.find(phrase)
    while at >= 0:
        begin, end = where.rfind("\n", 0, at) + 1, where.find("\n", at)
        end = len(where) if end < 0 else end
        yield begin, text[begin:end]
        at = where.find(phrase, end)


def loads(text: str, gap: int | None = None) -> Iterator[Load]:
    """Every start of a runner for a model: its command line tells context and slots (llm/llama_server.go:433). What
    stands behind a gap may be of another start."""
    starts = list(placed(text, text, RUNNER_START))
    devices = [
        (at, (said["name"], said["card"]))
        for at, line in placed(text, text, ": using device ")
        if (said := USING_DEVICE.match(line)) is not None
    ]
    for number, (begin, line) in enumerate(starts):
        command, at = COMMAND.search(line), TIME.match(line)
        blob = BLOB.search(command["cmd"]) if command else None
        if command is None or blob is None:
            continue
        words = command["cmd"].split(" ")
        end = starts[number + 1][0] if number + 1 < len(starts) else len(text)
        if gap is not None and begin < gap:
            end = min(end, gap)
        yield Load(
            f"sha256:{blob[1]}",
            number_after(words, "-c"),
            number_after(words, "-np"),
            seconds_of(at[1]) if at else None,
            tuple(device for place, device in devices if begin < place < end),
        )


def failed(text: str) -> Iterator[FailedLoad]:
    """Of each model the last load, where it failed. A load that is tried again has a start after its failure."""
    begun = {blob[1]: at for at, line in placed(text, text, RUNNER_START) if (blob := BLOB.search(line))}
    ended: dict[str, tuple[int, str]] = {}
    for phrase in FAILED:
        for at, line in placed(text, text, phrase):
            blob = BLOB.search(line)
            if blob is not None and at > max(begun.get(blob[1], -1), ended.get(blob[1], (-1, ""))[0]):
                ended[blob[1]] = (at, line)
    for digest, (_, line) in ended.items():
        time = TIME.match(line)
        yield FailedLoad(f"sha256:{digest}", error_of(line), seconds_of(time[1]) if time else None)


def error_of(line: str) -> str:
    """What stands after `error=`, each of its lines once."""
    found = ERROR.search(line)
    said = (found[1] or found[2] or "") if found else ""
    lines = said.replace("\\n", "\n").replace('\\"', '"').splitlines()
    return "; ".join(dict.fromkeys(lines))[:LINE_CHARACTERS]


def number_after(words: list[str], option: str) -> int | None:
    if option not in words[:-1]:
        return None
    value = words[words.index(option) + 1]
    return int(value) if value.isdigit() else None


def of_requests(found: list[re.Match[str]], now_seconds: float | None) -> LogLine | None:
    if not found:
        return None
    last = found[-1]
    # Gin writes the local time, which is this machine's.
    times = [seconds_of(one["time"].replace("/", "-").replace(" - ", "T")) or 0.0 for one in found]
    text = f"[GIN] {last['time']} | {last['status']} | {last['who']} | POST {last['path']}"
    return LogLine(text, len(found), lately(times, now_seconds))


def effective(text: str) -> dict[str, str] | None:
    """The variables of the `server config` line (server/routes.go:1965), without passwords of proxies."""
    line = next(lines_with(text, text, START), "")
    _, there, rest = line.partition('env="map[')
    if not there:
        return None
    parts = VARIABLE.split(rest.rpartition("]")[0])
    values = dict(zip(parts[1::2], parts[2::2], strict=False))
    return {name[:-1]: without_credentials(value, "[removed]") for name, value in values.items()}


def field(line: str, name: str) -> str | None:
    """The value of `name=…` in a line of the server."""
    found = re.search(FIELD.format(re.escape(name)), line)
    return None if found is None else (found[1] if found[1] is not None else found[2])


def gpu_name(line: str) -> str:
    """The device that discovery found; empty for the processor."""
    if field(line, "library") == "cpu":
        return ""
    return f"{field(line, 'name') or ''} {field(line, 'description') or ''}".strip()
