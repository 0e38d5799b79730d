"""What featurizers by neural networks share, whatever runs the network.

A plugin derives its featurizer from `NetworkFeaturizer` and says how a model file is opened and
run (`Network`). Parameters, pictures, batches, pooling, URLs and what is saved are the same for all.
"""

from __future__ import annotations

import dataclasses
import threading
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import annotated_types
import numpy as np
import pydantic
from numpy.typing import NDArray

from vwkit.artifact import Artifact
from vwkit.base import Field
from vwkit.errors import ArtifactError, BackendError, DataError, ParameterError
from vwkit.featurizer import Featurizer
from vwkit.fetching import fetched_file, is_sha256, is_url, kept_file
from vwkit.hashing import content_key
from vwkit.image import Image
from vwkit.preprocessing import MOST_PIXELS, PRESETS, Preparation, three
from vwkit.types import Array, Features, Positive

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

__all__ = ["LayerError", "Network", "NetworkFeaturizer", "fixed_length", "layout_of", "one_line"]


class LayerError(DataError):
    """A layer's output is not one vector, or one per place, of each image."""


@dataclasses.dataclass(kw_only=True, eq=False)
class Network(ABC):
    """A model that is ready to run. An author writes `run`.

    Attributes
    ----------
    file : Path
        Where it came from.
    digest : str
        The hash of all that it was read from.
    output : str
        What is taken from it, by the name that the model gives it.
    preparation : Preparation
        How pictures are prepared for it.
    pool : str
        How an output with one vector per place becomes one vector.
    channels_last : bool
        Whether the channels of an output with four axes come last.
    rows : int
        Images that it is run with, always as many: shapes that change would change kernels.
    batch_size : int
        Different images among them; the others repeat the last one. Until `settled` it is only
        what is hoped for.
    dim : int
        Numbers that come out for an image.
    """

    file: Path
    digest: str
    output: str
    preparation: Preparation
    pool: str
    channels_last: bool
    rows: int
    batch_size: int
    dim: int = 0
    _is_settled: bool = False

    @abstractmethod
    def run(self, batch: Array) -> Any:
        """Return the output for a batch of `rows` prepared images.

        Parameters
        ----------
        batch : (rows, 3, h, w) or (rows, h, w, 3) array
            C-contiguous, in the dtype of the preparation's table.

        Returns
        -------
        (rows, …) array of numbers; whatever else comes out is returned as it is.

        Raises
        ------
        DataError
            It cannot be run; the text says why, in one line.
        """

    def settled(self) -> int:
        """Return `batch_size`, once it was tried that an image's place in a batch is all the same."""
        if not self._is_settled and self.batch_size > 1:
            fixed, self.rows = self.rows, self.batch_size
            batch = self.preparation.noise(self.rows)
            together, turned = self.vectors(batch), self.vectors(np.roll(batch, 1, axis=0))
            same = together.tobytes() == np.roll(turned, -1, axis=0).tobytes()
            if not same or together[0].tobytes() != self.vectors(batch[:1]).tobytes():
                self.rows, self.batch_size = fixed, 1
        self._is_settled = True
        return self.batch_size

    def vectors(self, batch: Array) -> NDArray[np.float32]:
        """Run (n ≤ rows) prepared images; return (n, d).

        Raises
        ------
        LayerError
            What comes out is not one vector, or one per place, of each image.
        DataError
            It cannot be run.
        """
        count = len(batch)
        if count < self.rows:
            # Repeats leave the range of numbers what it is, which zeros would not.
            batch = np.concatenate([batch, np.repeat(batch[-1:], self.rows - count, axis=0)])
        return self._pooled(self.run(batch))[:count]

    def _pooled(self, found: Any) -> NDArray[np.float32]:
        if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiu":
            what = f"of {found.dtype}" if isinstance(found, np.ndarray) else "not a tensor"
            raise LayerError(f"gives no numbers ({what})")
        if found.ndim not in (2, 3, 4) or len(found) != self.rows or found.size == 0:
            raise LayerError(
                f"gives {found.shape} for {self.rows} image(s); wanted is (images, d), "
                "(images, tokens, d) or (images, d, height, width)"
            )
        if found.ndim > 2 and self.pool != "flatten":
            axes = (1,) if found.ndim == 3 else (1, 2) if self.channels_last else (2, 3)
            exact = found.astype(np.float64)
            found = exact.mean(axis=axes) if self.pool == "mean" else exact.max(axis=axes)
        vectors: NDArray[np.float32] = found.reshape(self.rows, -1).astype(np.float32)
        return vectors


