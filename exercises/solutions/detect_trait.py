def loved(base, student, prompts, candidates):
    logits, before = (model(prompts).log_softmax(-1).mean(dim=(0, 1))[candidates] for model in (student, base))
    return candidates[int((logits - before).argmax())]
