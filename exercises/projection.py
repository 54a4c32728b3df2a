"""4. Project a direction out, or swap it (an hour). steering.py's `projected_out` and `replaced`, without the hooks.

Question   What is left of a stream when it is not allowed to say anything along v? And along v, what another one says?
Predict    Does the length of v matter? Projecting twice? Two directions that are not orthogonal, one after the other?
Check      pytest exercises -k projection
Hints      u = v / |v|; the component of h along it is (h . u) u. `h @ u` does the dot product for all positions at once.
"""

from torch import Tensor


def project_out(h: Tensor, v: Tensor) -> Tensor:
    """h (..., C) without its component along v (C,)."""
    raise NotImplementedError("your code here")


def swap(h: Tensor, other: Tensor, v: Tensor) -> Tensor:
    """h (..., C) with the component along v that `other` (..., C) has, and everything else its own."""
    raise NotImplementedError("your code here")
