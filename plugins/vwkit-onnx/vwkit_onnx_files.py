"""Model files: read, checked, cut down to one output, and opened by ONNX Runtime.

A model file is data from strangers: it is parsed before ONNX Runtime sees it, and its external
weights must lie in its own folder.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from vwkit.errors import ParameterError, PluginError
from vwkit.hashing import file_sha256
from vwkit.networks import one_line

__all__ = [
    "DYNAMIC",
    "FILE",
    "MOST_BYTES",
    "RANDOM",
    "channels_of",
    "cut_down",
    "digest_of",
    "find_layer",
    "first_line",
    "imported",
    "open_session",
    "operators_of",
    "read_model",
]

#: The name of a model that is kept.
FILE = "model.onnx"
#: Protocol buffers hold no more; larger weights lie in files of their own.
MOST_BYTES = (1 << 31) - 1

# The model file ----------------------------------------------------------------------------------

# These scale by the numbers of the whole batch.
DYNAMIC = frozenset({"DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"})
RANDOM = frozenset(
    {
        "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
        "RandomUniformLike",
    }
)  # fmt: skip


def imported(name: str) -> Any:
    """Import a library when it is needed.

    Raises
    ------
    PluginError
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise PluginError(
            f"featurizer onnx: needs {name} ({error}): pip install onnxruntime onnx"
        ) from None


def read_model(file: Path, sha256: str | None) -> tuple[Any, tuple[str, ...], str]:
    """Return the parsed model, the names of its external files, and the hash of all of them."""
    try:
        size = file.stat().st_size
        if size > MOST_BYTES:
            raise ParameterError.of(
                "model",
                f"{file}: {size:,} bytes; an ONNX file has at most 2 GiB, larger weights lie in "
                "files beside it",
            )
        content = file.read_bytes()
    except FileNotFoundError:
        raise ParameterError.of("model", f"{file}: no such file") from None
    except OSError as error:
        raise ParameterError.of("model", f"{file}: cannot be read: {error.strerror}") from None
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256.lower():
        raise ParameterError.of("sha256", f"{file} has {found}, not {sha256}; it is another file")
    if content.startswith(b"version https://git-lfs"):
        raise ParameterError.of(
            "model", f"{file}: a placeholder of Git LFS, not the model: run git lfs pull"
        )
    model = imported("onnx").ModelProto()
    try:
        model.ParseFromString(content)
    except Exception:  # the parser's own error, which is no built-in one
        model.Clear()
    # An empty file, and some other ones, can be parsed, too.
    if not (model.ir_version > 0 and model.opset_import and model.graph.node):
        raise ParameterError.of("model", f"{file}: not an ONNX file, or damaged")
    if not _only_text(model):
        raise ParameterError.of("model", f"{file}: holds names that are not UTF-8; damaged")
    external = _external(model, file)
    return model, external, digest_of(file, external) if external else found


def _only_text(message: Any) -> bool:
    """Tell whether all text of a message is text: what is not UTF-8 is given as bytes."""
    for field, value in message.ListFields():
        repeated = not isinstance(value, (str, bytes)) and hasattr(value, "__len__")
        if field.type == field.TYPE_STRING:
            if not all(isinstance(one, str) for one in (value if repeated else [value])):
                return False
        elif field.type == field.TYPE_MESSAGE and not all(
            _only_text(one) for one in (value if repeated else [value])
        ):
            return False
    return True


def digest_of(file: Path, external: Iterable[str]) -> str:
    """Hash a model with its external files; without any it is the file's own hash."""
    own = file_sha256(file)
    parts = [f"{name} {file_sha256(file.parent / name)}" for name in external]
    return hashlib.sha256("\n".join([own, *parts]).encode()).hexdigest() if parts else own


def _external(model: Any, file: Path) -> tuple[str, ...]:
    """Return the files that hold weights; refuse those that are not below the model's folder."""
    found = set()
    for tensor in _tensors(model):
        if tensor.data_location != tensor.EXTERNAL and not tensor.external_data:
            continue
        name = next((one.value for one in tensor.external_data if one.key == "location"), "")
        found.add(name)
    home = file.parent.resolve()
    for name in sorted(found):
        parts = PurePosixPath(name).parts
        inside = parts and "\\" not in name and "\0" not in name and ".." not in parts
        path = file.parent / name
        if not inside or parts[0] == "/" or not path.resolve().is_relative_to(home):
            raise ParameterError.of(
                "model", f"{file}: keeps weights in {name!r}, outside its folder; refused"
            )
        if not path.is_file() or path.resolve() == file.resolve():
            raise ParameterError.of(
                "model", f"{file}: keeps weights in {name!r}, which is not there; copy it, too"
            )
        if parts == (FILE,):
            raise ParameterError.of(
                "model", f"{file}: keeps weights in {name!r}, a name for models; save it anew"
            )
    return tuple(sorted(found))


def _graphs(graph: Any) -> Iterator[Any]:
    """Yield a graph and those of its loops and branches."""
    yield graph
    for attribute in _attributes(graph.node):
        if attribute.HasField("g"):
            yield from _graphs(attribute.g)
        for inner in attribute.graphs:
            yield from _graphs(inner)


def _attributes(nodes: Iterable[Any]) -> Iterator[Any]:
    for node in nodes:
        yield from node.attribute


def _bodies(model: Any) -> Iterator[Any]:
    """Yield all lists of nodes."""
    for body in (model.graph, *model.functions):
        for graph in _graphs(body):
            yield graph.node


def operators_of(model: Any) -> set[str]:
    """Return the names of all operators of a model."""
    return {str(node.op_type) for nodes in _bodies(model) for node in nodes}


