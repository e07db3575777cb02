"""Bad configs are refused with the field, its value and the way out."""

import importlib
import inspect
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import base, from_scratch
from dcft_jax import config as config_lib
from dcft_jax import sharding
from dcft_jax.conflict import RESOLVERS
from dcft_jax.mixture import RULES, TIER_RULES
from dcft_jax.models import abstract_params, split
from dcft_jax.planning.model import planned_model
from dcft_jax.training.program import build_program, make_resolver

CONFIGS = sorted(p.stem for p in Path("configs").glob("*.py") if p.stem != "base")
# Chips of the slice that a config is written for; the others run anywhere.
CHIPS = dict(
    tpu_v4=64,
    tpu_v4_multislice=128,
    llama3_8b_v4=16,
    llama3_8b_32k_v4=64,
    llama3_70b_v5p=256,
    qwen3_8b_v5e=8,
    gemma3_4b_v6e=8,
)


def load(name: str) -> ConfigDict:
    return importlib.import_module(f"configs.{name}").get_config()


@pytest.mark.parametrize("name", CONFIGS)
def test_config_is_valid_and_only_overrides(name: str):
    config = load(name)
    config_lib.validate(config)
    ours = config_lib.flatten(config_lib.to_plain(config))
    known = config_lib.flatten(config_lib.to_plain(base.get_config()))
    new = {path for path in ours.keys() - known.keys()}
    assert all(path.startswith("abilities.") for path in new)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_traces_on_its_mesh(name: str):
    """The whole step type-checks, shardings included, without any device."""
    config = load(name)
    mesh = sharding.abstract_mesh(config.mesh, CHIPS.get(name, 1))
    num_abilities, data = len(config.abilities), config.data
    program = build_program(
        config,
        planned_model(config),
        size_KT=np.ones((num_abilities, 1), int),
        tier_KN=np.zeros((num_abilities, 8), np.int8),
    )

    def array(shape, dtype, *names):
        spec = sharding.logical_to_spec(program.model.rules, names)
        place = jax.sharding.NamedSharding(mesh, spec)
        return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

    with jax.sharding.use_abstract_mesh(mesh):
        rows = (data.num_slots, data.rows_per_slot, data.seq_len)
        batch = {
            f"{field}_SBL": array(rows, dtype, "slot", "batch", None)
            for field, dtype in (
                ("tokens", "int32"),
                ("segments", "int32"),
                ("positions", "int32"),
                ("loss_mask", "bool"),
            )
        }
        batch["ability_S"] = array((data.num_slots,), "int32", None)
        batch["credit_C"] = array((num_abilities,), "float32", None)
        batch["rows_C"] = array((num_abilities,), "int32", None)
        before = jax.eval_shape(program.init)
        _, frozen = split(abstract_params(program.model))
        after, metrics = jax.eval_shape(program.train_step, before, frozen, batch)
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert (old.shape, old.dtype) == (new.shape, new.dtype)
        if old.ndim > 1:
            assert old.sharding.spec == new.sharding.spec
    assert metrics.loss_sum_K.shape == (num_abilities,)


