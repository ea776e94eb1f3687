"""Writing a graph as a GraphDef: what nobody touched leaves as the NodeDefs it came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import attrs
import numpy as np
import tensorflow as tf

from tfpasses.frontends.graph_def.protos.node_defs import (
    FEWEST_STORED,
    STORED,
    bias_add,
    cast,
    const,
    handle,
    identity,
    identity_n,
    read_variable,
    tensor_proto,
)
from tfpasses.frontends.graph_def.protos.parts import copied, value_name, without_lost_colocations
from tfpasses.frontends.graph_def.read import Source, Variable
from tfpasses.frontends.graph_def.reading.loops import LOOP, Loop
from tfpasses.frontends.graph_def.writing.lower import lowered
from tfpasses.frontends.graph_def.writing.wire import Content, graph_bytes, is_content_of, without_content, without_value
from tfpasses.graph import Array, Graph, Node, Ref, UnsupportedModelError, View

__all__ = ["MOST_BYTES", "Written", "to_bytes", "to_graph_def", "write"]

MOST_BYTES = (1 << 31) - 1
"""What a protocol buffer can hold."""
LARGE = 1 << 16
"""Arrays of so many bytes are worth the trouble not to copy them."""


@attrs.frozen(eq=False)
class Written:
    """A graph as a GraphDef, with the variables it reads."""

    definition: Any
    inputs: tuple[str, ...]
    """The placeholders' names."""
    outputs: tuple[str, ...]
    """The values' names, as `node:0`."""
    variables: Mapping[str, Variable]
    """Those that the GraphDef reads, with their values now, by the names of their handles."""


def to_graph_def(graph: Graph) -> Any:
    """A new `tf.compat.v1.GraphDef` that computes this graph, nodes in the graph's order; versions and functions as they were read.

    Raises `UnsupportedModelError` for a graph that was not read from a GraphDef, that reads variables (write the kind it was read from),
    or beyond the 2 GB that a GraphDef can hold.
    """
    return without_variables(graph).definition()


def to_bytes(graph: Graph) -> bytes:
    """The same GraphDef as a file holds it, made without the message, which takes less time and memory. Raises as `to_graph_def` does."""
    writer = without_variables(graph)
    writer.take_out_large()
    return graph_bytes(writer.rest(), writer.nodes, writer.contents)


def write(graph: Graph) -> Written:
    """The graph's GraphDef and variables. Raises `UnsupportedModelError`; see `to_graph_def`."""
    return writer_of(graph).written()


def writer_of(graph: Graph) -> Writer:
    """The NodeDefs of a graph. Raises `UnsupportedModelError`; see `to_graph_def`."""
    if not isinstance(graph.source, Source):
        raise UnsupportedModelError(f"graph {graph.name} was not read from a GraphDef")
    return Writer(graph, graph.source)


def without_variables(graph: Graph) -> Writer:
    """The same for a graph that reads no variables."""
    writer = writer_of(graph)
    if writer.variables:
        first = next(iter(writer.variables.values())).name
        raise UnsupportedModelError(
            f"graph {graph.name}: reads variables ({first}, ..), which a GraphDef does not hold; write a SavedModel"
        )
    return writer


