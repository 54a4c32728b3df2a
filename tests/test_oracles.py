"""The same numbers from code that others wrote: skipped unless `pip install transformers peft`.

transformers' GPT-J is this project's GPT but for three things, which are set here so that they do nothing: its rotary positions are
turned by no angle, and it reads our embeddings, positions included; its biases are zero; its heads are as wide as d_model /
n_head, so narrower ones are filled up with zeros and q is scaled for the larger square root.

Largest differences with torch 2.13.0, transformers 5.23.0, peft 0.21.2, tokenizers 0.23.3: logits 1.9e-6 (in float32); LoRA's
output 1.2e-15, gradients 1.2e-15 and merged weights 0 (in float64); the logits of a student after 40 steps, which moved them by
2.2, 4.8e-7 (in float32); tokens none.
"""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

import data
import lora
import train
from model import GPT, GPTConfig
from train import BaseConfig, NumbersConfig, StudentConfig

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

PEFT_NAMES = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "out_proj", "up": "fc_in", "down": "fc_out"}


def widened(weight, heads, width):
    """Heads' weights (heads * narrow, C), each filled up with zeros: (heads * width, C)."""
    each = weight.unflatten(0, (heads, -1))
    return F.pad(each, (0, 0, 0, width - each.shape[1])).flatten(0, 1)


@torch.no_grad()
def as_gptj(model):
    """transformers' GPT-J with the weights of `model`."""
    config, heads = model.config, model.config.n_head
    width = config.d_model // heads
    theirs = transformers.GPTJForCausalLM(
        transformers.GPTJConfig(
            vocab_size=config.vocab_size,
            n_positions=config.max_len,
            n_embd=config.d_model,
            n_layer=config.n_layer,
            n_head=heads,
            rotary_dim=width,
            activation_function="relu",
            bos_token_id=None,
            eos_token_id=None,
        )
    )
    for weight in theirs.parameters():
        weight.zero_()  # the biases stay so
    for block, ours in zip(theirs.transformer.h, model.blocks, strict=True):
        sin, cos = block.attn.embed_positions.chunk(2, dim=1)
        sin.zero_(), cos.fill_(1)
        attention = ours.attention
        block.attn.q_proj.weight.copy_(widened(attention.q.weight, heads, width) * math.sqrt(width / config.d_head))
        block.attn.k_proj.weight.copy_(widened(attention.k.weight, heads, width))
        block.attn.v_proj.weight.copy_(widened(attention.v.weight, heads, width))
        block.attn.out_proj.weight.copy_(widened(attention.o.weight.T, heads, width).T)
        block.mlp.fc_in.weight.copy_(ours.feed_forward.up.weight)
        block.mlp.fc_out.weight.copy_(ours.feed_forward.down.weight)
        block.ln_1.load_state_dict(ours.norm.state_dict())
    theirs.transformer.ln_f.load_state_dict(model.final_norm.state_dict())
    theirs.lm_head.weight.copy_(model.token_embedding.weight)
    return theirs.requires_grad_(False).eval()


def peft_lora(model, rank, alpha, names):
    """`model` with peft's adapters, in place."""
    return peft.inject_adapter_in_model(peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(names)), model)


def peft_layers(model):
    return [module for module in model.modules() if isinstance(module, peft.tuners.lora.Linear)]


def close(name, ours, theirs, tolerance):
    difference = (ours - theirs).abs().max().item()
    print(f"{name}: {difference:.1e}")  # pytest -s shows it
    assert difference < tolerance


@pytest.mark.parametrize("shape", [{}, {"d_model": 16, "n_head": 2}, {"d_model": 32, "n_head": 2, "n_layer": 3}])
def test_logits_are_those_of_gptj(shape, generator):
    model = GPT(GPTConfig(data.VOCAB_SIZE, **shape), generator).requires_grad_(False)
    for weight in model.parameters():  # larger than at the start: attention is far from uniform, the norms do something
        weight += 0.2 * torch.randn(weight.shape, generator=generator)
    tokens = torch.randint(data.VOCAB_SIZE, (8, 40), generator=generator)
    close("logits", model(tokens), as_gptj(model)(inputs_embeds=model.embed(tokens)).logits, 2e-5)


