"""One chat client for any OpenAI-compatible endpoint; the rewriter and the judge use it.

In: an ``Endpoint`` and messages. Out: a ``Reply``, also for everything that goes wrong; the caller decides by ``verdict``::

    Reply(verdict="ok", text="一、…", finish="stop", usage=Usage(prompt=612, cached=512, completion=498), seconds=14.2)
    Reply(verdict="retry", reason="429 rate limit", retry_after=7.0, seconds=0.1)
    Reply(verdict="stop", reason="https://api.example.com/v1 answers 402: the balance is used up")

TLS is always verified. The key comes from ``XINGLIN_LLM_KEY`` or a file and is cut out of everything an endpoint sends back.
A proxy comes from the environment (``https_proxy``, ``http_proxy``, ``no_proxy``); this machine is always reached directly.
"""

import email.utils
import ipaddress
import json
import math
import os
import ssl
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import aiohttp
import httpx
import yarl

from xinglin.schema import Message

KEY = "XINGLIN_LLM_KEY"
CONNECT = 20.0  # seconds to reach the endpoint
STOP = {
    401: "the key is wrong or missing: set XINGLIN_LLM_KEY or the key file",
    402: "the balance is used up: top it up, then run the same command again",
    403: "the key may not use this model or this service",
    404: "no such model or path: check the URL (it usually ends in /v1) and the model name",
    405: "a POST was refused: check the URL, base_url usually ends in /v1",
    407: "the proxy wants a name and a password: check https_proxy, http_proxy and no_proxy",
}
RETRIED = {408, 409, 425, 429}
AT_FAULT = {400, 413, 422}  # the request itself, not the service
MOST = 10**9  # tokens of one answer; more is nonsense
QUOTA = ("insufficient_quota", "insufficient balance", "arrearage", "欠费")


@dataclass(frozen=True)
class Endpoint:
    """Where to ask. ``timeout`` is seconds for one whole answer; ``ca_file`` adds certificate authorities to trust."""

    base_url: str
    model: str
    key: str = field(default="", repr=False)
    ca_file: str = ""
    timeout: float = 300.0


@dataclass(frozen=True)
class Usage:
    """Tokens as the endpoint counts them; ``cached`` are those of ``prompt`` it had seen before."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0


@dataclass(frozen=True)
class Reply:
    """What came of one request.

    ``verdict``: "ok"; "retry" (may go better later); "reject" (this request is at fault); "stop" (no request can succeed).
    ``lost``: the request left, the answer did not arrive whole: the endpoint may have counted it.
    ``unreached``: nothing was sent.
    ``uncounted``: the endpoint told no usage of an answer that arrived.
    """

    verdict: Literal["ok", "retry", "reject", "stop"]
    text: str = ""
    reason: str = ""
    finish: str = ""
    usage: Usage | None = None
    retry_after: float = 0.0
    seconds: float = 0.0
    busy: bool = False
    lost: bool = False
    unreached: bool = False
    uncounted: bool = False


def endpoint(base_url: str, model: str, key_file: str = "", ca_file: str = "", timeout: float = 300.0) -> Endpoint:
    """Check the settings. Raises ``ValueError`` in one line for an unusable URL, model, key or certificate file."""
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise ValueError(f"base_url={base_url!r} is not a URL ({error}); write it like https://api.deepseek.com/v1") from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError(f"base_url={base_url!r} is not a URL; write it like https://api.deepseek.com/v1")
    if url.userinfo or url.query:
        raise ValueError(
            f"base_url of host {url.host} carries a name, password or query; the key belongs into {KEY} or a key file"
        )
    if not model:
        raise ValueError(f"model is empty; name the model that {base_url} should use")
    if ca_file and not Path(ca_file).is_file():
        raise ValueError(f"ca_file={ca_file}: no such file; name the PEM file of the authority that signed the certificate")
    secret = read_key(key_file)
    if secret and url.scheme == "http" and not _is_near(url.host):
        raise ValueError(f"base_url={base_url}: the key would cross the network in clear text; use https://")
    return Endpoint(base_url.rstrip("/"), model, secret, ca_file, timeout)


def read_key(key_file: str = "") -> str:
    """The key from a file, else from the environment; "" where there is none (local servers need none)."""
    if not key_file:
        return _one_key(os.environ.get(KEY, ""), KEY)
    try:
        secret = Path(key_file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"key_file={key_file}: cannot be read ({type(error).__name__}); it holds the key and nothing else"
        ) from None
    return _one_key(secret, f"key_file={key_file}")


def _one_key(text: str, source: str) -> str:
    secret = text.strip()
    if not secret.isprintable() or " " in secret:
        raise ValueError(f"{source}: holds more than the key; it is one line without spaces")
    return secret


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_near(host: str) -> bool:
    """This machine or a private network, where plain http is common (vLLM, Ollama)."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".local", ".lan", ".internal"))


