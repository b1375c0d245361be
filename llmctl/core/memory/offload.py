"""How many layers land on which GPU: the decisions of llama.cpp's own fit, step by step.

common/fit.cpp:163-960 of llama.cpp b10760 with a context that was given (so that it is never reduced), and the split
of src/llama-model.cpp:1433-1488. The same trials are made in the same order: what fits is what llama.cpp tries.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from llmctl.core.memory.settings import Overflow, Placement

# Bytes that llama.cpp would use on each GPU, the first at index 0.
Memory = Callable[[Placement], Sequence[int]]
UNSIGNED = 1 << 32


@dataclass(frozen=True)
class Share:
    """What one GPU gets: `layers`, the first `partial` of them (after the full ones) without their experts.

    Of the first partial layer `part` lies on device `target` instead.
    """

    layers: int = 0
    partial: int = 0
    part: str = "experts"
    target: int = 0

    @property
    def full(self) -> int:
        return self.layers - self.partial


@dataclass(frozen=True)
class Offload:
    """What llama.cpp does. `on_gpu` counts the output layer; `used_bytes` is by GPU."""

    placement: Placement
    used_bytes: tuple[int, ...]
    on_gpu: int
    overflowing: int
    full: bool
    shares: tuple[Share, ...] = ()


@dataclass(frozen=True)
class Model:
    """The numbers that fit asks of a model: all layers, those it counts (without further-token blocks), experts."""

    layers_all: int
    layers: int
    experts: int


def fit(model: Model, free_bytes: Sequence[int], margin_bytes: Sequence[int], memory: Memory) -> Offload:
    """Place the model as llama.cpp would. `free_bytes` is what each GPU reports, `margin_bytes` what stays free."""
    everything = split(model, model.layers_all + 1, free_bytes)
    if not free_bytes:
        return Offload(everything, (), 0, 0, full=False)
    used = tuple(memory(everything))
    targets = [free - margin for free, margin in zip(free_bytes, margin_bytes, strict=True)]
    if all(taken <= target for taken, target in zip(used, targets, strict=True)):
        return Offload(everything, used, model.layers_all + 1, 0, full=True)
    surplus = _moe_surplus(model, everything, targets, memory)
    return _Filling(model, targets, memory).run(surplus)


def split(model: Model, on_gpu: int, weights: Sequence[float]) -> Placement:
    """The last `on_gpu` layers in proportion to `weights`; the arithmetic is 32-bit as in llama.cpp."""
    count = model.layers_all
    on_gpu = min(on_gpu, count + 1) if weights else 0
    total, points = 0.0, []
    for weight in weights:
        total = _single(total + _single(weight))
        points.append(total)
    points = [_single(point / total) if total else 0.0 for point in points]
    first = count + 1 - on_gpu

    def device(layer: int) -> int:
        if layer < first:
            return 0
        return min(bisect_right(points, _single((layer - first) / on_gpu)), len(points) - 1) + 1

    return Placement(tuple(device(layer) for layer in range(count)), device(count), gpus=len(weights))


def _single(value: float) -> float:
    return float(struct.unpack("f", struct.pack("f", value))[0])


def _moe_surplus(model: Model, everything: Placement, targets: Sequence[int], memory: Memory) -> int:
    """What would be left with all experts in host memory; 0 for a model without experts."""
    if not model.experts:
        return 0
    overflow = tuple(Overflow(layer, "experts", 0) for layer in range(model.layers_all))
    used = memory(replace(everything, overflow=overflow))
    return sum(targets) - sum(used)


class _Filling:
    """The search for the shares, device by device."""

    def __init__(self, model: Model, targets: Sequence[int], memory: Memory) -> None:
        self.model = model
        self.targets = targets
        self.memory = memory
        self.last = len(targets) - 1
        self.shares = [Share() for _ in targets]
        self.used = self.measure(self.shares)

    def run(self, surplus: int) -> Offload:
        for device in range(self.last, -1, -1):
            self.fill(device)
        if self.model.experts and surplus > 0:
            self.convert()
        on_gpu = sum(share.layers for share in self.shares)
        overflowing = sum(share.partial for share in self.shares)
        placement = self.placement(self.shares)
        # The list of what overflows goes on to a block that does not exist.
        moved = any(over.layer < self.model.layers_all for over in placement.overflow)
        full = on_gpu == self.model.layers_all + 1 and not moved
        return Offload(placement, tuple(self.used), on_gpu, overflowing, full, tuple(self.shares))

    def placement(self, shares: Sequence[Share]) -> Placement:
        """The shares as llama.cpp is told them: a number of layers, a split, and patterns for what overflows."""
        on_gpu = sum(share.layers for share in shares)
        # One GPU is given no split; several of which none has a layer get the even one.
        weights = [float(share.layers) for share in shares] if self.last else [1.0]
        if not any(weights):
            weights = [1.0] * len(shares)
        placed = split(self.model, on_gpu, weights)
        overflow, layer = [], self.model.layers + 1 - on_gpu
        for share in shares:
            layer += share.full
            for number in range(share.partial):
                part, target = (share.part, share.target) if number == 0 else ("experts", 0)
                overflow.append(Overflow(layer + number, part, target))
            layer += share.partial
        return replace(placed, overflow=tuple(overflow))

    def measure(self, shares: Sequence[Share]) -> Sequence[int]:
        return self.memory(self.placement(shares))

    def fill(self, device: int) -> None:
        """Give a device as many whole layers as fit, or for experts all of each layer but those."""
        unassigned = self.model.layers + 1 - sum(share.layers for share in self.shares[device + 1 :])
        if unassigned <= 0:
            return
        partial = 0
        if self.model.experts:
            partial = unassigned if device < self.last else unassigned - 1
        high = self.with_share(self.shares, device, Share(unassigned, partial))
        high_used = self.measure(high)
        if high_used[device] <= self.targets[device]:
            self.shares, self.used = high, high_used
            return
        while (delta := high[device].layers - self.shares[device].layers) > 1:
            step = self.step(delta, device, high_used)
            share = self.shares[device]
            added = 0
            if self.model.experts:
                added = step - 1 if device == self.last and share.partial == 0 else step
            trial = self.with_share(self.shares, device, Share(share.layers + step, share.partial + added))
            used = self.measure(trial)
            if used[device] <= self.targets[device]:
                self.shares, self.used = trial, used
            else:
                high, high_used = trial, used

    def step(self, delta: int, device: int, high_used: Sequence[int]) -> int:
        """How many layers to try next: where a straight line meets the target."""
        room, rise = self.targets[device] - self.used[device], high_used[device] - self.used[device]
        quotient = abs(delta * room) // abs(rise) if rise else 0
        # Unsigned in llama.cpp: a negative step becomes a huge one.
        wanted = quotient if (room < 0) == (rise < 0) or not quotient else UNSIGNED - quotient
        return min(max(wanted, 1), delta - 1)

    @staticmethod
    def with_share(shares: Sequence[Share], device: int, share: Share) -> list[Share]:
        return [share if number == device else old for number, old in enumerate(shares)]

    def convert(self) -> None:
        """Turn layers without experts at the back into whole layers at the front, until the devices are full."""
        start = next((number for number, share in enumerate(self.shares) if share.layers), None)
        if start is None:
            return
        # As in llama.cpp the run of devices with layers reaches to the last one.
        while any(not share.layers for share in self.shares[start:]):
            start += 1
        device = 0
        while device <= start <= self.last:
            start = self.convert_into(device, start)
            start = self.one_more(device, start)
            device += 1

    def convert_into(self, device: int, start: int) -> int:
        high = list(self.shares)
        for number in range(start, self.last + 1):
            moved = high[number].layers - (number == self.last)
            high[device] = replace(high[device], layers=high[device].layers + moved)
            high[number] = replace(high[number], layers=high[number].layers - moved, partial=0)
        high_start, high_used = self.last, self.measure(high)
        if high_used[device] <= self.targets[device]:
            self.shares, self.used = high, high_used
            return high_start
        while (delta := high[device].full - self.shares[device].full) > 1:
            trial, trial_start = self.converted(device, start, self.step(delta, device, high_used))
            used = self.measure(trial)
            if used[device] <= self.targets[device]:
                self.shares, self.used, start = trial, used, trial_start
            else:
                high, high_used = trial, used
        return start

    def converted(self, device: int, start: int, step: int) -> tuple[list[Share], int]:
        """`step` partial layers of the devices from `start` on as whole ones of `device`."""
        trial, done = list(self.shares), 0
        while start <= self.last:
            count = min(step - done, trial[start].partial)
            old = trial[start]
            trial[start] = replace(old, layers=old.layers - count, partial=old.partial - count)
            trial[device] = replace(trial[device], layers=trial[device].layers + count)
            done += count
            if trial[start].partial > 0:
                break
            start += 1
        return trial, start

    def one_more(self, device: int, start: int) -> int:
        """A part of one more layer where that fits: attention and `up`, then `gate` too, else attention alone."""
        if start > self.last or self.shares[start].layers <= (0 if device < self.last else 1):
            return start
        trial, trial_start = list(self.shares), start
        old = trial[start]
        trial[start] = replace(old, layers=old.layers - 1, partial=old.partial - 1)
        trial[device] = replace(trial[device], layers=trial[device].layers + 1, partial=trial[device].partial + 1)
        if trial[trial_start].partial == 0:
            trial_start += 1
        target = device + 2 if device < self.last else 0

        def with_part(part: str) -> list[Share]:
            return self.with_share(trial, device, replace(trial[device], part=part, target=target))

        if self.accept(with_part("gate_and_down"), device):
            self.accept(with_part("down"), device)
            return trial_start
        return trial_start if self.accept(with_part("feed_forward"), device) else start

    def accept(self, trial: list[Share], device: int) -> bool:
        used = self.measure(trial)
        neighbour = min(device + 1, self.last)
        fits = used[device] < self.targets[device] and used[neighbour] < self.targets[neighbour]
        if fits:
            self.shares, self.used = trial, used
        return fits
