"""PyTorch's time for the operations of ops_benchmark.cpp, in milliseconds:  python3 ops_torch.py [FILTER] [--threads 2]

Names are those of the benchmark. Gradients are timed as the products that autograd runs."""

import argparse
import time

import torch
import torch.nn.functional as F

SHAPES = {"small": (4096, 256, 704, 4, 2, 48), "layer": (4096, 896, 4864, 14, 2, 48)}
D = 64


def milliseconds(call):
    call()
    best, begin = float("inf"), time.perf_counter()
    while time.perf_counter() - begin < 0.15:
        t = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - t)
    return best * 1e3


def backward(out, inputs):
    grad = torch.randn_like(out)
    return lambda: torch.autograd.grad(out, inputs, grad, retain_graph=True)


def rotated(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-b, a), dim=-1) * sin


def norm(x, gain):
    return gain * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


def linears(rows, h, i, a, g):
    for name, inner, cols, bias in (("qkv", h, (a + 2 * g) * D, True), ("o", a * D, h, False),
                                    ("gate_up", h, 2 * i, False), ("down", i, h, False)):
        x, w, d = torch.randn(rows, inner), torch.randn(cols, inner), torch.randn(rows, cols)
        b, add = (torch.randn(cols), None) if bias else (None, torch.randn(rows, cols))
        residual = name in ("o", "down")
        yield name, lambda: F.linear(x, w, b).add_(add) if residual else F.linear(x, w, b)
        yield name + "_dx", lambda: d @ w
        grad = torch.zeros_like(w)
        yield name + "_dw", lambda: (grad.copy_(d.t() @ x), d.sum(0) if bias else None)


def attention(p, b, s, a, g, t):
    q = torch.randn(p * b, a, s, D, requires_grad=True)
    k, v = (torch.randn(p * b, g, s, D, requires_grad=True) for _ in range(2))
    pk, pv = (torch.randn(p, g, t, D, requires_grad=True) for _ in range(2))

    def attend():
        kk, vv = k, v
        if t:
            kk, vv = (torch.cat((x.repeat_interleave(b, 0), y), 2) for x, y in ((pk, k), (pv, v)))
        kk, vv = kk.repeat_interleave(a // g, 1), vv.repeat_interleave(a // g, 1)
        mask = None if not t else torch.ones(s, s + t, dtype=torch.bool).tril(t)
        out = F.scaled_dot_product_attention(q, kk, vv, attn_mask=mask, is_causal=mask is None)
        return out.transpose(1, 2).reshape(p * b, s, a * D)

    def forward():
        with torch.no_grad():
            attend()

    yield "attend", forward
    yield "attend_backward", backward(attend(), (q, k, v) + ((pk, pv) if t else ()))


def train(p, v, h, i, a, g, t):
    b, s = 4, 256
    rows, t = p * b * s, t if p > 1 else 0
    yield from linears(rows, h, i, a, g)
    yield from attention(p, b, s, a, g, t)
    x, gain = torch.randn(rows, h, requires_grad=True), torch.randn(h, requires_grad=True)
    yield "rms_norm", lambda: norm(x.detach(), gain.detach())
    yield "rms_norm_backward", backward(norm(x, gain), (x, gain))
    gate, up = (torch.randn(rows, i, requires_grad=True) for _ in range(2))
    yield "gated_mlp", lambda: F.silu(gate.detach()) * up.detach()
    yield "gated_mlp_backward", backward(F.silu(gate) * up, (gate, up))
    qk, cos, sin = torch.randn(p * b, a + g, s, D), torch.randn(s, D), torch.randn(s, D)
    yield "rotate", lambda: rotated(qk, cos, sin)
    y, w = torch.randn(b * s, h, requires_grad=True), (0.1 * torch.randn(v, h)).requires_grad_()
    targets = torch.randint(0, v, (b * s,))
    yield "head_loss", lambda: torch.autograd.grad(F.cross_entropy(y @ w.t(), targets), (y, w))
    table = torch.randn(v, h, requires_grad=True)
    yield "embed_backward", backward(F.embedding(targets, table).repeat(p, 1), (table,))
    n = h * ((a + 2 * g) * D + a * D + 3 * i)
    weight = torch.randn(n, requires_grad=True)
    weight.grad = torch.randn(n)
    adamw = torch.optim.AdamW([weight], lr=1e-3, fused=True)
    yield "adamw_layer", adamw.step
    yield "sum_of_squares_layer", lambda: weight.grad.pow(2).sum()
    streams, scores = torch.randn(b * s, p, h, requires_grad=True), torch.randn(b * s, p, requires_grad=True)
    probe = torch.randn(b * s, h)
    yield "merge_both", lambda: torch.autograd.grad(
        (streams * torch.softmax(scores, -1).unsqueeze(-1)).sum(1), (streams, scores), probe)


def decode(p, v, h, i, a, g, t):
    for name, call in linears(p, h, i, a, g):
        if "_" not in name or name == "gate_up":
            yield name, call
    total = 512 + (t if p > 1 else 0)
    q, k, values = torch.randn(p, g, a // g, D), torch.randn(p, g, total, D), torch.randn(p, g, total, D)
    yield "attend", lambda: torch.softmax(q @ k.transpose(-1, -2) * D ** -0.5, dim=-1) @ values
    x, gain, gate = torch.randn(p, h), torch.randn(h), torch.randn(p, 2 * i)
    yield "rms_norm", lambda: norm(x, gain)
    yield "gated_mlp", lambda: F.silu(gate[:, :i]) * gate[:, i:]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("filter", nargs="?", default="")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for shape, sizes in SHAPES.items():
        for replicas in (1, 4, 8):
            for mode, cases in (("train", train), ("decode", decode)):
                prefix = f"{mode}/{shape}/P{replicas}/"
                if arguments.filter not in prefix:
                    continue
                for name, call in cases(replicas, *sizes):
                    print(f"{prefix + name:40} {milliseconds(call):9.3f} ms", flush=True)