BAD = [
    ("data.num_slots", 2, r"data.num_slots = 2: .*there are 3"),
    ("data.rows_per_slot", 0, "data.rows_per_slot = 0: must be at least 1"),
    ("data.on_bad_row", "ignore", "data.on_bad_row = 'ignore': .*fail, skip"),
    ("data.max_truncated_share", 1.5, r"in \[0, 1\]"),
    ("data.decontamination_ngram", -1, "at least 0"),
    ("tokenizer.vocab_size", 100, "tokenizer.vocab_size = 100: must be at least 300"),
    ("mixture.rule", "magic", "mixture.rule = 'magic': .*mirror_descent"),
    ("mixture.prior", "magic", "mixture.prior is 'magic', expected one of"),
    (
        "mixture.options.mirror_descent.floor",
        1.0,
        r"floor is 1.0, expected in \[0, 1\)",
    ),
    ("mixture.actuator", "magic", "sample, reweight, both"),
    ("mixture.references", "magic", "given, fitted"),
    ("mixture.mix_val_blocks", 0, "mixture.mix_val_blocks = 0: must be at least 1"),
    ("mixture.tiers.rule", "magic", "static, competence, bandit"),
    ("mixture.guard_run", "nowhere", "guard_run = 'nowhere': must be the work dir"),
    ("mixture.rule", "doremi", r"reference_run = '': rule .doremi. needs"),
    ("abilities.maths.retain_margin", 0.1, "constrained"),
    ("abilities.maths.max_weight", 0.0, r"must be in \(0, 1\]"),
    ("abilities.maths.mix_val", 0, "abilities.maths.mix_val = 0: must be at least 1"),
    ("abilities.maths.reference_loss", -1.0, "must not be negative"),
    ("abilities.maths.max_epochs", -1.0, "max_epochs = -1.0: must be at least 0"),
    ("abilities.code.tiers.by", "size", "tiers.by = 'size': .*none, level, length, lo"),
    ("abilities.code.tiers.count", 0, r"abilities.code.tiers.count = 0: .*\[1, 127\]"),
    ("conflict.resolver", "magic", "conflict.resolver = 'magic': .*dualproj"),
    ("conflict.engine", "magic", "materialize, accumulate, two_pass, lagged"),
    ("conflict.granularity", "layer", "global, block, matrix"),
    ("conflict.metric", "magic", "euclid, adam"),
    ("conflict.margin", 1.0, r"conflict.margin = 1.0: must be in \[0, 1\)"),
    ("conflict.every_n", 0, "conflict.every_n = 0: must be at least 1"),
    ("conflict.options.dualproj.ridge", 2.0, "options.dualproj = .*ridge"),
    ("optimizer.schedule", "magic", "constant, cosine, wsd"),
    ("optimizer.accumulate", 3, "must divide config.data.rows_per_slot = 1"),
    ("optimizer.learning_rate", -1.0, "optimizer.learning_rate = -1.0"),
    ("run.eval_every", 0, "run.eval_every = 0: must be at least 1"),
    ("mesh.data", -2, r"mesh = \[1, -1, -2, 1\]: axis sizes"),
    ("logging.wandb_mode", "magic", "online, offline"),
]


@pytest.mark.parametrize(("field", "value", "message"), BAD)
def test_bad_value_is_named(field: str, value, message: str):
    config = from_scratch.get_config()
    *groups, name = field.split(".")
    node = config
    for group in groups:
        node = node[group]
    node[name] = value
    with pytest.raises(ValueError, match=message):
        config_lib.validate(config)


def test_a_typo_in_tiers_is_refused():
    config = from_scratch.get_config()
    source = dict(kind="micro_functions", examples=9)
    config.abilities.code = base.ability(dict(micro=source), tiers=dict(num=2))
    with pytest.raises(ValueError, match=r"abilities.code.tiers = .*`by` and `count`"):
        config_lib.validate(config)


def test_given_prior_off_the_simplex():
    config = from_scratch.get_config()
    config.mixture.prior = "given"
    for ability, weight in zip(config.abilities.values(), (0.5, 0.3, 0.3), strict=True):
        ability.weight = weight
    with pytest.raises(ValueError, match=r"sums to 1\.1, expected 1"):
        config_lib.validate(config)


def test_caps_that_leave_no_room():
    config = from_scratch.get_config()
    for ability in config.abilities.values():
        ability.max_weight = 0.3
    with pytest.raises(ValueError, match=r"max_weight .* sums to 0\.8.* at least 1"):
        config_lib.validate(config)


def test_no_ability_and_no_source():
    with pytest.raises(ValueError, match="name at least one ability"):
        config_lib.validate(base.get_config())
    config = base.get_config()
    config.abilities.maths = base.ability({})
    with pytest.raises(
        ValueError, match=r"abilities\.maths\.sources.*give it a source"
    ):
        config_lib.validate(config)


def test_unknown_source_kind():
    config = from_scratch.get_config()
    config.abilities.maths.sources.sums.kind = "parquet"
    with pytest.raises(ValueError, match=r"sums\.kind = 'parquet'.*jsonl"):
        config_lib.validate(config)


def test_missing_tokenizer(tmp_path: Path):
    config = from_scratch.get_config()
    config.tokenizer.path = str(tmp_path / "none.model")
    with pytest.raises(FileNotFoundError, match=r"none.model.*train one"):
        config_lib.validate(config)
    config.tokenizer.path = ""
    config.tokenizer.fold_system = True
    with pytest.raises(ValueError, match=r"fold_system = True.*set tokenizer\.path"):
        config_lib.validate(config)
    config.tokenizer.update(path=__file__, chat_template=str(tmp_path / "none.jinja"))
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.chat_template = .*jinja"):
        config_lib.validate(config)


