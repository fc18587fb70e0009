"""Max pooling in compiled trainings: PyTorch's own, to the bit."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from facelightning.models.max_pooling import MaxPool

WINDOWS = {"halves": (2, 2, 0, True), "overlaps": (3, 2, 0, False), "pads": (3, 2, 1, False)}
SHAPES = {"odd": (2, 3, 7, 5), "one map": (2, 1, 6, 6), "one column": (2, 16, 6, 3), "large": (1, 2, 200, 190)}


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("windows", WINDOWS.values(), ids=WINDOWS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=["channels last", "contiguous"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_compiled_pooling_is_the_plain_one(
    windows: tuple[int, int, int, bool], shape: tuple[int, ...], layout: torch.memory_format, dtype: torch.dtype
) -> None:
    """Values with many ties; what comes before and after is not pooling, and so compiled around it."""
    size, stride, padding, ceil = windows
    plain, own = (pool(size, stride, padding, ceil_mode=ceil) for pool in (nn.MaxPool2d, MaxPool))
    compiled = torch.compile(lambda x: 3 * own(2 * x), backend="aot_eager", dynamic=False)
    x, results = torch.randint(-2, 3, shape).to(dtype).contiguous(memory_format=layout), []
    for run in (lambda x: 3 * plain(2 * x), compiled):
        maps = x.detach().requires_grad_()
        pooled = run(maps)
        pooled.backward(torch.arange(pooled.numel()).view(pooled.shape).to(dtype))
        results.append((pooled.detach(), maps.grad))
    for expected, found in zip(*results, strict=True):
        assert torch.equal(expected, found)
    assert results[0][0].stride() == results[1][0].stride()


def test_a_compiler_leaves_it_alone_in_a_training_only() -> None:
    seen: list[str] = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    pool = MaxPool(2)
    torch.compile(pool, backend=backend)(torch.zeros(1, 1, 4, 4))
    assert any("facelightning" in name and "max_pool" in name for name in seen), seen
    seen.clear()
    torch._dynamo.reset()
    torch.compile(pool.eval(), backend=backend)(torch.zeros(1, 1, 4, 4))
    assert seen and not any("facelightning" in name for name in seen), seen


def test_the_compiler_of_processors_takes_it() -> None:
    """With windows that it would also write itself."""
    x = torch.randn(2, 4, 5, 3).contiguous(memory_format=torch.channels_last).requires_grad_()
    layers = nn.Sequential(nn.Conv2d(4, 4, 1), MaxPool(2, ceil_mode=True), nn.Tanh())
    layers.to(memory_format=torch.channels_last)
    expected = layers(x)
    (of_x,) = torch.autograd.grad(expected.square().sum(), x)
    found = torch.compile(layers, dynamic=False)(x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found.square().sum(), x)[0], of_x)


def test_an_export_needs_nothing_of_ours() -> None:
    program = torch.export.export(MaxPool(2).train(), (torch.zeros(1, 1, 4, 4),))
    assert "facelightning" not in str(program.graph)
