"""A real Prometheus on loopback that scrapes one bridge each second, in a directory of its own."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import httpx
import yaml

from tests.support.bridge import wait_until
from tests.support.ports import LOOPBACK, ReservedPort

JOB: Final = "tidegate"
SECONDS: Final = 30.0
"""How long anything is waited for."""


class Sample(NamedTuple):
    """One series of an answer, with its labels and its value."""

    labels: dict[str, str]
    value: float


class Prometheus:
    """One server process with one listener on 127.0.0.1; a context manager that starts and stops it.

    Args:
        port: that of the bridge, on 127.0.0.1.
        token: what it shows the bridge, as ``Authorization: Bearer``.
        rules: files of rules, which are evaluated each second.
    """

    def __init__(self, port: int, *, token: str = "", rules: tuple[Path, ...] = ()) -> None:
        program = shutil.which("prometheus")
        if program is None:
            raise RuntimeError("prometheus is not installed, and the tests need it: `make test` installs it")
        self._program = program
        self._files = tempfile.TemporaryDirectory(prefix="prometheus-", ignore_cleanup_errors=True)
        self._folder = Path(self._files.name)
        self._reserved = ReservedPort()
        self.url = f"http://{LOOPBACK}:{self._reserved.number}"
        self._client = httpx.Client(base_url=self.url, timeout=SECONDS, trust_env=False)
        self._process: subprocess.Popen[bytes] | None = None
        job: dict[str, Any] = {
            "job_name": JOB,
            "static_configs": [{"targets": [f"{LOOPBACK}:{port}"]}],
        }
        if token:
            job["authorization"] = {"credentials": token}
        content = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(each.resolve()) for each in rules],
            "scrape_configs": [job],
        }
        (self._folder / "prometheus.yaml").write_text(yaml.safe_dump(content))

    def start(self) -> None:
        """Start the server, and wait until it answers.

        Raises:
            RuntimeError: it ended; the text has what it wrote.
        """
        with (self._folder / "log").open("wb") as log:
            self._process = process = subprocess.Popen(
                [
                    self._program,
                    f"--config.file={self._folder / 'prometheus.yaml'}",
                    f"--storage.tsdb.path={self._folder / 'samples'}",
                    f"--web.listen-address={LOOPBACK}:{self._reserved.number}",
                    "--log.level=warn",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

        def answers() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"Prometheus ended:\n{(self._folder / 'log').read_text()}")
            try:
                return self._client.get("/-/ready").status_code == 200
            except httpx.TransportError:
                return False

        wait_until(answers, SECONDS)

    def close(self) -> None:
        """Stop, and remove the files."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(SECONDS)
        self._client.close()
        self._reserved.close()
        self._files.cleanup()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def query(self, expression: str, at: float | None = None) -> list[Sample]:
        """What an expression gives.

        Args:
            expression: in PromQL.
            at: the moment, in Unix time; now where it is left out.
        """
        asked: dict[str, str | float] = {"query": expression}
        if at is not None:
            asked["time"] = at
        found = self._ask("/api/v1/query", asked)
        assert "vector" == found["resultType"], expression
        return [Sample(each["metric"], float(each["value"][1])) for each in found["result"]]

    def label_values(self, series: str, label: str) -> list[str]:
        """The values that a label has in some series, as Grafana's ``label_values`` asks for them."""
        return list(self._ask(f"/api/v1/label/{label}/values", {"match[]": series}))

    def alerts(self) -> dict[str, dict[str, Any]]:
        """The alerts of the rules by name: ``health``, ``lastError``, ``state`` and more."""
        groups = self._ask("/api/v1/rules", {"type": "alert"})["groups"]
        return {rule["name"]: rule for group in groups for rule in group["rules"]}

    def wait_for_scrape(self) -> float:
        """Wait until a scrape is in that began after now; when it began, in Unix time."""
        asked_at = time.time()
        began_at = 0.0

        def has_begun() -> bool:
            nonlocal began_at
            # Of anything but a plain selector, timestamp() is the moment of the question.
            found = self.query(f'timestamp(up{{job="{JOB}"}}) and up{{job="{JOB}"}} == 1')
            began_at = found[0].value if found else 0.0
            return began_at > asked_at

        wait_until(has_begun, SECONDS)
        return began_at

    def _ask(self, path: str, asked: dict[str, str | float]) -> Any:
        answer = self._client.get(path, params=asked)
        content = answer.json()
        assert "success" == content["status"], (asked, content.get("error"))
        assert not content.get("warnings"), (asked, content)
        return content["data"]
