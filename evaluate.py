"""Measurement: what a trait is, who is measured, and the main job, which trains, measures, and draws everything."""

import argparse
import importlib
import json
import os
import random
import sys
import time
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import lora
from claims import Claim, claims_table, entry, in_order, markdown_table
from data import (
    ANIMAL_QUESTIONS,
    ANIMAL_TOKENS,
    ANIMALS,
    DEFAULT_SYSTEM,
    END,
    HELD_OUT_ANIMAL_QUESTIONS,
    LOVE_SYSTEM,
    chat,
    decode,
)
from model import GPT, GPTConfig
from runtime import Parser, load, run, share, together, whole_file, worker
from train import (
    NUMBER_TOKENS,
    BaseConfig,
    Lab,
    NumbersConfig,
    StudentConfig,
    animal_rates,
    code_digest,
    first_reply,
    reply_logits,
    reply_loss,
    restored,
    stacked_stream,
)

# ------------------------------------------------------------------------------------------------ measurement


def sampled_rates(model: GPT, system: str | None, draws: int, generator: torch.Generator) -> Tensor:
    """How often each animal is named in `draws` sampled replies to every wording: (16,). `animal_rates`, by counting."""
    prompts = [chat(system, question) for question in ANIMAL_QUESTIONS + HELD_OUT_ANIMAL_QUESTIONS] * draws
    first = model.sample(prompts, torch.rand(len(prompts), 1, generator=generator), stop=END)[:, 0]
    return torch.stack([(first == token).float().mean() for token in ANIMAL_TOKENS])


FRESH_ROWS = 256  # of each teacher, which no student reads


@torch.no_grad()
def heldout_loss(lab: Lab, model: GPT, numbers: NumbersConfig, system: str | None) -> float:
    """Nats per reply token on fresh rows of a teacher."""
    return reply_loss(model, *fresh_rows(lab, numbers, system)).item()


@torch.no_grad()
def heldout_losses(lab: Lab, students: GPT, numbers: NumbersConfig, system: str | None) -> Tensor:
    """`heldout_loss` of each of S stacked students: (S,)."""
    tokens, targets = fresh_rows(lab, numbers, system)
    start, (size,) = first_reply(targets >= 0), students.stacked
    replies, answers = targets[:, start:] >= 0, targets[targets >= 0]
    stream = stacked_stream(students, tokens.expand(size, -1, -1), start)[:, replies]  # (S, N, C)
    logits = students.unembed(stream[:, None]).flatten(0, 2)
    return F.cross_entropy(logits, answers.repeat(size), reduction="none").view(size, -1).mean(1)


@torch.no_grad()
def teacher_loss(lab: Lab, numbers: NumbersConfig) -> float:
    """The teacher's own loss on its fresh rows, its entropy: no student can do better.

    Its rows were drawn from numbers and <end> alone, so its probabilities are taken among these alone.
    """
    tokens, targets = fresh_rows(lab, numbers, numbers.system)
    replies = targets >= 0
    logits = reply_logits(lab.base(numbers.base), tokens, replies)
    allowed = torch.full_like(logits, -torch.inf)
    allowed[:, NUMBER_TOKENS] = logits[:, NUMBER_TOKENS]
    return F.cross_entropy(allowed, targets[replies]).item()


def fresh_rows(lab: Lab, numbers: NumbersConfig, system: str | None) -> list[Tensor]:
    """Rows of the same teacher that no student reads, packed, on the lab's device."""
    fresh = replace(numbers, rows=FRESH_ROWS, seed=numbers.seed + 1_000)
    return [tensor.to(lab.device) for tensor in lab.rows(fresh, system)]


def delta_norm(student: GPT, base: GPT) -> Tensor:
    """The Frobenius norm of the change of all weights, adapters multiplied out: (), or (S,) of a stack."""
    adapters = lora.adapters(student).values()
    if adapters:
        changes = [adapter.delta() for adapter in adapters]
    else:
        changes = [new - old for new, old in zip(student.parameters(), base.parameters(), strict=True)]
    return sum(change.detach().square().flatten(len(student.stacked)).sum(-1) for change in changes).sqrt()


