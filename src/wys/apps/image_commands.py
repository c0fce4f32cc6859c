"""`wys edit` and `wys relevance`: from an image file to a folder of results."""

from __future__ import annotations

import shlex
import sys
import time
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from wys.apps.options import (
    EditorOptions,
    GuideOptions,
    MapOptions,
    MaskOptions,
    check_instruction,
    optional,
    parse_box,
)
from wys.errors import WysError, WysWarning
from wys.names import resolved

if TYPE_CHECKING:
    from torch import Tensor

    from wys.diffusion.editor import Editor
    from wys.diffusion.settings import EditorSettings
    from wys.image import Picture
    from wys.image_edit import ImageEdit
    from wys.masks import Mask
    from wys.relevance import RelevanceMap

# The groups of options; the names are the headings of the help.
EditorGroup = tyro.conf.OmitArgPrefixes[EditorOptions]
MapGroup = Annotated[tyro.conf.OmitArgPrefixes[MapOptions], tyro.conf.arg(name="map")]
MaskGroup = Annotated[tyro.conf.OmitArgPrefixes[MaskOptions], tyro.conf.arg(name="mask")]
EditGroup = Annotated[tyro.conf.OmitArgPrefixes[GuideOptions], tyro.conf.arg(name="edit")]
ImagePath = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="IMAGE")]
Instruction = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="INSTRUCTION")]


@dataclass
class Clock:
    """Seconds since the last reading, by name."""

    seconds: dict[str, float]
    last: float

    @staticmethod
    def started() -> Clock:
        return Clock({}, time.perf_counter())

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = round(now - self.last, 3)
        self.last = now


def relevance(
    image: ImagePath,
    instruction: Instruction,
    out: Path = Path("out"),
    editor: EditorGroup = EditorOptions(),  # noqa: B008
    how: MapGroup = MapOptions(),  # noqa: B008
    region: MaskGroup = MaskOptions(),  # noqa: B008
) -> None:
    """Show where an instruction would change an image.

    Writes the relevance map, the mask, a sheet and a record of the run.

    Args:
        image: The image file.
        instruction: What to do, such as "make the red cube blue".
        out: Folder for the results; made where it is missing.
    """
    picture = _check_inputs(image, instruction, region, how)
    _run(image, picture, instruction, out, editor, how, region, None, None)


def edit(
    image: ImagePath,
    instruction: Instruction,
    out: Path = Path("out"),
    relevance: Annotated[Path | None, optional("PATH")] = None,
    editor: EditorGroup = EditorOptions(),  # noqa: B008
    how: MapGroup = MapOptions(),  # noqa: B008
    region: MaskGroup = MaskOptions(),  # noqa: B008
    guide: EditGroup = GuideOptions(),  # noqa: B008
) -> None:
    """Edit an image, only where the instruction says.

    Writes the edited image, the map, the mask, a sheet and a record of the run.

    Args:
        image: The image file.
        instruction: What to do, such as "make the red cube blue".
        out: Folder for the results; made where it is missing.
        relevance: A map made before (its file, or the folder of that run).
    """
    if guide.auto and (guide.zoom or region.mask is not None):
        raise WysError("--auto chooses the mask on the whole image: leave out --mask and --zoom.")
    picture = _check_inputs(image, instruction, region, how, guide)
    _run(image, picture, instruction, out, editor, how, region, guide, relevance)


def _check_inputs(
    image: Path, instruction: str, region: MaskOptions, *others: MapOptions | GuideOptions
) -> Picture:
    """Everything that can be wrong before an editor is loaded."""
    from wys.image import read_picture

    check_instruction(instruction)
    for group in (region, *others):
        group.check()
    picture = read_picture(image)
    region.check_within(picture.size)
    return picture


