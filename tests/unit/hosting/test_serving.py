"""The server: who may reach it, what callers hear of errors, how it drains."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
import trustme
from google.rpc.status_pb2 import Status
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from permslip._pb.permslip.v1.session_pb2 import Refusal
from permslip.errors import ConfigurationError, RefusedError
from permslip.hosting.metrics import Metrics
from permslip.hosting.serving import MAX_MESSAGE_BYTES, Service, Tls, channel_options, is_loopback

PROBE = "permslip.test.Probe"


class Probe:
    """A service with one method of each kind; each does what its request says."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.proceed = asyncio.Event()

    async def answer(self, request: bytes) -> bytes:
        if request == b"refuse":
            raise RefusedError("It was revoked.", code="GRANT_REVOKED", field="query.grant_id")
        if request == b"break":
            raise KeyError("detail for the log alone")
        if request == b"wait":
            self.entered.set()
            await self.proceed.wait()
        return request

    async def unary(self, request: bytes, _context: Any) -> bytes:
        return await self.answer(request)

    async def list(self, request: bytes, _context: Any) -> AsyncIterator[bytes]:
        yield b"first"
        yield await self.answer(request)

    async def collect(self, requests: AsyncIterator[bytes], _context: Any) -> bytes:
        return b",".join([await self.answer(request) async for request in requests])

    async def converse(self, requests: AsyncIterator[bytes], context: Any) -> None:
        async for request in requests:
            await context.write(await self.answer(request))

    async def abort(self, _request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.ABORTED, "by itself")
        raise AssertionError

    def add(self, server: grpc.aio.Server) -> None:
        handlers: dict[str, Any] = {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "List": grpc.unary_stream_rpc_method_handler(self.list),
            "Collect": grpc.stream_unary_rpc_method_handler(self.collect),
            "Converse": grpc.stream_stream_rpc_method_handler(self.converse),
            "Abort": grpc.unary_unary_rpc_method_handler(self.abort),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(PROBE, handlers),))


class Rig:
    """A service with a probe, and a channel to it."""

    def __init__(self, service: Service, probe: Probe, metrics: Metrics, channel: grpc.aio.Channel) -> None:
        self.service, self.probe, self.metrics, self.channel = service, probe, metrics, channel

    async def call(self, method: str, request: bytes) -> Any:
        channel: Any = self.channel
        path = f"/{PROBE}/{method}"
        if method == "List":
            return [response async for response in channel.unary_stream(path)(request)]
        if method == "Collect":
            return await channel.stream_unary(path)(iter([request]))
        if method == "Converse":
            return [response async for response in channel.stream_stream(path)(iter([request]))]
        return await channel.unary_unary(path)(request)

    def counted(self, method: str, code: str) -> float:
        value = self.metrics.registry.get_sample_value("permslip_requests_total", {"method": method, "code": code})
        return value or 0.0


@pytest_asyncio.fixture
async def rig() -> AsyncIterator[Rig]:
    probe, metrics = Probe(), Metrics()
    service = await Service.start("127.0.0.1:0", {PROBE: probe.add}, metrics=metrics)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}", options=channel_options()) as channel:
        yield Rig(service, probe, metrics, channel)
    probe.proceed.set()
    await service.drain(0)


def health(channel: grpc.aio.Channel) -> Any:
    return HealthStub(channel)


def reflection(channel: Any) -> Any:
    return ServerReflectionStub(channel)


METHODS = ["Unary", "List", "Collect", "Converse"]


@pytest.mark.parametrize("method", METHODS)
async def test_answer_passes(rig: Rig, method: str) -> None:
    answer = await rig.call(method, b"hello")

    assert answer == {"List": [b"first", b"hello"], "Converse": [b"hello"]}.get(method, b"hello")


