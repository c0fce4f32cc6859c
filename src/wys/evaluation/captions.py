"""What a table-top scene shows, in words: the captions that text directions are measured with."""

from __future__ import annotations

from wys.tabletop.world import (
    BACKGROUNDS,
    COLOURS,
    FLOOR_PATTERNS,
    FLOORS,
    LIGHT_KINDS,
    MATERIALS,
    SHAPES,
    SIZES,
    TableScene,
)


def captions(scenes: TableScene) -> list[str]:
    """One caption a scene: its objects in the order of their slots, the floor, the background.

    Whatever an edit changes, it changes the caption, so that no text direction is zero.
    """
    return [_caption(scenes[i]) for i in range(len(scenes))]


def _caption(scene: TableScene) -> str:
    rows = zip(
        scene.present[0].tolist(),
        scene.size[0].tolist(),
        scene.colour[0].tolist(),
        scene.material[0].tolist(),
        scene.shape[0].tolist(),
        strict=True,
    )
    objects = [
        f"a {SIZES[size]} {COLOURS[colour]} {MATERIALS[material]} {SHAPES[shape]}"
        for present, size, colour, material, shape in rows
        if present
    ]
    pattern, light = FLOOR_PATTERNS[int(scene.floor_pattern)], LIGHT_KINDS[int(scene.light_kind)]
    return (
        f"{' and '.join(objects) or 'nothing'} on a "
        f"{'' if pattern == 'plain' else pattern + ' '}{FLOORS[int(scene.floor_colour)]} floor, "
        f"{BACKGROUNDS[int(scene.background_colour)]} background"
        f"{'' if light == 'neutral' else f', {light} light'}"
    )
