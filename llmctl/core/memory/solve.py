"""The largest context that fits, tables, and the nearest ways out of a model that does not fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from llmctl.core.memory.decide import Asked, effective, everything, fits, too_large
from llmctl.core.memory.needs import Model
from llmctl.core.memory.quantize import MIXTURES, file_bytes, quantized
from llmctl.core.memory.settings import PADDING

CONTEXTS = (2048, 4096, 8192, 16384, 32768, 65536, 131072, 262144)
CACHES = ("f16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
SLOTS = (1, 2, 4, 8)
SMALLEST = 256
WAYS = 3
# A context below this is no way out: nothing can be asked of such a model.
USEFUL_CONTEXT = 2048


@dataclass(frozen=True)
class Cell:
    """One cell of a table: what lies on all GPUs together (on the host without one), and whether it all fits."""

    context: int
    parallel: int
    kv_cache: str
    used_bytes: int | None
    fits: bool | None


@dataclass(frozen=True)
class Change:
    """One way out: what to ask instead, in words and as options of `llmctl fit`."""

    asked: Asked
    words: str
    options: tuple[str, ...]


def largest_context(model: Model, asked: Asked, at_most: int | None = None) -> int | None:
    """Tokens of one slot, a multiple of 256 or the trained context; 0 where none fits, None where unknown.

    Within one batch size more context needs more memory, so the search runs through each of them, the largest
    contexts first. The need is nearly a straight line, which a few trials find.
    """
    top = model.shape.context_train or CONTEXTS[-1]
    top = min(top, at_most) if at_most else top
    for contexts in reversed(list(_stretches(model, asked, top))):
        found = _largest_among(model, asked, contexts)
        if found is None or found:
            return found
    return 0


def _stretches(model: Model, asked: Asked, top: int) -> Iterator[list[int]]:
    """Runs of contexts for which Ollama chooses one batch and one set of GPUs."""
    run: list[int] = []
    key = None
    for context in (*range(min(SMALLEST, top), top, PADDING), top):
        settings, cards = effective(model, replace(asked, context=context))
        now = (settings.ubatch, cards)
        if run and now != key:
            yield run
            run = []
        run.append(context)
        key = now
    yield run


def _largest_among(model: Model, asked: Asked, contexts: Sequence[int]) -> int | None:
    """0 where not even the first fits."""
    if too_large(model, replace(asked, context=contexts[0])):
        return 0
    best = _largest_by_default(model, asked, contexts)
    if best is None or len(asked.cards) < 2:
        return best and contexts[best - 1]
    best = _largest_by_any_split(model, asked, contexts, best)
    return best and contexts[best - 1]


def _largest_by_default(model: Model, asked: Asked, contexts: Sequence[int]) -> int | None:
    """How many of the contexts, from the first on, fit with llama.cpp's default split over the GPUs."""

    def spare(index: int) -> int | None:
        return everything(model, replace(asked, context=contexts[index])).spare_bytes

    low, high = 0, len(contexts) - 1
    above, below = spare(high), spare(low)
    if above is None or below is None or below < 0:
        return None if above is None or below is None else 0
    if above >= 0:
        return len(contexts)
    tries = 0
    while high - low > 1:
        tries += 1
        # A straight line finds it nearly at once; halves see to it that a bent one is found as well.
        line = low + (high - low) * below // (below - above)
        guess = min(max((low + high) // 2 if tries % 3 == 0 else line, low + 1), high - 1)
        value = spare(guess)
        if value is None:
            return None
        if value >= 0:
            low, below = guess, value
        else:
            high, above = guess, value
    return low + 1


def _largest_by_any_split(model: Model, asked: Asked, contexts: Sequence[int], known: int) -> int:
    """The same, with the other splits that llama.cpp tries where the default one does not hold all.

    What is free on all GPUs together is where the search starts: no split holds much more than that.
    """

    def left(count: int) -> int:
        whole = everything(model, replace(asked, context=contexts[count - 1]))
        return sum(whole.rooms or ()) - (whole.used_bytes or 0)

    low, high = known, len(contexts) + 1
    if known == len(contexts):
        return known
    guess = low + 1
    if low and (first := left(low)) > 0 and (slope := first - left(low + 1)) > 0:
        guess = low + first // slope
    step, below, above = 2, known, len(contexts) + 1
    while low + 1 < high:
        if low > below and high < above:
            guess = (low + high) // 2
        guess = min(max(guess, low + 1), high - 1)
        if fits(model, replace(asked, context=contexts[guess - 1])):
            low, guess = guess, guess + step
        else:
            high, guess = guess, guess - step
        step *= 2
    return low


def ways_out(model: Model, asked: Asked, largest: int | None) -> tuple[Change, ...]:
    """The nearest changes with which everything fits, at most three."""
    found = []
    for change in _changes(model, asked, largest):
        if change is not None:
            found.append(change)
        if len(found) == WAYS:
            break
    return tuple(found)


def _changes(model: Model, asked: Asked, largest: int | None) -> Iterator[Change | None]:
    yield _with_cache(model, asked, "q8_0")
    yield _with_slots(model, asked)
    if largest and USEFUL_CONTEXT <= largest < asked.context:
        words = f"a context of {largest:,} tokens"
        yield Change(replace(asked, context=largest), words, ("--context", str(largest)))
    yield _with_cache(model, asked, "q4_0")
    yield _with_quantization(model, asked)
    yield _with_second_gpu(model, asked)
    yield _both(model, asked)


def _with_cache(model: Model, asked: Asked, kind: str) -> Change | None:
    if asked.flash_attention == "off" or not model.shape.has_cache or CACHES.index(kind) <= _rank(asked.cache):
        return None
    changed = replace(asked, cache=kind)
    words = f"a {kind} cache"
    return Change(changed, words, ("--kv-cache", kind)) if fits(model, changed) else None


def _rank(kind: str) -> int:
    return CACHES.index(kind) if kind in CACHES else 0


def _with_slots(model: Model, asked: Asked) -> Change | None:
    for slots in range(asked.parallel - 1, 0, -1):
        changed = replace(asked, parallel=slots)
        if fits(model, changed):
            words = "one slot" if slots == 1 else f"{slots} slots"
            return Change(changed, words, ("--parallel", str(slots)))
    return None


def _with_quantization(model: Model, asked: Asked) -> Change | None:
    """The largest quantization below the file's own that fits."""
    for name, other in smaller_quantizations(model):
        if fits(other, asked):
            return Change(asked, f"the {name} quantization", ("--quantization", name))
    return None


def smaller_quantizations(model: Model) -> Iterator[tuple[str, Model]]:
    """The usual quantizations that take less than this file, the largest first."""
    own = sum(tensor.size_bytes or 0 for tensor in model.shape.tensors)
    for name in MIXTURES:
        other = as_quantized(model, name)
        if other is not None and sum(tensor.size_bytes or 0 for tensor in other.shape.tensors) < own:
            yield name, other


def as_quantized(model: Model, name: str) -> Model | None:
    """The model as llama-quantize would make it; None where a tensor's type is unknown."""
    own = file_bytes(model.shape, 0)
    shape = quantized(model.shape, name)
    size = file_bytes(shape, 0)
    return None if own is None or size is None else model.as_other(shape, model.file_bytes - own + size)


def _with_second_gpu(model: Model, asked: Asked) -> Change | None:
    if len(asked.cards) != 1:
        return None
    changed = replace(asked, cards=asked.cards * 2)
    sizes = ",".join([f"{asked.cards[0].free_bytes // (1 << 20)}MiB"] * 2)
    return Change(changed, "a second GPU of this size", ("--gpu", sizes)) if fits(model, changed) else None


def _both(model: Model, asked: Asked) -> Change | None:
    """A smaller cache and a smaller context together, where neither alone is enough."""
    if asked.flash_attention == "off" or not model.shape.has_cache or asked.cache == "q8_0":
        return None
    changed = replace(asked, cache="q8_0")
    largest = largest_context(model, changed, at_most=asked.context)
    if not largest or largest < USEFUL_CONTEXT:
        return None
    words = f"a q8_0 cache and a context of {largest:,} tokens"
    return Change(replace(changed, context=largest), words, ("--kv-cache", "q8_0", "--context", str(largest)))


def cell(model: Model, asked: Asked) -> Cell:
    return Cell(asked.context, asked.parallel, asked.cache, *fits_and_uses(model, asked))


def fits_and_uses(model: Model, asked: Asked) -> tuple[int | None, bool | None]:
    """What everything takes on the GPUs together, and whether that fits."""
    whole = everything(model, asked)
    if whole.spare_bytes is None:
        return whole.used_bytes, None
    return whole.used_bytes, whole.spare_bytes >= 0 or (len(asked.cards) > 1 and fits(model, asked))


def context_table(model: Model, asked: Asked) -> tuple[Cell, ...]:
    """Context by cache type, up to the trained context."""
    trained = model.shape.context_train or CONTEXTS[-1]
    contexts = [context for context in CONTEXTS if context <= trained] or [trained]
    # A type that the device has no kernels for is no choice.
    kinds = [kind for kind in CACHES if cell(model, replace(asked, context=contexts[0], cache=kind)).used_bytes]
    return tuple(cell(model, replace(asked, context=context, cache=kind)) for context in contexts for kind in kinds)


def slot_table(model: Model, asked: Asked) -> tuple[Cell, ...]:
    """Slots (users at once) by context of each."""
    trained = model.shape.context_train or CONTEXTS[-1]
    contexts = [context for context in CONTEXTS if context <= trained] or [trained]
    return tuple(
        cell(model, replace(asked, context=context, parallel=slots)) for context in contexts for slots in SLOTS
    )
