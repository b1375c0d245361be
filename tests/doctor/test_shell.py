"""What says that this is a container: the marker of each that makes one."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmctl.workflows.gather import shell


def test_each_marker_names_what_made_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = [(tmp_path / str(path).lstrip("/"), name) for path, name in shell.MARKERS]
    monkeypatch.setattr(shell, "MARKERS", below)
    assert shell.container() is None
    for marker, content, said in (
        ("var/run/secrets/kubernetes.io/serviceaccount", None, "Kubernetes"),
        ("run/.containerenv", 'engine="podman-5.4.0"\n', "podman"),
        (".dockerenv", "", "docker"),
        ("run/systemd/container", "lxc\n", "lxc"),
        ("run/systemd/container", "", "a container"),
    ):
        path = tmp_path / marker
        if content is None:
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        assert shell.container() == said
