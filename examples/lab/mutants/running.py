"""Mutants of the ONNX graph, the runtimes and the export; see mutate.py."""

GRAPH, RUNTIMES = "tests/runtime/test_graph.py", "tests/runtime/test_runtimes.py"
EXPORT = "tests/runtime/test_export.py"

MUTANTS = [
    # the graph
    ("pools of the graph have no padding", "runtime/graph.py", "[layer.padding] * 4", "[0] * 4", GRAPH),
    (
        "convolutions of the graph are padded alike on both axes",
        "runtime/graph.py",
        '"pads": layer.padding * 2',
        '"pads": layer.padding[:1] * 4',
        GRAPH,
    ),
    ("groups are forgotten", "runtime/graph.py", '"group": layer.groups', '"group": 1', GRAPH),
    ("dilations are forgotten", "runtime/graph.py", "layer.dilation,", "(1, 1),", GRAPH),
    ("enlargement rounds up", "runtime/graph.py", '"nearest_mode": "floor"', '"nearest_mode": "ceil"', GRAPH),
    (
        "a tensor that is added to itself is given once",
        "runtime/graph.py",
        "names[part] for part in _operands(node)",
        "names[part] for part in node.all_input_nodes",
        GRAPH,
    ),
    (
        "the graph's decoder has no temperature",
        "runtime/graph.py",
        'constant("temperature", decoder.temperature)',
        'constant("temperature", 1.0)',
        GRAPH,
    ),
    ("the graph forgets the offset", "runtime/graph.py", "matrix[:2, 2].tolist()", "[0, 0]", GRAPH),
    (
        "the file has no metadata",
        "runtime/graph.py",
        "helper.set_model_props(model, metadata)",
        "pass",
        EXPORT,
    ),
    # the runtimes
    (
        "a runtime always has torch's threads",
        "runtime/runtimes.py",
        "threads = self.threads or torch.get_num_threads()",
        "threads = torch.get_num_threads()",
        RUNTIMES,
    ),
    (
        "autocast reaches the network",
        "runtime/runtimes.py",
        "with own_types(self.device):",
        "if True:",
        RUNTIMES,
    ),
    (
        "auto prefers ONNX Runtime",
        "runtime/runtimes.py",
        '= ("openvino", "onnxruntime")',
        '= ("onnxruntime", "openvino")',
        RUNTIMES,
    ),
    (
        "auto takes any version",
        "runtime/runtimes.py",
        "if numbers is None or (int(numbers[1]), int(numbers[2])) < _LOWEST[module]:",
        "if numbers is None:",
        RUNTIMES,
    ),
    (
        "auto fails with the runtime it chose",
        "runtime/runtimes.py",
        "except Exception as error:  # also",
        "except KeyError as error:  # also",
        RUNTIMES,
    ),
    (
        "a forked process uses its parent's session",
        "runtime/runtimes.py",
        "        if process != os.getpid():\n            with _compiling:",
        "        if False:\n            with _compiling:",
        RUNTIMES,
    ),
    (
        "a runtime takes crops of float32 alone",
        "runtime/runtimes.py",
        'crops.detach().to("cpu", torch.float32)',
        "crops.detach()",
        RUNTIMES,
    ),
    (
        "ONNX Runtime spins after a run",
        "runtime/runtimes.py",
        '"session.force_spinning_stop", "1"',
        '"session.force_spinning_stop", "0"',
        RUNTIMES,
    ),
    (
        "torch starts threads to divide a crop's bytes",
        "geometry.py",
        "torch.from_numpy(np.divide(stack, 255, dtype=np.float32))",
        "torch.from_numpy(stack).float().div_(255)",
        RUNTIMES,
    ),
    ("torch starts threads to decode", "heatmap.py", 'if flat.device.type == "cpu":', "if False:", RUNTIMES),
    # the export
    (
        "an aligner in half precision exports what it computes with",
        "aligner.py",
        "export_onnx(path, self._original,",
        "export_onnx(path, self.network.network,",
        EXPORT,
    ),
    (
        "half precision changes the values kept for exports",
        "runtime/runtimes.py",
        "            network = copy.deepcopy(network)",
        "            pass",
        EXPORT,
    ),
    ("refine is dropped", "aligner.py", 'for name in ("flip", "refine"):', 'for name in ("flip",):', EXPORT),
    ("the file does not tell the lean", "runtime/export.py", '"lean": json.dumps(card.lean),', "", EXPORT),
    (
        "the file does not tell the licence",
        "runtime/export.py",
        'f"{card.summary}\\nLicence: {card.licence}"',
        "card.summary",
        EXPORT,
    ),
    (
        "a file that differs is written",
        "runtime/export.py",
        "if not worst <= _TOLERANCE",
        "if not worst <= 1",
        EXPORT,
    ),
    (
        "the sizes on the card are not checked",
        "runtime/export.py",
        "onnx.checker.check_model(data, full_check=True)",
        "pass",
        EXPORT,
    ),
]
