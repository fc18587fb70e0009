"""From a record to a network's input: resizing and augmentation."""

from collections.abc import Sequence
from random import Random
from typing import Any, TypeAlias, cast

import albumentations as A
import cv2
import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from facelightning.data.batch_augmentation import BatchAugmentation, Floats, moved
from facelightning.data.device_augmentation import DeviceAugmentation
from facelightning.data.files import Record, Records
from facelightning.data.samples import Fitted, Sample, stacked, tensors, unstacked
from facelightning.data.sampling import Key
from facelightning.errors import ConfigurationError
from facelightning.labels import IGNORE_INDEX, LabelSpace

Augmentation: TypeAlias = A.BasicTransform
"""One transform of Albumentations; no other module imports it."""


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
        augmentations: Albumentations transforms, applied in this order after resizing, or one augmentation of batches.

    Raises:
        ConfigurationError: If a number of the augmentation is wrong; when called, if it drops a landmark or a corner.

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
        augmentations: Sequence[Augmentation | A.BaseCompose] | BatchAugmentation = (),
    ) -> None:
        self.image_size = image_size
        keypoints = A.KeypointParams(format="xy", remove_invisible=False)
        scale = A.LongestMaxSize(max_size_hw=image_size, area_for_downscale="image")
        pad = A.PadIfNeeded(*image_size, border_mode=cv2.BORDER_CONSTANT, fill_mask=IGNORE_INDEX)
        self.fit = A.Compose([scale, pad], keypoint_params=keypoints)
        self.together = augmentations if isinstance(augmentations, BatchAugmentation) else None
        singly = [] if isinstance(augmentations, BatchAugmentation) else list(augmentations)
        if self.together is not None:
            self.together.check(256 if label_space is None else len(label_space))
        self.augment = A.Compose(singly, keypoint_params=keypoints) if singly else None
        self._mirrored = np.arange(256, dtype=np.uint8)  # a look-up table over all values of a mask
        if label_space is not None:
            self._mirrored[: len(label_space)] = label_space.mirrored

    def __call__(self, record: Record, seed: int) -> Sample:
        """Transform one image; the same seed gives the same augmentation."""
        return tensors(self.augmented(self.fitted(record), seed))

    def fitted(self, record: Record) -> Fitted:
        """The record at the network's size, before augmentation; one that is fitted already stays as it is."""
        size = record["image"].shape[:2]
        fitted, (corner, right, down) = _moved(record, None if size == self.image_size else self.fit)
        if not {"is_cut", "frame"} & record.keys():
            fitted["size"] = np.array(size)
            steps = (right + down - 2 * corner) * fitted["size"][::-1]
            fitted["frame"] = np.concatenate([corner, corner + steps], dtype=np.float32)
        return fitted

    def augmented(self, fitted: Fitted, seed: int) -> Fitted:
        """The same, augmented; the same seed gives the same augmentation."""
        if self.together is not None:
            return unstacked(self._augmented_together(self.together, stacked([fitted]), [seed]))[0]
        if self.augment is None:
            return fitted
        # one state for all: set_random_seed would let each transform draw the same numbers, and none be independent
        numbers, more_numbers = np.random.default_rng(seed % 2**32), Random(seed % 2**32)
        for each in self.augment.transforms:
            each.set_random_state(numbers, more_numbers)
        # for augmentations, 0 is the first pixel's centre, not its edge, which a box is measured from
        augmented, points = _moved(fitted, self.augment, edge=-0.5)
        if np.linalg.det(points[1:] - points[0]) < 0:  # mirrored
            if "mask" in augmented:
                augmented["mask"] = self._mirrored[augmented["mask"]]
            if "landmarks" in augmented:
                augmented["landmarks"] = augmented["landmarks"][list(LANDMARKS_MIRRORED)]
        return augmented

    def batch(self, fitted: Fitted, seeds: Sequence[int]) -> Sample:
        """Augment many images, :func:`stacked`; the same seeds give the same augmentation as each by itself.

        For a :class:`DeviceAugmentation`, the points alone; the batch holds the seeds for the rest.
        """
        if isinstance(self.together, DeviceAugmentation):
            moves = self.together.moves(seeds, self.image_size)
            return {**tensors(self._followed(fitted, moves)), "seed": list(seeds)}
        if self.together is not None:
            return tensors(self._augmented_together(self.together, fitted, seeds))
        mirrored = self._mirrors(seeds)
        if mirrored is None:
            each = zip(unstacked(fitted), seeds, strict=True)
            return tensors(stacked([self.augmented(one, seed) for one, seed in each]))
        batch = tensors(fitted)
        self._mirror(batch, mirrored)
        return batch

    def _augmented_together(self, augment: BatchAugmentation, fitted: Fitted, seeds: Sequence[int]) -> Fitted:
        followed = self._followed(fitted, augment.moves(seeds, self.image_size))
        images, masks = augment(followed["image"], followed.get("mask"), seeds)
        return cast(Fitted, {**followed, "image": images} | ({} if masks is None else {"mask": masks}))

    def _followed(self, fitted: Fitted, moves: Floats) -> Fitted:
        """With points where ``moves`` take them, and left and right swapped; pixels are where they were."""
        followed, mirrored = cast(Fitted, {**fitted}), np.linalg.det(moves[..., :2]) < 0
        if "mask" in fitted:
            followed["mask"] = fitted["mask"].copy()
            followed["mask"][mirrored] = self._mirrored[fitted["mask"][mirrored]]
        if "landmarks" in fitted:
            landmarks = moved(fitted["landmarks"], moves)
            landmarks[mirrored] = landmarks[mirrored][:, LANDMARKS_MIRRORED]
            followed["landmarks"] = landmarks.astype(np.float32)
        if "box" in fitted:  # an unknown one stays NaN
            corners = moved(fitted["box"][:, _CORNERS_OF_BOX] - np.float32(0.5), moves) + 0.5
            followed["box"] = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1, dtype=np.float32)
        return followed

    def _mirrors(self, seeds: Sequence[int]) -> npt.NDArray[np.bool_] | None:
        """Which images :meth:`augmented` mirrors, if it does nothing else to any; ``None`` if it may."""
        transforms = [] if self.augment is None else self.augment.transforms
        if [type(each) for each in transforms] not in ([], [A.HorizontalFlip]):
            return None
        chance, draw = sum(each.p for each in transforms), Random()
        which = np.zeros(len(seeds), bool)
        for place, seed in enumerate(seeds if chance > 0 else ()):
            draw.seed(seed % 2**32)  # and the first number, as the transform itself does
            which[place] = draw.random() < chance
        return which

    def _mirror(self, batch: Sample, which: npt.NDArray[np.bool_]) -> None:
        """Mirror some images of a batch in place, to the bits of :meth:`augmented`."""
        last = self.image_size[1] - 1
        image = batch["image"].numpy()
        if which.any():
            chosen = image[which]
            image[which] = cv2.flip(chosen.reshape(-1, last + 1), 1).reshape(chosen.shape)  # all at once
        if "mask" in batch:
            mask = batch["mask"].numpy()
            mask[which] = self._mirrored[mask[which, :, ::-1]]
        if "landmarks" in batch:
            landmarks = batch["landmarks"].numpy()
            mirrored = landmarks[which][:, LANDMARKS_MIRRORED]
            mirrored[..., 0] = last - mirrored[..., 0]
            landmarks[which] = mirrored
        if "box" in batch and self.augment is not None:
            box = batch["box"].numpy()
            box -= 0.5
            box[which, ::2] = last - box[which, ::2][:, ::-1]
            box += 0.5


