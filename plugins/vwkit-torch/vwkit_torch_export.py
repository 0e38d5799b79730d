"""Programs of ``torch.export``, read and run as data.

``torch.export.load`` unpickles example inputs (and some weights), evaluates texts as Python, takes
functions from anywhere in ``torch`` by name, and loads compiled libraries: it is for one's own
files only. What is in such a file is nevertheless plain: a list of operators in JSON
(``torch/_export/serde/schema.py`` describes it) and raw numbers. This module reads just these.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from vwkit_torch_files import Archive, DamagedError, imported, refused
from vwkit_torch_operators import IGNORED, operator_of
from vwkit_torch_program import Name, Program, Step, names_in, short

from vwkit.errors import ParameterError
from vwkit.networks import one_line

__all__ = ["Exported", "read_program", "unknown_layer"]

# Of the schema; within one, files stay readable.
_SCHEMA = 8
# Records of an archive.
_WEIGHTS, _CONSTANTS = "data/weights/", "data/constants/"

# The schema's own numbers of dtypes and memory formats.
_DTYPES = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32",
    8: "float64", 12: "bool", 13: "bfloat16",
}  # fmt: skip
_FORMATS = {
    1: "contiguous_format", 2: "channels_last", 3: "channels_last_3d", 4: "preserve_format",
}  # fmt: skip

_SYMBOL = re.compile(r"(?:Symbol\(')?(\w+)(?:'.*\))?", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Exported:
    """What a file of ``torch.export.save`` holds.

    Attributes
    ----------
    program : Program
    dtype : str
        Of the input.
    shape : tuple of int or None
        Lengths of the input's axes; None where more than one will do.
    limits : tuple of (int, int or None)
        The least and the largest length of each.
    """

    program: Program
    dtype: str
    shape: tuple[int | None, ...]
    limits: tuple[tuple[int, int | None], ...]


def read_program(file: Path, layer: str | None, device: Any) -> Exported:
    """Read a file of ``torch.export.save``.

    Parameters
    ----------
    file : Path
    layer : str, optional
        A module's dotted name, or a value's; by default the program's first output.
    device : torch.device

    Raises
    ------
    ParameterError
        It is damaged, has another number of inputs than one, uses an operator that is not in the
        list, was exported in training mode, or has no such layer (the nearest are named).
    """
    try:
        archive = Archive(file)
        try:
            return _Reader(file, archive, device).program(layer)
        finally:
            archive.close()
    except ParameterError:
        raise
    except DamagedError as error:
        raise refused(file, f"damaged, or not of torch.export.save: {error}") from None
    except Exception as error:  # whatever a damaged file leads to
        what = f"{type(error).__name__}: {one_line(error)}"
        raise refused(file, f"damaged, or not of torch.export.save ({what})") from None


class _Reader:
    def __init__(self, file: Path, archive: Archive, device: Any) -> None:
        self.file = file
        self.archive = archive
        self.device = device
        self.torch = imported()

    def program(self, layer: str | None) -> Exported:
        listed = self.archive.names("models/")
        if len(listed) != 1:
            raise refused(
                self.file,
                f"holds {len(listed)} programs; one is needed, from torch.export.save",
            )
        model = self.archive.json(listed[0])
        version = model["schema_version"]
        if version["major"] != _SCHEMA:
            raise refused(
                self.file,
                f"written in schema {version['major']}.{version['minor']}; this vwkit-torch reads "
                f"{_SCHEMA}: save it with the PyTorch that is installed here",
            )
        module = model["graph_module"]
        graph, signature = module["graph"], module["signature"]
        steps = [self._step(node) for node in graph["nodes"] if node["target"] not in IGNORED]
        name = listed[0].removeprefix("models/").removesuffix(".json")
        given, tensors = self._inputs(signature["input_specs"], name)
        output = self._layer(steps, _returned(signature["output_specs"]), layer)
        axes = {key: len(meta["sizes"]) for key, meta in graph["tensor_values"].items()}
        meta, ranges = graph["tensor_values"][given], model.get("range_constraints") or {}
        return Exported(
            Program(steps, tensors, given, output, axes),
            _DTYPES.get(meta["dtype"], f"number {meta['dtype']} of the schema"),
            tuple(size.get("as_int") for size in meta["sizes"]),
            tuple(_limits(size, ranges) for size in meta["sizes"]),
        )

    # Steps

    def _step(self, node: Mapping[str, Any]) -> Step:
        target = str(node["target"])
        compute = operator_of(self.torch, target)
        if compute is None:
            raise refused(
                self.file,
                f"uses {short(target)}, which is not among the operators that vwkit-torch runs; "
                "export the network without it, to ONNX (vwkit-onnx), or as TorchScript",
            )
        arguments = {one["name"]: self._value(one["arg"]) for one in node["inputs"]}
        self._check_mode(target, arguments)
        late = {key: one for key, one in arguments.items() if any(names_in([one]))}
        return Step(
            target,
            compute,
            {key: one for key, one in arguments.items() if key not in late},
            late,
            tuple(_outputs(one) for one in node["outputs"]),
            _modules((node.get("metadata") or {}).get("nn_module_stack", "")),
        )

    def _check_mode(self, target: str, arguments: Mapping[str, Any]) -> None:
        training = arguments.get("train") is True or arguments.get("training") is True
        if "norm" in target:
            # Without these it has always used the numbers of the batch, and is meant to.
            wrong = training and arguments.get("running_mean") is not None
        else:
            wrong = training and arguments.get("p", 1) != 0
            wrong = wrong or arguments.get("dropout_p", 0) not in (0, 0.0)
        if wrong:
            raise refused(
                self.file,
                f"exported in training mode ({short(target)}), in which results change from run "
                "to run; call eval() on the network first",
            )

    def _value(self, argument: Mapping[str, Any]) -> Any:
        ((kind, value),) = argument.items()
        if kind == "as_none":
            return None
        if kind == "as_tensor":
            return Name(str(value["name"]))
        if kind in ("as_tensors", "as_nested_tensors"):
            return [Name(str(one["name"])) for one in value]
        if kind == "as_optional_tensor":
            return self._value(value)
        if kind == "as_optional_tensors":
            return [self._value(one) for one in value]
        if kind in _PLAIN:
            return _PLAIN[kind](value)
        if kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
            return _symbolic(value)
        if kind in ("as_sym_ints", "as_sym_floats", "as_sym_bools"):
            return [_symbolic(one) for one in value]
        if kind == "as_scalar_type":
            return getattr(self.torch, _DTYPES[value])
        if kind == "as_memory_format":
            return getattr(self.torch, _FORMATS[value])
        if kind == "as_layout" and value == 7:
            return self.torch.strided
        if kind == "as_device":
            return self.device  # wherever it was exported
        raise refused(
            self.file,
            f"uses {kind.removeprefix('as_').replace('_', ' ')}, which vwkit-torch does not run; "
            "export the network without control flow and custom objects",
        )

    # Inputs and weights

    def _inputs(self, specs: Iterable[Any], name: str) -> tuple[str, dict[str, Any]]:
        given: list[str] = []
        tensors: dict[str, Any] = {}
        weights: dict[str, Any] | None = None
        constants: dict[str, Any] | None = None
        for spec in specs:
            ((kind, value),) = spec.items()
            if kind == "user_input":
                ((what, inner),) = value["arg"].items()
                given.append(inner["name"] if what == "as_tensor" else f"a {what[3:]}")
            elif kind in ("parameter", "buffer", "tensor_constant"):
                label = value[f"{kind}_name"]
                if kind == "tensor_constant" or value.get("persistent") is False:
                    if constants is None:
                        constants = self._tensors(_CONSTANTS, f"{name}_constants_config.json")
                    tensors[value["arg"]["name"]] = constants[label]
                else:
                    if weights is None:
                        weights = self._tensors(_WEIGHTS, f"{name}_weights_config.json")
                    tensors[value["arg"]["name"]] = weights[label]
            elif kind != "constant_input":
                raise refused(self.file, f"takes a {kind.replace('_', ' ')}; export it without")
        if len(given) != 1 or given[0].startswith("a "):
            raise refused(
                self.file,
                f"needs a program with one input, the images; it has {len(given)} "
                f"({', '.join(given) or 'none'})",
            )
        return given[0], tensors

    def _tensors(self, folder: str, config: str) -> dict[str, Any]:
        """Return the tensors of a folder of the archive; several may share their numbers."""
        storages: dict[tuple[str, Any], Any] = {}
        found = {}
        for label, entry in self.archive.json(folder + config)["config"].items():
            if entry["use_pickle"] or entry["tensor_meta"] is None:
                raise refused(
                    self.file, f"keeps {label} as a pickle, which could run any program; refused"
                )
            meta = entry["tensor_meta"]
            dtype = getattr(self.torch, _DTYPES[meta["dtype"]])
            key = (folder + entry["path_name"], dtype)
            if key not in storages:
                storages[key] = self._storage(*key).to(self.device)
            sizes = [_whole(one) for one in meta["sizes"]]
            strides = [_whole(one) for one in meta["strides"]]
            start = _whole(meta["storage_offset"])
            if len(sizes) != len(strides):
                raise DamagedError(f"{label} has {len(sizes)} axes and {len(strides)} strides")
            end = start + sum((n - 1) * step for n, step in zip(sizes, strides, strict=True)) + 1
            if 0 in sizes:
                found[label] = self.torch.zeros(sizes, dtype=dtype, device=self.device)
            elif end > storages[key].numel():
                raise DamagedError(f"{label} is larger than what is stored of it")
            else:
                found[label] = self.torch.as_strided(storages[key], sizes, strides, start)
        return found

    def _storage(self, record: str, dtype: Any) -> Any:
        """Return all numbers of a record in one row, where PyTorch's own memory would begin."""
        size = self.archive.size(record)
        width = self.torch.empty(0, dtype=dtype).element_size()
        if size % width:
            raise DamagedError(f"its record {record} is cut short")
        # Bytes of a bool other than 0 and 1 would be no bools.
        raw = self.torch.empty(size, dtype=self.torch.uint8)
        self.archive.read_into(record, raw.numpy())
        if dtype is self.torch.bool:
            return raw != 0
        return raw.view(dtype)

    # Layers

    def _layer(self, steps: list[Step], returned: list[str], layer: str | None) -> str:
        if layer is None:
            if not returned:
                raise ParameterError.of("model", f"{self.file}: has no output; name a layer")
            return returned[0]
        made = [name for step in steps for name in step.made]
        if layer in made:
            return layer
        inside = [step for step in steps if layer in step.modules]
        outside = {
            name for step in steps if layer not in step.modules for name in step.needed
        }.union(returned)
        # What leaves the module last is its output, whatever it computes on the way.
        for step in reversed(inside):
            leaving = [name for name in step.made if name in outside]
            if leaving:
                return leaving[0]
        if inside and inside[-1].made:
            return inside[-1].made[0]
        modules = dict.fromkeys(name for step in steps for name in step.modules if name)
        raise unknown_layer(self.file, layer, [*modules], made)


