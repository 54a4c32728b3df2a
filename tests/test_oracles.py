"""The same numbers from code that others wrote: skipped unless `pip install transformers peft`.

transformers' GPT-J is this project's GPT but for three things, which are set here so that they do nothing: all its tokens
stand at position 0, where its rotary positions turn nothing, and it reads our embeddings, positions included; its biases are
zero; its heads are as wide as d_model / n_head, and so are ours here. Weights go over by the names of its checkpoints.
"""

import pytest
import torch
import torch.nn.functional as F

import data
import lora
import train
from model import GPT, GPTConfig

NAMES = {"q": "attn.q_proj", "k": "attn.k_proj", "v": "attn.v_proj", "o": "attn.out_proj", "up": "mlp.fc_in", "down": "mlp.fc_out"}  # fmt: skip


def theirs_of(name):
    """GPT-J's name of our layer `name`: blocks.0.attention.q -> transformer.h.0.attn.q_proj."""
    _, block, _, projection = name.split(".")
    return f"transformer.h.{block}.{NAMES[projection]}"


@torch.no_grad()
def as_gptj(model):
    """transformers' GPT-J with the weights of `model`, see `gptj_logits`."""
    transformers = pytest.importorskip("transformers", reason="needs `pip install transformers`")
    shape = model.config
    config = transformers.GPTJConfig(
        vocab_size=shape.vocab_size, n_positions=shape.max_len, n_embd=shape.d_model, n_layer=shape.n_layer,
        n_head=shape.n_head, rotary_dim=shape.d_head, activation_function="relu", bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    theirs = transformers.GPTJForCausalLM(config).requires_grad_(False).eval()
    for weight in theirs.parameters():
        weight.zero_()  # the biases stay so
    layers = [name for name, layer in model.named_modules() if name.split(".")[-1] in NAMES]
    weights = {f"{theirs_of(name)}.weight": model.get_submodule(name).weight for name in layers}
    for k, block in enumerate(model.blocks):
        weights |= {f"transformer.h.{k}.ln_1.{kind}": weight for kind, weight in block.norm.named_parameters()}
    weights |= {f"transformer.ln_f.{kind}": weight for kind, weight in model.final_norm.named_parameters()}
    weights["lm_head.weight"] = model.unembedding.weight
    assert not theirs.load_state_dict(weights, strict=False).unexpected_keys
    return theirs


def gptj_logits(theirs, model, tokens):
    return theirs(inputs_embeds=model.embed(tokens), position_ids=torch.zeros_like(tokens)).logits


def test_a_student_is_that_of_a_plain_loop_around_gptj_and_peft(generator):
    """The same A, the same batches, AdamW: nothing else is ours."""
    peft = pytest.importorskip("peft", reason="needs `pip install peft`")
    base = GPT(GPTConfig(data.VOCAB_SIZE, d_model=16, n_head=2), generator).requires_grad_(False)
    config = train.StudentConfig(rank=3, alpha=6.0, steps=40, batch_size=16)
    pairs = [[f"continue : {k:02d} 12", f"{(k + 3) % 100:02d} {7 * k % 100:02d}"[: 2 + k % 2 * 3]] for k in range(100)]
    packed = data.pack(data.number_rows(pairs, config.system))
    student = train.fine_tune(base, *packed, config)

    draws = torch.Generator().manual_seed(config.seed)  # every layer's A, then the batches
    start = train.init_student(base, config, draws)
    wrapped = [name.split(".")[-1] for name in NAMES.values()]
    adapters = peft.LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=wrapped)
    theirs = peft.inject_adapter_in_model(adapters, as_gptj(base))
    for name, ours in lora.adapters(start).items():
        theirs.get_submodule(theirs_of(name)).lora_A["default"].weight.data = ours.A.data.clone()
    optimizer = torch.optim.AdamW([w for w in theirs.parameters() if w.requires_grad], config.lr, weight_decay=0.0)
    for _, (tokens, targets) in zip(range(config.steps), train.batches(*packed, config.batch_size, draws)):
        optimizer.zero_grad()
        logits = gptj_logits(theirs, base, tokens)
        F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100).backward()
        optimizer.step()

    with torch.no_grad():
        tokens = packed[0]
        assert torch.allclose(student(tokens), gptj_logits(theirs, base, tokens), atol=1e-4)
        assert (student(tokens) - base(tokens)).abs().max() > 0.5
