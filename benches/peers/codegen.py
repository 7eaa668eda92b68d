"""A CodeGen-shaped decoder in PyTorch with only what training needs: the peer of coder.py.

The parameters carry the names, shapes and row order of transformers' CodeGenForCausalLM (transformers 4.36,
models/codegen/modeling_codegen.py). It differs in cost alone: the rotary tables are made once, and dropout and caches are absent.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

MP_NUM = 4  # CodeGen's fused projection is laid out for four model-parallel shards


@dataclass
class Shape:
    """Sizes of the network; the field names are those of Hugging Face's CodeGenConfig."""

    vocab_size: int = 2048
    n_embd: int = 192
    n_layer: int = 4
    n_head: int = 4
    rotary_dim: int = 24
    n_positions: int = 512

    @property
    def head_dim(self):
        return self.n_embd // self.n_head


def qkv_rows(shape, head):
    """Rows of `attn.qkv_proj.weight` that hold head `head`: slices (query, value, key).

    transformers splits every shard's block into query, value, key, in that order.
    """
    per_shard = shape.n_head // MP_NUM
    shard, inside = divmod(head, per_shard)
    local = shape.n_embd // MP_NUM
    start = shard * 3 * local + inside * shape.head_dim
    return tuple(slice(start + part * local, start + part * local + shape.head_dim) for part in range(3))


def rotary_tables(shape, length):
    """cos and sin `[length, rotary_dim / 2]` of the angles t / 10000^(2i / rotary_dim)."""
    frequency = 1.0 / (10000 ** (torch.arange(0, shape.rotary_dim, 2) / shape.rotary_dim))
    angle = torch.arange(length, dtype=torch.float)[:, None] * frequency[None, :]
    return angle.cos(), angle.sin()


def rotate(x, cos, sin):
    """Rotates pairs (2i, 2i + 1) of the last axis of `[batch, head, time, rotary_dim]`."""
    even, odd = x[..., ::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1).flatten(-2)


class Attention(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.qkv_proj = nn.Linear(shape.n_embd, 3 * shape.n_embd, bias=False)
        self.out_proj = nn.Linear(shape.n_embd, shape.n_embd, bias=False)

    def forward(self, x, bias, cos, sin):
        shape = self.shape
        batch, time, _ = x.shape
        qkv = self.qkv_proj(x).view(batch, time, MP_NUM, 3, shape.n_head // MP_NUM, shape.head_dim)
        query, value, key = (
            part.reshape(batch, time, shape.n_head, shape.head_dim).transpose(1, 2) for part in qkv.unbind(3)
        )
        turn = shape.rotary_dim
        query, key = (torch.cat((rotate(p[..., :turn], cos, sin), p[..., turn:]), dim=-1) for p in (query, key))
        weights = torch.matmul(query * (1.0 / math.sqrt(shape.head_dim)), key.transpose(-1, -2))
        weights = torch.softmax(weights + bias, dim=-1)
        out = torch.matmul(weights, value).transpose(1, 2).reshape(batch, time, shape.n_embd)
        return self.out_proj(out)


class NewGelu(torch.autograd.Function):
    """GPT-2's tanh GELU, with its derivative written out: one saved tensor instead of eight."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        inner = torch.tanh((x * x).mul_(0.044715).add_(1.0).mul_(x).mul_(math.sqrt(2 / math.pi)))
        return inner.add_(1.0).mul_(x).mul_(0.5)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        c = math.sqrt(2 / math.pi)
        square = x * x
        tanh = torch.tanh((square * 0.044715).add_(1.0).mul_(x).mul_(c))
        slope = (1 - tanh * tanh).mul_(square.mul_(3 * 0.044715 * c).add_(c)).mul_(x).mul_(0.5)
        return tanh.add_(1.0).mul_(0.5).add_(slope).mul_(grad)


class Mlp(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.fc_in = nn.Linear(shape.n_embd, 4 * shape.n_embd)
        self.fc_out = nn.Linear(4 * shape.n_embd, shape.n_embd)

    def forward(self, x):
        return self.fc_out(NewGelu.apply(self.fc_in(x)))


class Block(nn.Module):
    """One LayerNorm feeds attention and feed-forward side by side."""

    def __init__(self, shape):
        super().__init__()
        self.ln_1 = nn.LayerNorm(shape.n_embd, eps=1e-5)
        self.attn = Attention(shape)
        self.mlp = Mlp(shape)

    def forward(self, x, bias, cos, sin):
        h = self.ln_1(x)
        return x + self.attn(h, bias, cos, sin) + self.mlp(h)


class Trunk(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.wte = nn.Embedding(shape.vocab_size, shape.n_embd)
        self.h = nn.ModuleList(Block(shape) for _ in range(shape.n_layer))
        self.ln_f = nn.LayerNorm(shape.n_embd, eps=1e-5)


class CodeGen(nn.Module):
    """Token ids `[batch, time]` and document numbers `[batch, time]` to logits `[batch, time, vocab]`."""

    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.transformer = Trunk(shape)
        self.lm_head = nn.Linear(shape.n_embd, shape.vocab_size)
        self.apply(self._plain_init)
        for block in self.transformer.h:  # GPT-2's scaling of what is added to the residual stream
            for layer in (block.attn.out_proj, block.mlp.fc_out):
                nn.init.normal_(layer.weight, std=0.02 / math.sqrt(2 * shape.n_layer))
        cos, sin = rotary_tables(shape, shape.n_positions)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    @staticmethod
    def _plain_init(module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def hidden(self, ids, document=None):
        """The last LayerNorm's output `[batch, time, n_embd]`; a token sees its own document only."""
        time = ids.shape[1]
        seen = torch.ones(time, time, dtype=torch.bool).tril()[None]
        if document is not None:
            seen = seen & (document[:, :, None] == document[:, None, :])
        bias = torch.zeros(seen.shape).masked_fill_(~seen, -1e9)[:, None]
        x = self.transformer.wte(ids)
        cos, sin = self.cos[:time], self.sin[:time]
        for block in self.transformer.h:
            x = block(x, bias, cos, sin)
        return self.transformer.ln_f(x)

    def forward(self, ids, document=None):
        return self.lm_head(self.hidden(ids, document))

    def loss(self, ids, document, weight):
        """Weighted mean cross-entropy of the next token; `weight[b, t]` belongs to the target `ids[b, t]`.

        Targets of weight 0 (the first token of a document among them) never reach the output layer.
        """
        hidden = self.hidden(ids, document)[:, :-1]
        target, weight = ids[:, 1:], weight[:, 1:]
        used = weight > 0
        each = F.cross_entropy(self.lm_head(hidden[used]), target[used], reduction="none")
        weight = weight[used]
        return (each * weight).sum() / weight.sum(), each.detach(), weight
