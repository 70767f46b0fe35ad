"""How Sphinx builds the slides, from what `vars_core.pipeline.slides` lays out beside this file."""

from docutils import nodes
from latex2mathml.converter import convert

project = "Securing visually-aware recommenders"
author = "the authors"
extensions = ["myst_parser", "sphinx_revealjs"]
myst_enable_extensions = ["dollarmath", "attrs_inline"]
suppress_warnings = ["toc.not_included"]
revealjs_style_theme = "white"  # its fonts come along: nothing is fetched
revealjs_css_files = ["slides.css"]
revealjs_static_path = ["static"]
revealjs_script_conf = {"hash": True, "slideNumber": True, "transition": "none", "width": 1280, "height": 760}


def _inline(self, node):
    self.body.append(convert(node.astext()))
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (_inline, None), (_inline, None))
    return {"parallel_read_safe": True}


html_math_renderer = "mathml"
