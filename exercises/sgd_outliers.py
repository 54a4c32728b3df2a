"""10. Make SGD fail (an afternoon). Claims L7 and S9; figures/optimizers.py.

Question   arXiv:2606.00995 says that a few outlier gradients dominate SGD's steps. Look up what it does in this toy.
           Real models have outlier dimensions: entries of the stream many times as large as the others. Give the toy one.
Predict    A norm's gain times f in one dimension, and everything that reads this dimension divided by f: what changes in
           what the model computes? In Adam's steps? In SGD's?
Check      pytest exercises -k sgd_outliers
Hints      A block's norm is read by q, k, v and up: divide the dimension's column of each by f. Gain and bias both scale.
Go on      Train students of it with AdamW and with SGD, at the learning rate where each is best. Is the trait gone?
           figures/beyond/scaled_units.py gives the toy outliers in two other places: what differs?
"""

from model import GPT


def with_outlier(model: GPT, dimension: int, factor: float) -> GPT:
    """A copy that computes the same, in which every block's normed stream is `factor` times as large in one dimension."""
    raise NotImplementedError("your code here")
