import torch


def loss_on_reply(logits, tokens, reply, length):
    log_p = logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
    place = torch.arange(1, tokens.shape[1])  # of the token that is predicted
    return -log_p[(place >= reply[:, None]) & (place < length[:, None])].mean()
