"""What a single YAML value means: to klab in a scenario, and to kubectl in a manifest or a kubeconfig. Pure.

YAML 1.1, YAML 1.2 and the programs that read either disagree about 010, 1:30, yes and 2024-01-01, and PyYAML's own
rules are those of neither kubectl nor an editor. So PyYAML only tells here which values have no quotes.
"""

from __future__ import annotations

import base64
import json
import math
import re
from typing import Any

import yaml

# The tag of a value without quotes and without a tag of its own.
PLAIN = "klab:plain"
STANDARD = "tag:yaml.org,2002:"
_TEXT = STANDARD + "str"
_MOST_DIGITS = 50


class PlainLoader(yaml.BaseLoader):
    """Reads nodes whose plain values have the tag PLAIN."""


class PlainDumper(yaml.BaseDumper):
    """Writes nodes that a PlainLoader has read, each value with its own quotes."""

    def process_tag(self) -> None:
        # A value that PyYAML writes in quotes though it had none, such as one with a byte order mark, is text.
        if isinstance(self.event, yaml.ScalarEvent) and self.event.tag == PLAIN:
            self.event.implicit = (True, True)
        super().process_tag()


class QuickLoader(yaml.CBaseLoader if yaml.__with_libyaml__ else yaml.BaseLoader):  # type: ignore[misc]
    """A PlainLoader through libyaml where PyYAML has it, which is several times as quick.

    libyaml recurses without a limit of its own: refuse what is nested deeply before composing.
    """


for _each in (PlainLoader, PlainDumper, QuickLoader):
    _each.add_implicit_resolver(PLAIN, re.compile(""), None)


def _lone_surrogate(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)


def _text(node: yaml.ScalarNode) -> str:
    if _lone_surrogate(node.value):
        raise ValueError("a lone half of a surrogate pair is not a character")
    return str(node.value)


def _unknown(node: yaml.ScalarNode) -> ValueError:
    return ValueError(f"the tag {node.tag[:60]} has no meaning here")


# Scenarios: YAML 1.2 (core schema), less what YAML 1.1 reads as another number.

_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FRACTION = re.compile(r"[-+]?(0|[1-9][0-9]*)\.[0-9]+")
# A number to YAML 1.1 or 1.2: another base, grouped, with an exponent, in base 60, not finite.
_ODD = re.compile(
    r"""[-+]?0[xX][0-9a-fA-F_]+ | [-+]?0[bB][01_]+ | [-+]?0[oO][0-7_]+
    | [-+]?([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?
    | [-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?
    | [-+]?\.(inf|Inf|INF) | \.(nan|NaN|NAN)""",
    re.VERBOSE,
)


def scenario_value(node: yaml.ScalarNode) -> Any:
    """A value of a scenario: None, a bool, an int, a float or text.

    Raises:
        ValueError: it is a number that programs read differently, or has a tag of its own that does not fit.
    """
    text = _text(node)
    if node.tag == _TEXT:
        return text
    if node.tag != PLAIN and node.tag.removeprefix(STANDARD) not in {"null", "bool", "int", "float"}:
        raise _unknown(node)
    value = _core(text)
    if node.tag not in {PLAIN, _tag(value)}:
        raise ValueError(f"{text[:40]!r} cannot be read as {node.tag.removeprefix(STANDARD)}")
    return value


def _core(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > _MOST_DIGITS and _ODD.fullmatch(text):
        raise ValueError(f"a number of more than {_MOST_DIGITS} digits")
    if _WHOLE.fullmatch(text):
        return int(text)
    if _FRACTION.fullmatch(text):
        return float(text)
    if _ODD.fullmatch(text):
        raise ValueError(f"{text} is not a plain decimal number; write {_decimal(text)}{json.dumps(text)} for text")
    return text


def _decimal(text: str) -> str:
    """The number that was most likely meant, as part of a sentence; empty if there is no likely one."""
    digits = text.replace("_", "")
    if re.fullmatch(r"[-+]?0[xXbBoO][0-9a-fA-F]+", digits):
        return f"{int(digits, 0)}, or "
    if re.fullmatch(r"[-+]?[0-9]+", digits):
        return f"{int(digits)}, or "
    return ""


def _tag(value: Any) -> str:
    kinds = {bool: "bool", int: "int", float: "float", type(None): "null"}
    return STANDARD + kinds.get(type(value), "str")


# kubectl: sigs.k8s.io/yaml, which is go-yaml 2 (resolve.go) and then JSON.

_GO_WORDS: dict[str, Any] = {
    **_WORDS,
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "off", "Off", "OFF"), False),
}
_GO_INFINITE = {f"{sign}.{word}" for sign in ("", "+", "-") for word in ("inf", "Inf", "INF")} | {
    f".{word}" for word in ("nan", "NaN", "NAN")
}
_GO_WHOLE = re.compile(r"[-+]?(0[bB][01]+|0[xX][0-9a-fA-F]+|0[oO]?[0-7]+|0|[1-9][0-9]*)")
_GO_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


def kubectl_value(node: yaml.ScalarNode) -> Any:
    """A value as kubectl reads it, fit for JSON: None, a bool, an int, a finite float or text.

    Dates, times and = are text, 010 is 8, yes is true; a !!binary is the text that it encodes.

    Raises:
        ValueError: JSON has no such value, or its tag does not fit.
    """
    text = _text(node)
    kind = node.tag.removeprefix(STANDARD)
    if node.tag == PLAIN:
        return _go(text)
    if kind in {"str", "timestamp"}:
        return text
    if kind == "binary":
        return _decoded(text)
    if kind not in {"null", "bool", "int", "float"}:
        raise _unknown(node)
    value = _go(text)
    if _tag(value) != node.tag and not (kind == "float" and _tag(value) == STANDARD + "int"):
        raise ValueError(f"{text[:40]!r} cannot be read as {kind}")
    return value


def _go(text: str) -> Any:
    if text in _GO_WORDS:
        return _GO_WORDS[text]
    if text in _GO_INFINITE:
        raise ValueError(f"{text} is a number that JSON does not have")
    if text[0] not in "+-.0123456789":
        return text
    digits = text if text[0] == "." else text.replace("_", "")
    if len(digits) <= 2 * _MOST_DIGITS and _GO_WHOLE.fullmatch(digits):
        whole = _go_whole(digits)
        if whole < 1 << 64:
            return _as_json(whole)
    if _GO_FLOAT.fullmatch(digits) and math.isfinite(float(digits)):
        return _as_json(float(digits))
    return text


def _as_json(value: float) -> int | float:
    """A number as kubectl hands it on: whole where 64 bits hold it."""
    return int(value) if value == int(value) and -(1 << 63) <= value < 1 << 63 else float(value)


def _go_whole(digits: str) -> int:
    # Go takes a leading 0 alone for base 8; Python wants 0o.
    octal = re.fullmatch(r"([-+]?)0([0-7]+)", digits)
    return int(f"{octal[1]}0o{octal[2]}" if octal else digits, 0)


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text, validate=False).decode()
    except ValueError:
        raise ValueError("!!binary that is not text in base64; use binaryData, without a tag") from None
