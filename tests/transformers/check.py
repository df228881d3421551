"""Models to transformers and back, with equal logits:  check.py PROGRAM_DIR

Writes small stock Qwen2 models with transformers in every form found in the wild (tied and untied, one file and many,
float32, bfloat16), reads them with parscale; converts them with parscale, reads the result with transformers as a stock
Qwen2ForCausalLM. Logits are compared with float64 ones of transformers.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

PROGRAMS = Path(sys.argv[1])
CASES = [
    dict(name="tied, float32", tie=True, dtype=torch.float32, shard="5GB"),
    dict(name="untied, float32, many files", tie=False, dtype=torch.float32, shard="200KB"),
    dict(name="tied, bfloat16, many files", tie=True, dtype=torch.bfloat16, shard="100KB"),
    dict(name="untied, bfloat16, head size 128", tie=False, dtype=torch.bfloat16, shard="5GB", heads=1),
]
failures = 0


def run(program, *words):
    done = subprocess.run([PROGRAMS / f"parscale-{program}", *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"parscale-{program} {' '.join(map(str, words))}\n{done.stdout}{done.stderr}")
    return done.stdout


def check(what, difference, limit):
    global failures
    failed = not difference <= limit
    failures += failed
    print(f"{'FAILED' if failed else 'equal ':6}  {what:75}  {difference:.1e} (limit {limit:.0e})")


def relative(a, b):
    return ((a.double() - b.double()).abs().max() / b.double().abs().max()).item()


def logits_of(directory, ids):
    """transformers' own, in float64 (its weights as stored)."""
    model = AutoModelForCausalLM.from_pretrained(directory, torch_dtype=torch.float64, attn_implementation="eager")
    assert type(model) is Qwen2ForCausalLM, type(model)
    with torch.no_grad():
        return model(ids).logits


def parscale_logits(directory, ids, folder, *more):
    save_file({"input_ids": ids}, folder / "ids.safetensors")
    run("evaluate", directory, "--input-ids", folder / "ids.safetensors", "--dump-logits", folder / "logits.safetensors",
        "--dtype", "float64", *more)
    return load_file(folder / "logits.safetensors")["logits"]


def check_case(case, folder):
    torch.manual_seed(1)
    heads = case.get("heads", 2)
    config = Qwen2Config(vocab_size=320, hidden_size=128, intermediate_size=192, num_hidden_layers=3,
                         num_attention_heads=heads, num_key_value_heads=1, max_position_embeddings=512, rope_theta=1e6,
                         tie_word_embeddings=case["tie"], initializer_range=0.1)
    model = Qwen2ForCausalLM(config).to(case["dtype"])
    for name, tensor in model.named_parameters():  # biases and gains off their defaults
        if name.endswith("bias") or "norm" in name:
            tensor.data += 0.1 * torch.randn_like(tensor)
    stock = folder / "stock"
    model.save_pretrained(stock, max_shard_size=case["shard"])
    ids = torch.randint(0, 320, (2, 40))
    reference = logits_of(stock, ids)
    check(f"transformers -> parscale: {case['name']}", relative(parscale_logits(stock, ids, folder), reference), 1e-6)

    back = folder / "back"
    run("convert", stock, back, "--max-shard-size", case["shard"], "--dtype", "float32")
    check(f"transformers -> parscale -> transformers: {case['name']}", relative(logits_of(back, ids), reference), 0)

    parallel = folder / "parallel"
    run("convert", stock, parallel, "parscale.parscale_n=4", "--dtype", "float32")
    stock_names = set(dict(model.named_parameters()))
    written = load_file(parallel / "model.safetensors")
    added = sorted(set(written) - stock_names)
    same = all(torch.equal(written[n], t.float()) for n, t in model.named_parameters() if n in written)
    check(f"weights are kept when P becomes 4, {len(added)} tensors are added", 0.0 if same and added else 1.0, 0)
    assert json.loads((parallel / "config.json").read_text())["parscale_n"] == 4


with tempfile.TemporaryDirectory() as scratch:
    for number, one in enumerate(CASES):
        place = Path(scratch) / str(number)
        place.mkdir()
        check_case(one, place)
print(f"{'FAILED' if failures else 'passed'}: {failures} differences")
sys.exit(1 if failures else 0)
