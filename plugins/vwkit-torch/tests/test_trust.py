"""Files of strangers, and damaged ones: one clear error each, and nothing of theirs is run."""

from __future__ import annotations

import dataclasses
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch_checks import wrong
from vwkit_torch import Torch

import vwkit
from vwkit.artifact import open_artifact, write_artifact
from vwkit.errors import ArtifactError, ParameterError, VwkitError

torch = pytest.importorskip("torch", reason="needs torch, which is not installed")


def rewritten(
    source: Path, target: Path, change: Callable[[str, bytes], bytes | None], compress: bool = False
) -> Path:
    """Copy an archive, each record through `change`; None leaves it out."""
    how = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", how) as new:
        for info in old.infolist():
            content = change(info.filename.partition("/")[2], old.read(info))
            if content is not None:
                new.writestr(info.filename, content)
    return target


def changed(source: Path, target: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    """Copy a program with its JSON edited."""

    def change(name: str, content: bytes) -> bytes:
        if not name.startswith("models/"):
            return content
        model = json.loads(content)
        edit(model)
        return json.dumps(model).encode()

    return rewritten(source, target, change)


def nodes(model: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = model["graph_module"]["graph"]["nodes"]
    return found


class Sentinel:
    """A pickle of this writes a file when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.write_text, (self.path, "pickle was run"))


@pytest.fixture
def program(networks: Any, tmp_path: Path) -> Path:
    path: Path = networks.exported(networks.small(), tmp_path / "program.pt2")
    return path


# Files without a network -------------------------------------------------------------------------


def test_other_files(networks: Any, tmp_path: Path, program: Path) -> None:
    state = tmp_path / "state.pth"
    torch.save(networks.small().state_dict(), state)
    wrong("a checkpoint of torch.save: numbers without the network", model=state)
    sentinel = tmp_path / "sentinel"
    old = tmp_path / "old.pth"
    old.write_bytes(pickle.dumps(Sentinel(sentinel)))
    wrong("a pickle, which could run any program", model=old)
    whole = tmp_path / "whole.pt"
    torch.save({"model": Sentinel(sentinel)}, whole)
    wrong("a checkpoint of torch.save", model=whole)
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    wrong(r"numbers without the network \(safetensors\)", model=weights)
    lfs = tmp_path / "lfs.pt2"
    lfs.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    wrong("Git LFS", model=lfs)
    for name, content in (("empty", b""), ("text", b"no network\n" * 9), ("short", b"PK\x03\x04")):
        path = tmp_path / f"{name}.pt2"
        path.write_bytes(content)
        wrong(f"{name}.pt2: (not a model of PyTorch|a damaged archive)", model=path)
    archive = tmp_path / "archive.zip"
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("photos/1.jpg", b"")
    wrong("an archive, but no model", model=archive)
    older = tmp_path / "older.pt2"
    with zipfile.ZipFile(older, "w") as made:
        made.writestr("serialized_exported_program.json", b"{}")
    wrong("older PyTorch", model=older)
    wrong("no such file", model=tmp_path / "none.pt2")
    wrong("cannot be read", model=tmp_path)
    assert not sentinel.exists()


def test_torchscript_that_cannot_be_loaded(networks: Any, tmp_path: Path) -> None:
    path = networks.scripted(networks.small(), tmp_path / "net.pt")

    def change(name: str, content: bytes) -> bytes:
        ours = "networks" in name and name.endswith(".py")  # the file's name has numbers, later
        return b"class Small(Module):\n  oops\n" if ours else content

    bad = rewritten(path, tmp_path / "bad.pt", change)
    wrong("PyTorch cannot load it", model=bad, crop=32)
    wrong("PyTorch cannot run it", model=path, crop=32, layout="nhwc")


def test_a_truncated_or_damaged_file_is_one_clear_error(program: Path, tmp_path: Path) -> None:
    whole = np.frombuffer(program.read_bytes(), np.uint8)
    path = tmp_path / "bad.pt2"
    for length in (10, 1000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length].tobytes())
        wrong("bad.pt2", model=path)
    rng = np.random.default_rng(0)
    for _ in range(40):
        damaged = whole.copy()
        for place in rng.integers(0, len(whole), 3):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged.tobytes())
        try:
            Torch(model=path)  # where nothing looks, a changed byte changes nothing
        except ParameterError as error:
            assert "\n" not in str(error)


# Programs that would do more than compute --------------------------------------------------------


def test_example_inputs_are_never_unpickled(program: Path, tmp_path: Path) -> None:
    sentinel = tmp_path / "sentinel"
    evil = pickle.dumps(Sentinel(sentinel))
    assert any("sample_inputs" in name for name in zipfile.ZipFile(program).namelist())

    def change(name: str, content: bytes) -> bytes:
        return evil if "sample_inputs" in name else content

    path = rewritten(program, tmp_path / "evil.pt2", change)
    image = np.full((9, 9, 3), 5, np.uint8)
    found = Torch(model=path).vectors([image])
    assert found.tobytes() == Torch(model=program).vectors([image]).tobytes()
    assert not sentinel.exists()


def test_pickled_weights_are_refused(program: Path, tmp_path: Path) -> None:
    sentinel = tmp_path / "sentinel"

    def change(name: str, content: bytes) -> bytes:
        if name == "data/weights/weight_0":
            return pickle.dumps(Sentinel(sentinel))
        if name.endswith("weights_config.json"):
            config = json.loads(content)
            for entry in config["config"].values():
                entry["use_pickle"] = entry["path_name"] == "weight_0"
            return json.dumps(config).encode()
        return content

    path = rewritten(program, tmp_path / "evil.pt2", change)
    wrong("as a pickle, which could run any program; refused", model=path)
    assert not sentinel.exists()


@pytest.mark.parametrize(
    "target",
    [
        "torch.hub.load",
        "torch.load",
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.rand.default",
        "torch.ops.aten.empty.memory_format",
        "torch.ops.aten.relu.out",
        "torch.ops.aten.relu",
        "torch.ops.aten.relu.default.__class__",
        "torch.ops.aten.no_such_operator.default",
        "torch.ops.aten.relu.no_such_overload",
        "torch.ops.higher_order.cond",
        "torch.ops.mine.relu.default",
        "_operator.attrgetter",
        "_operator.pow",
        "math.factorial",
        "#extension:name",
        "builtins.eval",
        "",
    ],
)
def test_operators_that_are_not_in_the_list(program: Path, tmp_path: Path, target: str) -> None:
    def edit(model: dict[str, Any]) -> None:
        nodes(model)[3]["target"] = target

    wrong(
        "which is not among the operators",
        model=changed(program, tmp_path / "evil.pt2", edit),
    )


def test_texts_are_never_evaluated(program: Path, tmp_path: Path) -> None:
    sentinel = tmp_path / "sentinel"
    code = f"__import__('pathlib').Path({str(sentinel)!r}).write_text('run')"

    def edit(model: dict[str, Any]) -> None:
        graph = model["graph_module"]["graph"]
        for meta in graph["tensor_values"].values():
            meta["sizes"] = [{"as_expr": {"expr_str": code, "hint": None}}, *meta["sizes"][1:]]
        graph["sym_int_values"] = {"s": {"as_expr": {"expr_str": code, "hint": None}}}
        model["guards_code"] = [code]
        model["range_constraints"] = {code: {"min_val": 1, "max_val": 2}}
        for node in nodes(model):
            node["name"] = f"x = {code}"
            node["metadata"]["stack_trace"] = code

    made = Torch(model=changed(program, tmp_path / "evil.pt2", edit))
    assert made.dim == 10
    assert not sentinel.exists()


@pytest.mark.parametrize(
    ("argument", "match"),
    [
        ({"as_graph": {"name": "g", "graph": {}}}, "uses graph, which vwkit-torch does not run"),
        ({"as_custom_obj": {"name": "c", "class_fqn": "X"}}, "uses custom obj"),
        ({"as_operator": "torch.hub.load"}, "uses operator"),
        ({"as_tensor": {"name": "nothing"}}, "cannot run it"),
        ({"as_int": "7"}, "damaged"),
        ({"as_int": 1.5}, "damaged"),
        ({"as_scalar_type": 10}, "damaged"),
        ({}, "damaged"),
        ([], "damaged"),
        ({"as_sym_int": {"as_name": "nothing"}}, "cannot run it"),
        ({"as_sym_int": {"as_int": "x"}}, "damaged"),
        ({"as_string": "text"}, "cannot run it"),
    ],
)
def test_arguments_that_are_none(program: Path, tmp_path: Path, argument: Any, match: str) -> None:
    def edit(model: dict[str, Any]) -> None:
        nodes(model)[0]["inputs"][3]["arg"] = argument

    wrong(match, model=changed(program, tmp_path / "evil.pt2", edit))


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (lambda model: model.update(schema_version={"major": 9, "minor": 1}), "schema 9.1"),
        (lambda model: model.pop("graph_module"), "damaged"),
        (lambda model: model["graph_module"].update(signature=7), "damaged"),
        (lambda model: model["graph_module"]["signature"].update(input_specs=[]), "0 "),
        (lambda model: model["graph_module"]["signature"].update(output_specs=[]), "name a layer"),
        (lambda model: nodes(model).reverse(), "does not depend on the image"),
        (lambda model: nodes(model).clear(), "does not depend on the image"),
        (lambda model: nodes(model)[0].update(outputs=[]), "does not depend on the image"),
        (
            lambda model: nodes(model)[0]["outputs"].append({"as_tensor": {"name": "more"}}),
            "cannot run it",
        ),
    ],
)
def test_programs_that_make_no_sense(
    program: Path, tmp_path: Path, edit: Callable[[Any], None], match: str
) -> None:
    wrong(match, model=changed(program, tmp_path / "bad.pt2", edit))


def test_numbers_that_are_not_stored(program: Path, tmp_path: Path) -> None:
    def with_meta(**values: Any) -> Path:
        def change(name: str, content: bytes) -> bytes:
            if not name.endswith("weights_config.json"):
                return content
            config = json.loads(content)
            config["config"]["conv1.weight"]["tensor_meta"].update(values)
            return json.dumps(config).encode()

        return rewritten(program, tmp_path / "bad.pt2", change)

    length = [{"as_int": one} for one in (8, 3, 5, 5)]
    for values, match in (
        ({"sizes": [{"as_int": 9}, *length[1:]]}, "larger than what is stored"),
        ({"storage_offset": {"as_int": 1}}, "larger than what is stored"),
        ({"strides": [{"as_int": 10**15}, *length[1:]]}, "larger than what is stored"),
        ({"storage_offset": {"as_int": -1}}, "not a length"),
        ({"strides": [{"as_int": -75}, *length[1:]]}, "not a length"),
        ({"sizes": [{"as_expr": {"expr_str": "8"}}, *length[1:]]}, "damaged"),
        ({"sizes": length[1:]}, "axes and"),
        ({"dtype": 99}, "damaged"),
        ({"dtype": 8}, "larger than what is stored"),
    ):
        wrong(match, model=with_meta(**values))


def test_an_archive_may_not_unfold(program: Path, tmp_path: Path) -> None:
    path = rewritten(program, tmp_path / "bomb.pt2", lambda _name, content: content, compress=True)
    wrong("its records are compressed", model=path)

    def change(name: str, content: bytes) -> bytes | None:
        return None if name == "data/weights/weight_3" else content

    wrong("no record data/weights/weight_3", model=rewritten(program, path, change))

    def other(name: str, content: bytes) -> bytes:
        return b"big" if name == "byteorder" else content

    wrong("big-endian", model=rewritten(program, path, other))


def test_two_programs(program: Path, tmp_path: Path) -> None:
    path = tmp_path / "two.pt2"
    path.write_bytes(program.read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("program/models/second.json", b"{}")
    wrong("holds 2 programs", model=path)


def test_two_inputs(networks: Any, tmp_path: Path) -> None:
    class Two(torch.nn.Module):
        def forward(self, x, y):
            return x.mean((2, 3)) + y

    program = torch.export.export(Two(), (networks.images(), torch.zeros(3)))
    torch.export.save(program, tmp_path / "two.pt2")
    wrong(r"one input, the images; it has 2 \(x, y\)", model=tmp_path / "two.pt2")


# Artifacts of strangers --------------------------------------------------------------------------


def forged(source: Path, target: Path, save: Callable[[Path], None], **params: Any) -> Path:
    """Write an artifact like another one, whole and with right checksums, but other files."""
    manifest = open_artifact(source).manifest
    kept = {key: manifest[key] for key in manifest if key not in ("files", "native", "sha256")}
    kept["params"] = {**kept["params"], **params}
    with write_artifact(target, kept) as draft:
        draft.native(save)
    return target


@pytest.fixture
def evil(networks: Any, tmp_path: Path) -> Path:
    """TorchScript that writes a file when it is run."""

    class Evil(torch.nn.Module):
        __module__ = "networks"

        def forward(self, x):
            torch.save(x, "sentinel")
            return x.mean((2, 3))

    path: Path = networks.scripted(Evil(), tmp_path / "evil.pt")
    return path


def test_torchscript_is_a_program(
    evil: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the next tests guard against is real."""
    monkeypatch.chdir(tmp_path)
    Torch(model=evil, crop=8)
    assert (tmp_path / "sentinel").exists()


def test_an_artifact_brings_no_torchscript(
    program: Path, evil: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Torch(model=program).save(tmp_path / "honest")
    content = evil.read_bytes()

    def as_program(folder: Path) -> None:
        (folder / "model.pt2").write_bytes(content)

    path = forged(tmp_path / "honest", tmp_path / "one", as_program)
    with pytest.raises(ArtifactError, match="TorchScript, which is a program, under the ending"):
        vwkit.load(path)

    def as_script(folder: Path) -> None:
        (folder / "model.pt").write_bytes(content)

    path = forged(tmp_path / "honest", tmp_path / "two", as_script, model=str(evil))
    with pytest.raises(ArtifactError, match="no such file"):
        vwkit.load(path)

    def by_hash(folder: Path) -> None:
        (folder / "torchscript.sha256").write_text("../../evil")

    path = forged(tmp_path / "honest", tmp_path / "three", by_hash, model=str(evil))
    with pytest.raises(ArtifactError, match="not a SHA-256"):
        vwkit.load(path)

    def by_right_hash(folder: Path) -> None:
        (folder / "torchscript.sha256").write_text("0" * 64)
        (folder / f"{'0' * 64}.pt").write_bytes(content)

    url = "https://example.org/evil.pt"
    for model in (str(evil), "torchscript.sha256", url):
        path = forged(tmp_path / "honest", tmp_path / "four", by_right_hash, model=model)
        with pytest.raises(ArtifactError, match="if you have it and trust it"):
            vwkit.load(path)
    assert not (tmp_path / "sentinel").exists()


def test_an_artifact_names_no_other_file(program: Path, tmp_path: Path) -> None:
    """The path in the manifest is for reading by people; another model lies there."""
    Torch(model=program).save(tmp_path / "honest")
    made = vwkit.load(tmp_path / "honest")

    def same(folder: Path) -> None:
        (folder / "model.pt2").write_bytes(program.read_bytes())

    path = forged(tmp_path / "honest", tmp_path / "forged", same, model="/etc/hostname")
    assert vwkit.load(path).kind == made.kind

    def nothing(folder: Path) -> None:
        (folder / "other").write_bytes(b"")

    path = forged(tmp_path / "honest", tmp_path / "forged", nothing, model=str(program))
    with pytest.raises(ArtifactError, match="no such file"):
        vwkit.load(path)
    artifact = open_artifact(tmp_path / "honest")
    bare = {key: one for key, one in artifact.manifest.items() if key != "native"}
    with pytest.raises(ArtifactError, match="its model is missing"):
        Torch._open(dataclasses.replace(artifact, manifest=bare))


def test_a_program_that_fails_later_is_one_clear_error(networks: Any, tmp_path: Path) -> None:
    class Rare(torch.nn.Module):
        __module__ = "networks"

        def forward(self, x):
            if bool(x.max() == x.min()):
                raise ValueError("a flat picture")
            return x.mean((2, 3))

    path = networks.scripted(Rare(), tmp_path / "net.pt")
    made = Torch(model=path, crop=8, preset="none")
    with pytest.raises(VwkitError, match="torch: array: PyTorch cannot run it.*flat") as caught:
        made.vectors([np.full((9, 9, 3), 5, np.uint8)])
    assert "\n" not in str(caught.value)
