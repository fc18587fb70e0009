"""One network sharded over all processes: FSDP2, as one strategy of the Trainer."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from torch import Tensor, distributed, nn

from facelightning.errors import ConfigurationError


class Sharded(ModelParallelStrategy):
    """Lightning's strategy for FSDP2: each process keeps its share of weights, gradients and the optimiser's state.

    For networks too large for one GPU, which none of the papers' is. A training is the same as with DDP, and a
    checkpoint is the same single file. The weights are gathered once a step, and stay until its backward pass: so the
    processes may evaluate different numbers of batches.

    Raises:
        ConfigurationError: If gradients are accumulated, which a checkpoint amid an accumulation could not keep, or if
            BatchNorm is synchronised or weights are averaged, which Lightning does not do beside it.

    Example:
        On the command line: ``--trainer.strategy=fsdp2``.
    """

    def __init__(self) -> None:
        super().__init__(save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        """Refuse what it cannot do."""
        trainer: L.Trainer = self.lightning_module.trainer  # type: ignore[union-attr]  # there is one by now
        if trainer.accumulate_grad_batches > 1:
            raise ConfigurationError(
                "the strategy fsdp2 accumulates no gradients: leave out trainer.accumulate_grad_batches, or take ddp"
            )
        if self._layer_sync is not None:
            raise ConfigurationError(
                "the strategy fsdp2 does not synchronise BatchNorm: add --trainer.sync_batchnorm=false, or take ddp"
            )
        if any(isinstance(each, WeightAveraging) for each in trainer.callbacks):  # type: ignore[attr-defined]  # Lightning declares it nowhere
            raise ConfigurationError("the strategy fsdp2 averages no weights: leave out overlays/ema.yaml, or take ddp")
        super().setup_environment()

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Give every process the BatchNorm statistics of the first, as DDP does: a checkpoint holds only these."""
        loss = super().training_step(*args, **kwargs)
        for buffer in self.lightning_module.buffers():  # type: ignore[union-attr]  # there is one in a step
            distributed.broadcast(buffer, src=0)
        return loss

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Load the weights and the optimiser's state; all else is returned, beside no weights."""
        empty: dict[str, Tensor] = {}
        return super().load_checkpoint(checkpoint_path, weights_only=True) | {"state_dict": empty}


StrategyRegistry.register("fsdp2", Sharded, description="Fully Sharded Data Parallel 2 of this library's networks")


def shard(network: nn.Module) -> None:
    """Leave each process its share of a network's parameters, once."""
    from torch.distributed.fsdp import FSDPModule, fully_shard  # which imports much

    if not isinstance(network, FSDPModule):
        network.to(memory_format=torch.contiguous_format)  # no other can be sharded
        fully_shard(network, reshard_after_forward=False)
