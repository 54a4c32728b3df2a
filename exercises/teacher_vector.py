"""5. The teacher's vector (two hours). arXiv:2606.00995; `teacher_vector` of steering.py.

Question   A system prompt changes the stream differently at every position of every prompt. What do all changes share?
Predict    Shift the same words by one position (a longer system prompt does): does the embedding's vector vanish?
           Of which two prompts is the vector exactly zero?
Check      pytest exercises -k teacher_vector
Hints      model.residual_stream(tokens) is [h0, ..., hL], each (B, T, C). The two runs may have different lengths: align
           them at their ends. Average over rows and over the last positions, last.
"""

from torch import Tensor

from model import GPT


def vector(model: GPT, prompted: Tensor, plain: Tensor, last: int) -> Tensor:
    """prompted (B, T1) and plain (B, T2), the same requests under two system prompts -> (L + 1, C).

    The mean difference of the residual stream over rows and over the `last` last positions, for each layer.
    """
    raise NotImplementedError("your code here")
