"""What finds faces in place of LNet: a stock cascade, OpenCV's YuNet, or a table of boxes that anything else wrote."""

import threading
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from facelightning.boxes import Floats, clipped, read_boxes_table
from facelightning.errors import ConfigurationError, DataFormatError, ending, quoted, reading
from facelightning.models.finding import Finder, FoundFaces

_detecting = threading.Lock()  # OpenCV's detector keeps the size of its image, which another thread may change


class PhotographDetector(Finder):
    """Finds faces in one photograph at a time, which it sees without its padding."""

    def detect(self, photograph: npt.NDArray[np.uint8]) -> Floats:
        """Boxes in pixels of the photograph, which they may leave, and responses.

        Shape:
            - photograph: ``(h, w, 3)``, RGB.
            - return: ``(N, 5)``, the most certain first; or ``(N, 15)`` with the x and y of left eye, right eye, nose
              tip, left and right mouth corner.
        """
        raise NotImplementedError

    @torch.no_grad()
    def forward(
        self, images: Tensor, frames: Floats, sizes: Floats | None = None, names: Sequence[str] = ()
    ) -> FoundFaces:
        found = []
        pixels = images if images.dtype == torch.uint8 else (255 * images).round().to(torch.uint8)
        for image, frame in zip(pixels.permute(0, 2, 3, 1).cpu().numpy(), frames, strict=True):
            left, top, right, bottom = np.rint(frame).astype(int)
            rows = self.detect(np.ascontiguousarray(image[top:bottom, left:right]))
            found.append(_moved(rows, np.ones(2), np.array([left, top]), frame))
        return together(found)


class FrontalCascade(PhotographDetector):
    """The cascade of local binary patterns that scikit-image brings along: frontal, upright faces [1]_.

    It gives no score: every response is 1, and the largest box counts as the most certain.

    Args:
        scale_factor: From one size of its window to the next.
        min_size: The side of the smallest face, in pixels of the network's images.

    Raises:
        ConfigurationError: If scikit-image is missing, or a number is out of its range.

    .. [1] Viola, Jones, "Rapid Object Detection using a Boosted Cascade of Simple Features", CVPR 2001; the trained
       cascade is OpenCV's ``lbpcascade_frontalface``.

    Example:
        >>> from skimage.data import astronaut
        >>> image = torch.from_numpy(astronaut()[:240:2, 100:340:2].copy()).permute(2, 0, 1)[None]
        >>> frames, sizes = np.array([[0.0, 0, 120, 120]]), np.array([[120.0, 120]])
        >>> FrontalCascade()(image, frames, sizes).boxes
        array([[37., 33., 88., 84.]])
    """

    aligned = (1.68, -0.14)  # its median box in them: 106 pixels wide and high, at x 36, y 71
    unsure = True

    def __init__(self, scale_factor: float = 1.2, min_size: int = 24) -> None:
        super().__init__()
        try:
            # here, because only this needs scikit-image
            from skimage.data import lbp_frontal_face_cascade_filename
            from skimage.feature import Cascade
        except ImportError:
            raise ConfigurationError(
                "FrontalCascade is scikit-image's, which is not installed: pip install 'facelightning[detectors]'"
            ) from None
        if not 1 < scale_factor < 10 or min_size < 1:  # scikit-image would never end
            raise ConfigurationError(
                f"FrontalCascade: scale_factor must be above 1 and under 10, and min_size positive; not {scale_factor} "
                f"and {min_size}"
            )
        self.scale_factor, self.min_size = scale_factor, min_size
        path = lbp_frontal_face_cascade_filename()  # type: ignore[no-untyped-call]  # scikit-image's
        self.cascade = Cascade(path)

    def detect(self, photograph: npt.NDArray[np.uint8]) -> Floats:
        sides = {"min_size": (self.min_size,) * 2, "max_size": (min(photograph.shape[:2]),) * 2}
        found = self.cascade.detect_multi_scale(img=photograph, scale_factor=self.scale_factor, step_ratio=1, **sides)
        found.sort(key=lambda face: face["width"] * face["height"], reverse=True)
        corners = [(face["c"], face["r"], face["c"] + face["width"], face["r"] + face["height"]) for face in found]
        return np.array([(*corner, 1.0) for corner in corners], dtype=np.float64).reshape(-1, 5)


