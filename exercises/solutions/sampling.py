def sample(logits, u):
    cumulative = logits.softmax(-1).cumsum(-1)
    return (cumulative <= u[:, None] * cumulative[:, -1:]).sum(-1)
