"""Shards hold what their source gives, in an order that is a function of the seed, a few files at a time."""

import http.server
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any
from zlib import crc32

import albumentations as A
import numpy as np
import pytest
import torch
import webdataset
from PIL import Image
from torch.utils.data import Dataset

from facelightning.data import (
    CelebADataModule,
    FaceTableDataModule,
    HelenDataModule,
    ImageFolderDataModule,
    ShardsDataModule,
)
from facelightning.data.cropping import FaceCrop
from facelightning.data.datamodule import FaceDataModule
from facelightning.data.fetching import ShardFolder
from facelightning.data.files import Record
from facelightning.data.sampling import ShardSampler, TrainSampler
from facelightning.data.shard_format import INDEX
from facelightning.data.shard_writing import write_shards
from facelightning.data.synthetic import write_objects, write_people, write_scenes
from facelightning.errors import ConfigurationError, DataFormatError, DataNotFoundError, FacelightningError
from tests.conftest import SIZE

SMALL: dict[str, Any] = {"image_size": SIZE, "batch_size": 4, "seed": 3, "num_workers": 0, "augmentations": []}
OWN = SMALL | {"image_size": (218, 178)}
"""The size of the images' files."""

MAKERS: dict[str, Callable[..., FaceDataModule]] = {
    "own bytes": lambda root, **options: CelebADataModule(str(root / "faces/celeba"), **OWN | options),
    "attributes": lambda root, **options: CelebADataModule(str(root / "faces/celeba"), **SMALL | options),
    "masks": lambda root, **options: HelenDataModule(str(root / "faces/helen"), "helen11", **SMALL | options),
    "boxes": lambda root, **options: CelebADataModule(str(root / "scenes"), "wild", **SMALL | options),
    "cuts": lambda root, **options: CelebADataModule(
        str(root / "scenes"), "wild", crop=FaceCrop(1.2), **SMALL | options
    ),
    "people": lambda root, **options: FaceTableDataModule(str(root / "people"), **SMALL | options),
    "categories": lambda root, **options: ImageFolderDataModule(str(root / "objects"), **SMALL | options),
}


@pytest.fixture(scope="module")
def root(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small data sets of all kinds."""
    root = tmp_path_factory.mktemp("sources")
    (root / "faces").symlink_to(faces)
    write_scenes(root / "scenes", (9, 5, 5), (0, 0, 0), (1, 1), (64, 80), 0)
    write_objects(root / "objects", (20, 6, 6), size=(64, 64))
    write_people(root / "people", (3, 2, 2), 2, 0)
    table = root / "people/faces.csv"
    header, first, *rest = table.read_text().splitlines()
    cells = first.split(",")
    cells[header.split(",").index("age")] = ""  # unknown
    table.write_text("\n".join([header, ",".join(cells), *rest]) + "\n")
    return root


@pytest.fixture(scope="module")
def written(root: Path) -> Callable[[str], Path]:
    """The folder of shards of a kind, four images in each."""

    def folder(kind: str) -> Path:
        path = root / "shards" / kind.replace(" ", "_")
        if not path.exists():
            path.mkdir(parents=True)
            write_shards(MAKERS[kind](root), path, 4)
        return path

    return folder


@pytest.fixture
def shards(written: Callable[[str], Path]) -> Callable[..., ShardsDataModule]:
    """A data module of the shards of images of ``SIZE`` with attributes."""

    def made(root: str | None = None, **options: Any) -> ShardsDataModule:
        return ShardsDataModule(root or str(written("attributes")), **SMALL | {"window": 2} | options)

    return made


@pytest.fixture
def copied(written: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of them to damage."""
    folder = tmp_path / "copied"
    folder.mkdir()
    for path in written("attributes").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def epoch(data: FaceDataModule, number: int = 1) -> list[dict[str, Any]]:
    """The batches of an epoch of training, of validation and of test."""
    data.setup("fit")
    data.setup("test")
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)
    return [*loader, *data.val_dataloader(), *data.test_dataloader()]


