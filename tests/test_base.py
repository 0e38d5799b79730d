"""The decorator, the fields, create, load, and what an author can get wrong."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import pytest

import vwkit
from vwkit.base import roles_of
from vwkit.errors import Problem
from vwkit.plugins import registered, registry

if TYPE_CHECKING:
    from elsewhere import Connection  # nobody has it when this runs

ROWS = np.random.default_rng(0).integers(0, 256, (30, 4)).astype(np.uint8)


class Undecorated(vwkit.Transform):
    """A base that shares fields."""

    shared: vwkit.Positive = 3
    changed: int = 1
    _hidden: int = 7
    constant: ClassVar[int] = 9


@vwkit.backend("base-many")
class Many(Undecorated):
    """One field of each kind."""

    late = frozenset({"speed"})
    changed = 2

    needed: int
    speed: vwkit.Positive = 5
    share: vwkit.Fraction = 0.5
    factor: float = 1.0
    flag: bool = False
    word: Literal["one", "two"] = "one"
    path: Path | None = None
    pair: tuple[int, int] = (1, 2)
    names: frozenset[str] = frozenset({"a"})
    table: np.ndarray | None = None
    documented: str = vwkit.Field(default="x", doc="What it is for.")
    inner: vwkit.Nested[vwkit.Index] | None = None
    either: vwkit.Nested[vwkit.Index | vwkit.Clusterer] | None = None

    def _transform(self, vectors):
        return vectors


class TestDecorator:
    def test_the_same_class_comes_back(self):
        class Mine(vwkit.Index):
            """Mine."""

        assert vwkit.backend("mine")(Mine) is Mine
        assert (Mine.role, Mine.name, Mine.__doc__) == ("index", "mine", "Mine.")
        assert not hasattr(Mine, "__slots__") or Mine.__slots__ == ()
        assert ("index", "mine") not in registry().entries

    def test_objects_are_plain(self):
        one, two = Many(needed=1), Many(needed=1)
        assert one != two
        assert one == one
        assert len({one, two}) == 2
        one.anything = 3
        one.needed = 4
        assert one.needed == 4

    def test_fields_are_collected_from_undecorated_bases_too(self):
        parameters = Many.parameters()
        assert list(parameters)[:2] == ["shared", "changed"]
        assert parameters["changed"].default == 2
        assert Many(needed=1).changed == 2
        assert "_hidden" not in parameters
        assert "constant" not in parameters
        assert Many(needed=1)._hidden == 7

    def test_what_a_parameter_knows(self):
        parameters = Many.parameters()
        assert parameters["needed"].required
        assert not parameters["share"].required
        assert parameters["documented"].doc == "What it is for."
        assert parameters["documented"].default == "x"
        assert parameters["speed"].late
        assert not parameters["share"].late
        assert parameters["inner"].nested == ("index",)
        assert parameters["either"].nested == ("index", "clusterer")
        assert parameters["path"].is_path
        assert not parameters["inner"].is_path

    def test_a_subclass_of_a_backend_is_another_backend(self):
        @vwkit.backend("base-more")
        class More(Many):
            """More."""

            share = 0.25
            extra: int = 1

        assert More(needed=1, extra=5, speed=2).share == 0.25
        assert Many(needed=1).share == 0.5
        assert (Many.name, More.name) == ("base-many", "base-more")
        with pytest.raises(vwkit.ParameterError, match=r"base-many\.extra"):
            Many(needed=1, extra=5)

    def test_roles_add_their_fields(self):
        @vwkit.backend("base-clusterer")
        class Clusterer(vwkit.Clusterer):
            """C."""

        @vwkit.backend("base-index")
        class Index(vwkit.Index):
            """I."""

            metrics = frozenset({"cosine", "hamming"})

        assert list(Clusterer.parameters()) == ["seed"]
        assert Clusterer().seed == 0
        assert Index().metric == "cosine"
        assert Index(metric="hamming").metric == "hamming"

    @pytest.mark.parametrize(
        "ability", ["exact", "dtypes", "streams", "late", "supports_add", "metrics", "name", "role"]
    )
    def test_an_annotated_ability_is_refused(self, ability):
        cls = type("Wrong", (vwkit.Index,), {"__annotations__": {ability: bool}, ability: True})
        with pytest.raises(
            TypeError, match=f"Wrong.{ability}: an ability is a plain class attribute"
        ):
            vwkit.backend("wrong")(cls)

    @pytest.mark.parametrize("wrong", [object, int, vwkit.Backend, 3, lambda: None])
    def test_only_roles_are_decorated(self, wrong):
        with pytest.raises(TypeError, match="derive it from a role"):
            vwkit.backend("wrong")(wrong)

    def test_every_ability_is_guarded(self):
        from vwkit.parameters import ABILITIES

        roles = (vwkit.Index, vwkit.Clusterer, vwkit.Quantizer, vwkit.Transform, vwkit.Featurizer)
        fields = {"metric", "seed", "centers", "labels", "objective", "codebook"}
        for role in (vwkit.Backend, *roles):
            public = {name for name in role.__annotations__ if not name.startswith("_")}
            assert public - fields <= ABILITIES

    def test_a_mutable_default_is_not_shared(self):
        @vwkit.backend("base-list")
        class Listing(vwkit.Transform):
            """L."""

            items: tuple[str, ...] = ()

        assert Listing(items=["a", "b"]).items == ("a", "b")
        assert Listing().items == ()

    def test_editors_see_the_parameters(self):
        assert dataclasses.is_dataclass(Many)
        signature = inspect.signature(Many)
        assert set(signature.parameters) == {one.attribute for one in Many.parameters().values()}
        assert {one.kind for one in signature.parameters.values()} == {
            inspect.Parameter.KEYWORD_ONLY
        }


class TestValues:
    @pytest.mark.parametrize(
        ("params", "name", "value"),
        [
            ({"needed": np.int64(3)}, "needed", 3),
            ({"needed": 3, "factor": np.float32(0.5)}, "factor", 0.5),
            ({"needed": 3, "factor": 2}, "factor", 2),
            ({"needed": 3, "flag": np.True_}, "flag", True),
            ({"needed": 3, "path": "a/b"}, "path", Path("a/b")),
            ({"needed": 3, "pair": [3, 4]}, "pair", (3, 4)),
            ({"needed": 3, "names": ["b", "a"]}, "names", frozenset("ab")),
        ],
    )
    def test_what_a_spec_or_numpy_writes_is_taken(self, params, name, value):
        found = getattr(Many(**params), name)
        assert found == value
        assert not isinstance(found, np.generic)

    @pytest.mark.parametrize(
        ("params", "message"),
        [
            ({}, r"base-many\.needed: base-many needs it"),
            ({"needed": "3"}, r"needed: must be a valid integer; got '3'"),
            ({"needed": True}, r"needed: must be a valid integer; got True"),
            ({"needed": 1.5}, r"needed: must be a valid integer.*got 1.5"),
            ({"needed": None}, r"needed: must be a valid integer"),
            ({"needed": 1, "speed": 0}, r"speed: must be greater than 0; got 0"),
            ({"needed": 1, "share": 1.5}, r"share: must be less than or equal to 1; got 1.5"),
            ({"needed": 1, "share": float("nan")}, r"share"),
            ({"needed": 1, "word": "three"}, r"word: must be 'one' or 'two'; got 'three'"),
            ({"needed": 1, "flag": 1}, r"flag: must be a valid boolean"),
            ({"needed": 1, "path": 5}, r"path"),
            (
                {"needed": 1, "sped": 5},
                r"sped: base-many has no such parameter; did you mean speed\?",
            ),
            ({"needed": 1, "Speed": 5}, r"did you mean speed\?"),
            ({"needed": 1, "zzz": 5}, r"zzz: .*it has shared, changed, needed"),
            (
                {"needed": 1, "inner": {"use": "exct"}},
                r"inner: no index is named 'exct'; did you mean exact",
            ),
            (
                {"needed": 1, "inner": {"use": "exact", "metrc": "l2"}},
                r"inner\.metrc: .*did you mean metric",
            ),
            (
                {"needed": 1, "inner": {"use": "exact", "metric": "l3"}},
                r"inner\.metric: must be .*got 'l3'",
            ),
            ({"needed": 1, "inner": {"metric": "l2"}}, r"inner: needs use: the name of an index"),
            ({"needed": 1, "inner": {"use": 3}}, r"inner: needs use"),
            ({"needed": 1, "inner": 3}, r"inner: got 3; an index is needed"),
            (
                {"needed": 1, "inner": {"use": "lloyd", "k": 2}},
                r"inner: no index is named 'lloyd'; lloyd is a clusterer",
            ),
            ({"needed": 1, "inner": "no/such/folder"}, r"inner: no/such/folder: no such folder"),
        ],
    )
    def test_wrong_ones(self, params, message):
        with pytest.raises(vwkit.ParameterError, match=message) as caught:
            Many(**params)
        assert "\n" not in str(caught.value)
        assert caught.value.problems
        assert caught.value.exit_status == 2
        assert isinstance(caught.value, ValueError)

    def test_all_problems_at_once_and_where(self):
        with pytest.raises(vwkit.ParameterError) as caught:
            Many(sped=1, share=7, either={"use": "lloyd", "assign": {"use": "exact", "x": 1}})
        assert {problem.path for problem in caught.value.problems} == {
            ("needed",),
            ("sped",),
            ("share",),
            ("either", "k"),
            ("either", "assign", "x"),
        }

    def test_a_backends_own_checks_read_like_all_others(self):
        @vwkit.backend("base-own")
        class Own(vwkit.Transform):
            """O."""

            low: int = 0
            high: int = 1

            def __post_init__(self):
                if self.low == 7:
                    raise vwkit.ParameterError("low and high do not fit")
                if self.low > self.high:
                    raise vwkit.ParameterError.of(
                        "low", f"at most high, {self.high}; got {self.low}"
                    )

        with pytest.raises(vwkit.ParameterError) as caught:
            Own(low=5)
        assert str(caught.value) == "base-own.low: at most high, 1; got 5"
        assert caught.value.problems == (Problem(("low",), "at most high, 1; got 5"),)
        with pytest.raises(vwkit.ParameterError) as caught:
            Own(low=7)
        assert str(caught.value) == "low and high do not fit"

    def test_nested_ones_in_every_form(self, tmp_path):
        index = vwkit.create("index", "exact").build(ROWS)
        index.save(tmp_path / "saved")
        assert Many(needed=1, inner=index).inner is index
        assert Many(needed=1, inner={"use": "exact", "metric": "cosine"}).inner.metric == "cosine"
        for path in (tmp_path / "saved", str(tmp_path / "saved")):
            assert len(Many(needed=1, inner=path).inner) == 30
        given = {"use": "lloyd", "k": 3}
        assert Many(needed=1, either=given).either.k == 3
        assert given == {"use": "lloyd", "k": 3}
        with pytest.raises(vwkit.ParameterError, match=r"inner: lloyd is a clusterer; an index is"):
            Many(needed=1, inner=vwkit.create("clusterer", "lloyd", k=2))

    def test_params_are_plain_and_make_the_same_again(self):
        one = Many(
            needed=1,
            path=Path("a"),
            names={"b", "a"},
            pair=(5, 6),
            inner={"use": "exact"},
            table=np.eye(2, dtype=np.float32),
        )
        params = one.params()
        assert params["names"] == ["a", "b"]
        assert params["inner"] == {"use": "exact", "metric": "l2"}
        assert params["table"] == [[1.0, 0.0], [0.0, 1.0]]
        assert params["speed"] == 5
        assert Many(**params).params() == params
        assert "speed" not in one.params(late=False)

    def test_the_shape_of_an_object_in_one_line(self):
        assert repr(Many(needed=3)) == "Many(needed=3)"
        assert repr(Many(needed=3, share=0.25, table=np.zeros((9, 2)))) == (
            "Many(needed=3, share=0.25, table=array(9, 2))"
        )

    def test_roles_of(self):
        assert roles_of(vwkit.Index) == ("index",)
        assert roles_of(vwkit.Index | vwkit.Transform) == ("index", "transform")
        assert roles_of(int) == ()


class TestFitted:
    def test_parameters_of_a_fit_are_fixed_but_for_late_ones(self):
        lloyd = vwkit.create("clusterer", "lloyd", k=3)
        lloyd.k = 4
        lloyd.fit(ROWS)
        with pytest.raises(vwkit.ParameterError, match=r"lloyd\.k cannot change.*create"):
            lloyd.k = 5
        assert lloyd.k == 4

    @pytest.mark.parametrize(
        ("make", "calls"),
        [
            (lambda: vwkit.create("clusterer", "lloyd", k=2), ["predict"]),
            (lambda: vwkit.create("index", "exact"), ["search", "add"]),
            (lambda: vwkit.create("quantizer", "pq", m=2), ["encode", "decode"]),
            (
                lambda: vwkit.create("quantizer", "vocabulary", clusterer={"use": "lloyd", "k": 2}),
                ["encode"],
            ),
            (lambda: vwkit.create("transform", "pca"), ["transform"]),
        ],
    )
    def test_use_before_the_fit_says_what_to_call(self, make, calls, tmp_path):
        for call in calls:
            with pytest.raises(vwkit.NotFittedError, match=r"call (fit|build)\(\) first"):
                getattr(make(), call)(ROWS)
        with pytest.raises(vwkit.NotFittedError):
            make().save(tmp_path / "a")
        assert not (tmp_path / "a").exists()

    def test_a_failed_fit_is_no_fit(self):
        pca = vwkit.create("transform", "pca", dim=9)
        with pytest.raises(vwkit.ParameterError, match="at most the 4 dimensions"):
            pca.fit(ROWS)
        with pytest.raises(vwkit.NotFittedError):
            pca.transform(ROWS)


@vwkit.backend("base-state")
class State(vwkit.Transform):
    """Holds what the test gives it."""

    def _fit(self, vectors):
        self.mean = vectors.mean(axis=0)
        self.count = len(vectors)
        self._share = np.float32(0.5)
        self.history = [1.0, 2.5]
        self.flag = np.array(True)
        self.nothing = None

    def _transform(self, vectors):
        return vectors - self.mean


@vwkit.backend("base-native")
class Native(vwkit.Transform):
    """Has a library's own file."""

    def _fit(self, vectors):
        self._handle = lambda: float(vectors.sum())

    def _transform(self, vectors):
        return vectors + np.float32(self._handle())

    def _save(self, folder):
        (folder / "model.bin").write_text(repr(self._handle()))

    def _load(self, folder):
        value = float((folder / "model.bin").read_text())
        self._handle = lambda: value


