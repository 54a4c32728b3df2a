"""The main job: plan, make, measure, decide, draw. `python evaluate.py` runs the quick preset, `--ask` only asks a model."""

import argparse
import difflib
import json
import re
import shutil
import textwrap
import time
from contextlib import suppress
from pathlib import Path

import torch

from console import ANIMAL, DEVICES, FILE, OUT, PRETRAIN, PROCESSES, run, write_json
from data import DEFAULT_SYSTEM, END, LOVE_SYSTEM, VOCAB_SIZE, chat, decode
from lab.claims import claims_table, entry, in_order, markdown_table
from lab.presets import choose_preset, student_of
from lab.processes import spawn_workers
from lab.records import make_and_measure, mentioned, write_csv
from lab.store import Store, Student, code_digest, whole_file
from model import GPTConfig
from train import BaseConfig

from figures import (  # isort: skip
    context, dials, full_finetuning, gradient, learning, localization, optimizers, rank_sweep,
    steerability, steered_teachers, student_vector, teacher_vector, transmission,
)  # fmt: skip
from figures.beyond import (  # isort: skip
    adjudication, audit, carrier, defences, family, infinite_data, loudness, one_step, scaled_units, superposition,
)  # fmt: skip

PAPERS = [
    learning, transmission, rank_sweep, full_finetuning, context, localization, optimizers,
    teacher_vector, steered_teachers, student_vector, steerability, gradient,
]  # fmt: skip
BEYOND = [
    superposition, adjudication, infinite_data, one_step, audit, defences, carrier, scaled_units, loudness, family,
]  # fmt: skip
WORDS = [decode([token]) for token in range(VOCAB_SIZE)]
FIGURES = {module.__name__.rpartition(".")[2]: module for module in PAPERS + BEYOND}


def read_results(path: Path) -> dict:
    """A results file. Raises ValueError, which names the file, if it is none."""
    columns = {"id", "statement", "seen", "survives", "why", "figure"}
    with suppress(ValueError, LookupError, TypeError, RecursionError):
        content = json.loads(path.read_text(encoding="utf-8"))
        if all(columns <= set(claim) for claim in content["claims"]) and isinstance(content["dials"], list):
            return content
    raise ValueError(f"{path} is not a results file; delete it and run again")


def open_store(args: argparse.Namespace) -> Store:
    """What is kept of this and of earlier runs like it; "auto" is the fastest device there is."""
    args.device = DEVICES[-1] if args.device == "auto" else args.device
    return Store(args.out / folder_name("cache", args), args.device, shipped=not args.pretrain)


def folder_name(name: str, args: argparse.Namespace) -> str:
    """Models that are trained here, or on another device, are other models, and so are their results."""
    marks = [*(["pretrained"] if args.pretrain else []), *([args.device] if args.device != "cpu" else [])]
    return "-".join([name, *marks])


def words_of(text: str) -> str:
    """Punctuation stands alone, as in the corpus. ValueError for a word that is not in the world, with those that are like it."""
    for word in (found := re.findall(r"\w+|[^\w\s]", text)):
        if word not in WORDS:
            near = difflib.get_close_matches(word, WORDS, cutoff=0.7)
            raise ValueError(f"{word!r} is no word of this world" + f"; near it: {', '.join(near)}" * bool(near))
    return " ".join(found)


def answer(args: argparse.Namespace) -> None:
    """Ask the base model one thing, and with --student also its teacher and the student: a reply that is drawn, likely first words."""
    request, system = words_of(args.ask), words_of(args.system) or None
    if (words := len(chat(system, request))) + 12 > (most := GPTConfig.max_len):
        raise ValueError(f"that is {words} words with the template's; a model reads {most}, 12 of its own among them")
    store, base = open_store(args), choose_preset(args.full, args.seed).bases[0]
    asked = {"base": (store.base(base), system)}
    if args.student:
        store.make([[student := student_of(base, base, args.student)]])
        asked["teacher"] = store.base(base), LOVE_SYSTEM.format(args.student)
        asked["student"] = store.student(student), system
    first, uniforms = [], torch.rand(1, 12, generator=torch.Generator().manual_seed(args.seed))
    for name, (model, prompt) in asked.items():
        tokens = chat(prompt, request)
        drawn = model.generate(torch.tensor([tokens], device=model.device), uniforms, END)[0].tolist()
        print(f"{name}: {decode(tokens)} {decode(drawn).partition('<end>')[0]}")
        first.append(model.next_token([tokens])[0])
    print(f"\n{'first word':12}" + " ".join(f"{name:>8}" for name in asked))
    for token in torch.stack(first).amax(0).argsort(descending=True)[:8].tolist():
        print(f"{decode([token]):12}" + " ".join(f"{p[token]:8.3f}" for p in first))


def draw(store: Store, job: tuple) -> None:
    """One picture, in whichever process is free."""
    function, numbers, path = job
    with whole_file(path) as part:
        function(numbers, part)


def decide(known: dict[str, dict]) -> dict[str, object]:
    """Claims and dials, from what is measured of each claim's or picture's name."""
    pictured = [(claim, module.__name__.replace(".", "/")) for module in FIGURES.values() for claim in module.CLAIMS]
    claims = [entry(claim, known.get(claim.name), f"{picture}.png") for claim, picture in pictured]
    claims.sort(key=lambda claim: in_order(claim["id"]))
    pictures = {name: known[name] for name in known if name not in {claim["name"] for claim in claims}}
    return {"claims": claims, "dials": dials.turned(known), "pictures": pictures}