def _moved(record: Record, transform: A.Compose | None, edge: float = 0.0) -> tuple[Fitted, npt.NDArray[np.float32]]:
    """What a transform, if any, makes of image, mask, landmarks and box, and where it takes the points of ``_CORNER``.

    ``edge`` is where the transform sees the left edge of the first pixel.
    """
    arrays: dict[str, Any] = {"image": record["image"]} | ({"mask": record["mask"]} if "mask" in record else {})
    landmarks, box = record.get("landmarks", _NO_POINTS), record.get("box")
    corners = _NO_POINTS if box is None else np.nan_to_num(box)[_CORNERS_OF_BOX] + np.float32(edge)
    points = np.concatenate([_CORNER, landmarks, corners])
    if transform is not None:
        arrays = transform(**arrays, keypoints=points)
        if len(arrays["keypoints"]) < len(points):
            raise ConfigurationError(
                "an augmentation drops points near or beyond the image's edge, so landmarks and boxes would be wrong; "
                "leave out those that bend the image, such as ElasticTransform"
            )
        points = arrays.pop("keypoints")
    moved = cast(Fitted, {**record, **arrays})
    if "landmarks" in record:
        moved["landmarks"] = points[len(_CORNER) : len(_CORNER) + len(landmarks)].astype(np.float32)
    if box is not None:
        corners = points[-len(_CORNERS_OF_BOX) :] - np.float32(edge)
        sides = np.concatenate([corners.min(axis=0), corners.max(axis=0)], dtype=np.float32)
        moved["box"] = np.full_like(box, np.nan) if np.isnan(box).any() else sides
    return moved, points[: len(_CORNER)]


class FaceDataset(Dataset[Sample]):
    """Records and a transform, indexed by the (sample, augmentation seed) that a sampler yields.

    A loader gets whole batches from it, so its ``collate_fn`` is :func:`as_it_is`.
    """

    def __init__(self, records: Records, transform: FaceTransform) -> None:
        self.records, self.transform = records, transform

    @property
    def names(self) -> Sequence[str] | npt.NDArray[np.str_]:
        """The name of each image."""
        return self.records.names

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: Key) -> Sample:
        index, seed = checked(key)
        return self.transform(self.records[index], seed)

    def __getitems__(self, keys: Sequence[Key]) -> Sample:
        """The batch of these samples."""
        index, seeds = zip(*map(checked, keys), strict=True)
        return self.transform.batch(stacked([self.transform.fitted(self.records[each]) for each in index]), seeds)


def as_it_is(batch: Sample) -> Sample:
    """A loader's ``collate_fn`` for a data set that gives whole batches."""
    return batch


def checked(key: Key) -> Key:
    """The same key, if it is one.

    Raises:
        ConfigurationError: If it is a number, as samplers of others yield them.
    """
    if not isinstance(key, tuple):
        raise ConfigurationError(
            "a face data set is indexed by (sample, seed), but got one number, probably from a sampler of "
            "Lightning's: create the Trainer with use_distributed_sampler=False"
        )
    return key
