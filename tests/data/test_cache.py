"""The cache gives what the files give, to the bit, and nothing once a file, a setting or a byte of it has changed."""

import multiprocessing
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from facelightning.data import CelebADataModule, FolderDataModule, HelenDataModule, SyntheticDataModule, cache
from facelightning.data.batch_augmentation import Affine, BatchAugmentation, Color, Erasing
from facelightning.data.cropping import FaceCrop
from facelightning.data.datamodule import FaceDataModule
from facelightning.data.device_augmentation import DeviceAugmentation
from facelightning.data.synthetic import write_scenes
from facelightning.errors import ConfigurationError, DataFormatError, FacelightningError
from tests.conftest import SIZE

SMALL: dict[str, Any] = {"image_size": SIZE, "batch_size": 4, "seed": 3}
FLIP = [A.HorizontalFlip(p=0.5)]
AUGMENTATIONS: list[Any] = [
    None,
    [],
    [A.HorizontalFlip(p=1)],
    [A.VerticalFlip(p=0.5)],
    [A.Affine(rotate=(-20, 20), p=0.5), *FLIP, A.RandomBrightnessContrast(p=1)],
    BatchAugmentation(affine=Affine(0.5, rotate=(-20, 20)), color=Color(0.5, (0.5, 1)), erasing=Erasing(0.5, (1, 2))),
    DeviceAugmentation(affine=Affine(0.5, rotate=(-20, 20)), color=Color(0.5, (0.5, 1)), erasing=Erasing(0.5, (1, 2))),
]


