"""What a user installs: the wheel with its profiles, and the editable form from a checkout."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ASK = "from llmctl.system import shipped; print(*shipped.shipped_names()); print(shipped.data_folder('profiles'))"


def run(*command: str | Path, folder: Path = ROOT) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    return next(folder.glob("*.whl"))


def installed(folder: Path, *arguments: str | Path) -> Path:
    """A fresh environment with llmctl in it; what llmctl depends on is borrowed from the one that runs the tests."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    packages = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    borrowed = next(path for path in sys.path if path.endswith("site-packages"))
    # It comes after the environment's own packages on the path, so it cannot hide what is installed here.
    (Path(packages) / "zz-borrowed.pth").write_text(borrowed + "\n")
    pip = [sys.executable, "-m", "pip", "--quiet", "--python", python, "install", "--no-deps", "--no-index"]
    # `--ignore-installed`: pip would see, and remove, the llmctl of the borrowed place.
    run(*pip, "--ignore-installed", *arguments)
    return python


def ask(python: Path, folder: Path) -> tuple[list[str], Path]:
    names, data = run(python, "-c", ASK, folder=folder).splitlines()
    return names.split(), Path(data)


def profiles() -> set[str]:
    return {path.stem for path in (ROOT / "profiles").glob("*.yaml")}


def test_the_wheel_works_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    python = installed(tmp_path / "venv", wheel)
    names, data = ask(python, tmp_path)
    assert set(names) == profiles()
    assert data.is_relative_to(tmp_path / "venv")
    assert run(python.parent / "llmctl", "--version", folder=tmp_path).startswith("llmctl ")


def test_the_editable_form_uses_the_checkouts_profiles(tmp_path: Path) -> None:
    python = installed(tmp_path / "venv", "--no-build-isolation", "--editable", ROOT)
    names, data = ask(python, tmp_path)
    assert set(names) == profiles()
    assert data == ROOT / "profiles"


def test_the_wheel_carries_what_is_shipped_and_no_more(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    shipped = {f"llmctl/_data/profiles/{path.name}" for path in (ROOT / "profiles").iterdir()}
    shipped |= {f"llmctl/_data/systemd/{path.name}" for path in (ROOT / "systemd").iterdir()}
    assert {*shipped, "llmctl/system/cves.yaml"} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"llmctl"}
