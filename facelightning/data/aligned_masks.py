"""Photographs with masks, cut and scaled as CelebA's aligned images are."""

import cv2
import numpy as np
import numpy.typing as npt

from facelightning.data.alignment import HEIGHT, WIDTH, similarity
from facelightning.data.files import DerivedRecords, Record, Records
from facelightning.errors import DataFormatError, quoted
from facelightning.labels import LabelSpace

Points = npt.NDArray[np.float64]

TEMPLATE = {
    ("eyes", "left_eye", "right_eye"): (89.0, 111.0),
    ("nose",): (89.0, 127.0),
    ("mouth", "upper_lip", "inner_mouth", "lower_lip"): (89.0, 153.0),
}
"""Where the centroids of classes, of whichever label space, lie there: x, y in pixels.

Eyes and mouth are 42 pixels apart. On 234 photographs, the middle of a nose's mask lies at 0.38 of the way.
"""


class AlignedRecords(DerivedRecords):
    """Records of images with masks, moved into CelebA's frame by the centroids of eyes, nose and mouth.

    At least two of the three must be there; in a profile, one eye is enough. Beyond the image its edge goes on, as in
    CelebA, and so does the edge of the mask: a parser that learned nothing there could find anything.

    Args:
        records: Records with ``image`` and ``mask``.
        label_space: Label space of the masks.

    Raises:
        DataFormatError: When indexed, if a mask has fewer than two of the three.
    """

    def __init__(self, records: Records, label_space: LabelSpace) -> None:
        super().__init__(records, "aligned")
        self.places = [
            ([label_space.index(name) for name in names if name in label_space.classes], place)
            for names, place in TEMPLATE.items()
        ]

    def __getitem__(self, index: int) -> Record:
        record = self.records[index]
        found = [(pixels.mean(axis=0)[::-1] + 0.5, place) for pixels, place in self._pixels(record["mask"])]
        if len(found) < 2:
            raise DataFormatError(
                f"{quoted(record['name'])} cannot be aligned: its mask has only {len(found)} of eyes, nose and mouth; "
                "leave it out of the list"
            )
        points, places = (np.array(each, np.float64) for each in zip(*found, strict=True))
        matrix = similarity(points, places)
        mask = _moved(record["mask"], matrix, cv2.INTER_NEAREST)
        image, matrix = _shrunk(record["image"], matrix)
        image = _moved(image, matrix, cv2.INTER_CUBIC)
        return Record(**{**record, "image": image, "mask": mask, "is_cut": True})

    def _pixels(self, mask: npt.NDArray[np.uint8]) -> list[tuple[npt.NDArray[np.int64], tuple[float, float]]]:
        """The pixels ``(N, 2)`` of each of the three that the mask has, and their place."""
        pixels = [(np.argwhere(np.isin(mask, classes)), place) for classes, place in self.places]
        return [(each, place) for each, place in pixels if len(each)]


def _shrunk(image: npt.NDArray[np.uint8], matrix: Points) -> tuple[npt.NDArray[np.uint8], Points]:
    """An image that is to be scaled down by more than 2, first scaled by means over whole pixels, and what is left."""
    factor = int(1 / np.hypot(*matrix[:, 0]))
    if factor < 2:
        return image, matrix
    height, width = image.shape[:2]
    small = (max(1, width // factor), max(1, height // factor))
    back = np.diag([width / small[0], height / small[1], 1])
    return cv2.resize(image, small, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False), matrix @ back


def _moved(image: npt.NDArray[np.uint8], matrix: Points, interpolation: int) -> npt.NDArray[np.uint8]:
    """An image in CelebA's frame; OpenCV's 0 is the first pixel's centre, ours its edge."""
    centred = matrix + np.hstack([np.zeros((2, 2)), matrix[:, :2].sum(axis=1, keepdims=True) / 2 - 0.5])
    size, beyond = (WIDTH, HEIGHT), cv2.BORDER_REPLICATE
    return cv2.warpAffine(image, centred, size, flags=interpolation, borderMode=beyond).astype(np.uint8, copy=False)
