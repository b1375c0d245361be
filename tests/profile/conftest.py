"""What profile tests share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from llmctl.system import paths as paths_module
from llmctl.system.paths import Paths

MINIMAL = "schema: 1\nmodels:\n  - name: qwen3:8b-q4_K_M\n"
NOBODY = 65534


@pytest.fixture
def paths(home: Path, tmp_path: Path) -> Paths:
    """llmctl's folders under the test's own HOME, and no system-wide profile."""
    return replace(paths_module.from_environment(os.environ), system_profile=tmp_path / "etc/profile.yaml")


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str | bytes], Path]:
    """A profile file with that content."""

    def write_profile(content: str | bytes) -> Path:
        path = tmp_path / "mine.yaml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_profile


@pytest.fixture
def unprivileged(tmp_path: Path) -> Callable[[], AbstractContextManager[None]]:
    """Rights as an ordinary user has them: root may read and write everything, so it steps down for a while."""

    @contextmanager
    def stepped_down() -> Iterator[None]:
        if os.geteuid() != 0:
            yield
            return
        for folder in (tmp_path, *tmp_path.parents):
            if folder.stat().st_uid == 0 and folder != Path("/") and not folder.stat().st_mode & 0o001:
                folder.chmod(folder.stat().st_mode | 0o011)
        os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(0)

    return stepped_down