def tls(endpoint: Endpoint) -> ssl.SSLContext:
    """Verification with the usual authorities (``SSL_CERT_FILE`` is honoured) and those of ``ca_file``."""
    context = httpx.create_ssl_context()
    if endpoint.ca_file:
        try:
            context.load_verify_locations(endpoint.ca_file)
        except ssl.SSLError as error:
            raise ValueError(f"ca_file={endpoint.ca_file}: not a PEM certificate ({error.reason})") from None
    return context


def client(endpoint: Endpoint, connections: int = 1) -> aiohttp.ClientSession:
    """A client for at most ``connections`` requests at once, made inside the loop that uses it (a quarter of httpx's time)."""
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    headers |= {"Authorization": f"Bearer {endpoint.key}"} if endpoint.key else {}
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=tls(endpoint), limit=connections, keepalive_timeout=60),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=headers,
        proxy=proxy(endpoint.base_url),
        timeout=aiohttp.ClientTimeout(total=endpoint.timeout, sock_connect=min(CONNECT, endpoint.timeout)),
    )


def proxy(base_url: str) -> str | None:
    """The proxy the environment names for this URL. Raises ``ValueError`` for one that does not speak http."""
    url = yarl.URL(base_url)
    named = urllib.request.getproxies()
    found = named.get(url.scheme) or named.get("all")
    if not found or _is_here(url.host or "") or urllib.request.proxy_bypass(url.authority):
        return None
    if not found.startswith(("http://", "https://")):
        kind = found.partition("://")[0]
        raise ValueError(f"the environment names a {kind} proxy: only http proxies work; name one in https_proxy")
    return found


async def chat(
    http: aiohttp.ClientSession, endpoint: Endpoint, messages: Sequence[Message], max_tokens: int, temperature: float = 0.0
) -> Reply:
    """Ask once; never raises for what the endpoint or the network does."""
    body = {
        "model": endpoint.model,
        "messages": list(messages),
        "max_tokens": max_tokens,
        "temperature": temperature,
        "stream": False,
    }
    content = json.dumps(body, ensure_ascii=False).encode()
    started = time.monotonic()
    try:
        async with http.post(f"{endpoint.base_url}/chat/completions", data=content, allow_redirects=False) as response:
            reply = _read(response, await response.read(), endpoint)
    except aiohttp.ClientConnectorCertificateError as error:
        reply = _not_trusted(error.certificate_error, endpoint)
    except aiohttp.ClientHttpProxyError as error:
        reply = _proxy_refused(error)
    except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError) as error:
        reply = Reply("retry", reason=f"cannot connect to {_first_hop(endpoint)} ({_cause(error)})", unreached=True)
    except TimeoutError:
        reply = Reply("retry", reason="time-out", lost=True)
    except aiohttp.ClientError as error:
        reply = Reply("retry", reason=f"connection broken ({type(error).__name__})", lost=True)
    return replace(reply, seconds=time.monotonic() - started)


def _proxy_refused(error: aiohttp.ClientHttpProxyError) -> Reply:
    said = f"the proxy answers {error.status}"
    if error.status == 407:
        return Reply("stop", reason=f"{said}: {STOP[407]}")
    return Reply("retry", reason=f"{said} {_clean(error.message)}", unreached=True)


def _first_hop(endpoint: Endpoint) -> str:
    """What a connection is made to: the proxy, without its password, or the endpoint itself."""
    found = proxy(endpoint.base_url)
    return f"the proxy {yarl.URL(found).with_user(None)}" if found else endpoint.base_url


def _cause(error: aiohttp.ConnectionTimeoutError | aiohttp.ClientConnectorError) -> str:
    if not isinstance(error, aiohttp.ClientConnectorError):
        return "no answer"
    number = error.os_error.errno or 0
    return os.strerror(number) if number > 0 else error.os_error.strerror or "no answer"


def _not_trusted(error: Exception, endpoint: Endpoint) -> Reply:
    why = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else str(error)
    advice = "name the PEM file of its authority in ca_file; there is no setting that skips the check"
    return Reply("stop", reason=f"{endpoint.base_url}: certificate refused ({why}): {advice}")


