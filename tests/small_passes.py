"""Passes for tests, made of a function."""

from __future__ import annotations

import attrs

from tfpasses.manager import Contract, Effect, Pass

__all__ = ["make", "run_edit"]


def make(name, apply=None, effect=Effect.REASSOCIATES, **contract):
    """A pass of that name; `apply(edit)` edits the graph."""

    def applied(self, edit, context):
        if apply is not None:
            apply(edit)
        return ()

    return attrs.frozen(type(name, (Pass,), {"name": name, "contract": Contract(effect, **contract), "apply": applied}))()


def run_edit(apply, effect=Effect.REASSOCIATES):
    return make("wrong", apply, effect)
