"""An independent PyTorch statement of the model, to compare against.

It is deliberately plain: one file, no framework beyond torch (1.13 or newer; CPU is enough).
The golden tensors in tests/data/goldens were made from it, and benchmarks time it.

Shapes (P replicas, B sequences, S tokens, H hidden, A query heads, G kv heads, D head dim, T prefix tokens).
Replicas are the outer part of the batch: row r*B + b is replica r of sequence b.

Cross-replica attention, `cross=`
  none       the original ParScale model.
  expanded   inside self-attention of the chosen layers. A query of replica r at position i sees, in ONE softmax,
             its own prefix, its own keys at positions <= i, and the keys of the other replicas at position i only.
             The result is kept apart by the replica that the values came from: P blocks of A*D features
             (the own block holds prefix and causal part), concatenated in replica order, and projected by
             cross_attn_proj [H, P*A*D], which takes the place of o_proj in these layers.
             With cross_attn_proj = [o_proj o_proj ... o_proj] this is plain attention over the union of keys.
  sublayer   a pre-norm residual sublayer before self-attention in the chosen layers, with its own q, k, v (biased)
             and o projections, in which the P replicas of one position attend to each other (P x P softmax, no mask).
             replica_rope rotates its queries and keys by the replica index (half-split rotary, base 10000).
"""

import math
from dataclasses import dataclass, field, asdict
from typing import List, Optional

import torch
import torch.nn as nn
import torch.nn.functional as F


@dataclass
class Config:
    vocab_size: int = 128
    hidden_size: int = 64
    intermediate_size: int = 96
    num_hidden_layers: int = 3
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 16
    rope_theta: float = 1000000.0
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = True
    initializer_range: float = 0.02
    parscale_n: int = 1
    parscale_n_tokens: int = 48
    parscale_attn_smooth: float = 0.01
    cross: str = "none"  # none | expanded | sublayer
    cross_layers: Optional[List[int]] = None  # None: all layers
    replica_rope: bool = False

    def crosses(self, layer: int) -> bool:
        return self.parscale_n > 1 and self.cross != "none" and (
            self.cross_layers is None or layer in self.cross_layers)

    def prefix(self) -> int:
        return self.parscale_n_tokens if self.parscale_n > 1 else 0


def rotate_half(x):
    a, b = x.chunk(2, dim=-1)
    return torch.cat((-b, a), dim=-1)


def rotary(x, positions, theta):
    """x [..., n, D] rotated by positions [n]; angles in float32 (float64 for float64 input)."""
    d = x.shape[-1]
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    inv = 1.0 / (theta ** (torch.arange(0, d, 2, device=x.device, dtype=wide) / d))
    angle = positions.to(wide)[:, None] * inv[None, :]
    angle = torch.cat((angle, angle), dim=-1)
    return x * angle.cos().to(x.dtype) + rotate_half(x) * angle.sin().to(x.dtype)


class RMSNorm(nn.Module):
    def __init__(self, n, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))
        self.eps = eps

    def forward(self, x):
        wide = x if x.dtype == torch.float64 else x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


class Attention(nn.Module):
    def __init__(self, c: Config, layer: int):
        super().__init__()
        self.c, self.layer = c, layer
        h, a, g, d = c.hidden_size, c.num_attention_heads, c.num_key_value_heads, c.head_dim
        self.q_proj = nn.Linear(h, a * d)
        self.k_proj = nn.Linear(h, g * d)
        self.v_proj = nn.Linear(h, g * d)
        self.expanded = c.cross == "expanded" and c.crosses(layer)
        if self.expanded:
            self.cross_attn_proj = nn.Linear(c.parscale_n * a * d, h, bias=False)
        else:
            self.o_proj = nn.Linear(a * d, h, bias=False)
        if c.prefix():
            self.prefix_k = nn.Parameter(torch.empty(c.parscale_n, g, c.prefix(), d))
            self.prefix_v = nn.Parameter(torch.empty(c.parscale_n, g, c.prefix(), d))

    def forward(self, x, attend):
        c = self.c
        pb, s, _ = x.shape
        a, g, d = c.num_attention_heads, c.num_key_value_heads, c.head_dim
        q = self.q_proj(x).view(pb, s, a, d).transpose(1, 2)
        k = self.k_proj(x).view(pb, s, g, d).transpose(1, 2)
        v = self.v_proj(x).view(pb, s, g, d).transpose(1, 2)
        pos = torch.arange(s, device=x.device)
        q, k = rotary(q, pos, c.rope_theta), rotary(k, pos, c.rope_theta)
        own_k, own_v = k, v
        if c.prefix():
            b = pb // c.parscale_n
            pk = self.prefix_k.repeat_interleave(b, dim=0).to(k.dtype)
            pv = self.prefix_v.repeat_interleave(b, dim=0).to(v.dtype)
            own_k, own_v = torch.cat((pk, k), dim=2), torch.cat((pv, v), dim=2)
        if self.expanded:
            out = expanded_attention(q, k, v, own_k, own_v, c.parscale_n)
            return self.cross_attn_proj(out)
        out = attend(q, own_k, own_v)
        return self.o_proj(out.transpose(1, 2).reshape(pb, s, a * d))


