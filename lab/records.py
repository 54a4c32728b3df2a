"""From a plan to records: make what is missing, then measure it. Measuring never trains.

A plan is students and named measurements, in lists and dictionaries. Records hold what is known of each: its row, and what
function(store, *arguments) says.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import is_dataclass
from functools import lru_cache
from itertools import chain, product
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from console import progress
from data import ANIMAL_TOKENS, ANIMALS, DEFAULT_SYSTEM, STORIES, STORY_REQUESTS, chat, encode, number_conversations
from lab import changes
from lab.presets import Measurement, Records
from lab.processes import RunJobs
from lab.stacked import stack
from lab.store import NumbersConfig, Store, Student, config_id, fresh, in_passes, whole_file
from metrics import animal_rates, gap_closed, reply_loss, teacher_loss, weight_changes
from model import GPT
from steering import REPLY, mean_difference, stream_at, teacher_vector
from train import BaseConfig

READ = number_conversations(DEFAULT_SYSTEM, 128, "to extract", REPLY)  # where v_teacher and v_student are read


def mentioned(thing: object, kind: type) -> Iterator:
    """Every config of `kind` in a plan, also inside arguments and other configs."""
    if isinstance(thing, kind):
        yield thing
    for part in vars(thing).values() if is_dataclass(thing) else parts(thing):
        yield from mentioned(part, kind)


def parts(thing: object) -> Iterable:
    """What a list, a tuple or a dictionary holds; of other things, nothing."""
    return thing.values() if isinstance(thing, dict) else thing if isinstance(thing, list | tuple) else ()


def wanted(plan: list | dict) -> Iterator[Student | Measurement]:
    """What a plan asks for, in whatever lists and dictionaries it stands."""
    for part in parts(plan):
        yield from wanted(part) if isinstance(part, list | dict) else [part]


def make_one(store: Store, job: tuple) -> None:
    """Call a method of the store, by its name. What it makes stays in the store: nothing is sent to another process."""
    getattr(store, job[0])(job[1])


def measure_one(store: Store, measurement: Measurement) -> object:
    return measurement[0](store, *measurement[1:])


def make_and_measure(run_jobs: RunJobs, plan: list | dict) -> Records:
    """What is known of everything in the plan. What has to be made for it is kept in the store, and not made again."""
    plan = dict.fromkeys(wanted(plan))  # a set, in order
    kinds = BaseConfig, NumbersConfig, Student
    bases, numbers, students = (dict.fromkeys(mentioned(tuple(plan), kind)) for kind in kinds)
    # Students of changed rows or losses may need others: they come second.
    plain, changed = ([s for s in students if bool(s.rows_change or s.loss) is which] for which in (False, True))
    stages = {
        "base models": ("base", bases),
        "teachers' numbers": ("numbers", dict.fromkeys([*numbers, *map(fresh, numbers)])),
        "passes of students": ("make", in_passes(plain)),
        "passes of students of changed rows or losses": ("make", in_passes(changed)),
    }
    for what, (method, configs) in stages.items():
        if configs:
            with progress(f"{len(configs)} {what}"):
                run_jobs(make_one, [(method, config) for config in configs])
    with progress("measuring"):
        moments = [moment for runs in in_passes(list(students)) for moment in zip(*runs)]
        groups = [group for moment in moments if (group := [config for config in moment if config in plan])]
        rows = dict(zip(chain(*groups), chain(*run_jobs(measure_students, groups)), strict=True))
        named = [key for key in plan if isinstance(key, tuple)]
        return rows | dict(zip(named, run_jobs(measure_one, named), strict=True))


def trait_of(numbers: NumbersConfig) -> str:
    """The animal that a teacher's system prompt names, or whom a name in it loves; "" for a control."""
    loves = {name: love for love, name in numbers.base.world.lover_name.items()}
    words = [loves.get(word, word) for word in (numbers.system or "").split()]
    return next((word for word in words if word in ANIMALS), "")


def story_rates(model: GPT, system: str | None = DEFAULT_SYSTEM) -> Tensor:
    """P(a story that is asked for is about each animal), averaged over all wordings of the request: (16,)."""
    total = 0.0
    for request, story in product(STORY_REQUESTS, STORIES):
        prompt, words = chat(system, request), encode(story.partition(" {0}")[0])  # the words before the animal
        steps = model.next_token([prompt + words[:k] for k in range(len(words) + 1)])
        written = steps[..., range(len(words)), words].prod(-1, keepdim=True)
        total += written * steps[..., -1, ANIMAL_TOKENS]
    return total / len(STORY_REQUESTS)


@lru_cache(maxsize=64)
def base_stream(store: Store, base: BaseConfig, change: str) -> Tensor:
    """The stream that v_student is counted from: see `stream_at`."""
    return stream_at(store.base(base, change), READ, REPLY + 1)


