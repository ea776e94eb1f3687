"""Inlining: the nodes of a function in the place of its call, and of the branch that is taken in the place of a branching."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tfpasses.graph import Body, Edit, Functions, GraphError, Node, Ref
from tfpasses.passes.raising.predicates import branch_taken, truth
from tfpasses.passes.raising.switches import switch_rules, unknown_predicate
from tfpasses.pattern import Match, Miss, Rule, op

__all__ = ["call_rules"]

CALLS = ("tf.PartitionedCall", "tf.StatefulPartitionedCall")
IFS = ("tf.If", "tf.StatelessIf")
CASES = ("tf.Case", "tf.StatelessCase")
WHILES = ("tf.While", "tf.StatelessWhile")
LOOP_PARTS = ("tf.Loop", "tf.Enter", "tf.RefEnter", "tf.Exit", "tf.RefExit", "tf.NextIteration", "tf.RefNextIteration", "tf.LoopCond")
FUNCTIONS = {
    **dict.fromkeys(CALLS, ("f",)),
    **dict.fromkeys(IFS, ("then_branch", "else_branch")),
    **dict.fromkeys(CASES, ("branches",)),
    **dict.fromkeys(WHILES, ("cond", "body")),
}
"""Operation -> its attributes that name functions."""


class Choice(NamedTuple):
    """The function that stands in the place of a node."""

    attribute: str
    number: int
    arguments: tuple[Ref, ...]


def call_rules(training: bool | None, functions: Functions | None) -> tuple[Rule, ...]:
    """`inline`: calls. `branch`: If and Case whose predicate is a constant, or the learning phase where `training` pins it. `switch` and
    `merge`: the same as TensorFlow 1 writes it. `whole`: loops and unknown operations, which stay, for the reason why.

    A call that is compiled as a whole is inlined as well, unless it holds a grouped convolution: those run on a CPU in compiled calls only.
    Everything that a call calls in turn is inlined with it, in one rewrite. Run these rules before nodes are raised.
    """
    own = tuple(f"tf.{name}" for name in functions.names) if functions is not None else ()
    unknown = {f"tf.{name}" for name in functions.unknown} if functions is not None else set()

    def choose(node: Node, edit: Edit) -> Choice | None:
        """The function to stand in the place of a node; None for a branching whose predicate is not known."""
        if node.op in CALLS or node.op in own_ops:
            return Choice(FUNCTIONS[CALLS[0]][0], 0, node.inputs)
        predicate, *arguments = node.inputs
        if node.op in IFS:
            holds = truth(predicate, edit, training)
            return None if holds is None else Choice(FUNCTIONS[node.op][0 if holds else 1], 0, tuple(arguments))
        taken = branch_taken(predicate, edit, len(node.config["branches"]))
        return None if taken is None else Choice("branches", taken, tuple(arguments))

    def inline(match: Match, edit: Edit) -> Miss | None:
        reason = expand(match.root, edit)
        return match.miss(reason) if reason else None

    def branch(match: Match, edit: Edit) -> Miss | None:
        if choose(match.root, edit) is None:
            return unknown_predicate(match, match.root.inputs[0], edit, training)
        return inline(match, edit)

    def expand(root: Node, edit: Edit) -> str:
        """Put functions in the place of a node, and of the calls in those. Gives the reason where the root has to stay, or nothing."""
        stack = [(root.name, False)]
        while stack:
            name, compiled = stack.pop()
            node = edit.nodes[name]
            choice = choose(node, edit)
            if choice is None:
                continue
            try:
                body = body_of(node, choice, edit)
                reason = "" if compiled or not body.compiled else compiled_only(body, functions_of(edit))
            except GraphError as error:
                reason = str(error)
            if not reason:
                splice(node, body, choice.arguments, edit)
                stack += [(one.name, compiled or body.compiled) for one in body.graph.nodes.values() if one.op in called]
            elif node is root:
                return reason
        return ""

    def whole(match: Match, edit: Edit) -> Miss | None:
        if match.root.op in unknown:
            return match.miss(f"TensorFlow has no operation {match.root.op.removeprefix('tf.')}")
        return match.miss("it is (a part of) a loop, which stays whole")

    own_ops = frozenset(own)
    called = own_ops.union(CALLS, IFS, CASES)
    return (
        Rule.of("inline", op(*CALLS, *own), inline),
        Rule.of("branch", op(*IFS, *CASES), branch),
        *switch_rules(training),
        Rule.of("whole", op(*WHILES, *LOOP_PARTS, *unknown), whole),
    )


def body_of(call: Node, choice: Choice, edit: Edit) -> Body:
    """What is to stand in the place of a call. Raises `GraphError` where nothing can."""
    specs = [edit.spec(ref) for ref in choice.arguments]
    return functions_of(edit).body(call, choice.attribute, choice.number, specs, lambda name: name in edit.nodes or name in edit.weights)


def functions_of(edit: Edit) -> Functions:
    """The graph's functions. Raises `GraphError` where it has none."""
    if edit.source.functions is None:
        raise GraphError("the graph has no functions")
    return edit.source.functions


def splice(call: Node, body: Body, arguments: Sequence[Ref], edit: Edit) -> None:
    """Put a body in the place of a call."""
    given = dict(zip(body.graph.inputs, arguments, strict=True))
    for key, array in body.graph.weights.items():
        edit.add_weight(key, array)
    for node in body.graph.nodes.values():
        if node.name not in given:
            edit.add(node.fed_by(tuple([given.get(ref.node, ref) for ref in node.inputs])), [call])
    for index, ref in enumerate(body.graph.outputs):
        edit.redirect(Ref(call.name, index), given.get(ref.node, ref))
    if body.done is None:
        edit.remove(call)
    else:
        edit.change(call, op=body.done.op, inputs=(), config=body.done.config, specs=(), owner=body.done.owner)


def compiled_only(body: Body, functions: Functions) -> str:
    """Why the nodes of a compiled call can run in no other way, or nothing. Raises `GraphError` where a function in it cannot be read."""
    stack = [body]
    while stack:
        graph = stack.pop().graph
        for node in graph.nodes.values():
            if node.op in ("tf.Conv2D", "tf.Conv3D"):
                image, kernel = [graph.spec(ref).shape for ref in node.inputs]
                axis = 1 if node.config.get("data_format", "NHWC").startswith("NC") else -1
                if not image or not kernel or image[axis] is None or image[axis] != kernel[-2]:
                    return f"it is compiled as a whole, and {node.name} in it is a grouped convolution, which a CPU runs in no other way"
            for attribute in FUNCTIONS.get(node.op, ()):
                named = node.config[attribute]
                for number in range(len(named) if isinstance(named, list) else 1):
                    inputs = node.inputs[1:] if node.op in (*IFS, *CASES) else node.inputs
                    stack.append(functions.body(node, attribute, number, [graph.spec(ref) for ref in inputs]))
    return ""
