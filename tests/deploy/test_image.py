"""What the image is built from, as far as it can be tried without an engine (docs/image.md)."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.bridge import running_bridge
from tests.support.command import ROOT
from tests.support.ports import ReservedPort

IMAGE = ROOT / "deploy" / "image"
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
TOOLS = Path(sys.executable).parent
SECONDS = 60.0


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with these environment variables and no others of the bridge."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
    return subprocess.run(
        [str(part) for part in command],
        env=inherited | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def instructions() -> list[list[str]]:
    """The Dockerfile's instructions in words, continued lines joined."""
    text = DOCKERFILE.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = (line.strip() for line in text.splitlines())
    return [shlex.split(line) for line in lines if line and not line.startswith("#")]


def test_the_linter_finds_nothing() -> None:
    """Hadolint knows what makes an image large, unsafe or hard to repeat."""
    done = run(TOOLS / "hadolint", DOCKERFILE)
    assert (0, "") == (done.returncode, done.stdout)


def test_what_is_copied_is_there_and_let_into_the_build() -> None:
    """.dockerignore keeps everything out but what the Dockerfile copies, and no more is let in."""
    copied = {
        source
        for words in instructions()
        if words[0] == "COPY" and not words[1].startswith("--from")
        for source in words[1:-1]
    }
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    admitted = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert "*" in ignored
    assert [] == [path for path in sorted(copied | admitted) if not (ROOT / path).exists()]

    def is_within(path: str, others: set[str]) -> bool:
        return any(path == other or path.startswith(f"{other}/") for other in others)

    assert [] == [path for path in sorted(admitted) if not is_within(path, copied | {"deploy/image"})]
    assert [] == [path for path in sorted(copied - {"client_sdk"}) if not is_within(path, admitted)]


def test_nobody_is_root_and_signals_reach_the_server() -> None:
    """The user is a number, which Kubernetes can check; no shell stands between a signal and the bridge."""
    words = {line[0]: line[1:] for line in instructions()}
    user, _, group = words["USER"][0].partition(":")
    assert int(user) > 0
    assert int(group) > 0
    assert ["[/opt/tidegate/bin/tidegate]"] == words["ENTRYPOINT"]
    assert ["[serve]"] == words["CMD"]


def test_a_new_volume_for_credentials_belongs_to_the_user() -> None:
    """A new volume gets the owner of the directory that it is mounted over, and the chart has one there."""
    [user] = [words[1] for words in instructions() if words[0] == "USER"]
    [made] = [
        words[words.index("install") :] for words in instructions() if "install" in words and "-d" in words
    ]
    uid, _, gid = user.partition(":")
    assert ["install", "-d", "-m", "700", "-o", uid, "-g", gid, "/var/lib/tidegate/credentials"] == made
    pod_template = ROOT / "deploy" / "helm" / "tidegate" / "templates" / "_pod.tpl"
    assert f"mountPath: {made[-1]}\n" in pod_template.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["TIDEGATE_PORT", "TIDEGATE_MANAGEMENT_PORT"])
def test_the_health_check_asks_whether_the_bridge_lives(name: str) -> None:
    """A bridge whose broker is away is healthy: starting it again would not bring the broker back."""
    with (
        ReservedPort() as nobody,
        running_bridge(f"mqtt://127.0.0.1:{nobody.number}", wait_until_ready=False) as bridge,
    ):
        done = run(sys.executable, "-I", IMAGE / "healthcheck.py", **{name: str(bridge.port)})
    assert (0, "") == (done.returncode, done.stderr)


def test_the_health_check_fails_where_nothing_answers() -> None:
    """It says which port it asked."""
    with ReservedPort() as nobody:
        done = run(sys.executable, "-I", IMAGE / "healthcheck.py", TIDEGATE_PORT=str(nobody.number))
    assert 1 == done.returncode
    assert f"port {nobody.number} does not answer" in done.stderr


