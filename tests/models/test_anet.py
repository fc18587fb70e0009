"""ANet of Liu et al. (ICCV 2015), §3.2: locally shared filters against loops, and placements against crops."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from facelightning.errors import ConfigurationError, DataFormatError
from facelightning.losses import attribute_loss, similarity_loss, softmax_loss
from facelightning.models.anet import ANetwork, LocalBlock, LocallyShared, VectorNorm
from facelightning.models.heads import LocalizationHead
from tests.models.conftest import settle

LAYERS = [(2, 3, 3), (4, 2, 3), (2, 4, 2), (1, 5, 3), (3, 1, 1)]
"""Grid, cell and kernel."""

PLACEMENTS = [(1, 1), (2, 2), (3, 1), (2, 5)]


def make_layer(grid: int, cell: int, kernel: int, bias: bool = True) -> LocallyShared:
    torch.manual_seed(0)
    layer = LocallyShared(2, 3, grid, cell, kernel, bias).double()
    if bias:
        nn.init.normal_(layer.get_parameter("filters.bias"))
    return layer


def make_map(layer: LocallyShared, rows: int = 1, columns: int = 1, batch: int = 2) -> Tensor:
    """A map with so many placements."""
    return torch.randn(batch, 2, layer.size + rows - 1, layer.size + columns - 1, dtype=torch.float64)


def locally_shared(layer: LocallyShared, x: Tensor) -> Tensor:
    """Equation 4 without ReLU, an output at a time in Python's own floats: one placement, ``(B, O, G n, G n)``."""
    kernel, side = layer.size - layer.grid * layer.cell + 1, layer.grid * layer.cell
    filters = layer.filters.weight.reshape(layer.grid, layer.grid, 3, 2, kernel, kernel).tolist()
    biases = layer.get_parameter("filters.bias").reshape(layer.grid, layer.grid, 3).tolist()
    output = torch.zeros(len(x), 3, side, side, dtype=torch.float64)
    for b, maps in enumerate(x.tolist()):
        for row in range(side):
            for column in range(side):
                p, q = row // layer.cell, column // layer.cell
                for v in range(3):
                    total = biases[p][q][v]
                    for u in range(2):
                        for i in range(kernel):
                            for j in range(kernel):
                                total += filters[p][q][v][u][i][j] * maps[u][row + i][column + j]
                    output[b, v, row, column] = total
    return output


