from __future__ import annotations

import inspect
from dataclasses import replace

import msgspec
import pytest

from corral import errors
from corral.config import EngineConfig
from corral.request import (
    Delta,
    EmbedRequest,
    EmbedResult,
    FinishReason,
    Request,
    RequestOutput,
    RequestSize,
    TokenLogprob,
    Usage,
)
from corral.sampling_params import SamplingParams
from corral.worker import protocol
from corral.worker.info import ModelInfo, WorkerStats
from corral.worker.protocol import FrameError

INFO = ModelInfo("m", "llama", 8192, 2048, 32000, "scalar", 2, 1 << 40, 0.5)
CHAT = Request(
    "chatcmpl-1",
    "m",
    messages=[{"role": "user", "content": "hé\x00\U0001f600"}],
    sampling=SamplingParams(
        n=2, stop=("a",), stop_token_ids=(3,), logit_bias={7: -1.5}, seed=(1 << 64) - 1, max_tokens=5
    ),
)
LOGPROBS = (TokenLogprob(1, b"\xc3", -0.25, ((b"\xc3", -0.25), (b"", -3.5))), TokenLogprob(2, b"x", float("-inf")))
OUTPUT = RequestOutput(
    "chatcmpl-1",
    (
        Delta(0, "x", (1, 2), logprobs=LOGPROBS),
        Delta(1, "", (), FinishReason.STOP, "a"),
        Delta(2, "", (9,), FinishReason.STOP, 9),
    ),
    Usage(3, 4, 5),
    is_finished=True,
)


def payload(frame: bytes) -> bytes:
    assert protocol.decode_length(frame[:4]) == len(frame) - 4
    return frame[4:]


@pytest.mark.parametrize(
    "frame",
    [
        protocol.Load("/a/b.gguf", EngineConfig(max_model_len=7, isa="scalar")),
        protocol.Submit(CHAT),
        protocol.Submit(Request("r", prompt=[1, 2, 3])),
        protocol.Submit(Request("r", prompt="text", cache_salt="s", adapter="/a/b.gguf")),
        protocol.SubmitEmbed(EmbedRequest("e", "m", ["text", [1, 2], ""], truncate=False, dimensions=7)),
        protocol.Measure(CHAT),
        protocol.MeasureEmbed(EmbedRequest("e", "m", ["text"])),
        protocol.Abort("r"),
        protocol.Drain(),
        protocol.Ping(5),
        protocol.GetStats(6),
    ],
)
def test_frames_to_the_worker_come_back_equal(frame: protocol.ToWorker) -> None:
    assert protocol.decode_to_worker(payload(protocol.encode_frame(frame))) == frame


@pytest.mark.parametrize(
    "frame",
    [
        protocol.Planned("a\nb"),
        protocol.Progress(1, 1 << 40),
        protocol.Embedded(EmbedResult("e", [b"\x00\xff\x80?", b""], 12)),
        protocol.Measured(RequestSize("r", 12, 5)),
        protocol.Ready(INFO, "plan"),
        protocol.Outputs([OUTPUT, replace(OUTPUT, deltas=(), is_finished=False)]),
        protocol.Failure("r", "QueueFull", "full", {"retry_after_s": 9, "param": None}),
        protocol.Drained(),
        protocol.Pong(5),
        protocol.Stats(6, WorkerStats(num_blocks=3)),
    ],
)
def test_frames_from_the_worker_come_back_equal(frame: protocol.FromWorker) -> None:
    assert protocol.decode_from_worker(payload(protocol.encode_frame(frame))) == frame


def error_classes() -> list[type[errors.CorralError]]:
    classes = [value for value in vars(errors).values() if inspect.isclass(value)]
    return [cls for cls in classes if issubclass(cls, errors.CorralError)]


@pytest.mark.parametrize("cls", error_classes())
def test_errors_cross_as_the_same_class_with_all_they_say(cls: type[errors.CorralError]) -> None:
    if cls is errors.InvalidModelFile:
        error: errors.CorralError = errors.InvalidModelFile("/a.gguf", 17, "torn")
    elif cls is errors.InvalidVocabulary:
        error = errors.InvalidVocabulary("tokenizer.ggml.tokens", "torn")
    elif cls is errors.InvalidManifest:
        error = errors.InvalidManifest("origin", "torn")
    elif cls is errors.InvalidModelfile:
        error = errors.InvalidModelfile("torn", 3)
    elif cls is errors.StorageError:
        error = errors.StorageError("full", "full")
    elif cls is errors.QueueFull:
        error = errors.QueueFull("full", retry_after_s=9)
    elif cls is errors.QuotaExceeded:
        error = errors.QuotaExceeded("used", "tokens", 9, is_for_today=True)
    elif cls is errors.LimitExceeded:
        error = errors.LimitExceeded("stop", 5, 4)
    elif issubclass(cls, errors.InvalidRequest):
        error = cls("bad", param="n")
    else:
        error = cls("text")
    frame = protocol.encode_frame(protocol.failure_of("r", error))
    failure = protocol.decode_from_worker(payload(frame))
    assert isinstance(failure, protocol.Failure)
    arrived = protocol.error_of(failure)
    assert type(arrived) is cls
    assert (str(arrived), arrived.args) == (str(error), error.args)
    assert vars(arrived) == vars(error)


def test_an_unknown_kind_is_still_an_error_of_ours() -> None:
    assert type(protocol.error_of(protocol.Failure("r", "FromTheFuture", "text"))) is errors.CorralError


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"\xc1",
        b"\x00",
        msgspec.msgpack.encode({"type": "Nonsense"}),
        msgspec.msgpack.encode({"type": "Abort"}),
        msgspec.msgpack.encode({"type": "Abort", "request_id": 5}),
        msgspec.msgpack.encode({"type": "Abort", "request_id": b"\xff\xfe"}),
        b"\x82\xa4type\xa5Abort\xaarequest_id\xa2\xff\xfe",
        b"\x91" * 100_000,
    ],
)
def test_junk_is_refused(junk: bytes) -> None:
    with pytest.raises(FrameError):
        protocol.decode_to_worker(junk)
    with pytest.raises(FrameError):
        protocol.decode_from_worker(junk)


def test_fields_out_of_range_are_refused_on_arrival_too() -> None:
    raw = msgspec.msgpack.encode({"type": "Submit", "request": {"request_id": "r", "sampling": {"n": 10**6}}})
    with pytest.raises(errors.InvalidRequest, match="n is"):
        protocol.decode_to_worker(raw)


def test_the_size_cap_holds_before_anything_is_read() -> None:
    with pytest.raises(FrameError, match="at most"):
        protocol.decode_length(b"\xff\xff\xff\xff")