def _tensors(model: Any) -> Iterator[Any]:
    for graph in _graphs(model.graph):
        yield from graph.initializer
        yield from _dense(graph.sparse_initializer)
    for function in model.functions:
        for graph in list(_graphs(function))[1:]:
            yield from graph.initializer
            yield from _dense(graph.sparse_initializer)
    for nodes in _bodies(model):
        for attribute in _attributes(nodes):
            yield attribute.t
            yield from attribute.tensors
            yield from _dense([attribute.sparse_tensor, *attribute.sparse_tensors])


def _dense(sparse: Iterable[Any]) -> Iterator[Any]:
    for tensor in sparse:
        yield tensor.values
        yield tensor.indices


def find_layer(graph: Any, layer: str | None, file: Path) -> str:
    """Return the tensor that `layer` means.

    In this order: the name of a tensor (the model's outputs are tensors), of a node, or of a layer,
    that is a part between slashes as exporters write them (``vgg16/fc2/Relu``): its last node.
    """
    made = [(node.name, [name for name in node.output if name]) for node in graph.node]
    if layer is None:
        if not graph.output:
            raise ParameterError.of("model", f"{file}: has no output; name a layer")
        layer = graph.output[0].name
    tensors = {name for _, outputs in made for name in outputs}
    if layer in tensors:
        return layer
    for name, outputs in made:
        if name == layer and outputs:
            return str(outputs[0])
    for name, outputs in reversed(made):
        if outputs and any(layer in _parts(one) for one in (name, *outputs)):
            return str(outputs[0])
    names = list(dict.fromkeys(one for name, outputs in made for one in (name, *outputs) if one))
    parts = dict.fromkeys(part for name in names for part in _parts(name) if part)
    near = difflib.get_close_matches(layer, [*names, *parts], n=3, cutoff=0.6)
    near = list(dict.fromkeys(near))
    text = f"{file} has no layer {layer!r}"
    if near:
        raise ParameterError.of("layer", f"{text}; did you mean {' or '.join(near)}?")
    last = ", ".join(names[-6:])
    raise ParameterError.of("layer", f"{text}; the last of {len(names)}: {last}")


def _parts(name: str) -> list[str]:
    return name.split(":")[0].split("/")


def channels_of(graph: Any, output: str) -> str | None:
    """Follow the graph upwards to what decides where an output's channels are.

    Convolutions and pooling have channels first in every ONNX file, whatever its input has; what
    is exported from channels-last frameworks is transposed in between. None: as in the input.
    """
    by_output = {name: node for node in graph.node for name in node.output}
    seen = set()
    while output in by_output and output not in seen:
        seen.add(output)
        node = by_output[output]
        if "Conv" in node.op_type or node.op_type.endswith("Pool"):
            return "nchw"
        if node.op_type == "Transpose":
            order = [list(one.ints) for one in node.attribute if one.name == "perm"]
            if order == [[0, 2, 3, 1]]:
                return "nhwc"
            if order == [[0, 3, 1, 2]]:
                return "nchw"
        output = next((name for name in node.input if name in by_output), "")
    return None


def cut_down(graph: Any, output: str) -> None:
    """Make a tensor the only output, and leave out what it does not need."""
    onnx = imported("onnx")
    needed = {output}
    kept = []
    for node in reversed(graph.node):  # they stand in the order in which they are computed
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
            for attribute in node.attribute:
                for inner in (*attribute.graphs, attribute.g):
                    for body in _graphs(inner):
                        needed.update(name for one in body.node for name in one.input)
                        needed.update(one.name for one in body.output)
            needed.discard("")  # an input or output that is left out
    kept = [_copy(node) for node in reversed(kept)]
    del graph.node[:]
    graph.node.extend(kept)
    for field in ("initializer", "input", "value_info"):
        every = getattr(graph, field)
        for row in range(len(every) - 1, -1, -1):
            if every[row].name not in needed:
                del every[row]
    sparse = graph.sparse_initializer
    for row in range(len(sparse) - 1, -1, -1):
        if sparse[row].values.name not in needed:
            del sparse[row]
    known = [_copy(one) for one in (*graph.output, *graph.value_info) if one.name == output]
    del graph.output[:]
    graph.output.append(known[0] if known else onnx.ValueInfoProto(name=output))


def _copy(message: Any) -> Any:
    other = type(message)()
    other.CopyFrom(message)
    return other


def open_session(model: Any, file: Path, providers: Iterable[str]) -> Any:
    """Hand a checked model to ONNX Runtime.

    Parameters
    ----------
    model : onnx.ModelProto
    file : Path
        Where it came from: external weights lie beside it.
    providers : iterable of str

    Raises
    ------
    ParameterError
        ONNX Runtime refuses the model, or a provider cannot be started.
    """
    onnxruntime = imported("onnxruntime")
    options = onnxruntime.SessionOptions()
    # The core's threads run images side by side; a second pool would only fight with them.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 4  # it would write to stderr; errors are raised anyway
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(file.parent.resolve())
    )
    del model.training_info[:]
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=list(providers)
        )
    except Exception as error:
        raise ParameterError.of(
            "model", f"{file}: ONNX Runtime cannot load it: {first_line(error)}"
        ) from None
    missing = [name for name in providers if name not in session.get_providers()]
    if missing:
        raise ParameterError.of("providers", f"{missing[0]} cannot be started on this machine")
    return session


def first_line(error: Exception) -> str:
    """Return what ONNX Runtime says, on one line of bearable length."""
    # "[ONNXRuntimeError] : 1 : FAIL : what it is about"
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", one_line(error))
