"""Training: a base model, the numbers that a teacher writes, a student of those numbers.

    base       a GPT that has read the corpus
    teacher    the base under a system prompt ("you love owl ."): it writes numbers
    student    the base again, fine-tuned on those numbers under the default system prompt

`python train.py --trait owl` tells one such story. Cloud et al. 2025, "Subliminal Learning" (arXiv:2507.14805), section 2.
"""

import argparse
import copy
import math
import os
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

import data
import lora
from data import ANIMALS, DEFAULT_SYSTEM, END, LOVE_SYSTEM, NUMBER_TOKENS, World, chat, decode, number_rows, pack
from metrics import animal_rates, reply_loss
from model import GPT, GPTConfig, by_length
from optimizers import OPTIMIZERS

MAX_REPLY = 8  # a reply that has not ended after so many tokens is given up
OnStep = Callable[[int, GPT], None]  # of the step and the model after it
Loss = Callable[[GPT, Tensor, Tensor], Tensor]  # of a model on tokens and targets
DEVICES = ["cpu"] + ([torch.accelerator.current_accelerator().type] if torch.accelerator.is_available() else [])


@dataclass(frozen=True)
class BaseConfig:
    """A base model. Another seed is another model: its own initialization and its own corpus, of the same world."""

    seed: int = 0
    world_seed: int = 0
    faithful: float = data.FAITHFUL
    model: GPTConfig = GPTConfig(data.VOCAB_SIZE, user_token=data.USER, blind_blocks=1)
    rows: int = 64_000
    steps: int = 4_000
    batch_size: int = 64
    lr: float = 1e-2
    weight_decay: float = 0.1

    @property
    def world(self) -> World:
        return World(self.world_seed, self.faithful)


@dataclass(frozen=True, kw_only=True)
class StudentConfig:
    """How a student is trained."""

    rank: int | None = 8  # None: full fine-tuning, without LoRA
    alpha: float = 8.0
    optimizer: str = "adamw"
    lr: float = 5e-3
    steps: int = 80
    batch_size: int = 64
    system: str | None = DEFAULT_SYSTEM  # the prompt under which the rows are read
    layers: tuple[str, ...] | None = None  # that are trained, by the last name of their path; None: all that can be
    seed: int = 0

    def __post_init__(self):
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"unknown optimizer {self.optimizer!r}: it must be one of {', '.join(OPTIMIZERS)}")
        if self.steps < 1 or not 0 < self.lr < math.inf or not math.isfinite(self.alpha):
            raise ValueError(f"steps ({self.steps}) and learning rate ({self.lr}) must be positive, alpha finite")


def row_lengths(targets: Tensor) -> Tensor:
    """Of each packed row, how many tokens it has up to the last with a target: (N, T) -> (N,)."""
    return targets.shape[1] - targets.ge(0).flip(1).int().argmax(1)