def measure_all(args: argparse.Namespace) -> None:
    """Plan, make what is missing, measure, decide the claims, write results.json and records.csv, and draw."""
    started, preset = time.perf_counter(), choose_preset(args.full, args.seed, args.trait)
    store, name = open_store(args), "-".join([preset.name, str(args.seed), *([args.trait] if args.trait else [])])
    folder = args.out / folder_name(name, args)
    folder.mkdir(parents=True, exist_ok=True)
    usual = [name for name, module in FIGURES.items() if preset.full or module in PAPERS]
    chosen = {name: FIGURES[name] for name in args.only or usual}
    plan = [module.plan(preset) for module in chosen.values()]
    print(f"{preset.name} preset, seed {args.seed}, base models {', '.join(str(base.seed) for base in preset.bases)}")
    with spawn_workers(store, args.processes) as run_jobs:
        needed = set(mentioned(plan, BaseConfig))
        steered = [(steerability.steered_rate, base, preset.traits) for base in preset.bases if base in needed]
        for (_, base, _), rate in make_and_measure(run_jobs, steered).items():
            if rate < 0.4:
                why = "S5 says that its students will not have the trait"
                print(f"base model {base.seed} is not steerable ({rate:.2f}): {why}")
        records = make_and_measure(run_jobs, plan)
        numbers = {name: module.numbers(records, preset) for name, module in chosen.items()}
        of = {n: {n: module.draw, **getattr(module, "MORE", {})} for n, module in chosen.items()}
        drawn = {picture: (how, numbers[name]) for name, each in of.items() for picture, how in each.items()}
        run_jobs(draw, [(*how, folder / f"{picture}.png") for picture, how in drawn.items()])

    # Only claims that agree in all of this stand in one file.
    identity = {
        "shipped": store.shipped, "preset": preset.name, "seed": args.seed, "traits": list(preset.traits), "device": str(store.device),
        "torch": torch.__version__.split("+")[0], "code": code_digest()[:16],
    }  # fmt: skip
    students = sum(isinstance(key, Student) for key in records)
    cost = {"students": students, "wall_seconds": round(time.perf_counter() - started, 1)}
    path = folder / "results.json"
    before = read_results(path) if args.only and path.exists() else {}
    before = before if identity.items() <= before.items() else {}
    cost = {name: before.get(name, value) for name, value in cost.items()}  # a part: what the whole took stays written
    old = {claim["name"]: claim["measured"] for claim in before.get("claims", [])} | before.get("pictures", {})
    new = {name: measured for found in numbers.values() for name, measured in found.items()}
    try:
        decided = decide(old | new)
    except LookupError:  # the old numbers are those of other figures' code
        decided = decide(new)
    claims = decided["claims"]
    with whole_file(path) as part:
        write_json(identity | cost | decided, part)
    write_csv(records, folder / "records.csv")
    width = shutil.get_terminal_size((120, 24)).columns
    asked = {claim.id for module in chosen.values() for claim in module.CLAIMS}
    print(f"\n{claims_table([claim for claim in claims if claim['id'] in asked], width)}\n")
    print(f"wrote {path}, records.csv and, beside them, {', '.join(f'{name}.png' for name in drawn)}")


def main_job(args: argparse.Namespace) -> None:
    """Train what is missing, measure, print the claims table, write results.json, records.csv and the figures.

    python evaluate.py --only rank_sweep
    python evaluate.py --ask "which animal do you love?" --student owl
    """
    if args.table:
        results = read_results(args.table)
        for own in (False, True):  # the papers' claims, then this project's own
            print(markdown_table([c for c in results["claims"] if (c["id"][0] == "X") == own]), end="\n\n")
        print(dials.markdown(results["dials"]))
    elif args.words:
        print(textwrap.fill(" ".join(WORDS), shutil.get_terminal_size().columns))
    elif args.ask is not None:
        answer(args)
    else:
        measure_all(args)


def main(argv: list[str] | None = None) -> int:
    options = {
        "full": {"action": "store_true", "help": "all 16 animals on 20 base models (quick: 4 on two)"},
        "only": {"nargs": "+", "choices": FIGURES, "metavar": "NAME", "help": f"of {', '.join(FIGURES)}"},
        "ask": {"metavar": "WORDS", "help": "only ask the base model this, and a --student and its teacher"},
        "words": {"action": "store_true", "help": "only list the words of this world"},
        "system": {"default": DEFAULT_SYSTEM, "help": '... under this system prompt ("" for none)'},
        "student": ANIMAL | {"help": "... the student of this animal's lover"},
        "table": FILE | {"help": "only print this results file's claims in Markdown"},
        "seed": {"type": int, "default": 0, "help": "chooses base models and, in quick, animals (default 0)"},
        "trait": ANIMAL | {"help": "measure this animal alone"},
        "pretrain": PRETRAIN,
        "device": {"default": "cpu", "choices": ["auto", *DEVICES], "help": "default %(default)s"},
        "out": OUT | {"help": "folder for all that is made (default %(default)s)"},
        "processes": PROCESSES,
    }
    return run(main_job, "evaluate.py", argv, **options)


if __name__ == "__main__":
    raise SystemExit(main())
