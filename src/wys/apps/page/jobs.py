"""The page's work, without a page: look where an instruction applies, and edit there."""

from __future__ import annotations

import shutil
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from wys.apps.options import EditorOptions, GuideOptions, MapOptions
from wys.apps.page.marks import Marks
from wys.apps.page.visit import ARCHIVE, Given, MadeMap, Outcome, Visit
from wys.apps.page.words import Figures, edit_command
from wys.errors import WysError

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from wys.apps.image_commands import Clock
    from wys.diffusion.editor import Editor
    from wys.image_edit import ImageEdit

MOST_STEPS = 200
MOST_VARIANTS = 8
SHOWN_SIDES = (640, 1600)
"""Least and most pixels along the longer side of the copies that the page shows."""


class Editors:
    """The editors in memory: the one the page began with, and the last other one asked for.

    Args:
        options: how editors are loaded.
        first: the one that `options` names, loaded already.
        others: whether a visitor may name another one.
    """

    def __init__(self, options: EditorOptions, first: Editor, others: bool = True) -> None:
        self.options, self._first, self._others = options, first, others
        self._second: tuple[str, Editor] | None = None
        self._lock = threading.Lock()

    @property
    def first(self) -> Editor:
        """The editor that the page began with."""
        return self._first

    def named(self, name: str) -> EditorOptions:
        """The options with the editor of this name; an empty one is the first."""
        return replace(self.options, editor=name.strip() or self.options.editor)

    def get(self, name: str) -> Editor:
        """The editor of this name; raises WysError where it cannot be loaded."""
        options = self.named(name)
        if options.editor == self.options.editor:
            return self._first
        if not self._others:
            raise WysError("this page keeps to its own editor; start it on your machine to choose.")
        with self._lock:
            if self._second is None or self._second[0] != options.editor:
                # Two in memory may be all that fits: the last one goes before the next comes.
                self._second = None
                self._second = (options.editor, options.load())
            return self._second[1]


@dataclass(frozen=True)
class Wish:
    """What a visitor asks for, as the page's form says it."""

    instruction: str
    editor: str = ""
    marks: Marks = field(default_factory=Marks)
    seed: int = 0
    variants: int = 1
    """How many edits, with consecutive seeds."""
    guide: GuideOptions = field(default_factory=GuideOptions)

    def check(self) -> None:
        """Raises WysError where a number does not fit, before any work."""
        if not self.instruction.strip():
            raise WysError("the instruction is empty; say what to change.")
        if len(self.instruction) > 1000:
            raise WysError("the instruction is too long; say it in fewer than 1000 letters.")
        if not 0 <= self.seed < 2**53:
            raise WysError("a seed is a whole number from 0 up.")
        if not 1 <= self.variants <= MOST_VARIANTS:
            raise WysError(f"1 to {MOST_VARIANTS} variants can be made at once.")
        if self.guide.steps is not None and not 1 <= self.guide.steps <= MOST_STEPS:
            raise WysError(f"an edit has 1 to {MOST_STEPS} steps.")


@dataclass(frozen=True)
class Progress:
    """How far an edit is."""

    done: int
    count: int
    """Steps of all variants."""
    visit: Visit
    """With every result that is finished."""


def look(visit: Visit, editors: Editors, wish: Wish) -> Visit:
    """The visit with the relevance map of its image for the instruction."""
    from wys.image_edit import relevance_map

    wish.check()
    given = _given(visit)
    editor = editors.get(wish.editor)
    settings = MapOptions(seed=wish.seed).settings(editor.settings).relevance
    made = relevance_map(
        editor, given.picture.over_white(), wish.instruction, settings, seed=wish.seed
    )
    return replace(visit, look=MadeMap(made, editors.named(wish.editor).editor, wish.seed))


def is_seen(visit: Visit, editors: Editors, wish: Wish) -> bool:
    """Whether the visit's map is the one for this wish. Its seed does not matter: what the visitor
    has seen and corrected is what is edited."""
    seen = visit.look
    return (
        seen is not None
        and seen.relevance.instructions == (wish.instruction,)
        and seen.editor == editors.named(wish.editor).editor
    )


