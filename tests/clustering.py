"""A small hierarchical clusterer, and runs of it over made-up photos, for tests."""

from html.parser import HTMLParser

import numpy as np

import vwkit
from tests.helpers import picture
from vwkit.errors import NotFittedError


def average_linkage(rows):
    """Return the (n − 1, 4) linkage of average linkage, slowly and plainly."""
    n = len(rows)
    far = np.sqrt(((rows[:, None].astype(float) - rows[None]) ** 2).sum(axis=2))
    members = {i: [i] for i in range(n)}
    table = []
    for step in range(n - 1):
        pairs = [(a, b) for a in members for b in members if a < b]
        heights = [far[np.ix_(members[a], members[b])].mean() for a, b in pairs]
        best = int(np.argmin(heights))
        (a, b), height = pairs[best], heights[best]
        members[n + step] = members.pop(a) + members.pop(b)
        table.append([a, b, height, len(members[n + step])])
    return np.array(table, float).reshape(n - 1, 4), float(far.max(initial=0))


def flat(tree, cut, min_size):
    """Return the labels of a cut, largest cluster first, slowly and plainly."""
    n = len(tree) + 1
    members = {i: [i] for i in range(n)}
    whole = dict.fromkeys(range(n), True)
    for i, (a, b, height, _) in enumerate(tree.tolist(), n):
        members[i] = members[int(a)] + members[int(b)]
        whole[i] = height <= cut and whole[int(a)] and whole[int(b)]
    found, taken = [], set()
    for node in sorted(members, reverse=True):
        if whole[node] and not taken & set(members[node]):
            taken |= set(members[node])
            found.append(sorted(members[node]))
    found.sort(key=lambda one: (-len(one), one))
    labels = np.full(n, -1, np.int32)
    for number, one in enumerate(one for one in found if len(one) >= min_size):
        labels[one] = number
    return labels


@vwkit.backend("joined")
class Joined(vwkit.Clusterer):
    """Average linkage, cut at a similarity."""

    has_centers = False
    supports_predict = False
    fixed_k = False
    hierarchical = True

    similarity: vwkit.Fraction = vwkit.Field(default=0.5, doc="Where to cut.")
    min_size: vwkit.Positive = vwkit.Field(default=2, doc="Smaller groups are none.")

    def _fit(self, data, weights):
        self.tree, self.diameter = average_linkage(np.asarray(data))
        self.labels = flat(self.tree, (1 - self.similarity) * self.diameter, self.min_size)
        self.objective = []

    def _state(self):
        if not hasattr(self, "tree"):
            raise NotFittedError("joined: fit it first")
        return {"tree": self.tree, "labels": self.labels, "full": np.array(self.diameter)}

    def _restore(self, state):
        self.tree, self.labels = np.array(state["tree"]), np.array(state["labels"])
        self.diameter = float(state["full"])
        self.objective = []


def write_photos(folder, groups=3, copies=3, alone=1):
    """Write groups of alike pictures, `g0/c0.png` and on, and some that are like no other."""
    folder.mkdir(parents=True, exist_ok=True)
    for g in range(groups):
        (folder / f"g{g}").mkdir(parents=True, exist_ok=True)
        for c in range(copies - (g == groups - 1 and copies > 2)):
            picture(g, shift=c).save(folder / f"g{g}" / f"c{c}.png")
    for a in range(alone):
        picture(90 + a).save(folder / f"alone {a}.png")
    return folder


def cluster_spec(folder, clusterer=None, **slots):
    return {
        "vwkit": 1,
        "images": {"path": str(folder)},
        "featurizer": {"use": "colour-histogram", "bins": 4},
        "clusterer": clusterer or {"use": "joined", "similarity": 0.6},
        **slots,
    }


def cluster_run(folder, out, clusterer=None, **slots):
    return vwkit.Pipeline.from_dict(cluster_spec(folder, clusterer, **slots)).run(out)


def output(name, path, **params):
    return vwkit.create("output", name, path=path, **params)


class Page(HTMLParser):
    """A page taken apart: elements, text, and that nothing in it comes from elsewhere or runs."""

    VOID = frozenset({"br", "hr", "img", "input", "meta"})

    def __init__(self, text, scripts=0):
        super().__init__(convert_charrefs=True)
        self.source, self.open, self.elements, self.text = text, [], [], []
        self.feed(text)
        self.close()
        assert self.open == [], f"left open: {self.open}"
        assert len(self.all("script")) == scripts
        assert not {"link", "iframe", "object", "embed", "base"} & {n for n, _ in self.elements}
        for name, attributes in self.elements:
            for key, value in attributes.items():
                assert not key.startswith("on"), (name, key)
                if key == "src":
                    assert value.startswith("data:image/jpeg;base64,"), (name, key)
                if key == "href":
                    assert value.startswith("#"), (name, key)
                    assert any(value[1:] == other.get("id") for _, other in self.elements), value

    def handle_starttag(self, name, attributes):
        assert len(dict(attributes)) == len(attributes), f"repeated attribute in {name}"
        self.elements.append((name, dict(attributes)))
        if name not in self.VOID:
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open, f"</{name}> closes nothing"
        assert self.open.pop() == name

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.text.append(data)

    def all(self, name):
        return [attributes for found, attributes in self.elements if found == name]

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())
