from torch import Tensor


def lora_forward(x: Tensor, W: Tensor, A: Tensor, B: Tensor, alpha: float) -> Tensor:
    return x @ W.T + alpha / len(A) * (x @ A.T) @ B.T


def trained_numbers(n_in: int, n_out: int, rank: int) -> int:
    return rank * (n_in + n_out)
