"""Gating against loops in float64 over regions, channels and pixels, and against the paper's own claims."""

import math

import pytest
import torch
from torch import Tensor, nn

from facelightning.models.blocks import ConvBlock, Encoder
from facelightning.models.gating import GatedEncoder, SemanticGating, SymbioticAugmentation, gate_masks

Maps = list[list[list[float]]]


def loop_convolution(maps: Maps, kernel: list[list[list[list[float]]]]) -> Maps:
    """3×3, padding 1: (C, H, W) to (D, H, W)."""
    height, width = len(maps[0]), len(maps[0][0])
    out = []
    for filters in kernel:
        rows = []
        for y in range(height):
            row = []
            for x in range(width):
                total = 0.0
                for c, taps in enumerate(filters):
                    for i in range(3):
                        for j in range(3):
                            if 0 <= y + i - 1 < height and 0 <= x + j - 1 < width:
                                total += taps[i][j] * maps[c][y + i - 1][x + j - 1]
                row.append(total)
            rows.append(row)
        out.append(rows)
    return out


def loop_norm_act_pool(batch: list[Maps], norm: nn.BatchNorm2d, prelu: nn.PReLU, eps: float) -> list[Maps]:
    """BatchNorm in training mode, PReLU, and 2×2 max pooling that keeps the last odd row and column."""
    gain, shift, slope = norm.weight.tolist(), norm.bias.tolist(), prelu.weight.tolist()
    pooled: list[Maps] = [[] for _ in batch]
    for c in range(len(gain)):
        values = [value for maps in batch for row in maps[c] for value in row]
        mean = sum(values) / len(values)
        variance = sum((value - mean) ** 2 for value in values) / len(values)
        for maps, out in zip(batch, pooled, strict=True):
            rows = []
            for row in maps[c]:
                normed = [gain[c] * (value - mean) / math.sqrt(variance + eps) + shift[c] for value in row]
                rows.append([value if value > 0 else slope[c] * value for value in normed])
            out.append(
                [
                    [max(v for r in rows[y : y + 2] for v in r[x : x + 2]) for x in range(0, len(rows[0]), 2)]
                    for y in range(0, len(rows), 2)
                ]
            )
    return pooled


def small_case() -> tuple[Tensor, Tensor]:
    """Maps ``(2, 3, 5, 4)`` and a parser's logits ``(2, 4, 5, 4)``, in float64."""
    torch.manual_seed(0)
    return torch.randn(2, 3, 5, 4, dtype=torch.float64), 2 * torch.randn(2, 4, 5, 4, dtype=torch.float64)


def shake(module: nn.Module) -> None:
    """Give every parameter a value of its own."""
    for parameter in module.parameters():
        nn.init.normal_(parameter)


def normalized(logits: list[Maps]) -> list[Maps]:
    """Softmax over regions; then each mask sums to 1 over space, as the paper says."""
    batch = []
    for maps in logits:
        regions, height, width = len(maps), len(maps[0]), len(maps[0][0])
        total = [[sum(math.exp(m[y][x]) for m in maps) for x in range(width)] for y in range(height)]
        soft = [[[math.exp(m[y][x]) / total[y][x] for x in range(width)] for y in range(height)] for m in maps]
        batch.append([[[v / sum(map(sum, soft[n])) for v in row] for row in soft[n]] for n in range(regions)])
    return batch


def test_gates_have_mean_one() -> None:
    masks = gate_masks(small_case()[1])
    torch.testing.assert_close(masks / 20, torch.tensor(normalized(small_case()[1].tolist()), dtype=torch.float64))
    assert gate_masks(torch.full((1, 2, 3, 3), 1e4).index_fill(1, torch.tensor([1]), -1e4)).isfinite().all()


