"""The functions of a GraphDef's library, as bodies that can stand in the place of their calls."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from itertools import count
from typing import Any, NamedTuple, TypeVar

from tfpasses.frontends.graph_def.functions.bodies import Place
from tfpasses.frontends.graph_def.functions.call_graph import CALLS, HANDLES, Standing, acts, is_stateful, standings
from tfpasses.frontends.graph_def.functions.contents import contents
from tfpasses.frontends.graph_def.functions.function_defs import Flat, flatten, functions_in, op_def, open_names
from tfpasses.frontends.graph_def.functions.templates import Template, control_of, template_of
from tfpasses.frontends.graph_def.protos.attributes import Attributes, Dims, proto_shape
from tfpasses.frontends.graph_def.protos.node_defs import node_def
from tfpasses.frontends.graph_def.protos.parts import value_name
from tfpasses.frontends.graph_def.reading.loops import Loop, Loops
from tfpasses.frontends.graph_def.reading.nodes import Given, Reading, Variable, common, read_nodes
from tfpasses.frontends.graph_def.reading.room import Room
from tfpasses.frontends.graph_def.reading.wiring import Wiring
from tfpasses.graph import Array, Body, GraphError, Node, Owner, Ref, Spec
from tfpasses.graph.node import EMPTY

__all__ = ["FunctionLibrary"]

MOST_NODES = 1 << 20
"""A call that would be more nodes, with all that it calls in turn, is not inlined: a short library can stand for any number."""
MOST_DEEP = 64
"""So many calls within calls are looked into for the shapes of what they give."""
MOST_KINDS = 32
"""For so many kinds of arguments a function's shapes are found; after that, only what is known of all."""
PREDICATED = frozenset({"If", "StatelessIf", "Case", "StatelessCase"})
"""The operations whose first input is no argument of their functions."""
VALUES = frozenset({"PartitionedCall", "StatefulPartitionedCall", *PREDICATED})
"""The operations that give what one of their functions gives."""
COMPILED = "_XlaMustCompile"
SHAPES = "output_shapes"
"""What a loop says of the shapes that it gives."""
STILL = HANDLES | {"Placeholder", "Const"}
T = TypeVar("T")
Key = tuple[str, tuple[tuple[str, bytes], ...]]
"""A function, and the attributes that it leaves to its caller."""


class Called(NamedTuple):
    """A function that a node calls."""

    name: str
    attr: Mapping[str, Any]
    """The attributes that it is called with."""


