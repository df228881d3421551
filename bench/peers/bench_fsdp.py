"""PyTorch peer on the GPUs of a host: the step of bench_gpu.py, fully sharded (FSDP2), each layer compiled.

  torchrun --nproc_per_node=2 bench_fsdp.py --P 4 --batch 2 [--seq 2048] [--checkpoint] [--eager] [--links]

Parameters are float32 in shards, gathered in bfloat16 layer by layer; gradients are reduced in float32; the batch is a
rank's. Prints one JSON line: the median over the steps of the slowest rank's milliseconds, tokens/s of all ranks, peak
GiB of a rank, and with --links the rates of an all-gather (bfloat16) and a reduce-scatter (float32) of one layer in
GB/s that a rank sends.
"""

import argparse
import json
import os
import statistics

import torch
import torch.distributed as dist
import torch.utils.checkpoint
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from bench_gpu import QWEN2_1_5B, head_loss, sdpa
from parscale_torch import CausalLM, Config


def training_step(args, c):
    with torch.device("cuda"):
        model = CausalLM(c)
    torch.manual_seed(0)
    for t in model.parameters():
        torch.nn.init.normal_(t, std=0.02)
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for layer in model.model.layers:
        if not args.eager:
            layer.compile()
        fully_shard(layer, mp_policy=policy)
    fully_shard(model, mp_policy=policy)
    loss_of_chunk = head_loss if args.eager else torch.compile(head_loss)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)
    ids = torch.randint(0, c.vocab_size, (args.batch, args.seq), device="cuda")

    def forward(ids):  # through the whole model's forward, which FSDP's hooks surround
        x = model.model(ids, attend=sdpa, checkpoint=args.checkpoint)[:, :-1].reshape(-1, c.hidden_size)
        y, loss = ids[:, 1:].reshape(-1), 0
        for xs, ys in zip(x.chunk(args.chunks), y.chunk(args.chunks)):
            loss = loss + torch.utils.checkpoint.checkpoint(loss_of_chunk, xs, ys, model.lm_head.weight,
                                                            use_reentrant=False)
        return loss / y.numel()

    model.forward = forward

    def step():
        model(ids).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def timed(step, warm, runs):
    times = []
    for _ in range(warm + runs):
        dist.barrier()
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        step()
        end.record()
        torch.cuda.synchronize()
        slowest = torch.tensor(begin.elapsed_time(end), device="cuda")
        dist.all_reduce(slowest, dist.ReduceOp.MAX)
        times.append(slowest.item())
    return statistics.median(times[warm:])


def link_rates(c, world):
    """What one layer's parameters take."""
    layer = Config(**{**QWEN2_1_5B, "num_hidden_layers": 1, "vocab_size": 8}, parscale_n=c.parscale_n)
    n = sum(t.numel() for t in CausalLM(layer).parameters()) // world * world
    whole, part = (torch.empty(k, device="cuda", dtype=torch.bfloat16) for k in (n, n // world))
    wide, sums = torch.empty(n, device="cuda"), torch.empty(n // world, device="cuda")
    rates = {}
    for name, call, size in (("all_gather", lambda: dist.all_gather_into_tensor(whole, part), whole.nbytes),
                             ("reduce_scatter", lambda: dist.reduce_scatter_tensor(sums, wide), wide.nbytes)):
        ms = timed(lambda: [call() for _ in range(20)], 1, 3) / 20
        rates[name + "_gb_s"] = round(size * (world - 1) / world / ms / 1e6, 1)
    return rates


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--P", type=int, default=4)
    options.add_argument("--batch", type=int, default=2)
    options.add_argument("--seq", type=int, default=2048)
    options.add_argument("--layers", type=int, default=28)
    options.add_argument("--checkpoint", action="store_true")
    options.add_argument("--eager", action="store_true")
    options.add_argument("--chunks", type=int, default=8)
    options.add_argument("--warm", type=int, default=3)
    options.add_argument("--runs", type=int, default=6)
    options.add_argument("--links", action="store_true")
    args = options.parse_args()
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl")
    world = dist.get_world_size()
    c = Config(**{**QWEN2_1_5B, "num_hidden_layers": args.layers}, parscale_n=args.P, parscale_n_tokens=48)
    row = dict(gpus=world, P=args.P, batch=args.batch, checkpoint=args.checkpoint, compiled=not args.eager,
               gpu=torch.cuda.get_device_name(), torch=torch.__version__)
    try:
        ms = timed(training_step(args, c), args.warm, args.runs)
        row.update(ms=round(ms, 2), tokens_per_s=round(world * args.batch * args.seq / ms * 1e3),
                   peak_gib=round(torch.cuda.max_memory_allocated() / 2**30, 1))
    except torch.cuda.OutOfMemoryError:
        row.update(error="out of memory")
    if args.links and world > 1:
        row.update(link_rates(c, world))
    if dist.get_rank() == 0:
        print(json.dumps(row), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
