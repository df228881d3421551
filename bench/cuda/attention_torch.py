"""PyTorch's attention at attention_benchmark.cu's shapes: forward and backward, flash and cuDNN.

The prefix is played by T empty queries in front of the sequence, which makes the mask plain causal: the fastest route
found in PyTorch. Prints a line a shape and kernel: median ms forward, backward.
"""

import statistics
import sys

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

SHAPES = [  # P, B, S, A, G, T, D
    (4, 4, 2048, 12, 2, 48, 128), (1, 4, 2048, 12, 2, 0, 128), (8, 2, 2048, 12, 2, 48, 128),
    (4, 1, 8192, 12, 2, 48, 128), (4, 4, 2048, 14, 2, 48, 64), (4, 1, 8192, 14, 2, 48, 64)]


def median_ms(f, warm=5, runs=20):
    times = []
    for i in range(warm + runs):
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record()
        f(i)
        b.record()
        torch.cuda.synchronize()
        times.append(a.elapsed_time(b))
    return statistics.median(times[warm:])


def main():
    for shape in SHAPES:
        p, b, s, a, g, t, d = shape

        def operands():
            make = lambda heads: torch.randn(p * b, heads, t + s, d, device="cuda", dtype=torch.bfloat16).requires_grad_()
            return make(a), make(g), make(g)

        sets = [operands(), operands()]
        grad = torch.randn_like(sets[0][0])
        for name, kernel in [("flash", SDPBackend.FLASH_ATTENTION), ("cudnn", SDPBackend.CUDNN_ATTENTION)]:
            attend = lambda i: F.scaled_dot_product_attention(*sets[i % 2], is_causal=True, enable_gqa=True)
            try:
                with sdpa_kernel(kernel):
                    forward = median_ms(attend)
                    outs = [attend(0), attend(1)]
                    backward = median_ms(lambda i: torch.autograd.grad(outs[i % 2], sets[i % 2], grad, retain_graph=True))
            except RuntimeError as error:
                print(shape, name, "not taken:", str(error).splitlines()[0])
                continue
            print(f"P={p} B={b} S={s} A={a} G={g} T={t} D={d} {name}: {forward:.4f} ms, backward {backward:.4f} ms")


if __name__ == "__main__":
    main()
