"""Checks of the gpu."""

from __future__ import annotations

from llmctl.core.checks import gpu_driver, gpu_unseen, gpu_work
from llmctl.core.checks.causes import CARD_BARRED, NO_CARD
from llmctl.core.checks.finding import Check

CHECKS = (
    Check(
        "gpu.container",
        "This container has no GPU",
        "error",
        "Inside a container the driver's library and devices are those that NVIDIA's container toolkit hands in. "
        "Without them nothing can use a card, though NVIDIA_VISIBLE_DEVICES or the profile asks for one (ollama "
        "issues 4604, 8962 and 14658 are of containers that lost theirs). For information where the profile requires "
        "no GPU, as Ollama's image sets the variable anyway.",
        gpu_driver.container,
    ),
    Check(
        "gpu.no-driver",
        "There is no NVIDIA driver to use",
        "error",
        "A card is on the PCI bus, or the profile requires a GPU, and NVIDIA's driver is not installed or not "
        "loaded. Then the engine serves from the CPU without a word. Where every model is proved on a GPU of another "
        "make, nothing is missing. For information where the profile requires no GPU. Inside a container the PCI bus "
        "is the host's and does not count; WSL2 takes the driver from Windows.",
        gpu_driver.no_driver,
        after=("gpu.container",),
    ),
    Check(
        "gpu.driver-mismatch",
        "The driver's library and kernel module differ",
        "error",
        "An upgrade replaces the library while the old kernel module stays loaded; until a reboot every new program "
        "gets NVML_ERROR_LIB_RM_VERSION_MISMATCH (nvml.h) and the engine falls back to the CPU. The module's version "
        "is in /proc/driver/nvidia/version. A warning where the profile requires no GPU.",
        gpu_driver.mismatch,
    ),
    Check(
        "gpu.lost",
        "A GPU is lost",
        "error",
        "NVML says that a card is lost or wants a reset (NVML_ERROR_GPU_IS_LOST, NVML_ERROR_RESET_REQUIRED in "
        "nvml.h), or the kernel's log says that it fell off the bus (Xid 79). Only a reset or a reboot brings it "
        "back. A warning where the profile requires no GPU.",
        gpu_driver.lost,
        after=("gpu.no-driver", "gpu.driver-mismatch"),
    ),
    Check(
        "gpu.driver-too-old",
        "The driver is too old for the engine",
        "error",
        "Ollama wants driver 550 or newer, and 570 for cards of compute capability 5.0 to 6.2 (ollama v0.34.0 "
        "docs/gpu.mdx:6-7). It skips a card whose driver is older, and says so in its log alone. A warning where the "
        "profile requires no GPU.",
        gpu_driver.too_old,
        after=NO_CARD,
    ),
    Check(
        "gpu.xid",
        "The driver has reported errors",
        "warning",
        "The kernel's log since the boot, where the driver writes each error as an Xid with a number. What the well "
        "known numbers mean is from NVIDIA's catalogue (docs.nvidia.com/deploy/xid-errors). Those that a program's "
        "own fault can cause are for information.",
        gpu_driver.xid,
        after=("gpu.lost",),
    ),
    Check(
        "gpu.device-nodes",
        "The GPU's devices cannot be opened",
        "error",
        "CUDA opens /dev/nvidia0, /dev/nvidiactl and /dev/nvidia-uvm. They are looked at with the rights of the user "
        "who runs the server. After a boot CUDA makes what is missing by nvidia-modprobe when it first starts, so that "
        "it counts only where the engine, asked, still sees no GPU. A warning where the profile requires no GPU.",
        gpu_driver.device_nodes,
        after=NO_CARD,
    ),
    Check(
        "gpu.visible-devices",
        "CUDA_VISIBLE_DEVICES hides the GPU",
        "error",
        "CUDA shows a program only the cards that this variable names, up to the first entry that is no card; the "
        "engine then serves from the CPU. The server's own environment is looked at, and this shell's where none "
        "runs. A warning where the profile requires no GPU.",
        gpu_unseen.visible_devices,
        after=NO_CARD,
    ),
    Check(
        "gpu.after-suspend",
        "The GPU did not come back from sleep",
        "error",
        "After a suspend nvidia_uvm can be left unusable: NVML shows the card, CUDA does not find it, and the engine "
        "falls back to the CPU (ollama v0.34.0 docs/gpu.mdx:47-53, issues 5464, 10053 and 8426). That the machine "
        "slept is the difference of two clocks of the kernel.",
        gpu_unseen.after_suspend,
        after=(*NO_CARD, *CARD_BARRED),
    ),
    Check(
        "gpu.engine-sees-none",
        "The engine sees no GPU",
        "error",
        "The engine's own list (llama-server --list-devices) beside the driver's, and what the server said of its "
        "search for GPUs when it started: a driver that comes later is not looked for again (ollama issue 7669). The "
        "list is asked only where the profile requires a GPU and no model is proved on one, as it starts the driver.",
        gpu_unseen.engine_sees_none,
        after=(*NO_CARD, *CARD_BARRED, "gpu.after-suspend"),
    ),
    Check(
        "gpu.throttled",
        "The GPU is slowed down",
        "warning",
        "NVML's reasons for lowered clocks (nvmlClocksEventReasons in nvml.h), with temperature, power and clock. A "
        "card that works runs into its maker's power limit, which is no fault; a limit that was lowered is told.",
        gpu_work.throttled,
        after=NO_CARD,
    ),
    Check(
        "gpu.pcie",
        "The GPU's PCIe link is below what it can be",
        "warning",
        "The link's generation and width beside the most that card and slot can do, while the card works: an idle one "
        "lowers both. A narrow link is a card that is not well seated, a riser, or a shared slot. Eight lanes of "
        "sixteen are for information: boards with two cards and most laptops give no more.",
        gpu_work.pcie,
        after=NO_CARD,
    ),
    Check(
        "gpu.ecc",
        "The GPU's memory has errors",
        "warning",
        "Uncorrected ECC errors since the driver was loaded, of cards that count them. Weights that lie in such a "
        "place give wrong answers, or end the runner.",
        gpu_work.ecc,
        after=NO_CARD,
    ),
    Check(
        "gpu.mig",
        "The GPU is cut into slices",
        "warning",
        "With MIG a program gets one slice of the card, with its share of the memory (NVIDIA's Multi-Instance GPU "
        "User Guide). NVML goes on showing the memory of all of it.",
        gpu_work.mig,
        after=NO_CARD,
    ),
    Check(
        "gpu.competing",
        "Others compute on the GPU",
        "info",
        "Compute processes beside the engine's own, with user and memory. A warning where the card is busy and none of "
        "the engine's lies on it. NVML numbers processes as the host does, so that in a container nobody can say whose "
        "they are.",
        gpu_work.competing,
        after=NO_CARD,
    ),
    Check(
        "gpu.display",
        "The display holds memory that the model lacks",
        "info",
        "What desktop, compositor and browser hold of the card, told only where a model does not fit and would with "
        "it.",
        gpu_work.display,
        after=NO_CARD,
    ),
    Check(
        "gpu.persistence",
        "The driver lets go of an idle GPU",
        "info",
        "On a machine without a display the driver unloads its state when the last program ends, unless persistence "
        "mode is on; starting it again takes a second or more (NVIDIA's Driver Persistence guide).",
        gpu_work.persistence,
        after=NO_CARD,
    ),
)
