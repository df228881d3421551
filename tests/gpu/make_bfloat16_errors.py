"""How far PyTorch's bfloat16 lies from the float64 goldens: what ours is measured against.

python3 make_bfloat16_errors.py REFERENCE_DIR    REFERENCE_DIR holds parscale_torch.py, the model in PyTorch

Writes tests/data/goldens/CASE/bfloat16.json: the largest difference of logits as a part of the largest logit, and of
gradients as a part of the largest gradient of all. Parameters are float32, products run under bfloat16 autocast.
"""

import json
import struct
import sys
from pathlib import Path

import numpy
import torch

sys.path.insert(0, sys.argv[1])
from parscale_torch import CausalLM, Config, loss_of  # noqa: E402

GOLDENS = Path(__file__).parent.parent / "data" / "goldens"
CASES = ["p4_hd64_long", "p4_hd64_sublayer", "p2_hd128_expanded", "p8_hd128_long"]
TYPES = {"F32": numpy.float32, "F64": numpy.float64, "I64": numpy.int64}


def read(path):
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    tensors = {}
    for name, info in json.loads(data[8:8 + size]).items():
        if name != "__metadata__":
            begin, end = info["data_offsets"]
            values = numpy.frombuffer(data[8 + size + begin:8 + size + end], TYPES[info["dtype"]])
            tensors[name] = torch.from_numpy(values.reshape(info["shape"]).copy())
    return tensors


def measure(case, device):
    folder = GOLDENS / case
    config, expected = json.loads((folder / "config.json").read_text()), read(folder / "expected.safetensors")
    fields = {k: v for k, v in config.items() if k in Config.__dataclass_fields__}
    fields["cross"] = config.get("parscale_cross_attn_kind", "none") if config["enable_cross_attn"] else "none"
    fields["cross_layers"] = config["parscale_cross_attn_layers"]
    model = CausalLM(Config(**fields))
    model.load_state_dict({k: v.float() for k, v in read(folder / "model.safetensors").items()}, strict=False)
    model, ids = model.to(device), expected["input_ids"].to(device)
    with torch.autocast(device, torch.bfloat16):
        logits = model(ids)
        loss = loss_of(logits.float(), ids)
    loss.backward()
    golden = {n[5:]: t.double() for n, t in expected.items() if n.startswith("grad.")}
    largest = max(t.abs().max() for t in golden.values())
    gradients = max((dict(model.named_parameters())[n].grad.cpu().double() - t).abs().max() for n, t in golden.items())
    off = (logits.detach().cpu().double() - expected["logits"].double()).abs().max()
    return {"logits": float(off / expected["logits"].abs().max()), "gradients": float(gradients / largest)}


if __name__ == "__main__":
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for case in CASES:
        result = {**measure(case, device), "by": f"torch {torch.__version__} on {device}"}
        (GOLDENS / case / "bfloat16.json").write_text(json.dumps(result) + "\n")
        print(case, result)
