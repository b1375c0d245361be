"""What the guard counts, in the text format of Prometheus, for node_exporter's textfile collector."""

from __future__ import annotations

from collections.abc import Mapping


def textfile(counts: Mapping[tuple[str, str], int], resident: Mapping[str, bool], degraded: Mapping[str, bool]) -> str:
    """`counts` by reason and action; the others by model."""
    lines = head("llmctl_guard_events_total", "counter", "Events of the guard by reason and action.")
    lines += [
        f"llmctl_guard_events_total{labels(reason=reason, action=action)} {count}"
        for (reason, action), count in sorted(counts.items())
    ]
    lines += head("llmctl_resident", "gauge", "Whether the pinned model is resident and proved.")
    lines += [f"llmctl_resident{labels(model=name)} {int(value)}" for name, value in sorted(resident.items())]
    lines += head("llmctl_guard_degraded", "gauge", "Whether the guard has given up for a while.")
    lines += [f"llmctl_guard_degraded{labels(model=name)} {int(value)}" for name, value in sorted(degraded.items())]
    return "\n".join(lines) + "\n"


def head(name: str, kind: str, words: str) -> list[str]:
    return [f"# HELP {name} {words}", f"# TYPE {name} {kind}"]


def labels(**values: str) -> str:
    return "{" + ",".join(f'{name}="{escaped(value)}"' for name, value in values.items()) + "}"


def escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
