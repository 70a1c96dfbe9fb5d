import base64
import io
import time

import pytest
from PIL import Image
from pydantic import SecretStr

from geoloc.candidates.endpoint import FAILURES, Endpoint
from geoloc.candidates.engine import Completion, Request, check_engine
from geoloc.candidates.options import EngineOptions, Generation, Sampling
from geoloc.errors import PhotoError, UsageError
from geoloc.storage import S3Options
from tests.candidates.servers import PARIS, Response, endpoint, error, replied

KEY = "sk-very-secret"


def jpeg(shade: int = 100) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), (shade, 90, 80)).save(buffer, "JPEG")
    return buffer.getvalue()


def request(samples: int = 3, text: str = "Where?") -> Request:
    return Request("a.jpg", "zero-shot", text, jpeg(), samples)


def ask(
    url: str, *requests: Request, retries: int = 2, key: str | None = KEY, sampling: Sampling | None = None, **options
):
    engine = Endpoint(
        EngineOptions(model="some-model", endpoint=url, **options),
        sampling or Sampling(),
        SecretStr(key) if key else None,
        retries,
    )
    return [answer for _, answer in sorted(engine.complete(requests or [request()]))]


def test_what_is_sent_is_what_the_papers_send():
    with endpoint() as server:
        [answer] = ask(server.url, sampling=Sampling(temperature=1.2, seed=5))
    assert answer == Completion((PARIS,) * 3, 300, 60, 1)
    [body] = server.asked
    text, picture = body["messages"][0]["content"]
    assert (body["model"], body["n"], body["temperature"], body["max_tokens"], body["seed"]) == (
        "some-model",
        3,
        1.2,
        200,
        5,
    )
    assert text == {"type": "text", "text": "Where?"}
    assert picture["image_url"]["detail"] == "low"
    data = picture["image_url"]["url"].removeprefix("data:image/jpeg;base64,")
    assert base64.b64decode(data) == jpeg()
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


def test_what_is_not_set_is_not_sent():
    with endpoint() as server:
        ask(server.url, sampling=Sampling(temperature=None))
    assert not {"temperature", "top_p", "seed"} & set(server.asked[0])


@pytest.mark.parametrize(
    "first",
    [
        error(429, "slow down", {"Retry-After": "0.1"}),
        error(429, "slow down"),
        error(500, "oops"),
        error(503, "overloaded"),
        Response(cut="reset"),
        Response([PARIS] * 3, cut="half"),
        Response(body=b"<html>a proxy's page</html>"),
        Response(body=b"[]"),
        Response(body=b'{"choices": "none"}'),
        Response(body=b'{"choices": [{}]}'),
    ],
    ids=["429 with", "429 without", "500", "503", "reset", "half", "html", "list", "choices", "message"],
)
def test_what_passes_is_tried_again(first):
    with endpoint(lambda body, number: first if number == 0 else replied(body)) as server:
        [answer] = ask(server.url)
    assert answer.replies == (PARIS,) * 3
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        (error(400, "your request was rejected by our safety system"), "status 400: your request was rejected"),
        (error(422, "cannot read the image"), "status 422: cannot read the image"),
        (error(413, "too large"), "--generator-image-px 512 makes it smaller"),
    ],
)
def test_a_photo_that_is_refused_is_not_asked_about_again(refusal, expected):
    with endpoint(lambda body, number: refusal) as server:
        [answer] = ask(server.url)
    assert isinstance(answer, PhotoError)
    assert answer.kind == "refused"
    assert expected in answer.message
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (error(401, f"Incorrect API key provided: {KEY}"), "refuses the key .*GEOLOC_GENERATOR_KEY"),
        (error(403, "no"), "refuses the key"),
        (error(404, "the model some-model does not exist"), "no model some-model"),
        (
            Response(status=307, body=b"", headers={"Location": "http://127.0.0.1:9/elsewhere"}),
            "has no chat completions",
        ),
        (error(429, "you exceeded your quota", code="insufficient_quota"), "its quota is used up"),
    ],
)
def test_what_will_not_get_better_stops(response, expected):
    with endpoint(lambda body, number: response) as server, pytest.raises(UsageError, match=expected) as raised:
        ask(server.url, retries=0)
    assert KEY not in str(raised.value)
    assert str(raised.value).startswith(f"--generator-endpoint {server.url}: ")


def test_no_key_is_told_as_such():
    with endpoint(lambda body, number: error(401, "no")) as server, pytest.raises(UsageError, match="wants a key"):
        ask(server.url, key=None)


