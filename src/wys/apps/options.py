"""Groups of command line options that several subcommands share.

An option that is not given is None and leaves the editor's own setting as it is: the defaults of
the settings come from the editor (its `wys.json`), which is known only once it is loaded. Nothing
here imports torch, so that `--help` and a mistyped option answer at once.
"""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from wys.errors import WysError, WysWarning
from wys.names import is_text

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from wys.diffusion.editor import Editor
    from wys.diffusion.settings import EditorSettings
    from wys.relevance import RelevanceMap, RelevanceSettings

MapSource = Literal["difference", "head", "both", "locator"]
"""`wys.relevance.Source`, which is not to be loaded here."""
SOURCES = "{difference,head,both,locator}"
Corners = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels; the upper ends are excluded."""


def own(metavar: str) -> Any:
    """An option whose default is the editor's own setting."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="(default: the editor's own)")


def optional(metavar: str) -> Any:
    """An option that may be left out."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


Flag = Annotated[bool, tyro.conf.arg(help_behavior_hint="")]
"""An option without a value. That it is off unless given needs no words in the help."""


def check_instruction(instruction: str) -> None:
    """Raises WysError where an instruction says nothing, before anything is loaded."""
    if not instruction.strip():
        raise WysError("the instruction is empty; say what to change.")
    if not is_text(instruction):
        raise WysError("the instruction is no valid UTF-8 text; type it again.")


def parse_box(text: str) -> Corners:
    """Reads "x0,y0,x1,y1"; raises WysError where that is no box."""
    try:
        x0, y0, x1, y1 = (int(part) for part in text.split(","))
    except ValueError as error:
        raise WysError(
            f"'{text}' is no box; give four whole numbers x0,y0,x1,y1 in pixels."
        ) from error
    if not (0 <= x0 < x1 and 0 <= y0 < y1):
        raise WysError(f"the box {text} is empty; 0 <= x0 < x1 and 0 <= y0 < y1 are needed.")
    return x0, y0, x1, y1


@dataclass(frozen=True)
class EditorOptions:
    """The editor, where it runs, and how it is held in memory."""

    editor: Annotated[str, tyro.conf.arg(metavar="NAME")] = "builtin"
    """'builtin', a pipeline directory, a .safetensors file, or a hub id."""
    device: Annotated[str, tyro.conf.arg(metavar="NAME")] = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    dtype: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    """Number format; auto is fp16 on CUDA and fp32 elsewhere."""
    variant: Annotated[str | None, optional("NAME")] = None
    """Variant of the checkpoint's files, such as fp16."""
    config: Annotated[str | None, optional("NAME")] = None
    """For a single file: a directory or hub id with its configuration."""
    offload: Literal["none", "model", "sequential"] = "none"
    """Keep weights in CPU memory until needed: by model or by layer."""
    vae_tiling: Flag = False
    """Encode and decode images in tiles."""
    vae_slicing: Flag = False
    """Encode and decode a batch one image at a time."""
    attention_slicing: Flag = False
    """Compute attention in slices."""
    max_batch: Annotated[int | None, optional("N")] = None
    """Most predictions run through the network at once."""
    edit_size: Annotated[int | None, own("PIXELS")] = None
    """Longer side of the images as they are edited: less takes less memory and time."""

    def load(self) -> Editor:
        """Loads the editor; raises WysError where that is not possible."""
        from wys.diffusion.editor import Editor
        from wys.diffusion.loading import hide_library_bars

        hide_library_bars()
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "editor"}
        return Editor.load(self.editor, **given)


def overridden(settings: Any, **given: Any) -> Any:
    """The settings with those fields replaced that were given, that is, are not None."""
    return replace(settings, **{name: value for name, value in given.items() if value is not None})


