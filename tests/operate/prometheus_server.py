"""A real Prometheus with the project's own rules and alerts, scraping one server every second."""

import json
import socket
import subprocess
import time
import urllib.parse
import urllib.request

import yaml

from conftest import ROOT, tool


class Prometheus:
    """It runs until it is stopped."""

    def __init__(self, directory, target):
        folder = ROOT / "config/prometheus"
        configuration = yaml.safe_load((folder / "prometheus.yml").read_text())
        configuration["global"].update(scrape_interval="1s", scrape_timeout="1s", evaluation_interval="1s")
        configuration["rule_files"] = [str(folder / name) for name in configuration["rule_files"]]
        configuration["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
        (directory / "prometheus.yml").write_text(yaml.safe_dump(configuration))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        self.url = f"http://{address}"
        self.log = open(directory / "prometheus.log", "wb")
        command = [
            tool("prometheus"),
            f"--config.file={directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={directory / 'series'}",
            f"--web.listen-address={address}",
        ]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        self.started = time.time()

    def ask(self, path, **parameters):
        """What its API answers."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=10) as answer:
            return json.load(answer)["data"]

    def series(self, expression):
        """Every series of an expression since the start, a value a second."""
        return self.ask("query_range", query=expression, start=self.started, end=time.time(), step=1)["result"]

    def wait_for(self, expression, patience_seconds=60):
        """Until an expression has an answer."""
        end = time.monotonic() + patience_seconds
        while time.monotonic() < end:
            try:
                if self.ask("query", query=expression)["result"]:
                    return
            except OSError:
                pass
            time.sleep(0.2)
        raise AssertionError(f"no answer to {expression} within {patience_seconds} s")

    def stop(self):
        """Its end."""
        self.process.terminate()
        self.process.wait(60)
        self.log.close()