def test_every_resolver_and_rule_can_be_chosen():
    config = from_scratch.get_config()
    for name in RESOLVERS:
        config.conflict.resolver = name
        config_lib.validate(config)
        assert make_resolver(config).init(3) is not None
    config.conflict.update(noise_gate=2.0, margin=0.02, match_mean_norm=True)
    config.conflict.update(ema_weights=0.9, every_n=4, resolver="upgrad")
    config_lib.validate(config)
    state = make_resolver(config).init(3)
    assert len(jax.tree.leaves(state)) > len(
        jax.tree.leaves(RESOLVERS["upgrad"]().init(3))
    )


def test_options_of_the_resolvers_are_their_arguments():
    """base.py shows every option with the default that the resolver has."""
    options = base.get_config().conflict.options
    for name, factory in RESOLVERS.items():
        arguments = inspect.signature(factory).parameters
        defaults = {n: p.default for n, p in arguments.items() if n != "seed"}
        assert dict(options.get(name, {})) == defaults, name


def test_options_of_the_rules_are_their_arguments():
    """base.py shows every option with the default that the rule has."""
    options = base.get_config().mixture.options
    filled_in = {"sizes_K", "seed", "num_steps", "abilities"}
    filled_in |= {"max_weight_K", "retain_margin_K"}
    required = {"dmt": {"general": ("general",)}, "replay": {"run": ""}}
    for name, factory in RULES.items():
        arguments = inspect.signature(factory).parameters
        defaults = {n: p.default for n, p in arguments.items() if n not in filled_in}
        shown = options.get(name, ConfigDict()).to_dict()
        assert shown == defaults | required.get(name, {}), name
    tier_options = base.get_config().mixture.tiers.options
    for name, factory in TIER_RULES.items():
        arguments = inspect.signature(factory).parameters
        defaults = {n: p.default for n, p in arguments.items()}
        assert dict(tier_options.get(name, {})) == defaults, name


def test_every_rule_reaches_from_the_config():
    config = from_scratch.get_config()
    for name in RULES.keys() - {"doremi", "replay"}:  # those need another run
        config.mixture.rule = name
        config_lib.validate(config)


def test_rules_know_abilities_by_name():
    config = from_scratch.get_config()
    config.mixture.rule = "dmt"
    config.mixture.options.dmt.general = ("chat",)
    with pytest.raises(
        ValueError, match=r"options.dmt = .*general names 'chat'.*maths"
    ):
        config_lib.validate(config)


def test_pcd_protects_an_ability_that_exists():
    config = from_scratch.get_config()
    config.conflict.resolver = "pcd"
    config.conflict.options.pcd.priority = 3
    with pytest.raises(ValueError, match=r"options.pcd = .*priority.* 3 abilities"):
        config_lib.validate(config)


def test_noise_gate_needs_two_slots_of_each():
    config = from_scratch.get_config()
    config.data.num_slots, config.conflict.noise_gate = 5, 2.0
    with pytest.raises(ValueError, match=r"noise_gate = 2.0: .*at least 2 x 3"):
        config_lib.validate(config)
    config.data.num_slots, config.conflict.engine = 8, "accumulate"
    with pytest.raises(ValueError, match="another engine than accumulate"):
        config_lib.validate(config)


def test_micro_batches_need_an_engine_that_adds_gradients():
    config = from_scratch.get_config()
    config.data.rows_per_slot = config.optimizer.accumulate = 2
    config.conflict.engine = "lagged"
    with pytest.raises(
        ValueError, match="engine = 'lagged': Gramians of micro-batches"
    ):
        config_lib.validate(config)


def test_plain_config_keeps_the_order_of_abilities():
    plain = config_lib.to_plain(from_scratch.get_config())
    assert list(plain["abilities"]) == ["maths", "code", "general"]


def test_hash_and_difference_ignore_only_what_changes_nothing():
    one, two = (config_lib.to_plain(from_scratch.get_config()) for _ in range(2))
    two["logging"]["tensorboard"] = False
    two["run"]["log_every"] = 7
    two["abilities"]["code"]["sources"]["library"]["cache_dir"] = "elsewhere"
    assert config_lib.config_hash(one) == config_lib.config_hash(two)
    assert config_lib.difference(one, two) == []
    two["run"]["seed"] = 5
    assert config_lib.config_hash(one) != config_lib.config_hash(two)
    assert config_lib.difference(one, two) == ["run.seed: 0 -> 5"]
    two["run"]["seed"] = 0
    two["abilities"] = dict(reversed(two["abilities"].items()))
    (line,) = config_lib.difference(one, two)
    assert line.startswith("abilities (in order): ['maths', 'code', 'general'] -> ")
