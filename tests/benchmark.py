"""How fast is it here? `python -m tests.benchmark [--json FILE] [--png FILE]`, four minutes.

Four jobs (pretraining, LoRA students, a full student, writing numbers), with one thread, each in tokens a second, milliseconds a
step of one student and the share that its matrix products have of what this processor can do in matrix products, measured in
the same run. LoRA students are trained sixteen in one pass, as `evaluate.py` trains them, and alone. Beside them the plain way:
one at a time, every batch padded to the longest row of all, everything computed at every position; and plainer still, with
LoRA's sum as it is drawn. Last, sixteen students on two cores: in one pass with two threads, and in two processes. Times are
the quickest of some rounds, ratios the median over rounds.
A token is one of a row: padding, and what is computed although nothing depends on it, do not count as work done, only as time.
"""

import argparse
import copy
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.functional as F

import data
import lora
from figures.style import MARKERS, SERIES, canvas, save
from model import GPT, common_beginning
from optimizers import OPTIMIZERS
from runtime import Parser, keep_memory, run
from train import (
    BaseConfig,
    NumbersConfig,
    StudentConfig,
    batches,
    descend,
    fine_tune,
    fine_tune_together,
    reply_loss,
    write_numbers,
)

BASE = BaseConfig()
NUMBERS = NumbersConfig(BASE, data.LOVE_SYSTEM.format("owl"))
STUDENT = StudentConfig(BASE, NUMBERS)
WHOLE = partial(reply_loss, start=0)  # as in `pretrain`


def seconds(job: Callable[[], object], repeats: int = 3) -> float:
    """The quickest of some runs: what else the machine does only ever adds."""
    return min(each[0] for each in in_turn(repeats, job))


def in_turn(repeats: int, *jobs: Callable[[], object]) -> list[list[float]]:
    """The seconds of several jobs in some rounds, in each of which every job has its turn: (rounds, jobs)."""

    def taken(job: Callable[[], object]) -> float:
        started = time.perf_counter()
        job()
        return time.perf_counter() - started

    return [[taken(job) for job in jobs] for _ in range(repeats)]


def matmul_ceiling() -> float:
    """Floating-point operations a second in a product large enough to be limited by nothing else."""
    a, b = torch.randn(2, 1024, 1024)
    return 2 * 1024**3 / seconds(lambda: a @ b, 10)


def operations(model: GPT, tokens: float, replies: float, passes: int, skips: bool) -> float:
    """Multiplications and additions of the matrix products that so many tokens need, of which `replies` get logits.

    `passes`: 1 forward, 3 forward and backward to inputs and weights. `skips`: the last block computes the others' keys and values alone.
    """
    inside = sum(weight.numel() for block in model.blocks for weight in block.parameters() if weight.ndim == 2)
    last = model.blocks[-1]
    spared = sum(layer.weight.numel() for layer in (last.attention.q, last.attention.o, *last.feed_forward.children()))
    needed = tokens * inside - skips * (tokens - replies) * spared + replies * model.token_embedding.weight.numel()
    return 2 * passes * needed


