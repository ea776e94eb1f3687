"""Reading a Keras model into a graph. The model is only looked at: nothing is called, nothing is changed, no weight is copied."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import keras
import numpy as np
from keras.src.models.functional import Functional
from keras.src.ops.numpy import GetItem

from tfpasses.frontends.keras.fingerprint import code_fingerprint, vocabulary_fingerprint
from tfpasses.frontends.keras.layers import JOINS, OPERATIONS, activation_of, kind_of
from tfpasses.frontends.keras.nested import Border, border_of, functional_graph, is_model, opaque_models
from tfpasses.graph import Array, Call, Graph, Node, Owner, Ref, Scope, Slot, Spec, UnsupportedModelError
from tfpasses.graph.values import map_leaves

__all__ = ["KerasModel", "from_keras", "layer_array", "structure"]

MASK_MATTERS = (keras.layers.GlobalAveragePooling1D, keras.layers.Softmax)


@attrs.frozen(eq=False)
class KerasModel:
    """What the graph keeps of the model as a whole, to write its kind again."""

    model: Any


def from_keras(model: Any) -> Graph:
    """Read a built Functional or Sequential model (nested ones are inlined). Weights are views of the model's own values.

    Raises `UnsupportedModelError` for anything else, with what to do instead.
    """
    functional = functional_of(model)
    reader = Reader(opaque_models(functional))
    inputs = [reader.add_input(tensor) for tensor in functional._inputs]
    outputs = reader.add_model(model, "", "", [Ref(name) for name in inputs])
    return prune(
        Graph(
            nodes=reader.nodes,
            weights=reader.weights,
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            input_structure=structure(functional._inputs_struct, functional._inputs),
            output_structure=structure(functional._outputs_struct, functional._outputs),
            output_names=tuple(functional.output_names),
            scopes=reader.scopes,
            name=model.name,
            source=KerasModel(model),
        )
    )


def functional_of(model: Any) -> Any:
    """The functional graph behind a model."""
    if not isinstance(model, keras.Model):
        raise UnsupportedModelError(
            f"{type(model).__name__} is not a Keras model; read a file with tfpasses.load(path) or keras.saving.load_model(path)"
        )
    if isinstance(model, keras.Sequential | Functional):
        refuse_own_call(model)
    if isinstance(model, keras.Sequential):
        if not model.built or model._functional is None:
            raise UnsupportedModelError(
                f"model {model.name} is not built, so its shapes are unknown; call model.build(input_shape), or add a keras.Input"
            )
        return model._functional
    if isinstance(model, Functional):
        return model
    raise UnsupportedModelError(
        f"model {model.name} is a subclassed model ({type(model).__name__}): its graph is Python code, not data; "
        "rebuild it with the functional API, for instance x = keras.Input(shape); keras.Model(x, model.call(x))"
    )


def refuse_own_call(model: Any) -> None:
    if type(model).call not in (Functional.call, keras.Sequential.call):
        raise UnsupportedModelError(
            f"model {model.name}: {type(model).__name__} has a call() of its own, so it is not what its layers' graph says; "
            "pass keras.Model(model.inputs, model.outputs) if that graph is meant"
        )


def structure(nested: Any, tensors: Sequence[Any]) -> Any:
    """A structure of symbolic tensors as one of slots."""
    numbers = {id(tensor): number for number, tensor in reversed(list(enumerate(tensors)))}
    return map_leaves(nested, lambda leaf: None if leaf is None else Slot(numbers[id(leaf)]))


def layer_array(variable: Any) -> Array:
    """A variable's value as an array: a read-only view, not a copy."""
    value = variable.value
    array = np.asarray(value.read_value() if hasattr(value, "read_value") else value)
    array.setflags(write=False)
    return array


def spec_of(tensor: Any) -> Spec:
    return Spec(tuple(tensor.shape), tensor.dtype)


