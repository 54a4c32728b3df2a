from torch import Tensor


def project_out(h: Tensor, v: Tensor) -> Tensor:
    u = v / v.norm()
    return h - (h @ u)[..., None] * u


def swap(h: Tensor, other: Tensor, v: Tensor) -> Tensor:
    return project_out(h, v) + other - project_out(other, v)
