"""OpenAI's completions onto Triton's generate_stream: what is asked, refused, cut and answered."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_router.core import completions
from tidegate_router.core.completions import BadField, Events, Generation, Writer


def parsed(**fields):
    return completions.parse(json.dumps({"prompt": "Once", **fields}).encode())


def event(text="", **more):
    return b"data: %b\n\n" % json.dumps({"text_output": text, **more}).encode()


def generated(*pieces, stops=()):
    """Return (generation, the texts that went out)."""
    one = Generation(stops=stops)
    out = [one.feed(piece) for piece in pieces if not one.finished]
    return one, [*out, one.end()]


REFUSED = [
    ("several answers", {"n": 2}, "n"),
    ("the best of several", {"best_of": 2}, "best_of"),
    ("probabilities", {"logprobs": 0}, "logprobs"),
    ("a text that follows", {"suffix": "end"}, "suffix"),
    ("biased tokens", {"logit_bias": {"50256": -100}}, "logit_bias"),
    ("a frequency penalty", {"frequency_penalty": 0.5}, "frequency_penalty"),
    ("a presence penalty", {"presence_penalty": -0.5}, "presence_penalty"),
    ("a field of tomorrow", {"tools": []}, "tools"),
    ("a prompt of tokens", {"prompt": [1, 2]}, "prompt"),
    ("a prompt of lists of tokens", {"prompt": [[1], [2]]}, "prompt"),
    ("no prompt at all", {"prompt": None}, "prompt"),
    ("a list without prompts", {"prompt": []}, "prompt"),
    ("more prompts than are taken", {"prompt": ["a"] * 33}, "prompt"),
    ("no tokens", {"max_tokens": 0}, "max_tokens"),
    ("a number of tokens as text", {"max_tokens": "16"}, "max_tokens"),
    ("half a token", {"max_tokens": 1.5}, "max_tokens"),
    ("a number that JSON has not", {"max_tokens": 1e999}, "max_tokens"),
    ("a negative temperature", {"temperature": -0.1}, "temperature"),
    ("more stops than are taken", {"stop": ["a"] * 5}, "stop"),
    ("an empty stop, which would end everything", {"stop": ""}, "stop"),
    ("a model that is a path", {"model": "../x"}, "model"),
    ("an option of tomorrow", {"stream": True, "stream_options": {"x": 1}}, "stream_options"),
    ("true for a number", {"n": True}, "n"),
]


@pytest.mark.parametrize(
    ("fields", "name"), [one[1:] for one in REFUSED], ids=[one[0] for one in REFUSED]
)
def test_what_cannot_be_honoured_is_refused_by_its_fields_name(fields, name):
    bad = parsed(**fields)
    assert isinstance(bad, BadField)
    assert bad.field == name
    assert bad.message.startswith(f"{name}: ")


HARMLESS = [
    ("one answer", {"n": 1, "best_of": 1}),
    ("penalties of zero", {"frequency_penalty": 0, "presence_penalty": 0.0}),
    ("an empty bias", {"logit_bias": {}}),
    ("nulls", {"logprobs": None, "suffix": None, "stop": None, "stream": None, "user": None}),
    ("a user", {"user": "somebody"}),
    ("options of a stream that is none", {"stream_options": {"include_usage": True}}),
    ("whole numbers with a point", {"max_tokens": 16.0, "seed": 7.0, "n": 1.0}),
    ("a whole temperature", {"temperature": 1}),
]


@pytest.mark.parametrize("fields", [one[1] for one in HARMLESS], ids=[one[0] for one in HARMLESS])
def test_what_changes_nothing_is_taken(fields):
    request = parsed(**fields)
    assert not isinstance(request, BadField)
    told = json.loads(completions.worker_body(request, "Once"))
    assert set(told) == {"text_input", "parameters"}


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b'{"prompt": "\\ud800"}', b"{}"]
)
def test_a_body_that_is_no_request_is_refused(body):
    assert isinstance(completions.parse(body), BadField)


def test_a_refusal_repeats_nothing_of_the_clients():
    secret = "sk-4242"
    for fields in (
        {secret: 1},
        {"n": secret},
        {"prompt": {secret: secret}},
        {"model": f"/{secret}"},
    ):
        assert secret not in parsed(**fields).message


def test_a_worker_is_told_what_the_client_gave_and_no_more():
    request = parsed(max_tokens=5, temperature=0.5, top_p=0.9, seed=7, stop="x", echo=True)
    told = json.loads(completions.worker_body(request, "Été"))
    assert told["text_input"] == "Été"
    assert told["parameters"] == {
        "max_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 7,
        "stream": True,
        "exclude_input_in_output": True,
        "return_finish_reason": True,
        "return_num_input_tokens": True,
        "return_num_output_tokens": True,
    }
    bare = json.loads(completions.worker_body(parsed(), "Once"))["parameters"]
    assert bare["max_tokens"] == 16
    assert not {"temperature", "top_p", "seed"} & set(bare)


CUTS = [
    ("no stop is met", ["and", " so"], ("X",), "and so", None),
    ("a stop inside a piece", ["and X so"], ("X",), "and ", "stop"),
    ("a stop across two pieces", ["and X", "Y so"], ("XY",), "and ", "stop"),
    ("a stop across three pieces", ["aX", "Y", "Zb"], ("XYZ",), "a", "stop"),
    ("the one that ends first of two that overlap", ["abcd"], ("abcd", "bc"), "a", "stop"),
    ("the earliest of two", ["a B c A"], ("A", "B"), "a ", "stop"),
    ("what only begins like a stop goes out", ["a X", "b"], ("XY",), "a Xb", None),
    ("the beginning of a stop at the end goes out", ["a X"], ("XY",), "a X", None),
    ("a stop that overlaps itself", ["aab", "aabx"], ("aabaabx",), "", "stop"),
    ("the very first character", ["X and"], ("X",), "", "stop"),
]


@pytest.mark.parametrize(
    ("texts", "stops", "answer", "finish"), [one[1:] for one in CUTS], ids=[one[0] for one in CUTS]
)
def test_an_answer_ends_before_the_first_stop(texts, stops, answer, finish):
    done, out = generated(*map(event, texts), stops=stops)
    assert "".join(out) == done.text == answer
    assert done.finish == finish


ABC = st.text(alphabet="abc", max_size=12)


@given(
    texts=st.lists(ABC, max_size=6),
    stops=st.lists(st.text(alphabet="abc", min_size=1, max_size=4), max_size=3),
)
def test_pieces_never_change_where_an_answer_is_cut(texts, stops):
    whole = "".join(texts)
    ends = [at for stop in stops if (at := whole.find(stop)) >= 0]
    done, out = generated(*map(event, texts), stops=stops)
    cut = "".join(out)
    assert cut == generated(event(whole), stops=stops)[0].text
    assert not any(stop in cut for stop in stops)
    assert whole.startswith(cut)
    assert (cut == whole) == (not ends)
    assert done.text == cut


@given(st.lists(st.text(max_size=8), max_size=6), st.data())
def test_events_come_out_the_same_however_the_bytes_are_cut(texts, data):
    raw = b"".join(map(event, texts)).replace(
        b"\n\n", data.draw(st.sampled_from([b"\n\n", b"\r\n\r\n"]))
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    events = Events()
    found = [json.loads(one)["text_output"] for piece in pieces for one in events.feed(piece)]
    assert found == texts


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_any_bytes_from_a_worker_are_survived(pieces):
    one = Generation()
    for piece in pieces:
        if not one.finished:
            one.feed(piece)
    assert isinstance(one.end(), str)


def test_comments_and_other_fields_of_an_event_stream_are_skipped():
    raw = b': hello\nevent: token\nid: 1\ndata: {"text_output":\ndata: "a"}\n\nretry: 5\n\n'
    assert [json.loads(one) for one in Events().feed(raw)] == [{"text_output": "a"}]


def test_an_endless_event_is_a_fault_and_bounded():
    one = Generation()
    for _ in range(40):
        one.feed(b"data: " + b"x" * 65536)
        if one.finished:
            break
    assert one.fault == "an event is too large"


def test_an_endless_answer_is_a_fault_and_bounded():
    one, piece = Generation(), event("x" * 500_000)
    for _ in range(20):
        one.feed(piece)
        if one.finished:
            break
    assert one.fault == "the answer is too long"
    assert len(one.text) < 5_000_000


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        pytest.param(b'data: {"error": "out of memory"}\n\n', "out of memory", id="an-error"),
        pytest.param(b"data: nonsense\n\n", "an event is no JSON object", id="no-json"),
        pytest.param(b"data: [1]\n\n", "an event is no JSON object", id="no-object"),
    ],
)
def test_a_worker_that_fails_in_the_middle_is_a_fault(raw, fault):
    done, _ = generated(event("so far"), raw)
    assert (done.text, done.fault) == ("so far", fault)


def test_an_output_of_several_elements_is_one_text():
    assert generated(event(["a", "b"]))[0].text == "ab"


FINISHES = [
    ("as the model said", [event("a", finish_reason="length")], {}, "length"),
    ("stop, which the model said", [event("a", finish_reason="stop")], {}, "stop"),
    ("its own count reached max_tokens",
     [event("a", num_output_tokens=1)] * 3, {"max_tokens": 3}, "length"),
    ("its count stayed below", [event("a", num_output_tokens=1)] * 2, {"max_tokens": 3}, "stop"),
    ("it said nothing and ended", [event("a")], {}, "stop"),
    ("a reason that OpenAI has not", [event("a", finish_reason="abort")], {}, "stop"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("events", "fields", "reason"), [x[1:] for x in FINISHES], ids=[x[0] for x in FINISHES]
)
def test_an_answer_says_why_it_ended(events, fields, reason):
    done, _ = generated(*events)
    assert completions.finish_reason(parsed(**fields), done) == reason


def test_token_counts_are_the_models_or_absent():
    counted, _ = generated(
        event("a", num_input_tokens=4, num_output_tokens=1),
        event("b", num_input_tokens=4, num_output_tokens=2),
    )
    silent, _ = generated(event("a"))
    assert completions.usage([counted, counted]).model_dump() == {
        "prompt_tokens": 8,
        "completion_tokens": 6,
        "total_tokens": 14,
    }
    assert completions.usage([counted, silent]) is None


def writer(**fields):
    return Writer(parsed(**fields), "story", "id-1", 1_700_000_000)


def test_a_whole_answer_has_a_choice_per_prompt_with_its_prompt_if_asked():
    done = [generated(event(" upon"))[0], generated(event(" there"))[0]]
    told = json.loads(writer(prompt=["Once", "Was"], echo=True).whole(done))
    assert told["id"] == "cmpl-id-1"
    assert told["object"] == "text_completion"
    assert (told["created"], told["model"]) == (1_700_000_000, "story")
    assert [(one["index"], one["text"]) for one in told["choices"]] == [
        (0, "Once upon"),
        (1, "Was there"),
    ]
    assert told["usage"] is None


def test_a_stream_ends_with_the_counts_if_asked_and_the_mark():
    done, _ = generated(event("a", num_input_tokens=1, num_output_tokens=1))
    plain = writer(stream=True)
    assert plain.tail([done]) == completions.DONE
    counting = writer(stream=True, stream_options={"include_usage": True})
    first, second = counting.tail([done]).split(b"\n\n")[:2]
    told = json.loads(first.removeprefix(b"data: "))
    assert told["choices"] == []
    assert told["usage"]["total_tokens"] == 2
    assert second == b"data: [DONE]"


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request_error"), (404, "invalid_request_error"), (429, "rate_limit_error"),
     (500, "server_error"), (503, "server_error")],
)  # fmt: skip
def test_an_error_has_openais_shape(status, kind):
    told = json.loads(completions.error_json(status, "words", "saturated", "n"))
    assert told == {"error": {"message": "words", "type": kind, "param": "n", "code": "saturated"}}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"error": "no such model"}', "no such model"),
        (b'data: {"error": "no such model"}\n\n', "no such model"),
        (b'{"error": {"message": 1}}', "the model failed"),
        (b"<html>", "the model failed"),
        (b"", "the model failed"),
    ],
)
def test_the_message_of_an_error_is_found(body, text):
    assert completions.error_text(body) == text