def causal_mask(s, total, device):
    """[s, total] True where query i may see key j: everything up to column total - s + i."""
    return torch.ones(s, total, dtype=torch.bool, device=device).tril(total - s)


def attend_math(q, k, v):
    r = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(r, dim=1), v.repeat_interleave(r, dim=1)
    w = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    w = w.masked_fill(~causal_mask(q.shape[2], k.shape[2], q.device), float("-inf"))
    w = torch.softmax(w if w.dtype == torch.float64 else w.float(), dim=-1).to(q.dtype)
    return w @ v


def expanded_attention(q, k, v, own_k, own_v, p):
    """The `expanded` cross-replica attention: [P*B, S, P*A*D]."""
    pb, a, s, d = q.shape
    b, r = pb // p, a // k.shape[1]
    k, v = k.repeat_interleave(r, dim=1), v.repeat_interleave(r, dim=1)
    own_k, own_v = own_k.repeat_interleave(r, dim=1), own_v.repeat_interleave(r, dim=1)
    scale = 1.0 / math.sqrt(d)
    own = (q @ own_k.transpose(-1, -2)) * scale
    own = own.masked_fill(~causal_mask(s, own_k.shape[2], q.device), float("-inf"))
    qr, kr, vr = (t.view(p, b, a, s, d) for t in (q, k, v))
    same = torch.einsum("pbasd,obasd->pbaso", qr, kr) * scale          # o: the replica attended to
    itself = torch.eye(p, dtype=torch.bool, device=q.device).view(p, 1, 1, 1, p)
    same = same.masked_fill(itself, float("-inf")).reshape(pb, a, s, p)  # its own key is in the causal part
    w = torch.cat((own, same), dim=-1)
    w = torch.softmax(w if w.dtype == torch.float64 else w.float(), dim=-1).to(q.dtype)
    w_own, w_same = w[..., : own.shape[-1]], w[..., own.shape[-1]:]
    from_others = torch.einsum("pbaso,obasd->pbsoad", w_same.view(p, b, a, s, p), vr)  # block o, zero for itself
    blocks = from_others.reshape(p, b, s, p, a * d).clone()
    mine = (w_own @ own_v).transpose(1, 2).reshape(p, b, s, a * d)
    for i in range(p):
        blocks[i, :, :, i] = mine[i]
    return blocks.reshape(pb, s, p * a * d)