@pytest.fixture(scope="module")
def roots(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Faces, masks, and images with boxes: none of the network's size."""
    root = tmp_path_factory.mktemp("roots")
    for name in ("celeba", "helen"):
        (root / name).symlink_to(faces / name)
    write_scenes(root / "scenes", (9, 5, 5), (0, 0, 0), (1, 1), (64, 80), 0)
    (root / "masks").mkdir()
    for path in (faces / "celeba/Img").rglob("*.*"):
        height, width = cv2.imread(str(path)).shape[:2]
        mask = np.arange(height * width, dtype=np.uint8).reshape(height, width) % 7
        cv2.imwrite(str(root / "masks" / f"{path.stem}.png"), mask)
    return root


def batches(data: FaceDataModule, epoch: int = 1) -> list[dict[str, Any]]:
    """An epoch of training, validation and test."""
    data.setup("fit")
    data.setup("test")
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    read = [*loader, *data.val_dataloader(), *data.test_dataloader()]
    return [data.on_after_batch_transfer(batch, 0) for batch in read]


def one_by_one(data: FaceDataModule, epoch: int = 1) -> list[dict[str, Any]]:
    """The same batches, of samples that are read, augmented and made tensors each by itself."""
    loaders = {"train": data.train_dataloader(), "val": data.val_dataloader(), "test": data.test_dataloader()}
    loaders["train"].sampler.set_epoch(epoch)
    return [
        default_collate([data.dataset(split)[key] for key in keys])
        for split, loader in loaders.items()
        for keys in loader.batch_sampler
    ]


def assert_same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert list(ours) == list(theirs)
        for key, value in theirs.items():
            if isinstance(value, list):
                assert ours[key] == value
            else:
                assert (ours[key].dtype, ours[key].shape, ours[key].stride()) == (
                    value.dtype,
                    value.shape,
                    value.stride(),
                )
                assert ours[key].numpy().tobytes() == value.numpy().tobytes(), key  # NaN is NaN


MAKERS: dict[str, Callable[..., FaceDataModule]] = {
    "landmarks": lambda root, **options: CelebADataModule(str(root / "celeba"), **SMALL | options),
    "masks": lambda root, **options: HelenDataModule(str(root / "helen"), "helen11", **SMALL | options),
    "aligned masks": lambda root, **options: HelenDataModule(str(root / "helen"), aligned=True, **SMALL | options),
    "known masks": lambda root, **options: CelebADataModule(
        str(root / "celeba"), masks=str(root / "masks"), **SMALL | options
    ),
    "boxes": lambda root, **options: CelebADataModule(str(root / "scenes"), "wild", **SMALL | options),
    "cuts": lambda root, **options: CelebADataModule(str(root / "scenes"), "wild", crop=CROP, **SMALL | options),
}
CROP = FaceCrop(1.2)


@pytest.mark.parametrize("kind", MAKERS)
def test_batches_from_the_cache_are_the_same_to_the_bit(
    kind: str, roots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for augmentations in AUGMENTATIONS:
        options = {"augmentations": augmentations}
        plain = MAKERS[kind](roots, num_workers=0, **options)
        expected = one_by_one(plain)
        assert_same(batches(plain), expected)
        assert_same(batches(MAKERS[kind](roots, cache=True, cache_folder=str(tmp_path), **options)), expected)
        monkeypatch.setattr(cache, "_make", None)  # made once: all augmentations begin from the same images
    assert {path.suffix for path in tmp_path.iterdir()} == {".npy", ".lock"}
    assert len(list(tmp_path.glob("*.npy"))) == 3


@pytest.fixture
def make(roots: Path, tmp_path: Path) -> Callable[..., CelebADataModule]:
    """A data module of a copy of the images and annotations, with a cache."""
    shutil.copytree(roots / "celeba", tmp_path / "celeba")

    def made(**options: Any) -> CelebADataModule:
        options = SMALL | {"cache": True, "cache_folder": str(tmp_path / "cache")} | options
        return CelebADataModule(str(tmp_path / "celeba"), **options)

    return made


def files(folder: Path) -> set[str]:
    return {path.name for path in (folder / "cache").glob("*.npy")}


def test_workers_read_the_same_and_no_more_than_they_need(
    make: Callable[..., CelebADataModule], tmp_path: Path
) -> None:
    alone, plain = make(), make(cache=False)
    expected = batches(alone)
    loader = alone.train_dataloader()
    assert (loader.num_workers, plain.train_dataloader().num_workers) == (0, 2)
    size = next((tmp_path / "cache").glob("*-21-*.npy")).stat().st_size
    assert len(pickle.dumps(loader.dataset)) < size / 2  # for workers that are spawned: not the images
    again = pickle.loads(pickle.dumps(loader.dataset))
    assert_same([again.__getitems__([(3, 1), (0, 2)])], [loader.dataset.__getitems__([(3, 1), (0, 2)])])
    assert_same(batches(make(num_workers=1)), expected)
    loader.sampler.set_epoch(1)
    loader.load_state_dict(loader.state_dict() | {"epoch": 1, "cycle": 0, "done": 2})
    assert_same(list(loader), expected[2:6])  # resumed


def test_processes_make_the_same_file(make: Callable[..., CelebADataModule], tmp_path: Path) -> None:
    make().setup("fit")
    first = {path.name: path.read_bytes() for path in (tmp_path / "cache").glob("*.npy")}
    shutil.rmtree(tmp_path / "cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "IMAGES_FOR_A_PROCESS", 10)
        patch.setattr(cache, "BATCH", 4)
        before = torch.get_rng_state()
        make().setup("fit")
        assert torch.equal(torch.get_rng_state(), before)  # a network begins with the same weights as without a cache
    assert {path.name: path.read_bytes() for path in (tmp_path / "cache").glob("*.npy")} == first


@pytest.mark.parametrize(
    ("damage", "rebuilt"),
    [
        (lambda content: content[:-1], True),
        (lambda content: content + b"0", True),
        (lambda content: b"", True),
        (lambda content: content[:60] + b"?" + content[61:], True),
        (lambda content: content[:400] + bytes([content[400] ^ 1]) + content[401:], False),
        (lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:], False),
        (lambda content: content[:-4000] + bytes(4000), False),
    ],
    ids=["short", "long", "empty", "head", "row", "bit", "zeros"],
)
@pytest.mark.parametrize("kind", [True, "jpeg"])
def test_what_is_damaged_is_made_again_or_refused(
    kind: Any, damage: Callable[[bytes], bytes], rebuilt: bool, make: Callable[..., CelebADataModule], tmp_path: Path
) -> None:
    make(cache=kind, num_workers=0).setup("validate")
    (path,) = (path for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock")
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    data = make(cache=kind, num_workers=0)
    data.setup("validate")
    if rebuilt:
        assert path.read_bytes() == whole
        return
    with pytest.raises(DataFormatError, match=r"(npy|jpegs) is damaged: delete it, and it will be made anew$"):
        list(data.val_dataloader())
    path.unlink()
    assert len(batches(make(cache=kind, num_workers=0))) == 13


@pytest.mark.parametrize("kind", MAKERS)
def test_jpegs_of_other_sizes_differ_a_little(kind: str, roots: Path, tmp_path: Path) -> None:
    for augmentations in (None, AUGMENTATIONS[-1]):
        options = {"augmentations": augmentations, "num_workers": 0}
        expected = batches(MAKERS[kind](roots, **options))
        found = batches(MAKERS[kind](roots, cache="jpeg", cache_folder=str(tmp_path), **options))
        for ours, theirs in zip(found, expected, strict=True):
            images, others = ours.pop("image"), theirs.pop("image")
            assert (images.shape, images.stride()) == (others.shape, others.stride())
            assert 0 < (images.float() - others.float()).abs().mean() < 4  # of 255
            assert_same([ours], [theirs])
    assert {path.suffix for path in tmp_path.iterdir()} == {".jpegs", ".lock"}


@pytest.mark.parametrize(
    ("device", "cores", "gpus", "expected"),
    [("cpu", 16, 1, 2), ("cuda", 32, 1, 8), ("cuda", 16, 2, 4), ("cuda", 2, 1, 2), ("cuda", 1, 1, 2), ("mps", 6, 1, 3)],
)
def test_a_gpu_gets_its_share_of_the_cores_for_reading(
    device: str, cores: int, gpus: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache.os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
    trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(device)), num_devices=gpus)
    assert cache.enough_workers(trainer) == expected
    assert cache.enough_workers(None) == 2


def test_jpegs_of_the_same_size_are_kept_to_the_bit(
    make: Callable[..., CelebADataModule], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = sorted((tmp_path / "celeba/Img").rglob("*.jpg"))
    size = cv2.imread(str(images[0])).shape[:2]
    options = {"image_size": size, "cache": "jpeg"}
    expected = batches(make(image_size=size, cache=False, num_workers=0))
    assert make(**options).workers == 2
    assert_same(batches(make(**options, num_workers=0)), expected)
    assert_same(batches(make(**options, num_workers=1)), expected)
    caches = {path.name: path.read_bytes() for path in (tmp_path / "cache").glob("*.jpegs")}
    everything = b"".join(caches.values())
    assert all(image.read_bytes() in everything for image in images)
    assert len(everything) < sum(image.stat().st_size for image in images) + 10_000
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.setattr(cache, "IMAGES_FOR_A_PROCESS", 10)
    monkeypatch.setattr(cache, "BATCH", 4)
    batches(make(**options, num_workers=0))
    assert {path.name: path.read_bytes() for path in (tmp_path / "cache").glob("*.jpegs")} == caches


def test_another_name_is_damage(make: Callable[..., CelebADataModule], tmp_path: Path) -> None:
    make().setup("validate")
    (first,) = (tmp_path / "cache").glob("*.npy")
    image = next((tmp_path / "celeba/Img").rglob("000022.*"))
    os.utime(image, (1, 1))
    make().setup("validate")
    (second,) = set((tmp_path / "cache").glob("*.npy")) - {first}
    first.replace(second)
    data = make()
    data.setup("validate")
    with pytest.raises(DataFormatError, match="is damaged"):
        list(data.val_dataloader())


def test_a_jpeg_cache_may_be_deleted_amid_a_training(make: Callable[..., CelebADataModule], tmp_path: Path) -> None:
    data = make(cache="jpeg", num_workers=0)
    data.setup("validate")
    expected = list(data.val_dataloader())
    shutil.rmtree(tmp_path / "cache")
    assert_same(list(data.val_dataloader()), expected)


def test_a_damaged_jpeg_is_not_kept(
    make: Callable[..., CelebADataModule], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What its decoder makes of it is; for the decoder would print at each reading."""
    (image,) = (tmp_path / "celeba/Img").rglob("000022.*")
    size = cv2.imread(str(image)).shape[:2]
    content = image.read_bytes()
    image.write_bytes(content[: len(content) // 2] + b"\xff\xd9")
    data = make(image_size=size, cache="jpeg", num_workers=0)
    with pytest.warns(UserWarning, match="is damaged, and many of its pixels may be wrong"):
        data.setup("validate")
    capfd.readouterr()
    list(data.val_dataloader())
    assert capfd.readouterr().err == ""


def test_other_kinds_of_cache_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="CelebADataModule: cache is true, false or jpeg, not JPEG"):
        CelebADataModule(cache="JPEG")  # type: ignore[arg-type]  # as Python takes it


def test_what_has_changed_is_made_anew(make: Callable[..., CelebADataModule], tmp_path: Path) -> None:
    def made(**options: Any) -> set[str]:
        before = files(tmp_path)
        make(**options).setup("validate")
        return files(tmp_path) - before

    image = next((tmp_path / "celeba/Img").rglob("000022.*"))
    landmarks = tmp_path / "celeba/Anno/list_landmarks_align_celeba.txt"
    assert len(made()) == 1 and not made()
    assert not made(leave_out=["Bald"], batch_size=2, seed=4, augmentations=[])  # changes no image
    assert len(made(image_size=(20, 16))) == 1
    shutil.copyfile(next((tmp_path / "celeba/Img").rglob("000030.*")), image)
    assert len(made()) == 1
    os.utime(image, (1, 1))
    assert len(made()) == 1 and not made()
    head, names, *rows = landmarks.read_text().splitlines()
    rows = [" ".join([row.split()[0], *(str(int(x) + 1) for x in row.split()[1:])]) for row in rows]
    landmarks.write_text("\n".join([head, names, *rows]))
    assert len(made()) == 1
    assert_same(batches(make()), batches(make(cache=False, num_workers=0)))
    data = make(leave_out=["Bald"])
    assert [batch["attributes"].shape[1] for batch in batches(data)] == [39] * 13


def test_a_mask_that_has_changed_is_read_anew(
    make: Callable[..., CelebADataModule], roots: Path, tmp_path: Path
) -> None:
    shutil.copytree(roots / "masks", tmp_path / "masks")
    masks = {"masks": str(tmp_path / "masks")}
    make(**masks).setup("validate")
    cv2.imwrite(str(tmp_path / "masks/000022.png"), 6 - cv2.imread(str(tmp_path / "masks/000022.png"), 0))
    assert_same(batches(make(**masks)), one_by_one(make(cache=False, **masks)))


def test_nothing_is_left_of_what_cannot_be_made(
    make: Callable[..., CelebADataModule], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = next((tmp_path / "celeba/Img").rglob("000030.*"))
    content = image.read_bytes()
    image.write_bytes(content[:100])
    with pytest.raises(FacelightningError, match=r"000030\S+: it is cut short"):
        make().setup("validate")
    image.write_bytes(content)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_234_567_890_123 // 10**8))
    for kind, hint in ((True, "cache_folder, take data.cache=jpeg, or"), ("jpeg", "cache_folder, or leave")):
        with pytest.raises(ConfigurationError, match=r"has 0\.0 MB free, but the images take \S+ MB: free.*" + hint):
            make(cache=kind, num_workers=0).setup("validate")
    assert not files(tmp_path) and not list((tmp_path / "cache").glob("*.part"))


def _killed_amid(data: CelebADataModule) -> None:
    def die(*_: Any) -> None:
        os._exit(9)

    cache.CacheFile.add = die  # type: ignore[method-assign]  # in a process that ends
    data.setup("validate")


def _noting(data: CelebADataModule, note: Path) -> None:
    make_file = cache._make

    def made(*args: Any) -> None:
        with note.open("a") as file:
            file.write("made\n")
        make_file(*args)

    cache._make = made  # type: ignore[assignment]  # likewise
    data.setup("validate")


def test_of_two_processes_one_makes_it(make: Callable[..., CelebADataModule], tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    killed = context.Process(target=_killed_amid, args=(make(),))
    killed.start()
    killed.join()
    assert killed.exitcode == 9 and not files(tmp_path)  # and its lock has gone with it
    several = [context.Process(target=_noting, args=(make(), tmp_path / "note")) for _ in range(3)]
    for process in several:
        process.start()
    for process in several:
        process.join()
        assert process.exitcode == 0
    assert (tmp_path / "note").read_text() == "made\n"
    assert len(files(tmp_path)) == 1 and not list((tmp_path / "cache").glob("*.part"))


def test_prediction_needs_no_cache_and_both_halves_have_one(faces: Path, tmp_path: Path) -> None:
    options = SMALL | {"cache": True, "cache_folder": str(tmp_path)}
    photographs = FolderDataModule(str(faces / "celeba/Img"), **options)
    photographs.setup("predict")
    next(iter(photographs.predict_dataloader()))
    assert not list(tmp_path.iterdir())
    joint = SyntheticDataModule(str(faces), faces=(21, 11, 13), masks=(9, 5, 7), **options)
    joint.setup("validate")
    assert len(list(tmp_path.glob("*.npy"))) == 2
