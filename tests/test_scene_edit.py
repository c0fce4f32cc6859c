"""The 3D story, told with an editor that knows one thing: to paint what is green blue."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import pytest
import torch

from wys.camera import Camera, intrinsics_from_fov, look_at
from wys.diffusion.editor import Editor
from wys.errors import WysError
from wys.image import from_uint8, to_uint8
from wys.nerf.field import FieldSettings
from wys.nerf.fitting import FitSettings, RelevanceFitSettings, fit
from wys.nerf.layering import Look
from wys.nerf.region import Region, RegionSettings
from wys.nerf.rendering import render
from wys.nerf.scene import Scene
from wys.relevance import RelevanceMap, RelevanceSettings, VerdictSettings, normalise
from wys.scene_edit import SceneEditStep, edit_scene, normalise_across, scene_relevance
from wys.scene_plan import plan
from wys.scene_settings import IN2N, OWN, PAPER, PER_FRAME, PRESETS, SceneEditSettings
from wys.scene_state import SceneEditState
from wys.views import ViewSet

TEXT = "make the green ball blue"
SIZE = 24
# Nine cameras share so little of the sky that a thicker fog would hold their paintings of it.
SMALL = FieldSettings(
    levels=4,
    log2_size=12,
    coarsest=8,
    finest=64,
    width=16,
    proposal_samples=32,
    samples=16,
    thinning=5.0,
)
FITTING = FitSettings(iterations=250, rays=256)
RELEVANCE = RelevanceFitSettings(iterations=60, rays=256)
QUICK = replace(OWN, passes=1.5, every=6, voting=RegionSettings(resolution=32), watch=4)


MAPS = RelevanceSettings(
    space="x0", normalisation="percentile", verdict=VerdictSettings(nothing_below=0.05)
)


def blue(pixels: torch.Tensor, strength: float = 1.0) -> torch.Tensor:
    """What is green turns blue."""
    red, green, blue = pixels.split(1, dim=1)
    is_green = (green - torch.maximum(red, blue)) > 0.3
    swapped = torch.cat([red, blue, green], dim=1)
    return torch.where(is_green, torch.lerp(pixels, swapped, strength), pixels)


@pytest.fixture(scope="module")
def editor(painter: Callable[..., Editor]) -> Editor:
    return painter(blue, MAPS)


@pytest.fixture(scope="module")
def idle(painter: Callable[..., Editor]) -> Editor:
    """An editor that leaves everything as it is."""
    return painter(partial(blue, strength=0.0), MAPS)


def ball(camera: Camera, centre: torch.Tensor, radius: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Distance to a ball and the height of its normal, for every ray (closed form)."""
    rays = camera.rays()
    offset = centre - rays.origins
    along = (offset * rays.directions).sum(-1)
    gap = radius**2 - (offset.square().sum(-1) - along.square())
    distance = torch.where(gap > 0, along - gap.clamp(min=0).sqrt(), torch.inf)
    normal = (rays.origins + distance.clamp(max=1e3)[..., None] * rays.directions - centre) / radius
    return distance, normal[..., 2]


def photograph(camera: Camera) -> torch.Tensor:
    """A green and a red ball before a gray sky that is lighter above."""
    image = (0.45 + 0.2 * camera.rays().directions[..., 2])[..., None].expand(-1, -1, 3).clone()
    nearest = torch.full(image.shape[:2], torch.inf)
    for centre, colour in (
        ((0.45, 0.0, 0.0), (0.1, 0.8, 0.15)),
        ((-0.45, 0.1, 0.0), (0.8, 0.15, 0.1)),
    ):
        distance, height = ball(camera, torch.tensor(centre), 0.35)
        shade = (0.75 + 0.25 * height)[..., None] * torch.tensor(colour)
        front = distance < nearest
        image[front], nearest[front] = shade[front], distance[front]
    return image.permute(2, 0, 1)


