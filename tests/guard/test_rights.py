"""What a person is told to type has the rights that it needs: the service of the whole machine is root's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from llmctl.core.guard.facts import Want
from llmctl.core.surroundings import Surroundings
from llmctl.core.unit import Scope as UnitScope
from llmctl.output.lifecycle import status_lines
from llmctl.system.paths import SYSTEM, Paths
from llmctl.workflows import pins, repair
from llmctl.workflows.service import ServiceStatus
from llmctl.workflows.status import stopped
from llmctl.workflows.watched import not_pinned
from tests.guard.test_judge import ABSENT, AWAITING, SILENT, WANT, after, later

OF_ROOT = replace(WANT, llmctl=SYSTEM.llmctl)
MINE = Paths(*(Path("/home/ann") for _ in range(6)))


@pytest.mark.parametrize(("paths", "llmctl"), [(SYSTEM, "sudo llmctl"), (MINE, "llmctl")])
def test_the_words_about_a_store_and_its_server(paths: Paths, llmctl: str) -> None:
    running = SimpleNamespace(base_url="http://x", owner="systemd")
    weights = SimpleNamespace(name="qwen", weights_digest="sha256:b")
    scope = pins.Scope(
        cast(Any, SimpleNamespace(reference="p")), Path("l"), (cast(Any, weights),), cast(Any, None), None, paths,
        lambda: (), ("qwen",), None, None,
    )  # fmt: skip
    model = SimpleNamespace(name="qwen", loaded=True)
    sound = cast(Any, SimpleNamespace(bad_blobs=(), bad_manifests=(), models=()))
    bad = cast(Any, SimpleNamespace(bad_blobs=(SimpleNamespace(digest="sha256:b"),), models=(model,)))
    assert pins.remedy(scope, bad) == f"{llmctl} repair qwen"
    assert pins.remedy(scope, sound) == f"{llmctl} down, then {llmctl} up p"
    assert pins.old_bytes(scope, bad)[0].endswith(f"until {llmctl} down and then {llmctl} up")
    assert repair.start_anew(scope, cast(Any, running)).endswith(f": {llmctl} down, then {llmctl} up starts it anew")


@pytest.mark.parametrize(("scope", "llmctl"), [("system", "sudo llmctl"), ("user", "llmctl")])
def test_how_a_service_that_is_stopped_is_started(scope: UnitScope, llmctl: str) -> None:
    here = Surroundings(None, None, None, None, None, None)
    service = ServiceStatus(scope, "inactive", "inactive", 0, None, None, None, (), here, here, ())
    assert status_lines(replace(stopped(None, None), service=service), 80)[-1] == f"start it: {llmctl} up"


@pytest.mark.parametrize("want", [OF_ROOT, WANT])
@pytest.mark.parametrize("owner", ["systemd", "llmctl"])
def test_how_a_server_that_has_ended_or_is_silent_is_started(want: Want, owner: str) -> None:
    expected = f"{want.llmctl} logs tells why; {want.llmctl} up starts it"
    ended = replace(ABSENT, owner=owner)  # type: ignore[arg-type]
    silent = replace(SILENT, owner=owner)  # type: ignore[arg-type]
    assert after(ended, want=want)[0].remedy == expected
    assert after(silent, later(silent, 31), want=want)[0].remedy == expected


@pytest.mark.parametrize(
    ("want", "more"),
    [
        (OF_ROOT, "; sudo llmctl install-service --reset-uvm lets the guard load nvidia_uvm anew"),
        (replace(OF_ROOT, uvm=True), ""),
        (WANT, ""),
    ],
)
def test_a_reset_of_nvidia_uvm_is_named_where_it_can_be_had_and_is_not_there(want: Want, more: str) -> None:
    finding, _ = after(AWAITING, later(AWAITING, 95), want=want)
    assert finding.remedy == "llmctl doctor gpu says what is missing" + more


def test_how_a_model_is_pinned() -> None:
    assert not_pinned("qwen", SYSTEM.llmctl).remedy == "sudo llmctl up gets it and pins it"