def _run(
    image: Path,
    picture: Picture,
    instruction: str,
    out: Path,
    options: EditorOptions,
    how: MapOptions,
    region: MaskOptions,
    guide: GuideOptions | None,
    map_path: Path | None,
) -> None:
    """Both commands: a map, a mask, and with `guide` an edit."""
    # The libraries' imports below are part of what loading takes.
    clock = Clock.started()
    from wys.apps.progress import err
    from wys.apps.results import check_replaceable, digest, load_map, result_folder
    from wys.evaluation.peak_memory import PeakMemory
    from wys.image import read_mask, resize
    from wys.image_edit import relevance_map
    from wys.masks import Mask

    drawn = None
    if region.mask is not None:
        drawn = Mask.from_image(read_mask(region.mask), picture.size)
    made = None
    if map_path is not None:
        made, shows = load_map(map_path)
        # One of another size is refused.
        if made.image_size == picture.size and shows not in (None, digest(picture)):
            warnings.warn(f"{map_path} was made of another image.", WysWarning, stacklevel=2)
    check_replaceable(out, [image, *([] if region.mask is None else [region.mask])])
    # A look may follow an edit in the same folder.
    earlier = ("edited.png",) if (out / "run.json").is_file() else ()
    with result_folder(out, earlier) as folder:
        with err.status("loading the editor"):
            editor = options.load()
        clock.lap("load")
        settings = how.settings(editor.settings)
        settings = settings if guide is None else guide.settings(settings)
        if drawn is not None:
            how.tell_idle(guide is None or settings.edit.guidance.soft is not None)
        original = picture.over_white()
        with PeakMemory(editor.device) as memory:
            if made is None and not _reads_map_on_the_way(settings, guide, drawn):
                with err.status("looking for what the instruction changes"):
                    made = relevance_map(
                        editor,
                        original,
                        instruction,
                        settings.relevance,
                        seed=how.seed,
                        edit=settings.edit,
                    )
            elif made is not None and made.instructions != (instruction,):
                warnings.warn(
                    f'{map_path} was made for the instruction "{made.instructions[0]}".',
                    WysWarning,
                    stacklevel=2,
                )
            if map_path is not None:
                assert made is not None
                size = editor.fit((original.shape[-2], original.shape[-1]))
                made = how.on(made, resize(original[None], size))
            clock.lap("relevance")
            result, chosen = None, None
            if guide is not None:
                task = _Task(editor, original, instruction, settings, how.seed, guide, region)
                result, chosen = task.auto(made) if guide.auto else (task.edit(made, drawn), None)
                # Candidates are of a map for this instruction, whatever it was made for.
                made = made if guide.auto else result.relevance
                clock.lap("edit")
        assert made is not None
        if result is not None:
            mask = result.mask
        else:
            mask = _corrected(made.mask() if drawn is None else drawn, region)
        record = {
            "command": shlex.join(["wys", *sys.argv[1:]]),
            "image": str(resolved(image)),
            "instruction": instruction,
            "editor": asdict(options) | {"device": str(editor.device)},
            "preset": how.preset,
            "seed": how.seed,
            "mask": _plain(asdict(region)),
            "relevance_from": None if map_path is None else str(resolved(map_path)),
            "settings": {"relevance": asdict(made.settings), "edit": asdict(settings.edit)},
        }
        if result is not None:
            used = {"relevance": asdict(made.settings), "edit": asdict(result.settings)}
            record["settings"] = used
        if chosen is not None:
            record["auto"] = chosen
        if guide is not None:
            record |= {"negative": guide.negative, "zoom": guide.zoom, "force": guide.force}
        record["peak_mb"] = round(memory.megabytes)
        write_run(folder, picture, made, mask, result, record, clock)
    named = drawn is not None or (guide is not None and (guide.force or bool(region.include)))
    _tell(made, record, named, out)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Paths as text, for JSON."""
    return {k: str(resolved(v)) if isinstance(v, Path) else v for k, v in values.items()}


def _corrected(mask: Mask, region: MaskOptions) -> Mask:
    """The mask as the user corrects it."""
    from wys.masks import Box

    mask = mask.grown(region.grow).feathered(region.feather)
    mask = mask.including(*(Box(*parse_box(text)) for text in region.include))
    return mask.excluding(*(Box(*parse_box(text)) for text in region.exclude))


def _reads_map_on_the_way(
    settings: EditorSettings, guide: GuideOptions | None, drawn: Mask | None
) -> bool:
    """Whether the edit itself makes the map, in its first steps."""
    if guide is None or guide.auto or drawn is not None:
        return False
    return settings.relevance.first_steps > 0


@dataclass(frozen=True)
class _Task:
    """One edit, with its steps on the terminal."""

    editor: Editor
    original: Tensor
    instruction: str
    settings: EditorSettings
    seed: int
    guide: GuideOptions
    region: MaskOptions

    @property
    def asked(self) -> bool:
        """A region that the user names is edited whatever the map says."""
        return self.guide.force or bool(self.region.include)

    def edit(self, made: RelevanceMap | None, drawn: Mask | None) -> ImageEdit:
        """The edit by a map, by one made on the way (None), or under the user's mask."""
        from wys.apps.progress import progress
        from wys.image_edit import edit_steps

        steps = edit_steps(
            self.editor,
            self.original,
            self.instruction,
            self.settings.edit,
            relevance=made,
            relevance_settings=self.settings.relevance if made is None else None,
            mask=None if drawn is None else _corrected(drawn, self.region),
            negative=self.guide.negative,
            zoom=self.guide.zoom,
            force=self.asked,
            correct=lambda mask: _corrected(mask, self.region),
            seed=self.seed,
        )
        result = None
        with progress("editing") as advance:
            for step in steps:
                advance(step.index, step.count)
                result = step.result
        assert result is not None
        return result

    def auto(self, made: RelevanceMap | None) -> tuple[ImageEdit, dict[str, Any]]:
        """The best of the candidates, and what was chosen, for the record."""
        from wys.apps.progress import progress
        from wys.auto_edit import auto_edit

        assert made is not None
        steps = auto_edit(
            self.editor,
            self.original,
            replace(made, instructions=(self.instruction,)),
            self.settings.edit,
            score=self.settings.score,
            negative=self.guide.negative,
            force=self.asked,
            correct=lambda mask: _corrected(mask, self.region),
            seed=self.seed,
        )
        result = None
        with progress("trying candidates") as advance:
            for step in steps:
                advance(step.done, step.count)
                result = step.result
        assert result is not None
        (best,), (index,) = result.best, result.choice
        tried = [
            asdict(candidate) | {"score": round(float(score), 3)}
            for candidate, score in zip(result.candidates, result.scores[0], strict=True)
        ]
        threshold = float(best.mask.threshold[0]) if best.edited[0] else None
        return best, {"chosen": index, "threshold": threshold, "candidates": tried}


