"""How Sphinx builds these pages: `make docs`."""

from importlib.metadata import version as installed_version

project = "Folkmoot"
author = "The Folkmoot authors"
version = release = installed_version("folkmoot")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"Folkmoot {version}"
html_show_copyright = False
html_show_sphinx = False

myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
