"""The units as text: what is shipped, what is quoted, what stays out of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core import unit
from llmctl.core.profile import GpuSpec, Profile, ServerSpec
from llmctl.core.serving import Lack
from llmctl.core.unit import Site
from llmctl.core.unit_text import MARK, command, environment_of

ROOT = Path(__file__).resolve().parents[2]
SITE = Site(
    scope="system",
    llmctl=("/opt/llmctl/bin/llmctl",),
    address="127.0.0.1:11434",
    store="/var/lib/llmctl/models",
    home="/var/lib/llmctl/home",
    state="/var/lib/llmctl/state",
    credentials="/etc/llmctl/credentials",
    profile="/etc/llmctl/profile.yaml",
)
PLAIN = Profile("plain", ())


def dry_run(*arguments: str, environ: dict[str, str] | None = None) -> dict[str, str | None]:
    """The files that `install-service --dry-run --json` would write, by their path."""
    line = [sys.executable, "-m", "llmctl", "install-service", "--dry-run", "--json", *arguments]
    done = subprocess.run(line, cwd=ROOT, env={**os.environ, **(environ or {})}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    steps = json.loads(done.stdout)["steps"]
    return {step["target"]: step["content"] for step in steps if step["kind"] == "write"}


def test_what_is_shipped_is_what_would_be_written() -> None:
    files = dry_run("--profile", "24gb")
    shipped = {path.name: path.read_text() for path in (ROOT / "systemd").iterdir()}
    assert shipped.pop("llmctl.sysusers") == files["/etc/sysusers.d/llmctl.conf"]
    assert shipped == {name: files[f"/etc/systemd/system/{name}"] for name in unit.UNITS}


def test_a_dry_run_writes_nothing(home: Path) -> None:
    before = sorted(home.rglob("*"))
    dry_run("--user", "--profile", "quickstart")
    assert sorted(home.rglob("*")) == before


def test_no_secret_stands_in_a_unit_or_in_a_dry_run() -> None:
    secret = {"HTTPS_PROXY": "http://me:geheim@proxy:3128"}
    for scope in ([], ["--user"]):
        files = dry_run(*scope, "--profile", "cpu", environ=secret)
        (credential,) = [path for path in files if path.endswith("/credentials/HTTPS_PROXY")]
        assert files[credential] is None
        assert not [path for path, text in files.items() if text and "geheim" in text]


def test_the_units_of_a_user_name_their_own_folders(home: Path) -> None:
    files = dry_run("--user", "--profile", "quickstart")
    engine = files[f"{home}/.config/systemd/user/{unit.ENGINE}"]
    assert engine is not None
    environment = environment_of(engine)
    assert environment["LLMCTL_OWNER"] == environment["LLMCTL_STATE_DIR"] == f"{home}/.local/state/llmctl"
    assert environment["OLLAMA_MODELS"] == f"{home}/.local/share/llmctl/quickstart/models"
    assert environment["LLMCTL_PROFILE"] == "quickstart"
    # Without rights a user's manager could not set these, and the unit would not start.
    assert not [line for line in engine.splitlines() if line.startswith(("User=", "ProtectSystem=", "DeviceAllow="))]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("name", [unit.ENGINE, unit.GUARD])
def test_little_is_exposed(name: str, tmp_path: Path) -> None:
    """The score is computed from the file alone; no systemd has to run."""
    path = tmp_path / name
    path.write_text(unit.units(SITE, PLAIN)[name])
    arguments = ["security", "--offline=yes", "--no-pager", "--json=short", str(path)]
    subprocess.run(["systemd-analyze", *arguments], check=True, capture_output=True)
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", "--threshold=25", str(path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    print(done.stdout.splitlines()[-1])


def test_the_gpu_stays_in_reach() -> None:
    text = unit.engine_unit(SITE, PLAIN)
    for forbidden in ("ProcSubset=", "PrivateDevices=", "MemoryDenyWriteExecute=", "PrivateNetwork=", "PrivateUsers="):
        assert not [line for line in text.splitlines() if line.startswith(forbidden)]
    for name in ("nvidia", "nvidiactl", "nvidia-uvm", "drm", "kfd"):
        assert f"DeviceAllow=char-{name} rwm" in text
    assert "ExecStartPre=+-/usr/bin/nvidia-modprobe -u -c 0" in text


def test_the_boot_waits_for_no_gpu() -> None:
    target = unit.target_unit(SITE)
    assert "DefaultDependencies=no" in target
    assert "After=" not in target
    assert "TimeoutStartSec=infinity" in unit.engine_unit(SITE, PLAIN)


def test_the_guard_does_not_wait_for_the_engine_to_say_what_that_waits_for() -> None:
    assert "After=" not in unit.guard_unit(SITE)


def test_settings_become_the_environment() -> None:
    profile = replace(PLAIN, server=ServerSpec(context=4096, kv_cache="q8_0"), gpu=GpuSpec(require="full"))
    environment = environment_of(unit.engine_unit(SITE, profile))
    assert environment["OLLAMA_CONTEXT_LENGTH"] == "4096"
    assert environment["OLLAMA_KV_CACHE_TYPE"] == "q8_0"
    assert environment["LLAMA_ARG_FIT"] == "off"
    assert environment["LLMCTL_OWNER"] == SITE.state


@given(st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\x85\u2028\u2029")))
def test_a_variable_is_read_back_as_it_was(value: str) -> None:
    site = replace(SITE, store=value)
    assert environment_of(unit.engine_unit(site, PLAIN))["OLLAMA_MODELS"] == value


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("/opt/llmctl", "/opt/llmctl"),
        ("/home/a b/llmctl", '"/home/a b/llmctl"'),
        ("50%", "50%%"),
        ("$HOME", "$$HOME"),
        ('say "no"', '"say \\"no\\""'),
    ],
)
def test_a_command_is_taken_as_it_is(word: str, written: str) -> None:
    assert command([word]) == written


def test_adoption_adds_what_is_missing_and_nothing_else() -> None:
    text = unit.adoption((Lack("OLLAMA_KEEP_ALIVE", "-1", None),))
    assert text == f'{MARK}\n\n[Service]\nEnvironment="OLLAMA_KEEP_ALIVE=-1"\n'
    site = replace(SITE, engine=False)
    assert set(unit.units(site, PLAIN)) == {unit.GUARD, unit.TARGET}
    assert "After=ollama.service" in unit.guard_unit(site)
