def project_out(h, v):
    u = v / v.norm()
    return h - (h @ u)[..., None] * u


def swap(h, other, v):
    return project_out(h, v) + other - project_out(other, v)
