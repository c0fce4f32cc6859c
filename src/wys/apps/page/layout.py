"""What the page consists of, and how it looks. `app.py` says what its parts do."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from wys.apps.page import jobs
from wys.apps.page.jobs import Editors
from wys.apps.page.samples import Sample
from wys.apps.page.stage import heat_colours, sample_cards, scene
from wys.apps.page.visit import ARCHIVE, Stop, Visit

HERE = Path(__file__).parent
WELCOME = "Choose an image, say what to change, and see where that would be, before any edit."
EMPTY = (
    "<p class='placeholder'><strong>The edited image appears here</strong>"
    "Nothing is edited until you press Edit.</p>"
)


@dataclass(frozen=True)
class Limits:
    """What one visitor may ask of the machine."""

    most_bytes: int
    """Of an uploaded file."""
    most_pixels: int
    """Of an image."""
    queue: int
    """Requests that may wait."""


def theme() -> Any:
    """The look of Gradio's own parts. Fonts are the visitor's: nothing is fetched from outside."""
    base = gr.themes.Base(
        primary_hue="violet",
        neutral_hue="zinc",
        radius_size="lg",
        font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],
        font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"],
    )
    # The theme's own grey is too pale to read.
    return base.set(
        body_text_color_subdued="*neutral_500", body_text_color_subdued_dark="*neutral_400"
    )


def style() -> str:
    """The page's own style sheet."""
    return (HERE / "page.css").read_text(encoding="utf-8")


def told(sentence: str, kind: str = "") -> str:
    return f"<p class='told {kind}' role='status'>{html.escape(sentence)}</p>"


class Layout:
    """The parts of the page, laid out inside the open `gr.Blocks`."""

    def __init__(self, editors: Editors, samples: Sequence[Sample], limits: Limits) -> None:
        self._editors, self._samples, self._limits = editors, samples, limits
        self.visit = gr.State(Visit(), delete_callback=Visit.close)
        self.stop = gr.State(Stop())
        gr.HTML(
            "<h1>wys</h1><p>Edit an image by an instruction, only where the instruction says.</p>",
            elem_id="head",
        )
        with gr.Row(elem_id="body", equal_height=False):
            with gr.Column(elem_id="left", min_width=300):
                self.stage = gr.HTML(
                    value=None,
                    html_template=(HERE / "stage.html").read_text(encoding="utf-8"),
                    js_on_load=(HERE / "stage.js").read_text(encoding="utf-8"),
                    apply_default_css=False,
                    elem_id="stage",
                    scene=scene(Visit()),
                    colours=heat_colours(),
                    samples=sample_cards(self._samples),
                    most_bytes=self._limits.most_bytes,
                )
                with gr.Row(elem_id="ask"):
                    self.instruction = gr.Textbox(
                        label="Instruction",
                        show_label=False,
                        container=False,
                        placeholder="What to change, such as: make the red cube blue",
                        max_length=1000,
                        lines=1,
                        scale=4,
                        min_width=220,
                        elem_id="instruction",
                    )
                    self.look_button = gr.Button(
                        "Show where", scale=0, min_width=125, elem_id="look"
                    )
                    self.edit_button = gr.Button(
                        "Edit", variant="primary", scale=0, min_width=80, elem_id="edit"
                    )
                    self.cancel_button = gr.Button(
                        "Cancel",
                        variant="stop",
                        scale=0,
                        min_width=215,
                        visible=False,
                        elem_id="cancel",
                    )
                self.message = gr.HTML(told(WELCOME), elem_id="message")
                self._lay_out_settings()
            with gr.Column(elem_id="right", min_width=300):
                self._lay_out_result()

    def _lay_out_settings(self) -> None:
        own = self._editors.first.settings.edit
        with gr.Accordion("Settings", open=False, elem_id="settings"):
            with gr.Row():
                self.guidance_text = gr.Number(own.guidance.text, label="Text guidance", step=0.5)
                self.guidance_image = gr.Number(
                    own.guidance.image, label="Image guidance", step=0.5
                )
                self.steps = gr.Number(own.steps, label="Steps", precision=0, elem_id="steps")
            with gr.Row():
                self.seed = gr.Number(0, label="Seed", precision=0, elem_id="seed")
                self.variants = gr.Slider(
                    1, jobs.MOST_VARIANTS, 1, step=1, label="Variants", elem_id="variants-count"
                )
            with gr.Row():
                self.zoom = gr.Checkbox(
                    False, label="Zoom in on a small mask", info="Edits a crop around it."
                )
                self.force = gr.Checkbox(
                    False, label="Edit anyway", info="Even where there is nothing to edit."
                )
            self.editor = gr.Textbox(
                label="Editor",
                placeholder=self._editors.options.editor,
                info="'builtin', a pipeline directory, a .safetensors file, or a hub id",
                elem_id="editor",
            )

    def _lay_out_result(self) -> None:
        self.placeholder = gr.HTML(EMPTY, elem_id="empty")
        with gr.Column(visible=False, elem_id="result") as self.result:
            self.slider = gr.ImageSlider(
                label="Before and after",
                show_label=False,
                interactive=False,
                buttons=["fullscreen"],
                max_height=520,
                elem_id="slider",
            )
            self.variant_gallery = self._gallery("Variants: choose one", "variants")
            self.figures = gr.HTML(elem_id="figures")
            self.use_button = gr.Button("Use as input for another edit", elem_id="use")
            with gr.Row(elem_id="files"):
                self.downloads = {
                    file: gr.DownloadButton(label, size="sm", min_width=70, elem_id=f"get-{label}")
                    for label, file in (
                        ("Image", "edited.png"),
                        ("Mask", "mask.png"),
                        ("Map", "relevance.png"),
                        ("Record", "run.json"),
                        ("Everything", ARCHIVE),
                    )
                }
            self.command = gr.Textbox(
                label="The same on the command line",
                info="Run it in the unpacked folder of Everything.",
                lines=2,
                max_lines=8,
                interactive=False,
                buttons=["copy"],
                elem_id="command",
            )
            self.history = self._gallery(
                "This visit, kept until the page is closed or loaded anew", "history"
            )

    def _gallery(self, label: str, name: str) -> Any:
        return gr.Gallery(
            label=label,
            columns=4,
            height="auto",
            allow_preview=False,
            interactive=False,
            buttons=[],
            object_fit="cover",
            elem_id=name,
        )