class TestLocallyShared:
    @pytest.mark.parametrize("layer", LAYERS)
    def test_is_the_definition(self, layer: tuple[int, int, int]) -> None:
        module = make_layer(*layer)
        x = make_map(module)
        output = module(x)
        assert output.shape == (2, 1, 1, 3, layer[0] * layer[1], layer[0] * layer[1])
        torch.testing.assert_close(output[:, 0, 0], locally_shared(module, x), rtol=0, atol=1e-12)

    @pytest.mark.parametrize("placements", PLACEMENTS)
    @pytest.mark.parametrize("layer", LAYERS)
    def test_every_placement_is_its_crop(self, layer: tuple[int, int, int], placements: tuple[int, int]) -> None:
        module = make_layer(*layer)
        x, side = make_map(module, *placements), module.size
        output = module(x)
        assert output.shape[:3] == (2, *placements)
        for i in range(placements[0]):
            for j in range(placements[1]):
                expected = locally_shared(module, x[..., i : i + side, j : j + side])
                torch.testing.assert_close(output[:, i, j], expected, rtol=0, atol=1e-12)

    def test_memory_format_does_not_matter(self) -> None:
        module = make_layer(2, 3, 3)
        x = make_map(module, 2, 5)
        torch.testing.assert_close(module(x.contiguous(memory_format=torch.channels_last)), module(x))

    @pytest.mark.parametrize("placements", [(1, 1), (2, 3)])
    @pytest.mark.parametrize("bias", [False, True])
    def test_gradients(self, bias: bool, placements: tuple[int, int]) -> None:
        module = make_layer(2, 2, 2, bias)
        x = make_map(module, *placements, batch=1).requires_grad_()
        parameters = dict(module.named_parameters())

        def output(x: Tensor, *values: Tensor) -> Any:
            return torch.func.functional_call(module, dict(zip(parameters, values, strict=True)), x)

        assert len(parameters) == 1 + bias
        assert torch.autograd.gradcheck(output, (x, *parameters.values()))

    @pytest.mark.parametrize("cell", [(0, 0), (1, 3), (3, 0)])
    @pytest.mark.parametrize("placements", [(1, 1), (2, 3)])
    def test_a_cell_teaches_its_own_filters_alone(self, cell: tuple[int, int], placements: tuple[int, int]) -> None:
        module = make_layer(4, 2, 3)
        p, q = cell
        output = module(make_map(module, *placements))
        output[..., 2 * p : 2 * p + 2, 2 * q : 2 * q + 2].square().sum().backward()
        for parameter in module.parameters():
            assert parameter.grad is not None
            reached = parameter.grad.reshape(4, 4, 3, -1).abs().amin(dim=3) > 0
            assert reached[p, q].all()
            assert reached.sum() == 3

    @pytest.mark.parametrize(("channels", "grid", "kernel"), [(64, 2, 3), (16, 4, 5)])
    def test_responses_keep_the_scale_of_the_map(self, channels: int, grid: int, kernel: int) -> None:
        """Kaiming initialisation: with ReLU before, variance 2 / fan-in of one cell keeps the mean square."""
        torch.manual_seed(0)
        module = LocallyShared(channels, channels, grid, 6, kernel)
        weight = module.filters.weight
        assert weight.shape == (grid**2 * channels, channels, kernel, kernel)
        for filters in torch.split(weight, channels):
            assert filters.std().item() == pytest.approx(math.sqrt(2 / (channels * kernel**2)), rel=0.05)
        x = torch.randn(64, channels, module.size, module.size)
        assert module(x).relu().square().mean().item() == pytest.approx(1, rel=0.1)

    @pytest.mark.parametrize("size", [(7, 12), (12, 7)])
    def test_a_small_map_is_an_error_that_names_both_sizes(self, size: tuple[int, int]) -> None:
        with pytest.raises(ValueError, match=rf"{size[0]} × {size[1]} is smaller than the grid's 8 × 8"):
            make_layer(2, 3, 3)(torch.zeros(1, 2, *size, dtype=torch.float64))


