from __future__ import annotations

import struct
from typing import Any

import pytest

from corral.errors import InvalidRequest
from corral.protocol.scores import cosines, encode_ranking, encode_scores, parse_rerank, parse_score
from corral.request import EmbedResult


def result(*vectors: tuple[float, ...]) -> EmbedResult:
    return EmbedResult("r", [struct.pack(f"<{len(vector)}f", *vector) for vector in vectors], len(vectors))


def rerank(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "query": "q", "documents": ["a", "b", "c"], **fields}


@pytest.mark.parametrize(
    "names", [("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2")]
)
def test_the_sides_have_many_names(names: tuple[str, str]) -> None:
    call = parse_score({"model": "m", names[0]: "a", names[1]: ["b", {"text": "c"}]})
    assert (call.queries, call.documents) == (["a"], ["b", "c"])
    queries, documents = call.requests(16)
    assert (queries.inputs, documents.inputs) == (["a"], ["b", "c"])
    assert (queries.max_context, documents.truncate) == (16, False)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "text_1"),
        ({"text_1": "a"}, "text_1"),
        ({"text_1": "a", "items": "b"}, "text_1"),
        ({"text_1": "a", "text_2": "b", "items": "c"}, "text_1"),
        ({"text_1": ["a", "b"], "text_2": ["c", "d", "e"]}, "text_1"),
        ({"text_1": ["a", "b"], "text_2": "c"}, "text_1"),
        ({"text_1": [], "text_2": "c"}, "text_1"),
        ({"text_1": "a", "text_2": ["b", 1]}, "text_2[1]"),
        ({"text_1": "a", "text_2": {"image_url": "http://x"}}, "text_2"),
        ({"text_1": "a", "text_2": ["b"] * 10_001}, "text_2"),
        ({"text_1": "a", "text_2": "b", "softmax": True}, "softmax"),
        ({"text_1": "a", "text_2": "b", "top_n": 1}, "top_n"),
    ],
)
def test_scores_that_are_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_score({"model": "m", **fields})
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"query": ["q"]}, "query"),
        ({"documents": []}, "documents"),
        ({"documents": [5]}, "documents[0]"),
        ({"documents": "a"}, "documents"),
        ({"top_n": -1}, "top_n"),
        ({"max_tokens_per_doc": 0}, "max_tokens_per_doc"),
        ({"max_tokens_per_doc": 5, "truncate_prompt_tokens": 5}, "max_tokens_per_doc"),
    ],
)
def test_rankings_that_are_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_rerank(rerank(**fields))
    assert caught.value.param == param


def test_one_query_for_all_or_one_for_each() -> None:
    documents = result((1.0, 0.0), (0.6, 0.8), (-1.0, 0.0))
    assert cosines(result((1.0, 0.0)), documents) == pytest.approx([1.0, 0.6, -1.0])
    assert cosines(documents, documents) == pytest.approx([1.0, 1.0, 1.0])
    assert max(cosines(documents, documents)) <= 1.0


def test_scores() -> None:
    answer = encode_scores([0.5, 0.25], 9, "m", 1)
    assert answer["data"][1] == {"index": 1, "object": "score", "score": 0.25}
    assert answer["usage"] == {"prompt_tokens": 9, "total_tokens": 9}


def test_a_ranking_is_sorted_cut_and_says_where_each_stood() -> None:
    def ranked(**fields: Any) -> Any:
        return encode_ranking(parse_rerank(rerank(**fields)), [0.1, 0.9, 0.9], 9, "m")["results"]

    assert [entry["index"] for entry in ranked()] == [1, 2, 0]
    assert ranked(top_n=1) == [{"index": 1, "relevance_score": 0.9, "document": {"text": "b"}}]
    assert len(ranked(top_n=99)) == len(ranked(top_n=0)) == 3
    assert ranked(return_documents=False)[0] == {"index": 1, "relevance_score": 0.9}
    assert ranked(documents=[{"text": "x"}, "y", "z"], top_n=3)[2]["document"] == {"text": "x"}
