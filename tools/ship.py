"""Train the base models that are shipped, and write them to models/, each with a fingerprint of the code that led to it."""

import argparse
from dataclasses import asdict

import torch

from console import PROCESSES, run
from lab.presets import choose_preset
from lab.processes import spawn_workers
from lab.store import Store, whole_file
from train import MODELS, BaseConfig, fingerprint, pretrain


def ship_one(store: Store, config: BaseConfig) -> None:
    """One file, as `train.base_model` reads it."""
    shipped = {"config": asdict(config), "fingerprint": fingerprint(config), "weights": pretrain(config).state_dict()}
    with whole_file(MODELS / f"base-{config.seed}.pt") as part:
        torch.save(shipped, part)


def ship(args: argparse.Namespace) -> None:
    """Train base model 0, which the commands show, and those that all claims are measured on."""
    with spawn_workers(Store(MODELS), args.processes) as run_jobs:
        run_jobs(ship_one, [BaseConfig(), *choose_preset(True, 0).bases])


if __name__ == "__main__":
    raise SystemExit(run(ship, "tools.ship", processes=PROCESSES))
