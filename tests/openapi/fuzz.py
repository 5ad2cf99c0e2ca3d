"""Holds the API's document to its own rules, and the server to the document: by openapi-spec-validator and Schemathesis.

Run by .ci/run with the packages of requirements.txt; TANDEM_BINARY names the server's binary. Arguments are passed on to
Schemathesis.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import urllib.request

from openapi_spec_validator import OpenAPIV31SpecValidator

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]

# A watch is a stream without end, which Schemathesis would wait for.
STREAMS = ["--exclude-operation-id", "watch"]
# The same requests each time, within a few minutes.
BOUNDS = ["--seed", "1", "--generation-database", "none", "--max-examples", "30", "--request-timeout", "10"]


def start(data):
    """A server on free ports; the banner says which."""
    binary = pathlib.Path(os.environ.get("TANDEM_BINARY", ROOT / "target/release/tandem")).resolve()
    free = "127.0.0.1:0"
    command = [str(binary), "--data-dir", data, "--http-address", free, "--grpc-address", free, "--ops-address", free]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=data)
    lines = []
    for line in server.stdout:
        lines.append(line)
        found = re.search(r"REST (http://[\d.]+:\d+)", line)
        if found:
            return server, found.group(1)
    raise SystemExit("the server printed no address: " + "".join(lines))


def main():
    with tempfile.TemporaryDirectory() as data:
        server, address = start(data)
        try:
            with urllib.request.urlopen(f"{address}/openapi.json") as answer:
                OpenAPIV31SpecValidator(json.load(answer)).validate()
            print("the document is OpenAPI 3.1", flush=True)
            command = [str(pathlib.Path(sys.executable).parent / "schemathesis"), "--config-file", str(HERE / "fuzz.toml")]
            command += ["run", f"{address}/openapi.json", "--checks", "all", *STREAMS, *BOUNDS, *sys.argv[1:]]
            found = subprocess.run(command, cwd=data, env={**os.environ, "PYTHONPATH": str(HERE)}).returncode
        finally:
            server.terminate()
            code = server.wait(timeout=30)
        assert code == 0, f"the server exited with {code}"
    sys.exit(found)


if __name__ == "__main__":
    main()
