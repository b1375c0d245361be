"""What `export`, `import` and `push` look like."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmctl.output.text import pairs, size

if TYPE_CHECKING:
    from llmctl.library.imported import ImportedModel
    from llmctl.workflows.push import PushResult
    from llmctl.workflows.transfer import ExportResult, ImportResult

CHANGES = {"new": "pinned now", "same": "pinned already", "replaced": "pinned anew, the lock had another"}
PLAIN = {
    "written": "also under its own name",
    "there": "its own name has it too",
    "kept": "its own name stands for another model here and was left alone",
}
MOST_IGNORED = 5


def export_lines(result: ExportResult, width: int) -> list[str]:
    lines = pairs([("file", f"{result.file}, {size(result.size_bytes)}"), ("store", result.store)], width)
    for model in result.models:
        rows = [
            ("model", model.name),
            ("manifest", model.manifest_digest),
            ("weights", f"{model.weights_digest}, {model.quantization}"),
            ("licence", "included" if model.licensed else "the model carries none"),
            ("as a model", f"{model.ref}  (oras)"),
            ("with its pin", f"{model.artifact_ref}  (skopeo, oras)"),
        ]
        lines += ["", *pairs(rows, width)]
    return lines


def import_lines(result: ImportResult, width: int) -> list[str]:
    did = "would write" if result.dry_run else "wrote"
    there = "there by name, not hashed" if result.dry_run else "there already, hashed"
    head = [
        ("store", f"{result.store} ({result.why})"),
        ("blobs", f"{did} {size(result.written_bytes)}; {size(result.present_bytes)} {there}"),
        ("lock", result.lock),
    ]
    lines = pairs(head, width)
    for model in result.models:
        lines += ["", *pairs(model_rows(model, result.dry_run), width)]
    if result.ignored:
        more = f" and {len(result.ignored) - MOST_IGNORED} more" if len(result.ignored) > MOST_IGNORED else ""
        shown = ", ".join(repr(name[:100]) for name in result.ignored[:MOST_IGNORED])
        lines.append(f"note: belongs to no model and was left out: {shown}{more}")
    return lines


def model_rows(model: ImportedModel, dry_run: bool) -> list[tuple[str, str]]:
    pin = CHANGES[model.change] if not dry_run else {"new": "new", "same": "the same"}.get(model.change, "another")
    return [
        ("model", model.name),
        ("manifest", model.manifest_digest),
        ("weights", f"{model.weights_digest}, {model.quantization}"),
        ("licence", "included" if model.licensed else "the model carries none"),
        ("pin", pin if model.pinned else f"{pin}, made here: the archive had none"),
        ("served as", f"{model.alias}{'; ' + PLAIN[model.plain] if model.plain and not dry_run else ''}"),
    ]


def push_lines(result: PushResult, width: int) -> list[str]:
    rows = [
        ("model", result.name),
        ("pushed as", result.target),
        ("manifest", f"{result.manifest_digest}, the registry has the same"),
        ("size", size(result.size_bytes)),
    ]
    return pairs(rows, width)
