"""What a sample is, as arrays and as tensors, alone and in a batch."""

from collections.abc import Sequence
from typing import Any, TypedDict, cast

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from facelightning.data.files import Record
from facelightning.errors import ConfigurationError


class Fitted(Record, total=False):
    """A record at the network's size, with what its tensors are: ``size`` and ``frame`` as in :class:`Sample`."""

    size: npt.NDArray[np.int64]
    frame: npt.NDArray[np.float32]


class Sample(TypedDict, total=False):
    """One image as a data module yields it; a batch has the same keys with a leading dimension B.

    ``image`` uint8 (3,H,W) RGB · ``mask`` int64 (H,W), 255 = ignore · ``attributes`` float32 (A,) in {0,1},
    NaN = unknown · ``landmarks`` float32 (5,2) x,y in pixels · ``box`` float32 (4,) x0,y0,x1,y1 in pixels, right and
    bottom excluded, NaN = unknown · ``identity`` int64 · ``category`` int64 · ``age`` float32 in years,
    NaN = unknown · ``name`` str · ``size`` int64 (2,) height and width of the file's image · ``frame`` float32 (4,) the
    box that it fills in ``image``, before augmentation; around it is padding · ``is_cut`` bool, in place of both if
    ``image`` is a cut · ``seed`` int, while ``image`` and ``mask`` of a batch are yet to be augmented on its device.
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
    seed: list[int]


def tensors(fitted: Fitted) -> Sample:
    """One image as tensors; many, if every array has one more dimension in front."""
    known = {key: fitted.get(key) for key in Sample.__annotations__ if key in fitted}
    sample = {key: value if key == "name" else torch.as_tensor(value) for key, value in known.items()}
    # HWC → CHW; a copy, because augmentation may return a view with negative strides
    sample["image"] = torch.from_numpy(np.ascontiguousarray(np.moveaxis(fitted["image"], -1, -3)))
    if "mask" in fitted:
        sample["mask"] = torch.from_numpy(fitted["mask"].astype(np.int64))
    return cast(Sample, sample)


def stacked(many: Sequence[Fitted]) -> Fitted:
    """Many images as one: every array has one more dimension in front, and names are a list.

    Raises:
        ConfigurationError: If the images differ in size or type, as some augmentations make them.
    """
    columns: dict[str, Any] = {key: [cast(dict[str, Any], one)[key] for one in many] for key in many[0]}
    images = columns.pop("image")
    kinds = {(image.shape, str(image.dtype)) for image in images}
    if len(kinds) > 1 or images[0].ndim < 3:
        found = ", ".join(f"{shape} {kind}" for shape, kind in sorted(kinds)[:3])
        raise ConfigurationError(f"a batch needs colour images of one shape, but augmentations make {found}")
    height, width, channels = images[0].shape
    planes = np.empty((len(many), channels, height, width), images[0].dtype)  # as in a tensor: copied once
    for place, image in zip(planes, images, strict=True):
        cv2.split(image, list(place))
    for key, values in columns.items():
        if key != "name":
            columns[key] = np.array(values, np.float32 if type(values[0]) is float else None)
    return cast(Fitted, {**columns, "image": np.moveaxis(planes, 1, -1)})


def unstacked(fitted: Fitted) -> list[Fitted]:
    """The images of :func:`stacked`, each by itself."""
    planes = np.moveaxis(fitted["image"], -1, 1)
    columns = cast(dict[str, Any], fitted) | {"image": [cv2.merge(list(image)) for image in planes]}
    return [cast(Fitted, {key: column[place] for key, column in columns.items()}) for place in range(len(planes))]
