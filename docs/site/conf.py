"""How Sphinx builds the site, from what `vars_core.pipeline.site` lays out beside this file."""

import re

from docutils import nodes
from latex2mathml.converter import convert

project = "Securing visually-aware recommenders"
author = "the authors"
extensions = ["myst_nb", "sphinx.ext.autodoc"]
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # they are shown as the pipeline executed them
nb_output_stderr = "remove"
autodoc_member_order = "bysource"
exclude_patterns = ["static"]
html_theme = "furo"
html_title = project
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_math_renderer = "mathml"  # browsers show it by themselves: no script, nothing fetched
# tables that pages link to are pages of their own
suppress_warnings = ["myst.header", "myst.xref_missing", "mystnb.unknown_mime_type", "toc.not_included"]


def _inline(self, node):
    self.body.append(convert(node.astext()))
    raise nodes.SkipNode


def _block(self, node):
    self.body.append(f'<div class="math">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def _plain(app, what, name, obj, options, lines):
    """Docstrings are plain text with names in single backticks; what means something to reST is escaped."""
    text = re.sub(r"([\\|*])", r"\\\1", "\n".join(lines))
    lines[:] = re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``\\ ", text).split("\n")


def setup(app):
    app.connect("autodoc-process-docstring", _plain)
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True}
