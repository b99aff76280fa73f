#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The peer of training_step.cpp: the same MQAR models and step in PyTorch, on two CPU threads.

Usage: torch_training_step.py [seconds per case]      JSON lines: milliseconds with logits at every row, and at the labels only
       torch_training_step.py --memory MODEL [labels] peak memory of three steps above the level before the model
"""
import json
import math
import resource
import statistics
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

VOCABULARY, LENGTH, WIDTH, BATCH, PAIRS = 8192, 64, 64, 512, 4


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, u):
        q, k, v = (t[:, None] for t in self.qkv(u).chunk(3, -1))
        return self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=0.1)[:, 0])


class Short(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(WIDTH, WIDTH, 3, groups=WIDTH, padding=2)

    def forward(self, u):
        return self.conv(u.transpose(1, 2))[..., : u.shape[1]].transpose(1, 2)


class Long(nn.Module):
    """The implicit filter's taps by an MLP over the position, the convolution by FFT, and a skip."""

    def __init__(self):
        super().__init__()
        i = torch.arange(LENGTH)
        angle = 2e-4 * math.pi * i / LENGTH
        self.register_buffer("z", torch.stack([i / (LENGTH - 1), torch.cos(angle), -torch.sin(angle)], -1))
        self.mlp = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, WIDTH))

    def forward(self, u):
        n = 2 * LENGTH
        y = torch.fft.irfft(torch.fft.rfft(u, n, dim=1) * torch.fft.rfft(self.mlp(self.z), n, dim=0), n, dim=1)
        return y[:, :LENGTH] + u


class Coyote(nn.Module):
    def __init__(self, conv):
        super().__init__()
        self.linear, self.conv = nn.Linear(WIDTH, WIDTH), conv

    def forward(self, u):
        return self.linear(u) * self.conv(u) + u


class Model(nn.Module):
    def __init__(self, name):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Embedding(LENGTH, WIDTH) if name == "attention" else None
        self.mixers = nn.ModuleList([Attention(), Attention()] if name == "attention" else [Coyote(Short()), Coyote(Long())])
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(3))
        nn.init.normal_(self.embedding.weight, std=0.02)

    def forward(self, tokens, rows=None):
        h = self.embedding(tokens)
        if self.positions is not None:
            h = h + self.positions.weight
        h = F.dropout(h, 0.1)
        for norm, mixer in zip(self.norms, self.mixers):
            h = h + mixer(norm(h))
        h = self.norms[2](h)
        return (h if rows is None else h.flatten(0, 1)[rows]) @ self.embedding.weight.T


def batch():
    """Keys and values, then each key once more somewhere behind; the label is the value."""
    tokens = torch.zeros(BATCH, LENGTH, dtype=torch.long)
    labels = torch.full((BATCH, LENGTH), -100)
    for s in range(BATCH):
        keys = 1 + torch.randperm(VOCABULARY // 2 - 1)[:PAIRS]
        values = VOCABULARY // 2 + torch.randperm(VOCABULARY // 2)[:PAIRS]
        places = 2 * PAIRS + 2 * torch.randperm((LENGTH - 2 * PAIRS) // 2)[:PAIRS]
        tokens[s, 0 : 2 * PAIRS : 2], tokens[s, 1 : 2 * PAIRS : 2] = keys, values
        tokens[s, places], labels[s, places] = keys, values
    return tokens, labels


def stepper(name, labels_only):
    model = Model(name)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.1)
    tokens, labels = batch()
    rows = (labels.flatten() != -100).nonzero()[:, 0]

    def step():
        optimiser.zero_grad()
        if labels_only:
            loss = F.cross_entropy(model(tokens, rows), labels.flatten()[rows])
        else:
            loss = F.cross_entropy(model(tokens).flatten(0, 1), labels.flatten())
        loss.backward()
        optimiser.step()

    return step


def peak_megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


torch.set_num_threads(2)
if sys.argv[1:2] == ["--memory"]:
    before = peak_megabytes()
    step = stepper(sys.argv[2], "labels" in sys.argv[3:])
    for _ in range(3):
        step()
    name = f"training_memory/{sys.argv[2]}" + ("/labels" if "labels" in sys.argv[3:] else "")
    print(json.dumps({"work": name, "megabytes": round(peak_megabytes() - before, 1)}))
else:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    for name in ("attention", "coyote"):
        for labels_only in (False, True):
            step = stepper(name, labels_only)
            step()
            times, end = [], time.perf_counter() + seconds
            while time.perf_counter() < end or len(times) < 3:
                start = time.perf_counter()
                step()
                times.append((time.perf_counter() - start) * 1e3)
            work = f"training_step/{name}" + ("/labels" if labels_only else "")
            print(json.dumps({"work": work, "median_ms": round(statistics.median(times), 3), "runs": len(times)}), flush=True)
