"""The features of the face: skin, beard, nose, mouth, eyes, eyebrows and glasses."""

import numpy as np

from facelightning.data.synthetic.canvas import Points, Stencil, brush, dots, ellipse, mirror, smooth, symmetric
from facelightning.data.synthetic.parameters import Sketch, blend, lerp, pick, rgb

_IRISES = (rgb(96, 60, 34), rgb(60, 110, 170), rgb(70, 130, 80), rgb(50, 36, 28), rgb(120, 130, 140))
_LIPSTICKS = (rgb(205, 18, 50), rgb(214, 30, 120), rgb(160, 16, 70), rgb(232, 70, 60))
_EYE_SHADOWS = (rgb(120, 60, 170), rgb(40, 90, 180), rgb(30, 130, 130), rgb(150, 50, 90))


def draw_skin(sketch: Sketch, head: Stencil, freckles: Points) -> None:
    """What lies on the skin: cheeks, wrinkles, bags, eye shadow, freckles."""
    canvas, has = sketch.canvas, sketch.has
    dark, light = sketch.skin_shadow, blend(sketch.skin, rgb(255, 244, 228), 0.65)

    def both(outline: Points, blur: float) -> Stencil:
        return canvas.stencil(outline, mirror(outline), blur=blur).within(head)

    if has["High_Cheekbones"]:
        canvas.paint(both(smooth([(19, 30), (27, 23), (39, 13), (38, 30), (31, 44), (25, 46)]), 3), dark, opacity=0.42)
        canvas.paint(both(smooth([(14, 20), (26, 10), (40, 3), (40, 10), (27, 19), (17, 25)]), 2), light, opacity=0.62)
    if has["Rosy_Cheeks"]:
        canvas.paint(both(ellipse(26, 23, 12, 10), 3), rgb(240, 62, 72), opacity=0.62)
    if sketch.ageing:
        forehead = [brush(symmetric([(-x, y + 2), (0, y - 1)]), 2.8) for y, x in ((-33, 20), (-26, 24), (-19, 21))]
        crows_feet = [brush(line, 2.6) for line in ([(32, -2), (40, -7)], [(32, 3), (40, 6)])]
        sides = [brush([(12, 20), (20, 30), (23, 42)], 3.4), *crows_feet]
        wrinkles = canvas.stencil(*forehead, *sides, *map(mirror, sides)).within(head)
        canvas.paint(wrinkles, dark, opacity=0.72 * sketch.ageing)
    if not has["Attractive"]:
        canvas.paint(canvas.stencil(*dots(freckles, 1.8)).within(head), dark, opacity=0.5)
    eyes = eye_centres(sketch)
    if has["Bags_Under_Eyes"]:
        pouch = smooth([(-11, 7), (0, 10), (11, 7), (9, 15), (0, 18), (-9, 15)])
        canvas.paint(canvas.stencil(*(pouch + eye for eye in eyes), blur=1).within(head), dark, opacity=0.6)
        fold = brush([(-10, 14), (0, 18), (10, 14)], 2.5)
        canvas.paint(canvas.stencil(*(fold + eye for eye in eyes)).within(head), dark, opacity=0.8)
    if has["Heavy_Makeup"]:
        lid = smooth([(-13, 0), (-7, -12), (6, -14), (13, -5), (12, 3), (0, 9)])
        shadow = canvas.stencil(*_at_eyes(sketch, lid), blur=1.5).within(head)
        canvas.paint(shadow, pick(_EYE_SHADOWS, sketch.shot.shadow_colour), opacity=0.72)


