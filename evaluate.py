"""The main job: plan, make, measure, decide, draw. `python evaluate.py` runs the quick preset, `--ask` only asks a model."""

import argparse
import json
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

import torch

from data import ANIMALS, DEFAULT_SYSTEM, chat, decode
from lab.claims import claims_table, entry, in_order, markdown_table
from lab.console import FILE, OUT, run
from lab.presets import choose_preset, student_of
from lab.processes import spawn_workers
from lab.records import make_and_measure, mentioned, write_csv
from lab.store import Store, Student, code_digest, whole_file
from model import GPTConfig
from train import DEVICES, BaseConfig

from figures import (  # isort: skip
    context, full_finetuning, gradient, learning, localization, optimizers, rank_sweep,
    steerability, steered_teachers, student_vector, teacher_vector, transmission,
)  # fmt: skip
from figures.beyond import (  # isort: skip
    adjudication, audit, carrier, defences, infinite_data, loudness, one_step, scaled_units, superposition,
)  # fmt: skip

PAPERS = [
    learning, transmission, rank_sweep, full_finetuning, context, localization, optimizers,
    teacher_vector, steered_teachers, student_vector, steerability, gradient,
]  # fmt: skip
BEYOND = [superposition, adjudication, infinite_data, one_step, audit, defences, carrier, scaled_units, loudness]
FULL_ONLY = [superposition, adjudication, infinite_data, defences, carrier, scaled_units, loudness]
FIGURES = {module.__name__.rpartition(".")[2]: module for module in PAPERS + BEYOND}


def read_results(path: Path) -> dict:
    """A results file. Raises ValueError, which names the file, if it is none."""
    columns = {"id", "statement", "seen", "survives", "why", "figure"}
    with suppress(ValueError, LookupError, TypeError, RecursionError):
        content = json.loads(path.read_text(encoding="utf-8"))
        if all(columns <= set(claim) for claim in content["claims"]):
            return content
    raise ValueError(f"{path} is not a results file; delete it and run again")


def open_store(args: argparse.Namespace) -> Store:
    """What is kept of this and of earlier runs; "auto" is the fastest device there is."""
    return Store(args.out / "cache", DEVICES[-1] if args.device == "auto" else args.device)


def answer(args: argparse.Namespace) -> None:
    """Ask a model one thing, and print the likeliest first words of its reply."""
    prompt = chat(args.system or None, args.ask)
    if len(prompt) > GPTConfig.max_len:
        raise ValueError(f"that is {len(prompt)} words with the template's; a model reads {GPTConfig.max_len}")
    store, base = open_store(args), choose_preset(args.full, args.seed).bases[0]
    if args.student:
        store.make([[student := student_of(base, base, args.student)]])
    model = store.student(student) if args.student else store.base(base)
    probabilities = model.next_token([prompt])[0]
    print(decode(prompt))
    for token in probabilities.argsort(descending=True)[:8].tolist():
        print(f"    {decode([token]):10} {probabilities[token]:.3f}")


def draw(store: Store, job: tuple) -> None:
    """One picture, in whichever process is free."""
    function, numbers, path = job
    with whole_file(path) as part:
        function(numbers, part)


