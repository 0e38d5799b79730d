"""TorchScript: programs that PyTorch compiles and runs.

TorchScript is code. PyTorch asks to treat it like a program from the same place: when it is loaded
or run it may, for example, write files. So this module sees only files that the user has named.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vwkit_torch_export import unknown_layer
from vwkit_torch_files import imported, refused

from vwkit.errors import DataError, ParameterError
from vwkit.networks import one_line

__all__ = ["Script", "read_script"]


class Script:
    """A module of TorchScript that is ready to run, up to one layer.

    Attributes
    ----------
    output : str
        The layer's name.
    dtype : str
        Of the input: that of the first weights.
    tensors : list of tensor
        Parameters and buffers.
    """

    def __init__(self, module: Any, calls: Sequence[tuple[Any, Any]], output: str) -> None:
        self.output = output
        self.tensors = [*module.parameters(), *module.buffers()]
        dtypes = [one.dtype for one in self.tensors if one.dtype.is_floating_point]
        self.dtype = str(dtypes[0]).removeprefix("torch.") if dtypes else "float32"
        self._module = module
        self._calls = calls

    def __call__(self, image: Any) -> Any:
        """Return the output for a batch of images, a tensor.

        Raises
        ------
        DataError
            It fails.
        """
        torch = imported()
        try:
            # The first runs would be used to compile faster ones that give slightly other numbers.
            with torch.jit.optimized_execution(False):
                if not self._calls:
                    return self._module(image)
                found = (image,)
                for owner, function in self._calls:
                    found = function(owner, *found)
                return found[0]
        except Exception as error:
            raise DataError(f"PyTorch cannot run it: {_last_line(error)}") from None


def _last_line(error: Exception) -> str:
    """Return what went wrong; before it stands where in the program's text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return one_line(type(error)(lines[-1])) if lines else type(error).__name__


def read_script(file: Path, layer: str | None, device: Any) -> Script:
    """Read a file of ``torch.jit.save``.

    Parameters
    ----------
    file : Path
        A program that the user trusts.
    layer : str, optional
        A module's dotted name; by default the network's own output.
    device : torch.device

    Raises
    ------
    ParameterError
        PyTorch cannot read it, or it has no such layer (the nearest are named).
    """
    torch = imported()
    try:
        # As torch.jit.load does, which warns on every call that TorchScript is no longer developed;
        # silencing a warning would change the filters of all threads.
        loaded = torch._C.import_ir_module(
            torch._C.CompilationUnit(), str(file), torch.device("cpu"), {}, False
        )
        module = torch.jit._recursive.wrap_cpp_module(loaded).to(device)
        if hasattr(module, "training"):  # a frozen one has lost it
            module.eval()
    except Exception as error:
        raise refused(file, f"PyTorch cannot load it: {_last_line(error)}") from None
    if layer is None:
        return Script(module, (), "forward")
    names = [name for name, _ in module.named_modules() if name]
    if layer not in names:
        raise unknown_layer(file, layer, names, [])
    calls = _calls_up_to(module, "forward", tuple(layer.split(".")))
    if calls is None:
        raise ParameterError.of(
            "layer",
            f"{file}: {layer!r} is not called by name, or only in a loop or under a condition; "
            "name a module around it",
        )
    return Script(module, calls, layer)


def _calls_up_to(module: Any, method: str, path: tuple[str, ...]) -> list[tuple[Any, Any]] | None:
    """Return what must be called, one after the other, for the output of a module inside another.

    A method is a graph in which calls of other methods are nodes. The last call of the wanted
    module, or of one around it, is looked for; the graph is cut there. If it is the module itself,
    its result is returned; else the call's arguments are, with which the search goes on inside.

    Returns
    -------
    list of (owner, function), or None
        Each function takes its owner and what the one before returned, a tuple.
    """
    torch = imported()
    graph = module._c._get_method(method).graph.copy()
    nodes = list(graph.nodes())
    own = next(graph.inputs()).debugName()
    for row in range(len(nodes) - 1, -1, -1):
        node = nodes[row]
        if node.kind() != "prim::CallMethod":
            continue
        given = list(node.inputs())
        owner = _attributes(given[0], own)
        name = node.s("name")
        if owner is None or path[: len(owner)] != owner:
            continue
        inner: list[tuple[Any, Any]] | None = []
        if owner == path and name.startswith("forward"):  # traced calls are numbered: forward1
            results, later = list(node.outputs()), nodes[row + 1 :]
        else:
            part = module
            for one in owner:
                part = getattr(part, one)
            inner = _calls_up_to(part, name, path[len(owner) :])
            results, later = given[1:], nodes[row:]
        if inner is None:
            continue
        while list(graph.outputs()):
            graph.eraseOutput(0)
        for one in reversed(later):
            one.destroy()
        packed = graph.create("prim::TupleConstruct", results)
        packed.output().setType(torch._C.TupleType([one.type() for one in results]))
        graph.appendNode(packed)
        graph.registerOutput(packed.output())
        torch._C._jit_pass_dce(graph)
        return [(module, torch._C._create_function_from_graph("forward", graph)), *inner]
    return None


def _attributes(value: Any, own: str) -> tuple[str, ...] | None:
    """Return the names that lead from a graph's own module to the one that a value holds."""
    names: list[str] = []
    while value.debugName() != own:
        node = value.node()
        if node.kind() != "prim::GetAttr":
            return None
        names.append(node.s("name"))
        value = next(node.inputs())
    return tuple(reversed(names))
