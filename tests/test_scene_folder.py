"""A scene's folder: what is written comes back, edits come and go whole, damage is named."""

import errno
import hashlib
import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from itertools import count
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wys import scene_folder, scene_layer
from wys.camera import Camera, intrinsics_from_fov, look_at
from wys.errors import WysError
from wys.image import Picture, write_picture
from wys.nerf.field import FieldSettings
from wys.nerf.fitting import FitSettings, Fitter
from wys.nerf.region import Region
from wys.nerf.rendering import render
from wys.nerf.scene import Scene
from wys.scene_folder import SceneFolder, copy_scene
from wys.scene_layer import Layer, layer_name
from wys.store import locked
from wys.views import Applied, Capture, ViewSet

SIZE = 12
FIELD = FieldSettings(
    levels=2,
    log2_size=8,
    features=2,
    coarsest=4,
    finest=8,
    width=8,
    geometry=3,
    proposal_grids=(4,),
    proposal_samples=8,
    samples=6,
    precision="float32",
)
FIT = FitSettings(iterations=4, rays=16)
EDIT = {"instruction": "make it red", "method": "wys", "settings": {}, "seed": 0}


def views(count: int, name: str, seed: int) -> ViewSet:
    turn = torch.arange(count) / count * 2 * math.pi + seed
    eyes = 3 * torch.stack([turn.cos(), turn.sin(), torch.full_like(turn, 0.5)], dim=-1)
    poses = look_at(eyes, torch.zeros(count, 3), torch.tensor([0.0, 0.0, 1.0]))
    intrinsics = intrinsics_from_fov(torch.full((count,), 40.0), SIZE, SIZE)
    draw = torch.Generator().manual_seed(seed)
    photos = torch.randint(0, 256, (count, 3, SIZE, SIZE), generator=draw, dtype=torch.uint8)
    names = tuple(f"{name}{i}" for i in range(count))
    return ViewSet(names, photos, Camera(intrinsics, poses, SIZE, SIZE))


@pytest.fixture
def capture() -> Capture:
    similarity = torch.eye(4) * 0.3
    similarity[3, 3] = 1
    return Capture(views(4, "a", 0), views(2, "b", 1), similarity, True, "scene", "a test")


@pytest.fixture
def scene() -> Scene:
    return Scene.create(FIELD, 0, unbounded=True, background="scene")


@pytest.fixture
def fitted(tmp_path: Path, capture: Capture, scene: Scene) -> SceneFolder:
    fit = {"field": asdict(FIELD), "settings": asdict(FIT), "seed": 3}
    folder = SceneFolder.create(tmp_path / "scene", capture, fit)
    return folder.with_fit(scene, {"iterations": 4, "seconds": 1.0})


def changed(scene: Scene, seed: int) -> Scene:
    """Another field: each parameter moved."""
    other = scene.clone().with_relevance(0)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=draw)
    return other


def add_layer(folder: SceneFolder, name: str, seed: int, region: Region | None) -> SceneFolder:
    layer = folder.begin_layer(name, EDIT)
    start = folder.views_to_edit(folder.top)
    edited = start.with_edit(1, 255 - start.originals[1])
    edited = edited.with_relevance(0, torch.rand(1, 3, 3))
    scene = changed(folder.scene(folder.top), seed)
    return folder.with_layer(layer, scene, edited, region, {"seconds": 2.0})


def right_half() -> Region:
    inside = torch.zeros(8, 8, 8, dtype=torch.bool)
    inside[4:6, 3:5, 3:5] = True
    return Region(inside, 1.25)


def contents(path: Path) -> dict[str, str]:
    """The digest of every file, the lock aside."""
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name != ".lock"
    }


