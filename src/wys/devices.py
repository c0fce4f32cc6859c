"""Which device a name stands for, and what it is good at."""

from collections.abc import Mapping, Sequence

import torch

from wys.errors import WysError

ACCELERATORS = ("cuda", "mps")


def find_device(name: str, preferred: Sequence[str] = ACCELERATORS) -> torch.device:
    """The device of a name; auto takes the first of the preferred ones, or else the CPU.

    Raises:
        WysError: the name is unknown or this machine has no such device.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next((kind for kind in preferred if available[kind]), "cpu"))
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise WysError(f"the device {name} is unknown; use auto, cpu, cuda or mps.") from error
    missing = device.type != "cpu" and not available.get(device.type, False)
    if missing or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise WysError(f"this machine has no device {name} that torch can use; use auto or cpu.")
    return device


def beside(editor: torch.device) -> torch.device:
    """Where a scene's field is while an editor works elsewhere: with it, but for MPS.

    A field is fitted on CUDA or the CPU (`wys scene fit`), and an edit goes on with the fit.
    """
    return torch.device("cpu") if editor.type == "mps" else editor


def finish(device: torch.device) -> None:
    """Waits until a device has done all that it was given; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether products in bfloat16 are faster than in float32 there.

    On processors that have instructions for them they are up to three times as fast; those that
    emulate them take several times as long.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Older releases of torch cannot tell; float32 is right everywhere.
    capabilities: Mapping[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device ran out of memory; the processor's allocator has no error of its own."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or (isinstance(error, RuntimeError) and "allocate memory" in str(error))
