"""llmctl that dies at a chosen moment, as by `kill -9`: nothing is cleaned up, no buffer is written.

It reads requests, one JSON line each: {"words": […], "environ": {…}, "stop_at": N or null}. For each it forks; the
child runs the command line and ends itself at the N-th time it is about to change a file, take a lock or connect.
The answer is the exit status, 9 where it died. A child of this single-threaded process, with llmctl imported before,
costs milliseconds where a new interpreter costs half a second.
"""

from __future__ import annotations

import io
import json
import os
import sys
from typing import Any

CHANGES = {
    "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.chown", "os.link", "os.symlink", "os.truncate",
    "fcntl.flock", "socket.connect",
}  # fmt: skip
DIED = 9


def changes(event: str, arguments: tuple[Any, ...]) -> bool:
    if event != "open":
        return event in CHANGES
    flags = arguments[2]
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def run(words: list[str], environ: dict[str, str], stop_at: int | None) -> int:
    from llmctl.cli import main
    from llmctl.env import Env

    os.environ.clear()
    os.environ.update(environ)
    left = [stop_at]

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        if left[0] is not None and changes(event, arguments):
            left[0] -= 1
            if left[0] < 0:
                os._exit(DIED)

    sys.addaudithook(count)
    return int(main(words, Env(environ, io.StringIO(), io.StringIO(), io.StringIO())))


def serve() -> None:
    import httpx  # noqa: F401  what every verb needs, imported once
    import yaml  # noqa: F401

    import llmctl.commands.models
    import llmctl.commands.pins  # noqa: F401

    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            try:
                os._exit(run(request["words"], request["environ"], request["stop_at"]))
            except BaseException:
                sys.excepthook(*sys.exc_info())
                os._exit(70)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        sys.stdout.write(f"{status}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
