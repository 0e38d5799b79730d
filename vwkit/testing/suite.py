"""What the suites of all roles share: the rules of subclassing, and the common tests.

A test of the suite takes no pytest fixture, and everything random in it is derandomised, so that a
backend passes or fails the same way everywhere.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import inspect
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import vwkit
from vwkit.base import Backend
from vwkit.errors import (
    DataError,
    NotFittedError,
    ParameterError,
    PluginWarning,
    ShapeError,
    UnsupportedError,
)
from vwkit.jobs import Job, use_job
from vwkit.plugins import registered, registry, unavailable
from vwkit.testing.data import DEFAULTS, cut, layouts, numbers
from vwkit.types import Array

__all__ = ["Suite", "VectorSuite", "examples"]

Answer = tuple[Any, ...]

# Importing a plugin must not load these: `vwkit backends` imports every plugin that is installed.
_HEAVY = frozenset(
    {
        "annoy", "cv2", "dask", "distributed", "faiss", "h5py", "hnswlib", "matplotlib", "numba",
        "onnxruntime", "pandas", "plotly", "pqkmeans", "pyarrow", "pyflann", "pyflann_ibeis",
        "pynndescent", "scipy", "skimage", "sklearn", "tensorflow", "torch", "umap", "usearch",
    }
)  # fmt: skip

_LIGHT_IMPORT = """
import importlib, importlib.util, json, sys
sys.path[:] = json.loads(sys.argv[1])
try:
    found = importlib.util.find_spec(sys.argv[2])
except (ImportError, ValueError):
    found = None
if found is not None:
    importlib.import_module(sys.argv[2])
