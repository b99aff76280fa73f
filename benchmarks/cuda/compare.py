#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The Cuda backend beside PyTorch on one GPU, in one run: a table for people, JSON for programs, an SVG to look at.

Usage: compare.py --programs FOLDER [--only convolution attention short training loss decoding] [--json FILE] [--svg FILE]
FOLDER holds the programs cuda_*, as CMake builds them (build/cuda-release/benchmarks/cuda). Needs a python3 with torch.
"""
import argparse
import json
import math
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
PEERS = HERE.parent / "peers"


def lines_of(command):
    print("$", *command, file=sys.stderr, flush=True)
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        print(f"{command[0]} ended with {done.returncode}; its rows are missing", file=sys.stderr)
    return done.stdout.splitlines()


def at_least(bound):
    """What is asked of PyTorch's time over ours."""
    return bound and {"of": "ratio", "least": bound}


def at_most(bound, of="floor"):
    """What is asked of our time over another: the floor, or one of `row`'s others."""
    return bound and {"of": of, "most": bound}


def row(work, ours, peer, floor=None, asked=None, unit="ms", **others):
    return {"work": work, "ours": ours, "peer": peer, "floor": floor, "asked": asked, "unit": unit, **others}


def measured(r, of):
    """A row's figure of the kind that something may be asked of."""
    if not r[of if of != "ratio" else "peer"]:
        return None
    return r["peer"] / r["ours"] if of == "ratio" else r["ours"] / r[of]


def met(r):
    value = measured(r, r["asked"]["of"])
    return value >= r["asked"]["least"] if "least" in r["asked"] else value <= r["asked"]["most"]


def first(bounds, value):
    """The bound of the first entry whose limit `value` does not exceed."""
    return next((bound for limit, bound in bounds if value <= limit), None)


FORWARD = ((512, 16), (1024, 14), (2048, 9), (4096, 5), (8192, 4.5), (16384, 4), (1 << 30, 3))
ROWS = ((512, 10), (1024, 6), (16384, 3.5))
BACKWARD = ((512, 10), (1024, 8), (2048, 5), (16384, 3), (1 << 30, 2.5))


def convolution(programs):
    peers = {}
    for line in lines_of(["python3", PEERS / "torch_kernels.py", "fftconv"]):
        if found := re.match(r"\s+L=(\d+) .*forward ([\d.]+) backward ([\d.]+)", line):
            peers[int(found[1])] = float(found[2]), float(found[3])
    plain = None  # the time and the floor of the last row without a gate
    for line in lines_of([programs / "cuda_long_convolution"]):
        found = re.match(r"conv_(forward|backward)_(channel_major|rows|rows_gated) L=(\d+),B=(\d+),D=(\d+) ([\d.]+) ([\d.]+)", line)
        if not found or int(found[3]) not in peers:
            continue
        way, layout, length = found[1], found[2], int(found[3])
        time, floor = float(found[6]), float(found[7])
        if layout == "rows_gated":
            # A gate's bytes are what it adds to the floor.
            parts = plain[0] + floor - plain[1]
            asked = at_most(1.1, "plain_and_gate") if way == "forward" and length <= 512 else None
            yield row(f"long convolution {way}, gated, [B, L, D], L = {length}", time, None, floor, asked, plain_and_gate=parts)
            continue
        plain = time, floor
        least = first(BACKWARD, length) if way == "backward" else first(FORWARD if layout == "channel_major" else ROWS, length)
        if way == "backward" and layout == "rows":
            least = None
        name = f"long convolution {way}, {'[B, D, L]' if layout == 'channel_major' else '[B, L, D]'}, L = {length}"
        yield row(name, time, peers[length][way == "backward"], floor, at_least(least))


