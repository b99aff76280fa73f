#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The peer of benchmarks/cuda/cross_entropy.cu: F.cross_entropy(h @ E.T) and its gradients in eager PyTorch, bf16.

The table is a float parameter, rounded to bf16 each time; the arg max that a training report needs is taken too.
Usage: torch_cross_entropy.py    (needs a CUDA GPU)
"""
import itertools
import math

import torch
import torch.nn.functional as F

VOCABULARY = 8192


def median_ms(run, warmup=5, repeats=20):
    for _ in range(warmup):
        run()
    torch.cuda.synchronize()
    times = []
    for _ in range(repeats):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        stop.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(stop))
    return sorted(times)[len(times) // 2]


for width in (64, 128, 256, 512):
    for rows in (2048, 4096, 8192):
        count = math.ceil(240e6 / (rows * width * 4 + VOCABULARY * width * 8))
        labels = torch.arange(rows, device="cuda") * 7919 % VOCABULARY
        sets = itertools.cycle([(torch.randn(rows, width, device="cuda", dtype=torch.bfloat16, requires_grad=True),
                                 torch.randn(VOCABULARY, width, device="cuda").div_(math.sqrt(width)).requires_grad_())
                                for _ in range(count)])

        def forward(hidden, table):
            logits = hidden @ table.to(torch.bfloat16).T
            return F.cross_entropy(logits.float(), labels), logits.detach().argmax(-1)

        def only():
            with torch.no_grad():
                forward(*next(sets))

        def both():
            inputs = next(sets)
            torch.autograd.grad(forward(*inputs)[0], inputs)

        print(f"torch_cross_entropy_forward rows={rows},V={VOCABULARY},D={width} {median_ms(only):.4f}")
        print(f"torch_cross_entropy rows={rows},V={VOCABULARY},D={width} {median_ms(both):.4f}", flush=True)
