"""Generation gives the tokens that transformers gives."""

import jax.numpy as jnp
import numpy as np
import pytest

from dcft_jax.models import generate
from tests.models.tiny_decoder import V, make

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def torch_llama(config):
    settings = transformers.LlamaConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.width,
        intermediate_size=config.hidden,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        max_position_embeddings=256,
        rms_norm_eps=config.norm_eps,
        rope_theta=config.rope_theta,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    model = transformers.LlamaForCausalLM(settings).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            start = 1.0 if name.endswith("norm.weight") else 0.0
            weight.copy_(start + 0.5 * torch.randn(weight.shape, generator=generator))
    return model


def copy_weights(config, model):
    """Parameters of ours from `[out, in]` matrices of theirs."""
    weights = {name: w.detach().numpy() for name, w in model.named_parameters()}
    width, size = config.width, config.head_dim

    def layer(i):
        def matrix(name, *shape):
            weight = weights[f"model.layers.{i}.{name}.weight"].T
            return {"kernel": weight.reshape(shape or weight.shape)}

        def scale(name):
            return {"scale": weights[f"model.layers.{i}.{name}.weight"]}

        query, key = (width, config.num_heads, size), (width, config.num_kv_heads, size)
        return dict(
            attention_norm=scale("input_layernorm"),
            mlp_norm=scale("post_attention_layernorm"),
            attention=dict(
                query=matrix("self_attn.q_proj", *query),
                key=matrix("self_attn.k_proj", *key),
                value=matrix("self_attn.v_proj", *key),
                out=matrix("self_attn.o_proj", config.num_heads, size, width),
            ),
            mlp=dict(
                gate=matrix("mlp.gate_proj"),
                up=matrix("mlp.up_proj"),
                down=matrix("mlp.down_proj"),
            ),
        )

    layers = [layer(i) for i in range(config.num_layers)]
    return dict(
        embed={"embedding": jnp.asarray(weights["model.embed_tokens.weight"])},
        layers=_stack(layers),
        final_norm={"scale": jnp.asarray(weights["model.norm.weight"])},
        head={"kernel": jnp.asarray(weights["lm_head.weight"].T)},
    )


def _stack(trees):
    if not isinstance(trees[0], dict):
        return jnp.asarray(np.stack(trees))
    return {name: _stack([tree[name] for tree in trees]) for name in trees[0]}


@pytest.mark.slow
def test_64_greedy_tokens_are_those_of_transformers():
    config = make(tie_embeddings=False)
    model = torch_llama(config)
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, V, n).tolist() for n in (3, 17, 40)]
    got = generate(config, copy_weights(config, model), prompts, max_new_tokens=64)
    for prompt, reply in zip(prompts, got, strict=True):
        ids = torch.tensor([prompt])
        expected = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=64,
            do_sample=False,
        )
        assert reply == expected[0, len(prompt) :].tolist()
        assert len(reply) == 64
    assert len({token for reply in got for token in reply}) > 10, "proves little"
