"""From a plan to records: make what is missing, then measure it. Measuring never trains.

A plan is a list of what is to be known: students, and named measurements (function, *arguments). Records hold what is known of each:
a student's row, and what function(store, *arguments) returned.
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from data import ANIMALS, DEFAULT_SYSTEM, number_conversations
from lab import changes
from lab.claims import interval, mean
from lab.console import Progress
from lab.presets import Cell, Preset
from lab.processes import RunJobs
from lab.stacked import stack
from lab.store import NumbersConfig, Store, Student, config_id, fresh, in_passes, whole_file
from metrics import animal_rates, gap_closed, reply_loss, teacher_loss, weight_changes
from steering import REPLY, mean_difference, stream_at, teacher_vector
from train import BaseConfig

Measurement = tuple  # (function, *arguments): a function of a module, hashable arguments
Records = dict[Student | Measurement, object]
READ = number_conversations(DEFAULT_SYSTEM, 128, "to extract", REPLY)  # where v_teacher and v_student are read
COMPANIONS = ("p_any_animal", "heldout_loss", "delta_norm")  # they stand beside every P(trait)

# --------------------------------------------------------------------------------------------- making and measuring


def mentioned(thing: object, kind: type) -> Iterator:
    """Every config of `kind` in a key of a plan, also inside its arguments and its configs."""
    if isinstance(thing, kind):
        yield thing
    if isinstance(thing, tuple):
        for part in thing:
            yield from mentioned(part, kind)
    elif is_dataclass(thing) and not isinstance(thing, type):
        for field in fields(thing):
            yield from mentioned(getattr(thing, field.name), kind)


def make_base(store: Store, config: BaseConfig) -> None:
    store.base(config)


def make_numbers(store: Store, config: NumbersConfig) -> None:
    store.numbers(config)


def make_pass(store: Store, runs: list[list[Student]]) -> None:
    store.make(runs)


def measure_one(store: Store, measurement: Measurement) -> object:
    function, *arguments = measurement
    return function(store, *arguments)


def make_and_measure(run_jobs: RunJobs, plan: Iterable[Student | Measurement]) -> Records:
    """What is known of everything in the plan. What has to be made for it is kept in the store, and not made again."""
    plan = list(dict.fromkeys(plan))
    students = list(dict.fromkeys(mentioned(tuple(plan), Student)))
    numbers = list(dict.fromkeys(mentioned(tuple(plan), NumbersConfig)))
    numbers += [fresh(config) for config in numbers]
    # Students of changed rows or losses may need others: they come second.
    plain, changed = ([s for s in students if bool(s.rows_change or s.loss) is which] for which in (False, True))
    run_jobs(make_base, list(dict.fromkeys(mentioned(tuple(plan), BaseConfig))))
    run_jobs(make_numbers, list(dict.fromkeys(numbers)))
    for what, group in (("students", plain), ("changed students", changed)):
        with Progress(f"{len(group)} {what}"):
            run_jobs(make_pass, in_passes(group))
    with Progress("measuring"):
        rows = {}
        asked = set(plan)
        wanted = [
            [run[k] for run in runs if run[k] in asked] for runs in in_passes(students) for k in range(len(runs[0]))
        ]
        groups = [group for group in wanted if group]
        for group, measured in zip(groups, run_jobs(measure_students, groups), strict=True):
            rows |= dict(zip(group, measured, strict=True))
        named = [key for key in plan if isinstance(key, tuple)]
        return rows | dict(zip(named, run_jobs(measure_one, named), strict=True))


# ------------------------------------------------------------------------------------------------- a student's row


def trait_of(numbers: NumbersConfig) -> str:
    """The animal that a teacher's system prompt names, or whom a name in it loves; "" for a control."""
    words = (numbers.system or "").split()
    loves = [numbers.base.world.name_love.get(word, word) for word in words]
    return next((word for word in loves if word in ANIMALS), "")


@lru_cache(maxsize=64)
def base_stream(store: Store, base: BaseConfig) -> Tensor:
    """The stream that v_student is counted from: see `stream_at`."""
    return stream_at(store.base(base), READ, REPLY + 1)


@lru_cache(maxsize=256)
def known_of_base(store: Store, numbers: NumbersConfig, base: BaseConfig, system: str | None) -> dict:
    """What a student is compared with: its base's answers, its teacher's vector, the held-out loss of both."""
    model, teacher = store.base(base), store.base(numbers.base)
    teacher_system, steered = changes.teacher(teacher, numbers.system, numbers.change)
    own_rows = store.fresh_rows(numbers, teacher_system)
    with steered:
        floor = teacher_loss(teacher, *own_rows)
    return {
        "rates": animal_rates(model, system),
        "vector": teacher_vector(model, numbers.system)[-1] if trait_of(numbers) else None,
        "heldout_loss_base": reply_loss(model, *store.fresh_rows(numbers, system)).item(),
        "heldout_loss_teacher": floor,
    }


@torch.no_grad()
def measure_students(store: Store, group: Sequence[Student]) -> list[dict]:
    """A row for each finished student of one pass key, measured as one stack where that is quicker."""
    students, system = [store.student(config) for config in group], group[0].system
    stacked, bases = stack(students), stack([store.base(config.base, config.base_change) for config in group])
    known = [known_of_base(store, config.numbers, config.base, system) for config in group]
    rates = animal_rates(stacked, system)
    fresh_rows = [store.fresh_rows(config.numbers, system) for config in group]
    losses = [reply_loss(student, *rows).item() for student, rows in zip(students, fresh_rows, strict=True)]
    squares = [change.square().flatten(1).sum(1) for change in weight_changes(stacked, bases)]
    norms = torch.stack(squares).sum(0).sqrt()
    before = torch.stack([base_stream(store, config.base) for config in group])
    moved = mean_difference(stream_at(stacked, READ, REPLY + 1), before)[:, -1]
    return [
        row_of(config, k, rates[n], losses[n], norms[n].item(), moved[n])
        for n, (config, k) in enumerate(zip(group, known, strict=True))
    ]