@pytest.fixture(scope="module")
def views() -> ViewSet:
    count = 9
    angle = torch.arange(count) * (2 * torch.pi / count)
    eye = torch.stack([2.5 * angle.cos(), 2.5 * angle.sin(), 0.6 + 0.5 * (angle * 3).sin()], -1)
    pose = look_at(eye, torch.zeros(count, 3), torch.tensor([0.0, 0.0, 1.0]))
    intrinsics = intrinsics_from_fov(torch.full((count,), 40.0), SIZE, SIZE)
    cameras = Camera(intrinsics, pose, SIZE, SIZE)
    images = torch.stack([photograph(cameras[i]) for i in range(count)])
    return ViewSet(tuple(f"view{i}" for i in range(count)), to_uint8(images), cameras)


@pytest.fixture(scope="module")
def scene(views: ViewSet) -> Scene:
    fitted = Scene.create(SMALL, 0, unbounded=True, background="scene")
    for _ in fit(fitted, views, FITTING, seed=0):
        pass
    return fitted


def run(
    editor: Editor,
    views: ViewSet,
    scene: Scene | Look,
    settings: SceneEditSettings = QUICK,
    resume: SceneEditState | None = None,
    seed: int = 0,
    text: str = TEXT,
) -> Iterator[SceneEditStep]:
    return edit_scene(
        editor,
        scene if isinstance(scene, Look) else Look(((scene, None),)),
        views,
        text,
        settings,
        fitting=FITTING,
        relevance_fitting=RELEVANCE,
        seed=seed,
        resume=resume,
    )


def last(steps: Iterator[SceneEditStep]) -> SceneEditStep:
    *_, step = steps
    return step


def greens(scene: Scene, views: ViewSet) -> torch.Tensor:
    """Mean red, green and blue of the green ball's pixels, over all views."""
    truth = from_uint8(views.originals)
    region = truth[:, 1] - torch.maximum(truth[:, 0], truth[:, 2]) > 0.2
    shown = torch.stack([render(scene, views.cameras[i]).rgb for i in range(len(views))])
    return shown.permute(1, 0, 2, 3)[:, region].mean(1)


def test_the_story(editor: Editor, views: ViewSet, scene: Scene) -> None:
    """The green ball turns blue; the red one, the photographs and the fitted field do not."""
    before = {key: value.clone() for key, value in scene.state_dict().items()}
    seen = list(run(editor, views, scene))
    phases = list(dict.fromkeys(step.phase for step in seen))
    assert phases == ["relevance", "field", "edit", "fit", "done"]
    for phase in ("relevance", "field"):
        own = [step for step in seen if step.phase == phase]
        assert [step.index for step in own] == list(range(1, own[-1].count + 1))
    state = seen[-1].state
    _, green, blue = greens(scene, views).tolist()
    assert green > blue + 0.3
    _, green, blue = greens(state.scene, views).tolist()
    assert blue > green + 0.2
    # Inside the region's silhouette alone, bit for bit.
    assert torch.equal(state.views.originals, views.originals)
    assert state.region is not None
    for i, edit in enumerate(state.views.edits):
        assert edit is not None
        changed = (edit != views.originals[i]).any(0)
        allowed = state.region.seen_by(views.cameras[i], render(scene, views.cameras[i]).depth)[0]
        assert bool(changed.any()) and not bool((changed & ~allowed).any())
    assert all(torch.equal(scene.state_dict()[key], value) for key, value in before.items())


@pytest.mark.parametrize("name", ["paper", "published", "in2n", "per-frame"])
def test_every_method_runs_and_turns_the_ball_blue(
    name: str, editor: Editor, views: ViewSet, scene: Scene
) -> None:
    settings = replace(PRESETS[name], passes=1.0, every=8, learn=20)
    state = last(run(editor, views, scene, settings)).state
    before, after = greens(scene, views), greens(state.scene, views)
    assert after[2] > before[2] + 0.02 and after[1] < before[1] - 0.02


