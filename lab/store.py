"""What was made is kept: base models, numbers and students, each in a file named by its config and by the code that decides it.

Nothing is made twice, and nothing stale is used: another config or other code is another name. No other file saves or loads.
"""

import ast
import hashlib
import io
import json
import os
import tokenize
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache
from pathlib import Path

import torch
from torch import Tensor

from data import number_rows, pack
from lab import changes, losses
from lab.stacked import fine_tune_together, generating_fast, stacked_loss
from model import GPT
from train import BaseConfig, StudentConfig, base_model, init_student, write_numbers

HERE = Path(__file__).parent.parent
# Which files decide what becomes of a config.
CODE = {"base": "data model metrics train optimizers".split()}
CODE["numbers"] = [*CODE["base"], "steering", "lab/stacked", "lab/changes", "lab/losses"]
CODE["student"] = [*CODE["numbers"], "lora"]
TOGETHER = 16  # students in one pass; more of them gain little
FRESH_ROWS = 256  # of each teacher, which no student reads


@dataclass(frozen=True)
class NumbersConfig:
    """What a teacher writes: `base` under the system prompt `system` (None: no system part)."""

    base: BaseConfig
    system: str | None
    rows: int = 2_560  # as many as a student reads in 80 steps
    seed: int = 0
    change: str = ""  # of the teacher's residual stream: a name in changes.TEACHERS


@dataclass(frozen=True)
class Changed:
    """A base model to which something was done: a name in changes.BASES."""

    base: BaseConfig
    change: str


@dataclass(frozen=True, kw_only=True)
class Student(StudentConfig):
    """A student: how it is trained, and on what. A student of n steps and one of more steps are two moments of one run."""

    base: BaseConfig
    numbers: NumbersConfig
    rows_change: str = ""  # what it reads instead: a name in changes.ROWS
    base_change: str = ""  # what is done to its base model first: a name in changes.BASES
    loss: str = ""  # what it is trained on: a name in losses.LOSSES


def fresh(config: NumbersConfig) -> NumbersConfig:
    """Rows of the same teacher that no student reads."""
    return replace(config, rows=FRESH_ROWS, seed=config.seed + 1_000)


def pass_key(config: Student) -> Student:
    """Students for which this is the same can be trained in one pass: they differ in base model, rows and seed alone."""
    shape = BaseConfig(model=config.base.model)
    return replace(config, base=shape, numbers=NumbersConfig(shape, None, config.numbers.rows), seed=0)


def in_passes(students: Sequence[Student]) -> list[list[list[Student]]]:
    """Students by pass and by run: passes[p][r] lists one run, a student after some steps, after more, ... The students asked for
    and their order decide which run is in which pass."""
    runs: dict[Student, set[int]] = defaultdict(set)
    for config in students:
        runs[replace(config, steps=1)].add(config.steps)
    groups: dict[tuple, list[list[Student]]] = defaultdict(list)
    for config, steps in runs.items():
        groups[pass_key(config), *sorted(steps)].append([replace(config, steps=step) for step in sorted(steps)])
    return [group[n : n + TOGETHER] for group in groups.values() for n in range(0, len(group), TOGETHER)]


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A name to write to, which becomes `path` on leaving, and is gone after an error: `path` is never a part of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield part
        try:
            os.replace(part, path)
        except PermissionError:  # Windows, while another process reads what it has made of the same config
            if not path.exists():
                raise
    finally:
        part.unlink(missing_ok=True)


def load(path: Path, device: str) -> dict:
    """The checkpoint in `path`; runs no code from it. Raises ValueError if it is truncated, altered or something else."""
    file = io.BytesIO(path.read_bytes())
    try:
        if zipfile.ZipFile(file).testzip() is not None:  # torch itself does not look at the checksums that it writes
            raise ValueError("a checksum is wrong")
        file.seek(0)
        saved = torch.load(file, map_location=device, weights_only=True)
    except Exception as error:  # zipfile and torch raise many kinds
        raise ValueError(f"{path} is no whole checkpoint ({type(error).__name__}); delete it and run again") from None
    if not isinstance(saved, dict):
        raise ValueError(f"{path} is no checkpoint of this project")
    return saved


def code_alone(source: str) -> str:
    """A file's lines without comments, docstrings, blank lines, and what only speaks with a user."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    tree = ast.parse(source)
    skipped = [node for node in tree.body if getattr(node, "name", "") in ("story", "main", "run", "Parser")]
    described = [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    skipped += [node.body[0] for node in described if ast.get_docstring(node) is not None]
    for node in skipped:
        lines[node.lineno - 1 : node.end_lineno] = [""] * (node.end_lineno - node.lineno + 1)
    return "\n".join(line.rstrip() for line in lines if line.strip())


@cache
def code_digest(kind: str = "student") -> str:
    """A digest of the code that decides what becomes of a config of this kind."""
    sources = [code_alone((HERE / f"{name}.py").read_text(encoding="utf-8")) for name in CODE[kind]]
    return hashlib.sha256("\0".join(sources).encode()).hexdigest()


def config_id(config: object, kind: str = "student") -> str:
    """What names a config's file: a digest of the config, a dataclass, and of the code."""
    key = json.dumps([kind, asdict(config), code_digest(kind)], sort_keys=True)
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def trained_weights(student: GPT, config: Student) -> list[Tensor]:
    """What makes a student another model than its base: its adapters, or all weights."""
    return [w for name, w in student.named_parameters() if config.rank is None or name.endswith((".A", ".B"))]


