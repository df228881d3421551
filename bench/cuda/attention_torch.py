"""PyTorch's attention at the shapes of attention_benchmark.cu and operations_benchmark.cu, on one GPU.

  python3 attention_torch.py [--first N]     causal attention, flash and cuDNN: a line a shape (of the first N) and kernel
  python3 attention_torch.py --replicas      P x P attention at every position, the fastest kernel that SDPA finds

The prefix is played by T empty queries in front of the sequence, which makes the mask plain causal: the fastest route
found in PyTorch. Median milliseconds, forward and backward.
"""

import argparse
import statistics

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

SHAPES = [  # P, B, S, A, G, T, D
    (4, 4, 2048, 12, 2, 48, 128), (1, 4, 2048, 12, 2, 0, 128), (8, 2, 2048, 12, 2, 48, 128),
    (4, 1, 8192, 12, 2, 48, 128), (4, 4, 2048, 14, 2, 48, 64), (4, 1, 8192, 14, 2, 48, 64)]
KERNELS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION,
           "efficient": SDPBackend.EFFICIENT_ATTENTION, "math": SDPBackend.MATH}


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


def measure(title, kernel, operands, **how):
    """Two sets of operands take turns. Prints a line; a kernel that does not take these shapes says why."""
    sets = [operands(), operands()]
    grad = torch.randn_like(sets[0][0])
    attend = lambda i: F.scaled_dot_product_attention(*sets[i % 2], **how)
    try:
        with sdpa_kernel(KERNELS[kernel]):
            forward = median_ms(attend)
            outs = [attend(0), attend(1)]
            backward = median_ms(lambda i: torch.autograd.grad(outs[i % 2], sets[i % 2], grad, retain_graph=True))
    except RuntimeError as error:
        print(f"{title} {kernel}: not taken: {str(error).splitlines()[0]}", flush=True)
        return
    print(f"{title} {kernel}: {forward:.4f} ms, backward {backward:.4f} ms", flush=True)


def random(*shape):
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16).requires_grad_()


def causal(shapes):
    for p, b, s, a, g, t, d in shapes:
        operands = lambda: tuple(random(p * b, heads, t + s, d) for heads in (a, g, g))
        for kernel in ("flash", "cudnn"):
            measure(f"P={p} B={b} S={s} A={a} G={g} T={t} D={d}", kernel, operands, is_causal=True, enable_gqa=True)


def replicas():
    """[B*S,heads,P,D]: what P x P attention is for SDPA, its operands laid out for it beforehand."""
    p, b, s, a, g, d = 4, 4, 2048, 12, 2, 128
    operands = lambda: (random(b * s, a, p, d), random(b * s, g, p, d), random(b * s, g, p, d))
    for kernel in KERNELS:
        measure(f"P x P, P={p} B={b} S={s} A={a} G={g} D={d}", kernel, operands, enable_gqa=True)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--first", type=int, default=len(SHAPES))
    options.add_argument("--replicas", action="store_true")
    args = options.parse_args()
    replicas() if args.replicas else causal(SHAPES[:args.first])
