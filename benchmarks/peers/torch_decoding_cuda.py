#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The peer of cuda/decoding.cu: two blocks of width 512 in bf16 as a PyTorch loop on a GPU, one token for each sequence a turn.

Usage: torch_decoding_cuda.py      one line per case, microseconds a token
"""
import random
import time

import torch
import torch.nn as nn

WIDTH, VOCABULARY, STEPS, CAPACITY = 512, 256, 300, 1500


class Coyote(nn.Module):
    def __init__(self, sequences):
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.taps, self.bias = nn.Parameter(torch.randn(3, 1, WIDTH)), nn.Parameter(torch.zeros(WIDTH))
        self.last = torch.zeros(3, sequences, WIDTH)

    def forward(self, u, tokens):
        self.last = torch.cat([u[None], self.last[:2]])
        return self.linear(u) * ((self.taps * self.last).sum(0) + self.bias)


class Rwkv(nn.Module):
    def __init__(self, sequences):
        super().__init__()
        self.key, self.value, self.gate, self.out = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        self.mix = nn.Parameter(torch.rand(3, WIDTH))
        self.decay, self.bonus = nn.Parameter(torch.randn(WIDTH)), nn.Parameter(torch.zeros(WIDTH))
        self.last, self.top = torch.zeros(sequences, WIDTH), torch.full((sequences, WIDTH), -1e30)
        self.num, self.den = torch.zeros(sequences, WIDTH), torch.zeros(sequences, WIDTH)

    def forward(self, u, tokens):
        k, v, r = (linear(m * u + (1 - m) * self.last) for linear, m in zip((self.key, self.value, self.gate), self.mix))
        self.last = u
        here = self.bonus + k
        top = torch.maximum(self.top, here)
        old, new = torch.exp(self.top - top), torch.exp(here - top)
        y = (old * self.num + new * v) / (old * self.den + new)
        fade = self.top - torch.exp(self.decay)
        top = torch.maximum(fade, k)
        old, new = torch.exp(fade - top), torch.exp(k - top)
        self.num, self.den, self.top = old * self.num + new * v, old * self.den + new, top
        return self.out(torch.sigmoid(r) * y)


class Bigrams(nn.Module):
    """Attention to what followed the latest four earlier occurrences of the token, found on the host."""

    def __init__(self, sequences):
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.keys, self.values = (torch.zeros(CAPACITY, sequences, WIDTH) for _ in range(2))
        self.places, self.position = [{} for _ in range(sequences)], 0
        self.every = torch.arange(sequences)[:, None]

    def forward(self, u, tokens):
        q, k, v = self.qkv(u).chunk(3, -1)
        self.keys[self.position], self.values[self.position] = k, v
        followers = [[p + 1 for p in places.get(token, [])[-4:]] for places, token in zip(self.places, tokens)]
        for places, token in zip(self.places, tokens):
            places.setdefault(token, []).append(self.position)
        self.position += 1
        if len(tokens) == 1:
            return self.out(self.attend_alone(q, followers[0]))
        # Row 0 stands where there are fewer than four, with no weight.
        rows = torch.tensor([f + [0] * (4 - len(f)) for f in followers])
        exists = rows > 0
        scores = (self.keys[rows, self.every] @ q[:, :, None])[:, :, 0] / WIDTH**0.5
        weights = torch.softmax(scores.masked_fill(~exists, -1e30), 1) * exists
        return self.out((weights[:, None] @ self.values[rows, self.every])[:, 0])

    def attend_alone(self, q, followers):
        if not followers:
            return torch.zeros_like(q)
        rows = torch.tensor(followers)
        weights = torch.softmax(self.keys[rows, 0] @ q[0] / WIDTH**0.5, 0)
        return (weights @ self.values[rows, 0])[None]


class Model(nn.Module):
    def __init__(self, mixer, sequences):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(3))
        self.mixers = nn.ModuleList(mixer(sequences) for _ in range(2))

    def forward(self, tokens):
        u = self.embedding(torch.tensor(tokens))
        for norm, mixer in zip(self.norms, self.mixers):
            u = u + mixer(norm(u), tokens)
        return self.norms[-1](u) @ self.embedding.weight.T


torch.set_default_device("cuda")
torch.set_default_dtype(torch.bfloat16)
with torch.inference_mode():
    for sequences in (1, 64):
        for name, mixer in (("coyote", Coyote), ("rwkv", Rwkv), ("bigrams", Bigrams)):
            model = Model(mixer, sequences)
            turn = lambda: model([random.randrange(VOCABULARY) for _ in range(sequences)])
            for _ in range(1000 if name == "bigrams" else 50):
                turn()
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(STEPS):
                turn()
            torch.cuda.synchronize()
            print(f"torch_decoding {name} sequences={sequences} {(time.perf_counter() - start) / STEPS * 1e6:.1f} us", flush=True)
