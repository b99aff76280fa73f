#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The peer of attention.cpp: PyTorch's scaled_dot_product_attention, causal, float, two threads, each CPU path.

Usage: torch_attention.py [seconds per case]
Prints PyTorch's configuration, then one JSON line per case and path: median and least milliseconds. The layout is
PyTorch's own best, [batch, heads, length, 64].
"""
import itertools
import json
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

ROTATED = 300 << 20
SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0


def measure(run, sets):
    turn = itertools.cycle(sets)
    for _ in range(2):
        run(*next(turn))
    times = []
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(times) < 3:
        inputs = next(turn)
        start = time.perf_counter()
        run(*inputs)
        times.append((time.perf_counter() - start) * 1e3)
    return {"median_ms": round(statistics.median(times), 4), "least_ms": round(min(times), 4), "runs": len(times)}


def attention(batch, heads, length, backward):
    shape = (batch, heads, length, 64)
    bytes_of_set = 8 * batch * heads * length * 64 * 4
    sets = [tuple(torch.randn(shape).requires_grad_(backward) for _ in range(3)) + (torch.randn(shape),)
            for _ in range(ROTATED // bytes_of_set + 1)]

    def run(q, k, v, dy):
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        if backward:
            torch.autograd.grad(y, (q, k, v), dy)

    return measure(run, sets)


if __name__ == "__main__":
    torch.set_num_threads(2)
    print(torch.__config__.show())
    for batch, heads, length in ((1, 8, 512), (1, 8, 2048), (512, 1, 64), (1, 8, 8192)):
        for backward in (False, True):
            for path in (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH):
                if path == SDPBackend.MATH and length > 2048:
                    continue  # several gigabytes, and never the best
                with sdpa_kernel([path]):
                    print(json.dumps({"work": "causal attention", "path": path.name, "batch": batch, "heads": heads, "length": length,
                                      "backward": backward, **attention(batch, heads, length, backward)}), flush=True)
