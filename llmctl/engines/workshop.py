"""Where a build's programs run: their environment, their log, and what their failures mean."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from llmctl.errors import DownloadFailed, LlmctlError
from llmctl.system.command import Finished, OnLine, run
from llmctl.system.disk import disk_full

# Settings of the machine that would turn the build into another one.
FOREIGN_SETTINGS = ("GOOS", "GOARCH", "GOBIN", "MAKEFLAGS", "DESTDIR", "CMAKE_TOOLCHAIN_FILE")
NETWORK_FAILURE = re.compile(
    r"GOPROXY=off|dial tcp|no such host|i/o timeout|TLS handshake timeout|connection re(?:fused|set)", re.IGNORECASE
)
HASH_FAILURE = re.compile(r"SECURITY ERROR|checksum mismatch")
ERROR_LINE = re.compile(r"\b(?:fatal )?error\b", re.IGNORECASE)


@dataclass(frozen=True)
class Workshop:
    """`environ` is what the tools see, `log` gets every line that they print."""

    environ: Mapping[str, str]
    log: TextIO
    log_path: Path

    def run(
        self,
        arguments: Sequence[str],
        what: str,
        on_line: OnLine | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Finished:
        """Run one tool to its end; an error that says what failed, unless its status is 0."""

        def line_came(line: str) -> None:
            self.note(line)
            if on_line is not None:
                on_line(line)

        self.note(f"$ {' '.join(arguments)}")
        finished = run(arguments, environ={**self.environ, **(environ or {})}, on_line=line_came)
        if finished.status != 0:
            self.log.flush()
            raise self.failure(finished, what)
        return finished

    def note(self, line: str) -> None:
        self.log.write(line + "\n")

    def failure(self, finished: Finished, what: str) -> LlmctlError:
        if "No space left on device" in finished.text:
            return disk_full(self.log_path.parent)
        why = next((line for line in finished.tail if ERROR_LINE.search(line)), None)
        why = why or (finished.tail[-1] if finished.tail else f"status {finished.status}")
        hint = f"less {self.log_path}"
        if HASH_FAILURE.search(finished.text):
            return DownloadFailed(f"a part of {what} differs from its recorded hash", hint, code="hash_mismatch")
        if NETWORK_FAILURE.search(finished.text):
            return DownloadFailed(f"a part of {what} cannot be fetched: {why.strip()}", hint)
        return LlmctlError(f"building {what} failed: {why.strip()}", hint, code="build_failed")


def tool_environ(environ: Mapping[str, str], first_on_path: Path, path: str) -> dict[str, str]:
    """What compilers and build tools see: the user's environment, in plain English, with `first_on_path` before
    everything else."""
    kept = {name: value for name, value in environ.items() if name not in FOREIGN_SETTINGS}
    return {**kept, "PATH": f"{first_on_path}:{path}", "LC_ALL": "C", "GOTOOLCHAIN": "local", "CGO_ENABLED": "1"}