def attention(programs):
    peers = {}
    for line in lines_of(["python3", PEERS / "torch_kernels.py", "attention"]):
        if found := re.match(r"\s+L=(\d+) head_dim=(\d+) B=\d+ (\w+): ([\d.]+) ms \d+, ([\d.]+) ms", line):
            peers[found[3], int(found[1]), int(found[2])] = float(found[4]), float(found[5])
    for line in lines_of([programs / "cuda_attention"]):
        found = re.match(r"attention_(forward|backward) L=(\d+),head=(\d+),B=\d+,H=\d+ ([\d.]+) floor ([\d.]+)", line)
        if found:
            for name, least in (("flash", 1), ("cudnn", None)):
                if (peer := peers.get((name, int(found[2]), int(found[3])))) is not None:
                    work = f"attention {found[1]}, head {found[3]}, L = {found[2]}, against {name}"
                    yield row(work, float(found[4]), peer[found[1] == "backward"], None, at_least(least))
        found = re.match(r"repeated_bigrams_4_(forward|backward) L=65536,\S+ ([\d.]+) floor ([\d.]+)", line)
        if found and ("cudnn", 65536, 128) in peers:
            peer = peers["cudnn", 65536, 128][found[1] == "backward"]
            yield row(f"RepeatedBigrams<4> {found[1]}, 16 x 128, L = 65536, against cudnn's dense", float(found[2]), peer, float(found[3]))


FLOORS = ((r"short convolution bf16.* forward", 1.3), (r"short convolution bf16.* backward", 1.5), (r"wkv \w+ forward", 1.7))


def short(programs):
    for line in lines_of([programs / "cuda_recurrences"]):
        if found := re.match(r"empty launch\s+([\d.]+) ms", line):
            yield row("an empty launch between two events", float(found[1]), None)
        found = re.match(r"((?:copy|short convolution|wkv|layer norm).*?)\s+(B=\d+ L=\d+ D=\d+)\s+([\d.]+) ms\s+floor\s+([\d.]+)", line)
        if found:
            asked = next((most for start, most in FLOORS if re.match(start, found[1])), None)
            yield row(f"{found[1]}, {found[2]}", float(found[3]), None, float(found[4]), at_most(asked))


def training(programs):
    peers = {}
    number = r"([\d.]+)"
    for line in lines_of(["python3", PEERS / "torch_mqar.py", "step"]):
        if found := re.match(rf"L=(\d+) D=(\d+) batch=\d+: ms/step attention {number}, coyote {number}; peak MB attention {number}, coyote {number}", line):
            times = [float(x) for x in found.groups()[2:]]
            peers["attention", int(found[1]), int(found[2])] = times[0], times[2]
            peers["coyote", int(found[1]), int(found[2])] = times[1], times[3]
    for line in lines_of([programs / "cuda_training_step_attention"]) + lines_of([programs / "cuda_training_step_coyote"]):
        found = re.match(rf"training_step (\w+) L=(\d+),B=\d+,D=(\d+) {number} ms; device memory {number} MB", line)
        if found and (key := (found[1], int(found[2]), int(found[3]))) in peers:
            work = f"training step, {found[1]}, L = {found[2]}, D = {found[3]}"
            yield row(work, float(found[4]), peers[key][0], None, at_least({64: 20, 512: 8}.get(key[2])))
            if key[1] == 512 and key[2] in (64, 512):
                yield row(f"memory of a {work}", float(found[5]), peers[key][1], None, at_least(3 if key[2] == 512 else None), "MB")


def loss(programs):
    peers = {}
    for line in lines_of(["python3", PEERS / "torch_cross_entropy.py"]):
        if found := re.match(r"torch_(cross_entropy(?:_forward)?) (\S+) ([\d.]+)", line):
            peers[found[1], found[2]] = float(found[3])
    for line in lines_of([programs / "cuda_cross_entropy"]):
        found = re.match(r"(cross_entropy(?:_forward)?) (\S+) ([\d.]+) ([\d.]+)", line)
        if found and (found[1], found[2]) in peers:
            yield row(f"{found[1].replace('_', ' ')}, {found[2]}", float(found[3]), peers[found[1], found[2]], float(found[4]))


