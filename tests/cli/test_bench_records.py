import cbor2
from hypothesis import given
from hypothesis import strategies as st

from cli.bench.records import (
    DISTRICTS,
    PER_PAGE,
    STATUSES,
    as_json,
    canonical_bytes,
    definition,
    questions,
    record_id,
    records,
    rendered,
    request,
)


def test_a_record_has_the_eight_fields_of_the_model_and_about_275_bytes() -> None:
    fields = definition()["fields"]
    assert isinstance(fields, list)
    sample = list(records(2_000))
    assert all(list(record) == [field["name"] for field in fields] for record in sample)
    assert len(fields) == 8
    assert all(record["status"] in STATUSES for record in sample)
    assert 265 <= sum(len(as_json(record)) for record in sample) / len(sample) <= 285


def test_records_differ_from_one_another_and_not_from_run_to_run() -> None:
    sample = [as_json(record) for record in records(1_000)]
    assert len(set(sample)) == 1_000
    assert sample == [as_json(record) for record in records(1_000)]
    assert sample != [as_json(record) for record in records(1_000, seed=1)]


@given(record_count=st.sampled_from([2_000, 4_000, 10_000, 100_000]))
def test_every_question_has_a_full_page_for_an_answer(record_count: int) -> None:
    in_a_district = record_count // DISTRICTS
    for question in questions(3_000, record_count):
        assert 1 <= question.page <= in_a_district // PER_PAGE


def test_thousands_of_questions_pass_before_one_comes_again() -> None:
    asked = questions(7_000, 10_000)
    assert len(set(asked)) == 7_000
    assert questions(7_001, 10_000)[-1] == asked[0]


def test_a_question_is_written_as_a_node_reads_it() -> None:
    text = questions(1, 10_000)[0].query_string()
    assert text.startswith("filter=district%3Aeq%3Adistrict-0")
    assert text.endswith("&per_page=20")


def test_the_size_in_canonical_cbor_is_the_mean_over_the_records() -> None:
    sample = [{"b": 1, "a": "x"}, {"b": 1, "a": "xyz"}]
    assert canonical_bytes(sample) == (len(cbor2.dumps(sample[0])) + len(cbor2.dumps(sample[1]))) / 2


def test_the_floor_answers_records_of_the_length_a_node_answers() -> None:
    cached = rendered(3)
    assert list(cached) == [record_id(number) for number in range(3)]
    assert {len(found) for found in cached} == {26}


def test_a_request_says_its_host_its_token_and_its_length() -> None:
    head, _, body = request("POST", "/x", port=81, body=b"{}", token="t").partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"POST /x HTTP/1.1",
        b"Host: 127.0.0.1:81",
        b"Accept: application/json",
        b"Authorization: Bearer t",
        b"Content-Type: application/json",
        b"Content-Length: 2",
    ]
    assert body == b"{}"
    assert b"Content" not in request("GET", "/x", port=81)