class Reader:
    """Collects nodes, weights and scopes, model by model."""

    def __init__(self, opaque: set[int]) -> None:
        self.opaque = opaque
        """Nested models that are not looked into, by id."""
        self.layer_names: set[str] = set()
        self.unnamed: set[int] = set()
        """Mask operations of a Sequential: Keras numbers them anew whenever it makes one."""
        self.nodes: dict[str, Node] = {}
        self.weights: dict[str, Array] = {}
        self.scopes: dict[str, Scope] = {}
        self.paths: dict[int, str] = {}
        """Layer object -> its path where it was met first."""
        self.calls: dict[int, int] = {}
        """Layer object -> how often it was called so far."""
        self.keys: dict[int, str] = {}
        """Variable object -> key in `weights`."""
        self.named: dict[tuple[str, int], int] = {}

    def add_input(self, tensor: Any) -> str:
        layer = tensor._keras_history.operation
        config = {key: True for key in ("sparse", "ragged", "optional") if getattr(layer, key, False)}
        self.nodes[layer.name] = Node(layer.name, "Input", config=config, specs=(spec_of(tensor),), owner=Owner(layer.name, 0, layer))
        return str(layer.name)

    def add_model(
        self, model: Any, scope: str, path: str, inputs: Sequence[Ref], training: bool | None = None, masked: bool = False
    ) -> list[Ref]:
        """Inline a functional model called on `inputs`. `scope` names this use of it, `path` the model, `training` what the call said;
        `masked` is whether it was called on values with masks.
        """
        functional = functional_graph(model)
        if isinstance(model, keras.Sequential):
            self.unnamed.update(id(operation) for operation in functional.operations if not isinstance(operation, keras.Layer))
        self.layer_names.update(f"{scope}{operation.name}" for operation in functional.operations)
        values: dict[int, Ref] = {id(tensor): ref for tensor, ref in zip(functional._inputs, inputs, strict=True)}
        for depth in sorted(functional._nodes_by_depth, reverse=True):
            for call in functional._nodes_by_depth[depth]:
                if call.is_input:
                    if id(call.outputs[0]) not in values:
                        raise UnsupportedModelError(f"layer {call.operation.name} takes no input of the model; give it one")
                    continue
                for tensor, ref in zip(call.outputs, self.add_call(call, scope, path, values, training, masked), strict=True):
                    values[id(tensor)] = ref
        return [values[id(tensor)] for tensor in functional._outputs]

    def add_call(
        self, call: Any, scope: str, path: str, values: Mapping[int, Ref], context: bool | None, masked: bool = False
    ) -> list[Ref]:
        """Inline one call of a layer, an operation or a nested model; `context` and `masked` say how the model around it was called."""
        operation = call.operation
        inputs: list[Ref] = []

        def slot(value: Any) -> Any:
            if isinstance(value, keras.KerasTensor):
                inputs.append(values[id(value)])
                return Slot(len(inputs) - 1)
            return value.copy() if isinstance(value, np.ndarray) else value  # what the user does to the array later is not our graph's

        kind = kind_of(operation) if isinstance(operation, keras.Layer) else None
        if kind is not None and kind.op in JOINS and len({len(tensor.shape) for tensor in call.arguments.keras_tensors}) > 1:
            kind = None  # layers broadcast other ranks in their own way, not as the vocabulary does
        kwargs = dict(call.arguments.kwargs)
        masked = masked or any(getattr(tensor, "_keras_mask", None) is not None for tensor in call.arguments.keras_tensors)
        training = effective_training(operation, kwargs, context)
        matters = isinstance(operation, MASK_MATTERS) or (training and isinstance(operation, keras.layers.BatchNormalization))
        if kind is not None and (kwargs.get("mask") is None or not matters):
            kwargs = {key: value for key, value in kwargs.items() if not said_by_keras(key, value, operation)}
        elif kind is not None:
            kind = None  # the mask changes the result
        form = Call(map_leaves(tuple(call.arguments.args), slot), map_leaves(kwargs, slot))
        number = self.named.setdefault((scope, id(operation)), 0)
        self.named[scope, id(operation)] += 1
        use = self.calls.setdefault(id(operation), 0)
        self.calls[id(operation)] += 1
        local = re.sub(r"_\d+$", "", operation.name) if id(operation) in self.unnamed else operation.name
        name = f"{scope}{local}" + (f"#{number}" if number else "")
        layer = self.paths.setdefault(id(operation), f"{path}{local}")
        if is_model(operation) and id(operation) not in self.opaque:
            return self.add_nested(operation, name, layer, border_of(operation, form, inputs), training, masked)
        owner = Owner(layer, use, operation)
        specs = tuple(spec_of(tensor) for tensor in call.outputs)
        if kind is not None:
            return [self.add_layer(kind, name, owner, inputs, form, specs, training, masked)]
        if not isinstance(operation, keras.Layer):
            return self.add_operation(name, owner, inputs, form, specs)
        return self.add_opaque(name, owner, inputs, form, specs, training)

    def add_nested(self, model: Any, name: str, layer: str, border: Border, training: bool | None, masked: bool) -> list[Ref]:
        outputs = self.add_model(model, f"{name}/", f"{layer}/", border.inputs, training, masked)
        self.scopes[name] = Scope(layer, model, border.inputs, tuple(outputs), border.form)
        return outputs

    def add_layer(
        self,
        kind: Any,
        name: str,
        owner: Owner,
        inputs: list[Ref],
        form: Call,
        specs: tuple[Spec, ...],
        training: bool | None,
        masked: bool,
    ) -> Ref:
        """A layer of the table: one node, and one more for a non-linear `activation=`."""
        layer = owner.source
        config = dict(kind.read(layer))
        if training is not None and not (kind.op == "BatchNorm" and not layer.trainable):  # frozen, it uses its statistics even so
            config["training"] = training
        if masked and kind.op == "BatchNorm":
            config["masked"] = True  # it hands the mask on, which another operation in its place may not
        function = None if isinstance(layer, keras.layers.Activation) else getattr(layer, "activation", None)
        params = {}
        for slot, attribute in kind.weights.items():
            variable = getattr(layer, attribute, None)
            if variable is not None:
                params[slot] = self.add_weight(variable, f"{owner.layer}/{slot}")
        self.put(Node(name, kind.op, tuple(inputs), config, params, specs, plain(form, len(inputs)), owner))
        if function is None or function is keras.activations.linear:
            return Ref(name)
        canonical = activation_of(function)
        part = self.fresh(f"{name}.activation")
        config = canonical[1] if canonical else {"function": getattr(function, "__name__", type(function).__name__)}
        self.put(
            Node(
                part,
                canonical[0] if canonical else "keras.activation",
                (Ref(name),),
                config,
                specs=specs,
                owner=attrs.evolve(owner, part="activation"),
            )
        )
        return Ref(part)

    def add_operation(self, name: str, owner: Owner, inputs: list[Ref], form: Call, specs: tuple[Spec, ...]) -> list[Ref]:
        """A `keras.ops` operation: canonical, with its constant arguments as nodes, or opaque."""
        operation = owner.source
        if isinstance(operation, GetItem):  # a key that has been in a file is a list
            form = Call(tuple(tuple(value) if isinstance(value, list) else value for value in form.args), form.kwargs)
        read = OPERATIONS.get(type(operation))
        canonical = read(operation) if read and len(specs) == 1 else None
        if canonical is None or form.kwargs:
            return self.add_opaque(name, owner, inputs, form, specs)
        op, config = canonical
        if op in JOINS:
            inputs, form = self.add_constants(name, inputs, form)
        if len(inputs) == 0 or list(map_arguments(form)) != list(range(len(inputs))):
            return self.add_opaque(name, owner, inputs, form, specs)
        self.put(Node(name, op, tuple(inputs), config, specs=specs, call=plain(form, len(inputs)), owner=owner))
        return [Ref(name)]

    def add_constants(self, name: str, inputs: list[Ref], form: Call) -> tuple[list[Ref], Call]:
        """Turn the numbers and arrays among a join's arguments into `Const` nodes."""
        refs: list[Ref] = []
        args = []
        for position, value in enumerate(form.args):
            if isinstance(value, Slot):
                refs.append(inputs[value.index])
            elif isinstance(value, bool) or not (isinstance(value, int | float) or hasattr(value, "__array__")):
                return inputs, form
            else:
                array = np.array(value)  # a copy: the user's own array stays writable, and apart
                array.setflags(write=False)
                const = self.fresh(f"{name}.const{position}")
                config = {"python": True} if isinstance(value, int | float) and not isinstance(value, np.generic) else {}
                self.weights[const] = array
                self.nodes[const] = Node(
                    const, "Const", config=config, params={"value": const}, specs=(Spec(array.shape, array.dtype.name),)
                )
                refs.append(Ref(const))
            args.append(Slot(len(refs) - 1))
        return refs, Call(tuple(args))

    def add_opaque(
        self, name: str, owner: Owner, inputs: list[Ref], form: Call, specs: tuple[Spec, ...], training: bool | None = None
    ) -> list[Ref]:
        source = owner.source
        config = opaque_config(source)
        if training is not None:
            config["training"] = training
        params = {}
        if isinstance(source, keras.Layer):
            if not source.built and source.weights:
                raise UnsupportedModelError(f"layer {source.name} is not built; call the model once")
            for number, variable in enumerate(source.weights):
                params[f"w{number}"] = self.add_weight(variable, f"{owner.layer}/w{number}")
        self.put(Node(name, f"keras.{type(source).__name__}", tuple(inputs), config, params, specs, form, owner))
        return [Ref(name, index) for index in range(len(specs))]

    def add_weight(self, variable: Any, key: str) -> str:
        known = self.keys.setdefault(id(variable), key)
        if known not in self.weights:
            self.weights[known] = layer_array(variable)
        return known

    def fresh(self, name: str) -> str:
        """A name for a node that stands for a part of a layer: a layer may have taken the obvious one."""
        while name in self.nodes or name in self.layer_names:
            name += "_"
        return name

    def put(self, node: Node) -> None:
        if node.name in self.nodes:
            raise UnsupportedModelError(f"two layers of the model are named {node.name}; rename one")
        self.nodes[node.name] = node