class FunctionLibrary:
    """Implements `Functions`. FunctionDefs are flattened once, and read once for each kind of arguments."""

    def __init__(self, definition: Any, variables: Mapping[str, Variable], loops: Loops) -> None:
        self.definition = definition
        self.variables = variables
        self.loops = loops
        self.arrays: dict[str, Array] = {}
        """Every constant as it was read, those of bodies that were given among them."""
        self.room = Room()
        self.functions: dict[str, Any] = {function.signature.name: function for function in definition.library.function}
        self.flats: dict[Key, Flat] = {}
        self.templates: dict[tuple[Key, tuple[Given, ...]], Template] = {}
        self.refused: dict[Key, str] = {}
        """Why a function cannot be read."""
        self.kinds: dict[str, int] = {}
        self.open_names: dict[str, frozenset[str]] = {}
        self.depth = 0

    # what is asked of the graph

    @property
    def names(self) -> Collection[str]:
        """See `Functions`."""
        return self.functions.keys()

    @cached_property
    def contents(self) -> Mapping[str, str]:
        """See `Functions`."""
        return contents(self.functions)

    @cached_property
    def unknown(self) -> Collection[str]:
        """See `Functions`."""
        listed = [self.definition.node, *(function.node_def for function in self.functions.values())]
        ops = dict.fromkeys(one.op for nodes in listed for one in nodes)
        return [op for op in ops if op not in self.functions and op_def(op) is None]

    @cached_property
    def standings(self) -> Mapping[str, Standing]:
        """What is known of the functions in view of those that they call."""
        return standings(self.functions)

    @cached_property
    def calling(self) -> frozenset[str]:
        """The operations whose nodes call functions."""
        return CALLS | self.functions.keys()

    @cached_property
    def node_names(self) -> frozenset[str]:
        """The names that the graph's own nodes have."""
        return frozenset([one.name for one in self.definition.node])

    @cached_property
    def still(self) -> frozenset[str]:
        """The graph's own nodes that are there from the beginning."""
        return frozenset([one.name for one in self.definition.node if one.op in STILL and not one.input])

    @cached_property
    def waits(self) -> dict[str, dict[str, None]]:
        """Node -> those that wait for it, in the graph and in the bodies that were given."""
        waits: dict[str, dict[str, None]] = {}
        for one in self.definition.node:
            for other in control_of(one):
                waits.setdefault(self.loops.standing(other), {})[self.loops.standing(one.name)] = None
        return waits

    def has_effects(self, node: Node) -> bool:
        """See `Functions`."""
        source = source_of(node)
        return any(map(self.acts, source.nodes.values())) if isinstance(source, Loop) else self.acts(source)

    def waiting(self, name: str) -> Collection[str]:
        """See `Functions`."""
        return self.waits.get(name, ())

    def passing(self, node: Node, value: Ref, spec: Spec) -> Node:
        """See `Functions`."""
        source = source_of(node)
        texts = [f"^{name}" for name in node.config["_control"]]
        new = node_def(node.name, "RefIdentity" if source.op.startswith("Ref") else "Identity", value_name(value), *texts)
        new.attr["T"].CopyFrom(source.attr["T"])
        new.device = source.device
        return Node(node.name, f"tf.{new.op}", (value,), Attributes(new), EMPTY, (spec,), None, Owner(node.name, 0, new))

    # bodies

    def body(
        self,
        call: Node,
        attribute: str,
        number: int = 0,
        specs: Sequence[Spec] | None = None,
        taken: Callable[[str], bool] | None = None,
    ) -> Body:
        """See `Functions`. The nodes' NodeDefs have their final names and read what the call reads."""
        source = source_of(call)
        called = called_by(source, attribute, number, self.functions)
        arguments = call.inputs[1:] if source.op in PREDICATED else call.inputs
        try:
            if specs is not None and len(specs) != len(arguments):
                raise GraphError(f"{len(specs)} of its {len(arguments)} arguments are described")
            given = None if specs is None else [(spec, self.held(ref)) for spec, ref in zip(specs, arguments, strict=True)]
            template = self.template(source, called, given)
            if given is None and len(template.arguments) != len(arguments):
                raise GraphError(f"it takes {len(template.arguments)} arguments, not {len(arguments)}")
            if self.gives(source.op):
                check_results(template, call.specs)
        except GraphError as error:
            raise GraphError(f"node {call.name}: calls {called.name or 'no function'}: {error}") from error
        prefix = self.free_prefix(call.name, template, taken)
        waits = call.config["_control"]
        place = Place(template, source, waits, prefix, dict(zip(template.arguments, arguments, strict=True)), self.still, self.waits)
        graph = place.graph(called.name)
        self.arrays.update(graph.weights)
        done = place.done() if self.waiting(call.name) or template.acts or not call.specs else None
        compiled = [source.attr, called.attr, self.functions[called.name].attr]
        return Body(graph, done, any(COMPILED in attributes and attributes[COMPILED].b for attributes in compiled))

    def shapes(self, source: Any, given: Sequence[Given]) -> Sequence[Dims] | None:
        """The shapes of what a call gives, as far as they are known from its functions. `given` are all the inputs of its NodeDef."""
        if not self.gives(source.op):
            return [proto_shape(shape) for shape in source.attr[SHAPES].list.shape] if SHAPES in source.attr else None
        if self.depth >= MOST_DEEP:
            return None
        given = given[1:] if source.op in PREDICATED else given
        found: list[Sequence[Dims]] = []
        self.depth += 1
        try:
            for called in all_called_by(source, self.functions):
                found.append([spec.shape for spec in self.template(source, called, given).result_specs])
        except GraphError:  # said when the body is asked for
            return None
        finally:
            self.depth -= 1
        if not found or any(len(shapes) != len(found[0]) for shapes in found):
            return None
        return [common(shapes) for shapes in zip(*found, strict=True)]

    def template(self, source: Any, called: Called, given: Sequence[Given] | None) -> Template:
        """A function, read for these arguments; without any, for what is known of all. Raises `GraphError`, see `template_of`."""
        name = called.name
        if name not in self.functions:
            raise GraphError("the graph has no such function")
        standing = self.standings[name]
        if standing.recursive:
            raise GraphError("it is recursive")
        if standing.size > MOST_NODES:
            raise GraphError(f"it would be {standing.size} nodes with all that it calls; at most {MOST_NODES} are inlined")
        definition = self.functions[name]
        wanted = self.open_names.get(name)
        if wanted is None:
            wanted = self.open_names[name] = open_names(definition)
        bound = {key: attributes[key] for attributes in (source.attr, called.attr) for key in wanted if key in attributes}
        key = name, tuple([(one, bound[one].SerializeToString(deterministic=True)) for one in sorted(bound)])
        flat = self.flats.get(key)
        if flat is None:
            flat = self.flats[key] = self.made(key, lambda: flatten(definition, bound, self.op_def))
        known = tuple(given) if given is not None else None
        if known is not None:
            check_arguments(flat, known)
        if known is None or ((key, known) not in self.templates and self.kinds.get(name, 0) >= MOST_KINDS):
            known = tuple([(Spec(argument.shape, argument.dtype), None) for argument in flat.arguments])
        template = self.templates.get((key, known))
        if template is None:
            self.kinds[name] = self.kinds.get(name, 0) + 1
            template = self.templates[key, known] = self.made(key, lambda: template_of(flat, known, self.read, self.acts, self.is_stateful))
        return template

    def made(self, key: Key, make: Callable[[], T]) -> T:
        """What `make` makes of a function. Where it cannot, it is not asked again: that would be as long a way for each call."""
        if key in self.refused:
            raise GraphError(self.refused[key])
        try:
            return make()
        except GraphError as error:
            self.refused[key] = str(error)
            raise

    def acts(self, one: Any) -> bool:
        """Whether a NodeDef does more than give its values."""
        return acts(one, self.functions, self.standings.__getitem__)

    def is_stateful(self, one: Any) -> bool:
        """Whether somebody may wait for a NodeDef."""
        return is_stateful(one, self.functions, self.standings.__getitem__)

    def gives(self, op: str) -> bool:
        """Whether an operation gives what one of its functions gives."""
        return op in VALUES or op in self.functions

    def read(self, wiring: Wiring, handles: Mapping[str, Variable]) -> Reading:
        """Read NodeDefs that may call these functions."""
        return read_nodes(wiring, handles, self.functions, self.calling, self.shapes, self.room)

    def op_def(self, op: str) -> Any:
        """The definition of an operation or function, or None."""
        return self.functions[op].signature if op in self.functions else op_def(op)

    def held(self, ref: Ref) -> Dims:
        """The shape of the variable that a value of the graph is the handle of."""
        variable = self.variables.get(ref.node)
        return None if variable is None else variable.value.shape

    def free_prefix(self, name: str, template: Template, taken: Callable[[str], bool] | None) -> str:
        """The call's name, or that with a number: no node of the graph has a name that a node would have behind it."""
        names = [*template.nodes, *template.loops.inside, *template.result_names]
        for number in count():
            prefix = f"{name}_{number}" if number else name
            full = [f"{prefix}/{one}" for one in names]
            if self.node_names.isdisjoint(full) and not (taken and any(map(taken, full))):
                return prefix
        raise AssertionError