print()
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules}) if found else None))
"""


def examples(count: int = 12, **strategies: st.SearchStrategy[Any]) -> Callable[[Any], Any]:
    """Run a test on `count` generated examples, the same ones every time."""
    fixed = settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        # Examples are small; making a failing one smaller could take minutes with a slow library.
        phases=(Phase.explicit, Phase.generate),
        # Methods are inherited by many classes, and some libraries take long to start.
        suppress_health_check=list(HealthCheck),
    )

    def decorate(test: Any) -> Any:
        return fixed(given(**strategies)(test))

    return decorate


class Suite:
    """Base of the suites of all roles.

    Attributes
    ----------
    backend : class
        The class under test. It need not be installed.
    params : dict
        Its parameters in every test, unless a test is about one of them.
    expected_failures : dict of str to str
        Tests that it is known to fail, and why: each becomes a strict xfail. Overriding a test is
        refused.
    """

    role: ClassVar[type[Backend]]
    backend: ClassVar[type[Any]]
    params: ClassVar[Mapping[str, Any]] = {}
    expected_failures: ClassVar[Mapping[str, str]] = {}

    #: The tests as they must stay, by name; filled in for the classes of this package.
    _suite_tests: ClassVar[dict[str, Any]] = {}
    #: What to call first: fit or build.
    _first_call: ClassVar[str] = "fit"

    def __init_subclass__(cls, suite: bool = False, **options: Any) -> None:
        super().__init_subclass__(**options)
        if suite:
            names = [name for name in dir(cls) if name.startswith("test_")]
            cls._suite_tests = {name: inspect.getattr_static(cls, name) for name in names}
            return
        _check_class(cls)

    @pytest.fixture(autouse=True)
    def _known_by_name(self, request: pytest.FixtureRequest) -> Iterator[None]:
        """Register the class under test while the test runs; make expected failures strict."""
        if not hasattr(self, "backend"):
            pytest.fail(f"{type(self).__name__} needs `backend = ` the class to test")
        reason = self.expected_failures.get(getattr(request.node, "originalname", ""))
        if reason is not None:
            request.node.add_marker(pytest.mark.xfail(reason=reason, strict=True))
        missing = unavailable(self.backend)
        if missing:
            pytest.skip(missing)
        with warnings.catch_warnings():
            # Somebody else's broken plugin is not this backend's fault.
            warnings.simplefilter("ignore", PluginWarning)
            registry()
        with registered(self.backend):
            yield

    # What the tests are made of

    def _defaults(self) -> dict[str, Any]:
        """Return values for parameters that must be given; the author's `params` win."""
        given = DEFAULTS.get(self.backend.role, {})
        return {name: value for name, value in given.items() if self._offers(name)}

    def _make(self, **changes: Any) -> Any:
        """Return a new backend with the author's parameters, some of them changed."""
        params = {**self._defaults(), **_fresh(self.params), **changes}
        return vwkit.create(self.backend.role, self.backend.name, **params)

    def _offers(self, parameter: str) -> bool:
        return parameter in self.backend.parameters()

    @abstractmethod
    def _ready(self, **changes: Any) -> Any:
        """Return a backend that is fitted, on data that are always the same."""

    def _verify_ready(self, fitted: Any) -> None:
        """Check what `_ready` returned against the reference."""

    @abstractmethod
    def _answer(self, fitted: Any) -> Answer:
        """Return what a fitted backend says to questions that are always the same."""

    @abstractmethod
    def _assert_same(self, first: Answer, second: Answer, exact: bool, why: str) -> None:
        """Compare two answers: byte by byte, or as floating-point numbers."""

    @contextlib.contextmanager
    def _saved(self, backend: Any) -> Iterator[Any]:
        """Save and load again, with pickle switched off."""
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "saved"
            with _no_pickle():
                backend.save(place)
                loaded = vwkit.load(place)
            yield loaded

    # Tests of the class and its parameters

    def test_import_is_light(self) -> None:
        """Importing the backend's module loads no heavy library.

        If this fails, check for ``import`` lines at the top of the module (or of modules that it
        imports): move them into the methods that need them, and name the modules in ``requires``.
        """
        module = self.backend.__module__
        if module == type(self).__module__ or module == "__main__":
            pytest.skip("the backend is defined in the test module itself")
        loaded = _modules_after_import(module)
        if loaded is None:
            pytest.skip(f"{module} cannot be imported by its name in a new process")
        unwanted = _HEAVY | {name.partition(".")[0] for name in self.backend.requires}
        heavy = sorted(unwanted & loaded)
        assert not heavy, f"importing {module} also imports {', '.join(heavy)}"

    def test_has_a_docstring(self) -> None:
        """The class says what it does; ``vwkit backends`` and the docs show it.

        If this fails, check that the docstring stands directly below the ``class`` line.
        """
        assert (self.backend.__doc__ or "").strip(), f"{self.backend.__name__} has no docstring"

    def test_abilities_are_well_formed(self) -> None:
        """Class attributes that declare abilities hold what the core expects of them.

        If this fails, check the attribute that the message names.
        """
        cls, made = self.backend, self._make()
        assert not isinstance(made.dtypes, str), "dtypes is a tuple such as ('float32',)"
        assert len(made.dtypes) > 0, "dtypes names at least one dtype"
        for name in made.dtypes:
            assert np.dtype(name).name == name, f"dtypes: {name!r} is not a dtype's plain name"
        assert isinstance(cls.late, (set, frozenset)), "late is a frozenset of parameters"
        unknown = sorted(cls.late - set(cls.parameters()))
        assert not unknown, f"late names {', '.join(unknown)}, which is no parameter"
        assert not isinstance(cls.requires, str), "requires is a tuple of modules"
        assert isinstance(cls.revision, int), "revision is a whole number"
        assert cls.revision >= 1, "revision counts from 1"
        assert isinstance(made.deterministic, bool), "deterministic is True or False"
        assert isinstance(made.streams, bool), "streams is True or False"

    def test_parameters_round_trip(self) -> None:
        """Parameters become JSON and come back as they were.

        If this fails, check ``__post_init__``: it must not change a parameter.
        """
        made = self._make()
        params = made.params()
        text = json.dumps(params)
        again = vwkit.create(made.role, made.name, **json.loads(text))
        assert type(again) is type(made)
        assert again.params() == params
        assert set(made.params(late=False)) == set(params) - made.late

    def test_unknown_parameter_is_refused(self) -> None:
        """A parameter that there is not is an error that names it.

        If this fails, check for a constructor of your own; the decorator writes it.
        """
        with pytest.raises(ParameterError, match="no_such_parameter"):
            self._make(no_such_parameter=1)

    # Tests of what every fitted backend does

    def test_unfitted_use_is_refused(self) -> None:
        """Using a backend too early raises `NotFittedError`, which says what to call.

        If this fails, check that the public method is the inherited one.
        """
        made = self._make()
        if not made._needs_fit():
            self._answer(made)
            return
        if made._fitted:
            pytest.skip("its parameters make it fitted from the beginning")
        with pytest.raises(NotFittedError, match=self._first_call):
            self._answer(made)
        with tempfile.TemporaryDirectory() as folder, pytest.raises(NotFittedError):
            made.save(Path(folder) / "saved")

    def test_save_and_load(self) -> None:
        """A saved and loaded backend answers as before; no file of it is a pickle.

        If this fails, check that ``_state`` (or ``_save``) holds everything that was fitted, that
        ``_restore`` (or ``_load``) puts all of it back, and that no state lives in a global.
        """
        fitted = self._ready()
        before = self._answer(fitted)
        with tempfile.TemporaryDirectory() as folder:
            place, other = Path(folder) / "saved", Path(folder) / "again"
            with _no_pickle():
                fitted.save(place)
                loaded = vwkit.load(place)
            assert type(loaded) is type(fitted)
            files = {name for name, one in fitted.parameters().items() if one.is_path}
            kept, found = (
                # A file that is kept with what is saved has a new place.
                {name: value for name, value in one.params().items() if name not in files}
                for one in (fitted, loaded)
            )
            assert found == kept, "parameters changed by saving"
            self._assert_same(before, self._answer(loaded), fitted.deterministic, "after loading")
            self._verify_ready(loaded)
            self._assert_same(before, self._answer(fitted), fitted.deterministic, "after saving")
            pickles = _pickles(place)
            assert not pickles, f"saved as a pickle, which may run code: {', '.join(pickles)}"
            with _no_pickle():
                loaded.save(other)
                twice = vwkit.load(other)
            self._assert_same(before, self._answer(twice), fitted.deterministic, "saved twice")

    def test_saved_files_are_reproducible(self) -> None:
        """Saving the same thing twice gives the same files: no time, no path, no random name.

        If this fails, check what ``_save`` writes besides the fitted state.
        """
        fitted = self._ready()
        with tempfile.TemporaryDirectory() as folder:
            fitted.save(Path(folder) / "one")
            fitted.save(Path(folder) / "two")
            one, two = (_manifest(Path(folder) / name) for name in ("one", "two"))
        assert one == two, "two saves of the same backend differ"

    def test_late_parameters(self) -> None:
        """Late parameters may be set on a fitted and on a loaded backend, others may not.

        If this fails, check that ``late`` names only fields that are read when they are used, not
        when the backend is fitted.
        """
        fitted = self._ready()
        before = self._answer(fitted)
        with self._saved(fitted) as loaded:
            for name in sorted(fitted.late):
                value = getattr(loaded, name)
                setattr(loaded, name, value)
                assert getattr(loaded, name) == value
            answer = self._answer(loaded)
        self._assert_same(before, answer, fitted.deterministic, "after setting late parameters")
        for name, parameter in fitted.parameters().items():
            if name not in fitted.late and not parameter.nested and fitted._needs_fit():
                with pytest.raises(ParameterError, match="cannot change"):
                    setattr(fitted, parameter.attribute, getattr(fitted, parameter.attribute))

    def test_same_seed_same_answer(self) -> None:
        """The same seed and data give the same answer again, on one thread at the least.

        If this fails, check that every random number comes from a generator seeded with
        ``self.seed``, and that a wrapped library is given that seed too.
        """
        seeded = self._offers("seed")
        if not seeded and not self._make().deterministic:
            pytest.skip("it has no seed and does not declare that it is deterministic")
        with use_job(Job(threads=1)):
            first, second = self._trial(), self._trial()
        exact = self._make(**self._on_one_thread()).deterministic
        self._assert_same(first, second, exact, "with the same seed")

    def _on_one_thread(self) -> dict[str, Any]:
        """Return the change of parameters that makes a library use one thread."""
        return {"threads": 1} if self._offers("threads") else {}

    def _trial(self) -> Answer:
        """Fit anew, on one thread, and return what shows whether a seed was heeded."""
        return self._answer(self._ready(**self._on_one_thread()))

    def test_same_bytes_with_any_threads(self) -> None:
        """What declares `deterministic` gives the same bytes on one thread and on two.

        If this fails, check the order in which partial sums are added, or do not declare it.
        """
        if not self._make().deterministic:
            pytest.skip("it does not declare that it is deterministic")
        found = []
        for threads in (1, 2):
            with use_job(Job(threads=threads)), tempfile.TemporaryDirectory() as folder:
                fitted = self._ready()
                fitted.save(Path(folder) / "saved")
                found.append((self._answer(fitted), _manifest(Path(folder) / "saved")))
        self._assert_same(found[0][0], found[1][0], True, "on 1 and 2 threads")
        assert found[0][1] == found[1][1], "the saved files differ between 1 and 2 threads"

    def test_global_random_state_is_left_alone(self) -> None:
        """Neither NumPy's nor Python's global generator is seeded or drawn from.

        If this fails, check for ``np.random.seed``, ``np.random.rand`` and their like: use
        ``np.random.default_rng(self.seed)``.
        """
        numpy_before, python_before = _global_state(), random.getstate()
        fitted = self._ready()
        self._answer(fitted)
        with self._saved(fitted) as loaded:
            self._answer(loaded)
        assert _global_state() == numpy_before, "NumPy's global random state was changed"
        assert random.getstate() == python_before, "Python's global random state was changed"

    def test_prints_nothing(self) -> None:
        """Nothing is written to stdout or stderr.

        If this fails, check for ``print``, and for the verbosity of a wrapped library.
        """
        with _captured() as written:
            fitted = self._ready()
            self._answer(fitted)
        text = written()
        assert not text, f"it printed {text[:200]!r}"


