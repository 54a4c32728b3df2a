"""9. Break the inverted U (an afternoon). Claim L2; figures/rank_sweep.py.

Question   With one learning rate for all ranks, middle ranks transmit and large ones are destroyed. Is it the rank?
Predict    alpha = r, so the scale is 1. Adam moves every entry of B by lr in its first step. How far does the change
           B A of the weight move, as the rank grows? Which learning rate would make all ranks step alike?
Check      pytest exercises -k break_the_u
Hints      In the first step A is as it was drawn, and B goes from 0 to lr * sign(gradient): B A is a sum of r terms. If
           their signs agree it grows like r, if they are random like the square root of r. Measure which.
Go on      Put it into rank_sweep's cells. What is left of the U?
"""


def learning_rate(rank: int, at_rank_1: float) -> float:
    """The learning rate with which Adam's first steps, alpha = r, change the weight as much at any rank as at rank 1.

    As much: the same Frobenius norm of B A, within a factor of 1.5.
    """
    raise NotImplementedError("your code here")
