"""Every error that llmctl raises on purpose, and the exit code it becomes.

    LlmctlError                    1  failed
    ├── UsageError                 2  the command line is wrong
    │   ├── InvalidProfile         2  the profile is wrong, with every problem listed
    │   └── ConsentNeeded          2  a large step needs --yes, and there is nobody to ask
    ├── ServerNotRunning           3  nothing listens where the server should be
    │   └── ServerUnreachable      3  something listens and does not answer as an engine does
    ├── NotFound                   4  no such model, profile, file or unit
    ├── Refused                    5  it ran, and the answer is no
    │   └── Unverified             5  the load could not be proved
    ├── PromptTooLong              6  the prompt does not fit the context
    ├── AnswerCut                  6  the context ended the answer
    ├── StreamEnded                1  the answer stopped without its last line
    ├── EngineError                1  the engine reported a failure
    ├── EngineMissing              1  no engine can be had as asked
    ├── DownloadFailed             1  a source is unreachable or sent something else
    ├── DiskFull                   1  not enough room, before or during a write
    ├── WriteFailed                1  stdout takes no more
    ├── PortInUse                  1  another program holds the port
    ├── CommandNotRunnable       126  the command that `yield` was given cannot be executed
    └── CommandMissing           127  there is no such command

A caller that needs to tell two failures apart compares the class; a script compares `code`.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Process exit codes; product contract, the same in text and JSON mode."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_FOUND = 4
    NO = 5
    PROMPT = 6
    NOT_RUNNABLE = 126
    NO_COMMAND = 127
    INTERRUPTED = 130
    PIPE = 141


class LlmctlError(Exception):
    """A failure with a stable `code`, an exit code, a message and, where one exists, the command that helps."""

    code: str = "failed"
    exit_code: ExitCode = ExitCode.FAILED

    def __init__(self, message: str, hint: str | None = None, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code


class UsageError(LlmctlError):
    code = "usage"
    exit_code = ExitCode.USAGE


class InvalidProfile(UsageError):
    code = "invalid_profile"


class ConsentNeeded(UsageError):
    code = "consent_needed"


class ServerNotRunning(LlmctlError):
    code = "server_not_running"
    exit_code = ExitCode.UNREACHABLE


class ServerUnreachable(ServerNotRunning):
    code = "server_unreachable"


class NotFound(LlmctlError):
    code = "not_found"
    exit_code = ExitCode.NOT_FOUND


class Refused(LlmctlError):
    """Under --json it goes to stdout, as `error`; `document` is a dataclass with what it rests on, whose fields stand
    beside it."""

    code = "refused"
    exit_code = ExitCode.NO

    def __init__(
        self, message: str, hint: str | None = None, *, code: str | None = None, document: object | None = None
    ) -> None:
        super().__init__(message, hint, code=code)
        self.document = document


class Unverified(Refused):
    code = "unverified"


class PromptTooLong(LlmctlError):
    code = "prompt_too_long"
    exit_code = ExitCode.PROMPT


class AnswerCut(LlmctlError):
    code = "answer_cut"
    exit_code = ExitCode.PROMPT


class StreamEnded(LlmctlError):
    code = "stream_ended"


class EngineError(LlmctlError):
    code = "engine_error"


class EngineMissing(LlmctlError):
    code = "engine_missing"


class DownloadFailed(LlmctlError):
    code = "download_failed"


class DiskFull(LlmctlError):
    code = "disk_full"


class WriteFailed(LlmctlError):
    code = "write_failed"


class PortInUse(LlmctlError):
    code = "port_in_use"


class CommandNotRunnable(LlmctlError):
    code = "command_not_runnable"
    exit_code = ExitCode.NOT_RUNNABLE


class CommandMissing(LlmctlError):
    code = "command_not_found"
    exit_code = ExitCode.NO_COMMAND
