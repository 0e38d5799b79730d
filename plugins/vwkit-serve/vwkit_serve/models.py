"""What the API answers, as its OpenAPI page describes it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "Cluster",
    "Clusters",
    "Error",
    "Facts",
    "Found",
    "Item",
    "ItemDetails",
    "Items",
    "Line",
    "Matched",
    "Patch",
    "Patches",
    "Result",
    "Word",
    "Words",
]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Error(_Model):
    """What went wrong."""

    error: str = Field(description="One sentence.")


class Item(_Model):
    """An input of the run."""

    row: int = Field(description="Its number among all inputs.")
    id: str = Field(description="Its name.")
    width: int | None = Field(description="In pixels, as far as known.")
    height: int | None
    status: str = Field(description="`ok` or `skipped`.")


class Facts(_Model):
    """The run, and what can be done with it."""

    name: str = Field(description="The run folder's name.")
    version: str = Field(description="Changes when the run was made again and loaded anew.")
    vwkit: str
    images: bool = Field(description="Whether its items are pictures.")
    items: int = Field(description="All inputs, skipped ones too.")
    usable: int = Field(description="Inputs that were not skipped.")
    counts: dict[str, Any] = Field(description="Descriptors, words and so on.")
    pipeline: list[str] = Field(description="The backends in their order.")
    scores: dict[str, Any] | None = Field(description="What the evaluation found.")
    metric: str | None = Field(description="The distance of the index.")
    fields: list[str] = Field(description="Metadata by which a search can be narrowed.")
    can: dict[str, bool] = Field(
        description="`search`, `matches`, `clusters`, `words`, `patches`: whether this run can."
    )
    samples: list[Item] = Field(description="A few pictures, spread evenly.")
    why_not: dict[str, str] = Field(description="A sentence for each that it cannot.")
    max_upload: int = Field(description="Bytes of an uploaded picture.")
    max_pixels: int = Field(description="Pixels of a picture.")
    notice: str | None = Field(description="Why a run that was made again could not be loaded.")


class ItemDetails(Item):
    """All that is known of an input."""

    reason: str | None = Field(description="Why it was skipped.")
    available: bool = Field(description="Whether its file is there.")
    cluster: int | None = Field(description="Its cluster, −1 for none; null without clusters.")
    metadata: dict[str, Any] = Field(description="Whatever the source said of it.")


class Items(_Model):
    """A part of the items."""

    total: int
    offset: int
    items: list[Item]


class Found(_Model):
    """One result of a search."""

    rank: int = Field(description="From 1.")
    row: int
    id: str
    width: int | None
    height: int | None
    distance: float = Field(description="In the index's metric; smaller is nearer.")
    itself: bool = Field(description="Whether it is the item that was asked for.")


class Result(_Model):
    """What a search found, nearest first."""

    query: str | None = Field(description="The item asked for; null for an uploaded picture.")
    milliseconds: float = Field(description="That the work took, without waiting.")
    results: list[Found]


class Line(_Model):
    """Two points that belong together, in pixels of the pictures as they are shown, upright."""

    x1: float = Field(description="In the query.")
    y1: float
    x2: float = Field(description="In the item.")
    y2: float
    word: int | None = Field(description="The visual word that they share.")


class Matched(_Model):
    """Which points of a query and an item belong together."""

    width: int = Field(description="Of the query's picture.")
    height: int
    item_width: int
    item_height: int
    points: int = Field(description="Points of the query.")
    candidates: int = Field(description="Pairs that look alike.")
    total: int = Field(description="Pairs that are left; `lines` holds the best of them.")
    verified: bool = Field(description="Whether they agree on one view of the same thing.")
    by: str = Field(description="`words` or `descriptors`.")
    lines: list[Line]


class Cluster(_Model):
    """A cluster of items."""

    number: int = Field(description="−1: those that are in none.")
    size: int
    offset: int
    items: list[Item]


class Clusters(_Model):
    """A part of the clusters, the largest first."""

    total: int
    offset: int
    unclustered: int = Field(description="Items that are in none.")
    clusters: list[Cluster]


class Word(_Model):
    """A visual word."""

    word: int
    count: int = Field(description="How often it occurs.")


class Words(_Model):
    """A part of the words."""

    total: int
    offset: int
    used: int = Field(description="Words that occur at all.")
    occurrences: int = Field(description="Of all words.")
    words: list[Word]


class Patch(_Model):
    """A place where a word is."""

    row: int
    id: str
    x: float = Field(description="Of the keypoint, in pixels.")
    y: float
    scale: float = Field(description="Its diameter in pixels.")
    angle: float = Field(description="In degrees, clockwise.")
    image: str = Field(description="The place turned upright, as a `data:` URI.")


class Patches(Word):
    """What a word looks like."""

    patches: list[Patch]
