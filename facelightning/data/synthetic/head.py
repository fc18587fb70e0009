"""The parts around the features: head, ears, neck, clothes, hair, hat and jewellery."""

import numpy as np
from numpy.typing import ArrayLike

from facelightning.data.synthetic.canvas import Points, Stencil, brush, dots, ellipse, mirror, ripple, smooth, symmetric
from facelightning.data.synthetic.parameters import CLOTHS, Sketch, blend, lerp, pick, rgb

_METALS = (rgb(240, 200, 70), rgb(225, 228, 235), rgb(240, 120, 140), rgb(80, 190, 200))


def draw_neck(sketch: Sketch) -> None:
    """Neck, clothes, and what is worn around the neck: background in Helen's labels."""
    canvas, has, shot = sketch.canvas, sketch.has, sketch.shot
    wide = 27.0 if has["Male"] else 21.0
    slope = 100.0 if has["Male"] else 106.0  # broad shoulders start higher
    cloth = pick(CLOTHS, shot.cloth_colour) * np.float32(lerp(0.7, 1.1, shot.cloth_shade))
    body = canvas.stencil(smooth(symmetric([(-wide, 30), (-wide, 74), (-wide - 22, 96), (-60, 130)])))
    canvas.paint(body, sketch.skin * rgb(0.93, 0.9, 0.88), "background")
    shadow = canvas.stencil(ellipse(0, 66, wide + 8, 13), blur=3).within(body)
    canvas.paint(shadow, sketch.skin_shadow, opacity=0.55)
    dip = lerp(91, 104, shot.neckline)
    shoulder = [(-150, 135), (-100, slope + 4), (-wide - 18, 89), (-wide - 4, 82)]
    shirt = smooth(symmetric([*shoulder, (-wide * 0.55, dip - 4), (0, dip)]))
    canvas.paint(canvas.stencil(shirt), cloth, "background")
    if has["Wearing_Necklace"]:
        _draw_necklace(sketch, wide)
    if has["Wearing_Necktie"]:
        _draw_necktie(sketch, wide)


def _draw_necklace(sketch: Sketch, wide: float) -> None:
    canvas, metal = sketch.canvas, pick(_METALS, sketch.shot.jewel_colour)
    x = np.linspace(-1, 1, 11)
    beads = np.stack([wide * 0.98 * x, 95 - 17 * x**2], axis=1)
    pendant = ellipse(0, 99, 5, 6)
    canvas.paint(canvas.stencil(*dots(beads + (0, 0.8), 3.2)), rgb(60, 40, 30), opacity=0.6)
    canvas.paint(canvas.stencil(*dots(beads, 2.7)), metal, "background")
    canvas.paint(canvas.stencil(pendant, ellipse(0, 99, 2.4, 3.2)), metal * 0.8, "background")


def _draw_necktie(sketch: Sketch, wide: float) -> None:
    canvas, shot = sketch.canvas, sketch.shot
    tie = pick(CLOTHS[::-1], shot.tie_colour)
    white, line = rgb(242, 242, 246), rgb(150, 152, 165)
    shoulders = [(wide + 7, 92), (22, 122), (-22, 122), (-wide - 7, 92)]
    collar = np.array([(-wide - 3, 76), (0, 84), (wide + 3, 76), *shoulders])
    canvas.paint(canvas.stencil(collar), white, "background")
    left = np.array([(-wide - 3, 75), (-3, 84), (-15, 99), (-wide - 7, 88)])
    flaps = left, mirror(left)
    canvas.paint(canvas.stencil(*(flap + (0, 1.5) for flap in flaps)), line, "background")
    canvas.paint(canvas.stencil(*flaps), white * 0.97, "background")
    blade = np.array([(-5, 91), (5, 91), (12, 125), (-12, 125)])
    knot = np.array([(-8, 81), (8, 81), (5, 93), (-5, 93)])
    canvas.paint(canvas.stencil(blade), tie, "background")
    stripes = [np.array([(-14, y), (14, y - 9), (14, y - 5.5), (-14, y + 3.5)]) for y in (103, 114, 125)]
    canvas.paint(canvas.stencil(*stripes).within(canvas.stencil(blade)), blend(tie, white, 0.6))
    canvas.paint(canvas.stencil(knot), tie * 0.8, "background")