@vwkit.backend("base-codes")
class Codes(vwkit.Clusterer):
    """Clusters codes: the first k of them."""

    consumes = "codes"
    k: vwkit.Positive = 2

    def _fit(self, data, weights):
        self.centers = data[: self.k]
        self.labels = self._predict(data)
        self.objective = [0.0]

    def _predict(self, data):
        same = (data[:, None] == self.centers[None]).sum(axis=2)
        return same.argmax(axis=1).astype(np.int32)


class TestSaving:
    def test_array_attributes_come_back(self, tmp_path):
        state = State().fit(ROWS)
        state.save(tmp_path / "a")
        with registered(State):
            again = vwkit.load(tmp_path / "a")
        assert np.array_equal(again.transform(ROWS), state.transform(ROWS))
        assert (again.count, again._share, again.flag) == (30, 0.5, True)
        assert list(again.history) == [1.0, 2.5]
        with pytest.raises(vwkit.ShapeError):
            again.transform(ROWS[:, :2])

    def test_native_files_come_back_and_are_checked_first(self, tmp_path):
        native = Native().fit(ROWS)
        native.save(tmp_path / "a")
        with registered(Native):
            again = vwkit.load(tmp_path / "a")
            assert np.array_equal(again.transform(ROWS), native.transform(ROWS))
            (path,) = (tmp_path / "a").glob("native-*/model.bin")
            path.write_text("0.0000000")
            with pytest.raises(vwkit.ArtifactError):
                vwkit.load(tmp_path / "a")

    def test_a_library_that_cannot_read_its_file(self, tmp_path, monkeypatch):
        Native().fit(ROWS).save(tmp_path / "a")

        def fail(self, folder):
            raise RuntimeError("not\nmine")

        monkeypatch.setattr(Native, "_load", fail)
        with (
            registered(Native),
            pytest.raises(vwkit.ArtifactError, match="base-native cannot read"),
        ):
            vwkit.load(tmp_path / "a")

    def test_what_cannot_be_saved_is_named(self, tmp_path):
        state = State().fit(ROWS)
        state.tree = {"a": 1}
        with pytest.raises(vwkit.UnsupportedError, match="attribute tree is a dict.*_state"):
            state.save(tmp_path / "a")
        assert not (tmp_path / "a").exists()

    def test_a_clusterer_of_codes_keeps_its_quantizer(self, tmp_path):
        pq = vwkit.create("quantizer", "pq", m=2, ks=4).fit(ROWS)
        codes = pq.encode(ROWS)
        clusterer = Codes().fit(codes, quantizer=pq)
        assert clusterer.quantizer is pq
        clusterer.save(tmp_path / "a")
        vocabulary = vwkit.create("quantizer", "vocabulary", clusterer=clusterer)
        vocabulary.save(tmp_path / "v")
        with registered(Codes):
            again = vwkit.load(tmp_path / "a")
            words = vwkit.load(tmp_path / "v")
        assert np.array_equal(again.quantizer.codebook, pq.codebook)
        assert np.array_equal(again.predict(codes), clusterer.labels)
        assert np.array_equal(words.encode(ROWS)[:, 0], clusterer.labels)
        assert np.array_equal(words.codebook[0], pq.decode(clusterer.centers))

    def test_codes_need_a_fitted_product_quantizer(self):
        pq = vwkit.create("quantizer", "pq", m=2, ks=4)
        codes = np.zeros((5, 2), np.uint8)
        with pytest.raises(vwkit.UnsupportedError, match="pass the quantizer"):
            Codes().fit(codes)
        with pytest.raises(vwkit.NotFittedError):
            Codes().fit(codes, quantizer=pq)
        with pytest.raises(vwkit.UnsupportedError, match="takes no quantizer"):
            vwkit.create("clusterer", "lloyd", k=1).fit(ROWS, quantizer=pq)
        fitted = pq.fit(ROWS)
        additive = copy.copy(fitted)
        additive.structure = "additive"
        with pytest.raises(vwkit.UnsupportedError, match="additive"):
            Codes().fit(codes, quantizer=additive)

    def test_loading_what_is_not_installed(self, tmp_path):
        State().fit(ROWS).save(tmp_path / "a")
        with pytest.raises(vwkit.UnknownNameError, match="base-state"):
            vwkit.load(tmp_path / "a")

    def test_saved_parameters_that_no_longer_fit(self, tmp_path):
        @vwkit.backend("base-state")
        class Newer(vwkit.Transform):
            """Renamed its parameter."""

            needed: int

        State().fit(ROWS).save(tmp_path / "a")
        with (
            registered(Newer),
            pytest.raises(vwkit.ArtifactError, match="saved parameters do not fit"),
        ):
            vwkit.load(tmp_path / "a")

    def test_no_pickle_anywhere(self, tmp_path, monkeypatch):
        def refuse(*args, **kwargs):
            raise AssertionError("pickle was used")

        for name in ("dump", "dumps", "load", "loads"):
            monkeypatch.setattr(pickle, name, refuse)
        vwkit.create("index", "exact").build(ROWS).save(tmp_path / "a")
        vwkit.load(tmp_path / "a")


