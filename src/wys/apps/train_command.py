"""`wys train`: the recipe of the built-in editor as a tool."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro


def train(
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")],
    preset: Literal["cpu"] = "cpu",
    device: Literal["cpu", "cuda"] = "cpu",
    processes: int = 2,
    workers: int = 2,
    compile: bool = True,
    save_minutes: float = 3.0,
) -> None:
    """Train an editor. The same command goes on with a run that was stopped.

    Args:
        out: Folder of data, state, logs and the exported editor.
        preset: The size of the editor, of its data and of its training.
        device: Where to train.
        processes: Training processes.
        workers: Processes that make the triplets.
        compile: Compile the networks: faster after minutes of compiling.
        save_minutes: Minutes between two saves of the state.
    """
    from wys.apps.results import check_writable
    from wys.training import recipe

    check_writable(out / "log.jsonl")
    recipes = {"cpu": recipe.CPU}
    recipe.train(
        recipes[preset],
        out,
        processes=processes,
        workers=workers,
        device=device,
        compile=compile,
        save_minutes=save_minutes,
    )