def draw_head(sketch: Sketch) -> Stencil:
    """Ears and head; the head's stencil is what paint on the skin stays within."""
    canvas, has, skin, identity = sketch.canvas, sketch.has, sketch.skin, sketch.identity
    wide = lerp(0.95, 1.05, identity.head_width)
    size = lerp(0.85, 1.2, identity.ear_size)
    ear, inner = ellipse(44 * wide + 2, 8, 7 * size, 13 * size), ellipse(44 * wide + 2.5, 7, 3.5 * size, 8 * size)
    canvas.paint(canvas.stencil(ear, mirror(ear)), skin * rgb(0.95, 0.88, 0.86), "background")
    canvas.paint(canvas.stencil(inner, mirror(inner)), sketch.skin_shadow, opacity=0.45)
    fat, oval, male = has["Chubby"], has["Oval_Face"], has["Male"]
    temple = [(0, -65), (27 * wide, -57), (41 * wide, -33), (44 * wide, -4)]
    cheek = 42.5 * wide + 5 * fat - 2 * oval
    jaw = 35 * wide + lerp(-2, 2, identity.jaw_width) + 10 * fat - 7.5 * oval + 2.5 * male
    chin_width = 18 + 8 * fat - 4 * oval + 4 * male
    chin = lerp(63.5, 67, identity.chin_length) + 4 * oval
    outline = smooth(symmetric([*temple, (cheek, 20), (jaw, 44), (chin_width, chin - 4.5), (0, chin)]))
    if has["Double_Chin"]:
        low = outline[:, 1].max()
        fold = canvas.stencil(smooth(symmetric([(30, low - 22), (26, low), (13, low + 9), (0, low + 12)])))
        canvas.paint(fold, skin * rgb(0.96, 0.93, 0.92), "face_skin")
        crease = brush(symmetric([(-28, low - 6), (-15, low + 8), (0, low + 11)]), 3.5)
        canvas.paint(canvas.stencil(crease).within(fold), sketch.skin_shadow, opacity=0.75)
        edge = brush(symmetric([(-27, low - 9), (-14, low + 1), (0, low + 3)]), 4.5)
        canvas.paint(canvas.stencil(edge, blur=1).within(fold), sketch.skin_shadow, opacity=0.8)
    head = canvas.stencil(outline)
    canvas.paint(head, skin * rgb(0.86, 0.79, 0.76), "face_skin")
    # A smaller, blurred head in the full colour leaves a darker rim: the face looks round.
    canvas.paint(canvas.stencil(outline * (0.95, 0.97), blur=3).within(head), skin)
    return head


def _strands(sketch: Sketch) -> str:
    return "straight" if sketch.has["Straight_Hair"] else "wavy" if sketch.has["Wavy_Hair"] else "tousled"


def _is_long(sketch: Sketch) -> bool:
    return bool(sketch.identity.hair_length < (0.12 if sketch.has["Male"] else 0.85))


def _lock(sketch: Sketch, line: ArrayLike, amplitude: float = 4.0) -> Points:
    """One edge of the hair: calm, or in waves."""
    edge = smooth(line, closed=False)
    return ripple(edge, amplitude, 15, sketch.identity.hair_tone) if sketch.has["Wavy_Hair"] else edge


def draw_back_hair(sketch: Sketch) -> None:
    """Long hair behind neck and shoulders."""
    if sketch.has["Bald"] or not _is_long(sketch):
        return
    canvas = sketch.canvas
    reach = lerp(45, 104, sketch.identity.hair_reach)
    x = 53 + lerp(0, 7, sketch.identity.hair_volume)
    left = _lock(sketch, [(-x * 0.45, reach), (-x, reach - 3), (-x - 1, 25), (-x, -20), (-x * 0.75, -56)])
    right = _lock(sketch, [(x * 0.75, -56), (x, -20), (x + 1, 25), (x, reach - 3), (x * 0.45, reach)])
    back = canvas.stencil(np.concatenate([left, right]))
    canvas.paint(back, sketch.hair * 0.72, "hair", texture=sketch.texture(_strands(sketch)))