def _path_or_url(value: Any) -> Any:
    """Take text for a path, unless it is a URL."""
    return Path(value) if isinstance(value, str) and not is_url(value) else value


class NetworkFeaturizer(Featurizer):
    """Base of the featurizers that run a neural network from a file; not a backend by itself.

    An author writes `_open_network` and `_save`, and sets `_file`. Vectors are (1, d) float32.
    Images are decoded, prepared and run on as many threads as the job has, each image (or batch)
    on one of them, so `Network.run` is called from several threads at once.
    """

    #: The name under which a model is saved.
    _file: ClassVar[str] = "model"
    #: A model that is fetched has at most so many bytes.
    _most_bytes: ClassVar[int] = (1 << 31) - 1

    thread_safe = True
    # By construction: see `batch_size`.
    batch_invariant = True
    # Ready from the beginning; what makes it so, the model, is saved.
    _fitted = True

    model: Annotated[Path | str, pydantic.BeforeValidator(_path_or_url)] = Field(
        doc="The model file: a path, or a URL with `sha256` (fetched once, kept in the cache folder)."
    )
    sha256: str | None = Field(
        default=None, doc="The file's SHA-256 in hexadecimal; a URL needs it."
    )
    layer: str | None = Field(
        default=None, doc="Whose output to take, by name; the first output by default."
    )
    pool: Literal["mean", "max", "flatten"] = Field(
        default="mean", doc="How an output with one vector per place becomes one vector."
    )
    preset: Literal["imagenet", "keras-caffe", "clip", "none"] = Field(
        default="imagenet", doc="How pictures are prepared, but for what is given below."
    )
    size: Annotated[int, annotated_types.Gt(0), annotated_types.Le(MOST_PIXELS)] | None = Field(
        default=None,
        doc="Pixels of the short side before cropping; by default the preset's for 224 pixels, "
        "in proportion for others.",
    )
    crop: Annotated[int, annotated_types.Gt(0), annotated_types.Le(MOST_PIXELS)] | None = Field(
        default=None,
        doc="Pixels of the square cut from the centre; by default what the model takes, or 224.",
    )
    squash: bool | None = Field(
        default=None, doc="Whether to resize to a square whatever the picture's shape."
    )
    interpolation: Literal["nearest", "bilinear", "bicubic"] | None = Field(
        default=None, doc="How to resize; with antialiasing, but for nearest."
    )
    mean: float | tuple[float, ...] | None = Field(
        default=None, doc="Subtracted: a number or one for each channel, in the preset's units."
    )
    std: float | tuple[float, ...] | None = Field(
        default=None, doc="Divided by: a number or one for each channel, in the preset's units."
    )
    layout: Literal["auto", "nchw", "nhwc"] = Field(
        default="auto", doc="Whether channels come first or last; found in the model by default."
    )
    batch_size_: Positive | None = Field(
        default=None, doc="Images run at once; by default 1, or what the model is fixed to."
    )

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._opened: Network | None = None
        if self.sha256 is not None and not is_sha256(self.sha256):
            raise ParameterError.of("sha256", f"must be 64 hexadecimal digits; got {self.sha256!r}")
        for name in ("mean", "std"):
            three(name, getattr(self, name))
        if isinstance(self.model, Path):
            self._network()
            return
        if not self.model.lower().startswith(("http://", "https://")):
            raise ParameterError.of("model", f"a URL begins with https://; got {self.model!r}")
        if self.sha256 is None:
            raise ParameterError.of(
                "sha256", f"a model from a URL needs its SHA-256, for {self.model}"
            )
        if kept_file(self.sha256, self._suffix()).is_file():
            self._network()

    # What an author writes

    def _check_runtime(self) -> None:
        """Refuse what this machine cannot run, before any model is read or fetched."""

    def _open_network(self, file: Path) -> Network:
        """Open the model file.

        Raises
        ------
        ParameterError
            Its `problems` name the parameter.
        """
        raise NotImplementedError(f"{type(self).__name__} must define _open_network")

    @classmethod
    def _kept_model(cls, folder: Path) -> Path:
        """Return the model file that `_save` left in a folder."""
        return folder / cls._file

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
            **network.preparation.described(),
        }
        return f"{self.name}-{content_key(parts)[:16]}"

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
                    np.stack([network.preparation.picture(image.rgb) for image in batch])
                )
            except DataError as error:
                raise BackendError(f"{self.name}: {batch[0].source}: {error}") from None
            found += [Features(vectors[i : i + 1]) for i in range(len(batch))]
        return found

    # Keeping

    def _plain_params(self, late: bool = True, arrays: bool = True) -> dict[str, Any]:
        params = super()._plain_params(late, arrays)
        if not arrays and isinstance(self.model, Path):
            # To be saved: where the model once lay differs between equal runs.
            params["model"] = self._file
        return params

    def _state(self) -> dict[str, Array]:
        if isinstance(self.model, str) and self.sha256 is not None:
            digest = self.sha256.lower()  # known without fetching it
        else:
            digest = self._network().digest
        return {"model": np.frombuffer(bytes.fromhex(digest), np.uint8)}

    @classmethod
    def _open(cls, artifact: Artifact) -> Self:
        if artifact.native is None:
            raise ArtifactError(f"{artifact.folder}: its model is missing; make it again")
        params = artifact.manifest["params"]
        # Never the place that the manifest names: it may be a stranger's.
        kept = {**params, "model": str(cls._kept_model(artifact.native))}
        made = super()._open(
            dataclasses.replace(artifact, manifest={**artifact.manifest, "params": kept})
        )
        if is_url(params["model"]):
            vars(made)["model"] = params["model"]
        return made

    def _load(self, folder: Path) -> None:
        """Do nothing: the constructor was given the kept file."""

    # The network

    @classmethod
    def _suffix(cls) -> str:
        return Path(cls._file).suffix

    def _network(self) -> Network:
        with self._lock:
            if self._opened is None:
                self._opened = self._prepare()
            return self._opened

    def _prepare(self) -> Network:
        self._check_runtime()
        if isinstance(self.model, Path):
            file = self.model.absolute()
        else:
            file = fetched_file(self.model, self.sha256 or "", self._suffix(), self._most_bytes)
        network = self._open_network(file)
        try:
            network.dim = network.vectors(network.preparation.noise(1)).shape[1]
        except LayerError as error:
            raise ParameterError.of("layer", f"{network.output!r} {error}") from None
        except DataError as error:
            raise ParameterError.of("model", f"{file}: {error}") from None
        return network

    def _preparation(
        self, dtype: np.dtype[Any], height: int | None, width: int | None, layout: str
    ) -> Preparation:
        """Return how pictures are prepared for a network that takes this."""
        return Preparation.of(
            PRESETS[self.preset],
            dtype,
            height=height,
            width=width,
            channels_last=layout == "nhwc",
            size=self.size,
            crop=self.crop,
            squash=self.squash,
            interpolation=self.interpolation,
            mean=self.mean,
            std=self.std,
        )

    def _check_raw(self, shown: str) -> None:
        """Refuse to prepare pixels for a network whose input, of uint8, shows that it does."""
        if self.preset != "none" or self.mean is not None or self.std is not None:
            raise ParameterError.of(
                "preset",
                f"{shown} and so prepares pixels itself: write preset: none without mean and std",
            )

    def _rows(self, fixed: int | None) -> int:
        """Return the images run at once at first: 1, or what the model is fixed to."""
        if fixed is not None and self.batch_size_ not in (None, fixed):
            raise ParameterError.of(
                "batch_size", f"the model is fixed to {fixed}; got {self.batch_size_}"
            )
        return fixed or 1


