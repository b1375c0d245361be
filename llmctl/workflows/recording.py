"""What `status` and `ask` know of the guard's models: the state that `up` wrote, kept true."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from llmctl.core.pin import name_key
from llmctl.core.placement import Witnesses
from llmctl.library.obtain import Pinned
from llmctl.residency import Resident
from llmctl.workflows.up import active

if TYPE_CHECKING:
    from llmctl.core.guard.facts import Look
    from llmctl.core.placement import Proof
    from llmctl.core.server_state import ActiveModel
    from llmctl.server import Running
    from llmctl.workflows.up import Up
    from llmctl.workflows.watched import Watched


@dataclass
class Recorder:
    """Writes only where something changed: another runner, another server, or the first load after a boot."""

    up: Up
    _written: dict[str, ActiveModel] = field(default_factory=dict)

    def record(self, running: Running, model: Watched, look: Look, proof: Proof) -> None:
        """Raises DiskFull and what else a write raises; the next change tries again."""
        pid = look.runner.pid if look.runner else None
        before = self._written.get(model.want.name)
        if model.raw is None or (before is not None and (before.runner_pid, before.place) == (pid, proof.place)):
            return
        lock = self.up.services.library(running.base_url).read_lock(self.up.lock_path)
        pin = lock.pin(model.want.name)
        if pin is None:
            return
        pinned = Pinned(pin, model.want.alias, changed=False, note="", served_digest=model.digest or model.raw.digest)
        resident = Resident(proof, look.witnesses or Witnesses(None), model.raw, pid)
        server = self.up.services.server
        old = server.state()
        known = {each.name: each for each in old.models} if old else {}
        now = active(pinned, model.want.context, resident)
        now = completed(now, model, known.get(now.name))
        # Also where it cannot be written: it is not tried again at every look.
        self._written[model.want.name] = now
        # The lock may spell a name in another way than the profile.
        kept = {name_key(each.name): each for each in (*known.values(), *self._written.values())}
        keys = [name_key(spec.name) for spec in self.up.profile.resident]
        models = tuple(kept[key] for key in keys if key in kept)
        state = self.up.state(running, models)
        if state != old:
            server.record(state)


def completed(now: ActiveModel, model: Watched, before: ActiveModel | None) -> ActiveModel:
    """With what `up` knew of the same model, and the size that the server tells."""
    now = replace(now, size_bytes=model.raw.size_bytes or None if model.raw else None)
    same = before is not None and (before.alias, before.context) == (now.alias, now.context)
    return replace(now, predicted=before.predicted) if before is not None and same else now
