"""Augmentation on the device: what OpenCV does with the same numbers, alone and among others, on whatever device."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from facelightning.data import CelebADataModule, FaceDataModule, HelenDataModule, JointDataModule, SyntheticDataModule
from facelightning.data.batch_augmentation import Affine, BatchAugmentation, Color, Erasing
from facelightning.data.device_augmentation import DeviceAugmentation
from facelightning.data.transforms import FaceTransform
from facelightning.errors import ConfigurationError
from facelightning.tasks import AttributeNet, JointNet
from tests.data.test_batch_augmentation import SIZE, SPACE, bilinear, spots
from tests.tasks.tiny import QUIET, Watch, make_trainer

pytestmark = QUIET

MOVING = {"affine": Affine(0.8, (0.4, 1.1), (-0.15, 0.15), (-15, 15))}
COLORING = {"color": Color(0.8, (0.6, 1.4), (0.6, 1.4), (0.4, 1.6))}
ERASING = {"erasing": Erasing(0.5, (1, 6), (0.1, 0.4), (0.1, 0.4))}
ALL: dict[str, Any] = {**MOVING, **COLORING, **ERASING, "outside": 0}
SEEDS = [5, 2**62 - 1, 0, 77, 2**64 - 1, 8, 9]


def epoch(data: FaceDataModule) -> list[dict[str, Any]]:
    """The training batches as a task gets them."""
    data.setup("fit")
    return [data.on_after_batch_transfer(batch, 0) for batch in data.train_dataloader()]


def helen(faces: Path, augmentation: BatchAugmentation) -> HelenDataModule:
    return HelenDataModule(
        str(faces / "helen"), image_size=SIZE, batch_size=3, num_workers=0, augmentations=augmentation
    )


def celeba(faces: Path, augmentation: BatchAugmentation) -> CelebADataModule:
    return CelebADataModule(
        str(faces / "celeba"), image_size=SIZE, batch_size=7, num_workers=0, augmentations=augmentation
    )


@pytest.mark.parametrize("make", [helen, celeba])
@pytest.mark.parametrize(
    ("parts", "most", "mean"), [(ALL, 3, 0.05), (MOVING, 1, 0.01), (COLORING, 1, 0.1), (ERASING, 0, 0), ({}, 0, 0)]
)
def test_drawn_faces_become_what_opencv_makes_of_them(
    make: Any, parts: dict[str, Any], most: int, mean: float, faces: Path
) -> None:
    """Moved, mirrored and erased alike; pixels differ by roundings, which colours multiply."""
    pairs = list(
        zip(
            epoch(make(faces, DeviceAugmentation(**parts))), epoch(make(faces, BatchAugmentation(**parts))), strict=True
        )
    )
    assert len(pairs) == 3
    for found, expected in pairs:
        assert found.keys() == expected.keys()
        differences = (found["image"].int() - expected["image"].int()).abs()
        assert differences.max() <= most and differences.float().mean() <= mean
        for key, value in expected.items():
            if key == "mask":
                assert (found[key] != value).float().mean() < 1e-4  # where a place is halfway between two pixels
            elif isinstance(value, Tensor) and key != "image":
                torch.testing.assert_close(found[key], value, rtol=0, atol=0, equal_nan=True)
            elif key == "name":
                assert found[key] == value
    plain = epoch(make(faces, BatchAugmentation(mirror=0)))
    assert any(not torch.equal(one["image"], other["image"]) for (one, _), other in zip(pairs, plain, strict=True))


def test_pixels_and_masks_are_those_of_float64() -> None:
    augmentation = DeviceAugmentation(affine=Affine(1, (0.6, 1.3), (-0.2, 0.2), (-40, 40)))
    given = spots()
    images, masks = (np.repeat(given[key][None], 7, axis=0) for key in ("image", "mask"))  # type: ignore[literal-required]  # keys of a sample
    warped, classes = augmentation(images, masks, SEEDS)
    assert classes is not None
    y, x = np.indices(SIZE).reshape(2, -1)
    for at, move in enumerate(augmentation.moves(SEEDS, SIZE)):
        source = (np.linalg.inv(np.vstack([move, [0, 0, 1]])) @ [x, y, np.ones_like(x)])[:2].T
        assert abs(warped[at].reshape(-1, 3) - bilinear(given["image"], source)).max() < 0.51
        near = np.round(source).astype(int)
        inside = ((near >= 0) & (near < SIZE[::-1])).all(axis=1)
        truth = np.full(len(near), 255)
        truth[inside] = given["mask"][near[inside, 1], near[inside, 0]]
        known = abs(source - near).max(axis=1) < 0.499
        assert (classes[at].reshape(-1)[known] == truth[known]).all()


@pytest.mark.parametrize("size", [SIZE, (1, 1), (2, 301), (1200, 3)])
@pytest.mark.parametrize("moved", [False, True])
def test_what_is_not_moved_keeps_its_bits(size: tuple[int, int], moved: bool) -> None:
    """Beside images that are; and a mirrored one has them in the contrary order."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (7, 3, *size), dtype=torch.uint8, generator=generator)
    masks = torch.randint(7, (7, *size), generator=generator)
    augmentation = DeviceAugmentation(affine=Affine(0.5 if moved else 0, (0.5, 0.9), (-0.1, 0.1), (-20, 20)))
    found, classes = augmentation.augmented(images, masks, SEEDS)
    assert classes is not None and classes.dtype == masks.dtype
    kept, mirrored = 0, 0
    for at, move in enumerate(augmentation.moves(SEEDS, size)):
        if (move == np.eye(2, 3)).all():
            kept += 1
            assert torch.equal(found[at], images[at]) and torch.equal(classes[at], masks[at])
        elif abs(abs(move[0, 0]) - 1) + abs(move[1, 1] - 1) < 1e-12:
            mirrored += 1
            assert torch.equal(found[at], images[at].flip(-1)) and torch.equal(classes[at], masks[at].flip(-1))
    assert kept > 0 < mirrored and (kept + mirrored < 7) == moved


