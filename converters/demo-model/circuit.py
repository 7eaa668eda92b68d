"""A start in which copying already half works.

From a random start a model of this size copies nothing until it has read some millions of tokens. Here two heads
start out as the induction circuit that such models end up with (Olsson et al. 2022, "In-context Learning and
Induction Heads"); training is free to change every weight of it, and everything else starts at random.

- Layer 0, heads 0 and 1 look one and two tokens back and write that token into parts of the residual stream of their own.
- Layer 1, heads 0 and 1 look for a place whose previous token is the present one, and copy the token that stands there.
"""

import torch

from model import qkv_rows

CONSTANT = 8  # channels on which a layer's LayerNorm is made to give 1, whatever the token
SPREAD = 0.06  # standard deviation of the token embeddings


def _orthonormal(rows, columns, generator):
    """`[rows, columns]` with orthonormal rows."""
    return torch.linalg.qr(torch.randn(columns, rows, generator=generator))[0].T


@torch.no_grad()
def plant(model, seed, back=8.0, match=1.8, copy=2.0, read=0.1):
    """Sets the weights of the circuit in place; the other weights stay as they are."""
    shape = model.shape
    generator = torch.Generator().manual_seed(seed)
    width, size, turn = shape.n_embd, shape.head_dim, shape.rotary_dim
    content = slice(CONSTANT, width)
    # Disjoint directions of the residual stream: what is copied from, the previous token, the answer.
    basis = _orthonormal(width - CONSTANT, width - CONSTANT, generator)
    token = torch.zeros(2 * size, width)
    token[:, content] = _orthonormal(2 * size, width - CONSTANT, generator)
    previous = torch.zeros(size, width)
    previous[:, content] = basis[:size]
    earlier = torch.zeros(size, width)
    n_earlier = min(size, width - CONSTANT - 3 * size)
    earlier[:n_earlier, content] = basis[3 * size : 3 * size + n_earlier]
    answer = torch.zeros(2 * size, width)
    answer[:, content] = basis[size : 3 * size]

    embedding = model.transformer.wte.weight
    embedding.normal_(0.0, SPREAD, generator=generator)
    embedding[:, :CONSTANT] = 0.0

    first, second = model.transformer.h[0], model.transformer.h[1]
    first.ln_1.weight[:CONSTANT] = 0.0
    first.ln_1.bias[:CONSTANT] = 1.0

    # Looking back: the key is constant, the query the same turned by one or two positions, so that rotation puts the peak there.
    frequency = 1.0 / (10000 ** (torch.arange(0, turn, 2) / turn))
    pairs = 4
    weight = first.attn.qkv_proj.weight
    for head, (distance, written) in enumerate(((1, previous), (2, earlier))):
        query, value, key = qkv_rows(shape, head)
        for rows in (query, value, key):
            weight[rows] = 0.0
        for i in range(pairs):
            angle = distance * frequency[i]
            weight[key.start + 2 * i, :CONSTANT] = back / CONSTANT
            weight[query.start + 2 * i, :CONSTANT] = back * angle.cos() / CONSTANT
            weight[query.start + 2 * i + 1, :CONSTANT] = -back * angle.sin() / CONSTANT
        weight[value] = token[:size]
        first.attn.out_proj.weight[:, head * size : (head + 1) * size] = SPREAD * written.T

    # Present token meets previous token in the channels that rotation leaves (almost) alone.
    still = slice(2 * turn // 3, size)
    n_still = size - 2 * turn // 3
    weight = second.attn.qkv_proj.weight
    for head in (0, 1):
        query, value, key = qkv_rows(shape, head)
        for rows in (query, value, key):
            weight[rows] = 0.0
        part = slice(0, n_still) if head == 0 else slice(size - n_still, size)
        weight[query.start + still.start : query.stop] = match * token[:size][part]
        weight[key.start + still.start : key.stop] = match * previous[part]
        weight[value] = token[head * size : (head + 1) * size]
    second.attn.out_proj.weight[:, : 2 * size] = copy * SPREAD * answer.T
    model.lm_head.weight += read * (embedding / SPREAD) @ token.T @ answer
