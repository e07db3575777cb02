"""Scores by lm-evaluation-harness: its tasks, our models. Read adapter.py first.

Nothing else of the package imports lm_eval, which is the extra `lm-eval`.
"""
