"""`wys bench`: how good and how fast editors, fits and scene edits are, and the tables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from wys.apps.bench_options import (
    CaseGroup,
    CaseOptions,
    JudgeGroup,
    JudgeOptions,
    ResultGroup,
    ResultOptions,
    Size,
    World,
    load_editor,
    seeds_in_words,
)
from wys.apps.options import (
    SOURCES,
    EditorOptions,
    Flag,
    MapSource,
    of_source,
    optional,
    overridden,
)
from wys.apps.scene_options import ReadOptions
from wys.errors import WysError

if TYPE_CHECKING:
    from wys.evaluation.tune import Trial

EditorGroup = tyro.conf.OmitArgPrefixes[EditorOptions]
ReadGroup = Annotated[tyro.conf.OmitArgPrefixes[ReadOptions], tyro.conf.arg(name="read")]


def bench_image(
    methods: Annotated[tuple[str, ...], optional("METHOD...")] = (),
    best_cases: int = 24,
    best_guidance: Annotated[tuple[float, float] | None, optional("S_T S_I")] = None,
    source: Annotated[MapSource | None, optional(SOURCES)] = None,
    on: CaseGroup = CaseOptions(),  # noqa: B008
    judge: JudgeGroup = JudgeOptions(),  # noqa: B008
    result: ResultGroup = ResultOptions(),  # noqa: B008
    editor: EditorGroup = EditorOptions(),  # noqa: B008
) -> None:
    """Measure an editor on the exact tabletop world, or on a folder of cases.

    Args:
        methods: Only these; all if none is given. Doing nothing (noop) is always measured.
        best_cases: Validation cases of the world on which ip2p-best finds its guidance.
        best_guidance: The guidance of ip2p-best, if it is known; needed for it with --data.
        source: Make the maps of wys as this --source of 'wys edit' does, not by the settings.
    """
    from wys.apps.progress import progress
    from wys.diffusion.conditioning import Guidance
    from wys.evaluation.image_bench import BEST_GUIDANCE, METHODS, image_bench
    from wys.evaluation.image_bench import best_guidance as guidance_scores

    unknown = sorted(set(methods) - set(METHODS))
    if unknown:
        raise WysError(f"there is no method {unknown[0]}; there are {', '.join(METHODS)}.")
    chosen = [method for method in METHODS if not methods or method in methods]
    if source is not None and "wys" not in chosen:
        raise WysError("--source is of the method wys; name it among --methods, or leave it out.")
    if on.data is not None and best_guidance is None:
        # What is best on the world is not what is best on other images.
        if "ip2p-best" in methods:
            raise WysError("ip2p-best needs --best-guidance S_T S_I with --data.")
        chosen = [method for method in chosen if method != "ip2p-best"]
    cases = on.source()
    result.check()
    loaded, judges = load_editor(editor), judge.load(editor.device)
    relevance = of_source(loaded.settings.relevance, source)
    loaded.settings = replace(loaded.settings, relevance=relevance)
    what = {**cases.settings, **judge.names, "best": [best_cases, best_guidance]}
    journal = result.journal("image", editor, loaded, what)

    def find_guidance() -> list[float]:
        found = []
        with progress("best guidance of ip2p") as advance:
            for entry in guidance_scores(loaded, on.to_choose_on(best_cases)):
                found.append(entry)
                advance(len(found), len(BEST_GUIDANCE))
        best = max(found, key=lambda entry: entry[1])[0]
        return [best.text, best.image]

    best = best_guidance
    if best is None and "ip2p-best" in chosen:
        best = journal.once("best guidance", find_guidance)
        print(f"ip2p-best: text guidance {best[0]:g}, image guidance {best[1]:g}")
    rows: list[dict[str, Any]] = []
    with progress("measuring") as advance:
        for step in image_bench(
            loaded,
            cases,
            chosen,
            None if best is None else Guidance(*best),
            seeds=on.all_seeds,
            judges=judges,
            journal=journal,
        ):
            advance(step.done, step.count)
            rows = step.rows or rows
    maps = "" if source is None else f", maps by its {source}"
    result.write(rows, f"Image edits by {editor.editor}{maps}", on.in_words(cases.count), journal)


def bench_curves(
    guidance: Annotated[tuple[float, ...] | None, optional("S_T...")] = None,
    image_guidance: Annotated[tuple[float, ...] | None, optional("S_I...")] = None,
    thresholds: Annotated[tuple[float, ...] | None, optional("TAU...")] = None,
    on: CaseGroup = CaseOptions(),  # noqa: B008
    judge: JudgeGroup = JudgeOptions(),  # noqa: B008
    result: ResultGroup = ResultOptions(),  # noqa: B008
    editor: EditorGroup = EditorOptions(),  # noqa: B008
) -> None:
    """Measure what guidance and threshold trade: edit against preservation.

    Args:
        guidance: Guidance scales of the instruction (1 1.5 2 3 5 7.5).
        image_guidance: Guidance scales of the input image (1 1.2 1.5 2).
        thresholds: Thresholds of the relevance map (0.1 0.3 0.5 0.7 0.9).
    """
    from wys.apps.progress import progress
    from wys.evaluation.sweep import SweepSettings, sweep

    settings = overridden(
        SweepSettings(), guidance=guidance, image_guidance=image_guidance, thresholds=thresholds
    )
    source = on.source()
    result.check()
    loaded, judges = load_editor(editor), judge.load(editor.device)
    journal = result.journal("curves", editor, loaded, {**source.settings, **judge.names})
    rows: list[dict[str, Any]] = []
    with progress("measuring") as advance:
        for step in sweep(
            loaded, source, settings, seeds=on.all_seeds, judges=judges, journal=journal
        ):
            advance(step.done, step.count)
            rows = step.rows or rows
    result.write(rows, f"Curves of {editor.editor}", on.in_words(source.count), journal)


def bench_speed(
    size: Size = None,
    steps: int = 20,
    repeats: int = 5,
    seed: int = 0,
    no_scenes: Flag = False,
    rows: Annotated[tuple[str, ...] | None, optional("NAME...")] = None,
    result: ResultGroup = ResultOptions(),  # noqa: B008
    editor: EditorGroup = EditorOptions(),  # noqa: B008
) -> None:
    """Time maps and edits against diffusers and the published algorithm.

    Args:
        size: Side of the image; the editor's own if not given.
        steps: Denoising steps.
        repeats: Turns of each job; the median counts.
        seed: Seed of the images and the noise.
        no_scenes: Time images alone, without the fit and the edit of a small scene.
        rows: Time these only, by their names in the table ("window 10 %" edit).
    """
    from wys.apps.progress import progress
    from wys.evaluation.speed_bench import SpeedSettings, speed_bench
    from wys.evaluation.speed_scenes import SceneJobSettings

    scene = None if no_scenes else SceneJobSettings()
    settings = SpeedSettings(size, steps, repeats, seed, scene, rows or ())
    result.check()
    result.claim("speed", editor=editor.editor)
    loaded = load_editor(editor)
    timed: list[dict[str, Any]] = []
    with progress("timing") as advance:
        for step in speed_bench(loaded, settings):
            advance(step.done, step.count)
            timed = step.rows or timed
    result.write(timed, f"Speed of {editor.editor}", f"on {loaded.device}, {steps} steps")


def bench_tune(
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")],
    cases: Annotated[int | None, optional("N")] = None,
    seed: int = 1,
    world: World = "plain",
    data: Annotated[Path | None, optional("DIR")] = None,
    size: Size = None,
    batch: int = 9,
    best_map: Flag = False,
    before: Flag = False,
    source: Annotated[MapSource | None, optional(SOURCES)] = None,
    scenes: int = 0,
    editor: EditorGroup = EditorOptions(),  # noqa: B008
) -> None:
    """Find an editor's best settings on the validation split; writes wys.json.

    Args:
        out: The file to write; wys.json in the editor's directory makes it the default.
        cases: Number of cases (90; of --data: all); the kinds of edit take turns.
        seed: Seed of the cases and of the edits' noise.
        world: What the scenes are drawn from.
        data: Tune the map and its threshold alone, by the masks of a folder of cases.
        size: Side of the images; the editor's own if not given.
        batch: Cases edited at once.
        best_map: Take the best map; else the cheapest of about equal ones.
        before: Only maps made before an edit, not off its first steps (always with --data).
        source: Only maps of this source; masks alone do not tell which errs where it hurts.
        scenes: Also find 'rival', for scene edits, on so many posed scenes of the world.
    """
    from wys.apps.progress import err, progress
    from wys.apps.results import check_writable
    from wys.diffusion.settings import settings_as_json
    from wys.evaluation.cases import Cases
    from wys.evaluation.own_cases import OwnCases
    from wys.evaluation.tune import tune, tune_map
    from wys.evaluation.tune_scene import tune_rival
    from wys.store import write_json

    if batch < 1:
        raise WysError(f"--batch is at least 1, not {batch}.")
    if data is not None and scenes:
        raise WysError("--scenes are posed scenes of the tabletop world; --data has none.")
    own = None if data is None else OwnCases(data, cases, seed, size)
    drawn = Cases(90 if cases is None or own else cases, seed, "validation", world, size, batch)
    # The folder is read now, so that what is wrong with it shows before an editor is loaded.
    assert own is None or own.count
    check_writable(out)
    loaded = load_editor(editor)
    if own is None:
        trials: Iterable[Trial] = tune(
            loaded, drawn, best_map=best_map, before=before, source=source
        )
    else:
        squares = own.squares(loaded, batch)
        trials = tune_map(loaded, squares, seed, best_map=best_map, before=True, source=source)
    trial = None
    with progress("tuning") as advance:
        for trial in trials:
            advance(trial.done, trial.count)
            err.print(f"{trial.stage:>9}  {_tried(trial)}", highlight=False, soft_wrap=True)
    assert trial is not None
    settings = trial.settings
    if scenes > 0:
        for region in tune_rival(loaded, settings.relevance, scenes=scenes, seed=seed):
            err.print(f"   region  rival {region.rival:g}: IoU {region.iou:.3f}", highlight=False)
            settings = replace(settings, rival=region.rival)
    write_json(out, settings_as_json(settings))
    print(f"Settings in {out}")


def _tried(trial: Trial) -> str:
    """A candidate and its score, in words."""
    how, edit, score = trial.settings.relevance, trial.settings.edit, trial.score
    made = f" at {how.timesteps}, {how.draws} draws"
    if how.first_steps:
        made = f" off the first {how.first_steps} steps"
    match trial.stage:
        case "map":
            return (
                f"{how.source}{made}, {how.normalisation}, smoothing {how.smoothing:g}, "
                f"threshold {how.threshold}: IoU {score:.3f}"
            )
        case "edges":
            within = f"moved within {how.edges:g} latent pixels"
            return f"{within}, threshold {how.threshold}: IoU {score:.3f}"
        case "threshold" | "soft":
            kept = f"threshold {how.threshold}, softness {how.softness:g}: {score:.2f} dB outside"
            return kept if trial.stage == "threshold" else f"{edit.guidance.soft}, {kept}"
        case "verdict":
            rule = how.verdict
            limit = f"nothing below {rule.nothing_below:.3g} at quantile {rule.quantile:g}"
            return f"{limit}: wrong in {score:.1%}"
        case "guidance" | "steps":
            scales = f"{edit.guidance.text:g}, {edit.guidance.image:g}, {edit.steps} steps"
            return f"guidance {scales}: {score:.2f} dB inside"


def bench_scene_fit(
    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")],
    at: Annotated[tuple[float, ...], tyro.conf.arg(metavar="S...")] = (10, 20, 40),
    rays: Annotated[int | None, optional("N")] = None,
    decay: Annotated[float | None, optional("WEIGHT")] = None,
    seed: int = 0,
    result: ResultGroup = ResultOptions(),  # noqa: B008
    read: ReadGroup = ReadOptions(),  # noqa: B008
) -> None:
    """Measure how good a field is after how many seconds, on held-out views.

    Args:
        data: What 'wys scene fit' takes: a capture, or tabletop:INDEX.
        at: Seconds of fitting after which to look; the fit is planned to end at the last.
        rays: Rays of each step.
        decay: How plain the field stays where few photographs tell; 0 leaves it alone.
        seed: Seed of the field and of all draws.
    """
    read.check()
    from wys.apps.progress import err, progress
    from wys.apps.scene_data import read_data
    from wys.evaluation.scene_fit_bench import SceneFitBenchSettings, scene_fit_bench
    from wys.nerf.fitting import FitSettings

    result.check()
    result.claim("scene-fit", data=data)
    with err.status("reading the photographs"):
        capture, _ = read_data(data, read)
    settings = SceneFitBenchSettings(fit=overridden(FitSettings(), rays=rays, decay=decay))
    rows: list[dict[str, Any]] = []
    with progress("fitting") as advance:
        for row in scene_fit_bench(capture, settings, seed, at):
            rows.append(row)
            advance(len(rows), len(at))
    height, width = capture.train.size
    views = f"{len(capture.held_out)} held-out views, {width} x {height}"
    result.write(rows, f"Fit of {data}", views)


def bench_scene_edit(
    quick: Flag = False,
    seed: int = 0,
    seeds: int = 1,
    split: Literal["test", "validation"] = "test",
    scenes: Annotated[int | None, optional("N")] = None,
    kinds: Annotated[tuple[str, ...], optional("KIND...")] = (),
    methods: Annotated[tuple[str, ...], optional("METHOD...")] = (),
    pictures: Annotated[Path | None, optional("DIR")] = None,
    judge: JudgeGroup = JudgeOptions(),  # noqa: B008
    result: ResultGroup = ResultOptions(),  # noqa: B008
    editor: EditorGroup = EditorOptions(),  # noqa: B008
) -> None:
    """Measure scene edits against the exact truth, from cameras never trained on.

    Args:
        quick: Two scenes and four kinds of edits, under 25 minutes on two cores.
        seed: Seed of the scenes, the fits and the edits.
        seeds: Measure with so many seeds, from --seed on.
        split: test is for figures to publish, validation for choices.
        scenes: Number of scenes.
        kinds: Only these kinds of edits.
        methods: Only these; all if none is given. Doing nothing (noop) is always measured.
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
    if seeds < 1:
        raise WysError("a bench needs at least 1 seed.")
    cases = replace(QUICK if quick else SceneCases(), seed=seed, split=split)
    cases = overridden(
        cases,
        scenes=scenes,
        kinds=tuple(kind for kind in POSED_KINDS if kind in kinds) or None,
    )
    chosen = tuple(method for method in METHODS if not methods or method in methods)
    all_seeds = tuple(range(seed, seed + seeds))
    result.check()
    loaded, judges = load_editor(editor), judge.load(editor.device)
    journal = result.journal("scene-edit", editor, loaded, {**asdict(cases), **judge.names})
    rows: list[dict[str, Any]] = []
    with progress("measuring") as advance:
        for step in scene_bench(
            loaded, cases, chosen, seeds=all_seeds, judges=judges, journal=journal
        ):
            advance(step.done, step.count)
            rows = step.rows or rows
            if step.pictures and pictures is not None:
                sheet = [
                    [(name, images[i]) for name, images in step.pictures.items()]
                    for i in range(min(4, len(step.pictures["truth"])))
                ]
                write_sheet(pictures / f"{step.what}.png", sheet)
    words = f"{cases.scenes} scenes, {cases.views} views of {cases.size} pixels"
    words += seeds_in_words(all_seeds)
    result.write(rows, f"Scene edits by {editor.editor}", words, journal)