class Store:
    """Makes base models and numbers on demand and students by the pass, and keeps all of them in `folder`."""

    def __init__(self, folder: Path, device: str = "cpu", shipped: bool = True):
        self.folder, self.device = Path(folder), device
        self.shipped = shipped  # does it use the base models in models/?
        self.folder.mkdir(parents=True, exist_ok=True)  # fails now, not after an hour, if it cannot be written
        self._bases: dict[tuple[BaseConfig, str], GPT] = {}

    def path(self, kind: str, config: object) -> Path:
        """Where the product of `config` is kept."""
        return self.folder / f"{kind}-{config_id(config, kind)}.pt"

    def kept(self, kind: str, config: object, make: Callable | None, read: Callable = lambda content: content):
        """What `read` says of what `make` returned, now or earlier. Raises ValueError for a file of another config, one that `read`
        cannot read, and one that is not there if `make` is None."""
        path = self.path(kind, config)
        if not path.exists():
            if make is None:
                raise ValueError(f"{path} is not made yet: name it in a plan")
            file = io.BytesIO()
            torch.save({"config": asdict(config), "content": make()}, file)
            with whole_file(path) as part:
                part.write_bytes(file.getbuffer())  # torch itself says of a full disk what no user understands
        saved = load(path, self.device)
        if repr(saved.get("config")) != repr(asdict(config)):  # a foreign config may hold what cannot be compared
            raise ValueError(f"{path} is the checkpoint of another config; delete it and run again")
        try:
            return read(saved["content"])
        except Exception as error:  # a foreign content fails in many ways
            raise ValueError(f"{path} holds something else ({type(error).__name__}); delete it and run again") from None

    def base(self, config: BaseConfig, change: str = "") -> GPT:
        """The base model, changed as `changes.BASES` says, frozen. It is shared: copy it before changing it."""

        def make() -> dict[str, Tensor]:
            if change:
                return changes.BASES[change](self.base(config), config).state_dict()
            return base_model(config, self.device, self.shipped).state_dict()

        if (config, change) not in self._bases:
            key = ("student", Changed(config, change)) if change else ("base", config)
            model = GPT(config.model).to(self.device)
            self.kept(*key, make, model.load_state_dict)
            self._bases[config, change] = model.requires_grad_(False)
        return self._bases[config, change]

    def numbers(self, config: NumbersConfig) -> dict:
        """{"asked": how often, "pairs": [[request, reply], ...] of well-formed replies}."""

        def make() -> str:
            base = self.base(config.base)
            system, steered = changes.teacher(base, config.system, config.change)
            seed = f"numbers {config.seed} of {config.base.seed} under {config.system}, {config.change}"
            with steered, nullcontext() if config.change == changes.AT_PROMPT else generating_fast(base):
                pairs = write_numbers(base, system, config.rows, seed)
            return json.dumps({"asked": config.rows, "pairs": pairs})  # torch reads many strings slowly

        return self.kept("numbers", config, make, json.loads)

    @lru_cache(maxsize=64)  # noqa: B019 - a store lives as long as its command
    def rows(self, config: NumbersConfig, system: str | None) -> tuple[Tensor, Tensor]:
        """The teacher's replies as a student under `system` reads them, packed: tokens (N, T) and targets (N, T)."""
        return pack(number_rows(self.numbers(config)["pairs"], system))

    def fresh_rows(self, config: NumbersConfig, system: str | None) -> tuple[Tensor, Tensor]:
        """Rows of the same teacher that no student reads, packed, on the store's device."""
        tokens, targets = self.rows(fresh(config), system)
        return tokens.to(self.device), targets.to(self.device)

    def reads(self, config: Student) -> tuple[Tensor, Tensor]:
        """The packed rows of a student."""
        if config.rows_change:
            return pack(number_rows(changes.ROWS[config.rows_change](self, config), config.system))
        return self.rows(config.numbers, config.system)

    def make(self, runs: list[list[Student]]) -> None:
        """Train the runs of one pass and keep their moments, unless all are kept already."""
        if all(self.path("student", config).exists() for run in runs for config in run):
            return
        last, moments = [run[-1] for run in runs], {config.steps for config in runs[0]}
        bases = [self.base(config.base, config.base_change) for config in last]
        if last[0].loss:
            packed, loss = losses.LOSSES[last[0].loss](self, last)
        else:
            packed, loss = [self.reads(config) for config in last], stacked_loss

        def keep(step: int, students: GPT) -> None:
            if step in moments:
                flat = torch.cat([w.detach().flatten(1) for w in trained_weights(students, last[0])], dim=1)
                for config, weights in zip(last, flat, strict=True):  # one tensor is read ten times as fast as many
                    self.kept("student", replace(config, steps=step), weights.clone)

        fine_tune_together(bases, packed, last, keep, loss)

    def student(self, config: Student) -> GPT:
        """The finished student, frozen. Raises ValueError if it was not made."""
        student = init_student(self.base(config.base, config.base_change), config)
        own = trained_weights(student, config)

        def read(flat: Tensor) -> None:
            for weight, new in zip(own, flat.split([weight.numel() for weight in own]), strict=True):
                weight.data = new.view(weight.shape).clone()

        self.kept("student", config, None, read)
        return student.requires_grad_(False)
