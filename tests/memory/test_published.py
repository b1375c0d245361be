"""What others logged on real cards: caches and weights are equal, compute buffers never below."""

from __future__ import annotations

from pathlib import Path

from benchmarks.accuracy_published import caches, whole_models
from benchmarks.cuda_cells import parsed

LOG = """\
load_tensors:   CPU_Mapped model buffer size =   170.00 MiB
load_tensors:        CUDA0 model buffer size =   254.94 MiB
llama_context:  CUDA_Host  output buffer size =     1.00 MiB
llama_kv_cache:      CUDA0 KV buffer size =     6.00 MiB
llama_kv_cache:      CUDA0 KV buffer size =    15.00 MiB
sched_reserve:      CUDA0 compute buffer size =    19.52 MiB
sched_reserve:  CUDA_Host compute buffer size =     5.52 MiB
"""


def test_every_published_case_holds(tmp_path: Path) -> None:
    rows = [*caches(), *whole_models(tmp_path)]
    assert len(rows) >= 27
    assert [row.line for row in rows if not row.holds] == []


def test_a_runners_buffer_lines_are_added_up() -> None:
    assert parsed(LOG) == {"weights": 254.94, "kv": 21.0, "compute": 19.52, "host_compute": 5.52}