class TestContract:
    """A backend that breaks its promise is told so, not believed."""

    @pytest.mark.parametrize(
        "labels",
        [None, [0] * 30, np.zeros(29, np.int32), np.zeros(30), np.zeros((30, 1), np.int32)],
    )
    def test_labels_of_a_clusterer(self, labels):
        @vwkit.backend("base-labels")
        class Wrong(vwkit.Clusterer):
            """W."""

            def _fit(self, data, weights):
                self.centers, self.objective = data[:1], [0.0]
                if labels is not None:
                    self.labels = labels

        with pytest.raises(vwkit.BackendError, match=r"base-labels\._fit must set labels"):
            Wrong().fit(ROWS)

    def test_codes_and_rows(self):
        @vwkit.backend("base-wrong-codes")
        class WrongCodes(vwkit.Quantizer):
            """W."""

            def _fit(self, vectors):
                self.codebook = np.zeros((2, 4, 2), np.float32)

            def _encode(self, vectors):
                return np.zeros((len(vectors), 2), np.int64)

        with pytest.raises(vwkit.BackendError, match=r"_encode must return codes.*uint8"):
            WrongCodes().fit(ROWS).encode(ROWS)

        @vwkit.backend("base-wrong-rows")
        class WrongRows(vwkit.Transform):
            """W."""

            def _transform(self, vectors):
                return vectors[:-1]

        with pytest.raises(vwkit.BackendError, match="one row per row"):
            WrongRows().transform(ROWS)
        with pytest.raises(vwkit.BackendError, match="one row per row"):
            list(WrongRows().transform(vwkit.Stream.from_array(ROWS)))

    @pytest.mark.parametrize(
        "answer",
        [
            lambda n: None,
            lambda n: [],
            lambda n: [3] * n,
            lambda n: [vwkit.Features(np.zeros((2, 2), np.float32))] * n,
            lambda n: [vwkit.Features(np.zeros((1, 3), np.float32))] * n,
            lambda n: [vwkit.Features([[1.0, 2.0]])] * n,
            lambda n: [vwkit.Features(np.full((1, 2), np.nan, np.float32))] * n,
            lambda n: [vwkit.Features(np.zeros((1, 2)), np.zeros((1, 4), np.float32))] * n,
        ],
    )
    def test_features(self, answer):
        @vwkit.backend("base-wrong-features")
        class Wrong(vwkit.Featurizer):
            """W."""

            dim = 2

            def _extract(self, images):
                return answer(len(images))

        with pytest.raises(vwkit.BackendError, match=r"base-wrong-features\._extract"):
            list(Wrong().extract([np.zeros((2, 2), np.uint8)]))

    def test_what_is_not_written_is_named(self):
        @vwkit.backend("base-nothing")
        class Nothing(vwkit.Index):
            """N."""

        with pytest.raises(NotImplementedError, match="Nothing must define _build"):
            Nothing().build(ROWS)


