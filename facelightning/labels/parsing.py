"""The label spaces of face parsing: classes, colours, left-right pairs, and the mapping between two spaces."""

from dataclasses import dataclass, field

IGNORE_INDEX = 255
"""The mask value of pixels that losses and scores ignore."""


@dataclass(frozen=True)
class LabelSpace:
    """A named, ordered set of parsing classes.

    Args:
        name: Its name in configurations and checkpoints.
        classes: Class names in the order of their indices, background first.
        colors: One RGB colour per class, for figures.
        parts: The small facial components (eyes, brows, nose, mouth): enlarged by max pooling in SSP
            (Kalayeh et al., §5) and merged in Helen's "overall" F1.
        flip_pairs: Pairs of classes that swap when an image is mirrored.

    Example:
        >>> HELEN11.mirrored
        (0, 1, 3, 2, 5, 4, 6, 7, 8, 9, 10)
        >>> HELEN7.index("nose")
        6
    """

    name: str
    classes: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...] = field(repr=False)
    parts: tuple[str, ...] = field(repr=False)
    flip_pairs: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.classes)

    def index(self, name: str) -> int:
        """The index of a class by name."""
        return self.classes.index(name)

    @property
    def part_indices(self) -> tuple[int, ...]:
        """The indices of ``parts``."""
        return tuple(self.index(part) for part in self.parts)

    @property
    def mirrored(self) -> tuple[int, ...]:
        """For each class, its class index in the mirrored image."""
        partner = {a: b for pair in self.flip_pairs for a, b in (pair, pair[::-1])}
        return tuple(self.index(partner.get(name, name)) for name in self.classes)


HELEN11 = LabelSpace(
    "helen11",
    (
        "background", "face_skin", "left_eyebrow", "right_eyebrow", "left_eye", "right_eye", "nose",
        "upper_lip", "inner_mouth", "lower_lip", "hair",
    ),
    colors=(
        (0, 0, 0), (240, 200, 160), (150, 90, 40), (110, 60, 20), (60, 140, 220), (30, 90, 170), (250, 150, 60),
        (200, 60, 80), (120, 20, 40), (230, 100, 120), (90, 60, 130),
    ),
    parts=("left_eyebrow", "right_eyebrow", "left_eye", "right_eye", "nose", "upper_lip", "inner_mouth", "lower_lip"),
    flip_pairs=(("left_eyebrow", "right_eyebrow"), ("left_eye", "right_eye")),
)  # fmt: skip
"""Helen's eleven labels in the order of its ``lblNN`` files (Smith et al., CVPR 2013); left is the image's left."""

HELEN7 = LabelSpace(
    "helen7",
    ("background", "hair", "face_skin", "eyes", "eyebrows", "mouth", "nose"),
    colors=((0, 0, 0), (90, 60, 130), (240, 200, 160), (60, 140, 220), (150, 90, 40), (210, 60, 90), (250, 150, 60)),
    parts=("eyes", "eyebrows", "mouth", "nose"),
)  # fmt: skip
"""The seven classes of Kalayeh et al. (CVPR 2017, §4.1) in the order of its Table 4."""

HELEN11_TO_7 = {
    "background": ("background",),
    "hair": ("hair",),
    "face_skin": ("face_skin",),
    "eyes": ("left_eye", "right_eye"),
    "eyebrows": ("left_eyebrow", "right_eyebrow"),
    "mouth": ("upper_lip", "inner_mouth", "lower_lip"),
    "nose": ("nose",),
}
"""The labels of :data:`HELEN11` that each class of :data:`HELEN7` merges (Kalayeh et al., §4.1)."""

LABEL_SPACES = {space.name: space for space in (HELEN7, HELEN11)}
"""Every label space by its name."""
