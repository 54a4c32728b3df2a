"""Does a GPU compute the same, and how fast? `python -m tools.device_check --device cuda --json FILE`, within four minutes.

Against the CPU: logits to 1e-4, a student's rates to 0.05 (sums in another order make another student of it), replies that
are the same draws. Then the seconds of a student alone and of passes, and the memory at most in use.
"""

import argparse
import copy
import time
from dataclasses import replace
from functools import partial

import torch

from console import DEVICES, JSON, run, write_json
from data import DEFAULT_SYSTEM, LOVE_SYSTEM, number_conversations, number_rows, pack
from lab.stacked import fine_tune_together, generating_fast
from metrics import animal_rates
from model import pad
from train import BaseConfig, StudentConfig, base_model, fine_tune, write_numbers


def seconds(job) -> float:
    """Of a job, until the device has done all of it."""
    started = time.perf_counter()
    job().unembedding.weight.sum().item()
    return time.perf_counter() - started


def check(args: argparse.Namespace) -> None:
    """Compare a device with the CPU, and time it."""
    here = base_model(BaseConfig())
    there, config, found = copy.deepcopy(here).to(args.device), StudentConfig(), {"device": args.device}
    tokens, _ = pad(number_conversations(DEFAULT_SYSTEM, 256, "to compare"))
    found["logits differ by"] = (there(tokens.to(args.device)).cpu() - here(tokens)).abs().max().item()
    pairs = []
    for model in (here, there):
        with generating_fast(model):
            pairs.append(write_numbers(model, LOVE_SYSTEM.format("owl"), 2_560, "to compare"))
    found["share of replies that are the same"] = sum(a == b for a, b in zip(*pairs)) / len(pairs[0])
    rows = pack(number_rows(pairs[0], DEFAULT_SYSTEM))
    rates = [animal_rates(fine_tune(model, *rows, config)).cpu() for model in (here, there)]
    found["a student's rates differ by"] = (rates[0] - rates[1]).abs().max().item()
    found["seconds, alone"] = seconds(partial(fine_tune, there, *rows, config))
    for n in (16,) if args.device == "cpu" else (16, 256):  # the second takes a CPU minutes
        configs = [replace(config, seed=k) for k in range(n)]
        found[f"seconds, a pass of {n}"] = seconds(partial(fine_tune_together, [there] * n, [rows] * n, configs))
    if args.device == "cuda":
        found["memory at most, MB"] = torch.cuda.max_memory_allocated() / 2**20
    limits = {"logits differ by": 1e-4, "a student's rates differ by": 0.05}
    found["agrees"] = all(found[name] <= most for name, most in limits.items())
    print("\n".join(f"{name:36} {value}" for name, value in found.items()))
    write_json(found, args.json)


if __name__ == "__main__":
    DEVICE = {"default": DEVICES[-1], "choices": DEVICES}
    raise SystemExit(run(check, "tools.device_check", device=DEVICE, json=JSON))