def draw_beard(sketch: Sketch, head: Stencil) -> None:
    """Stubble and hair on cheeks and chin: face skin in Helen's labels."""
    canvas, has = sketch.canvas, sketch.has
    stubble, strands = sketch.texture("stubble"), sketch.texture("tousled")
    if has["5_o_Clock_Shadow"]:
        side = np.array([(48, 14), (34, 22), (22, 30), (10, 30), (0, 31)])
        area = np.concatenate([side, mirror(side[-2::-1]), [(-48, 44), (-26, 74), (26, 74), (48, 44)]])
        shade = canvas.stencil(area, blur=2).within(head)
        canvas.paint(shade, blend(sketch.beard, sketch.skin * rgb(0.6, 0.66, 0.72), 0.4), opacity=0.5, texture=stubble)
    if not (has["No_Beard"] or has["5_o_Clock_Shadow"] or has["Goatee"] or has["Mustache"] or has["Sideburns"]):
        outer = symmetric([(-46, 4), (-44, 22), (-40, 46), (-24, 66), (0, 71)])
        inner = symmetric([(39, 6), (35, 26), (25, 36), (16, 50), (0, 53)])
        jaw = np.concatenate([smooth(outer, closed=False), smooth(inner, closed=False)])
        canvas.paint(canvas.stencil(jaw).within(head), sketch.beard, "face_skin", opacity=0.92, texture=strands)
    if has["Sideburns"]:
        burn = smooth([(49, -14), (36, -12), (33, 12), (30, 29), (36, 35), (49, 28)])
        both = canvas.stencil(burn, mirror(burn)).within(head)
        canvas.paint(both, sketch.beard, "face_skin", opacity=0.92, texture=strands)
    if has["Goatee"]:
        tuft = smooth([(-6, 52), (6, 52), (15, 58), (13, 66), (7, 72), (0, 74), (-7, 72), (-13, 66), (-15, 58)])
        canvas.paint(canvas.stencil(tuft + (sketch.turn / 2, 0)), sketch.beard, "face_skin", texture=strands)


def draw_mustache(sketch: Sketch) -> None:
    """Hair on the upper lip: face skin in Helen's labels."""
    if not sketch.has["Mustache"]:
        return
    canvas, texture = sketch.canvas, sketch.texture("tousled")
    outline = smooth(symmetric([(0, 30), (7, 28.5), (16, 34), (21, 42), (14, 40), (7, 37.5), (0, 37)]), steps=3)
    canvas.paint(canvas.stencil(outline + (sketch.turn * 0.7, 0)), sketch.beard, "face_skin", texture=texture)


def nose_tip(sketch: Sketch) -> tuple[float, float]:
    """The tip of the nose in face coordinates."""
    return sketch.turn, lerp(22, 25, sketch.identity.nose_length)


def draw_nose(sketch: Sketch) -> None:
    """The nose from the bridge to the nostrils."""
    canvas, has = sketch.canvas, sketch.has
    x, tip = nose_tip(sketch)
    width = lerp(8.5, 10, sketch.identity.nose_width) + (6 if has["Big_Nose"] else 0)
    base = tip + (4 if has["Big_Nose"] else 2)
    if has["Pointy_Nose"]:
        width -= 2.5
        bridge = [(2.5, -4), (3, 6), (5, base - 9)]
        wing = [(width, base - 5), (width * 0.7, base - 2), (3, base + 3), (0, base + 8)]
    else:
        bridge = [(3.5, -4), (4, 6), (6.5, base - 10)]
        wing = [(width, base - 5), (width, base + 1), (width * 0.55, base + 2), (0, base + 3)]
    outline = smooth(symmetric([*bridge, *wing]))
    outline[:, 0] += x * np.clip((outline[:, 1] + 4) / (tip + 4), 0, 1)  # the bridge stays, the tip turns
    nose = canvas.stencil(outline)
    dark = sketch.skin_shadow
    canvas.paint(nose, blend(sketch.skin, dark, 0.5), "nose")
    inside = (outline - (x, tip)) * (0.72, 0.9) + (x - 1, tip - 1.5)
    canvas.paint(canvas.stencil(inside, blur=1).within(nose), blend(sketch.skin, rgb(255, 230, 210), 0.15))
    nostrils = [ellipse(x + side * width * 0.5, base - 0.5, width * 0.26, 1.9) for side in (-1, 1)]
    canvas.paint(canvas.stencil(*nostrils).within(nose), dark * 0.55, opacity=0.9)
    gleam = ellipse(x - 0.5, tip - 3, 2.2 if has["Pointy_Nose"] else width * 0.42, 5 if has["Pointy_Nose"] else 3)
    canvas.paint(canvas.stencil(gleam, blur=1).within(nose), rgb(255, 246, 236), opacity=0.6)


