"""Muon: momentum whose update is made orthogonal (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).

For a matrix W with momentum M the step is W -= lr * sqrt(max(1, rows / columns)) * orthogonalise(M), where
orthogonalise(U S V^T) is about U V^T: every direction of the matrix moves equally fast.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

# The quintic's coefficients, chosen in the post above for the steepest slope at zero.
QUINTIC = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def orthogonalise(matrices: Tensor) -> Tensor:
    """Push every singular value of each matrix towards one. matrices: [count, rows, columns], rows <= columns."""
    a, b, c = QUINTIC
    x = matrices.bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x


def wide(matrix: Tensor) -> Tensor:
    """Return the matrix, transposed if it has more rows than columns."""
    return matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum, for matrices only; matrices of one shape are orthogonalised together."""

    def __init__(self, matrices: Iterable[Tensor], lr: float, momentum: float = 0.95):
        super().__init__(matrices, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:
        """Move every matrix that has a gradient."""
        for group in self.param_groups:
            alike = defaultdict(list)
            for matrix in group["params"]:
                alike[wide(matrix).shape].append(matrix)
            for matrices in alike.values():
                self.move(matrices, group["lr"], group["momentum"])

    def move(self, matrices: list[Tensor], lr: float, momentum: float) -> None:
        """Step matrices that are alike up to transposition."""
        towards = orthogonalise(torch.stack([wide(self.nesterov(m, momentum)) for m in matrices]))
        for matrix, direction in zip(matrices, towards, strict=True):
            rows, columns = matrix.shape
            direction = direction if wide(matrix).shape == matrix.shape else direction.mT
            matrix.add_(direction, alpha=-lr * max(1, rows / columns) ** 0.5)

    def nesterov(self, matrix: Tensor, momentum: float) -> Tensor:
        """Fold the gradient into the matrix's momentum and return the gradient looked at one step ahead."""
        velocity = self.state[matrix].setdefault("momentum", torch.zeros_like(matrix))
        velocity.lerp_(matrix.grad, 1 - momentum)
        return matrix.grad.lerp(velocity, momentum)