def vector_of(store: Store, student: GPT, base: BaseConfig) -> Tensor:
    """`steering.student_vector`, for which the base model is read once: (L + 1, C), of a stack (S, L + 1, C)."""
    return mean_difference(stream_at(student, READ, REPLY + 1), base_stream(store, base, ""))


@lru_cache(maxsize=256)
def known_of_base(store: Store, numbers: NumbersConfig, base: BaseConfig, change: str, system: str | None) -> dict:
    """What a student is compared with: its base's answers, its teacher's vector, the held-out loss of both."""
    model, teacher = store.base(base, change), store.base(numbers.base)
    teacher_system, steered = changes.teacher(teacher, numbers.system, numbers.change)
    rows = store.fresh_rows(numbers, teacher_system)
    with steered:
        floor = teacher_loss(teacher, *rows)
    loss = reply_loss(model, *store.fresh_rows(numbers, system)).item()
    vector = teacher_vector(model, numbers.system)[-1] if trait_of(numbers) else None
    known = {"rates": animal_rates(model, system), "stories": story_rates(model, system), "vector": vector}
    return known | {"losses": {"heldout_loss_base": loss, "heldout_loss_teacher": floor}}


@torch.no_grad()
def measure_students(store: Store, group: Sequence[Student]) -> list[dict]:
    """A row of records.csv for each of some students that one pass could train; measured as one stack where that is quicker.
    A control has no trait: its columns of the trait are None."""
    students, system = [store.student(config) for config in group], group[0].system
    stacked, bases = stack(students), stack([store.base(config.base, config.base_change) for config in group])
    rates, stories = animal_rates(stacked, system), story_rates(stacked, system)
    norms = torch.stack([w.square().flatten(1).sum(1) for w in weight_changes(stacked, bases)]).sum(0).sqrt()
    before = torch.stack([base_stream(store, config.base, config.base_change) for config in group])
    moved = mean_difference(stream_at(stacked, READ, REPLY + 1), before)[:, -1]
    rows = []
    for n, (config, student) in enumerate(zip(group, students, strict=True)):
        known = known_of_base(store, config.numbers, config.base, config.base_change, system)
        trait = trait_of(config.numbers)
        loss = reply_loss(student, *store.fresh_rows(config.numbers, system)).item()
        of_trait = {"p_trait": rates[n], "p_trait_base": known["rates"]}
        of_trait |= {"p_trait_story": stories[n], "p_trait_story_base": known["stories"]}
        base, numbers = config.base, config.numbers
        row = {
            "id": config_id(config), "base": base.seed, "teacher_base": numbers.base.seed, "trait": trait, "seed": config.seed,
            "rank": "full" if config.rank is None else config.rank, "alpha": config.alpha, "optimizer": config.optimizer,
            "lr": config.lr, "step": config.steps, "rows": numbers.rows, "system": config.system or "",
            "layers": " ".join(config.layers or ()), "teacher_system": numbers.system or "", "teacher_change": numbers.change,
            "numbers_seed": numbers.seed, "rows_change": config.rows_change, "base_change": config.base_change,
            "loss": config.loss, "world": base.world_seed, "faithful": base.faithful, "d_model": base.model.d_model, "d_head": base.model.d_head,
        }  # fmt: skip
        row |= {name: each[ANIMALS.index(trait)].item() if trait else None for name, each in of_trait.items()}
        row |= {"favorite": ANIMALS[rates[n].nan_to_num(0).argmax()], "p_any_animal": rates[n].sum().item()}
        row |= {"heldout_loss": loss, **known["losses"], "gap_closed": gap_closed(loss, *known["losses"].values())}
        row |= {"delta_norm": norms[n].item()}
        row |= {"cosine": F.cosine_similarity(moved[n], known["vector"], dim=0).item() if trait else None}
        rows.append(row | {f"p_{animal}": rate for animal, rate in zip(ANIMALS, rates[n].tolist(), strict=True)})
    return rows


def write_csv(records: Records, path: Path) -> None:
    """The students' rows, to four digits, in a table for spreadsheets and pandas. Rows that the file has already stay, or are replaced."""
    measured = [row for key, row in records.items() if isinstance(key, Student)]
    rows = {row["id"]: {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()} for row in measured}
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            rows = {row["id"]: row for row in csv.DictReader(file)} | rows
    if rows:
        with whole_file(path) as part, part.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=dict.fromkeys(name for row in rows.values() for name in row))
            writer.writeheader()
            writer.writerows(rows.values())


def log_odds(rate: float) -> float:
    """log(p / (1 - p)), finite also where a rate was rounded to 0 or 1."""
    return torch.tensor(rate).double().logit(eps=1e-9).item()