def bench_table(
    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")],
    kinds: Annotated[tuple[str, ...], optional("KIND...")] = (),
    methods: Annotated[tuple[str, ...], optional("METHOD...")] = (),
    columns: Annotated[tuple[str, ...], optional("KEY...")] = (),
    by_kind: Annotated[str | None, optional("KEY")] = None,
    intervals: Flag = False,
) -> None:
    """Print the rows of a bench as a Markdown table.

    Args:
        file: What --json wrote.
        kinds: Only these kinds of edit, such as 'all'.
        methods: Only these methods.
        columns: Only these columns, by their keys such as psnr_inside.
        by_kind: This figure alone: a row for each kind, a column for each method.
        intervals: The 95 % interval behind each figure that has one.
    """
    from wys.evaluation.report import columns_of, markdown_table, rows_by_kind, tables_of
    from wys.store import read_json

    rows = read_json(file)
    if not isinstance(rows, list) or not all(map(_is_row, rows)):
        raise WysError(f"{file} holds no rows of a bench.")
    chosen = rows
    for key, names in (("kind", kinds), ("method", methods)):
        there = dict.fromkeys(row[key] for row in rows if key in row)
        missing = [name for name in names if name not in there]
        if missing:
            has = f"it has {', '.join(there)}" if there else f"its rows have no {key}"
            raise WysError(f"{file} has no {key} {missing[0]}; {has}.")
        chosen = [row for row in chosen if not names or row.get(key) in names]
    if by_kind is not None:
        if not all({"method", "kind", by_kind} <= set(row) for row in chosen):
            raise WysError(f"{file} has no {by_kind} for each method and kind.")
        print(markdown_table(rows_by_kind(chosen, by_kind, intervals)))
        return
    parts = []
    for title, own in tables_of(chosen).items():
        known = columns_of(own)
        for key in columns:
            if key not in known:
                raise WysError(f"{file} has no column {key}; it has {', '.join(known)}.")
        table = markdown_table(own, intervals, columns)
        parts += [table] if title is None else [f"{title}:", table]
    print("\n\n".join(parts))


def _is_row(row: Any) -> bool:
    """Whether this is a row of a bench: what it is a row of stands there in words."""
    if not isinstance(row, dict):
        return False
    return all(isinstance(row.get(key, ""), str) for key in ("method", "kind", "study", "name"))
