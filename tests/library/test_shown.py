"""Names that come from outside, as the verbs show them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmctl.core.model import ModelRef
from llmctl.output.text import visible
from tests.library.pinned import Pinned
from tests.library.test_moved import here as here
from tests.library.test_moved import publish, run
from tests.registry_server import Registry

pytestmark = pytest.mark.real("ollama")


def test_a_media_type_and_the_name_of_a_file(here: Pinned, registry: Registry, tmp_path: Path) -> None:
    """Neither drives the terminal that it is shown on."""
    title = "\x1b]0;x\x07"
    name = registry.name("m:t")
    publish(registry, "m:t")
    first = run(here, "pull", name)
    for each in (str(first["alias"]), name):
        here.store.remove_manifest(ModelRef.parse(each))
    moved = json.loads(registry.manifests["m/t"])
    moved["layers"][1]["mediaType"] = f"application/vnd.{title}"
    registry.manifests["m/t"] = json.dumps(moved).encode()
    refused = here("pull", name, given=False)
    assert refused.code == 5
    assert r"\x1b]0;x\x07" in refused.err
    gone = here("pull", str(tmp_path / f"{title}.gguf"), "--name", "mine", given=False)
    assert gone.code != 0
    assert r"\x1b]0;x\x07.gguf" in gone.err
    shown = refused.out + refused.err + gone.out + gone.err
    assert visible(shown) == shown