class CrossReplicaAttention(nn.Module):
    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        h, a, g, d = c.hidden_size, c.num_attention_heads, c.num_key_value_heads, c.head_dim
        self.q_proj = nn.Linear(h, a * d)
        self.k_proj = nn.Linear(h, g * d)
        self.v_proj = nn.Linear(h, g * d)
        self.o_proj = nn.Linear(a * d, h, bias=False)

    def forward(self, x):
        c, p = self.c, self.c.parscale_n
        pb, s, _ = x.shape
        b, a, g, d = pb // p, c.num_attention_heads, c.num_key_value_heads, c.head_dim

        def heads(t, n):  # [P*B, S, n*D] -> [B, S, n, P, D]
            return t.view(p, b, s, n, d).permute(1, 2, 3, 0, 4)

        q, k, v = heads(self.q_proj(x), a), heads(self.k_proj(x), g), heads(self.v_proj(x), g)
        if c.replica_rope:
            r = torch.arange(p, device=x.device)
            q, k = rotary(q, r, 10000.0), rotary(k, r, 10000.0)
        k, v = k.repeat_interleave(a // g, dim=2), v.repeat_interleave(a // g, dim=2)
        w = q @ k.transpose(-1, -2) / math.sqrt(d)
        w = torch.softmax(w if w.dtype == torch.float64 else w.float(), dim=-1).to(q.dtype)
        out = (w @ v).permute(3, 0, 1, 2, 4).reshape(pb, s, a * d)
        return self.o_proj(out)


class MLP(nn.Module):
    def __init__(self, c: Config):
        super().__init__()
        self.gate_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.up_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.down_proj = nn.Linear(c.intermediate_size, c.hidden_size, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class DecoderLayer(nn.Module):
    def __init__(self, c: Config, layer: int):
        super().__init__()
        self.self_attn = Attention(c, layer)
        self.mlp = MLP(c)
        self.input_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.sublayer = c.cross == "sublayer" and c.crosses(layer)
        if self.sublayer:
            self.cross_replica_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
            self.cross_replica_attn = CrossReplicaAttention(c)

    def forward(self, x, attend):
        if self.sublayer:
            x = x + self.cross_replica_attn(self.cross_replica_layernorm(x))
        x = x + self.self_attn(self.input_layernorm(x), attend)
        return x + self.mlp(self.post_attention_layernorm(x))


class Model(nn.Module):
    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(c, i) for i in range(c.num_hidden_layers))
        self.norm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        if c.parscale_n > 1:
            self.aggregate_layer = nn.Sequential(
                nn.Linear(c.parscale_n * c.hidden_size, c.hidden_size), nn.SiLU(),
                nn.Linear(c.hidden_size, c.parscale_n))

    def forward(self, ids, attend=attend_math, checkpoint=False):
        c, p = self.c, self.c.parscale_n
        x = self.embed_tokens(ids)
        if p > 1:
            x = x.repeat(p, 1, 1)
        for layer in self.layers:
            if checkpoint:
                x = torch.utils.checkpoint.checkpoint(layer, x, attend, use_reentrant=False)
            else:
                x = layer(x, attend)
        x = self.norm(x)
        if p > 1:
            pb, s, h = x.shape
            streams = x.view(p, pb // p, s, h).permute(1, 2, 0, 3)            # [B, S, P, H]
            flat = streams.transpose(2, 3).reshape(pb // p, s, h * p)         # feature h*P + r
            w = self.aggregate_layer(flat)
            w = torch.softmax(w if w.dtype == torch.float64 else w.float(), dim=-1)
            if c.parscale_attn_smooth:
                w = w * (1 - c.parscale_attn_smooth) + c.parscale_attn_smooth / p
            x = (streams * w.unsqueeze(-1)).sum(dim=2).to(x.dtype)
        return x


class CausalLM(nn.Module):
    """State-dict names are the ones found in checkpoints: model.layers.0.self_attn.prefix_k, ..."""

    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        self.model = Model(c)
        self.lm_head = nn.Linear(c.hidden_size, c.vocab_size, bias=False)
        if c.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(self, ids, **kw):
        return self.lm_head(self.model(ids, **kw))

    def init(self, seed: int, std: Optional[float] = None, bias_std: float = 0.0):
        g = torch.Generator().manual_seed(seed)
        std = self.c.initializer_range if std is None else std
        with torch.no_grad():
            for name, t in self.named_parameters():
                if name.endswith("norm.weight"):
                    t.copy_(1.0 + bias_std * torch.randn(t.shape, generator=g))
                elif name.endswith("bias"):
                    t.copy_(bias_std * torch.randn(t.shape, generator=g))
                else:
                    t.copy_(std * torch.randn(t.shape, generator=g))
        return self

    @torch.no_grad()
    def greedy(self, ids, n):
        for _ in range(n):
            nxt = self(ids)[:, -1].argmax(-1, keepdim=True)
            ids = torch.cat((ids, nxt), dim=1)
        return ids


def loss_of(logits, ids):
    """Mean next-token cross-entropy in nats over the S-1 predicted positions of every sequence."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return F.cross_entropy(wide[:, :-1].reshape(-1, wide.shape[-1]), ids[:, 1:].reshape(-1))
