"""Pictures as neural networks take them: resized, cropped, and turned into numbers.

Each family of networks was trained on pictures prepared in its own way; others give worse vectors
without any error. The ways are called presets, and every part of one can be given instead.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.errors import ParameterError
from vwkit.types import Array

__all__ = ["CROP", "MOST_PIXELS", "PRESETS", "Preparation", "Preset", "resized", "three"]

#: Pixels of a side that a network may take.
MOST_PIXELS = 8192
#: Pixels of a side where neither the network nor the user says another number.
CROP = 224
# A resized picture of more pixels is never made as a whole.
_WHOLE = 1 << 24


@dataclasses.dataclass(frozen=True)
class Preset:
    """What a family of networks was trained on.

    Attributes
    ----------
    size : int
        Pixels of the short side before 224 of it are cut out.
    interpolation : str
    squash : bool
        Whether the picture is resized to a square whatever its shape.
    divisor : float
        What values of 0 to 255 are divided by.
    order : (int, int, int)
        Which of red, green and blue each channel is.
    mean, std : (float, float, float)
        Subtracted and divided by, in the order of the channels.
    """

    size: int
    interpolation: str
    squash: bool
    divisor: float
    order: tuple[int, int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


PRESETS = {
    # torchvision's weights and most others: pytorch.org/vision/stable/models.html
    "imagenet": Preset(
        256, "bilinear", False, 255.0, (0, 1, 2), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    ),
    # keras.applications.imagenet_utils.preprocess_input(mode="caffe") after load_img(target_size=…)
    "keras-caffe": Preset(
        224, "nearest", True, 1.0, (2, 1, 0), (103.939, 116.779, 123.68), (1.0, 1.0, 1.0)
    ),
    # Radford et al. 2021; github.com/openai/CLIP, clip.py
    "clip": Preset(
        224,
        "bicubic",
        False,
        255.0,
        (0, 1, 2),
        (0.48145466, 0.4578275, 0.40821073),
        (0.26862954, 0.26130258, 0.27577711),
    ),
    "none": Preset(256, "bilinear", False, 1.0, (0, 1, 2), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Preparation:
    """How pictures are prepared for one network.

    Attributes
    ----------
    crop, size : (int, int)
        Height and width of what the network takes, and those that the resized picture has at
        least; with `squash` it has just these.
    squash : bool
    interpolation : str
    order : (int, int, int)
        Which of red, green and blue each channel is.
    table : (3, 256) array
        What each value of a pixel becomes in each channel.
    channels_last : bool
    """

    crop: tuple[int, int]
    size: tuple[int, int]
    squash: bool
    interpolation: str
    order: tuple[int, int, int]
    table: Array
    channels_last: bool

    @classmethod
    def of(
        cls,
        preset: Preset,
        dtype: np.dtype[Any],
        *,
        height: int | None = None,
        width: int | None = None,
        channels_last: bool = False,
        size: int | None = None,
        crop: int | None = None,
        squash: bool | None = None,
        interpolation: str | None = None,
        mean: float | tuple[float, ...] | None = None,
        std: float | tuple[float, ...] | None = None,
    ) -> Preparation:
        """Return a preset's preparation, but for what is given.

        Parameters
        ----------
        preset : Preset
        dtype : dtype
            Of the numbers that the network takes.
        height, width : int, optional
            Pixels that the network is fixed to.
        channels_last : bool
        size, crop, squash, interpolation, mean, std : optional
            As in `Preset`; `mean` and `std` may be one number for all channels.

        Raises
        ------
        ParameterError
            A crop that the network does not take, a size below it, or not three numbers.
        """
        square = crop or CROP
        cut = (height or crop or width or square, width or crop or height or square)
        if crop is not None and cut != (crop, crop):
            raise ParameterError.of(
                "crop", f"the model takes {cut[1]} × {cut[0]} pixels; leave crop out"
            )
        if max(cut) > MOST_PIXELS:
            raise ParameterError.of(
                "model", f"it takes {cut[1]} × {cut[0]} pixels; at most {MOST_PIXELS} a side"
            )
        short = min(cut)
        side = size or round(short * preset.size / CROP)
        if side < short:
            raise ParameterError.of("size", f"must be at least the crop's {short}; got {side}")
        shift, scale = three("mean", mean), three("std", std)
        # In float32 and in this order, as the frameworks do it.
        values = np.arange(256, dtype=np.float32) / np.float32(preset.divisor)
        values = values - np.array(shift or preset.mean, np.float32)[:, None]
        values = values / np.array(scale or preset.std, np.float32)[:, None]
        return cls(
            crop=cut,
            size=(max(cut[0], cut[0] * side // short), max(cut[1], cut[1] * side // short)),
            squash=preset.squash if squash is None else squash,
            interpolation=interpolation or preset.interpolation,
            order=preset.order,
            table=values.astype(dtype),
            channels_last=channels_last,
        )

    def picture(self, rgb: NDArray[np.uint8]) -> Array:
        """Return an (h, w, 3) picture as the network takes it, without the axis of images."""
        pixels = resized(rgb, self.crop, self.size, self.squash, self.interpolation)
        planes = [
            self.table[channel][pixels[:, :, colour]] for channel, colour in enumerate(self.order)
        ]
        return np.stack(planes, axis=2 if self.channels_last else 0)

    def noise(self, count: int) -> Array:
        """Return prepared pictures of noise, the same every time."""
        rng = np.random.default_rng(0)
        noise = rng.integers(0, 256, (count, *self.crop, 3), np.uint8)
        return np.stack([self.picture(one) for one in noise])

    def described(self) -> dict[str, Any]:
        """Return plain data that differ where prepared pictures would."""
        return {
            "size": self.size,
            "crop": self.crop,
            "squash": self.squash,
            "interpolation": self.interpolation,
            "order": self.order,
            "values": hashlib.sha256(self.table.tobytes()).hexdigest(),
        }


def three(name: str, value: float | tuple[float, ...] | None) -> tuple[float, ...] | None:
    """Return a number for each channel from one for all of them or three.

    Raises
    ------
    ParameterError
        Not one or three finite numbers, or a `std` that is not greater than 0.
    """
    if value is None:
        return None
    numbers = value if isinstance(value, tuple) else (value,) * 3
    if len(numbers) != 3 or not all(math.isfinite(one) for one in numbers):
        raise ParameterError.of(name, f"must be a number or 3 of them; got {value!r}")
    if name == "std" and min(numbers) <= 0:
        raise ParameterError.of(name, f"must be greater than 0; got {value!r}")
    return numbers


def resized(
    rgb: NDArray[np.uint8],
    crop: tuple[int, int],
    size: tuple[int, int],
    squash: bool,
    interpolation: str,
) -> NDArray[np.uint8]:
    """Resize a picture and cut out its centre, as torchvision does with Pillow.

    Parameters
    ----------
    rgb : (h, w, 3) uint8
    crop, size : (int, int)
        Height and width of the result, and those that the resized picture has at least; with
        `squash` it has just these.
    squash : bool
    interpolation : str
        ``nearest``, ``bilinear`` or ``bicubic``; with antialiasing, but for the first.

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
