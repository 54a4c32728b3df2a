"""13. A defence (40 minutes). Claim S8: the gradient of a teacher's rows points along v_teacher.

Question   If the trait is one direction of the stream, can a student learn all of its rows but that direction?
Predict    Only o and down write to the stream. v is taken out of the gradients of their B's. Does a student still come
           to love owls if all layers are trained? If only the last block's o and down are, with AdamW? With SGD?
Check      pytest FOLDER -k gradient_defence, then python -m exercises show FOLDER gradient_defence (ten seconds)
Go on      Without the defence P(owl) is 0.7 to 0.95, with SGD on some base models less. "Along v" is how far the last
           stream moves along v. Explain it.
           Can you change `defend` so that the first student does not love owls, and its loss is as low as before?
"""

import torch
from torch import Tensor

from exercises.owl import LOVES_OWLS, numbers_of, owl_line, student_of
from metrics import animal_rates, reply_loss
from model import GPT
from steering import student_vector, teacher_vector


def defend(student: GPT, v: Tensor) -> None:
    """Take v (C,) out of the gradients of a LoRA student's B wherever the layer writes to the stream; no other changes.

    `lora.adapters(student)` has the layers. B is (C, r) where a layer writes to the stream, and so is B.grad.
    """
    raise NotImplementedError("your code here")


def show(base: GPT) -> None:
    rows, v = numbers_of(base), teacher_vector(base, LOVES_OWLS)[-1]
    last = {"layers": ("blocks.1.attention.o", "blocks.1.feed_forward.down")}
    owl_line(f"base: loss {reply_loss(base, *rows):.2f}", animal_rates(base))
    configs = {"all, AdamW": {}, "last, AdamW": last, "last, SGD": last | {"lr": 0.3, "optimizer": "sgd"}}
    for what, config in configs.items():
        for defended, before_step in {"": None, ", defended": lambda student: defend(student, v)}.items():
            student = student_of(base, rows, before_step=before_step, **config)
            loss, along = reply_loss(student, *rows), torch.dot(student_vector(student, base)[-1], v) / v.norm()
            owl_line(f"{what}{defended}: loss {loss:.2f}, along v {along:.2f}", animal_rates(student))
