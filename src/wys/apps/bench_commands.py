"""`wys bench`: how good and how fast editors, fits and scene edits are, and the tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from wys.apps.options import EditorOptions, Flag, optional, overridden
from wys.apps.scene_options import ReadOptions
from wys.errors import WysError

EditorGroup = tyro.conf.OmitArgPrefixes[EditorOptions]
ReadGroup = Annotated[tyro.conf.OmitArgPrefixes[ReadOptions], tyro.conf.arg(name="read")]
JsonFile = Annotated[Path | None, optional("FILE")]
Size = Annotated[int | None, optional("PIXELS")]
World = Literal["plain", "full", "clevr"]


def bench_image(
    cases: int = 100,
    seed: int = 0,
    json: JsonFile = None,
    split: Literal["test", "validation"] = "test",
    world: World = "plain",
    size: Size = None,
    batch: int = 8,
    methods: Annotated[tuple[str, ...], optional("METHOD...")] = (),
    best_cases: int = 24,
    best_guidance: Annotated[tuple[float, float] | None, optional("S_T S_I")] = None,
    editor: EditorGroup = EditorOptions(),  # noqa: B008
) -> None:
    """Measure an editor against the exact truth of the tabletop world.

    Args:
        cases: Number of cases; the kinds of edit take turns.
        seed: Seed of the cases and of the edits' noise.
        json: Write the rows to this file.
        split: test is for figures to publish, validation for choices.
        world: What the scenes are drawn from.
        size: Side of the images; the editor's own if not given.
        batch: Cases edited at once.
        methods: Only these; all if none is given.
        best_cases: Validation cases on which ip2p-best finds its guidance.
        best_guidance: The guidance of ip2p-best, if it is known.
    """
    from wys.apps.progress import progress
    from wys.diffusion.conditioning import Guidance
    from wys.evaluation.image_bench import (
        BEST_GUIDANCE,
        METHODS,
        Cases,
        image_bench,
    )
    from wys.evaluation.image_bench import (
        best_guidance as guidance_scores,
    )

    chosen = [method for method in METHODS if not methods or method in methods]
    unknown = sorted(set(methods) - set(METHODS))
    if unknown:
        raise WysError(f"there is no method {unknown[0]}; there are {', '.join(METHODS)}.")
    measured = Cases(cases, seed, split, world, size, batch)
    loaded = _load(editor, json)
    best = None if best_guidance is None else Guidance(*best_guidance)
    if best is None and "ip2p-best" in chosen:
        found = []
        validation = Cases(best_cases, seed, "validation", world, size, batch)
        with progress("best guidance of ip2p") as advance:
            for entry in guidance_scores(loaded, validation):
                found.append(entry)
                advance(len(found), len(BEST_GUIDANCE))
        best = max(found, key=lambda entry: entry[1])[0]
        print(f"ip2p-best: text guidance {best.text:g}, image guidance {best.image:g}")
    rows: list[dict[str, Any]] = []
    with progress("measuring") as advance:
        for step in image_bench(loaded, measured, chosen, best):
            advance(step.done, step.count)
            rows = step.rows or rows
    _report(rows, json, f"{editor.editor}: {cases} cases, {split} split, {world} world")


def bench_speed(
    json: JsonFile = None,
    size: Size = None,
    steps: int = 20,
    repeats: int = 5,
    seed: int = 0,
    scenes: Flag = False,
    editor: EditorGroup = EditorOptions(),  # noqa: B008
) -> None:
    """Time maps and edits against diffusers and the published algorithm.

    Args:
        json: Write the rows to this file.
        size: Side of the image; the editor's own if not given.
        steps: Denoising steps.
        repeats: Turns of each job; the median counts.
        seed: Seed of the images and the noise.
        scenes: Time also the fit of a small scene, and an edit of it.
    """
    from wys.apps.progress import progress
    from wys.evaluation.speed_bench import SpeedSettings, speed_bench
    from wys.evaluation.speed_scenes import SceneJobSettings

    scene = SceneJobSettings() if scenes else None
    settings = SpeedSettings(size, steps, repeats, seed, scene)
    loaded = _load(editor, json)
    rows: list[dict[str, Any]] = []
    with progress("timing") as advance:
        for step in speed_bench(loaded, settings):
            advance(step.done, step.count)
            rows = step.rows or rows
    _report(rows, json, f"{editor.editor} on {loaded.device}, {steps} steps")


def bench_tune(
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")],
    cases: int = 90,
    seed: int = 1,
    world: World = "plain",
    size: Size = None,
    batch: int = 9,
    editor: EditorGroup = EditorOptions(),  # noqa: B008
) -> None:
    """Find an editor's best settings on the validation split; writes wys.json.

    Args:
        out: The file to write; wys.json in the editor's directory makes it the default.
        cases: Number of cases; the kinds of edit take turns.
        seed: Seed of the cases and of the edits' noise.
        world: What the scenes are drawn from.
        size: Side of the images; the editor's own if not given.
        batch: Cases edited at once.
    """
    from wys.apps.progress import err, progress
    from wys.diffusion.settings import settings_as_json
    from wys.evaluation.image_bench import Cases
    from wys.evaluation.tune import tune
    from wys.store import write_json

    measured = Cases(cases, seed, "validation", world, size, batch)
    loaded = _load(editor, out)
    trial = None
    with progress("tuning") as advance:
        for trial in tune(loaded, measured):
            advance(trial.done, trial.count)
            how, edit = trial.settings.relevance, trial.settings.edit
            words = {
                "map": f"{how.source} at {how.timesteps}, {how.draws} draws, "
                f"{how.first_steps} first steps, {how.normalisation}, smoothing "
                f"{how.smoothing:g}, threshold {how.threshold}: IoU {trial.score:.3f}",
                "threshold": f"{how.threshold}: {trial.score:.2f} dB over the whole image",
                "verdict": f"nothing below {how.verdict.nothing_below:.3g} at quantile "
                f"{how.verdict.quantile:g}: wrong in {trial.score:.1%}",
            }.get(
                trial.stage,
                f"guidance {edit.guidance.text:g}, {edit.guidance.image:g}, soft "
                f"{edit.guidance.soft}, {edit.steps} steps: {trial.score:.2f} dB inside",
            )
            err.print(f"{trial.stage:>9}  {words}", highlight=False)
    assert trial is not None
    write_json(out, settings_as_json(trial.settings))
    print(f"Settings in {out}")


def bench_scene_fit(
    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")],
    json: JsonFile = None,
    at: Annotated[tuple[float, ...], tyro.conf.arg(metavar="S...")] = (10, 20, 40),
    rays: Annotated[int | None, optional("N")] = None,
    seed: int = 0,
    read: ReadGroup = ReadOptions(),  # noqa: B008
) -> None:
    """Measure how good a field is after how many seconds, on held-out views.

    Args:
        data: What 'wys scene fit' takes: a capture, or tabletop:INDEX.
        json: Write the rows to this file.
        at: Seconds of fitting after which to look; the fit is planned to end at the last.
        rays: Rays of each step.
        seed: Seed of the field and of all draws.
    """
    read.check()
    from wys.apps.progress import err, progress
    from wys.apps.results import check_writable
    from wys.apps.scene_data import read_data
    from wys.evaluation.scene_fit_bench import SceneFitBenchSettings, scene_fit_bench
    from wys.nerf.fitting import FitSettings

    if json is not None:
        check_writable(json)
    with err.status("reading the photographs"):
        capture, _ = read_data(data, read)
    settings = SceneFitBenchSettings(fit=overridden(FitSettings(), rays=rays))
    rows: list[dict[str, Any]] = []
    with progress("fitting") as advance:
        for row in scene_fit_bench(capture, settings, seed, at):
            rows.append(row)
            advance(len(rows), len(at))
    height, width = capture.train.size
    _report(rows, json, f"{data}: {len(capture.held_out)} held-out views, {width} x {height}")


def bench_scene_edit(
    quick: Flag = False,
    seed: int = 0,
    json: JsonFile = None,
    split: Literal["test", "validation"] = "test",
    scenes: Annotated[int | None, optional("N")] = None,
    kinds: Annotated[tuple[str, ...], optional("KIND...")] = (),
    methods: Annotated[tuple[str, ...], optional("METHOD...")] = (),
    pictures: Annotated[Path | None, optional("DIR")] = None,
    editor: EditorGroup = EditorOptions(),  # noqa: B008
) -> None:
    """Measure scene edits against the exact truth, from cameras never trained on.

    Args:
        quick: Two scenes and four kinds of edits, under 25 minutes on two cores.
        seed: Seed of the scenes, the fits and the edits.
        json: Write the rows to this file.
        split: test is for figures to publish, validation for choices.
        scenes: Number of scenes.
        kinds: Only these kinds of edits.
        methods: Only these; all if none is given.
        pictures: Write a sheet of each scene and kind into this folder.
    """
    from wys.apps.progress import progress
    from wys.apps.scene_results import write_sheet
    from wys.evaluation.scene_bench import METHODS, QUICK, SceneCases, scene_bench
    from wys.tabletop.posed import POSED_KINDS

    for given, known, what in ((methods, METHODS, "method"), (kinds, POSED_KINDS, "kind")):
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise WysError(f"there is no {what} {unknown[0]}; there are {', '.join(known)}.")
    cases = replace(QUICK if quick else SceneCases(), seed=seed, split=split)
    cases = overridden(
        cases,
        scenes=scenes,
        kinds=tuple(kind for kind in POSED_KINDS if kind in kinds) or None,
    )
    chosen = tuple(method for method in METHODS if not methods or method in methods)
    loaded = _load(editor, json)
    rows: list[dict[str, Any]] = []
    with progress("measuring") as advance:
        for step in scene_bench(loaded, cases, chosen):
            advance(step.done, step.count)
            rows = step.rows or rows
            if step.pictures and pictures is not None:
                sheet = [
                    [(name, images[i]) for name, images in step.pictures.items()]
                    for i in range(min(4, len(step.pictures["truth"])))
                ]
                write_sheet(pictures / f"{step.what}.png", sheet)
    _report(rows, json, f"{cases.scenes} scenes, {cases.views} views of {cases.size} pixels")


def bench_table(
    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")],
    kinds: Annotated[tuple[str, ...], optional("KIND...")] = (),
) -> None:
    """Print the rows of a bench as a Markdown table.

    Args:
        file: What --json wrote.
        kinds: Only these kinds of edit, such as 'all'.
    """
    from wys.evaluation.report import markdown_table
    from wys.store import read_json

    rows = read_json(file)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise WysError(f"{file} holds no rows of a bench.")
    print(markdown_table([row for row in rows if not kinds or row.get("kind") in kinds]))


def _load(options: EditorOptions, target: Path | None) -> Any:
    """Loads the editor, once it is clear that the results can be written."""
    from wys.apps.progress import err
    from wys.apps.results import check_writable

    if target is not None:
        check_writable(target)
    with err.status("loading the editor"):
        return options.load()


def _report(rows: Sequence[dict[str, Any]], json: Path | None, title: str) -> None:
    """Prints the table and writes the file."""
    from rich.console import Console

    from wys.evaluation.report import rich_table
    from wys.store import write_json

    Console().print(rich_table(rows, title))
    if json is not None:
        write_json(json, list(rows))
        print(f"Rows in {json}")


def bench_relevance(
    cases: int = 54,
    seed: int = 0,
    split: Literal["test", "validation"] = "test",
    json: JsonFile = None,
    choose_cases: int = 54,
    auto_cases: int = 9,
    studies: Annotated[tuple[str, ...], optional("STUDY...")] = (),
    settings: Annotated[Path | None, optional("FILE")] = None,
    world: World = "plain",
    size: Size = None,
    batch: int = 9,
    editor: EditorGroup = EditorOptions(),  # noqa: B008
) -> None:
    """Compare maps, thresholds, verdicts, soft guidance and automatic choices.

    Args:
        cases: Number of cases to measure; the kinds of edit take turns.
        seed: Seed of the cases and of the edits' noise.
        split: test is for figures to publish, validation for choices.
        json: Write the rows to this file.
        choose_cases: Other cases, of the validation split, on which things are chosen.
        auto_cases: Cases of either for 'auto', which makes many edits of each.
        studies: Only these (map, verdict, guidance, auto); all if none is given.
        settings: Write a wys.json with the weights of the score that were found.
        world: What the scenes are drawn from.
        size: Side of the images; the editor's own if not given.
        batch: Cases edited at once.
    """
    from wys.apps.progress import progress
    from wys.diffusion.settings import settings_as_json
    from wys.evaluation.image_bench import Cases
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
    loaded = _load(editor, json or settings)
    step = None
    with progress("studying") as advance:
        for step in relevance_study(loaded, choose, measure, wanted, auto_cases):
            advance(step.done, step.count)
    assert step is not None
    _print_studies(step.rows)
    if json is not None:
        write_json(json, step.rows)
        print(f"Rows in {json}")
    if settings is not None:
        write_json(settings, settings_as_json(step.settings))
        print(f"Settings in {settings}")


def _print_studies(rows: Sequence[dict[str, Any]]) -> None:
    """One table a study; its columns are the keys of its rows."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for study in dict.fromkeys(row["study"] for row in rows):
        own = [row for row in rows if row["study"] == study]
        keys = [key for key in own[0] if key != "study"]
        table = Table(title=study)
        for key in keys:
            table.add_column(key.replace("_", " "))
        for row in own:
            cells = (row.get(key) for key in keys)
            table.add_row(*(f"{c:.3f}" if isinstance(c, float) else str(c) for c in cells))
        console.print(table)
