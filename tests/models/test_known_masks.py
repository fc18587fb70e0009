"""Regions from known masks, from the drawing of a face to the network that is given its mask."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest
import torch
import yaml
from torch.nn.functional import avg_pool2d, max_pool2d, one_hot

from facelightning.data import CelebADataModule
from facelightning.data.cropping import FaceCrop
from facelightning.data.files import Record, Records
from facelightning.data.masks import MaskedRecords
from facelightning.data.synthetic import write_synthetic
from facelightning.errors import ConfigurationError, DataFormatError, DataNotFoundError
from facelightning.labels import HELEN7
from facelightning.models import KnownMasks
from tests.conftest import SIZE


class TestKnownMasks:
    @pytest.mark.parametrize("stride", [1, 4, 16])
    def test_are_shares_of_cells_and_pooled_as_a_parsers(self, stride: int) -> None:
        masks = torch.randint(8, (2, 32, 48), generator=torch.Generator().manual_seed(0))
        masks[masks == 7] = 255
        exact = one_hot(masks.where(masks < 7, 7), 8)[..., :7].movedim(-1, 1).float()
        expected = avg_pool2d(exact, stride)
        if stride > 8:  # eyes, eyebrows, mouth, nose
            expected[:, 3:] = max_pool2d(avg_pool2d(exact[:, 3:], 2), stride // 2)
        torch.testing.assert_close(KnownMasks()(torch.zeros(2, 3, 32, 48), masks).at(stride), expected)

    def test_need_masks(self) -> None:
        with pytest.raises(ConfigurationError, match="KnownMasks needs the images' masks, but these have none"):
            KnownMasks()(torch.zeros(1, 3, 8, 8), None)

    def test_boxes(self) -> None:
        masks = torch.zeros(1, 20, 30, dtype=torch.int64)
        masks[0, 4:8, 10:16] = HELEN7.index("nose")
        boxes = KnownMasks()(torch.zeros(1, 3, 20, 30), masks).boxes()
        torch.testing.assert_close(boxes[0, HELEN7.index("nose")], torch.tensor([10.0, 4, 16, 8]))


class TestMaskedRecords:
    def read(self, folder: Path, mask: Any) -> Record:
        cv2.imwrite(str(folder / "a.png"), np.array(mask, np.uint8))
        record = Record(image=np.zeros((2, 3, 3), np.uint8), name="a.jpg")
        return MaskedRecords(cast(Records, [record]), str(folder), HELEN7)[0]

    def test_have_the_masks_of_their_names(self, tmp_path: Path) -> None:
        assert self.read(tmp_path, [[0, 1, 6], [255, 2, 3]])["mask"].tolist() == [[0, 1, 6], [255, 2, 3]]

    @pytest.mark.parametrize(
        ("mask", "message"),
        [
            ([[0, 1], [2, 3]], r"a\.png has 2×2 pixels \(height×width\), but its image 2×3"),
            ([[0, 1, 7], [2, 3, 4]], r"a\.png has the value 7, but classes are 0\.\.\.6"),
        ],
    )
    def test_mistakes_are_named(self, mask: Any, message: str, tmp_path: Path) -> None:
        with pytest.raises(DataFormatError, match=message):
            self.read(tmp_path, mask)
        with pytest.raises(DataNotFoundError, match=r"gone.* does not exist"):
            MaskedRecords(cast(Records, []), str(tmp_path / "gone"), HELEN7)


def test_an_upper_bound_on_drawn_faces(command: Callable[..., None], tmp_path: Path) -> None:
    """Trained and predicted with; the drawn eyes are where a landmark says."""
    write_synthetic(tmp_path / "faces", (6, 3, 3), (0, 0, 0), seed=0, known_masks=True)
    celeba, masks = str(tmp_path / "faces/celeba"), str(tmp_path / "faces/celeba/Masks")
    sample = CelebADataModule(celeba, masks=masks, num_workers=0, augmentations=[]).dataset("train")[(0, 0)]
    for name, points in (("eyes", slice(0, 2)), ("mouth", slice(3, 5))):
        rows, columns = (sample["mask"] == HELEN7.index(name)).nonzero().float().mean(dim=0).tolist()
        assert (columns, rows) == pytest.approx(sample["landmarks"][points].mean(dim=0).tolist(), abs=9)
    with pytest.raises(ConfigurationError, match="known masks are of whole images"):
        CelebADataModule(celeba, masks=masks, crop=FaceCrop()).dataset("train")

    settings = {"root": celeba, "masks": masks, "image_size": list(SIZE), "batch_size": 3, "num_workers": 0}
    model = {"width": 2, "regions": {"class_path": "KnownMasks"}}
    trainer = {"max_steps": 2, "max_epochs": -1, "val_check_interval": 2, "accelerator": "cpu"}
    overlay = {"model": {"init_args": model}, "data": {"init_args": settings}, "trainer": trainer}
    Path("over.yaml").write_text(yaml.safe_dump(overlay | {"figures": {"num_images": 0}}))
    command("fit", "--config=ssp.yaml", "--config=over.yaml")
    best = "runs/ssp/version_0/checkpoints/best.ckpt"
    command("predict", f"--ckpt_path={best}", f"--data.root={celeba}", f"--data.masks={masks}")
    assert list(Path("runs/ssp").rglob("attributes.csv"))