def test_a_capture_comes_back_exactly(fitted: SceneFolder, capture: Capture) -> None:
    back = SceneFolder.open(fitted.path).capture()
    for mine, theirs in ((back.train, capture.train), (back.held_out, capture.held_out)):
        assert mine.names == theirs.names
        assert torch.equal(mine.originals, theirs.originals)
        assert torch.equal(mine.cameras.intrinsics, theirs.cameras.intrinsics)
        assert torch.equal(mine.cameras.world_from_camera, theirs.cameras.world_from_camera)
    assert torch.equal(back.scene_from_world, capture.scene_from_world)
    assert (back.unbounded, back.background, back.source) == (True, "scene", "a test")
    assert back.applied is None


def test_what_was_applied_before_comes_back_and_may_be_missing(
    tmp_path: Path, capture: Capture
) -> None:
    turned = replace(capture, applied=Applied(torch.eye(4).double()[[1, 0, 2, 3]], 2.5))
    fit = {"field": {}, "settings": {}, "seed": 0}
    folder = SceneFolder.create(tmp_path / "scene", turned, fit)
    back = folder.capture().applied
    assert back is not None and turned.applied is not None and back.scale == 2.5
    assert torch.equal(back.transform, turned.applied.transform)
    record = json.loads((folder.path / "scene.json").read_text())
    del record["applied"]
    (folder.path / "scene.json").write_text(json.dumps(record))
    assert SceneFolder.open(folder.path).capture().applied is None


def test_a_capture_without_held_out_views_comes_back(tmp_path: Path, capture: Capture) -> None:
    alone = replace(capture, held_out=capture.held_out.select([]))
    fit = {"field": {}, "settings": {}, "seed": 0}
    folder = SceneFolder.create(tmp_path / "scene", alone, fit)
    assert len(folder.capture().held_out) == 0 and not folder.fitted


def test_a_fit_goes_on_from_its_state(tmp_path: Path, capture: Capture, scene: Scene) -> None:
    fit = {"field": asdict(FIELD), "settings": asdict(FIT), "seed": 3}
    folder = SceneFolder.create(tmp_path / "scene", capture, fit)
    assert folder.fit_settings() == (FIELD, FIT, 3) and folder.fit_state() is None
    images, cameras = capture.train.images, capture.train.cameras
    fitter = Fitter(scene, FIT, 3)
    for step in range(4):
        if step == 2:
            folder.save_fit_state(fitter.state())
        fitter.step(images, cameras)

    state = SceneFolder.open(folder.path).fit_state()
    assert state is not None
    again = Fitter(other := Scene.create(FIELD, 3, unbounded=True, background="scene"), FIT, 3)
    again.restore(state)
    for _ in range(2):
        again.step(images, cameras)
    for mine, theirs in zip(other.parameters(), scene.parameters(), strict=True):
        assert torch.equal(mine, theirs)

    done = folder.with_fit(scene, {"iterations": 4, "seconds": 1.0})
    assert done.fitted and SceneFolder.open(folder.path).fitted
    assert done.fit_state() is None
    shown = render(done.scene(None), cameras[0]).rgb
    assert torch.equal(shown, render(scene, cameras[0]).rgb)


def test_edits_stack_and_undo_restores_every_byte(fitted: SceneFolder, capture: Capture) -> None:
    path, camera = fitted.path, capture.train.cameras[0]
    before = [contents(path)]
    shown = [fitted.look(None)(camera).rgb]
    folder = fitted
    for number, name in enumerate(["one", "two"], start=1):
        folder = add_layer(folder, name, number, right_half())
        before.append(contents(path))
        shown.append(folder.look(folder.top)(camera).rgb)
    assert [layer.name for layer in folder.layers] == ["01-one", "02-two"]
    assert not torch.equal(shown[0], shown[1]) and not torch.equal(shown[1], shown[2])

    opened = SceneFolder.open(path)
    for name, expected in (("original", 0), ("one", 1), ("01-one", 1), ("two", 2)):
        assert torch.equal(opened.look(opened.find_layer(name))(camera).rgb, shown[expected])
    # A second edit starts from the photographs as the first one left them.
    start = opened.views_to_edit(opened.find_layer("one"))
    assert torch.equal(start.originals[1], 255 - capture.train.originals[1])
    assert torch.equal(start.originals[0], capture.train.originals[0])
    assert torch.equal(opened.train_views(opened.top).images[1], capture.train.originals[1])
    assert opened.train_views(opened.top).relevance[0] is not None

    for left in (1, 0):
        opened, name = SceneFolder.open(path).without_top()
        assert name == ["01-one", "02-two"][left]
        assert contents(path) == before[left]
        assert torch.equal(opened.look(opened.top)(camera).rgb, shown[left])
    with pytest.raises(WysError, match="no edit to undo"):
        opened.without_top()


