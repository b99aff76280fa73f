#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The peer of matrix_product.cpp: PyTorch's Linear (with bias) and tied-head cross entropy, float, two threads.

Usage: torch_matmul.py [seconds per case]
Prints PyTorch's configuration, then one JSON line per case: median and least milliseconds.
"""
import itertools
import json
import statistics
import sys
import time

import torch
import torch.nn.functional as F

ROTATED = 300 << 20
SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0


def measure(run, sets):
    turn = itertools.cycle(sets)
    for _ in range(3):
        run(*next(turn))
    times = []
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(times) < 5:
        inputs = next(turn)
        start = time.perf_counter()
        run(*inputs)
        times.append((time.perf_counter() - start) * 1e3)
    return {"median_ms": round(statistics.median(times), 4), "least_ms": round(min(times), 4), "runs": len(times)}


def linear(rows, width, out, backward):
    bytes_of_set = 2 * rows * (width + out) * 4
    weight = torch.randn(out, width).mul_(0.02).requires_grad_(backward)
    bias = torch.randn(out).requires_grad_(backward)
    sets = [(torch.randn(rows, width).requires_grad_(backward), torch.randn(rows, out)) for _ in range(ROTATED // bytes_of_set + 1)]

    def run(x, dy):
        y = F.linear(x, weight, bias)
        if backward:
            torch.autograd.grad(y, (x, weight, bias), dy)

    return measure(run, sets)


def head(rows, vocabulary, width):
    bytes_of_set = 2 * (rows + vocabulary) * width * 4
    labels = torch.arange(rows) * 7919 % vocabulary
    sets = [(torch.randn(rows, width).requires_grad_(), torch.randn(vocabulary, width).requires_grad_())
            for _ in range(ROTATED // bytes_of_set + 1)]

    def run(hidden, embedding):
        logits = hidden @ embedding.T
        logits.detach().argmax(-1)
        torch.autograd.grad(F.cross_entropy(logits, labels), (hidden, embedding))

    return measure(run, sets)


if __name__ == "__main__":
    torch.set_num_threads(2)
    print(torch.__config__.show())
    for rows, width, out in ((65536, 64, 64), (65536, 64, 192), (8192, 512, 512)):
        for backward in (False, True):
            print(json.dumps({"work": "linear", "rows": rows, "in": width, "out": out, "backward": backward,
                              **linear(rows, width, out, backward)}), flush=True)
    for rows, width, out in ((1, 64, 64), (1, 512, 512), (16, 512, 512)):
        print(json.dumps({"work": "linear", "rows": rows, "in": width, "out": out, "backward": False,
                          **linear(rows, width, out, False)}), flush=True)
    print(json.dumps({"work": "tied head", "rows": 2048, "vocabulary": 8192, "width": 64, **head(2048, 8192, 64)}), flush=True)
