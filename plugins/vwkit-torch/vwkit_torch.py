"""Fingerprints of images by a neural network, by PyTorch."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import shutil
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import vwkit_torch_files as files
from vwkit_torch_export import Exported, read_program
from vwkit_torch_program import Program
from vwkit_torch_script import Script, read_script

import vwkit
from vwkit.errors import ArtifactError, CacheWarning, DataError, ParameterError
from vwkit.fetching import is_sha256, kept_file
from vwkit.hashing import file_sha256
from vwkit.networks import Network, NetworkFeaturizer, layout_of, one_line
from vwkit.types import Array

__all__ = ["Torch", "vwkit_backends"]

# The network's types that pixels are given in, and NumPy's where it has the same.
_INPUTS = {
    "float32": np.float32,
    "float16": np.float16,
    "float64": np.float64,
    "bfloat16": np.float32,
    "uint8": np.uint8,
}
_DEVICE = re.compile(r"(cpu|cuda|mps|xpu)(:\d{1,3})?")
# What is left in a saved folder in place of TorchScript: its hash.
_HASH = "torchscript.sha256"
_SUFFIX = ".pt"


@dataclasses.dataclass(kw_only=True, eq=False)
class _TorchNetwork(Network):
    """A model that PyTorch runs.

    Attributes
    ----------
    call : Program or Script
        Takes and returns a tensor.
    dtype : str
        Of the input.
    device : torch.device
    is_program : bool
        Whether it is TorchScript, which could do anything.
    """

    call: Program | Script
    dtype: str
    device: Any
    is_program: bool
    versions: list[int] = dataclasses.field(default_factory=list)
    _turn: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.versions = self.counts()

    def counts(self) -> list[int]:
        """Return how often each of its tensors was written to."""
        return [int(one._version) for one in self.call.tensors]

    def run(self, batch: Array) -> Any:
        """Return the output for a batch."""
        torch = files.imported()
        # Other devices have their own queue, and memory for one batch perhaps.
        on_cpu = self.device.type == "cpu"
        with (
            contextlib.nullcontext() if on_cpu else self._turn,
            _one_thread(torch),
            torch.inference_mode(),
        ):
            # In memory of PyTorch's own: how numbers lie in it may change the last bits.
            given = torch.from_numpy(batch).clone()
            try:
                given = given.to(self.device, getattr(torch, self.dtype))
                return _array(torch, self.call(given))
            except (RuntimeError, TypeError) as error:
                raise DataError(f"PyTorch cannot run it: {one_line(error)}") from None


@contextlib.contextmanager
def _one_thread(torch: Any) -> Iterator[None]:
    """Let PyTorch use one thread for what this thread asks of it.

    The core's threads run images side by side; a second pool in each would only fight with them.
    PyTorch keeps this number for each thread, but also one that threads begin with which it sees
    for the first time; both are put back.
    """
    before = torch.get_num_threads()
    if before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _array(torch: Any, found: Any) -> Any:
    """Return a tensor, or the first of several, as an array; None if it is none."""
    while isinstance(found, (tuple, list, dict)) and found:
        found = next(iter(found.values())) if isinstance(found, dict) else found[0]
    if not isinstance(found, torch.Tensor):
        return None
    if found.is_quantized:
        found = found.dequantize()
    if found.dtype == torch.bfloat16:
        found = found.float()
    return found.cpu().numpy()


@vwkit.backend("torch")
class Torch(NetworkFeaturizer):
    """One fingerprint of each image: the output, or an inner layer, of a PyTorch network in a file.

    The file is of ``torch.export.save`` (.pt2) or TorchScript (.pt, .ts). Vectors are (1, d)
    float32. An output (images, channels, height, width) or (images, tokens, channels) is pooled
    over places (`pool`).

    Images are decoded, prepared and run on as many threads as the job has, each image (or batch)
    on one of them, on the processor with one thread of PyTorch's own each; an image's vector is
    the same bytes for any number of threads and whatever else is in its batch. A network whose
    results are found, in a trial, to change with the batch is given one image at a time.

    A .pt2 file may be a stranger's: it is read as data, and only operators of a list are run. It
    cannot run programs or open files, but may ask for any amount of memory and time. TorchScript
    is a program, and is run only from a file that you name: saving keeps a .pt2 file's own bytes,
    but of TorchScript just the hash, for which `load` looks among the files that you have used.

    The parameters cannot change after it was made.

    Raises
    ------
    ParameterError
        No such file, a checkpoint or another file without a network, an operator that is not in
        the list, no such layer (the nearest are named), or an input that is not one image of three
        channels.
    DataError
        A URL cannot be fetched.

    Examples
    --------
    >>> import numpy as np, tempfile, torch, vwkit
    >>> network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    >>> program = torch.export.export(network, (torch.zeros(1, 3, 224, 224),))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.export.save(program, f"{folder}/mean.pt2")
    ...     means = vwkit.create("featurizer", "torch", model=f"{folder}/mean.pt2", preset="none")
    >>> means.vectors([np.full((300, 400, 3), 7, np.uint8)])
    array([[7., 7., 7.]], dtype=float32)
    """

    library = "torch"
    requires = ("torch",)
    _file = files.FILE
    _most_bytes = 1 << 34

    layer: str | None = vwkit.Field(
        default=None,
        doc="Whose output to take: a module's dotted name such as layer4.1.relu, or, of a .pt2 "
        "file, a value's; the first output by default.",
    )
    device: str = vwkit.Field(
        default="cpu", doc="Where the network runs: cpu, cuda, cuda:1, mps or xpu."
    )

    @property
    def deterministic(self) -> bool:
        """Whether it runs on the processor."""
        return self.device.startswith("cpu")

    # Keeping

    def _save(self, folder: Path) -> None:
        network = cast("_TorchNetwork", self._network())
        if network.is_program:
            _remember(network.file, network.digest)
            (folder / _HASH).write_text(f"{network.digest}\n", encoding="ascii")
            return
        shutil.copyfile(network.file, folder / files.FILE)
        if file_sha256(folder / files.FILE) != network.digest:
            raise ArtifactError(f"{network.file}: changed since it was opened; open it again")

    @classmethod
    def _kept_model(cls, folder: Path) -> Path:
        if not (folder / _HASH).is_file():
            return folder / files.FILE  # by its ending, it is never taken for a program
        digest = (folder / _HASH).read_text(encoding="utf-8", errors="replace").strip()
        if not is_sha256(digest):
            raise ArtifactError(f"{folder / _HASH}: not a SHA-256; make it again")
        kept = kept_file(digest, _SUFFIX)
        if not kept.is_file() or file_sha256(kept) != digest.lower():
            raise ArtifactError(
                f"{folder.parent}: made by a TorchScript file, which is a program and so not kept "
                f"in the folder; if you have it and trust it (SHA-256 {digest}), copy it to {kept}"
            )
        return kept

    @classmethod
    def _suffix(cls) -> str:
        return _SUFFIX

    # The network

    def _check_runtime(self) -> None:
        torch = files.imported()
        found = _DEVICE.fullmatch(self.device)
        if found is None:
            raise ParameterError.of(
                "device", f"must be cpu, cuda, cuda:1, mps or xpu; got {self.device!r}"
            )
        try:
            torch.empty(1, device=self.device)
        except Exception as error:  # each device has its own
            text = f"this PyTorch cannot use {self.device}: {one_line(error)}"
            raise ParameterError.of("device", text) from None

    def _prepare(self) -> Network:
        torch = files.imported()
        state = torch.get_rng_state()
        network = cast("_TorchNetwork", super()._prepare())
        # The trial that has just been run shows what no look at a program could.
        after = torch.get_rng_state()
        if not torch.equal(state, after):
            network.vectors(network.preparation.noise(1))
            if not torch.equal(after, torch.get_rng_state()):  # no other thread did it
                torch.set_rng_state(state)
                raise files.refused(
                    network.file, "draws random numbers, so equal pictures would differ"
                )
        if network.versions != network.counts():
            raise files.refused(
                network.file,
                "changes its own numbers as it runs, so results depend on earlier ones",
            )
        return network

    def _open_network(self, file: Path) -> _TorchNetwork:
        torch = files.imported()
        kind = files.kind_of(file)
        digest = file_sha256(file)
        if self.sha256 is not None and digest != self.sha256.lower():
            raise ParameterError.of(
                "sha256", f"{file} has {digest}, not {self.sha256}; it is another file"
            )
        device = torch.device(self.device)
        if kind == "torchscript":
            return self._of_script(read_script(file, self.layer, device), file, digest, device)
        return self._of_program(read_program(file, self.layer, device), file, digest, device)

    def _of_program(
        self, exported: Exported, file: Path, digest: str, device: Any
    ) -> _TorchNetwork:
        program, shape = exported.program, exported.shape
        shown = f"its input is {exported.dtype} {[part or '?' for part in shape]}"
        if len(shape) != 4:
            raise files.refused(
                file, f"{shown}; images have 4 axes: (images, 3, height, width) or channels last"
            )
        if exported.dtype not in _INPUTS:
            raise files.refused(file, f"{shown}; pixels are given as float or uint8")
        if exported.dtype == "uint8":
            self._check_raw(shown)
        if not program.uses_input:
            raise ParameterError.of("layer", f"{program.output!r} does not depend on the image")
        layout = layout_of(self.layout, [part if part else "?" for part in shape])
        height, width = (1, 2) if layout == "nhwc" else (2, 3)
        preparation = self._preparation(
            np.dtype(_INPUTS[exported.dtype]), shape[height], shape[width], layout
        )
        for axis, length in zip((height, width), preparation.crop, strict=True):
            least, most = exported.limits[axis]
            if length < least or (most is not None and length > most):
                raise ParameterError.of(
                    "crop", f"the model takes {least} to {most or 'any'} pixels; got {length}"
                )
        least, most = exported.limits[0]
        rows = max(self._rows(shape[0]), least)
        wanted = self.batch_size_ or rows
        if most is not None and wanted > most:
            raise ParameterError.of("batch_size", f"the model takes at most {most}; got {wanted}")
        return _TorchNetwork(
            file=file,
            digest=digest,
            output=program.output,
            preparation=preparation,
            pool=self.pool,
            channels_last=layout == "nhwc"
            if program.channels_last is None
            else program.channels_last,
            rows=rows,
            batch_size=wanted,
            call=program,
            dtype=exported.dtype,
            device=device,
            is_program=False,
        )

    def _of_script(self, script: Script, file: Path, digest: str, device: Any) -> _TorchNetwork:
        dtype = script.dtype if script.dtype in _INPUTS else "float32"
        layout = "nhwc" if self.layout == "nhwc" else "nchw"
        return _TorchNetwork(
            file=file,
            digest=digest,
            output=script.output,
            preparation=self._preparation(np.dtype(_INPUTS[dtype]), None, None, layout),
            pool=self.pool,
            channels_last=layout == "nhwc",
            rows=1,
            batch_size=self.batch_size_ or 1,
            call=script,
            dtype=dtype,
            device=device,
            is_program=True,
        )


def _remember(file: Path, digest: str) -> None:
    """Copy a program that the user has named to where `load` looks for it by its hash."""
    kept = kept_file(digest, _SUFFIX)
    try:
        if kept.is_file() and file_sha256(kept) == digest:
            return
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            part = Path(folder) / kept.name
            shutil.copyfile(file, part)
            if file_sha256(part) != digest:
                raise ArtifactError(f"{file}: changed since it was opened; open it again")
            part.replace(kept)
    except OSError as error:
        warnings.warn(
            f"{kept}: cannot be written ({error.strerror}); to load what is saved here, copy "
            f"{file} there",
            CacheWarning,
            stacklevel=2,
        )


@vwkit.hookimpl
def vwkit_backends() -> list[type[Any]]:
    """Bring `torch`."""
    return [Torch]