def test_a_second_edit_masks_what_the_scene_shows(
    editor: Editor, views: ViewSet, scene: Scene
) -> None:
    """Outside an edit's region the field below is shown, whatever the edit's own shows there."""
    wall = scene.clone()
    with torch.no_grad():
        for parameter in wall.parameters():
            parameter.zero_()
    inside = torch.zeros(16, 16, 16, dtype=torch.bool)
    inside[2:4, 7:9, 7:9] = True
    stack = Look(((scene, None), (wall, Region(inside, 1.25))))
    seen = 0
    for step in run(editor, views, stack, replace(QUICK, watch=0)):
        if step.phase == "fit":
            break
        if step.view is None:
            continue
        edit, region = step.state.views.edits[step.view], step.state.region
        if step.phase == "edit":
            assert edit is not None and region is not None
            camera = views.cameras[step.view]
            allowed = region.seen_by(camera, stack(camera).depth)[0]
            changed = (edit != views.originals[step.view]).any(0)
            assert bool(changed.any()) and not bool((changed & ~allowed).any())
            seen += 1
    assert seen == len(views)


def test_a_map_does_not_depend_on_when_it_is_made(
    editor: Editor, views: ViewSet, scene: Scene
) -> None:
    settings = replace(PAPER, passes=0.5, every=1, learn=1, watch=0)
    made = last(run(editor, views, scene, settings, seed=2)).state.maps
    alone = dict(scene_relevance(editor, views, TEXT, PAPER.relevance, seed=2))
    known = [i for i, each in enumerate(made) if each is not None]
    assert len(known) == 4
    assert all(torch.equal(made[i].raw, alone[i].raw) for i in known)


def test_what_is_made_at_once_is_what_is_made_alone(
    editor: Editor, views: ViewSet, scene: Scene
) -> None:
    settings = replace(QUICK, passes=1, every=1, watch=0)
    one, four = (
        last(run(editor, views, scene, replace(settings, at_once=count))).state for count in (1, 4)
    )
    for alone, batched in zip(one.maps, four.maps, strict=True):
        torch.testing.assert_close(alone.raw, batched.raw, atol=1e-4, rtol=0)
    for alone, batched in zip(one.views.edits, four.views.edits, strict=True):
        torch.testing.assert_close(alone.float(), batched.float(), atol=1, rtol=0)


def test_the_same_seed_gives_the_same_scene(editor: Editor, views: ViewSet, scene: Scene) -> None:
    brief = replace(QUICK, passes=0.5)
    one, same, other = (
        last(run(editor, views, scene, brief, seed=seed)).state for seed in (3, 3, 4)
    )
    weights = [state.scene.state_dict() for state in (one, same, other)]
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
    assert any(not torch.equal(value, weights[2][key]) for key, value in weights[0].items())


# The first and the last are in the middle of what is made at once.
@pytest.mark.parametrize(
    ("stop", "together", "phase"),
    [(2, False, "relevance"), (80, False, "edit"), (72, True, "edit")],
)
def test_an_edit_that_was_killed_goes_on_exactly(
    stop: int, together: bool, phase: str, editor: Editor, views: ViewSet, scene: Scene
) -> None:
    brief = replace(QUICK, passes=1.2, together=together, watch=0)
    whole = last(run(editor, views, scene, brief)).state
    for count, step in enumerate(run(editor, views, scene, brief), start=1):
        if count == stop:
            assert step.phase == phase
            saved = {key: value.clone() for key, value in step.state.tensors().items()}
            break
    state = SceneEditState.from_tensors(saved, scene, views, TEXT, MAPS)
    again = last(run(editor, views, scene, brief, resume=state)).state
    for key, value in whole.scene.state_dict().items():
        assert torch.equal(value, again.scene.state_dict()[key]), key
    assert all(torch.equal(a, b) for a, b in zip(whole.views.edits, again.views.edits, strict=True))


@pytest.mark.parametrize(
    ("name", "phase", "words"),
    [
        ("idle", "edit", "change nothing"),
        ("editor", "edit", "does not take the edits up"),
        ("editor", "fit", "does not take the edits up"),
    ],
)
def test_an_edit_that_goes_on_is_watched_as_one_in_one_go(
    name: str,
    phase: str,
    words: str,
    views: ViewSet,
    scene: Scene,
    request: pytest.FixtureRequest,
) -> None:
    asked: Editor = request.getfixturevalue(name)
    idle = replace(PER_FRAME, every=2, watch=3)
    settings = idle if name == "idle" else replace(QUICK, rate=1e-9)
    saved: dict[str, torch.Tensor] = {}
    for step in run(asked, views, scene, settings):
        if step.phase == phase and step.index == 2:
            saved = {key: value.clone() for key, value in step.state.tensors().items()}
            break
    state = SceneEditState.from_tensors(saved, scene, views, TEXT, MAPS)
    with pytest.raises(WysError, match=words):
        last(run(asked, views, scene, settings, resume=state))