@dataclass(frozen=True)
class MapOptions:
    """How the relevance map is made; what is not given is the editor's own setting."""

    preset: Literal["editor", "paper"] = "editor"
    """'editor': its own best settings (wys.json); 'paper': the paper's."""
    source: Annotated[MapSource | None, own(SOURCES)] = None
    """From the predicted noise, by the editor's relevance head, by both, or by its locator; from
    noise to probability or back it begins with the paper's settings."""
    first_steps: Annotated[int | None, own("N")] = None
    """Read the map off so many first steps of the edit; 0: make it before."""
    draws: Annotated[int | None, own("N")] = None
    """Noise draws to average the map over (paper: 1)."""
    timesteps: Annotated[tuple[float, ...] | None, own("FRACTION...")] = None
    """Noise levels of the map, 0 to 1, averaged (paper: 0.8)."""
    normalisation: Annotated[
        Literal["paper", "percentile", "robust", "absolute"] | None,
        own("{paper,percentile,robust,absolute}"),
    ] = None
    """How the raw difference is scaled to [0, 1]."""
    smoothing: Annotated[float | None, own("SIGMA")] = None
    """Blur of the raw map, in latent pixels (paper: 0)."""
    edges: Annotated[float | None, own("PIXELS")] = None
    """Latent pixels within which the map's edges move to the image's (paper: 0, not at all)."""
    threshold: Annotated[
        float | Literal["auto", "triangle", "entropy"] | None, own("FLOAT|auto|triangle|entropy")
    ] = None
    """Change where the map is at least this (paper: 0.5), or by a rule."""
    softness: Annotated[float | None, own("FLOAT")] = None
    """Fade the edit in from so much below the threshold to as much above it (paper: 0)."""
    seed: int = 0
    """Seed of all noise."""

    def check(self) -> None:
        """Raises WysError where a value is out of its range, before an editor is loaded."""
        from wys.diffusion.settings import PAPER

        self.settings(PAPER)

    def settings(self, own: EditorSettings) -> EditorSettings:
        """The preset, which may be the editor's own settings, with what was given."""
        from wys.diffusion.settings import PAPER

        preset = own if self.preset == "editor" else PAPER
        relevance = overridden(
            of_source(preset.relevance, self.source),
            first_steps=before_the_edit(self.first_steps, self.draws, self.timesteps),
            draws=self.draws,
            timesteps=self.timesteps,
            normalisation=self.normalisation,
            smoothing=self.smoothing,
            edges=self.edges,
            threshold=self.threshold,
            softness=self.softness,
        )
        return dataclasses.replace(preset, relevance=relevance)

    def on(self, made: RelevanceMap, shown: Float[Tensor, "b 3 h w"]) -> RelevanceMap:
        """A finished map with what was given: scaled, smoothed and led along edges anew.

        Args:
            shown: the image at the size that the editor works at.

        Raises:
            WysError: something was given that takes new predictions.
        """
        from wys.diffusion.settings import PAPER
        from wys.relevance import relevance_values

        for name in ("source", "first_steps", "draws", "timesteps"):
            if getattr(self, name) is not None:
                raise WysError(
                    f"a finished map cannot follow --{name.replace('_', '-')}: leave that out, or "
                    "--relevance."
                )
        preset = made.settings
        if self.preset == "paper":
            kept = ("source", "first_steps", "draws", "timesteps", "space")
            preset = dataclasses.replace(
                PAPER.relevance, **{name: getattr(preset, name) for name in kept}
            )
        how = overridden(
            preset,
            normalisation=self.normalisation,
            smoothing=self.smoothing,
            edges=self.edges,
            threshold=self.threshold,
            softness=self.softness,
        )
        same = ("normalisation", "clamp", "scale", "smoothing", "edges")
        values = made.values
        if any(getattr(how, name) != getattr(made.settings, name) for name in same):
            values = relevance_values(made.raw, how, shown)
        return dataclasses.replace(made, values=values, settings=how)

    def tell_idle(self, guided: bool) -> None:
        """Warns of the given options that change nothing, or only a picture, beside a drawn mask.

        Args:
            guided: the map is what was asked for, or guides the edit inside the mask.
        """

        def given(*names: str) -> list[str]:
            return [f"--{n.replace('_', '-')}" for n in names if getattr(self, n) is not None]

        parts = []
        if idle := given("threshold", "softness"):
            parts.append(f"{' and '.join(idle)} {'has' if len(idle) == 1 else 'have'} no effect")
        making = (
            "source",
            "first_steps",
            "draws",
            "timesteps",
            "normalisation",
            "smoothing",
            "edges",
        )
        if (shown := given(*making)) and not guided:
            shapes = "shapes" if len(shown) == 1 else "shape"
            parts.append(f"{' and '.join(shown)} {shapes} only the map that is shown")
        if parts:
            warnings.warn(
                f"--mask decides what may change: {', and '.join(parts)}.", WysWarning, stacklevel=3
            )


def of_source(relevance: RelevanceSettings, source: MapSource | None) -> RelevanceSettings:
    """Settings for a map of another source: those of a difference mean nothing to a probability.

    A difference begins with the paper's, a probability is taken as it is. Of one probability
    instead of another the settings stay, but for the verdict's limits, which are fitted to one.
    """
    from wys.diffusion.settings import PAPER
    from wys.relevance import PROBABILITIES, VerdictSettings

    if source is None or source == relevance.source:
        return relevance
    if source in PROBABILITIES and relevance.source in PROBABILITIES:
        begun = dataclasses.replace(relevance, verdict=VerdictSettings())
    else:
        normalisation = "absolute" if source in PROBABILITIES else PAPER.relevance.normalisation
        begun = dataclasses.replace(PAPER.relevance, normalisation=normalisation)
    return dataclasses.replace(begun, source=source)


