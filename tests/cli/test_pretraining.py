"""LNet_o begins with the filters that the categories of objects have taught."""

from collections.abc import Callable
from pathlib import Path

import torch

from tests.test_configs import small_overlay

LAST = "runs/{}/version_0/checkpoints/last.ckpt"


def test_lnet_o_after_categories(
    command: Callable[..., None], refused: Callable[..., str], faces: Path, tmp_path: Path
) -> None:
    start = f"--model.encoder.weights={LAST.format('lnet_objects')}"
    command("fit", "--config=lnet_objects.yaml", f"--config={small_overlay('lnet_objects.yaml', faces, tmp_path)}")
    words = ("fit", "--config=lnet_o.yaml", f"--config={small_overlay('lnet_o.yaml', faces, tmp_path)}")
    command(*words, start, "--model.learning_rate=1e-12")
    before, after = (
        torch.load(LAST.format(name), weights_only=True)["state_dict"] for name in ("lnet_objects", "lnet_o")
    )
    filters = [name for name, x in before.items() if name.startswith("network.encoder.conv") and x.ndim == 4]
    assert len(filters) == 5
    for name in filters:
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-9)
    message = refused(*words, start, "--model.encoder.width=6")
    assert "lnet_objects/version_0/checkpoints/last.ckpt is not an LNet of this width" in message