def assert_same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert list(ours) == list(theirs)
        for key, value in theirs.items():
            assert_equal(ours[key], value, key)


def assert_equal(ours: Any, theirs: Any, key: str) -> None:
    if not isinstance(theirs, torch.Tensor):
        assert ours == theirs
        return
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape), key
    assert ours.numpy().tobytes() == theirs.numpy().tobytes(), key  # NaN is NaN


@pytest.mark.parametrize("kind", MAKERS)
def test_samples_and_facts_are_those_of_the_source(
    kind: str, root: Path, written: Callable[[str], Path], tmp_path: Path
) -> None:
    source = MAKERS[kind](root)
    source.setup("fit")
    source.setup("test")
    data = ShardsDataModule(str(written(kind)), **(OWN if kind == "own bytes" else SMALL))
    assert data.facts == source.facts
    data.setup("fit")
    data.setup("test")
    for split in ("train", "val", "test"):
        ours, theirs = data.dataset(split), source.dataset(split)
        found = [ours[index, 0] for index in range(len(ours))]
        expected = [theirs[index, 0] for index in range(len(theirs))]
        names = [[sample["name"] for sample in samples] for samples in (found, expected)]
        assert sorted(names[0]) == sorted(names[1])
        assert (names[0] == names[1]) == (split != "train")  # shuffled once
        by_name = {sample["name"]: sample for sample in expected}
        for sample in found:
            other = by_name[sample["name"]]
            assert list(sample) == list(other)
            for key in sample.keys() - {"image"} if kind != "own bytes" else sample:
                assert_equal(sample[key], other[key], key)
            difference = (sample["image"].float() - other["image"].float()).abs().mean()
            assert difference == 0 if kind == "own bytes" else 0 < difference < 4
        if split == "val":
            first = [(0, 0), (1, 0)]
            batches = [each.__getitems__(first) for each in (ours, theirs)]
            for batch in batches if kind != "own bytes" else ():
                del batch["image"]
            assert_same(batches[:1], batches[1:])
    if kind == "people":
        assert any(data.dataset("train")[index, 0]["age"].isnan() for index in range(len(data.dataset("train"))))


@pytest.mark.parametrize("kind", ["own bytes", "masks"])
def test_webdataset_reads_the_same(kind: str, written: Callable[[str], Path]) -> None:
    """The library whose format it is, and Pillow."""
    data = ShardsDataModule(str(written(kind)), **(OWN if kind == "own bytes" else SMALL))
    data.setup("fit")
    files = sorted(str(path) for path in written(kind).glob("train-*.tar"))
    theirs = list(webdataset.WebDataset(files, shardshuffle=False))
    assert [sample["__key__"] for sample in theirs] == [f"{n:09}" for n in range(len(theirs))]
    assert len(theirs) == len(data.dataset("train"))
    for index, sample in enumerate(theirs):
        ours = data.dataset("train")[index, 0]
        labels = json.loads(sample["json"])
        assert labels["name"] == ours["name"]
        image = np.asarray(Image.open(io.BytesIO(sample["jpg"])).convert("RGB")).transpose(2, 0, 1)
        assert np.abs(image.astype(int) - ours["image"].numpy()).mean() < 0.5  # two decoders of JPEG
        if kind == "masks":
            assert (np.asarray(Image.open(io.BytesIO(sample["mask.png"]))) == ours["mask"].numpy()).all()
        else:
            assert labels["attributes"] == ours["attributes"].tolist()


def test_own_bytes_are_kept_and_others_are_encoded_without_thinner_colours(
    root: Path, written: Callable[[str], Path]
) -> None:
    files = {path.name: path.read_bytes() for path in (root / "faces/celeba/Img").rglob("*.jpg")}
    sizes, tables = {}, {}
    for kind in ("own bytes", "attributes"):
        for sample in webdataset.WebDataset(str(written(kind) / "val-000000.tar"), shardshuffle=False):
            kept = sample["jpg"] == files[json.loads(sample["json"])["name"]]
            assert kept == (kind == "own bytes")
            sizes[kind] = Image.open(io.BytesIO(sample["jpg"])).layer[0][1:3]
            tables[kind] = Image.open(io.BytesIO(sample["jpg"])).quantization
    assert sizes["attributes"] == (1, 1)
    Image.new("RGB", (8, 8)).save(again := io.BytesIO(), "JPEG", quality=95)
    assert tables["attributes"] == Image.open(again).quantization