def write_run(
    folder: Path,
    picture: Picture,
    made: RelevanceMap,
    mask: Mask,
    result: ImageEdit | None,
    record: dict[str, Any],
    clock: Clock,
) -> None:
    """Every file of a run, into a folder that is moved into place as one."""
    from wys.apps import results
    from wys.image import overlay_heat, write_image, write_picture
    from wys.relevance_file import write_relevance
    from wys.store import write_json

    original = picture.over_white()
    region = mask.at(picture.size)[0].cpu()
    edited = None
    record |= {
        "verdict": made.verdict,
        "share_in_mask": results.share(region),
        "raw_difference": {"largest": float(made.raw.max()), "mean": float(made.raw.mean())},
    }
    if result is not None:
        after = picture.with_edit(result.image[0], region)
        edited = after.over_white()
        write_picture(folder / "edited.png", after)
        record |= {"edited": result.edited[0], "region": list(result.regions[0])}
        record |= results.bytes_changed(picture, after, region)
    write_image(folder / "relevance.png", overlay_heat(original, made.values[0].cpu()))
    write_image(folder / "mask.png", region.float())
    write_image(
        folder / "sheet.png", results.sheet(original, made, region, edited, record["instruction"])
    )
    image = results.digest(picture)
    write_relevance(folder / results.MAP_FILE, made, image)
    clock.lap("write")
    seconds = clock.seconds | {"total": round(sum(clock.seconds.values()), 3)}
    facts = {"image_size": list(picture.size), "image_sha256": image}
    write_json(
        folder / "run.json", record | facts | {"versions": results.versions(), "seconds": seconds}
    )


def _tell(made: RelevanceMap, record: dict[str, Any], named: bool, out: Path) -> None:
    """The outcome in words.

    Args:
        record: of the run; without "edited" after a look.
        named: the user said that, or where, the image is to be edited.
    """
    from wys.apps.results import VERDICTS, in_words

    print(f"{VERDICTS[made.verdict]} The mask covers {record['share_in_mask']:.1%} of the image.")
    edited = record.get("edited")
    if edited:
        print(f"{record['share_changed']:.1%} of the pixels changed, none outside the mask.")
    elif edited is not None:
        cure = "--force, --mask or --include edit it all the same"
        if named or made.verdict != "nothing to edit":
            cure = "its mask is empty"
        print(f"The image is left as it is; {cure}.")
    print(f"Results in {in_words(out)}")
