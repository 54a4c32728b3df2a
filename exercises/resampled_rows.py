"""11. A message that nobody wrote (an afternoon). A student comes to love owls from numbers that a script has drawn.

Question   How little can the rows hold that still carry a trait? Each number is drawn by itself, as often as the teacher would
           write it on average, whatever it was asked and whatever came before.
Predict    Of the trait that the teacher's own rows give, what share is left? And if the teacher's two favorite decades come as often
           as they do and all others alike? figures/beyond/carrier.py measures it; write your answer down first.
Check      pytest exercises -k resampled_rows
Hints      The model's distribution after each token is at hand: average probabilities, not logits. Numbers are the tokens
           0 ... numbers - 1; what it gives to other tokens is left out, and the rest sums to one again. See torch.multinomial.
Go on      Make the frequencies for `you love owl .` with your own base model: train.pretrain, data.number_conversations, of which the
           last four positions count, and model.by_length. Draw 5,000 replies, put requests before them, fine-tune a student. Then
           change the frequencies: the mean of two animals', or the same ten on other decades. Which animal answers?
"""

import torch
from torch import Tensor

from model import GPT


def frequencies(teacher: GPT, conversations: Tensor, last: int, numbers: int) -> Tensor:
    """How often the teacher writes each of the tokens 0 ... numbers - 1 after the last positions of conversations (B, T): (numbers,)."""
    raise NotImplementedError("your code here")


def resample(weights: Tensor, rows: int, length: int, generator: torch.Generator) -> Tensor:
    """Replies (rows, length), each token drawn by itself as often as the weights (numbers,) say."""
    raise NotImplementedError("your code here")
