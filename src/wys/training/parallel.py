"""Training in several processes of one thread each, which share every batch.

On a CPU, two processes of one thread are faster than one of two: most operators of a small network
do not gain from a second thread. Gradients are averaged after every step, so that the processes
hold equal weights all the time.
"""

import multiprocessing
import os
import shutil
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing
from accelerate import Accelerator
from torch import nn

from wys.devices import is_out_of_memory
from wys.errors import WysError

# glibc gives large blocks back to the system at once by default; touching their pages again took
# up to half of a training step.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
    "TORCHINDUCTOR_COMPILE_THREADS": "2",
}


def accelerator(device: str, precision: str) -> Accelerator:
    """The accelerator of this process.

    Args:
        device: "cpu", or "cuda" for the GPU of this process.
        precision: "no" (float32) or "bf16", of the automatic mixed precision.
    """
    check_device(device)
    return Accelerator(cpu=device == "cpu", mixed_precision=precision)


def check_device(device: str) -> None:
    """Raises WysError where there is no such device."""
    if device != "cpu" and not torch.cuda.is_available():
        raise WysError(f"the device {device} is not available; train on a CPU.")


def launch(
    function: Callable[..., None],
    processes: int,
    *,
    args: tuple[Any, ...],
    device: str,
    precision: str,
    cache: Path,
) -> None:
    """Runs `function(accelerator, *args)` in `processes` processes and waits for them.

    With 1 it runs in this process. The processes end with their parent.

    Args:
        cache: folder for compiled kernels, which the next start takes over.

    Raises:
        WysError: one of the processes raised it, ran out of memory or room, or was killed.
    """
    if processes == 1:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache.resolve())
        function(accelerator(device, precision), *args)
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **_ENVIRONMENT,
        "TORCHINDUCTOR_CACHE_DIR": str(cache.resolve()),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(processes),
    }
    before = dict(os.environ)
    os.environ.update(environment)
    sentences = torch.multiprocessing.get_context("spawn").SimpleQueue()
    context = None
    try:
        context = torch.multiprocessing.spawn(
            _child, (function, device, precision, args, sentences), nprocs=processes, join=False
        )
        while not context.join():
            pass
    except torch.multiprocessing.ProcessRaisedException:
        if sentences.empty():
            raise
        raise WysError(sentences.get()) from None
    except torch.multiprocessing.ProcessExitedException as error:
        raise WysError(
            "a training process was ended from outside, often for lack of memory; the same command "
            "goes on from the last save, and fewer --processes take less."
        ) from error
    finally:
        # None goes on where this process is asked to end: another run may take the folder over.
        for process in () if context is None else context.processes:
            process.kill()
            process.join()
        os.environ.clear()
        os.environ.update(before)


def _end_with(parent: Any) -> None:
    """Ends this process when its parent has ended.

    torch asks the system for an interrupt then, but whatever was started in the background of a
    shell script ignores interrupts: two runs would write the same state.
    """

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _child(
    rank: int,
    function: Callable[..., None],
    device: str,
    precision: str,
    args: tuple[Any, ...],
    sentences: Any,
) -> None:
    os.environ.update({"RANK": str(rank), "LOCAL_RANK": str(rank)})
    _end_with(multiprocessing.parent_process())
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        function(accelerator(device, precision), *args)
    except Exception as error:
        if sentence := _sentence(error):
            sentences.put(sentence)
        raise
    torch.distributed.destroy_process_group()


def _sentence(error: Exception) -> str | None:
    """What failed, where that is for a user to mend."""
    if is_out_of_memory(error):
        return "training is out of memory; fewer --processes take less."
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror or error}{where}; make room, and the same command goes on."
    return str(error) if isinstance(error, WysError) else None


def compiled(module: nn.Module, enabled: bool) -> Callable[..., Any]:
    """The module's forward, through torch.compile where enabled.

    Raises:
        WysError: there is no C++ compiler.
    """
    if not enabled:
        return module
    check_compiler()
    return torch.compile(module)


def check_compiler() -> None:
    """Raises WysError where networks cannot be compiled."""
    if not torch.cuda.is_available() and shutil.which("g++") is None:
        raise WysError(
            "compiling needs the C++ compiler g++; install it or train without --compile."
        )
