#!/usr/bin/env python3
"""The numbers of docs/scaling.md: Qwen2-7B with eight replicas on 8, 64 and 1,024 GPUs, projected.

Measured figures and assumptions stand at the top; every formula is a line below. Run it to get the tables again.
"""
from math import log2

# Qwen2-7B, prefixes of 48 tokens, no cross-replica attention.
LAYERS, HIDDEN, HEADS, KV_HEADS, HEAD, INNER, VOCABULARY, PREFIX = 28, 3584, 28, 4, 128, 18944, 152064, 48

# Measured on H100s (bench/results): what a sharded step of Qwen2-1.5B on two of them makes of its model FLOPs (MFU 0.487
# of 989 TFLOP/s), the links at 1 GiB, AdamW at 1.25 of a copy's time at 3.0 TB/s.
FLOPS = 0.487 * 989e12
GATHER, REDUCE = 255e9, 274e9  # bytes a second that a GPU receives
ADAMW = 3.0e12 / 1.25
# Assumed, not measured: a network card of 400 Gb/s a GPU at 90%, and how long a message takes on its way.
NETWORK = 45e9
RING_STEP, TREE_STEP = 5e-6, 30e-6
HOST = 8  # GPUs of a host


class Model:
    """Parameters, and model FLOPs of one row's forward pass (include/parscale/train/flops.hpp); the backward pass takes
    twice as many."""

    def __init__(self, replicas, tokens):
        self.replicas, self.tokens = replicas, tokens
        products = HIDDEN * (HEADS + 2 * KV_HEADS) * HEAD + HEADS * HEAD * HIDDEN + 3 * HIDDEN * INNER
        small = 2 * HIDDEN + (HEADS + 2 * KV_HEADS) * HEAD
        prefix = 2 * replicas * KV_HEADS * PREFIX * HEAD if replicas > 1 else 0
        merge = replicas * HIDDEN * HIDDEN + HIDDEN + HIDDEN * replicas + replicas if replicas > 1 else 0
        self.layer = products + small + prefix
        self.embedding = VOCABULARY * HIDDEN
        self.top = VOCABULARY * HIDDEN + HIDDEN + merge
        self.all = self.embedding + LAYERS * self.layer + self.top
        seen = tokens / 2 + (PREFIX if replicas > 1 else 0)
        self.layer_forward = 2 * tokens * replicas * (products + 2 * HEADS * HEAD * seen)
        self.top_forward = 2 * tokens * (VOCABULARY * HIDDEN + merge)


class Links:
    """Seconds that a collective over `elements` takes. Inside a host: NVLink. `hosts` sharing one model in full: the
    network brings every host all bytes once, and a ring has as many steps as GPUs."""

    def __init__(self, hosts):
        self.hosts, self.gpus = hosts, hosts * HOST

    def one_way(self, count, rate):
        inside = count * (HOST - 1) / HOST / rate
        if self.hosts == 1:
            return inside
        return max(inside, count * (self.hosts - 1) / self.hosts / (HOST * NETWORK)) + (self.gpus - 1) * RING_STEP

    def gather(self, elements):  # bfloat16
        return self.one_way(2 * elements, GATHER)

    def reduce(self, elements):  # float32
        return self.one_way(4 * elements, REDUCE)


def across(elements, hosts):
    """All-reduce of one GPU's parts with those of the same place on other hosts."""
    if hosts == 1:
        return 0
    return 2 * 4 * elements / HOST * (hosts - 1) / hosts / NETWORK + 2 * log2(hosts) * TREE_STEP


def one_pass(model, links, hosts, recompute, last):
    """Seconds of computing and seconds that nothing hides, of a micro-batch of one row. `hosts` hold copies."""
    forward = model.layer_forward / FLOPS
    backward = (3 if recompute else 2) * forward
    gather, reduce = links.gather(model.layer), links.reduce(model.layer)
    exposed = links.gather(model.embedding) + gather  # before the first layer
    exposed += (LAYERS - 1) * max(0, gather - forward)
    exposed += max(0, links.gather(model.top) - forward)
    exposed += max(0, links.reduce(model.top) + gather - backward)
    exposed += (LAYERS - 1) * max(0, gather + reduce - backward)
    exposed += reduce + links.reduce(model.embedding)  # after the last
    if last:  # copies on other hosts are added beside the backward pass, as far as the cards keep up
        exposed += max(0, across(model.all, hosts) - LAYERS * backward)
    return LAYERS * (forward + backward) + 3 * model.top_forward / FLOPS, exposed


def step(model, gpus, hybrid, rows, recompute):
    """(computing, exposed, update) of a step over `rows`; who has no share walks along."""
    hosts = gpus // HOST
    links = Links(1 if hybrid else hosts)
    passes = -(-rows // gpus)
    compute = exposed = 0
    for i in range(passes):
        c, e = one_pass(model, links, hosts if hybrid else 1, recompute, i + 1 == passes)
        compute, exposed = compute + c, exposed + e
    return compute, exposed, 30 * model.all / (HOST if hybrid else gpus) / ADAMW


def table(title, model, rows, recompute, worlds=(8, 64, 1024)):
    """`rows` of a step; 0: one a GPU."""
    print(f"\n{title}\n")
    print("| GPUs | shared | computing, s | not hidden, s | update, s | step, s | rows a s | of linear |")
    print("|---|---|---|---|---|---|---|---|")
    first = None
    for gpus in worlds:
        for hybrid in (True, False):
            if gpus == HOST and hybrid:
                continue
            batch = rows or gpus
            compute, exposed, update = step(model, gpus, hybrid, batch, recompute)
            whole = compute + exposed + update
            first = first or batch / whole / gpus
            how = "in full" if not hybrid else "inside hosts (hybrid)"
            print(f"| {gpus:,} | {how} | {compute:.3f} | {exposed:.3f} | {update:.3f} | {whole:.3f} "
                  f"| {batch / whole:,.1f} | {batch / whole / gpus / first:.0%} |")


def needed(links):
    """Tokens x replicas a GPU and pass at which the backward of a layer hides its collectives; without latency."""
    unit = 10**9
    latency = links.gather(0) + links.reduce(0)
    return (links.gather(unit) + links.reduce(unit) - latency) * FLOPS / (4 * unit)


if __name__ == "__main__":
    eight = Model(8, 2048)
    print(f"Parameters: {eight.all / 1e9:.2f} billion, {eight.layer / 1e6:.0f} million a layer, "
          f"{eight.top / 1e6:.0f} million in the top")
    milli = 1e3 / FLOPS
    print(f"A layer, one row: forward {milli * eight.layer_forward:.1f} ms, backward "
          f"{2 * milli * eight.layer_forward:.1f} ms; inside a host gather {1e3 * Links(1).gather(eight.layer):.1f} ms, "
          f"reduce {1e3 * Links(1).reduce(eight.layer):.1f} ms")
    print(f"All gradients across 8 and 128 hosts: {across(eight.all, 8):.3f} s, {across(eight.all, 128):.3f} s")
    print(f"Tokens x replicas that hide a layer's collectives: {needed(Links(1)):,.0f} inside a host, "
          f"{needed(Links(128)):,.0f} over 128 hosts and the time of {2 * 1023} steps of a ring")
    table("P = 8, weak scaling: one row of 2,048 tokens a GPU", eight, 0, False)
    table("P = 8, strong scaling: 512 rows (1.0 million tokens) a step", eight, 512, False, (8, 64, 512, 1024))
    table("P = 1, weak scaling: one row of 2,048 tokens a GPU", Model(1, 2048), 0, False)
