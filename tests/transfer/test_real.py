"""Real weights from one machine's store to another's, and the real engine answers from the alias."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmctl.core.model import ModelRef
from tests.conftest import StartOllama
from tests.parts import starter
from tests.transfer.conftest import NewBox

STARTER_DIGEST = f"sha256:{starter.SHA256}"


@pytest.mark.real("ollama", "model")
@pytest.mark.parametrize("running", [True, False], ids=["server runs", "no server"])
def test_the_engine_answers_from_what_was_imported(
    new_box: NewBox, ollama_server: StartOllama, starter_gguf: Path, archive: Path, running: bool
) -> None:
    here, there = new_box("here"), new_box("there")
    source = ollama_server(models=here.store.path)
    here.use(source.port)
    pulled = here("pull", str(starter_gguf), "--name", "starter:1", "--json")
    assert pulled.code == 0, pulled.err
    done = here("export", "starter:1", "-o", str(archive))
    assert done.code == 0, done.err
    source.stop()

    target = ollama_server(models=there.store.path) if running else None
    if target:
        there.use(target.port)
    imported = there("import", str(archive), "--yes", "--json")
    assert imported.code == 0, imported.err
    assert imported.json["models"][0]["weights_digest"] == STARTER_DIGEST
    assert there.lock == here.lock

    alias = imported.json["models"][0]["alias"]
    target = target or ollama_server(models=there.store.path)
    answer = target.post(
        "/api/generate", {"model": alias, "prompt": "The capital of France is", "options": {"num_predict": 4}}
    )
    assert answer["done"] is True
    assert answer["response"].strip()
    assert there.store.manifest(ModelRef.parse(alias)) == here.store.manifest(ModelRef.parse(alias))
    # A later pull of the same file finds it there: nothing is made or copied again.
    there.use(target.port)
    assert there("pull", str(starter_gguf), "--name", "starter:1", "--json").json["changed"] is False