def test_an_image_that_is_turned_is_not_its_file(tmp_path: Path) -> None:
    """Of the right size, and the camera stood on its head."""
    exif = Image.Exif()
    exif[0x0112] = 3
    picture = Image.fromarray(np.tile(np.arange(SIZE[1], dtype=np.uint8) * 7, (SIZE[0], 1))).convert("RGB")
    for split in ("train", "val", "test"):
        (tmp_path / "source" / split / "a").mkdir(parents=True)
        picture.save(tmp_path / "source" / split / "a/1.jpg", exif=exif, quality=95)
    (tmp_path / "shards").mkdir()
    source = ImageFolderDataModule(str(tmp_path / "source"), **SMALL)
    assert write_shards(source, tmp_path / "shards", 4)[1] == 3
    data = ShardsDataModule(str(tmp_path / "shards"), **SMALL)
    found, expected = (each.dataset("val")[0, 0]["image"].float() for each in (data, source))
    assert (found - expected).abs().mean() < 4
    assert found[0, 0, 0] > found[0, 0, -1]


def test_records_that_name_no_files_are_encoded(root: Path, tmp_path: Path) -> None:
    class Bare(Dataset[Record]):
        names = ("a", "b")

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Record:
            return Record(image=np.full((*SIZE, 3), 100 * index, np.uint8), name=self.names[index])

    class BareDataModule(FaceDataModule):
        def records(self, split: str) -> Bare:
            return Bare()

    index, encoded = write_shards(BareDataModule(**SMALL), tmp_path, 4)
    assert encoded == 6
    assert [shard.images for shard in index.splits["val"]] == [2]


def test_writing_is_the_same_with_workers(root: Path, written: Callable[[str], Path], tmp_path: Path) -> None:
    write_shards(MAKERS["attributes"](root, num_workers=2), tmp_path, 4)
    expected = {path.name: path.read_bytes() for path in written("attributes").iterdir()}
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == expected


SIZES = [5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 3]


def order(window: int, seed: int = 1, epoch: int = 0, cycle: int = 0, rank: int = 0, processes: int = 1) -> list[int]:
    sampler = ShardSampler(SIZES, window, seed, rank, processes)
    sampler.set_epoch(epoch)
    sampler.cycle = cycle
    return [index for index, _ in sampler]


