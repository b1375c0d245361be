"""The two compilations of a registry build: `ollama` by Go, the runner and its companions by cmake and ninja."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from llmctl.engines.steps import RunningStep
from llmctl.engines.tools import jobs
from llmctl.engines.workshop import Workshop
from llmctl.errors import DownloadFailed
from llmctl.system.disk import disk_errors
from llmctl.system.reach import require_reachable

MODULE = "github.com/ollama/ollama"
PROGRAMS = ("llama-server", "llama-quantize", "ggml-rpc-server")
NINJA_LINE = re.compile(r"\[(\d+)/(\d+)\] (.*)")
# 345 steps instead of 401: no tests, examples, web page, and no TLS, which the runner on loopback does not need.
CMAKE_OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DGGML_RPC=ON",
    "-DCMAKE_INSTALL_RPATH=$ORIGIN",
    "-DCMAKE_BUILD_WITH_INSTALL_RPATH=ON",
)


def compile_ollama(workshop: Workshop, version: str, bin_folder: Path, cache: Path, step: RunningStep) -> None:
    """`bin_folder/ollama` at `version`. Each module is checked by Go against its go.sum."""
    environ = {**go_settings(workshop, cache, step), "GOBIN": str(bin_folder)}
    flags = f"-s -w -X={MODULE}/version.Version={version} -X={MODULE}/server.mode=release"
    packages = 0

    def show(line: str) -> None:
        nonlocal packages
        if line.startswith("go: "):
            step.say(line.removeprefix("go: "))
        else:
            packages += 1
            step.say(line, packages, None, "packages")

    command = ["go", "install", "-v", "-trimpath", "-ldflags", flags, f"{MODULE}@v{version}"]
    workshop.run(command, "Ollama", show, environ)
    step.say(f"ollama {version}")


def go_settings(workshop: Workshop, cache: Path, step: RunningStep) -> dict[str, str]:
    """Where Go keeps modules and objects, and whom it asks.

    A module cache that exists is used; a new one goes into `cache`, not into ~/go. Without a
    reachable proxy Go gets GOPROXY=off: what is cached builds, and what is not fails at once.
    """
    private = {"GOPATH": str(cache), "GOCACHE": str(cache / "build")}
    asked = {name: value for name, value in private.items() if name not in workshop.environ}
    # Without any home Go has no default for GOCACHE and refuses even to say so.
    homeless = not (workshop.environ.get("HOME") or workshop.environ.get("XDG_CACHE_HOME"))
    answer = workshop.run(["go", "env", "GOMODCACHE", "GOPROXY"], "Ollama", environ=asked if homeless else {})
    modules, proxies = answer.tail[-2:] if len(answer.tail) >= 2 else ("", "")
    settings: dict[str, str] = {}
    if homeless or not Path(modules).is_dir():
        settings |= {**asked, "GOMODCACHE": str(cache / "mod"), "GOFLAGS": "-modcacherw"}
    first = re.split("[,|]", proxies)[0]
    if first.startswith("http"):
        try:
            require_reachable(first, workshop.environ)
        except DownloadFailed as error:
            step.say(f"{error.message}; from the cache alone")
            settings["GOPROXY"] = "off"
    return settings


def compile_runner(
    workshop: Workshop, source: Path, build: Path, libraries: Path, nvcc: Path | None, step: RunningStep
) -> None:
    """llama-server, its companions and their shared libraries in `libraries`, found by $ORIGIN."""
    options = list(CMAKE_OPTIONS)
    if nvcc is not None:
        # CUDA's own libraries lie elsewhere: their folders join the run path.
        options += ["-DGGML_CUDA=ON", f"-DCMAKE_CUDA_COMPILER={nvcc}", "-DCMAKE_INSTALL_RPATH_USE_LINK_PATH=ON"]
    configure = ["cmake", "-S", str(source), "-B", str(build), "-G", "Ninja", *options]
    workshop.run(configure, "llama.cpp", step.say)

    def show(line: str) -> None:
        match = NINJA_LINE.match(line)
        if match:
            done, total, what = match.groups()
            step.say(what.rpartition("/")[2], int(done), int(total), "steps")

    ninja = ["ninja", "-C", str(build), "-j", str(jobs()), *PROGRAMS]
    workshop.run(ninja, "llama.cpp", show, {"NINJA_STATUS": "[%f/%t] "})
    collect(build / "bin", libraries)
    step.say(", ".join(PROGRAMS))


def collect(built: Path, libraries: Path) -> None:
    """The programs, and every shared library with the symlinks that its users name."""
    with disk_errors(libraries.parent):
        libraries.mkdir(parents=True)
        for name in PROGRAMS:
            shutil.copy2(built / name, libraries / name)
        for library in built.glob("*.so*"):
            shutil.copy2(library, libraries / library.name, follow_symlinks=False)
