"""The decoder of `dcft_jax.models` in PyTorch, for benchmarks that compare the two.

Pre-norm RMSNorm, rotary positions (half-rotation layout), grouped-query attention,
SwiGLU, untied output map, float32. Any axes may come before [L]: TorchJD's autogram
wants the abilities as the leading axis of everything.
"""

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812, its usual name
from torch import Tensor, nn

from dcft_jax.models import ModelConfig, Params


class Attention(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        size = config.head_dim
        self.query = nn.Linear(config.width, config.num_heads * size, bias=False)
        self.key = nn.Linear(config.width, config.num_kv_heads * size, bias=False)
        self.value = nn.Linear(config.width, config.num_kv_heads * size, bias=False)
        self.out = nn.Linear(config.num_heads * size, config.width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        query = rotate(self._heads(self.query(x)), cos, sin)
        key = rotate(self._heads(self.key(x)), cos, sin)
        value = self._heads(self.value(x))
        repeats = self.config.num_heads // self.config.num_kv_heads
        # Written out: the fused CPU kernel has no batching rule, so that autojac would
        # differentiate it once per ability in a Python loop.
        key = key.repeat_interleave(repeats, dim=-3)
        value = value.repeat_interleave(repeats, dim=-3)
        scores = query @ key.mT * self.config.attention_scale
        length = scores.shape[-1]
        future = torch.ones(length, length, dtype=torch.bool).triu(1)
        shares = scores.masked_fill(future, -torch.inf).softmax(dim=-1)
        return self.out((shares @ value).transpose(-3, -2).flatten(-2))

    def _heads(self, x: Tensor) -> Tensor:
        """[..., L, HC] -> [..., H, L, C]."""
        return x.unflatten(-1, (-1, self.config.head_dim)).transpose(-3, -2)


class MLP(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.gate = nn.Linear(config.width, config.hidden, bias=False)
        self.up = nn.Linear(config.width, config.hidden, bias=False)
        self.down = nn.Linear(config.hidden, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.attention = Attention(config)
        self.mlp_norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x), cos, sin)
        return x + self.mlp(self.mlp_norm(x))


class Decoder(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.width)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.final_norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.head = nn.Linear(config.width, config.vocab_size, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the next token, [..., L, V]."""
        cos, sin = rope_angles(self.config, tokens.shape[-1])
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.head(self.final_norm(x))


def ability_losses(model: Decoder, tokens_KBL: Tensor) -> Tensor:
    """Mean next-token loss of each ability, [K]: one forward pass for all of them."""
    logits_KBLV = model(tokens_KBL)[..., :-1, :]
    nll = F.cross_entropy(
        logits_KBLV.flatten(0, -2), tokens_KBL[..., 1:].flatten(), reduction="none"
    )
    return nll.unflatten(0, (len(tokens_KBL), -1)).mean(dim=1)


def rope_angles(config: ModelConfig, length: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine, [L, C/2]."""
    exponents = torch.arange(0, config.head_dim, 2) / config.head_dim
    angles = torch.arange(length)[:, None] * config.rope_theta**-exponents
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def to_torch(params: Params) -> dict[str, Tensor]:
    """Parameters, or one gradient, of the JAX decoder as a state dict of this one."""
    state = {
        "embed.weight": params["embed"]["embedding"],
        "final_norm.weight": params["final_norm"]["scale"],
        "head.weight": params["head"]["kernel"].T,
    }
    layers = params["layers"]
    width = layers["mlp_norm"]["scale"].shape[-1]
    for i in range(len(layers["mlp_norm"]["scale"])):
        for norm in ("attention_norm", "mlp_norm"):
            state[f"layers.{i}.{norm}.weight"] = layers[norm]["scale"][i]
        for name, layer in layers["attention"].items():
            rows = (-1, width) if name == "out" else (width, -1)
            kernel = layer["kernel"][i].reshape(rows)
            state[f"layers.{i}.attention.{name}.weight"] = kernel.T
        for name, layer in layers["mlp"].items():
            state[f"layers.{i}.mlp.{name}.weight"] = layer["kernel"][i].T
    return {name: torch.from_numpy(np.array(x)) for name, x in state.items()}