class Writer:
    """The NodeDefs of a graph."""

    def __init__(self, graph: Graph, source: Source) -> None:
        self.graph = graph
        self.source = source
        self.nodes: dict[str, Any] = {}
        """The NodeDefs by name."""
        self.variables: dict[str, Variable] = {}
        self.handles = {variable.name: name for name, variable in source.variables.items()}
        owners = [node.owner for node in graph.nodes.values() if node.op == LOOP]
        self.loops = [owner.source for owner in owners if owner is not None and isinstance(owner.source, Loop)]
        exits = {Ref(loop.name, place): name for loop in self.loops for place, name in enumerate(loop.exits)}
        self.value = (lambda ref: exits.get(ref) or value_name(ref)) if exits else value_name
        """A value as NodeDefs name it."""
        self.arrays: dict[str, str] = {}
        """Key of a weight that is new -> the node that gives its value."""
        self.contents: dict[str, Content] = {}
        """The values of constants whose NodeDefs are without: to copy large arrays takes long."""
        self.device = ""
        """Where the node that is being written lies."""
        self.collect()

    @cached_property
    def taken(self) -> set[str]:
        """The names that something has, or had."""
        views = [node.owner.source for node in self.graph.nodes.values() if node.owner is not None and isinstance(node.owner.source, View)]
        inner = [*(one.name for view in views for one in view.sources), *(name for loop in self.loops for name in loop.nodes)]
        return {*self.source.nodes, *self.source.loops.inside, *self.graph.nodes, *inner}

    def collect(self) -> None:
        """Write every node."""
        graph = self.graph
        read, arrays, weights = self.source.nodes, self.source.arrays, graph.weights
        for name, node in graph.nodes.items():
            source = None if node.owner is None else node.owner.source
            if node.op == LOOP and isinstance(source, Loop):
                self.write_loop(node, source)
            elif read.get(name) is node and source is not None and (node.op != "Const" or weights.get(name) is arrays[name]):
                self.nodes[name] = source  # nobody touched it, as most nodes of a large graph
            elif isinstance(source, View):
                self.write_view(node, source)
            elif source is not None and is_as(node, source):
                self.write_source(node, node.inputs)
            else:
                self.write_anew(node)
        self.outputs = self.named_outputs()
        """The values of the graph's outputs, as `node:0`."""
        self.drop_waiting_for_the_gone()
        self.drop_unread_captures()
        self.refuse_what_is_too_large()
        for name, variable in self.source.variables.items():
            if name in self.nodes:
                value = graph.weights.get(variable.name, variable.value)
                self.variables[name] = attrs.evolve(variable, value=value.reshape(variable.value.shape))

    def written(self) -> Written:
        """All of it."""
        return Written(self.definition(), self.graph.inputs, tuple(self.outputs), self.variables)

    def definition(self) -> Any:
        """The NodeDefs as a GraphDef."""
        definition = self.rest()
        add = definition.node.add
        for name, one in self.nodes.items():
            added = add()
            added.CopyFrom(one)  # a third faster than extend
            if name in self.contents:
                tensor, array = self.contents[name]
                value = added.attr["value"].tensor
                value.CopyFrom(tensor)
                value.tensor_content = array.tobytes()
        return definition

    def rest(self) -> Any:
        """A GraphDef without nodes."""
        definition = tf.compat.v1.GraphDef()
        for field in ("versions", "library"):
            if self.source.definition.HasField(field):
                getattr(definition, field).CopyFrom(getattr(self.source.definition, field))
        return definition

    def take_out_large(self) -> None:
        """Take the values of large constants that nobody touched out of their NodeDefs."""
        for name, array in self.source.arrays.items():
            one, read = self.nodes.get(name), self.source.nodes.get(name)
            if one is None or read is None or read.owner is None or one is not read.owner.source or one.op != "Const":
                continue
            tensor = one.attr["value"].tensor
            if array.nbytes >= LARGE and is_content_of(tensor, array):
                self.contents[name] = Content(without_content(tensor), array)
                self.nodes[name] = without_value(one)

    def named_outputs(self) -> list[str]:
        """The values of the graph's outputs, under the names that they had: where a node is gone, another of its name gives them."""
        wanted: dict[str, dict[int, Ref]] = {}
        texts = [self.value(ref) for ref in self.graph.outputs]
        for place, (ref, text) in enumerate(zip(self.graph.outputs, self.graph.output_names, strict=True)):
            node, _, index = text.partition(":")
            if (node in self.source.nodes or node in self.source.loops.inside) and text != texts[place]:
                wanted.setdefault(node, {})[int(index or 0)] = ref
                texts[place] = text
        for node, refs in wanted.items():
            there = self.nodes.get(node)
            if there is not None and there.op != "NoOp":
                raise UnsupportedModelError(
                    f"output {node}: {next(iter(refs.values()))} stands for it, but a node of that name is there still"
                )
            given = [refs.get(index, next(iter(refs.values()))) for index in range(max(refs) + 1)]
            dtypes = [self.graph.spec(ref).dtype for ref in given]
            names = list(map(self.value, given))
            self.nodes[node] = identity(node, names[0], dtypes[0]) if len(given) == 1 else identity_n(node, names, dtypes)
            if there is not None:  # where a call stood: it waits for all that the call did
                self.nodes[node].input.extend(there.input)
        return [text if ":" in text else f"{text}:0" for text in texts]

    # a node as it was read, or as a view

    def write_view(self, node: Node, view: View) -> None:
        """The sources that a raised node stands for; the node anew where it is not as it was raised."""
        extra = node.params.keys() - view.params.keys()
        same = (
            node.op == view.op
            and (node.config is view.config or dict(node.config) == dict(view.config))
            and all(node.params.get(slot) == key and self.fits(key) for slot, key in view.params.items())
            and extra <= {"bias"}
            and all(self.graph.weights[key] is array for key, array in view.derived.items())
            and not self.reads_changed(view)
        )
        if not same:
            self.device = device_of(view)
            self.write_anew(node, next(iter(self.variables_of(view)), None))
            return
        anew = {old: new for old, new in zip(view.inputs, node.inputs, strict=True) if old != new}
        root = self.fresh(f"{node.name}/without_bias") if extra else node.name
        for one in view.sources:
            inputs = tuple([anew.get(ref, ref) for ref in one.inputs]) if anew else one.inputs
            self.write_source(one, inputs, root if one.name == node.name else one.name)
        if extra:
            self.device = device_of(view)
            spec, bias = self.graph.spec(Ref(node.name)), self.param(node, "bias")
            stored = self.graph.weights[node.params["bias"]].dtype.name
            if stored != spec.dtype:
                self.keep(cast(self.fresh(f"{bias}/Cast"), bias, stored, spec.dtype))
                bias = next(reversed(self.nodes))
            self.keep(bias_add(node, root, bias, spec))

    def fits(self, key: str) -> bool:
        """Whether a weight is still of the dtype that the constant or variable has."""
        read, now = self.source.arrays.get(key), self.graph.weights.get(key)
        return read is None or now is None or now is read or now.dtype == read.dtype

    def reads_changed(self, view: View) -> bool:
        """Whether an array has changed that the sources of a view read and the raised node does not: what it has of it is its own."""
        named = set(view.params.values())
        keys = [one.params["value"] for one in view.sources if one.op == "Const"]
        keys += [variable.name for variable in self.variables_of(view)]
        weights, arrays = self.graph.weights, self.source.arrays
        return any(key not in named and key in weights and weights[key] is not arrays.get(key) for key in keys)

    def variables_of(self, view: View) -> Iterator[Variable]:
        """The variables whose handles the sources of a view read."""
        if self.source.variables:
            for one in view.sources:
                yield from (self.source.variables[ref.node] for ref in one.inputs if ref.node in self.source.variables)

    def write_loop(self, node: Node, loop: Loop) -> None:
        """The nodes of a loop, on what it reads now."""
        anew = {old: new for old, new in zip(loop.inputs, node.inputs, strict=True) if old != new}
        as_read = self.source.nodes.get(node.name) is node
        for name, one in loop.nodes.items():
            if name in self.nodes:
                raise UnsupportedModelError(f"node {name}: two nodes would bear this name")
            self.nodes[name] = one
            reads = loop.refs[name]
            if any(ref.node not in loop.nodes for ref in reads) and (anew or not as_read):
                texts = [value_name(ref) if ref.node in loop.nodes else self.value(anew.get(ref, ref)) for ref in reads]
                if texts != [text for text in one.input if text[:1] != "^"]:
                    self.nodes[name] = new = copied(one)
                    new.input[:] = [*texts, *[text for text in one.input if text[:1] == "^"]]

    def write_source(self, node: Node, inputs: tuple[Ref, ...], name: str = "") -> None:
        """The NodeDef that a node was read from, on these inputs, with its constant as it is now."""
        name = name or node.name
        if name in self.nodes:
            return
        assert node.owner is not None
        source = node.owner.source
        texts = None if inputs is node.inputs and self.source.nodes.get(node.name) is node else list(map(self.value, inputs))
        if texts is not None and texts == [text for text in source.input if text[:1] != "^"]:
            texts = None
        array = None
        if source.op == "Const":
            key = node.params["value"]
            now = self.graph.weights.get(key)
            if now is not None and now is not self.source.arrays.get(key):
                array = now
        if texts is None and array is None and name == source.name:
            self.nodes[name] = source
            return
        new = copied(source) if array is None else without_value(source)
        new.name = name
        if texts is not None:
            new.input[:] = [*texts, *(text for text in source.input if text[:1] == "^")]
        if array is not None:
            old = source.attr["value"].tensor
            if array.size >= FEWEST_STORED and STORED.get(array.dtype) == old.dtype:
                self.contents[name] = Content(without_content(old), array)
            else:
                shape = [dim.size for dim in old.tensor_shape.dim]
                new.attr["value"].tensor.CopyFrom(tensor_proto(np.asarray(array).reshape(shape)))
        self.nodes[name] = new

    # new nodes

    def write_anew(self, node: Node, like: Variable | None = None) -> None:
        """A node that passes made, or changed beyond what its sources can express; arrays of its own become variables like `like`."""
        if node.op == "Const":
            self.keep(const(node.name, self.graph.weights[node.params["value"]]))
            return
        params = {slot: self.param(node, slot, like) for slot in node.params}
        for one in lowered(node, self.graph, list(map(self.value, node.inputs)), params, self.fresh):
            self.keep(one)

    def param(self, node: Node, slot: str, like: Variable | None = None) -> str:
        """The name of a node that gives the value of a parameter."""
        key = node.params[slot]
        if key in self.arrays:
            return self.arrays[key]
        array = self.graph.weights[key]
        reads = self.handles.get(key)
        source = self.source.nodes.get(key)
        if not self.fits(key):
            reads = source = None
        if reads is not None and self.source.variables[reads].value.shape == array.shape:
            name = self.read(reads, array, key)
        elif source is not None and source.op == "Const" and self.source.arrays[key].shape == array.shape:
            self.write_source(source, ())
            name = key
        elif (beside := next((self.handles[other] for other in node.params.values() if other in self.handles), None)) is not None:
            name = self.new_variable(key, array, self.source.variables[beside])
        elif like is not None:
            name = self.new_variable(key, array, like)
        else:
            name = self.fresh(key)
            self.keep(const(name, array))
        self.arrays[key] = name
        return name

    def read(self, reads: str, array: Array, base: str) -> str:
        """A new node that reads a variable."""
        owner = self.source.nodes[reads].owner
        assert owner is not None
        self.nodes.setdefault(reads, owner.source)
        name = self.fresh(f"{base}/Read")
        self.keep(read_variable(name, owner.source, array))
        return name

    def new_variable(self, key: str, array: Array, like: Variable) -> str:
        """A new variable, beside one of the same node, and a node that reads it."""
        owner = self.source.nodes[self.handles[like.name]].owner
        assert owner is not None
        name = self.fresh(key)
        self.keep(handle(name, owner.source, array))
        self.variables[name] = Variable(key, array, like.trainable)
        reader = self.fresh(f"{key}/Read")
        self.keep(read_variable(reader, self.nodes[name], array))
        return reader

    def keep(self, one: Any) -> None:
        """Take a new NodeDef up, on the device of what it belongs to."""
        if self.device and not one.device:
            one.device = self.device
        if one.name in self.nodes:
            raise UnsupportedModelError(f"node {one.name}: two nodes would bear this name")
        self.nodes[one.name] = one
        self.taken.add(one.name)

    def fresh(self, base: str) -> str:
        """A name that nothing has, or had."""
        name, number = base, 0
        while name in self.taken:
            number += 1
            name = f"{base}_{number}"
        self.taken.add(name)
        return name

    # the end

    def refuse_what_is_too_large(self) -> None:
        """Raise `UnsupportedModelError` for constants that no GraphDef can hold."""
        arrays = self.graph.weights.values()
        if sum(array.nbytes for array in arrays) < MOST_BYTES // 2 and not any(array.dtype.hasobject for array in arrays):
            return  # which is sooner said than summed up
        size = sum(one.ByteSize() for one in self.nodes.values() if one.op == "Const")
        size += sum(content.array.nbytes for content in self.contents.values())
        if size > MOST_BYTES:
            raise UnsupportedModelError(f"graph {self.graph.name}: its constants take {size} bytes; a GraphDef holds at most {MOST_BYTES}")

    def drop_waiting_for_the_gone(self) -> None:
        """Control inputs, and wishes to be placed beside nodes, that name nodes that are not there any more."""
        inside = self.source.loops.inside
        if self.nodes.keys() == (self.source.nodes.keys() | inside.keys() if inside else self.source.nodes.keys()):
            return
        for name, one in self.nodes.items():
            kept = [text for text in one.input if text[:1] != "^" or text[1:] in self.nodes]
            if len(kept) < len(one.input):
                self.nodes[name] = new = copied(one)
                new.input[:] = kept
        placed = without_lost_colocations(self.nodes.values())
        self.nodes = {one.name: one for one in placed}

    def drop_unread_captures(self) -> None:
        """The placeholders that stand for variables which nothing reads any more."""
        captures = {name for name in self.source.variables if name in self.nodes and self.nodes[name].op == "Placeholder"}
        if captures:
            for name in captures - {text.partition(":")[0] for one in self.nodes.values() for text in one.input}:
                del self.nodes[name]


def device_of(view: View) -> str:
    """Where the last of a view's sources lies."""
    owner = view.sources[-1].owner
    return "" if owner is None else str(owner.source.device)


def is_as(node: Node, source: Any) -> bool:
    """Whether a node is still what its NodeDef says, but for its inputs and the array of a constant."""
    if node.op == "Const":
        return bool(source.op == "Const")
    return node.op in ("Input", "Variable") or (node.op == f"tf.{source.op}" and getattr(node.config, "of", None) is source)
