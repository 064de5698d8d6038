"""A replacement for curl in the documents, for machines without curl 7.82 or newer."""

import argparse
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

JSON_SINCE = (7, 82)  # the version of curl that brought --json


def is_here() -> bool:
    """Whether the machine has a curl with all options that the documents use."""
    program = shutil.which("curl")
    if program is None:
        return False
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    found = re.match(r"curl (\d+)\.(\d+)", said.stdout)
    return found is not None and (int(found[1]), int(found[2])) >= JSON_SINCE


def main(arguments: Sequence[str]) -> int:
    """Send one request and print the answer."""
    given = parser().parse_args(arguments)
    headers = dict(header.split(": ", 1) for header in given.header)
    content = None
    if given.json is not None:
        headers |= {"Content-Type": "application/json", "Accept": "application/json"}
        content = given.json.encode()
    elif given.data_binary:
        content = Path(given.data_binary.removeprefix("@")).read_bytes()
    request = urllib.request.Request(given.url, content, headers, method=given.method)  # noqa: S310  ours
    try:
        answer = urllib.request.urlopen(request)  # noqa: S310
    except urllib.error.HTTPError as error:
        if given.fail:
            return 22
        answer = error
    with answer:
        body = answer.read()
    if given.include:
        sys.stdout.write(f"HTTP/1.1 {answer.status}\n{answer.headers}")
    if given.output:
        Path(given.output).write_bytes(body)
    else:
        sys.stdout.write(body.decode())
    return 0


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("-X", dest="method")
    parser.add_argument("-H", dest="header", action="append", default=[])
    parser.add_argument("--json")
    parser.add_argument("--data-binary")
    parser.add_argument("-o", dest="output")
    parser.add_argument("-i", dest="include", action="store_true")
    parser.add_argument("-f", dest="fail", action="store_true")
    parser.add_argument("-N", "-s", dest="ignored", action="store_true")
    parser.add_argument("url")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
