"""The file of figures: what earlier versions wrote is read, and what is not known stays unknown."""

from __future__ import annotations

import json
from pathlib import Path

from llmctl.system import learnt

KEY = "sha256:abc|gpu"


def test_the_context_of_the_last_answers(tmp_path: Path) -> None:
    known = learnt.Learnt()
    for tokens in (9000, 10, 30, 20, 50, 40):
        known.add_speed("sha256:abc", "gpu", 40.0, tokens)
    learnt.write(tmp_path, known)
    read = learnt.read(tmp_path)
    assert read == known
    assert read.context_tokens("sha256:abc", "gpu") == 30
    assert read.context_tokens("sha256:abc", "cpu") is None


def test_answers_whose_context_nobody_noted(tmp_path: Path) -> None:
    old = {"schema": 1, "runtime": {}, "speed": {KEY: [40.0] * 6}, "best": {KEY: 50.0}}
    (tmp_path / learnt.NAME).write_text(json.dumps(old))
    known = learnt.read(tmp_path)
    assert known.tokens_per_second("sha256:abc", "gpu") == (40.0, 6)
    for _ in range(4):
        known.add_speed("sha256:abc", "gpu", 40.0, 100)
        assert known.context_tokens("sha256:abc", "gpu") is None
    known.add_speed("sha256:abc", "gpu", 40.0, 100)
    assert known.context_tokens("sha256:abc", "gpu") == 100