def test_where_the_region_is_not_seen_nothing_changes(
    fitted: SceneFolder, capture: Capture
) -> None:
    camera, region = capture.train.cameras[0], right_half()
    folder = add_layer(fitted, "one", 1, region)
    before, after = fitted.look(None)(camera), folder.look(folder.top)(camera)
    seen = region.room.seen_by(camera, before.depth)[0]
    assert seen.any() and not seen.all()
    same = (before.rgb == after.rgb).all(dim=0)
    # A ray that only grazes a corner may find no sample in it.
    assert same[~seen].all() and float(same[seen].float().mean()) < 0.2

    nowhere = Region(torch.zeros_like(region.inside), 1.25)
    folder = add_layer(folder, "nothing", 2, nowhere)
    assert torch.equal(folder.look(folder.top)(camera).rgb, after.rgb)


def test_an_edit_under_way_counts_once_it_is_done(fitted: SceneFolder) -> None:
    before = contents(fitted.path)
    layer = fitted.begin_layer("red", EDIT)
    assert layer.state() is None
    layer.save_state({"x": torch.arange(3)}, {"seconds": "4.0"})
    opened = SceneFolder.open(fitted.path)
    assert opened.layers == () and opened.top is None
    begun = opened.unfinished
    assert begun is not None and begun.name == "01-red"
    state = begun.state()
    assert state is not None and state[1]["seconds"] == "4.0"
    assert torch.equal(state[0]["x"], torch.arange(3))

    opened.drop_unfinished()
    assert opened.unfinished is None and contents(fitted.path) == before

    folder = add_layer(fitted, "blue", 1, None)
    assert folder.unfinished is None and folder.top is not None
    assert folder.top.state() is None and folder.top.record["result"] == {"seconds": 2.0}


