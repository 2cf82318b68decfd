"""The abuses of the GGUF format: what is written, and the error and offset that must come of it."""

from __future__ import annotations

from dataclasses import dataclass

from corral.errors import CorralError, InvalidModelFile, UnsupportedModel
from corral.model.gguf_cursor import MAX_ARRAY_ELEMENTS, MAX_STRING_BYTES
from tests.support.raw_gguf import (
    ARRAY,
    BOOL,
    HEADER_BYTES,
    STRING,
    U8,
    U32,
    U64,
    array,
    gguf_file,
    key,
    string,
    tensor,
    u32,
    u64,
)

HUGE = (1 << 64) - 1
BLOCK = bytes(128)  # the data of one default tensor
# Offsets of the fields of the first key, named "k", and of the first tensor, named "t", in a file without keys.
KEY_NAME, KEY_TYPE, KEY_VALUE = HEADER_BYTES, HEADER_BYTES + 9, HEADER_BYTES + 13
ELEMENT_TYPE, ELEMENT_COUNT, ELEMENTS = KEY_VALUE, KEY_VALUE + 4, KEY_VALUE + 12
TENSOR_NAME, TENSOR_DIMS, TENSOR_SHAPE = HEADER_BYTES, HEADER_BYTES + 9, HEADER_BYTES + 13
TENSOR_TYPE, TENSOR_OFFSET, TENSOR_END = TENSOR_SHAPE + 8, TENSOR_SHAPE + 12, TENSOR_SHAPE + 20


@dataclass(frozen=True)
class Abuse:
    name: str
    data: bytes
    fault: str  # part of the message
    offset: int = 0
    error: type[CorralError] = InvalidModelFile


def one_key(value_type: int, payload: bytes) -> bytes:
    return gguf_file([key(b"k", value_type, payload)])


