"""PyTorch peer on one GPU: a training step of Qwen2-1.5B's shape, in bfloat16 autocast with float32 parameters.

  python3 bench_gpu.py --P 4 --batch 4 [--seq 2048] [--cross none|sublayer|expanded] [--checkpoint] [--eager]

A step is forward, backward and AdamW (fused, without clipping). Each layer and the head are compiled by torch.compile
unless --eager; attention is SDPA, causal behind the prefix; the loss goes over the whole vocabulary in chunks. Prints
one JSON line: median ms, tokens/s, peak GiB, or the error when it does not fit.
"""

import argparse
import json
import statistics

import torch
import torch.nn.functional as F
import torch.utils.checkpoint

from parscale_torch import CausalLM, Config

QWEN2_1_5B = dict(vocab_size=151936, hidden_size=1536, intermediate_size=8960, num_hidden_layers=28,
                  num_attention_heads=12, num_key_value_heads=2, head_dim=128, tie_word_embeddings=True)


def sdpa(q, k, v):
    """Causal attention behind a prefix by the fastest route found in PyTorch: T empty queries in front make it plain
    causal, which cuDNN's kernel takes with grouped keys as they are (a bottom-right mask costs 1.8 times as much)."""
    t = k.shape[2] - q.shape[2]
    return F.scaled_dot_product_attention(F.pad(q, (0, 0, t, 0)), k, v, is_causal=True, enable_gqa=True)[:, :, t:]


def head_loss(x, y, w):
    return F.cross_entropy(F.linear(x, w).float(), y, reduction="sum")


def training_step(args, c):
    with torch.device("cuda"):
        model = CausalLM(c)
    for t in model.parameters():
        torch.nn.init.normal_(t, std=0.02)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)
    ids = torch.randint(0, c.vocab_size, (args.batch, args.seq), device="cuda")
    loss_of_chunk = head_loss
    if not args.eager:
        for layer in model.model.layers:
            layer.compile()
        loss_of_chunk = torch.compile(head_loss)

    def step():
        with torch.autocast("cuda", torch.bfloat16):
            x = model.model(ids, attend=sdpa, checkpoint=args.checkpoint)[:, :-1].reshape(-1, c.hidden_size)
            y = ids[:, 1:].reshape(-1)
            w, loss = model.lm_head.weight.bfloat16(), 0  # cast once, not once a chunk
            for xs, ys in zip(x.bfloat16().chunk(args.chunks), y.chunk(args.chunks)):
                loss = loss + torch.utils.checkpoint.checkpoint(loss_of_chunk, xs, ys, w, use_reentrant=False)
            loss = loss / y.numel()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def timed(step, warm, runs):
    times = []
    for _ in range(warm + runs):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        step()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times[warm:])


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--P", type=int, default=4)
    options.add_argument("--batch", type=int, default=4)
    options.add_argument("--seq", type=int, default=2048)
    options.add_argument("--layers", type=int, default=28)
    options.add_argument("--cross", default="none", choices=["none", "sublayer", "expanded"])
    options.add_argument("--checkpoint", action="store_true")
    options.add_argument("--eager", action="store_true")
    options.add_argument("--chunks", type=int, default=8)
    options.add_argument("--warm", type=int, default=3)
    options.add_argument("--runs", type=int, default=5)
    args = options.parse_args()
    c = Config(**{**QWEN2_1_5B, "num_hidden_layers": args.layers}, parscale_n=args.P, parscale_n_tokens=48,
               cross=args.cross if args.P > 1 else "none")
    row = dict(P=args.P, kind=c.cross, batch=args.batch, checkpoint=args.checkpoint, compiled=not args.eager,
               gpu=torch.cuda.get_device_name(), torch=torch.__version__)
    try:
        ms = timed(training_step(args, c), args.warm, args.runs)
        row.update(ms=round(ms, 2), tokens_per_s=round(args.batch * args.seq / ms * 1e3),
                   peak_gib=round(torch.cuda.max_memory_allocated() / 2**30, 1))
    except torch.cuda.OutOfMemoryError:
        row.update(error="out of memory")
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
