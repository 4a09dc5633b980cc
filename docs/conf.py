"""Settings of Sphinx. From the folder of the checkout:

sphinx-build -W --keep-going -n -c docs . output/docs

The source folder is the checkout, so that links are the same here as where people read the
repository.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

project = "detr_d2"
author = "detr_d2 contributors"
copyright = author
root_doc = "docs/index"
include_patterns = ["docs/**", "*.md"]
exclude_patterns = ["README.md", ".*", "build", "datasets", "output", "**/.ipynb_checkpoints"]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "key_reference",
]
myst_heading_anchors = 4
nb_execution_mode = "off"  # the notebook holds its outputs, which a test makes anew

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
autodoc_class_signature = "separated"
autodoc_inherit_docstrings = False  # others' aren't written for napoleon
napoleon_custom_sections = [("Returns", "params_style")]  # several values, each with its name
# What other projects define has no page here.
nitpick_ignore_regex = [(r"py:.*", r"(?!detr_d2\b).*")]
# Nor have parts that nobody is meant to import.
nitpick_ignore = [
    ("py:class", f"detr_d2.{name}")
    for name in (
        "apps.explain.explained_pixels.ExplainedPixels",
        "apps.explain.mask_head_stages.Stage",
        "apps.explain.query_rounds.ExplainedRound",
        "checkpoint.class_rows.ClassHead",
        "checkpoint.formats.NamedWeights",
        "checkpoint.pretrained_backbone.PretrainedNames",
        "data.segment_masks.SegmentMasks",
        "modeling.feature_cache.FeatureCache",
        "modeling.inference.QuerySelection",
        "modeling.three_layers.ThreeLayers",
        "modeling.upsampling.ImageSizes",
    )
]

html_theme = "furo"
html_title = "detr_d2"
html_theme_options = {"navigation_with_keys": True}
html_show_sphinx = False
html_copy_source = False
