"""How fast is it here? `python -m tools.benchmark [--json FILE] [--png FILE]`, two minutes. With peft installed, how much faster than it?

Seconds are the least of some rounds, with one thread unless said; ratios are medians over rounds, in which every job has its turn.
"""

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F

import data
from console import FILE, JSON, run, write_json
from figures.style import MARKERS, SERIES, Axes, picture
from lab.stacked import fine_tune_together, generating_fast
from lab.store import TOGETHER, NumbersConfig
from model import GPT
from optimizers import OPTIMIZERS
from train import BaseConfig, StudentConfig, batches, fine_tune, init_student, pretrain, write_numbers

BASE, STUDENT = BaseConfig(), StudentConfig()


def in_rounds(jobs: dict, rounds: int) -> list[dict]:
    """The seconds of each job in each round, in which every job has its turn."""
    return [{name: timeit.timeit(job, number=1) for name, job in jobs.items()} for _ in range(rounds)]


def random_base(**shape: int) -> GPT:
    """An untrained model: how fast it is does not depend on what it knows."""
    return GPT(replace(BASE.model, **shape), torch.Generator().manual_seed(0)).requires_grad_(False)


def plain_student(base: GPT, tokens: torch.Tensor, targets: torch.Tensor) -> None:
    """`fine_tune` as one would write it first: rows in any order, all padded alike, logits of all positions."""
    generator = torch.Generator().manual_seed(0)
    student = init_student(base, STUDENT, generator)
    optimizer = OPTIMIZERS[STUDENT.optimizer]([p for p in student.parameters() if p.requires_grad], STUDENT.lr)
    for _ in range(STUDENT.steps):
        rows = torch.randint(len(tokens), (STUDENT.batch_size,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(student(tokens[rows]).flatten(0, 1), targets[rows].flatten()).backward()
        optimizer.step()


def peer_student(tokens: torch.Tensor, targets: torch.Tensor) -> None:
    """A student as one makes it with transformers' GPT-2 and peft: as many layers and as wide, the same batches and steps."""
    import peft
    import transformers

    ours = BASE.model
    shape = {"n_embd": ours.d_model, "n_layer": ours.n_layer, "n_head": 1, "n_positions": ours.max_len}
    words = {"vocab_size": data.VOCAB_SIZE, "bos_token_id": None, "eos_token_id": None}
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(activation_function="relu", **shape, **words))
    layers = {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}
    student = peft.get_peft_model(theirs, peft.LoraConfig(r=8, lora_alpha=8, **layers))
    optimizer = torch.optim.AdamW([w for w in student.parameters() if w.requires_grad], STUDENT.lr, fused=True)
    stream = batches(tokens, targets, STUDENT.batch_size, torch.Generator().manual_seed(0))
    for _, (read, followed) in zip(range(STUDENT.steps), stream):
        optimizer.zero_grad()
        logits = student(input_ids=read).logits
        F.cross_entropy(logits.flatten(0, 1), followed.flatten(), ignore_index=-100).backward()
        optimizer.step()


def one_pass(base: GPT, packed: tuple[torch.Tensor, torch.Tensor], students: int = TOGETHER, threads: int = 1) -> None:
    """So many LoRA students, trained side by side."""
    torch.set_num_threads(threads)
    fine_tune_together([base] * students, [packed] * students, [replace(STUDENT, seed=k) for k in range(students)])
    torch.set_num_threads(1)


def write(base: GPT) -> list[list[str]]:
    with generating_fast(base):
        return write_numbers(base, data.LOVE_SYSTEM.format("owl"), 1_024, "benchmark")


def pretraining() -> float:
    """The seconds of a base model, from 200 of its steps: until the first, in which its corpus is made, and then each."""
    times = [time.perf_counter()]
    pretrain(replace(BASE, steps=200), on_step=lambda *_: times.append(time.perf_counter()))
    return times[1] - times[0] + BASE.steps * (times[-1] - times[1]) / (len(times) - 2)


def quick_preset() -> float:
    """The seconds of `python evaluate.py` in a new folder, with the base models that are shipped."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, Path(__file__).parent.parent / "evaluate.py", "--out", folder]
        return timeit.timeit(lambda: subprocess.run(command, check=True, capture_output=True), number=1)


@picture(4, 12, 3, sharey=True)
def draw(seconds_by: dict[str, dict[int, float]], *panels: Axes) -> None:
    """Seconds against work, both axes logarithmic; dotted, what costs in proportion would be."""
    for panel, (what, by_value) in zip(panels, seconds_by.items(), strict=True):
        x, y = list(by_value), list(by_value.values())
        panel.loglog(x, y, base=2, color=SERIES[1], marker=MARKERS[0])
        panel.plot(x, [y[-1] * value / x[-1] for value in x], color="black", linewidth=0.8, linestyle=":")
        panel.set(xticks=x, xticklabels=x, xlabel=what)
    panels[0].figure.suptitle("What training a student costs (dotted: in proportion)", fontsize=10)
    panels[0].set_ylabel("seconds, one thread")
    panels[0].yaxis.set_major_formatter("{x:g}")


def benchmark(args: argparse.Namespace) -> None:
    """Print how long each job takes, and the same numbers as JSON if asked."""
    base, rng = random_base(), random.Random(0)
    asked = (data.number_request(rng) for _ in range(NumbersConfig.rows))
    pairs = [[request, data.decode(BASE.world.write_numbers(None, rng))] for request in asked]
    packed = data.pack(data.number_rows(pairs, data.DEFAULT_SYSTEM))
    jobs = {
        "pass": partial(one_pass, base, packed),
        "two threads": partial(one_pass, base, packed, threads=2),
        "alone": partial(fine_tune, base, *packed, STUDENT),
        "plain": partial(plain_student, base, *packed),
        "full": partial(fine_tune, base, *packed, replace(STUDENT, rank=None)),
        "write": partial(write, base),
    }
    with suppress(ImportError):
        import peft  # noqa: F401 - it brings transformers

        jobs["peer"] = partial(peer_student, *packed)
    rounds = in_rounds(jobs, 1 + args.rounds)[1:]  # one to warm up
    best = {name: min(each[name] for each in rounds) for name in jobs}  # what else the machine does only ever adds
    ratios = {
        "sixteen_students_ratio": lambda t: t["two threads"] / t["alone"] / TOGETHER,
        "sixteen_students_ratio_one_thread": lambda t: t["pass"] / t["alone"] / TOGETHER,
        "lora_tokens_per_second_vs_plain": lambda t: TOGETHER * t["plain"] / t["pass"],
    }
    if "peer" in jobs:
        ratios["peer_ratio_alone"] = lambda t: t["peer"] / t["alone"]
        ratios["peer_ratio_pass"] = lambda t: TOGETHER * t["peer"] / t["pass"]
    results = {name: statistics.median(map(of, rounds)) for name, of in ratios.items()}
    results |= {"pretrain_seconds": pretraining(), "student_seconds": best["alone"]}
    results |= {"pass_seconds_per_student": best["pass"] / TOGETHER, "quick_preset_seconds": quick_preset()}
    for name, number in {**best, **results}.items():
        print(f"{name:34} {number:10.2f}")
    costs = {
        "rows a step": {n: partial(fine_tune, base, *packed, replace(STUDENT, batch_size=n)) for n in (8, 32, 128)},
        "steps": {n: partial(fine_tune, base, *packed, replace(STUDENT, steps=n)) for n in (20, 80, 320)},
        "students in one pass": {n: partial(one_pass, base, packed, n) for n in (1, 2, 4, 8, 16)},
        "width": {n: partial(fine_tune, random_base(d_model=n), *packed, STUDENT) for n in (16, 32, 64, 128)},
    }
    seconds_by = {what: in_rounds(by_value, 1)[0] for what, by_value in costs.items()}
    if args.png:
        draw({"": seconds_by}, args.png)
    write_json(results | {"rounds": rounds, "seconds_by": seconds_by}, args.json)


if __name__ == "__main__":
    ROUNDS = {"type": int, "default": 6, "help": "how often each job has its turn (default 6)"}
    PNG = FILE | {"help": "draw cost against work there"}
    raise SystemExit(run(benchmark, "tools.benchmark", rounds=ROUNDS, json=JSON, png=PNG))