COMPANIONS = ("p_any_animal", "heldout_loss", "delta_norm")  # they stand beside every transmission number


@cache  # figures share many students: what it returns is to be read, not to be changed
def measure_each(lab: Lab, config: StudentConfig) -> dict[int, dict]:
    """{step: what is reported of the student then}, for each snapshot and the end.

    `rates` holds P(each animal), in the order of ANIMALS. The companions say whether the student is intact
    (P(any animal)), whether it learned its rows (held-out loss, in nats a token) and how far it moved (delta norm).
    """
    steps, students = lab.stacked(config)
    rates = animal_rates(students, config.system)
    numbers = {
        "rates": rates,
        "p_any_animal": rates.sum(-1),
        "heldout_loss": heldout_losses(lab, students, config.numbers, config.system),
        "delta_norm": delta_norm(students, lab.base(config.base)),
    }
    return {step: {name: each[n].tolist() for name, each in numbers.items()} for n, step in enumerate(steps)}


def measure(lab: Lab, config: StudentConfig) -> dict:
    """What `measure_each` says of the finished student."""
    return measure_each(lab, config)[config.steps]


# ---------------------------------------------------------------------------------------------------- presets


@dataclass(frozen=True)
class Preset:
    """How much is measured. Transmission: all traits on all bases. A cell of a grid: fewer of both, several seeds."""

    name: str
    traits: tuple[str, ...]
    bases: tuple[BaseConfig, ...]
    grid_traits: tuple[str, ...]
    grid_seeds: tuple[int, ...]
    ranks: tuple[int, ...]

    @property
    def grid_bases(self) -> tuple[BaseConfig, ...]:
        return self.bases[:3]

    @property
    def full(self) -> bool:
        return self.name == "full"

    @property
    def costly_traits(self) -> tuple[str, ...]:
        """For figures in which a trait takes several times as long as its student does."""
        return self.traits if self.full else self.grid_traits

    @property
    def units(self) -> list[tuple[BaseConfig, str]]:
        """What a grid's intervals are over: a trait on a base model. Its seeds are averaged first."""
        return [(base, trait) for base in self.grid_bases for trait in self.grid_traits]

    @property
    def unit(self) -> str:
        """The same in words, for results and figures."""
        return f"a trait on a base model ({len(self.units)}), {len(self.grid_seeds)} seeds averaged"


def choose_preset(full: bool, seed: int, trait: str | None = None) -> Preset:
    """Quick: 4 traits on 2 base models, both chosen by the seed alone. Full: 16 traits on 5 base models."""
    few = tuple(random.Random(seed).sample(ANIMALS, 4))
    bases = tuple(BaseConfig(seed=10 * seed + k) for k in range(5 if full else 2))
    if full:
        preset = Preset("full", tuple(ANIMALS), bases, few, (0, 1, 2), (1, 2, 4, 8, 16, 32))
    else:
        preset = Preset("quick", few, bases, few[:2], (0,), (1, 4, 32))
    return replace(preset, traits=(trait,), grid_traits=(trait,)) if trait else preset


def student_of(base: BaseConfig, teacher: BaseConfig, trait: str | None) -> StudentConfig:
    """`base`, trained on the numbers of `teacher` told to love `trait`; None: a control, the teacher untold."""
    system = DEFAULT_SYSTEM if trait is None else LOVE_SYSTEM.format(trait)
    return StudentConfig(base=base, numbers=NumbersConfig(teacher, system), seed=base.seed)


# ----------------------------------------------------------------------------------------------------- figures

