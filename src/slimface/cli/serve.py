"""``slimface serve``: a detector behind HTTP."""

import contextlib
from typing import Annotated

import typer

from slimface.cli.console import diary
from slimface.errors import MissingError


def serve(
    model: Annotated[
        str, typer.Argument(help="Name of the zoo, checkpoint, or exported file.")
    ] = "eresfd",
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, help="Pictures looked at side by side.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Threads of each worker.")] = 1,
    max_megabytes: Annotated[float, typer.Option(min=0.001, help="Of one picture.")] = 20,
    max_megapixels: Annotated[float, typer.Option(min=0.001, help="Of one picture.")] = 25,
    max_pictures: Annotated[int, typer.Option(min=1, help="In one request.")] = 16,
    timeout: Annotated[float, typer.Option(min=0.01, help="Seconds for one picture.")] = 30,
    waiting: Annotated[int, typer.Option(min=0, help="Requests that may stand in line.")] = 64,
) -> None:
    """Answer pictures with faces over HTTP: /detect, /detect/batch, /health, /metrics, /docs."""
    try:
        import uvicorn

        from slimface.serve.app import create_app
        from slimface.serve.limits import Limits
    except ImportError as error:
        if error.name is None or error.name.startswith("slimface"):
            raise
        raise MissingError(
            f"slimface serve needs the package {error.name}, which is not installed.\n"
            "Install it with: pip install 'slimface[serve]'"
        ) from error
    from slimface.cli.opening import open_model

    limits = Limits(
        bytes=round(max_megabytes * 2**20),
        pixels=round(max_megapixels * 1e6),
        pictures=max_pictures,
        seconds=timeout,
        waiting=waiting,
    )
    app = create_app(lambda: open_model(model, threads=threads), limits=limits, workers=workers)
    socket = _listen(host, port)
    where = f"http://{host}:{socket.getsockname()[1]}"
    diary.print(f"{model} answers at {where} (try {where}/docs; Ctrl-C stops)", soft_wrap=True)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=int(timeout) + 1)
    # Ctrl-C is how a server is meant to end; uvicorn has answered what was in work by then.
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[socket])


def _listen(host: str, port: int):  # type: ignore[no-untyped-def]  # socket is imported late
    import socket

    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise MissingError(
            f"cannot listen at {host}:{port}: {error.strerror}.\n"
            "Choose another --port (0 takes a free one), or stop the program that has it."
        ) from None
