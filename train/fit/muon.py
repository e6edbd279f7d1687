"""Implement the Muon optimiser, which orthogonalises update matrices to balance all directions.

Jordan and others, "Muon: An optimizer for hidden layers in neural networks" (2024,
kellerjordan.github.io/posts/muon); step size from Liu and others, "Muon is scalable for LLM
training", arXiv:2502.16982, eq. 4: equal to Adam's, so that Adam's learning rates can be used.
torch.optim.Muon supports matrices only; here a convolution is one matrix per group.
"""

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn

MOMENTUM: Final = 0.95
_COEFFICIENTS: Final = (3.4445, -4.7750, 2.0315)
"""Coefficients of Jordan's quintic: steep at 0, results in 0.7..1.2 after five iterations."""
_ROUNDS: Final = 5


class Muon(torch.optim.Optimizer):
    """Optimiser: Muon with Nesterov momentum for convolutions, Adam for biases and slopes."""

    def __init__(self, net: nn.Module, rate: float, betas: tuple[float, float]) -> None:
        blocks: dict[int, list[nn.Parameter]] = {}
        for module in net.modules():
            own = [p for p in module.parameters(recurse=False) if p.requires_grad]
            if own:
                blocks.setdefault(int(getattr(module, "groups", 1)), []).extend(own)
        groups = [{"params": own, "blocks": count} for count, own in sorted(blocks.items())]
        super().__init__(groups, {"lr": rate, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; return the result of `closure`."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:  # up-sampling of another scale
                    continue
                if p.ndim > 1:
                    self._orthogonal_step(p, group["lr"], group["blocks"])
                else:
                    self._adam_step(p, group["lr"], group["betas"])
        return loss

    def _orthogonal_step(self, p: Tensor, rate: float, blocks: int) -> None:
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        assert p.grad is not None
        momentum = state["momentum"].lerp_(p.grad, 1 - MOMENTUM)
        nesterov = p.grad.lerp(momentum, MOMENTUM).contiguous()
        matrices = nesterov.view(blocks, len(p) // blocks, -1)
        size = 0.2 * max(matrices.shape[1:]) ** 0.5  # the root mean square of Adam's steps
        p.add_(orthogonal(matrices).reshape(p.shape), alpha=-rate * size)

    def _adam_step(self, p: Tensor, rate: float, betas: tuple[float, float]) -> None:
        state = self.state[p]
        if not state:
            state["step"] = torch.zeros(())
            state["mean"], state["square"] = torch.zeros_like(p), torch.zeros_like(p)
        assert p.grad is not None
        state["step"] += 1
        count = float(state["step"])
        mean = state["mean"].lerp_(p.grad, 1 - betas[0]) / (1 - betas[0] ** count)
        square = state["square"].lerp_(p.grad.square(), 1 - betas[1]) / (1 - betas[1] ** count)
        p.addcdiv_(mean, square.sqrt() + 1e-8, value=-rate)


def orthogonal(matrices: Tensor) -> Tensor:
    """Set the singular values of matrices [B, M, N] to about 1, by Newton-Schulz iteration."""
    a, b, c = _COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-12)
    for _ in range(_ROUNDS):
        square = x @ x.mT
        x = a * x + (b * square + c * (square @ square)) @ x
    return x.mT if tall else x
