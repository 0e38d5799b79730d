"""A program of ``torch.export`` as a list of steps, and how it is run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from vwkit_torch_operators import Operator

from vwkit.errors import DataError
from vwkit.networks import one_line

__all__ = ["Name", "Program", "Step", "names_in", "short"]


@dataclasses.dataclass(frozen=True)
class Name:
    """A value that an earlier step has computed, among the arguments of a step."""

    text: str


@dataclasses.dataclass(frozen=True)
class Step:
    """One operator of a program.

    Attributes
    ----------
    fixed, late : dict
        Arguments by name: constants, and those that hold `Name`.
    outputs : tuple
        A name for each result; None where it is not used. A tuple stands for a list.
    modules : tuple of str
        The dotted names of the modules that it belongs to, from the outermost.
    """

    target: str
    compute: Operator
    fixed: dict[str, Any]
    late: dict[str, Any]
    outputs: tuple[Any, ...]
    modules: tuple[str, ...]

    @property
    def made(self) -> list[str]:
        """The names of all results."""
        return list(_flat(self.outputs))

    @property
    def needed(self) -> list[str]:
        """The names of all arguments that were computed."""
        return [name.text for name in names_in(self.late.values())]

    @property
    def in_place(self) -> bool:
        """Whether it changes its first argument."""
        return self.target.split(".")[-2].endswith("_")


def _flat(outputs: Iterable[Any]) -> Iterator[str]:
    for one in outputs:
        if isinstance(one, tuple):
            yield from _flat(one)
        elif one is not None:
            yield one


def names_in(values: Iterable[Any]) -> Iterator[Name]:
    """Yield the names among some arguments, and in lists of them."""
    for value in values:
        if isinstance(value, Name):
            yield value
        elif isinstance(value, list):
            yield from names_in(value)


class Program:
    """A program that is ready to run, up to one value.

    Parameters
    ----------
    steps : list of Step
        All of them, in order.
    tensors : dict of str to tensor
        Weights and other constants.
    given : str
        The name of the input, a batch of images.
    output : str
        The value that is returned.
    axes : dict of str to int
        Axes of each tensor.

    Attributes
    ----------
    channels_last : bool or None
        Whether the channels of the output come last, where the steps tell.
    uses_input : bool
        Whether the output depends on the input.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        tensors: Mapping[str, Any],
        given: str,
        output: str,
        axes: Mapping[str, int],
    ) -> None:
        self.output = output
        self.channels_last = _channels_last(steps, output, axes)
        self._given = given
        self._steps = _cut(steps, output)
        needed = {output, *(name for step in self._steps for name in step.needed)}
        self.uses_input = given in needed
        self._tensors = {name: one for name, one in tensors.items() if name in needed}
        # Each value is let go of after the last step that needs it.
        last = {name: row for row, step in enumerate(self._steps) for name in step.needed}
        self._dropped: list[list[str]] = [[] for _ in self._steps]
        for name, row in last.items():
            if name != output:
                self._dropped[row].append(name)

    @property
    def tensors(self) -> list[Any]:
        """Weights and other constants that are needed."""
        return list(self._tensors.values())

    def __call__(self, image: Any) -> Any:
        """Return the output for a batch of images, a tensor.

        Raises
        ------
        DataError
            A step fails.
        """
        values = {**self._tensors, self._given: image}
        for step, dropped in zip(self._steps, self._dropped, strict=True):
            try:
                arguments = {key: _resolved(one, values) for key, one in step.late.items()}
                found = step.compute({**step.fixed, **arguments})
                if len(step.outputs) == 1:  # such an operator returns it by itself
                    found = (found,)
                _keep(step.outputs, found, values)
            except Exception as error:
                raise DataError(
                    f"PyTorch cannot run it: {short(step.target)}: {one_line(error)}"
                ) from None
            for name in dropped:
                values.pop(name, None)
        return values.get(self.output)


def _resolved(value: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(value, Name):
        return values[value.text]
    if isinstance(value, list):
        return [_resolved(one, values) for one in value]
    return value


def _keep(outputs: tuple[Any, ...], found: Any, values: dict[str, Any]) -> None:
    """Put results under their names."""
    if len(outputs) > len(found):
        raise ValueError(f"{len(found)} results where {len(outputs)} are named")
    for name, one in zip(outputs, found, strict=False):
        if isinstance(name, tuple):
            _keep(name, tuple(one), values)
        elif name is not None:
            values[name] = one


def short(target: str) -> str:
    """Return an operator's name as it is shown."""
    return target.removeprefix("torch.ops.")


# Following the steps -----------------------------------------------------------------------------


def _cut(steps: Sequence[Step], output: str) -> list[Step]:
    """Leave out the steps that a value does not need.

    A step that changes a tensor may change one that is needed, by another name; such steps stay,
    if they come before the one that makes the value.
    """
    makers = [row for row, step in enumerate(steps) if output in step.made]
    if not makers:
        return []  # a weight, or the image itself
    needed = {output}
    kept = []
    for step in reversed(steps[: makers[-1] + 1]):
        if step.in_place or needed.intersection(step.made):
            needed.update(step.needed)
            kept.append(step)
    return kept[::-1]


def _channels_last(steps: Sequence[Step], output: str, axes: Mapping[str, int]) -> bool | None:
    """Follow a value upwards to what decides where its channels are; None if nothing does."""
    makers = {name: step for step in steps for name in step.made}
    seen = set()
    while output in makers and output not in seen:
        seen.add(output)
        step = makers[output]
        name = step.target.split(".")[-2]
        if "conv" in name or "pool" in name or "batch_norm" in name or "group_norm" in name:
            return False
        if axes.get(output) == 4:
            rows = step.fixed.get("normalized_shape")
            if name == "linear" or (name == "layer_norm" and rows is not None and len(rows) == 1):
                return True  # they work along the last axis
            if name == "permute":
                order = [axis % 4 for axis in step.fixed.get("dims", [])]
                if order in ([0, 2, 3, 1], [0, 3, 1, 2]):
                    return order == [0, 2, 3, 1]
        output = next((one for one in step.needed if one in makers), "")
    return None
