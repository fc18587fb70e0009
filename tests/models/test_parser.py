"""Regions from a parser: what they are at each stride, how far it decodes for them, and that it stays as it is."""

import json
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d

from facelightning.checkpoint import FORMAT, plain
from facelightning.errors import CheckpointError, ConfigurationError
from facelightning.facts import DataFacts
from facelightning.labels import HELEN7, HELEN11, LabelSpace
from facelightning.models.attributes import AttributeNetwork
from facelightning.models.encoders import TorchvisionEncoder
from facelightning.models.gating import SemanticGating
from facelightning.models.heads import LocalizationHead
from facelightning.models.parser import (
    ParsedRegions,
    ParserBoxes,
    ParserRegions,
    pack_masks,
    pool_masks,
    spread_boxes,
    unpack_masks,
)
from facelightning.models.pooling import SemanticPooling
from facelightning.models.regions import BoxRegions
from facelightning.models.segmentation import Decoder, SegmentationNetwork
from facelightning.models.stored_maps import MapStore
from facelightning.tasks import AttributeNet, load_model
from tests.models.conftest import SIZE, make_parser, settle

PARTS = torch.tensor([name in ("eyes", "eyebrows", "nose", "mouth") for name in HELEN7.classes]).view(1, 7, 1, 1)


def trained_decoder(stride: int = 8) -> tuple[Decoder, Tensor]:
    """A decoder with statistics of real activations, in training mode, and features of two images of 50×37."""
    torch.manual_seed(0)
    decoder = Decoder(6, stride, len(HELEN7), width=2)
    features = torch.randn(2, 6, -(-SIZE[0] // stride), -(-SIZE[1] // stride))
    settle(decoder, features, SIZE)
    return decoder, features


def count_stages(decoder: Decoder) -> list[int]:
    """Which stages are decoded, in order; it grows while they are."""
    stages: list[int] = []
    for number, stage in enumerate(decoder.stages):
        stage.register_forward_hook(lambda _, __, x, number=number: stages.append(number))
    return stages


class TestPoolMasks:
    @pytest.mark.parametrize(
        ("size", "factor", "cells"),
        [((109, 89), 8, (14, 12)), ((16, 8), 8, (2, 1)), ((5, 9), 2, (3, 5)), ((3, 3), 8, (1, 1))],
    )
    def test_is_the_definition(self, size: tuple[int, int], factor: int, cells: tuple[int, int]) -> None:
        """Each cell's own pixels: the largest for small parts, the mean for others."""
        torch.manual_seed(0)
        probabilities = (3 * torch.randn(2, len(HELEN7), *size, dtype=torch.float64)).softmax(dim=1)
        masks = pool_masks(probabilities, HELEN7.part_indices, factor)
        assert masks.shape == (2, len(HELEN7), *cells)

        expected = torch.zeros(masks.shape, dtype=torch.float64)
        for n, name in enumerate(HELEN7.classes):
            for i in range(cells[0]):
                for j in range(cells[1]):
                    rows, columns = slice(i * factor, (i + 1) * factor), slice(j * factor, (j + 1) * factor)
                    window = probabilities[:, n, rows, columns].flatten(1)
                    small = name in ("eyes", "eyebrows", "nose", "mouth")
                    expected[:, n, i, j] = window.max(dim=1).values if small else window.mean(dim=1)
        torch.testing.assert_close(masks, expected, rtol=1e-5, atol=1e-7)

    def test_small_parts_of_eleven_classes(self) -> None:
        """One sure pixel of 64 makes a part's cell 1, any other class's cell 1/64."""
        masks = torch.zeros(1, len(HELEN11), 1, 1)
        for index in range(len(HELEN11)):
            logits = torch.zeros(1, len(HELEN11), 8, 8)
            logits[:, (index + 1) % len(HELEN11)] = 100
            logits[0, :, 2, 5] = 0
            logits[0, index, 2, 5] = 100
            masks[0, index] = pool_masks(logits.softmax(dim=1), HELEN11.part_indices, 8)[0, index]
        large = torch.tensor([name in ("background", "face_skin", "hair") for name in HELEN11.classes])
        torch.testing.assert_close(masks.flatten(), torch.where(large, 1 / 64, 1.0))

    def test_leaves_what_it_pools(self) -> None:
        masks = torch.rand(1, 7, 9, 5)
        before = masks.clone()
        for factor in (1, 2):
            pool_masks(masks, HELEN7.part_indices, factor).zero_()
        assert torch.equal(masks, before)


class TestParsedRegions:
    @pytest.mark.parametrize("coarsest", [8, 32])
    def test_are_the_parsers_own_predictions_down_to_an_eighth(self, coarsest: int) -> None:
        decoder, features = trained_decoder(coarsest)
        expected = decoder.eval()(features, SIZE)
        for stride in (1, 2, 4, 8):
            masks = ParsedRegions(decoder, features, SIZE, HELEN7).at(stride)
            torch.testing.assert_close(masks, expected[decoder.strides.index(stride)].softmax(dim=1))

    @pytest.mark.parametrize("coarsest", [8, 32])
    @pytest.mark.parametrize(("stride", "cells"), [(16, (4, 3)), (32, (2, 2))])
    def test_coarser_ones_are_pooled_from_half_size(self, coarsest: int, stride: int, cells: tuple[int, int]) -> None:
        """Even where the parser predicts at that stride itself."""
        decoder, features = trained_decoder(coarsest)
        half = decoder.eval()(features, SIZE)[-2].softmax(dim=1)
        masks = ParsedRegions(decoder, features, SIZE, HELEN7).at(stride)
        mean, largest = (pool(half, stride // 2, ceil_mode=True) for pool in (avg_pool2d, max_pool2d))
        assert masks.shape == (2, 7, *cells)
        torch.testing.assert_close(masks, torch.where(PARTS, largest, mean))

    @pytest.mark.parametrize("temperature", [0, 0.5, 20.0])
    def test_are_as_sharp_as_the_temperature_says(self, temperature: float) -> None:
        """The likeliest class alone, or odds to the power of 1 / temperature; coarser ones from those at half size."""
        decoder, features = trained_decoder()
        *_, half, whole = decoder.eval()(features, SIZE)
        regions = ParsedRegions(decoder, features, SIZE, HELEN7, temperature=temperature)
        odds = whole.double().softmax(dim=1)
        powers = odds ** (1 / temperature) if temperature else (odds == odds.amax(dim=1, keepdim=True)).double()
        expected = (powers / powers.sum(dim=1, keepdim=True)).float()
        torch.testing.assert_close(regions.at(1), expected)
        at_half = ParsedRegions(decoder, features, SIZE, HELEN7, [half] * 4, temperature).at(1)
        torch.testing.assert_close(regions.at(16), pool_masks(at_half, HELEN7.part_indices, 8))
        assert torch.equal(regions.boxes(), ParsedRegions(decoder, features, SIZE, HELEN7).boxes())

    @pytest.mark.parametrize(("stride", "stages"), [(8, 1), (4, 2), (2, 3), (1, 4), (16, 3), (32, 3)])
    def test_decodes_only_as_far_as_asked(self, stride: int, stages: int) -> None:
        decoder, features = trained_decoder()
        decoded = count_stages(decoder)
        regions = ParsedRegions(decoder, features, SIZE, HELEN7)
        assert decoded == []
        regions.at(stride)
        assert decoded == list(range(stages))

    def test_decodes_each_stage_once(self) -> None:
        """A gate, a pooling and an input ask in any order."""
        decoder, features = trained_decoder()
        expected = [x.softmax(dim=1) for x in decoder.eval()(features, SIZE)]
        decoded = count_stages(decoder)
        regions = ParsedRegions(decoder, features, SIZE, HELEN7)
        for stride in (4, 16, 4, 1, 8, 2, 1):
            masks = regions.at(stride)
            if stride <= 8:
                torch.testing.assert_close(masks, expected[decoder.strides.index(stride)])
        assert decoded == [0, 1, 2, 3]

    def test_never_decodes_in_training_mode(self) -> None:
        decoder, features = trained_decoder()
        modes: list[bool] = []
        for module in decoder.modules():
            module.register_forward_hook(lambda module, _, __: modes.append(module.training))
        before = {name: value.clone() for name, value in decoder.state_dict().items()}
        ParsedRegions(decoder, features, SIZE, HELEN7).at(1)
        assert modes
        assert not any(modes)
        assert all(module.training for module in decoder.modules())
        assert all(torch.equal(value, before[name]) for name, value in decoder.state_dict().items())

    @pytest.mark.parametrize("stride", [2, 16])
    def test_teach_nothing(self, stride: int) -> None:
        decoder, features = trained_decoder()
        features.requires_grad_()
        assert not ParsedRegions(decoder, features, SIZE, HELEN7).at(stride).requires_grad
        known = decoder(features, SIZE)
        assert known[-2].requires_grad
        assert not ParsedRegions(decoder, features, SIZE, HELEN7, known).at(stride).requires_grad

    def test_known_predictions_are_not_decoded_again(self) -> None:
        decoder, features = trained_decoder()
        known = [torch.randn_like(x) for x in decoder(features, SIZE)]
        decoded = count_stages(decoder)
        regions = ParsedRegions(decoder, features, SIZE, HELEN7, known)
        for logits, stride in zip(known, decoder.strides, strict=True):
            torch.testing.assert_close(regions.at(stride), logits.softmax(dim=1))
        torch.testing.assert_close(regions.at(16), pool_masks(known[-2].softmax(dim=1), HELEN7.part_indices, 8))
        assert decoded == []

    @pytest.mark.parametrize("stride", [8, 2, 16])
    def test_low_precision_logits(self, stride: int) -> None:
        decoder, features = trained_decoder()
        known = [x.detach().bfloat16() for x in decoder(features, SIZE)]
        masks = ParsedRegions(decoder, features, SIZE, HELEN7, known).at(stride)
        assert masks.dtype == torch.float32
        single = ParsedRegions(decoder, features, SIZE, HELEN7, [x.float() for x in known]).at(stride)
        torch.testing.assert_close(masks, single)


class TestParserRegions:
    def test_is_frozen(self) -> None:
        parser = make_parser()
        assert list(parser.parameters())
        for _ in range(2):
            parser.train()
            assert not any(module.training for module in parser.modules())
            assert not any(p.requires_grad for p in parser.parameters())
            before = {name: value.clone() for name, value in parser.state_dict().items()}
            parser(torch.rand(2, 3, *SIZE)).at(1)
            assert not any(module.training for module in parser.modules())
            assert all(torch.equal(value, before[name]) for name, value in parser.state_dict().items())

    @pytest.mark.parametrize("space", [HELEN7, HELEN11], ids=str)
    def test_masks_are_probabilities_on_the_last_map(self, space: LabelSpace) -> None:
        parser = make_parser(space)
        assert parser.names == space.classes
        masks = parser(torch.rand(1, 3, 218, 178)).at(16)
        assert masks.shape == (1, len(space), 14, 12)
        assert not masks.requires_grad
        large = [index for index in range(len(space)) if index not in space.part_indices]
        assert ((masks >= 0) & (masks <= 1 + 1e-6)).all()
        assert (masks[:, large].sum(dim=1) < 1).all()

    @pytest.mark.parametrize("size", [(109, 89), (37, 53), (1, 1)])
    @pytest.mark.parametrize("stride", [1, 2, 4, 8, 16, 32])
    def test_any_size_at_any_stride(self, size: tuple[int, int], stride: int) -> None:
        masks = make_parser()(torch.rand(2, 3, *size)).at(stride)
        assert masks.shape == (2, 7, -(-size[0] // stride), -(-size[1] // stride))
        if stride <= 8:
            torch.testing.assert_close(masks.sum(dim=1), torch.ones_like(masks[:, 0]))

    def test_of_any_encoder(self) -> None:
        """A checkpoint names the encoder as it does every part."""
        encoder = plain(partial(TorchvisionEncoder, name="mobilenet_v3_small"))
        settings = {"width": 2, "encoder": encoder}
        facts = DataFacts(SIZE, HELEN7).plain()
        parser = ParserRegions(json.dumps({"format": FORMAT, "task": "SegNet", "settings": settings, "facts": facts}))
        assert isinstance(parser.network.encoder, TorchvisionEncoder)
        assert parser.network.decoder.strides == (32, 16, 8, 4, 2, 1)
        for stride in (1, 4, 16, 32):
            masks = parser(torch.rand(2, 3, *SIZE)).at(stride)
            assert masks.shape == (2, 7, -(-SIZE[0] // stride), -(-SIZE[1] // stride))

    def test_are_the_networks_own_predictions(self) -> None:
        parser, images = make_parser(), torch.randint(256, (2, 3, *SIZE), dtype=torch.uint8)
        predictions = parser.network(images)["parsing"]
        for stride, logits in zip((8, 4, 2, 1), predictions, strict=True):
            torch.testing.assert_close(parser(images).at(stride), logits.softmax(dim=1))

    def test_boxes_of_the_classes_are_regions(self) -> None:
        """Those of the masks, filled, and the whole image."""
        parser, images = make_parser(), torch.randint(256, (2, 3, *SIZE), dtype=torch.uint8)
        source = ParserBoxes(**parser.settings)
        source.load_state_dict(parser.state_dict())
        boxes = parser(images).boxes()
        found = source(images)
        assert source.names == (*HELEN7.classes, "image")
        torch.testing.assert_close(found.boxes()[:, :-1], boxes)
        torch.testing.assert_close(found.at(4), BoxRegions(boxes, SIZE).at(4))
        assert found.at(16).shape == (2, len(source.names), 4, 3)

    def test_masks_come_from_the_half_size_prediction(self) -> None:
        """Hair is predicted everywhere at half size alone."""
        parser = make_parser()
        norm = parser.network.get_submodule("decoder.heads.2.1")
        assert isinstance(norm, nn.BatchNorm2d)
        nn.init.zeros_(norm.weight)
        nn.init.zeros_(norm.bias)
        norm.bias.data[HELEN7.index("hair")] = 100
        masks = parser(torch.rand(2, 3, *SIZE)).at(16)
        hair = torch.zeros(7)
        hair[HELEN7.index("hair")] = 1
        torch.testing.assert_close(masks, hair.view(1, 7, 1, 1).expand(2, 7, 4, 3))


class TestStoredMasks:
    """What a parser said of an image is read again, in a byte a cell."""

    def test_packed_masks_are_within_a_510th(self) -> None:
        """Of each mask's own largest value, however small: a region that is faint everywhere is not lost."""
        masks = torch.rand(2, 4, 9, 5)
        masks[:, 1] *= 1e-12
        masks[:, 2] = 0
        masks[:, 3] = 1
        packed = pack_masks(masks)
        assert packed.dtype == torch.uint8 and packed.shape == (2, 4, 9 * 5 + 4)
        difference = (unpack_masks(packed, (9, 5)) - masks).abs()
        assert (difference <= masks.amax(dim=(2, 3), keepdim=True) / 509).all()
        assert torch.equal(unpack_masks(packed, (9, 5))[:, 2:], masks[:, 2:])

    def test_each_image_is_parsed_once(self, tmp_path: Path) -> None:
        """At each stride that is asked for; a flipped image is another one, and so are other weights."""
        torch.manual_seed(0)
        parser, images = make_parser(), torch.randint(256, (3, 3, *SIZE), dtype=torch.uint8)
        stored = ParserRegions(**parser.settings | {"store": str(tmp_path / "new" / "masks.sqlite")})
        assert stored.settings == parser.settings
        stored.load_state_dict(parser.state_dict())
        parsed: list[int] = []
        stored.network.encoder.register_forward_hook(lambda _, inputs, __: parsed.append(len(inputs[0])))

        def check(seen: Tensor) -> list[int]:
            """Which numbers of images were parsed for masks of three strides and for boxes."""
            parsed.clear()
            regions, expected = stored(seen), parser(seen)
            for stride in (4, 16, 2):
                torch.testing.assert_close(regions.at(stride), expected.at(stride), rtol=0, atol=1 / 509)
            assert not regions.at(4).requires_grad
            assert torch.equal(regions.boxes(), expected.boxes())
            return list(parsed)

        assert check(images) == [3, 3, 3, 3]
        assert check(images[[2, 0, 2]]) == []
        assert check(torch.cat([images, images.flip(3)])) == [3, 3, 3, 3]
        again = ParserRegions(**parser.settings | {"store": str(tmp_path / "new" / "masks.sqlite")})
        again.load_state_dict(parser.state_dict())
        again.network.encoder.register_forward_hook(lambda *_: pytest.fail("it was parsed before"))
        assert torch.equal(again(images).at(4), stored(images).at(4))
        other = {name: 2 * value for name, value in parser.network.state_dict().items()}
        for each in (parser, stored):
            each.network.load_state_dict(other)
        assert check(images) == [3, 3, 3, 3]

    def test_logits_move_by_a_hundredth_of_their_spread(self, tmp_path: Path) -> None:
        parser, images = make_parser(), torch.randint(256, (16, 3, *SIZE), dtype=torch.uint8)
        parts = {"gate": SemanticGating, "pooling": SemanticPooling, "head": LocalizationHead}
        network = AttributeNetwork(40, 4, **parts, regions=partial(ParserRegions, **parser.settings))
        network.regions.load_state_dict(parser.state_dict())
        settle(network, images)
        network.eval()
        exact = network(images)["attributes"]
        network.regions.store = MapStore(tmp_path / "masks.sqlite")
        found = network(images)["attributes"]
        assert 0 < (found - exact).square().mean().sqrt() < 0.01 * exact.std(dim=0).mean()

    def test_all_are_read_before_the_network_begins(self, tmp_path: Path) -> None:
        """So that the network is compiled as a whole, although what reads a file cannot be."""
        parser, images, graphs = make_parser(), torch.randint(256, (2, 3, *SIZE), dtype=torch.uint8), []
        parts = {"gate": SemanticGating, "pooling": SemanticPooling, "head": LocalizationHead}
        regions = partial(ParserRegions, **parser.settings | {"store": str(tmp_path / "masks.sqlite")})
        network = AttributeNetwork(40, 4, **parts, regions=regions).eval()
        assert network.regions.strides == (4, 16)
        expected = network(images)["attributes"]

        def count(graph: torch.fx.GraphModule, _: object) -> torch.fx.GraphModule:
            graphs.append(graph)
            return graph

        compiled = torch.compile(network, backend=count, dynamic=False)
        torch.testing.assert_close(compiled(images)["attributes"], expected)
        assert len(graphs) == 1

    def test_boxes_alone_are_kept_where_nothing_else_is_asked_for(self, tmp_path: Path) -> None:
        store, images = tmp_path / "masks.sqlite", torch.randint(256, (2, 3, *SIZE), dtype=torch.uint8)
        regions = partial(ParserBoxes, **make_parser().settings | {"store": str(store)})
        AttributeNetwork(40, 4, pooling=SemanticPooling, head=LocalizationHead, regions=regions).eval()(images)
        with closing(sqlite3.connect(store)) as file:
            assert file.execute("SELECT COUNT(*) FROM maps").fetchone() == (2,)

    def test_a_checkpoint_needs_no_store(self, tmp_path: Path) -> None:
        store, images = tmp_path / "masks.sqlite", torch.randint(256, (2, 3, *SIZE), dtype=torch.uint8)
        regions = partial(ParserRegions, make_parser().settings["checkpoint"], store=str(store))
        facts = DataFacts(SIZE, attributes=("Smiling", "Young"))
        task = AttributeNet(width=2, gate=SemanticGating, regions=regions).build(facts)
        expected = task.eval()(images)["attributes"]
        assert store.is_file()
        content: dict[str, object] = {"state_dict": task.state_dict()}
        task.on_save_checkpoint(content)
        torch.save(content, tmp_path / "task.ckpt")
        store.unlink()
        found = load_model(tmp_path / "task.ckpt")(images)["attributes"]
        torch.testing.assert_close(found, expected, rtol=0.01, atol=0.01)
        assert not store.exists()


class TestCheckpoint:
    """The file of a :class:`~facelightning.tasks.SegNet`, as far as a parser needs it."""

    def write(self, path: Path, network: SegmentationNetwork, task: str = "SegNet", width: int = 2) -> None:
        about = {
            "format": FORMAT,
            "task": task,
            "settings": {"width": width, "encoder": None, "learning_rate": 0.01},
            "facts": DataFacts(SIZE, HELEN11).plain(),
        }
        weights = {f"network.{name}": value for name, value in network.state_dict().items()}
        torch.save({"facelightning": about, "state_dict": weights | {"objectives.scale": torch.ones(1)}}, path)

    def test_one_file_is_enough(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        network, images = SegmentationNetwork(len(HELEN11), width=2), torch.rand(2, 3, *SIZE)
        settle(network, torch.rand(3, 3, *SIZE))
        self.write(tmp_path / "parser.ckpt", network)
        parser = ParserRegions(str(tmp_path / "parser.ckpt"))
        assert parser.label_space == HELEN11
        expected = network.eval()(images)["parsing"]
        torch.testing.assert_close(parser(images).at(1), expected[-1].softmax(dim=1))

        # what a checkpoint of a network with this parser keeps of it
        (tmp_path / "parser.ckpt").unlink()
        again = ParserRegions(**parser.settings)
        again.load_state_dict(parser.state_dict())
        assert torch.equal(again(images).at(16), parser(images).at(16))
        sharp = ParserRegions(**parser.settings, temperature=0)
        sharp.load_state_dict(parser.state_dict())
        assert sharp(images).at(4).argmax(dim=1).equal(parser(images).at(4).argmax(dim=1))
        assert set(sharp(images).at(4).unique().tolist()) == {0, 1}

    def test_mistakes_say_how_to_get_a_parser(self, tmp_path: Path) -> None:
        path, network = tmp_path / "parser.ckpt", SegmentationNetwork(len(HELEN11), width=2)
        with pytest.raises(CheckpointError, match=r"parser\.ckpt does not exist.*--config segnet\.yaml"):
            ParserRegions(str(path))
        self.write(path, network, task="AttributeNet")
        with pytest.raises(CheckpointError, match=r"holds AttributeNet, not SegNet.*--config segnet\.yaml"):
            ParserRegions(str(path))
        self.write(path, network, width=3)
        with pytest.raises(CheckpointError, match=r"parser\.ckpt do not fit"):
            ParserRegions(str(path))
        for temperature in (-1.0, 1e-45, float("nan")):
            with pytest.raises(ConfigurationError, match="temperature must be 0 or lie in"):
                ParserRegions(str(path), temperature)


class TestSpreadBoxes:
    @pytest.mark.parametrize("box", [(0, 0, 32, 24), (5, 7, 6, 8), (3, 10, 31, 12), (31, 0, 32, 24)])
    def test_what_fills_a_box_has_that_box(self, box: tuple[int, int, int, int]) -> None:
        x0, y0, x1, y1 = box
        masks = torch.zeros(2, 3, 24, 32)
        masks[1, 2, y0:y1, x0:x1] = 0.3  # whatever the value
        found = spread_boxes(masks)
        torch.testing.assert_close(found[1, 2], torch.tensor(box).float(), rtol=0, atol=1e-4)
        assert found.flatten(0, 1)[:-1].eq(0).all()  # the other masks are empty

    def test_mean_and_variance_are_those_of_the_pixels(self) -> None:
        """Of any mask: against the list of its points, many in each cell."""
        weights = torch.randint(3, (5, 6), generator=torch.Generator().manual_seed(0))
        fine = (torch.arange(50).double() + 0.5) / 50
        xs = torch.cat([(x + fine).repeat(int(weights[:, x].sum())) for x in range(6)])
        ys = torch.cat([(y + fine).repeat(int(weights[y].sum())) for y in range(5)])
        half = [(3 * points.var(correction=0)).sqrt() for points in (xs, ys)]
        expected = [xs.mean() - half[0], ys.mean() - half[1], xs.mean() + half[0], ys.mean() + half[1]]
        found = spread_boxes(weights.double()[None, None])[0, 0]
        torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-3)

    def test_a_stray_pixel_hardly_moves_it(self) -> None:
        masks = torch.zeros(1, 1, 100, 100)
        masks[..., 60:80, 50:90] = 1
        clean = spread_boxes(masks)
        masks[..., 0, 0] = 1
        assert (spread_boxes(masks) - clean).abs().max() < 3


def test_boxes_of_parsed_regions_are_those_of_its_classes() -> None:
    """At half size, in pixels of the image, within it; a class that is nowhere has an empty one."""
    parser, images = make_parser(), torch.rand(2, 3, *SIZE)
    regions = parser(images)
    boxes, classes = regions.boxes(), regions.at(2).argmax(dim=1)
    assert boxes.shape == (2, 7, 4)
    for number, image in enumerate(classes):
        for region in range(7):
            rows, columns = (image == region).nonzero().unbind(1)
            if not len(rows):
                assert boxes[number, region].eq(0).all()
                continue
            expected = []
            for sign in (-1, 1):
                for places, side in ((columns, SIZE[1]), (rows, SIZE[0])):
                    points = 2 * places.double() + 1
                    half = (3 * points.var(correction=0) + 1).sqrt()
                    expected.append(float((points.mean() + sign * half).clamp(0, side)))
            assert boxes[number, region].tolist() == pytest.approx(expected, abs=1e-3)
    assert len(classes.unique()) >= 3  # not all nowhere
