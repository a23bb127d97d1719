"""Whether the hub answers, and who it thinks we are; offline settings are obeyed."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from typing import Any

from qtune import hub
from qtune.run.doctor.finding import Finding, told

WAIT = 4.0
NAME = "hub"


def check_hub() -> Finding:
    """One request, at most a few seconds; a 401 is an answer too."""
    if reason := hub.why_offline():
        return Finding(NAME, "ok", f"not asked: {reason}")
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    token = _token()
    try:
        status = ask(f"{address}/api/whoami-v2", token)
    except (OSError, ValueError) as error:
        advice = "what is cached works; set HF_HUB_OFFLINE=1 to say so, or see to the connection"
        inner = error.args[0] if isinstance(error, urllib.error.URLError) else None
        shown = told(inner if isinstance(inner, BaseException) else error)
        return Finding(NAME, "warning", f"no answer: {shown}", advice)
    if token and status in (401, 403):
        return Finding(NAME, "warning", "answers, and refuses the token", "hf auth login")
    if status >= 500:
        return Finding(NAME, "warning", f"answers with {status}", "try again later")
    who = "with a token" if token else "without a token: gated models need HF_TOKEN"
    return Finding(NAME, "ok", f"answers, {who}")


def ask(address: str, token: str | None) -> int:
    """The status of a request."""
    if not address.startswith(("https://", "http://")):
        raise ValueError(f"{address} is no address")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(address, headers=headers)  # noqa: S310 - checked above
    try:
        with urllib.request.urlopen(request, timeout=WAIT) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return int(error.code)


def _token() -> str | None:
    """The person's token, where huggingface_hub would find it."""
    try:
        import huggingface_hub

        found: Any = huggingface_hub.get_token()
    except Exception:  # a library that is broken is told by its own line
        return os.environ.get("HF_TOKEN") or None
    return found or None
