"""How a model is to be loaded, and where its layers go."""

from __future__ import annotations

import re
from dataclasses import dataclass

BACKENDS = ("cpu", "rpc", "cuda")
PADDING = 256


def padded(count: int, step: int) -> int:
    return -(-count // step) * step


@dataclass(frozen=True)
class Settings:
    """`context` is that of one slot, as Ollama counts it; the server gets context x parallel.

    `ubatch` is both the logical and the physical batch, as Ollama sets them. `embedding` is the server's
    `--embedding`, which Ollama gives for embedding models: every token has an output.
    """

    context: int
    parallel: int = 1
    ubatch: int = 512
    cache_k: str = "f16"
    cache_v: str = "f16"
    flash_attention: str = "auto"
    backend: str = "cuda"
    unified: bool = False
    embedding: bool = False

    @property
    def flash(self) -> bool:
        """Whether the graph has flash attention. A quantized V needs it; `auto` finds it on cpu, rpc and cuda."""
        return self.flash_attention != "off"

    @property
    def streams(self) -> int:
        return 1 if self.unified else self.parallel

    @property
    def cells(self) -> int:
        """Cache cells of one stream (n_ctx_seq), src/llama-context.cpp:288."""
        whole = padded(self.context * self.parallel, PADDING)
        return whole if self.unified else padded(whole // self.parallel, PADDING)

    @property
    def tokens(self) -> int:
        """The tokens that the graph is reserved for, before streams divide them."""
        return min(self.cells * self.streams, self.ubatch)

    def window_cells(self, window: int) -> int:
        """Cells of one stream of a sliding layer, src/llama-kv-cache-iswa.cpp:73."""
        sequences = self.parallel if self.unified else 1
        return padded(min(self.cells, window * sequences + self.ubatch), PADDING)


# What may lie elsewhere than its layer, and the names that it covers (common/fit.cpp:504-537).
PARTS = {
    "experts": re.compile(r"ffn_(up|down|gate_up|gate)_(ch|)exps"),
    "feed_forward": re.compile(r"ffn_(gate|up|gate_up|down)"),
    "gate_and_down": re.compile(r"ffn_(gate|gate_up|down)"),
    "down": re.compile(r"ffn_down"),
}


@dataclass(frozen=True)
class Overflow:
    """A part of one layer, a key of PARTS, that lies on another device than the layer."""

    layer: int
    part: str
    device: int


@dataclass(frozen=True)
class Placement:
    """The device of each layer and of the output layer: 0 is the host, 1, 2, ... the GPUs in llama.cpp's order.

    `gpus` counts those that are there, also where none holds a layer: work can be sent to them all the same.
    """

    layers: tuple[int, ...]
    output: int
    overflow: tuple[Overflow, ...] = ()
    gpus: int = 0

    def device_of(self, layer: int, name: str) -> int:
        """Where a tensor of a layer lies; `name` is all of its name, `blk.3.ffn_up_exps.weight`."""
        for over in self.overflow:
            if over.layer == layer and PARTS[over.part].match(name.partition(f"blk.{layer}.")[2]):
                return over.device
        return self.layers[layer]

    @property
    def devices(self) -> int:
        return max(*self.layers, self.output, self.gpus)

    @property
    def full(self) -> bool:
        return self.output > 0 and 0 not in self.layers

    @staticmethod
    def last(layers: int, on_gpu: int, device: int = 1) -> Placement:
        """The last `on_gpu` of the layers and the output layer (which goes first) on one device: `-ngl`."""
        on_gpu = min(on_gpu, layers + 1)
        first = layers + 1 - on_gpu
        return Placement(
            tuple(device if layer >= first else 0 for layer in range(layers)), device if on_gpu else 0, gpus=device
        )
