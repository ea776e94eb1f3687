"""Small graphs written by hand, a line a node."""

from __future__ import annotations

import numpy as np

from tfpasses.graph import Edit, Graph, Node, Ref, Slot, Spec

F32 = "float32"
VECTOR = Spec((None, 4), F32)


def ref(text: str | Ref) -> Ref:
    """`a` is the first output of a, `a:1` its second."""
    if isinstance(text, Ref):
        return text
    name, colon, index = text.rpartition(":")
    return Ref(name, int(index)) if colon else Ref(index)


def node(name: str, op: str, *inputs: str | Ref, outputs: int = 1, spec: Spec = VECTOR, **fields: object) -> Node:
    fields.setdefault("specs", (spec,) * outputs)
    return Node(name, op, tuple(map(ref, inputs)), **fields)


def graph(*nodes: Node, outputs: list[str], weights: dict[str, object] | None = None, **fields: object) -> Graph:
    arrays = {key: np.asarray(value, np.float32) for key, value in (weights or {}).items()}
    for array in arrays.values():
        array.setflags(write=False)
    inputs = tuple(n.name for n in nodes if n.op == "Input")
    structure = [Slot(i) for i in range(len(outputs))]
    fields = {"input_structure": [Slot(i) for i in range(len(inputs))], "output_structure": structure, **fields}
    return Graph({n.name: n for n in nodes}, arrays, inputs, tuple(map(ref, outputs)), **fields)


def chain(*ops: str) -> Graph:
    """Input `x`, then one node an operation, named `n1`, `n2`, ..; the last is the output."""
    nodes = [node("x", "Input")]
    for number, op in enumerate(ops, 1):
        nodes.append(node(f"n{number}", op, nodes[-1].name))
    return graph(*nodes, outputs=[nodes[-1].name])


def indices(graph: Graph | Edit) -> tuple[object, ...]:
    """Users and weight users, without empty entries and without the order of entries."""
    users = {name: dict(uses) for name, uses in graph.users.items() if uses}
    return users, {key: sorted(names) for key, names in graph.weight_users.items() if names}


def rebuilt(edit: Edit) -> Graph:
    """A new graph of what the edit holds, with its indices counted from nothing."""
    return Graph(dict(edit.nodes), dict(edit.weights), outputs=edit.outputs)
