"""What an edit of a scene does turn by turn: the images it asks about, its masks, pixels and rates.

The field is not fitted and the editor turns colours into their opposites: these laws hold for any.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from wys import scene_edit
from wys.camera import Camera, intrinsics_from_fov, look_at
from wys.diffusion.editor import Editor
from wys.image import to_uint8
from wys.masks import Mask
from wys.nerf.field import FieldSettings
from wys.nerf.fitting import FitSettings, Fitter, RelevanceFitSettings
from wys.nerf.layering import Look
from wys.nerf.region import Region, RegionSettings
from wys.nerf.rendering import Rendering, render
from wys.nerf.scene import Scene
from wys.relevance import (
    RelevanceMap,
    RelevanceSettings,
    Verdict,
    VerdictSettings,
    relevance_values,
)
from wys.scene_edit import edit_scene, scaled_maps, verdict_of
from wys.scene_plan import plan
from wys.scene_settings import OWN, PAPER, PRESETS, PUBLISHED, SceneEditSettings
from wys.scene_state import SceneEditState
from wys.views import ViewSet

COUNT, SIZE = 4, 8
FITTING = FitSettings(rays=16, rate=3e-2)
BRIEF = {"passes": 1.0, "every": 2, "learn": 2, "watch": 0, "voting": RegionSettings(resolution=8)}
VERDICTS: dict[str, Verdict] = {"n": "nothing to edit", "l": "local", "w": "whole image"}


@pytest.fixture(scope="module")
def editor(painter: Callable[..., Editor]) -> Editor:
    return painter(torch.neg, RelevanceSettings())


@pytest.fixture(scope="module")
def views() -> ViewSet:
    angle = torch.arange(COUNT) * (2 * math.pi / COUNT)
    eye = torch.stack([2.5 * angle.cos(), 2.5 * angle.sin(), torch.full((COUNT,), 0.6)], dim=-1)
    pose = look_at(eye, torch.zeros(COUNT, 3), torch.tensor([0.0, 0.0, 1.0]))
    intrinsics = intrinsics_from_fov(torch.full((COUNT,), 40.0), SIZE, SIZE)
    images = torch.rand(COUNT, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    names = tuple(f"view{i}" for i in range(COUNT))
    return ViewSet(names, to_uint8(images), Camera(intrinsics, pose, SIZE, SIZE))


@pytest.fixture(scope="module")
def scene(small_field: FieldSettings) -> Scene:
    return Scene.create(small_field, 0, unbounded=True, background="scene")


@pytest.fixture
def region() -> Region:
    inside = torch.zeros(8, 8, 8, dtype=torch.bool)
    inside[2:5, 3:6, 3:6] = True
    return Region(inside, 1.25)


@dataclass
class Watched:
    """What an edit was seen to do."""

    state: SceneEditState
    """As it stood at the last step; its field is the one that goes on changing."""
    asked: list[tuple[str, Tensor, int]] = field(default_factory=list)
    """Of each map: the view's name, the image that it is made of, the edits made before."""
    masks: list[tuple[Rendering, Mask]] = field(default_factory=list)
    """Of each edit: what the field shows, and the mask."""
    steps: list[tuple[float | None, list[int] | None, float, set[int]]] = field(
        default_factory=list
    )
    """Of each step of the field: rate, pixels to draw from, their share, the edited views."""