class TestSemanticGating:
    def test_is_the_definition(self) -> None:
        """Masks that sum to 1, gating before BatchNorm, PReLU, pooling, and 1×1 back to C.

        The paper's masks are smaller than ours by the number of pixels, so its epsilon is by that number squared.
        """
        x, logits = small_case()
        gating = SemanticGating(3, 4).double()
        shake(gating)
        masks = normalized(logits.tolist())
        batch = []
        for maps, regions in zip(x.tolist(), masks, strict=True):
            convolved = loop_convolution(maps, gating.convolution.weight.tolist())
            batch.append(
                [
                    [[a * m for a, m in zip(*rows, strict=True)] for rows in zip(channel, region, strict=True)]
                    for region in regions
                    for channel in convolved
                ]
            )
        pooled = loop_norm_act_pool(batch, gating.norm, gating.activation, gating.norm.eps / 20**2)
        restore = gating.restore.weight[:, :, 0, 0].tolist()
        expected = [
            [
                [[sum(w * m[y][x] for w, m in zip(weights, maps, strict=True)) for x in range(2)] for y in range(3)]
                for weights in restore
            ]
            for maps in pooled
        ]
        torch.testing.assert_close(gating(x, gate_masks(logits)), torch.tensor(expected, dtype=torch.float64))

    def test_gradients(self) -> None:
        x, logits = small_case()
        gating = SemanticGating(3, 4).double()
        shake(gating)
        masks = gate_masks(logits)
        assert torch.autograd.gradcheck(lambda value: gating(value, masks), x.requires_grad_())
        weight = gating.convolution.weight.detach().clone().requires_grad_()

        def of_the_kernel(kernel: Tensor) -> Tensor:
            result: Tensor = torch.func.functional_call(gating, {"convolution.weight": kernel}, (x.detach(), masks))
            return result

        assert torch.autograd.gradcheck(of_the_kernel, weight)

    def test_can_mimic_max_pooling(self) -> None:
        """§3.1.3: "SSG can mimic the standard max pooling by learning a sparse set of weights for the 1×1 convolution".

        With one region of the whole picture, one weight a channel gives the plain block and its pooling.
        """
        x, _ = small_case()
        masks = torch.zeros(2, 4, 5, 4, dtype=torch.float64)
        masks[:, 2] = 1  # normalised: mean 1
        gating, block = SemanticGating(3, 4).double(), ConvBlock(3, 3).double()
        block[0].load_state_dict(gating.convolution.state_dict())
        with torch.no_grad():
            gating.restore.weight.zero_()
            for channel in range(3):
                gating.restore.weight[channel, 2 * 3 + channel] = 1
        torch.testing.assert_close(gating(x, masks), gating.pool(block(x)))

    def test_begins_as_max_pooling(self) -> None:
        """Where the regions say nothing, a network that has not yet learnt is the plain one."""
        x, _ = small_case()
        gating, block = SemanticGating(3, 4).double(), ConvBlock(3, 3).double()
        block[0].load_state_dict(gating.convolution.state_dict())
        torch.testing.assert_close(gating(x, torch.ones(2, 4, 5, 4, dtype=torch.float64)), gating.pool(block(x)))

    def test_a_window_never_mixes_regions(self) -> None:
        """Two halves of the picture: the maps of one half's region do not see the other half."""
        torch.manual_seed(0)
        gating = SemanticGating(2, 2).eval()
        masks = torch.zeros(1, 2, 4, 6)
        masks[:, 0, :, :3], masks[:, 1, :, 3:] = 2, 2
        seen: list[Tensor] = []
        gating.pool.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
        gating(torch.rand(1, 2, 4, 6), masks)
        (maps,) = seen
        assert maps[:, :2, :, :3].abs().min() > 0
        assert (maps[:, :2, :, 3:] == 0).all()
        assert (maps[:, 2:, :, :3] == 0).all()

    def test_low_precision(self) -> None:
        """Half-precision activations stay within its accuracy: nothing underflows on a large map."""
        torch.manual_seed(0)
        gating = SemanticGating(4, 3)
        x, masks = torch.randn(2, 4, 55, 45), gate_masks(3 * torch.randn(2, 3, 55, 45))
        with torch.autocast("cpu", torch.bfloat16):
            half = gating(x, masks)
        torch.testing.assert_close(half.float(), gating(x, masks), rtol=0.1, atol=0.1)


class TestSymbioticAugmentation:
    def test_is_the_definition(self) -> None:
        x, logits = small_case()
        module = SymbioticAugmentation(3, 4).double()
        shake(module)
        masks = gate_masks(logits)
        mixture = module.mixture.weight[:, :, 0, 0].tolist()
        batch = []
        for maps, regions in zip(x.tolist(), masks.tolist(), strict=True):
            convolved = loop_convolution(maps, module.convolution.weight.tolist())
            batch.append(
                [
                    [
                        [convolved[c][y][i] * sum(mixture[c][n] * regions[n][y][i] for n in range(4)) for i in range(4)]
                        for y in range(5)
                    ]
                    for c in range(3)
                ]
            )
        expected = loop_norm_act_pool(batch, module.norm, module.activation, module.norm.eps)
        torch.testing.assert_close(module(x, masks), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("gate", [SemanticGating, SymbioticAugmentation])
class TestGatedEncoder:
    def test_sizes_are_the_encoders(self, gate: type[SemanticGating]) -> None:
        with torch.device("meta"):
            for size, quarter in (
                ((218, 178), (55, 45)),
                ((109, 89), (28, 23)),
                ((37, 53), (10, 14)),
                ((1, 1), (1, 1)),
            ):
                images = torch.rand(1, 3, *size)
                gated = GatedEncoder(gate, 7, width=2).eval()(images, torch.rand(1, 7, *quarter))
                assert gated.shape == Encoder(width=2).eval()(images).shape

    def test_other_sizes_are_refused(self, gate: type[SemanticGating]) -> None:
        with pytest.raises(ValueError, match=r"maps \(5 × 4\) and masks \(5 × 5\)"):
            gate(3, 2)(torch.rand(1, 3, 5, 4), torch.rand(1, 2, 5, 5))
