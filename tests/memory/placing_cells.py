"""Which placements are measured: every family in full, in part and not at all, on none, one and two stand-ins."""

from __future__ import annotations

from tests.memory.placing import Cell


def _cells() -> list[Cell]:
    found = []
    small = ("llama-3.2-1b", "qwen2.5-0.5b", "qwen3-0.6b", "gemma-3-1b", "gemma-2-2b", "phi-3-mini", "bge-large")
    for model in (*small, "nomic-embed-text", "embedding-gemma-300m", "all-minilm-l6"):
        context = 512 if model in {"bge-large", "all-minilm-l6"} else 2048
        found += [
            Cell(model, context),
            Cell(model, context, targets_mib=(16000,)),
            Cell(model, context, targets_mib=(40,)),
        ]
        found += [Cell(model, context, targets_mib=(target,)) for target in (150, 700)]
    middle = ("llama-3.1-8b", "mistral-nemo-12b", "qwen2.5-7b", "qwen3-8b", "gemma-2-9b", "gemma-3-12b", "phi-4-14b")
    for number, model in enumerate((*middle, "glm-4-9b", "command-r-08-2024", "mistral-small-24b", "qwen3-32b")):
        cache = ("f16", "q8_0", "q4_0", "bf16", "q5_1", "q5_0", "q4_1", "iq4_nl")[number % 8]
        found.append(Cell(model, 8192, 1, 1024, cache, targets_mib=(5000,)))
        found.append(Cell(model, 4096, 2, 1024, "f16", "off", targets_mib=(7000,)))
        # b10760 itself ends on Phi with several quantized streams: the graph has more nodes than the scheduler's table.
        streams = 1 if model.startswith("phi") else 4
        found.append(Cell(model, 8192, streams, 1024, "q8_0", "on", targets_mib=(9000,)))
        found.append(Cell(model, 4096, targets_mib=(4000, 2500)))
    for model in ("llama-3.3-70b", "gemma-3-27b", "glm-4-32b", "command-r-plus"):
        found += [Cell(model, 4096, targets_mib=(target,)) for target in (23000, 12000, 47000, 1000)]
        found += [
            Cell(model, 32768, 1, 1024, "q8_0", targets_mib=(22000, 22000)),
            Cell(model, 8192, 3, targets_mib=(9000,)),
        ]
    for model in ("mixtral-8x7b", "qwen3-30b-a3b", "gpt-oss-20b", "gpt-oss-120b"):
        found += [Cell(model, 8192, 1, 1024, targets_mib=(target,)) for target in (1500, 4000, 9000, 15000, 22000)]
        found += [
            Cell(model, 4096, 2, targets_mib=(6000, 5000)),
            Cell(model, 16384, 1, 2048, targets_mib=(3000, 20000)),
        ]
    return found


CELLS_TO_MEASURE = _cells()