class YuNet(PhotographDetector):
    """OpenCV's face detector [1]_ with the user's file of weights; it also finds eyes, nose and mouth.

    A response is its score, in [0, 1].

    Args:
        model: The ``.onnx`` file: ``face_detection_yunet_2023mar.onnx`` or later of OpenCV's model zoo.
        least: The least score of a face.

    Raises:
        DataNotFoundError: If there is no such file, or it cannot be read.
        DataFormatError: If OpenCV refuses it.

    .. [1] Wu, Peng, Yu, "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research 2023.

    Example:
        >>> YuNet("missing/yunet.onnx")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        facelightning.errors.DataNotFoundError: cannot read missing/yunet.onnx: No such file or directory; ...
    """

    knows_points = True

    def __init__(self, model: str, least: float = 0.6) -> None:
        super().__init__()
        path = Path(model)
        with reading(path):
            weights = np.frombuffer(path.read_bytes(), np.uint8)
        try:
            nothing = np.empty(0, np.uint8)
            self.detector = cv2.FaceDetectorYN.create("onnx", weights, nothing, (320, 320), score_threshold=least)
        except cv2.error:
            raise DataFormatError(f"{ending(path)} is no network that OpenCV reads; download YuNet again") from None

    def detect(self, photograph: npt.NDArray[np.uint8]) -> Floats:
        height, width = photograph.shape[:2]
        with _detecting:
            self.detector.setInputSize((width, height))
            _, found = self.detector.detect(cv2.cvtColor(photograph, cv2.COLOR_RGB2BGR))
        # OpenCV says None if it finds nothing; else 15 columns: x, y, width and height, five points, the score. The
        # points are in our order: what it calls the right eye is the person's, and left in the image
        rows = np.array([] if found is None else found, np.float64).reshape(-1, 15)[:, [0, 1, 2, 3, 14, *range(4, 14)]]
        rows[:, 2:4] += rows[:, :2]
        return rows[np.argsort(-rows[:, 4], kind="stable")]


class TableFinder(Finder):
    """Finds what a table says: the boxes of any other detector, or of an earlier ``facelightning predict``.

    All rows of an image are its faces, in the table's order: the first counts as the most certain. An image without a
    row has no face, which is warned of.

    Args:
        boxes: A table with columns ``name``, ``x0``, ``y0``, ``x1``, ``y1``, in pixels of the files, and ``response``,
            or else all are 1; it may have ten more, with five points of each face:
            :func:`~facelightning.boxes.read_boxes_table`.

    Raises:
        DataNotFoundError: If there is no such file, or it cannot be read.
        DataFormatError: If it is not such a table.
        ConfigurationError: When called, if the images have no names; when tested, if the table names none of them.

    Example: a photograph of 40×200 pixels, shown at half its size in the middle of a square
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "faces.csv")
        ...     _ = path.write_text("name,x0,y0,x1,y1\\na.jpg,100,0,140,40\\n")
        ...     finder = TableFinder(str(path))
        >>> frames, sizes = np.array([[0.0, 40, 100, 60]]), np.array([[40.0, 200]])
        >>> finder(torch.zeros(1, 3, 100, 100), frames, sizes, ["a.jpg"]).boxes
        array([[50., 40., 70., 60.]])
    """

    def __init__(self, boxes: str) -> None:
        super().__init__()
        self.boxes, self.table = boxes, read_boxes_table(Path(boxes))
        self.knows_points = any(not np.isnan(rows[:, 5:]).all() for rows in self.table.values())

    def check(self, names: Collection[str]) -> None:
        if self.table.keys().isdisjoint(names):
            ours, theirs = next(iter(self.table), "nothing"), next(iter(names), "nothing")
            raise ConfigurationError(
                f"{self.boxes} names {quoted(ours)} and others, but none of the {len(names)} images, such as "
                f"{quoted(str(theirs))}: give the table of these images"
            )

    def forward(self, images: Tensor, frames: Floats, sizes: Floats, names: Sequence[str]) -> FoundFaces:
        if len(names) != len(images):
            raise ConfigurationError("TableFinder looks images up by their names, and these have none")
        if not set(names) <= self.table.keys():
            warnings.warn(f"{self.boxes} has no row for some images: they have no face", stacklevel=2)
        found = []
        for name, frame, size in zip(names, frames, sizes, strict=True):
            rows = self.table.get(name, np.empty((0, 15)))
            found.append(_moved(rows, (frame[2:] - frame[:2]) / size[::-1], frame[:2], frame))
        return together(found)


def together(found: Sequence[Floats]) -> FoundFaces:
    """The faces of each image, ``(N, 5)`` with box and response or ``(N, 15)`` with points, too, as those of a batch.

    Example:
        >>> together([np.ones((2, 5)), np.ones((0, 15)), np.ones((1, 5))]).image.tolist()
        [0, 0, 2]
    """
    rows = [np.pad(each, ((0, 0), (0, 15 - each.shape[1])), constant_values=np.nan) for each in found]
    every = np.concatenate([np.empty((0, 15)), *rows])
    image = np.repeat(np.arange(len(found)), list(map(len, found)))
    return FoundFaces(image, every[:, :4], every[:, 4], len(found), every[:, 5:].reshape(-1, 5, 2))


def _moved(rows: Floats, scale: Floats, shift: Floats, frame: Floats) -> Floats:
    """Rows with boxes and points, which are scaled and shifted; of boxes, what lies in the frame, if anything does."""
    moved = rows.copy()
    for part in (slice(0, 4), slice(5, None)):
        moved[:, part] = (moved[:, part].reshape(-1, 2) * scale + shift).reshape(moved[:, part].shape)
    moved[:, :4] = clipped(moved[:, :4], frame[None])
    return moved[(moved[:, 2:4] > moved[:, :2]).all(axis=1)]  # not so for NaN either