def test_a_state_of_another_scene_is_refused(views: ViewSet, scene: Scene) -> None:
    with pytest.raises(WysError, match="another scene"):
        SceneEditState.from_tensors({"scene.x": torch.zeros(1)}, scene, views, TEXT, MAPS)


def test_nothing_to_edit_is_said(idle: Editor, views: ViewSet, scene: Scene) -> None:
    step = last(run(idle, views, scene))
    assert step.phase == "done" and "no view shows" in (step.message or "")
    assert step.state.views.edits == (None,) * len(views)


def test_an_edit_that_changes_nothing_is_stopped(
    idle: Editor, views: ViewSet, scene: Scene
) -> None:
    settings = replace(PER_FRAME, every=2, watch=3)
    with pytest.raises(WysError, match="change nothing"):
        last(run(idle, views, scene, settings))


def test_a_field_that_does_not_follow_is_noticed(
    editor: Editor, views: ViewSet, scene: Scene
) -> None:
    with pytest.raises(WysError, match="does not take the edits up"):
        last(run(editor, views, scene, replace(QUICK, rate=1e-9)))


def test_an_empty_instruction_is_refused(editor: Editor, views: ViewSet, scene: Scene) -> None:
    with pytest.raises(WysError, match="instruction is empty"):
        last(run(editor, views, scene, text=" "))


def test_a_plan_gives_every_view_its_turns() -> None:
    turns = plan(7, replace(IN2N, passes=2.0, every=5, rest=12), seed=1)
    edited = [turn.view for turn in turns if turn.view is not None]
    assert sorted(edited) == sorted([*range(7)] * 2)
    assert sorted(edited[:7]) == list(range(7)) and edited[:7] != edited[7:]
    # One round of field steps after each edit, and the rest rounded up.
    assert len(turns) == 2 * 14 + 3
    assert all(turn.view is None for turn in turns[1:28:2])


def test_a_plan_that_begins_together_has_the_same_work() -> None:
    apart = plan(6, replace(IN2N, passes=1.5), seed=0)
    together = plan(6, replace(IN2N, passes=1.5, together=True), seed=0)
    assert [t.view for t in together[:12]].count(None) == 6
    assert all(t.whole for t in together[:6]) and not any(t.whole for t in together[6:])
    assert sorted(t.view is None for t in apart) == sorted(t.view is None for t in together)


def test_maps_are_normalised_by_one_scale() -> None:
    settings = RelevanceSettings(normalisation="percentile")
    draw = torch.Generator().manual_seed(0)
    raw = torch.rand(3, 1, 4, 4, generator=draw) * torch.tensor([1.0, 0.1, 0.5]).view(3, 1, 1, 1)
    maps = [RelevanceMap(r[None], r[None], None, ("",), (8, 8), settings) for r in raw]
    across = torch.stack(normalise_across(maps))
    long = normalise(raw.reshape(1, 1, 12, 4), settings).reshape(3, 1, 4, 4)
    assert torch.equal(across, long)
    # A view in which little differs stays dark, where its own scale would have made it bright.
    assert float(across[1].max()) < 0.15
    assert float(normalise(raw[1:2], settings).max()) == 1


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"noise": (0.9, 0.1)}, "noise of a scene's edit is a range"),
        ({"passes": 0}, "passes, every, learn and at_once must be above 0"),
        ({"every": 0}, "passes, every, learn and at_once must be above 0"),
        ({"watch": -1}, "rest and watch must be at least 0"),
        ({"inside": 2}, "inside is a share"),
        ({"rate": 0}, "rate is above 0"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float], words: str) -> None:
    with pytest.raises(WysError, match=words):
        replace(OWN, **wrong)
