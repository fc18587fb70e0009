"""Gating against loops in float64 over regions, channels and pixels, and against the paper's own claims."""

import copy
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn

from facelightning.models.blocks import ConvBlock, max_pool
from facelightning.models.gating import Gate, SemanticGating, SymbioticAugmentation, gate_masks
from tests.models.conftest import KnownRegions
from tests.processes import FORKS

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


def loop_norm_act_pool(batch: list[Maps], norm: nn.BatchNorm2d, prelu: nn.PReLU, eps: float, step: int) -> list[Maps]:
    """BatchNorm in training mode, PReLU, and max pooling of ``step``² pixels that keeps the last row and column."""
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
                    [max(v for r in rows[y : y + step] for v in r[x : x + step]) for x in range(0, len(rows[0]), step)]
                    for y in range(0, len(rows), step)
                ]
            )
    return pooled


def small_case() -> tuple[Tensor, Tensor]:
    """Maps ``(2, 3, 5, 4)`` and masks ``(2, 5, 5, 4)``, more than are taken together, in float64."""
    torch.manual_seed(0)
    x, logits = torch.randn(2, 3, 5, 4, dtype=torch.float64), 2 * torch.randn(2, 5, 5, 4, dtype=torch.float64)
    return x, logits.softmax(dim=1)


def known(masks: Tensor) -> KnownRegions:
    """Regions where gates stand: at a stride of 4, and at no finer one."""
    return KnownRegions(masks, stride=4)


def shake(module: nn.Module) -> None:
    """Give every parameter a value of its own."""
    for parameter in module.parameters():
        nn.init.normal_(parameter)


def all_maps_at_once(gating: SemanticGating, x: Tensor, masks: Tensor) -> Tensor:
    """SSG as it is written down: N·C maps, one BatchNorm of them all."""
    gated = gate_masks(masks).to(x.dtype).unsqueeze(2) * gating.convolution(x).unsqueeze(1)
    maps: Tensor = gating.restore(gating.pool(gating.activation(gating.norm(gated.flatten(1, 2)))))
    return maps


def by_region(gating: SemanticGating, x: Tensor, masks: Tensor) -> Tensor:
    """SSG as it is computed."""
    maps: Tensor = gating(x, known(masks))
    return maps


def kept_for_backward(run: Callable[[], Tensor]) -> int:
    """Bytes that a result keeps for its gradient."""
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(storages.values())


def normalized(masks: list[Maps]) -> list[Maps]:
    """Each mask sums to 1 over the image, as the paper says."""
    return [[[[v / sum(map(sum, mask)) for v in row] for row in mask] for mask in maps] for maps in masks]


def _gate(rank: int, processes: int, folder: Path) -> None:
    """One process's images of a batch of five, which is cut after the second."""
    distributed.init_process_group("gloo", f"file://{folder}/{processes}", rank=rank, world_size=processes)
    torch.manual_seed(0)
    x, masks = torch.randn(5, 3, 5, 4, dtype=torch.float64), torch.rand(5, 5, 5, 4, dtype=torch.float64)
    gating = SemanticGating(3, 5).double()
    shake(gating)
    gating = nn.SyncBatchNorm.convert_sync_batchnorm(gating)
    own = slice(None) if processes == 1 else (slice(2), slice(2, None))[rank]
    seen = x[own].clone().requires_grad_()
    maps = gating(seen, known(masks[own]))
    (maps * torch.linspace(-1, 2, 5, dtype=torch.float64)[own].view(-1, 1, 1, 1)).sum().backward()
    gradients = [each.grad for each in gating.parameters()]
    torch.save((maps.detach(), seen.grad, gradients, list(gating.buffers())), folder / f"{rank} of {processes}.pt")
    distributed.destroy_process_group()


class TestGateMasks:
    def test_have_mean_one(self) -> None:
        masks = small_case()[1]
        expected = torch.tensor(normalized(masks.tolist()), dtype=torch.float64)
        torch.testing.assert_close(gate_masks(masks) / 20, expected)

    def test_an_empty_mask_stays_empty(self) -> None:
        masks = torch.ones(1, 2, 3, 3)
        masks[:, 1] = 0
        assert torch.equal(gate_masks(masks), masks)
        assert gate_masks(torch.tensor([1e4, -1e4]).view(1, 2, 1, 1).expand(1, 2, 3, 3).softmax(dim=1)).isfinite().all()

    def test_low_precision(self) -> None:
        """A mean over many cells of half precision is taken in single."""
        masks = torch.rand(1, 2, 55, 45).half()
        assert gate_masks(masks).dtype == torch.float32
        torch.testing.assert_close(gate_masks(masks), gate_masks(masks.float()))


