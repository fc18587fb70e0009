"""Cartoon faces: every one of the 40 attributes drawn where it lives, with exact soft masks.

They stand in for photographs where there are none yet, without a licence to accept or a person to recognise:
:func:`sample_attributes` says what a face has, :func:`draw_face` draws it.
"""

from facelightning.data.cartoon.attributes import sample_attributes
from facelightning.data.cartoon.drawing import DRAWING_VERSION, CartoonFace, draw_face

__all__ = ["DRAWING_VERSION", "CartoonFace", "draw_face", "sample_attributes"]
