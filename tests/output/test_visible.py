"""What comes from outside is shown, and drives no terminal."""

from __future__ import annotations

import io
import json

import pytest

from llmctl.core.progress import Step
from llmctl.env import Env
from llmctl.errors import LlmctlError
from llmctl.output import Output
from llmctl.output.answer import MarkdownBlocks
from llmctl.output.progress import LiveChecklist
from llmctl.output.text import visible

TITLE = "\x1b]0;x\x07"
# An escape, a bell, a lone return, C1's own CSI, a change of the writing direction, a line of Unicode, a delete.
DRIVING = f"a{TITLE}b\rc\x9b2Jd\u202ee\u2028f\x7f"
SHOWN = r"a\x1b]0;x\x07b\rc\x9b2Jd\u202ee\u2028f\x7f"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def output(json: bool = False) -> tuple[Output, Terminal, Terminal]:
    stdout, stderr = Terminal(), Terminal()
    environ = {"TERM": "xterm", "NO_COLOR": "1", "COLUMNS": "200"}
    return Output(Env(environ, io.StringIO("n\n"), stdout, stderr), json), stdout, stderr


def test_lines_and_the_text_that_people_write_stay() -> None:
    text = "one\n\ttwo\r\nthree: grün, 日本語, 👍, a\u00a0b"
    assert visible(text) == text
    assert visible(DRIVING) == SHOWN


def test_every_way_out_for_people() -> None:
    out, stdout, stderr = output()
    out.show(DRIVING, lambda shown, _: [shown])
    assert stdout.getvalue() == SHOWN + "\n"
    out.note(DRIVING)
    out.error(LlmctlError(DRIVING, DRIVING))
    assert stderr.getvalue() == f"{SHOWN}\nerror: {SHOWN}\nhint: {SHOWN}\n"


def test_documents_keep_every_character_and_show_none_that_drives() -> None:
    out, stdout, stderr = output(json=True)
    out.show({DRIVING: DRIVING}, lambda *_: [])
    out.error(LlmctlError(DRIVING))
    assert json.loads(stdout.getvalue())[DRIVING] == DRIVING
    assert json.loads(stderr.getvalue())["error"]["message"] == DRIVING
    assert visible(stdout.getvalue() + stderr.getvalue()) == stdout.getvalue() + stderr.getvalue()


def test_a_step_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    stream = Terminal()
    checklist = LiveChecklist(stream, colour=False)
    checklist.step(Step("s", f"pull {DRIVING}", "done", DRIVING))
    checklist.start()
    checklist.stop()
    assert stream.getvalue().count(SHOWN) >= 2
    assert TITLE not in stream.getvalue()


def test_an_answer_on_a_terminal() -> None:
    from llmctl.client import Chunk

    out, stdout, _ = output()
    blocks = MarkdownBlocks(out)
    blocks.chunk(Chunk(text=f"look: {TITLE}\n\n"))
    blocks.end()
    assert r"look: \x1b]0;x\x07" in stdout.getvalue()
    assert TITLE not in stdout.getvalue()