def effective_training(operation: Any, kwargs: Mapping[str, Any], context: bool | None) -> bool | None:
    """The `training` that a layer sees: what the call of the model around it says goes before what its own call says."""
    if not isinstance(operation, keras.Layer) or not operation._call_has_training_arg:
        return None
    own = kwargs.get("training")
    default = operation._call_signature.parameters["training"].default
    return context if context is not None else None if own == default else own


def said_by_keras(key: str, value: Any, layer: Any) -> bool:
    """Whether a keyword argument is one that Keras adds by itself to a call: a mask to hand on, or the default of `training`."""
    if key == "training":
        return value is None or value == layer._call_signature.parameters["training"].default
    return key == "mask"


def plain(form: Call, count: int) -> Call | None:
    """None for a call whose form follows from the operation: its inputs in order, one by one or in one list."""
    slots = [Slot(index) for index in range(count)]
    if form.kwargs or (list(form.args) != slots and list(form.args) != [slots]):
        return form
    return None


def map_arguments(form: Call) -> list[int]:
    """The slots of a call whose arguments are slots only, alone or in one list; empty where there is anything else."""
    args = form.args[0] if len(form.args) == 1 and isinstance(form.args[0], list | tuple) else form.args
    return [value.index for value in args] if all(isinstance(value, Slot) for value in args) else []


