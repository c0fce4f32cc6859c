"""The share of rival parts, chosen on scenes whose truth is known."""

from dataclasses import replace

import pytest
import torch

from wys.diffusion.editor import Editor
from wys.evaluation.tune_scene import (
    RIVALS,
    WORTH_IOU,
    LocatedEdit,
    located_edit,
    region_iou,
    tune_rival,
)
from wys.relevance import RelevanceSettings
from wys.tabletop.posed import posed_edit, posed_views

SIZE = 64
HOW = RelevanceSettings(threshold=0.5)


@pytest.fixture(scope="module")
def edit(editor: Editor) -> LocatedEdit:
    how = RelevanceSettings(draws=1)
    return located_edit(editor, how, 0, "remove", SIZE, 0)


def exact(edit: LocatedEdit) -> list[torch.Tensor]:
    """The target's silhouette in every photograph: what a perfect editor would find."""
    case = posed_edit(0, 0, "remove", "validation")
    posed = posed_views(case, views=16, held_out=4, size=SIZE)
    ids = posed.truth.object_ids[posed.train_rows]
    assert case.target is not None
    return list((ids == case.target + 1)[:, None].float())


def test_perfect_maps_find_the_region(edit: LocatedEdit) -> None:
    known = replace(edit, maps=tuple(exact(edit)))
    # The true mask has the shadow too, which the silhouettes lack.
    assert region_iou(known, HOW, 1.0) > 0.5
    nothing = replace(edit, maps=tuple(torch.zeros_like(values) for values in edit.maps))
    assert region_iou(nothing, HOW, 1.0) < 0.3


def test_a_weaker_thing_elsewhere_is_left_out_when_one_alone_is_asked_for(
    edit: LocatedEdit,
) -> None:
    case = posed_edit(0, 0, "remove", "validation")
    posed = posed_views(case, views=16, held_out=4, size=SIZE)
    assert case.target is not None
    other = next(s for s in range(5) if s != case.target and bool(case.before.present[0, s]))
    ids = posed.truth.object_ids[posed.train_rows]
    second = 0.7 * (ids == other + 1)[:, None].float()
    known = replace(
        edit, maps=tuple(torch.maximum(a, b) for a, b in zip(exact(edit), second, strict=True))
    )
    assert region_iou(known, HOW, 1.0) > region_iou(known, HOW, 0.0)


def test_the_best_share_comes_last(editor: Editor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wys.evaluation.tune_scene.KINDS", ("recolour",))
    monkeypatch.setattr("wys.evaluation.tune_scene.VIEWS", 6)
    trials = list(tune_rival(editor, replace(HOW, draws=1), scenes=1, seed=0))
    assert [trial.rival for trial in trials[:-1]] == list(RIVALS)
    top = max(trial.iou for trial in trials)
    good = [trial.rival for trial in trials[:-1] if trial.iou >= top - WORTH_IOU]
    assert trials[-1].rival == min(good)
