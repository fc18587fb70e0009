"""Sampling of the 40 attributes, which depend on each other as in CelebA."""

import numpy as np
from numpy.typing import NDArray

from facelightning.labels import ATTRIBUTES


def sample_attributes(rng: np.random.Generator) -> NDArray[np.bool_]:
    """Sample the attributes of one face.

    Base rates follow CelebA's (Liu et al., ICCV 2015), raised to at least 6 %, so that a small split has positives of
    each. Mutual exclusions are exact: beards and neckties need ``Male``; make-up and lipstick exclude it; a bald head
    has neither colour, cut nor fringe of hair, and wears no hat; hair has at most one colour; ``No_Beard`` means none
    of the four kinds of beard.

    Args:
        rng: The source of randomness; the number of draws does not depend on their results.

    Shape:
        - return: ``(40,)`` in the order of :data:`~facelightning.labels.ATTRIBUTES`.

    Example:
        >>> attributes = sample_attributes(np.random.default_rng(0))
        >>> attributes.shape, attributes.dtype
        ((40,), dtype('bool'))
    """
    dice: dict[str, float] = dict(zip((*ATTRIBUTES, "beard"), rng.random(len(ATTRIBUTES) + 1).tolist(), strict=True))
    has: dict[str, bool] = {}

    def draw(name: str, chance: float) -> bool:
        has[name] = dice[name] < chance
        return has[name]

    male = draw("Male", 0.42)
    young = draw("Young", 0.66 if male else 0.86)

    bald = draw("Bald", (0.1 if young else 0.32) * male)
    hat = draw("Wearing_Hat", 0.085 * (not bald))
    receding_chance = (0.12 if young else 0.4) if male else (0.04 if young else 0.14)
    receding = draw("Receding_Hairline", receding_chance * (not (bald or hat)))
    draw("Bangs", (0.09 if male else 0.22) * (not (bald or receding)))
    grey = draw("Gray_Hair", (0.01 if young else 0.38) * (not bald))
    black = draw("Black_Hair", 0.3 * (not (bald or grey)))
    brown = draw("Brown_Hair", 0.34 * (not (bald or grey or black)))
    draw("Blond_Hair", (0.16 if male else 0.55) * (not (bald or grey or black or brown)))
    straight = draw("Straight_Hair", 0.23 * (not bald))
    draw("Wavy_Hair", (0.22 if male else 0.56) * (not (bald or straight)))

    bearded = male and dice["beard"] < 0.4
    chances = {"5_o_Clock_Shadow": 0.62, "Goatee": 0.45, "Mustache": 0.42, "Sideburns": 0.42}
    kinds = [draw(name, chance * bearded) for name, chance in chances.items()]
    has["5_o_Clock_Shadow"] |= bearded and not any(kinds)
    has["No_Beard"] = not bearded

    makeup = draw("Heavy_Makeup", 0.0 if male else 0.7 if young else 0.5)
    draw("Wearing_Lipstick", 0.0 if male else 0.92 if makeup else 0.45)
    draw("Rosy_Cheeks", 0.14 if makeup else 0.04)
    draw("Attractive", (0.38 if young else 0.1) if male else (0.72 if young else 0.35))
    draw("Pale_Skin", 0.08)
    draw("Blurry", 0.08)

    chubby = draw("Chubby", 0.05 + 0.04 * male + 0.06 * (not young))
    draw("Double_Chin", 0.6 if chubby else 0.04)
    draw("Oval_Face", 0.1 if chubby else 0.3)
    draw("Bags_Under_Eyes", (0.28 if male else 0.12) + 0.1 * (not young))
    draw("Narrow_Eyes", 0.12)
    draw("Arched_Eyebrows", 0.08 if male else 0.41)
    draw("Bushy_Eyebrows", 0.25 if male else 0.07)
    big_nose = draw("Big_Nose", 0.4 if male else 0.11)
    draw("Pointy_Nose", 0.16 if big_nose else 0.31)
    draw("Big_Lips", 0.18 if male else 0.28)

    smiling = draw("Smiling", 0.41 if male else 0.53)
    draw("Mouth_Slightly_Open", 0.7 if smiling else 0.28)
    draw("High_Cheekbones", 0.72 if smiling else 0.2)

    draw("Eyeglasses", (0.09 if male else 0.05) + 0.06 * (not young))
    draw("Wearing_Earrings", 0.03 if male else 0.31)
    tie = draw("Wearing_Necktie", 0.18 if male else 0.0)
    draw("Wearing_Necklace", 0.0 if tie else 0.03 if male else 0.2)
    return np.array([has[name] for name in ATTRIBUTES])