def watch(
    monkeypatch: pytest.MonkeyPatch,
    editor: Editor,
    views: ViewSet,
    scene: Scene,
    settings: SceneEditSettings,
    region: Region | None = None,
    shown: Callable[[Scene, int], None] = lambda scene, view: None,
) -> Watched:
    """Runs an edit; with a region, as if that had been found already."""
    begun = SceneEditState.begin(scene, views)
    if region is not None:
        begun = replace(begun, scene=begun.scene.with_relevance(0), region=region)
    watched = Watched(begun)
    make, change, step = scene_edit.relevance_map, scene_edit._edit_view, Fitter.step

    def edited() -> set[int]:
        return {i for i, edit in enumerate(watched.state.views.edits) if edit is not None}

    def made(editor: Editor, images: Tensor, *rest: object, **named: object) -> RelevanceMap:
        found = make(editor, images, *rest, **named)
        images = images.reshape(-1, *images.shape[-3:])
        for name, image in zip(named["items"], images, strict=True):
            watched.asked.append((name, image.clone(), len(edited())))
            shown(watched.state.scene, views.names.index(name))
        return found

    def changed(
        order: object, photograph: Tensor, shown: Rendering, mask: Mask, name: str
    ) -> Tensor:
        watched.masks.append((shown, mask))
        return change(order, photograph, shown, mask, name)

    def stepped(self: Fitter, *rest: object, among: Tensor | None, share: float) -> dict:
        pixels = None if among is None else among.tolist()
        watched.steps.append((self.rate, pixels, share, edited()))
        return step(self, *rest, among=among, share=share)

    monkeypatch.setattr(scene_edit, "relevance_map", made)
    monkeypatch.setattr(scene_edit, "_edit_view", changed)
    monkeypatch.setattr(Fitter, "step", stepped)
    for each in edit_scene(
        editor,
        Look(((scene, None),)),
        views,
        "turn it around",
        settings,
        fitting=FITTING,
        relevance_fitting=RelevanceFitSettings(iterations=2, rays=16),
        force=True,
        resume=begun,
    ):
        watched.state = each.state
    return watched


@pytest.mark.parametrize("name", ["wys", "paper", "published"])
def test_maps_are_of_photographs_and_only_the_programs_of_renders(
    name: str, monkeypatch: pytest.MonkeyPatch, editor: Editor, views: ViewSet, scene: Scene
) -> None:
    settings = replace(PRESETS[name], **{**BRIEF, "passes": 2.0})
    renders: list[Tensor] = []
    watched = watch(
        monkeypatch,
        editor,
        views,
        scene,
        settings,
        shown=lambda field, i: renders.append(render(field, views.cameras[i]).rgb.clamp(0, 1)),
    )
    assert len(watched.asked) == (2 if name == "published" else 1) * COUNT
    for (view, image, _), shown in zip(watched.asked, renders, strict=True):
        photograph = views.original(views.names.index(view))
        assert not torch.equal(shown, photograph)
        assert torch.equal(image, shown if name == "published" else photograph)
    # Before the first edit, or each at its turn; the second time all photographs have an edit.
    turns = [*range(COUNT), *([COUNT] * COUNT if name == "published" else [])]
    assert [edits for *_, edits in watched.asked] == ([0] * COUNT if name == "wys" else turns)


@pytest.mark.parametrize("stretched", [False, True])
def test_what_the_field_shows_is_stretched_where_the_settings_say_so(
    stretched: bool,
    monkeypatch: pytest.MonkeyPatch,
    editor: Editor,
    views: ViewSet,
    scene: Scene,
) -> None:
    settings = replace(PUBLISHED, **BRIEF, stretched=stretched, threshold=0.5)
    watched = watch(monkeypatch, editor, views, scene, settings)
    assert len(watched.masks) == COUNT
    for shown, mask in watched.masks:
        assert shown.relevance is not None
        values = shown.relevance
        if stretched:
            values = (values - values.min()) / (values.max() - values.min())
        assert torch.equal(mask.at(views.size)[0], values >= 0.5)


@pytest.mark.parametrize("together", [False, True])
def test_a_share_of_the_rays_goes_to_the_masks_of_photographs_that_have_an_edit(
    together: bool,
    monkeypatch: pytest.MonkeyPatch,
    editor: Editor,
    views: ViewSet,
    scene: Scene,
    region: Region,
) -> None:
    settings = replace(OWN, **BRIEF, inside=0.3, together=together)
    seen = [
        region.seen_by(camera, render(scene, camera).surface)[0]
        for camera in (views.cameras[i] for i in range(COUNT))
    ]
    assert all(0 < int(mask.sum()) < SIZE * SIZE for mask in seen)
    steps = watch(monkeypatch, editor, views, scene, settings, region).steps
    for _, among, share, edited in steps:
        expected = [
            (i * SIZE + row) * SIZE + column
            for i in sorted(edited)
            for row in range(SIZE)
            for column in range(SIZE)
            if bool(seen[i][row, column])
        ]
        assert among is not None and sorted(among) == expected and share == 0.3
    counts = [len(edited) for *_, edited in steps]
    assert counts == [COUNT] * 8 if together else counts == [1, 1, 2, 2, 3, 3, 4, 4]


