from lora import adapters


def defend(student, v):
    u = v / v.norm()
    for name, layer in adapters(student).items():
        if name.endswith((".o", ".down")):
            layer.B.grad -= u[:, None] * (u @ layer.B.grad)