def draw_hair(sketch: Sketch) -> None:
    """Hair over the skull, locks beside a face with long hair, and bangs."""
    canvas, has, identity = sketch.canvas, sketch.has, sketch.identity
    if has["Bald"]:
        return
    texture = sketch.texture(_strands(sketch))
    volume = lerp(0, 9, identity.hair_volume)
    wide = lerp(0.95, 1.05, identity.head_width)
    left = [(-47, 6), (-49 - volume / 3, -20), (-44 - volume / 2, -52), (-24, -70 - volume)]
    outer = symmetric([*left, (0, -74 - volume)])
    if has["Receding_Hairline"]:
        temple = [(41, 5), (40, -16), (37, -36), (27, -51), (13, -57)]
        brow = (0.0, -50.0)
    else:
        temple = [(41, 5), (40, -14), (35, -30), (22, -39)]
        brow = (lerp(-16, 16, identity.hair_parting), -45.0)
    inner = [*temple, brow, *((-x, y) for x, y in temple[::-1])]
    scale = wide, 1.0
    cap = canvas.stencil(np.concatenate([_lock(sketch, outer, 3.0), smooth(inner, closed=False)]) * scale)
    canvas.paint(cap, sketch.hair, "hair", texture=texture)
    shine = brush(symmetric([(-40, -36), (-26, -56), (0, -63)]), 8)
    canvas.paint(canvas.stencil(shine, blur=2).within(cap), blend(sketch.hair, rgb(255, 250, 240), 0.5), opacity=0.35)
    if _is_long(sketch):
        reach = lerp(45, 104, identity.hair_reach)
        x = 53 + lerp(0, 7, identity.hair_volume)
        hang = _lock(sketch, [(41, -34), (x - 1, -10), (x, 25), (x, reach - 2), (x * 0.8, reach + 2)])
        face = 5.0 if has["Chubby"] else 0.0  # full cheeks push the hair aside
        inside = _lock(sketch, [(35, reach + 1), (39 + face, 50), (42 + face, 20), (40, -10), (35, -32)], 2.5)
        lock = np.concatenate([hang, inside]) * scale
        canvas.paint(canvas.stencil(lock, mirror(lock)), sketch.hair * 0.94, "hair", texture=texture)
    if has["Bangs"]:
        slant = lerp(-4, 4, identity.hair_parting)
        fringe = symmetric([(-41, -12), (-45, -38), (-30, -58), (0, -64)])
        tips = np.linspace(38, -38, 13)
        ends = np.stack([tips, -17 + slant * tips / 38 + np.where(np.arange(13) % 2, -5.0, 1.0)], axis=1)
        bangs = np.concatenate([smooth(fringe, closed=False), ends]) * scale
        canvas.paint(canvas.stencil(bangs + (0, 3), blur=1), sketch.skin_shadow, opacity=0.3)
        canvas.paint(canvas.stencil(bangs), sketch.hair * 1.06, "hair", texture=texture)


def draw_hat(sketch: Sketch) -> None:
    """A brimmed hat or a knitted cap: background in Helen's labels, over hair and forehead."""
    if not sketch.has["Wearing_Hat"]:
        return
    canvas, shot = sketch.canvas, sketch.shot
    colour = pick(CLOTHS, shot.hat_colour)
    dark = colour * 0.62
    dome = [*symmetric([(-51, -30), (-52, -56), (-40, -84), (0, -93)]), (0, -38)]
    crown = canvas.stencil(smooth(dome))
    canvas.paint(crown, colour, "background")
    light = canvas.stencil(ellipse(-16, -72, 16, 14), blur=4).within(crown)
    canvas.paint(light, blend(colour, rgb(255, 255, 255), 0.5), opacity=0.5)
    if shot.hat_kind < 0.5:
        band = brush(symmetric([(-52, -42), (-26, -51), (0, -54)]), 11, taper=0.1)
        canvas.paint(canvas.stencil(band).within(crown), dark)
        brim = smooth([(-76, -34), (-40, -44), (0, -47), (40, -44), (76, -34), (40, -31), (0, -33), (-40, -31)])
        canvas.paint(canvas.stencil(brim), colour * 0.85, "background")
    else:
        fold = smooth([(-54, -28), (-54, -46), (0, -57), (54, -46), (54, -28), (0, -38)])
        canvas.paint(canvas.stencil(fold), dark, "background")
        ribs = [np.array([(x - 1.5, -52), (x + 1.5, -52), (x + 1.5, -30), (x - 1.5, -30)]) for x in range(-48, 49, 8)]
        canvas.paint(canvas.stencil(*ribs).within(canvas.stencil(fold)), colour)


def draw_earrings(sketch: Sketch) -> None:
    """Hoops, drops or studs at the lobes, over long hair too."""
    if not sketch.has["Wearing_Earrings"]:
        return
    canvas, shot = sketch.canvas, sketch.shot
    metal = pick(_METALS, shot.jewel_colour)
    x = 46 * lerp(0.95, 1.05, sketch.identity.head_width) + 1
    if shot.earring_kind < 0.4:
        jewel = [ellipse(x, 31, 8, 9.5), ellipse(x, 31, 5, 6.5)]
    elif shot.earring_kind < 0.75:
        jewel = [np.array([(x - 2, 20), (x + 2, 20), (x + 6.5, 40), (x, 45), (x - 6.5, 40)])]
    else:
        jewel = [ellipse(x, 23, 6, 6)]
    both = [*jewel, *map(mirror, jewel)]
    canvas.paint(canvas.stencil(*(outline + (0.8, 1.5) for outline in both)), rgb(40, 30, 30), opacity=0.6)
    canvas.paint(canvas.stencil(*both), metal, "background")