def before_the_edit(
    first_steps: int | None,
    draws: int | None,
    timesteps: tuple[float, ...] | None,
) -> int | None:
    """Off how many first steps a map is read: draws and noise levels are of one made before.

    Raises:
        WysError: both are asked for.
    """
    if draws is None and timesteps is None:
        return first_steps
    if first_steps:
        raise WysError(
            "a map read off the first steps of an edit has no draws and noise levels of its own; "
            "leave out --first-steps, or --draws and --timesteps."
        )
    return 0


@dataclass(frozen=True)
class MaskOptions:
    """Corrections of what may change."""

    mask: Annotated[Path | None, optional("FILE")] = None
    """A mask image of the input's size (white may change), not the map's."""
    include: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, optional("X0,Y0,X1,Y1")] = ()
    """Add a box of pixels to the mask. May be repeated."""
    exclude: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, optional("X0,Y0,X1,Y1")] = ()
    """Take a box of pixels out of the mask. May be repeated."""
    grow: float = 0.0
    """Widen the mask by this many pixels."""
    feather: float = 0.0
    """Fade the edit in over this many pixels inside the mask's edge."""

    def check(self) -> None:
        """Raises WysError where a box is none, before anything is loaded."""
        for text in (*self.include, *self.exclude):
            parse_box(text)

    def check_within(self, size: tuple[int, int]) -> None:
        """Warns where a box reaches beyond an image of this (height, width).

        Raises:
            WysError: a box lies wholly outside.
        """
        height, width = size
        named = [("--include", text) for text in self.include]
        for option, text in named + [("--exclude", text) for text in self.exclude]:
            x0, y0, x1, y1 = parse_box(text)
            if x0 >= width or y0 >= height:
                raise WysError(
                    f"{option} {text} holds no pixel of the {width} x {height} image; give a box "
                    f"with x0 below {width} and y0 below {height}."
                )
            if x1 > width or y1 > height:
                warnings.warn(
                    f"{option} {text} reaches beyond the {width} x {height} image and is cut to "
                    f"{x0},{y0},{min(x1, width)},{min(y1, height)}.",
                    WysWarning,
                    stacklevel=2,
                )


@dataclass(frozen=True)
class GuideOptions:
    """How the edit is made; what is not given is the editor's own setting."""

    guidance_text: Annotated[float | None, own("S_T")] = None
    """Guidance scale of the instruction (paper: 7.5)."""
    guidance_image: Annotated[float | None, own("S_I")] = None
    """Guidance scale of the image (paper: 1.5)."""
    soft: Annotated[float | None, own("S_0")] = None
    """Soft guidance: the instruction's scale where the map is 0."""
    negative: Annotated[str, optional("TEXT")] = ""
    """What the result should not be."""
    steps: Annotated[int | None, own("N")] = None
    """Denoising steps (paper: 20)."""
    solver: Annotated[Literal["ddim", "dpm++"] | None, own("{ddim,dpm++}")] = None
    """dpm++ looks back a step, which is made for few steps (paper: ddim)."""
    start: Annotated[float | None, own("FRACTION")] = None
    """Noise level to start from: 1 is the first of the steps, less begins at exactly that level and
    stays nearer to the input."""
    guided: Annotated[tuple[float, float] | None, own("LOW HIGH")] = None
    """Noise levels, 0 to 1, between which the edit is guided (paper: 0 1)."""
    zoom: Flag = False
    """Edit a crop around a small mask, at the editor's full size."""
    window: Flag = False
    """Edit only a window around the mask, which is faster for a small one."""
    auto: Flag = False
    """Try several guidance scales, thresholds and seeds, and keep the best."""
    force: Flag = False
    """Edit also where the map says that there is nothing to edit."""

    def check(self) -> None:
        """Raises WysError where a value is out of its range, before an editor is loaded."""
        from wys.diffusion.settings import PAPER

        if not is_text(self.negative):
            raise WysError("--negative is no valid UTF-8 text; type it again.")
        self.settings(PAPER)

    def settings(self, preset: EditorSettings) -> EditorSettings:
        """The preset with what was given."""
        from wys.diffusion.window import WindowSettings

        edit = preset.edit
        guidance = overridden(
            edit.guidance, text=self.guidance_text, image=self.guidance_image, soft=self.soft
        )
        edit = overridden(
            edit,
            guidance=guidance,
            steps=self.steps,
            solver=self.solver,
            start=self.start,
            guided=self.guided,
        )
        if self.window and edit.window is None:
            edit = dataclasses.replace(edit, window=WindowSettings())
        return dataclasses.replace(preset, edit=edit)
