"""Pipelines: a spec becomes stages, in order, each found or computed once.

``images | vectors → featurizer → transform → quantizer → clusterer → index → evaluate → output``
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import vwkit
from vwkit.cache import Cache
from vwkit.checking import compile_spec
from vwkit.counted import counts_pixels, keeps_pixels
from vwkit.errors import BackendError, DataError, RunError, SkippedItems
from vwkit.flow import Flow
from vwkit.hashing import content_key, file_sha256
from vwkit.items import write_items
from vwkit.jobs import Job, Progress, use_job
from vwkit.leftovers import sweep_all
from vwkit.lock import locked, reserved
from vwkit.observing.accounts import check_same, close_accounts
from vwkit.observing.names import stage_names
from vwkit.observing.observer import observed, part
from vwkit.planning.making import check_budget
from vwkit.resuming import Pending, check_same_spec
from vwkit.run import Run
from vwkit.run_folder import (
    FILES,
    FORMAT,
    INNER,
    MANIFEST,
    commit,
    finish_commit,
    read_small,
    write_synced,
)
from vwkit.source import Source, from_dict, load, override
from vwkit.spec import Spec
from vwkit.stages import MemoryMeter, Stages

__all__ = ["Pipeline"]


class Pipeline:
    """A checked spec, ready to run.

    Examples
    --------
    >>> import numpy as np, tempfile, vwkit
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     n = vwkit.write(f"{folder}/x.npy", np.arange(40, dtype=np.float32).reshape(20, 2))
    ...     pipeline = vwkit.Pipeline.from_dict({
    ...         "vwkit": 1,
    ...         "vectors": {"path": f"{folder}/x.npy"},
    ...         "clusterer": {"use": "lloyd", "k": 4},
    ...     })
    ...     run = pipeline.run(f"{folder}/run")
    ...     run.clusterer.centers.shape
    (4, 2)
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = spec

    @classmethod
    def from_file(cls, path: str | Path, overrides: Sequence[str] = ()) -> Pipeline:
        """Read a YAML or TOML spec.

        Parameters
        ----------
        path : path
        overrides : sequence of str
            Such as ``"clusterer.k=4096"``.

        Raises
        ------
        SpecError
            One line ``file:line:column: key.path: what is wrong`` per problem.
        """
        return cls._from_source(load(path), overrides)

    @classmethod
    def from_dict(cls, spec: Mapping[str, Any], overrides: Sequence[str] = ()) -> Pipeline:
        """Take a spec as plain data; paths are relative to the working directory.

        Raises
        ------
        SpecError
            One line ``key.path: what is wrong`` per problem.
        """
        return cls._from_source(from_dict(spec, Path()), overrides)

    @classmethod
    def _from_source(cls, source: Source, overrides: Sequence[str]) -> Pipeline:
        return cls(compile_spec(override(source, overrides) if overrides else source))

    def run(
        self,
        out: str | Path,
        *,
        resume: bool = False,
        progress: Progress | None = None,
        job: Job | None = None,
    ) -> Run:
        """Run everything and return the finished run.

        Parameters
        ----------
        out : path
            The run folder. An earlier run in it is replaced when this one is complete.
        resume : bool
            Go on with an interrupted run of the same spec; if it is finished, only restore
            outputs that are missing.
        progress : callable, optional
            Called as ``progress(stage, done, total, unit, values)``.
        job : Job, optional
            Budgets and interruption; by default from the spec's ``run``.

        Raises
        ------
        RunError
            The folder is in use, not a run folder, or holds another spec's run.
        VwkitError
            Whatever is wrong with the data.
        Interrupted
            It was asked to stop; run it again with `resume`.
        """
        folder = Path(out).absolute()
        check_folder(folder)
        with reserved(folder / INNER / "lock", folder):
            return self._run(folder, resume, progress, job)

    def _run(self, folder: Path, resume: bool, progress: Progress | None, job: Job | None) -> Run:
        for output in self.spec.output:
            if folder.is_relative_to(output.path):
                raise RunError(
                    f"{output.path}: the output {output.name} would take the place of the run "
                    f"folder {folder}; name another one with --out"
                )
        check_budget(self.spec, job)
        settings = self.spec.run
        work = job or Job(threads=settings.threads, memory=settings.memory, progress=progress)
        try:
            (folder / INNER).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{folder}: cannot be written: {error.strerror}") from None
        with locked(folder / INNER / "lock", folder):
            finish_commit(folder)
            done = self._prepare(folder, resume)
            to_come = self._to_come(done)
            said = {"found": "finished", "outputs_missing": len(to_come)} if done else {}
            with observed(folder / INNER, work, to_come=to_come, again=resume, values=said) as work:
                run = done or self._execute_ready(folder, work)
                self._write_outputs(run, work)
        return run

    def _to_come(self, done: Run | None) -> list[str]:
        """Name the stages that are expected."""
        if done is not None:
            pending = Pending(done.folder, len(self.spec.output))
            missing = [
                output
                for i, output in enumerate(self.spec.output)
                if i in pending or not output.path.exists()
            ]
            return [f"write {output.name}" for output in missing]
        colours = counts_pixels(self.spec)
        return stage_names(self.spec, colours=colours, pixels=colours and keeps_pixels(self.spec))

    # Beginning

    def _prepare(self, folder: Path, resume: bool) -> Run | None:
        """Clear the way; return the run if it is finished already and only to be resumed."""
        inner = folder / INNER
        resolved = self.spec.resolved()
        state = inner / "state.json"
        if resume and state.is_file():
            try:
                before = json.loads(read_small(state))
                begun = before["spec"]
                if before.get("key", content_key(begun)) != content_key(begun):
                    begun = None  # damaged: it would be taken for another spec
            except (OSError, ValueError, KeyError, TypeError, RecursionError):
                begun = None
            if begun is not None:
                # Inputs may lie elsewhere by now: what is in them decides which stages are new.
                check_same_spec(folder, begun, resolved, paths=None)
                self._begin(state, resolved)
                sweep_all(inner / "next")
                return None
        elif resume and (folder / MANIFEST).is_file():
            run = Run.open(folder)
            # Nothing is looked into again, so the paths have to mean the same.
            bases = run.manifest.get("base", str(self._base)), str(self._base)
            check_same_spec(folder, run.spec, resolved, paths=bases)
            run.check()  # what nobody opens may be damaged, too
            self._restore_spec(run)
            return run
        shutil.rmtree(inner / "next", ignore_errors=True)
        shutil.rmtree(inner / "checkpoints", ignore_errors=True)
        self._begin(state, resolved)
        return None

    def _restore_spec(self, run: Run) -> None:
        """Write the copy of the spec for people again, where it is not what the manifest holds."""
        resolved, place = self.spec.resolved(), run.folder / "spec.yaml"
        text = _as_yaml(resolved).encode()
        if json.loads(json.dumps(resolved)) == run.spec:
            with contextlib.suppress(OSError):
                if place.is_symlink() or not place.is_file() or place.read_bytes() != text:
                    write_synced(place, text.decode())

    @property
    def _base(self) -> Path:
        return Path(os.path.abspath(self.spec.source.base))

    def _begin(self, state: Path, resolved: dict[str, Any]) -> None:
        """Write down what this run is of."""
        said = {"spec": resolved, "key": content_key(json.loads(json.dumps(resolved)))}
        write_synced(state, json.dumps(said))

    # The work

    def _execute_ready(self, folder: Path, work: Job) -> Run:
        """Execute where the spec says that chunks are computed."""
        executor = self.spec.run.executor
        if executor is None:
            return self._execute(folder, work)
        with executor.ready(work):
            return self._execute(folder, work.using(executor))

    def _execute(self, folder: Path, work: Job) -> Run:
        following = folder / INNER / "next"
        following.mkdir(parents=True, exist_ok=True)
        cache = Cache()
        started = time.monotonic()
        try:
            with MemoryMeter() as meter, use_job(work):
                stages = Stages(following, folder / INNER / "checkpoints", cache, work, meter)
                # Made anew: a flow puts fitted backends in the places of the spec's own.
                spec = compile_spec(self.spec.source)
                flow = Flow(spec, stages)
                try:
                    flow.run()
                except DataError as error:
                    raise _with_file(error, spec) from None
                manifest = self._manifest(flow, stages, started)
                write_items(following / "items.jsonl", flow.items)
                manifest["items_sha256"] = file_sha256(following / "items.jsonl")
                (following / "spec.yaml").write_text(_as_yaml(self.spec.resolved()))
                run = Run(following, manifest)
                self._account(run, flow, stages)
                if spec.evaluate is not None:
                    with part(work, "evaluate") as scoring:
                        scoring.progress(0, None, "queries")
                        manifest["scores"] = spec.evaluate._evaluate(run)
                manifest["seconds"] = round(time.monotonic() - started, 3)
                manifest["peak_memory"] = max(
                    [meter.restart(), *(record["peak_memory"] for record in stages.records)]
                )
                with part(work, "report"):
                    self._report(run)
                text = json.dumps(manifest, indent=1, ensure_ascii=False)
                (following / MANIFEST).write_text(text + "\n", encoding="utf-8")
        finally:
            cache.close()
        # Outputs of an earlier run may lie where this one's belong.
        Pending.all(folder, len(self.spec.output))
        commit(folder, [*manifest["stages"], *FILES])
        skipped = manifest["counts"]["skipped"]
        if skipped:
            warnings.warn(
                f"{skipped} of {len(flow.items)} items were skipped; "
                f"{folder / 'items.jsonl'} and the report say why",
                SkippedItems,
                stacklevel=3,
            )
        return Run.open(folder)

    def _manifest(self, flow: Flow, stages: Stages, started: float) -> dict[str, Any]:
        ok = sum(item.status == "ok" for item in flow.items)
        return {
            "kind": "run",
            "format": FORMAT,
            "vwkit": vwkit.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "seed": self.spec.seed,
            "spec": self.spec.resolved(),
            "base": str(self._base),
            "fingerprint": content_key([record["key"] for record in stages.records]),
            "threads": stages.job.threads,
            "counts": {
                "items": len(flow.items),
                "ok": ok,
                "skipped": len(flow.items) - ok,
                **flow.counts,
            },
            "stages": {record["name"]: record for record in stages.records},
            "scores": None,
        }

    def _account(self, run: Run, flow: Flow, stages: Stages) -> None:
        """Account for every row, as it lies in the folder now."""
        listed, read = len(flow.items), len(run.items)
        check_same("items.jsonl", "items", "there are", listed, "it lists", read)
        rows = flow.counts["descriptors"] if self.spec.vectors is not None else None
        accounts = close_accounts(stages.accounts, run.items, flow.left_out(), rows)
        accounts["outputs"] = []
        run.manifest["accounts"] = accounts
        for output in self.spec.output:
            expected = output._rows(run)
            if expected is not None:
                unit, count = expected
                accounts["outputs"].append({"write": output.name, "unit": unit, "rows": count})

    def _report(self, run: Run) -> None:
        from vwkit.report import write_report

        write_report(run, run.folder / "report.html")

    def _write_outputs(self, run: Run, work: Job) -> None:
        pending = Pending(run.folder, len(self.spec.output))
        for i, output in enumerate(self.spec.output):
            if i in pending or not output.path.exists():
                # Some take long: they tell how far they are, and can be stopped and resumed.
                with part(work, f"write {output.name}"):
                    output._write(run, output.path)
                    _check_output(run, output)
                pending.done(i)