def unknown_layer(file: Path, layer: str, modules: list[str], others: list[str]) -> ParameterError:
    """Return the error that names the layers nearest to what was given."""
    text = f"{file} has no layer {layer!r}"
    near = difflib.get_close_matches(layer, [*modules, *others], n=3, cutoff=0.6)
    if near:
        return ParameterError.of("layer", f"{text}; did you mean {' or '.join(near)}?")
    names = modules or others
    if not names:
        return ParameterError.of(
            "layer", f"{text}; it has none that can be named (a frozen TorchScript file has none)"
        )
    return ParameterError.of("layer", f"{text}; the last of {len(names)}: {', '.join(names[-6:])}")


# What the JSON says ------------------------------------------------------------------------------


def _whole(value: Any) -> int:
    """Return a length: {"as_int": 3}."""
    number = value["as_int"] if isinstance(value, dict) else value
    if type(number) is not int or number < 0:
        raise DamagedError(f"{number!r} is not a length")
    return number


def _number(value: Any) -> float:
    """Return a float; those that JSON cannot write come as text."""
    return float(value)


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise DamagedError(f"{value!r} is not a whole number")
    return value


_PLAIN: dict[str, Callable[[Any], Any]] = {
    "as_int": _integer,
    "as_ints": lambda value: [_integer(one) for one in value],
    "as_int_lists": lambda value: [[_integer(one) for one in row] for row in value],
    "as_float": _number,
    "as_floats": lambda value: [_number(one) for one in value],
    "as_bool": bool,
    "as_bools": lambda value: [bool(one) for one in value],
    "as_string": str,
}