@pytest.mark.parametrize("fails", ["write_picture", "write_tensors", "write_json"])
def test_a_full_disk_leaves_the_scene_before(
    fitted: SceneFolder, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    def full(path: Path, *_: object) -> None:
        raise WysError(f"cannot write {path}: No space left on device.")

    before = contents(fitted.path)
    layer = fitted.begin_layer("red", EDIT)
    scene, start = changed(fitted.scene(None), 1), fitted.views_to_edit(None)
    with monkeypatch.context() as patch:
        patch.setattr(scene_layer, fails, full)
        with pytest.raises(WysError, match="No space left"):
            fitted.with_layer(layer, scene, start, None, {})
    opened = SceneFolder.open(fitted.path)
    assert opened.layers == () and opened.unfinished is not None
    opened.drop_unfinished()
    assert contents(fitted.path) == before


def test_a_scene_that_cannot_be_made_leaves_nothing(
    tmp_path: Path, capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scene_folder, "write_json", full)
    with pytest.raises(WysError, match="No space left"):
        SceneFolder.create(tmp_path / "scene", capture, {})
    assert list(tmp_path.iterdir()) == []


def test_a_copy_is_a_scene_of_its_own(fitted: SceneFolder, tmp_path: Path) -> None:
    folder = add_layer(fitted, "one", 1, right_half())
    (folder.path / "fit.png").write_bytes(b"a sheet")
    folder.begin_layer("two", EDIT)
    copied = copy_scene(folder, tmp_path / "copy")
    assert copied.unfinished is None
    assert set(contents(folder.path)) - set(contents(copied.path)) == {"layers/02-two/layer.json"}
    before = contents(folder.path)
    copied.without_top()
    assert contents(folder.path) == before
    with pytest.raises(WysError, match="already there"):
        copy_scene(folder, tmp_path / "copy")
    for inside in (folder.path / "photos" / "new", folder.path):
        with pytest.raises(WysError, match="lies within the scene"):
            copy_scene(folder, inside)


def test_one_process_at_a_time_changes_a_scene(fitted: SceneFolder) -> None:
    with locked(fitted.path):
        with pytest.raises(WysError, match="another process"), locked(fitted.path):
            raise AssertionError("held twice")
        assert SceneFolder.open(fitted.path).fitted
    with locked(fitted.path):
        assert (fitted.path / ".lock").exists()


def layer_of(folder: SceneFolder) -> Layer:
    assert folder.top is not None
    return folder.top


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda p: (p / "scene.json").unlink(), "no scene.json"),
        (lambda p: (p / "scene.json").write_text("{"), "scene.json is not valid JSON"),
        (lambda p: (p / "scene.json").write_text('{"format": "wys scene 9"}'), "this version"),
        (lambda p: (p / "scene.json").write_text('{"format": "wys scene 1"}'), "has no 'source"),
        (lambda p: (p / "photos/a0.png").unlink(), "a0.png does not exist"),
        (lambda p: (p / "photos/b1.png").write_bytes(b"no picture"), "b1.png is not an image"),
        (lambda p: (p / "radiance.safetensors").unlink(), "radiance.safetensors does not exist"),
        (
            lambda p: (p / "radiance.safetensors").write_bytes(
                (p / "radiance.safetensors").read_bytes()[:-9]
            ),
            "cut short",
        ),
        (lambda p: (p / "layers/01-one/layer.json").write_text("[]"), "layer.json is damaged"),
        (lambda p: (p / "layers/01-one/views/a1.png").unlink(), "a1.png does not exist"),
        (lambda p: (p / "layers/01-one/scene.safetensors").unlink(), "scene.safetensors does not"),
    ],
)
def test_damage_is_named(fitted: SceneFolder, damage, words: str) -> None:
    path = add_layer(fitted, "one", 1, None).path
    damage(path)
    with pytest.raises(WysError) as caught:
        folder = SceneFolder.open(path)
        folder.capture()
        folder.train_views(layer_of(folder))
        folder.look(layer_of(folder))
    assert words in str(caught.value) and str(caught.value).endswith(".")


def test_a_damaged_edit_can_be_undone(fitted: SceneFolder) -> None:
    before = contents(fitted.path)
    folder = add_layer(fitted, "one", 1, None)
    (folder.path / "layers/01-one/layer.json").write_text("{")
    SceneFolder.open(folder.path).without_top()
    assert contents(fitted.path) == before


class Killed(BaseException):
    """No handler of exceptions runs after a kill."""


def killed_at(number: int, patch: pytest.MonkeyPatch) -> None:
    """From its change of this number on, the process changes nothing on disk any more."""
    changes = count()

    def change(original: Callable[..., object], *given: object, **named: object) -> object:
        if next(changes) >= number:
            raise Killed
        return original(*given, **named)

    for name in ("mkdir", "rename", "replace", "rmdir", "unlink"):
        patch.setattr(os, name, partial(change, getattr(os, name)))