def edits(visit: Visit, editors: Editors, wish: Wish) -> Iterator[Progress]:
    """Edits the visit's image under the map it has, one variant after another.

    Yields:
        the progress after each step, and each result as soon as it is there.
    """
    from wys.apps.image_commands import Clock
    from wys.apps.results import with_threshold
    from wys.evaluation.peak_memory import PeakMemory
    from wys.image_edit import edit_steps

    wish.check()
    given, seen = _given(visit), visit.look
    assert seen is not None
    editor = editors.get(wish.editor)
    settings = wish.guide.settings(editor.settings).edit
    made = with_threshold(seen.relevance, wish.marks.threshold)
    # As for `wys edit`: what a person paints is edited, whatever the map says.
    asked = wish.guide.force or bool(wish.marks.strokes) or made.verdict != "nothing to edit"
    mask = wish.marks.mask(made) if asked else None
    run, total = visit.runs + 1, 0
    visit = replace(visit, runs=run)
    for variant in range(wish.variants):
        clock, seed = Clock.started(), wish.seed + variant
        steps = edit_steps(
            editor,
            given.picture.over_white(),
            made.instructions,
            settings,
            relevance=made,
            mask=mask,
            zoom=wish.guide.zoom,
            seed=seed,
        )
        result: ImageEdit | None = None
        with PeakMemory(editor.device) as memory:
            for step in steps:
                total, result = step.count * wish.variants, step.result
                if result is None:
                    yield Progress(variant * step.count + step.index, total, visit)
                elif not result.edited[0]:
                    raise WysError(
                        "the mask is empty, so the image was left as it is; lower the threshold "
                        "or paint a region."
                        if asked
                        else "there is nothing to edit, so the image was left as it is; paint a "
                        "region or tick 'edit anyway' in the settings."
                    )
        clock.lap("edit")
        assert result is not None
        found = replace(seen, relevance=made)
        visit = visit.with_outcome(
            _outcome(visit, editors, wish, found, result, clock, memory.megabytes)
        )
        yield Progress((variant + 1) * total // wish.variants, total, visit)


def _given(visit: Visit) -> Given:
    if visit.given is None:
        raise WysError("there is no image yet; drop one, or try a sample.")
    return visit.given


def _outcome(
    visit: Visit,
    editors: Editors,
    wish: Wish,
    seen: MadeMap,
    result: ImageEdit,
    clock: Clock,
    peak_mb: float,
) -> Outcome:
    """Writes the files of a run, those of `wys edit`, and the copies that the page shows."""
    from wys.apps import results
    from wys.apps.image_commands import write_run
    from wys.store import read_json

    given = _given(visit)
    assert visit.folder is not None
    folder = visit.folder / f"run-{visit.runs:04d}-seed-{result.seed}"
    folder.mkdir(exist_ok=True)
    options, drawn = editors.named(wish.editor), bool(wish.marks.strokes)
    # Where the edit's own seed, guidance or steps would make another map, the command is given it.
    own_map = seen.seed == result.seed and not seen.relevance.settings.first_steps
    other_map = not own_map and not drawn
    command = edit_command(
        given.path.name,
        wish.instruction,
        editor=options,
        settings=result.settings,
        threshold=seen.relevance.settings.threshold,
        seed=result.seed,
        map_file=results.MAP_FILE if other_map else None,
        mask_file="mask.png" if drawn else None,
        zoom=wish.guide.zoom,
        force=wish.guide.force,
    )
    record = {
        "command": command,
        "image": given.path.name,
        "instruction": wish.instruction,
        "editor": asdict(options) | {"device": str(editors.get(wish.editor).device)},
        "preset": "editor",
        "seed": result.seed,
        "mask": {"mask": "mask.png" if drawn else None, "strokes": len(wish.marks.strokes)},
        "relevance_from": results.MAP_FILE if other_map else None,
        "relevance_seed": seen.seed,
        "settings": {
            "relevance": asdict(seen.relevance.settings),
            "edit": asdict(result.settings),
        },
        "negative": wish.guide.negative,
        "zoom": wish.guide.zoom,
        "force": wish.guide.force,
        "peak_mb": round(peak_mb),
    }
    write_run(folder, given.picture, seen.relevance, result.mask, result, record, clock)
    shutil.copyfile(given.path, folder / given.path.name)
    _write_copies(folder, given)
    written = read_json(folder / "run.json")
    figures = Figures(
        written["share_in_mask"],
        written["share_changed"],
        written["largest_change_outside_mask"],
        clock.seconds["edit"],
    )
    return Outcome(folder, given, wish.instruction, result.seed, visit.runs, figures, command)


def _write_copies(folder: Path, given: Given) -> None:
    """The run's files in one archive, and what the page shows: before, after and a small one."""
    from wys.image import read_image, write_image

    with zipfile.ZipFile(folder / ARCHIVE, "w") as archive:
        for file in sorted(folder.iterdir()):
            if file.name != ARCHIVE:
                archive.write(file, file.name)
    shown = folder / "shown"
    shown.mkdir(exist_ok=True)
    after = read_image(folder / "edited.png")
    write_image(shown / "before.png", fitted(given.picture.over_white(), *SHOWN_SIDES))
    write_image(shown / "after.png", fitted(after, *SHOWN_SIDES))
    write_image(shown / "small.png", fitted(after, 1, 256))


def fitted(image: Float[Tensor, "3 h w"], least: int, most: int) -> Float[Tensor, "3 H W"]:
    """The image scaled so that its longer side lies between two numbers of pixels."""
    from wys.image import resize

    height, width = image.shape[-2:]
    longer = max(height, width)
    scale = min(max(longer, least), most) / longer
    return resize(image, (max(1, round(height * scale)), max(1, round(width * scale))))
