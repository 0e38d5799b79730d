"""What a factory string says: abilities, and whether FAISS can be trusted with it."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from vwkit.errors import ParameterError
from vwkit_faiss.library import load_faiss

__all__ = ["CODES", "Form", "form_of"]

# Encodings that FAISS can forget vectors of and (in lists) filter.
CODES = ("Flat", "SQ", "PQ")

_EXAMPLES = 'such as "Flat", "IVF1024,Flat", "IVF1024,PQ16" or "HNSW32"'
_LONGEST = 200
_PREFIX = re.compile(r"^(PCA|OPQ|RR|HR|Pad)[^,]*,")
_SUFFIX = re.compile(r",(RFlat|Refine)(\((?P<what>.*)\))?$")
_HAMMING = "its distances are Hamming distances, not those of the metric"
_UNCHECKED = "a saved file of it cannot be checked before it is used"
# At the start of a component, or anywhere.
_REFUSED = {
    r"(^|,)IDMap": "rows keep their numbers by themselves; leave IDMap out",
    r"(^|,)LSH": _HAMMING,
    r"(^|,)ITQ": _HAMMING,
    r",SH([-0-9.]|$)": _HAMMING,
    r"NSG": "it cannot grow, and its building never ends for some data; take HNSW",
    r"(^|,)L2norm": "it changes the distances; take metric cosine instead",
    r"(^|,)(RCQ|LSCQ)": "it only finds the lists of an IVF",
    r"(^|,)(Residual|ZnLattice)|\+": "FAISS cannot search it, or cannot read it back",
    r"Panorama|SVS|EDEN": _UNCHECKED,
    r"(RQ|LSQ)[0-9x]*fs|RaBitQfs": _UNCHECKED,
}
# Least and greatest number behind a word.
_NUMBERS = {
    "IVF": (1, 1 << 31),
    "HNSW": (2, 4096),
    "IMI2x": (1, 15),
    "PCA[WR]*": (1, 1 << 20),
    "OPQ": (1, 1 << 20),
    "OPQ[0-9]+_": (1, 1 << 20),
    "RR": (1, 1 << 20),
    "HR": (1, 1 << 20),
    "Pad": (1, 1 << 20),
    "(?<!L)PQ": (1, 1 << 20),
    "(?<!P)L?S?RQ": (1, 1024),
    "P?LSQ": (1, 1024),
    "PRQ": (1, 1024),
    "RaBitQ": (1, 9),
    # bits of a code
    "(?<![A-Z])(?<!IMI2)x": (1, 16),
    "fs_": (32, 4096),
}


@dataclass(frozen=True)
class Form:
    """What a factory string says about abilities.

    Attributes
    ----------
    base : str
        The first component behind the transforms, without numbers: ``IVF``, ``HNSW``, ``Flat`` …
    codes : str
        How vectors are stored, without numbers: ``Flat``, ``SQ``, ``PQ`` …
    stored : str
        Whose numbers the distances come from, in full: ``Flat``, ``SQfp16``, ``PQ16`` …
    lists : int
        Inverted lists, in which vectors lie with their row numbers; 0 without.
    projected : bool
        Whether a transform loses part of the vectors.
    refined : bool
        Whether the best are compared again by a second index.
    """

    base: str
    codes: str
    stored: str
    lists: int
    projected: bool
    refined: bool

    @property
    def plain_lists(self) -> bool:
        """Whether the lists can lie in a file: vector by vector, and nothing beside them."""
        plain = self.codes in CODES and "fs" not in self.stored
        return bool(self.lists) and plain and not self.refined


@functools.lru_cache(maxsize=256)
def form_of(factory: str) -> Form:
    """Read a factory string as far as abilities depend on it; FAISS itself reads the rest.

    Raises
    ------
    ParameterError
        FAISS cannot read it, or it cannot give what an index of ours promises.
    """
    _check_grammar(factory)
    rest, refined, stored = factory, False, ""
    if found := _SUFFIX.search(rest):
        refined, stored = True, found["what"] or "Flat"
        rest = rest[: found.start()]
    projected = False
    while found := _PREFIX.match(rest):
        projected = projected or found[1] in ("PCA", "OPQ")
        rest = rest[found.end() :]
    base = _letters(rest)
    while "(" in rest:  # the coarse quantizer of "IVF64(HNSW32,Flat),Flat"
        shorter = re.sub(r"\([^()]*\)", "", rest)
        if shorter == rest:
            break
        rest = shorter
    first, _, second = rest.partition(",")
    lists = _lists(first) if base in ("IVF", "IMI") else 0
    if base == "HNSW" and not second:
        second = first.partition("_")[2] or "Flat"
    encoding = second or first
    codes = _letters(encoding)
    return Form(
        base,
        codes,
        stored or encoding,
        lists,
        # Behind a second comparison with whole vectors, what a transform lost does not show.
        projected and not refined,
        refined,
    )


def _lists(component: str) -> int:
    """Return the lists of ``IVF4k`` or ``IMI2x8``."""
    if found := re.match(r"IMI2x(\d+)", component):
        return 1 << 2 * int(found[1])
    found = re.match(r"IVF(\d+)([kM]?)", component)
    return int(found[1]) * {"": 1, "k": 1 << 10, "M": 1 << 20}[found[2]] if found else 1


def _letters(component: str) -> str:
    found = re.match(r"[A-Za-z]*", component)
    letters = found[0] if found else ""
    return "SQ" if letters.startswith("SQ") else letters


def _check_grammar(factory: str) -> None:
    if factory == "Flat":
        return  # nothing is imported for the default
    unread = ParameterError(
        f"faiss.factory: FAISS cannot read {factory[:60]!r}; give a factory string {_EXAMPLES}"
    )
    # FAISS matches by recursion, which a long text would take beyond the stack.
    if len(factory) > _LONGEST or not re.fullmatch(r"[A-Za-z0-9,_().+-]+", factory):
        raise unread
    for word, why in _REFUSED.items():
        if re.search(word, factory):
            raise ParameterError(f"faiss.factory: {factory!r}: {why}")
    for word, (least, most) in _NUMBERS.items():
        for found in re.finditer(rf"({word})([0-9]+)", factory):
            number = found[found.lastindex or 0]
            if not least <= int(number) <= most:
                shown = "2^31" if most == 1 << 31 else f"{most:,}"
                raise ParameterError(
                    f"faiss.factory: {factory!r}: {found[1]} needs a number from {least} to "
                    f"{shown}; got {number}"
                )
    # A trial without the memory: one list instead of many, and any dimension.
    small = re.sub(r"IVF\d+[kM]?", "IVF1", re.sub(r"IMI2x\d+", "IMI2x1", factory))
    small = re.sub(r"(?<=[0-9])x\d+", "x4", small)
    try:
        load_faiss("index faiss").index_factory(64, small)
    except (RuntimeError, MemoryError) as error:
        # Whatever else it says may be due to the dimension, which is not known yet.
        if "could not parse" in str(error) or "stoi" in str(error):
            raise unread from None
