"""Which card each of the runner's devices is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

CUDA = "CUDA"


def of_devices(
    devices: Iterable[str],
    runner_says: Mapping[str, str],
    discovered: Mapping[str, str],
    driver_says: Iterable[str],
) -> tuple[dict[str, str], str]:
    """The card's name by the device's; empty where it is not known, and why.

    CUDA numbers the fastest card first and NVML does not, so NVML's order tells nothing. What the runner itself says
    holds. What Ollama's discovery says holds too, unless the runner was shown some of the cards only: then its first
    one is CUDA0, whichever that is (ollama v0.34.0 ml/device.go:418-465).
    """
    wanted = sorted(devices)
    others = [device for device in wanted if not device.startswith(CUDA)]
    if others:
        return {}, f"{others[0]} is no card of NVIDIA's"
    if all(device in runner_says for device in wanted):
        return {device: runner_says[device] for device in wanted}, ""
    seen = {name: card for name, card in discovered.items() if name.startswith(CUDA)}
    if wanted == sorted(seen):
        return {device: seen[device] for device in wanted}, ""
    names = set(seen.values()) or set(driver_says)
    if len(names) == 1:
        return dict.fromkeys(wanted, names.pop()), ""
    if not names:
        return {}, "neither the server's log nor NVML names a card"
    return {}, f"the log does not say which of the cards {wanted[0]} is" if wanted else ""
