"""How the page looks: the viewer's colours under Gradio's names, and fonts that need no download."""

from __future__ import annotations

import gradio as gr


def theme() -> gr.themes.Base:
    """Gradio's plain theme in the viewer's colours, with the fonts of the visitor's own machine."""
    base = gr.themes.Base(
        radius_size=gr.themes.sizes.radius_md,
        font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"],
        font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"],
    )
    colours = {name: light for name, (light, _) in _COLOURS.items()}
    colours |= {f"{name}_dark": dark for name, (_, dark) in _COLOURS.items() if name != "color_accent"}
    return base.set(**colours)


# Gradio's names for the viewer's colours (reports/viewer.css): light and dark. (`color_accent` has no dark one in Gradio.)
_INK, _SOFT, _LINE = ("#1d2329", "#e4e8eb"), ("#5c6670", "#9aa5af"), ("#d9dee3", "#343c44")
_GROUND, _RAISED, _ACCENT = ("#fff", "#14181c"), ("#f5f7f8", "#1d2329"), ("#0b5c8f", "#7cc4f2")
_COLOURS = {
    "body_background_fill": _GROUND,
    "body_text_color": _INK,
    "body_text_color_subdued": _SOFT,
    "background_fill_primary": _GROUND,
    "background_fill_secondary": _RAISED,
    "block_background_fill": _GROUND,
    "block_border_color": _LINE,
    "block_label_text_color": _SOFT,
    "block_title_text_color": _INK,
    "block_info_text_color": _SOFT,
    "border_color_primary": _LINE,
    "border_color_accent": _ACCENT,
    "color_accent": _ACCENT,
    "input_background_fill": _GROUND,
    "input_border_color": _SOFT,
    "input_border_color_focus": _ACCENT,
    "input_placeholder_color": _SOFT,
    "checkbox_background_color_selected": (_ACCENT[0], "#2f8ac0"),
    "checkbox_border_color_selected": _ACCENT,
    "checkbox_label_background_fill": _GROUND,
    "checkbox_label_background_fill_selected": _RAISED,
    "checkbox_label_border_color": _LINE,
    "checkbox_label_text_color_selected": _INK,
    "button_primary_background_fill": _ACCENT,
    "button_primary_background_fill_hover": ("#0a4d78", "#9bd3f6"),
    "button_primary_text_color": ("#fff", "#10181e"),
    "button_secondary_background_fill": _GROUND,
    "button_secondary_background_fill_hover": _RAISED,
    "button_secondary_border_color": _LINE,
    "button_secondary_text_color": _INK,
}
