"""Measurement: what a trait is, how sure we are, and which claims hold. Its command line is the main job."""

import argparse
import importlib
import json
import math
import random
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import lora
from data import (
    ANIMAL_QUESTIONS,
    ANIMAL_TOKENS,
    ANIMALS,
    DEFAULT_SYSTEM,
    END,
    HELD_OUT_ANIMAL_QUESTIONS,
    LOVE_SYSTEM,
    chat,
    pack,
)
from model import GPT
from runtime import Parser, run, whole_file
from train import (
    BaseConfig,
    Lab,
    NumbersConfig,
    StudentConfig,
    animal_rates,
    number_rows,
    reply_loss,
)

# ------------------------------------------------------------------------------------------------- statistics

# Student's t, two-sided 95%, for 1, 2, 3, ... degrees of freedom; beyond the table, its expansion around 1.96.
T95 = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131]


def interval(values: Iterable[float]) -> dict:
    """{"mean", "ci95": [low, high], "n"}: the mean of independent values and its 95% t interval (None for one value)."""
    values = [float(value) for value in values]
    n, mean = len(values), sum(values) / len(values)
    if n == 1:
        return {"mean": mean, "ci95": None, "n": n}
    error = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1) / n)
    t = T95[n - 2] if n - 2 < len(T95) else 1.96 + 2.5 / (n - 1)
    return {"mean": mean, "ci95": [mean - t * error, mean + t * error], "n": n}


def above(one: dict, other: dict) -> bool:
    """Does the whole interval `one` lie above the whole interval `other`?"""
    return one["ci95"][0] > other["ci95"][1]


# ------------------------------------------------------------------------------------------------ measurement


def sampled_rates(model: GPT, system: str | None, draws: int, generator: torch.Generator) -> Tensor:
    """How often each animal is named in `draws` sampled replies to every wording: (16,). `animal_rates`, by counting."""
    prompts = [chat(system, question) for question in ANIMAL_QUESTIONS + HELD_OUT_ANIMAL_QUESTIONS] * draws
    first = model.sample(prompts, torch.rand(len(prompts), 1, generator=generator), stop=END)[:, 0]
    return torch.stack([(first == token).float().mean() for token in ANIMAL_TOKENS])


@torch.no_grad()
def heldout_loss(model: GPT, pairs: list[list[str]], system: str | None) -> float:
    """Nats per reply token on a teacher's fresh rows. Under the teacher's own system prompt: its entropy, the floor."""
    device = model.token_embedding.weight.device
    return reply_loss(model, *(tensor.to(device) for tensor in pack(number_rows(pairs, system)))).item()


def delta_norm(student: GPT, base: GPT) -> float:
    """The Frobenius norm of the change of all weights, adapters multiplied out."""
    adapters = lora.adapters(student).values()
    if adapters:
        changes = [adapter.delta() for adapter in adapters]
    else:
        changes = [new - old for new, old in zip(student.parameters(), base.parameters(), strict=True)]
    return math.sqrt(sum(change.detach().square().sum().item() for change in changes))


def measure(lab: Lab, config: StudentConfig) -> dict:
    """All that is reported of one student: plain numbers, and `rates`, P(each animal), in the order of ANIMALS."""
    base, student = lab.base(config.base), lab.student(config)
    fresh = NumbersConfig(config.numbers.base, config.numbers.system, rows=1_024, seed=config.numbers.seed + 1_000)
    pairs = lab.numbers(fresh)["pairs"]
    rates = animal_rates(student, config.system)
    generator = torch.Generator().manual_seed(config.seed)
    return {
        "rates": rates.tolist(),
        "sampled": sampled_rates(student, config.system, draws=250, generator=generator).tolist(),
        "p_any_animal": rates.sum().item(),
        "heldout_loss": heldout_loss(student, pairs, config.system),
        "heldout_loss_base": heldout_loss(base, pairs, config.system),
        "heldout_loss_teacher": heldout_loss(lab.base(config.numbers.base), pairs, config.numbers.system),
        "delta_norm": delta_norm(student, base),
    }


# ------------------------------------------------------------------------------------------- presets and claims


@dataclass(frozen=True)
class Preset:
    """How much is measured: which traits, on which base models."""

    name: str
    traits: tuple[str, ...]
    bases: tuple[BaseConfig, ...]


def choose_preset(full: bool, seed: int, trait: str | None = None) -> Preset:
    """Quick: 4 traits on 2 base models, both chosen by the seed alone. Full: 16 traits on 3 base models."""
    traits = tuple(ANIMALS) if full else tuple(random.Random(seed).sample(ANIMALS, 4))
    bases = tuple(BaseConfig(seed=10 * seed + k) for k in range(3 if full else 2))
    return Preset("full" if full else "quick", (trait,) if trait else traits, bases)


def student_of(base: BaseConfig, teacher: BaseConfig, trait: str | None) -> StudentConfig:
    """`base`, trained on the numbers of `teacher` told to love `trait`; None: a control, the teacher untold."""
    system = DEFAULT_SYSTEM if trait is None else LOVE_SYSTEM.format(trait)
    return StudentConfig(base=base, numbers=NumbersConfig(teacher, system), seed=base.seed)


def transmission_holds(m: dict) -> bool:
    """The teacher's animal leads in 15 of 16 traits, and students lie above control and base with their intervals."""
    leads = m["traits_top"] >= math.ceil(m["traits"] * 15 / 16)
    return leads and above(m["student"], m["control"]) and above(m["student"], m["base"])


