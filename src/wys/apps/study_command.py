"""`wys bench relevance`: what makes a good map, mask, verdict and choice, and what does not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from wys.apps.bench_options import ResultGroup, ResultOptions, Size, World, load_editor
from wys.apps.options import EditorOptions, optional
from wys.errors import WysError

EditorGroup = tyro.conf.OmitArgPrefixes[EditorOptions]


def bench_relevance(
    cases: int = 54,
    seed: int = 0,
    split: Literal["test", "validation"] = "test",
    choose_cases: int = 54,
    auto_cases: int = 9,
    studies: Annotated[tuple[str, ...], optional("STUDY...")] = (),
    settings: Annotated[Path | None, optional("FILE")] = None,
    world: World = "plain",
    size: Size = None,
    batch: int = 9,
    result: ResultGroup = ResultOptions(),  # noqa: B008
    editor: EditorGroup = EditorOptions(),  # noqa: B008
) -> None:
    """Compare maps, verdicts, soft guidance, cheaper edits and automatic choices.

    Args:
        cases: Number of cases to measure; the kinds of edit take turns.
        seed: Seed of the cases and of the edits' noise.
        split: test is for figures to publish, validation for choices.
        choose_cases: Other cases, of the validation split, on which things are chosen.
        auto_cases: Cases of either for 'auto', which makes many edits of each.
        studies: Only these (map, verdict, guidance, economy, auto); all if none is given.
        settings: Write a wys.json with the weights of the score that were found.
        world: What the scenes are drawn from.
        size: Side of the images; the editor's own if not given.
        batch: Cases edited at once.
    """
    from wys.apps.progress import progress
    from wys.apps.results import check_writable
    from wys.diffusion.settings import settings_as_json
    from wys.evaluation.cases import Cases
    from wys.evaluation.relevance_study import STUDIES, relevance_study
    from wys.store import write_json

    unknown = sorted(set(studies) - set(STUDIES))
    if unknown:
        raise WysError(f"there is no study {unknown[0]}; there are {', '.join(STUDIES)}.")
    if settings is not None and studies and "auto" not in studies:
        raise WysError("--settings takes the weights that the study 'auto' finds; ask for it.")
    # No case is measured on which something was chosen.
    choose = Cases(choose_cases, seed + 1000, "validation", world, size, batch)
    measure = Cases(cases, seed, split, world, size, batch)
    wanted = [study for study in STUDIES if not studies or study in studies]
    result.check()
    if settings is not None:
        check_writable(settings)
    loaded = load_editor(editor)
    what = {"choose": choose.settings, "measure": measure.settings, "auto_cases": auto_cases}
    journal = result.journal("relevance", editor, loaded, what)
    step = None
    with progress("studying") as advance:
        for step in relevance_study(loaded, choose, measure, wanted, auto_cases, journal):
            advance(step.done, step.count)
    assert step is not None
    facts = f"{cases} cases, {split} split, {world} world"
    result.write(step.rows, f"Relevance of {editor.editor}", facts)
    if settings is not None:
        write_json(settings, settings_as_json(step.settings))
        print(f"Settings in {settings}")
