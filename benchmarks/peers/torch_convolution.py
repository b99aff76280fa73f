#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The work of benchmarks/convolution.cpp in PyTorch on the CPU: 65536 rows of 64 channels, float32, layout [B, D, L].

Usage: torch_convolution.py [--threads N] [--seconds S] [LENGTH ...]
Prints the configuration, then one JSON object per line: {"work", "L", "ms"}, forward plus backward, median and minimum.
"""
import argparse
import json
import math
import time

import torch
import torch.nn.functional as F

ROWS, WIDTH = 65536, 64


def long_convolution(x, taps):
    length = x.shape[-1]
    spectrum = torch.fft.rfft(x, n=2 * length) * torch.fft.rfft(taps, n=2 * length)
    return torch.fft.irfft(spectrum, n=2 * length)[..., :length]


def short_convolution(x, taps):
    return F.conv1d(x, taps, padding=taps.shape[-1] - 1, groups=WIDTH)[..., : x.shape[-1]]


def measure(work, taps, length, seconds):
    """Inputs, gradients and results of successive calls lie further apart than the last-level cache is large."""
    shape = (ROWS // length, WIDTH, length)
    sets = max(1, math.ceil((320 << 20) / (4 * 4 * ROWS * WIDTH)))
    inputs = [(torch.randn(shape).requires_grad_(), torch.randn(shape)) for _ in range(sets)]
    taps.requires_grad_()
    times, begin, turn = [], time.perf_counter(), 0
    while time.perf_counter() - begin < seconds or len(times) < 6:
        x, dy = inputs[turn % sets]
        turn += 1
        start = time.perf_counter()
        y = work(x, taps)
        torch.autograd.grad(y, (x, taps), dy)
        times.append(1e3 * (time.perf_counter() - start))
    times = sorted(times[2:])
    return times[len(times) // 2], times[0]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("lengths", type=int, nargs="*", default=[64, 128, 256, 512, 1024, 2048, 4096, 16384, 65536])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    print(torch.__version__, torch.__config__.show())
    print("threads", torch.get_num_threads())
    for length in options.lengths:
        median, least = measure(long_convolution, torch.randn(WIDTH, length) / length, length, options.seconds)
        print(json.dumps({"work": "long", "L": length, "ms": round(median, 3), "min_ms": round(least, 3)}), flush=True)
    median, least = measure(short_convolution, torch.randn(WIDTH, 1, 3), 1024, options.seconds)
    print(json.dumps({"work": "short K=3", "L": 1024, "ms": round(median, 3), "min_ms": round(least, 3)}), flush=True)


if __name__ == "__main__":
    main()
