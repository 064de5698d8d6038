"""Probes of the parts that the service depends on, for the routes that report its readiness."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import Annotated, Literal, NamedTuple

from fastapi import Depends, Request

from descent.schemas import Part
from service.errors import ServiceError

LIMIT_S = 1.0  # seconds within which a part must answer

Found = tuple[Literal["ok", "warming", "absent", "failed"], str | None]


class Probe(NamedTuple):
    """One part: its name in the API and in a sentence, and the function that looks at it."""

    name: str
    noun: str
    #: whether the service is not ready without this part
    required: bool
    #: returns the state and a detail; a ServiceError means that the part has failed
    look: Callable[[], Found]


class Probes:
    """Looks at the parts, each in a thread of its own and within a time limit.

    The threads of the requests can all be busy for seconds, and a part can hang.
    """

    def __init__(self, *probes: Probe) -> None:
        self._probes = {probe.name: probe for probe in probes}
        #: the newest look at each part, which requests at the same time share
        self._looks: dict[str, Future[Part]] = {}

    async def parts(self) -> list[Part]:
        return await asyncio.gather(*map(self.part, self._probes))

    async def part(self, name: str) -> Part:
        probe, look = self._probes[name], self._looks.get(name)
        if look is None or look.done():
            look = self._looks[name] = Future()
            Thread(target=_look, args=(probe, look), name=f"probe {name}", daemon=True).start()
        done, _ = await asyncio.wait([asyncio.wrap_future(look)], timeout=LIMIT_S)
        if done:
            return done.pop().result()
        detail = f"{probe.noun} did not answer within {LIMIT_S:g} s."
        return Part(name=name, state="failed", required=probe.required, detail=detail)


def _look(probe: Probe, result: Future[Part]) -> None:
    try:
        state, detail = probe.look()
    except ServiceError as error:
        state, detail = "failed", error.detail
    except Exception as error:  # noqa: BLE001  the request raises it
        result.set_exception(error)
        return
    part = Part(name=probe.name, state=state, required=probe.required, detail=detail)
    result.set_result(part)


async def probes(request: Request) -> Probes:
    # Not a plain function: FastAPI would call that in a thread, and wait for a free one.
    found: Probes = request.app.state.probes
    return found


ProbesDep = Annotated[Probes, Depends(probes)]
