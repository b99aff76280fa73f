#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/theory/vectors.txt, what the Python prototypes of the theory compute, for prototypes_test.cpp to agree with.

Usage: make_vectors.py PROTOTYPES > vectors.txt      PROTOTYPES: the folder with coyote_core.py and p06_mqar_coyote.py

Every line is a kind and integers:
  layer CYCLIC N D  W[D*D] K[N*D] b1[N*D] b2[N*D] u[N*D] y[N*D]      one layer modulo 998244353, row-major
  recall N  keys values queries  latest[N] first[N] sum[N]           aligned MQAR under its three rules, 0 without an answer
  size KIND N A B CYCLIC  LAYERS LENGTH WIDTH                        inner sizes; KIND 0 table(c, mv), 1 lag unfold(l, mv),
                                                                     2 scalar tokens, 3 sort and scan(l, mv)
"""
import contextlib
import io
import random
import sys

sys.path.insert(0, sys.argv[1])
with contextlib.redirect_stdout(io.StringIO()):
    import coyote_core as core
    import p06_mqar_coyote as p06

draw = random.Random(2024)


def emit(kind, *parts):
    numbers = []
    for part in parts:
        numbers += [int(x) for x in part.flat] if hasattr(part, "flat") else [int(x) for x in part] if isinstance(part, (list, tuple)) else [int(part)]
    print(kind, *numbers)


for _ in range(24):
    cyclic, n, d = draw.random() < 0.5, draw.randint(1, 7), draw.randint(1, 4)
    w, k, b1, b2, u = (core.rnd(shape, draw) for shape in ((d, d), (n, d), (n, d), (n, d), (n, d)))
    emit("layer", cyclic, n, d, w, k, b1, b2, u, core.dense_apply(w, k, b1, b2, u, cyclic, core.P))
for _ in range(40):
    n, c = draw.randint(1, 9), draw.randint(1, 6)
    keys, values, queries = ([draw.randrange(c) for _ in range(n)], [draw.randint(1, 9) for _ in range(n)], [draw.randrange(c + 1) for _ in range(n)])
    emit("recall", n, keys, values, queries, *(core.mqar_aligned(keys, values, queries, which=rule) for rule in ("last", "first", "sum")))
for n, c, mv in ((3, 2, 1), (5, 4, 3), (9, 6, 2)):
    layers, d = p06.M0(n, c, mv)
    emit("size", 0, n, c, mv, 0, len(layers), n, d)
for n, l, mv in ((3, 1, 1), (4, 2, 3), (6, 3, 2), (5, 5, 1)):
    layers, d = p06.M1(n, l, mv)
    emit("size", 1, n, l, mv, 0, len(layers), n, d)
for n in (2, 3, 5):
    layers, d = p06.M2(n)
    emit("size", 2, n, 0, 0, 0, len(layers), n, d)
for n, l, mv in ((2, 1, 1), (4, 3, 2), (8, 4, 3), (16, 5, 4)):
    for cyclic in (True, False):
        layers, inner = p06.M3(n, l, mv, cyclic)
        emit("size", 3, n, l, mv, cyclic, len(layers), inner["N2"], inner["d"])