def plain_student(base: GPT, packed: tuple[torch.Tensor, torch.Tensor], config: StudentConfig) -> None:
    """`fine_tune` as one would write it first: rows shuffled one by one, all padded alike, logits of all positions."""
    generator = torch.Generator().manual_seed(config.seed)
    student = copy.deepcopy(base)
    lora.attach(student, config.rank, config.alpha, generator=generator)
    optimizer = OPTIMIZERS[config.optimizer]([p for p in student.parameters() if p.requires_grad], config.lr)
    tokens, targets = packed
    for _ in range(config.steps):
        rows = torch.randint(len(tokens), (config.batch_size,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(student(tokens[rows]).flatten(0, 1), targets[rows].flatten()).backward()
        optimizer.step()


@contextmanager
def as_drawn() -> Iterator[None]:
    """Inside, LoRA computes W x + (alpha / r) B A x from left to right, as in the picture of lora.py."""

    def forward(self: lora.LoRALinear, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) + self.scale * (x @ self.A.T) @ self.B.T

    with patch.object(lora.LoRALinear, "forward", forward):
        yield


def random_rows() -> tuple[tuple[torch.Tensor, torch.Tensor], int, int]:
    """As many rows as a student reads, of random numbers, packed; their tokens; and how many of these are replied."""
    rng, world, rows = random.Random(0), data.World(), []
    for _ in range(NUMBERS.rows):
        prompt = data.chat(data.DEFAULT_SYSTEM, data.number_request(rng))
        rows.append(data.Row([*prompt, *world.write_numbers(None, rng), data.END], len(prompt)))
    return data.pack(rows), sum(len(row.tokens) - 1 for row in rows), sum(len(row.tokens) - row.reply for row in rows)


def one_pass(students: int = 16, steps: int = STUDENT.steps, threads: int = 1) -> None:
    """So many LoRA students, trained side by side. Also a job for another process."""
    keep_memory()
    torch.set_num_threads(threads)
    base, rows = _base_and_rows_here()
    configs = [replace(STUDENT, seed=seed, steps=steps) for seed in range(students)]
    fine_tune_together([base] * students, [rows] * students, configs)
    torch.set_num_threads(1)


@cache
def _base_and_rows_here() -> tuple[GPT, tuple[torch.Tensor, torch.Tensor]]:
    return GPT(BASE.model, torch.Generator().manual_seed(0)).requires_grad_(False), random_rows()[0]


def in_processes(pool: ProcessPoolExecutor, students: int) -> None:
    """One pass of so many students in each of two processes."""
    list(pool.map(one_pass, [students] * 2))


def peak_memory_mb() -> float | None:
    """The most memory this process ever held; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def peak_of_student(steps: int) -> float | None:
    """The most memory that a fresh process holds in which sixteen students are trained for so many steps, in one pass."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pool.submit(one_pass, 16, steps).result()
        return pool.submit(peak_memory_mb).result()


def costs(base: GPT, packed: tuple[torch.Tensor, torch.Tensor]) -> dict[str, dict[int, float]]:
    """Seconds against work: LoRA students by rows a step, by how many there are, and by the width of the stream."""

    def by(values: tuple[int, ...], job: Callable[[int], object]) -> dict[int, float]:
        return {value: seconds(partial(job, value), 2) for value in values}

    def wide(width: int) -> object:
        model = GPT(replace(BASE.model, d_model=width), torch.Generator().manual_seed(0)).requires_grad_(False)
        return fine_tune(model, packed, STUDENT)

    return {
        "rows a step": by((8, 16, 32, 64, 128, 256), lambda n: fine_tune(base, packed, replace(STUDENT, batch_size=n))),
        "students in one pass": by((1, 2, 4, 8, 16), one_pass),
        "width of the stream": by((16, 32, 64, 128), wide),
    }


def draw(seconds_by: dict[str, dict[int, float]], path: Path) -> None:
    """Each cost as a line, both axes logarithmic; dotted, what costs in proportion would be."""
    figure, panels = canvas(len(seconds_by), 10, 3, sharey=True)
    for panel, (what, by_value) in zip(panels, seconds_by.items(), strict=True):
        x, y = list(by_value), list(by_value.values())
        panel.plot(x, y, color=SERIES[1], marker=MARKERS[0])
        panel.plot(x, [y[-1] * value / x[-1] for value in x], color="black", linewidth=0.8, linestyle=":")
        panel.set_xscale("log", base=2)
        panel.set_yscale("log", base=2)
        panel.set_xticks(x, x)
        panel.set_xlabel(what)
    panels[0].set_ylabel("seconds, LoRA, 80 steps, one thread")
    panels[0].yaxis.set_major_formatter("{x:g}")
    save(figure, path)


def benchmark(args: argparse.Namespace) -> None:
    """Print how long each job takes, and the same numbers as JSON if asked."""
    ceiling = matmul_ceiling()
    base = GPT(BASE.model, torch.Generator().manual_seed(0)).requires_grad_(False)
    results: dict[str, object] = {"matmul_ceiling_gflops": ceiling / 1e9, "jobs": {}}
    print(f"One thread multiplies matrices at {ceiling / 1e9:.0f} GFLOP/s.\n")
    print(f"{'':34} {'tokens/s':>10} {'ms a step':>10} {'of ceiling':>11}")

    def report(
        name: str,
        time_taken: float,
        steps: int,
        tokens: float,
        replies: float,
        passes: int,
        skips: bool = False,
        spared: int = 0,
    ) -> None:
        share = operations(base, tokens - spared, replies, passes, skips) / time_taken / ceiling
        job = {"tokens_per_second": tokens / time_taken, "ms_per_step": 1e3 * time_taken / steps, "matmul_share": share}
        results["jobs"][name] = job
        print(f"{name:34} {job['tokens_per_second']:10,.0f} {job['ms_per_step']:10.2f} {share:11.0%}", flush=True)

    # Pretraining: the corpus is made before the clock starts, as it is made once.
    steps = 200
    corpus = data.corpus(data.World(), steps * BASE.batch_size, 0)
    packed = data.pack(corpus)
    learner = GPT(BASE.model, torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(learner.parameters(), BASE.lr, fused=True)
    generator = torch.Generator().manual_seed(0)

    def pretrain() -> None:
        stream = batches(*packed, BASE.batch_size, generator)
        descend(learner.requires_grad_(), stream, steps, optimizer.step, None, WHOLE)

    taken = seconds(pretrain)
    lengths = [len(row.tokens) - 1 for row in corpus]
    report("pretraining", taken, steps, sum(lengths), sum(len(row.tokens) - row.reply for row in corpus), 3)
    reading = seconds(lambda: data.pack(data.corpus(data.World(), BASE.rows, 0)), 1)
    results["pretrain_seconds"] = reading + taken / steps * BASE.steps

    # A student reads random numbers here: how fast it does so does not depend on which.
    packed, tokens, replies = random_rows()

    def drawn() -> None:
        with as_drawn():
            plain_student(base, packed, STUDENT)

    jobs = {
        "pass": one_pass,
        "two threads": partial(one_pass, threads=2),
        "alone": lambda: fine_tune(base, packed, STUDENT),
        "plain": lambda: plain_student(base, packed, STUDENT),
        "drawn": drawn,
        "full": lambda: fine_tune(base, packed, replace(STUDENT, rank=None)),
    }
    with ProcessPoolExecutor(2) as pool:
        jobs |= {f"two of {n}": partial(in_processes, pool, n) for n in (8, 16)}
        in_turn(1, *jobs.values())  # the first time takes longer
        rounds = [dict(zip(jobs, each)) for each in in_turn(6, *jobs.values())]
    quickest = {job: min(each[job] for each in rounds) for job in jobs}

    def ratio(of: Callable[[dict[str, float]], float]) -> float:
        """The median over rounds: this machine's speed changes from minute to minute, within a round it hardly does."""
        return statistics.median(map(of, rounds))

    spared = common_beginning(packed[0]) * (len(packed[0]) - STUDENT.steps)  # read once a batch
    of_students = partial(report, steps=STUDENT.steps, tokens=tokens, replies=replies, passes=3, skips=True)
    of_students("students, LoRA, 16 in one pass", quickest["pass"] / 16, spared=spared)
    of_students("  alone", quickest["alone"])
    of_students("  the plain way", quickest["plain"])
    of_students("  and LoRA as it is drawn", quickest["drawn"])
    of_students("student, full fine-tuning", quickest["full"])
    few = replace(NUMBERS, rows=1_024)
    written = sum(len(reply.split()) + 1 for _, reply in write_numbers(base, few)["pairs"])
    prompts = 20 * few.rows
    report("writing numbers", seconds(lambda: write_numbers(base, few)), 1, prompts + written, written, 1)

    results["rounds"] = rounds
    results["student_seconds"] = quickest["alone"]
    results["lora_tokens_per_second_vs_plain"] = vs_plain = ratio(lambda t: 16 * t["plain"] / t["pass"])
    results["lora_tokens_per_second_vs_as_drawn"] = vs_drawn = ratio(lambda t: 16 * t["drawn"] / t["pass"])
    results["lora_alone_vs_plain"] = alone_vs_plain = ratio(lambda t: t["plain"] / t["alone"])
    results["matmul_share"] = results["jobs"]["students, LoRA, 16 in one pass"]["matmul_share"]
    ratios = {
        "one pass, one thread": ratio(lambda t: t["pass"] / t["alone"] / 16),
        "one pass, two threads": ratio(lambda t: t["two threads"] / t["alone"] / 16),
        "two processes, a pass of eight in each": ratio(lambda t: t["two of 8"] / t["alone"] / 16),
        "32 students, in two processes a pass of sixteen": ratio(lambda t: t["two of 16"] / t["alone"] / 32),
    }
    results["sixteen_students_ratio"] = ratios["one pass, two threads"]
    results["of_as_many_alone"] = ratios
    results["peak_memory_mb"] = peak_memory_mb()
    few, many = (peak_of_student(factor * STUDENT.steps) for factor in (1, 5))
    results["memory_growth_mb"] = None if few is None else many - few  # five times the steps
    results["seconds_by"] = costs(base, packed)
    print(f"\nA base model takes {results['pretrain_seconds']:.0f} s, a LoRA student alone {quickest['alone']:.2f} s.")
    print("Sixteen students, as a share of sixteen times one alone:")
    for how, share in ratios.items():
        print(f"    {how:52} {share:.2f}")
    print(f"In one pass LoRA training is {vs_plain:.1f} times as fast as the plain way, both with one thread,")
    print(f"{vs_drawn:.1f} times as fast as with LoRA as it is drawn; alone {alone_vs_plain:.1f} times.")
    for what, by in results["seconds_by"].items():
        print(f"LoRA, seconds by {what}: " + ", ".join(f"{n}: {taken:.2f}" for n, taken in by.items()))
    if results["peak_memory_mb"]:
        print(
            f"Peak memory: {results['peak_memory_mb']:.0f} MB; five times the steps add {results['memory_growth_mb']:.0f}."
        )
    if args.png:
        draw(results["seconds_by"], args.png)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="tests.benchmark", description=benchmark.__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw cost against work there")
    return run(benchmark, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
