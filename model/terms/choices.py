"""The names of the terms' forms. Torch is not imported, so that a command line is read quickly."""

from __future__ import annotations

AIM_FORMS = ("none", "paper", "released")
ISIA_FORMS = ("paper", "released", "contrast")
IMAGE_LEVELS = ("none", "lab", "fda")
PSEUDO_SELECTIONS = ("class", "image")
