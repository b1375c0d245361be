"""With --deep: every blob that a pin reaches is hashed."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from llmctl.core.checks.facts import NotGathered
from llmctl.core.checks.facts.hashed import HashedFacts
from llmctl.library import verify
from llmctl.workflows import store
from llmctl.workflows.gather import DEEP

if TYPE_CHECKING:
    from llmctl.core.progress import Step
    from llmctl.library.blobs import BadBlob
    from llmctl.workflows.gather import Given

# 40 GB from a disk that spins take five minutes.
HASH_SECONDS = 1800.0


def gather(given: Given) -> HashedFacts:
    """The bad blobs, each with what is wrong. What is missing is another check's."""
    lock = given.of_profile.lock
    if lock is None or not lock.models:
        return HashedFacts()
    place = store.place(given.server, given.profile)
    # A model that is asked at the same time would wait for the disk.
    given.wait_for("deep")
    ends = time.monotonic() + HASH_SECONDS

    def heard(step: Step) -> None:
        if time.monotonic() > ends:
            raise NotGathered(f"hashing took longer than {HASH_SECONDS:,.0f} s")
        if step.state == "running":
            given.progress(replace(step, id="hashed", title=DEEP["hashed"][0], detail=""))

    found = verify.verify(
        place.store, lock.models, given.server.paths.state, client=None, since_seconds=None, progress=heard
    )
    bad = [blob for blob in found.bad_blobs if blob.problem in {"size", "content", "unreadable", "changing"}]
    return HashedFacts(tuple((", ".join(blob.models), words(blob)) for blob in bad), found.hashed_bytes)


def words(blob: BadBlob) -> str:
    reason = f": {blob.reason}" if blob.reason else ""
    return f"{blob.path} is not what its name says ({blob.problem}){reason}"
