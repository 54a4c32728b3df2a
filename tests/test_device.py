"""Every tensor on its device: the whole story on one that refuses tensors of another, as a GPU does.

There is none here, so it is acted out. Tensors stay where they are, but each one that was made or moved "there" carries a
mark; what is computed from marked tensors is marked; and a function that is given both kinds raises. What real devices allow
is allowed: copies between them, indices from the CPU, numbers without a dimension.
"""

from dataclasses import replace

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter, tree_map_only

import evaluate
from lab.store import Store
from tests.test_evaluate import TINY, tiny_job  # noqa: F401 - a fixture

THERE = torch.device("cuda")  # by name only
HERE = torch.device("cpu")
SETS = {torch.Tensor.__getitem__, torch.Tensor.__setitem__, torch.Tensor.data.__set__}
MOVES = {torch.Tensor.to, torch.Tensor.copy_} | SETS
LEAVES = {torch.Tensor.cpu, torch.Tensor.tolist, torch.Tensor.item}
FIGURES = "transmission localization teacher_vector student_vector steered_teachers gradient one_step audit".split()


class TwoDevices(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        things = list(tree_iter((args, kwargs)))
        tensors, wanted = ([x for x in things if isinstance(x, kind)] for kind in (torch.Tensor, torch.device))
        marked = [x for x in tensors if hasattr(x, "there")]
        if function == torch.Tensor.device.__get__:
            return THERE if marked else HERE
        others = [x for x in tensors if not hasattr(x, "there") and x.ndim > 0]
        if marked and others and function not in MOVES:
            raise RuntimeError(f"{function.__name__} of tensors on two devices")
        read_here = function == torch.Tensor.__getitem__ and not hasattr(args[0], "there")
        if marked and (function == torch.Tensor.numpy or read_here):
            raise RuntimeError(f"{function.__name__} needs tensors of the CPU")
        if THERE in wanted and kwargs.get("generator") is not None:
            raise RuntimeError("a generator of the CPU draws nothing there")
        if wanted:
            args, kwargs = tree_map_only(torch.device, lambda _: HERE, (args, kwargs))
        result = function(*args, **kwargs)
        goes = THERE in wanted if wanted else bool(marked) and function not in LEAVES
        if function in (torch.Tensor.to, torch.Tensor.cpu) and goes != hasattr(args[0], "there"):
            result = result.clone()  # what stays behind keeps its own mark, or none
        if function == torch.Tensor.data.__set__:  # how a module moves its weights
            goes, result = hasattr(args[1], "there"), args[0]
        for x in tree_iter(result) if goes else ():
            if isinstance(x, torch.Tensor):
                x.there = True
        return None if function == torch.Tensor.data.__set__ else result


def test_a_tensor_that_stayed_behind_is_noticed():
    with TwoDevices():
        there, here = torch.zeros(2, device=THERE), torch.zeros(2)
        assert (there + 1).device == here.to(THERE).device == torch.zeros_like(there).device == THERE
        assert here.device == there.cpu().device == HERE
        drawn = {"device": THERE, "generator": torch.Generator()}
        for wrong in (lambda: there + here, lambda: here[there.long()], lambda: torch.rand(2, **drawn)):
            with pytest.raises(RuntimeError, match="two devices|of the CPU"):
                wrong()


def test_the_whole_story_elsewhere(tiny_job, monkeypatch):  # noqa: F811
    """The figures that handle tensors in a way of their own; grids differ from them in configs."""
    load, make_subclass = torch.load, torch.Tensor._make_subclass

    def parameter(cls, data, requires_grad=False, **kwargs):
        result = make_subclass(cls, data, requires_grad, **kwargs)
        if hasattr(data, "there"):
            result.there = True
        return result

    def load_there(file, map_location, weights_only):
        with torch._C.DisableTorchFunction():  # torch's own reading of the file
            saved = load(file, weights_only=weights_only)
        tree_map_only(torch.Tensor, lambda x: setattr(x, "there", True), saved)
        return saved

    monkeypatch.setattr(torch, "load", load_there)
    monkeypatch.setattr(torch.Tensor, "_make_subclass", staticmethod(parameter))
    monkeypatch.setattr(evaluate, "open_store", lambda args: Store(args.out / "cache", THERE))
    preset = replace(TINY, bases=tuple(replace(base, rows=1_000, steps=75) for base in TINY.bases), traits=("owl",))
    monkeypatch.setattr(evaluate, "choose_preset", lambda *_: preset)
    with TwoDevices():
        tiny_job("--only", *FIGURES)
