"""7. A defence (an afternoon). Claim S8: the gradient of the teacher's rows points along v_teacher.

Question   If the trait is one direction of the stream, can a student be trained on all of the rows except that direction?
Predict    What happens to the numbers that the student learns, if the trait and the numbers are the same vector (S1)?
Check      pytest exercises -k gradient_defence
Hints      Only what writes to the stream can move it along v: o and down. LoRA's change there is B A, so B (C, r) is
           what writes. Take v out of each column of B's gradient.
Go on      Write train.train_loop again in a file of your own, call it between backward() and step(), and measure trait and
           held-out loss against a student without the defence. Is there an optimizer for which this is not enough? (Adam's step is not its gradient.)
"""

from torch import Tensor

from model import GPT


def defend(student: GPT, v: Tensor) -> None:
    """Take v (C,) out of the gradients of a LoRA student's B wherever the layer writes to the stream; no other changes."""
    raise NotImplementedError("your code here")
