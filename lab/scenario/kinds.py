"""What a single value of a scenario may be: each kind converts what YAML gives, and describes itself as JSON Schema."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network

from lab.components.runtime.base import OTHER_REGISTRIES
from lab.scenario.schema import Value, did_you_mean, named
from lab.scenario.sizes import parse_mib

# RFC 1123 label, kept short: it becomes part of host names, volumes and network names.
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
# The same with dots inside, which a lab that is called after it does not have.
SCENARIO_NAME = re.compile(r"(?=.{1,40}$)[a-z0-9]+(?:-+[a-z0-9]+|\.[a-z0-9]+)*")
# What goes unescaped into libvirt's XML by vagrant-libvirt (templates/domain.xml.erb): CPU models, pools.
WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,80}")
# Names of /etc/hosts as Debian and klab write it.
RESERVED_HOSTNAMES = {
    *("localhost", "control-plane-endpoint", "ip6-localhost", "ip6-loopback", "ip6-localnet", "ip6-mcastprefix"),
    *("ip6-allnodes", "ip6-allrouters", "ip6-allhosts"),
}
# Groups of the Ansible inventory (lab.render.inventory); a host and a group of one name are one to Ansible.
RESERVED_GROUPS = {"all", "ungrouped", "workers"}
# RFC 1123 host names, with a port; a container runtime has a folder for each mirrored one.
_HOST_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
HOST = re.compile(rf"{_HOST_LABEL}(?:\.{_HOST_LABEL}){{0,30}}(?::[0-9]{{1,5}})?")
_URL_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]{1,100}){0,10}/?")
MOST_PORT = 65535


def check_name(value: object) -> str:
    """A lab or node name: an RFC 1123 label of at most 40 characters.

    Raises:
        ValueError: it is not.
    """
    value = _text(value)
    if NAME.fullmatch(value) is None:
        raise ValueError(
            f"{named(value)} is not a name: lower-case letters, digits and '-', at most 40, "
            "beginning and ending with a letter or digit"
        )
    if value in RESERVED_HOSTNAMES:
        raise ValueError(f"{value!r} is reserved; choose another name")
    return value


def check_scenario_name(value: object) -> str:
    """A scenario's name: as `check_name`, with dots inside, as versions have them.

    Raises:
        ValueError: it is not.
    """
    value = _text(value)
    if "." not in value:
        return check_name(value)
    if SCENARIO_NAME.fullmatch(value) is None:
        raise ValueError(
            f"{named(value)} is not a name: lower-case letters, digits, '-' and single dots, at most 40, "
            "beginning and ending with a letter or digit"
        )
    return value


def lab_name(scenario: str) -> str:
    """The name of a lab that is called after its scenario: an RFC 1123 label, which has no dot."""
    return scenario.replace(".", "-")


def check_node_name(value: object) -> str:
    """A node's name: as `check_name`, and no group of the Ansible inventory.

    Raises:
        ValueError: it is not.
    """
    if check_name(value) in RESERVED_GROUPS:
        raise ValueError(f"{value!r} is a group of the Ansible inventory; choose another name")
    return check_name(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        quoted = "" if isinstance(value, (dict, list)) else "; put quotes around it"
        raise ValueError(f"needs text, not {named(value)}{quoted}")
    return value


def _filled(value: object) -> str:
    if not _text(value).strip():
        raise ValueError("this text is empty")
    return _text(value)


def _word(value: object) -> str:
    if WORD.fullmatch(_text(value)) is None:
        raise ValueError(f"{named(value)} is not a plain name: letters, digits, '.', '_', '+' and '-', at most 81")
    return _text(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"needs true or false, not {named(value)}")
    return value


def _network(value: object) -> IPv4Network:
    if not isinstance(value, str) or "/" not in value:
        raise ValueError(f"{named(value)} is not a network; write for example 10.244.0.0/16")
    try:
        network = IPv4Network(value)
    except ValueError:
        try:
            meant = IPv4Network(value, strict=False)
        except ValueError:
            raise ValueError(f"{named(value)} is not an IPv4 network; write for example 10.244.0.0/16") from None
        raise ValueError(f"{named(value)} is an address inside a network; did you mean {meant}?") from None
    # Python also reads the host mask of Cisco's access lists there (ipaddress, IPv4Network).
    if value.rpartition("/")[2] not in {str(network.prefixlen), str(network.netmask)}:
        raise ValueError(f"{named(value)} is not in CIDR notation; did you mean {network}?")
    return network


def _address(value: object) -> IPv4Address:
    try:
        return IPv4Address(_text(value))
    except ValueError:
        raise ValueError(f"{named(value)} is not an IPv4 address, such as 192.168.56.11") from None


def _kubernetes_version(value: object) -> str:
    # An unquoted 1.30 is YAML's number 1.3; say so instead of guessing what is meant.
    if not isinstance(value, str):
        raise ValueError(
            f'{named(value)} is a number, not a version; write for example "1.35" or "1.35.4", with quotes'
        )
    return value.removeprefix("v")


def _format_version(value: object) -> int:
    if type(value) is not int or value != 1:
        raise ValueError(
            f"file format version {named(value)} is unknown; this klab reads version: 1 "
            "(the version of Kubernetes belongs under kubernetes)"
        )
    return value


def check_mirror(value: object) -> str:
    """The URL of a mirror: http or https, a host, perhaps a port and a plain path.

    Raises:
        ValueError: it is not.
    """
    scheme, separator, rest = _text(value).partition("://")
    host, slash, path = rest.partition("/")
    if scheme not in {"http", "https"} or not separator or not _is_host(host) or not _URL_PATH.fullmatch(slash + path):
        raise ValueError(f"{named(value)} is not an address such as http://mirror.example:5000")
    return _text(value)


def _is_host(text: str) -> bool:
    """Whether a text is a host's name, or that and a port."""
    port = text.partition(":")[2]
    return HOST.fullmatch(text) is not None and (not port or 0 < int(port) <= MOST_PORT)


