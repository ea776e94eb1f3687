"""A function's nodes in the place of one of its calls: with names of their own, reading and awaiting what the call reads and awaits."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import attrs

from tfpasses.frontends.graph_def.functions.templates import Template, control_of
from tfpasses.frontends.graph_def.protos.attributes import Attributes
from tfpasses.frontends.graph_def.protos.node_defs import identity, node_def
from tfpasses.frontends.graph_def.protos.parts import copied, value_name
from tfpasses.frontends.graph_def.reading.loops import ENTERS, LOOP, Loop, LoopAttributes
from tfpasses.graph import Graph, Node, Owner, Ref, Slot
from tfpasses.graph.node import EMPTY

__all__ = ["Place"]

COLOCATED = b"loc:@"


@attrs.frozen(eq=False, slots=False)
class Place:
    """Where a function's nodes are to stand."""

    template: Template
    call: Any
    """The call's NodeDef."""
    call_waits: Sequence[str]
    """What the call waits for."""
    prefix: str
    """The nodes are named `prefix/node`."""
    arguments: Mapping[str, Ref]
    """What the call reads, by the function's arguments."""
    still: Container[str]
    """Nodes of the graph that are there from the beginning: nobody need wait for them."""
    waits: dict[str, dict[str, None]]
    """Node -> those that wait for it: takes up who waits here."""

    @cached_property
    def pointless(self) -> frozenset[str]:
        """The function's nodes and arguments before which nothing happens: nothing changes where nobody waits for them."""
        still = {name for name, ref in self.arguments.items() if ref.node in self.still}
        return frozenset(still).union([name for name, arguments in self.template.idle.items() if arguments <= still])

    def graph(self, name: str) -> Graph:
        """The nodes. Results that would be there before all has happened that the call waits for, or does, wait for that."""
        template = self.template
        inputs = [Node(self.name(one), "Input", specs=(spec,)) for one, spec in template.arguments.items()]
        made = [*inputs, *map(self.node, template.nodes.values())]
        outputs: list[Ref] = []
        for place, ref in enumerate(template.results):
            early = ref.node in self.arguments or ref.node in template.loose
            awaited = [*(self.call_waits if early else ()), *map(self.awaited, template.unseen[place])]
            output = Ref(self.name(ref.node), ref.index)
            if awaited:
                made.append(self.result(place, output, awaited))
                output = Ref(made[-1].name)
            outputs.append(output)
        return Graph(
            {node.name: node for node in made},
            {self.name(key): array for key, array in template.weights.items()},
            tuple([node.name for node in inputs]),
            tuple(outputs),
            input_structure=[Slot(index) for index in range(len(inputs))],
            output_structure=[Slot(index) for index in range(len(outputs))],
            output_names=template.result_names,
            name=name,
        )

    def done(self) -> Node:
        """A node of the call's name that ends when all has ended that the call waits for, reads and does."""
        reads = [ref.node for ref in self.arguments.values() if ref.node not in self.still]
        awaited = [*map(self.awaited, self.template.ends), *reads, *self.call_waits]
        new = node_def(self.call.name, "NoOp")
        new.device = self.call.device
        self.wait(new, awaited)
        return Node(new.name, "tf.NoOp", (), Attributes(new), owner=Owner(new.name, 0, new))

    # one node

    def node(self, node: Node) -> Node:
        """A node of the function."""
        assert node.owner is not None
        source = node.owner.source
        if isinstance(source, Loop):
            return self.loop(node, source)
        new = type(source)()
        new.CopyFrom(source)
        new.name = name = self.name(node.name)
        if self.call.device and not source.device:
            new.device = self.call.device
        new.input[:] = map(self.value, node.inputs)
        waits = [one for one in self.template.waits.get(node.name, ()) if one not in self.pointless]
        awaited = list(map(self.awaited, waits))
        if self.call_waits and self.is_first(node, waits):
            awaited += self.call_waits
        if awaited:
            self.wait(new, awaited)
        if "_class" in new.attr:
            self.colocate(new.attr["_class"].list.s)
        inputs = tuple(map(self.ref, node.inputs))
        owner = Owner(name, 0, new)
        if node.op == "Const":
            return Node(name, "Const", inputs, Attributes(new) if awaited else EMPTY, {"value": name}, node.specs, None, owner)
        return Node(name, node.op, inputs, Attributes(new), EMPTY, node.specs, None, owner)

    def loop(self, node: Node, loop: Loop) -> Node:
        """A loop of the function. Its Enters wait for what it waits for."""
        waits = [one for one in loop.waits if one not in self.pointless]
        awaited = [*map(self.awaited, waits), *(self.call_waits if self.is_first(node, waits) else ())]
        nodes = {self.name(one.name): self.in_loop(one, loop, awaited) for one in loop.nodes.values()}
        for other in awaited:
            self.waits.setdefault(other, {})[self.name(loop.name)] = None
        refs = {self.name(name): tuple(map(self.ref, row)) for name, row in loop.refs.items()}
        inputs = tuple(map(self.ref, loop.inputs))
        placed = Loop(self.name(loop.name), nodes, tuple(map(self.name, loop.exits)), refs, inputs, tuple(dict.fromkeys(awaited)))
        return Node(placed.name, LOOP, inputs, LoopAttributes(placed), EMPTY, node.specs, None, Owner(placed.name, 0, placed))

    def in_loop(self, one: Any, loop: Loop, awaited: Iterable[str]) -> Any:
        """A NodeDef of a loop."""
        new = copied(one)
        new.name = self.name(one.name)
        if self.call.device and not one.device:
            new.device = self.call.device
        texts = [value_name(self.ref(ref)) if ref.node in loop.nodes else self.value(ref) for ref in loop.refs[one.name]]
        control = [self.name(other) for other in control_of(one) if other in loop.nodes]
        if one.op in ENTERS:
            new.attr["frame_name"].s = f"{self.prefix}/".encode() + one.attr["frame_name"].s
            control += [] if loop.refs[one.name][0].node in loop.nodes else awaited
        new.input[:] = [*texts, *[f"^{other}" for other in dict.fromkeys(control)]]
        if "_class" in new.attr:
            self.colocate(new.attr["_class"].list.s)
        return new

    def is_first(self, node: Node, waits: Sequence[str]) -> bool:
        """Whether a node comes after no other of the function but constants: it, and so all after it, waits for what the call waits for."""
        loose = self.template.loose
        before = [*(ref.node for ref in node.inputs), *waits]
        return node.name not in loose and all(one in loose or one in self.arguments for one in before)

    def result(self, place: int, value: Ref, awaited: Iterable[str]) -> Node:
        """A result that waits for nodes."""
        spec = self.template.result_specs[place]
        new = identity(self.name(self.template.result_names[place]), self.value(self.template.results[place]), spec.dtype)
        new.device = self.call.device
        self.wait(new, awaited)
        return Node(new.name, "tf.Identity", (value,), Attributes(new), EMPTY, (spec,), None, Owner(new.name, 0, new))

    def colocate(self, texts: Any) -> None:
        """Let a node lie with those of the function, or with what the call reads, under their names now."""
        kept = [text for text in texts if not text.startswith(COLOCATED)]
        for other in [text[len(COLOCATED) :].decode(errors="replace") for text in texts if text.startswith(COLOCATED)]:
            if other in self.template.nodes or other in self.arguments or other in self.template.loops.inside:
                kept.append(COLOCATED + self.awaited(other).encode())
        del texts[:]
        texts.extend(kept)

    def wait(self, new: Any, awaited: Iterable[str]) -> None:
        """Let a NodeDef wait for nodes."""
        for other in dict.fromkeys(awaited):
            new.input.append(f"^{other}")
            self.waits.setdefault(other, {})[new.name] = None

    # names

    def ref(self, ref: Ref) -> Ref:
        """One of the function's values, as nodes read it."""
        return Ref(self.name(ref.node), ref.index)

    def name(self, name: str) -> str:
        """The name of one of the function's nodes."""
        return f"{self.prefix}/{name}"

    def awaited(self, name: str) -> str:
        """The node to wait for in the place of one of the function's nodes or arguments."""
        return self.arguments[name].node if name in self.arguments else self.name(name)

    def value(self, ref: Ref) -> str:
        """One of the function's values, as NodeDefs name it."""
        return value_name(self.arguments[ref.node] if ref.node in self.arguments else Ref(self.name(ref.node), ref.index))
