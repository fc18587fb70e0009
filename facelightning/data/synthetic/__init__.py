"""Cartoon faces: each of the 40 attributes drawn in its own place, with exact soft masks; and data sets of them.

They stand in for photographs where there are none yet, without a licence to accept or a person to recognise:
:func:`sample_attributes` samples a face's attributes, :func:`draw_face` draws it, :func:`draw_scene` puts faces into a
picture of other things, :func:`draw_object` an object that is none. :func:`write_people` draws persons of known age.
"""

from facelightning.data.synthetic.attributes import sample_attributes
from facelightning.data.synthetic.dataset import write_synthetic
from facelightning.data.synthetic.drawing import DRAWING_VERSION, CartoonFace, draw_face
from facelightning.data.synthetic.objects import OBJECTS, draw_object, write_objects
from facelightning.data.synthetic.people import TONES, write_people
from facelightning.data.synthetic.scenes import Scene, draw_scene, write_scenes

__all__ = [
    "DRAWING_VERSION", "OBJECTS", "TONES", "CartoonFace", "Scene", "draw_face", "draw_object", "draw_scene",
    "sample_attributes", "write_objects", "write_people", "write_scenes", "write_synthetic",
]  # fmt: skip