def _read(response: aiohttp.ClientResponse, content: bytes, endpoint: Endpoint) -> Reply:
    status = response.status
    if status == 200:
        return _read_answer(content)
    said = f"{endpoint.base_url} answers {status}"
    words = _scrub(_message(content), endpoint)
    detail = words[:200]
    if 400 <= status < 500 and any(word in words.lower() for word in QUOTA):
        return Reply("stop", reason=f"{said}: {STOP[402]} ({detail})")
    if status in STOP:
        return Reply("stop", reason=f"{said} for model {endpoint.model!r}: {STOP[status]} ({detail})")
    if status in RETRIED or status >= 500:
        return Reply("retry", reason=f"HTTP {status}", retry_after=_retry_after(response), busy=status in {429, 503})
    if 300 <= status < 400:
        return Reply("stop", reason=f"{said} and points to {response.headers.get('location', 'nowhere')!r}: set base_url to that")
    if status in AT_FAULT:
        return Reply("reject", reason=f"HTTP {status}: {detail}")
    return Reply("stop", reason=f"{said}: check the URL (it usually ends in /v1) and the proxy ({detail})")


def _read_answer(content: bytes) -> Reply:
    """What a 200 brought; an answer that cannot be read may have been charged all the same."""
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        paid = content.lstrip().startswith((b"{", b"data:"))
        return Reply("retry", reason="status 200 without an answer in it", lost=paid)
    usage = _usage(data.get("usage")) if isinstance(data, dict) else None
    choice = _first_choice(data)
    if choice is None:
        return Reply("retry", reason="status 200 without an answer in it", usage=usage)
    text, finish = _text(choice["message"].get("content")), _clean(str(choice.get("finish_reason") or ""))
    reply = Reply("ok", text=text, finish=finish, usage=usage or Usage(), uncounted=usage is None)
    if finish == "content_filter":
        return replace(reply, verdict="retry", text="", reason="content filtered")
    if not text.strip():
        return replace(reply, verdict="retry", text="", reason="empty answer")
    return reply


def _first_choice(data: Any) -> dict[str, Any] | None:
    try:
        choice = data["choices"][0]
        return choice if isinstance(choice["message"], dict) else None
    except (KeyError, IndexError, TypeError):
        return None


def _text(content: object) -> str:
    """The text of a message; some endpoints send it in parts."""
    if isinstance(content, list):
        content = "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return _clean(content) if isinstance(content, str) else ""


def _clean(text: str) -> str:
    """Half a character, as JSON may hold, can be neither stored nor sent on."""
    return text.encode("utf-8", "replace").decode()


def _usage(data: object) -> Usage | None:
    """Cached tokens stand under another name with DeepSeek than with OpenAI, DashScope and vLLM."""
    if not isinstance(data, dict) or not data:
        return None
    details = data.get("prompt_tokens_details")
    cached = _count(data.get("prompt_cache_hit_tokens")) or _count(
        details.get("cached_tokens") if isinstance(details, dict) else 0
    )
    prompt = _count(data.get("prompt_tokens"))
    return Usage(prompt, min(cached, prompt), _count(data.get("completion_tokens")))


def _count(value: object) -> int:
    """A number of tokens, whatever an endpoint puts there."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return 0
    try:
        number = max(min(value, MOST), 0) if isinstance(value, int) else float(value)
    except ValueError:
        return 0
    return int(min(max(number, 0), MOST)) if math.isfinite(number) else 0


def _message(content: bytes) -> str:
    """The endpoint's own words on an error, in one line."""
    try:
        data = json.loads(content)
        error = data.get("error") or data
        text = " ".join(_named(error)) if isinstance(error, dict) else str(error)
    except (ValueError, AttributeError, RecursionError):
        text = content.decode(errors="replace")
    return " ".join(_clean(text).split()) or "no message"


def _named(error: Mapping[str, Any]) -> list[str]:
    """Code, type and message, each said once."""
    return list(dict.fromkeys(str(error[name]) for name in ("code", "type", "message") if error.get(name)))


def _scrub(text: str, endpoint: Endpoint) -> str:
    return text.replace(endpoint.key, "***") if endpoint.key else text


def _retry_after(response: aiohttp.ClientResponse) -> float:
    """Seconds to wait, from a number or a date; 0 where the endpoint names none."""
    value = response.headers.get("retry-after", "")
    try:
        seconds = float(value)
        return seconds if math.isfinite(seconds) and seconds > 0 else 0.0
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
