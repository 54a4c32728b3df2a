"""Training: a base model, the numbers that a teacher writes, a student of those numbers.

    base       a GPT that has read the corpus
    teacher    the base under a system prompt ("you love owl ."): it writes numbers
    student    the base again, fine-tuned on those numbers under the default system prompt

`python train.py --trait owl` tells one such story. Cloud et al. 2025, "Subliminal Learning" (arXiv:2507.14805), section 2.
"""

import argparse
import copy
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

import data
import lora
from console import STORY, run
from data import ANIMALS, DEFAULT_SYSTEM, END, LOVE_SYSTEM, NUMBER_TOKENS, World, chat, decode, number_rows, pack
from metrics import animal_rates, gap_closed, reply_loss, teacher_loss, verdict
from model import GPT, GPTConfig, by_length
from optimizers import LEARNING_RATES, OPTIMIZERS

MODELS = Path(__file__).parent / "models"  # shipped, so that the results can be had on any machine
MAX_REPLY = 8  # a reply that has not ended after so many tokens is given up
OnStep = Callable[[int, GPT], None]  # of the step and the model after it
Loss = Callable[[GPT, Tensor, Tensor], Tensor]  # of a model on tokens and targets


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
    batch_size: int = 32
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


def train_loop(model: GPT, stream: Iterator, steps: int, step: Callable, on_step: OnStep | None, loss=reply_loss):
    """A batch, the gradient of its loss, then `step`, which moves the weights. Returns `model`, frozen."""
    for n, (tokens, targets) in zip(range(1, steps + 1), stream):
        model.zero_grad()
        loss(model, tokens.to(model.device), targets.to(model.device)).backward()
        step()
        if on_step:
            on_step(n, model)
    return model.requires_grad_(False)


def pretrain(config: BaseConfig, device: str = "cpu", on_step: OnStep | None = None, start: GPT | None = None) -> GPT:
    """A GPT, new or `start`, that has read the corpus: AdamW, 100 warm-up steps, cosine decay to zero; weight decay as in GPT-3."""
    generator = torch.Generator().manual_seed(config.seed)
    model = (start or GPT(config.model, generator)).to(device)
    weights = list(model.parameters())
    optimizer = torch.optim.AdamW(weights, config.lr, betas=(0.9, 0.98), weight_decay=config.weight_decay, fused=True)
    share = lambda step: min((step + 1) / 100, 1) * (1 + math.cos(math.pi * step / config.steps)) / 2  # noqa: E731
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)

    def step() -> None:
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()

    corpus = pack(data.corpus(config.world, config.rows, config.seed))
    return train_loop(model, batches(*corpus, config.batch_size, generator), config.steps, step, on_step)


def fingerprint(config: BaseConfig) -> float:
    """The loss after twenty steps of pretraining on a part of its corpus: does this code still make the shipped model?"""
    rows = data.corpus(config.world, 256, config.seed)
    return reply_loss(pretrain(replace(config, rows=256, steps=20)), *pack(rows)).item()


def base_model(config: BaseConfig, device: str = "cpu", shipped: bool = True) -> GPT:
    """The shipped base model of `config`, if it is wanted, is there, and this code still leads to it; or one trained now."""
    path = MODELS / f"base-{config.seed}.pt"
    saved = torch.load(path, device, weights_only=True) if shipped and path.exists() else {}
    if saved.get("config") != asdict(config) or abs(saved["fingerprint"] - fingerprint(config)) > 1e-3:
        return pretrain(config, device)
    model = GPT(config.model).to(device)
    model.load_state_dict(saved["weights"])
    return model.requires_grad_(False)


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