def test_a_sample_is_a_function_of_its_seed_alone() -> None:
    augmentation = DeviceAugmentation(**ALL)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (7, 3, *SIZE), dtype=torch.uint8, generator=generator)
    masks = torch.randint(7, (7, *SIZE), generator=generator)
    images[3], masks[3] = torch.from_numpy(spots()["image"]).permute(2, 0, 1), torch.from_numpy(spots()["mask"])
    before = images.clone(), masks.clone()
    together, classes = augmentation.augmented(images, masks, SEEDS)
    assert torch.equal(images, before[0]) and torch.equal(masks, before[1])
    for at, seed in enumerate(SEEDS):
        alone, class_alone = augmentation.augmented(images[[at]], masks[[at]], [seed])
        assert torch.equal(alone[0], together[at])
        assert class_alone is not None and classes is not None and torch.equal(class_alone[0], classes[at])
        assert torch.equal(augmentation.augmented(images[[at]], None, [seed])[0][0], alone[0])
    backwards, _ = augmentation.augmented(images.flip(0), None, SEEDS[::-1])
    assert torch.equal(backwards.flip(0), together)
    assert torch.equal(FaceTransform(SIZE, None, augmentation)(spots(), SEEDS[3])["image"], together[3])


def test_a_batch_waits_for_its_device_and_a_sample_does_not(faces: Path) -> None:
    data = helen(faces, DeviceAugmentation(**ALL))
    data.setup("fit")
    loader = data.train_dataloader()
    waiting, keys = next(iter(loader)), list(loader.sampler)[:3]
    assert waiting["seed"] == [seed for _, seed in keys]
    assert torch.equal(waiting["image"][0], helen_plain(faces)[keys[0][0], 0]["image"])
    done = data.on_after_batch_transfer(waiting, 0)
    assert "seed" in waiting and "seed" not in done
    for at, key in enumerate(keys):
        alone = data.dataset("train")[key]
        assert "seed" not in alone
        for name in ("image", "mask"):
            assert torch.equal(done[name][at], alone[name])  # type: ignore[literal-required]  # keys of a sample
    for batch in data.val_dataloader():
        assert data.on_after_batch_transfer(batch, 0) is batch and "seed" not in batch


def helen_plain(faces: Path) -> Any:
    data = helen(faces, BatchAugmentation(mirror=0))
    data.setup("fit")
    return data.dataset("train")


@pytest.mark.parametrize("kind", [DeviceAugmentation, BatchAugmentation])
def test_left_and_right_are_swapped_but_not_what_is_outside(kind: type[BatchAugmentation]) -> None:
    augmentation = kind(mirror=1, affine=Affine(1, (0.5, 0.5), (0.1, 0.1)), outside=1)
    sample = FaceTransform(SIZE, SPACE, augmentation)(spots(), 3)
    assert sample["mask"][0, 0] == 1  # whose mirror image is 2
    x, y = sample["landmarks"].round().long().T
    assert sample["mask"][y, x].tolist() == [1, 2, 3, 4, 5]


def test_on_a_gpu_all_is_computed_there_and_nothing_waits() -> None:
    """As far as a machine without one can tell: by tensors that have a device but no content."""
    with FakeTensorMode():
        images = torch.zeros(7, 3, *SIZE, dtype=torch.uint8, device="cuda")
        masks = torch.zeros(7, *SIZE, dtype=torch.int64, device="cuda")
        found, classes = DeviceAugmentation(**ALL).augmented(images, masks, SEEDS)
    assert classes is not None
    for one, other in ((found, images), (classes, masks)):
        assert (one.device, one.dtype, one.shape) == (other.device, other.dtype, other.shape)


def test_lightning_gives_tasks_augmented_batches(faces: Path) -> None:
    options: dict[str, Any] = {"image_size": (40, 32), "batch_size": 7, "num_workers": 0, "seed": 3}
    options["augmentations"] = DeviceAugmentation(**ALL)
    joint = SyntheticDataModule(str(faces), faces=(21, 11, 13), masks=(9, 5, 7), mask_batch_size=4, **options)
    single = CelebADataModule(str(faces / "celeba"), **options)
    by_hand = JointDataModule(*joint.parts.values())
    for task, data in ((AttributeNet(width=2), single), (JointNet(width=2), joint), (JointNet(width=2), by_hand)):
        watch = Watch()
        make_trainer(2, watch).fit(task, datamodule=data)
        assert len(watch.batches) == 2
        parts = {"": single} if data is single else joint.parts
        for name, part in parts.items():
            loader = part.train_dataloader()
            loader.sampler.set_epoch(0)
            keys, batch = list(loader.sampler), watch.batches[1].get(name, watch.batches[1])
            assert "seed" not in batch
            for at, image in enumerate(batch["image"]):
                assert torch.equal(image, part.dataset("train")[keys[part.batch_size + at]]["image"])


def test_a_trainer_without_the_data_module_is_refused(faces: Path) -> None:
    data = celeba(faces, DeviceAugmentation())
    data.setup("fit")
    with pytest.raises(ConfigurationError, match=r"not augmented yet.*not its loader"):
        make_trainer().fit(AttributeNet(width=2).build(data.facts), data.train_dataloader())


def test_images_of_numbers_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"DeviceAugmentation takes images of bytes, not of torch\.float32"):
        DeviceAugmentation().augmented(torch.zeros(1, 3, 4, 4), None, [0])