class TestFeaturizing:
    IMAGES: ClassVar = [np.full((2, 3), value, np.uint8) for value in range(20)]

    @vwkit.backend("base-mean")
    class Mean(vwkit.Featurizer):
        """The mean of an image."""

        dim = 1
        batch_size = 4

        def _extract(self, images):
            self._batches = [*getattr(self, "_batches", []), len(images)]
            return [
                vwkit.Features(image.gray.mean(keepdims=True, dtype=np.float32)) for image in images
            ]

    @pytest.mark.parametrize("threads", [1, 3])
    def test_in_order_in_batches(self, threads):
        mean = self.Mean()
        with vwkit.use_job(vwkit.Job(threads=threads)):
            found = [float(vectors[0, 0]) for vectors in mean.extract(iter(self.IMAGES))]
        assert found == list(range(20))
        assert mean._batches == [4] * 5

    def test_unreadable_ones_end_it_or_are_skipped(self, tmp_path):
        (tmp_path / "bad.png").write_bytes(b"no")
        images = [*self.IMAGES[:5], tmp_path / "bad.png", *self.IMAGES[5:7]]
        found = list(self.Mean().features(images, on_error="skip"))
        assert [type(one).__name__ for one in found] == ["Features"] * 5 + ["Skipped"] + [
            "Features"
        ] * 2
        assert "bad.png" in found[5].reason
        assert found[0].size == (3, 2)
        seen = []
        with pytest.raises(vwkit.ImageError, match=r"bad\.png"):
            for vectors in self.Mean().extract(images):
                seen.append(vectors)  # noqa: PERF402
        assert len(seen) == 5

    @pytest.mark.parametrize("images", [None, 3, "a.png", Path("a.png"), IMAGES[0]])
    def test_one_image_is_no_list(self, images):
        with pytest.raises(vwkit.DataError, match="a list of images is needed"):
            list(self.Mean().extract(images))

    def test_wrong_calls(self):
        with pytest.raises(vwkit.ParameterError, match="on_error must be 'raise' or 'skip'"):
            self.Mean().features([], on_error="ignore")
        with pytest.raises(vwkit.UnsupportedError, match="nothing to learn"):
            self.Mean().fit(self.IMAGES)
        with pytest.raises(vwkit.UnsupportedError, match=r"call read\(path\)"):
            vwkit.create("featurizer", "fvecs").extract([]).__next__()
        assert list(self.Mean().extract([])) == []


def test_a_name_for_type_checkers_hides_no_other_type():
    @vwkit.backend("connected")
    class Connected(vwkit.Transform):
        patience: vwkit.Positive = 3
        _connection: Connection | None = None

    assert Connected.parameters()["patience"].annotation == vwkit.Positive
    with pytest.raises(vwkit.ParameterError, match="patience"):
        Connected(patience=0)