class TestLocalBlock:
    @pytest.mark.parametrize("training", [True, False])
    def test_every_cell_has_its_own_norm(self, training: bool) -> None:
        """As if each cell were a network of its own."""
        torch.manual_seed(0)
        block = LocalBlock(2, 3, grid=2, cell=4, kernel_size=3).double()
        settle(block, 5 * torch.randn(8, 2, 10, 10, dtype=torch.float64) + 1)
        nn.init.normal_(block.norm.weight)
        nn.init.normal_(block.norm.bias)
        filters, x = torch.split(block.filters.weight.detach(), 3), torch.randn(8, 2, 10, 10, dtype=torch.float64)
        means, variances = (
            None if training else getattr(block.norm, name).clone() for name in ("running_mean", "running_var")
        )
        output = block.train(training)(x)[:, 0, 0]
        assert output.min() == 0
        for number in range(4):
            row, column = 4 * (number // 2), 4 * (number % 2)
            own = slice(3 * number, 3 * number + 3)
            alone = nn.functional.batch_norm(
                nn.functional.conv2d(x[..., row : row + 6, column : column + 6], filters[number]),
                None if means is None else means[own],
                None if variances is None else variances[own],
                block.norm.weight[own],
                block.norm.bias[own],
                training=training,
            ).relu()
            torch.testing.assert_close(output[..., row : row + 4, column : column + 4], alone)


def make_network(cell: int = 3, views: int = 1, **settings: Any) -> ANetwork:
    """A small network with statistics as after training."""
    torch.manual_seed(0)
    network = ANetwork(40, width=3, cell=cell, views=views, **settings)
    settle(network, make_images(4, network.image_size))
    return network.eval()


def make_images(count: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """Images with structure at all scales, uint8: of white noise alone, all placements would look the same."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.zeros(count, 3, *size)
    for side in (3, 9, 27, 81):
        noise = torch.rand(count, 3, side, side, generator=generator)
        images += nn.functional.interpolate(noise, size, mode="bilinear")
    return (images * 255 / 4).to(torch.uint8)


def best_crop(network: ANetwork, image: Tensor, rows: int, columns: int) -> tuple[dict[str, Tensor], tuple[int, int]]:
    """What the network says of the crop with the largest response of C4 (equation 5), and where that crop is."""
    found, largest, side = None, -1.0, network.image_size[0]
    for y in range(0, 8 * rows, 8):
        for x in range(0, 8 * columns, 8):
            crop = image[None, :, y : y + side, x : x + side]
            assert crop.shape[2:] == network.image_size
            response = network.placements(crop).max().item()
            if response > largest:
                found, largest = (network(crop), (y, x)), response
    assert found is not None
    return found


class TestVectorNorm:
    def test_some_vectors_have_statistics(self) -> None:
        norm, plain, vectors = VectorNorm(3), nn.BatchNorm1d(3), torch.randn(5, 3) + 2
        torch.testing.assert_close(norm(vectors), plain(vectors))
        torch.testing.assert_close(norm.running_mean, plain.running_mean)
        torch.testing.assert_close(norm.eval()(vectors[:1]), plain.eval()(vectors[:1]))

    def test_one_takes_the_running_ones_and_leaves_them(self) -> None:
        norm, vectors = VectorNorm(3), torch.randn(5, 3) + 2
        norm(vectors)
        before = copy.deepcopy(norm.state_dict())
        alone = norm(vectors[:1])
        assert all(torch.equal(value, before[key]) for key, value in norm.state_dict().items())
        torch.testing.assert_close(alone, norm.eval()(vectors[:1]))


class TestANet:
    def test_layers(self) -> None:
        """Channels and sizes at full width, and one cell's filters in each layer's weights."""
        shapes: list[tuple[int, ...]] = []
        with torch.device("meta"):
            network = ANetwork(8000, key="identity")
            for layer in (module for module in network.modules() if isinstance(module, nn.Conv2d | nn.MaxPool2d)):
                layer.register_forward_hook(lambda _, __, x: shapes.append(tuple(x.shape[1:])))
            output = network(torch.rand(1, 3, 161, 161))
        assert network.image_size == (161, 161)
        shared = [(64, 79, 79), (64, 39, 39), (128, 37, 37), (128, 18, 18)]
        assert shapes == [*shared, (16 * 192, 4, 4), (192, 8, 8), (4 * 256, 3, 3)]
        assert {key: tuple(x.shape) for key, x in output.items()} == {
            "features": (1, 512), "placement": (1, 2), "identity": (1, 8000)
        }  # fmt: skip

    def test_parameters(self) -> None:
        """Kernels without bias, BatchNorm's scale and shift for each cell, FC and the classifier: 10 M."""
        with torch.device("meta"):
            network = ANetwork(40)
        kernels = 75 * 64 + 9 * 64 * 128 + 16 * 9 * 128 * 192 + 4 * 9 * 192 * 256
        norms = 2 * (64 + 128 + 16 * 192 + 4 * 256 + 512)
        classifiers = 36 * 256 * 512 + (512 + 1) * 40
        assert sum(p.numel() for p in network.parameters()) == kernels + norms + classifiers == 10_135_656

    @pytest.mark.parametrize("views", [1, 5])
    @pytest.mark.parametrize("cell", [3, 4, 5])
    def test_image_size_has_one_placement(self, cell: int, views: int) -> None:
        network = make_network(cell, views)
        side = 32 * cell + 33
        assert network.image_size == (side, side)
        output = network(make_images(2, (side, side)))
        assert network.placements(make_images(2, (side, side))).shape == (2, 1, 1, 12, 2 * cell - 2, 2 * cell - 2)
        assert output["features"].shape == (2, network.num_features) == (2, views * 24)
        assert output["placement"].tolist() == [[0, 0], [0, 0]]
        assert output.keys() == {"attributes", "features", "placement"}

    @pytest.mark.parametrize("size", [(129, 129), (136, 136), (137, 129), (151, 176), (218, 178)])
    def test_one_placement_for_every_eight_pixels(self, size: tuple[int, int]) -> None:
        """A last row or column that fills no placement is not seen."""
        network, images = make_network(), make_images(1, size)
        rows, columns = ((side - 129) // 8 + 1 for side in size)
        output = network(images)
        assert network.placements(images).shape[:3] == (1, rows, columns)
        seen = network(images[..., : 129 + 8 * (rows - 1), : 129 + 8 * (columns - 1)])
        torch.testing.assert_close(output, seen)

    @pytest.mark.parametrize(
        ("cell", "views", "placements", "dtype"),
        [
            (3, 1, (1, 1), torch.float64),
            (3, 1, (3, 3), torch.float64),
            (3, 5, (2, 5), torch.float64),
            (4, 1, (4, 1), torch.float64),
            (3, 5, (3, 3), torch.float32),
            (4, 1, (2, 5), torch.float32),
        ],
    )
    def test_interweaved_is_the_best_of_all_crops(
        self, cell: int, views: int, placements: tuple[int, int], dtype: torch.dtype
    ) -> None:
        tolerance = 1e-5 if dtype == torch.float32 else 1e-10
        network = make_network(cell, views).to(dtype)
        rows, columns = placements
        side = network.image_size[0]
        images = make_images(5, (side + 8 * (rows - 1), side + 8 * (columns - 1)), seed=1)
        with torch.no_grad():
            output, maps = network(images), network.placements(images)
            assert maps.dtype == dtype
            for i in range(rows):
                for j in range(columns):
                    crops = images[..., 8 * i : 8 * i + side, 8 * j : 8 * j + side]
                    expected = network.placements(crops)[:, 0, 0]
                    torch.testing.assert_close(maps[:, i, j], expected, rtol=tolerance, atol=tolerance)
            crops_found = [best_crop(network, image, rows, columns) for image in images]
        assert [tuple(place) for place in output["placement"].tolist()] == [place for _, place in crops_found]
        assert len({place for _, place in crops_found}) > 1 or rows * columns == 1  # the test would else prove little
        for key in ("features", "attributes"):
            expected = torch.cat([crop[key] for crop, _ in crops_found])
            assert expected.std() > 0.01
            torch.testing.assert_close(output[key], expected, rtol=tolerance, atol=tolerance)

    def test_best_placement_has_the_largest_response_of_any_channel(self) -> None:
        """By hand: one large response in one channel beats many smaller ones; of equal placements the first counts."""
        network = make_network()
        maps = torch.zeros(2, 2, 3, 12, 4, 4)
        maps[0, 0, 1] = 0.9
        maps[0, 1, 2, 7, 3, 0] = 1
        maps[1, 0, 2, 1, 1, 1] = maps[1, 1, 0, 2, 0, 0] = 2
        network.placements = lambda images: maps  # type: ignore[method-assign]
        output = network(torch.zeros(2, 3, 137, 145))
        assert output["placement"].tolist() == [[8, 16], [0, 16]]
        best = maps[torch.arange(2), torch.tensor([1, 0]), torch.tensor([2, 2])]
        torch.testing.assert_close(output["features"], network.fc(best.flatten(1)))

    def test_a_moved_face_is_found(self) -> None:
        """The same scene 8 and 16 pixels further: another placement, the same features (Fig. 4 b)."""
        network, scene = make_network(), make_images(1, (225, 225))
        far = network(scene)["placement"][0]
        assert (far >= 16).all()
        moved = network(scene[..., 8:, 16:])
        assert (far - moved["placement"][0]).tolist() == [8, 16]
        torch.testing.assert_close(moved["features"], network(scene)["features"])

    def test_five_views_are_centre_and_corners(self) -> None:
        network = make_network(cell=4, views=5)
        images = make_images(2, network.image_size)
        face = network.placements(images)[:, 0, 0]
        assert face.shape[2:] == (6, 6)
        starts = [(1, 1), (0, 0), (0, 2), (2, 0), (2, 2)]
        vectors = [network.fc(face[..., y : y + 4, x : x + 4].flatten(1)) for y, x in starts]
        output = network(images)
        torch.testing.assert_close(output["features"], torch.cat(vectors, dim=1))
        classifier = network.get_submodule("head.classifier")
        torch.testing.assert_close(output["attributes"], classifier(output["features"]))
        assert min((a - b).abs().max() for a in vectors for b in vectors if a is not b) > 1e-3

    def test_other_heads_choose_among_views(self) -> None:
        network = make_network(views=5, head=LocalizationHead)
        output = network(make_images(2, network.image_size))
        assert output["attributes"].shape == (2, 40)
        assert output["region_weights"].shape == (2, len(network.places), 40)
        torch.testing.assert_close(output["region_weights"].sum(dim=1), torch.ones(2, 40))

    @pytest.mark.parametrize("size", [(129, 129), (145, 161)])
    @pytest.mark.parametrize("batch", [1, 8])
    @pytest.mark.parametrize("views", [1, 5])
    @pytest.mark.parametrize("key", ["attributes", "identity"])
    def test_every_parameter_learns(self, key: str, views: int, batch: int, size: tuple[int, int]) -> None:
        torch.manual_seed(0)
        network = ANetwork(40, width=3, cell=3, views=views, key=key)
        output = network(make_images(batch, size))
        if key == "attributes":
            loss = attribute_loss(output["attributes"], torch.randint(2, (batch, 40)).float())
        else:
            identities = torch.arange(batch) // 2
            loss = softmax_loss(output["identity"], identities) + similarity_loss(output["features"], identities)
        loss.backward()  # type: ignore[no-untyped-call]
        assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []

    def test_uint8_and_float_input_agree(self) -> None:
        network, images = make_network(), make_images(2, (145, 161))
        torch.testing.assert_close(network(images), network(images.float() / 255))
        with pytest.raises(DataFormatError, match=r"must lie in \[0, 1\]"):
            network(images.float())

    def test_an_evaluated_image_does_not_depend_on_its_batch_or_on_the_call(self) -> None:
        network, images = make_network(views=5), make_images(3, (145, 161))
        with torch.no_grad():
            output = network(images)
            assert all(
                torch.equal(x, again) for x, again in zip(output.values(), network(images).values(), strict=True)
            )
            alone = [network(image[None]) for image in images]
        for key, value in output.items():
            torch.testing.assert_close(value, torch.cat([x[key] for x in alone]))

    @pytest.mark.parametrize("views", [1, 5])
    def test_weights_are_restored(self, views: int) -> None:
        network, images = make_network(views=views), make_images(2, (145, 137))
        torch.manual_seed(1)
        other = ANetwork(40, width=3, cell=3, views=views).eval()
        assert not torch.allclose(other(images)["attributes"], network(images)["attributes"])
        other.load_state_dict(network.state_dict())
        assert all(torch.equal(x, y) for x, y in zip(other(images).values(), network(images).values(), strict=True))

    @pytest.mark.parametrize("size", [(128, 129), (200, 128), (64, 64)])
    def test_small_images_are_an_error_that_says_what_to_do(self, size: tuple[int, int]) -> None:
        message = rf"images of {size[0]} × {size[1]} are smaller than its 129 × 129; .*image_size of \[129, 129\]"
        with pytest.raises(ConfigurationError, match=message):
            make_network()(torch.zeros(1, 3, *size))

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"views": 3}, "views must be 1 or 5, not 3"),
            ({"cell": 2}, "cell must be at least 3, not 2"),
        ],
    )
    def test_settings_that_do_not_fit(self, settings: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigurationError, match=message):
            ANetwork(40, width=3, **settings)