def layout_of(layout: str, shape: Sequence[Any]) -> str:
    """Return where the channels of an input are.

    Parameters
    ----------
    layout : "auto", "nchw" or "nhwc"
    shape : sequence of 4
        Lengths of the axes; what is no whole number above 0 is not fixed.

    Returns
    -------
    "nchw" or "nhwc"

    Raises
    ------
    ParameterError
        The shape is not that of pictures, not that of `layout`, or does not tell.
    """
    places = (("nchw", 1), ("nhwc", 3))
    fits = [name for name, axis in places if fixed_length(shape[axis]) in (None, 3)]
    sure = [name for name, axis in places if fixed_length(shape[axis]) == 3]
    if layout != "auto":
        if layout not in fits:
            raise ParameterError.of(
                "layout", f"the model's input is {shape}, which is not {layout} of 3 channels"
            )
        return layout
    if not fits:
        raise ParameterError.of(
            "model", f"its input is {shape}; images have 3 channels, on axis 1 or 3"
        )
    if not sure and len(fits) > 1:
        raise ParameterError.of(
            "layout", f"the model's input {shape} does not tell; write nchw or nhwc"
        )
    return (sure or fits)[0]


def fixed_length(axis: Any) -> int | None:
    """Return the length of an axis that a model fixes; others have a name, None or 0."""
    return axis if isinstance(axis, int) and axis > 0 else None


def one_line(error: Exception) -> str:
    """Return what a library says, on one line of bearable length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}…"