def test_an_endpoint_that_answers_nobody_stops():
    many = [request(text=str(n)) for n in range(FAILURES + 10)]
    with (
        endpoint(lambda body, number: error(500, f"trouble with {KEY}")) as server,
        pytest.raises(UsageError, match=f"did not answer {FAILURES} requests in a row .*go on") as raised,
    ):
        ask(server.url, *many, retries=0)
    assert KEY not in str(raised.value)


def test_one_in_five_that_fails_stops_nothing():
    many = [request(text=str(n)) for n in range(200)]
    with endpoint(lambda body, number: error(500, "oops") if number % 5 == 4 else replied(body)) as server:
        answers = ask(server.url, *many, retries=0)
    assert sum(isinstance(answer, Completion) for answer in answers) == 160
    assert {answer.kind for answer in answers if isinstance(answer, PhotoError)} == {"endpoint"}


def test_servers_that_give_fewer_choices_are_asked_for_the_rest():
    with endpoint(lambda body, number: Response([f"{number}.5, 1.25"])) as server:
        [answer] = ask(server.url)
    assert answer == Completion(("0.5, 1.25", "1.5, 1.25", "2.5, 1.25"), 900, 60, 3)
    assert [body["n"] for body in server.asked] == [3, 1, 1]


def test_servers_that_refuse_several_choices_are_asked_one_by_one():
    def script(body: dict, number: int) -> Response:
        return error(400, "Only one completion choice is allowed") if body["n"] > 1 else replied(body)

    with endpoint(script) as server:
        [answer] = ask(server.url)
    assert answer.replies == (PARIS,) * 3
    assert [body["n"] for body in server.asked] == [3, 1, 1, 1]


def test_models_that_want_max_completion_tokens_get_it():
    def script(body: dict, number: int) -> Response:
        if "max_tokens" in body:
            return error(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        return replied(body)

    with endpoint(script) as server:
        answers = ask(server.url, request(), request(text="And where?"), concurrency=1)
    assert all(answer.replies for answer in answers)
    assert [body.get("max_completion_tokens") for body in server.asked] == [None, 200, 200]


def test_no_more_at_once_than_asked_for():
    with endpoint(lambda body, number: replied(body) if not time.sleep(0.05) else None) as server:
        ask(server.url, *[request(text=str(n)) for n in range(30)], concurrency=4)
    assert server.most_at_once == 4


def test_no_faster_than_asked_for():
    start = time.monotonic()
    with endpoint() as server:
        ask(server.url, *[request(text=str(n)) for n in range(6)], requests_per_minute=600)
    assert time.monotonic() - start > 0.4


def test_an_answer_that_does_not_come_is_waited_for_so_long():
    start = time.monotonic()
    with endpoint(lambda body, number: Response([PARIS], delay_s=3)) as server:
        [answer] = ask(server.url, retries=0, timeout_s=0.5)
    assert answer.kind == "endpoint"
    assert time.monotonic() - start < 2.5


def test_an_endless_answer_is_not_read_to_its_end():
    with endpoint(lambda body, number: Response(body=b" " * (20 << 20))) as server:
        [answer] = ask(server.url, retries=0)
    assert answer.kind == "endpoint"
    assert "16 MB" in answer.message


def test_empty_and_strange_contents_are_replies_that_tell_nothing():
    body = b'{"choices": [{"message": {"content": null, "refusal": "no"}}, {"message": {"content": [{"type": "text", "text": "1.5, 2.25"}]}}], "usage": null}'
    with endpoint(lambda asked, number: Response(body=body)) as server:
        [answer] = ask(server.url, request(samples=2))
    assert answer == Completion(("", "1.5, 2.25"), 0, 0, 1)


def test_an_endpoint_is_asked_before_any_photo():
    def check(script=None):
        with endpoint(*([script] if script else [])) as server:
            generation = Generation(engine=EngineOptions(model="m", endpoint=server.url))
            check_engine(generation, S3Options(), SecretStr(KEY))

    check()
    with pytest.raises(UsageError, match=r"does not answer about a picture \(status 500: image input is not supported"):
        check(
            lambda body, number: error(500, "image input is not supported - hint: you may need to provide the mmproj")
        )
    with pytest.raises(UsageError, match="speak OpenAI's chat completions"):
        check(lambda body, number: Response(body=b'{"predictions": [1]}'))


def test_nobody_there():
    with endpoint() as server:
        url = server.url
    [answer] = ask(url, retries=0)
    assert answer.kind == "endpoint"
