"""An answer as it arrives: bare tokens into a pipe, rendered Markdown on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmctl.output.text import visible

if TYPE_CHECKING:
    from llmctl.client import Chunk
    from llmctl.output import Output
    from llmctl.workflows.ask import Answer


class Tokens:
    """Each token to stdout at once."""

    def __init__(self, out: Output) -> None:
        self.out = out
        self.last = ""

    def chunk(self, chunk: Chunk) -> None:
        if chunk.text:
            self.last = chunk.text
            self.out.write(chunk.text)
            self.out.flush()

    def end(self) -> None:
        if self.last and not self.last.endswith("\n"):
            self.out.write("\n")


class Silence(Tokens):
    """Nothing until the end: for JSON documents, and for answers that are checked before they are shown."""

    def chunk(self, chunk: Chunk) -> None:
        pass


class MarkdownBlocks(Tokens):
    """Rendered block by block. The block being written is redrawn; finished ones are left alone."""

    def __init__(self, out: Output) -> None:
        super().__init__(out)
        from rich.console import Console
        from rich.live import Live

        self.console = Console(file=out.env.stdout, no_color=not out.colour)
        self.live: Live | None = None
        self.block = ""

    def chunk(self, chunk: Chunk) -> None:
        self.block += visible(chunk.text)
        while (cut := block_end(self.block)) is not None:
            self.finish(self.block[:cut])
            self.block = self.block[cut:]
        if self.block.strip():
            self.draw(self.block)

    def draw(self, text: str) -> None:
        from rich.live import Live

        if self.live is None:
            self.live = Live(console=self.console, auto_refresh=False, transient=True, vertical_overflow="crop")
            self.live.start()
        self.live.update(self.markdown(text), refresh=True)

    def finish(self, text: str) -> None:
        self.stop()
        if text.strip():
            self.console.print(self.markdown(text))

    def stop(self) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None

    def end(self) -> None:
        self.finish(self.block)
        self.block = ""

    def markdown(self, text: str) -> Any:
        from rich.markdown import Markdown

        return Markdown(text)


def block_end(text: str) -> int | None:
    """Where the first finished Markdown block ends: after a blank line outside a code fence."""
    position, fenced = 0, False
    for line in text.splitlines(keepends=True):
        position += len(line)
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        if not fenced and line == "\n" and text[:position].strip():
            return position
    return None


def statistics(answer: Answer) -> str:
    """One line for `--stats`."""
    rate = answer.tokens_per_second
    parts = [
        f"{answer.prompt_tokens} prompt tokens",
        f"{answer.completion_tokens} tokens",
        f"{rate:.1f} tokens/s" if rate is not None else "",
        f"first token after {answer.ttft_seconds:.2f} s" if answer.ttft_seconds is not None else "",
        f"{answer.total_seconds:.2f} s in all",
        f"context {answer.context_length}" if answer.context_length else "",
    ]
    return ", ".join(part for part in parts if part)