def test_what_installs_is_found_and_nothing_else() -> None:
    """The last stage loses pip and what brings it back, and keeps the packages of its distribution."""
    program = "import runpy; print(*runpy.run_path('deploy/image/strip.py')['installers'](), sep='\\n')"
    found = [Path(line) for line in run(sys.executable, "-c", program).stdout.splitlines()]
    assert {"pip", "ensurepip"} <= {path.name for path in found}
    kept = {name for name in ("tidegate", "fastapi", "uvicorn") if any(name in path.name for path in found)}
    assert set() == kept


def test_the_build_takes_the_engine_that_works(tmp_path: Path) -> None:
    """A docker without an engine behind it is passed over, and the next one gets the version and the base."""
    for name, status in (("docker", 1), ("podman", 0)):
        engine = tmp_path / name
        engine.write_text(f'#!/bin/sh\n[ "$1" = build ] || exit {status}\necho {name} "$@"\n')
        engine.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = run(IMAGE / "build", "--no-cache", PATH=path, IMAGE="plant/tidegate:7", BASE_IMAGE="base@sha256:0")
    assert 0 == done.returncode, done.stderr
    called = done.stdout.splitlines()[-1].split()
    assert ["podman", "build"] == called[:2]
    assert "." == called[-1]
    wanted = [
        "--format docker",
        "--tag plant/tidegate:7",
        "--build-arg BASE_IMAGE=base@sha256:0",
        "--no-cache",
    ]
    assert [] == [option for option in wanted if option not in " ".join(called)]


def built_with(tmp_path: Path, extras: str) -> subprocess.CompletedProcess[str]:
    """What the build script calls with these EXTRAS and no name for the image."""
    engine = tmp_path / "docker"
    engine.write_text('#!/bin/sh\necho "$@"\n')
    engine.chmod(0o755)
    return run(IMAGE / "build", PATH=f"{tmp_path}:{os.environ['PATH']}", EXTRAS=extras, IMAGE="")


def test_an_image_that_traces_has_a_tag_of_its_own(tmp_path: Path) -> None:
    """EXTRAS=otel goes into the build and into the name; nothing leaves both as they were."""
    traced, plain = (built_with(tmp_path, extras).stdout for extras in ("otel", ""))
    assert "--build-arg EXTRAS=otel" in traced
    assert "EXTRAS" not in plain
    named = re.compile(r"--tag (tidegate:[\d.]+(?:-\w+)?) ")
    assert [f"{found[1]}-otel" for found in named.finditer(plain)] == named.findall(traced)


def test_an_extra_without_a_lock_file_is_refused(tmp_path: Path) -> None:
    """Nothing is built that is not pinned."""
    done = built_with(tmp_path, "otelx")
    assert (2, "") == (done.returncode, done.stdout)
    assert "EXTRAS=otelx" in done.stderr


@pytest.mark.parametrize(("extras", "lock"), [("", "requirements.lock"), ("otel", "requirements-otel.lock")])
def test_the_build_installs_the_lock_file_of_the_extra(extras: str, lock: str) -> None:
    """The Dockerfile's own words, read by the shell that will read them, name a file that is copied."""
    [install] = [words for words in instructions() if words[0] == "RUN" and "/opt/tidegate" in words]
    named = install[-1]
    done = run("/bin/sh", "-c", f'printf %s "{named}"', EXTRAS=extras)
    assert lock == done.stdout
    assert [True] == [lock in words for words in instructions() if words[:2] == ["COPY", "requirements.lock"]]
    assert ["EXTRAS="] in [words[1:] for words in instructions() if words[0] == "ARG"]


def test_the_build_says_what_is_missing() -> None:
    """With no engine at all it ends in words."""
    done = run(IMAGE / "build", ENGINE="no-such-engine")
    assert 1 == done.returncode
    assert "no-such-engine" in done.stderr
    assert "Install one" in done.stderr
