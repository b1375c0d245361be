"""The GGUF reader: right on real and made files, and bounded on every wrong one."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.core.memory import gguf
from llmctl.core.memory.cursor import MAXIMUM_KEPT_BYTES, MAXIMUM_STRINGS
from llmctl.core.memory.gguf import Array, Gguf, GgufError, Tensor
from tests.memory import gguf_bytes as made

SMALL = made.small()


def parse(data: bytes) -> Gguf:
    return gguf.parse(lambda offset, length: data[offset : offset + length], len(data))


def refusal(data: bytes) -> str:
    with pytest.raises(GgufError) as caught:
        parse(data)
    assert caught.value.exit_code == 1
    return caught.value.message


def test_reads_metadata_tensors_and_where_the_weights_begin() -> None:
    header = parse(SMALL)
    assert header.architecture == "llama"
    assert header.file_type == 15
    assert header.quantization == "Q4_K_M"
    assert header.metadata["general.tags"] == Array(2, ("a", "b"))
    assert header.metadata["llama.attention.head_count_kv"] == Array(3, (8, 8, 4))
    assert header.metadata["tokenizer.ggml.tokens"] == Array(2000)
    assert header.metadata["tokenizer.ggml.scores"] == Array(2000)
    assert header.tensors == (Tensor("blk.0.w", (256, 2), 12, 0), Tensor("blk.0.norm", (8,), 0, 288))
    assert [tensor.size_bytes for tensor in header.tensors] == [288, 32]
    assert header.tensor_types == {"Q4_K": 1, "F32": 1}
    assert header.parameters == 520
    assert header.data_offset + 320 == len(SMALL)


def test_a_file_type_that_a_converter_guessed_keeps_its_name() -> None:
    guessed = made.file([made.key("general.file_type", made.U32, struct.pack("<I", 1024 | 15))], [])
    assert parse(guessed).quantization == "Q4_K_M"


@pytest.mark.parametrize("cut", [*range(0, 600), len(SMALL) - 321, len(SMALL) - 1])
def test_cut_short_anywhere_is_refused(cut: int) -> None:
    # Up to byte 600 lie the preamble, every kind of key and the start of the token array.
    refusal(SMALL[:cut])


@pytest.mark.parametrize("from_end", range(321, 480, 7))
def test_cut_short_in_the_tensor_infos_is_refused(from_end: int) -> None:
    refusal(SMALL[:-from_end])


def test_an_empty_file_and_another_format_are_named() -> None:
    assert "cut short" in refusal(b"")
    assert "not a GGUF file" in refusal(b"<!DOCTYPE html><html>not found</html>")


def test_versions_and_byte_order_are_named() -> None:
    assert "big-endian" in refusal(made.file([], [], version=0x03000000))
    assert "version 1" in refusal(made.file([], [], version=1))
    assert "version 77" in refusal(made.file([], [], version=77))


@pytest.mark.parametrize("count", [2**63, 2**64 - 1, 2**32, 100_000])
def test_counts_that_the_file_cannot_hold(count: int) -> None:
    assert "metadata keys" in refusal(made.file([], [], 64, key_count=count))
    assert "tensors" in refusal(made.file([], [], 64, tensor_count=count))


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 2**40])
@pytest.mark.parametrize("kind", [made.U8, made.U64, made.STRING])
def test_array_lengths_that_the_file_cannot_hold(kind: int, length: int) -> None:
    message = refusal(made.file([made.key("a", made.ARRAY, made.array(kind, length, b""))], [], 64))
    assert "'a'" in message
    assert "left" in message


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 2**31])
def test_text_lengths_that_the_file_cannot_hold(length: int) -> None:
    long = struct.pack("<Q", length)
    assert "left" in refusal(made.file([made.key("a", made.STRING, long)], [], 64))
    assert "name of" in refusal(made.file([long], [], 64))
    in_array = made.array(made.STRING, 2, made.text("x") + long)
    assert "left" in refusal(made.file([made.key("a", made.ARRAY, in_array)], [], 64))


def test_a_long_text_inside_a_skipped_array_is_held_against_the_file() -> None:
    tokens = made.text("x") * 1500 + struct.pack("<Q", 2**62) + made.text("x") * 499
    assert "left" in refusal(made.file([made.key("t", made.ARRAY, made.array(made.STRING, 2000, tokens))], []))


def test_nested_arrays_and_unknown_types_are_refused() -> None:
    nested = made.array(made.ARRAY, 1, made.array(made.U8, 1, b"\0"))
    assert "arrays hold numbers or texts" in refusal(made.file([made.key("a", made.ARRAY, nested)], [], 64))
    assert "unknown value type 13" in refusal(made.file([made.key("a", 13, b"")], [], 64))


def test_tensors_that_make_no_sense() -> None:
    assert "dimension of 0" in refusal(made.file([], [made.tensor("t", (0, 4))], 64))
    assert "5 dimensions" in refusal(made.file([], [made.tensor("t", (1, 1, 1, 1, 1))], 64))
    assert "multiple of 256" in refusal(made.file([], [made.tensor("t", (100,), 12)], 640))
    assert "cut short" in refusal(made.file([], [made.tensor("t", (2**63, 2**63))], 64))
    assert "begins at 7" in refusal(made.file([], [made.tensor("t", (1,), 0, 7)], 64))
    assert "twice" in refusal(made.file([], [made.tensor("t", (1,)), made.tensor("t", (1,))], 64))


def test_a_tensor_type_from_the_future_is_kept_without_a_size() -> None:
    header = parse(made.file([], [made.tensor("t", (7,), 99)], 64))
    assert header.tensors[0].size_bytes is None
    assert header.tensor_types == {"type 99": 1}


def test_alignment_must_be_a_power_of_two() -> None:
    for alignment in (0, 3, 48):
        wrong = made.file([made.key("general.alignment", made.U32, struct.pack("<I", alignment))], [], 64)
        assert "power of 2" in refusal(wrong)


def test_a_key_twice_and_a_name_that_is_no_text() -> None:
    assert "twice" in refusal(made.file([made.key("a", made.U8, b"\0")] * 2, [], 64))
    bad = made.text(b"\xff\xfe") + struct.pack("<I", made.U8) + b"\0"
    assert "not UTF-8" in refusal(made.file([bad], [], 64))


def test_a_source_that_ends_before_its_size_says_so() -> None:
    with pytest.raises(GgufError, match="ended early"):
        gguf.parse(lambda offset, length: SMALL[offset : offset + 10], len(SMALL))


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_flipped_bytes_are_read_or_refused_and_nothing_else(flips: list[tuple[int, int]]) -> None:
    data = bytearray(SMALL)
    for position, value in flips:
        data[position] = value
    try:
        parse(bytes(data))
    except GgufError:
        return


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", b"GGUF\x03\0\0\0", SMALL[:200], SMALL[:60]]))
def test_any_bytes_are_read_or_refused_and_nothing_else(tail: bytes, start: bytes) -> None:
    try:
        parse(start + tail)
    except GgufError:
        return


def test_too_many_texts_are_refused_before_they_are_walked() -> None:
    size = 1 << 40
    header = made.file([made.key("t", made.ARRAY, made.array(made.STRING, MAXIMUM_STRINGS + 1, b""))], [])
    with pytest.raises(GgufError, match="texts"):
        gguf.parse(lambda offset, length: (header + bytes(length))[offset : offset + length], size)


def test_a_text_that_is_too_large_to_keep_is_refused_before_it_is_read() -> None:
    header = made.file([made.key("t", made.STRING, struct.pack("<Q", MAXIMUM_KEPT_BYTES + 1))], [])
    with pytest.raises(GgufError, match="kept"):
        gguf.parse(lambda offset, length: (header + bytes(length))[offset : offset + length], 1 << 40)


WORST = """
import re, sys
from llmctl.core.memory import gguf
file = open(sys.argv[1], "rb")
def read(offset, length):
    file.seek(offset)
    return file.read(length)