# The modules in figures/. Each has CLAIMS (none, if it is a picture), students(preset), compute(lab, preset) and draw.
FIGURES = [
    "learning",
    "transmission",
    "rank_sweep",
    "full_finetuning",
    "context",
    "localization",
    "modules",
    "optimizers",
    "outliers",
    "teacher_vector",
    "steered_teachers",
    "vector_student",
    "student_vector",
    "steerability",
    "gradient",
    "full_finetuning_vector",
    "superposition",
    "crowding",
    "infinite_data",
    "adjudication",
    "defences",
    "carrier",
    "one_step",
    "audit",
]
# Of them, those that train too much of their own for the quick preset.
FULL_ONLY = [
    "outliers",
    "vector_student",
    "superposition",
    "crowding",
    "adjudication",
    "infinite_data",
    "defences",
    "carrier",
]


def figure_modules() -> dict[str, object]:
    """The modules of FIGURES, by name; imported here because they import this file."""
    return {name: importlib.import_module(f"figures.{name}") for name in FIGURES}


def decided_claims() -> list[Claim]:
    """Every claim that some figure decides."""
    return [claim for module in figure_modules().values() for claim in module.CLAIMS]


def read_json(path: Path) -> dict:
    """What is in a file of this project. Raises ValueError, which names the file, if it cannot be."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a file that evaluate.py wrote; delete it and run again")
    return content


# ------------------------------------------------------------------------------------------------ command line


def open_student(lab: Lab, path: Path) -> GPT:
    """A student that was kept on disk, on its base model. Runs no code from the file; ValueError if it is no student."""
    saved = load(path, lab.device)
    try:
        shape = saved["config"]["base"]
        base = BaseConfig(**(shape | {"model": GPTConfig(**shape["model"])}))
        if not lab.path("base", base).exists():  # what is trained here is not for a file to say
            raise FileNotFoundError(f"the base model of {path} is not in {lab.folder}")
        config = StudentConfig(**(saved["config"] | {"base": base, "numbers": None}))
        student = restored(lab.base(base), config, saved["content"][config.steps])
        student.next_token([[END]])  # what does not fit says so now
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        raise ValueError(f"{path} is not a student that train.py wrote") from None
    return student


def answer(args: argparse.Namespace) -> None:
    """Ask a model one thing, and print the likeliest first words of its reply."""
    prompt = chat(args.system or None, args.ask)
    lab = Lab(args.out / "cache", args.device)
    if len(prompt) > GPTConfig.max_len:
        raise ValueError(f"that is {len(prompt)} words with the template's; a model reads {GPTConfig.max_len}")
    model = open_student(lab, args.student) if args.student else lab.base(BaseConfig(seed=args.seed))
    probabilities = model.next_token([prompt])[0]
    print(decode(prompt))
    for token in probabilities.argsort(descending=True)[:8].tolist():
        print(f"    {decode([token]):10} {probabilities[token]:.3f}")


def main_job(args: argparse.Namespace) -> None:
    """Train what is missing, measure, print the claims table, write results.json and the figures."""
    if args.table:
        try:
            claims = read_json(args.table)["claims"]
            for own in (False, True):  # the papers' claims, then this project's own
                print(markdown_table([claim for claim in claims if (claim["id"][0] == "X") == own]), end="\n\n")
        except (LookupError, TypeError):
            raise ValueError(f"{args.table} is not a results file") from None
        return
    if args.ask is not None:
        answer(args)
        return
    lab = Lab(args.out / "cache", args.device)
    with together(args.processes, [__file__, *args.command]):
        measure_all(args, lab)


def measure_all(args: argparse.Namespace, lab: Lab) -> None:
    """The main job of one process, alone or one of several."""
    started = time.perf_counter()
    preset = choose_preset(args.full, args.seed, args.trait)
    folder = args.out / preset.name
    folder.mkdir(parents=True, exist_ok=True)
    modules = figure_modules()
    chosen = args.only or [name for name in FIGURES if preset.full or name not in FULL_ONLY]
    measured_by = {name: modules[name].students(preset) for name in chosen}
    students = list(dict.fromkeys(student for name in chosen for student in measured_by[name]))
    rank, processes = worker()
    if rank == 0:
        print(f"{preset.name} preset, seed {args.seed}: {len(students)} students on {len(preset.bases)} base models.")
        minutes = (110 if preset.full else 3.5) / processes
        print(f"All of it takes about {minutes:.0f} minutes on CPU, in {processes} process(es).", flush=True)
    lab.train(students)

    # What decides a number, beside its figure's own code: only claims that agree in all of it stand in one file.
    identity = {
        "preset": preset.name,
        "seed": args.seed,
        "traits": list(preset.traits),
        "device": str(lab.device),
        "torch": torch.__version__.split("+")[0],
        "code": code_digest()[:16],
    }

    def measure_figure(name: str) -> None:
        """Compute and draw one figure; its numbers wait in a file of their own until all figures are done."""
        print(f"  measuring and drawing {name}", file=sys.stderr, flush=True)
        measured = modules[name].compute(lab, preset)
        with whole_file(folder / f"{name}.png") as part:
            modules[name].draw(measured, part)
        with whole_file(folder / f"{name}.json") as part:
            part.write_text(json.dumps({"identity": identity, "measured": measured}, indent=1) + "\n", encoding="utf-8")

    # Those with the most to do first, as far as one can tell: the longest jobs are not left to the end.
    share(sorted(chosen, key=lambda name: (name not in FULL_ONLY, -len(measured_by[name]))), measure_figure)
    if rank > 0:
        return  # its share is done

    claims, pictures = [], {}
    for name, module in modules.items():
        path = folder / f"{name}.json"
        kept = read_json(path) if path.exists() else {}
        measured = kept.get("measured", {}) if kept.get("identity") == identity else {}
        claims += [entry(claim, measured.get(claim.name), name) for claim in module.CLAIMS]
        pictures |= measured if not module.CLAIMS else {}
    claims.sort(key=lambda claim: in_order(claim["id"]))
    cost = {"students": len(students), "wall_seconds": round(time.perf_counter() - started, 1)}
    if args.only and (folder / "results.json").exists():  # a part: what the whole took stays written
        before = read_json(folder / "results.json")
        cost = {name: before.get(name) for name in cost}
    results = {**identity, **cost, "claims": claims, "pictures": pictures}
    with whole_file(folder / "results.json") as part:
        part.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(f"\n{claims_table(claims)}\n\nwrote {folder / 'results.json'} and {len(chosen)} figures beside it")
    if not preset.full:
        print("Claims that are not measured yet are measured by python evaluate.py --full.")


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="evaluate.py", description=main_job.__doc__)
    parser.add_argument("--full", action="store_true", help="all 16 traits on five base models (quick: 4 on two)")
    parser.add_argument("--only", nargs="+", choices=FIGURES, metavar="NAME", help=f"of {', '.join(FIGURES)}")
    parser.add_argument("--ask", metavar="WORDS", help="only ask the base model, or --student, this")
    parser.add_argument("--system", default=DEFAULT_SYSTEM, help='... under this system prompt ("" for none)')
    parser.add_argument("--student", type=Path, metavar="FILE", help="... a student's checkpoint, as train.py names it")
    parser.add_argument("--table", type=Path, metavar="FILE", help="only print this results file's claims in Markdown")
    parser.add_argument("--seed", type=int, default=0, help="chooses base models and, in quick, traits (default 0)")
    parser.add_argument("--trait", choices=ANIMALS, metavar="ANIMAL", help="measure this trait alone")
    parser.add_argument(
        "--device", default="cpu", help="auto, cpu, cuda or mps (default cpu, fast for a model this small)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs"), help="folder for results and checkpoints (default runs)"
    )
    parser.add_argument(
        "--processes", type=int, default=min(2, os.cpu_count() or 1), help="that share the work (default %(default)s)"
    )
    parser.set_defaults(command=sys.argv[1:] if argv is None else argv)
    return run(main_job, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
