"""The page's work without a browser: two visitors, a tiny editor, real files."""

import json
import shlex
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from wys.apps import cli
from wys.apps.options import EditorOptions, GuideOptions
from wys.apps.page import jobs
from wys.apps.page.jobs import Editors, Wish
from wys.apps.page.marks import Marks, Stroke
from wys.apps.page.stage import heat_colours, scene
from wys.apps.page.visit import ARCHIVE, KEPT, Visit
from wys.diffusion.editor import Editor
from wys.errors import WysError
from wys.image import read_picture, write_image

PIXELS = 1_000_000
WISH = Wish("make the ball red", guide=GuideOptions(steps=2, force=True))


@pytest.fixture
def editors(editor: Editor, editor_directory: Path) -> Editors:
    return Editors(EditorOptions(editor=str(editor_directory), device="cpu"), editor)


@pytest.fixture
def photo(images: torch.Tensor, tmp_path: Path) -> Path:
    write_image(tmp_path / "photo.png", images[2])
    return tmp_path / "photo.png"


@pytest.fixture
def visit(photo: Path, tmp_path: Path) -> Visit:
    return Visit().taking(photo, "photo.png", tmp_path, PIXELS)


def edited(visit: Visit, editors: Editors, wish: Wish) -> Visit:
    if not jobs.is_seen(visit, editors, wish):
        visit = jobs.look(visit, editors, wish)
    return list(jobs.edits(visit, editors, wish))[-1].visit


def test_looking_makes_a_map_and_keeps_it_for_the_same_words(
    visit: Visit, editors: Editors
) -> None:
    assert not jobs.is_seen(visit, editors, WISH)
    seen = jobs.look(visit, editors, WISH)
    assert jobs.is_seen(seen, editors, replace(WISH, seed=9))
    assert not jobs.is_seen(seen, editors, replace(WISH, instruction="remove it"))
    assert visit.look is None, "a visit is a value"


def test_progress_counts_the_steps_of_all_variants(visit: Visit, editors: Editors) -> None:
    visit = jobs.look(visit, editors, WISH)
    steps = list(jobs.edits(visit, editors, replace(WISH, variants=2)))
    assert [(step.done, step.count) for step in steps] == [(i, 4) for i in (1, 2, 2, 3, 4, 4)]
    assert [len(step.visit.outcomes) for step in steps] == [0, 0, 1, 1, 1, 2]
    done = steps[-1].visit
    assert [outcome.seed for outcome in done.outcomes] == [0, 1]
    assert done.variants == (0, 1) and done.shown == 0


@pytest.mark.parametrize("marks", ["none", "threshold", "strokes", "other seed"])
def test_the_command_makes_the_same_image(
    marks: str, visit: Visit, editors: Editors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wish = WISH
    if marks == "threshold":
        wish = replace(WISH, marks=Marks(0.21))
    elif marks == "strokes":
        wish = replace(WISH, marks=Marks(0.9, (Stroke(True, 5.0, ((8.0, 9.0), (20.0, 30.0))),)))
    elif marks == "other seed":
        visit = jobs.look(visit, editors, WISH)
        wish = replace(WISH, seed=5)
    outcome = edited(visit, editors, wish).outcome
    assert outcome is not None and outcome.figures.outside == 0 and outcome.figures.changed > 0

    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(outcome.folder / ARCHIVE) as archive:
        archive.extractall(folder)
    monkeypatch.chdir(folder)
    assert cli.main([*shlex.split(outcome.command)[1:], "--out", "again"]) == 0
    first, second = (read_picture(folder / part / "edited.png") for part in (".", "again"))
    assert torch.equal(first.rgb, second.rgb)
    record = json.loads((folder / "run.json").read_text())
    assert record["command"] == outcome.command
    assert record["largest_change_outside_mask"] == 0
    again = json.loads((folder / "again" / "run.json").read_text())
    assert set(again) <= set(record)


def test_an_empty_mask_and_nothing_to_edit_are_sentences(visit: Visit, editors: Editors) -> None:
    visit = jobs.look(visit, editors, WISH)
    everything = Stroke(False, 500.0, ((20.0, 20.0),))
    with pytest.raises(WysError, match="mask is empty"):
        list(jobs.edits(visit, editors, replace(WISH, marks=Marks(None, (everything,)))))


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (Wish("   "), "instruction is empty"),
        (Wish("x" * 2000), "too long"),
        (Wish("paint it", variants=99), "variants"),
        (Wish("paint it", seed=-1), "seed"),
        (Wish("paint it", guide=GuideOptions(steps=0)), "steps"),
        (Wish("paint it", editor="/no/such/editor"), "/no/such/editor"),
    ],
)
def test_wishes_that_cannot_be_met_are_sentences(
    wish: Wish, words: str, visit: Visit, editors: Editors
) -> None:
    with pytest.raises(WysError, match=words):
        jobs.look(visit, editors, wish)


def test_strangers_choose_no_editor(editor: Editor) -> None:
    editors = Editors(EditorOptions(), editor, others=False)
    assert editors.get("") is editors.get("builtin") is editor
    with pytest.raises(WysError, match="keeps to its own editor"):
        editors.get("/some/where")


def test_files_that_are_no_images_are_named_as_the_visitor_knows_them(
    photo: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "3f2a.tmp"
    broken.write_bytes(photo.read_bytes()[:60])
    for path, limit in ((broken, PIXELS), (photo, 100)):
        with pytest.raises(WysError) as caught:
            Visit().taking(path, "holiday.png", tmp_path, limit)
        assert "holiday.png" in str(caught.value) and str(tmp_path) not in str(caught.value)


def test_an_input_never_bears_the_name_of_a_result(photo: Path, tmp_path: Path) -> None:
    given = Visit().taking(photo, "edited.png", tmp_path, PIXELS).given
    assert given is not None and given.path.name == "input-edited.png"


def test_a_visit_forgets_its_oldest_results_and_takes_its_files_along(
    visit: Visit, editors: Editors
) -> None:
    visit = edited(visit, editors, WISH)
    outcome = visit.outcome
    assert outcome is not None
    for run in range(2, KEPT + 3):
        visit = visit.with_outcome(replace(outcome, run=run, folder=outcome.folder / str(run)))
    assert len(visit.outcomes) == KEPT and visit.shown == KEPT - 1
    with pytest.raises(WysError, match="gone"):
        visit.showing(KEPT)
    visit.close()
    assert visit.folder is not None and not visit.folder.exists()


def test_visits_lie_in_folders_of_their_own(photo: Path, tmp_path: Path) -> None:
    one, two = (Visit().taking(photo, "photo.png", tmp_path, PIXELS) for _ in range(2))
    assert one.folder != two.folder


def test_the_stage_gets_the_map_as_it_is(visit: Visit, editors: Editors) -> None:
    import base64

    assert scene(Visit())["picture"] is None and scene(visit)["map"] is None
    visit = jobs.look(visit, editors, WISH)
    assert visit.look is not None
    sent = scene(visit)["map"]
    values = torch.frombuffer(bytearray(base64.b64decode(sent["values"])), dtype=torch.float32)
    assert torch.equal(values, visit.look.relevance.values.flatten())
    assert sent["threshold"] == pytest.approx(float(visit.look.relevance.mask().threshold[0]))
    assert scene(visit)["picture"].startswith("data:image/webp;base64,")
    assert len(heat_colours()) == 256