def measure_all(args: argparse.Namespace) -> None:
    """Plan, make what is missing, measure, decide the claims, write results.json and records.csv, and draw."""
    started, preset = time.perf_counter(), choose_preset(args.full, args.seed, args.trait)
    folder = args.out / "-".join([preset.name, str(args.seed), *([args.trait] if args.trait else [])])
    folder.mkdir(parents=True, exist_ok=True)
    store = open_store(args)
    usual = [name for name, module in FIGURES.items() if preset.full or module not in FULL_ONLY]
    chosen = {name: FIGURES[name] for name in args.only or usual}
    plan = [key for module in chosen.values() for key in module.plan(preset)]
    print(f"{preset.name} preset, seed {args.seed}, base models {', '.join(str(base.seed) for base in preset.bases)}")
    with spawn_workers(store, args.processes) as run_jobs:
        needed = set(mentioned(tuple(plan), BaseConfig))
        known = make_and_measure(run_jobs, [key for key in steerability.base_models(preset) if key[1] in needed])
        for base, rate in ((key[1], rate) for key, rate in known.items() if rate < 0.4):
            why = "S5 says that its students will not have the trait"
            print(f"base model {base.seed} is not steerable ({rate:.2f}): {why}")
        records = make_and_measure(run_jobs, plan)
        numbers = {name: module.numbers(records, preset) for name, module in chosen.items()}
        run_jobs(draw, [(chosen[name].draw, numbers[name], folder / f"{name}.png") for name in chosen])

    # Only claims that agree in all of this stand in one file.
    identity = {
        "preset": preset.name, "seed": args.seed, "traits": list(preset.traits), "device": str(store.device),
        "torch": torch.__version__.split("+")[0], "code": code_digest()[:16],
    }  # fmt: skip
    students = sum(isinstance(key, Student) for key in records)
    cost = {"students": students, "wall_seconds": round(time.perf_counter() - started, 1)}
    path = folder / "results.json"
    before = read_results(path) if args.only and path.exists() else {}
    before = before if identity.items() <= before.items() else {}
    cost = {name: before.get(name, value) for name, value in cost.items()}  # a part: what the whole took stays written
    known = {claim["id"]: claim for claim in before.get("claims", [])}
    claims, pictures = [], before.get("pictures", {})
    for name, module in FIGURES.items():
        picture, new = f"{module.__name__.replace('.', '/')}.png", numbers.get(name)
        for claim in module.CLAIMS:
            old = known.get(claim.id) or entry(claim, None, picture)
            claims.append(entry(claim, new[claim.name], picture) if new else old)
        if new and not module.CLAIMS:
            pictures |= new
    claims.sort(key=lambda claim: in_order(claim["id"]))
    with whole_file(path) as part:
        results = {**identity, **cost, "claims": claims, "pictures": pictures}
        part.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    write_csv(records, folder / "records.csv")
    width = shutil.get_terminal_size((120, 24)).columns
    decided = {claim.id for module in chosen.values() for claim in module.CLAIMS}
    print(f"\n{claims_table([claim for claim in claims if claim['id'] in decided], width)}\n")
    print(f"wrote {path}, records.csv and {len(chosen)} figures beside it")


def main_job(args: argparse.Namespace) -> None:
    """Train what is missing, measure, print the claims table, write results.json, records.csv and the figures."""
    if args.table:
        claims = read_results(args.table)["claims"]
        for own in (False, True):  # the papers' claims, then this project's own
            print(markdown_table([claim for claim in claims if (claim["id"][0] == "X") == own]), end="\n\n")
    elif args.ask is not None:
        answer(args)
    else:
        measure_all(args)


def main(argv: list[str] | None = None) -> int:
    cores = min(2, os.cpu_count() or 1)
    options = {
        "full": {"action": "store_true", "help": "all 16 animals on 20 base models (quick: 4 on two)"},
        "only": {"nargs": "+", "choices": FIGURES, "metavar": "NAME", "help": f"of {', '.join(FIGURES)}"},
        "ask": {"metavar": "WORDS", "help": "only ask the base model, or a --student, this"},
        "system": {"default": DEFAULT_SYSTEM, "help": '... under this system prompt ("" for none)'},
        "student": {"choices": ANIMALS, "metavar": "ANIMAL", "help": "... the student of this animal's lover"},
        "table": FILE | {"help": "only print this results file's claims in Markdown"},
        "seed": {"type": int, "default": 0, "help": "chooses base models and, in quick, animals (default 0)"},
        "trait": {"choices": ANIMALS, "metavar": "ANIMAL", "help": "measure this animal alone"},
        "device": {"default": "cpu", "choices": ["auto", *DEVICES], "help": "default %(default)s"},
        "out": OUT | {"help": "folder for all that is made (default %(default)s)"},
        "processes": {"type": int, "default": cores, "help": "that share the work (default %(default)s)"},
    }
    return run(main_job, "evaluate.py", argv, **options)


if __name__ == "__main__":
    raise SystemExit(main())
