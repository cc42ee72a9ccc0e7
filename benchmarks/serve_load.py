"""Eight clients ask ``slimface serve`` for a minute: nothing may be lost, nothing may grow.

python benchmarks/serve_load.py MODEL [--seconds 60] [--clients 8]
"""

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
import urllib.request

import cv2
import psutil

from slimface.data.drawn import Drawn, draw


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args()

    bodies = [encoded(seed) for seed in range(4)]
    server = subprocess.Popen(
        [sys.executable, "-m", "slimface", "serve", options.model, "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        url = address(server)
        expected = [ask(url, body) for body in bodies]
        print(json.dumps(load(server.pid, url, bodies, expected, options), indent=2))
    finally:
        server.terminate()
        server.wait(40)


def encoded(seed: int) -> bytes:
    picture, _ = draw(Drawn(count=1, height_px=480, width_px=640, seed=seed), 0)
    return cv2.imencode(".jpg", picture[..., ::-1])[1].tobytes()


def address(server: subprocess.Popen) -> str:
    for line in server.stderr:
        if "answers at " in line:
            return line.split("answers at ")[1].split()[0]
    raise SystemExit("the server did not start")


def ask(url: str, body: bytes) -> list:
    request = urllib.request.Request(
        f"{url}/detect", data=body, headers={"Content-Type": "image/jpeg"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["pictures"][0]["faces"]


def load(pid, url, bodies, expected, options) -> dict:
    process, end = psutil.Process(pid), time.monotonic() + options.seconds
    times, wrong, lost = [], [], []

    def client(number: int) -> None:
        turn = number
        while time.monotonic() < end:
            which, start = turn % len(bodies), time.perf_counter()
            try:
                if ask(url, bodies[which]) != expected[which]:
                    wrong.append(turn)
            except OSError as error:
                lost.append(str(error))
            times.append(1e3 * (time.perf_counter() - start))
            turn += 1

    threads = [threading.Thread(target=client, args=(i,)) for i in range(options.clients)]
    for thread in threads:
        thread.start()
    memory = []
    while time.monotonic() < end:
        memory.append(process.memory_info().rss / 2**20)
        time.sleep(min(1.0, options.seconds / 20))
    for thread in threads:
        thread.join()
    tail = len(memory) // 4
    return {
        "requests": len(times),
        "lost": len(lost),
        "wrong": len(wrong),
        "per_second": round(len(times) / options.seconds, 1),
        "median_ms": round(statistics.median(times), 1),
        "p99_ms": round(statistics.quantiles(times, n=100)[98], 1),
        "memory_mb_second_quarter": round(statistics.median(memory[tail : 2 * tail]), 1),
        "memory_mb_last_quarter": round(statistics.median(memory[-tail:]), 1),
    }


if __name__ == "__main__":
    main()
