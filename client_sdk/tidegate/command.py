"""The command ``python -m tidegate pub|sub``.

Rules:

1. Output is what was received and nothing else; whatever goes wrong is one line on standard error.
2. The exit code is 0 for success, 1 for what the broker, the bridge or the network refused, 2 for what the
   command line says, and 130 after Ctrl-C, as shells have it for an interrupted program.
3. ``pub`` sends a payload as it stands, byte for byte; ``sub`` writes it as it came, and a line end after it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Final

from tidegate.background import ThreadForEachCall
from tidegate.configuration import URL_VARIABLE
from tidegate.errors import ConfigurationError, MQTTError
from tidegate.outgoing import require_qos
from tidegate.publisher import AsyncPublisher
from tidegate.subscriber import AsyncSubscriber, named_filters
from tidegate.topics import validate_topic
from tidegate.transports.envelope import write_envelope

logger = logging.getLogger("tidegate")

SUCCESS: Final = 0
FAILURE: Final = 1
MISUSE: Final = 2
INTERRUPTED: Final = 130

READ_BYTES: Final = 65_536

EXAMPLES: Final = """examples:
  python -m tidegate pub -t sensors/kitchen -m '{"celsius": 21.5}'
  python -m tidegate sub -t 'sensors/#' --json
  python -m tidegate sub --url http://127.0.0.1:8080 -t 'alerts/#' --count 1
  tail -f readings.log | python -m tidegate pub -t readings --stdin-lines

The URL says where to: mqtt://, mqtts://, ws:// and wss:// lead to a broker, http:// and https:// to a bridge.
It comes from --url, else from TIDEGATE_URL, else it is mqtt://localhost:1883. A bridge's token comes from
TIDEGATE_TOKEN. Quote a filter: '#' begins a comment in a shell.

exit codes: 0 success, 1 refused or unreachable, 2 wrong arguments, 130 interrupted."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and give the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING, format="%(message)s")
    if not options.verbose:
        logger.setLevel(logging.CRITICAL)  # what fails is said once, by this command
    try:
        return asyncio.run(_publish(options) if options.command == "pub" else _subscribe(options))
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader of the output has had enough
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SUCCESS
    except ConfigurationError as error:
        return _complain(error, MISUSE)
    except MQTTError as error:
        return _complain(error, FAILURE)


def _complain(error: MQTTError, code: int) -> int:
    if sys.stderr is not None:  # closed by the caller
        sys.stderr.write(f"tidegate: {' '.join(str(error).split())}\n")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tidegate",
        description="Publish to MQTT topics and follow them, straight from a broker or through a bridge.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--url", help=f"a broker's or a bridge's URL; else {URL_VARIABLE}")
    common.add_argument("-q", "--qos", type=int, default=1, help="quality of service: 0, 1 (default) or 2")
    common.add_argument("-v", "--verbose", action="store_true", help="tell of connections on standard error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="pub|sub")
    pub = commands.add_parser(
        "pub",
        parents=[common],
        help="publish a message, or one for each line of standard input",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    pub.add_argument("-t", "--topic", required=True, help="the topic to publish to")
    payload = pub.add_mutually_exclusive_group()
    payload.add_argument("-m", "--message", help="the payload, as text; else all of standard input")
    payload.add_argument("--stdin-lines", action="store_true", help="publish each line as it comes")
    pub.add_argument("-r", "--retain", action="store_true", help="keep the message as the topic's value")
    sub = commands.add_parser(
        "sub",
        parents=[common],
        help="write the messages of topics to standard output",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sub.add_argument(
        "-t", "--topic", required=True, action="append", help="a topic filter, as 'sensors/#'; repeatable"
    )
    sub.add_argument("-c", "--count", type=_positive, help="end after so many messages")
    sub.add_argument(
        "--json", action="store_true", help="one JSON object a line: topic, payload, encoding, qos, retain …"
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not a count of messages")
    return number


async def _publish(options: argparse.Namespace) -> int:
    validate_topic(options.topic)
    require_qos(options.qos)
    async with AsyncPublisher(options.url) as publisher:
        async for payload in _payloads(options):
            await publisher.publish(options.topic, payload, options.qos, options.retain)
    return SUCCESS


async def _payloads(options: argparse.Namespace) -> AsyncIterator[bytes]:
    """What to publish."""
    if options.message is not None:
        yield os.fsencode(options.message)
        return
    unfinished = b""
    async for octets in _standard_input():
        unfinished += octets
        if options.stdin_lines:
            *lines, unfinished = unfinished.split(b"\n")
            for line in lines:
                yield line.removesuffix(b"\r")
    if unfinished or not options.stdin_lines:
        yield unfinished


async def _standard_input() -> AsyncIterator[bytes]:
    """Read past Python's buffer, whose lock would hold up the end of the program while nothing comes."""
    if sys.stdin is None:
        raise ConfigurationError("standard input is closed: give the payload with -m, or open it")
    asyncio.get_running_loop().set_default_executor(ThreadForEachCall())
    try:
        while octets := await asyncio.to_thread(os.read, sys.stdin.fileno(), READ_BYTES):
            yield octets
    except OSError as error:
        raise ConfigurationError(f"standard input cannot be read: {error.strerror}; give -m") from error


async def _subscribe(options: argparse.Namespace) -> int:
    if sys.stdout is None:
        raise ConfigurationError("standard output is closed: open it, or send it to a file")
    named_filters([(each, options.qos) for each in options.topic])
    remaining = options.count
    async with AsyncSubscriber(options.url) as subscriber:
        await subscriber.subscribe(options.topic, qos=options.qos)
        if not options.verbose:
            logger.setLevel(logging.WARNING)  # from now on a lost connection is news
        async for message in subscriber:
            _write(write_envelope(message).encode() if options.json else message.payload)
            if remaining is not None:
                remaining -= 1
                if not remaining:
                    break
    return SUCCESS


def _write(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()
