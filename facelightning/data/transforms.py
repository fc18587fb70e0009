"""From a record to a network's input: resizing, augmentation, tensors."""

from collections.abc import Sequence
from typing import Any, TypeAlias, TypedDict

import albumentations as A
import cv2
import numpy as np
import torch
from torch import Tensor

from facelightning.data.files import Record
from facelightning.labels import IGNORE_INDEX, LabelSpace

Augmentation: TypeAlias = A.BasicTransform
"""One transform of Albumentations; no other module imports it."""


class Sample(TypedDict, total=False):
    """One image as a data module yields it; a batch has the same keys with a leading dimension B.

    ``image`` uint8 (3,H,W) RGB · ``mask`` int64 (H,W), 255 = ignore · ``attributes`` float32 (A,) in {0,1},
    NaN = unknown · ``landmarks`` float32 (5,2) x,y in pixels · ``identity`` int64 · ``name`` str.
    """

    image: Tensor
    mask: Tensor
    attributes: Tensor
    landmarks: Tensor
    identity: Tensor
    name: str


LANDMARKS_MIRRORED = (1, 0, 2, 4, 3)
"""Left and right eye, nose, left and right mouth corner: the index of each after mirroring the image."""

_CORNER = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
"""The origin and a step along x and along y: keypoints that show whether an augmentation has mirrored the image."""


def horizontal_flip() -> Augmentation:
    """The paper's only augmentation: every other image is mirrored."""
    return A.HorizontalFlip(p=0.5)


class FaceTransform:
    """Bring an image, its mask and landmarks to one size, augment them together, and make tensors.

    The whole image is kept: it is scaled to fit and padded (mask: 255), never distorted. If the augmentation
    mirrors the image, by any transform, the label space's left and right classes and the left and right landmarks
    are swapped.

    Args:
        image_size: Height and width in pixels.
        label_space: Label space of the masks, if there are any.
        augmentations: Albumentations transforms, applied in this order after resizing.

    Example:
        >>> transform = FaceTransform((8, 6), augmentations=[A.HorizontalFlip(p=1)])
        >>> sample = transform({"image": np.zeros((16, 12, 3), np.uint8), "name": "a"}, seed=0)
        >>> sample["image"].shape
        torch.Size([3, 8, 6])
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        label_space: LabelSpace | None = None,
        augmentations: Sequence[Augmentation | A.BaseCompose] = (),
    ) -> None:
        self.image_size = image_size
        keypoints = A.KeypointParams(format="xy", remove_invisible=False)
        scale = A.LongestMaxSize(max_size_hw=image_size, area_for_downscale="image")
        pad = A.PadIfNeeded(*image_size, border_mode=cv2.BORDER_CONSTANT, fill_mask=IGNORE_INDEX)
        self.fit = A.Compose([scale, pad], keypoint_params=keypoints)
        self.augment = A.Compose(list(augmentations), keypoint_params=keypoints) if augmentations else None
        self._mirrored = np.arange(256, dtype=np.uint8)  # a look-up table over all values of a mask
        if label_space is not None:
            self._mirrored[: len(label_space)] = label_space.mirrored

    def __call__(self, record: Record, seed: int) -> Sample:
        """Transform one image; the same seed gives the same augmentation."""
        arrays: dict[str, Any] = {"image": record["image"]} | ({"mask": record["mask"]} if "mask" in record else {})
        arrays["keypoints"] = np.concatenate([_CORNER, record["landmarks"]]) if "landmarks" in record else _CORNER
        if record["image"].shape[:2] != self.image_size:
            arrays = self.fit(**arrays)
        if self.augment is not None:
            self.augment.set_random_seed(seed % 2**32)
            arrays = self.augment(**arrays)
        points = arrays["keypoints"]
        mirrored = np.linalg.det(points[1:3] - points[0]) < 0

        # HWC → CHW; a copy, because augmentation may return a view with negative strides
        sample = Sample(image=torch.from_numpy(np.ascontiguousarray(arrays["image"].transpose(2, 0, 1))))
        if "mask" in record:
            mask = cv2.LUT(arrays["mask"], self._mirrored) if mirrored else arrays["mask"]
            sample["mask"] = torch.from_numpy(mask.astype(np.int64))
        if "landmarks" in record:
            landmarks = points[len(_CORNER) :].astype(np.float32)
            sample["landmarks"] = torch.from_numpy(landmarks[list(LANDMARKS_MIRRORED)] if mirrored else landmarks)
        if "attributes" in record:
            sample["attributes"] = torch.from_numpy(record["attributes"])
        if "identity" in record:
            sample["identity"] = torch.tensor(record["identity"])
        if "name" in record:
            sample["name"] = record["name"]
        return sample
