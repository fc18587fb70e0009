"""Cartoon faces: each of the 40 attributes drawn in its own place, with exact soft masks; and a data set of them.

They stand in for photographs where there are none yet, without a licence to accept or a person to recognise:
:func:`sample_attributes` samples a face's attributes, :func:`draw_face` draws it.
"""

from facelightning.data.synthetic.attributes import sample_attributes
from facelightning.data.synthetic.dataset import write_synthetic
from facelightning.data.synthetic.drawing import DRAWING_VERSION, CartoonFace, draw_face

__all__ = ["DRAWING_VERSION", "CartoonFace", "draw_face", "sample_attributes", "write_synthetic"]
