"""Steering vectors, by hand: directions in the residual stream, found as differences and put back as additions.

                                   h_l (B, T, C), the residual stream after block l
    a vector is found              v_l = mean over prompts of h_l(one run) - h_l(another run)
    added                          h_l <- h_l + m v_l
    projected out                  h_l <- h_l - (h_l . u) u                      u = v_l / |v_l|
    its component replaced         h_l <- h_l - (h_l . u) u + (h'_l . u) u       h' of another model on the same tokens

Layer 0 is the embedding, layer l the output of block l. Every change is a context manager: inside it the model computes with
the change, after it the model is what it was, bit for bit, also after an error. They nest: each acts on what the one
before it left.

Blank et al. 2026, "Subliminal Learning Is Steering Vector Distillation" (arXiv:2606.00995): v_teacher compares the same model
under two system prompts (S1), v_student compares two models under the same prompt (S3).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from model import GPT

Vectors = dict[int, Tensor]  # {layer: (C,)}: which layers are changed, and by what


@torch.no_grad()
def stream_at(model: GPT, prompts: list[list[int]], last: int) -> Tensor:
    """The residual stream of N prompts at their `last` last positions: (N, L + 1, last, C)."""
    tokens, ends = model.padded(prompts)
    places = ends[:, None] + torch.arange(-last, 0, device=model.device)
    rows = torch.arange(len(prompts), device=model.device)[:, None]
    return torch.stack([h[..., rows, places, :] for h in model.residual_stream(tokens)], dim=-3)


def mean_difference(one: Tensor, other: Tensor) -> Tensor:
    """v_l, the mean over prompts and positions of two streams' difference: (N, L + 1, P, C) twice -> (L + 1, C)."""
    return (one - other).mean(dim=(-4, -2))


def random_like(vectors: Tensor, generator: torch.Generator) -> Tensor:
    """Random directions, each as long as the vector in its place: (..., C) -> (..., C). What a vector is compared with."""
    noise = torch.randn(vectors.shape, generator=generator).to(vectors)
    return noise * vectors.norm(dim=-1, keepdim=True) / noise.norm(dim=-1, keepdim=True)


