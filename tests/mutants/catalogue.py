"""The seeded faults. `before` must stand exactly once in the file."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["MUTANTS", "Mutant"]


class Mutant(NamedTuple):
    name: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]


FOLD = ("tests/passes/test_fold_kinds.py", "tests/passes/test_fold_not.py", "tests/passes/test_fold_shared.py")
CASTS = ("tests/passes/test_fold_casts.py",)
FORWARD = ("tests/passes/test_fold_forward.py",)
RAISE = ("tests/passes/test_canonicalize.py", "tests/passes/test_canonicalize_layers.py")
CONTAINERS = ("tests/cli/test_tensorflow_kinds.py", "tests/frontends/test_concrete_function.py", "tests/frontends/test_saved_model.py")
KERAS2 = ("tests/passes/test_graph_keras2.py",)
GRAPH, PATTERN, MANAGER = ("tests/graph",), ("tests/pattern",), ("tests/manager",)
AIMET_KERAS = ("tests/aimet/test_keras_fold.py", "tests/aimet/test_keras_scaling.py", "tests/aimet/test_keras_high_bias.py")
EXPECTED = ("tests/passes/test_expectations.py",)
CORRECTED = ("tests/passes/test_analytical_bias_correction.py",)
MEASURED = ("tests/passes/test_empirical_bias_correction.py",)
AIMET_SESSIONS = ("tests/aimet/test_session_cle.py",)
AIMET_CORRECTED = tuple(f"tests/aimet/test_session_bias_{name}.py" for name in ("correction", "statistics", "of_a_layer"))
KERAS = ("tests/frontends/test_isolation.py", "tests/frontends/test_folding.py", "tests/frontends/test_rewrites.py")
SCALED = ("tests/passes/test_cross_layer_scaling.py", "tests/passes/test_scaling_regions.py", "tests/passes/test_scaling_options.py")
CONSTANT = ("tests/passes/test_fold_constant_channels.py", "tests/passes/test_intervals.py")
BIASED = ("tests/passes/test_high_bias_fold.py", "tests/passes/test_cle.py")

MUTANTS = (
    # the arithmetic
    Mutant(
        "epsilon dropped", "passes/folding/arithmetic.py", 'np.sqrt(variance + float(node.config["epsilon"]))', "np.sqrt(variance)", FOLD
    ),
    Mutant(
        "raw gamma sign in the statistics",
        "passes/folding/arithmetic.py",
        "ChannelStats(self.beta, np.abs(self.gamma))",
        "ChannelStats(self.beta, self.gamma)",
        FOLD,
    ),
    Mutant("sign of the mean", "passes/folding/arithmetic.py", "shift = beta - mean * scale", "shift = beta + mean * scale", FOLD),
    Mutant(
        "bias forgotten",
        "passes/folding/arithmetic.py",
        "affine.shift if linear.bias is None else np.asarray(linear.bias, np.float64) * affine.scale + affine.shift",
        "affine.shift",
        FOLD,
    ),
    Mutant("wrong depthwise axis", "tfpasses/graph/linear.py", '"DepthwiseConv": (-2, -1)', '"DepthwiseConv": (-2,)', (*GRAPH, *FOLD)),
    Mutant("transposed kernel axis", "tfpasses/graph/linear.py", '"ConvTranspose": (-2,)', '"ConvTranspose": (-1,)', (*GRAPH, *FOLD)),
    # what must not fire
    Mutant("fan-out ignored", "tfpasses/pattern/language.py", "len(users[{node}.name]) == 1", "True", (*PATTERN, *FOLD)),
    Mutant(
        "graph output not counted",
        "tfpasses/graph/graph.py",
        "            users[producer][OUTPUT, place] = index\n",
        "            pass\n",
        (*PATTERN, *FOLD),
    ),
    Mutant(
        "training mode ignored",
        "passes/fold_batch_norms.py",
        'lambda node, _: not node.config.get("training")',
        "lambda node, _: True",
        FOLD,
    ),
    Mutant("batch norm's axis ignored", "passes/folding/sites.py", 'bn.config["axis"] % rank != view.channel_axis(rank)', "False", FOLD),
    Mutant("shared kernel ignored", "passes/folding/sites.py", "if name not in names))", "if False))", (*FOLD, *FORWARD)),
    Mutant(
        "uses of a shared kernel not compared",
        "passes/folding/sites.py",
        "if np.array_equal(fold.affine.scale, first.affine.scale) and np.array_equal(fold.affine.shift, first.affine.shift):",
        "if True:",
        FOLD,
    ),
    # forward, and what lies between
    Mutant("transposed kernel's input axis", "tfpasses/graph/linear.py", '{"ConvTranspose": -1}', "{}", FORWARD),
    Mutant(
        "groups taken in turn",
        "tfpasses/graph/linear.py",
        "np.repeat(np.reshape(vector, (self.groups, -1)), shape[-1] // self.groups, axis=0)",
        "np.tile(np.reshape(vector, (self.groups, -1)), (shape[-1] // self.groups, 1))",
        FORWARD,
    ),
    Mutant(
        "shift scaled on its way forward",
        "passes/folding/arithmetic.py",
        "linear.response(affine.shift)",
        "linear.response(affine.shift * affine.scale)",
        FORWARD,
    ),
    Mutant(
        "zero padding of the kernel ignored",
        "passes/fold_batch_norms.py",
        "if reason or pads_zeros(fold.linear, edit):",
        "if reason:",
        FORWARD,
    ),
    Mutant("causal padding ignored", "passes/folding/paths.py", "return any(size > 1 for size in kernel)", "return False", FORWARD),
    Mutant(
        "zero padding layer ignored",
        "passes/folding/paths.py",
        'if node.op == "Pad" and affine.shift.any() and any(',
        "if False and any(",
        (*FOLD, *FORWARD),
    ),
    Mutant(
        "sign of the scale behind a max pool ignored",
        "passes/folding/paths.py",
        "and (affine.scale < 0).any():",
        "and False:",
        (*FOLD, *FORWARD),
    ),
    Mutant("channels mixed by a reshape", "passes/folding/paths.py", "if (rows != rows[0]).any():", "if False:", FORWARD),
    Mutant("every branch takes the first channels", "passes/fold_batch_norms.py", "start += width", "start += 0", FORWARD),
    Mutant("channels of scale zero lose their shift", "passes/fold_batch_norms.py", "if dead.any():", "if False:", FORWARD),
    Mutant(
        "inner shift lost in a merge", "passes/folding/arithmetic.py", "beta * outer.scale + outer.shift", "beta + outer.shift", FORWARD
    ),
    Mutant(
        "outer epsilon kept in a merge",
        "passes/fold_batch_norms.py",
        '"epsilon": inner.config["epsilon"]',
        '"epsilon": outer.config["epsilon"]',
        FORWARD,
    ),
    Mutant(
        "Keras takes the shift for a bias",
        "passes/folding/multiply_add.py",
        "(Ref(constant.name), ref)",
        "(ref, Ref(constant.name))",
        FORWARD,
    ),
    Mutant("cast by a batch norm ignored", "passes/folding/sites.py", "if read == given or", "if True or", CASTS),
    Mutant(
        "dtype on the way ignored",
        "passes/folding/sites.py",
        "for node in (fold.linear, *fold.path):",
        "for node in (fold.linear,):",
        CASTS,
    ),
    Mutant("mask lost by a multiply-add", "passes/folding/multiply_add.py", 'if bn.config.get("masked"):', "if False:", CASTS),
    Mutant("underflow of a scale alone ignored", "passes/folding/sites.py", "if 0 < least * largest <", "if 0 < 0 <", CASTS),
    Mutant("given pairs ignored", "passes/fold_batch_norms.py", "if self.only and not any(", "if False and not any(", FORWARD),
    # the machinery
    Mutant(
        "savepoint not rolled back",
        "tfpasses/graph/edit.py",
        "in reversed(self._log):",
        "in ():",
        (*GRAPH, *PATTERN),
    ),
    Mutant(
        "stale match used",
        "tfpasses/pattern/driver.py",
        "            node = nodes.get(name)\n",
        "            node = edit.source.nodes.get(name)\n",
        PATTERN,
    ),
    Mutant(
        "no re-matching after a rewrite",
        "tfpasses/pattern/driver.py",
        "push(self._downstream(rewrite.touched, edit, waiting, owed))",
        "pass",
        PATTERN,
    ),
    Mutant(
        "walk to new matches stops below a root",
        "tfpasses/pattern/driver.py",
        "if node.op not in asked or name in found:",
        "if node.op not in self._roots or name in found:",
        PATTERN,
    ),
    Mutant(
        "lost use not seen by the worklist",
        "tfpasses/graph/edit.py",
        "in gained.items() if gain < 0]",
        "in gained.items() if False]",
        PATTERN,
    ),
    Mutant("order believed unbroken", "tfpasses/graph/edit.py", "if self._in_order() else", "if True else", GRAPH),
    Mutant("graph outputs not redirected", "tfpasses/graph/edit.py", "use[0] != new.node:", "use[0] not in (new.node, OUTPUT):", GRAPH),
    Mutant(
        "weight changed behind another node's back", "tfpasses/graph/edit.py", "            if others:\n", "            if False:\n", GRAPH
    ),
    Mutant(
        "capture identity ignored", "tfpasses/pattern/compiler.py", "        elif name in self.bound:\n", "        elif False:\n", PATTERN
    ),
    Mutant(
        "commutative inputs in one order only",
        "tfpasses/pattern/compiler.py",
        "({node}.inputs, {node}.inputs[::-1])",
        "({node}.inputs,)",
        PATTERN,
    ),
    Mutant(
        "commutative pattern ruled out by the order of inputs",
        "tfpasses/pattern/dispatch.py",
        "if pattern.commutes else (pattern.inputs,)",
        "if False else (pattern.inputs,)",
        PATTERN,
    ),
    Mutant(
        "order of passes ignored",
        "tfpasses/manager/plan.py",
        "for name in set(item.contract.after) - {item.name}:",
        "for name in ():",
        MANAGER,
    ),
    Mutant(
        "numeric verification that passes anything",
        "tfpasses/manager/numeric.py",
        "return self.error <= self.bound",
        "return True",
        MANAGER,
    ),
    Mutant("facts of another model accepted", "tfpasses/graph/facts_file.py", "    if digest != graph.digest:\n", "    if False:\n", GRAPH),
    Mutant(
        "file written in place",
        "tfpasses/graph/files.py",
        "        yield beside\n        with beside.open",
        "        yield target\n        with target.open",
        GRAPH,
    ),
    # the frontend
    Mutant(
        "caller's model mutated",
        "tfpasses/frontends/keras/clone.py",
        "name=name, _inbound_nodes=[], _outbound_nodes=[])",
        "name=name)",
        KERAS,
    ),
    Mutant(
        "output name lost",
        "tfpasses/frontends/keras/write.py",
        "if tensor._keras_history.operation.name == name:",
        "if True:",
        (*KERAS, *FOLD),
    ),
    Mutant(
        "activation merged whatever lies between",
        "tfpasses/frontends/keras/build.py",
        "    return alone and [ref.node",
        "    return [ref.node",
        KERAS,
    ),
    # the average of many equal terms
    Mutant("a shift through an average of many", "passes/folding/paths.py", "MOST_AVERAGED = 16", "MOST_AVERAGED = 1 << 30", FOLD),
    # raising the operations of a tf.Graph
    Mutant(
        "inner value used from outside",
        "passes/raising/cluster.py",
        "if user not in inner and user != root.name:",
        "if False:",
        RAISE,
    ),
    Mutant("another output read", "passes/raising/cluster.py", "if any(edit.users[root.name].values()):", "if False:", RAISE),
    Mutant("waiting ignored", "passes/raising/cluster.py", 'for name in node.config.get("_control", ()) if', "for name in () if", RAISE),
    Mutant("batch norm in training", "passes/raising/batch_norms.py", 'node.config.get("is_training", True)', "False", RAISE),
    Mutant("epsilon of a fused batch norm", "passes/raising/batch_norms.py", 'node.config.get("epsilon", EPSILON)', "EPSILON", RAISE),
    Mutant(
        "vector along the last axis always", "passes/raising/cluster.py", "return long[0] if long", "return len(dims) - 1 if long", RAISE
    ),
    Mutant("matrix not transposed", "passes/raising/linear.py", ".reshape(a, b).T", ".reshape(b, a)", RAISE),
    Mutant("second bias absorbed", "passes/raising/linear.py", 'if "bias" in linear.params or axis', "if axis", RAISE),
    Mutant(
        "padding of a dilated convolution",
        "passes/raising/linear.py",
        "if cut.known != 0 or ends != (reach // 2, reach - reach // 2):",
        "if False:",
        RAISE,
    ),
    Mutant("groups forgotten", "passes/raising/linear.py", '"groups": channels // kernel[-2]', '"groups": 1', RAISE),
    Mutant("clip at any number", "passes/raising/elementwise.py", "if low != 0 or high is None", "if high is None", RAISE),
    Mutant("reshape across samples", "passes/raising/shapes.py", "or shape[0] != out[0] or 0 in shape", "or 0 in shape", RAISE),
    Mutant(
        "variable written elsewhere",
        "passes/raising/constants.py",
        "if not reads and (captured or user in on_the_way):",
        "if False:",
        (*RAISE, *CONTAINERS),
    ),
    # writing a tf.Graph
    Mutant("changed constant not written", "tfpasses/frontends/graph_def/writing/writer.py", "array = now", "pass", (*RAISE, *CONTAINERS)),
    Mutant("view written as it was read", "tfpasses/frontends/graph_def/writing/writer.py", 'and extra <= {"bias"}', "", RAISE),
    Mutant(
        "inputs of a view not renamed",
        "tfpasses/frontends/graph_def/writing/writer.py",
        "zip(view.inputs, node.inputs, strict=True) if old != new}",
        "zip(view.inputs, node.inputs, strict=True) if False}",
        RAISE,
    ),
    Mutant(
        "training's nodes kept",
        "passes/raising/unread.py",
        "ends = [name for name in reached if not edit.users[name]]",
        "ends = []",
        KERAS2,
    ),
    # AIMET's interface
    Mutant("a batch norm used elsewhere folded", "passes/aimet/whole_folds.py", "kept |= partial", "break", AIMET_KERAS),
    Mutant(
        "a pool's statistics taken for a layer's",
        "passes/aimet/whole_folds.py",
        "isinstance(known, ChannelStats) and np.array_equal(known.mean, stats.mean) and np.array_equal(known.std, stats.std)",
        "True",
        AIMET_KERAS,
    ),
    Mutant(
        "traced functions kept",
        "passes/aimet/keras/write_back.py",
        "one.train_function = one.test_function = one.predict_function = None",
        "pass",
        AIMET_KERAS,
    ),
    Mutant(
        "weights in the order of their making",
        "passes/aimet/keras/write_back.py",
        "there[id(variable)])  # files",
        "0)  # files",
        AIMET_KERAS,
    ),
    Mutant("epsilon of an identity kept", "passes/aimet/keras/write_back.py", "    bn.epsilon = 0.0\n", "", AIMET_KERAS),
    Mutant(
        "the middle scaled once", "passes/aimet/cls_sets.py", "kernel.per_in(one) / kernel.per_out(two)", "kernel.per_in(one)", AIMET_KERAS
    ),
    Mutant(
        "raw gamma sign in the shift",
        "passes/aimet/cls_sets.py",
        "np.abs(np.asarray(gamma, np.float64)) / scale",
        "np.asarray(gamma, np.float64) / scale",
        AIMET_KERAS,
    ),
    Mutant(
        "beta not scaled",
        "passes/aimet/cls_sets.py",
        "absorbable(np.asarray(beta, np.float64) / scale",
        "absorbable(np.asarray(beta, np.float64)",
        AIMET_KERAS,
    ),
    Mutant(
        "several ways taken for one",
        "passes/aimet/cls_sets.py",
        "            if len(node.inputs) != 1:\n                return None\n",
        "",
        AIMET_KERAS,
    ),
    Mutant(
        "statistics not remembered",
        "passes/aimet/statistics.py",
        "record(session, ref.node, names, mean=fact.mean, std=fact.std)",
        "pass",
        AIMET_SESSIONS,
    ),
    Mutant(
        "values not loaded", "passes/aimet/sessions.py", "load_values(session, before.source.container.meta, new)", "pass", AIMET_SESSIONS
    ),
    # bias correction in AIMET's sessions
    Mutant(
        "scales not remembered",
        "passes/aimet/cross_layer_equalization.py",
        "remember_scaled(session, calls(graph.nodes[name], graph), scale)",
        "pass",
        AIMET_CORRECTED,
    ),
    Mutant(
        "moved statistics by half", "passes/aimet/statistics.py", "/ scale - shift, found", "/ scale - shift / 2, found", AIMET_CORRECTED
    ),
    Mutant(
        "symmetric by statistics, too",
        "passes/aimet/corrected.py",
        "quantizer(symmetric=False)",
        "quantizer(symmetric=True)",
        AIMET_CORRECTED,
    ),
    Mutant(
        "ignored layers quantized",
        "passes/aimet/corrected.py",
        "weights={**measuring.quantized.weights, **floating}",
        "weights=measuring.quantized.weights",
        AIMET_CORRECTED,
    ),
    Mutant(
        "ignored layers corrected",
        "passes/aimet/corrected.py",
        " and left.isdisjoint(names)",
        "",
        AIMET_CORRECTED,
    ),
    Mutant("leaky ReLU taken for a ReLU", "passes/aimet/conv_bn.py", ' or relu.config["negative_slope"] != 0', "", AIMET_CORRECTED),
    Mutant(
        "part of a batch left out",
        "passes/aimet/quant_params.py",
        "math.ceil(int(self.num_bias",
        "math.floor(int(self.num_bias",
        AIMET_CORRECTED,
    ),
    Mutant(
        "one use of a bias measured",
        "passes/aimet/one_layer.py",
        "for ref, axis in one.values.items() if ref.node in path",
        "for ref, axis in list(one.values.items())[:1] if ref.node in path",
        AIMET_CORRECTED,
    ),
    Mutant("bias behind a dilation not found", "passes/aimet/sessions.py", "users[0].type not in MOVES", "users", AIMET_CORRECTED),
    Mutant("shapes not handed on", "passes/canonicalize.py", "        hand_on_shapes(edit)\n", "", KERAS2),
    # bias correction on data
    Mutant(
        "levels do not see one another",
        "passes/correction/levels.py",
        "known[name] = start[name] + (name in measured)",
        "known[name] = start[name]",
        MEASURED,
    ),
    Mutant(
        "corrections not handed on",
        "passes/correction/empirical.py",
        "            walk.correct(found[layer])\n        for layer in beginning",
        "            pass\n        for layer in beginning",
        MEASURED,
    ),
    Mutant(
        "layers of several levels not handed on",
        "passes/correction/empirical.py",
        "walk.ahead(place, walk.last(layer)))\n                walk.correct(found[layer])",
        "walk.ahead(place, walk.last(layer)))",
        MEASURED,
    ),
    Mutant(
        "running ahead moves the walk",
        "passes/correction/empirical.py",
        "frontier, found = list(self.frontier), dict",
        "frontier, found = self.frontier, dict",
        MEASURED,
    ),
    Mutant(
        "inputs of the quantized network taken for the float one's",
        "passes/correction/empirical.py",
        "found = found + whole(view, new, means[node.name] - float_means[node.name])",
        "pass",
        MEASURED,
    ),
    Mutant(
        "measured at one call",
        "passes/correction/empirical.py",
        "values = np.mean(each, axis=0)",
        "values = each[0]",
        MEASURED,
    ),
    Mutant(
        "all samples read",
        "passes/correction/empirical.py",
        "array[:left] if parted",
        "array if parted",
        MEASURED,
    ),
    Mutant(
        "one worker's share of the samples for all",
        "passes/correction/empirical.py",
        "(self.samples - workers.rank + workers.count - 1) // workers.count",
        "self.samples * workers.count",
        ("tests/cli/test_workers.py",),
    ),
    Mutant(
        "known shifts not taken first",
        "passes/correction/empirical.py",
        "    for shift in given:\n        walk.correct(shift)\n",
        "",
        ("tests/passes/test_bias_correction.py",),
    ),
    Mutant(
        "places not counted",
        "passes/correction/means.py",
        "places = count * math.prod(size or 0 for size in spatial(node, given))",
        "places = count",
        MEASURED,
    ),
    Mutant(
        "a transposed convolution reads its output's size",
        "passes/correction/means.py",
        'given if node.op == "ConvTranspose" else (1, *shape)',
        "(1, *shape)",
        MEASURED,
    ),
    Mutant(
        "one worker's means",
        "passes/correction/means.py",
        "reduce(np.add, workers.gathered(mine))",
        "workers.gathered(mine)[0]",
        ("tests/cli/test_workers.py",),
    ),
    Mutant(
        "memory never given back",
        "passes/correction/live.py",
        "self.kept -= size",
        "pass",
        ("tests/passes/test_live.py",),
    ),
    Mutant(
        "half precision summed in half",
        "tfpasses/frontends/evaluator.py",
        "tf.float32 if value.dtype.size < WIDE else value.dtype",
        "value.dtype",
        MEASURED,
    ),
    Mutant(
        "all workers have one part",
        "tfpasses/data/shards.py",
        "array[self.rank :: self.workers]",
        "array[:: self.workers]",
        ("tests/data/test_shards.py",),
    ),
    # bias correction without data
    Mutant(
        "raw gamma sign in the expectation",
        "passes/correction/expectations.py",
        'np.abs(params["gamma"]) if "gamma"',
        'params["gamma"] if "gamma"',
        EXPECTED,
    ),
    Mutant(
        "density term of the wrong sign",
        "passes/correction/piecewise.py",
        "np.where(sure, 0.0, density(a) - density(b))",
        "np.where(sure, 0.0, density(b) - density(a))",
        EXPECTED,
    ),
    Mutant(
        "no limit in the expectation",
        "passes/correction/piecewise.py",
        "*affine(high, limit or 0.0, 0.0)]",
        "*high]",
        EXPECTED,
    ),
    Mutant(
        "deviations added",
        "passes/correction/elementwise.py",
        "variance = sum(((factor * one.std) ** 2",
        "variance = sum(((factor * one.std)",
        EXPECTED,
    ),
    Mutant(
        "what depends on one value taken for independent",
        "passes/correction/elementwise.py",
        "if len(sources) == len(set(sources)) else",
        "if True else",
        EXPECTED,
    ),
    Mutant(
        "all taps see the image", "passes/correction/taps.py", "return found / max(len(at), 1)", "return found * 0 + 1 / size", CORRECTED
    ),
    Mutant(
        "the whole output sees a transposed kernel's taps",
        "passes/correction/taps.py",
        "return np.asarray(((at >= 0) & (at < size)).T / size)",
        "return np.asarray(((at >= 0) & (at < size)).T / len(at))",
        CORRECTED,
    ),
    Mutant(
        "the pointwise kernel's own change forgotten",
        "passes/correction/responses.py",
        "moved = response(after, moved[None]) + response(difference(kernel, new), before[None])",
        "moved = response(after, moved[None])",
        CORRECTED,
    ),
    Mutant("corrected the wrong way", "passes/correction/biases.py", "in_dtype(bias - shift", "in_dtype(bias + shift", CORRECTED),
    Mutant("corrected for one call", "passes/correction/analytical.py", "np.mean(each, axis=0)", "each[0]", CORRECTED),
    Mutant(
        "corrected behind the quantizer",
        "passes/quantize_weights.py",
        '            "analytical-bias-correction",\n',
        "",
        CORRECTED,
    ),
    # cross-layer scaling
    Mutant(
        "bias not scaled", "passes/cross_layer_scaling.py", "np.asarray(bias, np.float64) / outs", "np.asarray(bias, np.float64)", SCALED
    ),
    Mutant(
        "what a layer gives not divided where it reads scaled channels",
        "passes/cross_layer_scaling.py",
        "kernel.view.per_in(ins) / kernel.view.per_out(outs)",
        "kernel.view.per_in(ins)",
        SCALED,
    ),
    Mutant("limit scaled the wrong way", "passes/cross_layer_scaling.py", "clip.limits / each", "clip.limits * each", SCALED),
    Mutant("constant not divided", "passes/cross_layer_scaling.py", "after, stored = before / scale,", "after, stored = before,", SCALED),
    Mutant(
        "Keras takes the divided constant for a bias",
        "passes/cross_layer_scaling.py",
        'if reader.op == "Add" and len(reader.inputs) == 2:',
        "if False:",
        SCALED,
    ),
    Mutant("overflow ignored", "passes/cross_layer_scaling.py", "scale[places[~np.isfinite(whole)]] = 1.0", "pass", SCALED),
    Mutant("statistics not scaled", "passes/cross_layer_scaling.py", "ChannelStats(fact.mean / each, fact.std / each)", "fact", SCALED),
    Mutant(
        "triplet scaled like a pair",
        "passes/equalization/arithmetic.py",
        "logs - logs.mean(axis=0)",
        "logs - logs[[0, -1]].mean(axis=0)",
        SCALED,
    ),
    Mutant(
        "power of two beyond the bound",
        "passes/equalization/arithmetic.py",
        "np.clip(np.round(np.log2(scale)), low, high)",
        "np.round(np.log2(scale))",
        SCALED,
    ),
    Mutant("channels that are added not tied", "passes/equalization/channels.py", "survey.tie(others[value], others[ref])", "pass", SCALED),
    Mutant("output scaled", "passes/equalization/channels.py", 'self.fix(self.values[ref], ref.node, "it is an output")', "pass", SCALED),
    Mutant("product of two scaled values", "passes/equalization/channels.py", "if len(free) > 1 or", "if", SCALED),
    Mutant("threshold ignored", "passes/equalization/channels.py", 'if node.config["threshold"] != 0:', "if False:", SCALED),
    Mutant(
        "kernel used in another way ignored",
        "passes/equalization/channels.py",
        "if other not in graph.nodes or (graph.nodes[other].op, self.signature(graph.nodes[other])) != key:",
        "if False:",
        SCALED,
    ),
    Mutant(
        "the last of several readers alone counts",
        "passes/equalization/scaling.py",
        "np.maximum.at(most, self.place[these[inside]], ranges[inside])",
        "most[self.place[these[inside]]] = ranges[inside]",
        SCALED,
    ),
    Mutant(
        "a small step taken for the end",
        "passes/equalization/scaling.py",
        "and apart(chosen, total, low, reach, state.ranges()) <=",
        "and 0 <=",
        SCALED,
    ),
    Mutant("range that meets none unbounded", "passes/equalization/scaling.py", "if idle.any() and not idle.all():", "if False:", SCALED),
    Mutant(
        "other readers of a named set ignored",
        "passes/equalization/named_sets.py",
        "if number != after and np.isin(kernel.ins, free).any():",
        "if False:",
        SCALED,
    ),
    # constant channels, and bounds
    Mutant(
        "constants other than zero at a border",
        "passes/fold_constant_channels.py",
        "& any(pads_zeros(one, edit) for one in layer)",
        "& False",
        CONSTANT,
    ),
    Mutant("constant at one use alone", "passes/fold_constant_channels.py", "np.where(whole == each, whole, np.nan)", "whole", CONSTANT),
    Mutant(
        "constant not added to the bias",
        "passes/fold_constant_channels.py",
        "bias = view.response(np.where(inside, constant, 0.0)) +",
        "bias = 0.0 +",
        CONSTANT,
    ),
    Mutant("padding forgotten in bounds", "passes/equalization/intervals.py", "if pads_zeros(node, graph):", "if False:", CONSTANT),
    Mutant(
        "negative weights read from the same bound",
        "passes/equalization/intervals.py",
        "product_sum(positive, a) + product_sum(negative, b), product_sum",
        "product_sum(positive, a) + product_sum(negative, a), product_sum",
        CONSTANT,
    ),
    # high biases, and borders
    Mutant(
        "padding before the image rounded up",
        "passes/equalization/borders.py",
        "before = max((places - 1) * stride + reach - size, 0) // 2",
        "before = (max((places - 1) * stride + reach - size, 0) + 1) // 2",
        BIASED,
    ),
    Mutant("what is known of a sum lost", "passes/equalization/borders.py", "edit.add_fact(added, before)", "pass", BIASED),
    Mutant(
        "deviations ignored", "passes/equalization/arithmetic.py", "np.maximum(0.0, mean - sigmas * std)", "np.maximum(0.0, mean)", BIASED
    ),
    Mutant("limit not moved", "passes/high_bias_fold.py", "clip.limits - shift[clip.channels]", "clip.limits", BIASED),
    Mutant(
        "limit within the values",
        "passes/high_bias_fold.py",
        "* stats.std[clip.channels] >= clip.limits]] = False",
        "* stats.std[clip.channels] >= clip.limits]] &= True",
        BIASED,
    ),
    Mutant("constant before the activation ignored", "passes/high_bias_fold.py", "if ref in moved and bends:", "if False:", BIASED),
    Mutant("statistics not moved", "passes/high_bias_fold.py", "ChannelStats(before.mean - shift, before.std)", "before", BIASED),
)