def opaque_config(source: Any) -> dict[str, Any]:
    """The configuration that an opaque node shows: the source's own, without its name and what is empty."""
    if isinstance(source, keras.layers.Lambda):
        name = getattr(source.function, "__name__", type(source.function).__name__)
        return {"function": name, "code": code_fingerprint(source.function)}
    try:
        config = source.get_config()
    except (NotImplementedError, TypeError, ValueError, AttributeError):
        return {}
    hidden = {"name", "trainable", "dtype"}
    learned = vocabulary_fingerprint(source) if isinstance(source, keras.Layer) else ""
    shown = {key: as_tuples(value) for key, value in config.items() if key not in hidden and value is not None}
    return {**shown, "learned": learned} if learned else shown


def as_tuples(value: Any) -> Any:
    """Lists as tuples: a configuration that has been in a file does not know which it was."""
    if isinstance(value, list | tuple):
        return tuple(as_tuples(part) for part in value)
    return {key: as_tuples(part) for key, part in value.items()} if isinstance(value, dict) else value


def prune(graph: Graph) -> Graph:
    """Drop what no output depends on (Keras keeps the sources of masks that nobody uses). Inputs and whole nested models stay."""
    alive = set(graph.inputs)
    stack = [ref.node for ref in graph.outputs]
    while stack:
        name = stack.pop()
        if name in alive:
            continue
        alive.add(name)
        stack.extend(ref.node for ref in graph.nodes[name].inputs)
        path = graph.nodes[name].scope
        while path:
            scope = graph.scopes[path]
            stack.extend(ref.node for ref in (*scope.inputs, *scope.outputs))
            path = path.rpartition("/")[0]
    nodes = {name: node for name, node in graph.nodes.items() if name in alive}
    if len(nodes) == len(graph.nodes):
        return graph
    used = {key for node in nodes.values() for key in node.params.values()}
    scopes = {path: scope for path, scope in graph.scopes.items() if any(ref.node in alive for ref in scope.outputs)}
    return attrs.evolve(graph, nodes=nodes, weights={key: graph.weights[key] for key in graph.weights if key in used}, scopes=scopes)
