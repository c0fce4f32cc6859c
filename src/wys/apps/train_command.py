"""`wys train`: the recipe of the built-in editor as a tool."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import tyro

from wys.apps.options import Flag, optional


def train(
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")],
    preset: Literal["cpu", "gpu"] = "cpu",
    data: Annotated[Path | None, optional("FOLDER")] = None,
    start: Annotated[Path | None, optional("EDITOR")] = None,
    images: Annotated[int | None, optional("N")] = None,
    device: Annotated[Literal["cpu", "cuda"] | None, optional("{cpu,cuda}")] = None,
    processes: Annotated[int | None, optional("N")] = None,
    workers: Annotated[int | None, optional("N")] = None,
    compile: Flag = False,
    save_minutes: float = 5.0,
) -> None:
    """Train an editor. The same command goes on with a run that was stopped.

    From triplets to tokenizer, networks and the whole editor in DIR/editor.

    Args:
        out: Folder of data, state, logs, sample sheets and the exported editor.
        preset: cpu: two processor cores; gpu: a larger editor and more data, on CUDA.
        data: Your own triplets (metadata.jsonl and images), not the tabletop world.
        start: An editor that this recipe made, to train further; or builtin.
        images: Images to learn from: 352,000 (gpu: 8 million), fewer for little data.
        device: Where to train, if not where the preset does.
        processes: Training processes; by default 2 of one thread each, 1 on a GPU.
        workers: Processes that make the triplets; by default 2, up to 16 beside a GPU.
        compile: Compile the networks: faster, after minutes of compiling.
        save_minutes: Minutes between two saves of the state.
    """
    from wys.apps.results import check_writable
    from wys.store import locked
    from wys.training import recipe
    from wys.training.beginning import start_directory
    from wys.training.folder import Folder
    from wys.training.presets import CPU, GPU
    from wys.training.run import Run, check_data, check_ready

    chosen = GPU if preset == "gpu" else CPU
    if device is None:
        device = "cuda" if preset == "gpu" else "cpu"
    if processes is None:
        processes = 1 if device == "cuda" else 2
    if workers is None:
        workers = min(os.cpu_count() or 2, 16) if device == "cuda" else 2
    if images is not None:
        chosen = chosen.of_length(images)
    elif data is not None:
        chosen = chosen.for_triplets(Folder(data).count("train", chosen.data.size))
    run = Run(
        chosen,
        out,
        processes=processes,
        workers=workers,
        device=device,
        compile=compile,
        save_minutes=save_minutes,
        data=data,
        start=start_directory(start),
    )
    # The folder is not even made for what cannot be trained.
    check_ready(run)
    check_data(run)
    check_writable(out / "log.jsonl")
    with locked(out):
        recipe.run_stages(run)