def mouth_curve(sketch: Sketch) -> tuple[Points, Points]:
    """Points ``(13, 2)`` on the line where closed lips meet, and for each the thickness profile ``(13, 1)``."""
    smile = sketch.has["Smiling"]
    half = lerp(13.5, 15.5, sketch.identity.mouth_width) + (5 if smile else 0)
    u = np.linspace(-1, 1, 13)[:, None]
    corner, middle = (-6.0, 3.0) if smile else (0.4, -0.2)
    height = 41.0 + lerp(-1, 1.5, sketch.identity.mouth_height)
    y = height + middle + (corner - middle) * u**2 + sketch.tilt * 0.7 * u
    return np.hstack([half * u + sketch.turn / 2, y]), np.sqrt(1 - u**2) ** 1.2


def draw_mouth(sketch: Sketch) -> None:
    """Lips and, in an open mouth, teeth and tongue."""
    canvas, has = sketch.canvas, sketch.has
    line, profile = mouth_curve(sketch)
    down = np.array([[0.0, 1.0]])
    full = 2.1 if has["Big_Lips"] else 1.0
    bow = np.exp(-(((np.abs(np.linspace(-1, 1, 13)[:, None]) - 0.3) / 0.18) ** 2))
    upper = line - down * full * profile * (3.6 + 1.2 * bow)
    gap = lerp(8, 12, sketch.shot.mouth_opening) if has["Mouth_Slightly_Open"] else 0.0
    below = line + down * gap * profile
    lower = below + down * full * profile * 4.6
    natural = blend(sketch.skin * rgb(0.86, 0.62, 0.6), rgb(198, 74, 84), lerp(0.45, 0.65, sketch.identity.lip_tone))
    colour = pick(_LIPSTICKS, sketch.shot.lipstick_colour) if has["Wearing_Lipstick"] else natural
    canvas.paint(canvas.stencil(np.concatenate([below, lower[::-1]])), colour * 1.06, "lower_lip")
    gleam = ellipse(0, -2.4 * full, 5, 1.2 * full) + lower[6]
    canvas.paint(canvas.stencil(gleam, blur=1), rgb(255, 225, 220), opacity=0.5 if has["Wearing_Lipstick"] else 0.25)
    if has["Mouth_Slightly_Open"]:
        inner = canvas.stencil(np.concatenate([line, below[::-1]]))
        canvas.paint(inner, rgb(74, 18, 24), "inner_mouth")
        canvas.paint(canvas.stencil(ellipse(0, 0.5, 7, 3.2) + below[6]).within(inner), rgb(196, 84, 88))
        teeth = np.concatenate([line, (line + down * gap * 0.5 * profile)[::-1]])
        canvas.paint(canvas.stencil(teeth).within(inner), rgb(248, 246, 238))
    canvas.paint(canvas.stencil(np.concatenate([upper, line[::-1]])), colour * 0.9, "upper_lip")
    if not has["Mouth_Slightly_Open"]:
        canvas.paint(canvas.stencil(brush(line[::3], 2.0)), colour * 0.4, opacity=0.85)


def eye_centres(sketch: Sketch) -> Points:
    """The centres of the left and the right eye in face coordinates, ``(2, 2)``."""
    x, turn, tilt = lerp(18.5, 21.5, sketch.identity.eye_distance), sketch.turn * 0.4, sketch.tilt / 2
    return np.array([(turn - x, -tilt), (turn + x, tilt)])


def _at_eyes(sketch: Sketch, right: Points) -> tuple[Points, Points]:
    """An outline around the right eye's centre, as it lies at the left and at the right eye."""
    left_eye, right_eye = eye_centres(sketch)
    return mirror(right) + left_eye, right + right_eye