try:
    gguf.parse(read, file.seek(0, 2))
except gguf.GgufError as error:
    print(error.message)
# The peak since exec; ru_maxrss would carry over that of the process that forked this one.
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read()).group(1))
"""


def a_million_texts() -> bytes:
    tokens = made.array(made.STRING, MAXIMUM_STRINGS, made.text("x" * 4) * MAXIMUM_STRINGS)
    return made.file([made.key("t", made.ARRAY, tokens)], [])


def many_small_arrays() -> bytes:
    small = made.array(made.U8, 1024, bytes(1024))
    return made.file([made.key(f"k{number}", made.ARRAY, small) for number in range(16000)], [])


def many_tensors() -> bytes:
    return made.file([], [made.tensor(f"t{number}", (1,)) for number in range(65536)], 64)


def wide_letters() -> bytes:
    # One such letter makes Python keep four bytes for each of the others.
    wide = made.text("x" * (1 << 20) + "\U0001f600")
    return made.file([made.key(f"k{number}", made.STRING, wide) for number in range(40)], [])


@pytest.mark.parametrize("make", [a_million_texts, many_small_arrays, many_tensors, wide_letters])
def test_the_worst_files_stay_within_200_megabytes(make: Callable[[], bytes], tmp_path: Path) -> None:
    file = tmp_path / "worst.gguf"
    file.write_bytes(make())
    ran = subprocess.run([sys.executable, "-c", WORST, str(file)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout.split()[-1]) < 200 << 10
