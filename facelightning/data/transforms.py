"""From a record to a network's input: resizing, augmentation, tensors."""

from collections.abc import Sequence
from typing import Any, TypeAlias, TypedDict

import albumentations as A
import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from facelightning.data.files import Record, Records
from facelightning.data.sampling import Key
from facelightning.errors import ConfigurationError
from facelightning.labels import IGNORE_INDEX, LabelSpace

Augmentation: TypeAlias = A.BasicTransform
"""One transform of Albumentations; no other module imports it."""


class Sample(TypedDict, total=False):
    """One image as a data module yields it; a batch has the same keys with a leading dimension B.

    ``image`` uint8 (3,H,W) RGB · ``mask`` int64 (H,W), 255 = ignore · ``attributes`` float32 (A,) in {0,1},
    NaN = unknown · ``landmarks`` float32 (5,2) x,y in pixels · ``box`` float32 (4,) x0,y0,x1,y1 in pixels, right and
    bottom excluded, NaN = unknown · ``identity`` int64 · ``category`` int64 · ``age`` float32 in years,
    NaN = unknown · ``name`` str · ``size`` int64 (2,) height
    and width of the file's image · ``frame`` float32 (4,) the box that it fills in ``image``, before augmentation;
    around it is padding · ``is_cut`` bool, in place of both if ``image`` is a cut.
    """

    image: Tensor
    mask: Tensor
    attributes: Tensor
    landmarks: Tensor
    box: Tensor
    identity: Tensor
    category: Tensor
    age: Tensor
    name: str
    size: Tensor
    frame: Tensor
    is_cut: Tensor


LANDMARKS_MIRRORED = (1, 0, 2, 4, 3)
"""Left and right eye, nose, left and right mouth corner: the index of each after mirroring the image."""

_CORNER = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
"""The origin and a step along x and along y: keypoints that show whether an augmentation has mirrored the image."""

_CORNERS_OF_BOX = np.array([[0, 1], [2, 1], [0, 3], [2, 3]])
_NO_POINTS = np.empty((0, 2), dtype=np.float32)


def horizontal_flip() -> Augmentation:
    """The paper's only augmentation: every other image is mirrored."""
    return A.HorizontalFlip(p=0.5)


class FaceTransform:
    """Bring an image, its mask, landmarks and box to one size, augment them together, and make tensors.

    The whole image is kept: it is scaled to fit and padded (mask: 255), never distorted. If the augmentation
    mirrors the image, by any transform, the label space's left and right classes and the left and right landmarks
    are swapped. A box that was turned becomes the upright box around it; none is cut off at the image's edge.

    Args:
        image_size: Height and width in pixels.
        label_space: Label space of the masks, if there are any.
        augmentations: Albumentations transforms, applied in this order after resizing.

    Raises:
        ConfigurationError: When called, if an augmentation drops a landmark or a corner of the box.

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
        landmarks, box = record.get("landmarks", _NO_POINTS), record.get("box")
        corners = _NO_POINTS if box is None else np.nan_to_num(box)[_CORNERS_OF_BOX]
        arrays["keypoints"] = np.concatenate([_CORNER, landmarks, corners])
        of_box = slice(len(_CORNER) + len(landmarks), None)
        if record["image"].shape[:2] != self.image_size:
            arrays = self.fit(**arrays)
        corner, right, down = arrays["keypoints"][: len(_CORNER)]
        size = np.array(record["image"].shape[:2])
        frame = np.concatenate([corner, corner + (right + down - 2 * corner) * size[::-1]], dtype=np.float32)
        if self.augment is not None:
            self.augment.set_random_seed(seed % 2**32)
            arrays["keypoints"][of_box] -= 0.5  # for augmentations, 0 is the first pixel's centre, not its edge
            arrays = self.augment(**arrays)
            arrays["keypoints"][of_box] += 0.5
        points = arrays["keypoints"]
        if len(points) < of_box.start + len(corners):
            raise ConfigurationError(
                "an augmentation drops points near or beyond the image's edge, so landmarks and boxes would be wrong; "
                "leave out those that bend the image, such as ElasticTransform"
            )
        mirrored = np.linalg.det(points[1:3] - points[0]) < 0

        # HWC → CHW; a copy, because augmentation may return a view with negative strides
        sample = Sample(image=torch.from_numpy(np.ascontiguousarray(arrays["image"].transpose(2, 0, 1))))
        if "is_cut" in record:
            sample["is_cut"] = torch.tensor(record["is_cut"])
        else:
            sample["size"], sample["frame"] = torch.from_numpy(size), torch.from_numpy(frame)
        if "mask" in record:
            mask = cv2.LUT(arrays["mask"], self._mirrored) if mirrored else arrays["mask"]
            sample["mask"] = torch.from_numpy(mask.astype(np.int64))
        if "landmarks" in record:
            landmarks = points[len(_CORNER) : of_box.start].astype(np.float32)
            sample["landmarks"] = torch.from_numpy(landmarks[list(LANDMARKS_MIRRORED)] if mirrored else landmarks)
        if box is not None:
            sides = np.concatenate([points[of_box].min(axis=0), points[of_box].max(axis=0)], dtype=np.float32)
            sample["box"] = torch.from_numpy(np.full_like(box, np.nan) if np.isnan(box).any() else sides)
        if "attributes" in record:
            sample["attributes"] = torch.from_numpy(record["attributes"])
        if "identity" in record:
            sample["identity"] = torch.tensor(record["identity"])
        if "category" in record:
            sample["category"] = torch.tensor(record["category"])
        if "age" in record:
            sample["age"] = torch.tensor(record["age"])
        if "name" in record:
            sample["name"] = record["name"]
        return sample


class FaceDataset(Dataset[Sample]):
    """Records and a transform, indexed by the (sample, augmentation seed) that a sampler yields."""

    def __init__(self, records: Records, transform: FaceTransform) -> None:
        self.records, self.transform = records, transform

    @property
    def names(self) -> Sequence[str] | npt.NDArray[np.str_]:
        """The name of each image."""
        return self.records.names

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: Key) -> Sample:
        if not isinstance(key, tuple):
            raise ConfigurationError(
                "a face data set is indexed by (sample, seed), but got one number, probably from a sampler of "
                "Lightning's: create the Trainer with use_distributed_sampler=False"
            )
        index, seed = key
        return self.transform(self.records[index], seed)