POOLS = pytest.mark.parametrize("step", [1, 2], ids=["unpooled", "pooled"])


class TestSemanticGating:
    @POOLS
    def test_is_the_definition(self, step: int) -> None:
        """Masks that sum to 1, gating before BatchNorm, PReLU, pooling, and 1×1 back to C.

        The paper's masks are smaller than ours by the number of pixels, so its epsilon is by that number squared.
        """
        x, masks = small_case()
        gating = SemanticGating(3, 5, pool=step == 2).double()
        shake(gating)
        batch = []
        for maps, regions in zip(x.tolist(), normalized(masks.tolist()), strict=True):
            convolved = loop_convolution(maps, gating.convolution.weight.tolist())
            batch.append(
                [
                    [[a * m for a, m in zip(*rows, strict=True)] for rows in zip(channel, region, strict=True)]
                    for region in regions
                    for channel in convolved
                ]
            )
        pooled = loop_norm_act_pool(batch, gating.norm, gating.activation, gating.norm.eps / 20**2, step)
        restore = gating.restore.weight[:, :, 0, 0].tolist()
        expected = [
            [
                [
                    [sum(w * m[y][x] for w, m in zip(weights, maps, strict=True)) for x in range(len(maps[0][0]))]
                    for y in range(len(maps[0]))
                ]
                for weights in restore
            ]
            for maps in pooled
        ]
        torch.testing.assert_close(gating(x, known(masks)), torch.tensor(expected, dtype=torch.float64))

    def test_can_mimic_max_pooling(self) -> None:
        """§3.1.3: "SSG can mimic the standard max pooling by learning a sparse set of weights for the 1×1 convolution".

        With one region of the whole image, one weight a channel gives the plain block and its pooling.
        """
        x, _ = small_case()
        masks = torch.zeros(2, 5, 5, 4, dtype=torch.float64)
        masks[:, 2] = 1
        gating, block = SemanticGating(3, 5).double(), ConvBlock(3, 3).double()
        block[0].load_state_dict(gating.convolution.state_dict())
        with torch.no_grad():
            gating.restore.weight.zero_()
            for channel in range(3):
                gating.restore.weight[channel, 2 * 3 + channel] = 1
        torch.testing.assert_close(gating(x, known(masks)), max_pool()(block(x)))

    def test_begins_as_max_pooling(self) -> None:
        """Where the regions say nothing, a network that has not yet learnt is the plain one."""
        x, _ = small_case()
        gating, block = SemanticGating(3, 5).double(), ConvBlock(3, 3).double()
        block[0].load_state_dict(gating.convolution.state_dict())
        everywhere = known(torch.ones(2, 5, 5, 4, dtype=torch.float64))
        torch.testing.assert_close(gating(x, everywhere), max_pool()(block(x)))

    @POOLS
    def test_can_begin_as_the_plain_block_in_fact(self, step: int) -> None:
        """Whatever the regions, in training and after it; today's average only where they say nothing."""
        x, masks = small_case()
        gating, block = SemanticGating(3, 5, pool=step == 2, begin_plain=True).double(), ConvBlock(3, 3).double()
        block[0].load_state_dict(gating.convolution.state_dict())
        pool = max_pool() if step == 2 else nn.Identity()
        for training in (True, False):
            expected = pool(block.train(training)(x))
            torch.testing.assert_close(gating.train(training)(x, known(masks)), expected, rtol=0, atol=1e-5)
        average = SemanticGating(3, 5, pool=step == 2).double()
        average.convolution.load_state_dict(gating.convolution.state_dict())
        assert not torch.allclose(average(x, known(masks)), pool(block.train()(x)), atol=0.1)
        gating.train()(x, known(masks)).square().sum().backward()
        assert gating.restore.weight.grad is not None
        assert (gating.restore.weight.grad.abs().amax(dim=(0, 2, 3)) > 0).all()  # the regions' versions are learned

    def test_can_have_a_norm_and_an_activation_after_the_last_convolution(self) -> None:
        x, masks = small_case()
        plain, gating = SemanticGating(3, 5).double(), SemanticGating(3, 5, norm_restored=True).double()
        shake(gating)
        plain.load_state_dict({name: value for name, value in gating.state_dict().items() if "restored" not in name})
        norm, activation = gating.restored
        assert isinstance(norm, nn.BatchNorm2d)
        assert isinstance(activation, nn.PReLU)
        batch = plain(x, known(masks)).tolist()
        expected = torch.tensor(loop_norm_act_pool(batch, norm, activation, norm.eps, 1), dtype=torch.float64)
        torch.testing.assert_close(gating(x, known(masks)), expected)

    def test_a_window_never_mixes_regions(self) -> None:
        """Two halves of the image: the maps of one half's region do not see the other half."""
        torch.manual_seed(0)
        gating = SemanticGating(2, 2).eval()
        masks = torch.zeros(1, 2, 4, 6)
        masks[:, 0, :, :3], masks[:, 1, :, 3:] = 1, 1
        other = torch.rand(1, 2, 4, 6)
        with torch.no_grad():
            nn.init.dirac_(gating.convolution.weight)  # no pixel sees its neighbours
            gating.restore.weight[:, 2:] = 0  # the left half's region alone
            left = gating(other, known(masks))
            other[..., 3:] = torch.rand(1, 2, 4, 3) + 1
            assert torch.equal(gating(other, known(masks)), left)
            assert left[..., 1].abs().min() > 0  # of a window of both halves
            gating.restore.weight[:, 2:] = 1
            assert not torch.equal(gating(other, known(masks))[..., 1], left[..., 1])

    @POOLS
    @pytest.mark.parametrize("mode", ["training", "frozen norm", "evaluation"])
    @pytest.mark.parametrize("order", ["kept", "kept by scales of zero", "reversed by scales", "reversed by slopes"])
    def test_is_that_of_all_maps_at_once(self, order: str, mode: str, step: int) -> None:
        """Its result, all gradients and the averages of its BatchNorm, which count a batch once."""
        for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
            x, masks = (values.to(dtype) for values in small_case())
            ours = SemanticGating(3, 5, pool=step == 2).to(dtype)
            shake(ours)
            if order != "reversed by scales":  # of normalisation
                ours.norm.weight.detach().abs_()
            ours.activation.weight.detach().abs_().mul_(-1 if order == "reversed by slopes" else 1)
            if "zero" in order:
                ours.norm.weight.detach()[::2] = 0
            ours.train(mode != "evaluation")
            ours.norm.train(mode == "training")
            ours.norm.momentum = None if step == 2 else 0.1  # None: what averages weights recounts the statistics
            found = []
            for gating, run in ((ours, by_region), (copy.deepcopy(ours), all_maps_at_once)):
                inputs = [values.clone().requires_grad_() for values in (x, masks)]
                for _ in range(2):
                    maps = run(gating, *inputs)
                    maps.backward(torch.linspace(-1, 2, maps.numel(), dtype=dtype).view_as(maps))
                if "zero" in order:  # a window of equal values has no one gradient
                    assert gating.norm.weight.grad is not None and gating.norm.weight.grad.isfinite().all()
                    gating.norm.weight.grad[::2] = 0
                gradients = [values.grad for values in (*inputs, *gating.parameters())]
                found.append([maps, *(each for each in gradients if each is not None), *gating.buffers()])
            assert len(found[0]) == 1 + 2 + 5 + 3
            for mine, other in zip(*found, strict=True):
                torch.testing.assert_close(
                    mine, other, rtol=0, atol=tolerance * max(1, float(other.detach().abs().max()))
                )

    def test_keeps_little_for_the_gradient(self) -> None:
        x, masks = torch.rand(2, 8, 32, 32), torch.rand(2, 7, 32, 32)
        gating = SemanticGating(8, 7)
        ours = kept_for_backward(lambda: by_region(gating, x, masks))
        assert ours < 0.3 * kept_for_backward(lambda: all_maps_at_once(gating, x, masks))

    def test_batches_of_several_processes(self, tmp_path: Path) -> None:
        """Lightning replaces each BatchNorm by one that sees the batches of all processes: so do the statistics."""
        for count in (1, 2):
            group = [FORKS.Process(target=_gate, args=(rank, count, tmp_path)) for rank in range(count)]
            for process in group:
                process.start()
            for process in group:
                process.join(60)
        maps, of_x, gradients, buffers = torch.load(tmp_path / "0 of 1.pt", weights_only=True)
        halves = [torch.load(tmp_path / f"{rank} of 2.pt", weights_only=True) for rank in (0, 1)]
        for each in halves:
            torch.testing.assert_close(each[3], buffers)
        torch.testing.assert_close(torch.cat([each[0] for each in halves]), maps)
        torch.testing.assert_close(torch.cat([each[1] for each in halves]), of_x)
        together = [first + second for first, second in zip(halves[0][2], halves[1][2], strict=True)]
        torch.testing.assert_close(together, gradients)

    def test_maps_that_lie_far_from_zero(self) -> None:
        """Their squares are a thousand times as large as what they differ by; a mask of ones leaves them so."""
        x, masks = 30 + torch.randn(4, 3, 8, 8, dtype=torch.float64), torch.ones(4, 2, 8, 8, dtype=torch.float64)
        gating = SemanticGating(3, 2).double()
        nn.init.dirac_(gating.convolution.weight)
        exact = all_maps_at_once(copy.deepcopy(gating), x, masks)
        torch.testing.assert_close(gating.float()(x.float(), known(masks)).double(), exact, rtol=0, atol=2e-5)

    def test_no_images(self) -> None:
        gating = SemanticGating(3, 5).eval()
        assert gating(torch.rand(0, 3, 5, 4), known(torch.rand(0, 5, 5, 4))).shape == (0, 3, 3, 2)

    @pytest.mark.parametrize("training", [True, False])
    def test_shapes_alone(self, training: bool) -> None:
        """Without numbers, as a checkpoint is looked at before it is trusted."""
        with torch.device("meta"):
            gating, masks = SemanticGating(3, 5).train(training), torch.rand(2, 5, 5, 4)
            assert gating(torch.rand(2, 3, 5, 4), known(masks)).shape == (2, 3, 3, 2)

    def test_large_maps(self) -> None:
        """More than two bytes count."""
        x, masks = torch.rand(1, 2, 218, 178, dtype=torch.float64), torch.rand(1, 2, 218, 178, dtype=torch.float64)
        gating = SemanticGating(2, 2).double()
        found = []
        for run in (by_region, all_maps_at_once):
            value = x.clone().requires_grad_()
            run(copy.deepcopy(gating), value, masks).square().sum().backward()
            found.append(value.grad)
        torch.testing.assert_close(*found)

    def test_where_it_must_be_deterministic(self) -> None:
        x, masks = small_case()
        torch.use_deterministic_algorithms(True)
        try:
            SemanticGating(3, 5).double()(x.requires_grad_(), known(masks)).sum().backward()
        finally:
            torch.use_deterministic_algorithms(False)

    def test_one_value_of_a_map_has_no_variance(self) -> None:
        gating = SemanticGating(3, 5)
        with pytest.raises(ValueError, match="more than one value of each map"):
            gating(torch.rand(1, 3, 1, 1), known(torch.rand(1, 5, 1, 1)))
        assert gating.norm.running_var is not None and gating.norm.running_var.isfinite().all()

    @POOLS
    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize("regions", [1, 2, 4])
    def test_compiled(self, regions: int, training: bool, step: int) -> None:
        """In one graph, whatever the signs of slopes: in training window by window, else all maps at once."""
        torch.compiler.reset()  # the same code is compiled anew eight times at most
        x, masks = small_case()
        masks = masks[:, :regions]
        gating = SemanticGating(3, regions, pool=step == 2).double().train(training)
        shake(gating)
        alone = copy.deepcopy(gating)
        for other in ("_by_region", "_all_at_once" if training else "_by_window"):
            setattr(alone, other, lambda x, masks: x)  # would be wrong
        results = []
        for run in (gating, torch.compile(alone, backend="eager", fullgraph=True)):
            values = [each.clone().requires_grad_() for each in (x, masks)]
            maps = run(values[0].contiguous(memory_format=torch.channels_last), known(values[1]))
            assert maps.is_contiguous(memory_format=torch.channels_last)  # what the next convolution is fast with
            maps.square().sum().backward()
            gradients = [each.grad for each in (*values, *run.parameters())]
            results.append([maps, *gradients, *run.buffers()])
        assert len(results[0]) == 1 + 2 + 5 + 3
        for mine, other in zip(*results, strict=True):
            torch.testing.assert_close(mine, other)

    def test_compiled_where_processes_wait_for_one_another(self) -> None:
        x, masks = small_case()
        gating = SemanticGating(3, 5).double()
        expected = copy.deepcopy(gating)(x, known(masks))
        gating = nn.SyncBatchNorm.convert_sync_batchnorm(gating)
        gating._by_window = lambda x, masks: x  # would be wrong
        torch.testing.assert_close(torch.compile(gating, backend="eager")(x, known(masks)), expected)

    @POOLS
    def test_low_precision(self, step: int) -> None:
        """Half-precision maps and gradients are about as exact as those of all maps at once: nothing cancels."""
        torch.manual_seed(0)
        gating = SemanticGating(4, 3, pool=step == 2)
        x, masks = torch.randn(2, 4, 55, 45), (3 * torch.randn(2, 3, 55, 45)).softmax(dim=1)
        found = []
        for run, half in ((by_region, True), (all_maps_at_once, True), (by_region, False)):
            gating.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                maps = run(gating, x, masks).float()
            maps.square().sum().backward()
            found.append([maps.detach(), *(parameter.grad.clone() for parameter in gating.parameters())])  # type: ignore[union-attr]  # all have one
        for ours, at_once, exact in zip(*found, strict=True):
            assert (ours - exact).norm() < 3 * (at_once - exact).norm() + 1e-6 * exact.norm()

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_the_sum_over_regions_is_rounded_once(self, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        x, masks = torch.randn(2, 8, 32, 32), (3 * torch.randn(2, 11, 32, 32)).softmax(dim=1)
        gating = SemanticGating(8, 11).eval()
        nn.init.normal_(gating.restore.weight)
        exact = by_region(gating, x, masks)
        ours, at_once = (run(gating.to(dtype), x.to(dtype), masks.to(dtype)) for run in (by_region, all_maps_at_once))
        assert (ours - exact).norm() < 1.15 * (at_once - exact).norm()

    @POOLS
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_all_in_low_precision(self, dtype: torch.dtype, step: int) -> None:
        x, masks = (values.to(dtype) for values in small_case())
        gating = SemanticGating(3, 5, pool=step == 2).to(dtype)
        maps = by_region(gating, x, masks)
        maps.square().sum().backward()
        assert maps.dtype == dtype
        for values in (maps, *(parameter.grad for parameter in gating.parameters())):
            assert values is not None
            assert values.isfinite().all()


class TestSymbioticAugmentation:
    @POOLS
    def test_is_the_definition(self, step: int) -> None:
        x, masks = small_case()
        module = SymbioticAugmentation(3, 5, pool=step == 2).double()
        shake(module)
        mixture = module.mixture.weight[:, :, 0, 0].tolist()
        batch = []
        for maps, regions in zip(x.tolist(), gate_masks(masks).tolist(), strict=True):
            convolved = loop_convolution(maps, module.convolution.weight.tolist())
            batch.append(
                [
                    [
                        [convolved[c][y][i] * sum(mixture[c][n] * regions[n][y][i] for n in range(5)) for i in range(4)]
                        for y in range(5)
                    ]
                    for c in range(3)
                ]
            )
        expected = loop_norm_act_pool(batch, module.norm, module.activation, module.norm.eps, step)
        torch.testing.assert_close(module(x, known(masks)), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("gate", [SemanticGating, SymbioticAugmentation])
class TestGates:
    def test_gradients(self, gate: type[SemanticGating] | type[SymbioticAugmentation]) -> None:
        x, masks = small_case()
        gating, regions = gate(3, 5).double(), known(masks)
        shake(gating)
        assert torch.autograd.gradcheck(lambda value: gating(value, regions), x.requires_grad_(), fast_mode=True)
        weight = gating.convolution.weight.detach().clone().requires_grad_()

        def of_the_kernel(kernel: Tensor) -> Tensor:
            result: Tensor = torch.func.functional_call(gating, {"convolution.weight": kernel}, (x.detach(), regions))
            return result

        assert torch.autograd.gradcheck(of_the_kernel, weight, fast_mode=True)

    @pytest.mark.parametrize("stride", [4, 8])
    def test_asks_at_its_own_stride(self, gate: type[Gate], stride: int) -> None:
        regions = KnownRegions(torch.rand(2, 5, 32, 16))
        shape = (2, 3, 32 // stride, 16 // stride)
        assert gate(3, 5, stride, False)(torch.rand(shape), regions).shape == shape
        assert regions.asked == [stride]

    def test_other_sizes_are_refused(self, gate: type[Gate]) -> None:
        with pytest.raises(ValueError, match=r"maps \(5 × 4\) and masks \(5 × 5\)"):
            gate(3, 2)(torch.rand(1, 3, 5, 4), known(torch.rand(1, 2, 5, 5)))