@contextmanager
def changed(model: GPT, layers: list[int], change: Callable[[int, Tensor], Tensor]) -> Iterator[None]:
    """Inside, the residual stream h after each of `layers` is change(layer, h). What all the others are made of."""
    handles = []
    try:
        for layer in layers:
            if layer == 0:
                # The embedding is a sum of two tables; the first block reads it first.
                hook = lambda _, args: (change(0, args[0]), *args[1:])  # noqa: E731
                handles.append(model.blocks[0].register_forward_pre_hook(hook))
            else:
                hook = lambda _, args, h, layer=layer: change(layer, h)  # noqa: E731
                handles.append(model.blocks[layer - 1].register_forward_hook(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()


def added(model: GPT, vectors: Vectors, multiplier: float = 1.0, mask: Tensor | None = None):
    """Inside, h_l + multiplier * v_l, at every position or where `mask` (T,) or (B, T) is 1."""

    def change(layer: int, h: Tensor) -> Tensor:
        step = multiplier * vectors[layer].to(h)
        return h + (step if mask is None else mask.to(h)[..., None] * step)

    return changed(model, list(vectors), change)


def projected_out(model: GPT, vectors: Vectors):
    """Inside, the stream has no component along v_l."""
    return changed(model, list(vectors), lambda layer, h: h - component(h, vectors[layer]))


def replaced(model: GPT, vectors: Vectors, by: GPT, tokens: Tensor):
    """Inside, on `tokens` (B, T), the stream's component along v_l is the one that the model `by` has there."""
    with torch.no_grad():
        other = by.residual_stream(tokens)
    return changed(
        model,
        list(vectors),
        lambda layer, h: h - component(h, vectors[layer]) + component(other[layer], vectors[layer]),
    )


def component(h: Tensor, vector: Tensor) -> Tensor:
    """The part of h (..., C) that lies along `vector` (C,), or along vectors (..., C), one for each h."""
    unit = (vector / vector.norm(dim=-1, keepdim=True)).to(h)
    return (h * unit).sum(-1, keepdim=True) * unit


def tell(args) -> None:
    """What a system prompt does, found as a vector, added without the prompt, taken out; and the student's own vector."""
    import data
    import train

    lab, trait = train.Lab(args.out / "cache", args.device), data.ANIMALS.index(args.trait)
    system = data.LOVE_SYSTEM.format(args.trait)
    print(f"A base model, its teacher's numbers and a student: a minute, unless they are kept in {lab.folder} already.")
    config = train.BaseConfig(seed=args.seed)
    numbers = train.NumbersConfig(config, system)
    student = lab.student(train.StudentConfig(config, numbers, seed=args.seed))
    base = lab.base(config)
    last = base.config.n_layer

    def says(model: GPT, prompt: str | None = data.DEFAULT_SYSTEM) -> str:
        rates = train.animal_rates(model, prompt)
        first = data.ANIMALS[rates.argmax()]
        return f"{args.trait} {rates[trait]:.3f}" + ("" if first == args.trait else f" (first is {first})")

    generator = torch.Generator().manual_seed(args.seed)
    requests = ["continue : 12 45 07"] * 6
    uniforms = torch.rand(len(requests), train.MAX_REPLY, generator=generator)

    def writes(prompt: str) -> str:
        prompts = [data.chat(prompt, request) for request in requests]
        replies = base.sample(prompts, uniforms, data.END, train.NUMBER_TOKENS)
        return " | ".join(data.decode([token for token in reply if token != data.END]) for reply in replies.tolist())

    v_teacher = train.teacher_vectors(base, system)
    lengths = ", ".join(f"{v.norm():.2f}" for v in v_teacher)
    print(f'\nOne model, told "{system}" and not told.')
    print("The mean difference of its residual stream while it writes numbers is v_teacher.")
    print(f"Its length after the embedding and after each block: {lengths}.")
    print(f"\nFavorite animal? Untold: {says(base)}. Told: {says(base, system)}.")
    print(f"Untold, with m v_teacher added after block {last}:")
    for multiplier in (-1.0, 0.5, 1.0, 2.0):
        with added(base, {last: v_teacher[last]}, multiplier):
            print(f"    m = {multiplier:4}   {says(base)}")
    with projected_out(base, {last: v_teacher[last]}):
        print(f"Told, and the component along v_teacher taken out: {says(base, system)}.")

    print(f'\nAsked "{requests[0]}" six times, by the same random draws, it writes')
    print(f"    untold        {writes(data.DEFAULT_SYSTEM)}")
    print(f"    told          {writes(system)}")
    with added(base, {last: v_teacher[last]}):
        print(f"    + v_teacher   {writes(data.DEFAULT_SYSTEM)}")

    read = data.number_conversations(data.DEFAULT_SYSTEM, 128, "to extract")
    v_student = mean_difference(stream_at(student, read, 5), stream_at(base, read, 5))
    cosines = torch.cosine_similarity(v_student[1:], v_teacher[1:], dim=-1).tolist()
    print(f"\nA student of such numbers was never told anything. It says {says(student)}.")
    print(
        "Against the base, on the same number prompts, its stream has moved as well, by v_student. Cosine with v_teacher:"
    )
    print("    " + ", ".join(f"after block {k} {cosine:.2f}" for k, cosine in enumerate(cosines, 1)))
    with added(base, {last: v_student[last]}):
        print(f"The base with v_student added after block {last}: {says(base)}.")


def main(argv: list[str] | None = None) -> int:
    from pathlib import Path

    from data import ANIMALS
    from runtime import Parser, run

    parser = Parser(prog="steering.py", description=tell.__doc__)
    parser.add_argument("--trait", default="owl", choices=ANIMALS, metavar="ANIMAL", help="what the teacher loves")
    parser.add_argument("--seed", type=int, default=0, help="of the base model and of the student (default 0)")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or mps (default cpu)")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder for checkpoints (default runs)")
    return run(tell, parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