class VectorSuite(Suite, suite=True):
    """Tests of the roles that take rows of numbers."""

    #: Every dimension in the tests is a multiple of this; raise it for parameters that need it.
    dim_step: ClassVar[int] = 1
    #: Rows that these parameters need to be fitted.
    min_rows: ClassVar[int] = 1

    # What the tests are made of

    def _dim(self, about: int = 6) -> int:
        return max(1, about // self._step()) * self._step()

    def _step(self) -> int:
        return self.dim_step

    def _count(self, about: int = 60) -> int:
        return max(about, self.min_rows)

    def _rows(self, seed: int = 0, rows: int | None = None, dim: int | None = None) -> Array:
        """Return rows that suit the backend: floats where it takes them, else whole numbers."""
        kind = "normal" if _takes_floats(self._make()) else "bytes"
        return numbers(seed, rows or self._count(), dim or self._dim(), kind)

    @abstractmethod
    def _fit(self, backend: Any, data: Any) -> Any:
        """Fit or build on data, and return the backend."""

    @abstractmethod
    def _use(self, fitted: Any, data: Any) -> Answer:
        """Ask a fitted backend about new rows."""

    @abstractmethod
    def _verify(self, fitted: Any, data: Array) -> None:
        """Check a fitted backend against the reference; `data` are what it was fitted on."""

    def _usable(self, fitted: Any) -> bool:
        """Tell whether it can be asked about new rows."""
        return True

    def _ready(self, **changes: Any) -> Any:
        return self._fit(self._make(**changes), self._rows(1))

    def _verify_ready(self, fitted: Any) -> None:
        self._verify(fitted, self._rows(1))

    def _answer(self, fitted: Any) -> Answer:
        return self._use(fitted, self._rows(2, rows=9))

    # Tests

    def test_inputs_are_left_alone(self) -> None:
        """Arrays that are handed in are the same afterwards.

        If this fails, check for operators such as ``*=`` and ``out=`` on an argument, and for a
        wrapped library that normalises in place: an array that fits is handed on without a copy.
        """
        data, asked = self._rows(1), self._rows(2, rows=9)
        kept_data, kept_asked = data.copy(), asked.copy()
        fitted = self._fit(self._make(), data)
        assert np.array_equal(data, kept_data), "the data were changed by fitting"
        for _ in range(2):
            self._use(fitted, asked)
            assert np.array_equal(asked, kept_asked), "the rows asked about were changed"
            assert np.array_equal(data, kept_data), "the data were changed after fitting"

    def test_read_only_arrays_are_accepted(self) -> None:
        """Arrays that cannot be written to, such as memory maps, give the same answer.

        If this fails, check for a compiled function that insists on writable arrays.
        """
        data, asked = self._rows(1), self._rows(2, rows=9)
        fitted = self._fit(self._make(), data.copy())
        expected = self._use(fitted, asked.copy())
        data.flags.writeable = asked.flags.writeable = False
        other = self._fit(self._make(), data)
        self._verify(other, data)
        found = self._use(fitted, asked)
        self._assert_same(expected, found, fitted.deterministic, "for a read-only array")

    def test_dtypes_and_layouts(self) -> None:
        """float64, uint8, Fortran order and strides make no difference.

        If this fails, check ``dtypes``: it names only what the underscored methods really take.
        """
        tables = [self._rows(1)]
        if not self._domain_is_codes():
            tables.append(numbers(1, self._count(), self._dim(), "bytes"))
        for data in tables:
            for name, variant in layouts(data):
                fitted = self._fit(self._make(), variant)
                self._verify(fitted, data)
                if self._usable(fitted):
                    self._assert_same(
                        self._use(fitted, data),
                        self._use(fitted, variant),
                        fitted.deterministic and name != "uint8",
                        f"for a {name} array",
                    )

    def _domain_is_codes(self) -> bool:
        return False

    def test_streams(self) -> None:
        """A Stream gives what the array gives, however it is cut and counted.

        If this fails, check that the last, shorter chunk is used, that a Stream is read afresh in
        every pass, and that partial results do not depend on where chunks end.
        """
        data, change = self._rows(1), self._on_one_thread()
        with use_job(Job(threads=1)):
            answer = self._answer(self._fit(self._make(**change), data))
            for sizes, known in (([1000], True), ([7], False), ([1, 16, 3], True)):
                fitted = self._fit(self._make(**change), cut(data, sizes, known))
                self._verify(fitted, data)
                why = f"for chunks of {sizes} rows"
                self._assert_same(answer, self._answer(fitted), fitted.deterministic, why)

    def test_second_fit_replaces_the_first(self) -> None:
        """Fitting again forgets the first data, of another size and dimension.

        If this fails, check that nothing kept from the first fit is used in the second.
        """
        backend = self._make()
        first = self._rows(3, rows=self._count(70), dim=self._dim() + self._step())
        second = self._rows(1)
        assert self._fit(backend, first) is backend, "fit and build return the backend itself"
        self._answer_any(backend, first)
        self._fit(backend, second)
        self._verify(backend, second)
        if backend.deterministic:
            fresh = self._fit(self._make(), second)
            self._assert_same(self._answer(fresh), self._answer(backend), True, "fitted twice")

    def _answer_any(self, fitted: Any, data: Array) -> None:
        self._use(fitted, data[:5])

    def test_generator_is_refused(self) -> None:
        """A generator is refused, with the reason.

        If this fails, check that the public method is the inherited one.
        """
        with pytest.raises(DataError, match="once"):
            self._fit(self._make(), (row for row in self._rows(1)))

    def test_wrong_shape_is_refused(self) -> None:
        """A wrong shape is refused; the message names the shape given and the one needed.

        If this fails, check that the public method is the inherited one.
        """
        data = self._rows(1)
        with pytest.raises(ShapeError, match=r"\(n, d\).*\("):
            self._fit(self._make(), data[0])
        fitted = self._fit(self._make(), data)
        if not self._usable(fitted):
            return
        wide = np.hstack([data, data[:, :1]])
        for wrong in (wide, cut(wide, [5])):
            with pytest.raises(ShapeError) as caught:
                self._use(fitted, wrong)
            for needed in (f"{data.shape[1]}", f"{wide.shape[1]}"):
                assert needed in str(caught.value), f"{caught.value} does not name {needed}"
        with pytest.raises(ShapeError):
            self._use(fitted, data[0])

    def test_nan_is_refused(self) -> None:
        """NaN and infinity are refused; the message names the row.

        If this fails, check that the public method is the inherited one.
        """
        data = self._rows(1)
        fitted = self._fit(self._make(), data)
        for bad in (np.nan, np.inf):
            spoilt = data.astype(np.float64)
            spoilt[17, 0] = bad
            # What learns nothing does not look at a Stream before it is asked to transform it.
            ways = [spoilt, cut(spoilt, [10])] if self._make()._needs_fit() else [spoilt]
            for way in ways:
                with pytest.raises(DataError, match="row 17"):
                    self._fit(self._make(), way)
            if self._usable(fitted):
                with pytest.raises(DataError, match="row 17"):
                    self._use(fitted, spoilt)

    def test_no_rows_are_refused(self) -> None:
        """Fitting on no rows is an error, not a crash.

        If this fails, check that the public method is the inherited one.
        """
        with pytest.raises(DataError, match="0 rows"):
            self._fit(self._make(), self._rows(1)[:0])

    def test_sparse_is_refused_or_taken(self) -> None:
        """Sparse vectors raise `UnsupportedError` unless the class says ``supports_sparse``.

        If this fails, check that the public method is the inherited one.
        """
        if getattr(self._make(), "supports_sparse", False):
            return
        sparse = vwkit.Sparse.from_dense(self._rows(1).astype(np.float32))
        with pytest.raises(UnsupportedError, match=r"sparse|code"):
            self._fit(self._make(), sparse)


# The rules of subclassing ----------------------------------------------------------------------


def _check_class(cls: type[Suite]) -> None:
    for name, original in cls._suite_tests.items():
        if inspect.getattr_static(cls, name, None) is not original:
            raise TypeError(
                f"{cls.__name__}.{name} overrides a test of the conformance suite, which is "
                f"refused: a known failure is declared with a reason, as "
                f'expected_failures = {{"{name}": "reason"}}'
            )
    for name, reason in dict(cls.expected_failures).items():
        if name not in cls._suite_tests:
            known = ", ".join(sorted(cls._suite_tests))
            raise TypeError(
                f"{cls.__name__}.expected_failures names {name}, which is no test of the suite; "
                f"its tests: {known}"
            )
        if not isinstance(reason, str) or not reason.strip():
            raise TypeError(f"{cls.__name__}.expected_failures: {name} needs a reason")
    tested = cls.__dict__.get("backend")
    if tested is None:
        return  # a base for several classes of tests
    if not (
        isinstance(tested, type) and issubclass(tested, cls.role) and "name" in tested.__dict__
    ):
        raise TypeError(
            f"{cls.__name__}.backend: a class derived from vwkit.{cls.role.__name__} and decorated "
            f"with @vwkit.backend is needed; got {tested!r}"
        )


# Tools -----------------------------------------------------------------------------------------


def _fresh(params: Mapping[str, Any]) -> dict[str, Any]:
    """Copy parameters, so that no test sees a nested backend that another one has fitted."""
    found = {}
    for name, value in params.items():
        if isinstance(value, Backend):
            found[name] = value if value._fitted else {"use": value.name, **value.params()}
        else:
            found[name] = copy.deepcopy(value)
    return found


def _takes_floats(backend: Any) -> bool:
    return any(np.dtype(name).kind == "f" for name in backend.dtypes)


def _modules_after_import(module: str) -> set[str] | None:
    """Return the top-level modules of a new process that imported `module`, None if it cannot."""
    command = [sys.executable, "-c", _LIGHT_IMPORT, json.dumps(sys.path), module]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"importing {module} fails: {done.stderr[-2000:]}"
    found = json.loads(done.stdout.rstrip("\n").rpartition("\n")[2])
    return None if found is None else set(found)


@contextlib.contextmanager
def _no_pickle() -> Iterator[None]:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError(
            "pickle was used to save or load; write plain arrays (_state) or the library's own "
            "file (_save): a pickle runs code when it is opened"
        )

    with contextlib.ExitStack() as stack:
        for name in ("dump", "dumps", "load", "loads", "Pickler", "Unpickler"):
            stack.enter_context(mock.patch(f"pickle.{name}", refuse))
        yield


def _pickles(folder: Path) -> list[str]:
    """Return the files that are pickles: a protocol mark at the start, a stop mark at the end."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            if len(content) > 2 and content[0] == 0x80 and content[1] <= 5 and content[-1:] == b".":
                found.append(path.name)
    return found


def _manifest(folder: Path) -> str:
    return (folder / "manifest.json").read_text(encoding="utf-8")


def _global_state() -> tuple[Any, ...]:
    # The legacy generator is what must stay as it is.
    state = np.random.get_state(legacy=True)  # noqa: NPY002
    return tuple(part.tobytes() if isinstance(part, np.ndarray) else part for part in state)


@contextlib.contextmanager
def _captured() -> Iterator[Callable[[], str]]:
    """Take what Python and native code write to stdout and stderr."""
    python_text, native_text = io.StringIO(), b""
    _flush()
    kept = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as file:
        try:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            with contextlib.redirect_stdout(python_text), contextlib.redirect_stderr(python_text):
                yield lambda: python_text.getvalue() + native_text.decode(errors="replace")
        finally:
            _flush()
            for place, handle in zip((1, 2), kept, strict=True):
                os.dup2(handle, place)
                os.close(handle)
            file.seek(0)
            native_text = file.read()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    with contextlib.suppress(Exception):
        # What C code printed waits in the C library's own buffers.
        ctypes.CDLL(None).fflush(None)