@pytest.mark.parametrize("method", METHODS)
async def test_refusal_reaches_the_caller_with_reason_and_field(rig: Rig, method: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await rig.call(method, b"refuse")

    assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED
    metadata = dict(raised.value.trailing_metadata() or ())
    status = Status.FromString(metadata["grpc-status-details-bin"])
    refusal = Refusal()
    assert status.details[0].Unpack(refusal)
    assert (refusal.code, refusal.field, refusal.message) == (36, "query.grant_id", "It was revoked.")


@pytest.mark.parametrize("method", METHODS)
async def test_detail_of_an_unknown_error_goes_to_the_log_alone(
    rig: Rig, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises(grpc.aio.AioRpcError) as raised:
        await rig.call(method, b"break")

    assert raised.value.code() is grpc.StatusCode.INTERNAL
    assert "detail for the log alone" not in repr(raised.value)


async def test_handler_may_abort_by_itself(rig: Rig) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="by itself") as raised:
        await rig.call("Abort", b"")

    assert raised.value.code() is grpc.StatusCode.ABORTED
    assert rig.counted("Abort", "ABORTED") == 1


async def test_calls_are_counted_by_method_and_code(rig: Rig) -> None:
    await rig.call("Unary", b"x")
    await rig.call("List", b"x")
    for request in (b"refuse", b"break"):
        with pytest.raises(grpc.aio.AioRpcError):
            await rig.call("Unary", request)
    with pytest.raises(grpc.aio.AioRpcError):
        await rig.call("NoSuchMethod", b"x")

    assert rig.counted("Unary", "OK") == rig.counted("List", "OK") == 1
    assert rig.counted("Unary", "PERMISSION_DENIED") == rig.counted("Unary", "INTERNAL") == 1
    assert rig.counted("NoSuchMethod", "UNIMPLEMENTED") == 0


async def test_message_beyond_the_limit_is_refused(rig: Rig) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await rig.call("Unary", bytes(MAX_MESSAGE_BYTES + 1))

    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_health_and_reflection_name_the_service(rig: Rig) -> None:
    checked = await health(rig.channel).Check(HealthCheckRequest(service=PROBE))
    requests = iter([ServerReflectionRequest(list_services="")])
    reflected = [answer async for answer in reflection(rig.channel).ServerReflectionInfo(requests)]

    assert checked.status == HealthCheckResponse.SERVING
    assert PROBE in {service.name for service in reflected[0].list_services_response.service}


async def test_draining_says_so_and_lets_open_calls_end(rig: Rig) -> None:
    watch = health(rig.channel).Watch(HealthCheckRequest(service=PROBE))
    assert (await watch.read()).status == HealthCheckResponse.SERVING
    waiting = asyncio.ensure_future(rig.call("Unary", b"wait"))
    await rig.probe.entered.wait()

    draining = asyncio.ensure_future(rig.service.drain(60))
    assert (await watch.read()).status == HealthCheckResponse.NOT_SERVING
    watch.cancel()
    assert rig.service.draining.is_set()
    rig.probe.proceed.set()

    assert await waiting == b"wait"
    await draining
    await rig.service.drain(0)


async def test_calls_that_outlast_the_grace_period_are_cut_off(rig: Rig) -> None:
    waiting = asyncio.ensure_future(rig.call("Unary", b"wait"))
    await rig.probe.entered.wait()

    await rig.service.drain(0)

    with pytest.raises(grpc.aio.AioRpcError):
        await waiting


async def test_second_server_on_the_same_port_does_not_start(rig: Rig) -> None:
    with pytest.raises(ConfigurationError, match="nothing can listen") as raised:
        await Service.start(f"127.0.0.1:{rig.service.port}", {}, key="broker.listen")
    assert raised.value.key == "broker.listen"


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.0.2.1:7443", "school.example:7443"])
async def test_without_a_certificate_only_this_machine_may_reach_it(listen: str) -> None:
    with pytest.raises(ConfigurationError, match="can be reached by others"):
        await Service.start(listen, {})


@pytest.mark.parametrize("listen", ["", "7443", ":7443", "localhost", "localhost:", "localhost:x", "localhost:70000"])
async def test_address_that_is_none_is_refused(listen: str) -> None:
    with pytest.raises(ConfigurationError, match="expected an address"):
        await Service.start(listen, {})


def test_loopback_is_known_in_every_spelling() -> None:
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.3.2.1", "::1", "localhost"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.1", "example.org", "localhost.example"))


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    tls = Tls(tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "ca.pem")
    certificate.cert_chain_pems[0].write_to_path(str(tls.certificate))
    certificate.private_key_pem.write_to_path(str(tls.private_key))
    tls.private_key.chmod(0o600)
    authority.cert_pem.write_to_path(str(tls.client_authorities))
    client = authority.issue_cert("client@example.org")
    client.private_key_pem.write_to_path(str(tmp_path / "client-key.pem"))
    client.cert_chain_pems[0].write_to_path(str(tmp_path / "client-cert.pem"))
    return tls


