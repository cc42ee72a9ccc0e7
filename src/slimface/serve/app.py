"""The HTTP interface: pictures in, faces out, health, metrics, and its own description."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Response, UploadFile
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

import slimface
from slimface.data.formats import Detected, as_json
from slimface.deploy.pipeline import Pipeline, Settings
from slimface.errors import SlimfaceError
from slimface.serve.desk import Answer, Desk
from slimface.serve.limits import BodyLimit, Limits, refusal, too_large

_PICTURE_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            kind: {"schema": {"type": "string", "format": "binary"}}
            for kind in ("image/jpeg", "image/png", "image/webp", "image/bmp")
        },
    }
}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    413: {"description": "Too many bytes or pictures"},
    422: {"description": "Not a whole picture, too many pixels, or an option out of range"},
    503: {"description": "The line is full, or the time is over; ask again"},
}
_USUAL = Limits()
_FORM_TYPES = ("multipart/form-data", "application/x-www-form-urlencoded", "application/json")


def create_app(
    open_pipeline: Callable[[], Pipeline], *, limits: Limits = _USUAL, workers: int = 1
) -> FastAPI:
    """Return the application; ``slimface serve`` runs it under uvicorn.

    Args:
        open_pipeline: Opens the model; called once a worker, before the first request.
        limits: What clients may ask for.
        workers: Pictures that are looked at side by side.
    """
    desk = Desk(open_pipeline, limits, workers)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        yield
        desk.close()

    app = FastAPI(
        title="slimface",
        version=slimface.__version__,
        summary=f"Faces in pictures, found by {desk.pipeline.name}.",
        lifespan=life,
    )
    app.add_middleware(BodyLimit, limits=limits)
    _count_requests(app, desk)
    _answer_errors(app)
    _add_detection(app, desk)
    _add_watching(app, desk)
    return app


def asked(
    score: Annotated[float | None, Query(ge=0, le=1, description="Lowest score")] = None,
    nms: Annotated[float | None, Query(gt=0, le=1, description="Largest overlap")] = None,
    cap: Annotated[int | None, Query(ge=1, description="Most faces a picture")] = None,
    longest: Annotated[int | None, Query(ge=1, le=8192, description="Resize to this")] = None,
) -> Settings:
    """Return the settings a client asks for; None is what the model's spec says."""
    return Settings(score_floor=score, nms_overlap=nms, cap=cap, longest_px=longest)


Asked = Annotated[Settings, Depends(asked)]


def _add_detection(app: FastAPI, desk: Desk) -> None:
    limits, about = desk.limits, _about(desk.pipeline)

    @app.post("/detect", openapi_extra=_PICTURE_BODY, responses=_REFUSALS)
    async def detect(request: Request, settings: Asked) -> dict[str, Any]:
        """Find the faces of one picture, sent as the body of the request."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind in _FORM_TYPES:
            raise refusal(
                415,
                f"the body is {kind}; here it is the picture itself.",
                "Send its bytes (curl --data-binary @picture.jpg -H 'Content-Type: image/jpeg'), "
                "or a form with pictures to /detect/batch.",
            )
        answer = await desk.look_at(await request.body(), settings)
        return {**about, "pictures": [_row("picture", answer)], "failed": []}

    @app.post("/detect/batch", responses=_REFUSALS)
    async def detect_batch(pictures: list[UploadFile], settings: Asked) -> dict[str, Any]:
        """Find the faces of several pictures, sent as a form; broken ones stand in ``failed``."""
        if len(pictures) > limits.pictures:
            raise too_large(f"{len(pictures)} pictures are more than {limits.pictures}.")
        done: list[dict[str, Any]] = []
        failed: list[dict[str, str]] = []
        for number, upload in enumerate(pictures):
            name = upload.filename or f"picture {number}"
            if (upload.size or 0) > limits.bytes:
                failed.append(
                    {"name": name, "error": f"more than {limits.bytes:,} bytes.\nSend it smaller."}
                )
                continue
            try:
                done.append(_row(name, await desk.look_at(await upload.read(), settings)))
            except SlimfaceError as error:
                failed.append({"name": name, "error": str(error)})
        return {**about, "pictures": done, "failed": failed}


def _add_watching(app: FastAPI, desk: Desk) -> None:
    about = _about(desk.pipeline)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Say that the model is open, and which it is."""
        return {"status": "ok", **about, "limits": desk.limits.model_dump()}

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Counters and times in the text format of Prometheus."""
        return Response(generate_latest(desk.meters.registry), media_type=CONTENT_TYPE_LATEST)


def _count_requests(app: FastAPI, desk: Desk) -> None:
    @app.middleware("http")
    async def count(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        response = await call_next(request)
        # Unknown paths are counted together, or anybody could fill the memory with names.
        known = request.scope.get("route") is not None
        path = request.url.path if known else "unknown"
        desk.meters.requests.labels(path, str(response.status_code)).inc()
        return response


def _answer_errors(app: FastAPI) -> None:
    @app.exception_handler(SlimfaceError)
    async def ours(_: Request, error: SlimfaceError) -> JSONResponse:
        what, _sep, remedy = str(error).rpartition("\n")
        return JSONResponse({"error": what, "remedy": remedy}, status_code=422)

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> JSONResponse:
        detail: Any = error.detail
        body = detail if isinstance(detail, dict) else {"error": detail}
        return JSONResponse(body, status_code=error.status_code, headers=error.headers)


def _about(pipeline: Pipeline) -> dict[str, Any]:
    return {
        "model": pipeline.name,
        "fingerprint": pipeline.fingerprint(),
        "runtime": pipeline.runtime,
    }


def _row(name: str, answer: Answer) -> dict[str, Any]:
    found = as_json(Detected(name, answer.faces, answer.height, answer.width))
    return {**found, "ms": answer.timing.as_row()}