def test_no_share_of_the_rays_is_drawn_from_everywhere(
    monkeypatch: pytest.MonkeyPatch, editor: Editor, views: ViewSet, scene: Scene, region: Region
) -> None:
    settings = replace(OWN, **BRIEF, inside=0.0)
    steps = watch(monkeypatch, editor, views, scene, settings, region).steps
    assert len(steps) == 8 and all(among is None for _, among, *_ in steps)


@pytest.mark.parametrize("together", [False, True])
def test_the_rate_goes_down_half_a_cosine_to_a_tenth(
    together: bool,
    monkeypatch: pytest.MonkeyPatch,
    editor: Editor,
    views: ViewSet,
    scene: Scene,
    region: Region,
) -> None:
    settings = replace(OWN, **{**BRIEF, "passes": 2.5}, together=together, rate=0.4, rest=20)
    steps = watch(monkeypatch, editor, views, scene, settings, region).steps
    turns = plan(COUNT, settings, 0)
    begin, end = 0.4 * FITTING.rate, 0.04 * FITTING.rate
    expected = [
        end + (begin - end) * math.cos(math.pi / 2 * turn / len(turns)) ** 2
        for turn, each in enumerate(turns)
        if each.view is None
        for _ in range(settings.every)
    ]
    assert [rate for rate, *_ in steps] == pytest.approx(expected, rel=1e-6)
    assert expected[-1] == pytest.approx(end, rel=0.05)


@pytest.mark.parametrize("edges", [0.0, 2.0])
def test_a_view_without_the_object_has_no_mask_by_one_scale_and_one_by_its_own(
    edges: float,
) -> None:
    """The object is in half of the views; the editor is a little unsure everywhere."""
    how = RelevanceSettings(normalisation="percentile", edges=edges)
    draw = torch.Generator().manual_seed(0)
    raw = 0.05 * torch.rand(6, 1, 12, 12, generator=draw)
    photographs = torch.full((6, 3, 12, 12), 0.5)
    raw[:3, :, 3:9, 2:8] += 1
    photographs[:3, :, 3:9, 2:8] = 0.9
    maps = [
        RelevanceMap(relevance_values(own, how, image), own, None, ("",), (12, 12), how)
        for own, image in zip(raw.split(1), photographs.split(1), strict=True)
    ]
    found = {
        across: torch.stack(scaled_maps(maps, list(photographs), replace(PAPER, across=across))).ge(
            0.5
        )
        for across in (True, False)
    }
    assert bool(found[True][:3, :, 4:8, 3:7].all()) and not bool(found[True][3:].any())
    assert bool(found[False].flatten(1).any(dim=1).all())


def judged(letters: str) -> RelevanceMap:
    """A map, of as many images as there are letters, that has these verdicts."""
    raw = torch.zeros(len(letters), 1, 10, 10)
    for i, letter in enumerate(letters):
        raw[i, :, : {"n": 0, "l": 3, "w": 10}[letter]] = 1.0
    how = RelevanceSettings(verdict=VerdictSettings(nothing_below=0.1))
    found = RelevanceMap(raw, raw, None, ("",) * len(letters), (10, 10), how)
    assert found.verdicts == tuple(VERDICTS[letter] for letter in letters)
    return found


@pytest.mark.parametrize(
    ("votes", "verdict"),
    [
        ("", "n"),
        ("nnn", "n"),
        ("nnnnl", "l"),
        ("nnnnw", "w"),
        ("lw", "l"),
        ("nlwn", "l"),
        ("lww", "w"),
        ("llw", "l"),
        ("nnnnlww", "w"),
        ("llllwwww", "l"),
        ("www", "w"),
    ],
)
def test_views_that_see_nothing_do_not_vote_on_what_the_edit_is(votes: str, verdict: str) -> None:
    for order in (votes, votes[::-1]):
        assert verdict_of([judged(vote) for vote in order]) == VERDICTS[verdict]
    if votes:
        assert verdict_of([judged(votes)]) == VERDICTS[verdict]
