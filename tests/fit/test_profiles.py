"""The shipped profiles keep what they promise on the smallest card that they are chosen for."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmctl.system.shipped import data_folder, load_shipped
from tests.fit.profile_figures import FLOORS, verdict, words


@pytest.mark.parametrize("name", FLOORS)
def test_the_figures_in_a_profile_are_what_fit_computes(name: str, tmp_path: Path) -> None:
    result = verdict(name, tmp_path)
    assert words(name, result) in (data_folder("profiles") / f"{name}.yaml").read_text()
    wanted = {"full": {"full"}, "partial": {"full", "partial"}}[load_shipped(name).gpu.require]
    assert result.verdict in wanted
