"""What `install-service` and `uninstall-service` look like."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmctl.workflows.install import Change, ServiceResult

DONE = {"write": "wrote", "copy": "copied", "remove": "removed", "run": "ran"}


def service_lines(result: ServiceResult, _: int) -> list[str]:
    lines = dry_lines(result) if result.dry_run else done_lines(result)
    return [*lines, *(f"note: {note}" for note in result.notes)]


def done_lines(result: ServiceResult) -> list[str]:
    lines = [f"{DONE[step.kind]} {step.target}" for step in result.steps if step.due]
    if result.profile is None:
        return [*lines, "the service is gone" if result.changed else "there is no service"]
    sudo = "sudo " if result.scope == "system" else ""
    end = "installed" if result.changed else "already installed"
    return [*lines, f"{end}; wait until its models answer from the GPU: {sudo}llmctl up"]


def dry_lines(result: ServiceResult) -> list[str]:
    return [line for step in result.steps for line in planned(step)] or ["nothing to do"]


def planned(step: Change) -> list[str]:
    """A step as it would be done; a file with all its text."""
    state = "" if step.due else "  (already so)"
    if step.kind == "run":
        return [f"run: {step.target}{state}"]
    head = f"{step.kind}: {step.target}{state}"
    if step.content is None:
        return [head]
    return [head, *("    " + line if line else "" for line in step.content.splitlines())]
