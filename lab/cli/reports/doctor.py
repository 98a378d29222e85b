"""`klab doctor --report`: one text file that a person can read, and then send."""

from __future__ import annotations

import time
from pathlib import Path

from lab.app import report
from lab.app.labs import Labs
from lab.cli.terminal.output import echo, echo_json, note
from lab.errors import UsageError

HEAD = """\
klab report, {when}

Read this file before you send it to anybody.

Removed: private keys, tokens, passwords, certificates and the data of kubeconfigs, user names in URLs.
Replaced: your name (USER), this machine's name (HOST), public IP addresses (PUBLIC-ADDRESS), the second half of the
addresses of real network cards. Names that thousands have, such as root or debian, stay.
Still in it: private IP addresses, folders, the names of labs, of other virtual machines and of networks, installed
programs, the ends of klab's logs{and_consoles}. What a program or a lesson of yours wrote there may be a secret of a
form that klab does not know.
"""
AND_CONSOLES = " and of the nodes' consoles"


def run_report(lab: str | None, name: str, *, as_json: bool) -> None:
    """Write the report and say where it is."""
    labs = Labs()
    if lab is None and name in labs.names:
        raise UsageError(
            f"{name!r} is a lab; the file's name comes after --report", hint=f"klab doctor {name} --report"
        )
    file = Path(name or time.strftime("klab-report-%Y-%m-%d-%H%M%S.txt"))
    report.refuse_existing(file)
    found = None if lab is None else labs.find(lab)
    note("looking at this machine and its labs; this may take a minute or two")
    parts = [HEAD.format(when=time.strftime("%Y-%m-%d %H:%M %z"), and_consoles=AND_CONSOLES if found else "")]
    parts += [f"=== {each.title} ===\n{each.text.rstrip()}\n" for each in report.sections(found)]
    text = "\n".join(parts)
    report.write(file, text)
    if as_json:
        echo_json({"report": str(file), "bytes": len(text.encode())})
    else:
        echo(f"{file}: {len(text.encode()) // 1024} KiB; read it before you send it")