def _check_output(run: Run, output: Any) -> None:
    """Compare what an output wrote with what the run has."""
    expected = output._rows(run)
    if expected is not None:
        unit, count = expected
        written = output._rows_written(output.path)
        try:
            check_same(output.name, unit, "the run has", count, f"{output.path} held", written)
        except BackendError:
            # Or --resume would take it for done.
            if output.path.is_dir():
                shutil.rmtree(output.path)
            else:
                output.path.unlink()
            raise


def check_folder(folder: Path) -> None:
    """Refuse a run folder that is not ours to write.

    Raises
    ------
    RunError
    """
    try:
        there = folder.exists()
    except OSError as error:
        raise RunError(f"{folder}: cannot be used: {error.strerror}") from None
    if there and not folder.is_dir():
        raise RunError(f"{folder}: a file is in the way of the run folder")
    if folder.is_dir() and any(folder.iterdir()):
        ours = (folder / INNER).is_dir() or (folder / MANIFEST).is_file()
        if not ours:
            raise RunError(
                f"{folder}: the folder holds files that are not a run of vwkit; "
                "nothing was touched, name another one with --out"
            )


def _with_file(error: DataError, spec: Spec) -> DataError:
    """Say the file of a bad row, where the rows come from one."""
    row = re.match(r"(?:data|vectors): (row \d+, .*)", str(error))
    if row is None or spec.vectors is None:
        return error
    return DataError(f"{spec.vectors.path}: {row[1]}")


def _as_yaml(data: dict[str, Any]) -> str:
    import yaml

    text: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)
    return f"# The spec of this run with every default, seed and path written out.\n{text}"