NOT_GGUF = [
    Abuse("empty", b"", "it is empty"),
    Abuse("two bytes", b"GG", "it begins with b'GG'"),
    Abuse("web page", b"\n<!DOCTYPE html><html>", "web page"),
    Abuse("safetensors", u64(64) + b'{"__metadata__":{}}', "safetensors"),
    Abuse("zip", b"PK\x03\x04" + bytes(60), "zip archive"),
    Abuse("git lfs pointer", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    Abuse("ggml", b"tjgg" + bytes(60), "before GGUF"),
    Abuse("random bytes", b"\x93NUMPY\x01\x00", "it begins with b'\\x93NUM'"),
    Abuse("magic alone", b"GGUF", "the file ends within the version", 4),
    Abuse("version 0", gguf_file(version=0), "the version is 0", 4),
    Abuse("version 1", gguf_file(version=1), "of GGUF version 1", error=UnsupportedModel),
    Abuse("version 4", gguf_file(version=4), "of GGUF version 4", error=UnsupportedModel),
    Abuse("big-endian version", gguf_file(version=3 << 24), "big-endian", error=UnsupportedModel),
    Abuse("big-endian magic", gguf_file(magic=b"FUGG"), "big-endian", error=UnsupportedModel),
]

COUNTS = [
    Abuse("no counts", b"GGUF" + u32(3), "within the tensor count", 8),
    Abuse("half the key count", b"GGUF" + u32(3) + u64(0) + b"\0\0", "within the key count", 16),
    Abuse("2^64 - 1 tensors", gguf_file(num_tensors=HUGE), "tensor count is 18446744073709551615", 8),
    Abuse("2^64 - 1 keys", gguf_file(num_keys=HUGE), "key count is 18446744073709551615", 16),
    Abuse("more tensors than bytes", gguf_file(num_tensors=1000), "more than the 0 bytes that follow", 8),
    Abuse("more keys than bytes", gguf_file(num_keys=1000), "more than the 0 bytes that follow", 16),
    Abuse("one key too many", gguf_file([key(b"k" * 20, U8, b"\1")], num_keys=2), "within the length of", 57),
]

KEYS = [
    Abuse("empty name", gguf_file([key(b"", U32, u32(1)), key(b"k", U32, u32(1))]), "key 0 is empty", KEY_NAME),
    Abuse("name of 2^64 - 1 bytes", gguf_file([string(b"k" * 32, HUGE)]), "claims 18446744073709551615", KEY_NAME),
    Abuse("name of 64 KiB", gguf_file([key(b"k" * 65536, U8, b"\1")]), "at most 65535", KEY_NAME),
    Abuse("name beyond the end", gguf_file([string(b"k" * 32, 33)]), "33 bytes needed, 32 left", KEY_NAME + 8),
    Abuse("name not UTF-8", gguf_file([key(b"\xff", U8, b"\1")]), "not UTF-8", KEY_NAME),
    Abuse("twice the same name", gguf_file([key(b"k", U32, u32(1))] * 2), "'k' occurs twice", KEY_NAME + 17),
    Abuse("value type 13", one_key(13, u64(1)), "value type 13", KEY_TYPE),
    Abuse("value type 2^32 - 1", one_key((1 << 32) - 1, u64(1)), "value type 4294967295", KEY_TYPE),
    Abuse("no value", one_key(U64, b"\1"), "8 bytes needed, 1 left", KEY_VALUE),
    Abuse("truth value 2", one_key(BOOL, b"\2"), "holds 2 as a truth value", KEY_VALUE),
    Abuse("string of 2^64 - 1 bytes", one_key(STRING, string(b"x", HUGE)), "claims 18446744073709551615", KEY_VALUE),
    Abuse("string over the limit", one_key(STRING, u64(MAX_STRING_BYTES + 1)), "at most 16777216", KEY_VALUE),
    Abuse("string beyond the end", one_key(STRING, string(b"abc", 4)), "4 bytes needed, 3 left", KEY_VALUE + 8),
]

ARRAYS = [
    Abuse("element type 13", one_key(ARRAY, array(13, 1, u64(0))), "element type 13", ELEMENT_TYPE),
    Abuse("array of arrays", one_key(ARRAY, array(ARRAY, 1, array(U8, 1, b"\1"))), "array of arrays", ELEMENT_TYPE),
    Abuse("100 GB of numbers", one_key(ARRAY, array(U64, 12_500_000_000)), "claims 12500000000", ELEMENT_COUNT),
    Abuse("2^64 - 1 strings", one_key(ARRAY, array(STRING, HUGE)), "claims 18446744073709551615", ELEMENT_COUNT),
    Abuse("most strings allowed", one_key(ARRAY, array(STRING, MAX_ARRAY_ELEMENTS)), "0 follow", ELEMENT_COUNT),
    Abuse("numbers beyond the end", one_key(ARRAY, array(U32, 3, u64(0))), "12 bytes; 8 follow", ELEMENT_COUNT),
    Abuse(
        "second string beyond the end",
        one_key(ARRAY, array(STRING, 2, string(b"abc") + string(b"x", 100))),
        "within string 1 of 'k': 100 bytes needed, 1 left",
        ELEMENTS + 11 + 8,
    ),
    Abuse(
        "string of 2^64 - 1 bytes in an array",
        one_key(ARRAY, array(STRING, 1, u64(HUGE))),
        "string 0 of 'k' claims 18446744073709551615",
        ELEMENTS,
    ),
    Abuse("truth value 7 in an array", one_key(ARRAY, array(BOOL, 3, b"\0\1\7")), "holds 7", ELEMENTS + 2),
    Abuse(
        "many arrays below the limit",
        gguf_file([key(bytes([97 + i]), ARRAY, array(U8, MAX_ARRAY_ELEMENTS // 2, b"\0" * (MAX_ARRAY_ELEMENTS // 2)))
                   for i in range(3)]),
        "a file may have 4194304 in all",
        HEADER_BYTES + 2 * (25 + MAX_ARRAY_ELEMENTS // 2) + 17,
    ),
]  # fmt: skip

ALIGNMENT_VALUE = HEADER_BYTES + 8 + len(b"general.alignment")
TENSORS = [
    Abuse("alignment is u64", gguf_file([key(b"general.alignment", U64, u64(32))]), "32-bit", ALIGNMENT_VALUE),
    Abuse("alignment is a string", gguf_file([key(b"general.alignment", STRING, string(b"32"))]), "32-bit",
          ALIGNMENT_VALUE),
    Abuse("alignment 0", gguf_file([key(b"general.alignment", U32, u32(0))]), "power of two", ALIGNMENT_VALUE),
    Abuse("alignment 24", gguf_file([key(b"general.alignment", U32, u32(24))]), "power of two", ALIGNMENT_VALUE),
    Abuse("no name", gguf_file(tensors=[tensor(b"")], data=BLOCK), "tensor 0 is empty", TENSOR_NAME),
    Abuse("name of 65 bytes", gguf_file(tensors=[tensor(b"t" * 65)], data=BLOCK), "at most 64", TENSOR_NAME),
    Abuse("name not UTF-8", gguf_file(tensors=[tensor(b"\xc3")], data=BLOCK), "not UTF-8", TENSOR_NAME),
    Abuse("twice the same name", gguf_file(tensors=[tensor(), tensor(offset=128)], data=BLOCK * 2),
          "'t' occurs twice", TENSOR_END),
    Abuse("no dimensions", gguf_file(tensors=[tensor(shape=())], data=BLOCK), "0 dimensions", TENSOR_DIMS),
    Abuse("5 dimensions", gguf_file(tensors=[tensor(shape=(2,) * 5)], data=BLOCK), "5 dimensions", TENSOR_DIMS),
    Abuse("2^32 - 1 dimensions", gguf_file(tensors=[tensor(num_dims=(1 << 32) - 1)], data=BLOCK),
          "4294967295 dimensions", TENSOR_DIMS),
    Abuse("a dimension of 0", gguf_file(tensors=[tensor(shape=(32, 0))], data=BLOCK), "no dimension may be 0",
          TENSOR_SHAPE),
    Abuse("2^128 weights", gguf_file(tensors=[tensor(shape=(1 << 32,) * 4)], data=BLOCK), "more than 2^63 weights",
          TENSOR_SHAPE),
    Abuse("product wraps to 0", gguf_file(tensors=[tensor(shape=(1 << 63, 2))], data=BLOCK), "more than 2^63",
          TENSOR_SHAPE),
    Abuse("bytes wrap to 128", gguf_file(tensors=[tensor(shape=((1 << 62) + 32,))], data=BLOCK), "but the file has",
          TENSOR_OFFSET),
    Abuse("rows of half a block", gguf_file(tensors=[tensor(shape=(48, 2), type_id=2)], data=BLOCK),
          "Q4_0 needs a multiple of 32", TENSOR_SHAPE),
    Abuse("type id 200", gguf_file(tensors=[tensor(type_id=200)], data=BLOCK), "type id 200", TENSOR_TYPE),
    Abuse("type id 2^32 - 1", gguf_file(tensors=[tensor(type_id=(1 << 32) - 1)], data=BLOCK), "4294967295",
          TENSOR_TYPE),
    Abuse("type IQ2_XXS", gguf_file(tensors=[tensor(type_id=16)], data=BLOCK), "type IQ2_XXS, which is not supported",
          error=UnsupportedModel),
    Abuse("type MXFP4", gguf_file(tensors=[tensor(type_id=39)], data=BLOCK), "types are F32, F16, Q4_0",
          error=UnsupportedModel),
    Abuse("offset not aligned", gguf_file(tensors=[tensor(offset=4)], data=BLOCK * 2), "multiple of the alignment 32",
          TENSOR_OFFSET),
    Abuse("offset beyond the end", gguf_file(tensors=[tensor(offset=1 << 40)], data=BLOCK), "but the file has",
          TENSOR_OFFSET),
    Abuse("offset that wraps", gguf_file(tensors=[tensor(offset=(1 << 64) - 32)], data=BLOCK), "but the file has",
          TENSOR_OFFSET),
    Abuse("last byte missing", gguf_file(tensors=[tensor()], data=BLOCK[:-1]), "its download did not finish",
          TENSOR_OFFSET),
    Abuse("no data at all", gguf_file(tensors=[tensor()]), "but the file has 57", TENSOR_OFFSET),
    Abuse("two in one place", gguf_file(tensors=[tensor(b"t"), tensor(b"u")], data=BLOCK), "'t' and 'u' overlap",
          TENSOR_END + TENSOR_OFFSET - HEADER_BYTES),
    Abuse("overlap by a part", gguf_file(tensors=[tensor(b"t", offset=96), tensor(b"u")], data=BLOCK * 2),
          "'u' and 't' overlap", TENSOR_OFFSET),
    Abuse("table cut off", gguf_file(tensors=[tensor(), tensor(b"long name")], data=b"")[:-3],
          "within the offset of 'long name'", TENSOR_END + 41 - 8),
]  # fmt: skip

ABUSES = NOT_GGUF + COUNTS + KEYS + ARRAYS + TENSORS