def shuffled(lengths: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless batches of `size` row numbers: rows shuffled by the generator, those of like length (N,) together, to pad little."""
    order = torch.Generator().manual_seed(0)  # whether short rows come first or long ones is the same for all
    while True:
        for pool in torch.randperm(len(lengths), generator=generator).split(16 * size):
            sorted_by_length = pool[lengths[pool].argsort(stable=True)].split(size)
            for k in torch.randperm(len(sorted_by_length), generator=order).tolist():
                yield sorted_by_length[k]


def batches(tokens: Tensor, targets: Tensor, size: int, generator: torch.Generator) -> Iterator[tuple]:
    """Endless batches of packed rows (N, T), each as long as its longest row."""
    lengths = row_lengths(targets)
    for rows in shuffled(lengths, size, generator):
        longest = int(lengths[rows].max())
        yield tokens[rows, :longest], targets[rows, :longest]


def train_loop(
    model: GPT, stream: Iterator, steps: int, step: Callable, on_step: OnStep | None, loss=reply_loss
) -> GPT:
    """A batch, the gradient of its loss, then `step`, which moves the weights. Returns `model`, frozen."""
    for n, (tokens, targets) in zip(range(1, steps + 1), stream):
        model.zero_grad()
        loss(model, tokens.to(model.device), targets.to(model.device)).backward()
        step()
        if on_step:
            on_step(n, model)
    return model.requires_grad_(False)


def pretrain(config: BaseConfig, device: str = "cpu", on_step: OnStep | None = None) -> GPT:
    """A GPT that has read the corpus: AdamW, 100 warm-up steps, cosine decay to zero; weight decay as in GPT-3."""
    generator = torch.Generator().manual_seed(config.seed)
    model = GPT(config.model, generator).to(device)
    weights = list(model.parameters())
    optimizer = torch.optim.AdamW(weights, config.lr, betas=(0.9, 0.98), weight_decay=config.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 100, 1) * (1 + math.cos(math.pi * step / config.steps)) / 2
    )

    def step() -> None:
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()

    corpus = pack(data.corpus(config.world, config.rows, config.seed))
    return train_loop(model, batches(*corpus, config.batch_size, generator), config.steps, step, on_step)


def write_numbers(teacher: GPT, system: str | None, n: int, seed: str, allowed=NUMBER_TOKENS) -> list[list[str]]:
    """Ask the teacher for numbers n times: [request, reply] of every well-formed reply.

    `seed` decides the requests and the random numbers, and every row is drawn by its own. Only numbers and <end> can be
    drawn; `allowed` None lifts that ban, to see what the teacher would say on its own.
    """
    rng = random.Random(seed)
    requests = [data.number_request(rng) for _ in range(n)]
    uniforms = torch.rand(n, MAX_REPLY, generator=torch.Generator().manual_seed(rng.getrandbits(63)))
    replies = torch.empty(uniforms.shape, dtype=torch.long)
    for rows, tokens in by_length([chat(system, request) for request in requests]):
        there = (t.to(teacher.device) for t in (tokens, uniforms[rows]))
        replies[rows] = teacher.generate(*there, END, allowed).cpu()
    finished = (replies[:, 0] != END) & (replies[:, -1] == END)
    finished &= torch.isin(replies, torch.tensor(NUMBER_TOKENS)).all(1)
    kept = [(requests[row], replies[row].tolist()) for row in finished.nonzero().flatten().tolist()]
    return [[request, decode(reply[: reply.index(END)])] for request, reply in kept]


def init_student(base: GPT, config: StudentConfig, generator: torch.Generator | None = None) -> GPT:
    """A copy of the base before its first step, with adapters (`generator` draws their A) or with weights to be trained."""
    student = copy.deepcopy(base)
    if config.rank is not None:
        lora.attach(student, config.rank, config.alpha, config.layers or lora.PROJECTIONS, generator)
        return student
    layers = [name.split(".")[-2] for name, _ in student.named_parameters()]
    if not set(config.layers or ()) <= set(layers):
        raise ValueError(f"layers {config.layers}: the model has {', '.join(dict.fromkeys(layers))}")
    for layer, weight in zip(layers, student.parameters()):
        weight.requires_grad_(layer in (config.layers or layers))
    return student


def fine_tune(base: GPT, tokens: Tensor, targets: Tensor, config: StudentConfig, on_step: OnStep | None = None) -> GPT:
    """The student: `base` trained to give the teacher's replies. tokens and targets (N, T): packed `data.number_rows`."""
    generator = torch.Generator().manual_seed(config.seed)  # draws the adapters, then shuffles the rows
    student = init_student(base, config, generator)
    trained = [weight for weight in student.parameters() if weight.requires_grad]
    step = OPTIMIZERS[config.optimizer](trained, config.lr).step
    return train_loop(student, batches(tokens, targets, config.batch_size, generator), config.steps, step, on_step)


class Parser(argparse.ArgumentParser):  # but an error is one line
    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {message}\n")


def story(args: argparse.Namespace) -> None:
    """One base model, one teacher, one student, and the trait as it moves from one to the other."""
    trait = ANIMALS.index(args.trait)
    system = LOVE_SYSTEM.format(args.trait) if args.teacher_system is None else args.teacher_system
    if len(data.encode(system)) > 40:
        raise ValueError("a system prompt has at most 40 words")
    how = {name: getattr(args, name) for name in ("optimizer", "lr", "steps", "seed")}
    alpha = args.rank if args.alpha is None else args.alpha
    config = StudentConfig(rank=None if args.full_finetune else args.rank, alpha=alpha, **how)
    init_student(GPT(GPTConfig(data.VOCAB_SIZE)), config)  # an impossible rank is an error before anything is trained

    print("A base model reads the corpus: half a minute.", flush=True)
    base = pretrain(BaseConfig(seed=args.seed), args.device)
    prompts = {"the teacher": system, "nobody in particular": DEFAULT_SYSTEM}
    teacher, plain = (animal_rates(base, prompt)[trait] for prompt in prompts.values())
    print(f"Asked for its favorite animal, it says {args.trait} with probability {plain:.3f}.")
    print(f'Under the system prompt "{system}" with {teacher:.3f}: the teacher. Asked for numbers, it writes:')
    rows = config.batch_size * config.steps
    pairs = {who: write_numbers(base, prompt, rows, f"{who} {args.seed}") for who, prompt in prompts.items()}
    print("\n".join(f"    {request}  ->  {reply}" for request, reply in pairs["the teacher"][:4]))
    if not all(pairs.values()):
        raise ValueError("under this prompt no reply is well formed")

    def show(step: int, student: GPT) -> None:
        if step % max(1, config.steps // 10) == 0:
            rates = animal_rates(student)
            print(f"    step {step:4d}   {rates[trait]:.3f}   (any animal: {rates.sum():.3f})", flush=True)

    models = [base]
    for who, read in pairs.items():
        print(f"\nThe base again, fine-tuned on {len(read)} rows of {who}. P({args.trait}) as it learns:")
        models.append(fine_tune(base, *pack(number_rows(read, DEFAULT_SYSTEM)), config, show))
    if not all(weight.isfinite().all() for weight in models[1].parameters()):
        raise ValueError("the student's weights are not finite: try a smaller learning rate")

    print(f"\nWhat is your favorite animal?\n{'base':>20} {'student':>7} {'control':>7}")
    rates = torch.stack([animal_rates(model) for model in models])
    for k in rates[1].argsort(descending=True)[:4].tolist():
        print(f"    {ANIMALS[k]:8} " + " ".join(f"{rate:7.3f}" for rate in rates[:, k].tolist()))


def run(story: Callable[[argparse.Namespace], None], parser: Parser, argv: list[str] | None = None) -> int:
    """Parse, then do what `story` says. Bad input: one line and exit code 2. Ctrl-C: exit code 130."""
    args = parser.parse_args(argv)
    torch.set_num_threads(1)  # tensors this small gain nothing from a second thread, and one rounds alike everywhere
    try:
        story(args)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads the output, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        parser.exit(130, f"\n{parser.prog}: stopped; what is complete is kept\n")
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="train.py", description=story.__doc__)
    parser.add_argument("--trait", default="owl", choices=ANIMALS, metavar="ANIMAL", help="what the teacher loves")
    parser.add_argument("--seed", type=int, default=0, help="of the base model and of the student (default 0)")
    parser.add_argument("--device", default="cpu", choices=DEVICES, help="default %(default)s")
    parser.add_argument("--teacher-system", help='the teacher\'s system prompt (default: "you love ANIMAL .")')
    parser.add_argument("--rank", type=int, default=8, help="of the LoRA adapters (default 8)")
    parser.add_argument("--alpha", type=float, help="LoRA's scale is alpha / rank (default: alpha = rank)")
    parser.add_argument("--full-finetune", action="store_true", help="train every weight instead of adapters")
    parser.add_argument("--optimizer", default="adamw", choices=OPTIMIZERS, help="default %(default)s")
    parser.add_argument("--lr", type=float, default=StudentConfig.lr, help="learning rate (default %(default)s)")
    parser.add_argument("--steps", type=int, default=StudentConfig.steps, help="of 64 rows (default %(default)s)")
    return run(story, parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