def check_registry(value: object) -> str:
    """A registry's host name, perhaps with a port; or the word for all others.

    Raises:
        ValueError: it is not.
    """
    if _text(value) != OTHER_REGISTRIES and not _is_host(_text(value)):
        raise ValueError(
            f"a mirror's key is a registry's host name, such as docker.io, or {OTHER_REGISTRIES} for all others"
        )
    return _text(value)


def whole(least: int, most: int) -> Value:
    def convert(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"needs a whole number, not {named(value)}")
        if not least <= value <= most:
            raise ValueError(f"{named(value)} is not between {least} and {most}")
        return value

    return Value(convert, {"type": "integer", "minimum": least, "maximum": most})


def one_of(*words: str) -> Value:
    def convert(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueError(f"{named(value)} is not one of {', '.join(words)}{did_you_mean(value, list(words))}")
        return value

    return Value(convert, {"enum": list(words)})


_SIZE_JSON = {
    "type": ["string", "number"],
    "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*([KMGTkmgt][Ii]?[Bb]?)?\s*$",
    "exclusiveMinimum": 0,
}
NODE_NAME_KIND = Value(check_node_name, {"type": "string", "pattern": f"^{NAME.pattern}$"})
NAME_KIND = Value(check_scenario_name, {"type": "string", "pattern": f"^{SCENARIO_NAME.pattern}$"})
TEXT = Value(_text, {"type": "string"})
WORD_KIND = Value(_word, {"type": "string", "pattern": f"^{WORD.pattern}$"})
FILLED = Value(_filled, {"type": "string", "minLength": 1})
FLAG = Value(_flag, {"type": "boolean"})
NETWORK = Value(_network, {"type": "string", "pattern": r"^[0-9.]+/[0-9.]+$"})
ADDRESS = Value(_address, {"type": "string", "format": "ipv4"})
CPUS = whole(1, 64)
MEMORY = Value(lambda v: parse_mib(v, default_unit="M"), _SIZE_JSON)
DISK = Value(lambda v: -(-parse_mib(v, default_unit="G") // 1024), _SIZE_JSON)
KUBERNETES_VERSION = Value(_kubernetes_version, {"type": "string", "pattern": r"^v?\d+\.\d+(\.\d+)?$"})
FORMAT_VERSION = Value(_format_version, {"const": 1})
REGISTRY = Value(check_registry, {"type": "string"})
MIRROR = Value(check_mirror, {"type": "string", "pattern": "^https?://"})
