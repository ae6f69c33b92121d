"""Which of the forms that an answer has suits the Accept header best (RFC 9110 §12.5.1)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from app.problems import ProblemError, ProblemType


def preferred(headers: Iterable[tuple[bytes, bytes]], forms: Sequence[str]) -> str:
    """The form that the client likes best; of equals, the first.

    Args:
        headers: the request's.
        forms: media types without parameters, the default first.

    Raises:
        ProblemError: NOT_ACCEPTABLE where every one is excluded.
    """
    accept = ",".join(value.decode("latin-1") for name, value in headers if name == b"accept")
    if not accept.strip():
        return forms[0]
    ranges = [_read(each) for each in accept.split(",") if each.strip()]
    weights = {form: _weight(form, ranges) for form in forms}
    best = max(forms, key=lambda form: weights[form])
    if weights[best] <= 0:
        raise ProblemError(
            ProblemType.NOT_ACCEPTABLE,
            f"Accept: {accept} excludes every form of the answer",
            field="Accept",
            hint=f"accept {' or '.join(forms)}, as in --header 'Accept: {forms[0]}'",
        )
    return best


def is_named(headers: Iterable[tuple[bytes, bytes]], form: str) -> bool:
    """Whether the client names this form itself as one that it takes; a wildcard does not."""
    ranges = (
        _read(each)
        for name, value in headers
        if name == b"accept"
        for each in value.decode("latin-1").split(",")
    )
    return any(media == form and weight > 0 for media, weight in ranges)


def _read(text: str) -> tuple[str, float]:
    media, *parameters = (part.strip().lower() for part in text.split(";"))
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return media, min(max(float(parameter[2:]), 0.0), 1.0)
            except ValueError:
                return media, 0.0
    return media, 1.0


def _weight(form: str, ranges: Iterable[tuple[str, float]]) -> float:
    """The weight of the most specific range that the form is in; 0 where it is in none."""
    wanted = (form, form.partition("/")[0] + "/*", "*/*")
    found = {media: weight for media, weight in ranges if media in wanted}
    return next((found[media] for media in wanted if media in found), 0.0)
