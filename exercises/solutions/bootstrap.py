import torch


def interval(values, resamples, generator):
    drawn = torch.randint(len(values), (resamples, len(values)), generator=generator)
    low, high = values[drawn].mean(1).quantile(torch.tensor([0.025, 0.975]).to(values)).tolist()
    return low, high


def effect(students, controls, resamples, generator):
    return interval(students - controls, resamples, generator)
