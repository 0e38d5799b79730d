"""Fingerprints of images by a neural network, by ONNX Runtime."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any, cast

import numpy as np
import vwkit_onnx_files as files

import vwkit
from vwkit.errors import ArtifactError, DataError, ParameterError
from vwkit.networks import Network, NetworkFeaturizer, fixed_length, layout_of
from vwkit.types import Array

__all__ = ["Onnx", "vwkit_backends"]

_CPU = "CPUExecutionProvider"

# The network's types that pixels are given in, and outputs are taken in.
_INPUTS: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(double)": np.dtype(np.float64),
    "tensor(uint8)": np.dtype(np.uint8),
}


@dataclasses.dataclass(kw_only=True, eq=False)
class _OnnxNetwork(Network):
    """A model that ONNX Runtime has opened.

    Attributes
    ----------
    session : onnxruntime.InferenceSession
    given : str
        The name of its input.
    external : tuple of str
        Files beside it that hold weights.
    random : bool
        Whether it draws random numbers.
    """

    session: Any
    given: str
    external: tuple[str, ...]
    random: bool

    def run(self, batch: Array) -> Any:
        """Return the output for a batch."""
        try:
            return self.session.run([self.output], {self.given: batch})[0]
        except Exception as error:
            raise DataError(f"ONNX Runtime cannot run it: {files.first_line(error)}") from None


@vwkit.backend("onnx")
class Onnx(NetworkFeaturizer):
    """One fingerprint of each image: an output, or an inner layer, of a network in an ONNX file.

    Vectors are (1, d) float32. An output (images, channels, height, width) or (images, tokens,
    channels) is pooled over places (`pool`); which axes those are is found by following the graph.

    Images are decoded, prepared and run on as many threads as the job has, each image (or batch)
    on one of them: that is faster than one image on all threads, and an image's vector is the same
    bytes for any number of threads and whatever else is in its batch. Graphs that quantise
    dynamically scale their numbers by what is in the batch, so they are given one image at a time;
    so is a graph whose results are found, in a trial, to change with the batch.

    The parameters cannot change after it was made. Saving keeps the model's own bytes, so a saved
    one needs neither the file nor the URL again. The file may be a stranger's: it cannot run
    programs or read files outside its folder, but it may ask for any amount of memory and time.

    Raises
    ------
    ParameterError
        No such file, not an ONNX file, external weights outside its folder, no such layer (the
        nearest are named), or an input that is not one image of three channels.
    DataError
        A URL cannot be fetched.

    Examples
    --------
    >>> import numpy as np, onnx, tempfile, vwkit
    >>> from onnx import TensorProto, helper
    >>> image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 224, 224])
    >>> mean = helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["n", 3, 1, 1])
    >>> node = helper.make_node("GlobalAveragePool", ["image"], ["mean"])
    >>> graph = helper.make_graph([node], "mean", [image], [mean])
    >>> model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     onnx.save(model, f"{folder}/mean.onnx")
    ...     network = vwkit.create("featurizer", "onnx", model=f"{folder}/mean.onnx", preset="none")
    >>> network.vectors([np.full((300, 400, 3), 7, np.uint8)])
    array([[7., 7., 7.]], dtype=float32)
    """

    library = "onnxruntime"
    requires = ("onnxruntime", "onnx")
    _file = files.FILE
    _most_bytes = files.MOST_BYTES

    layer: str | None = vwkit.Field(
        default=None,
        doc="Whose output to take: an output, tensor, node or layer; the first output by default.",
    )
    providers: tuple[str, ...] = vwkit.Field(
        default=(_CPU,),
        doc="ONNX Runtime's execution providers in order, such as CUDAExecutionProvider.",
    )

    @property
    def deterministic(self) -> bool:
        """Whether it runs on the processor and draws no random numbers."""
        return tuple(self.providers) == (_CPU,) and not self._onnx().random

    # Keeping

    def _save(self, folder: Path) -> None:
        network = self._onnx()
        for name in (None, *network.external):
            source = network.file if name is None else network.file.parent / name
            target = folder / (name or files.FILE)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        if files.digest_of(folder / files.FILE, network.external) != network.digest:
            raise ArtifactError(f"{network.file}: changed since it was opened; open it again")

    # The network

    def _onnx(self) -> _OnnxNetwork:
        return cast("_OnnxNetwork", self._network())

    def _check_runtime(self) -> None:
        for name in self.requires:
            files.imported(name)
        available = files.imported("onnxruntime").get_available_providers()
        if not self.providers:
            raise ParameterError.of("providers", f"at least one of {', '.join(available)}")
        for name in self.providers:
            if name not in available:
                raise ParameterError.of(
                    "providers",
                    f"this ONNX Runtime has no {name!r}; it has {', '.join(available)}",
                )

    def _open_network(self, file: Path) -> _OnnxNetwork:
        model, external, digest = files.read_model(file, self.sha256)
        output = files.find_layer(model.graph, self.layer, file)
        followed = files.channels_of(model.graph, output)
        files.cut_down(model.graph, output)
        session = files.open_session(model, file, self.providers)
        inputs = session.get_inputs()
        self._check_input(inputs)
        given = inputs[0]
        layout = layout_of(self.layout, given.shape)
        height, width = given.shape[1:3] if layout == "nhwc" else given.shape[2:4]
        preparation = self._preparation(
            _INPUTS[given.type], fixed_length(height), fixed_length(width), layout
        )
        rows = self._rows(fixed_length(given.shape[0]))
        operators = files.operators_of(model)
        return _OnnxNetwork(
            session=session,
            given=given.name,
            output=output,
            file=file,
            external=external,
            digest=digest,
            pool=self.pool,
            preparation=preparation,
            channels_last=(followed or layout) == "nhwc",
            random=bool(operators & files.RANDOM),
            rows=rows,
            batch_size=1 if operators & files.DYNAMIC else self.batch_size_ or rows,
        )

    def _check_input(self, inputs: list[Any]) -> None:
        if len(inputs) != 1:
            names = ", ".join(one.name for one in inputs) or "none"
            raise ParameterError.of(
                "model",
                f"needs a model with one input, the image; this output needs {len(inputs)} "
                f"({names}): choose a layer that depends on the image alone",
            )
        (given,) = inputs
        shape = [part if part is not None else "?" for part in given.shape]
        shown = f"its input {given.name} is {given.type} {shape}"
        if len(shape) != 4:
            raise ParameterError.of(
                "model", f"{shown}; images have 4 axes: (images, 3, height, width) or channels last"
            )
        if given.type not in _INPUTS:
            raise ParameterError.of("model", f"{shown}; pixels are given as float or uint8")
        if given.type == "tensor(uint8)":
            self._check_raw(shown)


@vwkit.hookimpl
def vwkit_backends() -> list[type[Any]]:
    """Bring `onnx`."""
    return [Onnx]
