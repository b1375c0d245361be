"""What `verify` and `repair` look like."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmctl.output.text import duration, pairs, size

if TYPE_CHECKING:
    from llmctl.library.blobs import BadBlob
    from llmctl.library.repair import Mended, NotMended
    from llmctl.library.verify import BadManifest, CheckedModel
    from llmctl.workflows.pins import VerifyResult
    from llmctl.workflows.repair import RepairResult

PROBLEMS = {
    "missing": "it is missing",
    "dangling_link": "it is a link that points nowhere",
    "not_a_file": "it is no file",
    "unreadable": "it cannot be read",
    "size": "its size and its bytes are others",
    "content": "its bytes are others",
    "changing": "something writes to it",
}


def verify_lines(result: VerifyResult, width: int) -> list[str]:
    lines = pairs(
        [
            ("store", f"{result.store} ({result.why})"),
            ("lock", result.lock),
            ("hashed", f"{blobs(result.hashed)}, {size(result.hashed_bytes)}, in {duration(result.took_seconds)}"),
            ("not hashed", skipped(result)),
        ],
        width,
    )
    for blob in result.bad_blobs:
        lines += ["", *blob_lines(blob, width)]
    for manifest in result.bad_manifests:
        lines += ["", *manifest_lines(manifest, width)]
    lines += ["", *pairs([(model.name, state_of(model)) for model in result.models], width)]
    lines += [f"note: {note}" for note in result.notes]
    return lines + ([f"mend it with: {result.remedy}"] if result.remedy else [])


def state_of(model: CheckedModel) -> str:
    if not model.good:
        return "; ".join(model.reasons)
    return "good, loaded" if model.loaded else "good"


def skipped(result: VerifyResult) -> str:
    if not result.skipped:
        return ""
    return f"{blobs(result.skipped)}, {size(result.skipped_bytes)}, unchanged and hashed since {result.skipped_since}"


def blobs(count: int) -> str:
    return "1 blob" if count == 1 else f"{count} blobs"


def blob_lines(blob: BadBlob, width: int) -> list[str]:
    said = PROBLEMS[blob.problem] + (f": {blob.reason}" if blob.reason else "")
    found = "" if blob.found_digest is None else f"{blob.found_digest}, {blob.found_bytes:,} bytes"
    expected = "" if blob.expected_bytes is None else f", {blob.expected_bytes:,} bytes"
    rows = [
        ("bad blob", said),
        ("expected", blob.digest + expected),
        ("found", found),
        ("needed by", ", ".join(blob.models)),
        ("file", blob.path),
        ("first", blob.remedy),
    ]
    return pairs(rows, width)


def manifest_lines(manifest: BadManifest, width: int) -> list[str]:
    rows = [
        ("bad manifest", f"{manifest.alias}: {manifest.state}" + (f": {manifest.reason}" if manifest.reason else "")),
        ("expected", manifest.expected or ""),
        ("found", manifest.found or ""),
        ("needed by", manifest.model),
        ("file", manifest.path),
    ]
    return pairs(rows, width)


def repair_lines(result: RepairResult, width: int) -> list[str]:
    lines = pairs([("store", f"{result.store} ({result.why})"), ("lock", result.lock)], width)
    for mended in result.mended:
        lines += ["", *mended_lines(mended, result.dry_run, width)]
    for failed in result.failed:
        lines += ["", *failed_lines(failed, width)]
    lines.append("")
    if not result.mended and not result.failed:
        lines.append("nothing to repair" if result.good else "no file is bad")
    if not result.dry_run:
        lines += pairs([(model.name, state_of(model)) for model in result.models if not model.good], width)
    lines += [f"note: {note}" for note in result.notes]
    if result.good or result.dry_run:
        return lines
    return [*lines, f"next: {result.remedy}"] if result.remedy else lines


def mended_lines(mended: Mended, dry_run: bool, width: int) -> list[str]:
    fetched = "" if mended.fetched_bytes is None else f"{mended.fetched_bytes:,} bytes"
    rows = [
        (("would repair " if dry_run else "repaired ") + mended.what, mended.name),
        ("from", mended.source),
        ("fetched", fetched),
        ("size", "" if mended.size_bytes is None else size(mended.size_bytes)),
        ("needed by", ", ".join(mended.models)),
    ]
    return pairs(rows, width)


def failed_lines(failed: NotMended, width: int) -> list[str]:
    rows = [
        (f"still bad, {failed.what}", failed.name),
        ("because", failed.reason),
        ("hint", failed.hint or ""),
        ("needed by", ", ".join(failed.models)),
    ]
    return pairs(rows, width)
