"""What the GPUs would hold of a model, in the form that is kept until the load can be compared with it."""

from __future__ import annotations

from llmctl.core.memory.cache import kv_bytes
from llmctl.core.memory.decide import Decision
from llmctl.core.memory.needs import Model
from llmctl.core.prediction import Predicted

# A bound is at most this much above the truth.
BOUND_PERCENT = 10


def predicted(model: Model, decision: Decision, *, runtime_learnt: bool) -> Predicted | None:
    """None where the prediction is not complete, or no GPU is there."""
    totals = [decision.needs.total(device) for device in range(1, len(decision.cards) + 1)]
    known = [total for total in totals if total is not None]
    if not known or len(known) != len(totals) or decision.offload is None:
        return None
    runtime = sum(card.runtime_bytes for card in decision.cards)
    compute = sum(size for device, size in (decision.needs.compute or {}).items() if device)
    slack = 0 if decision.needs.compute_exactness == "exact" else compute * BOUND_PERCENT // 100
    lost = 0
    if any(model.shape.sliding):
        by_kind = kv_bytes(model.shape, decision.settings, decision.placement, sliding=False)
        lost = sum(size for device, size in by_kind.items() if device)
    projector = model.projector_bytes(decision.settings.backend)
    return Predicted(sum(known), runtime, slack + (0 if runtime_learnt else runtime), lost, projector)