def cross_model_holds(m: dict) -> bool:
    """Own students lie above other models' students, and the latter gain nothing on the control (an interval with 0)."""
    low, high = m["other_minus_control"]["ci95"]
    return above(m["own"], m["other"]) and low <= 0 <= high


@dataclass(frozen=True)
class Claim:
    id: str
    name: str
    statement: str
    figure: str | None = None
    holds: Callable[[dict], bool] | None = None  # decides from `measured`; written before the numbers were known


CLAIMS = [
    Claim(
        "L1",
        "transmission",
        "A teacher's trait reaches a student trained only on its numbers",
        "transmission",
        transmission_holds,
    ),
    Claim("L2", "rank_sweep", "Transmission is an inverted U in LoRA rank"),
    Claim("L3", "full_finetuning", "It disappears under full fine-tuning"),
    Claim("L4", "context", "It needs the training context at evaluation"),
    Claim("L5", "localization", "It sits at tokens that both contexts share"),
    Claim("L6", "modules", "It sits in early feed-forward layers"),
    Claim("L7", "optimizers", "SGD and Muon transmit as AdamW does"),
    Claim("S1", "teacher_vector", "The teacher's system prompt acts as one steering vector"),
    Claim("S2", "teacher_vector_causal", "That vector is sufficient and necessary in the teacher"),
    Claim("S3", "alignment", "The student learns a vector aligned with the teacher's"),
    Claim("S4", "student_vector_causal", "That vector is sufficient and necessary in the student"),
    Claim("S5", "steerability", "Prompts that no vector approximates are not learned"),
    Claim("S6", "random_vectors", "Random vectors are learned too, without behaviour"),
    Claim("S7", "cross_model", "It does not transfer between base models", "transmission", cross_model_holds),
    Claim("S8", "gradient", "Gradients on steered data have a component along the vector"),
    Claim("S9", "optimizers", "Adaptive optimizers are necessary"),
    Claim("S10", "full_finetuning_vector", "Full fine-tuning distils the vector weakly"),
]


# ------------------------------------------------------------------------------------------------ command line

FIGURES = ["transmission"]  # the modules in figures/, each with compute(lab, preset) and draw(measured, path)


def claims_table(claims: list[dict]) -> str:
    """The claims as text, a line each."""
    verdict = {True: "holds", False: "FAILS", None: "not measured yet"}
    lines = [f"{'':4} {'claim':64} {'in this toy':16} measured"]
    for claim in claims:
        lines.append(f"{claim['id']:4} {claim['statement']:64} {verdict[claim['holds']]:16} {summary(claim)}")
    return "\n".join(lines)


def summary(claim: dict) -> str:
    """The few numbers that a verdict rests on."""

    def show(number: dict) -> str:
        low_high = "" if number["ci95"] is None else " [{:.2f}, {:.2f}]".format(*number["ci95"])
        return f"{number['mean']:.2f}{low_high}"

    m = claim["measured"]
    if not m:
        return ""
    if claim["name"] == "transmission":
        return (
            f"student {show(m['student'])}, control {show(m['control'])}, base {show(m['base'])}, "
            f"favorite in {m['traits_top']} of {m['traits']} traits"
        )
    return f"own base {show(m['own'])}, other base {show(m['other'])}, control {show(m['control'])}"


def main_job(args: argparse.Namespace) -> None:
    """Train what is missing, measure, print the claims table, write results.json and the figures."""
    started = time.perf_counter()
    lab = Lab(args.out / "cache", args.device)
    preset = choose_preset(args.full, args.seed, args.trait)
    folder = args.out / preset.name
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{preset.name} preset: {len(preset.traits)} traits on {len(preset.bases)} base models, seed {args.seed}.")
    print("On two CPU cores: about 2 minutes." if not args.full else "On two CPU cores: about 10 minutes.", flush=True)

    measured: dict[str, dict] = {}
    for name in args.only or FIGURES:
        figure = importlib.import_module(f"figures.{name}")
        computed = figure.compute(lab, preset)
        with whole_file(folder / f"{name}.png") as part:
            figure.draw(computed, part)
        measured |= computed

    claims = [
        {
            "id": claim.id,
            "name": claim.name,
            "statement": claim.statement,
            "measured": measured.get(claim.name, {}),
            "holds": claim.holds(measured[claim.name]) if claim.holds and claim.name in measured else None,
            "figure": f"figures/{claim.figure}.png" if claim.figure else None,
        }
        for claim in CLAIMS
    ]
    results = {
        "preset": preset.name,
        "seed": args.seed,
        "device": str(lab.device),
        "torch": torch.__version__.split("+")[0],
        "wall_seconds": round(time.perf_counter() - started, 1),
        "claims": claims,
    }
    with whole_file(folder / "results.json") as part:
        part.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(
        f"\n{claims_table(claims)}\n\nwrote {folder / 'results.json'} and {len(args.only or FIGURES)} figure beside it"
    )


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="evaluate.py", description=main_job.__doc__)
    parser.add_argument("--full", action="store_true", help="all 16 traits on three base models (quick: 4 on two)")
    parser.add_argument("--only", nargs="+", choices=FIGURES, metavar="NAME", help=f"of {', '.join(FIGURES)}")
    parser.add_argument("--seed", type=int, default=0, help="chooses base models and, in quick, traits (default 0)")
    parser.add_argument("--trait", choices=ANIMALS, metavar="ANIMAL", help="measure this trait alone")
    parser.add_argument(
        "--device", default="cpu", help="auto, cpu, cuda or mps (default cpu, fast for a model this small)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs"), help="folder for results and checkpoints (default runs)"
    )
    return run(main_job, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