def source_of(node: Node) -> Any:
    """The NodeDef that a node was read from."""
    assert node.owner is not None
    return node.owner.source


def all_called_by(source: Any, functions: Mapping[str, Any]) -> Sequence[Called]:
    """The functions that a NodeDef calls: one, or one of several."""
    if source.op in functions:
        return [Called(source.op, source.attr)]
    return [Called(function.name, function.attr) for value in source.attr.values() for function in functions_in(value)]


def called_by(source: Any, attribute: str, number: int, functions: Mapping[str, Any]) -> Called:
    """The function that a NodeDef calls by an attribute."""
    if source.op in functions:
        return Called(source.op, source.attr)
    named = list(functions_in(source.attr[attribute])) if attribute in source.attr else []
    if not 0 <= number < len(named):
        raise GraphError(f"node {source.name}: its attribute {attribute} names no function{f' number {number}' if number else ''}")
    return Called(named[number].name, named[number].attr)


def check_arguments(flat: Flat, given: Sequence[Given]) -> None:
    """Raise `GraphError` where the arguments do not fit."""
    if len(given) != len(flat.arguments):
        raise GraphError(f"it takes {len(flat.arguments)} arguments, not {len(given)}")
    for argument, (spec, _) in zip(flat.arguments, given, strict=True):
        if spec.dtype not in (argument.dtype, "unknown"):
            raise GraphError(f"its argument {argument.name} is {argument.dtype}, not {spec.dtype}")


def check_results(template: Template, specs: Sequence[Spec]) -> None:
    """Raise `GraphError` where a call is said to give something else than its function does."""
    if len(template.results) != len(specs):
        raise GraphError(f"it gives {len(template.results)} values, not {len(specs)}")
    for name, mine, spec in zip(template.result_names, template.result_specs, specs, strict=True):
        if spec.dtype not in (mine.dtype, "unknown"):
            raise GraphError(f"its result {name} is {mine.dtype}, not {spec.dtype}")
