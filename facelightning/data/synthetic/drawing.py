"""From attributes, an identity and a seed to an image, its masks and its landmarks."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from facelightning.data.synthetic import features, head
from facelightning.data.synthetic.canvas import HEIGHT, WIDTH, Canvas
from facelightning.data.synthetic.parameters import Sketch, lerp, noise_bank, sample_identity, sample_shot
from facelightning.labels import ATTRIBUTES

DRAWING_VERSION = 1
"""Incremented whenever the same arguments give a different drawing than before."""


@dataclass(frozen=True)
class CartoonFace:
    """A drawn face and its ground truth.

    Args:
        image: RGB, ``(218, 178, 3)``.
        masks: ``(11, 218, 178)``, soft masks of the classes of :data:`~facelightning.labels.HELEN11`; they sum to 255
            in every pixel.
        person: ``(218, 178)``, a soft mask of the head and all that is worn, down to the shoulders.
        landmarks: ``(5, 2)``, x and y in pixels of left eye, right eye, nose tip, left and right mouth corner; left is
            the image's left.
    """

    image: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    person: NDArray[np.uint8]
    landmarks: NDArray[np.float32]


def draw_face(attributes: NDArray[np.bool_], identity: int, seed: int, ageing: float | None = None) -> CartoonFace:
    """Draw a face that is aligned like CelebA's aligned images: eyes near (69, 112) and (109, 112).

    The same arguments give the same bytes. Randomness depends on ``identity`` and ``seed`` alone, so switching
    one attribute changes only what that attribute draws.

    Args:
        attributes: ``(40,)`` in the order of :data:`~facelightning.labels.ATTRIBUTES`; True where the face has it.
        identity: Number of the identity; sets the shape of the head, the tone of the skin and the like. Not negative.
        seed: Number of the image; sets pose, light, background, clothes and noise. Not negative.
        ageing: How much wrinkles and skin show of age, in [0, 1]; if not given, nothing of who is ``Young`` and 1 of
            others.

    Raises:
        ValueError: If ``attributes`` does not hold 40 values, or a number is negative.

    Example:
        >>> face = draw_face(np.zeros(40, bool), identity=1, seed=2)
        >>> face.image.shape, face.masks.shape, face.landmarks.shape
        ((218, 178, 3), (11, 218, 178), (5, 2))
    """
    if attributes.shape != (len(ATTRIBUTES),):
        raise ValueError(f"attributes has shape {attributes.shape}, expected ({len(ATTRIBUTES)},)")
    has = dict(zip(ATTRIBUTES, attributes.tolist(), strict=True))
    rng = np.random.default_rng([identity, seed, 1])
    shot = sample_shot(rng)
    freckles = rng.random((16, 2)) * (68, 26) - (34, -9)
    angle, scale = np.deg2rad(lerp(-5, 5, shot.rotation)), lerp(0.95, 1.05, shot.scale)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    x, y = 89 + lerp(-3, 3, shot.shift_x), 112 + lerp(-3, 3, shot.shift_y)
    canvas = Canvas(_background(rng), pose=np.array([[cos, -sin, x], [sin, cos, y]]))
    ageing = float(not has["Young"]) if ageing is None else ageing
    sketch = Sketch(canvas, has, sample_identity(identity), shot, ageing)

    head.draw_back_hair(sketch)
    head.draw_neck(sketch)
    skull = head.draw_head(sketch)
    features.draw_skin(sketch, skull, freckles)
    features.draw_beard(sketch, skull)
    features.draw_mouth(sketch)
    features.draw_mustache(sketch)
    features.draw_nose(sketch)
    features.draw_eyes(sketch)
    features.draw_eyebrows(sketch)
    head.draw_hair(sketch)
    features.draw_glasses(sketch)
    head.draw_hat(sketch)
    head.draw_earrings(sketch)

    left_eye, right_eye = features.eye_centres(sketch)
    landmarks = np.array([left_eye, right_eye, features.nose_tip(sketch), *features.mouth_curve(sketch)[0][[0, -1]]])
    return CartoonFace(_photograph(sketch, rng), *canvas.masks(), canvas.place(landmarks).astype(np.float32))


def _background(rng: np.random.Generator) -> NDArray[np.float32]:
    """Out-of-focus clutter: a colour field with boxes, discs and bars, ``(3, 218, 178)``."""
    height, width = HEIGHT // 2, WIDTH // 2  # half the resolution is sharp enough behind a face
    grey = rng.uniform(50, 210)
    base = grey + rng.normal(0, 22, 3)
    field = np.clip(base + rng.normal(0, 22, (4, 4, 3)), 0, 255).astype(np.uint8)
    image = cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC)
    count = int(rng.integers(4, 12))
    places = (rng.random((count, 4)) * (width + 20, height + 20, 30, 40) + (-10, -10, 4, 4)).astype(int).tolist()
    colours = np.clip(base + rng.normal(0, 45, (count, 3)), 0, 255).tolist()
    for kind, (x, y, wide, high), colour in zip(rng.integers(0, 3, count).tolist(), places, colours, strict=True):
        if kind == 0:
            cv2.rectangle(image, (x, y), (x + wide, y + high), colour, -1)
        elif kind == 1:
            cv2.circle(image, (x, y), wide // 2, colour, -1, cv2.LINE_AA)
        else:
            cv2.line(image, (x, y), (x + 4 * (wide - 17), y + 3 * (high - 22)), colour, 2 + wide // 8, cv2.LINE_AA)
    if rng.random() < 0.7:
        image = cv2.blur(image, (5, 5))
    image = cv2.resize(image, (WIDTH, HEIGHT))
    return np.stack(cv2.split(image)).astype(np.float32)


def _photograph(sketch: Sketch, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The finished drawing with light from one side, blur, and sensor noise, ``(218, 178, 3)``."""
    image, shot = sketch.canvas.image, sketch.shot
    angle, strength = 2 * np.pi * shot.light_angle, lerp(0.02, 0.2, shot.light_strength)
    x, y = np.linspace(-1, 1, WIDTH, dtype=np.float32), np.linspace(-1, 1, HEIGHT, dtype=np.float32)
    across = np.float32(strength * np.cos(angle)) * x
    down = np.float32(lerp(0.88, 1.08, shot.brightness)) + np.float32(strength * np.sin(angle)) * y
    warmth = lerp(-0.05, 0.05, shot.light_warmth)
    image *= across + down[:, None]
    image *= np.array([1 + warmth, 1, 1 - warmth], np.float32)[:, None, None]
    image = cv2.merge(list(image))
    if sketch.has["Blurry"]:
        image = cv2.GaussianBlur(image, (0, 0), 2.6)
    top, left = rng.integers(0, 64, 2).tolist()
    grain = noise_bank()[top : top + HEIGHT, left : left + WIDTH]
    noisy = cv2.addWeighted(image, 1, grain, lerp(1.5, 6, shot.noise), 0, dtype=cv2.CV_8U)
    return np.asarray(noisy, dtype=np.uint8)