def decoding(programs):
    peers = {}
    for line in lines_of(["python3", PEERS / "torch_decoding_cuda.py"]):
        if found := re.match(r"torch_decoding (\w+) sequences=(\d+) ([\d.]+) us", line):
            peers[found[1], found[2]] = float(found[3])
    for line in lines_of([programs / "cuda_decoding"]):
        if found := re.match(r"decoding (\w+) sequences=(\d+),position=(\d+) ([\d.]+) us", line):
            work = f"decoding, {found[1]}, {found[2]} sequences at position {found[3]}"
            yield row(work, float(found[4]), peers.get((found[1], found[2])), None, at_least(20), "us")


def table(rows):
    yield "| work | coyote | PyTorch | ratio | x floor | asked |"
    yield "| --- | --- | --- | --- | --- | --- |"
    number = lambda value: f"{value:.2f}" if value else "–"
    for r in rows:
        asked = "–"
        if r["asked"]:
            of, bound = r["asked"]["of"], f">= {r['asked']['least']:g}" if "least" in r["asked"] else f"<= {r['asked']['most']:g}"
            asked = f"{bound} x" if of == "ratio" else f"{bound} {of.replace('_', ' ')}"
            if measured(r, of) is not None and of not in ("ratio", "floor"):
                asked += f": {measured(r, of):.2f}"
        peer = f"{r['peer']:.4g} {r['unit']}" if r["peer"] else "–"
        yield (f"| {r['work']} | {r['ours']:.4g} {r['unit']} | {peer} | {number(measured(r, 'ratio'))} | {number(measured(r, 'floor'))} | "
               f"{asked} |")


def svg(rows):
    """Ratios to PyTorch as bars on a logarithmic scale, with a mark at what was asked; rows of which nothing was asked are left out."""
    rows = [r for r in rows if r["peer"] and r["asked"] and r["asked"]["of"] == "ratio"]
    place = lambda ratio: 430 + 110 * math.log10(max(ratio, 0.1) / 0.1)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 820 {18 * len(rows) + 60}" font-family="sans-serif" font-size="11">',
           '<rect width="100%" height="100%" fill="white"/>',
           '<text x="10" y="18" font-size="13">Times of PyTorch over times of coyote (1 = equal), same GPU, same run</text>']
    for ratio in (0.1, 1, 10, 100):
        out.append(f'<line x1="{place(ratio):.0f}" x2="{place(ratio):.0f}" y1="28" y2="{18 * len(rows) + 40}" stroke="#ccc"/>'
                   f'<text x="{place(ratio):.0f}" y="{18 * len(rows) + 54}" text-anchor="middle" fill="#555">{ratio:g}</text>')
    for n, r in enumerate(rows):
        y, ratio, least = 34 + 18 * n, measured(r, "ratio"), place(r["asked"]["least"])
        colour = "#27a" if met(r) else "#b33"
        out.append(f'<text x="424" y="{y + 10}" text-anchor="end">{r["work"]}</text>'
                   f'<rect x="430" y="{y}" width="{max(place(ratio) - 430, 1):.0f}" height="12" fill="{colour}"/>'
                   f'<text x="{place(ratio) + 4:.0f}" y="{y + 10}" fill="#333">{ratio:.3g}</text>')
        out.append(f'<line x1="{least:.0f}" x2="{least:.0f}" y1="{y - 2}" y2="{y + 14}" stroke="black"/>')
    return "\n".join(out + ["</svg>\n"])


def main():
    parts = {f.__name__: f for f in (convolution, attention, short, training, loss, decoding)}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=pathlib.Path, required=True)
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--json")
    parser.add_argument("--svg")
    options = parser.parse_args()
    rows = []
    for name in options.only:
        rows += parts[name](options.programs)
        if options.json:
            pathlib.Path(options.json).write_text(json.dumps(rows, indent=1) + "\n")
    print("\n".join(table(rows)))
    if options.svg:
        pathlib.Path(options.svg).write_text(svg(rows))


if __name__ == "__main__":
    main()
