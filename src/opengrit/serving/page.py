"""The page: choose a picture, ask, watch the answer being written and the boxes it points at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files

import gradio as gr
from fastapi import FastAPI
from markupsafe import Markup

from opengrit.reports.viewer import asset
from opengrit.serving.decoders import DecoderPool
from opengrit.serving.engine import Engine
from opengrit.serving.examples import PageExample, sticker_examples
from opengrit.serving.gradio_lockdown import GradioLockdown
from opengrit.serving.page_backend import (
    MAX_QUESTION,
    PageBackend,
    PageSettings,
    picture_path,
    short_names,
)
from opengrit.serving.theme import theme

__all__ = ["PageSettings", "mount_page"]


def mount_page(
    app: FastAPI,
    engines: Mapping[str, Engine],
    *,
    settings: PageSettings | None = None,
    decoders: DecoderPool | None = None,
) -> FastAPI:
    """The app with the page at `/`; call it last, since what is mounted at `/` takes every path that is left.

    Each engine may be chosen by its name; the first one is chosen at first, or the first two together. `decoders` open the
    visitors' pictures (default: a pool of the page's own).
    """
    settings = settings or PageSettings()
    backend = PageBackend(engines, settings, decoders or DecoderPool(settings.limits))
    examples = settings.examples or sticker_examples()
    sidebar = _sidebar_html(backend.add_examples(examples.examples), examples.source)
    page = _build_page(list(engines), sidebar)
    app.include_router(backend.routes())
    mounted = gr.mount_gradio_app(
        app,
        page,
        path="/",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        show_error=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        max_file_size=1,
        theme=theme(),
        head=_head(),
    )
    gradio_app = mounted.routes[-1].app  # type: ignore[attr-defined]
    gradio_app.add_middleware(GradioLockdown)
    return mounted


def _build_page(names: list[str], sidebar: str) -> gr.Blocks:
    """The page's parts and what they do, without style, script and routes; `names` are the engines'."""
    choices = [(shown, name) for name, shown in short_names(names).items()]
    with gr.Blocks(
        title="OpenGRIT", analytics_enabled=False, delete_cache=(3600, 3600), fill_width=True
    ) as page:
        _html(_static("header.html"), elem_id="og-top")
        with gr.Row(elem_id="og-layout"):
            with gr.Column(elem_id="og-form", min_width=280):
                _html(_static("upload.html"), elem_id="og-upload-block")
                gr.Textbox(
                    label="Question",
                    placeholder="For example: How many dogs are there?",
                    lines=2,
                    max_lines=6,
                    max_length=MAX_QUESTION,
                    elem_id="og-question",
                )
                models = gr.CheckboxGroup(
                    label="Models (choose two to compare)",
                    choices=choices,
                    value=names[:2],
                    visible=len(names) > 1,
                    elem_id="og-models",
                )
                with gr.Row(elem_id="og-buttons"):
                    ask = gr.Button("Ask", variant="primary", elem_id="og-ask", scale=3, min_width=80)
                    stop = gr.Button("Stop", elem_id="og-stop", scale=1, min_width=80)
                _html('<p id="og-status" role="status"></p>', elem_id="og-status-block")
            with gr.Column(elem_id="og-result-block", min_width=280):
                _html(_static("result.html"))
            with gr.Column(elem_id="og-sidebar", min_width=280):
                _html(sidebar)
        gr.HTML(
            value=None,
            html_template="",
            js_on_load="opengritPage.start();",
            elem_id="og-updates",
            visible="hidden",
            apply_default_css=False,
        )
        # The page asks routes of ours (`page_backend.py`); Gradio only draws it.
        ask.click(fn=None, inputs=[models], js="(models) => { opengritPage.submit(models); }")
        stop.click(fn=None, js="() => { opengritPage.stop(); }")
    page.queue(api_open=False)
    return page


def _head() -> str:
    """The viewer's and the page's style and script. (Gradio rewrites the selectors of its `css`.)

    The viewer is nested into the page, so that its rules weigh more than the rules that Gradio has for every element.
    """
    style = f"<style>.gradio-container {{ {asset('viewer.css')} }} {_static('page.css')}</style>"
    return f"{style}<script>{asset('viewer.js')}</script><script>{_static('page.js')}</script>"


def _html(content: str, elem_id: str | None = None) -> gr.HTML:
    return gr.HTML(str(content), elem_id=elem_id, apply_default_css=False, js_on_load=None, padding=False)


@cache
def _static(name: str) -> str:
    return files("opengrit.serving").joinpath("static", name).read_text(encoding="utf-8")


def _sidebar_html(examples: Sequence[tuple[str, PageExample]], source: str) -> str:
    buttons = Markup("").join(
        Markup(
            '<button type="button" data-example="{name}" data-question="{question}">'
            '<img src="{src}" alt="" loading="lazy"><span>{question}</span></button>'
        ).format(name=name, question=example.question, src=picture_path(name))
        for name, example in examples
    )
    return str(Markup(_static("sidebar.html")).format(examples=buttons, source=source))