def draw_eyes(sketch: Sketch) -> None:
    """Eyes and lashes."""
    canvas, has = sketch.canvas, sketch.has
    size = lerp(0.92, 1.1, sketch.identity.eye_size)
    high = 2.6 if has["Narrow_Eyes"] else 6.4
    almond = [(-10, 1.5), (-5, 0.3 - high * 0.85), (1, -high), (6, -high * 0.7), (10, -0.5), (5, high * 0.75)]
    lid = [(-10.5, 1.5), (-5, -high * 0.85), (1, -high - 0.4), (6, -high * 0.75), (10.5, -0.5)]
    right = smooth([*almond, (-3, high * 0.9)]) * size
    lashes = brush([*lid, (14, -4)], 4.2) * size if has["Heavy_Makeup"] else brush(lid, 2.4) * size
    outlines = _at_eyes(sketch, right)
    for outline, label in zip(outlines, ("left_eye", "right_eye"), strict=True):
        canvas.paint(canvas.stencil(outline), rgb(246, 244, 242), label)
    both = canvas.stencil(*outlines)
    gaze = eye_centres(sketch) + (lerp(-2, 2, sketch.shot.gaze), -0.3)
    canvas.paint(canvas.stencil(*dots(gaze, 5.6)).within(both), pick(_IRISES, sketch.identity.eye_colour))
    canvas.paint(canvas.stencil(*dots(gaze, 2.7)).within(both), rgb(14, 12, 14))
    if has["Attractive"]:
        canvas.paint(canvas.stencil(*dots(gaze - 2, 2.1)).within(both), rgb(255, 255, 255))
    for outline, label in zip(_at_eyes(sketch, lashes), ("left_eye", "right_eye"), strict=True):
        canvas.paint(canvas.stencil(outline), rgb(34, 24, 24), label)


def draw_eyebrows(sketch: Sketch) -> None:
    """Eyebrows: flat or arched, thin or bushy."""
    canvas, has = sketch.canvas, sketch.has
    width = (8.5 if has["Bushy_Eyebrows"] else 4.2) + 1.0 * has["Male"]
    arch = 7.5 if has["Arched_Eyebrows"] else 1.0
    base = lerp(-14, -17, sketch.identity.brow_height)
    texture = sketch.texture("tousled")
    line = [(-12.5, 1.0), (-4.0, -arch * 0.55), (4.5, -arch), (13.5, 2.5 if has["Arched_Eyebrows"] else 0.5)]
    brows = _at_eyes(sketch, brush(line, width, taper=0.6) + (0, base))
    for outline, label in zip(brows, ("left_eyebrow", "right_eyebrow"), strict=True):
        canvas.paint(canvas.stencil(outline), sketch.beard, label, texture=texture)


def draw_glasses(sketch: Sketch) -> None:
    """Frames, face skin in Helen's labels as they are thin, and lenses that let the eyes through."""
    if not sketch.has["Eyeglasses"]:
        return
    canvas, shot = sketch.canvas, sketch.shot
    frame = pick((rgb(28, 28, 32), rgb(120, 50, 30), rgb(150, 30, 50), rgb(40, 60, 120)), shot.glasses_colour)
    if shot.glasses_kind < 0.5:
        box = np.array([(-15, -10), (0, -11), (15, -10), (15.5, 5), (11, 12), (0, 13), (-11, 12), (-15.5, 5)])
        rim, hole = smooth(box, steps=2), smooth(box * (0.8, 0.76), steps=2)
    else:
        rim, hole = ellipse(0, 0, 15, 14), ellipse(0, 0, 12, 11)
    eyes = eye_centres(sketch) + (0, 1.5)
    lenses = [hole + eye for eye in eyes]
    (left, left_y), (right, right_y) = eyes.tolist()
    bridge = brush([(left + 14, left_y - 2), ((left + right) / 2, -2), (right - 14, right_y - 2)], 3, taper=0.2)
    arms = [
        np.array([(x, y - 4), (end, -4), (end, -0.5), (x, y - 1)])
        for x, y, end in ((left - 14.5, left_y, -46), (right + 14.5, right_y, 46))
    ]
    canvas.paint(canvas.stencil(*lenses), rgb(170, 205, 235), opacity=0.25)
    canvas.paint(canvas.stencil(*lenses, *(rim + eye for eye in eyes), bridge, *arms), frame, "face_skin")
