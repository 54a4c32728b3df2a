import socket
from dataclasses import replace

import pytest
import torch

import lora
from lab.store import Store
from model import GPT, GPTConfig
from train import BaseConfig

torch.set_num_threads(1)  # tensors this small only lose by more


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """No test reaches beyond this machine; processes on it may speak to each other."""
    connect = socket.socket.connect

    def local(self, address):
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise RuntimeError(f"a test wants to connect to {address[0]}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def tiny(generator):
    """A random model in float64, small enough to check by hand."""
    shape = {"d_model": 16, "n_layer": 2, "n_head": 2, "max_len": 24, "user_token": 7, "blind_blocks": 1}
    return GPT(GPTConfig(30, **shape), generator).double()


@pytest.fixture
def tokens(generator):
    tokens = torch.randint(8, 30, (3, 9), generator=generator)
    tokens[:2, 4] = 7  # the third row has no system prompt, or nothing else
    return tokens


@pytest.fixture
def base(generator):
    """A random model of the world's words, frozen."""
    return GPT(replace(BaseConfig().model, d_model=8), generator).requires_grad_(False)


@pytest.fixture
def student(generator):
    """A random model of the world's words, with random adapters."""
    model = GPT(replace(BaseConfig().model, d_model=16), generator).requires_grad_(False)
    lora.attach(model, rank=3, alpha=6.0, generator=generator)
    for layer in lora.adapters(model).values():
        torch.nn.init.normal_(layer.B, generator=generator)
    return model


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "cache")


@pytest.fixture
def refused(tmp_path, capsys, monkeypatch):
    """Run a command on bad input: exit code 2, one line on stderr, nothing written. Returns what it printed."""

    def run(main, program, arguments):
        monkeypatch.chdir(tmp_path)
        before = sorted(tmp_path.rglob("*"))
        try:
            code = main(arguments)
        except SystemExit as exit:
            code = exit.code
        captured = capsys.readouterr()
        assert code == 2 and captured.err.startswith(f"{program}: error: ") and captured.err.count("\n") == 1
        assert sorted(tmp_path.rglob("*")) == before
        return captured.out

    return run
