"""What a network sees of a photograph: a cut around its face."""

from dataclasses import dataclass
from math import ceil, floor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from facelightning.boxes import Floats, around, clipped, containing, read_boxes_table
from facelightning.data.files import DerivedRecords, Record, Records, warn
from facelightning.errors import ConfigurationError, DataFormatError, quoted


@dataclass(frozen=True)
class FaceCrop:
    """A cut around the face of each image.

    Args:
        margin: The cut holds a square of this many times the longer side of the face's box.
        boxes: Table of found boxes with columns ``name``, ``x0``, ``y0``, ``x1``, ``y1``, in pixels of the files, as
            ``facelightning predict`` writes it: ``predictions/faces.csv``. Of several faces the first counts; an image
            without one is seen whole. The data set's own boxes if not given.

    Raises:
        ConfigurationError: If the margin is not positive.
    """

    margin: float = 1.8
    boxes: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.margin < 100:
            raise ConfigurationError(f"crop: margin must lie in 0...100, not {self.margin}")


def cut_out(image: npt.NDArray[np.uint8], box: Floats) -> tuple[npt.NDArray[np.uint8], tuple[int, int, int, int]]:
    """Cut a box ``(4,)`` out of an image ``(H, W, 3)``, rounded outwards to whole pixels; black beyond the image.

    Returns:
        The cut, and the box that it is: x0, y0, x1, y1 in pixels.

    Example:
        >>> cut, box = cut_out(np.full((2, 3, 3), 9, np.uint8), np.array([-0.5, 0, 1, 2]))
        >>> cut[..., 0].tolist(), box
        ([[0, 9], [0, 9]], (-1, 0, 1, 2))
    """
    x0, y0, x1, y1 = floor(box[0]), floor(box[1]), ceil(box[2]), ceil(box[3])
    cut = np.zeros((y1 - y0, x1 - x0, 3), np.uint8)
    seen = image[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
    down, across = max(-y0, 0), max(-x0, 0)
    cut[down : down + seen.shape[0], across : across + seen.shape[1]] = seen
    return cut, (x0, y0, x1, y1)


class CroppedRecords(DerivedRecords):
    """Records cut around their faces, in the shape of ``image_size``; landmarks and box move along.

    Raises:
        DataFormatError: If the table of boxes is not one, or has none for these images; when indexed, if there is
            neither a table nor a box.
    """

    def __init__(self, records: Records, crop: FaceCrop, image_size: tuple[int, int]) -> None:
        super().__init__(records, str(crop))
        self.crop, self.image_size = crop, image_size
        self.found = None if crop.boxes is None else read_boxes_table(Path(crop.boxes))
        if self.found is not None:
            missing = [name for name in self.names if name not in self.found]
            if len(missing) == len(records):
                raise DataFormatError(f"{crop.boxes} has a box for none of the {len(records)} images")
            if missing:
                warn(f"{crop.boxes} has no box for {len(missing)} of {len(records)} images: they are seen whole")

    def sources(self, index: int) -> list[Path]:
        """The files of an image, and the table of boxes."""
        boxes = [] if self.crop.boxes is None else [Path(self.crop.boxes)]
        return [*super().sources(index), *boxes]

    @property
    def source(self) -> str:
        """Where the boxes come from."""
        return self.crop.boxes or "the data set's boxes"

    def _box(self, record: Record) -> Floats:
        if self.found is not None:
            return self.found.get(record["name"], np.full((1, 5), np.nan))[0, :4]
        if "box" not in record:
            raise DataFormatError("crop: the data set has no boxes; name a table of found ones: crop.boxes")
        return record["box"].astype(np.float64)

    def __getitem__(self, index: int) -> Record:
        record = self.records[index]
        height, width = record["image"].shape[:2]
        whole = np.array([[0.0, 0, width, height]])
        box = clipped(self._box(record)[None], whole)
        if (box[:, 2:] <= box[:, :2]).any():
            raise DataFormatError(f"the box of {quoted(record['name'])} lies outside its image: correct {self.source}")
        unknown = np.isnan(box).any()
        cut_box = containing(whole, self.image_size) if unknown else around(box, self.crop.margin, self.image_size)
        cut, (x0, y0, _, _) = cut_out(record["image"], cut_box[0])
        moved = Record(**{**record, "image": cut, "is_cut": True})
        if "landmarks" in record:
            moved["landmarks"] = record["landmarks"] - np.array([x0, y0], np.float32)
        if "box" in record:
            moved["box"] = record["box"] - np.array([x0, y0, x0, y0], np.float32)
        return moved
