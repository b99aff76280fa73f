#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A PyTorch user's MQAR training run: two blocks, tied embedding, AdamW, cross entropy at every position.

Usage: torch_mqar.py step [--tuned]      time and peak memory of one training step, over the figure-2 grid
       torch_mqar.py fit MIXER L D PAIRS LR [SECONDS]    train to 99 % and print epochs and seconds
Runs on the GPU when there is one, else on the CPU. --tuned: torch.compile, bf16 autocast, fused AdamW (attention only).
"""
import math
import sys
import time
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
VOCABULARY = 8192
GRID = ((64, 512, 4), (128, 512, 8), (256, 256, 16), (512, 128, 64))  # length, batch, key-value pairs


class Attention(nn.Module):
    def __init__(self, width, length):
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, u):
        q, k, v = self.qkv(u).chunk(3, -1)
        y = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None], is_causal=True, dropout_p=0.1 if self.training else 0.0)
        return self.out(y[:, 0])


class LongConv(nn.Module):
    """Convolution with an implicit filter: an MLP over (t, cos, sin)."""

    def __init__(self, width, length):
        super().__init__()
        t = torch.arange(length) / max(1, length - 1)
        angle = 2 * math.pi * torch.arange(length) / length * 1e-4
        self.register_buffer("features", torch.stack([t, torch.cos(angle), -torch.sin(angle)], -1))
        self.mlp = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, width))

    def forward(self, u):
        length = u.shape[1]
        k = self.mlp(self.features[:length])
        return torch.fft.irfft(torch.fft.rfft(u.float(), 2 * length, dim=1) * torch.fft.rfft(k.float(), 2 * length, dim=0), 2 * length, dim=1)[:, :length] + u


class ShortConv(nn.Module):
    def __init__(self, width, length, taps=3):
        super().__init__()
        self.conv = nn.Conv1d(width, width, taps, groups=width, padding=taps - 1)

    def forward(self, u):
        return self.conv(u.transpose(1, 2))[..., : u.shape[1]].transpose(1, 2)


class Coyote(nn.Module):
    def __init__(self, width, length, conv):
        super().__init__()
        self.linear, self.conv = nn.Linear(width, width), conv(width, length)

    def forward(self, u):
        return self.linear(u) * self.conv(u) + u


MIXERS = {"attention": lambda d, n, i: Attention(d, n), "coyote": lambda d, n, i: Coyote(d, n, (ShortConv, LongConv)[i % 2])}


class Model(nn.Module):
    def __init__(self, mixer, width, length, blocks=2):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.positions = nn.Embedding(length, width) if mixer == "attention" else None
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(blocks + 1))
        self.mixers = nn.ModuleList(MIXERS[mixer](width, length, i) for i in range(blocks))
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, tokens):
        h = self.embedding(tokens)
        if self.positions is not None:
            h = h + self.positions.weight[: tokens.shape[1]]
        h = F.dropout(h, 0.1, self.training)
        for norm, mixer in zip(self.norms, self.mixers):
            h = h + mixer(norm(h))
        return self.norms[-1](h) @ self.embedding.weight.T


def mqar(count, length, pairs, seed):
    """Keys and values in pairs, then each key once more at a power-law gap; labels (-100 = none) at the queries."""
    draw = np.random.default_rng(seed)
    context, space = 2 * pairs, (length - 2 * pairs) // 2
    weight = np.arange(1, space + 1) ** -0.99
    tokens, labels = np.zeros((count, length + 1), np.int64), np.full((count, length + 1), -100, np.int64)
    for i in range(count):
        keys = draw.choice(np.arange(1, VOCABULARY // 2), pairs, replace=False)
        values = draw.choice(np.arange(VOCABULARY // 2, VOCABULARY), pairs, replace=False)
        gaps = draw.choice(space, pairs, replace=False, p=weight / weight.sum())
        tokens[i, 0:context:2], tokens[i, 1:context:2] = keys, values
        tokens[i, context + 2 * gaps], labels[i, context + 2 * gaps + 1] = keys, values
    return torch.tensor(tokens[:, :-1]).to(DEVICE), torch.tensor(labels[:, 1:]).to(DEVICE)


def loss_of(model, tokens, labels):
    return F.cross_entropy(model(tokens).flatten(0, 1).float(), labels.flatten())


def step_ms(mixer, length, width, batch, pairs, tuned):
    if tuned:
        torch._dynamo.reset()
    if DEVICE == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    model = Model(mixer, width, length).to(DEVICE)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.1, **({"fused": True} if tuned else {}))
    tokens, labels = mqar(batch, length, pairs, 0)
    compute = torch.compile(loss_of) if tuned else loss_of

    def step():
        optimiser.zero_grad()
        with torch.autocast(DEVICE, torch.bfloat16, enabled=tuned):
            loss = compute(model, tokens, labels)
        loss.backward()
        optimiser.step()
        return loss

    sync = torch.cuda.synchronize if DEVICE == "cuda" else (lambda: None)
    for _ in range(5):
        step()
    sync()
    start, count = time.perf_counter(), 20 if DEVICE == "cuda" else 3
    for _ in range(count):
        step()
    sync()
    milliseconds = (time.perf_counter() - start) / count * 1e3
    return milliseconds, torch.cuda.max_memory_allocated() / 1e6 if DEVICE == "cuda" else float("nan")


def fit(mixer, length, width, pairs, rate, seconds=60.0, batch=512, epochs=64):
    torch.manual_seed(0)
    model = Model(mixer, width, length).to(DEVICE)
    optimiser = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    tokens, labels = mqar(100_000, length, pairs, 1)
    test_tokens, test_labels = mqar(3_000, length, pairs, 2)
    start = time.perf_counter()
    for epoch in range(epochs):
        model.train()
        for i in range(0, len(tokens), batch):
            optimiser.zero_grad()
            loss_of(model, tokens[i : i + batch], labels[i : i + batch]).backward()
            optimiser.step()
        schedule.step()
        model.eval()
        with torch.no_grad():
            right = [(model(t).argmax(-1) == y)[y != -100] for t, y in zip(test_tokens.split(500), test_labels.split(500))]
        accuracy = torch.cat(right).float().mean().item()
        if accuracy > 0.99 or time.perf_counter() - start > seconds:
            break
    print(f"fit {mixer} L={length} D={width} pairs={pairs} lr={rate}: accuracy {accuracy:.4f} after {epoch + 1} epochs, {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    if sys.argv[1:2] == ["fit"]:
        mixer, length, width, pairs, rate, *rest = sys.argv[2:]
        fit(mixer, int(length), int(width), int(pairs), float(rate), *map(float, rest))
    else:
        tuned = "--tuned" in sys.argv
        for length, batch, pairs in GRID:
            for width in (64, 128, 256, 512):
                steps = {m: step_ms(m, length, width, batch, pairs, tuned) for m in (["attention"] if tuned else MIXERS)}
                times, memory = (", ".join(f"{m} {s[k]:.2f}" for m, s in steps.items()) for k in (0, 1))
                print(f"L={length} D={width} batch={batch}: ms/step {times}; peak MB {memory}", flush=True)