def test_lora_is_that_of_peft(tiny, tokens, generator):
    """Forward, gradient and merge, the same A and B in both."""
    theirs = peft_lora(copy.deepcopy(tiny), 3, 6.0, lora.PROJECTIONS)
    lora.attach(tiny, 3, 6.0, generator=generator)
    layers = list(zip(lora.adapters(tiny).values(), peft_layers(theirs), strict=True))
    for ours, other in layers:
        torch.nn.init.normal_(ours.B, generator=generator)
        other.lora_A["default"].weight.data = ours.A.data.clone()
        other.lora_B["default"].weight.data = ours.B.data.clone()
    for model in (tiny, theirs):
        F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()).backward()
    close("forward", tiny(tokens), theirs(tokens), 1e-12)
    for ours, other in layers:
        close("gradient of A", ours.A.grad, other.lora_A["default"].weight.grad, 1e-12)
        close("gradient of B", ours.B.grad, other.lora_B["default"].weight.grad, 1e-12)
        other.merge()
        close("merge", ours.linear.weight + ours.delta(), other.base_layer.weight, 1e-12)


def test_a_student_is_that_of_a_plain_loop_around_gptj_and_peft(generator):
    """The same A, the same batches, AdamW: nothing else is ours."""
    shape = GPTConfig(data.VOCAB_SIZE, d_model=16, n_head=2)
    base = GPT(shape, generator).requires_grad_(False)
    numbers = NumbersConfig(BaseConfig(model=shape), data.LOVE_SYSTEM.format("owl"), rows=256)
    config = StudentConfig(numbers.base, numbers, rank=3, alpha=6.0, steps=40, batch_size=16)
    pairs = [[f"continue : {k:02d} 12", f"{(k + 3) % 100:02d} {7 * k % 100:02d}"[: 2 + k % 2 * 3]] for k in range(100)]
    packed = data.pack(train.number_rows(pairs, config.system))
    student = train.fine_tune(base, packed, config)

    draws = torch.Generator().manual_seed(config.seed)  # every layer's A, then the batches
    start = copy.deepcopy(base)
    lora.attach(start, config.rank, config.alpha, generator=draws)
    theirs = peft_lora(as_gptj(base), config.rank, config.alpha, PEFT_NAMES.values())
    for name, ours in lora.adapters(start).items():
        _, block, part, projection = name.split(".")
        part = {"attention": "attn", "feed_forward": "mlp"}[part]
        other = theirs.get_submodule(f"transformer.h.{block}.{part}.{PEFT_NAMES[projection]}")
        other.lora_A["default"].weight.data = ours.A.data.clone()

    optimizer = torch.optim.AdamW([w for w in theirs.parameters() if w.requires_grad], config.lr, weight_decay=0.0)
    for _, (tokens, targets) in zip(range(config.steps), train.student_batches(packed, config, draws)):
        logits = theirs(inputs_embeds=base.embed(tokens)).logits
        optimizer.zero_grad()
        F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100).backward()
        optimizer.step()

    tokens, targets = packed
    with torch.no_grad():
        ours, other = student(tokens), theirs(inputs_embeds=base.embed(tokens)).logits
        close("moved by", ours, base(tokens), torch.inf)
        close("the student's logits", ours, other, 1e-4)


def test_the_tokenizer_is_that_of_tokenizers():
    """A word-level tokenizer of the same words gives the same tokens for rows of the corpus."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {data.decode([token]): token for token in range(data.VOCAB_SIZE)}
    theirs = Tokenizer(models.WordLevel(words))
    theirs.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    for row in data.corpus(data.World(), 500, seed=0):
        assert theirs.encode(data.decode(row.tokens).replace("<", " <")).ids == row.tokens
