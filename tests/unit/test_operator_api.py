"""Every call of the operator API, before and after its route: who may, what is refused, under which ids it goes."""

from __future__ import annotations

import base64
import json
from typing import Annotated, Any

import pytest
from aws_lambda_powertools.event_handler.openapi.params import Path, Query
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from functions.core.failure import StorageUnavailable
from functions.operator_api.caller import Caller, Permission, caller_of
from functions.operator_api.handler import caller
from functions.operator_api.problems import Code, Refusal
from functions.operator_api.request import MAX_BODY_BYTES, MAX_DEPTH, MAX_PATH_CHARACTERS
from tests.operator_calls import MACHINE, OPERATOR, VIEWER, Answering, call, claims_of, machine_claims

VIEW, OPERATE = Permission.VIEW, Permission.OPERATE
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Note(BaseModel):
    model_config = ConfigDict(extra="forbid")
    reason: Annotated[str, Field(min_length=1, max_length=100)]


class Told(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    said: str


class Room:
    """A subject with one call of each kind, and what was done in it."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.callers: list[Caller] = []
        self.trouble: Exception | None = None
        self.answer: Any = None
        self.router = APIGatewayHttpRouter()  # type: ignore[no-untyped-call]  # Powertools leaves it untyped
        self.router.get("/platform/rooms/<name>")(self.look)
        self.router.post("/platform/rooms/<name>/note")(self.note)
        self.router.delete(
            "/platform/rooms/<name>",
            responses={200: {"description": "Cleared."}, 409: {"description": "Somebody is in it."}},
        )(self.clear)

    def look(self, name: Annotated[str, Path(max_length=64)], limit: Annotated[int, Query(ge=1, le=200)] = 50) -> Told:
        return self._do(f"look {name} {limit}", name)

    def note(self, name: Annotated[str, Path(max_length=64)], note: Note) -> Told:
        return self._do(f"note {name} {note.reason}", name)

    def clear(self, name: Annotated[str, Path(max_length=64)]) -> Told:
        return self._do(f"clear {name}", name)

    def _do(self, what: str, name: str) -> Told:
        if self.trouble is not None:
            raise self.trouble
        self.callers.append(caller(self.router))
        self.done.append(what)
        told: Told = Told(name=name, said=what) if self.answer is None else self.answer
        return told


@pytest.fixture
def room() -> Room:
    return Room()


@pytest.fixture
def answering(room: Room) -> Answering:
    return Answering([room.router])


def is_problem(answer: dict[str, Any], code: Code) -> bool:
    document = answer["document"]
    return (
        answer["statusCode"] == document["status"] == code.status
        and document["code"] == code
        and answer["headers"]["Content-Type"] == "application/problem+json"
        and document["request_id"] == answer["headers"]["x-request-id"]
        and {"type", "title", "detail"} <= set(document)
    )


# ------------------------------------------------------------------------------------------------------------- who may


@pytest.mark.parametrize(
    ("method", "path", "needed"),
    [
        ("GET", "/platform/rooms/a", VIEW),
        ("POST", "/platform/rooms/a/note", OPERATE),
        ("DELETE", "/platform/rooms/a", OPERATE),
    ],
)
@pytest.mark.parametrize("kind", ["person", "machine"])
def test_looking_needs_view_and_all_else_needs_operate_which_implies_view(
    answering: Answering, room: Room, method: str, path: str, needed: Permission, kind: str
) -> None:
    body = '{"reason": "why"}' if method == "POST" else None
    for has in ([], [VIEW], [OPERATE], [VIEW, OPERATE]):
        claims = claims_of("ada", *has) if kind == "person" else machine_claims(*has)
        before = list(room.done)
        answer = answering(call(method, path, claims=claims, body=body))
        if needed in has or OPERATE in has:
            assert answer["statusCode"] == 200
            assert len(room.done) == len(before) + 1
        else:
            assert is_problem(answer, Code.PERMISSION_DENIED)
            assert answer["document"]["detail"] == f"platform.member_admin.{needed.name.lower()} is needed"
            assert room.done == before


def test_who_may_not_is_told_so_before_anything_of_the_request_is_read(answering: Answering, room: Room) -> None:
    broken = "{" * 1000
    assert is_problem(
        answering(call("POST", "/platform/rooms/a/note", claims=VIEWER, body=broken)), Code.PERMISSION_DENIED
    )
    assert is_problem(answering(call("POST", "/platform/no/such", claims=VIEWER)), Code.PERMISSION_DENIED)
    assert is_problem(answering(call("POST", "/platform/rooms/a/note", body=broken)), Code.UNAUTHORIZED)
    assert room.done == []


def test_a_request_that_no_token_came_with_is_answered_401_even_if_the_gateway_let_it_in(answering: Answering) -> None:
    answer = answering(call("GET", "/platform/rooms/a"))
    assert is_problem(answer, Code.UNAUTHORIZED)
    assert answer["headers"]["www-authenticate"] == "Bearer"


def test_an_id_token_is_refused_though_the_gateway_takes_it(answering: Answering, room: Room) -> None:
    id_token = {**claims_of("ada", OPERATE), "token_use": "id", "cognito:username": "ada"}
    assert is_problem(answering(call("GET", "/platform/rooms/a", claims=id_token)), Code.UNAUTHORIZED)
    assert room.done == []


@pytest.mark.parametrize(
    "groups",
    [
        "[platform.member_admin.operate]",
        "[others platform.member_admin.operate]",
        "[others, platform.member_admin.operate]",
        ["others", "platform.member_admin.operate"],
        "platform.member_admin.operate",
    ],
)
def test_groups_are_read_as_the_gateway_may_write_them(groups: object) -> None:
    event = call("GET", "/", claims={**claims_of("ada"), "cognito:groups": groups})
    assert caller_of(event, "0" * 32).permissions == {OPERATE}


@pytest.mark.parametrize(
    "claims",
    [
        {"cognito:groups": "[platform.member_admin.operator]"},
        {"cognito:groups": "[xplatform.member_admin.operate]"},
        {"cognito:groups": {"platform.member_admin.operate": 1}},
        {"scope": "platform.member_admin/operate2 platform.member_admin"},
        {"scope": ["platform.member_admin/operate"]},
        {"scope": "aws.cognito.signin.user.admin openid"},
        {"platform.member_admin/operate": "true"},
    ],
)
def test_what_only_looks_like_a_permission_is_none(claims: dict[str, Any]) -> None:
    event = call("GET", "/", claims={"token_use": "access", "username": "mallory", **claims})
    assert caller_of(event, "0" * 32).permissions == frozenset()


def test_the_audit_names_the_person_or_the_machine(answering: Answering, room: Room) -> None:
    answering(call("GET", "/platform/rooms/a", claims=VIEWER))
    answering(call("GET", "/platform/rooms/a", claims=machine_claims(VIEW)))
    assert [who.name for who in room.callers] == ["ada", MACHINE]


# ---------------------------------------------------------------------------------------------------------------- ids


def test_request_id_and_traceparent_go_in_through_and_out(answering: Answering, room: Room) -> None:
    headers = {"X-Request-Id": "incident-4711.a", "Traceparent": TRACE}
    answer = answering(call("GET", "/platform/rooms/a", claims=VIEWER, headers=headers))
    assert (room.callers[0].request_id, room.callers[0].traceparent) == ("incident-4711.a", TRACE)
    assert (answer["headers"]["x-request-id"], answer["headers"]["traceparent"]) == ("incident-4711.a", TRACE)
    (line,) = answering.lines()
    assert (line["request_id"], line["traceparent"], line["actor"]) == ("incident-4711.a", TRACE, "ada")


@pytest.mark.parametrize("sent", ["", "short", "x" * 65, "with space 1", "line\nbreak-1", "ümlaut-ümlaut", "a/b/c/d/e"])
def test_a_request_id_that_is_not_well_formed_is_replaced(answering: Answering, sent: str) -> None:
    answer = answering(call("GET", "/platform/rooms/a", claims=VIEWER, headers={"x-request-id": sent}))
    assert answer["headers"]["x-request-id"] == f"{1:032x}"


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "garbage",
        TRACE.upper(),
        TRACE + "-more",
        "01" + TRACE[2:],
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        TRACE + "\n",
    ],
)
def test_a_traceparent_that_is_not_one_is_begun_anew(answering: Answering, sent: str) -> None:
    answer = answering(call("GET", "/platform/rooms/a", claims=VIEWER, headers={"traceparent": sent}))
    assert answer["headers"]["traceparent"] == f"00-{1:032x}-{0:016x}-01".replace(
        f"-{0:016x}-", f"-{1:032x}"[:17] + "-"
    )


@pytest.mark.parametrize(
    "event",
    [
        call("GET", "/platform/rooms/a", claims=VIEWER),
        call("GET", "/platform/no/such", claims=VIEWER),
        call("POST", "/platform/rooms/a/note", claims=OPERATOR, body="["),
        call("POST", "/platform/rooms/a/note", claims=VIEWER),
        call("GET", "/platform/rooms/a"),
        call("GET", "/platform/" + "x" * 1_000_000, claims=VIEWER),
        {},
    ],
)
def test_every_answer_has_its_ids_is_logged_once_and_is_counted_by_its_status(
    answering: Answering, event: dict[str, Any]
) -> None:
    answer = answering(event)
    assert answer["headers"]["x-request-id"]
    assert answer["headers"]["traceparent"].startswith("00-")
    assert answer["headers"]["cache-control"] == "no-store"
    (line,) = answering.lines()
    assert line["status"] == answer["statusCode"]
    assert "unlisted_fields" not in line
    (counted,) = map(json.loads, answering.counted)
    assert (counted["operator_calls"], counted["outcome"]) == ([1.0], str(answer["statusCode"]))


# ------------------------------------------------------------------------------------------------------------ hostile


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"version": "1.0"},
        {"requestContext": None, "headers": None, "body": None},
        {"requestContext": "text", "headers": "text", "body": 7},
        {"requestContext": [], "headers": [], "rawPath": []},
        {"requestContext": {"http": "GET", "authorizer": "yes"}},
        {"requestContext": {"http": {"method": None}, "authorizer": {"jwt": "ey"}}},
        {"requestContext": {"http": {"method": "GET"}, "authorizer": {"jwt": {"claims": ["username", "ada"]}}}},
        {"requestContext": {"authorizer": {"jwt": {"claims": {"username": None, "client_id": ""}}}}},
    ],
)
def test_an_event_without_a_token_that_can_be_read_is_401(answering: Answering, event: dict[str, Any]) -> None:
    assert is_problem(answering(event), Code.UNAUTHORIZED)


@pytest.mark.parametrize(
    "changed",
    [
        {"headers": None},
        {"headers": ["accept"]},
        {"headers": {"x-request-id": None, "content-type": 5}},
        {"queryStringParameters": None},
        {"queryStringParameters": "limit=1"},
        {"cookies": "no list"},
        {"cookies": [None, 1, "==;=;"]},
        {"pathParameters": 5},
        {"routeKey": None},
        {"version": None},
        {"isBase64Encoded": "no"},
    ],
)
def test_an_event_of_another_shape_is_answered_as_far_as_it_can_be_read(
    answering: Answering, changed: dict[str, Any]
) -> None:
    answer = answering({**call("GET", "/platform/rooms/a", claims=VIEWER), **changed})
    assert answer["statusCode"] == 200


@pytest.mark.parametrize(
    "method", ["BREW", "", "get", "OPTIONS", "TRACE", "CONNECT", "PATCH", "HEAD", "\x00", "G" * 10_000]
)
def test_a_method_that_no_call_has_is_404_or_a_call(answering: Answering, room: Room, method: str) -> None:
    answer = answering(call(method, "/platform/rooms/a", claims=OPERATOR))
    if method == "get":
        assert answer["statusCode"] == 200
    else:
        assert is_problem(answer, Code.NOT_FOUND)
        assert room.done == []


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "platform",
        "/platform",
        "/platform/rooms/",
        "/platform/rooms/a/b",
        "/platform/rooms//",
        "//platform/rooms/a",
        "/platform/rooms/../switches",
        "/platform/rooms/%zz/note",
        "/platform/rooms/a\x00b",
        "/platform/rooms/a?b#c",
        "/platform/rooms/\ud800",
        "/platform/" + "a" * (MAX_PATH_CHARACTERS + 1),
        "/platform/rooms/" + "%41" * 400_000,
        "/platform/" + "a/" * 500_000,
    ],
)
def test_a_path_that_no_call_has_is_404(answering: Answering, room: Room, path: str) -> None:
    assert is_problem(answering(call("GET", path, claims=VIEWER)), Code.NOT_FOUND)
    assert room.done == []


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/platform/rooms/a%3Ab", "a:b"),
        ("/platform/rooms/%C3%BC", "ü"),
        ("/platform/rooms/a%2Fb", "a%2Fb"),
        ("/platform/rooms/a+b", "a+b"),
        ("/platform/rooms/a%20b", "a b"),
        ("/platform/rooms/%", "%"),
        ("/platform/rooms/%zz", "%zz"),
    ],
)
def test_parameters_of_a_path_are_decoded_but_for_the_slash(
    answering: Answering, room: Room, path: str, name: str
) -> None:
    assert answering(call("GET", path, claims=VIEWER))["statusCode"] == 200
    assert room.done == [f"look {name} 50"]


def encoded(text: str | bytes) -> str:
    return base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


@pytest.mark.parametrize(
    ("body", "is_base64", "detail"),
    [
        ("{", False, "is not JSON"),
        ("nope", False, "is not JSON"),
        ("\ufeff{}", False, "is not JSON"),
        ('{"reason": NaN}', False, "is not JSON"),
        ('{"reason": -Infinity}', False, "is not JSON"),
        ('{"reason": "\\ud800"}', False, "is not JSON"),
        ('{"reason": "\ud800"}', False, "not text in UTF-8"),
        ("[" * 50_000, False, "is not JSON"),
        ("[" * 50_000 + "]" * 50_000, False, ""),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), False, f"deeper than {MAX_DEPTH} levels"),
        ('{"a":' * (MAX_DEPTH + 1) + "1" + "}" * (MAX_DEPTH + 1), False, f"deeper than {MAX_DEPTH} levels"),
        ('{"reason": "' + "x" * MAX_BODY_BYTES + '"}', False, f"larger than {MAX_BODY_BYTES} bytes"),
        ('{"reason": "' + "ü" * (MAX_BODY_BYTES // 2) + '"}', False, f"larger than {MAX_BODY_BYTES} bytes"),
        ('{"reason": ' + "9" * 20_000 + "}", False, "is not JSON"),
        (encoded(b"\xff\xfe\x00"), True, "not text in UTF-8"),
        (encoded(b"\x1f\x8b\x08\x00"), True, "not text in UTF-8"),
        ("not base64!", True, "not text in UTF-8"),
        ("ümlaut", True, "not text in UTF-8"),
        ("e30", True, "not text in UTF-8"),
        (encoded("["), True, "is not JSON"),
    ],
)
def test_a_body_that_cannot_be_read_is_400_and_says_why(
    answering: Answering, room: Room, body: str, is_base64: bool, detail: str
) -> None:
    event = call("POST", "/platform/rooms/a/note", claims=OPERATOR, body=body, is_base64=is_base64)
    answer = answering(event)
    assert is_problem(answer, Code.INVALID_PAYLOAD)
    assert detail in answer["document"]["detail"]
    assert room.done == []


@pytest.mark.parametrize("body", [7, ["x"], {"reason": "why"}, True])
def test_a_body_that_is_no_text_is_400(answering: Answering, body: object) -> None:
    event = {**call("POST", "/platform/rooms/a/note", claims=OPERATOR), "body": body}
    assert is_problem(answering(event), Code.INVALID_PAYLOAD)


@pytest.mark.parametrize(
    ("body", "at"),
    [
        (None, "body"),
        ("", "body"),
        ("null", "body"),
        ("[]", "body"),
        ('"reason"', "body"),
        ("{}", "body/reason"),
        ('{"reason": ""}', "body/reason"),
        ('{"reason": 7}', "body/reason"),
        ('{"reason": "why", "actor": "eve"}', "body/actor"),
        ('{"reason": "' + "x" * 101 + '"}', "body/reason"),
    ],
)
def test_a_body_that_the_call_does_not_take_is_400_and_says_where(
    answering: Answering, room: Room, body: str | None, at: str
) -> None:
    answer = answering(call("POST", "/platform/rooms/a/note", claims=OPERATOR, body=body))
    assert is_problem(answer, Code.INVALID_PAYLOAD)
    assert any(problem["at"].startswith(at.partition("/")[0]) for problem in answer["document"]["problems"])
    assert any(problem["at"].endswith(at.rpartition("/")[2]) for problem in answer["document"]["problems"])
    assert room.done == []


@pytest.mark.parametrize(
    "media",
    ["application/json", "Application/JSON", "application/json; charset=utf-8", " application/json ;charset=x"],
)
def test_json_is_json_however_its_media_type_is_written_and_however_it_is_encoded(
    answering: Answering, room: Room, media: str
) -> None:
    text = '{"reason": "für „alle“ 😀"}'
    for body, is_base64 in ((text, False), (encoded(text), True)):
        event = call(
            "POST",
            "/platform/rooms/a/note",
            claims=OPERATOR,
            body=body,
            is_base64=is_base64,
            headers={"Content-Type": media},
        )
        del event["headers"]["content-type"]
        assert answering(event)["statusCode"] == 200
    assert room.done == ["note a für „alle“ 😀"] * 2


@pytest.mark.parametrize(
    "media", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data", "application/jsonx", ",", "*/*"]
)
def test_another_media_type_is_400_and_not_guessed_at(answering: Answering, room: Room, media: str) -> None:
    """`curl -d` sends a form where nobody says otherwise."""
    event = call(
        "POST", "/platform/rooms/a/note", claims=OPERATOR, body='{"reason": "why"}', headers={"content-type": media}
    )
    answer = answering(event)
    assert is_problem(answer, Code.INVALID_PAYLOAD)
    assert answer["document"]["detail"] == "the body must be application/json"
    assert room.done == []


@pytest.mark.parametrize("limit", ["0", "201", "-1", "x", "", "1,2", "1e3", "٣٤", "9" * 5_000, "1\x00"])
def test_a_parameter_that_the_call_does_not_take_is_400(answering: Answering, room: Room, limit: str) -> None:
    answer = answering(call("GET", "/platform/rooms/a", claims=VIEWER, query={"limit": limit}))
    assert is_problem(answer, Code.INVALID_PAYLOAD)
    assert answer["document"]["problems"][0]["at"] == "query/limit"
    assert room.done == []


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    method=st.sampled_from(["GET", "POST", "DELETE", "PUT"]) | st.text(max_size=8),
    path=st.sampled_from(["/platform/rooms/a", "/platform/rooms/a/note"]) | st.text(max_size=40),
    claims=st.sampled_from([VIEWER, OPERATOR]) | ANY_JSON,
    body=ANY_JSON | st.text(alphabet=st.characters(), max_size=60),
    headers=st.dictionaries(
        st.sampled_from(["content-type", "x-request-id", "traceparent", "cookie"]) | st.text(), st.text()
    )
    | ANY_JSON,
    query=st.dictionaries(st.sampled_from(["limit"]) | st.text(), st.text()) | ANY_JSON,
    is_base64=st.booleans(),
)
def test_whatever_comes_nothing_is_raised_and_nothing_is_a_defect(
    method: str, path: str, claims: Any, body: Any, headers: Any, query: Any, is_base64: bool
) -> None:
    event = call(method, path)
    event |= {"headers": headers, "queryStringParameters": query, "body": body, "isBase64Encoded": is_base64}
    event["requestContext"]["authorizer"] = {"jwt": {"claims": claims}}
    answer = ANYTHING(event)
    assert answer["statusCode"] < 500
    json.dumps(answer)


ANYTHING = Answering([Room().router])


# ------------------------------------------------------------------------------------------------------------ trouble


def test_storage_that_does_not_answer_is_503(answering: Answering, room: Room) -> None:
    room.trouble = StorageUnavailable("write rows: ThrottlingException")
    answer = answering(call("DELETE", "/platform/rooms/a", claims=OPERATOR))
    assert is_problem(answer, Code.UNAVAILABLE)
    assert "nothing was changed" in answer["document"]["detail"]
    assert "Throttling" not in answer["body"]
    (line,) = answering.lines()
    assert (line["level"], line["status"], line["reason"]) == ("WARNING", 503, "write rows: ThrottlingException")


def test_what_storage_said_to_a_call_that_gave_up_on_it_is_in_the_log(answering: Answering, room: Room) -> None:
    room.trouble = Refusal(Code.UNAVAILABLE, "whether it was changed is not known")
    room.trouble.__cause__ = StorageUnavailable("write rows: AccessDeniedException")
    answering(call("DELETE", "/platform/rooms/a", claims=OPERATOR))
    room.trouble = None
    answering(call("GET", "/platform/rooms/a", claims=OPERATOR))
    troubled, well = answering.lines()
    assert (troubled["level"], troubled["reason"]) == ("WARNING", "write rows: AccessDeniedException")
    assert (well["level"], "reason" in well) == ("INFO", False)


def test_a_refusal_carries_what_the_call_tells_more(answering: Answering, room: Room) -> None:
    room.trouble = Refusal(Code.REPLAY_CONFLICT, "it is waiting", current_status="pending")
    answer = answering(call("DELETE", "/platform/rooms/a", claims=OPERATOR))
    assert is_problem(answer, Code.REPLAY_CONFLICT)
    assert answer["document"]["current_status"] == "pending"


@pytest.mark.parametrize("trouble", [KeyError("secret-value"), RuntimeError("secret-value"), RecursionError()])
def test_a_defect_of_ours_is_a_problem_that_tells_no_more_than_its_id(
    answering: Answering, room: Room, trouble: Exception
) -> None:
    room.trouble = trouble
    answer = answering(call("GET", "/platform/rooms/a", claims=VIEWER))
    assert is_problem(answer, Code.DEFECT)
    assert "secret-value" not in answer["body"] + answering.log.getvalue()
    first = answering.lines()[0]
    assert (first["level"], first["request_id"]) == ("ERROR", answer["headers"]["x-request-id"])


def test_an_answer_of_ours_that_is_not_as_documented_is_a_defect_and_not_the_callers_fault(
    answering: Answering, room: Room
) -> None:
    room.answer = {"name": "a", "undocumented": 1}
    answer = answering(call("GET", "/platform/rooms/a", claims=VIEWER))
    assert is_problem(answer, Code.DEFECT)
    assert "UndocumentedAnswer" in answering.log.getvalue()


def test_one_request_after_a_defect_knows_nothing_of_it(answering: Answering, room: Room) -> None:
    room.trouble = KeyError("x")
    answering(call("GET", "/platform/rooms/a", claims=VIEWER))
    room.trouble = None
    answer = answering(call("GET", "/platform/rooms/b", claims=machine_claims(VIEW)))
    assert answer["document"] == {"name": "b", "said": "look b 50"}
    assert room.callers[-1].name == MACHINE
