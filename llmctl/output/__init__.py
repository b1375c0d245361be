"""Everything a person or a script reads: stdout is data, stderr is progress and diagnosis."""

from __future__ import annotations

import json as json_module
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeVar

from llmctl.errors import ConsentNeeded, Refused, WriteFailed
from llmctl.output.text import visible, visible_json

if TYPE_CHECKING:
    from llmctl.core.progress import Consent, Progress
    from llmctl.env import Env
    from llmctl.errors import LlmctlError

Result = TypeVar("Result")

SCHEMA = 1


class Output:
    """One command's voice, on the streams of `env`. With `json`, stdout carries documents only."""

    def __init__(self, env: Env, json: bool = False) -> None:
        self.env = env
        self.json = json
        self._pause: Callable[[], None] = lambda: None
        self._resume: Callable[[], None] = lambda: None

    @property
    def width(self) -> int:
        """Columns of the terminal; 80 where there is none."""
        import shutil

        return shutil.get_terminal_size((80, 24)).columns if self.env.stdout.isatty() else 80

    @property
    def colour(self) -> bool:
        return self.env.stderr.isatty() and not self.env.environ.get("NO_COLOR")

    def show(self, result: Result, text: Callable[[Result, int], list[str]]) -> None:
        """Print a result: as one JSON document, or as the lines that `text(result, width)` makes of it."""
        lines = [json_line(document(result), indent=2)] if self.json else map(visible, text(result, self.width))
        self.write("".join(line + "\n" for line in lines))

    def record(self, result: object) -> None:
        """Print one line of NDJSON and flush it: what `--watch` and `logs -f` emit in JSON mode."""
        self.write(json_line(document(result)) + "\n")
        self.flush()

    def write(self, text: str) -> None:
        """Text to stdout, whatever the locale: a character that it lacks becomes `?`, not a traceback."""
        stream = self.env.stdout
        with writing():
            try:
                stream.write(text)
            except UnicodeEncodeError:
                encoding = stream.encoding or "ascii"
                stream.write(text.encode(encoding, "replace").decode(encoding))

    def write_bytes(self, piece: memoryview) -> None:
        """Bytes to stdout."""
        with writing():
            self.env.stdout.buffer.write(piece)

    def flush(self) -> None:
        """What was written so far, out."""
        with writing():
            self.env.stdout.flush()

    def note(self, text: str) -> None:
        """One line on stderr."""
        stream = self.env.stderr
        encoding = stream.encoding or "utf-8"
        stream.write(visible(text).encode(encoding, "replace").decode(encoding) + "\n")
        stream.flush()

    def error(self, error: LlmctlError) -> None:
        """A failure on stderr: two lines for people, one object for scripts."""
        if self.json:
            body = {"code": error.code, "message": error.message, "hint": error.hint}
            self.note(json_line({"schema": SCHEMA, "error": body}))
            return
        self.note(f"error: {error.message}")
        if error.hint:
            self.note(f"hint: {error.hint}")

    def interrupted(self) -> None:
        if self.json:
            body = {"code": "interrupted", "message": "interrupted", "hint": None}
            self.note(json_line({"schema": SCHEMA, "error": body}))
        else:
            self.note("interrupted")

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """A Progress that draws a live checklist on a terminal and plain lines elsewhere."""
        from llmctl.output.progress import LiveChecklist, PlainLines

        live = self.env.stderr.isatty() and self.env.environ.get("TERM") != "dumb"
        checklist = LiveChecklist(self.env.stderr, self.colour) if live else PlainLines(self.note)
        self._pause, self._resume = checklist.stop, checklist.start
        checklist.start()
        try:
            yield checklist.step
        finally:
            checklist.stop()
            self._pause = self._resume = lambda: None

    def consent(self, yes: bool) -> Consent:
        """Ask on the terminal before something large. `yes` agrees beforehand; no terminal is a refusal."""

        def ask(question: str) -> None:
            if yes:
                return
            if not (self.env.stdin.isatty() and self.env.stderr.isatty()):
                raise ConsentNeeded(f"this needs your consent: {question}", "the same command with --yes")
            self._pause()
            self.env.stderr.write(f"{visible(question)} Continue? [y/N] ")
            self.env.stderr.flush()
            answer = self.env.stdin.readline().strip().lower()
            if answer not in {"y", "yes"}:
                raise Refused(f"not agreed: {question}", code="declined")
            self._resume()

        return ask


@contextmanager
def writing() -> Iterator[None]:
    """A full disk behind stdout is WriteFailed. A reader that left stays BrokenPipeError, for main to know."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise WriteFailed(f"cannot write to stdout: {error.strerror}") from None


def document(result: Any) -> dict[str, Any]:
    """A result as the product's JSON: `schema` first, then its fields."""
    return {"schema": SCHEMA, **plain(result)}


def plain(value: Any) -> Any:
    """Dataclasses, enums, paths and tuples as what JSON has."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name.rstrip("_"): plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    return value


def json_line(value: object, indent: int | None = None) -> str:
    return visible_json(json_module.dumps(value, indent=indent, ensure_ascii=False))
