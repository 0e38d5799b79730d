"""Fingerprints of images by a neural network, by ONNX Runtime."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import annotated_types
import numpy as np
import pydantic
import vwkit_onnx_files as files
from numpy.typing import NDArray

import vwkit
from vwkit.artifact import Artifact
from vwkit.errors import (
    ArtifactError,
    BackendError,
    DataError,
    ParameterError,
)
from vwkit.hashing import content_key
from vwkit.image import Image
from vwkit.types import Array, Features

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Onnx", "vwkit_backends"]

_MOST_PIXELS = 8192
_CPU = "CPUExecutionProvider"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


# Preprocessing -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Preset:
    """What a family of networks was trained on; `mean` and `std` in the order of its channels."""

    size: int
    interpolation: str
    squash: bool
    divisor: float
    order: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


_PRESETS = {
    # torchvision's weights and most others: pytorch.org/vision/stable/models.html
    "imagenet": _Preset(
        256, "bilinear", False, 255.0, (0, 1, 2), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    ),
    # keras.applications.imagenet_utils.preprocess_input(mode="caffe") after load_img(target_size=…)
    "keras-caffe": _Preset(
        224, "nearest", True, 1.0, (2, 1, 0), (103.939, 116.779, 123.68), (1.0, 1.0, 1.0)
    ),
    # Radford et al. 2021; github.com/openai/CLIP, clip.py
    "clip": _Preset(
        224,
        "bicubic",
        False,
        255.0,
        (0, 1, 2),
        (0.48145466, 0.4578275, 0.40821073),
        (0.26862954, 0.26130258, 0.27577711),
    ),
    "none": _Preset(256, "bilinear", False, 1.0, (0, 1, 2), (0.0,) * 3, (1.0,) * 3),
}
_CROP = 224
# A resized picture of more pixels is never made as a whole.
_WHOLE = 1 << 24

# The network's types that pixels are given in, and outputs are taken in.
_INPUTS: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(double)": np.dtype(np.float64),
    "tensor(uint8)": np.dtype(np.uint8),
}


def _path_or_url(value: Any) -> Any:
    """Take text for a path, unless it is a URL."""
    return Path(value) if isinstance(value, str) and not _URL.match(value) else value


@vwkit.backend("onnx")
class Onnx(vwkit.Featurizer):
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
    # ONNX Runtime lets several threads into one session.
    thread_safe = True
    # By construction: see `batch_size`.
    batch_invariant = True
    # Ready from the beginning; what makes it so, the model, is saved.
    _fitted = True

    model: Annotated[Path | str, pydantic.BeforeValidator(_path_or_url)] = vwkit.Field(
        doc="The ONNX file: a path, or a URL with `sha256` (fetched once, kept in the cache folder)."
    )
    sha256: str | None = vwkit.Field(
        default=None, doc="The file's SHA-256 in hexadecimal; a URL needs it."
    )
    layer: str | None = vwkit.Field(
        default=None,
        doc="Whose output to take: an output, tensor, node or layer; the first output by default.",
    )
    pool: Literal["mean", "max", "flatten"] = vwkit.Field(
        default="mean", doc="How an output with one vector per place becomes one vector."
    )
    preset: Literal["imagenet", "keras-caffe", "clip", "none"] = vwkit.Field(
        default="imagenet", doc="How pictures are prepared, but for what is given below."
    )
    size: Annotated[int, annotated_types.Gt(0), annotated_types.Le(_MOST_PIXELS)] | None = (
        vwkit.Field(
            default=None,
            doc="Pixels of the short side before cropping; by default the preset's for 224 pixels, "
            "in proportion for others.",
        )
    )
    crop: Annotated[int, annotated_types.Gt(0), annotated_types.Le(_MOST_PIXELS)] | None = (
        vwkit.Field(
            default=None,
            doc="Pixels of the square cut from the centre; by default what the model takes, or 224.",
        )
    )
    squash: bool | None = vwkit.Field(
        default=None, doc="Whether to resize to a square whatever the picture's shape."
    )
    interpolation: Literal["nearest", "bilinear", "bicubic"] | None = vwkit.Field(
        default=None, doc="How to resize; with antialiasing, but for nearest."
    )
    mean: float | tuple[float, ...] | None = vwkit.Field(
        default=None, doc="Subtracted: a number or one for each channel, in the preset's units."
    )
    std: float | tuple[float, ...] | None = vwkit.Field(
        default=None, doc="Divided by: a number or one for each channel, in the preset's units."
    )
    layout: Literal["auto", "nchw", "nhwc"] = vwkit.Field(
        default="auto", doc="Whether channels come first or last; found in the model by default."
    )
    batch_size_: vwkit.Positive | None = vwkit.Field(
        default=None, doc="Images run at once; by default 1, or what the model is fixed to."
    )
    providers: tuple[str, ...] = vwkit.Field(
        default=(_CPU,),
        doc="ONNX Runtime's execution providers in order, such as CUDAExecutionProvider.",
    )

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._opened: _Network | None = None
        if self.sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", self.sha256):
            raise ParameterError.of("sha256", f"must be 64 hexadecimal digits; got {self.sha256!r}")
        for name in ("mean", "std"):
            _three(name, getattr(self, name))
        if isinstance(self.model, Path):
            self._network()
            return
        if not self.model.lower().startswith(("http://", "https://")):
            raise ParameterError.of("model", f"a URL begins with https://; got {self.model!r}")
        if self.sha256 is None:
            raise ParameterError.of(
                "sha256", f"a model from a URL needs its SHA-256, for {self.model}"
            )
        if files.kept_file(self.sha256).is_file():
            self._network()

    # What the core asks

    @property
    def dim(self) -> int:
        """Numbers that the layer gives for an image."""
        return self._network().dim

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32, whatever the network computes in."""
        return np.dtype(np.float32)

    @property
    def kind(self) -> str:
        """The model's content, layer and preparation in short: other vectors are not comparable."""
        network = self._network()
        parts = {
            "model": network.digest,
            "output": network.output,
            "pool": self.pool,
            "size": network.size,
            "crop": network.crop,
            "squash": network.squash,
            "interpolation": network.interpolation,
            "order": network.order,
            "values": hashlib.sha256(network.table.tobytes()).hexdigest(),
        }
        return f"onnx-{content_key(parts)[:16]}"

    @property
    def deterministic(self) -> bool:
        """Whether it runs on the processor and draws no random numbers."""
        return tuple(self.providers) == (_CPU,) and not self._network().random

    @property
    def batch_size(self) -> int:  # type: ignore[override]
        """Images run at once: 1 where results would change with the batch."""
        network = self._network()
        with self._lock:
            return network.settled()

    def _needs_fit(self) -> bool:
        return False

    def _extract(self, images: list[Image]) -> list[Features]:
        network, size = self._network(), self.batch_size
        found: list[Features] = []
        for start in range(0, len(images), size):
            batch = images[start : start + size]
            try:
                vectors = network.vectors(
                    np.stack([network.prepared(image.rgb) for image in batch])
                )
            except DataError as error:
                raise BackendError(f"onnx: {batch[0].source}: {error}") from None
            found += [Features(vectors[i : i + 1]) for i in range(len(batch))]
        return found

    # Keeping

    def _plain_params(self, late: bool = True, arrays: bool = True) -> dict[str, Any]:
        params = super()._plain_params(late, arrays)
        if not arrays and isinstance(self.model, Path):
            # To be saved: the model is kept, and where it once lay differs between equal runs.
            params["model"] = files.FILE
        return params

    def _state(self) -> dict[str, Array]:
        if isinstance(self.model, str) and self.sha256 is not None:
            digest = self.sha256.lower()  # known without fetching it
        else:
            digest = self._network().digest
        return {"model": np.frombuffer(bytes.fromhex(digest), np.uint8)}

    def _save(self, folder: Path) -> None:
        network = self._network()
        for name in (None, *network.external):
            source = network.file if name is None else network.file.parent / name
            target = folder / (name or files.FILE)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        if files.digest_of(folder / files.FILE, network.external) != network.digest:
            raise ArtifactError(f"{network.file}: changed since it was opened; open it again")

    @classmethod
    def _open(cls, artifact: Artifact) -> Self:
        if artifact.native is None:
            raise ArtifactError(f"{artifact.folder}: its model is missing; make it again")
        params = artifact.manifest["params"]
        kept = {**params, "model": str(artifact.native / files.FILE)}
        made = super()._open(
            dataclasses.replace(artifact, manifest={**artifact.manifest, "params": kept})
        )
        if _URL.match(str(params["model"])):
            vars(made)["model"] = params["model"]
        return made

    def _load(self, folder: Path) -> None:
        """Do nothing: the constructor was given the kept file."""

    # The network

    def _network(self) -> _Network:
        with self._lock:
            if self._opened is None:
                self._opened = self._prepare()
            return self._opened

    def _prepare(self) -> _Network:
        for name in self.requires:
            files.imported(name)
        self._check_providers()
        if isinstance(self.model, Path):
            file = self.model.absolute()
        else:
            file = files.fetched_file(self.model, (self.sha256 or "").lower())
        model, external, digest = files.read_model(file, self.sha256)
        output = files.find_layer(model.graph, self.layer, file)
        followed = files.channels_of(model.graph, output)
        files.cut_down(model.graph, output)
        session = files.open_session(model, file, self.providers)
        inputs = session.get_inputs()
        self._check_input(inputs)
        given = inputs[0]
        layout = self._layout(given.shape)
        height, width = given.shape[1:3] if layout == "nhwc" else given.shape[2:4]
        crop, size = self._geometry(_fixed(height), _fixed(width))
        fixed = _fixed(given.shape[0])
        if fixed is not None and self.batch_size_ not in (None, fixed):
            raise ParameterError.of(
                "batch_size", f"the model is fixed to {fixed}; got {self.batch_size_}"
            )
        operators, preset = files.operators_of(model), _PRESETS[self.preset]
        network = _Network(
            session=session,
            name=given.name,
            output=output,
            file=file,
            external=external,
            digest=digest,
            layout=layout,
            pool=self.pool,
            channels_last=layout == "nhwc" if followed is None else followed == "nhwc",
            table=self._table(_INPUTS[given.type]),
            order=preset.order,
            crop=crop,
            size=size,
            squash=preset.squash if self.squash is None else self.squash,
            interpolation=self.interpolation or preset.interpolation,
            random=bool(operators & files.RANDOM),
            rows=fixed or 1,
            batch_size=1 if operators & files.DYNAMIC else self.batch_size_ or fixed or 1,
        )
        try:
            network.dim = network.vectors(network.noise(1)).shape[1]
        except _LayerError as error:
            raise ParameterError.of("layer", f"{output!r} {error}") from None
        except DataError as error:
            raise ParameterError.of("model", f"{file}: {error}") from None
        return network

    def _check_providers(self) -> None:
        available = files.imported("onnxruntime").get_available_providers()
        if not self.providers:
            raise ParameterError.of("providers", f"at least one of {', '.join(available)}")
        for name in self.providers:
            if name not in available:
                raise ParameterError.of(
                    "providers",
                    f"this ONNX Runtime has no {name!r}; it has {', '.join(available)}",
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
        if given.type == "tensor(uint8)" and (
            self.preset != "none" or self.mean is not None or self.std is not None
        ):
            raise ParameterError.of(
                "preset",
                f"{shown} and so prepares pixels itself: write preset: none without mean and std",
            )

    def _layout(self, shape: list[Any]) -> str:
        fits = [
            name for name, axis in (("nchw", 1), ("nhwc", 3)) if _fixed(shape[axis]) in (None, 3)
        ]
        sure = [name for name, axis in (("nchw", 1), ("nhwc", 3)) if _fixed(shape[axis]) == 3]
        if self.layout != "auto":
            if self.layout not in fits:
                raise ParameterError.of(
                    "layout",
                    f"the model's input is {shape}, which is not {self.layout} of 3 channels",
                )
            return self.layout
        if not fits:
            raise ParameterError.of(
                "model", f"its input is {shape}; images have 3 channels, on axis 1 or 3"
            )
        if not sure and len(fits) > 1:
            raise ParameterError.of(
                "layout", f"the model's input {shape} does not tell; write nchw or nhwc"
            )
        return (sure or fits)[0]

    def _geometry(
        self, height: int | None, width: int | None
    ) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return height and width of the crop, and the least ones of the resized picture."""
        square = self.crop or _CROP
        crop = (height or self.crop or width or square, width or self.crop or height or square)
        if self.crop is not None and crop != (self.crop, self.crop):
            raise ParameterError.of(
                "crop", f"the model takes {crop[1]} × {crop[0]} pixels; leave crop out"
            )
        if max(crop) > _MOST_PIXELS:
            raise ParameterError.of(
                "model", f"it takes {crop[1]} × {crop[0]} pixels; at most {_MOST_PIXELS} a side"
            )
        short = min(crop)
        size = self.size or round(short * _PRESETS[self.preset].size / _CROP)
        if size < short:
            raise ParameterError.of("size", f"must be at least the crop's {short}; got {size}")
        return crop, (max(crop[0], crop[0] * size // short), max(crop[1], crop[1] * size // short))

    def _table(self, dtype: np.dtype[Any]) -> Array:
        """Return what each of the 256 values of a pixel becomes, (3, 256)."""
        preset = _PRESETS[self.preset]
        mean, std = _three("mean", self.mean), _three("std", self.std)
        # In float32 and in this order, as the frameworks do it.
        values = np.arange(256, dtype=np.float32) / np.float32(preset.divisor)
        shift = np.array(preset.mean if mean is None else mean, np.float32)
        scale = np.array(preset.std if std is None else std, np.float32)
        table: Array = ((values - shift[:, None]) / scale[:, None]).astype(dtype)
        return table


def _three(name: str, value: float | tuple[float, ...] | None) -> tuple[float, ...] | None:
    if value is None:
        return None
    numbers = value if isinstance(value, tuple) else (value,) * 3
    if len(numbers) != 3 or not all(math.isfinite(one) for one in numbers):
        raise ParameterError.of(name, f"must be a number or 3 of them; got {value!r}")
    if name == "std" and min(numbers) <= 0:
        raise ParameterError.of(name, f"must be greater than 0; got {value!r}")
    return numbers


def _fixed(axis: Any) -> int | None:
    """Return the length of an axis that the model fixes; others have a name, None or 0."""
    return axis if isinstance(axis, int) and axis > 0 else None


class _LayerError(DataError):
    """The layer's output is not one vector, or one per place, of each image."""


@dataclasses.dataclass
class _Network:
    """A model that is ready to run, and how pictures are prepared for it.

    Attributes
    ----------
    rows : int
        Images that it is run with, always as many: shapes that change would change kernels.
    batch_size : int
        Different images among them; the others repeat the last one. Until `settled` it is only
        what is hoped for.
    """

    session: Any
    name: str
    output: str
    file: Path
    external: tuple[str, ...]
    digest: str
    layout: str
    pool: str
    channels_last: bool
    table: Array
    order: tuple[int, int, int]
    crop: tuple[int, int]
    size: tuple[int, int]
    squash: bool
    interpolation: str
    random: bool
    rows: int
    batch_size: int
    dim: int = 0
    is_settled: bool = False

    def prepared(self, rgb: NDArray[np.uint8]) -> Array:
        """Return the picture as the network takes it, without the axis of images."""
        pixels = resized(rgb, self.crop, self.size, self.squash, self.interpolation)
        planes = [
            self.table[channel][pixels[:, :, colour]] for channel, colour in enumerate(self.order)
        ]
        return np.stack(planes, axis=2 if self.layout == "nhwc" else 0)

    def noise(self, count: int) -> Array:
        """Return prepared images of noise, the same every time."""
        rng = np.random.default_rng(0)
        noise = rng.integers(0, 256, (count, *self.crop, 3), np.uint8)
        return np.stack([self.prepared(one) for one in noise])

    def settled(self) -> int:
        """Return `batch_size`, once it was tried that an image's place in a batch is all the same."""
        if not self.is_settled and self.batch_size > 1:
            fixed, self.rows = self.rows, self.batch_size
            batch = self.noise(self.rows)
            together, turned = self.vectors(batch), self.vectors(np.roll(batch, 1, axis=0))
            same = together.tobytes() == np.roll(turned, -1, axis=0).tobytes()
            if not same or together[0].tobytes() != self.vectors(batch[:1]).tobytes():
                self.rows, self.batch_size = fixed, 1
        self.is_settled = True
        return self.batch_size

    def vectors(self, batch: Array) -> NDArray[np.float32]:
        """Run (n ≤ rows) prepared images; return (n, d)."""
        count = len(batch)
        if count < self.rows:
            # Repeats leave the range of numbers what it is, which zeros would not.
            batch = np.concatenate([batch, np.repeat(batch[-1:], self.rows - count, axis=0)])
        try:
            found = self.session.run([self.output], {self.name: batch})[0]
        except Exception as error:
            raise DataError(f"ONNX Runtime cannot run it: {files.first_line(error)}") from None
        return self._pooled(found)[:count]

    def _pooled(self, found: Any) -> NDArray[np.float32]:
        if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiu":
            what = f"of {found.dtype}" if isinstance(found, np.ndarray) else "not a tensor"
            raise _LayerError(f"gives no numbers ({what})")
        if found.ndim not in (2, 3, 4) or len(found) != self.rows or found.size == 0:
            raise _LayerError(
                f"gives {found.shape} for {self.rows} image(s); wanted is (images, d), "
                "(images, tokens, d) or (images, d, height, width)"
            )
        if found.ndim > 2 and self.pool != "flatten":
            axes = (1,) if found.ndim == 3 else (1, 2) if self.channels_last else (2, 3)
            exact = found.astype(np.float64)
            found = exact.mean(axis=axes) if self.pool == "mean" else exact.max(axis=axes)
        vectors: NDArray[np.float32] = found.reshape(self.rows, -1).astype(np.float32)
        return vectors


def resized(
    rgb: NDArray[np.uint8],
    crop: tuple[int, int],
    size: tuple[int, int],
    squash: bool,
    interpolation: str,
) -> NDArray[np.uint8]:
    """Resize a picture and cut out its centre.

    Parameters
    ----------
    rgb : (h, w, 3) uint8
    crop, size : (int, int)
        Height and width of the result, and those that the resized picture has at least; with
        `squash` it has just these.
    squash : bool
    interpolation : str

    Returns
    -------
    (crop[0], crop[1], 3) uint8
    """
    from PIL import Image as pillow

    height, width = rgb.shape[:2]
    tall, broad = size
    if not squash:
        # Whichever side would become too short decides; the other is cut off to a whole number.
        if tall * width >= broad * height:
            broad = max(crop[1], width * tall // height)
        else:
            tall = max(crop[0], height * broad // width)
    top, left = round((tall - crop[0]) / 2), round((broad - crop[1]) / 2)
    method = pillow.Resampling[interpolation.upper()]
    if tall * broad <= _WHOLE:
        # The usual way: cutting first would round a little differently.
        whole = pillow.fromarray(rgb).resize((broad, tall), method)
        return np.asarray(whole)[top : top + crop[0], left : left + crop[1]]
    # A picture of 1 × 100,000 pixels: only what is cut out is computed.
    box = (
        left * width / broad,
        top * height / tall,
        min(float(width), (left + crop[1]) * width / broad),
        min(float(height), (top + crop[0]) * height / tall),
    )
    cut = pillow.fromarray(rgb).resize((crop[1], crop[0]), method, box=box)
    return np.asarray(cut)


@vwkit.hookimpl
def vwkit_backends() -> list[type[Any]]:
    """Bring `onnx`."""
    return [Onnx]
