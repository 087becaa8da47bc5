"""What stands around every handler: errors become statuses, calls are counted, the unknown goes to the log.

A handler of a gRPC service decodes, calls one command, and lets errors rise. :class:`Guard` is the interceptor that
ends the call as :mod:`permslip.hosting.refusals` says.

Rules:

- What the handler did not expect becomes ``INTERNAL``; its detail and stack go to the log, never to the caller.
- A call that the caller gave up (it is cancelled) is counted and otherwise left alone.
- Calls of methods that do not exist are not counted: their names are the caller's choice.

Example::

    >>> server = grpc.aio.server(interceptors=[Guard(metrics)])         # doctest: +SKIP
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from permslip.hosting.logs import get_log
from permslip.hosting.metrics import Metrics
from permslip.hosting.refusals import abort_with, is_internal, reason_of, status_of

__all__ = ["Guard"]

_log = get_log(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
Behaviour = Callable[[Any, Context], Any]


class Guard(grpc.aio.ServerInterceptor):
    """The outermost interceptor of a server.

    Args:
        metrics: where calls are counted, if anywhere.
    """

    def __init__(self, metrics: Metrics | None = None) -> None:
        self._metrics = metrics

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wrap the handler of one call."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler  # gRPC answers UNIMPLEMENTED
        method = handler_call_details.method.rpartition("/")[2]
        kinds = {
            (False, False): (handler.unary_unary, grpc.unary_unary_rpc_method_handler),
            (False, True): (handler.unary_stream, grpc.unary_stream_rpc_method_handler),
            (True, False): (handler.stream_unary, grpc.stream_unary_rpc_method_handler),
            (True, True): (handler.stream_stream, grpc.stream_stream_rpc_method_handler),
        }
        behaviour, make = kinds[handler.request_streaming, handler.response_streaming]
        wrap = self._around_generator if inspect.isasyncgenfunction(behaviour) else self._around_coroutine
        return make(wrap(behaviour, method), handler.request_deserializer, handler.response_serializer)

    def _around_coroutine(self, behaviour: Behaviour, method: str) -> Behaviour:
        async def guarded(request: Any, context: Context) -> Any:
            with self._timed(method, context):
                try:
                    return await behaviour(request, context)
                except (grpc.aio.AbortError, asyncio.CancelledError):
                    raise
                except Exception as error:  # noqa: BLE001 (the table decides what the caller hears)
                    return await self._refuse(context, method, error)

        return guarded

    def _around_generator(self, behaviour: Behaviour, method: str) -> Behaviour:
        async def guarded(request: Any, context: Context) -> AsyncIterator[Any]:
            with self._timed(method, context):
                try:
                    async for response in behaviour(request, context):
                        yield response
                except (grpc.aio.AbortError, asyncio.CancelledError):
                    raise
                except Exception as error:  # noqa: BLE001 (the table decides what the caller hears)
                    await self._refuse(context, method, error)

        return guarded

    async def _refuse(self, context: Context, method: str, error: Exception) -> None:
        status, reason = status_of(error), reason_of(error)
        if status is grpc.StatusCode.INTERNAL:
            _log.error("call failed", method=method, exc_info=error)
        elif is_internal(error):
            _log.warning("call failed", method=method, reason=reason.name, detail=str(error))
        await abort_with(context, error)

    @contextmanager
    def _timed(self, method: str, context: Context) -> Iterator[None]:
        started = time.perf_counter()
        cancelled = False
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            cancelled = True
            raise
        finally:
            if self._metrics is not None:
                code = "CANCELLED" if cancelled else _code_name(context)
                self._metrics.requests.labels(method=method, code=code).inc()
                self._metrics.request_seconds.labels(method=method).observe(time.perf_counter() - started)


def _code_name(context: Context) -> str:
    """The status that a call ended with; gRPC keeps it as a member, a number, or nothing for OK."""
    code: Any = context.code()
    if isinstance(code, grpc.StatusCode):
        return code.name
    return next((each.name for each in grpc.StatusCode if each.value[0] == code), "OK")
