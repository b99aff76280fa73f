#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures our benchmarks and their PyTorch peers in one run and prints the ratios, the table of docs/performance.md.

Usage: compare.py --python PYTHON [--build FOLDER] [--seconds S] [--json FILE] [convolution|attention|matrix_product|
                  training_step|memory|decoding ...]
PYTHON is an interpreter with torch. Programs are taken from FOLDER/benchmarks (build/cpu-release). Each program runs by
itself, ours and then its peer, both with two threads (decoding: one); nothing else should run. A row is the median of ours
(Google Benchmark, five repetitions) against the median of the peer.
"""
import argparse
import json
import pathlib
import subprocess

HERE = pathlib.Path(__file__).resolve().parent


def attention(length):
    return {"work": "causal attention", "path": "FLASH_ATTENTION", "batch": 1, "heads": 8, "length": length, "backward": True}


def linear(rows, width, out):
    return {"work": "linear", "rows": rows, "in": width, "out": out, "backward": True}


# label, our benchmark's name, the peer's fields, at least, aim
ROWS = {
    "convolution": [(f"long convolution, L = {n}", f"all/long_both/{n}", {"work": "long", "L": n}, 4 if n <= 4096 else 3, 10 if n <= 4096 else 6)
                    for n in (128, 256, 512, 1024, 2048, 4096, 16384, 65536)]
    + [("short convolution, K = 3", "all/short_both/1024", {"work": "short K=3"}, 4, 8)],
    "attention": [(f"causal attention, 8 x 64, L = {n}", f"attention_step<Dense>/sequences:1/length:{n}/heads:8/backward:1", attention(n), 1, 2)
                  for n in (512, 2048)]
    + [("RepeatedBigrams<4> against dense, L = 8192", "attention_step<RepeatedBigrams<4>>/sequences:1/length:8192/heads:8/backward:1",
        attention(8192), 50, 200)],
    "matrix_product": [(f"linear [{r}, {i}] x [{i}, {o}]", f"linear_step/rows:{r}/in:{i}/out:{o}/backward:1", linear(r, i, o), 0.8, 1)
                       for r, i, o in ((65536, 64, 64), (65536, 64, 192), (8192, 512, 512))],
    "training_step": [(f"training step, {m}{' (labels only)' if l else ''}", f"training_step/{m}", {"work": f"training_step/{m}{l}"}, 2 if l else 6, 15)
                      for m in ("attention", "coyote") for l in ("", "/labels")],
    "decoding": [(f"decoding, {m}", f"decoding/{m}", {"work": f"decoding/{m}"}, 20, None) for m in ("coyote", "rwkv", "bigrams")],
}
PEERS = {"convolution": ("torch_convolution.py", "--seconds"), "attention": ("torch_attention.py", None), "matrix_product": ("torch_matmul.py", None),
         "training_step": ("torch_training_step.py", None), "decoding": ("torch_decoding.py", None)}


def ours(program, names, seconds):
    pattern = "|".join("^" + name + "(/|$)" for name in names)
    out = subprocess.run([program, f"--benchmark_filter={pattern}", "--benchmark_repetitions=5", f"--benchmark_min_time={seconds / 5}",
                          "--benchmark_format=json"], check=True, capture_output=True, text=True).stdout
    result = {}
    for b in json.loads(out)["benchmarks"]:
        if b.get("aggregate_name") == "median":
            unit = {"ns": 1e-6, "us": 1e-3, "ms": 1}[b["time_unit"]]
            result[b["run_name"]] = b["real_time"] * unit
    return {name: next((t for run, t in result.items() if run == name or run.startswith(name + "/")), None) for name in names}


def lines_of(command):
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def milliseconds(line):
    return line.get("median_ms", line.get("ms", line.get("ns", 0) * 1e-6))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True)
    parser.add_argument("--build", default=HERE.parent / "build/cpu-release", type=pathlib.Path)
    parser.add_argument("--seconds", default=2.0, type=float)
    parser.add_argument("--json")
    parser.add_argument("which", nargs="*", choices=[*ROWS, "memory", []])
    options = parser.parse_args()
    print(subprocess.run([options.python, "-c", "import torch; print('PyTorch', torch.__version__); print(torch.__config__.show())"],
                         check=True, capture_output=True, text=True).stdout)
    table = []
    print("| work | coyote, ms | PyTorch, ms | ratio | at least | aim |\n| --- | --- | --- | --- | --- | --- |", flush=True)
    for which in options.which or [*ROWS, "memory"]:
        if which == "memory":
            continue
        measured = ours(options.build / "benchmarks" / which, [row[1] for row in ROWS[which]], options.seconds)
        script, flag = PEERS[which]
        peer = lines_of([options.python, HERE / "peers" / script] + ([flag] if flag else []) + [str(options.seconds)])
        for label, name, fields, least, aim in ROWS[which]:
            theirs = next((milliseconds(line) for line in peer if all(line.get(k) == v for k, v in fields.items())), None)
            mine = measured[name]
            ratio = theirs / mine if mine and theirs else float("nan")
            table.append({"work": label, "coyote_ms": mine, "torch_ms": theirs, "ratio": ratio, "at_least": least, "aim": aim})
            print(f"| {label} | {mine:.4g} | {theirs:.4g} | {ratio:.2f} | {least} | {aim or '–'} |", flush=True)
    if not options.which or "memory" in options.which:
        print("\n| peak memory of three training steps | coyote, MB | PyTorch, MB | share |\n| --- | --- | --- | --- |")
        for model in ("attention", "coyote"):
            mine = lines_of([options.build / "benchmarks/training_step", f"--memory={model}"])[0]["megabytes"]
            for labels in ([], ["labels"]):
                theirs = lines_of([options.python, HERE / "peers/torch_training_step.py", "--memory", model, *labels])[0]["megabytes"]
                print(f"| {model}{' (PyTorch: logits at the labels only)' if labels else ''} | {mine:.0f} | {theirs:.0f} | {mine / theirs:.2f} |", flush=True)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
