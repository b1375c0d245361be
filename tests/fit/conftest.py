"""Sparse models and a command line to ask about them."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from llmctl.cli import main
from llmctl.env import Env
from tests.memory import published


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Fit(Protocol):
    def __call__(self, *arguments: str, encoding: str = "utf-8", **environ: str) -> Said: ...


@pytest.fixture
def fit(home: Path) -> Fit:
    def run(*arguments: str, encoding: str = "utf-8", **environ: str) -> Said:
        out, err = io.TextIOWrapper(io.BytesIO(), encoding), io.TextIOWrapper(io.BytesIO(), encoding)
        import os

        code = main(["fit", *arguments], Env({**os.environ, **environ}, io.StringIO(), out, err))
        for stream in (out, err):
            stream.flush()
        return Said(code, *(stream.buffer.getvalue().decode(encoding) for stream in (out, err)))

    return run


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("shapes")
    return {name: published.write(model, folder / f"{name}.gguf") for name, model in published.MODELS.items()}
