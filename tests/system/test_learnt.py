"""The file of figures: what earlier versions wrote is read, and what is not known stays unknown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

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


@pytest.mark.parametrize("figure", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize(
    "document",
    [
        '{"runtime": {"x": FIGURE}, "speed": {}}',
        '{"runtime": {}, "speed": {"a|gpu": [FIGURE, 1, 2]}}',
        '{"runtime": {}, "speed": {}, "best": {"a|gpu": FIGURE}}',
        '{"runtime": {}, "speed": {}, "context": {"a|gpu": [FIGURE]}}',
        '{"runtime": {}, "speed": {}, "first_token": {"a|gpu": [[1000, FIGURE]]}}',
        '{"runtime": {}, "speed": {}, "residual": {"a": [[1, FIGURE]]}}',
    ],
)
def test_a_figure_that_is_no_number(tmp_path: Path, document: str, figure: str) -> None:
    (tmp_path / learnt.NAME).write_text(document.replace("FIGURE", figure))
    assert learnt.read(tmp_path) == learnt.Learnt()


@pytest.mark.parametrize("nothing", [0, 0.0, -1])
def test_an_answer_of_nothing_is_no_figure(tmp_path: Path, nothing: float) -> None:
    document: dict[str, Any] = {
        "runtime": {},
        "speed": {KEY: [nothing, 40.0], "b|gpu": [nothing]},
        "best": {KEY: nothing},
        "first_token": {KEY: [[nothing, 1.0], [1000, nothing], [1000, 2.0]]},
        "context": {KEY: [nothing, 100]},
    }
    (tmp_path / learnt.NAME).write_text(json.dumps(document))
    known = learnt.read(tmp_path)
    assert known.tokens_per_second("sha256:abc", "gpu") == (40.0, 1)
    assert known.tokens_per_second("b", "gpu") is None
    assert known.best_tokens_per_second("sha256:abc", "gpu") is None
    assert known.first_tokens("sha256:abc", "gpu") == ((1000, 2.0),)
    assert known.context_tokens("sha256:abc", "gpu") == 100
