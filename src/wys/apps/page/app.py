"""The page itself: its parts, and what happens when a visitor touches one of them.

Nothing here knows how an edit is made. A handler takes the visit and the form, has `jobs.py` do the
work, and says what the parts show now.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from wys.apps.options import GuideOptions
from wys.apps.page import jobs
from wys.apps.page.jobs import Editors, Wish
from wys.apps.page.layout import WELCOME, Layout, Limits, told
from wys.apps.page.marks import Marks
from wys.apps.page.samples import Sample
from wys.apps.page.stage import scene
from wys.apps.page.visit import Stop, Visit
from wys.apps.page.words import verdict_in_words
from wys.apps.progress import TimeLeft
from wys.errors import WysError

Updates = dict[Any, Any]
"""New values or properties of parts, by part."""

WORKING = "class='told busy'"
"""Stands in every message of a job that goes on."""
LOOKING = "Looking for what the instruction changes"
UNPAINTED = (
    " What you painted for other words is gone: paint again where this map is wrong, and press "
    "Edit."
)
CANCELLING = "() => 'Cancelling'"
SHOW_RESULT = """() => {
    document.querySelector("#slider")?.scrollIntoView({ behavior: "smooth", block: "nearest" });
}"""


class Page(Layout):
    """The parts of the page and their handlers.

    Args:
        editors: shared by all visitors; nothing else is.
        folder: below which each visitor's files lie, in a folder of their own.
    """

    def __init__(
        self, editors: Editors, samples: Sequence[Sample], folder: Path, limits: Limits
    ) -> None:
        self._folder = folder
        with gr.Blocks(
            title="wys", analytics_enabled=False, fill_width=True, delete_cache=(3600, 86400)
        ) as self.blocks:
            super().__init__(editors, samples, limits)
            self._wire()
        self.blocks.queue(max_size=limits.queue, default_concurrency_limit=8)

    # ---- wires

    def _wire(self) -> None:
        form = [
            self.visit,
            self.stage,
            self.instruction,
            self.editor,
            self.guidance_text,
            self.guidance_image,
            self.steps,
            self.seed,
            self.variants,
            self.zoom,
            self.force,
        ]
        shown = [
            self.visit,
            self.stage,
            self.instruction,
            self.look_button,
            self.edit_button,
            self.cancel_button,
            self.message,
            self.placeholder,
            self.result,
            self.slider,
            self.variant_gallery,
            self.figures,
            *self.downloads.values(),
            self.command,
            self.history,
            self.guidance_text,
            self.guidance_image,
            self.steps,
        ]
        quiet = {"outputs": shown, "show_progress": "hidden", "api_visibility": "private"}
        # A slow browser now and then lost a map when answers with the same outputs came close
        # behind it: what comes right before or after a job has no more outputs than it needs.
        standing = quiet | {
            "outputs": [self.look_button, self.edit_button, self.cancel_button, self.message],
            "queue": False,
        }
        # One request at a time runs through the networks; the others wait in a line.
        work = quiet | {"concurrency_id": "editor", "concurrency_limit": 1}

        self.stage.chosen(self._choose, self.visit, **quiet)
        self.stage.refused(self._refuse, None, **quiet)
        self.stage.cleared(self._clear, self.visit, **quiet)
        sample = self.stage.sample(self._take_sample, self.visit, **quiet)
        for event, job in (
            (sample.success, self._look),
            (self.look_button.click, self._look),
            (self.instruction.submit, self._look),
            (self.edit_button.click, self._edit),
        ):
            # The first answer does not wait in the line.
            begun = event(self._begin, self.stop, **standing)
            running = begun.then(job, [self.stop, *form], **work)
            running.then(self._settle, self.message, **standing)
        # On a phone the result lies below what is on the screen.
        running.then(None, js=SHOW_RESULT, api_visibility="private")
        # Said by the browser, on the button: an answer from the server could come after the job's
        # last one.
        self.cancel_button.click(
            None, None, self.cancel_button, js=CANCELLING, api_visibility="private"
        )
        # The job itself stops between two steps and says so. Cut off from outside, it now and then
        # left a page behind that waited for its end.
        self.cancel_button.click(self._cancel, self.stop, queue=False, api_visibility="private")
        self.variant_gallery.select(self._choose_variant, self.visit, **quiet)
        self.history.select(self._choose_past, self.visit, **quiet)
        self.use_button.click(self._use, self.visit, **quiet)

    # ---- handlers: images

    def _choose(self, visit: Visit, event: gr.EventData) -> Updates:
        # The path comes from the browser, and only what was uploaded is the visitor's to name.
        path = Path(str(event.path)).resolve()
        if not path.is_relative_to(Path(gr.utils.get_upload_folder()).resolve()):
            return self._failed(WysError("this is no uploaded file; drop the image again."))
        return self._taken(visit, path, str(event.name))

    def _take_sample(self, visit: Visit, event: gr.EventData) -> Updates:
        sample = self._samples[int(event.index) % len(self._samples)]
        updates = self._taken(visit, sample.path, sample.path.name)
        return updates | {self.instruction: sample.instruction}

    def _use(self, visit: Visit) -> Updates:
        outcome = visit.outcome
        if outcome is None:
            return self._failed(WysError("there is no result yet."))
        name = f"edit-{outcome.run}-seed-{outcome.seed}.png"
        return self._taken(visit, outcome.folder / "edited.png", name) | {self.instruction: ""}

    def _taken(self, visit: Visit, path: Path, name: str) -> Updates:
        try:
            visit = visit.taking(path, name, self._folder, self._limits.most_pixels)
        except WysError as error:
            return self._failed(error)
        height, width = visit.given.picture.size if visit.given else (0, 0)
        sentence = f"{width} x {height} pixels. Say what to change, then press Show where."
        return self._staged(visit) | {self.message: told(sentence)}

    def _refuse(self, event: gr.EventData) -> Updates:
        limit = f"{self._limits.most_bytes / 1e6:.0f} MB"
        return self._failed(
            WysError(
                f"the file is too large, the limit is {limit}; scale the image down first."
                if event.reason == "size"
                else "the file could not be uploaded; try again."
            )
        )

    def _clear(self, visit: Visit) -> Updates:
        return self._staged(visit.cleared()) | {self.message: told(WELCOME)}

    # ---- handlers: work

    def _begin(self, stop: Stop) -> Updates:
        stop.wanted = False
        return self._busy("Waiting for the editor")

    def _cancel(self, stop: Stop) -> None:
        stop.wanted = True

    def _look(self, stop: Stop, visit: Visit, *form: Any) -> Iterator[Updates]:
        try:
            wish = _wish(*form)
            wish.check()
            if stop.wanted:
                yield self._cancelled()
                return
            yield {self.message: working(LOOKING)}
            cleared = self._clears(visit, wish)
            visit, _, updates = self._seen(visit, wish)
            found = self._idle() | {self.message: _verdict(visit, UNPAINTED if cleared else "")}
            yield updates | (self._cancelled() if stop.wanted else found)
        except WysError as error:
            yield self._failed(error)

    def _edit(self, stop: Stop, visit: Visit, *form: Any) -> Iterator[Updates]:
        try:
            wish = _wish(*form)
            wish.check()
            if not stop.wanted and not jobs.is_seen(visit, self._editors, wish):
                yield {self.message: working(LOOKING)}
                cleared = self._clears(visit, wish)
                visit, wish, updates = self._seen(visit, wish)
                yield updates
                if cleared and not stop.wanted:
                    yield self._idle() | {self.message: _verdict(visit, UNPAINTED)}
                    return
            left, made = TimeLeft(["step"]), visit.outcome
            steps = jobs.edits(visit, self._editors, wish)
            while not stop.wanted and (progress := next(steps, None)):
                visit = progress.visit
                left.step("step", progress.done, progress.count)
                news = {} if visit.outcome is made else self._results(visit)
                made = visit.outcome
                yield news | {self.visit: visit, self.message: _bar(progress, left)}
            if stop.wanted:
                yield self._cancelled()
                return
            done = {self.message: _verdict(visit, " Done.")}
            yield self._idle() | self._staged(visit) | self._results(visit) | done
        except WysError as error:
            yield self._failed(error)

    def _clears(self, visit: Visit, wish: Wish) -> bool:
        """Whether something was painted on another map than the one that is wished for."""
        return bool(wish.marks.strokes) and not jobs.is_seen(visit, self._editors, wish)

    def _seen(self, visit: Visit, wish: Wish) -> tuple[Visit, Wish, Updates]:
        """The visit with the map, and the wish as it is for an edit under that map."""
        numbers: Updates = {}
        editor = self._editors.named(wish.editor).editor
        if editor != (visit.editor or self._editors.options.editor):
            # The numbers in the form were another editor's; this one begins with its own.
            own = self._editors.get(wish.editor).settings.edit
            guide = replace(wish.guide, guidance_text=None, guidance_image=None, steps=None)
            wish = replace(wish, guide=guide)
            numbers = {
                self.guidance_text: own.guidance.text,
                self.guidance_image: own.guidance.image,
                self.steps: own.steps,
            }
        visit = replace(jobs.look(visit, self._editors, wish), editor=editor)
        # What was marked on another map says nothing about this one.
        return visit, replace(wish, marks=Marks()), self._staged(visit) | numbers

    def _settle(self, message: str) -> Updates:
        """After any end of a job: one that still seems to work was refused, or broke off."""
        if WORKING not in message:
            return {self.message: gr.skip()}
        return self._failed(
            WysError("this did not come to its end; what was finished before is kept. Try again.")
        )

    # ---- handlers: results

    def _choose_variant(self, visit: Visit, event: gr.SelectData) -> Updates:
        return self._chosen(visit, visit.variants, int(event.index))

    def _choose_past(self, visit: Visit, event: gr.SelectData) -> Updates:
        return self._chosen(visit, _newest_first(visit), int(event.index))

    def _chosen(self, visit: Visit, positions: Sequence[int], index: int) -> Updates:
        try:
            return self._results(visit.showing(positions[index] if index < len(positions) else -1))
        except WysError as error:
            return self._failed(error)

    # ---- what the parts show

    def _staged(self, visit: Visit) -> Updates:
        return {self.visit: visit, self.stage: gr.HTML(scene=scene(visit))}

    def _results(self, visit: Visit) -> Updates:
        outcome = visit.outcome
        assert outcome is not None
        files = {button: str(outcome.folder / name) for name, button in self.downloads.items()}
        shown = outcome.folder / "shown"
        variants = visit.variants
        past = _newest_first(visit)
        return files | {
            self.visit: visit,
            self.placeholder: gr.HTML(visible=False),
            self.result: gr.Column(visible=True),
            self.slider: (str(shown / "before.png"), str(shown / "after.png")),
            self.figures: _figures(outcome.figures.rows()),
            self.command: outcome.command,
            self.variant_gallery: gr.Gallery(
                [_thumbnail(visit, i, f"seed {visit.outcomes[i].seed}") for i in variants],
                selected_index=variants.index(visit.shown or 0),
                visible=len(variants) > 1,
            ),
            self.history: gr.Gallery(
                [_thumbnail(visit, i, visit.outcomes[i].caption) for i in past],
                selected_index=past.index(visit.shown or 0),
            ),
        }

    def _busy(self, what: str) -> Updates:
        return {
            self.look_button: gr.Button(visible=False),
            self.edit_button: gr.Button(visible=False),
            self.cancel_button: gr.Button("Cancel", visible=True),
            self.message: working(what),
        }

    def _idle(self) -> Updates:
        return {
            self.look_button: gr.Button(visible=True),
            self.edit_button: gr.Button(visible=True),
            self.cancel_button: gr.Button(visible=False),
        }

    def _cancelled(self) -> Updates:
        return self._idle() | {self.message: told("Cancelled. What was finished before is kept.")}

    def _failed(self, error: WysError) -> Updates:
        alert = f"<p class='told error' role='alert'>{html.escape(str(error))}</p>"
        return self._idle() | {self.message: alert}


def _wish(
    marks: Any,
    instruction: str,
    editor: str,
    guidance_text: float | None,
    guidance_image: float | None,
    steps: int | None,
    seed: int | None,
    variants: int,
    zoom: bool,
    force: bool,
) -> Wish:
    """The form as a wish; raises WysError where a value is none."""
    text, image = (None if g is None else float(g) for g in (guidance_text, guidance_image))
    guide = GuideOptions(text, image, steps=steps, zoom=zoom, force=force)
    instruction = " ".join((instruction or "").split())
    return Wish(instruction, editor or "", Marks.read(marks), int(seed or 0), int(variants), guide)


def working(what: str, extent: str = "") -> str:
    """The message of a job that goes on; `extent` are the attributes of its bar."""
    return f"<div {WORKING} role='status'><progress{extent}></progress>{what}</div>"


def _newest_first(visit: Visit) -> list[int]:
    return list(reversed(range(len(visit.outcomes))))


def _thumbnail(visit: Visit, position: int, caption: str) -> tuple[str, str]:
    return str(visit.outcomes[position].folder / "shown" / "small.png"), caption


def _verdict(visit: Visit, more: str = "") -> str:
    assert visit.look is not None
    return told(f"{verdict_in_words(visit.look.relevance.verdict)}{more}", "verdict")


def _bar(progress: jobs.Progress, left: TimeLeft) -> str:
    step = f"Step {progress.done} of {progress.count}, {left.in_words} left"
    return working(step, f" max='{progress.count}' value='{progress.done}'")


def _figures(rows: Sequence[tuple[str, str]]) -> str:
    entries = (f"<div><dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd></div>" for k, v in rows)
    return f"<dl>{''.join(entries)}</dl>"