async def check(port: int, credentials: grpc.ChannelCredentials) -> Any:
    async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
        return await health(channel).Check(HealthCheckRequest(), timeout=30)


async def test_tls_serves_those_who_trust_the_authority(tls: Tls, tmp_path: Path) -> None:
    service = await Service.start("localhost:0", {}, tls=Tls(tls.certificate, tls.private_key))
    try:
        root = (tmp_path / "ca.pem").read_bytes()
        answer = await check(service.port, grpc.ssl_channel_credentials(root))
        assert answer.status == HealthCheckResponse.SERVING
    finally:
        await service.drain(0)


async def test_client_certificates_can_be_required(tls: Tls, tmp_path: Path) -> None:
    root = (tmp_path / "ca.pem").read_bytes()
    pair = (tmp_path / "client-key.pem").read_bytes(), (tmp_path / "client-cert.pem").read_bytes()
    async with AsyncExitStack() as stack:
        service = await Service.start("localhost:0", {}, tls=tls)
        stack.push_async_callback(service.drain, 0)

        answer = await check(service.port, grpc.ssl_channel_credentials(root, *pair))
        assert answer.status == HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError):
            await check(service.port, grpc.ssl_channel_credentials(root))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda tls: tls.private_key.chmod(0o644), "can be read by others"),
        (lambda tls: tls.private_key.unlink(), "cannot be read: No such file"),
        (lambda tls: tls.certificate.write_text("not a certificate"), "is not a PEM file"),
    ],
)
async def test_unusable_certificate_files_are_named(tls: Tls, spoil: Callable[[Tls], object], says: str) -> None:
    spoil(tls)

    with pytest.raises(ConfigurationError, match=says):
        await Service.start("localhost:0", {}, tls=tls, key="broker.tls")


SERVER = """
import asyncio, sys
from permslip.hosting.logs import configure
from permslip.hosting.serving import Service, run

async def main(stop):
    service = await Service.start("127.0.0.1:0", {})
    print(service.port, flush=True)
    try:
        await stop.wait()
        print("stopping", flush=True)
        if "hang" in sys.argv:
            await asyncio.Event().wait()
    finally:
        await service.drain(0)
        print("drained", flush=True)
    return 7

configure("test")
sys.exit(run(main))
"""


@contextmanager
def serving(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", SERVER, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def port_of(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


async def test_frozen_server_is_noticed_long_before_the_deadline() -> None:
    with serving() as process:
        port = await asyncio.to_thread(port_of, process)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=channel_options()) as channel:
            watch = health(channel).Watch(HealthCheckRequest(), timeout=60)
            assert (await watch.read()).status == HealthCheckResponse.SERVING
            process.send_signal(signal.SIGSTOP)

            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await watch.read()

    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_the_service_in_order(number: signal.Signals) -> None:
    with serving() as process:
        port_of(process)
        process.send_signal(number)
        output, log = process.communicate(timeout=60)

    assert output == "stopping\ndrained\n"
    assert process.returncode == 7
    assert [json.loads(line)["event"] for line in log.splitlines()] == ["listening", "draining", "stopped"]


def test_second_signal_does_not_wait() -> None:
    with serving("hang") as process:
        assert process.stdout is not None
        port_of(process)
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "stopping\n"
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)

    assert output == "drained\n"
    assert process.returncode == 1
