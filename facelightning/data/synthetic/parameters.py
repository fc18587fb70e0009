"""The random traits of a drawing that express no attribute: those of the identity and those of the shot."""

from collections import namedtuple
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from facelightning.data.synthetic.canvas import HEIGHT, WIDTH, Canvas, Colour

Identity = namedtuple(
    "Identity",
    """skin_tone skin_warmth head_width jaw_width chin_length eye_distance eye_size eye_colour brow_height brow_tone
    nose_width nose_length mouth_width mouth_height lip_tone ear_size hair_tone hair_hue hair_volume hair_length
    hair_reach hair_parting asymmetry""",
)
"""What stays the same in every shot of one identity; each trait in [0, 1)."""

Shot = namedtuple(
    "Shot",
    """rotation scale shift_x shift_y yaw gaze mouth_opening light_angle light_strength light_warmth brightness noise
    texture cloth_colour cloth_shade neckline tie_colour hat_kind hat_colour glasses_kind glasses_colour
    lipstick_colour shadow_colour jewel_colour earring_kind""",
)
"""What changes from shot to shot; each trait in [0, 1)."""


def sample_identity(identity: int) -> Identity:
    """The traits of an identity, from its number alone."""
    return Identity(*np.random.default_rng([identity, 0]).random(len(Identity.__match_args__)).tolist())


def sample_shot(rng: np.random.Generator) -> Shot:
    """The traits of one shot."""
    return Shot(*rng.random(len(Shot.__match_args__)).tolist())


def lerp(low: float, high: float, t: float) -> float:
    """The value a fraction ``t`` of the way from ``low`` to ``high``."""
    return low + (high - low) * t


def rgb(*channels: float) -> Colour:
    """A colour from its channels in [0, 255]."""
    return np.array(channels, dtype=np.float32)


def pick(colours: tuple[Colour, ...], t: float) -> Colour:
    """The colour that ``t`` in [0, 1) selects."""
    return colours[int(t * len(colours))]


def blend(first: Colour, second: Colour, t: float) -> Colour:
    """The colour a fraction ``t`` of the way from ``first`` to ``second``."""
    return first + (second - first) * np.float32(t)


CLOTHS = (
    rgb(200, 60, 60), rgb(60, 90, 170), rgb(50, 120, 90), rgb(235, 225, 205),
    rgb(60, 60, 70), rgb(220, 160, 60), rgb(140, 90, 160), rgb(90, 160, 180),
)  # fmt: skip
"""Colours of clothes, hats and ties."""

SKIN = (rgb(232, 180, 144), rgb(206, 148, 108), rgb(160, 106, 74), rgb(108, 70, 50))
"""Tones of skin; a face has one of them or one between two."""

HAIR = {
    "Black_Hair": rgb(34, 30, 34),
    "Blond_Hair": rgb(232, 198, 112),
    "Brown_Hair": rgb(104, 66, 38),
    "Gray_Hair": rgb(184, 184, 190),
}
OTHER_HAIR = (rgb(196, 92, 36), rgb(150, 36, 44), rgb(208, 96, 148), rgb(60, 136, 140), rgb(118, 82, 168))
"""Colours of hair that have no attribute."""


def skin_tone(identity: Identity) -> float:
    """Where an identity's skin lies in :data:`SKIN`: in [0, 3), from light to dark."""
    return float(identity.skin_tone**1.4 * (len(SKIN) - 1))


@dataclass(frozen=True)
class Sketch:
    """A drawing in progress: the canvas, the attributes by name, the traits, and the colours derived from them.

    ``ageing`` in [0, 1] says how much the skin shows of age.
    """

    canvas: Canvas
    has: Mapping[str, bool]
    identity: Identity
    shot: Shot
    ageing: float

    @cached_property
    def skin(self) -> Colour:
        """The colour of the skin."""
        place = skin_tone(self.identity)
        colour = blend(SKIN[int(place)], SKIN[int(place) + 1], place % 1)
        colour = colour * rgb(1, lerp(0.97, 1.03, self.identity.skin_warmth), 1)
        if self.ageing:
            colour = blend(colour, rgb(150, 140, 120), 0.2 * self.ageing)
        return blend(colour, rgb(253, 238, 231), 0.85) if self.has["Pale_Skin"] else colour

    @cached_property
    def skin_shadow(self) -> Colour:
        """The colour of lines and shadows on the skin."""
        return self.skin * rgb(0.62, 0.5, 0.46)

    @cached_property
    def hair(self) -> Colour:
        """The colour of the hair; ginger or dyed if no attribute names one."""
        named = [colour for name, colour in HAIR.items() if self.has[name]]
        colour = named[0] if named else pick(OTHER_HAIR, self.identity.hair_hue)
        return colour * np.float32(lerp(0.88, 1.1, self.identity.hair_tone))

    @cached_property
    def beard(self) -> Colour:
        """The colour of beard and eyebrows, independent of the hair."""
        return blend(rgb(38, 26, 20), rgb(92, 60, 38), self.identity.brow_tone)

    @property
    def turn(self) -> float:
        """How far the nose moves sideways in pixels as the head turns; eyes and mouth follow by half."""
        return lerp(-4, 4, self.shot.yaw)

    @property
    def tilt(self) -> float:
        """By how many pixels one eye and one mouth corner are lower in an asymmetric face."""
        return 0.0 if self.has["Attractive"] else (2.5 if self.identity.asymmetry < 0.5 else -2.5)

    def texture(self, kind: str) -> NDArray[np.float32]:
        """Factors of brightness, ``(218, 178)``: "straight", "wavy" or "tousled" hair, or "stubble"."""
        top, left = int(self.shot.texture * 60), int(self.shot.texture * 5003) % 60
        return _texture(kind)[top : top + HEIGHT, left : left + WIDTH]


_TEXTURES = {  # blur across and along the strands, sway and its wavelength in pixels, contrast
    "stubble": (0.8, 0.8, 0.0, 1.0, 0.3),
    "tousled": (0.9, 4.0, 6.0, 88.0, 0.11),
    "straight": (1.3, 16.0, 0.0, 1.0, 0.22),
    "wavy": (1.3, 16.0, 4.0, 20.0, 0.26),
}


@cache
def _texture(kind: str) -> NDArray[np.float32]:
    across, along, sway, wavelength, contrast = _TEXTURES[kind]
    noise = np.random.default_rng(7).standard_normal((HEIGHT + 60, WIDTH + 60), dtype=np.float32)
    strands = cv2.GaussianBlur(noise, (0, 0), sigmaX=across, sigmaY=along)
    y, x = np.mgrid[: HEIGHT + 60, : WIDTH + 60].astype(np.float32)
    bent = x + np.float32(sway) * np.sin(y * np.float32(2 * np.pi / wavelength) + x / 18)
    swaying = cv2.remap(strands, bent, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    factors: NDArray[np.float32] = np.clip(1 + contrast * swaying / swaying.std(), 0.4, 1.7, dtype=np.float32)
    return factors


@cache
def noise_bank() -> NDArray[np.float32]:
    """Gaussian noise of unit variance, from which sensor noise is cropped, ``(282, 242, 3)``."""
    return np.random.default_rng(8).standard_normal((HEIGHT + 64, WIDTH + 64, 3), dtype=np.float32)
