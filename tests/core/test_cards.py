"""Which card each of the runner's devices is: never guessed by the order in which NVML lists them."""

from __future__ import annotations

import pytest

from llmctl.core.cards import of_devices
from llmctl.core.checks.facts.log import Load
from llmctl.core.engine_log import parse

OLD, NEW = "NVIDIA GeForce RTX 3060", "NVIDIA GeForce RTX 3090"
BOTH = {"CUDA0": NEW, "CUDA1": OLD}
DRIVER = (OLD, NEW)


@pytest.mark.parametrize(
    ("devices", "said", "discovered", "driver", "named"),
    [
        # The runner was shown the second card alone, which is its first.
        (["CUDA0"], {"CUDA0": OLD}, BOTH, DRIVER, {"CUDA0": OLD}),
        (["CUDA0"], {}, BOTH, DRIVER, {}),
        (["CUDA1", "CUDA0"], {}, BOTH, DRIVER, BOTH),
        (["CUDA0", "CUDA1"], {"CUDA0": NEW}, BOTH, DRIVER, BOTH),
        # Where all are the same it does not matter which is which.
        (["CUDA0"], {}, {"CUDA0": NEW, "CUDA1": NEW}, DRIVER, {"CUDA0": NEW}),
        (["CUDA0"], {}, {}, (NEW, NEW), {"CUDA0": NEW}),
        (["CUDA0"], {}, {}, DRIVER, {}),
        (["CUDA0"], {}, {}, (), {}),
        (["CUDA0", "Vulkan1"], {}, BOTH, DRIVER, {}),
    ],
)
def test_the_names_of_the_cards(
    devices: list[str], said: dict[str, str], discovered: dict[str, str], driver: tuple[str, ...], named: dict[str, str]
) -> None:
    found, why = of_devices(devices, said, discovered, driver)
    assert found == named
    assert bool(why) == (not named)


def test_on_a_processor_there_is_nothing_to_name() -> None:
    assert of_devices([], {}, BOTH, DRIVER) == ({}, "")


def start(blob: str) -> str:
    return (
        'time=2026-11-23T08:17:49.240Z level=INFO source=x.go:1 msg="starting llama-server" '
        f'cmd="/lib/llama-server --model /models/blobs/sha256-{blob * 32} --port 1 -c 1024 -np 2"'
    )


def test_what_each_runner_says_that_it_uses() -> None:
    """The lines are llama.cpp b10760's (src/llama.cpp:305)."""
    using = "llama_prepare_model_devices: using device {} ({}) ({}) - 24105 MiB free"
    lines = (
        start("ab"),
        using.format("CUDA0", "NVIDIA GeForce RTX 3090 (LHR)", "0000:01:00.0"),
        using.format("CUDA1", OLD, "0000:02:00.0"),
        start("cd"),
        "what somebody asked: using device CUDA0 (a card) (0000:01:00.0) - 1 MiB free",
        using.format("RPC0", "127.0.0.1:20298", "unknown id"),
    )
    first, second = parse("\n".join(lines) + "\n", "log", since_start=True).loads
    assert first.devices == (("CUDA0", "NVIDIA GeForce RTX 3090 (LHR)"), ("CUDA1", OLD))
    assert second == Load("sha256:" + "cd" * 32, 1024, 2, second.at_seconds, (("RPC0", "127.0.0.1:20298"),))