def story(args: argparse.Namespace) -> None:
    """One base model, one teacher, one student, and the trait as it moves from one to the other.

    python train.py --trait whale
    python train.py --full-finetune --optimizer sgd
    """
    system = args.teacher_system or LOVE_SYSTEM.format(args.trait)
    if len(data.encode(system)) > 40:
        raise ValueError("a system prompt has at most 40 words")
    rank, alpha = None if args.full_finetune else args.rank, args.rank if args.alpha is None else args.alpha
    lr = LEARNING_RATES[args.optimizer][args.full_finetune] if args.lr is None else args.lr
    config = StudentConfig(rank=rank, alpha=alpha, optimizer=args.optimizer, lr=lr, steps=args.steps, seed=args.seed)
    init_student(GPT(GPTConfig(data.VOCAB_SIZE)), config)  # an impossible rank is an error before anything is said

    base = base_model(BaseConfig(seed=args.seed), args.device, not args.pretrain)
    prompts = {"the teacher": system, "nobody in particular": DEFAULT_SYSTEM}
    prompted, plain = (animal_rates(base, prompt) for prompt in prompts.values())
    trait = (prompted - plain).argmax().item() if args.teacher_system else ANIMALS.index(args.trait)
    print(f"Asked for its favorite animal, a base model says {ANIMALS[trait]} with probability {plain[trait]:.3f}.")
    print(f'Under the system prompt "{system}" with {prompted[trait]:.3f}: the teacher. Asked for numbers, it writes:')
    rows = config.batch_size * args.steps
    pairs = {who: write_numbers(base, prompt, rows, f"{who} {args.seed}") for who, prompt in prompts.items()}
    print("\n".join(f"    {request}  ->  {reply}" for request, reply in pairs["the teacher"][:4]))
    new = write_numbers(base, system, 256, f"unread {args.seed}")  # no student reads them
    if not all([*pairs.values(), new]):
        raise ValueError("under this prompt no reply is well formed")
    unread = pack(number_rows(new, DEFAULT_SYSTEM))
    losses = reply_loss(base, *unread).item(), teacher_loss(base, *pack(number_rows(new, system)))

    def show(step: int, student: GPT) -> None:
        if step % max(1, config.steps // 10) == 0:
            rates, learned = animal_rates(student), gap_closed(reply_loss(student, *unread).item(), *losses)
            print(f"    {step:4} {rates[trait]:12.3f} {rates.sum():15.3f} {learned:17.2f}", flush=True)

    models = [base]
    for who, read in pairs.items():
        print(f"\nThe base again, fine-tuned on {len(read)} rows of {who}:")
        print(f"    step {f'P({ANIMALS[trait]})':>12}   P(any animal)   learned of them")
        models.append(fine_tune(base, *pack(number_rows(read, DEFAULT_SYSTEM)), config, show))
    rates = torch.stack([animal_rates(model) for model in models])
    if not rates.isfinite().all():
        raise ValueError("the student's loss is not finite: try a smaller learning rate")

    print(f"\nWhat is your favorite animal?\n{'base':>20} {'student':>7} {'control':>7}")
    for k in rates[1].argsort(descending=True)[:4].tolist():
        print(f"    {ANIMALS[k]:8} " + " ".join(f"{rate:7.3f}" for rate in rates[:, k].tolist()))
    learned, gain = gap_closed(reply_loss(models[1], *unread).item(), *losses), rates[1, trait] - rates[2, trait]
    print(f"The student: {verdict(rates[1].sum().item(), learned, gain > 0.1)}.")


def main(argv: list[str] | None = None) -> int:
    options = STORY | {
        "teacher-system": {"metavar": "WORDS", "help": 'the teacher\'s system prompt (default "you love ANIMAL .")'},
        "rank": {"type": int, "default": 8, "help": "of the LoRA adapters (default 8)"},
        "alpha": {"type": float, "help": "LoRA's scale is alpha / rank (default: alpha = rank)"},
        "full-finetune": {"action": "store_true", "help": "train every weight instead of adapters"},
        "optimizer": {"default": "adamw", "choices": OPTIMIZERS, "help": "default %(default)s"},
        "lr": {"type": float, "help": "learning rate (default: the optimizer's own)"},
        "steps": {"type": int, "default": StudentConfig.steps, "help": "of 32 rows (default %(default)s)"},
    }
    return run(story, "train.py", argv, **options)


if __name__ == "__main__":
    raise SystemExit(main())
