"""Weights, cache and layers against the server's own fit: what was recorded, and some of it measured again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.memory import published
from tests.memory.placing import RECORD, Cell, Outcome, equal, measure, memory_bytes, predict
from tests.parts.engine import InstalledEngine

RECORDED = json.loads(RECORD.read_text())
LIVE = (
    Cell("llama-3.3-70b", 4096, targets_mib=(23000,)),
    Cell("qwen3-30b-a3b", 8192, 1, 1024, targets_mib=(9000,)),
    Cell("gemma-3-12b", 4096, targets_mib=(4000, 2500)),
    Cell("nomic-embed-text", 2048),
)


def cell_of(entry: dict[str, object]) -> Cell:
    return Cell(**{**entry, "targets_mib": tuple(entry["targets_mib"])})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("shapes")
    return {name: published.write(model, folder / f"{name}.gguf") for name, model in published.MODELS.items()}


@pytest.mark.parametrize("record", RECORDED, ids=lambda record: "-".join(str(v) for v in record["cell"].values()))
def test_every_trial_of_the_fit_is_what_the_server_printed(record: dict, shapes: dict[str, Path]) -> None:  # type: ignore[type-arg]
    cell = cell_of(record["cell"])
    now = predict(cell, shapes[cell.model], record["free_bytes"])
    assert equal(now, Outcome(**record["measured"])), (now, record["measured"])


def test_the_record_holds_what_was_predicted_before_it_was_measured() -> None:
    assert len(RECORDED) > 100
    assert all(equal(Outcome(**record["predicted"]), Outcome(**record["measured"])) for record in RECORDED)


@pytest.mark.real("ollama", "rpc")
@pytest.mark.parametrize("cell", LIVE, ids=lambda cell: cell.model)
def test_the_engine_that_is_here_says_the_same(cell: Cell, shapes: dict[str, Path], engine: InstalledEngine) -> None:
    free = memory_bytes()
    said = measure(cell, shapes[cell.model], engine.libraries / "llama-server", free)
    assert isinstance(said, Outcome), said
    assert equal(predict(cell, shapes[cell.model], free), said)
