#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a user would otherwise run: PyTorch's own kernels for the mixers, timed with CUDA events (median).

Usage: torch_kernels.py [copy] [attention] [fftconv] [conv1d]   (all when none is named; needs a CUDA GPU)
Every line carries the memory floor (bytes that must move / measured copy bandwidth) where memory bounds the work.
"""
import itertools
import math
import sys
import torch
import torch.nn.functional as F

DEVICE = "cuda"
BF16 = torch.bfloat16


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


def forward_backward(call, make_inputs):
    """Median forward and backward time in ms of call(*inputs), rotating over at least 240 MB of inputs (the L2 holds 60 MB)."""
    first = make_inputs()
    size = sum(t.numel() * t.element_size() for t in first)
    sets = [first] + [make_inputs() for _ in range(math.ceil(240e6 / size) - 1)]
    turn = itertools.cycle(sets)
    forward = median_ms(lambda: call(*next(turn)), 3, 20)
    graphs = [(out, inputs, torch.randn_like(out)) for inputs in sets for out in [call(*inputs)]]
    turn = itertools.cycle(graphs)

    def back():
        out, inputs, grad = next(turn)
        torch.autograd.grad(out, inputs, grad, retain_graph=True)

    return forward, median_ms(back, 3, 20)


def copy_bandwidth():
    """Device-to-device copy in bytes/ms, read plus written."""
    source = torch.empty(4 * 2**30, dtype=torch.uint8, device=DEVICE).random_()
    target = torch.empty_like(source)
    return 2 * source.numel() / median_ms(lambda: target.copy_(source))


def attention():
    from torch.nn.attention import SDPBackend, sdpa_kernel
    print("causal attention, bf16, 16K tokens, width 2048: TFLOP/s forward, backward (2.5x the forward's count)")
    for head_dim in (64, 128):
        heads = 2048 // head_dim
        for length in (512, 1024, 2048, 4096, 8192, 16384, 65536):
            batch = max(1, 16384 // length)

            def make(shape=(batch, heads, length, head_dim)):
                return tuple(torch.randn(shape, device=DEVICE, dtype=BF16, requires_grad=True) for _ in range(3))

            flop = 2 * batch * heads * length**2 * head_dim
            for name, backend in (("flash", SDPBackend.FLASH_ATTENTION), ("cudnn", SDPBackend.CUDNN_ATTENTION)):
                with sdpa_kernel([backend]):
                    fwd, bwd = forward_backward(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), make)
                print(f"  L={length} head_dim={head_dim} B={batch} {name}: {fwd:.3f} ms {flop / fwd / 1e9:.0f}, {bwd:.3f} ms {2.5 * flop / bwd / 1e9:.0f}", flush=True)


CONV_SHAPES = ((128, 64, 768), (256, 64, 768), (512, 64, 768), (1024, 64, 768), (2048, 64, 768), (4096, 64, 768),
               (8192, 32, 768), (16384, 16, 768), (65536, 4, 768), (524288, 1, 384))


def causal_fft_convolution(u, k):
    length = u.shape[-1]
    spectrum = torch.fft.rfft(u.float(), n=2 * length) * torch.fft.rfft(k, n=2 * length)
    return torch.fft.irfft(spectrum, n=2 * length)[..., :length].to(u.dtype)


def fftconv(bandwidth):
    print("causal long convolution by torch.fft, bf16 in and out, [B, D, L]: ms")
    for length, batch, width in CONV_SHAPES:
        def make(shape=(batch, width, length)):
            return (torch.randn(shape, device=DEVICE, dtype=BF16, requires_grad=True),
                    (torch.randn(shape[1:], device=DEVICE) / shape[2]).requires_grad_())

        fwd, bwd = forward_backward(causal_fft_convolution, make)
        floor = (4 * batch + 4) * width * length / bandwidth  # bf16 in and out, float taps
        print(f"  L={length} B={batch} D={width}: forward {fwd:.3f} backward {bwd:.3f}; memory floor forward {floor:.3f}", flush=True)


def conv1d(bandwidth):
    print("causal short convolution (width 4) by conv1d, bf16, [B, D, L]: ms")
    for batch, length, width in ((64, 1024, 768), (8, 16384, 2048), (512, 128, 128)):
        def make(shape=(batch, width, length)):
            return (torch.randn(shape, device=DEVICE, dtype=BF16, requires_grad=True),
                    torch.randn(shape[1], 1, 4, device=DEVICE, dtype=BF16, requires_grad=True))

        fwd, bwd = forward_backward(lambda x, w: F.conv1d(x, w, padding=3, groups=width)[..., :length], make)
        size = batch * width * length
        print(f"  B={batch} L={length} D={width}: forward {fwd:.3f} backward {bwd:.3f}; memory floor forward {4 * size / bandwidth:.3f} backward {6 * size / bandwidth:.3f}", flush=True)


if __name__ == "__main__":
    chosen = sys.argv[1:] or ["copy", "attention", "fftconv", "conv1d"]
    rate = copy_bandwidth()
    print(f"copy {rate / 1e6:.0f} GB/s")
    if "attention" in chosen:
        attention()
    if "fftconv" in chosen:
        fftconv(rate)
    if "conv1d" in chosen:
        conv1d(rate)