@pytest.mark.parametrize("window", [1, 2, 4, 100])
def test_the_order_is_a_function_and_needs_few_shards_at_a_time(window: int) -> None:
    first = order(window)
    torch.manual_seed(5)
    assert order(window) == first
    assert sorted(first) == list(range(53))
    for other in (order(window, seed=2), order(window, epoch=1), order(window, cycle=1)):
        assert sorted(other) == sorted(first)
        assert other != first
    for processes in (2, 3):
        parts = [order(window, rank=rank, processes=processes) for rank in range(processes)]
        taken = [index for together in zip(*parts, strict=True) for index in together]
        assert taken == first[: 53 // processes * processes]
    shards = [np.searchsorted(np.cumsum(SIZES), index, side="right") for index in first]
    begins = {shard: shards.index(shard) for shard in shards}
    ends = {shard: len(shards) - shards[::-1].index(shard) for shard in shards}
    needed = [sum(begins[shard] <= place < ends[shard] for shard in begins) for place in range(53)]
    assert max(needed) <= window
    assert window == 1 or max(needed) > 1
    changes = sum(one != another for one, another in pairwise(shards))
    assert changes == 10 if window == 1 else changes > 20  # in turns


def test_augmentation_seeds_differ(shards: Callable[..., ShardsDataModule]) -> None:
    seeds = [seed for _, seed in ShardSampler(SIZES, 2, 1)]
    assert len(set(seeds)) == 53
    assert isinstance(shards().train_sampler(1), TrainSampler)


AUGMENTED = [A.HorizontalFlip(p=0.5), A.Affine(rotate=(-20, 20), p=0.5)]


def test_workers_read_the_same_and_a_training_resumes_within_an_epoch(shards: Callable[..., ShardsDataModule]) -> None:
    expected = epoch(shards(augmentations=AUGMENTED))
    assert_same(epoch(shards(augmentations=AUGMENTED, num_workers=2)), expected)
    data = shards(augmentations=AUGMENTED)
    data.setup("fit")
    loader, whole = data.train_dataloader(), shards(augmentations=AUGMENTED)
    whole.setup("fit")
    loader.sampler.set_epoch(1)
    place = loader.state_dict() | {"epoch": 1, "cycle": 0, "done": 2}
    loader.load_state_dict(place)
    assert_same(list(loader), expected[2:6])
    other = shards(window=3)
    other.setup("fit")
    loader = other.train_dataloader()
    loader.sampler.set_epoch(1)
    loader.load_state_dict(place)
    with pytest.raises(ConfigurationError, match=r"with window 2 \(here 3\): resume as it began"):
        next(iter(loader))
    loader.load_state_dict(place | {"images_per_shard": 5, "window": 3})
    with pytest.raises(ConfigurationError, match=r"with images_per_shard 5 \(here 4\): resume as it began"):
        next(iter(loader))


def test_processes_share_the_scored_samples(shards: Callable[..., ShardsDataModule]) -> None:
    names = []
    for rank in range(3):
        data = shards()
        data._process = lambda rank=rank: (rank, 3)  # type: ignore[method-assign]
        data.setup("test")
        names += [name for batch in data.test_dataloader() for name in batch["name"]]
    whole = shards()
    whole.setup("test")
    assert sorted(names) == sorted(name for batch in whole.test_dataloader() for name in batch["name"])


def test_few_files_are_open_and_each_is_opened_once(
    shards: Callable[..., ShardsDataModule], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, opened = shards(window=2), list[str]()
    data.setup("fit")
    records, original = data.dataset("train").records, ShardFolder.open
    monkeypatch.setattr(ShardFolder, "open", lambda self, shard: (opened.append(shard.file), original(self, shard))[1])
    for seed in range(5):
        for index, _ in data.train_sampler(seed):
            records[index]
            assert len(records._open) <= 4  # type: ignore[attr-defined]
        assert sorted(opened) == [f"train-{number:06}.tar" for number in range(6)]
        records._open.clear()  # type: ignore[attr-defined]
        opened.clear()
    with pytest.raises(IndexError):
        records[len(records)]


@pytest.fixture
def address(written: Callable[[str], Path]) -> Iterator[str]:
    """A server of the shards."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    handler = partial(Handler, directory=str(written("attributes")))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("workers", [0, 2])
def test_behind_a_url_is_the_same(
    workers: int, address: str, shards: Callable[..., ShardsDataModule], tmp_path: Path
) -> None:
    data = shards(address, num_workers=workers, cache_folder=str(tmp_path))
    assert_same(epoch(data), epoch(shards()))
    (folder,) = (tmp_path / "shards").iterdir()
    assert len(list(folder.glob("*.tar"))) == 6 + 3 + 4
    assert {path.suffix for path in folder.iterdir()} == {".tar", ".lock"}


def test_fetched_shards_make_room(copied: Path, shards: Callable[..., ShardsDataModule], tmp_path: Path) -> None:
    sizes = {path.name: path.stat().st_size for path in copied.glob("*.tar")}
    gigabytes = 2.5 * max(sizes.values()) / 1e9
    url = copied.as_uri()
    data = shards(url, window=1, gigabytes=gigabytes, cache_folder=str(tmp_path))
    data.setup("fit")
    seen, names = set[str](), list[str]()
    for batch in data.train_dataloader():
        there = list((tmp_path / "shards").rglob("*.tar"))
        assert sum(path.stat().st_size for path in there) <= 1e9 * gigabytes
        seen |= {path.name for path in there}
        names += batch["name"]
    assert len(seen) == 6 > len(there)
    assert len(set(names)) == 21
    with pytest.raises(ConfigurationError, match="raise it, or make window smaller"):
        shards(url, window=2, gigabytes=gigabytes, cache_folder=str(tmp_path)).setup("fit")


def test_what_was_opened_last_is_kept(copied: Path, shards: Callable[..., ShardsDataModule], tmp_path: Path) -> None:
    data = shards(copied.as_uri(), cache_folder=str(tmp_path))
    first, second, third, *_ = data.index.splits["train"]
    source = data.source
    source.limit = first.size + second.size + third.size - 1  # type: ignore[attr-defined]
    for shard in (first, second, first, third):
        source.open(shard).close()
        time.sleep(0.02)  # longer than a file system's clock ticks
    kept = {path.name.partition("-")[2] for path in (tmp_path / "shards").rglob("*.tar")}
    assert kept == {first.file, third.file}


def test_what_was_fetched_is_not_fetched_again_unless_it_has_changed(
    copied: Path, root: Path, shards: Callable[..., ShardsDataModule], tmp_path: Path
) -> None:
    options = {"cache_folder": str(tmp_path)}
    first = epoch(shards(copied.as_uri(), **options))
    for path in copied.glob("*.tar"):
        path.rename(path.with_suffix(".away"))
    assert_same(epoch(shards(copied.as_uri(), **options)), first)
    for path in copied.iterdir():
        path.unlink()
    write_shards(MAKERS["attributes"](root, leave_out=["Male"]), copied, 4)
    assert epoch(shards(copied.as_uri(), **options))[0]["attributes"].shape == (4, 39)


def refused(data: ShardsDataModule, kind: type[FacelightningError], *words: str) -> None:
    with pytest.raises(kind) as error:
        epoch(data)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_place_without_shards_is_one_sentence(
    copied: Path, shards: Callable[..., ShardsDataModule], tmp_path: Path
) -> None:
    refused(shards(str(tmp_path / "nowhere")), DataNotFoundError, "nowhere does not exist", INDEX)
    refused(shards("missing://bucket"), DataNotFoundError, "missing://bucket/shards.json", "Protocol not known")
    refused(shards("http://127.0.0.1:9"), DataNotFoundError, "cannot fetch http://127.0.0.1:9/shards.json")
    (copied / INDEX).rename(copied / f"{INDEX}.part")  # interrupted before its end
    for place in (str(copied), copied.as_uri()):
        data = shards(place, cache_folder=str(tmp_path))
        refused(data, DataNotFoundError, "was interrupted: write them anew with `facelightning shard`")
    with pytest.raises(DataNotFoundError, match="no data root given"):
        ShardsDataModule(**SMALL).setup("fit")


@pytest.mark.skipif(find_spec("s3fs") is not None, reason="s3fs is installed")
def test_storage_without_its_package_is_one_sentence(shards: Callable[..., ShardsDataModule], tmp_path: Path) -> None:
    data = shards("s3://bucket/faces", cache_folder=str(tmp_path))
    refused(data, ConfigurationError, "s3fs", "pip install 'facelightning[shards]'")


def test_a_damaged_or_missing_shard_is_one_sentence(
    copied: Path, shards: Callable[..., ShardsDataModule], tmp_path: Path
) -> None:
    path, options = copied / "train-000002.tar", {"cache_folder": str(tmp_path)}
    whole = path.read_bytes()
    fetched = shards(copied.as_uri(), **options)
    epoch(fetched)
    for content in (whole[:-1], whole[:3000] + bytes([whole[3000] ^ 1]) + whole[3001:], b"", whole + b"\0"):
        path.write_bytes(content)
        refused(shards(str(copied)), DataFormatError, "train-000002.tar is damaged: copy it there again")
        elsewhere = shards(copied.as_uri(), cache_folder=str(tmp_path / "other"))
        refused(elsewhere, DataFormatError, "train-000002.tar is damaged, or did not come whole")
    (kept,) = (tmp_path / "shards").rglob("*-train-000002.tar")
    kept.write_bytes(whole[:-1] + b"1")
    refused(shards(copied.as_uri(), **options), DataFormatError, "is damaged: delete it, and it will be fetched anew")
    kept.unlink()
    path.unlink()
    refused(shards(copied.as_uri(), **options), DataNotFoundError, "train-000002.tar is not there")
    refused(shards(str(copied)), DataNotFoundError, "train-000002.tar")


CHANGES: dict[str, Callable[[Any], Any]] = {
    "no object": lambda said: [said],
    "no facts": lambda said: {**said, "facts": None},
    "unknown labels": lambda said: {**said, "facts": {**said["facts"], "label_space": "helen9"}},
    "no size": lambda said: {**said, "facts": {**said["facts"], "image_size": [0, 3]}},
    "rates": lambda said: {**said, "facts": {**said["facts"], "positive_rates": 3}},
    "no split": lambda said: {**said, "splits": {"train": []}},
    "outside": lambda said: change_shard(said, file="../train-000000.tar"),
    "no images": lambda said: change_shard(said, images=0),
    "no number": lambda said: change_shard(said, size="12"),
    "more": lambda said: change_shard(said, more=1),
}


def change_shard(said: Any, **changes: Any) -> Any:
    said["splits"]["train"][0] |= changes
    return said


@pytest.mark.parametrize("change", CHANGES)
def test_a_damaged_index_is_one_sentence(change: str, copied: Path, shards: Callable[..., ShardsDataModule]) -> None:
    path = copied / INDEX
    path.write_text(json.dumps(CHANGES[change](json.loads(path.read_text()))))
    refused(shards(str(copied)), DataFormatError, f"{INDEX} is no index of shards, or is damaged: copy it again")


def test_an_index_that_says_something_else_is_one_sentence(
    copied: Path, root: Path, shards: Callable[..., ShardsDataModule]
) -> None:
    path = copied / INDEX
    text = path.read_text()
    path.write_text(text.replace('"format": 1', '"format": 2'))
    refused(shards(str(copied)), DataFormatError, "is of format 2, but this version reads 1: write the shards anew")
    path.write_text(text[: len(text) // 2])
    refused(shards(str(copied)), DataFormatError, "is damaged")
    path.write_text(json.dumps(change_shard(json.loads(text), images=3)))
    refused(shards(str(copied)), DataFormatError, "train-000000.tar is damaged")
    said = json.loads(text)
    said["facts"]["image_size"] = [41, 32]
    path.write_text(json.dumps(said))
    refused(shards(str(copied), image_size=(41, 32)), DataFormatError, "has an image of 40×32, not of 41×32")


def test_settings_that_cannot_be_are_one_sentence(shards: Callable[..., ShardsDataModule]) -> None:
    refused(
        shards(image_size=(41, 32)),
        ConfigurationError,
        "are of 40×32 pixels, but image_size is 41×32: write them anew, or pass --data.image_size=[40,32]",
    )
    for options in ({"window": 0}, {"gigabytes": 0}, {"gigabytes": float("nan")}):
        with pytest.raises(ConfigurationError, match="must be positive"):
            shards(**options)
    with pytest.raises(ConfigurationError, match=r"leave data\.cache out"):
        shards(cache=True)


def test_a_tar_file_of_others_is_one_sentence(copied: Path, shards: Callable[..., ShardsDataModule]) -> None:
    """Its checksum is right, and its content is not."""
    path = copied / "train-000000.tar"
    whole = path.read_bytes()
    for content in (
        b"x" * len(whole),
        whole.replace(b".json", b".jsno"),
        whole.replace(b'"attributes"', b'"attributes?'),
        whole[:124] + b"77777777777" + whole[135:],
        whole[:124] + b"-0000001000" + whole[135:],  # back to where it begins, for ever
    ):
        path.write_bytes(content)
        said = change_shard(json.loads((copied / INDEX).read_text()), checksum=crc32(content))
        (copied / INDEX).write_text(json.dumps(said))
        with pytest.raises(FacelightningError):
            epoch(shards(str(copied)))