@pytest.mark.parametrize("state", [False, True])
def test_an_undo_that_is_cut_short_leaves_the_scene_before_or_after(
    fitted: SceneFolder, monkeypatch: pytest.MonkeyPatch, state: bool
) -> None:
    """Killed before each of its changes of the disk in turn, until it comes to its end."""
    lowest = contents(fitted.path)
    for number in range(100):
        folder = add_layer(fitted, "one", 1, None)
        if state:  # A kill may have come before the state of a finished edit was dropped.
            layer_of(folder).save_state({"x": torch.arange(3)}, {})
        with monkeypatch.context() as patch:
            killed_at(number, patch)
            try:
                folder.without_top()
                break
            except Killed:
                pass
        opened = SceneFolder.open(fitted.path)
        assert opened.unfinished is None
        if opened.layers:
            opened.look(layer_of(opened))
            opened.train_views(layer_of(opened))
            opened, _ = opened.without_top()
        # The next edit is made as if nothing had been, also under the same name.
        again = add_layer(opened, "one", 2, None)
        assert again.record["layers"] == ["01-one"] and again.top is not None
        again.without_top()
        # What a kill leaves of a file that was being written is hidden.
        now = contents(fitted.path)
        assert {name: now[name] for name in now if not name.startswith(".scene.")} == lowest
    assert number > 10


def test_an_undo_that_cannot_delete_is_one(
    fitted: SceneFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = add_layer(fitted, "one", 1, None)

    def refuse(path: object, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patch:
        patch.setattr(os, "rmdir", refuse)
        folder, _ = folder.without_top()
    assert folder.unfinished is None and folder.layers == ()
    assert add_layer(folder, "one", 2, None).record["layers"] == ["01-one"]


def test_a_copy_of_a_scene_that_is_read_only_can_be_changed(
    fitted: SceneFolder, tmp_path: Path
) -> None:
    folder = add_layer(fitted, "one", 1, None)
    everything = [folder.path, *folder.path.rglob("*")]
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        copied = copy_scene(folder, tmp_path / "copy")
    finally:
        for path in everything:
            path.chmod(0o755 if path.is_dir() else 0o644)
    assert all(path.stat().st_mode & 0o200 for path in copied.path.rglob("*"))
    assert contents(copied.path) == contents(folder.path)


def test_photographs_of_another_size_are_refused(fitted: SceneFolder) -> None:
    small = views(1, "c", 0).originals[0][:, :5, :7]
    write_picture(fitted.path / "photos/a0.png", Picture(small))
    with pytest.raises(WysError, match=r"a0\.png has 7 x 5 pixels, and the scene 12 x 12"):
        fitted.capture()


def test_unknown_places_are_refused(tmp_path: Path, fitted: SceneFolder) -> None:
    with pytest.raises(WysError, match="does not exist"):
        SceneFolder.open(tmp_path / "absent")
    with pytest.raises(WysError, match="no layer 'green'; it has original"):
        fitted.find_layer("green")


def test_a_stray_file_beside_the_layers_is_in_nobodys_way(
    fitted: SceneFolder,
) -> None:
    folder = add_layer(fitted, "one", 1, right_half())
    stray = folder.path / "layers" / ".DS_Store"
    stray.write_bytes(b"finder")
    folder, sentence = folder.undone()
    assert "01-one is undone" in sentence and stray.exists() and folder.unfinished is None
    assert add_layer(folder, "two", 1, right_half()).record["layers"] == ["01-two"]


def test_a_layer_is_found_by_the_name_that_it_was_given(fitted: SceneFolder) -> None:
    folder = add_layer(fitted, layer_name("Hat_V2"), 1, right_half())
    found = folder.find_layer("Hat_V2")
    assert found is not None and found.name == "01-hat-v2"
    with pytest.raises(WysError, match="is the scene without edits"):
        folder.begin_layer("original", {})


def test_one_name_for_two_photographs_is_refused(tmp_path: Path, capture: Capture) -> None:
    twice = replace(capture, held_out=capture.train)
    with pytest.raises(WysError, match="rename"):
        SceneFolder.create(tmp_path / "scene", twice, {})


@given(st.text())
def test_layers_have_safe_names(instruction: str) -> None:
    name = layer_name(instruction)
    assert 0 < len(name) <= 31 and not name.startswith("-") and not name.endswith("-")
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_a_layer_is_called_after_its_instruction() -> None:
    assert layer_name("Make the red cube blue!") == "make-the-red-cube-blue"
    assert layer_name("…") == "edit"
    assert layer_name("x" * 50) == "x" * 31