def _symbolic(value: Mapping[str, Any]) -> Any:
    ((kind, inner),) = value.items()
    if kind == "as_name":
        return Name(str(inner))
    if not isinstance(inner, (bool, int, float)):
        raise DamagedError(f"{inner!r} is not a number")
    return inner


def _outputs(output: Mapping[str, Any]) -> Any:
    """Return the name of a result, a tuple of them for a list, or None."""
    ((kind, value),) = output.items()
    if kind in ("as_tensor", "as_optional_tensor"):
        return str(value["name"]) if "name" in value else _outputs(value)
    if kind in ("as_tensors", "as_optional_tensors"):
        return tuple(str(one["name"]) if "name" in one else _outputs(one) for one in value)
    if kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
        return value.get("as_name")
    return None


def _returned(specs: Iterable[Any]) -> list[str]:
    """Return the names of the program's outputs that are tensors."""
    arguments = [spec["user_output"]["arg"] for spec in specs if "user_output" in spec]
    return [one["as_tensor"]["name"] for one in arguments if "as_tensor" in one]


def _modules(stack: str) -> tuple[str, ...]:
    """Return the modules of a step: ``key,dotted.name,type;…``, from the outermost."""
    parts = [entry.split(",") for entry in stack.split(";")]
    return tuple(part[1] for part in parts if len(part) > 2)


def _limits(size: Mapping[str, Any], ranges: Mapping[str, Any]) -> tuple[int, int | None]:
    """Return the least and the largest length that an axis was exported for."""
    if "as_int" in size:
        return size["as_int"], size["as_int"]
    found = _SYMBOL.fullmatch(str(size["as_expr"]["expr_str"]))
    limits = ranges.get(found[1], {}) if found else {}
    least, most = limits.get("min_val"), limits.get("max_val")
    return (
        least if isinstance(least, int) else 1,
        most if isinstance(most, int) and most < 1 << 31 else None,
    )
