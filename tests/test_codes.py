"""Codes are decoded by the quantizer that made them, and by no other."""

import json

import numpy as np
import pytest

import vwkit
from vwkit.codes import Codes, made_by

ROWS = np.random.default_rng(0).integers(0, 256, (300, 8)).astype(np.uint8)


def pq(seed=0, rows=ROWS):
    return vwkit.create("quantizer", "pq", m=4, ks=16, seed=seed).fit(rows)


def test_another_quantizer_refuses_to_decode():
    one, other = pq(), pq(seed=1)
    codes = one.encode(ROWS)
    assert one.identity != other.identity
    with pytest.raises(vwkit.DataError, match=f"made by the quantizer {one.identity}"):
        other.decode(codes)
    with pytest.raises(vwkit.DataError, match=one.identity):
        other.decode(codes[10:20])
    with pytest.raises(vwkit.DataError, match=one.identity):
        other.decode(one.encode(vwkit.Stream.from_array(ROWS)))


def test_what_is_saved_decodes_alike(tmp_path):
    one = pq()
    codes = one.encode(ROWS)
    one.save(tmp_path / "pq")
    again = vwkit.load(tmp_path / "pq")
    assert again.identity == one.identity
    assert (again.decode(codes) == one.decode(codes)).all()
    assert pq().identity == one.identity


def test_a_second_fit_is_another_quantizer():
    one = pq()
    codes = one.encode(ROWS)
    one.fit(ROWS[:100])
    with pytest.raises(vwkit.DataError, match="other centers"):
        one.decode(codes)


def test_plain_arrays_are_taken_at_their_word():
    one, other = pq(), pq(seed=1)
    codes = np.asarray(one.encode(ROWS))
    assert type(codes) is np.ndarray
    assert other.decode(codes).shape == (300, 8)


@pytest.mark.parametrize("name", ["codes.npy", "codes.bvecs"])
def test_a_file_remembers_its_quantizer(tmp_path, name):
    one, other = pq(), pq(seed=1)
    vwkit.write(tmp_path / name, one.encode(ROWS))
    stream = vwkit.read(tmp_path / name)
    assert made_by(stream) == one.identity
    assert (one.decode(stream).toarray() == one.decode(one.encode(ROWS))).all()
    with pytest.raises(vwkit.DataError, match=one.identity):
        other.decode(stream)


def test_a_note_for_another_file_is_ignored(tmp_path):
    one = pq()
    vwkit.write(tmp_path / "codes.npy", one.encode(ROWS))
    vwkit.write(tmp_path / "codes.npy", ROWS)
    assert made_by(vwkit.read(tmp_path / "codes.npy")) is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "nonsense", "[" * 10_000, json.dumps({"codes": 1, "quantizer": 2})]
)
def test_a_strange_note_is_ignored(tmp_path, text):
    vwkit.write(tmp_path / "codes.npy", ROWS)
    (tmp_path / "codes.npy.json").write_text(text)
    assert made_by(vwkit.read(tmp_path / "codes.npy")) is None


def test_a_vocabulary_has_an_identity(tmp_path):
    lloyd = vwkit.create("clusterer", "lloyd", k=10).fit(ROWS)
    words = vwkit.create("quantizer", "vocabulary", clusterer=lloyd)
    words.save(tmp_path / "words")
    assert vwkit.load(tmp_path / "words").identity == words.identity
    again = vwkit.create("quantizer", "vocabulary", clusterer={"use": "lloyd", "k": 10, "seed": 1})
    before = again.fit(ROWS).identity
    assert before != words.identity
    assert again.fit(ROWS[:50]).identity != before
    with pytest.raises(vwkit.DataError, match="made by the quantizer"):
        again.decode(words.encode(ROWS))


def test_codes_are_plain_arrays_in_all_else():
    codes = pq().encode(ROWS)
    assert isinstance(codes, Codes)
    assert repr(codes).startswith("array(")
    assert codes[5:7].quantizer == codes.quantizer
    assert (codes == np.asarray(codes)).all()
    assert (codes.dtype, codes.shape) == (np.uint8, (300, 4))


def test_the_identity_needs_a_fit():
    with pytest.raises(vwkit.NotFittedError):
        _ = vwkit.create("quantizer", "pq", m=4).identity
