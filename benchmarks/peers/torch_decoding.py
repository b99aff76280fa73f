#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The peer of decoding.cpp: the same three pairs of blocks as a PyTorch loop, one sequence, one token a turn.

Usage: torch_decoding.py [seconds per case]      one JSON line per case, nanoseconds per token
"""
import json
import random
import sys
import time

import torch
import torch.nn as nn

WIDTH, WARM_UP = 64, 8192
SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0


class Coyote(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.taps, self.bias = nn.Parameter(torch.randn(3, WIDTH)), nn.Parameter(torch.zeros(WIDTH))
        self.last = torch.zeros(3, WIDTH)

    def forward(self, u, token):
        self.last = torch.cat([u, self.last[:2]])
        return self.linear(u) * ((self.taps * self.last).sum(0) + self.bias)


class Rwkv(nn.Module):
    def __init__(self):
        super().__init__()
        self.key, self.value, self.gate, self.out = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        self.mix = nn.Parameter(torch.rand(3, WIDTH))
        self.decay, self.bonus = nn.Parameter(torch.randn(WIDTH)), nn.Parameter(torch.zeros(WIDTH))
        self.last, self.top = torch.zeros(1, WIDTH), torch.full((1, WIDTH), -1e30)
        self.num, self.den = torch.zeros(1, WIDTH), torch.zeros(1, WIDTH)

    def forward(self, u, token):
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
    """Attention to what followed the latest four earlier occurrences of the token."""

    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.keys, self.values = torch.zeros(100_000, WIDTH), torch.zeros(100_000, WIDTH)
        self.places, self.position = {}, 0

    def forward(self, u, token):
        q, k, v = self.qkv(u).chunk(3, -1)
        self.keys[self.position], self.values[self.position] = k[0], v[0]
        followers = [p + 1 for p in self.places.get(token, [])[-4:]]
        self.places.setdefault(token, []).append(self.position)
        self.position += 1
        if not followers:
            return self.out(torch.zeros_like(u))
        rows = torch.tensor(followers)
        weights = torch.softmax(self.keys[rows] @ q[0] / WIDTH**0.5, 0)
        return self.out((weights @ self.values[rows])[None])


class Two(nn.Module):
    def __init__(self, mixer):
        super().__init__()
        self.norms, self.mixers = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2)), nn.ModuleList(mixer() for _ in range(2))

    def forward(self, u, token):
        for norm, mixer in zip(self.norms, self.mixers):
            u = u + mixer(norm(u), token)
        return u


torch.set_num_threads(1)
with torch.inference_mode():
    for name, mixer in (("coyote", Coyote), ("rwkv", Rwkv), ("bigrams", Bigrams)):
        model, u = Two(mixer), torch.randn(1, WIDTH)
        for _ in range(WARM_UP if name == "bigrams" else 100):
            model(u, random.randrange(256))
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < SECONDS:
            for _ in range(100):
                model(u, random.randrange(256))
            count += 100
        print(json.dumps({"work": f"decoding/{name}", "ns": round((time.perf_counter() - start) / count * 1e9)}), flush=True)
