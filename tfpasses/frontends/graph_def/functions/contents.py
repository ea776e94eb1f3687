"""What functions do, whatever their names: TensorFlow gives a function a new one each time that it loads or traces it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from tfpasses.frontends.graph_def.functions.call_graph import callees, peeled
from tfpasses.frontends.graph_def.functions.function_defs import functions_in

__all__ = ["contents"]


def contents(functions: Mapping[str, Any]) -> dict[str, str]:
    """A BLAKE2 hash of each function, in hexadecimal: of its arguments, nodes and results, and in the place of the names of functions that
    it calls of those functions. A recursive function, and what calls one, has its own name in the place of its hash. Linear in the size of
    the functions.
    """
    named = {name: dict.fromkeys(callees(definition.node_def, functions)) for name, definition in functions.items()}
    callers: dict[str, list[str]] = {name: [] for name in functions}
    for name, called in named.items():
        for other in called:
            callers[other].append(name)
    found = {name: name for name in functions}
    for name in peeled(named, callers):
        found[name] = content(functions[name], found)
    return found


def content(definition: Any, found: Mapping[str, str]) -> str:
    """The hash of one function, without what decides nothing: attributes that begin with an underscore, and where it was written."""
    new = type(definition)()
    new.CopyFrom(definition)
    new.signature.name = ""
    new.ClearField("arg_attr")
    for one in (new, *new.node_def):
        for key in [key for key in one.attr if key[:1] == "_"]:
            del one.attr[key]
    for one in new.node_def:
        one.op = found.get(one.op, one.op)
        one.ClearField("experimental_debug_info")
        for value in one.attr.values():
            for function in functions_in(value):
                function.name = found.get(function.name, function.name)
    return hashlib.blake2b(new.SerializeToString(deterministic=True), digest_size=16).hexdigest()
