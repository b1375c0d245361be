"""A step of an install as a `with` block: running, then done or failed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from llmctl.core.progress import Progress, Step
from llmctl.errors import LlmctlError


class RunningStep:
    """What the body of `running` talks to. The last `detail` stays when the step is done."""

    def __init__(self, progress: Progress, id: str, title: str) -> None:  # noqa: A002
        self.progress = progress
        self.id = id
        self.title = title
        self.detail = ""

    def say(self, detail: str, completed: int | None = None, total: int | None = None, unit: str = "bytes") -> None:
        self.detail = detail
        self.progress(Step(self.id, self.title, "running", detail, completed, total, unit))


@contextmanager
def running(progress: Progress, id: str, title: str, detail: str = "") -> Iterator[RunningStep]:  # noqa: A002
    step = RunningStep(progress, id, title)
    step.say(detail)
    try:
        yield step
    except LlmctlError as error:
        progress(Step(id, title, "failed", error.message))
        raise
    except BaseException:
        progress(Step(id, title, "failed", "interrupted"))
        raise
    progress(Step(id, title, "done", step.detail))
