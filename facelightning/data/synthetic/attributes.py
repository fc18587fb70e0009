"""Forty attributes that go together as CelebA's do."""

import numpy as np
from numpy.typing import NDArray

from facelightning.labels import ATTRIBUTES

_Flags = dict[str, bool]


def sample_attributes(rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw the attributes of one face.

    Base rates follow CelebA's [1]_, raised to at least 6 %, so that a small split holds positives of each. What
    excludes what is exact: beards and neckties need ``Male``; make-up and lipstick exclude it; a bald head has
    neither colour, cut nor fringe of hair, and wears no hat; hair has at most one colour; ``No_Beard`` means none of
    the four kinds of beard.

    Args:
        rng: The source of randomness; the same number of draws is taken whatever they come to.

    Shape:
        - return: ``(40,)`` in the order of :data:`~facelightning.labels.ATTRIBUTES`.

    Example:
        >>> attributes = sample_attributes(np.random.default_rng(0))
        >>> attributes.shape, attributes.dtype
        ((40,), dtype('bool'))

    .. [1] Liu, Luo, Wang, Tang, "Deep Learning Face Attributes in the Wild", ICCV 2015.
    """
    dice: dict[str, float] = dict(zip((*ATTRIBUTES, "beard"), rng.random(len(ATTRIBUTES) + 1).tolist(), strict=True))

    male = dice["Male"] < 0.42
    young = dice["Young"] < (0.66 if male else 0.86)
    has = {"Male": male, "Young": young}

    def draw(name: str, chance: float) -> bool:
        outcome = dice[name] < chance
        has[name] = outcome
        return outcome

    _draw_hair(has, dice)
    bearded = male and dice["beard"] < 0.4
    kinds = [
        draw("5_o_Clock_Shadow", 0.62 * bearded),
        draw("Goatee", 0.45 * bearded),
        draw("Mustache", 0.42 * bearded),
        draw("Sideburns", 0.42 * bearded),
    ]
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


def _draw_hair(has: _Flags, dice: dict[str, float]) -> None:
    male, young = has["Male"], has["Young"]
    bald = male and dice["Bald"] < (0.1 if young else 0.32)
    hat = not bald and dice["Wearing_Hat"] < 0.085
    receding_chance = (0.12 if young else 0.4) if male else (0.04 if young else 0.14)
    receding = not (bald or hat) and dice["Receding_Hairline"] < receding_chance
    bangs = not (bald or receding) and dice["Bangs"] < (0.09 if male else 0.22)

    grey = not bald and dice["Gray_Hair"] < (0.01 if young else 0.38)
    black = not (bald or grey) and dice["Black_Hair"] < 0.3
    brown = not (bald or grey or black) and dice["Brown_Hair"] < 0.34
    blond = not (bald or grey or black or brown) and dice["Blond_Hair"] < (0.16 if male else 0.55)

    straight = not bald and dice["Straight_Hair"] < 0.23
    wavy = not (bald or straight) and dice["Wavy_Hair"] < (0.22 if male else 0.56)
    has.update(Bald=bald, Wearing_Hat=hat, Receding_Hairline=receding, Bangs=bangs)
    has.update(Gray_Hair=grey, Black_Hair=black, Brown_Hair=brown, Blond_Hair=blond)
    has.update(Straight_Hair=straight, Wavy_Hair=wavy)