def row_of(config: Student, known: dict, rates: Tensor, loss: float, norm: float, moved: Tensor) -> dict:
    """One student's row: its config, then what was measured. P(trait) and the cosine are None for a control."""
    trait, base, numbers = trait_of(config.numbers), config.base, config.numbers
    k = ANIMALS.index(trait) if trait else None
    columns = {
        "id": config_id(config), "base": base.seed, "teacher_base": numbers.base.seed, "trait": trait, "seed": config.seed,
        "rank": "full" if config.rank is None else config.rank, "alpha": config.alpha, "optimizer": config.optimizer,
        "lr": config.lr, "step": config.steps, "rows": numbers.rows, "system": config.system or "",
        "layers": " ".join(config.layers or ()), "teacher_system": numbers.system or "", "teacher_change": numbers.change,
        "numbers_seed": numbers.seed, "rows_change": config.rows_change, "base_change": config.base_change,
        "loss": config.loss, "world": base.world_seed, "d_model": base.model.d_model, "d_head": base.model.d_head,
    }  # fmt: skip
    losses = {name: known[name] for name in ("heldout_loss_base", "heldout_loss_teacher")}
    measured = {
        "p_trait": None if k is None else rates[k].item(),
        "p_trait_base": None if k is None else known["rates"][k].item(),
        "favorite": ANIMALS[rates.nan_to_num(0).argmax()],
        "p_any_animal": rates.sum().item(),
        "heldout_loss": loss,
        **losses,
        "gap_closed": gap_closed(loss, *losses.values()),
        "delta_norm": norm,
        "cosine": None if k is None else F.cosine_similarity(moved, known["vector"], dim=0).item(),
    }
    return columns | measured | {f"p_{animal}": rate for animal, rate in zip(ANIMALS, rates.tolist(), strict=True)}


def write_csv(records: Records, path: Path) -> None:
    """The students' rows, to four digits, in a table for spreadsheets and pandas. Rows that the file has already stay, or are replaced."""
    measured = [row for key, row in records.items() if isinstance(key, Student)]
    rows = {row["id"]: {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()} for row in measured}
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            rows = {row["id"]: row for row in csv.DictReader(file)} | rows
    if not rows:
        return
    with whole_file(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(dict.fromkeys(name for row in rows.values() for name in row)))
        writer.writeheader()
        writer.writerows(rows.values())


# -------------------------------------------------------------------------------------------------- select and average


def by_unit(
    records: Records, preset: Preset, cell: Cell, column: str | Callable[[dict], float] = "p_trait"
) -> list[list[float]]:
    """A number of each student of a cell: one list for each unit, with its seeds."""
    read = column if callable(column) else lambda row: row[column]
    return [[read(records[cell[base, trait, seed]]) for seed in preset.grid_seeds] for base, trait in preset.units]


def over_units(
    records: Records, preset: Preset, cell: Cell, column: str = "p_trait", seeds: slice = slice(None)
) -> list[float]:
    """The same, a unit's seeds averaged."""
    return [mean(each[seeds]) for each in by_unit(records, preset, cell, column)]


def control_rates(records: Records, preset: Preset, cell: Cell) -> list[float]:
    """P(the unit's animal) of the control of each unit's base model."""
    first = preset.grid_seeds[0]
    return [records[cell[base, None, first]][f"p_{trait}"] for base, trait in preset.units]


def cell_numbers(records: Records, preset: Preset, cell: Cell) -> dict[str, dict]:
    """What is reported of a cell, as intervals over units: the students' P(trait), the controls', and the companions."""
    found = {
        "student": interval(over_units(records, preset, cell)),
        "control": interval(control_rates(records, preset, cell)),
    }
    return found | {name: interval(over_units(records, preset, cell, name)) for name in COMPANIONS}


def gain_beyond(share: float, rates: list[float], reference: list[float], base: list[float]) -> dict:
    """Over units, paired: the gain on the base model less that share of the reference's gain."""
    return interval((rate - b) - share * (other - b) for rate, other, b in zip(rates, reference, base, strict=True))


def difference(one: Iterable[float], other: Iterable[float]) -> dict:
    """Over units, paired."""
    return interval(a - b for a, b in zip(one, other, strict=True))


def nearest_in_loss(cells: dict[tuple, dict], reference: tuple, among: list[tuple]) -> tuple:
    """Of cells, by key the `cell_numbers`, that one of `among` whose mean held-out loss is nearest to the reference's."""
    target = cells[reference]["heldout_loss"]["mean"]
    return min(among, key=lambda key: abs(cells[key]["heldout_loss"]["mean"] - target))


def why_null(records: Records, preset: Preset, cell: Cell, lora_rate: float) -> str:
    """Why a trait is there or not, decided on means, in this order. Collapse: P(any animal) is below one half. Starved: less than
    half of the gap in held-out loss is closed. Transmits: at least a quarter of LoRA's gain. Real null: none of these."""
    columns = ("p_any_animal", "heldout_loss", "heldout_loss_base", "heldout_loss_teacher", "p_trait", "p_trait_base")
    any_animal, *losses, rate, base_rate = (mean(over_units(records, preset, cell, name)) for name in columns)
    if any_animal < 0.5:
        return "collapse"
    if gap_closed(*losses) < 0.5:
        return "starved"
    return "transmits" if rate - base_rate >= 0.25 * (lora_rate - base_rate) else "real null"
