"""The tests that every backend passes, whatever its role."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vwkit
from vwkit.errors import NotFittedError, ParameterError
from vwkit.jobs import Job, use_job
from vwkit.testing.isolation import (
    HEAVY,
    answers_of_another_process,
    captured,
    generators,
    global_state,
    manifest,
    modules_after_import,
    no_pickle,
    pickles,
)
from vwkit.testing.traces import Traces

__all__ = ["EveryRole", "other_values"]


class EveryRole(Traces, suite=True):
    """The part of all suites that is the same."""

    # Tests of the class and its parameters

    def test_import_is_light(self) -> None:
        """Importing the backend's module loads no heavy library.

        If this fails, check for ``import`` lines at the top of the module (or of modules that it
        imports): move them into the methods that need them, and name the modules in ``requires``.
        """
        module = self.backend.__module__
        loaded = self._importable_elsewhere()
        unwanted = HEAVY | {name.partition(".")[0] for name in self.backend.requires}
        heavy = sorted(unwanted & loaded)
        assert not heavy, f"importing {module} also imports {', '.join(heavy)}"

    def _importable_elsewhere(self) -> frozenset[str]:
        """Return the modules that a new process has loaded after importing the backend's."""
        module = self.backend.__module__
        if module == type(self).__module__ or module == "__main__":
            pytest.skip("the backend is defined in the test module itself")
        loaded = modules_after_import(module)
        if loaded is None:
            pytest.skip(f"{module} cannot be imported by its name in a new process")
        return loaded

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
        assert isinstance(cls.revision, int), f"revision is a whole number; got {cls.revision!r}"
        assert cls.revision >= 1, f"revision counts from 1; got {cls.revision}"
        for name in ("deterministic", "streams"):
            value = getattr(made, name)
            assert isinstance(value, bool), f"{name} is True or False; got {value!r}"

    def test_parameters_round_trip(self) -> None:
        """Parameters become JSON and come back as they were.

        If this fails, check ``__post_init__``: it must not change a parameter.
        """
        made = self._make()
        params = made.params()
        text = json.dumps(params)
        again = vwkit.create(made.role, made.name, **json.loads(text))
        assert type(again) is type(made), f"a {type(again).__name__} was made again"
        assert again.params() == params, f"made with {params}, made again as {again.params()}"
        kept, wanted = set(made.params(late=False)), set(params) - made.late
        assert kept == wanted, f"params(late=False) gives {sorted(kept)}, not {sorted(wanted)}"

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

        If this fails, check that ``_state`` (or ``_save``) holds everything that was fitted, and
        that ``_restore`` (or ``_load``) puts all of it back.
        """
        fitted = self._ready()
        before = self._answer(fitted)
        with tempfile.TemporaryDirectory() as folder:
            place, other = Path(folder) / "saved", Path(folder) / "again"
            with no_pickle():
                fitted.save(place)
                loaded = vwkit.load(place)
            assert type(loaded) is type(fitted), f"a {type(loaded).__name__} was loaded"
            files = {name for name, one in fitted.parameters().items() if one.is_path}
            kept, found = (
                # A file that is kept with what is saved has a new place.
                {name: value for name, value in one.params().items() if name not in files}
                for one in (fitted, loaded)
            )
            assert found == kept, f"saved with the parameters {kept}, loaded with {found}"
            self._assert_same(before, self._answer(loaded), fitted.deterministic, "after loading")
            self._verify_ready(loaded)
            self._assert_same(before, self._answer(fitted), fitted.deterministic, "after saving")
            found_pickles = pickles(place)
            assert not found_pickles, (
                f"saved as a pickle, which may run code: {', '.join(found_pickles)}"
            )
            with no_pickle():
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
            one, two = (manifest(Path(folder) / name) for name in ("one", "two"))
        assert one == two, "two saves of the same backend differ"

    def test_saved_folder_stands_alone(self) -> None:
        """What was saved works in another place, when all else is gone: data, and files beside it.

        If this fails, check for a path that ``_save`` or ``_state`` keeps, for a file that is
        written beside the folder, and that data that were fitted on are saved too if they are
        needed later.
        """
        with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
            (Path(first) / "data").mkdir()
            fitted = self._ready_from(Path(first) / "data")
            before, exact = self._answer(fitted), fitted.deterministic
            fitted.save(Path(first) / "saved")
            shutil.copytree(Path(first) / "saved", Path(second) / "moved")
            del fitted
            shutil.rmtree(first)
            Path(first).mkdir()  # whoever made it wants to take it away
            loaded = vwkit.load(Path(second) / "moved")
            self._assert_same(before, self._answer(loaded), exact, "in another place")
            del loaded

    def test_another_process_can_load(self) -> None:
        """A new process, which never saw the backend being fitted, loads what was saved.

        If this fails, check for state that lives in a global variable or in a class attribute, and
        for a module that must be imported first.
        """
        self._importable_elsewhere()
        if "<locals>" in self.backend.__qualname__:
            pytest.skip("the class is made inside a function")
        if getattr(self.backend, "consumes", "") == "files":
            pytest.skip("it reads descriptor files, and keeps nothing")
        with tempfile.TemporaryDirectory() as folder:
            fitted = self._ready()
            before = self._answer(fitted)
            fitted.save(Path(folder) / "saved")
            answer = answers_of_another_process(self.backend, Path(folder), self._questions())
        self._assert_same(before, answer, fitted.deterministic, "in a new process")

    def test_late_parameters(self) -> None:
        """Late parameters may be set on a fitted and on a loaded backend, others may not.

        Set early or late, they give the same answers.

        If this fails, check that ``late`` names only fields that are read when they are used, not
        when the backend is fitted.
        """
        fitted = self._ready()
        before = self._answer(fitted)
        with self._saved(fitted) as loaded:
            for name in sorted(fitted.late):
                value = getattr(loaded, name)
                setattr(loaded, name, value)
                assert getattr(loaded, name) == value, f"{name} = {value!r} was set, but not kept"
            answer = self._answer(loaded)
        self._assert_same(before, answer, fitted.deterministic, "after setting late parameters")
        for name, parameter in fitted.parameters().items():
            if name not in fitted.late and not parameter.nested and fitted._needs_fit():
                with pytest.raises(ParameterError, match="cannot change"):
                    setattr(fitted, parameter.attribute, getattr(fitted, parameter.attribute))
        with use_job(Job(threads=1)):
            for name in sorted(fitted.late):
                self._check_late(name, getattr(fitted, name))

    def _check_late(self, name: str, value: Any) -> None:
        """Compare a parameter that is given at once with one that is set when all is fitted."""
        for other in other_values(value):
            early = self._make_or_none(**{**self._on_one_thread(), name: other})
            if early is None or not early.deterministic:
                continue
            early = self._trained(early)
            late = self._trained(self._make(**self._on_one_thread()))
            setattr(late, name, other)
            why = f"when {name} = {other!r} is set after the fit instead of before"
            self._assert_same(self._trial_answer(early), self._trial_answer(late), True, why)

    def test_same_seed_same_answer(self) -> None:
        """The same seed and data give the same answer again, on one thread at the least.

        If this fails, check that every random number comes from a generator seeded with
        ``self.seed``, and that a wrapped library is given that seed too.
        """
        seeded = self._offers("seed")
        if not seeded and not self._make().deterministic:
            pytest.skip("it has no seed and does not declare that it is deterministic")
        with use_job(Job(threads=1)):
            first, second = (
                self._trial_answer(self._trained(self._make(**self._on_one_thread())))
                for _ in range(2)
            )
        exact = self._make(**self._on_one_thread()).deterministic
        self._assert_same(first, second, exact, "with the same seed")

    def test_another_seed_draws_other_numbers(self) -> None:
        """A backend with a seed does not draw the same random numbers whatever its seed is.

        One that draws nothing from NumPy's generators passes: an algorithm may need no chance.

        If this fails, check for ``np.random.default_rng(0)`` where ``self.seed`` is meant.
        """
        if not self._offers("seed"):
            pytest.skip("it has no seed")
        answers, drawn = [], []
        for seed in (3, 8, 21):
            with use_job(Job(threads=1)), generators(self.backend) as made:
                one = self._trained(self._make(**self._on_one_thread(), seed=seed))
                answers.append(self._trial_answer(one))
            drawn.append(made)
            if not made or made != drawn[0]:
                return
        same = all(
            np.asarray(first).tobytes() == np.asarray(other).tobytes()
            for answer in answers[1:]
            for first, other in zip(answers[0], answer, strict=True)
        )
        assert not same, (
            "with the seeds 3, 8 and 21 it makes the same generators of random numbers and gives "
            f"the same answer: numpy.random.default_rng({drawn[0][0]})"
        )

    def test_instances_are_independent(self) -> None:
        """What one backend has fitted is not changed by fitting another one of its class.

        If this fails, check for a list, a dictionary or an array that is made in the class body or
        in the module: all instances share it. Make it in the method that fills it.
        """
        first = self._ready()
        given = self._answer(first)
        kept = tuple(np.array(part) for part in given)
        self._another()
        self._assert_same(kept, given, True, "already given, when another one was fitted")
        self._assert_same(kept, self._answer(first), first.deterministic, "beside another one")

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
                found.append((self._answer(fitted), manifest(Path(folder) / "saved")))
        self._assert_same(found[0][0], found[1][0], True, "on 1 and 2 threads")
        assert found[0][1] == found[1][1], "the saved files differ between 1 and 2 threads"

    def test_global_random_state_is_left_alone(self) -> None:
        """Neither NumPy's nor Python's global generator is seeded or drawn from.

        If this fails, check for ``np.random.seed``, ``np.random.rand`` and their like: use
        ``np.random.default_rng(self.seed)``.
        """
        numpy_before, python_before = global_state(), random.getstate()
        fitted = self._ready()
        self._answer(fitted)
        with self._saved(fitted) as loaded:
            self._answer(loaded)
        assert global_state() == numpy_before, "NumPy's global random state was changed"
        assert random.getstate() == python_before, "Python's global random state was changed"

    def test_prints_nothing(self) -> None:
        """Nothing is written to stdout or stderr.

        If this fails, check for ``print``, and for the verbosity of a wrapped library.
        """
        with captured() as written:
            fitted = self._ready()
            self._answer(fitted)
        text = written()
        assert not text, f"it printed {text[:200]!r}"


def other_values(value: Any) -> list[Any]:
    """Return other values to try for a parameter of this one."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int) and value > 0:
        return [2 * value, max(1, value // 2)]
    if isinstance(value, float):
        return [value / 2 if value else 0.5]
    return []
